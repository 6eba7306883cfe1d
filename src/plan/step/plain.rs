//! Steps on row-major maps as they lie: no layout change before or behind them.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::ConvGeometry;

use super::{Plain, View};
use crate::graph::{BinaryOp, Pool};
use crate::plan::layout::Blocked;

/// A row-major map to another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlainWork {
    pub(crate) op: PlainOp,
    /// Images, channels, rows and columns of the input.
    pub(crate) shape: [usize; 4],
    /// Rows and columns of the output.
    pub(crate) out_size: [usize; 2],
    pub(crate) from: Plain,
    pub(crate) to: Plain,
}

/// What is computed. Numbers per channel are single pixels in blocks, their channels in one part; images share them where
/// the batch stride is zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PlainOp {
    Pool(Pool),
    Unary(Activation),
    /// `op(x, other)`, or `op(other, x)` where `swapped`.
    Binary {
        op: BinaryOp,
        swapped: bool,
        other: PlainOperand,
    },
    /// `after(x * scale + addend)`.
    Scale {
        scale: View,
        addend: Option<PlainOperand>,
        after: Activation,
    },
    /// Each channel with a filter of its own: weights `[channel][tap]`, then one number per channel.
    Depthwise {
        geometry: ConvGeometry,
        weights: Range<usize>,
        bias: Range<usize>,
        after: Activation,
    },
}

/// What a step on a row-major map reads besides it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum PlainOperand {
    /// The same shape.
    Same(Plain),
    /// One number per channel.
    PerChannel(View),
    /// One number.
    Scalar(f32),
}

impl PlainWork {
    /// Rows and columns of a plane of the input, as numbers of pixels.
    pub(crate) fn plane(&self) -> usize {
        self.shape[2] * self.shape[3]
    }

    /// Elements of an image of the input.
    pub(crate) fn image(&self) -> usize {
        self.shape[1] * self.plane()
    }

    /// Extents of the output.
    pub(crate) fn out_shape(&self) -> [usize; 4] {
        [self.shape[0], self.shape[1], self.out_size[0], self.out_size[1]]
    }

    /// The input's extents as those of blocks.
    pub(crate) fn input_layout(&self) -> Blocked {
        let [batch, channels, height, width] = self.shape;
        Blocked { batch, parts: vec![channels], height, width }
    }

    /// The operands besides the input.
    fn operands(&self) -> (Option<&PlainOperand>, Option<&View>) {
        match &self.op {
            PlainOp::Pool(_) | PlainOp::Depthwise { .. } | PlainOp::Unary(_) => (None, None),
            PlainOp::Binary { other, .. } => (Some(other), None),
            PlainOp::Scale { scale, addend, .. } => (addend.as_ref(), Some(scale)),
        }
    }

    /// The numbers per channel: the scale first.
    pub(crate) fn per_channel(&self) -> [Option<&View>; 2] {
        let (operand, scale) = self.operands();
        let addend = match operand {
            Some(PlainOperand::PerChannel(view)) => Some(view),
            _ => None,
        };
        [scale, addend]
    }

    /// The other map that is read.
    pub(crate) fn other(&self) -> Option<Plain> {
        match self.operands() {
            (Some(PlainOperand::Same(plain)), _) => Some(*plain),
            _ => None,
        }
    }
}
