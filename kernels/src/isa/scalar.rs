//! The scalar path: the same algorithms over arrays of numbers. It defines the bits that every other instruction
//! set must give. Its table exists twice on x86-64 (once without the feature `scalar-fma`): compiled with the
//! hardware's fused multiply-add where the CPU has one, and with the correctly rounded software one elsewhere. Bits
//! are the same, speed is not.
//!
//! A kernel in which no lane sees another one is run for a few lanes of all blocks, then for the next few: as many
//! as fit in one register of the target's baseline, twice as many in tiles. Written out for all 16 it would be four times
//! as large, and have its sums in memory. Layout changes, row-major kernels and activations take one element at a time.

use crate::simd::{Simd, simd_ops};
use crate::{Block, LANES};

/// `W` lanes of a block, from lane `first` on: loads read these, stores write these.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<const W: usize> {
    first: usize,
}

/// All lanes at once.
const WHOLE: Lanes<LANES> = Lanes { first: 0 };

/// Lane 0. A loop over numbers, for functions with many steps: the compiler vectorises it over a row of blocks.
pub(crate) const ONE: Lanes<1> = Lanes { first: 0 };

/// One operation per lane.
#[inline(always)]
fn lanes<const W: usize>(f: impl Fn(usize) -> f32) -> [f32; W] {
    let mut out = [0.0; W];
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

/// Some of them. Where each is a call, they are one function: written out in every loop they would be half of the
/// code.
#[cfg_attr(all(target_arch = "x86_64", not(feature = "scalar-fma")), inline(never))]
#[cfg_attr(not(all(target_arch = "x86_64", not(feature = "scalar-fma"))), inline(always))]
fn fused_lanes<const W: usize>(a: &[f32; W], b: &[f32; W], c: &[f32; W]) -> [f32; W] {
    lanes(
        #[inline(always)]
        |i| fused(a[i], b[i], c[i]),
    )
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
fn exp2_int(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// In two steps: the first is exact, the second rounds.
#[inline(always)]
fn scale_exp2(a: f32, n: i32) -> f32 {
    let low = n >> 1;
    a * exp2_int(low) * exp2_int(n - low)
}

/// Every other lane of `a` and then `b`, from `first` on.
#[inline(always)]
fn unzip<const W: usize>(a: &[f32; W], b: &[f32; W], first: usize) -> [f32; W] {
    lanes(
        #[inline(always)]
        |i| if 2 * i + first < W { a[2 * i + first] } else { b[2 * i + first - W] },
    )
}

/// Not inlined: the compiler writes out all 256 moves.
#[inline(never)]
fn transpose(from: [&Block; 16], to: &mut [Block; 16]) {
    for (i, from) in from.iter().enumerate() {
        for (to, &x) in to.iter_mut().zip(from.iter()) {
            to[i] = x;
        }
    }
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    let larger = if a > b { a } else { b };
    if a.is_nan() { a } else { larger }
}

#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    let smaller = if a < b { a } else { b };
    if a.is_nan() { a } else { smaller }
}

#[inline(always)]
fn clamp(a: f32, low: f32, high: f32) -> f32 {
    let a = if low > a { low } else { a };
    if a > high { high } else { a }
}

/// [`Simd::spread`] for `W` lanes from `first` on: a call, since lanes one by one are much code for each sum.
#[inline(never)]
fn spread<const W: usize>(group: usize, first: usize, from: &Block, lane: usize) -> [f32; W] {
    lanes(|i| from[((first + i) / group * group + lane) % LANES])
}

// SAFETY: needs no instructions beyond the target's own.
unsafe impl<const W: usize> Simd for Lanes<W> {
    type Vector = [f32; W];
    const PLAIN: bool = true;

    #[inline(always)]
    fn spread<const G: usize>(self, from: &Block, lane: usize) -> [f32; W] {
        if G == LANES { [from[lane]; W] } else { spread(G, self.first, from, lane) }
    }

    #[inline(always)]
    fn load(self, from: &Block) -> [f32; W] {
        lanes(
            #[inline(always)]
            |i| from[self.first + i],
        )
    }

    #[inline(always)]
    fn store(self, to: &mut Block, v: [f32; W]) {
        to[self.first..][..W].copy_from_slice(&v);
    }

    simd_ops! {
        splat(x: f32) -> [f32; W] = [x; W];
        add(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| a[i] + b[i]);
        sub(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| a[i] - b[i]);
        mul(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| a[i] * b[i]);
        div(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| a[i] / b[i]);
        sqrt(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| square_root(a[i]));
        mul_add(a: [f32; W], b: [f32; W], c: [f32; W]) -> [f32; W] =
            if W == 1 { [fused(a[0], b[0], c[0]); W] } else { fused_lanes(&a, &b, &c) };
        neg(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| -a[i]);
        abs(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| a[i].abs());
        max(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| max(a[i], b[i]));
        min(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| min(a[i], b[i]));
        relu(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| if a[i] > 0.0 || a[i].is_nan() { a[i] } else { 0.0 });
        clamp(a: [f32; W], low: [f32; W], high: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| clamp(a[i], low[i], high[i]));
        select_gt(a: [f32; W], b: [f32; W], yes: [f32; W], no: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| if a[i] > b[i] { yes[i] } else { no[i] });
        copysign(a: [f32; W], b: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| a[i].copysign(b[i]));
        round(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| round(a[i]));
        exp2_int(n: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| exp2_int(n[i] as i32));
        scale_exp2(a: [f32; W], n: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| scale_exp2(a[i], n[i] as i32));
        exponent(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| ((a[i].to_bits() >> 23) as i32 - 127) as f32);
        mantissa(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| f32::from_bits(a[i].to_bits() & 0x007f_ffff | 0x3f80_0000));
        canonical_nan(a: [f32; W]) -> [f32; W] = lanes(#[inline(always)] |i| if a[i].is_nan() { f32::from_bits(0x7fc0_0000) } else { a[i] });
        transpose(from: [&Block; 16], to: &mut [Block; 16]) = transpose(from, to);
        unzip(a: [f32; W], b: [f32; W]) -> [[f32; W]; 2] = [unzip(&a, &b, 0), unzip(&a, &b, 1)];
        shift_in(before: [f32; W], v: [f32; W]) -> [f32; W] =
            core::array::from_fn(|lane| if lane == 0 { before[W - 1] } else { v[lane - 1] });
        prefetch(_at: &Block) = ();
    }
}

/// Does something for some lanes of all blocks, then for the next ones.
macro_rules! by_parts {
    ($width:ident $simd:ident => $body:expr) => {
        for first in (0..LANES).step_by($width) {
            let $simd = Lanes::<$width> { first };
            $body;
        }
    };
}

/// As [`entry_points`], for algorithms in which no lane sees another one: so many lanes at a time.
macro_rules! entry_points_by_parts {
    (
        @one [$($features:tt)*] $width:ident $name:ident [$($size:ident),*] ($($arg:ident: $ty:ty),* $(,)?) =
        $algorithm:expr
    ) => {
        $($features)*
        fn $name<$(const $size: usize),*>($($arg: $ty),*) {
            by_parts!($width simd => $algorithm(simd, $($arg),*));
        }
    };
    ($features:tt $width:ident; $($name:ident $([$($size:ident),*])? ($($args:tt)*) = $algorithm:expr;)*) => {$(
        entry_points_by_parts!(@one $features $width $name [$($($size),*)?] ($($args)*) = $algorithm);
    )*};
}

/// The entry points and the table, compiled with the given features.
macro_rules! scalar_table {
    ($width:literal $(#[$features:meta])?) => {
        use core::ops::Range;

        use super::{Lanes, ONE, WHOLE};
        use crate::{Block, LANES};
        use crate::conv::direct::{self, Row, Tiles};
        use crate::conv::few_outputs;
        use crate::conv::{im2col, strassen};
        use crate::conv::plain_image::{self, PlainConvArgs, PlainRow, PlainTiles};
        use crate::conv::tiling::tiles;
        use crate::channels::{self, LrnArgs, SoftmaxArgs};
        use crate::conv::grouped::{GroupedArgs, Parts, Row as GroupedRow, grouped_tiles, self};
        use crate::conv::ConvArgs;
        use crate::epilogue::{self, Rest};
        use crate::cover::Sizes;
        use crate::depthwise::{DepthwiseArgs, Strip, StripFn, Strips, self};
        use crate::isa::{Isa, Kernels, entry_points, kernel};
        use crate::activation::Activation;
        use crate::elementwise::{BinaryArgs, ScaleArgs, self};
        use crate::layout::{self, PackArgs, UnpackArgs};
        use crate::plain::depthwise::PlainDepthwiseArgs;
        use crate::plain::pool::PlainPoolArgs;
        use crate::plain::{PlainGlobalArgs, PlainScaleArgs, elements};
        use crate::conv::winograd::batch::Batch;
        use crate::conv::winograd::multiply::{Column, Product, registers};
        use crate::conv::winograd::output::Output;
        use crate::conv::winograd::transform::Domain;
        use crate::conv::winograd::weights::Row as WeightRow;
        use crate::conv::winograd::{self, winograd_kernels};
        use crate::pool::{PoolArgs, PoolKind, self};
        use crate::probe::{self, ProbeKernel};

        entry_points! {
            [$(#[$features])?] WHOLE;
            read_loop_scalar(from: &[Block], sum: &mut Block) = probe::read_loop::<_, 4>;
            copy_loop_scalar(from: &[Block], to: &mut [Block]) = probe::copy_loop;
            epilogue_scalar(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>) =
                |simd, rest, out, negative| epilogue::finish(simd, activate_in_place_scalar, rest, out, negative);
            activate_in_place_scalar(activation: Activation, data: &mut [Block]) =
                |_, activation, data| elementwise::activate_lanes(ONE, activation, data);
            activate_scalar(activation: Activation, input: &[Block], out: &mut [Block]) =
                |_, activation, input: &[Block], out: &mut [Block]| {
                    assert_eq!(input.len(), out.len(), "input and output differ in length");
                    out.copy_from_slice(input);
                    activate_in_place_scalar(activation, out);
                };
            binary_scalar(args: &BinaryArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
                |_, args: &BinaryArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]| {
                    by_parts!(WIDTH simd => elementwise::binary(simd, elementwise::later, args, pixels.clone(), out));
                    activate_rest(args.after, out);
                };
            scale_scalar(args: &ScaleArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
                |_, args: &ScaleArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]| {
                    by_parts!(WIDTH simd => elementwise::scale(simd, elementwise::later, args, pixels.clone(), out));
                    activate_rest(args.after, out);
                };
            few_outputs_scalar(args: &ConvArgs<'_>, outputs: usize, pixels: Range<usize>, out: &mut [Block]) =
                |simd, args, outputs, pixels, out| {
                    few_outputs::run(simd, activate_in_place_scalar, args, outputs, pixels, out)
                };
            pack_scalar(args: &PackArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) = layout::pack;
            unpack_scalar(args: &UnpackArgs<'_>, pixels: Range<usize>, out: &mut [f32]) = layout::unpack;
            pool_scalar(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
                |_, args, pixels: Range<usize>, out: &mut [&mut [Block]]| {
                    by_parts!(WIDTH simd => pool::pool(simd, args, pixels.clone(), out));
                };
            maxmin_pool_scalar(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) =
                |_, args, pixels: Range<usize>, out: &mut [&mut [Block]]| {
                    by_parts!(WIDTH simd => pool::maxmin_pool(simd, args, pixels.clone(), out));
                };
            global_pool_scalar(kind: PoolKind, width: usize, input: &[Block], out: &mut [Block]) =
                |_, kind, width, input, out| pool::global_pool_as_window(pool_scalar, kind, width, input, out);
            plain_depthwise_scalar(args: &PlainDepthwiseArgs<'_>, rows: Range<usize>, out: &mut [f32]) =
                |_, args, rows, out| elements::depthwise(ONE, activate_in_place_scalar, args, rows, out);
            plain_pool_scalar(args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]) =
                |_, args, rows, out| elements::pool(args, rows, out);
            plain_global_pool_scalar(args: &PlainGlobalArgs<'_>, out: &mut [Block]) =
                |_, args, out| elements::global_pool(args, out);
            plain_scale_scalar(args: &PlainScaleArgs<'_>, first: usize, out: &mut [f32]) =
                |_, args, first, out| elements::scale(ONE, activate_in_place_scalar, args, first, out);
            softmax_scalar(args: &SoftmaxArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
                |simd, args, pixels, out| channels::softmax(simd, activate_in_place_scalar, args, pixels, out);
            lrn_scalar(args: &LrnArgs<'_>, pixels: Range<usize>, out: &mut [Block]) =
                |simd, args, pixels, out| channels::lrn(simd, activate_in_place_scalar, args, pixels, out);
        }

        /// The activation that is left after all lanes have been computed, if it is no clamp.
        $(#[$features])?
        fn activate_rest(after: Activation, out: &mut [&mut [Block]]) {
            if after.as_clamp().is_none() {
                for out in out {
                    activate_in_place_scalar(after, out);
                }
            }
        }

        /// Lanes at a time.
        const WIDTH: usize = $width;
        /// Lanes of a tile of one pixel, so that two sums are under way: no other tile is needed.
        const WIDE: usize = 2 * WIDTH;

        entry_points_by_parts! {
            [$(#[$features])?] WIDE;
            direct_scalar[M, N](row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]) =
                direct::row::<_, M, N, LANES>;
            plain_image_scalar[M, N](row: &PlainRow<'_>, out: &mut [&mut [Block]]) = plain_image::row::<_, M, N>;
            depthwise_any_scalar[P](strip: &Strip<'_>, out: &mut [Block]) = depthwise::strip_of_any::<_, P>;
            grouped_tile_scalar[M](row: &GroupedRow<'_>, first: usize, at: usize, out: &mut [&mut [Block]]) =
                grouped::tile::<_, M>;
            winograd_column_scalar[ROWS, BLOCKS, G](product: &Product<'_>, column: Column, m: &mut [Block]) =
                winograd::multiply::column::<_, ROWS, BLOCKS, G>;
        }

        entry_points_by_parts! {
            [$(#[$features])?] WIDTH;
            // With 8 lanes at a time, what AVX2 has to do to be busy.
            fma_loop_scalar(rounds: usize, state: &mut [Block]) = probe::fma_loop::<_, 12>;
            strassen_sum_scalar(first: &[Block], second: &[Block], half: usize, sums: &mut [&mut [Block]; 4]) = strassen::sum;
            maxmin_scalar(input: &[Block], positive: &mut [Block], negative: &mut [Block]) = elementwise::maxmin;
            winograd_input_scalar(batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride: usize) =
                |simd, batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride| {
                    let domain = Domain::of(batch.domain());
                    winograd::input::transform::<_, 8>(simd, domain, batch, input, v, stride);
                };
            winograd_weights_scalar(row: &WeightRow, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize) =
                winograd::weights::transform_any;
            winograd_output_scalar(args: &Output<'_>, m: &[Block], out: &mut [Block]) =
                |simd, args: &Output<'_>, m: &[Block], out: &mut [Block]| {
                    let (domain, size) = (Domain::of(args.batch.domain()), args.batch.size);
                    winograd::output::transform::<_, 8, 6>(simd, domain, size, args, m, out);
                };
        }

        $(#[$features])?
        fn direct_tiles() -> Tiles<'static> {
            Tiles {
                rows: &[tiles!(direct_scalar, 1: 1)],
                pointwise: &[tiles!(direct_scalar, 1: 1)],
                dense: None,
                finish: epilogue_scalar,
            }
        }

        $(#[$features])?
        fn direct_1x1_scalar(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
            direct::run(&direct_tiles(), args, pixels, out);
        }

        $(#[$features])?
        fn im2col_1x1_scalar(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]], scratch: &mut [Block]) {
            im2col::run(&direct_tiles(), args, pixels, out, scratch);
        }

        $(#[$features])?
        fn strassen_1x1_scalar(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]], scratch: &mut [Block]) {
            strassen::run(&direct_tiles(), strassen_sum_scalar, args, pixels, out, scratch);
        }

        $(#[$features])?
        fn plain_image_1x1_scalar(args: &PlainConvArgs<'_>, pixels: Range<usize>, scratch: &mut [f32], out: &mut [&mut [Block]]) {
            let tiles = PlainTiles { rows: &[tiles!(plain_image_scalar, 1: 1)], finish: epilogue_scalar };
            plain_image::run(&tiles, args, pixels, scratch, out);
        }

        // No register tile of our choosing.
        $(#[$features])?
        fn winograd_multiply_scalar(product: &Product<'_>, m: &mut [Block]) {
            let choices: &[_] = match product.spread {
                4 => &[registers!(winograd_column_scalar, 1, 4: 1)],
                8 => &[registers!(winograd_column_scalar, 1, 8: 1)],
                _ => &[registers!(winograd_column_scalar, 1: 1)],
            };
            winograd::multiply::split(choices, product, m);
        }

        fn spread_scalar(from: &[Block], step: usize, lanes: &[u32; LANES], out: &mut [Block]) {
            for (out, from) in out.iter_mut().zip(from.iter().step_by(step)) {
                *out = lanes.map(|lane| from[lane as usize]);
            }
        }

        $(#[$features])?
        fn grouped_1x1_scalar(
            args: &GroupedArgs<'_>,
            pixels: Range<usize>,
            out: &mut [&mut [Block]],
            scratch: &mut [Block],
        ) {
            let parts = Parts {
                direct: &[],
                tiles: grouped_tiles!(grouped_tile_scalar: 1),
                spread: spread_scalar,
                finish: epilogue_scalar,
            };
            grouped::run(&parts, args, pixels, out, scratch);
        }

        $(#[$features])?
        fn depthwise_scalar(args: &DepthwiseArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
            let any: Sizes<'_, StripFn> = &[(1, depthwise_any_scalar::<1>)];
            depthwise::run(&Strips { windows: &[], any, finish: epilogue_scalar }, args, pixels, out);
        }

        $(#[$features])?
        #[allow(dead_code, reason = "reached with detection only")]
        pub(crate) fn probe() -> ProbeKernel {
            ProbeKernel {
                name: "fma_loop_scalar",
                chains: 12,
                fma_loop: fma_loop_scalar,
                read_loop: read_loop_scalar,
                copy_loop: copy_loop_scalar,
            }
        }

        $(#[$features])?
        pub(crate) fn kernels() -> Kernels {
            Kernels {
                isa: Isa::Scalar,
                direct: kernel!(direct_1x1_scalar),
                im2col: kernel!(im2col_1x1_scalar),
                strassen: kernel!(strassen_1x1_scalar),
                plain_image: kernel!(plain_image_1x1_scalar),
                grouped: kernel!(grouped_1x1_scalar),
                depthwise: kernel!(depthwise_scalar),
                activate: kernel!(activate_scalar),
                activate_in_place: kernel!(activate_in_place_scalar),
                binary: kernel!(binary_scalar),
                few_outputs: kernel!(few_outputs_scalar),
                scale: kernel!(scale_scalar),
                maxmin: kernel!(maxmin_scalar),
                pack: kernel!(pack_scalar),
                unpack: kernel!(unpack_scalar),
                winograd: winograd_kernels!(scalar: any
                    winograd_input_scalar, winograd_weights_scalar, winograd_multiply_scalar, winograd_output_scalar,
                    epilogue_scalar),
                softmax: kernel!(softmax_scalar),
                lrn: kernel!(lrn_scalar),
                pool: kernel!(pool_scalar),
                maxmin_pool: kernel!(maxmin_pool_scalar),
                global_pool: kernel!(global_pool_scalar),
                plain_depthwise: kernel!(plain_depthwise_scalar),
                plain_pool: kernel!(plain_pool_scalar),
                plain_global_pool: kernel!(plain_global_pool_scalar),
                plain_scale: kernel!(plain_scale_scalar),
            }
        }
    };
}

/// With the software's fused multiply-add, unless the target has one in its baseline.
pub(crate) mod portable {
    scalar_table!(4);
}

/// With the hardware's fused multiply-add.
#[cfg(all(target_arch = "x86_64", feature = "scalar-fma"))]
pub(crate) mod fused {
    scalar_table!(8 #[target_feature(enable = "fma")]);
}
