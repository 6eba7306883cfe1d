//! One step: finds its operands in the arena, the weights and the caller's memory, and calls the kernel for each part.

use std::ops::Range;

use sinew_kernels::activation::Activation;
use sinew_kernels::channels::{LrnArgs, SoftmaxArgs};
use sinew_kernels::conv::plain_image::PlainConvArgs;
use sinew_kernels::conv::{ConvArgs, ConvGeometry, grouped, im2col};
use sinew_kernels::depthwise::DepthwiseArgs;
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::{Block, LANES, elementwise, layout, pool, strided};

use super::across::across_channels;
use super::borrow::views;
use super::excite::{pool_planes, squeeze};
use super::parallel::{Along, Cut, Part, for_each_part, for_each_part_of, for_each_run};
use super::{Input, Output};
use crate::graph::{BinaryOp, Pool, PoolKind};
use crate::plan::layout::Blocked;
use crate::plan::step::{
    ConvWork, Operand, Place, Plain, PlainConvWork, PlainPlace, Step, Strided, View, Work,
};
use crate::plan::{Algorithm, Plan};
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
fn plain_blocks(plan: &Plan, buffer: usize, plain: Plain) -> Range<usize> {
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

    // ---- layout ----

    fn convert(&mut self, step: &Step, input: usize, to: Plain) {
        let PlainPlace::Arena(buffer) = to.place else { unreachable!("conversions go to the arena") };
        let range = plain_blocks(self.plan, buffer, to);
        let out = &mut bytemuck::cast_slice_mut::<Block, f32>(&mut self.arena[range])[..to.len];
        let input = &self.inputs[input];
        for_each_run(step.cut, out, to.len, &|at| at, &|at, out| match input {
            Input::F32(data) => out.copy_from_slice(&data[at]),
            Input::U8(data) => out.iter_mut().zip(&data[at]).for_each(|(out, &x)| *out = f32::from(x)),
            Input::I64(data) => out.iter_mut().zip(&data[at]).for_each(|(out, &x)| *out = x as f32),
        });
    }

    fn pack(&mut self, step: &Step, from: Plain, strides: [usize; 4], to: &View, lanes: &[u8]) {
        let (plan, kernels) = (self.plan, self.kernels);
        let in_arena = match from.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, from),
            _ => 0..0,
        };
        for index in 0..to.layout.batch {
            let ([source], [out]) = views(self.arena, [in_arena.clone()], [image(plan, to, index)]);
            let skip = index * strides[0];
            let input = match from.place {
                PlainPlace::Arena(_) => layout::PlainInput::F32(&bytemuck::cast_slice(source)[skip..]),
                PlainPlace::Weights(at) => {
                    let constants = &plan.weights[at..at + from.len.div_ceil(LANES)];
                    layout::PlainInput::F32(&bytemuck::cast_slice(constants)[skip..])
                }
                PlainPlace::Input(input) => match &self.inputs[input] {
                    Input::U8(data) => layout::PlainInput::U8(&data[skip..]),
                    input => layout::PlainInput::F32(&f32_input(input)[skip..]),
                },
                PlainPlace::Output(_) => unreachable!("outputs are only written"),
            };
            for_each_part(step.cut, out, to.layout.pixels(), &mut [], &|part, out, _| {
                let lanes = &lanes[part.first_block..];
                let first_channel = lanes_before(&to.layout, part.first_block);
                let strides = [strides[1], strides[2], strides[3]];
                let args = layout::PackArgs { input, strides, width: to.layout.width, first_channel, lanes };
                (kernels.pack.run)(&args, part.pixels, out);
            });
        }
    }

    fn unpack(&mut self, step: &Step, from: &View, to: Plain, strides: [usize; 4], lanes: &[u8]) {
        let (plan, kernels) = (self.plan, self.kernels);
        let in_arena = match to.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, to),
            _ => 0..0,
        };
        let (plane, width) = (from.layout.pixels(), from.layout.width);
        for index in 0..from.layout.batch {
            let ([input], [target]) = open(plan, self.arena, index, [Some(from)], [in_arena.clone()]);
            let target: &mut [f32] = match to.place {
                PlainPlace::Arena(_) => bytemuck::cast_slice_mut(target),
                PlainPlace::Output(output) => f32_output(&mut self.outputs[output]),
                _ => unreachable!("unpacking goes to the arena or to an output"),
            };
            let target = &mut target[index * strides[0]..];
            let unpack = |blocks: Range<usize>, pixels: Range<usize>, out: &mut [f32]| {
                let args = layout::UnpackArgs {
                    input: &input[blocks.start * plane..],
                    plane,
                    strides: [strides[1], strides[2], strides[3]],
                    width,
                    lanes: &lanes[blocks],
                };
                (kernels.unpack.run)(&args, pixels, out);
            };
            let runs = Cut { along: Along::Blocks { unit: 1 }, ..step.cut };
            match step.cut.along {
                Along::Blocks { .. } => {
                    let start = |block: usize| lanes_before(&from.layout, block) * strides[1];
                    for_each_run(runs, target, lanes.len(), &start, &|blocks, out| {
                        unpack(blocks, 0..plane, out);
                    });
                }
                Along::Pixels { .. } => {
                    let start = |row: usize| row * strides[2];
                    for_each_run(runs, target, from.layout.height, &start, &|rows, out| {
                        unpack(0..lanes.len(), rows.start * width..rows.end * width, out);
                    });
                }
            }
        }
    }

    fn copy_channels(
        &mut self,
        step: &Step,
        from: &View,
        to: &View,
        (first, count): (usize, usize),
        [in_lanes, out_lanes]: &[Vec<u8>; 2],
    ) {
        let plane = to.layout.pixels();
        for index in 0..to.layout.batch {
            let ([input], [out]) =
                open(self.plan, self.arena, index, [Some(from)], [image(self.plan, to, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let args = layout::CopyChannelsArgs {
                    input,
                    in_lanes,
                    plane,
                    from_channel: first,
                    to_channel: 0,
                    count,
                    first_channel: lanes_before(&to.layout, part.first_block),
                    out_lanes: &out_lanes[part.first_block..],
                };
                layout::copy_channels(&args, part.pixels, out);
            });
        }
    }

    fn copy_plain(&mut self, step: &Step, [from, to]: [Plain; 2], copy: &Strided, fill: Option<f32>) {
        let plan = self.plan;
        let in_arena = |plain: Plain| match plain.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, plain),
            _ => 0..0,
        };
        let ([source], [target]) = views(self.arena, [in_arena(from)], [in_arena(to)]);
        let source: &[f32] = match from.place {
            PlainPlace::Arena(_) => bytemuck::cast_slice(source),
            PlainPlace::Weights(at) => bytemuck::cast_slice(&plan.weights[at..at + from.len.div_ceil(LANES)]),
            PlainPlace::Input(index) => f32_input(&self.inputs[index]),
            PlainPlace::Output(_) => unreachable!("outputs are only written"),
        };
        let target: &mut [f32] = match to.place {
            PlainPlace::Arena(_) => bytemuck::cast_slice_mut(target),
            PlainPlace::Output(index) => f32_output(&mut self.outputs[index]),
            _ => unreachable!("copies go to the arena or to an output"),
        };
        if let Some(value) = fill {
            target.fill(value);
        }
        let is_output = matches!(to.place, PlainPlace::Output(_));
        let outer = copy.outermost().unwrap_or(0);
        let start = |unit: usize| copy.to_start + unit * copy.to_strides[outer];
        for_each_run(step.cut, target, copy.extents[outer], &start, &|units, target| {
            let mut own = *copy;
            own.extents[outer] = units.len();
            own.from_start += units.start * copy.from_strides[outer];
            // A part's elements begin with its first unit, but for the first part's.
            own.to_start = if units.start == 0 { copy.to_start } else { 0 };
            copy_box(source, target, &own);
            if is_output {
                canonicalize(target);
            }
        });
    }

    fn copy_pixels(&mut self, step: &Step, from: &View, to: &View, copy: &Strided) {
        let [blocks, rows] = copy.blocks_and_rows();
        let unit = copy.to_strides[rows];
        for index in 0..to.layout.batch {
            let ([source], [target]) =
                open(self.plan, self.arena, index, [Some(from)], [image(self.plan, to, index)]);
            for_each_part(step.cut, target, to.layout.pixels(), &mut [], &|part, planes, _| {
                let first = part.pixels.start / unit;
                let end = part.pixels.end.div_ceil(unit).min(copy.extents[rows]);
                if first >= end {
                    return;
                }
                let mut own = *copy;
                (own.extents[blocks], own.extents[rows]) = (1, end - first);
                own.from_start +=
                    first * copy.from_strides[rows] + part.first_block * copy.from_strides[blocks];
                for plane in planes.iter_mut() {
                    copy_box(source, plane, &own);
                    own.from_start += copy.from_strides[blocks];
                }
            });
        }
    }

    // ---- convolution ----

    fn conv(&mut self, step: &Step, conv: &ConvWork) {
        let (plan, kernels) = (self.plan, self.kernels);
        let out_plane = conv.output.layout.pixels();
        match conv.algorithm {
            Algorithm::Grouped => return self.grouped(step, conv),
            Algorithm::Depthwise => return self.depthwise(step, conv),
            _ => {}
        }
        let in_blocks = conv.lanes.len();
        let out_blocks = conv.output.layout.blocks() / conv.groups;
        let weights = &plan.weights[conv.weights.clone()];
        let bias = &plan.weights[conv.bias.clone()];
        let scratch = self.scratch(step);
        let winograd = match conv.algorithm {
            Algorithm::Winograd(tile, form) => {
                kernels.winograd.iter().find(|kernel| kernel.tile == tile).map(|kernel| (kernel, form))
            }
            _ => None,
        };
        for index in 0..conv.output.layout.batch {
            let writes = written(plan, conv, index, scratch.clone());
            let (operands, [output, negative, means, scratch]) =
                open(plan, self.arena, index, operands(conv), writes);
            let input = operands[0];
            let in_group = in_blocks * conv.geometry.in_pixels();
            let mut negative = negative.chunks_mut(out_blocks * out_plane);
            for (group, output) in output.chunks_mut(out_blocks * out_plane).enumerate() {
                let first = group * out_blocks;
                let negative = negative.next();
                for_each_part_with(step.cut, output, negative, out_plane, scratch, &|part, out, scratch| {
                    let block = first + part.first_block;
                    let args = ConvArgs {
                        geometry: conv.geometry,
                        lanes: &conv.lanes,
                        input: &input[group * in_group..][..in_group],
                        weights: &weights[block * conv.weights_per_block..],
                        epilogue: epilogue(plan, conv, bias, operands, block, out_plane),
                    };
                    match winograd {
                        Some((kernel, form)) => kernel.run(form, &args, part.pixels, out, scratch),
                        None if conv.algorithm == Algorithm::Im2col => {
                            im2col::run(kernels, &args, part.pixels, out, scratch);
                        }
                        None => (kernels.direct.run)(&args, part.pixels, out),
                    }
                });
            }
            if !means.is_empty() {
                squeeze(kernels, step.cut.parts, &conv.output.layout, output, means);
            }
        }
    }

    fn plain_conv(&mut self, step: &Step, conv: &PlainConvWork) {
        let (plan, kernels) = (self.plan, self.kernels);
        let plane = conv.output.layout.pixels();
        let (weights, bias) = (&plan.weights[conv.weights.clone()], &plan.weights[conv.bias.clone()]);
        let [image_stride, strides @ ..] = conv.strides;
        let in_arena = match conv.input.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, conv.input),
            _ => 0..0,
        };
        for index in 0..conv.output.layout.batch {
            let residual_range = match &conv.residual {
                Some(view) if matches!(view.place, Place::Arena(_)) => image(plan, view, index),
                _ => 0..0,
            };
            let writes = [
                image(plan, &conv.output, index),
                optional_image(plan, conv.negative.as_ref(), index),
                self.scratch(step),
            ];
            let ([source, residual], [output, negative, scratch]) =
                views(self.arena, [in_arena.clone(), residual_range], writes);
            let negative = conv.negative.as_ref().map(|_| negative);
            let residual = match &conv.residual {
                Some(view) if view.place == Place::Weights => &plan.weights[image(plan, view, index)],
                _ => residual,
            };
            let source: &[f32] = match conv.input.place {
                PlainPlace::Arena(_) => bytemuck::cast_slice(source),
                PlainPlace::Weights(at) => {
                    bytemuck::cast_slice(&plan.weights[at..at + conv.input.len.div_ceil(LANES)])
                }
                PlainPlace::Input(input) => f32_input(&self.inputs[input]),
                PlainPlace::Output(_) => unreachable!("outputs are only written"),
            };
            for_each_part_with(step.cut, output, negative, plane, scratch, &|part, out, scratch| {
                let block = part.first_block;
                let args = PlainConvArgs {
                    geometry: conv.geometry,
                    channels: conv.channels,
                    input: &source[index * image_stride..],
                    strides,
                    weights: &weights[block * conv.weights_per_block..],
                    epilogue: Epilogue {
                        bias: &bias[block..],
                        scale: None,
                        before: conv.before,
                        residual: conv.residual.as_ref().map(|_| &residual[block * plane..]),
                        residual_scale: scale_from(plan, conv.residual_scale.as_ref(), block),
                        after: conv.after,
                        max_min: conv.negative.is_some(),
                    },
                };
                (kernels.plain_image.run)(&args, part.pixels, bytemuck::cast_slice_mut(scratch), out);
            });
        }
    }

    /// Groups that are no whole blocks: one call for all of them.
    fn grouped(&mut self, step: &Step, conv: &ConvWork) {
        let (plan, kernels) = (self.plan, self.kernels);
        let plane = conv.output.layout.pixels();
        let (weights, bias) = (&plan.weights[conv.weights.clone()], &plan.weights[conv.bias.clone()]);
        let scratch = self.scratch(step);
        for index in 0..conv.output.layout.batch {
            let writes = written(plan, conv, index, scratch.clone());
            let (operands, [output, negative, means, scratch]) =
                open(plan, self.arena, index, operands(conv), writes);
            let input = operands[0];
            let negative = conv.negative.as_ref().map(|_| negative);
            for_each_part_with(step.cut, output, negative, plane, scratch, &|part, out, scratch| {
                let block = part.first_block;
                let args = grouped::GroupedArgs {
                    geometry: conv.geometry,
                    channels: conv.group_channels,
                    groups: conv.groups,
                    input,
                    first_block: block,
                    weights: &weights[block * conv.weights_per_block..],
                    epilogue: epilogue(plan, conv, bias, operands, block, plane),
                };
                (kernels.grouped.run)(&args, part.pixels, out, scratch);
            });
            if !means.is_empty() {
                squeeze(kernels, step.cut.parts, &conv.output.layout, output, means);
            }
        }
    }

    /// One filter per channel.
    fn depthwise(&mut self, step: &Step, conv: &ConvWork) {
        let (plan, kernels) = (self.plan, self.kernels);
        let (in_plane, plane) = (conv.geometry.in_pixels(), conv.output.layout.pixels());
        let (weights, bias) = (&plan.weights[conv.weights.clone()], &plan.weights[conv.bias.clone()]);
        for index in 0..conv.output.layout.batch {
            let writes = written(plan, conv, index, 0..0);
            let (operands, [output, negative, means, _]) =
                open(plan, self.arena, index, operands(conv), writes);
            let input = operands[0];
            let negative = conv.negative.as_ref().map(|_| negative);
            for_each_part_with(step.cut, output, negative, plane, &mut [], &|part, out, _| {
                let block = part.first_block;
                let args = DepthwiseArgs {
                    geometry: conv.geometry,
                    input: &input[block * in_plane..],
                    weights: &weights[block * conv.weights_per_block..],
                    epilogue: epilogue(plan, conv, bias, operands, block, plane),
                };
                (kernels.depthwise.run)(&args, part.pixels, out);
            });
            if !means.is_empty() {
                squeeze(kernels, step.cut.parts, &conv.output.layout, output, means);
            }
        }
    }

    // ---- element by element ----

    fn unary(&mut self, step: &Step, function: Activation, input: &View, output: &View) {
        let kernels = self.kernels;
        let plane = output.layout.pixels();
        for index in 0..output.layout.batch {
            let ([x], [out]) =
                open(self.plan, self.arena, index, [Some(input)], [image(self.plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                for (block, out) in out.iter_mut().enumerate() {
                    let start = (part.first_block + block) * plane + part.pixels.start;
                    (kernels.activate.run)(function, &x[start..start + out.len()], out);
                }
            });
        }
    }

    fn binary(&mut self, step: &Step, (op, swapped): (BinaryOp, bool), a: &View, b: &Operand, output: &View) {
        let kernels = self.kernels;
        let plane = output.layout.pixels();
        let other = match b {
            Operand::Same(view) | Operand::PerChannel(view) | Operand::PerPixel(view) => Some(view),
            Operand::Scalar(_) => None,
        };
        let op = match op {
            BinaryOp::Add => elementwise::BinaryOp::Add,
            BinaryOp::Sub => elementwise::BinaryOp::Sub,
            BinaryOp::Mul => elementwise::BinaryOp::Mul,
            BinaryOp::Div => elementwise::BinaryOp::Div,
            BinaryOp::Max => elementwise::BinaryOp::Max,
            BinaryOp::Min => elementwise::BinaryOp::Min,
        };
        for index in 0..output.layout.batch {
            let ([x, y], [out]) =
                open(self.plan, self.arena, index, [Some(a), other], [image(self.plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let left = elementwise::Operand::Map(&x[part.first_block * plane..]);
                let right = match b {
                    Operand::Same(_) => elementwise::Operand::Map(&y[part.first_block * plane..]),
                    Operand::PerChannel(_) => elementwise::Operand::Channel(&y[part.first_block..]),
                    Operand::PerPixel(_) => elementwise::Operand::Pixel(y),
                    Operand::Scalar(value) => elementwise::Operand::Scalar(*value),
                };
                let (left, right) = if swapped { (right, left) } else { (left, right) };
                let args = elementwise::BinaryArgs { op, left, right, plane, after: Activation::Identity };
                (kernels.binary.run)(&args, part.pixels, out);
            });
        }
    }

    fn affine(
        &mut self,
        step: &Step,
        input: &View,
        output: &View,
        scale: &Range<usize>,
        shift: &Range<usize>,
    ) {
        let (plan, kernels) = (self.plan, self.kernels);
        let plane = output.layout.pixels();
        let (scale, shift) = (&plan.weights[scale.clone()], &plan.weights[shift.clone()]);
        for index in 0..output.layout.batch {
            let ([x], [out]) = open(plan, self.arena, index, [Some(input)], [image(plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let args = elementwise::ScaleArgs {
                    input: Some(&x[part.first_block * plane..]),
                    scale: &scale[part.first_block..],
                    addend: elementwise::Addend::Channel(&shift[part.first_block..]),
                    plane,
                    after: Activation::Identity,
                };
                (kernels.scale.run)(&args, part.pixels, out);
            });
        }
    }

    fn prelu(&mut self, step: &Step, input: &View, output: &View, slope: &Range<usize>) {
        let (plan, kernels) = (self.plan, self.kernels);
        let plane = output.layout.pixels();
        let slope = &plan.weights[slope.clone()];
        for index in 0..output.layout.batch {
            let ([x], [out]) = open(plan, self.arena, index, [Some(input)], [image(plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let args = elementwise::BinaryArgs {
                    op: elementwise::BinaryOp::PRelu,
                    left: elementwise::Operand::Map(&x[part.first_block * plane..]),
                    right: elementwise::Operand::Channel(&slope[part.first_block..]),
                    plane,
                    after: Activation::Identity,
                };
                (kernels.binary.run)(&args, part.pixels, out);
            });
        }
    }

    // ---- windows and planes ----

    fn pool(&mut self, step: &Step, pool: &Pool, input: &View, output: &View) {
        let kernels = self.kernels;
        let [height, width] = [output.layout.height, output.layout.width];
        let geometry = pool_geometry(pool, &input.layout, [height, width], pool.stride);
        let kind = pool_kind(pool);
        let in_plane = geometry.in_pixels();
        for index in 0..output.layout.batch {
            let ([x], [out]) =
                open(self.plan, self.arena, index, [Some(input)], [image(self.plan, output, index)]);
            for_each_part(step.cut, out, geometry.out_pixels(), &mut [], &|part, out, _| {
                let input = &x[part.first_block * in_plane..][..out.len() * in_plane];
                (kernels.pool.run)(&pool::PoolArgs { geometry, kind, input }, part.pixels, out);
            });
        }
    }

    fn global_pool(&mut self, step: &Step, kind: PoolKind, input: &View, output: &View) {
        let kind = match kind {
            PoolKind::Max => pool::PoolKind::Max,
            PoolKind::Average => pool::PoolKind::Average,
        };
        for index in 0..output.layout.batch {
            let ([x], [out]) =
                open(self.plan, self.arena, index, [Some(input)], [image(self.plan, output, index)]);
            pool_planes(self.kernels, step.cut, kind, &input.layout, x, out);
        }
    }

    fn max_min(&mut self, step: &Step, input: &View, [positive, negative]: [&View; 2]) {
        let kernels = self.kernels;
        let plane = input.layout.pixels();
        for index in 0..input.layout.batch {
            let writes = [image(self.plan, positive, index), image(self.plan, negative, index)];
            let ([x], halves) = open(self.plan, self.arena, index, [Some(input)], writes);
            for_each_part_of(step.cut, halves, plane, &mut [], &|part, out, _| {
                let (positive, negative) = out.split_at_mut(out.len() / 2);
                for (block, (positive, negative)) in positive.iter_mut().zip(negative).enumerate() {
                    let start = (part.first_block + block) * plane + part.pixels.start;
                    (kernels.maxmin.run)(&x[start..start + positive.len()], positive, negative);
                }
            });
        }
    }

    fn max_min_pool(&mut self, step: &Step, pool: &Pool, input: &View, [positive, negative]: [&View; 2]) {
        let kernels = self.kernels;
        let [height, width] = [positive.layout.height, positive.layout.width];
        let geometry = pool_geometry(pool, &input.layout, [height, width], pool.stride);
        let (in_plane, kind) = (geometry.in_pixels(), pool::PoolKind::Max);
        for index in 0..input.layout.batch {
            let writes = [image(self.plan, positive, index), image(self.plan, negative, index)];
            let ([x], halves) = open(self.plan, self.arena, index, [Some(input)], writes);
            for_each_part_of(step.cut, halves, geometry.out_pixels(), &mut [], &|part, out, _| {
                let input = &x[part.first_block * in_plane..][..out.len() / 2 * in_plane];
                (kernels.maxmin_pool.run)(&pool::PoolArgs { geometry, kind, input }, part.pixels, out);
            });
        }
    }

    fn softmax(&mut self, step: &Step, input: &View, output: &View, lanes: &[u8]) {
        let kernels = self.kernels;
        self.for_each_pixel(step, [input, output], &|input, out| {
            (kernels.softmax.run)(&SoftmaxArgs { input, lanes }, 0..out.len() / lanes.len(), out);
        });
    }

    fn lrn(
        &mut self,
        step: &Step,
        lanes: &[u8],
        maps: [&View; 2],
        (size, alpha, beta, bias): (usize, f32, f32, f32),
    ) {
        let kernels = self.kernels;
        self.for_each_pixel(step, maps, &|input, out| {
            let args = LrnArgs { input, lanes, size, alpha, beta, bias };
            (kernels.lrn.run)(&args, 0..out.len() / lanes.len(), out);
        });
    }

    /// What is computed for each pixel from all its channels.
    fn for_each_pixel(
        &mut self,
        step: &Step,
        [input, output]: [&View; 2],
        compute: &(impl Fn(&[Block], &mut [Block]) + Sync),
    ) {
        for index in 0..output.layout.batch {
            let writes = [image(self.plan, output, index), self.scratch(step)];
            let ([x], [out, scratch]) = open(self.plan, self.arena, index, [Some(input)], writes);
            across_channels(step.cut, x, out, output.layout.pixels(), scratch, compute);
        }
    }

    /// The first of the largest; NaN counts as larger than any number.
    fn arg_max(&mut self, from: Plain, output: usize, extents: [usize; 3]) {
        let plan = self.plan;
        let source: &[f32] = match from.place {
            PlainPlace::Arena(buffer) => bytemuck::cast_slice(&self.arena[plain_blocks(plan, buffer, from)]),
            PlainPlace::Weights(at) => bytemuck::cast_slice(&plan.weights[at..at + from.len.div_ceil(LANES)]),
            PlainPlace::Input(input) => f32_input(&self.inputs[input]),
            PlainPlace::Output(_) => unreachable!("outputs are only written"),
        };
        let Output::I64(out) = &mut self.outputs[output] else { unreachable!("indices are integers") };
        strided::arg_max(&source[..from.len], extents, out);
    }

    // ---- for listings and tests ----

    /// What the step computed, row-major; nothing where it writes a caller's output.
    pub(super) fn result(&self, step: &Step) -> Option<Tensor> {
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

/// What a convolution reads: input, residual, scale, scaled bias.
fn operands(conv: &ConvWork) -> [Option<&View>; 4] {
    let [scale, bias] = conv.scale.as_ref().map_or([None; 2], |pair| pair.each_ref().map(Some));
    [Some(&conv.input), conv.residual.as_ref(), scale, bias]
}

/// What a convolution writes of one image: output, MaxMin's other half, means of planes; and its scratch.
fn written(plan: &Plan, conv: &ConvWork, index: usize, scratch: Range<usize>) -> [Range<usize>; 4] {
    [
        image(plan, &conv.output, index),
        optional_image(plan, conv.negative.as_ref(), index),
        optional_image(plan, conv.squeeze.as_ref(), index),
        scratch,
    ]
}

/// The sizes of a pool with this stride.
pub(super) fn pool_geometry(
    pool: &Pool,
    input: &Blocked,
    output: [usize; 2],
    stride: [usize; 2],
) -> ConvGeometry {
    ConvGeometry {
        in_height: input.height,
        in_width: input.width,
        out_height: output[0],
        out_width: output[1],
        kernel: pool.kernel,
        stride,
        dilation: pool.dilation,
        pad_top: pool.pads.top,
        pad_left: pool.pads.left,
    }
}

/// As `image`, of something that not every step writes: MaxMin's other half, the means of planes.
fn optional_image(plan: &Plan, view: Option<&View>, index: usize) -> Range<usize> {
    view.map_or(0..0, |view| image(plan, view, index))
}

/// Parts of an output of one half, or of two.
fn for_each_part_with(
    cut: Cut,
    output: &mut [Block],
    negative: Option<&mut [Block]>,
    plane: usize,
    scratch: &mut [Block],
    compute: &(impl Fn(Part, &mut [&mut [Block]], &mut [Block]) + Sync),
) {
    match negative {
        None => for_each_part(cut, output, plane, scratch, compute),
        Some(negative) => for_each_part_of(cut, [output, negative], plane, scratch, compute),
    }
}

/// A residual's factors from an output block on.
fn scale_from<'a>(plan: &'a Plan, scale: Option<&Range<usize>>, block: usize) -> Option<&'a [Block]> {
    scale.map(|range| &plan.weights[range.clone()][block..])
}

/// What a pool takes of a window, as the kernels name it.
pub(super) fn pool_kind(pool: &Pool) -> pool::PoolKind {
    match pool.kind {
        PoolKind::Max => pool::PoolKind::Max,
        PoolKind::Average if pool.count_include_pad => {
            pool::PoolKind::AverageWithBorder { pad_bottom: pool.pads.bottom, pad_right: pool.pads.right }
        }
        PoolKind::Average => pool::PoolKind::Average,
    }
}

/// A convolution's epilogue from an output block on.
fn epilogue<'a>(
    plan: &'a Plan,
    conv: &ConvWork,
    bias: &'a [Block],
    [_, residual, scale, scaled_bias]: [&'a [Block]; 4],
    block: usize,
    plane: usize,
) -> Epilogue<'a> {
    let bias = if conv.scale.is_some() { scaled_bias } else { bias };
    Epilogue {
        bias: &bias[block..],
        scale: conv.scale.as_ref().map(|_| &scale[block..]),
        before: conv.before,
        residual: conv.residual.as_ref().map(|_| &residual[block * plane..]),
        residual_scale: scale_from(plan, conv.residual_scale.as_ref(), block),
        after: conv.after,
        max_min: conv.negative.is_some(),
    }
}

fn f32_input<'a>(input: &Input<'a>) -> &'a [f32] {
    match input {
        Input::F32(data) => data,
        _ => unreachable!("integers are converted first"),
    }
}

fn f32_output<'a>(output: &'a mut Output<'_>) -> &'a mut [f32] {
    match output {
        Output::F32(data) => data,
        Output::I64(_) => unreachable!("only indices are integers"),
    }
}

/// Copies a box of elements or of blocks.
fn copy_box<T: Copy>(from: &[T], to: &mut [T], copy: &Strided) {
    let (from, to) = (&from[copy.from_start..], &mut to[copy.to_start..]);
    strided::copy(from, to, &copy.extents, &copy.from_strides, &copy.to_strides);
}

/// A graph output has one NaN.
fn canonicalize(data: &mut [f32]) {
    for x in data {
        if x.is_nan() {
            *x = f32::from_bits(0x7fc0_0000);
        }
    }
}

/// Channels in the blocks before a block.
fn lanes_before(layout: &Blocked, block: usize) -> usize {
    let mut channels = 0;
    let mut blocks = 0;
    for &part in &layout.parts {
        let own = part.div_ceil(LANES);
        if block < blocks + own {
            return channels + (block - blocks) * LANES;
        }
        (channels, blocks) = (channels + part, blocks + own);
    }
    channels
}
