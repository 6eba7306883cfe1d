//! Direct convolution: any kernel, stride, dilation and padding, straight from the blocked input.
//!
//! A tile is M pixels of one output row times N output blocks, its sums in registers over the whole reduction.
//! Order of a sum: input block, tap row, tap column, live lane; weights are stored in that order,
//!
//! ```text
//! [output block][input block][tap row][tap column][live lanes of the input block][16]
//! ```
//!
//! so that a tile reads one contiguous stream of weights per output block. Tap rows outside the image are left
//! out of the sum; a tap column outside counts as a product with zero. Either is a property of the output pixel,
//! so the bits do not depend on how a row is split into tiles.

use core::ops::Range;

use crate::conv::{ConvArgs, ConvGeometry};
use crate::epilogue::{Finish, Tail};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// Tiles side by side in one output row: what a [`RowFn`] computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    geometry: ConvGeometry,
    lanes: &'a [u8],
    input: &'a [Block],
    /// From the first output block of the tiles on.
    weights: &'a [Block],
    /// Weights of one output block.
    weights_stride: usize,
    tail: Tail<'a>,
    /// Pixels of a tile, and the number of tiles.
    m: usize,
    tiles: usize,
    /// Taps in [`Scratch`], and those of an input block before them that are left out.
    taps: usize,
    skipped_taps: usize,
    /// The first pixel in the output planes.
    pixel: usize,
    /// Where the first pixel is in each output slice.
    at: usize,
}

/// Computes tiles of a fixed number of pixels and output blocks. `out` has one slice per block.
pub(crate) type RowFn = fn(row: &Row<'_>, scratch: &mut Scratch, out: &mut [&mut [Block]]);

/// Where a tile finds its input, the same for every input block: found once, so that from one tap to the next
/// there is only an addition or two on the way to the next load. (Computed on the way, some twenty cycles pass
/// in which the multipliers run dry.)
#[derive(Debug)]
pub(crate) struct Scratch {
    taps: [Tap; MAX_TAPS],
    /// The pixels under a tile for one tap, where they do not lie side by side.
    window: [Block; WIDEST],
}

#[derive(Clone, Copy, Debug, Default)]
struct Tap {
    /// The first pixel, counted from the start of a plane. Wraps where that is left of the plane.
    start: usize,
    /// The first pixel of its line.
    line: usize,
    /// Whether all pixels are inside the line, at a distance that has an inner loop of its own.
    inside: bool,
}

impl ConvGeometry {
    /// How many tiles of `m` pixels from `x` on have all their taps between the left and the right edge.
    fn tiles_inside(&self, x: usize, m: usize) -> usize {
        let stride = self.stride[1];
        let right = x * stride + (m - 1) * stride + (self.kernel[1] - 1) * self.dilation[1];
        if x * stride < self.pad_left || right >= self.in_width + self.pad_left {
            return 0;
        }
        (self.in_width + self.pad_left - 1 - right) / (m * stride) + 1
    }
}

impl Scratch {
    /// Finds the taps of `m` pixels from `x` on that lie in lines of the image; gives how many taps before them
    /// do not, and how many do.
    fn find_taps(&mut self, geometry: &ConvGeometry, y: usize, x: usize, m: usize) -> (usize, usize) {
        let &ConvGeometry { in_width, in_height, kernel, stride, dilation, pad_top, pad_left, .. } = geometry;
        let (mut skipped, mut count) = (0, 0);
        for tap_y in 0..kernel[0] {
            // wraps to below the image where it is above
            let y = (y * stride[0] + tap_y * dilation[0]).wrapping_sub(pad_top);
            if y >= in_height {
                if count == 0 {
                    skipped += kernel[1];
                }
                continue;
            }
            let line = y * in_width;
            for tap_x in 0..kernel[1] {
                let first = (x * stride[1] + tap_x * dilation[1]).wrapping_sub(pad_left);
                let inside = first < in_width && (m - 1) * stride[1] < in_width - first;
                let start = line.wrapping_add(first);
                self.taps[count] = Tap { start, line, inside: inside && stride[1] <= 2 };
                count += 1;
            }
        }
        (skipped, count)
    }
}

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles<'a> {
    /// `rows[n - 1]` computes tiles of `n` output blocks. As many blocks as can be are computed together.
    pub(crate) rows: &'a [Rows<'a>],
    pub(crate) finish: Finish,
}

