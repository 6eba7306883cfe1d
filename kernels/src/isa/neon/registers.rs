//! The operations on NEON registers: for a block, which is four of them, and for half a block.

use core::arch::aarch64::*;

use crate::simd::{Simd, by_register, simd_ops};
use crate::{Block, LANES};

/// Whole blocks.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// Eight lanes of a block, from lane `first` on: loads read these, stores write these.
#[derive(Clone, Copy)]
pub(crate) struct Half {
    first: usize,
}

impl Half {
    /// Both halves of a block.
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) fn both() -> [Self; 2] {
        [Self { first: 0 }, Self { first: 8 }]
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn select_gt(a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(a, b), yes, no)
}

#[inline]
#[target_feature(enable = "neon")]
fn clamp(a: float32x4_t, low: float32x4_t, high: float32x4_t) -> float32x4_t {
    let a = select_gt(low, a, low, a);
    select_gt(a, high, high, a)
}

#[inline]
#[target_feature(enable = "neon")]
fn exp2_int(n: float32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127))))
}

/// In two steps: the first is exact, the second rounds.
#[inline]
#[target_feature(enable = "neon")]
fn scale_exp2(a: float32x4_t, n: float32x4_t) -> float32x4_t {
    let n = vcvtnq_s32_f32(n);
    let low = vshrq_n_s32::<1>(n);
    let high = vsubq_s32(n, low);
    let bias = vdupq_n_s32(127);
    let low = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(low, bias)));
    let high = vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(high, bias)));
    vmulq_f32(vmulq_f32(a, low), high)
}

#[inline]
#[target_feature(enable = "neon")]
fn copysign(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vdupq_n_u32(0x8000_0000), b, a)
}

#[inline]
#[target_feature(enable = "neon")]
fn exponent(a: float32x4_t) -> float32x4_t {
    let biased = vreinterpretq_s32_u32(vshrq_n_u32::<23>(vreinterpretq_u32_f32(a)));
    vcvtq_f32_s32(vsubq_s32(biased, vdupq_n_s32(127)))
}

#[inline]
#[target_feature(enable = "neon")]
fn mantissa(a: float32x4_t) -> float32x4_t {
    let fraction = vandq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(0x007f_ffff));
    vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3f80_0000)))
}

#[inline]
#[target_feature(enable = "neon")]
fn canonical_nan(a: float32x4_t) -> float32x4_t {
    vbslq_f32(vceqq_f32(a, a), a, vreinterpretq_f32_u32(vdupq_n_u32(0x7fc0_0000)))
}

/// 4 x 4: pairs of rows, then the halves.
#[inline]
#[target_feature(enable = "neon")]
fn transpose(r: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let (a, b) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
    let (c, d) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    let (c, d) = (vreinterpretq_f64_f32(c), vreinterpretq_f64_f32(d));
    [
        vreinterpretq_f32_f64(vtrn1q_f64(a, c)),
        vreinterpretq_f32_f64(vtrn1q_f64(b, d)),
        vreinterpretq_f32_f64(vtrn2q_f64(a, c)),
        vreinterpretq_f32_f64(vtrn2q_f64(b, d)),
    ]
}

/// `to[j][i] = from[i][j]`.
#[inline]
#[target_feature(enable = "neon")]
fn transpose_block(from: [&Block; LANES], to: &mut [Block; LANES]) {
    for i in [0, 4, 8, 12] {
        for j in [0, 4, 8, 12] {
            let mut tile = [vdupq_n_f32(0.0); 4];
            for (tile, from) in tile.iter_mut().zip(&from[i..i + 4]) {
                // SAFETY: a quarter of a block.
                *tile = unsafe { vld1q_f32(from.as_ptr().add(j)) };
            }
            for (tile, to) in transpose(tile).into_iter().zip(&mut to[j..j + 4]) {
                // SAFETY: as above.
                unsafe { vst1q_f32(to.as_mut_ptr().add(i), tile) };
            }
        }
    }
}

