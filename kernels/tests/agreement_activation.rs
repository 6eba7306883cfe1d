//! The element-wise functions: every table against the scalar one, the scalar one against f64.

#[path = "support/blocks.rs"]
mod support;

use sinew_kernels::activation::Activation;
use sinew_kernels::{Block, LANES};
use support::{UNWRITTEN, same, tables};

const ALL: [Activation; 23] = [
    Activation::Identity,
    Activation::Relu,
    Activation::LeakyRelu { slope: 0.01 },
    Activation::LeakyRelu { slope: -0.3 },
    Activation::Clip { low: 0.0, high: 6.0 },
    Activation::Clip { low: -0.7, high: f32::INFINITY },
    Activation::Clip { low: 2.0, high: 1.0 },
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::HardSwish,
    Activation::Sigmoid,
    Activation::Silu,
    Activation::Tanh,
    Activation::Exp,
    Activation::Neg,
    Activation::Abs,
    Activation::Sqrt,
    Activation::Reciprocal,
    Activation::Elu { alpha: 1.0 },
    Activation::Elu { alpha: 0.3 },
    Activation::Erf,
    Activation::Gelu,
    Activation::Log,
    Activation::Softplus,
];

/// The definition in f64, and the largest error that is promised, in units in the last place of the result.
fn reference(activation: Activation, x: f32) -> (f64, f64) {
    let x = f64::from(x);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let clip = |x: f64, low: f32, high: f32| if x.is_nan() { x } else { x.max(low.into()).min(high.into()) };
    match activation {
        Activation::Identity => (x, 0.0),
        Activation::Relu => (if x > 0.0 || x.is_nan() { x } else { 0.0 }, 0.0),
        Activation::LeakyRelu { slope } => (if x > 0.0 { x } else { f64::from(slope) * x }, 0.5),
        Activation::Clip { low, high } => (clip(x, low, high), 0.0),
        Activation::HardSigmoid { alpha, beta } => {
            (clip(f64::from(alpha) * x + f64::from(beta), 0.0, 1.0), 0.5)
        }
        Activation::HardSwish => (x * clip(f64::from(1f32 / 6.0) * x + 0.5, 0.0, 1.0), 1.5),
        Activation::Sigmoid => (sigmoid(x), 2.5),
        Activation::Silu => (x * sigmoid(x), 3.5),
        Activation::Tanh => (x.tanh(), 2.6),
        Activation::Exp => (x.exp(), 1.1),
        Activation::Neg => (-x, 0.0),
        Activation::Abs => (x.abs(), 0.0),
        Activation::Sqrt => (x.sqrt(), 0.5),
        Activation::Reciprocal => (1.0 / x, 0.5),
        Activation::Elu { alpha } => (if x > 0.0 { x } else { f64::from(alpha) * x.exp_m1() }, 2.0),
        Activation::Erf => (libm::erf(x), 1.8),
        // Of `x`, not of the result.
        Activation::Gelu => (x * 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)), f64::NAN),
        Activation::Log => (x.ln(), 1.0),
        Activation::Softplus => (if x.is_nan() { x } else { x.max(0.0) } + (-x.abs()).exp().ln_1p(), 1.8),
    }
}

/// The unit in the last place of an f32 near `x`.
fn ulp(x: f64) -> f64 {
    let exponent = (x.abs().max(f32::MIN_POSITIVE.into()).to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent - 23)
}

/// The error of `got` in units in the last place.
fn error(activation: Activation, x: f32, got: f32) -> f64 {
    let (want, _) = reference(activation, x);
    // Half a unit beyond the largest number rounds to infinity.
    let overflow = f64::from(f32::MAX) + ulp(f64::from(f32::MAX)) / 2.0;
    if want.is_nan() || got.is_nan() || got.is_infinite() {
        let agrees = want.is_nan() && got.is_nan()
            || got.is_infinite() && want.abs() >= overflow && got.is_sign_positive() == (want > 0.0);
        return if agrees { 0.0 } else { f64::INFINITY };
    }
    let unit = match activation {
        Activation::Gelu => ulp(x.into()),
        // Of the sigmoid, where that is denormal.
        Activation::Silu => ulp(want).max(f64::from(x.abs()) * 2f64.powi(-149)),
        _ => ulp(want),
    };
    (f64::from(got) - want).abs() / unit
}

fn bound(activation: Activation) -> f64 {
    if activation == Activation::Gelu { 1.2 } else { reference(activation, 1.0).1 }
}

/// Bit patterns over the whole range, with their step, and the special ones.
fn sweep(step: usize) -> Vec<Block> {
    let special =
        [0, 1, 0x7f_ffff, 0x80_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000, 0x7f80_0001, 0x3f80_0000];
    let signed = special.iter().flat_map(|&bits| [bits, bits | 0x8000_0000]);
    let mut bits: Vec<u32> = (0..=u32::MAX).step_by(step).chain(signed).collect();
    bits.resize(bits.len().next_multiple_of(LANES), 0);
    bits.chunks_exact(LANES).map(|bits| std::array::from_fn(|lane| f32::from_bits(bits[lane]))).collect()
}

