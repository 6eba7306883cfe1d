//! AVX-512F: one block is one 512-bit register; 32 registers. Only AVX512F is needed: bit operations go
//! through the integer forms.

use core::arch::x86_64::*;
use core::ops::Range;

use crate::Block;
use crate::conv::direct::{self, Row, Tiles};
use crate::conv::{ConvArgs, ConvKernel};
use crate::epilogue::{self, Rest, Tail};
use crate::isa::{Isa, Kernels, entry_points};
use crate::probe::{self, ProbeKernel};
use crate::simd::{Simd, simd_ops};

#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

const SIGN: i32 = i32::MIN;

// SAFETY: `new` is callable only where avx512f is enabled.
unsafe impl Simd for Avx512 {
    type Vector = __m512;
    simd_ops! {
        splat(x: f32) -> __m512 = _mm512_set1_ps(x);
        load(from: &Block) -> __m512 = _mm512_loadu_ps(from.as_ptr());
        store(to: &mut Block, v: __m512) = _mm512_storeu_ps(to.as_mut_ptr(), v);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        neg(a: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_xor_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(SIGN)));
        abs(a: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(!SIGN)));
        // `vmaxps` gives its second operand where either is NaN: only a NaN in `a` is left to carry over.
        max(a: __m512, b: __m512) -> __m512 =
            _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a);
        min(a: __m512, b: __m512) -> __m512 =
            _mm512_mask_mov_ps(_mm512_min_ps(a, b), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), a);
        relu(a: __m512) -> __m512 = _mm512_add_ps(_mm512_max_ps(_mm512_setzero_ps(), a), _mm512_setzero_ps());
        // Where the operands are equal or one is NaN, these give the second one.
        clamp(a: __m512, low: __m512, high: __m512) -> __m512 = _mm512_min_ps(high, _mm512_max_ps(low, a));
        select_gt(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 =
            _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), yes);
        // Bit by bit: `b` where the sign mask is set, `a` elsewhere.
        copysign(a: __m512, b: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xca>(
            _mm512_set1_epi32(SIGN), _mm512_castps_si512(b), _mm512_castps_si512(a)));
        round(a: __m512) -> __m512 =
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        exp2_int(n: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_slli_epi32::<23>(
            _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127))));
        scale_exp2(a: __m512, n: __m512) -> __m512 = _mm512_scalef_ps(a, n);
        exponent(a: __m512) -> __m512 = _mm512_cvtepi32_ps(_mm512_sub_epi32(
            _mm512_srli_epi32::<23>(_mm512_castps_si512(a)), _mm512_set1_epi32(127)));
        mantissa(a: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_or_epi32(
            _mm512_and_epi32(_mm512_castps_si512(a), _mm512_set1_epi32(0x007f_ffff)), _mm512_set1_epi32(0x3f80_0000)));
        canonical_nan(a: __m512) -> __m512 = _mm512_mask_mov_ps(
            a, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a), _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc0_0000)));
        prefetch(at: &Block) = _mm_prefetch::<_MM_HINT_T1>(at.as_ptr().cast());
    }
}

entry_points! {
    [#[target_feature(enable = "avx512f")]] Avx512::new();
    // 12 sums + factor + addend = 14 of 32 registers; latency 4, 2 a cycle: 8 are busy.
    fma_loop_avx512(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 12>;
    read_loop_avx512(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 8>;
    copy_loop_avx512(from: &[Block], to: &mut [Block]) = probe::copy_loop;
}

#[target_feature(enable = "avx512f")]
fn probe_kernel() -> ProbeKernel {
    ProbeKernel {
        name: "fma_loop_avx512",
        chains: 12,
        fma_loop: fma_loop_avx512,
        read_loop: read_loop_avx512,
        copy_loop: copy_loop_avx512,
    }
}

entry_points! {
    [#[target_feature(enable = "avx512f")]] Avx512::new();
    epilogue_avx512(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) = epilogue::finish;
    tail_avx512(
        tail: &Tail<'_>,
        plane_and_pixel: (usize, usize),
        at_and_len: (usize, usize),
        out: &mut [&mut [Block]],
    ) = epilogue::tail;
    direct_avx512[M, N](row: &Row<'_>, window: &mut [Block], out: &mut [&mut [Block]]) = direct::row::<_, M, N>;
}

#[target_feature(enable = "avx512f")]
fn direct_14x2_avx512(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    let tiles = Tiles {
        rows: [
            &[
                direct_avx512::<1, 1>,
                direct_avx512::<2, 1>,
                direct_avx512::<3, 1>,
                direct_avx512::<4, 1>,
                direct_avx512::<5, 1>,
                direct_avx512::<6, 1>,
                direct_avx512::<7, 1>,
                direct_avx512::<8, 1>,
            ],
            &[
                direct_avx512::<1, 2>,
                direct_avx512::<2, 2>,
                direct_avx512::<3, 2>,
                direct_avx512::<4, 2>,
                direct_avx512::<5, 2>,
                direct_avx512::<6, 2>,
                direct_avx512::<7, 2>,
                direct_avx512::<8, 2>,
                direct_avx512::<9, 2>,
                direct_avx512::<10, 2>,
                direct_avx512::<11, 2>,
                direct_avx512::<12, 2>,
                direct_avx512::<13, 2>,
                direct_avx512::<14, 2>,
            ],
            &[
                direct_avx512::<1, 3>,
                direct_avx512::<2, 3>,
                direct_avx512::<3, 3>,
                direct_avx512::<4, 3>,
                direct_avx512::<5, 3>,
                direct_avx512::<6, 3>,
                direct_avx512::<7, 3>,
                direct_avx512::<8, 3>,
                direct_avx512::<9, 3>,
            ],
        ],
        blocks: 2,
        tail: tail_avx512,
        finish: epilogue_avx512,
    };
    direct::run(&tiles, args, pixels, out);
}

#[target_feature(enable = "avx512f")]
pub(crate) fn kernels() -> Kernels {
    Kernels {
        isa: Isa::Avx512,
        probe: probe_kernel(),
        direct: ConvKernel { name: "direct_14x2_avx512", run: direct_14x2_avx512 },
    }
}