/// Each number of pixels that tiles of some number of blocks exist for, rising from one, and their function.
pub(crate) type Rows<'a> = &'a [(usize, RowFn)];

/// The tiles of one number of blocks: the function, the blocks, and each number of pixels.
macro_rules! tiles {
    ($row:ident, $blocks:literal: $($pixels:literal)*) => { &[$(($pixels, $row::<$pixels, $blocks>)),*] };
}
pub(crate) use tiles;

/// Chooses tiles for the first of `pixels` in a row: their pixels, their number and the function.
///
/// As few as can be and as even as can be. Where there are no tiles of such a size, the next larger ones and a
/// rest, or two halves.
fn choose(rows: Rows<'_>, pixels: usize) -> (usize, usize, RowFn) {
    let widest = rows[rows.len() - 1].0;
    let tiles = pixels.div_ceil(widest);
    let mut m = pixels.div_ceil(tiles);
    let mut count = pixels - tiles * (m - 1);
    let has = |m| rows.iter().any(|row| row.0 == m);
    if !(has(m) && (count == tiles || has(m - 1))) {
        m = rows
            .iter()
            .map(|row| row.0)
            .find(|&size| size >= m && size <= pixels)
            .unwrap_or(pixels.div_ceil(2));
        count = pixels / m;
    }
    let (_, row) = rows[rows.iter().rposition(|row| row.0 <= m).unwrap_or(0)];
    (m, count, row)
}

/// No tile has more pixels.
const WIDEST: usize = 16;

/// No kernel has more taps; larger ones are left to the gather.
const MAX_TAPS: usize = 128;

/// Bytes of input that stay in the second-level cache while groups of output blocks pass over them: half of the
/// smallest such cache that is common. Where the weights fit as well, batches of pixels keep both from being
/// read again and again from the third level.
const BATCH_BYTES: usize = 256 << 10;

/// Computes `pixels` of all output blocks in `out`.
pub(crate) fn run(tiles: &Tiles<'_>, args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    args.check(&pixels, out);
    let (width, plane) = (args.geometry.out_width, args.geometry.out_pixels());
    let blocks = args.epilogue.blocks(out.len());
    let weights_stride = args.weights_per_block();
    let batch = batch_pixels(tiles, args, pixels.len(), blocks);
    let mut scratch = Scratch { taps: [Tap::default(); MAX_TAPS], window: [[0.0; LANES]; WIDEST] };
    let mut start = pixels.start;
    while start < pixels.end {
        let end = pixels.end.min(start.saturating_add(batch));
        let mut block = 0;
        while block < blocks {
            let group = block..blocks.min(block + tiles.rows.len());
            let epilogue = args.epilogue.from_block(block, plane);
            let rows = tiles.rows[group.len() - 1];
            let mut first = start;
            while first < end {
                let (y, x) = (first / width, first % width);
                let len = (end - first).min(width - x);
                let at = first - pixels.start;
                let mut row = Row {
                    geometry: args.geometry,
                    lanes: args.lanes,
                    input: args.input,
                    weights: &args.weights[block * weights_stride..],
                    weights_stride,
                    tail: epilogue.tail(),
                    m: 0,
                    tiles: 0,
                    taps: 0,
                    skipped_taps: 0,
                    pixel: first,
                    at,
                };
                let mut x = x;
                let mut remaining = len;
                while remaining > 0 {
                    let (m, mut count, function) = choose(rows, remaining);
                    remaining -= m * count;
                    while count > 0 {
                        // tiles that read nothing beyond the image's edges share their taps
                        let inside = args.geometry.tiles_inside(x, m).min(count);
                        (row.m, row.tiles) = (m, inside.max(1));
                        (row.skipped_taps, row.taps) = scratch.find_taps(&args.geometry, y, x, m);
                        function(&row, &mut scratch, &mut out[group.clone()]);
                        let pixels = row.tiles * m;
                        x += pixels;
                        row.pixel += pixels;
                        row.at += pixels;
                        count -= row.tiles;
                    }
                }
                args.epilogue.finish(tiles.finish, group.clone(), (plane, first), (at, len), out);
                first += len;
            }
            block = group.end;
        }
        start = end;
    }
}

