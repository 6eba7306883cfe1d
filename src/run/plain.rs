//! Steps on row-major maps as they lie.

use std::ops::Range;
use std::slice::from_ref;

use sinew_kernels::activation::Activation;
use sinew_kernels::elementwise::{BinaryArgs, Operand};
use sinew_kernels::plain::depthwise::PlainDepthwiseArgs;
use sinew_kernels::plain::pool::PlainPoolArgs;
use sinew_kernels::plain::{PlainAddend, PlainGlobalArgs, PlainScaleArgs};
use sinew_kernels::{Block, LANES};

use super::Input;
use super::borrow::views;
use super::elementwise::binary_op;
use super::parallel::{for_each_part, for_each_run};
use super::pool::{global_kind, pool_geometry, pool_kind};
use super::step::{Run, canonicalize, f32_input, f32_output, image, plain_blocks};
use crate::graph::PoolKind;
use crate::plan::Plan;
use crate::plan::step::{Place, Plain, PlainOp, PlainOperand, PlainPlace, PlainWork, Step, View};

/// Elements that the kernels on blocks get at a time: 16 KB, which are in the first cache when NaNs are looked for.
const PIECE: usize = 4096;

/// What computes a piece of one channel: it gets the channel and the elements.
type OfChannel<'f> = dyn Fn(usize, Range<usize>, &mut [f32]) + 'f;

/// What computes blocks from as many blocks of each operand.
type OfBlocks<'f, const N: usize> = dyn Fn([&[Block]; N], &mut [Block]) + 'f;

/// What a step on a row-major map reads and writes.
struct Operands<'a> {
    from: &'a [f32],
    other: &'a [f32],
    /// Numbers per channel of one image.
    per_channel: [&'a [f32]; 2],
    to: &'a mut [f32],
}

impl Run<'_, '_, '_> {
    pub(super) fn plain(&mut self, step: &Step, work: &PlainWork) {
        let kernels = self.kernels;
        let out_plane = work.out_size[0] * work.out_size[1];
        match &work.op {
            PlainOp::Pool(pool) => {
                let Operands { from, to, .. } = self.plain_operands(work, 0);
                let geometry = pool_geometry(pool, &work.input_layout(), work.out_size, pool.stride);
                let args = PlainPoolArgs { geometry, kind: pool_kind(pool), input: from };
                let rows = to.len() / geometry.out_width;
                for_each_run(step.cut, to, rows, &|row| row * geometry.out_width, &|rows, out| {
                    (kernels.plain_pool.run)(&args, rows, out);
                });
            }
            PlainOp::Depthwise { geometry, weights, bias, after } => {
                let plan = self.plan;
                let numbers = |range: &Range<usize>| bytemuck::cast_slice(&plan.weights[range.clone()]);
                let (weights, bias) = (numbers(weights), numbers(bias));
                let Operands { from, to, .. } = self.plain_operands(work, 0);
                let (geometry, channels) = (*geometry, work.shape[1]);
                let args =
                    PlainDepthwiseArgs { geometry, channels, input: from, weights, bias, after: *after };
                let rows = to.len() / geometry.out_width;
                for_each_run(step.cut, to, rows, &|row| row * geometry.out_width, &|rows, out| {
                    (kernels.plain_depthwise.run)(&args, rows, out);
                });
            }
            PlainOp::Unary(function) => {
                let Operands { from, to, .. } = self.plain_operands(work, 0);
                for_each_run(step.cut, to, from.len(), &|at| at, &|at, out| {
                    by_blocks([&from[at]], out, &|[x], out| (kernels.activate.run)(*function, x, out));
                });
            }
            PlainOp::Binary { op, swapped, other } => {
                for index in 0..work.shape[0] {
                    let Operands { from, other: map, per_channel: [_, numbers], to } =
                        self.plain_operands(work, index);
                    let (op, after) = (binary_op(*op), Activation::Identity);
                    for_each_run(step.cut, to, from.len(), &|at| at, &|at, out| {
                        // Of one channel at a time, or whatever they are.
                        let run = match other {
                            PlainOperand::PerChannel(_) => out_plane,
                            _ => from.len(),
                        };
                        for_each_channel(at.start, run, out, &|channel, at, out| {
                            let number = [numbers.get(channel).copied().unwrap_or_default(); LANES];
                            let map = if map.is_empty() { &from[at.clone()] } else { &map[at.clone()] };
                            by_blocks([&from[at], map], out, &|[x, map], out| {
                                let right = match other {
                                    PlainOperand::Same(_) => Operand::Map(map),
                                    PlainOperand::PerChannel(_) => Operand::Channel(from_ref(&number)),
                                    PlainOperand::Scalar(value) => Operand::Scalar(*value),
                                };
                                let (left, right) = (Operand::Map(x), right);
                                let (left, right) = if *swapped { (right, left) } else { (left, right) };
                                let plane = out.len();
                                let args = BinaryArgs { op, left, right, plane, after };
                                (kernels.binary.run)(&args, 0..plane, &mut [out]);
                            });
                        });
                    });
                }
            }
            PlainOp::Scale { addend, after, .. } => {
                for index in 0..work.shape[0] {
                    let Operands { from, other, per_channel: [scale, shift], to } =
                        self.plain_operands(work, index);
                    let addend = match addend {
                        None | Some(PlainOperand::Scalar(_)) => PlainAddend::Nothing,
                        Some(PlainOperand::PerChannel(_)) => PlainAddend::Channel(shift),
                        Some(PlainOperand::Same(_)) => PlainAddend::Map(other),
                    };
                    let args = PlainScaleArgs { input: from, scale, addend, plane: out_plane, after: *after };
                    for_each_run(step.cut, to, from.len(), &|at| at, &|at, out| {
                        (kernels.plain_scale.run)(&args, at.start, out);
                    });
                }
            }
        }
    }

    /// What a step reads and writes: all images of it, or one where it goes image by image.
    fn plain_operands(&mut self, work: &PlainWork, index: usize) -> Operands<'_> {
        let plan = self.plan;
        let in_arena = |plain: Option<Plain>| match plain {
            Some(Plain { place: PlainPlace::Arena(buffer), len }) => {
                plain_blocks(plan, buffer, Plain { place: PlainPlace::Arena(buffer), len })
            }
            _ => 0..0,
        };
        let numbers_in_arena = |view: Option<&View>| match view {
            Some(view) if matches!(view.place, Place::Arena(_)) => image(plan, view, index),
            _ => 0..0,
        };
        let views_of = work.per_channel();
        let [scale, addend] = views_of.map(numbers_in_arena);
        let reads = [in_arena(Some(work.from)), in_arena(work.other()), scale, addend];
        let ([from, other, scale, addend], [to]) = views(self.arena, reads, [in_arena(Some(work.to))]);
        let from = plain_source(plan, self.inputs, work.from, from);
        let other = work.other().map_or(&[][..], |plain| plain_source(plan, self.inputs, plain, other));
        let to: &mut [f32] = match work.to.place {
            PlainPlace::Output(output) => f32_output(&mut self.outputs[output]),
            _ => &mut bytemuck::cast_slice_mut(to)[..work.to.len],
        };
        let mut per_channel = [scale, addend];
        for (numbers, view) in per_channel.iter_mut().zip(views_of) {
            if let Some(view) = view.filter(|view| view.place == Place::Weights) {
                *numbers = &plan.weights[image(plan, view, index)];
            }
        }
        let own = match work.op {
            PlainOp::Pool(_) | PlainOp::Depthwise { .. } | PlainOp::Unary(_) => 0..work.from.len,
            PlainOp::Binary { .. } | PlainOp::Scale { .. } => {
                index * work.image()..(index + 1) * work.image()
            }
        };
        let to_own = if own.len() == work.from.len { 0..work.to.len } else { own.clone() };
        Operands {
            from: &from[own.clone()],
            other: if other.is_empty() { other } else { &other[own] },
            per_channel: per_channel.map(bytemuck::cast_slice),
            to: &mut to[to_own],
        }
    }

    pub(super) fn plain_global_pool(
        &mut self,
        step: &Step,
        kind: PoolKind,
        from: Plain,
        size: [usize; 2],
        output: &View,
    ) {
        let (plan, kernels) = (self.plan, self.kernels);
        let in_arena = match from.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, from),
            _ => 0..0,
        };
        let (kind, plane) = (global_kind(kind), size[0] * size[1]);
        for index in 0..output.layout.batch {
            let ([source], [out]) = views(self.arena, [in_arena.clone()], [image(plan, output, index)]);
            let image = output.layout.channels() * plane;
            let source = &plain_source(plan, self.inputs, from, source)[index * image..][..image];
            for_each_part(step.cut, out, 1, &mut [], &|part, pooled, _| {
                for (block, pooled) in (part.first_block..).zip(pooled) {
                    let input = &source[block * LANES * plane..];
                    let args = PlainGlobalArgs { kind, input, plane, width: size[1] };
                    (kernels.plain_global_pool.run)(&args, pooled);
                }
            });
        }
    }
}

