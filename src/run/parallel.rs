//! Splits a step's output over threads: the only file that calls rayon.
//!
//! A part is a run of output blocks and a range of pixels, made by splitting slices, so that parallel writes need no
//! `unsafe`. Every part computes whole outputs: no result depends on how the work was split.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use sinew_kernels::Block;
use sinew_kernels::isa::fp_state::FpState;

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

/// A caller's own threads: computes the parts `0..parts` of a step by calling `task` once for each, in any order, on any
/// thread, and returns when all are done.
#[derive(Clone, Copy)]
pub(crate) struct ParallelFor {
    pub(crate) run: fn(context: usize, parts: usize, task: &(dyn Fn(usize) + Sync)),
    pub(crate) context: usize,
}

thread_local! {
    /// What steps on this thread are handed to, as `rayon::join` finds the pool that is installed on its thread.
    static INSTALLED: Cell<Option<ParallelFor>> = const { Cell::new(None) };
}

impl ParallelFor {
    /// Hands the steps of `run` to these threads.
    pub(crate) fn install<R>(self, run: impl FnOnce() -> R) -> R {
        struct Restore(Option<ParallelFor>);
        impl Drop for Restore {
            fn drop(&mut self) {
                INSTALLED.set(self.0);
            }
        }
        let _restore = Restore(INSTALLED.replace(Some(self)));
        run()
    }

    /// Cuts `piece` in at most `parts` pieces, which wait in a list on the stack, and has them computed.
    fn hand_out<P: Send>(
        self,
        piece: P,
        parts: usize,
        split: &impl Fn(P, usize) -> (P, Option<P>),
        compute: &(impl Fn(P) + Sync),
        before: Option<&Waiting<'_, P>>,
    ) {
        let (first, rest) = split(piece, parts);
        let count = before.map_or(0, |waiting| waiting.count) + 1;
        let waiting = Waiting { piece: Mutex::new(Some(first)), before, count };
        if let Some(rest) = rest {
            return self.hand_out(rest, parts - 1, split, compute, Some(&waiting));
        }
        let task = |index: usize| {
            let piece = waiting.find(index).and_then(|waiting| waiting.piece.lock().ok()?.take());
            if let Some(piece) = piece {
                compute(piece);
            }
        };
        (self.run)(self.context, count, &task);
        // What was left out, against the rules, is computed here.
        (0..count).for_each(task);
    }
}

/// A piece that waits for a thread, and those before it.
struct Waiting<'l, P> {
    piece: Mutex<Option<P>>,
    before: Option<&'l Waiting<'l, P>>,
    /// Pieces up to this one.
    count: usize,
}

impl<'l, P> Waiting<'l, P> {
    fn find(&self, index: usize) -> Option<&Waiting<'l, P>> {
        let mut at = (index < self.count).then_some(self)?;
        while at.count > index + 1 {
            at = at.before?;
        }
        Some(at)
    }
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
    debug_assert_eq!(out.len() % plane, 0);
    let piece = scratch.len() / cut.parts;
    match cut.along {
        Along::Blocks { unit } => {
            let split = Blocks { plane, unit, piece, parallel: cut.parts > 1, compute };
            match INSTALLED.get().filter(|_| cut.parts > 1) {
                Some(threads) => split.hand_out(threads, out, cut.parts, scratch),
                None => split.run(0, out, cut.parts, scratch),
            }
        }
        Along::Pixels { unit } => {
            for (run, out) in out.chunks_mut(MAX_PLANES * plane).enumerate() {
                let split =
                    Pixels { first_block: run * MAX_PLANES, unit, piece, parallel: cut.parts > 1, compute };
                let mut planes = Planes::of(out, plane);
                match INSTALLED.get().filter(|_| cut.parts > 1) {
                    Some(threads) => split.hand_out(threads, planes, 0..plane, cut.parts, scratch),
                    None => split.run(&mut planes, 0..plane, cut.parts, scratch),
                }
            }
        }
    }
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

/// As [`first_share`] for one part, but never nothing: where there are fewer units than parts, one unit.
fn share_of_one(total: usize, unit: usize, parts: usize) -> usize {
    first_share(total, unit, 1, parts.min(total.div_ceil(unit)).max(1))
}

/// Whole blocks that wait for a thread.
struct BlockRun<'a> {
    first_block: usize,
    out: &'a mut [Block],
    scratch: &'a mut [Block],
}

/// A range of pixels that waits for a thread.
struct PixelRun<'a> {
    planes: Planes<'a>,
    pixels: Range<usize>,
    scratch: &'a mut [Block],
}

struct Blocks<'f, F> {
    plane: usize,
    unit: usize,
    piece: usize,
    parallel: bool,
    compute: &'f F,
}