/// How many pixels all groups of output blocks pass over before the next pixels: whole rows, or part of a map
/// that is one row (which a pointwise convolution is given as).
fn batch_pixels(tiles: &Tiles<'_>, args: &ConvArgs<'_>, pixels: usize, blocks: usize) -> usize {
    let geometry = &args.geometry;
    let unit = if geometry.out_height == 1 {
        tiles.rows[tiles.rows.len() - 1].last().map_or(1, |row| row.0)
    } else {
        geometry.out_width
    };
    let units = pixels.div_ceil(unit);
    let bytes = size_of_val(args.input);
    let unit_bytes = bytes * unit / geometry.out_pixels();
    let batches = units.div_ceil((BATCH_BYTES / unit_bytes.max(1)).max(1));
    let weights_bytes = blocks * args.weights_per_block() * size_of::<Block>();
    let groups = blocks.div_ceil(tiles.rows.len());
    if weights_bytes > BATCH_BYTES && weights_bytes.saturating_mul(batches) > bytes.saturating_mul(groups) {
        return pixels; // the weights would be read more often than the input is now
    }
    units.div_ceil(batches.max(1)) * unit
}

/// Tiles of `M` pixels times `N` output blocks.
// Loops over array indices: `map`, `from_fn` and `zip` are not inlined reliably across codegen units.
#[inline(always)]
pub(crate) fn row<S: Simd, const M: usize, const N: usize>(
    simd: S,
    row: &Row<'_>,
    scratch: &mut Scratch,
    out: &mut [&mut [Block]],
) {
    let geometry = &row.geometry;
    let (plane, in_plane, taps) = (geometry.out_pixels(), geometry.in_pixels(), geometry.taps());
    let stride = geometry.stride[1];
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &row.weights[j * row.weights_stride..][..row.weights_stride] });
    for tile in 0..row.tiles {
        let mut sums = [[simd.splat(0.0); N]; M];
        let shift = tile * M * stride;
        let (mut plane_start, mut k_start) = (shift, 0);
        for lanes in row.lanes {
            let lanes = usize::from(*lanes);
            let mut k = k_start + row.skipped_taps * lanes;
            for tap in &scratch.taps[..row.taps] {
                let start = plane_start.wrapping_add(tap.start);
                if tap.inside && stride == 2 {
                    sums = accumulate::<S, M, N, 2>(simd, sums, &row.input[start..], &weights, k, lanes);
                } else {
                    let x = if tap.inside {
                        &row.input[start..]
                    } else {
                        let line = &row.input[plane_start - shift + tap.line..][..geometry.in_width];
                        let mut x = tap.start.wrapping_sub(tap.line).wrapping_add(shift);
                        for pixel in &mut scratch.window[..row.m] {
                            let from = if x < line.len() { &line[x] } else { &[0.0; LANES] };
                            simd.store(pixel, simd.load(from));
                            x = x.wrapping_add(stride);
                        }
                        &scratch.window[..]
                    };
                    sums = accumulate::<S, M, N, 1>(simd, sums, x, &weights, k, lanes);
                }
                k += lanes;
            }
            plane_start += in_plane;
            k_start += taps * lanes;
        }
        row.tail.store(simd, sums, (plane, row.pixel + tile * M), row.at + tile * M, out);
    }
}

/// One tap of one input block: pixel `i` of the tile is `x[i * STEP]`, and its `lanes` first lanes meet the
/// weights from `k` on.
#[inline(always)]
fn accumulate<S: Simd, const M: usize, const N: usize, const STEP: usize>(
    simd: S,
    mut sums: [[S::Vector; N]; M],
    x: &[Block],
    weights: &[&[Block]; N],
    k: usize,
    lanes: usize,
) -> [[S::Vector; N]; M] {
    let x = &x[..(M - 1) * STEP + 1];
    let lanes = lanes.min(LANES);
    let mut tap: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { tap[j] = &weights[j][k..][..lanes] });
    // seen to be inside the block, and of unknown length: small tiles are not unrolled
    for lane in 0..lanes {
        let mut w = [simd.splat(0.0); N];
        unroll!(j < N <= 4, { w[j] = simd.load(&tap[j][lane]) });
        unroll!(i < M <= 16, {
            let x = simd.splat(x[i * STEP][lane]);
            unroll!(j < N <= 4, { sums[i][j] = simd.mul_add(x, w[j], sums[i][j]) });
        });
    }
    sums
}
