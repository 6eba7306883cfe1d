//! Splits a step's output over threads: the only file that calls rayon.
//!
//! A part is a run of output blocks and a range of pixels, made by splitting slices, so that parallel writes need no
//! `unsafe`. Every part computes whole outputs: no result depends on how the work was split. What computes is a `dyn Fn`, since
//! code for each kind of step would be 80 KB more.

mod callers;
mod runs;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sinew_kernels::Block;
use sinew_kernels::isa::fp_state::FpState;

pub(crate) use callers::ParallelFor;
pub use runs::for_each_run;

/// Output blocks that one kernel call gets at most; larger outputs are computed in several calls.
pub const MAX_PLANES: usize = 128;

/// How a step's output may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The number of parts; 1 keeps the step on the calling thread.
    pub parts: usize,
    /// What is cut.
    pub along: Along,
}

/// What is cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Along {
    /// Runs of output blocks, in multiples of `unit`.
    Blocks {
        /// Blocks that stay together.
        unit: usize,
    },
    /// Ranges of pixels, in multiples of `unit`.
    Pixels {
        /// Pixels that stay together: a row, or a row of tiles.
        unit: usize,
    },
}

/// What computes a part of an output: it gets where the part is, its slices, and its own piece of scratch.
pub type Compute<'c, P> = dyn Fn(P, &mut [&mut [Block]], &mut [Block]) + Sync + 'c;

impl Cut {
    /// The whole output in one part.
    pub const WHOLE: Cut = Cut { parts: 1, along: Along::Pixels { unit: 1 } };
}

/// The part of an output that one call computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first output block.
    pub first_block: usize,
    /// The pixels, in each of the part's blocks.
    pub pixels: Range<usize>,
}

/// Calls `compute` for each part of `out`, which holds `out.len() / plane` blocks of `plane` pixels.
///
/// `compute` gets the part, one slice per block of it, and its own piece of `scratch`.
pub fn for_each_part(
    cut: Cut,
    out: &mut [Block],
    plane: usize,
    scratch: &mut [Block],
    compute: &Compute<'_, Part>,
) {
    for_each_part_of(cut, [out], plane, scratch, compute);
}

/// As [`for_each_part`], for an output in halves of as many blocks each, or one half: `compute` gets the slices of the
/// part's blocks in the first one, then those in the other.
pub fn for_each_part_of<const H: usize>(
    cut: Cut,
    mut halves: [&mut [Block]; H],
    plane: usize,
    scratch: &mut [Block],
    compute: &Compute<'_, Part>,
) {
    debug_assert!(halves.iter().all(|half| half.len() == halves[0].len() && half.len() % plane == 0));
    let run = MAX_PLANES / H;
    match cut.along {
        Along::Blocks { unit } => {
            let blocks = Blocks { first_block: 0, halves, plane };
            split(
                cut.parts,
                unit,
                blocks,
                scratch,
                &|Blocks { mut first_block, mut halves, .. }, scratch| {
                    while !halves[0].is_empty() {
                        let (now, later) = split_halves(halves, run * plane);
                        halves = later;
                        let part = Part { first_block, pixels: 0..plane };
                        compute(part, Planes::of(now, plane).slices(), scratch);
                        first_block += run;
                    }
                },
            );
        }
        Along::Pixels { unit } => {
            let mut first_block = 0;
            while !halves[0].is_empty() {
                let (now, later) = split_halves(halves, run * plane);
                halves = later;
                let pixels = Pixels { planes: Planes::of(now, plane), pixels: 0..plane };
                split(cut.parts, unit, pixels, scratch, &|Pixels { mut planes, pixels }, scratch| {
                    compute(Part { first_block, pixels }, planes.slices(), scratch);
                });
                first_block += run;
            }
        }
    }
}

/// Calls `compute` for each block of an output in several maps, which lie one after the other in `out`: as many as
/// `planes` has entries, each `blocks` planes of so many pixels.
///
/// `compute` gets the block, its plane in each map, and its part's own piece of `scratch`.
///
/// # Panics
/// With more than [`MAX_PLANES`] maps.
pub fn for_each_block(
    cut: Cut,
    out: &mut [Block],
    planes: impl Iterator<Item = usize>,
    blocks: usize,
    scratch: &mut [Block],
    compute: &Compute<'_, usize>,
) {
    let mut rest = out;
    let maps = planes.map(|plane| {
        let (map, behind) = std::mem::take(&mut rest).split_at_mut(blocks * plane);
        rest = behind;
        map
    });
    for_each_run_of_blocks(cut, maps, blocks, scratch, &|own, maps, scratch| {
        let (count, maps_count) = (own.len(), maps.len());
        for (index, block) in own.enumerate() {
            let mut planes = no_planes();
            for (plane, map) in planes.iter_mut().zip(&mut *maps) {
                let pixels = map.len() / count;
                *plane = &mut map[index * pixels..][..pixels];
            }
            compute(block, &mut planes[..maps_count], scratch);
        }
    });
}

