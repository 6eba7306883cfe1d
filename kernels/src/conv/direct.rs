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
use crate::epilogue::{Finish, Tail, TailFn};
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
    apply_tail: TailFn,
    /// Row and first pixel in the output.
    y: usize,
    x: usize,
    tiles: usize,
    /// Where the first pixel is in each output slice.
    at: usize,
}

/// Computes tiles of a fixed number of pixels and output blocks. `out` has one slice per block; `window` has as
/// many entries as a tile has pixels, for the pixels under a tap where they do not lie side by side.
pub(crate) type RowFn = fn(row: &Row<'_>, window: &mut [Block], out: &mut [&mut [Block]]);

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles<'a> {
    /// `rows[n - 1][m - 1]` computes tiles of `m` pixels times `n` output blocks. Empty where `n` is not used.
    pub(crate) rows: [&'a [RowFn]; 3],
    /// The usual number of output blocks; an odd one out joins a last group of one more, if there are such tiles.
    pub(crate) blocks: usize,
    pub(crate) tail: TailFn,
    pub(crate) finish: Finish,
}

impl Tiles<'_> {
    /// How many of the remaining output blocks are computed together.
    fn group(&self, remaining: usize) -> usize {
        let more = self.blocks + 1;
        let has_more = self.rows.get(self.blocks).is_some_and(
            #[inline(always)]
            |rows| !rows.is_empty(),
        );
        if remaining == more && has_more { more } else { remaining.min(self.blocks) }
    }
}

/// No tile has more pixels.
const WIDEST: usize = 16;

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
    let mut window = [[0.0; LANES]; WIDEST];
    let mut start = pixels.start;
    while start < pixels.end {
        let end = pixels.end.min(start.saturating_add(batch));
        let mut block = 0;
        while block < blocks {
            let group = block..block + tiles.group(blocks - block);
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
                    apply_tail: tiles.tail,
                    y,
                    x,
                    tiles: 0,
                    at,
                };
                for (m, count) in split(len, rows.len()) {
                    if count > 0 {
                        row.tiles = count;
                        rows[m - 1](&row, &mut window[..m], &mut out[group.clone()]);
                        row.x += count * m;
                        row.at += count * m;
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
    let unit = if geometry.out_height == 1 { tiles.rows[tiles.blocks - 1].len() } else { geometry.out_width };
    let units = pixels.div_ceil(unit);
    let bytes = size_of_val(args.input);
    let unit_bytes = bytes * unit / geometry.out_pixels();
    let batches = units.div_ceil((BATCH_BYTES / unit_bytes.max(1)).max(1));
    let weights_bytes = blocks * args.weights_per_block() * size_of::<Block>();
    let groups = blocks.div_ceil(tiles.blocks);
    if weights_bytes > BATCH_BYTES && weights_bytes.saturating_mul(batches) > bytes.saturating_mul(groups) {
        return pixels; // the weights would be read more often than the input is now
    }
    units.div_ceil(batches.max(1)) * unit
}

/// Splits `pixels` into tiles of at most `widest`, as even as can be: two sizes one apart, each with its count.
pub(crate) fn split(pixels: usize, widest: usize) -> [(usize, usize); 2] {
    let tiles = pixels.div_ceil(widest);
    let m = pixels.div_ceil(tiles);
    let wide = pixels - tiles * (m - 1);
    [(m, wide), (m - 1, tiles - wide)]
}

/// Tiles of `M` pixels times `N` output blocks.
// Loops over array indices: `map`, `from_fn` and `zip` are not inlined reliably across codegen units.
#[inline(always)]
pub(crate) fn row<S: Simd, const M: usize, const N: usize>(
    simd: S,
    row: &Row<'_>,
    window: &mut [Block],
    out: &mut [&mut [Block]],
) {
    let ConvGeometry { in_width, in_height, kernel, stride, dilation, pad_top, pad_left, .. } = row.geometry;
    let (plane, in_plane) = (row.geometry.out_pixels(), in_width * in_height);
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &row.weights[j * row.weights_stride..][..row.weights_stride] });
    for tile in 0..row.tiles {
        let x = row.x + tile * M;
        let mut sums = [[simd.splat(0.0); N]; M];
        let mut k = 0;
        for icb in 0..row.lanes.len() {
            let lanes = usize::from(row.lanes[icb]);
            let input = &row.input[icb * in_plane..][..in_plane];
            for tap_y in 0..kernel[0] {
                let y = (row.y * stride[0] + tap_y * dilation[0]).wrapping_sub(pad_top);
                if y >= in_height {
                    k += kernel[1] * lanes;
                    continue;
                }
                let input = &input[y * in_width..][..in_width];
                for tap_x in 0..kernel[1] {
                    // wraps to beyond the row where the tile starts left of it
                    let first = (x * stride[1] + tap_x * dilation[1]).wrapping_sub(pad_left);
                    let inside = first < in_width && (M - 1) * stride[1] < in_width - first;
                    if inside && stride[1] == 2 {
                        sums = accumulate::<S, M, N, 2>(simd, sums, &input[first..], &weights, k, lanes);
                    } else {
                        let x = if inside && stride[1] == 1 {
                            &input[first..]
                        } else {
                            let mut x = first;
                            for pixel in window.iter_mut() {
                                let from = if x < in_width { &input[x] } else { &[0.0; LANES] };
                                simd.store(pixel, simd.load(from));
                                x = x.wrapping_add(stride[1]);
                            }
                            &*window
                        };
                        sums = accumulate::<S, M, N, 1>(simd, sums, x, &weights, k, lanes);
                    }
                    k += lanes;
                }
            }
        }
        let at = row.at + tile * M;
        unroll!(j < N <= 4, {
            let out = &mut out[j][at..][..M];
            unroll!(i < M <= 16, { simd.store(&mut out[i], sums[i][j]) });
        });
        let pixel = row.y * row.geometry.out_width + x;
        (row.apply_tail)(&row.tail, (plane, pixel), (at, M), out);
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
    let mut tap: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { tap[j] = &weights[j][k..][..lanes] });
    for lane in 0..LANES {
        // leaves by `break`: `lane` is then seen to be inside
        if lane >= lanes {
            break;
        }
        let mut w = [simd.splat(0.0); N];
        unroll!(j < N <= 4, { w[j] = simd.load(&tap[j][lane]) });
        unroll!(i < M <= 16, {
            let x = simd.splat(x[i * STEP][lane]);
            unroll!(j < N <= 4, { sums[i][j] = simd.mul_add(x, w[j], sums[i][j]) });
        });
    }
    sums
}
