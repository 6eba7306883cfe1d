//! NEON on aarch64: one block is four 128-bit registers; 32 registers.

use core::arch::aarch64::*;
use core::ops::Range;

use crate::activation::Activation;
use crate::channels::{self, LrnArgs, SoftmaxArgs};
use crate::conv::ConvArgs;
use crate::conv::direct::{self, Row, Tiles};
use crate::conv::grouped::{self, GroupedArgs, Parts, Row as GroupedRow, grouped_direct, grouped_tiles};
use crate::conv::im2col;
use crate::conv::plain_image::{self, PlainConvArgs, PlainRow, PlainTiles};
use crate::conv::tiling::tiles;
use crate::conv::winograd::input::Batch;
use crate::conv::winograd::multiply::{Column, Product, registers};
use crate::conv::winograd::output::Output;
use crate::conv::winograd::transform::Domain;
use crate::conv::winograd::weights::Row as WeightRow;
use crate::conv::winograd::{self, winograd_kernels};
use crate::depthwise::{self, DepthwiseArgs, Strip, strips};
use crate::elementwise::{self, BinaryArgs, ScaleArgs};
use crate::epilogue::{self, Rest};
use crate::isa::{Isa, Kernels, entry_points, kernel};
use crate::layout::{self, PackArgs, UnpackArgs};
use crate::plain::pool::PlainPoolArgs;
use crate::plain::{self, PlainGlobalArgs, PlainScaleArgs};
use crate::pool::{self, PoolArgs, PoolKind};
use crate::probe::{self, ProbeKernel};
use crate::simd::{Simd, simd_ops};
use crate::{Block, LANES};

#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    #[inline]
    #[target_feature(enable = "neon")]
    pub(crate) fn new() -> Self {
        Self(())
    }
}

type Quad = [float32x4_t; 4];

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

