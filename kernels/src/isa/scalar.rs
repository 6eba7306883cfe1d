//! The scalar path: the same algorithms over `[f32; 16]`. It defines the bits that every other instruction
//! set must give. Its table exists twice on x86-64: compiled with the hardware's fused multiply-add where the
//! CPU has one, and with the correctly rounded software one elsewhere. Bits are the same, speed is not.

use crate::Block;
use crate::simd::{Simd, simd_ops};

#[derive(Clone, Copy)]
pub(crate) struct Scalar;

/// One operation per lane.
#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Block {
    let mut out = [0.0; crate::LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = f(lane);
    }
    out
}

#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(feature = "std")]
    return a.mul_add(b, c);
    #[cfg(not(feature = "std"))]
    return libm::fmaf(a, b, c);
}

#[inline(always)]
fn square_root(a: f32) -> f32 {
    #[cfg(feature = "std")]
    return a.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(a);
}

/// To the nearest integer, ties to even: adding and taking away 2^23 rounds away the fraction.
#[inline(always)]
fn round(a: f32) -> f32 {
    const INTEGRAL: f32 = 8_388_608.0;
    let size = a.abs();
    if size < INTEGRAL { ((size + INTEGRAL) - INTEGRAL).copysign(a) } else { a }
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a.is_nan() || a < b { a } else { b }
}

/// In two steps: the first is exact, the second rounds.
#[inline(always)]
fn scale_exp2(a: f32, n: f32) -> f32 {
    let n = n as i32;
    let low = n >> 1;
    a * exp2_int(low) * exp2_int(n - low)
}

#[inline(always)]
fn exp2_int(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

// SAFETY: needs no instructions beyond the target's own.
unsafe impl Simd for Scalar {
    type Vector = Block;
    simd_ops! {
        splat(x: f32) -> Block = [x; crate::LANES];
        load(from: &Block) -> Block = *from;
        store(to: &mut Block, v: Block) = *to = v;
        add(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| a[i] + b[i]);
        sub(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| a[i] - b[i]);
        mul(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| a[i] * b[i]);
        div(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| a[i] / b[i]);
        sqrt(a: Block) -> Block = lanes(#[inline(always)] |i| square_root(a[i]));
        mul_add(a: Block, b: Block, c: Block) -> Block = lanes(#[inline(always)] |i| fused(a[i], b[i], c[i]));
        neg(a: Block) -> Block = lanes(#[inline(always)] |i| -a[i]);
        abs(a: Block) -> Block = lanes(#[inline(always)] |i| a[i].abs());
        max(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| larger(a[i], b[i]));
        min(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| smaller(a[i], b[i]));
        relu(a: Block) -> Block = lanes(#[inline(always)] |i| if a[i] > 0.0 || a[i].is_nan() { a[i] } else { 0.0 });
        clamp(a: Block, low: Block, high: Block) -> Block = lanes(#[inline(always)] |i| {
            let a = if low[i] > a[i] { low[i] } else { a[i] };
            if a > high[i] { high[i] } else { a }
        });
        select_gt(a: Block, b: Block, yes: Block, no: Block) -> Block =
            lanes(#[inline(always)] |i| if a[i] > b[i] { yes[i] } else { no[i] });
        copysign(a: Block, b: Block) -> Block = lanes(#[inline(always)] |i| a[i].copysign(b[i]));
        round(a: Block) -> Block = lanes(#[inline(always)] |i| round(a[i]));
        exp2_int(n: Block) -> Block = lanes(#[inline(always)] |i| exp2_int(n[i] as i32));
        scale_exp2(a: Block, n: Block) -> Block = lanes(#[inline(always)] |i| scale_exp2(a[i], n[i]));
        exponent(a: Block) -> Block = lanes(#[inline(always)] |i| ((a[i].to_bits() >> 23) as i32 - 127) as f32);
        mantissa(a: Block) -> Block =
            lanes(#[inline(always)] |i| f32::from_bits(a[i].to_bits() & 0x007f_ffff | 0x3f80_0000));
        canonical_nan(a: Block) -> Block =
            lanes(#[inline(always)] |i| if a[i].is_nan() { f32::from_bits(0x7fc0_0000) } else { a[i] });
        prefetch(_at: &Block) = ();
    }
}

/// The entry points and the table, compiled with the given features.
macro_rules! scalar_table {
    ($(#[$features:meta])?) => {
        use core::ops::Range;

        use super::Scalar;
        use crate::Block;
        use crate::conv::direct::{self, Row, Tiles};
        use crate::conv::{ConvArgs, ConvKernel};
        use crate::epilogue::{self, Rest, Tail};
        use crate::isa::{Isa, Kernels, entry_points};
        use crate::probe::{self, ProbeKernel};

        entry_points! {
            [$(#[$features])?] Scalar;
            // As on AVX2, which the compiler makes of it where the CPU has fma.
            fma_loop_scalar(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 6>;
            read_loop_scalar(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 4>;
            copy_loop_scalar(from: &[Block], to: &mut [Block]) = probe::copy_loop;
        }

        $(#[$features])?
        fn probe_kernel() -> ProbeKernel {
            ProbeKernel {
                name: "fma_loop_scalar",
                chains: 6,
                fma_loop: fma_loop_scalar,
                read_loop: read_loop_scalar,
                copy_loop: copy_loop_scalar,
            }
        }

        entry_points! {
            [$(#[$features])?] Scalar;
            epilogue_scalar(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) = epilogue::finish;
            tail_scalar(
                tail: &Tail<'_>,
                plane_and_pixel: (usize, usize),
                at_and_len: (usize, usize),
                out: &mut [&mut [Block]],
            ) = epilogue::tail;
            direct_scalar[M, N](row: &Row<'_>, window: &mut [Block], out: &mut [&mut [Block]]) = direct::row::<_, M, N>;
        }

        $(#[$features])?
        fn direct_2x1_scalar(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
            let tiles = Tiles { rows: [&[direct_scalar::<1, 1>, direct_scalar::<2, 1>], &[], &[]], blocks: 1, tail: tail_scalar, finish: epilogue_scalar };
            direct::run(&tiles, args, pixels, out);
        }

        $(#[$features])?
        pub(crate) fn kernels() -> Kernels {
            Kernels { isa: Isa::Scalar, probe: probe_kernel(), direct: ConvKernel { name: "direct_2x1_scalar", run: direct_2x1_scalar } }
        }
    };
}

/// With the software's fused multiply-add, unless the target has one in its baseline.
pub(crate) mod portable {
    scalar_table!();
}

/// With the hardware's fused multiply-add.
#[cfg(target_arch = "x86_64")]
pub(crate) mod fused {
    scalar_table!(#[target_feature(enable = "fma")]);
}
