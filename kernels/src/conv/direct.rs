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

use crate::conv::tiling::{MAX_TAPS, Rows, Taps, WIDEST, cut_row, cut_rows};
use crate::conv::{ConvArgs, ConvGeometry};
use crate::epilogue::{Finish, Tail};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// What a [`RowFn`] computes: tiles side by side in one output row.
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
    /// The first pixel in the output planes, and in each output slice.
    pixel: usize,
    at: usize,
}

/// Computes tiles of a fixed number of pixels and output blocks. `taps` are those of the first tile; `out` has one slice per block; `window` has room
/// for the pixels under a tile where they do not lie side by side.
pub(crate) type RowFn = fn(row: &Row<'_>, taps: &Taps, window: &mut [Block], out: &mut [&mut [Block]]);

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles<'a> {
    /// `rows[n - 1]` computes tiles of `n` output blocks.
    pub(crate) rows: &'a [Rows<'a, RowFn>],
    pub(crate) finish: Finish,
}

/// Whether the algorithm takes a kernel of this size.
pub fn supports(geometry: &ConvGeometry) -> bool {
    geometry.taps() <= MAX_TAPS
}

/// Bytes of input that stay in the second-level cache while groups of output blocks pass over them: half of the
/// smallest such cache that is common. Where the weights fit as well, batches of pixels keep both from being
/// read again and again from the third level.
const BATCH_BYTES: usize = 256 << 10;

/// Computes `pixels` of all output blocks in `out`.
pub(crate) fn run(tiles: &Tiles<'_>, args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    let blocks = args.check(&pixels, out);
    let geometry = &args.geometry;
    assert!(supports(geometry), "too many taps");
    let (width, plane) = (geometry.out_width, geometry.out_pixels());
    let weights_stride = args.weights_per_block();
    let batch = batch_pixels(tiles, args, pixels.len(), blocks);
    let mut taps = Taps::new();
    let mut window = [[0.0; LANES]; WIDEST];
    let mut start = pixels.start;
    while start < pixels.end {
        let end = pixels.end.min(start.saturating_add(batch));
        let mut block = 0;
        while block < blocks {
            let group = block..blocks.min(block + tiles.rows.len());
            let epilogue = args.epilogue.starting_at(block, plane);
            let mut row = Row {
                geometry: *geometry,
                lanes: args.lanes,
                input: args.input,
                weights: &args.weights[block * weights_stride..],
                weights_stride,
                tail: epilogue.tail(),
                m: 0,
                tiles: 0,
                pixel: 0,
                at: 0,
            };
            cut_rows(width, start..end, |y, columns| {
                let first = y * width + columns.start;
                let part = (first - pixels.start, columns.len());
                cut_row(tiles.rows[group.len() - 1], geometry, y, columns, |run, function| {
                    taps.find(geometry, &run, [geometry.in_width, 1]);
                    (row.m, row.tiles) = (run.m, run.tiles);
                    row.pixel = y * width + run.x;
                    row.at = row.pixel - pixels.start;
                    function(&row, &taps, &mut window, &mut out[group.clone()]);
                });
                args.epilogue.finish(tiles.finish, group.clone(), (plane, first), part, out);
            });
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
    taps: &Taps,
    window: &mut [Block],
    out: &mut [&mut [Block]],
) {
    let geometry = &row.geometry;
    let (plane, in_plane, all_taps) = (geometry.out_pixels(), geometry.in_pixels(), geometry.taps());
    let (in_width, stride) = (geometry.in_width, geometry.stride[1]);
    let window = &mut window[..row.m];
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &row.weights[j * row.weights_stride..][..row.weights_stride] });
    for tile in 0..row.tiles {
        let shift = tile * M * stride;
        let mut sums = [[simd.splat(0.0); N]; M];
        let (mut plane_start, mut k_start) = (shift, 0);
        for lanes in row.lanes {
            let lanes = usize::from(*lanes);
            let mut k = k_start + taps.skipped * lanes;
            for tap in taps.inside() {
                let start = plane_start.wrapping_add(tap.start);
                if !S::PLAIN && tap.inside && stride == 2 {
                    sums = accumulate::<S, M, N, 2>(simd, sums, &row.input[start..], &weights, k, lanes);
                } else {
                    let x = if tap.inside && stride == 1 {
                        &row.input[start..]
                    } else {
                        let line = &row.input[plane_start - shift + tap.line..][..in_width];
                        let mut column = tap.column.wrapping_add(shift);
                        for pixel in &mut *window {
                            *pixel = if column < in_width { line[column] } else { [0.0; LANES] };
                            column = column.wrapping_add(stride);
                        }
                        &*window
                    };
                    sums = accumulate::<S, M, N, 1>(simd, sums, x, &weights, k, lanes);
                }
                k += lanes;
            }
            plane_start += in_plane;
            k_start += all_taps * lanes;
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