/// The elements of a value that is read.
fn plain_source<'a>(
    plan: &'a Plan,
    inputs: &'a [Input<'_>],
    plain: Plain,
    in_arena: &'a [Block],
) -> &'a [f32] {
    let all: &[f32] = match plain.place {
        PlainPlace::Arena(_) => bytemuck::cast_slice(in_arena),
        PlainPlace::Weights(at) => bytemuck::cast_slice(&plan.weights[at..at + plain.len.div_ceil(LANES)]),
        PlainPlace::Input(index) => f32_input(&inputs[index]),
        PlainPlace::Output(_) => unreachable!("outputs are only written"),
    };
    &all[..plain.len]
}

/// Calls `f` for the piece of each channel in `out`, whose first element is `first`: with the channel and the elements.
fn for_each_channel(first: usize, plane: usize, out: &mut [f32], f: &OfChannel<'_>) {
    let (mut at, mut rest) = (first, out);
    while !rest.is_empty() {
        let channel = at / plane;
        let len = rest.len().min((channel + 1) * plane - at);
        let (out, behind) = rest.split_at_mut(len);
        f(channel, at..at + len, out);
        (at, rest) = (at + len, behind);
    }
}

/// Row-major elements as blocks of 16 neighbours, what is left at the end of each piece as one padded block.
fn by_blocks<const N: usize>(reads: [&[f32]; N], out: &mut [f32], f: &OfBlocks<'_, N>) {
    for (index, out) in out.chunks_mut(PIECE).enumerate() {
        let reads = reads.map(|read| read[index * PIECE..][..out.len()].as_chunks::<LANES>());
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        if !whole.is_empty() {
            f(reads.map(|(whole, _)| whole), whole);
        }
        if !rest.is_empty() {
            let ends = reads.map(|(_, rest)| {
                let mut block = [0.0; LANES];
                block[..rest.len()].copy_from_slice(rest);
                block
            });
            let mut last = [0.0; LANES];
            f(ends.each_ref().map(from_ref), std::slice::from_mut(&mut last));
            rest.copy_from_slice(&last[..rest.len()]);
        }
        canonicalize(out);
    }
}
