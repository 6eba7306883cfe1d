//! Element-wise activations.

/// An element-wise function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x`.
    Identity,
    /// `x` where it is above zero or NaN, +0 elsewhere.
    Relu,
    /// `x` where it is above zero, `slope * x` elsewhere.
    LeakyRelu {
        /// The factor for negative inputs.
        slope: f32,
    },
    /// `low` where `x < low`, `high` where `x > high`, `x` elsewhere (NaN stays).
    Clip {
        /// The least result.
        low: f32,
        /// The largest result.
        high: f32,
    },
    /// `clip(alpha * x + beta, 0, 1)`, with one rounding in the fused multiply-add.
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at zero.
        beta: f32,
    },
    /// `x * clip(x / 6 + 1/2, 0, 1)`.
    HardSwish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x * sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// `exp(x)`.
    Exp,
    /// `-x`.
    Neg,
    /// `|x|`.
    Abs,
    /// The square root.
    Sqrt,
    /// `1 / x`.
    Reciprocal,
    /// `x` where it is above zero, `alpha * (exp(x) - 1)` elsewhere.
    Elu {
        /// The factor for negative inputs.
        alpha: f32,
    },
    /// The Gauss error function.
    Erf,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// The natural logarithm.
    Log,
    /// `log(1 + exp(x))`.
    Softplus,
}

impl Activation {
    /// Whether an epilogue applies it while the sums are in registers: those that cost a few instructions.
    /// The others are applied to the rows just written, while they are in the first-level cache.
    pub fn in_registers(self) -> bool {
        matches!(
            self,
            Activation::Identity | Activation::Relu | Activation::Clip { .. } | Activation::HardSwish
        )
    }
}