// SAFETY: `new` is callable only where neon is enabled.
unsafe impl Simd for Neon {
    type Vector = Quad;
    simd_ops! {
        splat(x: f32) -> Quad = [vdupq_n_f32(x); 4];
        load(from: &Block) -> Quad = {
            let at = from.as_ptr();
            [vld1q_f32(at), vld1q_f32(at.add(4)), vld1q_f32(at.add(8)), vld1q_f32(at.add(12))]
        };
        store(to: &mut Block, v: Quad) = {
            let at = to.as_mut_ptr();
            vst1q_f32(at, v[0]);
            vst1q_f32(at.add(4), v[1]);
            vst1q_f32(at.add(8), v[2]);
            vst1q_f32(at.add(12), v[3])
        };
        add(a: Quad, b: Quad) -> Quad =
            [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])];
        sub(a: Quad, b: Quad) -> Quad =
            [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1]), vsubq_f32(a[2], b[2]), vsubq_f32(a[3], b[3])];
        mul(a: Quad, b: Quad) -> Quad =
            [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1]), vmulq_f32(a[2], b[2]), vmulq_f32(a[3], b[3])];
        div(a: Quad, b: Quad) -> Quad =
            [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1]), vdivq_f32(a[2], b[2]), vdivq_f32(a[3], b[3])];
        sqrt(a: Quad) -> Quad = [vsqrtq_f32(a[0]), vsqrtq_f32(a[1]), vsqrtq_f32(a[2]), vsqrtq_f32(a[3])];
        mul_add(a: Quad, b: Quad, c: Quad) -> Quad = [
            vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1]),
            vfmaq_f32(c[2], a[2], b[2]), vfmaq_f32(c[3], a[3], b[3]),
        ];
        neg(a: Quad) -> Quad = [vnegq_f32(a[0]), vnegq_f32(a[1]), vnegq_f32(a[2]), vnegq_f32(a[3])];
        abs(a: Quad) -> Quad = [vabsq_f32(a[0]), vabsq_f32(a[1]), vabsq_f32(a[2]), vabsq_f32(a[3])];
        max(a: Quad, b: Quad) -> Quad =
            [vmaxq_f32(a[0], b[0]), vmaxq_f32(a[1], b[1]), vmaxq_f32(a[2], b[2]), vmaxq_f32(a[3], b[3])];
        min(a: Quad, b: Quad) -> Quad =
            [vminq_f32(a[0], b[0]), vminq_f32(a[1], b[1]), vminq_f32(a[2], b[2]), vminq_f32(a[3], b[3])];
        relu(a: Quad) -> Quad = {
            let zero = vdupq_n_f32(0.0);
            [vmaxq_f32(a[0], zero), vmaxq_f32(a[1], zero), vmaxq_f32(a[2], zero), vmaxq_f32(a[3], zero)]
        };
        clamp(a: Quad, low: Quad, high: Quad) -> Quad = [
            clamp(a[0], low[0], high[0]), clamp(a[1], low[1], high[1]),
            clamp(a[2], low[2], high[2]), clamp(a[3], low[3], high[3]),
        ];
        select_gt(a: Quad, b: Quad, yes: Quad, no: Quad) -> Quad = [
            select_gt(a[0], b[0], yes[0], no[0]), select_gt(a[1], b[1], yes[1], no[1]),
            select_gt(a[2], b[2], yes[2], no[2]), select_gt(a[3], b[3], yes[3], no[3]),
        ];
        copysign(a: Quad, b: Quad) -> Quad =
            [copysign(a[0], b[0]), copysign(a[1], b[1]), copysign(a[2], b[2]), copysign(a[3], b[3])];
        round(a: Quad) -> Quad = [vrndnq_f32(a[0]), vrndnq_f32(a[1]), vrndnq_f32(a[2]), vrndnq_f32(a[3])];
        exp2_int(n: Quad) -> Quad = [exp2_int(n[0]), exp2_int(n[1]), exp2_int(n[2]), exp2_int(n[3])];
        scale_exp2(a: Quad, n: Quad) -> Quad = [
            scale_exp2(a[0], n[0]), scale_exp2(a[1], n[1]), scale_exp2(a[2], n[2]), scale_exp2(a[3], n[3]),
        ];
        exponent(a: Quad) -> Quad = [exponent(a[0]), exponent(a[1]), exponent(a[2]), exponent(a[3])];
        mantissa(a: Quad) -> Quad = [mantissa(a[0]), mantissa(a[1]), mantissa(a[2]), mantissa(a[3])];
        canonical_nan(a: Quad) -> Quad =
            [canonical_nan(a[0]), canonical_nan(a[1]), canonical_nan(a[2]), canonical_nan(a[3])];
        transpose(from: [&Block; 16], to: &mut [Block; 16]) = {
            for i in [0, 4, 8, 12] {
                for j in [0, 4, 8, 12] {
                    let mut tile = [vdupq_n_f32(0.0); 4];
                    for (tile, from) in tile.iter_mut().zip(&from[i..i + 4]) {
                        *tile = vld1q_f32(from.as_ptr().add(j));
                    }
                    for (tile, to) in transpose(tile).into_iter().zip(&mut to[j..j + 4]) {
                        vst1q_f32(to.as_mut_ptr().add(i), tile);
                    }
                }
            }
        };
        unzip(a: Quad, b: Quad) -> [Quad; 2] = [
            [vuzp1q_f32(a[0], a[1]), vuzp1q_f32(a[2], a[3]), vuzp1q_f32(b[0], b[1]), vuzp1q_f32(b[2], b[3])],
            [vuzp2q_f32(a[0], a[1]), vuzp2q_f32(a[2], a[3]), vuzp2q_f32(b[0], b[1]), vuzp2q_f32(b[2], b[3])],
        ];
        prefetch(at: &Block) = core::arch::asm!(
            "prfm pldl2keep, [{at}]", at = in(reg) at.as_ptr(), options(nostack, preserves_flags, readonly));
    }
}

