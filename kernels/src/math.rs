//! The transcendental functions: one polynomial each for exp and log, from which sigmoid, tanh and softplus
//! follow, and one for erf. Only operations of [`Simd`] are used, so every instruction set gives the same bits;
//! the functions of a C library, which differ between systems, are used nowhere.
//!
//! The coefficients are minimax fits whose coefficients were rounded to f32 one after the other (the
//! "fpminimax" method), relative to the function that the polynomial stands for.
//!
//! Largest error against the exact value, in units in the last place of the result (2^-149 for denormal ones),
//! found on every 97th f32 and asserted by the tests on a sparser sweep; and the special values:
//!
//! | function | ulp | NaN | -inf | +inf | -0 | else |
//! |---|---|---|---|---|---|---|
//! | `exp` | 1.1 | NaN | +0 | +inf | 1 | +inf above 88.72, denormal below -87.3, +0 below -103.97 |
//! | `sigmoid` | 2.5 | NaN | +0 | 1 | 0.5 | denormal below -87.3 |
//! | `tanh` | 2.6 | NaN | -1 | 1 | -0 | +-1 beyond 9.02 |
//! | `log` | 1.0 | NaN | NaN | +inf | -inf | NaN below zero, -inf at zero, denormals as any number |
//! | `erf` | 1.8 | NaN | -1 | 1 | -0 | +-1 beyond 3.92 |
//! | `softplus` | 1.8 | NaN | +0 | +inf | log 2 | denormal below -87.3, +0 below -103.97 |

use core::f32::consts::{FRAC_2_SQRT_PI, LN_2, LOG2_E, SQRT_2};

use crate::simd::Simd;

/// What the f32 next to log 2 is short of it.
const LN_2_REST: f32 = -1.904_654_3e-9;

/// The one NaN that a result may have outside of blocks.
pub(crate) fn canonical_nan(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { x }
}

/// A polynomial by Horner's rule, the highest power's coefficient first.
#[inline(always)]
fn horner<S: Simd, const N: usize>(simd: S, x: S::Vector, coefficients: [f32; N]) -> S::Vector {
    let mut sum = simd.splat(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = simd.mul_add(sum, x, simd.splat(coefficient));
    }
    sum
}

/// `x = n * log 2 + r` with an integral `n` and `|r| <= 0.34665`; gives `n` and `exp(r) - 1`.
///
/// `|n| < 2^9`. The first fused step is exact: `n` times the f32 next to log 2 cancels all but the low bits of
/// `x`. The polynomial is off by at most 1.4e-8 of `exp(r) - 1`.
#[inline(always)]
fn reduced_expm1<S: Simd>(simd: S, x: S::Vector) -> (S::Vector, S::Vector) {
    let n = simd.round(simd.mul(x, simd.splat(LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-LN_2), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_REST), r);
    let q = horner(simd, r, [0.001_386_454_3, 0.008_366_536, 0.041_667_502, 0.166_665_43, 0.499_999_97]);
    (n, simd.mul_add(simd.mul(r, r), q, r))
}

/// `exp(x)` for `x` in -104 to 89, or NaN.
#[inline(always)]
fn exp_in_range<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let (n, rest) = reduced_expm1(simd, x);
    simd.scale_exp2(simd.add(simd.splat(1.0), rest), n)
}

/// `exp(x)`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    exp_in_range(simd, simd.clamp(x, simd.splat(-104.0), simd.splat(89.0)))
}

/// `exp(-|x|)`.
#[inline(always)]
fn exp_of_minus_abs<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    exp_in_range(simd, simd.clamp(simd.neg(simd.abs(x)), simd.splat(-104.0), simd.splat(0.0)))
}

/// `exp(x) - 1` for `x` in -80 to 0, or NaN; relative to the result as exact as [`exp`], near zero too.
#[inline(always)]
fn expm1_in_range<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let (n, rest) = reduced_expm1(simd, x);
    let scale = simd.exp2_int(n);
    simd.mul_add(scale, rest, simd.sub(scale, simd.splat(1.0)))
}

/// `exp(x) - 1` where `x` is not above zero, about 0 elsewhere.
#[inline(always)]
pub(crate) fn expm1_of_negative<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // -1 long before -80; not below, for `exp2_int`.
    expm1_in_range(simd, simd.clamp(x, simd.splat(-80.0), simd.splat(0.0)))
}

/// `1 / (1 + exp(-x))`, as `1 / (1 + e)` or `e / (1 + e)` with `e = exp(-|x|)`: exact for negative `x` too.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let one = simd.splat(1.0);
    let e = exp_of_minus_abs(simd, x);
    let numerator = simd.select_gt(simd.splat(0.0), x, e, one);
    simd.div(numerator, simd.add(one, e))
}

