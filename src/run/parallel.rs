//! Splits a step's output over threads: the only file that calls rayon.
//!
//! A part is a run of output blocks and a range of pixels, made by splitting slices, so that parallel writes need no
//! `unsafe`. Every part computes whole outputs: no result depends on how the work was split.

use std::ops::Range;

use sinew_kernels::Block;
use sinew_kernels::isa::fp_state::FpState;

/// Output blocks that one kernel call gets at most; larger outputs are computed in several calls.
pub const MAX_PLANES: usize = 128;

/// How a step's output may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of parts; 1 keeps the step on the calling thread.
    pub parts: usize,
    /// What is cut.
    pub along: Along,
}

/// What is cut into parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    compute: &(impl Fn(Part, &mut [&mut [Block]], &mut [Block]) + Sync),
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
    compute: &(impl Fn(Part, &mut [&mut [Block]], &mut [Block]) + Sync),
) {
    debug_assert!(halves.iter().all(|half| half.len() == halves[0].len() && half.len() % plane == 0));
    let piece = scratch.len() / cut.parts;
    match cut.along {
        Along::Blocks { unit } => {
            let split = Blocks { plane, unit, piece, parallel: cut.parts > 1, compute };
            split.run(0, halves, cut.parts, scratch);
        }
        Along::Pixels { unit } => {
            let run = MAX_PLANES / H;
            let mut first_block = 0;
            while !halves[0].is_empty() {
                let (now, later) = split_halves(halves, run * plane);
                halves = later;
                let split = Pixels { first_block, unit, piece, parallel: cut.parts > 1, compute };
                let mut planes = Planes::of(now, plane);
                split.run(&mut planes, 0..plane, cut.parts, scratch);
                first_block += run;
            }
        }
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
    compute: &(impl Fn(usize, &mut [&mut [Block]], &mut [Block]) + Sync),
) {
    let mut maps = Planes { planes: no_planes(), count: 0 };
    let mut rest = out;
    for plane in planes {
        let (map, behind) = rest.split_at_mut(blocks * plane);
        maps.planes[maps.count] = map;
        maps.count += 1;
        rest = behind;
    }
    let piece = scratch.len() / cut.parts;
    let split = Maps { piece, parallel: cut.parts > 1, compute };
    split.run(&mut maps, 0..blocks, cut.parts, scratch);
}

/// How many of `total`, in multiples of `unit`, the first half of `parts` parts gets.
fn first_share(total: usize, unit: usize, parts: usize) -> usize {
    let units = total.div_ceil(unit);
    (units * (parts / 2) / parts * unit).min(total)
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

struct Blocks<'f, F> {
    plane: usize,
    unit: usize,
    piece: usize,
    parallel: bool,
    compute: &'f F,
}

impl<F: Fn(Part, &mut [&mut [Block]], &mut [Block]) + Sync> Blocks<'_, F> {
    fn run<const H: usize>(
        &self,
        first_block: usize,
        mut halves: [&mut [Block]; H],
        parts: usize,
        scratch: &mut [Block],
    ) {
        let blocks = halves[0].len() / self.plane;
        let share = first_share(blocks, self.unit, parts);
        if parts > 1 && share > 0 && share < blocks {
            let (left, right) = split_halves(halves, share * self.plane);
            let (left_scratch, right_scratch) = scratch.split_at_mut(parts / 2 * self.piece);
            join(
                || self.run(first_block, left, parts / 2, left_scratch),
                || self.run(first_block + share, right, parts - parts / 2, right_scratch),
            );
            return;
        }
        let _state = self.parallel.then(FpState::set_default);
        let run = MAX_PLANES / H;
        let mut first_block = first_block;
        while !halves[0].is_empty() {
            let (now, later) = split_halves(halves, run * self.plane);
            halves = later;
            let mut planes = Planes::of(now, self.plane);
            let part = Part { first_block, pixels: 0..self.plane };
            (self.compute)(part, planes.slices(), &mut scratch[..self.piece]);
            first_block += run;
        }
    }
}

struct Pixels<'f, F> {
    first_block: usize,
    unit: usize,
    piece: usize,
    parallel: bool,
    compute: &'f F,
}

impl<F: Fn(Part, &mut [&mut [Block]], &mut [Block]) + Sync> Pixels<'_, F> {
    fn run(&self, planes: &mut Planes<'_>, pixels: Range<usize>, parts: usize, scratch: &mut [Block]) {
        let share = first_share(pixels.len(), self.unit, parts);
        if parts > 1 && share > 0 && share < pixels.len() {
            let middle = pixels.start + share;
            let (mut left, mut right) = planes.split_at(share);
            let (left_scratch, right_scratch) = scratch.split_at_mut(parts / 2 * self.piece);
            join(
                || self.run(&mut left, pixels.start..middle, parts / 2, left_scratch),
                || self.run(&mut right, middle..pixels.end, parts - parts / 2, right_scratch),
            );
            return;
        }
        let _state = self.parallel.then(FpState::set_default);
        let part = Part { first_block: self.first_block, pixels };
        (self.compute)(part, planes.slices(), &mut scratch[..self.piece]);
    }
}

struct Maps<'f, F> {
    piece: usize,
    parallel: bool,
    compute: &'f F,
}

impl<F: Fn(usize, &mut [&mut [Block]], &mut [Block]) + Sync> Maps<'_, F> {
    fn run(&self, maps: &mut Planes<'_>, blocks: Range<usize>, parts: usize, scratch: &mut [Block]) {
        let share = first_share(blocks.len(), 1, parts);
        if parts > 1 && share > 0 && share < blocks.len() {
            let middle = blocks.start + share;
            let (mut left, mut right) = maps.split_by(|map| map.len() / blocks.len() * share);
            let (left_scratch, right_scratch) = scratch.split_at_mut(parts / 2 * self.piece);
            join(
                || self.run(&mut left, blocks.start..middle, parts / 2, left_scratch),
                || self.run(&mut right, middle..blocks.end, parts - parts / 2, right_scratch),
            );
            return;
        }
        let _state = self.parallel.then(FpState::set_default);
        let (count, maps_count) = (blocks.len(), maps.count);
        for (index, block) in blocks.enumerate() {
            let mut planes = no_planes();
            for (plane, map) in planes.iter_mut().zip(maps.slices()) {
                let pixels = map.len() / count;
                *plane = &mut map[index * pixels..][..pixels];
            }
            (self.compute)(block, &mut planes[..maps_count], &mut scratch[..self.piece]);
        }
    }
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

    fn split_at<'s>(&'s mut self, pixel: usize) -> (Planes<'s>, Planes<'s>) {
        self.split_by(|_| pixel)
    }

    fn split_by<'s>(&'s mut self, at: impl Fn(&[Block]) -> usize) -> (Planes<'s>, Planes<'s>) {
        let mut left = Planes { planes: no_planes(), count: self.count };
        let mut right = Planes { planes: no_planes(), count: self.count };
        for ((plane, left), right) in
            self.planes[..self.count].iter_mut().zip(&mut left.planes).zip(&mut right.planes)
        {
            let at = at(plane);
            (*left, *right) = plane.split_at_mut(at);
        }
        (left, right)
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
