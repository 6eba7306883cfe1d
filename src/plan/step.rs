//! The steps of a plan: what each does and where its operands lie.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::ConvGeometry;

use super::choose::Algorithm;
use super::layout::Blocked;
use crate::graph::{BinaryOp, Pool, PoolKind};
use crate::run::parallel::Cut;

/// One step: a verb, its operands, and why it is done this way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The node it comes from.
    pub name: String,
    /// What it does, for listings.
    pub op: Cow<'static, str>,
    /// How: the algorithm.
    pub algorithm: Cow<'static, str>,
    /// Why this algorithm, and why not the ones before it in the list.
    pub why: String,
    /// Multiply-accumulates of the direct form.
    pub macs: u64,
    /// Bytes that must move at least: operands, weights and result once.
    pub bytes: u64,
    /// Buffers it reads and writes.
    pub(crate) buffers: Vec<usize>,
    pub(crate) work: Work,
    /// Its own buffer for intermediate results.
    pub(crate) scratch: Option<usize>,
    /// Blocks of that buffer.
    pub(crate) scratch_blocks: usize,
    pub(crate) cut: Cut,
}

impl Step {
    /// Extents of the result: `[N, C, H, W]` where it lies in blocks; what is row-major is told by its number of elements.
    pub fn output_shape(&self) -> Vec<usize> {
        match &self.work {
            Work::ArgMax { extents: [outer, _, inner], .. } => vec![outer * inner],
            Work::MaxMin { positive: View { layout, .. }, negative, .. } => {
                let channels = layout.channels() + negative.layout.channels();
                vec![layout.batch, channels, layout.height, layout.width]
            }
            work => match work.output_layout() {
                Some(layout) => vec![layout.batch, layout.channels(), layout.height, layout.width],
                None => work.plains().last().map(|plain| vec![plain.len]).unwrap_or_default(),
            },
        }
    }

    /// The buffer of the arena that the result goes to, and the block in it; none where it goes to the caller.
    pub(super) fn output_buffer(&self) -> Option<(usize, usize)> {
        if let Work::MaxMin { positive, negative, .. } = &self.work
            && let Place::Arena(buffer) = positive.place
        {
            return Some((buffer, positive.skip.min(negative.skip)));
        }
        if self.work.output_layout().is_some() {
            let view = self.work.views().pop()?;
            return if let Place::Arena(buffer) = view.place { Some((buffer, view.skip)) } else { None };
        }
        match self.work.plains().last()?.place {
            PlainPlace::Arena(buffer) => Some((buffer, 0)),
            _ => None,
        }
    }
}

/// Where a value's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// A buffer of the arena.
    Arena(usize),
    /// The packed weights.
    Weights,
}

/// A value in blocks: `batch` images of `layout.image_blocks()` blocks, `batch_stride` apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) place: Place,
    /// Blocks from the start of the place to the first image.
    pub(crate) skip: usize,
    pub(crate) batch_stride: usize,
    pub(crate) layout: Blocked,
}

/// Where a plain value's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PlainPlace {
    /// The caller's input.
    Input(usize),
    /// The caller's output.
    Output(usize),
    /// A buffer of the arena.
    Arena(usize),
    /// The weights, from this block on.
    Weights(usize),
}

/// A value in row-major order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plain {
    pub(crate) place: PlainPlace,
    /// Elements.
    pub(crate) len: usize,
}

/// Dimensions of a strided copy: more are never needed, since a graph's values have at most this rank.
pub(crate) use sinew_kernels::strided::MAX_RANK;

/// A copy of a box of elements: extents with a stride on both sides, outermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Strided {
    pub(crate) extents: [usize; MAX_RANK],
    pub(crate) from_strides: [usize; MAX_RANK],
    pub(crate) to_strides: [usize; MAX_RANK],
    pub(crate) from_start: usize,
    pub(crate) to_start: usize,
}

/// What a binary step reads besides its first operand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Operand {
    /// The same shape and layout.
    Same(View),
    /// One number per channel (and image, unless its batch stride is zero).
    PerChannel(View),
    /// One channel for all: lane 0 of each pixel.
    PerPixel(View),
    /// One number.
    Scalar(f32),
}