/// Calls `compute` for each part of an output in several maps of `blocks` blocks each: with the part's blocks, their
/// planes in each map, and the part's own piece of `scratch`. Parts are runs of blocks.
///
/// # Panics
/// With more than [`MAX_PLANES`] maps, or a cut along pixels.
pub fn for_each_run_of_blocks<'a>(
    cut: Cut,
    maps: impl Iterator<Item = &'a mut [Block]>,
    blocks: usize,
    scratch: &mut [Block],
    compute: &Compute<'_, Range<usize>>,
) {
    let Along::Blocks { unit } = cut.along else { unreachable!("maps are cut along blocks") };
    let mut planes = Planes { planes: no_planes(), count: 0 };
    for map in maps {
        planes.planes[planes.count] = map;
        planes.count += 1;
    }
    split(cut.parts, unit, Maps { maps: planes, blocks: 0..blocks }, scratch, &|mut part, scratch| {
        compute(part.blocks, part.maps.slices(), scratch);
    });
}

// ---- splitting ----

/// Something of a length that can be cut in two.
trait Divide: Send + Sized {
    fn len(&self) -> usize;
    /// The first `at`, and the others.
    fn split_at(self, at: usize) -> (Self, Self);
}

/// Splits `whole` into at most `parts` parts at multiples of `unit`, and `scratch` into as many pieces.
fn split<T: Divide>(
    parts: usize,
    unit: usize,
    whole: T,
    scratch: &mut [Block],
    compute: &(dyn Fn(T, &mut [Block]) + Sync),
) {
    let piece = scratch.len() / parts;
    let compute = |part: T, scratch: &mut [Block]| {
        // Threads of a pool have a floating-point state of their own.
        let _state = (parts > 1).then(FpState::set_default);
        compute(part, &mut scratch[..piece]);
    };
    match ParallelFor::installed().filter(|_| parts > 1) {
        Some(threads) => {
            // One part off at a time; where there are fewer units than parts, one unit.
            let first_of = |(part, scratch): (T, _), parts: usize| {
                let most = parts.min(part.len().div_ceil(unit)).max(1);
                let share = first_share(part.len(), unit, 1, most);
                divide(part, share, scratch, piece)
            };
            threads.hand_out((whole, scratch), parts, &first_of, &|(part, scratch)| compute(part, scratch));
        }
        None => halve(parts, unit, whole, scratch, piece, &compute),
    }
}

/// Each half on its own, as long as there are several parts and units.
fn halve<T: Divide>(
    parts: usize,
    unit: usize,
    whole: T,
    scratch: &mut [Block],
    piece: usize,
    compute: &(dyn Fn(T, &mut [Block]) + Sync),
) {
    let share = first_share(whole.len(), unit, parts / 2, parts);
    if parts == 1 || share == 0 {
        return compute(whole, scratch);
    }
    match divide(whole, share, scratch, parts / 2 * piece) {
        (left, Some(right)) => join(
            || halve(parts / 2, unit, left.0, left.1, piece, compute),
            || halve(parts - parts / 2, unit, right.0, right.1, piece, compute),
        ),
        (all, None) => compute(all.0, all.1),
    }
}

/// What is to be computed, with its scratch.
type WithScratch<'s, T> = (T, &'s mut [Block]);

/// The first `share`, with so much scratch, and the others where there are any.
fn divide<T: Divide>(
    whole: T,
    share: usize,
    scratch: &mut [Block],
    scratch_share: usize,
) -> (WithScratch<'_, T>, Option<WithScratch<'_, T>>) {
    if share == whole.len() {
        return ((whole, scratch), None);
    }
    let (first, rest) = whole.split_at(share);
    let (scratch, rest_scratch) = scratch.split_at_mut(scratch_share);
    ((first, scratch), Some((rest, rest_scratch)))
}

/// How many of `total`, in multiples of `unit`, the first `first` of `parts` parts get.
fn first_share(total: usize, unit: usize, first: usize, parts: usize) -> usize {
    let units = total.div_ceil(unit);
    (units * first / parts * unit).min(total)
}

