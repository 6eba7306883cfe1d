//! The operations on AVX2 registers: for a block, which is two of them, and for half a block.

use core::arch::x86_64::*;

use crate::simd::{Inside, Simd, by_register, simd_ops};
use crate::{Block, LANES};

/// Whole blocks.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
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
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn both() -> [Self; 2] {
        [Self { first: 0 }, Self { first: 8 }]
    }
}

const SIGN: i32 = i32::MIN;

/// The result with a NaN wherever `a` or `b` is one: a lane of ones is a NaN.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn nan_of_two(a: __m256, b: __m256, result: __m256) -> __m256 {
    _mm256_or_ps(result, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, b))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp2_int(n: __m256) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(
        _mm256_cvtps_epi32(n),
        _mm256_set1_epi32(127),
    )))
}

/// In two steps: the first is exact, the second rounds.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn scale_exp2(a: __m256, n: __m256) -> __m256 {
    let n = _mm256_cvtps_epi32(n);
    let low = _mm256_srai_epi32::<1>(n);
    let high = _mm256_sub_epi32(n, low);
    let bias = _mm256_set1_epi32(127);
    let low = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(low, bias)));
    let high = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(high, bias)));
    _mm256_mul_ps(_mm256_mul_ps(a, low), high)
}

/// The bits of `a` but for the sign.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn copysign(a: __m256, b: __m256) -> __m256 {
    let sign = _mm256_castsi256_ps(_mm256_set1_epi32(SIGN));
    _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn exponent(a: __m256) -> __m256 {
    _mm256_cvtepi32_ps(_mm256_sub_epi32(
        _mm256_srli_epi32::<23>(_mm256_castps_si256(a)),
        _mm256_set1_epi32(127),
    ))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn mantissa(a: __m256) -> __m256 {
    let fraction = _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x007f_ffff));
    _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3f80_0000)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn canonical_nan(a: __m256) -> __m256 {
    let nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc0_0000));
    _mm256_blendv_ps(a, nan, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
}

/// Eight lanes from lane `first` on of what [`Simd::load_inside`] loads.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_inside(row: &[f32], inside: Inside, first: usize) -> __m256 {
    let (start, lanes) = inside.lanes(row);
    let bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    let lanes = _mm256_and_si256(_mm256_set1_epi32(i32::from(lanes >> first)), bits);
    // SAFETY: lanes that are no elements of the row are not loaded.
    unsafe { _mm256_maskload_ps(start.wrapping_add(first), _mm256_cmpeq_epi32(lanes, bits)) }
}

/// Two lanes of each quarter, then the quarters in order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn unzip<const LANES: i32>(a: __m256, b: __m256) -> __m256 {
    let quarters = _mm256_castps_pd(_mm256_shuffle_ps::<LANES>(a, b));
    _mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(quarters))
}

/// The last lane of `before`, then all lanes of `v` but the last.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn shift_in(before: __m256, v: __m256) -> __m256 {
    let between = _mm256_permute2f128_ps::<0x21>(before, v);
    _mm256_castsi256_ps(_mm256_alignr_epi8::<12>(_mm256_castps_si256(v), _mm256_castps_si256(between)))
}

/// 8 x 8: pairs of rows, then of pairs, then the halves.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose(r: [__m256; 8]) -> [__m256; 8] {
    let (a0, a1) = (_mm256_unpacklo_ps(r[0], r[1]), _mm256_unpackhi_ps(r[0], r[1]));
    let (b0, b1) = (_mm256_unpacklo_ps(r[2], r[3]), _mm256_unpackhi_ps(r[2], r[3]));
    let (c0, c1) = (_mm256_unpacklo_ps(r[4], r[5]), _mm256_unpackhi_ps(r[4], r[5]));
    let (d0, d1) = (_mm256_unpacklo_ps(r[6], r[7]), _mm256_unpackhi_ps(r[6], r[7]));
    let (e0, e1) = (_mm256_shuffle_ps::<0x44>(a0, b0), _mm256_shuffle_ps::<0xee>(a0, b0));
    let (e2, e3) = (_mm256_shuffle_ps::<0x44>(a1, b1), _mm256_shuffle_ps::<0xee>(a1, b1));
    let (f0, f1) = (_mm256_shuffle_ps::<0x44>(c0, d0), _mm256_shuffle_ps::<0xee>(c0, d0));
    let (f2, f3) = (_mm256_shuffle_ps::<0x44>(c1, d1), _mm256_shuffle_ps::<0xee>(c1, d1));
    [
        _mm256_permute2f128_ps::<0x20>(e0, f0),
        _mm256_permute2f128_ps::<0x20>(e1, f1),
        _mm256_permute2f128_ps::<0x20>(e2, f2),
        _mm256_permute2f128_ps::<0x20>(e3, f3),
        _mm256_permute2f128_ps::<0x31>(e0, f0),
        _mm256_permute2f128_ps::<0x31>(e1, f1),
        _mm256_permute2f128_ps::<0x31>(e2, f2),
        _mm256_permute2f128_ps::<0x31>(e3, f3),
    ]
}

/// `to[j][i] = from[i][j]`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn transpose_block(from: [&Block; LANES], to: &mut [Block; LANES]) {
    for i in [0, 8] {
        for j in [0, 8] {
            let mut tile = [_mm256_setzero_ps(); 8];
            for (tile, from) in tile.iter_mut().zip(&from[i..i + 8]) {
                // SAFETY: half of a block.
                *tile = unsafe { _mm256_loadu_ps(from.as_ptr().add(j)) };
            }
            for (tile, to) in transpose(tile).into_iter().zip(&mut to[j..j + 8]) {
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(i), tile) };
            }
        }
    }
}

