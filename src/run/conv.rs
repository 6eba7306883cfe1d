//! Convolutions and dense layers.

use std::ops::Range;

use sinew_kernels::conv::plain_image::PlainConvArgs;
use sinew_kernels::conv::winograd::{Pooled, Reads};
use sinew_kernels::conv::{ConvArgs, grouped};
use sinew_kernels::depthwise::DepthwiseArgs;
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::pool::PoolKind;
use sinew_kernels::{Block, LANES};

use super::borrow::views;
use super::excite::squeeze;
use super::parallel::{Compute, Cut, Part, for_each_part, for_each_part_of};
use super::step::{Run, f32_input, image, open, plain_blocks};
use crate::plan::step::{ConvWork, Place, PlainConvWork, PlainPlace, PoolBehind, Step, View};
use crate::plan::{Algorithm, Plan};

impl Run<'_, '_, '_> {
    pub(super) fn conv(&mut self, step: &Step, conv: &ConvWork) {
        let (plan, kernels) = (self.plan, self.kernels);
        let out_plane = conv.output.layout.pixels();
        match conv.algorithm {
            Algorithm::Grouped => return self.grouped(step, conv),
            Algorithm::Depthwise => return self.depthwise(step, conv),
            _ => {}
        }
        let weights = &plan.weights[conv.weights.clone()];
        let bias = &plan.weights[conv.bias.clone()];
        let scratch = self.scratch(step);
        let winograd = match conv.algorithm {
            Algorithm::Winograd(tile, form) => {
                kernels.winograd.iter().find(|kernel| kernel.tile == tile).map(|kernel| (kernel, form))
            }
            _ => None,
        };
        // Winograd knows groups, others are called once a group
        let calls = if winograd.is_some() { 1 } else { conv.groups };
        let out_blocks = conv.output.layout.blocks() / calls;
        for index in 0..conv.output.layout.batch {
            let writes = written(plan, conv, index, scratch.clone());
            let (operands, [output, negative, means, scratch]) =
                open(plan, self.arena, index, operands(conv), writes);
            let input = operands[0];
            let in_group = input.len() / calls;
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
                        Some((kernel, form)) => {
                            let reads = Reads { form, groups: conv.groups_from(block) };
                            match conv.pool.map(|pool| pooled(kernels, pool)) {
                                None => kernel.run(reads, &args, part.pixels, out, scratch),
                                Some(pool) => {
                                    kernel.run_pooled(reads, &args, pool, part.pixels, out, scratch);
                                }
                            }
                        }
                        None if conv.algorithm == Algorithm::Im2col => {
                            (kernels.im2col.run)(&args, part.pixels, out, scratch);
                        }
                        None if conv.algorithm == Algorithm::Strassen => {
                            (kernels.strassen.run)(&args, part.pixels, out, scratch);
                        }
                        None if conv.algorithm == Algorithm::FewOutputs => {
                            let outputs = conv.output.layout.channels();
                            (kernels.few_outputs.run)(&args, outputs, part.pixels, out[0]);
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

    pub(super) fn plain_conv(&mut self, step: &Step, conv: &PlainConvWork) {
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
    pub(super) fn grouped(&mut self, step: &Step, conv: &ConvWork) {
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
    pub(super) fn depthwise(&mut self, step: &Step, conv: &ConvWork) {
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
    compute: &Compute<'_, Part>,
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
        // of a pooled layer, the pool makes both halves
        max_min: conv.negative.is_some() && conv.pool.is_none(),
    }
}

/// The pool behind a convolution, of the instruction set that runs it.
fn pooled(kernels: &Kernels, pool: PoolBehind) -> Pooled {
    let (kernel, kind, halves) = match pool {
        PoolBehind::Largest => (kernels.pool, PoolKind::Max, false),
        PoolBehind::Mean => (kernels.pool, PoolKind::Average, false),
        PoolBehind::MaxMin => (kernels.maxmin_pool, PoolKind::Max, true),
    };
    Pooled { run: kernel.run, kind, halves }
}