/// The operations that go register by register, for a vector of the registers listed.
macro_rules! register_ops {
    ($registers:tt) => {
        by_register! {
            $registers;
            add(a, b) = vaddq_f32(a, b);
            sub(a, b) = vsubq_f32(a, b);
            mul(a, b) = vmulq_f32(a, b);
            div(a, b) = vdivq_f32(a, b);
            sqrt(a) = vsqrtq_f32(a);
            mul_add(a, b, c) = vfmaq_f32(c, a, b);
            neg(a) = vnegq_f32(a);
            abs(a) = vabsq_f32(a);
            max(a, b) = vmaxq_f32(a, b);
            min(a, b) = vminq_f32(a, b);
            relu(a) = vmaxq_f32(a, vdupq_n_f32(0.0));
            clamp(a, low, high) = clamp(a, low, high);
            select_gt(a, b, yes, no) = select_gt(a, b, yes, no);
            copysign(a, b) = copysign(a, b);
            round(a) = vrndnq_f32(a);
            exp2_int(n) = exp2_int(n);
            scale_exp2(a, n) = scale_exp2(a, n);
            exponent(a) = exponent(a);
            mantissa(a) = mantissa(a);
            canonical_nan(a) = canonical_nan(a);
        }
    };
}

#[inline]
#[target_feature(enable = "neon")]
fn prefetch(at: &Block) {
    // SAFETY: asks for a line of the block and changes nothing.
    unsafe {
        core::arch::asm!(
            "prfm pldl2keep, [{at}]", at = in(reg) at.as_ptr(), options(nostack, preserves_flags, readonly));
    }
}

// SAFETY: `new` is callable only where neon is enabled.
unsafe impl Simd for Neon {
    type Vector = [float32x4_t; 4];
    register_ops!([0 1 2 3]);
    simd_ops! {
        splat(x: f32) -> [float32x4_t; 4] = [vdupq_n_f32(x); 4];
        load(from: &Block) -> [float32x4_t; 4] = {
            let at = from.as_ptr();
            [vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))]
        };
        store(to: &mut Block, v: [float32x4_t; 4]) = {
            let at = to.as_mut_ptr();
            vst1q_f32(at, v[0]);
            vst1q_f32(at.add(4), v[1]);
            vst1q_f32(at.add(8), v[2]);
            vst1q_f32(at.add(12), v[3])
        };
        transpose(from: [&Block; LANES], to: &mut [Block; LANES]) = transpose_block(from, to);
        unzip(a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [[float32x4_t; 4]; 2] = [
            [vuzp1q_f32(a[0], a[1]), vuzp1q_f32(a[2], a[3]), vuzp1q_f32(b[0], b[1]), vuzp1q_f32(b[2], b[3])],
            [vuzp2q_f32(a[0], a[1]), vuzp2q_f32(a[2], a[3]), vuzp2q_f32(b[0], b[1]), vuzp2q_f32(b[2], b[3])],
        ];
        shift_in(before: [float32x4_t; 4], v: [float32x4_t; 4]) -> [float32x4_t; 4] = [
            vextq_f32::<3>(before[3], v[0]), vextq_f32::<3>(v[0], v[1]), vextq_f32::<3>(v[1], v[2]), vextq_f32::<3>(v[2], v[3])];
        prefetch(at: &Block) = prefetch(at);
    }
}

// SAFETY: `both` is callable only where neon is enabled.
unsafe impl Simd for Half {
    type Vector = [float32x4_t; 2];
    register_ops!([0 1]);
    simd_ops! {
        splat(x: f32) -> [float32x4_t; 2] = [vdupq_n_f32(x); 2];
        transpose(from: [&Block; LANES], to: &mut [Block; LANES]) = transpose_block(from, to);
        unzip(a: [float32x4_t; 2], b: [float32x4_t; 2]) -> [[float32x4_t; 2]; 2] = [
            [vuzp1q_f32(a[0], a[1]), vuzp1q_f32(b[0], b[1])],
            [vuzp2q_f32(a[0], a[1]), vuzp2q_f32(b[0], b[1])],
        ];
        shift_in(before: [float32x4_t; 2], v: [float32x4_t; 2]) -> [float32x4_t; 2] =
            [vextq_f32::<3>(before[1], v[0]), vextq_f32::<3>(v[0], v[1])];
        prefetch(at: &Block) = prefetch(at);
    }

    #[inline(always)]
    fn load(self, from: &Block) -> [float32x4_t; 2] {
        // SAFETY: holding `self` proves the features; `first` is 0 or 8, so this is half of the block.
        unsafe {
            let at = from.as_ptr().add(self.first);
            [vld1q_f32(at), vld1q_f32(at.add(4))]
        }
    }

    #[inline(always)]
    fn store(self, to: &mut Block, v: [float32x4_t; 2]) {
        // SAFETY: as above.
        unsafe {
            let at = to.as_mut_ptr().add(self.first);
            vst1q_f32(at, v[0]);
            vst1q_f32(at.add(4), v[1]);
        }
    }
}
