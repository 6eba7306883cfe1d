//! One step: finds its operands in the arena, the weights and the caller's memory, and calls the kernel for each part.

use std::ops::Range;

use sinew_kernels::isa::Kernels;
use sinew_kernels::{Block, LANES};

use super::borrow::views;
use super::{Input, Output};
use crate::plan::Plan;
use crate::plan::step::{Place, Plain, PlainPlace, Step, View, Work};
use crate::tensor::{Data, Tensor};

/// A run in progress.
pub(super) struct Run<'r, 'i, 'o> {
    pub(super) plan: &'r Plan,
    pub(super) kernels: &'static Kernels,
    pub(super) arena: &'r mut [Block],
    pub(super) inputs: &'r [Input<'i>],
    pub(super) outputs: &'r mut [Output<'o>],
}

/// The blocks of one image of a view, in its place. A view with batch stride zero has one image for all.
pub(super) fn image(plan: &Plan, view: &View, index: usize) -> Range<usize> {
    let place = match view.place {
        Place::Arena(buffer) => plan.offsets[buffer],
        Place::Weights => 0,
    };
    let start = place + view.skip + index * view.batch_stride;
    start..start + view.layout.image_blocks()
}

/// The blocks of a plain value in the arena.
pub(super) fn plain_blocks(plan: &Plan, buffer: usize, plain: Plain) -> Range<usize> {
    plan.offsets[buffer]..plan.offsets[buffer] + plain.len.div_ceil(LANES)
}

/// What a step reads of one image, from the arena or the weights, and the parts of the arena that it writes.
pub(super) fn open<'a, const R: usize, const W: usize>(
    plan: &'a Plan,
    arena: &'a mut [Block],
    index: usize,
    reads: [Option<&View>; R],
    writes: [Range<usize>; W],
) -> ([&'a [Block]; R], [&'a mut [Block]; W]) {
    let in_arena = reads.map(|view| match view {
        Some(view) if matches!(view.place, Place::Arena(_)) => image(plan, view, index),
        _ => 0..0,
    });
    let (mut read, written) = views(arena, in_arena, writes);
    for (read, view) in read.iter_mut().zip(reads) {
        if let Some(view) = view.filter(|view| view.place == Place::Weights) {
            *read = &plan.weights[image(plan, view, index)];
        }
    }
    (read, written)
}