/// A convolution or dense layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConvWork {
    pub(crate) algorithm: Algorithm,
    pub(crate) geometry: ConvGeometry,
    /// Live channels of each input block of one group.
    pub(crate) lanes: Vec<u8>,
    pub(crate) groups: usize,
    pub(crate) input: View,
    pub(crate) output: View,
    pub(crate) residual: Option<View>,
    /// Packed weights, all groups; each output block's are `weights_per_block` apart.
    pub(crate) weights: Range<usize>,
    pub(crate) weights_per_block: usize,
    pub(crate) bias: Range<usize>,
    pub(crate) before: Activation,
    pub(crate) after: Activation,
    /// Channels of a group, of the input and of the output: for grouped convolution.
    pub(crate) group_channels: [usize; 2],
}

/// A first convolution on the plain image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlainConvWork {
    pub(crate) geometry: ConvGeometry,
    pub(crate) channels: usize,
    /// Elements between images, channels, rows and pixels.
    pub(crate) strides: [usize; 4],
    pub(crate) input: Plain,
    pub(crate) output: View,
    pub(crate) residual: Option<View>,
    /// Packed weights; each output block's are `weights_per_block` apart.
    pub(crate) weights: Range<usize>,
    pub(crate) weights_per_block: usize,
    pub(crate) bias: Range<usize>,
    pub(crate) before: Activation,
    pub(crate) after: Activation,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Integers of the caller to f32.
    Convert {
        input: usize,
        to: Plain,
    },
    /// Plain to blocks; `strides` are those of image, channel, row and pixel in the plain value.
    Pack {
        from: Plain,
        strides: [usize; 4],
        to: View,
        lanes: Vec<u8>,
    },
    /// Blocks to plain.
    Unpack {
        from: View,
        to: Plain,
        strides: [usize; 4],
        lanes: Vec<u8>,
    },
    /// A box of plain elements; the rest of `to` is filled first where `fill` is set.
    CopyPlain {
        from: Plain,
        to: Plain,
        copy: Strided,
        fill: Option<f32>,
    },
    /// A box of pixels of every image.
    CopyPixels {
        from: View,
        to: View,
        copy: Strided,
    },
    /// `count` channels from `first` on to the first channels of another value.
    CopyChannels {
        from: View,
        to: View,
        first: usize,
        count: usize,
        lanes: [Vec<u8>; 2],
    },
    Conv(Box<ConvWork>),
    PlainConv(Box<PlainConvWork>),
    Pool {
        pool: Pool,
        input: View,
        output: View,
    },
    GlobalPool {
        kind: PoolKind,
        input: View,
        output: View,
    },
    Unary {
        function: Activation,
        input: View,
        output: View,
    },
    /// `op(a, b)`, or `op(b, a)` where `swapped`.
    Binary {
        op: BinaryOp,
        swapped: bool,
        a: View,
        b: Operand,
        output: View,
    },
    /// `x * scale + shift` per channel.
    Affine {
        input: View,
        output: View,
        scale: Range<usize>,
        shift: Range<usize>,
    },
    /// `x` where it is above zero, `slope * x` elsewhere; one slope per channel.
    PRelu {
        input: View,
        output: View,
        slope: Range<usize>,
    },
    /// `relu(x)` and `relu(-x)`, to two parts of one value.
    MaxMin {
        input: View,
        positive: View,
        negative: View,
    },
    Softmax {
        input: View,
        output: View,
        lanes: Vec<u8>,
    },
    Lrn {
        lanes: Vec<u8>,
        input: View,
        output: View,
        size: usize,
        alpha: f32,
        beta: f32,
        bias: f32,
    },
    /// Index of the largest of `extents[1]`, for `extents[0]` outer and `extents[2]` inner positions.
    ArgMax {
        from: Plain,
        output: usize,
        extents: [usize; 3],
    },
}

impl Work {
    pub(crate) fn pack(from: Plain, strides: [usize; 4], to: View) -> Self {
        let lanes = to.layout.lanes();
        Work::Pack { from, strides, to, lanes }
    }

    pub(crate) fn unpack(from: View, to: Plain, strides: [usize; 4]) -> Self {
        let lanes = from.layout.lanes();
        Work::Unpack { from, to, strides, lanes }
    }

    pub(crate) fn copy_channels(from: View, to: View, first: usize, count: usize) -> Self {
        let lanes = [from.layout.lanes(), to.layout.lanes()];
        Work::CopyChannels { from, to, first, count, lanes }
    }