#[cfg(feature = "parallel")]
fn join(left: impl FnOnce() + Send, right: impl FnOnce() + Send) {
    rayon::join(left, right);
}

#[cfg(not(feature = "parallel"))]
fn join(left: impl FnOnce(), right: impl FnOnce()) {
    left();
    right();
}

// ---- what is split ----

/// Whole blocks of halves.
struct Blocks<'a, const H: usize> {
    first_block: usize,
    halves: [&'a mut [Block]; H],
    plane: usize,
}

impl<const H: usize> Divide for Blocks<'_, H> {
    fn len(&self) -> usize {
        self.halves[0].len() / self.plane
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let (halves, rest) = split_halves(self.halves, at * self.plane);
        (
            Self { halves, ..self },
            Self { halves: rest, first_block: self.first_block + at, plane: self.plane },
        )
    }
}

/// A range of pixels of some blocks.
struct Pixels<'a> {
    planes: Planes<'a>,
    pixels: Range<usize>,
}

impl Divide for Pixels<'_> {
    fn len(&self) -> usize {
        self.pixels.len()
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let middle = self.pixels.start + at;
        let (planes, rest) = self.planes.split_by(|_| at);
        (
            Self { planes, pixels: self.pixels.start..middle },
            Self { planes: rest, pixels: middle..self.pixels.end },
        )
    }
}

/// A range of blocks of several maps.
struct Maps<'a> {
    maps: Planes<'a>,
    blocks: Range<usize>,
}

impl Divide for Maps<'_> {
    fn len(&self) -> usize {
        self.blocks.len()
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let (count, middle) = (self.blocks.len(), self.blocks.start + at);
        let (maps, rest) = self.maps.split_by(|map| map.len() / count * at);
        (
            Self { maps, blocks: self.blocks.start..middle },
            Self { maps: rest, blocks: middle..self.blocks.end },
        )
    }
}

/// Up to `at` blocks of each half, and the rest.
fn split_halves<const H: usize>(
    halves: [&mut [Block]; H],
    at: usize,
) -> ([&mut [Block]; H], [&mut [Block]; H]) {
    let mut rest: [&mut [Block]; H] = std::array::from_fn(|_| Default::default());
    let mut rests = rest.iter_mut();
    let start = halves.map(|half| {
        let (start, end) = half.split_at_mut(at.min(half.len()));
        if let Some(rest) = rests.next() {
            *rest = end;
        }
        start
    });
    (start, rest)
}

/// The same pixels of up to [`MAX_PLANES`] blocks.
struct Planes<'a> {
    planes: [&'a mut [Block]; MAX_PLANES],
    count: usize,
}

fn no_planes<'a>() -> [&'a mut [Block]; MAX_PLANES] {
    std::array::from_fn(|_| Default::default())
}

