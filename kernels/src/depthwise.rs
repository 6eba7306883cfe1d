//! Depthwise convolution: every channel with a filter of its own.
//!
//! ```text
//! input     [block][in_height][in_width][16]
//! weights   [block][tap row][tap column][16]
//! output    one slice per block, each the pixels of `pixels`, [pixel][16]
//! ```
//!
//! Order of a sum: from +0, tap row, tap column. Tap rows outside the image are left out; a tap column outside counts
//! as a product with zero.
//!
//! A tile is P pixels of one output row. Each input pixel under a tap row is loaded once and meets all weights of
//! a tap row, which are in registers: the loads would be the limit otherwise, one per product. Where a block is
//! several registers a tile is of half a block, so that seven pixels and seven weights fit.

use core::hint::cold_path;
use core::ops::Range;

use crate::conv::ConvGeometry;
use crate::cover::{Sizes, cover};
use crate::epilogue::{Epilogue, Finish};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// `out` has one slice per block, each the pixels of the range, which are whole rows; with MaxMin, then the same
/// again.
pub type DepthwiseFn = fn(args: &DepthwiseArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]);

/// One image, a run of blocks. Dead lanes may hold anything.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseArgs<'a> {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// `[block][pixel]`, starting at the first block that is computed.
    pub input: &'a [Block],
    /// `[block][tap]`, starting at the first block that is computed.
    pub weights: &'a [Block],
    /// Bias and residual start at the first block that is computed.
    pub epilogue: Epilogue<'a>,
}

impl DepthwiseArgs<'_> {
    fn check(&self, pixels: &Range<usize>, out: &[&mut [Block]]) {
        let geometry = &self.geometry;
        let blocks = self.epilogue.blocks(out.len());
        assert!(self.epilogue.scale.is_none(), "a depthwise convolution takes no scale");
        assert!(self.input.len() >= blocks * geometry.in_pixels(), "input of every output block");
        assert!(self.weights.len() >= blocks * geometry.taps(), "weights of every output block");
        assert!(self.epilogue.bias.len() >= blocks, "bias of every output block");
        assert!(pixels.start <= pixels.end && pixels.end <= geometry.out_pixels(), "pixels of the output");
        let is_whole = |pixel: usize| geometry.out_width > 0 && pixel.is_multiple_of(geometry.out_width);
        assert!(is_whole(pixels.start) && is_whole(pixels.end), "whole rows of the output");
        assert!(out.iter().all(|out| out.len() == pixels.len()), "a slice holds the pixels of the range");
        if let Some(residual) = self.epilogue.residual {
            assert!(residual.len() >= blocks * geometry.out_pixels(), "residual of every output block");
        }
    }
}

/// Tiles side by side in some rows of one block: what a [`StripFn`] computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strip<'a> {
    geometry: ConvGeometry,
    /// The block's plane.
    input: &'a [Block],
    /// The block's taps.
    weights: &'a [Block],
    bias: &'a Block,
    /// The residual of the rows that are computed.
    residual: Option<&'a [Block]>,
    /// See [`crate::activation::Activation::as_clamp`].
    clamp: (f32, f32, f32),
    /// First row in the output, and how many.
    y: usize,
    rows: usize,
    /// First column in the output.
    x: usize,
    tiles: usize,
}

/// Computes tiles of a fixed number of pixels; `out` is whole rows.
pub(crate) type StripFn = fn(strip: &Strip<'_>, out: &mut [Block]);

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strips<'a> {
    /// Kernel size, stride, tiles; for windows as [`fits`] says.
    pub(crate) windows: &'a [(usize, usize, Sizes<'a, StripFn>)],
    /// For all other windows.
    pub(crate) any: Sizes<'a, StripFn>,
    pub(crate) finish: Finish,
}

/// The [`Strips`] of one instruction set, from its entry points: the windows of MobileNet, EfficientNet and ConvNeXt
/// in tiles of as many pixels as listed, and of one. A single pixel is one chain of multiply-adds, for which any code waits: it
/// needs none for each window.
macro_rules! strips {
    ($strip:ident: $($pixels:literal)*, $any:ident: $($any_pixels:literal)*, $finish:ident) => {
        crate::depthwise::Strips {
            windows: &[
                (3, 1, &[(1, $any::<1>), $(($pixels, $strip::<3, 1, $pixels>)),*]),
                (3, 2, &[(1, $any::<1>), $(($pixels, $strip::<3, 2, $pixels>)),*]),
                (5, 1, &[(1, $any::<1>), $(($pixels, $strip::<5, 1, $pixels>)),*]),
                (5, 2, &[(1, $any::<1>), $(($pixels, $strip::<5, 2, $pixels>)),*]),
                (7, 1, &[(1, $any::<1>), $(($pixels, $strip::<7, 1, $pixels>)),*]),
            ],
            any: &[(1, $any::<1>), $(($any_pixels, $any::<$any_pixels>)),*],
            finish: $finish,
        }
    };
}
#[allow(unused_imports, reason = "used by each instruction set that has registers to fill")]
pub(crate) use strips;

