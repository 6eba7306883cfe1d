//! AVX-512F: one block is one 512-bit register; 32 registers. Only AVX512F is needed: bit operations go
//! through the integer forms.

use core::arch::x86_64::*;
use core::ops::Range;

use crate::activation::Activation;
use crate::conv::ConvArgs;
use crate::conv::direct::{self, Row, Tiles, dense};
use crate::conv::grouped::{self, GroupedArgs, Parts, Row as GroupedRow, grouped_direct, grouped_tiles};
use crate::conv::plain_image::{self, PlainConvArgs, PlainRow, PlainTiles};
use crate::conv::tiling::tiles;
use crate::conv::winograd::batch::Batch;
use crate::conv::winograd::multiply::{Column, Product, registers};
use crate::conv::winograd::output::Output;
use crate::conv::winograd::plain::{Joined, with_joined};
use crate::conv::winograd::transform::{Domain, STRIDED};
use crate::conv::winograd::weights::Row as WeightRow;
use crate::conv::winograd::{self, winograd_kernels};
use crate::conv::{im2col, strassen};
use crate::depthwise::{self, DepthwiseArgs, Strip, strips};
use crate::elementwise;
use crate::epilogue::{self, Rest};
use crate::isa::{Isa, Kernels, avx2, entry_points, kernel};
use crate::plain::depthwise::{
    self as plain_depthwise, PlainDepthwiseArgs, Strip as PlainStrip, plain_strips,
};
use crate::plain::pool::{self, PlainPoolArgs};
use crate::probe::{self, ProbeKernel};
use crate::simd::{Inside, Simd, simd_ops};
use crate::{Block, LANES};

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

/// 16 x 16: pairs of rows, then of pairs, then quarters.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512; 16]) -> [__m512; 16] {
    let mut out = [_mm512_setzero_ps(); 16];
    // quarters[i][k]: in quarter q, column 4 q + k of rows 4 i to 4 i + 3.
    let mut quarters = [[_mm512_setzero_ps(); 4]; 4];
    for i in 0..4 {
        let (a, b, c, d) = (r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
        let low = (_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpacklo_ps(c, d)));
        let high = (_mm512_castps_pd(_mm512_unpackhi_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(c, d)));
        quarters[i] = [
            _mm512_castpd_ps(_mm512_unpacklo_pd(low.0, low.1)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(low.0, low.1)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(high.0, high.1)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(high.0, high.1)),
        ];
    }
    for k in 0..4 {
        let (a, b, c, d) = (quarters[0][k], quarters[1][k], quarters[2][k], quarters[3][k]);
        let (even, odd) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
        let (even2, odd2) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
        out[k] = _mm512_shuffle_f32x4::<0x88>(even, even2);
        out[4 + k] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
        out[8 + k] = _mm512_shuffle_f32x4::<0xdd>(even, even2);
        out[12 + k] = _mm512_shuffle_f32x4::<0xdd>(odd, odd2);
    }
    out
}

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
        // One comparison finds a NaN in `a` or `b`; the last maximum carries one in `c` over.
        max3(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_mask_mov_ps(
            _mm512_max_ps(_mm512_max_ps(a, b), c), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b),
            _mm512_set1_ps(f32::NAN));
        min3(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_mask_mov_ps(
            _mm512_min_ps(_mm512_min_ps(a, b), c), _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b),
            _mm512_set1_ps(f32::NAN));
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
        transpose(from: [&Block; 16], to: &mut [Block; 16]) = {
            let mut rows = [_mm512_setzero_ps(); 16];
            for (row, from) in rows.iter_mut().zip(from) {
                *row = _mm512_loadu_ps(from.as_ptr());
            }
            for (column, to) in transpose(rows).into_iter().zip(to) {
                _mm512_storeu_ps(to.as_mut_ptr(), column);
            }
        };
        unzip(a: __m512, b: __m512) -> [__m512; 2] = {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_or_epi32(even, _mm512_set1_epi32(1));
            [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
        };
        shift_in(before: __m512, v: __m512) -> __m512 = _mm512_castsi512_ps(_mm512_alignr_epi32::<15>(
            _mm512_castps_si512(v), _mm512_castps_si512(before)));
        // to the first level: that is large enough for what tiles ask for, and those of weights that stream are 3 to 6 %
        // faster than with the second level named (Zen 5)
        prefetch(at: &Block) = _mm_prefetch::<_MM_HINT_T0>(at.as_ptr().cast());
    }

    #[inline(always)]
    fn load_inside(self, row: &[f32], inside: Inside) -> __m512 {
        let (start, lanes) = inside.lanes(row);
        // SAFETY: holding `self` proves the features; lanes that are no elements of the row are not loaded.
        unsafe { _mm512_maskz_loadu_ps(lanes, start) }
    }

    /// `vpermilps` permutes the lanes of a quarter. Of 8, quarters are doubled first: one permutation of all lanes (`vpermps`) would
    /// do, but one at a time, and a doubled block serves four lanes.
    #[inline(always)]
    fn spread<const G: usize>(self, from: &Block, lane: usize) -> __m512 {
        const { assert!(G == 4 || G == 8 || G == LANES, "groups of 4, 8 or 16 channels") };
        if G == LANES {
            return self.splat(from[lane]);
        }
        let v = self.load(from);
        // SAFETY: holding `self` proves the features.
        unsafe {
            let v = match (G, lane) {
                (4, _) => v,
                (_, ..4) => _mm512_shuffle_f32x4::<0xa0>(v, v),
                _ => _mm512_shuffle_f32x4::<0xf5>(v, v),
            };
            match lane % 4 {
                0 => _mm512_permute_ps::<0x00>(v),
                1 => _mm512_permute_ps::<0x55>(v),
                2 => _mm512_permute_ps::<0xaa>(v),
                _ => _mm512_permute_ps::<0xff>(v),
            }
        }
    }
}

