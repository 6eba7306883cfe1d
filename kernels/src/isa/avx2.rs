//! AVX2 + FMA: one block is two 256-bit registers; 16 registers.

use core::arch::x86_64::*;
use core::ops::Range;

use crate::activation::Activation;
use crate::channels::{self, LrnArgs, SoftmaxArgs};
use crate::conv::ConvArgs;
use crate::conv::direct::{self, Row, Tiles, dense};
use crate::conv::few_outputs;
use crate::conv::grouped::{self, GroupedArgs, Parts, Row as GroupedRow, grouped_direct, grouped_tiles};
use crate::conv::plain_image::{self, PlainConvArgs, PlainRow, PlainTiles};
use crate::conv::tiling::tiles;
use crate::conv::winograd::batch::Batch;
use crate::conv::winograd::multiply::{Column, Product, registers};
use crate::conv::winograd::output::Output;
use crate::conv::winograd::transform::Domain;
use crate::conv::winograd::weights::Row as WeightRow;
use crate::conv::winograd::{self, winograd_kernels};
use crate::conv::{im2col, strassen};
use crate::depthwise::{self, DepthwiseArgs, Strip, strips};
use crate::elementwise::{self, BinaryArgs, ScaleArgs};
use crate::epilogue::{self, Rest};
use crate::isa::{Isa, Kernels, entry_points, kernel};
use crate::layout::{self, PackArgs, UnpackArgs};
use crate::plain::depthwise::{
    self as plain_depthwise, PlainDepthwiseArgs, Strip as PlainStrip, plain_strips,
};
use crate::plain::pool::PlainPoolArgs;
use crate::plain::{self, PlainGlobalArgs, PlainScaleArgs};
use crate::pool::{self, PoolArgs, PoolKind};
use crate::probe::{self, ProbeKernel};
use crate::simd::{Plain, Simd};
use crate::{Block, LANES};

mod registers;
use registers::{Avx2, Half};