/// Pixels of a block after which the second pass of the epilogue runs: 8 KB, which are in the first-level cache
/// still.
const FINISH_PIXELS: usize = 128;

/// Whether a [`strip`] computes it: a window of this size and stride without dilation, and so little padding that even the
/// leftmost output has its last tap column right of the image's left edge, and the rightmost one its first left of the right
/// edge. Then only the K - 1 outermost columns of a tile can be outside.
fn fits(geometry: &ConvGeometry, kernel: usize, stride: usize) -> bool {
    let last = geometry.out_width.saturating_sub(1) * stride;
    geometry.kernel == [kernel; 2]
        && geometry.stride == [stride; 2]
        && geometry.dilation == [1, 1]
        && geometry.pad_left < kernel
        && last < geometry.in_width + geometry.pad_left
}

/// Computes `pixels` of all blocks in `out`.
pub(crate) fn run(
    strips: &Strips<'_>,
    args: &DepthwiseArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
) {
    args.check(&pixels, out);
    let geometry = &args.geometry;
    let (width, plane) = (geometry.out_width, geometry.out_pixels());
    let window = strips.windows.iter().find(|(kernel, stride, _)| fits(geometry, *kernel, *stride));
    if pixels.is_empty() {
        return;
    }
    let tiles = cover(window.map_or(strips.any, |(_, _, tiles)| tiles), width);
    let rows_at_once =
        if args.epilogue.has_rest() { FINISH_PIXELS.div_ceil(width) * width } else { pixels.len() };
    for block in 0..args.epilogue.blocks(out.len()) {
        let tail = args.epilogue.tail();
        let mut first = pixels.start;
        while first < pixels.end {
            let len = rows_at_once.min(pixels.end - first);
            let at = first - pixels.start;
            let mut strip = Strip {
                geometry: *geometry,
                input: &args.input[block * geometry.in_pixels()..][..geometry.in_pixels()],
                weights: &args.weights[block * geometry.taps()..][..geometry.taps()],
                bias: tail.bias(block),
                residual: tail.residual(block, plane, first, len),
                clamp: tail.clamp(),
                y: first / width,
                rows: len / width,
                x: 0,
                tiles: 0,
            };
            for run in tiles.iter().filter(|run| run.count > 0) {
                (strip.x, strip.tiles) = (run.first, run.count);
                (run.function)(&strip, &mut out[block][at..at + len]);
            }
            args.epilogue.finish(strips.finish, block..block + 1, (plane, first), (at, len), out);
            first += len;
        }
    }
}

/// Tiles of `P` pixels, for windows of `K` x `K` taps `STRIDE` apart that [`fits`] accepts, each for one of `parts` after
/// the other: together they are a block.
#[inline(always)]
pub(crate) fn strip<S: Simd, const N: usize, const K: usize, const STRIDE: usize, const P: usize>(
    parts: [S; N],
    strip: &Strip<'_>,
    out: &mut [Block],
) {
    let ConvGeometry { in_height, in_width, out_width, pad_top, pad_left, .. } = strip.geometry;
    let weights = strip.weights.as_chunks::<K>().0;
    for row in 0..strip.rows {
        // the tap rows inside the image; where there is none, no input is read
        let start = (strip.y + row) * STRIDE;
        let first_tap = pad_top.saturating_sub(start).min(K);
        let end_tap = (pad_top + in_height).saturating_sub(start).clamp(first_tap, K);
        let weights = &weights[first_tap..end_tap];
        let first_row = if weights.is_empty() { 0 } else { start + first_tap - pad_top };
        let input = &strip.input[first_row * in_width..][..weights.len() * in_width];
        for tile in 0..strip.tiles {
            // wraps to beyond the row where the tile starts left of it
            let first = ((strip.x + tile * P) * STRIDE).wrapping_sub(pad_left);
            for simd in parts {
                let mut sums = [simd.splat(0.0); P];
                for (weights, row) in weights.iter().zip(input.chunks_exact(in_width)) {
                    sums = tap_row::<S, K, STRIDE, P>(simd, sums, row, first, weights);
                }
                store(simd, strip, sums, row * out_width + strip.x + tile * P, out);
            }
        }
    }
}