#[test]
fn every_table_gives_the_bits_of_the_scalar_one_and_errs_as_promised() {
    let input = sweep(10_007);
    let (scalar, others) = tables().split_last().unwrap();
    for activation in ALL {
        let mut want = vec![[UNWRITTEN; LANES]; input.len()];
        (scalar.activate.run)(activation, &input, &mut want);
        let mut worst = (0.0, 0.0);
        for (&x, &got) in input.iter().flatten().zip(want.iter().flatten()) {
            let error = error(activation, x, got);
            if error > worst.0 {
                worst = (error, x);
            }
        }
        let (error, x) = worst;
        println!("{activation:?}: at most {error:.2} units, at {x:e}");
        assert!(error <= bound(activation), "{activation:?} of {x:e} is off by {error} units");
        for table in others {
            let mut got = vec![[UNWRITTEN; LANES]; input.len() + 1];
            (table.activate.run)(activation, &input, &mut got[..input.len()]);
            assert!(got[input.len()].iter().all(|x| x.to_bits() == UNWRITTEN.to_bits()));
            for ((x, got), want) in
                input.iter().flatten().zip(got.iter().flatten()).zip(want.iter().flatten())
            {
                assert!(
                    same(*got, *want),
                    "{activation:?} of {x:e}: {} gives {got:e}, not {want:e}",
                    table.isa
                );
            }
            let mut got = input.clone();
            (table.activate_in_place.run)(activation, &mut got);
            assert!(got.iter().flatten().zip(want.iter().flatten()).all(|(got, want)| same(*got, *want)));
        }
    }
}

#[test]
fn eval_gives_the_bits_of_the_tables() {
    let input = sweep(40_000_003);
    for activation in ALL {
        let mut want = vec![[UNWRITTEN; LANES]; input.len()];
        (tables()[0].activate.run)(activation, &input, &mut want);
        for (&x, &want) in input.iter().flatten().zip(want.iter().flatten()) {
            assert!(same(activation.eval(x), want), "{activation:?} of {x:e}");
        }
    }
}

#[test]
fn special_values_are_as_documented() {
    let eval = |activation: Activation, x: f32| activation.eval(x);
    let infinite = f32::INFINITY;
    let cases = [
        (Activation::Relu, -0.0, 0.0),
        (Activation::Relu, -infinite, 0.0),
        (Activation::Relu, f32::NAN, f32::NAN),
        (Activation::Clip { low: 0.0, high: 6.0 }, -0.0, -0.0),
        (Activation::Clip { low: 0.0, high: 6.0 }, f32::NAN, f32::NAN),
        (Activation::Clip { low: 2.0, high: 1.0 }, 1.5, 1.0),
        (Activation::LeakyRelu { slope: 0.1 }, -0.0, -0.0),
        (Activation::Exp, -0.0, 1.0),
        (Activation::Exp, 88.8, infinite),
        (Activation::Exp, -103.98, 0.0),
        (Activation::Exp, -infinite, 0.0),
        (Activation::Sigmoid, 0.0, 0.5),
        (Activation::Sigmoid, infinite, 1.0),
        (Activation::Sigmoid, -infinite, 0.0),
        (Activation::Sigmoid, -88.0, 6.054_602e-39),
        (Activation::Tanh, -0.0, -0.0),
        (Activation::Tanh, 9.1, 1.0),
        (Activation::Tanh, -infinite, -1.0),
        (Activation::Tanh, 1e-42, 1e-42),
        (Activation::Erf, -0.0, -0.0),
        (Activation::Erf, -3.93, -1.0),
        (Activation::Erf, infinite, 1.0),
        (Activation::Log, 0.0, -infinite),
        (Activation::Log, -0.0, -infinite),
        (Activation::Log, -1e-45, f32::NAN),
        (Activation::Log, infinite, infinite),
        (Activation::Log, 1.0, 0.0),
        (Activation::Softplus, infinite, infinite),
        (Activation::Softplus, -infinite, 0.0),
        (Activation::HardSwish, -infinite, f32::NAN),
        (Activation::Silu, -infinite, f32::NAN),
        (Activation::Gelu, -infinite, f32::NAN),
        (Activation::Elu { alpha: 1.0 }, -infinite, -1.0),
        (Activation::Sqrt, -1.0, f32::NAN),
        (Activation::Reciprocal, -0.0, -infinite),
    ];
    for (activation, x, want) in cases {
        let got = eval(activation, x);
        assert!(same(got, want), "{activation:?} of {x:e} is {got:e}, not {want:e}");
    }
    for activation in ALL {
        assert!(eval(activation, f32::NAN).is_nan(), "{activation:?} of NaN");
    }
}