impl Run<'_, '_, '_> {
    /// Runs one step.
    pub(super) fn step(&mut self, step: &Step) {
        match &step.work {
            Work::Convert { input, to } => self.convert(step, *input, *to),
            Work::Pack { from, strides, to, lanes } => self.pack(step, *from, *strides, to, lanes),
            Work::Unpack { from, to, strides, lanes } => self.unpack(step, from, *to, *strides, lanes),
            Work::CopyPlain { from, to, copy, fill } => self.copy_plain(step, [*from, *to], copy, *fill),
            Work::CopyPixels { from, to, copy } => self.copy_pixels(step, from, to, copy),
            Work::CopyChannels { from, to, first, count, lanes } => {
                self.copy_channels(step, from, to, (*first, *count), lanes);
            }
            Work::Conv(conv) => self.conv(step, conv),
            Work::ConvMaps(maps) => self.conv_maps(step, maps),
            Work::PlainConv(conv) => self.plain_conv(step, conv),
            Work::Pool { pool, input, output } => self.pool(step, pool, input, output),
            Work::PoolFragments { pool, input, parts } => self.pool_fragments(step, pool, input, parts),
            Work::GlobalPool { kind, input, output } => self.global_pool(step, *kind, input, output),
            Work::Unary { function, input, output } => self.unary(step, *function, input, output),
            Work::Binary { op, swapped, a, b, output } => self.binary(step, (*op, *swapped), a, b, output),
            Work::Affine { input, output, scale, shift } => self.affine(step, input, output, scale, shift),
            Work::Gate(gate) => self.gate(step, gate),
            Work::Scale { input, scale, residual, after, output } => {
                self.scale(step, [input, scale], residual.as_ref(), *after, output);
            }
            Work::PRelu { input, output, slope } => self.prelu(step, input, output, slope),
            Work::MaxMin { input, positive, negative } => self.max_min(step, input, [positive, negative]),
            Work::MaxMinPool { pool, input, positive, negative } => {
                self.max_min_pool(step, pool, input, [positive, negative]);
            }
            Work::Softmax { input, output, lanes } => self.softmax(step, input, output, lanes),
            Work::Lrn { lanes, input, output, size, alpha, beta, bias } => {
                self.lrn(step, lanes, [input, output], (*size, *alpha, *beta, *bias));
            }
            Work::Concurrent { larger, input, scale, spatial, output } => {
                self.concurrent(step, *larger, [input, scale, spatial], output);
            }
            Work::Plain(work) => self.plain(step, work),
            Work::PlainGlobalPool { kind, from, size, output } => {
                self.plain_global_pool(step, *kind, *from, *size, output);
            }
            Work::ArgMax { from, output, extents } => self.arg_max(*from, *output, *extents),
        }
    }

    /// Where a step's own scratch lies.
    pub(super) fn scratch(&self, step: &Step) -> Range<usize> {
        step.scratch.map_or(0..0, |buffer| {
            let start = self.plan.offsets[buffer];
            start..start + step.scratch_blocks
        })
    }

    /// What the step computed, row-major; nothing where it writes a caller's output.
    pub(super) fn result(&self, step: &Step) -> Option<Tensor> {
        if let Work::Plain(work) = &step.work {
            let PlainPlace::Arena(buffer) = work.to.place else { return None };
            let blocks = &self.arena[plain_blocks(self.plan, buffer, work.to)];
            let data = blocks.as_flattened()[..work.to.len].to_vec();
            return Tensor::new(step.output_shape(), Data::F32(data)).ok();
        }
        let written = step.work.written();
        let batch = written.first()?.layout.batch;
        let mut data = Vec::new();
        for (index, view) in (0..batch).flat_map(|index| written.iter().map(move |view| (index, view))) {
            let layout = &view.layout;
            let image = &self.arena[image(self.plan, view, index)];
            for (block, live) in layout.lanes().into_iter().enumerate() {
                for lane in 0..usize::from(live) {
                    let plane = &image[block * layout.pixels()..][..layout.pixels()];
                    data.extend(plane.iter().map(|pixel| pixel[lane]));
                }
            }
        }
        canonicalize(&mut data);
        Tensor::new(step.output_shape(), Data::F32(data)).ok()
    }

    /// Fills the dead lanes of what the step has written.
    pub(super) fn poison(&mut self, step: &Step) {
        let squeeze = match &step.work {
            Work::Conv(conv) => conv.squeeze.as_ref(),
            _ => None,
        };
        for view in step.work.written().into_iter().chain(squeeze) {
            for index in 0..view.layout.batch {
                let plane = view.layout.pixels();
                let range = image(self.plan, view, index);
                for (blocks, live) in self.arena[range].chunks_mut(plane).zip(view.layout.lanes()) {
                    for pixel in blocks {
                        pixel[usize::from(live)..].fill(f32::NAN);
                    }
                }
            }
        }
    }
}

pub(super) fn f32_input<'a>(input: &Input<'a>) -> &'a [f32] {
    match input {
        Input::F32(data) => data,
        _ => unreachable!("integers are converted first"),
    }
}

pub(super) fn f32_output<'a>(output: &'a mut Output<'_>) -> &'a mut [f32] {
    match output {
        Output::F32(data) => data,
        Output::I64(_) => unreachable!("only indices are integers"),
    }
}

/// A graph output has one NaN.
pub(super) fn canonicalize(data: &mut [f32]) {
    for x in data {
        if x.is_nan() {
            *x = f32::from_bits(0x7fc0_0000);
        }
    }
}
