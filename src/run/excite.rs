//! Squeeze-and-excitation: the means of planes, the gate, and the scaling of a map.

use sinew_kernels::activation::Activation;
use sinew_kernels::conv::{ConvArgs, ConvGeometry};
use sinew_kernels::elementwise::{self, Addend, ScaleArgs};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::{Block, pool};

use super::parallel::{Along, Cut, for_each_part};
use super::step::{Run, image, open};
use crate::plan::Plan;
use crate::plan::layout::Blocked;
use crate::plan::step::{GateLayer, GateWork, Step, View};

/// The mean of each plane of `map`, as a global pool takes it.
pub(super) fn squeeze(kernels: &Kernels, parts: usize, layout: &Blocked, map: &[Block], means: &mut [Block]) {
    let cut = Cut { parts, along: Along::Blocks { unit: 1 } };
    pool_planes(kernels, cut, pool::PoolKind::Average, layout, map, means);
}

/// One pixel of each plane of `map`.
pub(super) fn pool_planes(
    kernels: &Kernels,
    cut: Cut,
    kind: pool::PoolKind,
    layout: &Blocked,
    map: &[Block],
    out: &mut [Block],
) {
    let plane = layout.pixels();
    for_each_part(cut, out, 1, &mut [], &|part, pooled, _| {
        for (block, pooled) in (part.first_block..).zip(pooled) {
            (kernels.global_pool.run)(
                kind,
                layout.width,
                &map[block * plane..][..pooled.len() * plane],
                pooled,
            );
        }
    });
}

impl Run<'_, '_, '_> {
    pub(super) fn gate(&mut self, step: &Step, gate: &GateWork) {
        let (plan, kernels) = (self.plan, self.kernels);
        for index in 0..gate.output.layout.batch {
            let writes = [image(plan, &gate.output, index), self.scratch(step)];
            let ([mut input], [output, mut scratch]) =
                open(plan, self.arena, index, [Some(&gate.input)], writes);
            let Some((last, hidden)) = gate.layers.split_last() else { unreachable!("a gate has a layer") };
            for layer in hidden {
                let (sums, rest) = scratch.split_at_mut(layer.out_blocks);
                dense(plan, kernels, layer, input, sums);
                (input, scratch) = (sums, rest);
            }
            dense(plan, kernels, last, input, output);
            if gate.plus_one {
                let (left, right) = (elementwise::Operand::Out, elementwise::Operand::Scalar(1.0));
                let op = elementwise::BinaryOp::Add;
                let plane = output.len();
                let args = elementwise::BinaryArgs { op, left, right, plane, after: Activation::Identity };
                (kernels.binary.run)(&args, 0..plane, &mut [output]);
            }
        }
    }

    pub(super) fn scale(
        &mut self,
        step: &Step,
        [input, scale]: [&View; 2],
        residual: Option<&View>,
        after: Activation,
        output: &View,
    ) {
        let kernels = self.kernels;
        let plane = output.layout.pixels();
        for index in 0..output.layout.batch {
            let reads = [Some(input), Some(scale), residual];
            let ([x, scale, addend], [out]) =
                open(self.plan, self.arena, index, reads, [image(self.plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let first = part.first_block * plane;
                let args = ScaleArgs {
                    input: Some(&x[first..]),
                    scale: &scale[part.first_block..],
                    addend: residual.map_or(Addend::Nothing, |_| Addend::Map(&addend[first..])),
                    plane,
                    after,
                };
                (kernels.scale.run)(&args, part.pixels, out);
            });
        }
    }

    /// Both products of a few pixels, which stay in the first cache, and their sum or maximum.
    pub(super) fn concurrent(
        &mut self,
        step: &Step,
        larger: bool,
        [input, scale, spatial]: [&View; 3],
        output: &View,
    ) {
        let kernels = self.kernels;
        let (plane, after) = (output.layout.pixels(), Activation::Identity);
        for index in 0..output.layout.batch {
            let reads = [Some(input), Some(scale), Some(spatial)];
            let ([x, scale, gates], [out]) =
                open(self.plan, self.arena, index, reads, [image(self.plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let block = part.first_block;
                let args = ScaleArgs {
                    input: Some(&x[block * plane..]),
                    scale: &scale[block..],
                    addend: Addend::Pixel { gates, larger },
                    plane,
                    after,
                };
                (kernels.scale.run)(&args, part.pixels, out);
            });
        }
    }
}

/// One dense layer: the same kernel, and so the same bits, as a dense layer that stands by itself.
fn dense(plan: &Plan, kernels: &Kernels, layer: &GateLayer, input: &[Block], output: &mut [Block]) {
    let (weights, bias) = (&plan.weights[layer.weights.clone()], &plan.weights[layer.bias.clone()]);
    for_each_part(layer.cut, output, 1, &mut [], &|part, out, _| {
        let block = part.first_block;
        let args = ConvArgs {
            geometry: ConvGeometry::ONE_PIXEL,
            lanes: &layer.lanes,
            input,
            weights: &weights[block * layer.weights_per_block..],
            epilogue: Epilogue {
                bias: &bias[block..],
                scale: None,
                before: Activation::Identity,
                residual: None,
                residual_scale: None,
                after: layer.after,
                max_min: false,
            },
        };
        (kernels.direct.run)(&args, part.pixels, out);
    });
}