/// The operations that go register by register, for a vector of the registers listed.
macro_rules! register_ops {
    ($registers:tt) => {
        by_register! {
            $registers;
            add(a, b) = _mm256_add_ps(a, b);
            sub(a, b) = _mm256_sub_ps(a, b);
            mul(a, b) = _mm256_mul_ps(a, b);
            div(a, b) = _mm256_div_ps(a, b);
            sqrt(a) = _mm256_sqrt_ps(a);
            mul_add(a, b, c) = _mm256_fmadd_ps(a, b, c);
            neg(a) = _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(SIGN)));
            abs(a) = _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(!SIGN)));
            // These give their second operand where either is NaN: only a NaN in `a` is left to carry over.
            max(a, b) = nan_of_two(a, a, _mm256_max_ps(a, b));
            min(a, b) = nan_of_two(a, a, _mm256_min_ps(a, b));
            // One comparison finds a NaN in `a` or `b`; the last maximum carries one in `c` over.
            max3(a, b, c) = nan_of_two(a, b, _mm256_max_ps(_mm256_max_ps(a, b), c));
            min3(a, b, c) = nan_of_two(a, b, _mm256_min_ps(_mm256_min_ps(a, b), c));
            relu(a) = _mm256_add_ps(_mm256_max_ps(_mm256_setzero_ps(), a), _mm256_setzero_ps());
            // Where the operands are equal or one is NaN, these give the second one.
            clamp(a, low, high) = _mm256_min_ps(high, _mm256_max_ps(low, a));
            select_gt(a, b, yes, no) = _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b));
            copysign(a, b) = copysign(a, b);
            round(a) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
            exp2_int(n) = exp2_int(n);
            scale_exp2(a, n) = scale_exp2(a, n);
            exponent(a) = exponent(a);
            mantissa(a) = mantissa(a);
            canonical_nan(a) = canonical_nan(a);
        }
    };
}

// SAFETY: `new` is callable only where avx2 and fma are enabled.
unsafe impl Simd for Avx2 {
    type Vector = [__m256; 2];
    register_ops!([0 1]);
    simd_ops! {
        load_inside(row: &[f32], inside: Inside) -> [__m256; 2] =
            [load_inside(row, inside, 0), load_inside(row, inside, 8)];
        splat(x: f32) -> [__m256; 2] = [_mm256_set1_ps(x); 2];
        load(from: &Block) -> [__m256; 2] = [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))];
        store(to: &mut Block, v: [__m256; 2]) = {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1])
        };
        transpose(from: [&Block; LANES], to: &mut [Block; LANES]) = transpose_block(from, to);
        unzip(a: [__m256; 2], b: [__m256; 2]) -> [[__m256; 2]; 2] = [
            [unzip::<0x88>(a[0], a[1]), unzip::<0x88>(b[0], b[1])],
            [unzip::<0xdd>(a[0], a[1]), unzip::<0xdd>(b[0], b[1])],
        ];
        shift_in(before: [__m256; 2], v: [__m256; 2]) -> [__m256; 2] = [shift_in(before[1], v[0]), shift_in(v[0], v[1])];
        prefetch(at: &Block) = _mm_prefetch::<_MM_HINT_T1>(at.as_ptr().cast());
    }

    /// A group of 4 is a quarter of the block, within which `vpermilps` permutes; one of 8 is a register, one of 16 the block.
    #[inline(always)]
    fn spread<const G: usize>(self, from: &Block, lane: usize) -> [__m256; 2] {
        const { assert!(G == 4 || G == 8 || G == LANES, "groups of 4, 8 or 16 channels") };
        if G > 4 {
            // SAFETY: holding `self` proves the features.
            return unsafe { [_mm256_set1_ps(from[lane]), _mm256_set1_ps(from[(LANES - G + lane) % LANES])] };
        }
        let v = self.load(from);
        // SAFETY: as above.
        unsafe {
            let table = _mm256_set1_epi32(lane as i32);
            [_mm256_permutevar_ps(v[0], table), _mm256_permutevar_ps(v[1], table)]
        }
    }
}

// SAFETY: `both` is callable only where avx2 and fma are enabled.
unsafe impl Simd for Half {
    type Vector = [__m256; 1];
    register_ops!([0]);
    simd_ops! {
        splat(x: f32) -> [__m256; 1] = [_mm256_set1_ps(x)];
        transpose(from: [&Block; LANES], to: &mut [Block; LANES]) = transpose_block(from, to);
        unzip(a: [__m256; 1], b: [__m256; 1]) -> [[__m256; 1]; 2] =
            [[unzip::<0x88>(a[0], b[0])], [unzip::<0xdd>(a[0], b[0])]];
        shift_in(before: [__m256; 1], v: [__m256; 1]) -> [__m256; 1] = [shift_in(before[0], v[0])];
        prefetch(at: &Block) = _mm_prefetch::<_MM_HINT_T1>(at.as_ptr().cast());
    }

    #[inline(always)]
    fn load(self, from: &Block) -> [__m256; 1] {
        // SAFETY: holding `self` proves the features; `first` is 0 or 8, so this is half of the block.
        unsafe { [_mm256_loadu_ps(from.as_ptr().add(self.first))] }
    }

    #[inline(always)]
    fn store(self, to: &mut Block, v: [__m256; 1]) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr().add(self.first), v[0]) }
    }
}