entry_points! {
    [#[target_feature(enable = "avx2,fma")]] Avx2::new();
    // 12 sums + 2 of the factor + 2 of the addend = 16 of 16 registers.
    fma_loop_avx2(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 6>;
    read_loop_avx2(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 4>;
    copy_loop_avx2(from: &[Block], to: &mut [Block]) = probe::copy_loop;
    epilogue_avx2(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) =
        |simd, rest, out, negative| epilogue::finish(simd, activate_in_place_avx2, rest, out, negative);
    activate_in_place_avx2(activation: Activation, data: &mut [Block]) =
        |simd, activation, data| elementwise::activate_in_place(simd, Half::both(), activation, data);
    activate_avx2(activation: Activation, input: &[Block], out: &mut [Block]) = |simd, activation, input, out| {
        elementwise::activate(simd, activate_in_place_avx2, activation, input, out)
    };
    binary_avx2(args: &BinaryArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
        |simd, args, pixels, out| elementwise::binary(simd, activate_in_place_avx2, args, pixels, out);
    scale_avx2(args: &ScaleArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
        |simd, args, pixels, out| elementwise::scale(simd, activate_in_place_avx2, args, pixels, out);
    direct_avx2[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::row::<_, M, N, LANES>;
    pointwise_avx2[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::pointwise_row::<_, M, N>;
    grouped_direct_avx2[M, G](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) = direct::row::<_, M, 1, G>;
    strassen_sum_avx2(first: &[Block], second: &[Block], half: usize, sums: &mut [&mut [Block]; 4]) = strassen::sum;
    dense_avx2[N](args: &ConvArgs<'_>, len: usize, block: usize, out: &mut [&mut [Block]]) = dense::blocks::<_, N>;
    plain_image_avx2[M, N](row: &PlainRow<'_>, out: &mut [&mut [Block]]) = plain_image::row::<_, M, N>;
    few_outputs_avx2(args: &ConvArgs<'_>, outputs: usize, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, outputs, pixels, out| few_outputs::run(simd, activate_in_place_avx2, args, outputs, pixels, out);
    maxmin_avx2(input: &[Block], positive: &mut [Block], negative: &mut [Block]) = elementwise::maxmin;
    depthwise_any_avx2[P](strip: &Strip<'_>, out: &mut [Block]) = depthwise::strip_of_any::<_, P>;
    depthwise_strip_avx2[K, STRIDE, P](strip: &Strip<'_>, out: &mut [Block]) =
        |_, strip, out| depthwise::strip::<_, 2, K, STRIDE, P>(Half::both(), strip, out);
    pack_avx2(args: &PackArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = layout::pack;
    unpack_avx2(args: &UnpackArgs<'_>, pixels: Range<usize>, out: &mut [f32]) = layout::unpack;
    softmax_avx2(args: &SoftmaxArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, pixels, out| channels::softmax(simd, activate_in_place_avx2, args, pixels, out);
    lrn_avx2(args: &LrnArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, pixels, out| channels::lrn(simd, activate_in_place_avx2, args, pixels, out);
    pool_avx2(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = pool::pool;
    maxmin_pool_avx2(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = pool::maxmin_pool;
    global_pool_avx2(kind: PoolKind, width: usize, input: &[Block], out: &mut [Block]) = pool::global_pool;
    plain_strip_avx2[K, STRIDE, LIVE](strip: &PlainStrip<'_>, out: &mut [f32]) =
        plain_depthwise::strip::<_, K, STRIDE, LIVE>;
    plain_depthwise_avx2(args: &PlainDepthwiseArgs<'_>, rows: Range<usize>, out: &mut [f32]) = |simd, args, rows, out| {
        plain_depthwise::run(simd, &plain_strips!(plain_strip_avx2, activate_in_place_avx2), args, rows, out)
    };
    plain_pool_avx2(args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]) = plain::pool::pool;
    plain_global_pool_avx2(args: &PlainGlobalArgs<'_>, out: &mut [Block]) = plain::global_pool;
    plain_scale_avx2(args: &PlainScaleArgs<'_>, first: usize, out: &mut [f32]) =
        |simd, args, first, out| plain::scale(simd, activate_in_place_avx2, args, first, out);
    grouped_tile_avx2[M](row: &GroupedRow<'_>, first: usize, at: usize, out: &mut [&mut [Block]]) = grouped::tile::<_, M>;
}

// 6 pixels x 1 block: 12 sums, 2 of weights and 1 of input are 15 of 16 registers.
#[target_feature(enable = "avx2,fma")]
fn direct_tiles() -> Tiles<'static> {
    Tiles {
        rows: &[tiles!(direct_avx2, 1: 1 2 3 4 5 6)],
        // narrow tiles are rare: no code of their own
        pointwise: &[tiles!(direct_avx2, 1: 1 2 3 4, pointwise_avx2: 5 6)],
        dense: Some((4, dense_avx2::<4>)),
        finish: epilogue_avx2,
    }
}

#[target_feature(enable = "avx2,fma")]
fn direct_6x1_avx2(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    direct::run(&direct_tiles(), args, pixels, out);
}

#[target_feature(enable = "avx2,fma")]
fn im2col_6x1_avx2(
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    im2col::run(&direct_tiles(), args, pixels, out, scratch);
}

#[target_feature(enable = "avx2,fma")]
fn strassen_6x1_avx2(
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    strassen::run(&direct_tiles(), strassen_sum_avx2, args, pixels, out, scratch);
}

#[target_feature(enable = "avx2,fma")]
fn plain_image_6x1_avx2(
    args: &PlainConvArgs<'_>,
    pixels: Range<usize>,
    scratch: &mut [f32],
    out: &mut [&mut [Block]],
) {
    let tiles = PlainTiles { rows: &[tiles!(plain_image_avx2, 1: 1 2 4 6)], finish: epilogue_avx2 };
    plain_image::run(&tiles, args, pixels, scratch, out);
}

entry_points! {
    [#[target_feature(enable = "avx2,fma")]] Avx2::new();
    winograd_input_avx2[T](batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride: usize) =
        |simd, batch, input, v, stride| winograd::input::transform::<_, T>(simd, Domain::of(T), batch, input, v, stride);
    winograd_weights_avx2[T, R](row: &WeightRow, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize) =
        |simd, row, plain, lanes, u, stride| {
            if WeightRow::is_packed(T, R) {
                return winograd_any_weights_avx2(row, plain, lanes, u, stride);
            }
            winograd::weights::transform::<_, T, R>(simd, winograd_any_weights_avx2, row, plain, lanes, u, stride)
        };
    winograd_any_weights_avx2(row: &WeightRow, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize) =
        |simd, row, plain, lanes, u, stride| winograd::weights::transform_any(Plain(simd), row, plain, lanes, u, stride);
    winograd_column_avx2[ROWS, BLOCKS, G](product: &Product<'_>, column: Column, m: &mut [Block]) =
        winograd::multiply::column::<_, ROWS, BLOCKS, G>;
    winograd_output_avx2[T, M](args: &Output<'_>, m: &[Block], out: &mut [Block]) =
        |simd, args, m, out| winograd::output::transform::<_, T, M>(simd, Domain::of(T), M, args, m, out);
}

// 6 tiles x 1 block: 12 sums, 2 of weights and 1 of input are 15 of 16 registers.
#[target_feature(enable = "avx2,fma")]
fn winograd_multiply_avx2(product: &Product<'_>, m: &mut [Block]) {
    let choices: &[_] = match product.spread {
        4 => &[registers!(winograd_column_avx2, 1, 4: 1 4 6)],
        8 => &[registers!(winograd_column_avx2, 1, 8: 1 4 6)],
        _ => &[registers!(winograd_column_avx2, 1: 1 2 3 4 5 6)],
    };
    winograd::multiply::split(choices, product, m);
}

/// Within quarters (4 channels a group) `vpermilps` does it, within halves (8) `vpermps`; else both halves are permuted for
/// both, and the right one is taken lane by lane.
#[target_feature(enable = "avx2,fma")]
fn spread_avx2(from: &[Block], step: usize, lanes: &[u32; LANES], out: &mut [Block]) {
    let simd = Avx2::new();
    let table = simd.load(&lanes.map(f32::from_bits));
    let table = [_mm256_castps_si256(table[0]), _mm256_castps_si256(table[1])];
    let stays_in = |part: usize| lanes.iter().enumerate().all(|(l, &lane)| lane as usize / part == l / part);
    let pairs = out.iter_mut().zip(from.iter().step_by(step));
    if stays_in(4) {
        for (out, from) in pairs {
            let v = simd.load(from);
            simd.store(out, [_mm256_permutevar_ps(v[0], table[0]), _mm256_permutevar_ps(v[1], table[1])]);
        }
    } else if stays_in(8) {
        for (out, from) in pairs {
            let v = simd.load(from);
            let low = _mm256_permutevar8x32_ps(v[0], table[0]);
            simd.store(out, [low, _mm256_permutevar8x32_ps(v[1], table[1])]);
        }
    } else {
        let seven = _mm256_set1_epi32(7);
        for (out, from) in pairs {
            let [low, high] = simd.load(from);
            let mut spread = [low; 2];
            for half in 0..2 {
                let is_high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(table[half], seven));
                let low = _mm256_permutevar8x32_ps(low, table[half]);
                spread[half] = _mm256_blendv_ps(low, _mm256_permutevar8x32_ps(high, table[half]), is_high);
            }
            simd.store(out, spread);
        }
    }
}

// 6 sums + the weights; inputs are operands in memory.
#[target_feature(enable = "avx2,fma")]
fn grouped_6x1_avx2(
    args: &GroupedArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let parts = Parts {
        direct: &[grouped_direct!(grouped_direct_avx2, 4: 1 6), grouped_direct!(grouped_direct_avx2, 8: 1 6)],
        tiles: grouped_tiles!(grouped_tile_avx2: 1 3 4 6),
        spread: spread_avx2,
        finish: epilogue_avx2,
    };
    grouped::run(&parts, args, pixels, out, scratch);
}

#[target_feature(enable = "avx2,fma")]
fn depthwise_avx2(args: &DepthwiseArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    // Of half a block: 7 sums, at most 7 of weights and 1 of a pixel are 15 of 16 registers.
    let strips = strips!(depthwise_strip_avx2: 4 7, depthwise_any_avx2: 4, epilogue_avx2);
    depthwise::run(&strips, args, pixels, out);
}

#[target_feature(enable = "avx2,fma")]
#[allow(dead_code, reason = "reached with detection only")]
pub(crate) fn probe() -> ProbeKernel {
    ProbeKernel {
        name: "fma_loop_avx2",
        chains: 6,
        fma_loop: fma_loop_avx2,
        read_loop: read_loop_avx2,
        copy_loop: copy_loop_avx2,
    }
}

#[target_feature(enable = "avx2,fma")]
pub(crate) fn kernels() -> Kernels {
    Kernels {
        isa: Isa::Avx2,
        direct: kernel!(direct_6x1_avx2),
        im2col: kernel!(im2col_6x1_avx2),
        strassen: kernel!(strassen_6x1_avx2),
        plain_image: kernel!(plain_image_6x1_avx2),
        grouped: kernel!(grouped_6x1_avx2),
        depthwise: kernel!(depthwise_avx2),
        activate: kernel!(activate_avx2),
        activate_in_place: kernel!(activate_in_place_avx2),
        binary: kernel!(binary_avx2),
        few_outputs: kernel!(few_outputs_avx2),
        scale: kernel!(scale_avx2),
        maxmin: kernel!(maxmin_avx2),
        pack: kernel!(pack_avx2),
        unpack: kernel!(unpack_avx2),
        winograd: winograd_kernels!(avx2:
            winograd_input_avx2, winograd_weights_avx2, winograd_multiply_avx2, winograd_output_avx2,
            epilogue_avx2),
        softmax: kernel!(softmax_avx2),
        lrn: kernel!(lrn_avx2),
        pool: kernel!(pool_avx2),
        maxmin_pool: kernel!(maxmin_pool_avx2),
        global_pool: kernel!(global_pool_avx2),
        plain_depthwise: kernel!(plain_depthwise_avx2),
        plain_pool: kernel!(plain_pool_avx2),
        plain_global_pool: kernel!(plain_global_pool_avx2),
        plain_scale: kernel!(plain_scale_avx2),
    }
}
