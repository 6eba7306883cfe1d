//! Pools, functions of a pixel's channels, and what has an order: windows and planes.

use sinew_kernels::channels::{LrnArgs, SoftmaxArgs};
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::{Block, LANES, pool, strided};

use super::Output;
use super::across::across_channels;
use super::excite::pool_planes;
use super::parallel::{for_each_part, for_each_part_of};
use super::step::{Run, f32_input, image, open, plain_blocks};
use crate::graph::{Pool, PoolKind};
use crate::plan::layout::Blocked;
use crate::plan::step::{Plain, PlainPlace, Step, View};

impl Run<'_, '_, '_> {
    pub(super) fn pool(&mut self, step: &Step, pool: &Pool, input: &View, output: &View) {
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

    pub(super) fn global_pool(&mut self, step: &Step, kind: PoolKind, input: &View, output: &View) {
        let kind = global_kind(kind);
        for index in 0..output.layout.batch {
            let ([x], [out]) =
                open(self.plan, self.arena, index, [Some(input)], [image(self.plan, output, index)]);
            pool_planes(self.kernels, step.cut, kind, &input.layout, x, out);
        }
    }

    pub(super) fn max_min(&mut self, step: &Step, input: &View, [positive, negative]: [&View; 2]) {
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

    pub(super) fn max_min_pool(
        &mut self,
        step: &Step,
        pool: &Pool,
        input: &View,
        [positive, negative]: [&View; 2],
    ) {
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

    pub(super) fn softmax(&mut self, step: &Step, input: &View, output: &View, lanes: &[u8]) {
        let kernels = self.kernels;
        self.for_each_pixel(step, [input, output], &|input, out| {
            (kernels.softmax.run)(&SoftmaxArgs { input, lanes }, 0..out.len() / lanes.len(), out);
        });
    }

    pub(super) fn lrn(
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
    pub(super) fn for_each_pixel(
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
    pub(super) fn arg_max(&mut self, from: Plain, output: usize, extents: [usize; 3]) {
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

/// What is taken of a whole plane, as the kernels name it.
pub(super) fn global_kind(kind: PoolKind) -> pool::PoolKind {
    match kind {
        PoolKind::Max => pool::PoolKind::Max,
        PoolKind::Average => pool::PoolKind::Average,
    }
}

/// What a pool takes of a window, as the kernels name it.
pub(crate) fn pool_kind(pool: &Pool) -> pool::PoolKind {
    match pool.kind {
        PoolKind::Max => pool::PoolKind::Max,
        PoolKind::Average if pool.count_include_pad => {
            pool::PoolKind::AverageWithBorder { pad_bottom: pool.pads.bottom, pad_right: pool.pads.right }
        }
        PoolKind::Average => pool::PoolKind::Average,
    }
}
