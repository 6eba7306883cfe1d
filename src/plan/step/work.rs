//! What a step's work is called, and all that it touches.

use super::{Operand, Place, Plain, PlainOp, PlainPlace, View, Work};
use crate::graph::{BinaryOp, Pool, PoolKind};
use crate::plan::layout::Blocked;

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
            Work::Conv(_) | Work::ConvMaps(_) | Work::PlainConv(_) => "conv",
            Work::Pool { pool, .. } => pool_verb(pool),
            Work::PoolFragments { .. } => "pool-fragments",
            Work::GlobalPool { kind, .. } | Work::PlainGlobalPool { kind, .. } => match kind {
                PoolKind::Max => "global-max",
                PoolKind::Average => "global-average",
            },
            Work::Unary { .. } => "activation",
            Work::Binary { op, .. } => binary_verb(*op),
            Work::Plain(work) => match &work.op {
                PlainOp::Pool(pool) => pool_verb(pool),
                PlainOp::Depthwise { .. } => "conv",
                PlainOp::Unary(_) => "activation",
                PlainOp::Binary { op, .. } => binary_verb(*op),
                PlainOp::Scale { .. } => "scale",
            },
            Work::Affine { .. } => "affine",
            Work::Gate(_) => "gate",
            Work::Scale { .. } => "scale",
            Work::PRelu { .. } => "prelu",
            Work::MaxMin { .. } => "maxmin",
            Work::MaxMinPool { .. } => "maxmin-pool",
            Work::Softmax { .. } => "softmax",
            Work::Lrn { .. } => "lrn",
            Work::ArgMax { .. } => "argmax",
            Work::Concurrent { .. } => "scale-both",
        }
    }

    /// Every place in blocks that the step touches: what it reads first, what it writes last.
    pub(crate) fn views(&self) -> Vec<&View> {
        match self {
            Work::Convert { .. } | Work::CopyPlain { .. } | Work::ArgMax { .. } => vec![],
            Work::Pack { to, .. } => vec![to],
            Work::Plain(work) => work.per_channel().into_iter().flatten().collect(),
            Work::PlainGlobalPool { output, .. } => vec![output],
            Work::Unpack { from, .. } => vec![from],
            Work::CopyPixels { from, to, .. } | Work::CopyChannels { from, to, .. } => vec![from, to],
            Work::Conv(conv) => {
                let [scale, bias] = conv.scale.as_ref().map_or([None; 2], |pair| pair.each_ref().map(Some));
                let read = [Some(&conv.input), conv.residual.as_ref(), scale, bias];
                let written = [conv.squeeze.as_ref(), Some(&conv.output), conv.negative.as_ref()];
                read.into_iter().chain(written).flatten().collect()
            }
            Work::ConvMaps(maps) => {
                let read = maps.iter().flat_map(|conv| [Some(&conv.input), conv.residual.as_ref()]).flatten();
                read.chain(maps.iter().map(|conv| &conv.output)).collect()
            }
            Work::Gate(gate) => vec![&gate.input, &gate.output],
            Work::Scale { input, scale, residual, output, .. } => {
                [Some(input), Some(scale), residual.as_ref(), Some(output)].into_iter().flatten().collect()
            }
            Work::PlainConv(conv) => {
                let views = [conv.residual.as_ref(), Some(&conv.output), conv.negative.as_ref()];
                views.into_iter().flatten().collect()
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
            Work::MaxMin { input, positive, negative }
            | Work::MaxMinPool { input, positive, negative, .. } => vec![input, positive, negative],
            Work::PoolFragments { input, parts, .. } => [input].into_iter().chain(parts).collect(),
            Work::Concurrent { input, scale, spatial, output, .. } => vec![input, scale, spatial, output],
        }
    }

    /// The places in blocks that the step writes, in the order in which they lie.
    pub(crate) fn written(&self) -> Vec<&View> {
        let halves = match self {
            Work::Convert { .. }
            | Work::CopyPlain { .. }
            | Work::ArgMax { .. }
            | Work::Unpack { .. }
            | Work::Plain(_) => return vec![],
            Work::PoolFragments { parts, .. } => return parts.iter().collect(),
            Work::ConvMaps(maps) => return maps.iter().map(|conv| &conv.output).collect(),
            Work::MaxMin { positive, negative, .. } | Work::MaxMinPool { positive, negative, .. } => {
                Some((positive, negative))
            }
            Work::Conv(conv) => conv.negative.as_ref().map(|negative| (&conv.output, negative)),
            Work::PlainConv(conv) => conv.negative.as_ref().map(|negative| (&conv.output, negative)),
            _ => None,
        };
        match halves {
            Some((positive, negative)) if positive.skip < negative.skip => vec![positive, negative],
            Some((positive, negative)) => vec![negative, positive],
            None => self.views().pop().into_iter().collect(),
        }
    }

    /// Every plain place that the step touches.
    pub(super) fn plains(&self) -> Vec<Plain> {
        match self {
            Work::Convert { to, .. } => vec![*to],
            Work::Pack { from, .. } => vec![*from],
            Work::Unpack { to, .. } => vec![*to],
            Work::CopyPlain { from, to, .. } => vec![*from, *to],
            Work::PlainConv(conv) => vec![conv.input],
            Work::ArgMax { from, .. } | Work::PlainGlobalPool { from, .. } => vec![*from],
            Work::Plain(work) => {
                [Some(work.from), work.other(), Some(work.to)].into_iter().flatten().collect()
            }
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
            Work::Unpack { .. } | Work::Plain(_) => None,
            _ => self.views().last().map(|view| &view.layout),
        }
    }
}

fn pool_verb(pool: &Pool) -> &'static str {
    match pool.kind {
        PoolKind::Max => "max-pool",
        PoolKind::Average => "average-pool",
    }
}

fn binary_verb(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "add",
        BinaryOp::Sub => "subtract",
        BinaryOp::Mul => "multiply",
        BinaryOp::Div => "divide",
        BinaryOp::Max => "maximum",
        BinaryOp::Min => "minimum",
    }
}
