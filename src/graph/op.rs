//! The closed set of operators. Shapes are NCHW as in ONNX; all dimensions are known.

use serde::{Deserialize, Serialize};
use sinew_kernels::activation::Activation;

use super::excite::Excite;
use crate::tensor::DType;

/// What a node computes. Each operator names its inputs in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Inputs: x `[N, C, H, W]`, weights `[O, C / groups, KH, KW]` (constant), bias `[O]` (constant), and a residual of
    /// the output's shape where `residual` is set, which a fifth input `[O]` (constant) multiplies if there is one. Output
    /// `[N, O, H', W']`.
    Conv(Conv),
    /// `y = after(x * w^T + b)`. Inputs: x `[N, K]`, weights `[O, K]` (constant), bias `[O]` (constant).
    Dense {
        /// Applied last.
        after: Activation,
    },
    /// Input: x `[N, C, H, W]`.
    Pool(Pool),
    /// The part of a pool that a stride leaves: the pool with stride 1, at `phase + stride * n`. Input: x `[N, C, H, W]`.
    PoolFragment {
        /// The window. The stride is that of the part; the pads are those of the whole.
        pool: Pool,
        /// The first position, below the stride.
        phase: [usize; 2],
    },
    /// The fragments of a map put together: input `i * steps[1] + j` holds rows `i + steps[0] * n` and columns
    /// `j + steps[1] * n`. Inputs: `steps[0] * steps[1]` values `[N, C, H', W']`.
    Interleave {
        /// Distance of a fragment's neighbours in the map.
        steps: [usize; 2],
    },
    /// Reduces height and width to one pixel. Input: x `[N, C, H, W]`.
    GlobalPool(PoolKind),
    /// `x * scale + shift` per channel, from an inference batch normalization. Inputs: x `[N, C, ...]`, gamma, beta,
    /// mean, variance, each `[C]` (constant).
    BatchNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// An element-wise function. Input: x.
    Unary(Activation),
    /// `x` where `x > 0`, `slope * x` elsewhere. Inputs: x, slope (broadcast to x).
    PRelu,
    /// An element-wise function of two inputs, broadcast against each other as in ONNX.
    Binary(BinaryOp),
    /// Exponentials divided by their sum. Input: x.
    Softmax {
        /// The dimension that sums to one.
        axis: usize,
    },
    /// Concatenation. Inputs: any number, equal but for `axis`.
    Concat {
        /// The dimension along which.
        axis: usize,
    },
    /// MaxMin (CReLU): `relu(x)` and `relu(-x)` as twice the channels. Input: x `[N, C, H, W]`.
    MaxMin {
        /// `[all x, then all -x]`, or the reverse.
        order: MaxMinOrder,
    },
    /// MaxMin of a convolution, from its sums: `after(v)` and `after(-v)` for `v = before(sum + bias) + residual`. Inputs
    /// as those of the convolution; output `[N, 2 O, H', W']`. Made by a pass, never by a file.
    ConvMaxMin {
        /// The convolution; its `after` is a ReLU.
        conv: Conv,
        /// As of `MaxMin`.
        order: MaxMinOrder,
    },
    /// The max pool of MaxMin: `relu(max x)` and `relu(-min x)` of each window. Input: x `[N, C, H, W]`. Made by a pass.
    MaxMinPool {
        /// The window.
        pool: Pool,
        /// As of `MaxMin`.
        order: MaxMinOrder,
    },
    /// Reorders dimensions: output dimension `i` is input dimension `permutation[i]`. Input: x.
    Transpose {
        /// Input dimension of each output dimension.
        permutation: Vec<usize>,
    },
    /// The same elements in another shape. Input: x.
    Reshape {
        /// The extent of each dimension; their product stays.
        shape: Vec<usize>,
    },
    /// Adds constant borders. Input: x.
    Pad {
        /// Elements added before and after, per dimension.
        amounts: Vec<[usize; 2]>,
        /// What is added.
        value: f32,
    },
    /// Takes part of the input. Input: x. Output dimension `i` holds `start[i] + step[i] * j`.
    Slice {
        /// First index per dimension.
        start: Vec<usize>,
        /// Distance per dimension, at least 1.
        step: Vec<usize>,
        /// Elements taken per dimension, at least 1.
        size: Vec<usize>,
    },
    /// Nearest-neighbour enlargement of `[N, C, H, W]` by whole factors. Input: x.
    UpsampleNearest {
        /// Factors of height and width.
        factors: [usize; 2],
    },
    /// The index of the largest element along `axis` (the first of equals), as i64. Input: x. A graph output only.
    ArgMax {
        /// The dimension that is searched.
        axis: usize,
        /// Whether it stays with extent 1.
        keep_dims: bool,
    },
    /// Local response normalization across channels. Input: x `[N, C, H, W]`.
    Lrn {
        /// Channels in the window.
        size: usize,
        /// Scale of the sum of squares, before division by `size`.
        alpha: f32,
        /// The exponent.
        beta: f32,
        /// Added to the scaled sum.
        bias: f32,
    },
    /// A part of a squeeze-and-excitation block.
    Excite(Excite),
}

