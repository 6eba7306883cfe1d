//! How a step is shared out: as many parts as its bytes are worth, along what its kernel can be given in pieces.

use super::Builder;
use crate::plan::layout::Blocked;
use crate::plan::step::{PlainOp, Work, unpacked_in_runs};
use crate::run::parallel::{Along, Cut, MAX_PLANES};

/// Multiply-accumulates that are worth another thread: 3 us at the peak, 6 us of a depthwise layer, where handing them over
/// costs some 2 us.
const MACS_PER_PART: u64 = 150_000;

/// Bytes that are worth a thread: some 3 to 5 us.
const BYTES_PER_PART: u64 = 128 << 10;

/// Pixels that are taken at a time across all channels.
const PIXELS_AT_A_TIME: usize = 16;

impl Builder<'_> {
    /// How a step that is bound by memory is cut, and the blocks of scratch that its parts need together.
    pub(super) fn cut(&self, work: &Work, bytes: u64) -> (Cut, usize) {
        let parts = self.parts_of(bytes);
        match work {
            Work::Unpack { from, strides, .. } => match unpacked_in_runs(&from.layout, *strides) {
                Some(Along::Blocks { unit }) => (runs(parts, from.layout.blocks(), unit), 0),
                Some(along) => (Cut { parts: parts.min(from.layout.height), along }, 0),
                None => (Cut::WHOLE, 0),
            },
            Work::Plain(work) => match &work.op {
                PlainOp::Depthwise { geometry, .. } => {
                    let macs = work.to.len as u64 * geometry.taps() as u64;
                    (runs(self.parts_of_macs(bytes, macs), work.to.len / work.out_size[1].max(1), 1), 0)
                }
                PlainOp::Pool(_) => (runs(parts, work.to.len / work.out_size[1].max(1), 1), 0),
                _ => (runs(parts, work.to.len, sinew_kernels::LANES), 0),
            },
            Work::PlainGlobalPool { output, .. } => (runs(parts, output.layout.blocks(), 1), 0),
            Work::Convert { to, .. } => (runs(parts, to.len, sinew_kernels::LANES), 0),
            Work::CopyPlain { copy, .. } => {
                (runs(parts, copy.outermost().map_or(1, |outer| copy.extents[outer]), 1), 0)
            }
            Work::CopyPixels { to, copy, .. } => {
                let [_, rows] = copy.blocks_and_rows();
                let (blocks, along) = (to.layout.blocks(), Along::Pixels { unit: copy.to_strides[rows] });
                (if blocks >= parts { runs(parts, blocks, 1) } else { Cut { parts, along } }, 0)
            }
            Work::GlobalPool { input, .. } => (runs(parts, input.layout.blocks(), 1), 0),
            Work::Softmax { output, .. } | Work::Lrn { output, .. } => {
                let (blocks, parts) = (output.layout.blocks(), parts.min(output.layout.pixels()));
                if parts == 1 || blocks > MAX_PLANES {
                    return (Cut::WHOLE, 0);
                }
                let cut = Cut { parts, along: Along::Pixels { unit: 1 } };
                (cut, parts * 2 * blocks * PIXELS_AT_A_TIME)
            }
            _ => (self.cut_bytes(bytes, work.output_layout()), 0),
        }
    }

    /// Blocks, or rows where there are fewer blocks than parts.
    pub(super) fn cut_bytes(&self, bytes: u64, layout: Option<&Blocked>) -> Cut {
        let Some(layout) = layout else { return Cut::WHOLE };
        let parts = self.parts_of(bytes);
        if layout.blocks() >= parts {
            return Cut { parts, along: Along::Blocks { unit: 1 } };
        }
        Cut { parts, along: Along::Pixels { unit: layout.width.max(1) } }
    }

    /// How a call of a convolution is shared out, whose output is `blocks` blocks of `pixels` pixels: not at all where a part
    /// would be too small to pay. Of the ways to do it, the first one with no much larger part than any other.
    pub(super) fn cut_conv(
        &self,
        macs: u64,
        bytes: u64,
        [blocks, pixels]: [usize; 2],
        ways: &[Along],
    ) -> Cut {
        let parts = self.parts_of_macs(bytes, macs);
        // the largest part, in millionths
        let largest = |along: &Along| {
            let (total, unit) = match *along {
                Along::Blocks { unit } => (blocks, unit),
                Along::Pixels { unit } => (pixels, unit),
            };
            (total.div_ceil(unit).div_ceil(parts) * unit).min(total) * 1_000_000 / total.max(1)
        };
        let least = ways.iter().map(largest).min().unwrap_or(0);
        let along = ways.iter().copied().find(|along| largest(along) <= least + least / 16);
        along.map_or(Cut::WHOLE, |along| Cut { parts, along })
    }

    fn parts_of_macs(&self, bytes: u64, macs: u64) -> usize {
        self.parts_of(bytes).max(self.options.threads.min((macs / MACS_PER_PART) as usize))
    }

    fn parts_of(&self, bytes: u64) -> usize {
        self.options.threads.min((bytes / BYTES_PER_PART) as usize).max(1)
    }
}