/// The hyperbolic tangent, as `-m / (m + 2)` with `m = exp(-2|x|) - 1`, and the sign of `x`.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let twice = simd.mul(simd.abs(x), simd.splat(-2.0));
    let m = expm1_in_range(simd, simd.clamp(twice, simd.splat(-80.0), simd.splat(0.0)));
    simd.copysign(simd.div(m, simd.add(m, simd.splat(2.0))), x)
}

/// `log(1 + f) + n * log 2` for `f` in -0.2929 to 0.4143 and an integral `n`.
///
/// The polynomial is off by at most 4.2e-9 of `log(1 + f)`.
#[inline(always)]
fn log1p_reduced<S: Simd>(simd: S, f: S::Vector, n: S::Vector) -> S::Vector {
    let q = horner(
        simd,
        f,
        [
            -0.076_239_74,
            0.129_090_89,
            -0.132_445_62,
            0.141_811_34,
            -0.166_087_66,
            0.200_020_03,
            -0.250_016,
            0.333_333_25,
            -0.499_999_88,
        ],
    );
    let rest = simd.mul_add(simd.mul(f, f), q, simd.mul(n, simd.splat(LN_2_REST)));
    simd.mul_add(n, simd.splat(LN_2), simd.add(f, rest))
}

/// The natural logarithm.
#[inline(always)]
pub(crate) fn log<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    // Denormal numbers are scaled into the normal range.
    let least = simd.splat(f32::MIN_POSITIVE);
    let scaled = simd.mul(x, simd.splat(8_388_608.0));
    let normal = simd.select_gt(least, x, scaled, x);
    let shift = simd.select_gt(least, x, simd.splat(-23.0), zero);
    let n = simd.add(simd.exponent(normal), shift);
    // From 1..2 to 0.7071..1.4142, so that a number near 1 keeps all its digits.
    let m = simd.mantissa(normal);
    let root = simd.splat(SQRT_2);
    let n = simd.select_gt(m, root, simd.add(n, one), n);
    let m = simd.select_gt(m, root, simd.mul(m, simd.splat(0.5)), m);
    let result = log1p_reduced(simd, simd.sub(m, one), n);
    let result = simd.select_gt(x, simd.splat(f32::MAX), x, result);
    // Zero gives -inf, NaN stays.
    let other = simd.select_gt(zero, x, simd.splat(f32::NAN), simd.add(x, simd.splat(f32::NEG_INFINITY)));
    simd.select_gt(x, zero, result, other)
}

/// `log(1 + exp(x))`, as `max(x, 0) + log(1 + e)` with `e = exp(-|x|)`.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let e = exp_of_minus_abs(simd, x);
    // 1 + e is halved above the root of 2; below, `e` itself is the reduced argument, unrounded.
    let half = simd.splat(0.5);
    let limit = simd.splat(SQRT_2 - 1.0);
    let f = simd.select_gt(e, limit, simd.mul_add(e, half, simd.splat(-0.5)), e);
    let n = simd.select_gt(e, limit, simd.splat(1.0), simd.splat(0.0));
    simd.add(simd.relu(x), log1p_reduced(simd, f, n))
}

/// The Gauss error function, as `1 - exp(-a P(a))` with `a = |x|` and the sign of `x`.
///
/// `P` stands for `-log(1 - erf(a)) / a`, which has no singularity near 0 to 4, so that one polynomial does for
/// all of it; erf differs from 1 by less than half a unit beyond 3.92. The constant term, `2 / sqrt(pi)`, is in
/// two parts. Off by at most 1.5e-9 of erf.
#[inline(always)]
pub(crate) fn erf<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let a = simd.clamp(simd.abs(x), simd.splat(0.0), simd.splat(4.0));
    let p = horner(
        simd,
        a,
        [
            3.848_060_5e-9,
            -8.226_379e-8,
            6.484_678e-7,
            -1.225_502_6e-6,
            -1.730_400_6e-5,
            0.000_167_406_72,
            -0.000_751_767_3,
            0.001_817_958_9,
            -0.000_267_096_82,
            -0.019_112_533,
            0.102_770_47,
            0.636_619_87,
            -5.863_538_3e-8,
        ],
    );
    let exponent = simd.mul_add(a, simd.splat(FRAC_2_SQRT_PI), simd.mul(a, p));
    simd.copysign(expm1_in_range(simd, simd.neg(exponent)), x)
}