impl<F: Fn(Part, &mut [&mut [Block]], &mut [Block]) + Sync> Blocks<'_, F> {
    fn run(&self, first_block: usize, out: &mut [Block], parts: usize, scratch: &mut [Block]) {
        let blocks = out.len() / self.plane;
        let share = first_share(blocks, self.unit, parts / 2, parts);
        if parts > 1 && share > 0 && share < blocks {
            let (left, right) = out.split_at_mut(share * self.plane);
            let (left_scratch, right_scratch) = scratch.split_at_mut(parts / 2 * self.piece);
            join(
                || self.run(first_block, left, parts / 2, left_scratch),
                || self.run(first_block + share, right, parts - parts / 2, right_scratch),
            );
            return;
        }
        self.compute(first_block, out, scratch);
    }

    fn hand_out(&self, threads: ParallelFor, out: &mut [Block], parts: usize, scratch: &mut [Block]) {
        let run = BlockRun { first_block: 0, out, scratch };
        let compute = |run: BlockRun<'_>| self.compute(run.first_block, run.out, run.scratch);
        threads.hand_out(run, parts, &|run, parts| self.split(run, parts), &compute, None);
    }

    /// The first of `parts` parts, and the others.
    fn split<'a>(&self, run: BlockRun<'a>, parts: usize) -> (BlockRun<'a>, Option<BlockRun<'a>>) {
        let blocks = run.out.len() / self.plane;
        let share = share_of_one(blocks, self.unit, parts);
        if share == blocks {
            return (run, None);
        }
        let (out, rest) = run.out.split_at_mut(share * self.plane);
        let (scratch, rest_scratch) = run.scratch.split_at_mut(self.piece);
        let rest = BlockRun { first_block: run.first_block + share, out: rest, scratch: rest_scratch };
        (BlockRun { first_block: run.first_block, out, scratch }, Some(rest))
    }

    fn compute(&self, first_block: usize, out: &mut [Block], scratch: &mut [Block]) {
        let _state = self.parallel.then(FpState::set_default);
        for (run, out) in out.chunks_mut(MAX_PLANES * self.plane).enumerate() {
            let part = Part { first_block: first_block + run * MAX_PLANES, pixels: 0..self.plane };
            let mut planes = Planes::of(out, self.plane);
            (self.compute)(part, planes.slices(), &mut scratch[..self.piece]);
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
        let share = first_share(pixels.len(), self.unit, parts / 2, parts);
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
        self.compute(planes, pixels, scratch);
    }

    fn hand_out(
        &self,
        threads: ParallelFor,
        planes: Planes<'_>,
        pixels: Range<usize>,
        parts: usize,
        scratch: &mut [Block],
    ) {
        let run = PixelRun { planes, pixels, scratch };
        let compute = |mut run: PixelRun<'_>| self.compute(&mut run.planes, run.pixels, run.scratch);
        threads.hand_out(run, parts, &|run, parts| self.split(run, parts), &compute, None);
    }

    /// The first of `parts` parts, and the others.
    fn split<'a>(&self, mut run: PixelRun<'a>, parts: usize) -> (PixelRun<'a>, Option<PixelRun<'a>>) {
        let share = share_of_one(run.pixels.len(), self.unit, parts);
        if share == run.pixels.len() {
            return (run, None);
        }
        let middle = run.pixels.start + share;
        let planes = run.planes.split_off(share);
        let (scratch, rest_scratch) = run.scratch.split_at_mut(self.piece);
        let rest = PixelRun { planes, pixels: middle..run.pixels.end, scratch: rest_scratch };
        (PixelRun { planes: run.planes, pixels: run.pixels.start..middle, scratch }, Some(rest))
    }

    fn compute(&self, planes: &mut Planes<'_>, pixels: Range<usize>, scratch: &mut [Block]) {
        let _state = self.parallel.then(FpState::set_default);
        let part = Part { first_block: self.first_block, pixels };
        (self.compute)(part, planes.slices(), &mut scratch[..self.piece]);
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
    fn of(out: &'a mut [Block], plane: usize) -> Self {
        let mut planes = no_planes();
        let mut count = 0;
        for (slot, plane) in planes.iter_mut().zip(out.chunks_mut(plane)) {
            *slot = plane;
            count += 1;
        }
        Self { planes, count }
    }

    fn split_at<'s>(&'s mut self, pixel: usize) -> (Planes<'s>, Planes<'s>) {
        let mut left = Planes { planes: no_planes(), count: self.count };
        let mut right = Planes { planes: no_planes(), count: self.count };
        for ((plane, left), right) in
            self.planes[..self.count].iter_mut().zip(&mut left.planes).zip(&mut right.planes)
        {
            (*left, *right) = plane.split_at_mut(pixel);
        }
        (left, right)
    }

    /// Keeps the pixels before `pixel` and gives those from there on.
    fn split_off(&mut self, pixel: usize) -> Planes<'a> {
        let mut rest = Planes { planes: no_planes(), count: self.count };
        for (plane, rest) in self.planes[..self.count].iter_mut().zip(&mut rest.planes) {
            (*plane, *rest) = std::mem::take(plane).split_at_mut(pixel);
        }
        rest
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
        assert!(INSTALLED.get().is_none());
    }

    #[test]
    fn parts_cover_the_output_once() {
        for parts in 1..=5 {
            for (blocks, plane) in [(1, 1), (1, 49), (3, 7), (130, 4), (300, 1), (7, 100)] {
                for unit in [1, 3, 14] {
                    check(Cut { parts, along: Along::Blocks { unit } }, blocks, plane);
                    check(Cut { parts, along: Along::Pixels { unit } }, blocks, plane);
                }
            }
        }
    }
}