entry_points! {
    [#[target_feature(enable = "neon")]] Neon::new();
    // 24 sums + 4 of the factor + 4 of the addend = 32 of 32 registers; latency 4, up to 4 a cycle: 16 are busy.
    fma_loop_neon(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 6>;
    read_loop_neon(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 4>;
    copy_loop_neon(from: &[Block], to: &mut [Block]) = probe::copy_loop;
    epilogue_neon(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) =
        |simd, rest, out, negative| epilogue::finish(simd, activate_in_place_neon, rest, out, negative);
    activate_in_place_neon(activation: Activation, data: &mut [Block]) = elementwise::activate_in_place;
    activate_neon(activation: Activation, input: &[Block], out: &mut [Block]) = |simd, activation, input, out| {
        elementwise::activate(simd, activate_in_place_neon, activation, input, out)
    };
    binary_neon(args: &BinaryArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
        |simd, args, pixels, out| elementwise::binary(simd, activate_in_place_neon, args, pixels, out);
    scale_neon(args: &ScaleArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
        |simd, args, pixels, out| elementwise::scale(simd, activate_in_place_neon, args, pixels, out);
    direct_neon[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::row::<_, M, N, LANES>;
    pointwise_neon[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::pointwise_row::<_, M, N>;
    grouped_direct_neon[M, G](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::row::<_, M, 1, G>;
    plain_image_neon[M, N](row: &PlainRow<'_>, out: &mut [&mut [Block]]) = plain_image::row::<_, M, N>;
    maxmin_neon(input: &[Block], positive: &mut [Block], negative: &mut [Block]) = elementwise::maxmin;
    depthwise_any_neon[P](strip: &Strip<'_>, out: &mut [Block]) = depthwise::strip_of_any::<_, P>;
    depthwise_strip_neon[K, STRIDE, P](strip: &Strip<'_>, out: &mut [Block]) = depthwise::strip::<_, K, STRIDE, P>;
    pack_neon(args: &PackArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = layout::pack;
    unpack_neon(args: &UnpackArgs<'_>, pixels: Range<usize>, out: &mut [f32]) = layout::unpack;
    softmax_neon(args: &SoftmaxArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, pixels, out| channels::softmax(simd, activate_in_place_neon, args, pixels, out);
    lrn_neon(args: &LrnArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, pixels, out| channels::lrn(simd, activate_in_place_neon, args, pixels, out);
    pool_neon(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = pool::pool;
    maxmin_pool_neon(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = pool::maxmin_pool;
    global_pool_neon(kind: PoolKind, width: usize, input: &[Block], out: &mut [Block]) = pool::global_pool;
    plain_pool_neon(args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]) = plain::pool::pool;
    plain_global_pool_neon(args: &PlainGlobalArgs<'_>, out: &mut [Block]) = plain::global_pool;
    plain_scale_neon(args: &PlainScaleArgs<'_>, first: usize, out: &mut [f32]) =
        |simd, args, first, out| plain::scale(simd, activate_in_place_neon, args, first, out);
    grouped_tile_neon[M](row: &GroupedRow<'_>, first: usize, at: usize, out: &mut [&mut [Block]]) = grouped::tile::<_, M>;
}

// 6 pixels x 1 block: 24 sums, 4 of weights and 1 of input are 29 of 32 registers.
#[target_feature(enable = "neon")]
fn direct_tiles() -> Tiles<'static> {
    Tiles {
        rows: &[tiles!(direct_neon, 1: 1 2 3 4 5 6)],
        // narrow tiles are rare: no code of their own
        pointwise: &[&[
            (1, direct_neon::<1, 1>),
            (2, direct_neon::<2, 1>),
            (3, direct_neon::<3, 1>),
            (4, direct_neon::<4, 1>),
            (5, pointwise_neon::<5, 1>),
            (6, pointwise_neon::<6, 1>),
        ]],
        finish: epilogue_neon,
    }
}

#[target_feature(enable = "neon")]
fn direct_6x1_neon(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    direct::run(&direct_tiles(), args, pixels, out);
}

#[target_feature(enable = "neon")]
fn im2col_6x1_neon(
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    im2col::run(&direct_tiles(), args, pixels, out, scratch);
}

#[target_feature(enable = "neon")]
fn plain_image_6x1_neon(
    args: &PlainConvArgs<'_>,
    pixels: Range<usize>,
    scratch: &mut [f32],
    out: &mut [&mut [Block]],
) {
    let tiles = PlainTiles { rows: &[tiles!(plain_image_neon, 1: 1 2 4 6)], finish: epilogue_neon };
    plain_image::run(&tiles, args, pixels, scratch, out);
}

entry_points! {
    [#[target_feature(enable = "neon")]] Neon::new();
    winograd_input_neon[T](batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride: usize) =
        |simd, batch, input, v, stride| winograd::input::transform::<_, T>(simd, Domain::of(T), batch, input, v, stride);
    winograd_weights_neon[T, R](row: &WeightRow, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize) =
        |simd, row, plain, lanes, u, stride| {
            winograd::weights::transform::<_, T, R>(simd, (Domain::of(T), R), row, plain, lanes, u, stride)
        };
    winograd_column_neon[ROWS, BLOCKS](product: &Product<'_>, column: Column, m: &mut [Block]) =
        winograd::multiply::column::<_, ROWS, BLOCKS>;
    winograd_output_neon[T, M](args: &Output<'_>, m: &[Block], out: &mut [Block]) =
        |simd, args, m, out| winograd::output::transform::<_, T, M>(simd, Domain::of(T), M, args, m, out);
}

// 6 tiles x 1 block: 24 sums, 4 of weights and 1 of input are 29 of 32 registers.
#[target_feature(enable = "neon")]
fn winograd_multiply_neon(product: &Product<'_>, m: &mut [Block]) {
    let choices = [registers!(winograd_column_neon, 1: 1 2 3 4 5 6)];
    winograd::multiply::split(&choices, product, m);
}

/// `tbl` picks bytes of four registers.
#[target_feature(enable = "neon")]
fn spread_neon(from: &[Block], step: usize, lanes: &[u32; LANES], out: &mut [Block]) {
    let simd = Neon::new();
    // Byte b of lane l: 4 * lane + b.
    let bytes = lanes.map(|lane| f32::from_bits(lane * 0x0404_0404 + 0x0302_0100));
    let table = simd.load(&bytes);
    for (out, from) in out.iter_mut().zip(from.iter().step_by(step)) {
        let v = simd.load(from);
        let all = uint8x16x4_t(
            vreinterpretq_u8_f32(v[0]),
            vreinterpretq_u8_f32(v[1]),
            vreinterpretq_u8_f32(v[2]),
            vreinterpretq_u8_f32(v[3]),
        );
        let mut spread = v;
        for (quarter, spread) in spread.iter_mut().enumerate() {
            *spread = vreinterpretq_f32_u8(vqtbl4q_u8(all, vreinterpretq_u8_f32(table[quarter])));
        }
        simd.store(out, spread);
    }
}

// 5 pixels: 20 sums, 4 of weights and up to 8 of inputs, which are loaded first; with 6 pixels the compiler spills.
#[target_feature(enable = "neon")]
fn grouped_5x1_neon(
    args: &GroupedArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let parts = Parts {
        direct: &[grouped_direct!(grouped_direct_neon, 4: 1 5), grouped_direct!(grouped_direct_neon, 8: 1 6)],
        tiles: grouped_tiles!(grouped_tile_neon: 1 3 4 5),
        spread: spread_neon,
        finish: epilogue_neon,
    };
    grouped::run(&parts, args, pixels, out, scratch);
}

#[target_feature(enable = "neon")]
fn depthwise_neon(args: &DepthwiseArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    // 16 sums + 12 of weights + 4 of a pixel = 32 of 32 registers.
    let strips = strips!(depthwise_strip_neon: 1 3 4, depthwise_any_neon: 1 4, epilogue_neon);
    depthwise::run(&strips, args, pixels, out);
}

#[target_feature(enable = "neon")]
#[allow(dead_code, reason = "reached with detection only")]
pub(crate) fn probe() -> ProbeKernel {
    ProbeKernel {
        name: "fma_loop_neon",
        chains: 6,
        fma_loop: fma_loop_neon,
        read_loop: read_loop_neon,
        copy_loop: copy_loop_neon,
    }
}

#[target_feature(enable = "neon")]
pub(crate) fn kernels() -> Kernels {
    Kernels {
        isa: Isa::Neon,
        direct: kernel!(direct_6x1_neon),
        im2col: kernel!(im2col_6x1_neon),
        plain_image: kernel!(plain_image_6x1_neon),
        grouped: kernel!(grouped_5x1_neon),
        depthwise: kernel!(depthwise_neon),
        activate: kernel!(activate_neon),
        activate_in_place: kernel!(activate_in_place_neon),
        binary: kernel!(binary_neon),
        scale: kernel!(scale_neon),
        maxmin: kernel!(maxmin_neon),
        pack: kernel!(pack_neon),
        unpack: kernel!(unpack_neon),
        winograd: winograd_kernels!(neon:
            winograd_input_neon, winograd_weights_neon, winograd_multiply_neon, winograd_output_neon,
            epilogue_neon),
        softmax: kernel!(softmax_neon),
        lrn: kernel!(lrn_neon),
        pool: kernel!(pool_neon),
        maxmin_pool: kernel!(maxmin_pool_neon),
        global_pool: kernel!(global_pool_neon),
        plain_pool: kernel!(plain_pool_neon),
        plain_global_pool: kernel!(plain_global_pool_neon),
        plain_scale: kernel!(plain_scale_neon),
    }
}