/// A two-dimensional convolution and what happens to its sums: `after(before(sum + bias) + residual)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Taps, vertical and horizontal.
    pub kernel: [usize; 2],
    /// Distance of output pixels in the input.
    pub stride: [usize; 2],
    /// Distance of taps in the input.
    pub dilation: [usize; 2],
    /// Zeros around the input.
    pub pads: Pads,
    /// Groups of channels convolved separately.
    pub groups: usize,
    /// Applied before the residual is added.
    pub before: Activation,
    /// Whether a fourth input is added, times a fifth one where that is there.
    pub residual: bool,
    /// Applied last.
    pub after: Activation,
}

/// A pooling window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// What is taken of the window.
    pub kind: PoolKind,
    /// Taps, vertical and horizontal.
    pub kernel: [usize; 2],
    /// Distance of output pixels in the input.
    pub stride: [usize; 2],
    /// Distance of taps in the input.
    pub dilation: [usize; 2],
    /// Border around the input; never taken by a maximum.
    pub pads: Pads,
    /// Whether a last partial window counts.
    pub ceil_mode: bool,
    /// Whether an average divides by the taps in the border as well.
    pub count_include_pad: bool,
}

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PoolKind {
    /// The largest element; NaN if any is NaN.
    Max,
    /// The mean.
    Average,
}

/// Rows and columns around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

/// An element-wise function of two inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinaryOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The larger one; NaN if either is.
    Max,
    /// The smaller one; NaN if either is.
    Min,
}

/// Which half comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxMinOrder {
    /// All of `x`, then all of `-x`.
    PositiveFirst,
    /// All of `-x`, then all of `x`.
    NegativeFirst,
}

impl Op {
    /// The type of the output's elements.
    pub fn output_dtype(&self) -> DType {
        match self {
            Op::ArgMax { .. } => DType::I64,
            _ => DType::F32,
        }
    }

    /// The convolution in a node, and the order of its halves where MaxMin is taken of its sums.
    pub fn convolution(&self) -> Option<(&Conv, Option<MaxMinOrder>)> {
        match self {
            Op::Conv(conv) => Some((conv, None)),
            Op::ConvMaxMin { conv, order } => Some((conv, Some(*order))),
            _ => None,
        }
    }

    /// A short name for messages and listings: the ONNX operator where there is one.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv(_) => "Conv",
            Op::Dense { .. } => "Dense",
            Op::Pool(Pool { kind: PoolKind::Max, .. }) => "MaxPool",
            Op::Pool(Pool { kind: PoolKind::Average, .. }) => "AveragePool",
            Op::PoolFragment { .. } => "PoolFragment",
            Op::Interleave { .. } => "Interleave",
            Op::GlobalPool(PoolKind::Max) => "GlobalMaxPool",
            Op::GlobalPool(PoolKind::Average) => "GlobalAveragePool",
            Op::BatchNorm { .. } => "BatchNormalization",
            Op::Unary(activation) => match activation {
                Activation::Identity => "Identity",
                Activation::Relu => "Relu",
                Activation::LeakyRelu { .. } => "LeakyRelu",
                Activation::Clip { .. } => "Clip",
                Activation::HardSigmoid { .. } => "HardSigmoid",
                Activation::HardSwish => "HardSwish",
                Activation::Sigmoid => "Sigmoid",
                Activation::Silu => "Silu",
                Activation::Tanh => "Tanh",
                Activation::Exp => "Exp",
                Activation::Neg => "Neg",
                Activation::Abs => "Abs",
                Activation::Sqrt => "Sqrt",
                Activation::Reciprocal => "Reciprocal",
                Activation::Elu { .. } => "Elu",
                Activation::Erf => "Erf",
                Activation::Gelu => "Gelu",
                Activation::Log => "Log",
                Activation::Softplus => "Softplus",
            },
            Op::PRelu => "PRelu",
            Op::Binary(BinaryOp::Add) => "Add",
            Op::Binary(BinaryOp::Sub) => "Sub",
            Op::Binary(BinaryOp::Mul) => "Mul",
            Op::Binary(BinaryOp::Div) => "Div",
            Op::Binary(BinaryOp::Max) => "Max",
            Op::Binary(BinaryOp::Min) => "Min",
            Op::Softmax { .. } => "Softmax",
            Op::Concat { .. } => "Concat",
            Op::MaxMin { .. } => "MaxMin",
            Op::ConvMaxMin { .. } => "ConvMaxMin",
            Op::MaxMinPool { .. } => "MaxMinPool",
            Op::Transpose { .. } => "Transpose",
            Op::Reshape { .. } => "Reshape",
            Op::Pad { .. } => "Pad",
            Op::Slice { .. } => "Slice",
            Op::UpsampleNearest { .. } => "UpsampleNearest",
            Op::ArgMax { .. } => "ArgMax",
            Op::Lrn { .. } => "LRN",
            Op::Excite(excite) => excite.name(),
        }
    }
}