entry_points! {
    [#[target_feature(enable = "avx512f")]] Avx512::new();
    // 12 sums + factor + addend = 14 of 32 registers; latency 4, 2 a cycle: 8 are busy.
    fma_loop_avx512(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 12>;
    read_loop_avx512(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 8>;
    copy_loop_avx512(from: &[Block], to: &mut [Block]) = probe::copy_loop;
    epilogue_avx512(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) =
        |simd, rest, out, negative| epilogue::finish(simd, activate_in_place_avx512, rest, out, negative);
    activate_in_place_avx512(activation: Activation, data: &mut [Block]) =
        |simd, activation, data| elementwise::activate_in_place(simd, [simd], activation, data);
    direct_avx512[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::row::<_, M, N, LANES>;
    pointwise_avx512[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::pointwise_row::<_, M, N>;
    strassen_sum_avx512(first: &[Block], second: &[Block], half: usize, sums: &mut [&mut [Block]; 4]) = strassen::sum;
    plain_strip_avx512[K, STRIDE, LIVE](strip: &PlainStrip<'_>, out: &mut [f32]) =
        plain_depthwise::strip::<_, K, STRIDE, LIVE>;
    plain_depthwise_avx512(args: &PlainDepthwiseArgs<'_>, rows: Range<usize>, out: &mut [f32]) = |simd, args, rows, out| {
        plain_depthwise::run(simd, &plain_strips!(plain_strip_avx512, activate_in_place_avx512), args, rows, out)
    };
    plain_pool_avx512(args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]) =
        |simd, args, rows: Range<usize>, out: &mut [f32]| {
            if !pool::pool_in_registers(simd, args, rows.clone(), &mut *out) {
                avx2::plain_pool_avx2(args, rows, out);
            }
        };
    dense_avx512[N](args: &ConvArgs<'_>, len: usize, block: usize, out: &mut [&mut [Block]]) = dense::blocks::<_, N>;
    plain_image_avx512[M, N](row: &PlainRow<'_>, out: &mut [&mut [Block]]) = plain_image::row::<_, M, N>;
    depthwise_strip_avx512[K, STRIDE, P](strip: &Strip<'_>, out: &mut [Block]) =
        |simd, strip, out| depthwise::strip::<_, 1, K, STRIDE, P>([simd], strip, out);
    grouped_direct_avx512[M, G](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::row::<_, M, 1, G>;
    grouped_tile_avx512[M](row: &GroupedRow<'_>, first: usize, at: usize, out: &mut [&mut [Block]]) = grouped::tile::<_, M>;
}

// 14 pixels x 2 blocks: 28 sums, 2 of weights and 1 of input are 31 of 32 registers. 14 x 1 for a last odd block is
// near the limit of the load ports; 9 x 3 instead would save some 5 % there and cost a third of the code.
#[target_feature(enable = "avx512f")]
fn direct_tiles() -> Tiles<'static> {
    Tiles {
        rows: &[tiles!(direct_avx512, 1: 1 2 4 7 14), tiles!(direct_avx512, 2: 1 2 4 7 14)],
        // narrow ones with one address for a tile as they are
        pointwise: &[
            tiles!(direct_avx512, 1: 1 2 4 7, pointwise_avx512: 14),
            tiles!(direct_avx512, 2: 1 2 4, pointwise_avx512: 7 14),
        ],
        dense: Some((4, dense_avx512::<4>)),
        finish: epilogue_avx512,
    }
}

#[target_feature(enable = "avx512f")]
fn direct_14x2_avx512(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    direct::run(&direct_tiles(), args, pixels, out);
}

#[target_feature(enable = "avx512f")]
fn im2col_14x2_avx512(
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    im2col::run(&direct_tiles(), args, pixels, out, scratch);
}

#[target_feature(enable = "avx512f")]
fn strassen_14x2_avx512(
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    strassen::run(&direct_tiles(), strassen_sum_avx512, args, pixels, out, scratch);
}

#[target_feature(enable = "avx512f")]
fn plain_image_14x2_avx512(
    args: &PlainConvArgs<'_>,
    pixels: Range<usize>,
    scratch: &mut [f32],
    out: &mut [&mut [Block]],
) {
    let tiles = PlainTiles {
        rows: &[tiles!(plain_image_avx512, 1: 1 4 8 14), tiles!(plain_image_avx512, 2: 1 4 8 14)],
        finish: epilogue_avx512,
    };
    plain_image::run(&tiles, args, pixels, scratch, out);
}

entry_points! {
    [#[target_feature(enable = "avx512f")]] Avx512::new();
    winograd_input_avx512[T](batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride: usize) =
        |simd, batch, input, v, stride| winograd::input::transform::<_, T>(simd, Domain::of(T), batch, input, v, stride);
    winograd_weights_avx512[T, R](row: &WeightRow, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize) =
        |simd, row, plain, lanes, u, stride| {
            if WeightRow::is_packed(T, R) {
                return avx2::winograd_any_weights_avx2(row, plain, lanes, u, stride);
            }
            winograd::weights::transform::<_, T, R>(simd, avx2::winograd_any_weights_avx2, row, plain, lanes, u, stride)
        };
    winograd_joined_avx512(args: &Joined<'_>, m: &mut [Block]) = winograd::plain::joined::<_, 6, 3>;
    winograd_column_avx512[ROWS, BLOCKS, G](product: &Product<'_>, column: Column, m: &mut [Block]) =
        winograd::multiply::column::<_, ROWS, BLOCKS, G>;
    winograd_output_avx512[T, M](args: &Output<'_>, m: &[Block], out: &mut [Block]) =
        |simd, args, m, out| {
            // additions only: no faster in wider registers
            if T == STRIDED {
                return avx2::winograd_output_avx2::<T, M>(args, m, out);
            }
            winograd::output::transform::<_, T, M>(simd, Domain::of(T), M, args, m, out)
        };
}

// 6 tiles x 4 blocks: 24 sums, 4 of weights and 1 of input are 29 of 32 registers; 14 x 2: 28 + 2 + 1 = 31.
#[target_feature(enable = "avx512f")]
fn winograd_multiply_avx512(product: &Product<'_>, m: &mut [Block]) {
    let choices: &[_] = match product.spread {
        4 => &[registers!(winograd_column_avx512, 1, 4: 1 7 14)],
        8 => &[registers!(winograd_column_avx512, 1, 8: 1 7)],
        _ => &[
            registers!(winograd_column_avx512, 4: 1 2 3 4 6),
            // two or three blocks that are left, and layers of 9 to 16 tiles: 4 x 2 has the 8 sums that hide the latency
            registers!(winograd_column_avx512, 2: 1 4 7 9 12 14),
            registers!(winograd_column_avx512, 1: 1 2 4 8 9 14),
        ],
    };
    winograd::multiply::split(choices, product, m);
}

/// `vpermps` permutes all lanes.
#[target_feature(enable = "avx512f")]
fn spread_avx512(from: &[Block], step: usize, lanes: &[u32; LANES], out: &mut [Block]) {
    let simd = Avx512::new();
    let table = _mm512_castps_si512(simd.load(&lanes.map(f32::from_bits)));
    for (out, from) in out.iter_mut().zip(from.iter().step_by(step)) {
        simd.store(out, _mm512_permutexvar_ps(table, simd.load(from)));
    }
}

// 14 sums + the weights; inputs are operands in memory.
#[target_feature(enable = "avx512f")]
fn grouped_14x1_avx512(
    args: &GroupedArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let parts = Parts {
        // wider tiles would not keep their doubled blocks in registers
        direct: &[
            grouped_direct!(grouped_direct_avx512, 4: 1 7),
            grouped_direct!(grouped_direct_avx512, 8: 1 7),
        ],
        tiles: grouped_tiles!(grouped_tile_avx512: 1 4 7 14),
        spread: spread_avx512,
        finish: epilogue_avx512,
    };
    grouped::run(&parts, args, pixels, out, scratch);
}

#[target_feature(enable = "avx512f")]
fn depthwise_avx512(args: &DepthwiseArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    // 7 sums, at most 7 of weights and 1 of a pixel are 15 of 32 registers; 8 chains would hide the latency by themselves, but the
    // maps of most networks are a power of two times 7 pixels wide.
    use avx2::depthwise_any_avx2;
    let strips = strips!(depthwise_strip_avx512: 4 7, depthwise_any_avx2: 4, epilogue_avx512);
    depthwise::run(&strips, args, pixels, out);
}

#[target_feature(enable = "avx512f")]
#[allow(dead_code, reason = "reached with detection only")]
pub(crate) fn probe() -> ProbeKernel {
    ProbeKernel {
        name: "fma_loop_avx512",
        chains: 12,
        fma_loop: fma_loop_avx512,
        read_loop: read_loop_avx512,
        copy_loop: copy_loop_avx512,
    }
}

#[target_feature(enable = "avx512f")]
pub(crate) fn kernels() -> Kernels {
    // What waits for memory and not for registers of twice the size: a CPU with AVX-512 has AVX2.
    let narrow = avx2::kernels();
    Kernels {
        isa: Isa::Avx512,
        direct: kernel!(direct_14x2_avx512),
        im2col: kernel!(im2col_14x2_avx512),
        strassen: kernel!(strassen_14x2_avx512),
        plain_image: kernel!(plain_image_14x2_avx512),
        grouped: kernel!(grouped_14x1_avx512),
        depthwise: kernel!(depthwise_avx512),
        activate: narrow.activate,
        activate_in_place: kernel!(activate_in_place_avx512),
        binary: narrow.binary,
        scale: narrow.scale,
        maxmin: narrow.maxmin,
        pack: narrow.pack,
        unpack: narrow.unpack,
        // 24 sums, 3 columns of weights and 3 of what they become are 30 of 32 registers
        winograd: with_joined(
            winograd_kernels!(avx512:
                winograd_input_avx512, winograd_weights_avx512, winograd_multiply_avx512, winograd_output_avx512,
                epilogue_avx512),
            winograd_joined_avx512,
        ),
        few_outputs: narrow.few_outputs,
        softmax: narrow.softmax,
        lrn: narrow.lrn,
        pool: narrow.pool,
        maxmin_pool: narrow.maxmin_pool,
        global_pool: narrow.global_pool,
        plain_depthwise: kernel!(plain_depthwise_avx512),
        plain_pool: kernel!(plain_pool_avx512),
        plain_global_pool: narrow.plain_global_pool,
        plain_scale: narrow.plain_scale,
    }
}