    /// What the step does, in a word.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Work::Convert { .. } => "convert",
            Work::Pack { .. } => "pack",
            Work::Unpack { .. } => "unpack",
            Work::CopyPlain { .. } | Work::CopyPixels { .. } => "copy",
            Work::CopyChannels { .. } => "repack",
            Work::Conv(_) | Work::PlainConv(_) => "conv",
            Work::Pool { pool, .. } if pool.kind == PoolKind::Max => "max-pool",
            Work::Pool { .. } => "average-pool",
            Work::GlobalPool { kind: PoolKind::Max, .. } => "global-max",
            Work::GlobalPool { .. } => "global-average",
            Work::Unary { .. } => "activation",
            Work::Binary { op, .. } => match op {
                BinaryOp::Add => "add",
                BinaryOp::Sub => "subtract",
                BinaryOp::Mul => "multiply",
                BinaryOp::Div => "divide",
                BinaryOp::Max => "maximum",
                BinaryOp::Min => "minimum",
            },
            Work::Affine { .. } => "affine",
            Work::PRelu { .. } => "prelu",
            Work::MaxMin { .. } => "maxmin",
            Work::Softmax { .. } => "softmax",
            Work::Lrn { .. } => "lrn",
            Work::ArgMax { .. } => "argmax",
        }
    }

    /// Every place in blocks that the step touches: what it reads first, what it writes last.
    pub(crate) fn views(&self) -> Vec<&View> {
        match self {
            Work::Convert { .. } | Work::CopyPlain { .. } | Work::ArgMax { .. } => vec![],
            Work::Pack { to, .. } => vec![to],
            Work::Unpack { from, .. } => vec![from],
            Work::CopyPixels { from, to, .. } | Work::CopyChannels { from, to, .. } => vec![from, to],
            Work::Conv(conv) => [Some(&conv.input), conv.residual.as_ref(), Some(&conv.output)]
                .into_iter()
                .flatten()
                .collect(),
            Work::PlainConv(conv) => {
                [conv.residual.as_ref(), Some(&conv.output)].into_iter().flatten().collect()
            }
            Work::Pool { input, output, .. }
            | Work::GlobalPool { input, output, .. }
            | Work::Unary { input, output, .. }
            | Work::Affine { input, output, .. }
            | Work::PRelu { input, output, .. }
            | Work::Softmax { input, output, .. }
            | Work::Lrn { input, output, .. } => vec![input, output],
            Work::Binary { a, b, output, .. } => match b {
                Operand::Same(b) | Operand::PerChannel(b) | Operand::PerPixel(b) => vec![a, b, output],
                Operand::Scalar(_) => vec![a, output],
            },
            Work::MaxMin { input, positive, negative } => vec![input, positive, negative],
        }
    }

    /// Every plain place that the step touches.
    fn plains(&self) -> Vec<Plain> {
        match self {
            Work::Convert { to, .. } => vec![*to],
            Work::Pack { from, .. } => vec![*from],
            Work::Unpack { to, .. } => vec![*to],
            Work::CopyPlain { from, to, .. } => vec![*from, *to],
            Work::PlainConv(conv) => vec![conv.input],
            Work::ArgMax { from, .. } => vec![*from],
            _ => vec![],
        }
    }

    /// The buffers of the arena that the step reads or writes.
    pub(crate) fn buffers(&self) -> Vec<usize> {
        let in_blocks = self.views().into_iter().filter_map(|view| match view.place {
            Place::Arena(buffer) => Some(buffer),
            Place::Weights => None,
        });
        let plain = self.plains().into_iter().filter_map(|plain| match plain.place {
            PlainPlace::Arena(buffer) => Some(buffer),
            _ => None,
        });
        in_blocks.chain(plain).collect()
    }

    /// Bytes of all operands and results, each counted once.
    pub(crate) fn bytes(&self) -> u64 {
        let blocks: usize =
            self.views().iter().map(|view| view.layout.batch * view.layout.image_blocks()).sum();
        let elements: usize = self.plains().iter().map(|plain| plain.len).sum();
        blocks as u64 * 64 + elements as u64 * 4
    }

    /// The layout of what the step writes, where that is in blocks.
    pub(crate) fn output_layout(&self) -> Option<&Blocked> {
        match self {
            Work::Unpack { .. } => None,
            _ => self.views().last().map(|view| &view.layout),
        }
    }
}
