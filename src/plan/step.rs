//! The steps of a plan: what each does and where its operands lie.

mod plain;
mod work;

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sinew_kernels::LANES;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::conv::winograd::Groups;

use super::choose::Algorithm;
use super::layout::Blocked;
use crate::graph::{BinaryOp, Pool, PoolKind};
use crate::run::parallel::{Along, Cut};
pub(crate) use plain::{PlainOp, PlainOperand, PlainWork};

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
            Work::Plain(work) => work.out_shape().to_vec(),
            work => match work.written()[..] {
                [View { layout, .. }, ref more @ ..] => {
                    let channels =
                        layout.channels() + more.iter().map(|view| view.layout.channels()).sum::<usize>();
                    vec![layout.batch, channels, layout.height, layout.width]
                }
                [] => work.plains().last().map(|plain| vec![plain.len]).unwrap_or_default(),
            },
        }
    }

    /// The buffer of the arena that the result goes to, and the block in it; none where it goes to the caller.
    pub(super) fn output_buffer(&self) -> Option<(usize, usize)> {
        if let Some(view) = self.work.written().first() {
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
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct View {
    pub(crate) place: Place,
    /// Blocks from the start of the place to the first image.
    pub(crate) skip: usize,
    pub(crate) batch_stride: usize,
    pub(crate) layout: Blocked,
}

// Not derived, which would be inlined: a convolution has eight views.
impl Clone for View {
    #[inline(never)]
    fn clone(&self) -> Self {
        let &Self { place, skip, batch_stride, ref layout } = self;
        Self { place, skip, batch_stride, layout: layout.clone() }
    }
}

impl PartialEq for View {
    #[inline(never)]
    fn eq(&self, other: &Self) -> bool {
        let all = |view: &View| (view.place, view.skip, view.batch_stride);
        all(self) == all(other) && self.layout == other.layout
    }
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

impl Strided {
    /// The dimension along which the copy can be shared out: the outermost one of several elements, where all that lies in
    /// one of them ends before the next begins.
    pub(crate) fn outermost(&self) -> Option<usize> {
        let outer = self.extents.iter().position(|&extent| extent > 1)?;
        let inner = self.extents.iter().zip(&self.to_strides).skip(outer + 1);
        let last: usize = inner.map(|(extent, stride)| (extent - 1) * stride).sum();
        (last < self.to_strides[outer]).then_some(outer)
    }

    /// Of a copy of pixels, the dimensions of blocks and of rows: the first one that moves in the target, and the next.
    pub(crate) fn blocks_and_rows(&self) -> [usize; 2] {
        let first = self.to_strides.iter().position(|&stride| stride > 0).unwrap_or(0);
        let blocks = first.min(MAX_RANK - 2);
        [blocks, blocks + 1]
    }
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

/// A pool of 2x2 windows, 2 apart, that a convolution does with what it has just computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PoolBehind {
    Largest,
    Mean,
    /// The largest of both halves of MaxMin, which comes before the pool.
    MaxMin,
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
    /// Where MaxMin's other half goes: `after(-v)` where `output` gets `after(v)`.
    pub(crate) negative: Option<View>,
    /// A pool of what the geometry gives, whose result is the output.
    pub(crate) pool: Option<PoolBehind>,
    pub(crate) residual: Option<View>,
    /// What the sums are multiplied by, one number per output channel, and the bias times that.
    pub(crate) scale: Option<[View; 2]>,
    /// Where the means of the output's planes go.
    pub(crate) squeeze: Option<View>,
    /// Of the residual, per channel, among the weights.
    pub(crate) residual_scale: Option<Range<usize>>,
    /// Packed weights, all groups; each output block's are `weights_per_block` apart.
    pub(crate) weights: Range<usize>,
    pub(crate) weights_per_block: usize,
    pub(crate) bias: Range<usize>,
    pub(crate) before: Activation,
    pub(crate) after: Activation,
    /// Channels of a group, of the input and of the output.
    pub(crate) group_channels: [usize; 2],
}

impl ConvWork {
    /// Whether blocks hold several groups.
    pub(crate) fn groups_share_blocks(&self) -> bool {
        self.groups > 1 && self.group_channels[0] < LANES
    }

    /// For Winograd: what the output blocks from `first` on read.
    pub(crate) fn groups_from(&self, first: usize) -> Groups {
        if self.groups_share_blocks() {
            return Groups { first, blocks: 1, spread: self.group_channels[0] };
        }
        match self.groups {
            1 => Groups::ONE,
            groups => Groups { first, blocks: self.output.layout.blocks() / groups, spread: LANES },
        }
    }
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
    /// As of [`ConvWork`].
    pub(crate) negative: Option<View>,
    pub(crate) residual: Option<View>,
    pub(crate) residual_scale: Option<Range<usize>>,
    /// Packed weights; each output block's are `weights_per_block` apart.
    pub(crate) weights: Range<usize>,
    pub(crate) weights_per_block: usize,
    pub(crate) bias: Range<usize>,
    pub(crate) before: Activation,
    pub(crate) after: Activation,
}

/// Dense layers on pooled channels, one after the other: the gate of squeeze-and-excitation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GateWork {
    /// Pooled channels, one pixel.
    pub(crate) input: View,
    pub(crate) layers: Vec<GateLayer>,
    /// Whether 1 is added at last.
    pub(crate) plus_one: bool,
    pub(crate) output: View,
}

/// One dense layer of a gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GateLayer {
    /// Live channels of each input block.
    pub(crate) lanes: Vec<u8>,
    pub(crate) out_blocks: usize,
    /// Packed as those of a dense layer; each output block's are `weights_per_block` apart.
    pub(crate) weights: Range<usize>,
    pub(crate) weights_per_block: usize,
    pub(crate) bias: Range<usize>,
    pub(crate) after: Activation,
    /// How its output blocks are shared out.
    pub(crate) cut: Cut,
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
    /// One layer on several maps, by Winograd: their tiles are worked on together. They differ in sizes and places only.
    ConvMaps(Vec<ConvWork>),
    PlainConv(Box<PlainConvWork>),
    Pool {
        pool: Pool,
        input: View,
        output: View,
    },
    /// The pool with stride 1, each output to the part of its position modulo the stride: one sweep over the input.
    /// The parts lie one after the other, row by row.
    PoolFragments {
        pool: Pool,
        input: View,
        parts: Vec<View>,
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
    /// Dense layers on pooled channels.
    Gate(Box<GateWork>),
    /// `after(x * scale + residual)`, one scale per channel and image.
    Scale {
        input: View,
        scale: View,
        residual: Option<View>,
        after: Activation,
        output: View,
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
    /// The max pools of both.
    MaxMinPool {
        pool: Pool,
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
    /// `x * scale + x * spatial`, or the larger product: one number per channel and one per pixel.
    Concurrent {
        larger: bool,
        input: View,
        scale: View,
        spatial: View,
        output: View,
    },
    /// A row-major map to another one.
    Plain(Box<PlainWork>),
    /// One number for each plane of a row-major map of this height and width.
    PlainGlobalPool {
        kind: PoolKind,
        from: Plain,
        size: [usize; 2],
        output: View,
    },
}

/// How an unpacking step can be shared out: by blocks where a channel's plane lies in one piece, by rows where a row's
/// channels do.
pub(crate) fn unpacked_in_runs(layout: &Blocked, [_, channel, row, pixel]: [usize; 4]) -> Option<Along> {
    let across = (layout.width - 1) * pixel;
    if (layout.height - 1) * row + across < channel {
        Some(Along::Blocks { unit: 1 })
    } else if (layout.channels() - 1) * channel + across < row {
        Some(Along::Pixels { unit: layout.width })
    } else {
        None
    }
}