/// Bias, residual and clamp.
#[inline(always)]
fn store<S: Simd, const P: usize>(
    simd: S,
    strip: &Strip<'_>,
    mut sums: [S::Vector; P],
    at: usize,
    out: &mut [Block],
) {
    let bias = simd.load(strip.bias);
    unroll!(i < P <= 16, { sums[i] = simd.add(sums[i], bias) });
    if let Some(residual) = strip.residual {
        let residual = &residual[at..][..P];
        unroll!(i < P <= 16, { sums[i] = simd.add(sums[i], simd.load(&residual[i])) });
    }
    let (low, high, zero) = strip.clamp;
    let (low, high, zero) = (simd.splat(low), simd.splat(high), simd.splat(zero));
    let out = &mut out[at..][..P];
    unroll!(i < P <= 16, { simd.store(&mut out[i], simd.add(simd.clamp(sums[i], low, high), zero)) });
}

/// One tap row of a tile, whose first tap lies over column `first` of the input's row.
#[inline(always)]
fn tap_row<S: Simd, const K: usize, const STRIDE: usize, const P: usize>(
    simd: S,
    sums: [S::Vector; P],
    row: &[Block],
    first: usize,
    weights: &[Block; K],
) -> [S::Vector; P] {
    // From the last tap of the first output to the first tap of the last one all columns are inside the image.
    let end = (P - 1) * STRIDE + 1;
    let columns = end - 1 + K;
    // With many taps the columns at the edges do not fit in registers, into which the compiler loads them all.
    if K > 5 && first < row.len() && columns <= row.len() - first {
        let row = &row[first..][..columns];
        return multiply::<S, K, STRIDE, P>(
            simd,
            sums,
            weights,
            #[inline(always)]
            |c| simd.load(&row[c]),
        );
    }
    let inside = match end >= K {
        true => &row[first.wrapping_add(K - 1)..][..end + 1 - K],
        false => &[],
    };
    multiply::<S, K, STRIDE, P>(
        simd,
        sums,
        weights,
        #[inline(always)]
        |c| {
            if c + 1 >= K && c < end {
                simd.load(&inside[c + 1 - K])
            } else if let Some(pixel) = row.get(first.wrapping_add(c)) {
                simd.load(pixel)
            } else {
                cold_path();
                simd.splat(0.0)
            }
        },
    )
}

/// Column `c` is under tap `t` of output `(c - t) / STRIDE`.
#[inline(always)]
fn multiply<S: Simd, const K: usize, const STRIDE: usize, const P: usize>(
    simd: S,
    mut sums: [S::Vector; P],
    weights: &[Block; K],
    column: impl Fn(usize) -> S::Vector,
) -> [S::Vector; P] {
    let mut w = [simd.splat(0.0); K];
    unroll!(t < K <= 16, { w[t] = simd.load(&weights[t]) });
    unroll!(c < 32, {
        if c < (P - 1) * STRIDE + K {
            let x = column(c);
            unroll!(t < K <= 16, {
                if c >= t && (c - t) % STRIDE == 0 && (c - t) / STRIDE < P {
                    let i = (c - t) / STRIDE;
                    sums[i] = simd.mul_add(x, w[t], sums[i]);
                }
            });
        }
    });
    sums
}

/// Tiles of `P` pixels, for any window.
#[inline(always)]
pub(crate) fn strip_of_any<S: Simd, const P: usize>(simd: S, strip: &Strip<'_>, out: &mut [Block]) {
    let ConvGeometry { in_height, in_width, out_width, kernel, stride, dilation, pad_top, pad_left, .. } =
        strip.geometry;
    for row in 0..strip.rows {
        for tile in 0..strip.tiles {
            let x = strip.x + tile * P;
            let mut sums = [simd.splat(0.0); P];
            for tap_row in 0..kernel[0] {
                // wraps to beyond the image where the tap is above it
                let y = ((strip.y + row) * stride[0] + tap_row * dilation[0]).wrapping_sub(pad_top);
                if y >= in_height {
                    continue;
                }
                let input = &strip.input[y * in_width..][..in_width];
                let weights = &strip.weights[tap_row * kernel[1]..][..kernel[1]];
                for (tap, w) in weights.iter().enumerate() {
                    let w = simd.load(w);
                    let first = (x * stride[1] + tap * dilation[1]).wrapping_sub(pad_left);
                    unroll!(i < P <= 16, {
                        let x = input.get(first.wrapping_add(i * stride[1]));
                        sums[i] = simd.mul_add(simd.load(x.unwrap_or(&[0.0; LANES])), w, sums[i]);
                    });
                }
            }
            store(simd, strip, sums, row * out_width + x, out);
        }
    }
}
