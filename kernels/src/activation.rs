//! Element-wise activations. Their bits are the same on every instruction set; the errors of the transcendental
//! ones and what they make of special values stand in `math.rs`.

use crate::isa::scalar::ONE;
use crate::math;
use crate::simd::Simd;

/// An element-wise function.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    /// `low` where `x < low`, `x` elsewhere; then `high` where that is larger. NaN stays; at a bound of zero a
    /// zero keeps its sign.
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
    /// `x * clip(x / 6 + 1/2, 0, 1)`: `x` times [`Activation::HardSigmoid`] of the f32 next to 1/6. NaN at
    /// minus infinity.
    HardSwish,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x * sigmoid(x)`, in these two steps. NaN at minus infinity.
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
    /// `x` where it is above zero, `alpha * (exp(x) - 1)` elsewhere, without cancellation.
    Elu {
        /// The factor for negative inputs.
        alpha: f32,
    },
    /// The Gauss error function.
    Erf,
    /// `x * (1 + erf(x / sqrt 2)) / 2`, as `h * erf(x * 0.70710677) + h` with `h = x / 2`: within 3 * 2^-24 of
    /// `|x|`. NaN at minus infinity.
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

    /// Whether it takes a polynomial.
    pub(crate) fn has_many_steps(self) -> bool {
        !self.in_registers()
            && !matches!(
                self,
                Activation::LeakyRelu { .. }
                    | Activation::HardSigmoid { .. }
                    | Activation::Neg
                    | Activation::Abs
                    | Activation::Sqrt
                    | Activation::Reciprocal
            )
    }

    /// The function of every lane.
    ///
    /// Call it where `self` is known at compile time, or outside the loop over blocks: the match is not free.
    #[inline(always)]
    pub fn apply<S: Simd>(self, simd: S, x: S::Vector) -> S::Vector {
        let zero = simd.splat(0.0);
        let one = simd.splat(1.0);
        match self {
            Activation::Identity => x,
            Activation::Relu => simd.relu(x),
            Activation::LeakyRelu { slope } => simd.select_gt(x, zero, x, simd.mul(simd.splat(slope), x)),
            Activation::Clip { low, high } => clip(simd, x, low, high),
            Activation::HardSigmoid { alpha, beta } => hard_sigmoid(simd, x, alpha, beta),
            Activation::HardSwish => simd.mul(x, hard_sigmoid(simd, x, 1.0 / 6.0, 0.5)),
            Activation::Sigmoid => math::sigmoid(simd, x),
            Activation::Silu => simd.mul(x, math::sigmoid(simd, x)),
            Activation::Tanh => math::tanh(simd, x),
            Activation::Exp => math::exp(simd, x),
            Activation::Neg => simd.neg(x),
            Activation::Abs => simd.abs(x),
            Activation::Sqrt => simd.sqrt(x),
            Activation::Reciprocal => simd.div(one, x),
            Activation::Elu { alpha } => {
                let negative = simd.mul(simd.splat(alpha), math::expm1_of_negative(simd, x));
                simd.select_gt(x, zero, x, negative)
            }
            Activation::Erf => math::erf(simd, x),
            Activation::Gelu => {
                let half = simd.mul(simd.splat(0.5), x);
                let scaled = simd.mul(x, simd.splat(core::f32::consts::FRAC_1_SQRT_2));
                simd.mul_add(half, math::erf(simd, scaled), half)
            }
            Activation::Log => math::log(simd, x),
            Activation::Softplus => math::softplus(simd, x),
        }
    }

    /// The function of one number, with the bits that every kernel gives: for folding constants.
    pub fn eval(self, x: f32) -> f32 {
        self.apply(ONE, [x])[0]
    }
}

/// Evaluates `$body` with the variant of `$activation` known at compile time: for a loop over blocks, which is
/// then compiled once for each function.
macro_rules! specialize {
    ($activation:ident => $body:expr) => {
        match $activation {
            Activation::Identity => {
                let $activation = Activation::Identity;
                $body
            }
            Activation::Relu => {
                let $activation = Activation::Relu;
                $body
            }
            Activation::LeakyRelu { slope } => {
                let $activation = Activation::LeakyRelu { slope };
                $body
            }
            Activation::Clip { low, high } => {
                let $activation = Activation::Clip { low, high };
                $body
            }
            Activation::HardSigmoid { alpha, beta } => {
                let $activation = Activation::HardSigmoid { alpha, beta };
                $body
            }
            Activation::HardSwish => {
                let $activation = Activation::HardSwish;
                $body
            }
            Activation::Sigmoid => {
                let $activation = Activation::Sigmoid;
                $body
            }
            Activation::Silu => {
                let $activation = Activation::Silu;
                $body
            }
            Activation::Tanh => {
                let $activation = Activation::Tanh;
                $body
            }
            Activation::Exp => {
                let $activation = Activation::Exp;
                $body
            }
            Activation::Neg => {
                let $activation = Activation::Neg;
                $body
            }
            Activation::Abs => {
                let $activation = Activation::Abs;
                $body
            }
            Activation::Sqrt => {
                let $activation = Activation::Sqrt;
                $body
            }
            Activation::Reciprocal => {
                let $activation = Activation::Reciprocal;
                $body
            }
            Activation::Elu { alpha } => {
                let $activation = Activation::Elu { alpha };
                $body
            }
            Activation::Erf => {
                let $activation = Activation::Erf;
                $body
            }
            Activation::Gelu => {
                let $activation = Activation::Gelu;
                $body
            }
            Activation::Log => {
                let $activation = Activation::Log;
                $body
            }
            Activation::Softplus => {
                let $activation = Activation::Softplus;
                $body
            }
        }
    };
}
pub(crate) use specialize;

#[inline(always)]
fn clip<S: Simd>(simd: S, x: S::Vector, low: f32, high: f32) -> S::Vector {
    simd.clamp(x, simd.splat(low), simd.splat(high))
}

#[inline(always)]
fn hard_sigmoid<S: Simd>(simd: S, x: S::Vector, alpha: f32, beta: f32) -> S::Vector {
    clip(simd, simd.mul_add(simd.splat(alpha), x, simd.splat(beta)), 0.0, 1.0)
}