impl<'a> Planes<'a> {
    fn of<const H: usize>(halves: [&'a mut [Block]; H], plane: usize) -> Self {
        let mut planes = no_planes();
        let mut count = 0;
        let all = halves.into_iter().flat_map(|half| half.chunks_mut(plane));
        for (slot, plane) in planes.iter_mut().zip(all) {
            *slot = plane;
            count += 1;
        }
        Self { planes, count }
    }

    /// Each plane up to where `at` says, and from there on.
    fn split_by(mut self, at: impl Fn(&[Block]) -> usize) -> (Self, Self) {
        let mut rest = Planes { planes: no_planes(), count: self.count };
        for (plane, rest) in self.planes[..self.count].iter_mut().zip(&mut rest.planes) {
            let at = at(plane);
            (*plane, *rest) = std::mem::take(plane).split_at_mut(at);
        }
        (self, rest)
    }

    fn slices(&mut self) -> &mut [&'a mut [Block]] {
        &mut self.planes[..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every block of every pixel is written once, by a part that knows where it is.
    fn check(cut: Cut, blocks: usize, plane: usize) {
        let mut out = vec![[-1.0; 16]; blocks * plane];
        let mut scratch = vec![[0.0; 16]; 3 * cut.parts];
        for_each_part(cut, &mut out, plane, &mut scratch, &|part, planes, scratch| {
            assert_eq!(scratch.len(), 3);
            for (block, plane) in planes.iter_mut().enumerate() {
                assert_eq!(plane.len(), part.pixels.len());
                for (pixel, value) in part.pixels.clone().zip(plane.iter_mut()) {
                    assert_eq!(value[0], -1.0);
                    *value = [(part.first_block + block) as f32 * 1000.0 + pixel as f32; 16];
                }
            }
        });
        for (i, value) in out.iter().enumerate() {
            assert_eq!(value[0], (i / plane) as f32 * 1000.0 + (i % plane) as f32);
        }
    }

    /// Blocks of two halves stay together.
    fn check_halves(cut: Cut, blocks: usize, plane: usize) {
        let mut out = vec![[-1.0; 16]; 2 * blocks * plane];
        let (first, second) = out.split_at_mut(blocks * plane);
        for_each_part_of(cut, [first, second], plane, &mut [], &|part, planes, _| {
            let (first, second) = planes.split_at_mut(planes.len() / 2);
            assert_eq!(first.len(), second.len());
            for (half, planes) in [first, second].into_iter().enumerate() {
                for (block, plane) in planes.iter_mut().enumerate() {
                    assert_eq!(plane.len(), part.pixels.len());
                    for (pixel, value) in part.pixels.clone().zip(plane.iter_mut()) {
                        assert_eq!(value[0], -1.0);
                        *value = [((half * blocks + part.first_block + block) * 1000 + pixel) as f32; 16];
                    }
                }
            }
        });
        for (i, value) in out.iter().enumerate() {
            assert_eq!(value[0], (i / plane * 1000 + i % plane) as f32);
        }
    }

    #[test]
    fn parts_cover_several_maps_once() {
        for parts in 1..=4 {
            for blocks in [1, 2, 3, 7] {
                let planes = [5, 1, 4];
                let mut out = vec![[-1.0; 16]; blocks * 10];
                let mut scratch = vec![[0.0; 16]; 3 * parts];
                let cut = Cut { parts, along: Along::Blocks { unit: 1 } };
                for_each_block(
                    cut,
                    &mut out,
                    planes.into_iter(),
                    blocks,
                    &mut scratch,
                    &|block, maps, scratch| {
                        assert_eq!(scratch.len(), 3);
                        assert_eq!(maps.iter().map(|map| map.len()).collect::<Vec<_>>(), planes);
                        for (map, plane) in maps.iter_mut().enumerate() {
                            for (pixel, value) in plane.iter_mut().enumerate() {
                                assert_eq!(value[0], -1.0);
                                *value = [(map * 10_000 + block * 100 + pixel) as f32; 16];
                            }
                        }
                    },
                );
                let expected = (0..3).flat_map(|map| {
                    let pixel = move |block: usize| {
                        (0..planes[map]).map(move |i| (map * 10_000 + block * 100 + i) as f32)
                    };
                    (0..blocks).flat_map(pixel)
                });
                assert!(out.iter().map(|value| value[0]).eq(expected), "{parts} parts, {blocks} blocks");
            }
        }
    }

    /// As the rules allow: in another order, on other threads; and against them: a part twice, one left out.
    #[test]
    fn a_callers_threads_cover_the_output_once() {
        let on_threads = ParallelFor {
            run: |_, parts, task| {
                std::thread::scope(|scope| {
                    for index in (0..parts).rev() {
                        scope.spawn(move || task(index));
                    }
                });
            },
            context: 0,
        };
        let careless = ParallelFor {
            run: |_, parts, task| {
                task(parts + 3);
                task(0);
                task(0);
            },
            context: 0,
        };
        for threads in [on_threads, careless] {
            threads.install(|| {
                for parts in 1..=5 {
                    for (blocks, plane) in [(1, 1), (1, 49), (3, 7), (130, 4), (7, 100)] {
                        for unit in [1, 3, 14] {
                            check(Cut { parts, along: Along::Blocks { unit } }, blocks, plane);
                            check(Cut { parts, along: Along::Pixels { unit } }, blocks, plane);
                        }
                    }
                }
            });
        }
        assert!(ParallelFor::installed().is_none());
    }

    #[test]
    fn parts_cover_the_output_once() {
        for parts in 1..=5 {
            for (blocks, plane) in [(1, 1), (1, 49), (3, 7), (130, 4), (300, 1), (7, 100)] {
                for unit in [1, 3, 14] {
                    check(Cut { parts, along: Along::Blocks { unit } }, blocks, plane);
                    check(Cut { parts, along: Along::Pixels { unit } }, blocks, plane);
                    check_halves(Cut { parts, along: Along::Blocks { unit } }, blocks, plane);
                    check_halves(Cut { parts, along: Along::Pixels { unit } }, blocks, plane);
                }
            }
        }
    }
}