/// Runs of `count` units, no more parts than there are.
fn runs(parts: usize, count: usize, unit: usize) -> Cut {
    Cut { parts: parts.min(count.div_ceil(unit)).max(1), along: Along::Blocks { unit } }
}

#[cfg(test)]
mod tests {
    use sinew_kernels::activation::Activation;

    use super::{Along, Cut};
    use crate::graph::{Conv, Graph, MaxMinOrder, Op, Pads, PoolKind};
    use crate::plan::{Io, Plan, PlanOptions};
    use crate::tensor::{DType, Tensor};

    /// The parts of each kind of step of one node, for 3 threads.
    fn parts(shape: [usize; 4], op: Op) -> Vec<(String, usize)> {
        let mut graph = Graph::default();
        let x = graph.add_value("x", shape.to_vec(), DType::F32);
        graph.inputs.push(x);
        let y = graph.add_node("y", op, vec![x]).expect("it fits");
        graph.outputs.push(y);
        let options = PlanOptions { threads: 3, ..PlanOptions::default() };
        let plan = Plan::new(&graph, &options).expect("a checked graph is planned");
        plan.steps.iter().map(|step| (step.op.to_string(), step.cut.parts)).collect()
    }

    /// How a convolution of square maps is cut for 2 threads.
    fn cut_of(channels: [usize; 2], size: usize, kernel: usize, groups: usize) -> Cut {
        let mut graph = Graph::default();
        let x = graph.add_value("x", vec![1, channels[0], size, size], DType::F32);
        graph.inputs.push(x);
        let shape = [channels[1], channels[0] / groups, kernel, kernel];
        let weights = Tensor::f32(shape, vec![0.5; shape.iter().product()]).expect("as many values");
        let weights = graph.add_constant("weights", weights);
        let bias = Tensor::f32([channels[1]], vec![0.0; channels[1]]).expect("as many values");
        let bias = graph.add_constant("bias", bias);
        let pad = kernel / 2;
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
            groups,
            before: Activation::Identity,
            residual: false,
            after: Activation::Identity,
        };
        let y = graph.add_node("y", Op::Conv(conv), vec![x, weights, bias]).expect("it fits");
        graph.outputs.push(y);
        let options = PlanOptions { threads: 2, io: Io::Blocked, ..PlanOptions::default() };
        let plan = Plan::new(&graph, &options).expect("a checked graph is planned");
        plan.steps.iter().find(|step| step.op == "Conv").expect("a convolution").cut
    }

    #[test]
    fn convolutions_are_cut_into_equal_parts() {
        let blocks = |unit| Cut { parts: 2, along: Along::Blocks { unit } };
        let pixels = |unit| Cut { parts: 2, along: Along::Pixels { unit } };
        // one call computes all groups; where there is one block, its rows are divided
        assert_eq!(cut_of([120, 120], 28, 5, 120), blocks(1));
        assert_eq!(cut_of([16, 16], 56, 3, 16), pixels(56));
        assert_eq!(cut_of([128, 128], 28, 3, 32), blocks(1));
        // many weights: pairs of blocks, or blocks, or pixels, whichever gives equal parts
        assert_eq!(cut_of([256, 512], 7, 1, 1), blocks(2));
        assert_eq!(cut_of([960, 160], 7, 1, 1), blocks(1));
        assert_eq!(cut_of([672, 112], 14, 1, 1), pixels(14));
        // many pixels
        assert_eq!(cut_of([16, 64], 112, 1, 1), pixels(14));
        assert_eq!(cut_of([64, 64], 8, 1, 1), Cut { parts: 1, ..cut_of([64, 64], 8, 1, 1) });
    }

    #[test]
    fn large_steps_are_shared_out_and_small_ones_are_not() {
        let ops = [
            Op::Softmax { axis: 1 },
            Op::Lrn { size: 5, alpha: 0.5, beta: 0.75, bias: 1.0 },
            Op::GlobalPool(PoolKind::Average),
            Op::GlobalPool(PoolKind::Max),
            Op::MaxMin { order: MaxMinOrder::PositiveFirst },
            Op::Slice { start: vec![0, 0, 1, 1], step: vec![1, 1, 2, 2], size: vec![1, 48, 47, 47] },
        ];
        for op in ops {
            let large = parts([1, 48, 96, 96], op.clone());
            // One pixel of every plane is little to unpack.
            let whole = |step: &str| step == "unpack" && matches!(op, Op::GlobalPool(_));
            for (step, parts) in &large {
                assert_eq!(*parts == 1, whole(step), "{step} of {}: {large:?}", op.name());
            }
            if !matches!(op, Op::Slice { .. }) {
                let small = parts([1, 48, 8, 8], op.clone());
                assert!(small.iter().all(|&(_, parts)| parts == 1), "{}: {small:?}", op.name());
            }
        }
    }
}
