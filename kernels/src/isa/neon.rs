//! NEON on aarch64: one block is four 128-bit registers; 32 registers.

use core::arch::aarch64::*;
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
use registers::{Half, Neon};

entry_points! {
    [#[target_feature(enable = "neon")]] Neon::new();
    // 24 sums + 4 of the factor + 4 of the addend = 32 of 32 registers; latency 4, up to 4 a cycle: 16 are busy.
    fma_loop_neon(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 6>;
    read_loop_neon(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 4>;
    copy_loop_neon(from: &[Block], to: &mut [Block]) = probe::copy_loop;
    epilogue_neon(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) =
        |simd, rest, out, negative| epilogue::finish(simd, activate_in_place_neon, rest, out, negative);
    activate_in_place_neon(activation: Activation, data: &mut [Block]) =
        |simd, activation, data| elementwise::activate_in_place(simd, Half::both(), activation, data);
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
    strassen_sum_neon(first: &[Block], second: &[Block], half: usize, sums: &mut [&mut [Block]; 4]) = strassen::sum;
    dense_neon[N](args: &ConvArgs<'_>, len: usize, block: usize, out: &mut [&mut [Block]]) = dense::blocks::<_, N>;
    plain_image_neon[M, N](row: &PlainRow<'_>, out: &mut [&mut [Block]]) = plain_image::row::<_, M, N>;
    few_outputs_neon(args: &ConvArgs<'_>, outputs: usize, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, outputs, pixels, out| few_outputs::run(simd, activate_in_place_neon, args, outputs, pixels, out);
    maxmin_neon(input: &[Block], positive: &mut [Block], negative: &mut [Block]) = elementwise::maxmin;
    depthwise_any_neon[P](strip: &Strip<'_>, out: &mut [Block]) = depthwise::strip_of_any::<_, P>;
    depthwise_strip_neon[K, STRIDE, P](strip: &Strip<'_>, out: &mut [Block]) =
        |_, strip, out| depthwise::strip::<_, 2, K, STRIDE, P>(Half::both(), strip, out);
    pack_neon(args: &PackArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = layout::pack;
    unpack_neon(args: &UnpackArgs<'_>, pixels: Range<usize>, out: &mut [f32]) = layout::unpack;
    softmax_neon(args: &SoftmaxArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, pixels, out| channels::softmax(simd, activate_in_place_neon, args, pixels, out);
    lrn_neon(args: &LrnArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
        |simd, args, pixels, out| channels::lrn(simd, activate_in_place_neon, args, pixels, out);
    pool_neon(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = pool::pool;
    maxmin_pool_neon(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = pool::maxmin_pool;
    global_pool_neon(kind: PoolKind, width: usize, input: &[Block], out: &mut [Block]) = pool::global_pool;
    plain_strip_neon[K, STRIDE, LIVE](strip: &PlainStrip<'_>, out: &mut [f32]) =
        plain_depthwise::strip::<_, K, STRIDE, LIVE>;
    plain_depthwise_neon(args: &PlainDepthwiseArgs<'_>, rows: Range<usize>, out: &mut [f32]) = |simd, args, rows, out| {
        plain_depthwise::run(simd, &plain_strips!(plain_strip_neon, activate_in_place_neon), args, rows, out)
    };
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
        pointwise: &[tiles!(direct_neon, 1: 1 2 3 4, pointwise_neon: 5 6)],
        // with 4 blocks the compiler loads all their weights before it multiplies, and spills
        dense: Some((3, dense_neon::<3>)),
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
fn strassen_6x1_neon(
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    strassen::run(&direct_tiles(), strassen_sum_neon, args, pixels, out, scratch);
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
            if WeightRow::is_packed(T, R) {
                return winograd_any_weights_neon(row, plain, lanes, u, stride);
            }
            winograd::weights::transform::<_, T, R>(simd, winograd_any_weights_neon, row, plain, lanes, u, stride)
        };
    winograd_any_weights_neon(row: &WeightRow, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize) =
        |simd, row, plain, lanes, u, stride| winograd::weights::transform_any(Plain(simd), row, plain, lanes, u, stride);
    winograd_column_neon[ROWS, BLOCKS, G](product: &Product<'_>, column: Column, m: &mut [Block]) =
        winograd::multiply::column::<_, ROWS, BLOCKS, G>;
    winograd_output_neon[T, M](args: &Output<'_>, m: &[Block], out: &mut [Block]) =
        |simd, args, m, out| winograd::output::transform::<_, T, M>(simd, Domain::of(T), M, args, m, out);
}

// 6 tiles x 1 block: 24 sums, 4 of weights and 1 of input are 29 of 32 registers.
#[target_feature(enable = "neon")]
fn winograd_multiply_neon(product: &Product<'_>, m: &mut [Block]) {
    let choices: &[_] = match product.spread {
        4 => &[registers!(winograd_column_neon, 1, 4: 1 4 6)],
        8 => &[registers!(winograd_column_neon, 1, 8: 1 4 6)],
        _ => &[registers!(winograd_column_neon, 1: 1 2 3 4 5 6)],
    };
    winograd::multiply::split(choices, product, m);
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
        tiles: grouped_tiles!(grouped_tile_neon: 1 4 5),
        spread: spread_neon,
        finish: epilogue_neon,
    };
    grouped::run(&parts, args, pixels, out, scratch);
}

#[target_feature(enable = "neon")]
fn depthwise_neon(args: &DepthwiseArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    // Of half a block: 14 sums, at most 14 of weights and 2 of a pixel are 30 of 32 registers.
    let strips = strips!(depthwise_strip_neon: 4 7, depthwise_any_neon: 4, epilogue_neon);
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
        strassen: kernel!(strassen_6x1_neon),
        plain_image: kernel!(plain_image_6x1_neon),
        grouped: kernel!(grouped_5x1_neon),
        depthwise: kernel!(depthwise_neon),
        activate: kernel!(activate_neon),
        activate_in_place: kernel!(activate_in_place_neon),
        binary: kernel!(binary_neon),
        few_outputs: kernel!(few_outputs_neon),
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
        plain_depthwise: kernel!(plain_depthwise_neon),
        plain_pool: kernel!(plain_pool_neon),
        plain_global_pool: kernel!(plain_global_pool_neon),
        plain_scale: kernel!(plain_scale_neon),
    }
}
