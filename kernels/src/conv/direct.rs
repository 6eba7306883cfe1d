//! Direct convolution: any kernel, stride, dilation and padding, straight from the blocked input.
//!
//! A tile is M pixels of the output, one after another in a plane, times N output blocks, with its sums in registers.
//! Order of a sum: input block, tap row, tap column, live lane; weights are stored in that order,
//!
//! ```text
//! [output block][input block][tap row][tap column][live lanes of the input block][16]
//! ```
//!
//! so that a tile reads one contiguous stream of weights per output block. Tap rows outside the image are left
//! out of the sum; a tap column outside counts as a product with zero. Either is a property of the output pixel,
//! so the bits do not depend on how the pixels are split into tiles.
//!
//! The reduction is cut into chunks of input blocks, so that the weights of a chunk stay in the first-level cache while
//! all tiles of a batch of pixels pass over them; between chunks the sums lie in the output. The chain of a sum is the
//! same as without a cut.

use core::ops::Range;

use crate::conv::tiling::{MAX_TAPS, Rows, WIDEST, choose};
use crate::conv::{ConvArgs, ConvGeometry, live};
use crate::epilogue::{Finish, Tail};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// What a [`RowFn`] computes: one chunk of the reduction, for tiles one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// Live lanes of the input blocks of the chunk.
    lanes: &'a [u8],
    /// From the first input block of the chunk on.
    input: &'a [Block],
    in_plane: usize,
    /// Those of the chunk, from the first output block of the tiles on.
    weights: &'a [Block],
    /// Weights of one output block, and of those of them that are in the chunk.
    weights_stride: usize,
    chunk: usize,
    /// Taps in the image, those in rows above it, and all.
    taps: usize,
    skipped: usize,
    all_taps: usize,
    /// Whether the chunk is the first one, and the last one.
    first: bool,
    last: bool,
    /// The weights that are needed next, from the first of the tiles' blocks on: each tile asks for `ahead_step` of a block,
    /// so that they do not come from memory when they are needed.
    ahead: &'a [Block],
    ahead_step: usize,
    tail: Tail<'a>,
    /// Pixels of an output plane.
    plane: usize,
    tiles: usize,
    /// The first pixel in the output planes, and in each output slice.
    pixel: usize,
    at: usize,
}

/// Computes tiles of a fixed number of pixels and output blocks; `out` has one slice per block.
///
/// `places` is where the taps find their input in a plane: for each tile and tap the distance of its pixels there
/// ([`UNEVEN`] where there is no such), and the place of each pixel ([`OUTSIDE`] where it is left or right of the image).
pub(crate) type RowFn = fn(row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]);

const OUTSIDE: u32 = u32::MAX;
const UNEVEN: u32 = 0;

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles<'a> {
    /// `rows[n - 1]` computes tiles of `n` output blocks.
    pub(crate) rows: &'a [Rows<'a, RowFn>],
    pub(crate) finish: Finish,
}

/// Whether the algorithm takes a kernel of this size.
pub fn supports(geometry: &ConvGeometry) -> bool {
    geometry.taps() <= MAX_TAPS && geometry.in_pixels() < OUTSIDE as usize
}

/// Weights and blocks of input of a chunk: the weights stay in the first-level cache while the tiles of a batch pass over
/// them, and so does the input of one tile, each block of which is in lines of its own.
const CHUNK_BYTES: usize = 18 << 10;
const CHUNK_BLOCKS: usize = 9;

/// Bytes of input of a chunk, which stay in the second-level cache while groups of output blocks pass over them.
const BATCH_BYTES: usize = 128 << 10;

/// Computes `pixels` of all output blocks in `out`.
///
/// Loops, from the outside: batches of pixels, chunks of the reduction, groups of output blocks, tiles. So the input
/// of a chunk is read from the second-level cache by every group, its weights by every tile from the first, and weights
/// that do not fit any cache are read once a batch.
pub(crate) fn run(tiles: &Tiles<'_>, args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    let blocks = args.check(&pixels, out);
    let geometry = &args.geometry;
    assert!(supports(geometry), "too many taps, or too large a plane");
    let (plane, in_blocks, most) = (geometry.out_pixels(), args.lanes.len(), tiles.rows.len());
    let chunk_bytes = most * geometry.taps() * size_of::<[Block; LANES]>();
    let chunks = in_blocks.div_ceil((CHUNK_BYTES / chunk_bytes).clamp(1, CHUNK_BLOCKS));
    let batch = batch_pixels(geometry, in_blocks.div_ceil(chunks));
    let weights_stride = args.weights_per_block();
    let weights_before = |block: usize| geometry.taps() * live(&args.lanes[..block]);
    let mut places = Places::new();
    // Groups of as many output blocks as there are tiles for, then the rest.
    let whole = blocks / most * most;
    for blocks in [0..whole, whole..blocks] {
        let group = most.min(blocks.len());
        let mut start = pixels.start;
        while start < pixels.end && group > 0 {
            let end = pixels.end.min(start + batch);
            let end = places.find(geometry, tiles.rows[group - 1], start..end);
            // One tile takes all weights once, at the pace of memory.
            let single = places.tiles() == 1;
            let chunks = if single { 1 } else { chunks };
            let at = start - pixels.start;
            for chunk in 0..chunks {
                let chunk_blocks = in_blocks * chunk / chunks..in_blocks * (chunk + 1) / chunks;
                for block in blocks.clone().step_by(group) {
                    // the same chunk for the next group, or the next chunk for the first one
                    let (next_block, next_chunk) = match block + group {
                        next if next < blocks.end => (next, chunk_blocks.start),
                        _ => (blocks.start, chunk_blocks.end),
                    };
                    let next = next_block * weights_stride + weights_before(next_chunk);
                    let ahead = args.weights.get(next..).filter(|_| !single).unwrap_or(&[]);
                    run_group(&places, args, chunk_blocks.clone(), block..block + group, (at, ahead), out);
                }
            }
            let part = (at, end - start);
            args.epilogue.finish(tiles.finish, blocks.clone(), (plane, start), part, out);
            start = end;
        }
    }
}

/// Pixels that pass over a chunk of `chunk_blocks` blocks of the input before the next chunk.
fn batch_pixels(geometry: &ConvGeometry, chunk_blocks: usize) -> usize {
    // Of a strided input only what taps reach.
    let (in_pixels, out_pixels) = (geometry.in_pixels(), geometry.out_pixels());
    let read = in_pixels.min(out_pixels * geometry.taps()) * chunk_blocks * size_of::<Block>();
    let batches = read.div_ceil(BATCH_BYTES);
    out_pixels.div_ceil(batches.max(1)).next_multiple_of(WIDEST)
}

/// Computes one chunk of the reduction, for the pixels of `places` and one group of output blocks.
pub(crate) fn run_group(
    places: &Places,
    args: &ConvArgs<'_>,
    chunk: Range<usize>,
    group: Range<usize>,
    (at, ahead): (usize, &[Block]),
    out: &mut [&mut [Block]],
) {
    let geometry = &args.geometry;
    let (plane, in_plane, all_taps) = (geometry.out_pixels(), geometry.in_pixels(), geometry.taps());
    let weights_stride = args.weights_per_block();
    let before = all_taps * live(&args.lanes[..chunk.start]);
    let lanes = &args.lanes[chunk.clone()];
    let chunk_weights = all_taps * live(lanes);
    let ahead_step = chunk_weights.div_ceil(places.tiles());
    let mut row = Row {
        lanes,
        input: &args.input[chunk.start * in_plane..],
        in_plane,
        weights: &args.weights[group.start * weights_stride + before..],
        weights_stride,
        chunk: chunk_weights,
        taps: 0,
        skipped: 0,
        all_taps,
        first: chunk.start == 0,
        last: chunk.end == args.lanes.len(),
        ahead: &[],
        ahead_step,
        tail: args.epilogue.starting_at(group.start, plane).tail(),
        plane,
        tiles: 0,
        pixel: places.start,
        at,
    };
    let mut tiles = 0;
    for run in places.runs() {
        row.ahead = ahead.get(tiles * ahead_step..).unwrap_or(&[]);
        tiles += run.tiles;
        (row.taps, row.skipped, row.tiles) = (run.taps, run.skipped, run.tiles);
        (run.function)(&row, &places.places[run.places..], &mut out[group.clone()]);
        let pixels = run.m * run.tiles;
        (row.pixel, row.at) = (row.pixel + pixels, row.at + pixels);
    }
}

/// A batch of pixels cut into tiles, and where the taps of each find their input: found once for all output blocks and
/// the whole reduction, so that from one tap to the next there are only a few loads on the way to the next input.
#[derive(Debug)]
pub(crate) struct Places {
    /// The first pixel.
    start: usize,
    runs: [Option<Run>; RUNS],
    count: usize,
    places: [u32; PLACES],
}

/// A batch has at most so many runs and places: 9 KB of stack. One tile with the most taps fits.
const RUNS: usize = 8;
const PLACES: usize = 2304;
const _: () = assert!(PLACES >= MAX_TAPS * (WIDEST + 1));

/// Equal tiles one after another, all of whose pixels have the same tap rows inside the image.
#[derive(Clone, Copy, Debug)]
struct Run {
    function: RowFn,
    m: usize,
    tiles: usize,
    /// The first of its places.
    places: usize,
    /// Taps in the image, and those in rows above it.
    taps: usize,
    skipped: usize,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self { start: 0, runs: [None; RUNS], count: 0, places: [0; PLACES] }
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs[..self.count].iter().flatten()
    }

    fn tiles(&self) -> usize {
        self.runs().map(|run| run.tiles).sum()
    }

    /// Cuts as many of the pixels as there is room for; gives the first one that is left.
    pub(crate) fn find(
        &mut self,
        geometry: &ConvGeometry,
        rows: Rows<'_, RowFn>,
        pixels: Range<usize>,
    ) -> usize {
        let width = geometry.out_width;
        (self.start, self.count) = (pixels.start, 0);
        let (mut pixel, mut used) = (pixels.start, 0);
        while pixel < pixels.end && self.count < RUNS {
            let y = pixel / width;
            let tap_rows = tap_rows(geometry, y);
            let like = |y: &usize| self::tap_rows(geometry, *y) == tap_rows;
            let band = (y..geometry.out_height).take_while(like).count();
            let band_end = pixels.end.min((y + band) * width);
            let (m, count, function) = choose(rows, band_end - pixel);
            let taps = tap_rows.len() * geometry.kernel[1];
            let room = (PLACES - used).checked_div(taps * (m + 1)).unwrap_or(count);
            let tiles = count.min(room);
            if tiles == 0 {
                break;
            }
            let skipped = tap_rows.start * geometry.kernel[1];
            self.runs[self.count] = Some(Run { function, m, tiles, places: used, taps, skipped });
            self.count += 1;
            for tile in 0..tiles {
                let places = &mut self.places[used..][..taps * (m + 1)];
                find_tile(geometry, &tap_rows, pixel + tile * m, m, places);
                used += places.len();
            }
            pixel += m * tiles;
        }
        pixel
    }
}

/// The tap rows that are inside the image for row `y` of the output.
fn tap_rows(geometry: &ConvGeometry, y: usize) -> Range<usize> {
    let (top, step) = (y * geometry.stride[0], geometry.dilation[0]);
    let end =
        (geometry.in_height + geometry.pad_top).saturating_sub(top).div_ceil(step).min(geometry.kernel[0]);
    geometry.pad_top.saturating_sub(top).div_ceil(step).min(end)..end
}

/// Finds the places of the taps of one tile: `m` pixels from `first` on.
fn find_tile(geometry: &ConvGeometry, tap_rows: &Range<usize>, first: usize, m: usize, places: &mut [u32]) {
    let &ConvGeometry { in_width, out_width, kernel, stride, dilation, pad_top, pad_left, .. } = geometry;
    let mut starts = [(0, 0); WIDEST];
    let (mut y, mut x) = (first / out_width, first % out_width);
    for start in &mut starts[..m] {
        *start = (y * stride[0], x * stride[1]);
        x += 1;
        if x == out_width {
            (y, x) = (y + 1, 0);
        }
    }
    let mut taps = places.chunks_exact_mut(m + 1);
    for tap_y in tap_rows.clone() {
        for (tap_x, places) in (0..kernel[1]).zip(&mut taps) {
            for (place, &(row, column)) in places[1..].iter_mut().zip(&starts[..m]) {
                let row = row + tap_y * dilation[0] - pad_top;
                // wraps to a huge one where it is left of the image
                let column = (column + tap_x * dilation[1]).wrapping_sub(pad_left);
                *place = if column < in_width { (row * in_width + column) as u32 } else { OUTSIDE };
            }
            let step = places.get(2).map_or(1, |next| next.wrapping_sub(places[1]));
            let even = places[1..].windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
            places[0] = if even && places[1] != OUTSIDE && places[m] != OUTSIDE { step } else { UNEVEN };
        }
    }
}

/// No more pixels of a tile have an address each; wider tiles have one address and a distance, since addresses would take the
/// registers that there are on x86. So have small groups, for which finding addresses takes as long as what is done with them.
const ADDRESSES: usize = 8;

/// Stands in for a pixel left or right of the image.
static ZEROS: Block = [0.0; LANES];

/// Tiles of `M` pixels times `N` output blocks. Groups of `G` channels read their own channels of one input block; with
/// `G` 16 all outputs read all inputs.
// Loops over array indices: `map`, `from_fn` and `zip` are not inlined reliably across codegen units.
#[inline(always)]
pub(crate) fn row<S: Simd, const M: usize, const N: usize, const G: usize>(
    simd: S,
    row: &Row<'_>,
    places: &[u32],
    out: &mut [&mut [Block]],
) {
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &row.weights[j * row.weights_stride..][..row.chunk] });
    for tile in 0..row.tiles {
        unroll!(j < N <= 4, {
            let ahead = row.ahead.get(j * row.weights_stride + tile * row.ahead_step..).unwrap_or(&[]);
            for weights in ahead.iter().take(row.ahead_step) {
                simd.prefetch(weights);
            }
        });
        let places = &places[tile * row.taps * (M + 1)..][..row.taps * (M + 1)];
        let at = row.at + tile * M;
        let mut sums = [[simd.splat(0.0); N]; M];
        if !row.first {
            unroll!(j < N <= 4, {
                let out = &out[j][at..][..M];
                unroll!(i < M <= 16, { sums[i][j] = simd.load(&out[i]) });
            });
        }
        let (mut input, mut weights) = (row.input, weights);
        for lanes in row.lanes {
            let lanes = usize::from(*lanes);
            let plane;
            (plane, input) = input.split_at(row.in_plane);
            let mut taps = weights;
            unroll!(j < N <= 4, {
                taps[j] = &weights[j][row.skipped * lanes..];
                weights[j] = &weights[j][row.all_taps * lanes..];
            });
            for places in places.chunks_exact(M + 1) {
                let mut tap = taps;
                unroll!(j < N <= 4, { (tap[j], taps[j]) = taps[j].split_at(lanes) });
                macro_rules! meet {
                    ($pixel:expr) => {
                        sums = accumulate::<S, M, N, G>(
                            simd,
                            sums,
                            tap,
                            #[inline(always)]
                            $pixel,
                        )
                    };
                }
                if (M > ADDRESSES || G < LANES) && !S::PLAIN && places[0] == 1 {
                    let x = &plane[places[1] as usize..][..M];
                    meet!(|i| &x[i]);
                } else if M > ADDRESSES && !S::PLAIN && places[0] == 2 {
                    let x = &plane[places[1] as usize..][..M * 2 - 1];
                    meet!(|i| &x[i * 2]);
                } else if M <= ADDRESSES {
                    let mut x = [&ZEROS; M];
                    unroll!(i < M <= 16, { x[i] = plane.get(places[i + 1] as usize).unwrap_or(&ZEROS) });
                    meet!(|i| x[i]);
                } else {
                    let mut x = [[0.0; LANES]; M];
                    for (pixel, place) in x.iter_mut().zip(&places[1..]) {
                        *pixel = *plane.get(*place as usize).unwrap_or(&ZEROS);
                    }
                    meet!(|i| &x[i]);
                }
            }
        }
        if row.last {
            row.tail.store(simd, sums, (row.plane, row.pixel + tile * M), at, out);
        } else {
            unroll!(j < N <= 4, {
                let out = &mut out[j][at..][..M];
                unroll!(i < M <= 16, { simd.store(&mut out[i], sums[i][j]) });
            });
        }
    }
}

/// One tap of one input block: pixel `i` of the tile is `x(i)`, and its first lanes meet the weights, as many as there are.
#[inline(always)]
fn accumulate<'a, S: Simd, const M: usize, const N: usize, const G: usize>(
    simd: S,
    mut sums: [[S::Vector; N]; M],
    weights: [&[Block]; N],
    x: impl Fn(usize) -> &'a Block,
) -> [[S::Vector; N]; M] {
    let mut tap = weights;
    macro_rules! meet {
        ($lane:ident) => {
            let mut w = [simd.splat(0.0); N];
            unroll!(j < N <= 4, { w[j] = simd.load(&tap[j][$lane]) });
            unroll!(i < M <= 16, {
                let x = simd.spread::<G>(x(i), $lane);
                unroll!(j < N <= 4, { sums[i][j] = simd.mul_add(x, w[j], sums[i][j]) });
            });
        };
    }
    if G < LANES {
        // few lanes, always as many: straight code
        unroll!(j < N <= 4, { tap[j] = &weights[j][..G] });
        unroll!(lane < G <= 16, {
            meet!(lane);
        });
        return sums;
    }
    // seen to be inside the block, and of unknown length: small tiles are not unrolled
    let lanes = weights[0].len().min(LANES);
    unroll!(j < N <= 4, { tap[j] = &weights[j][..lanes] });
    #[allow(clippy::needless_range_loop, reason = "one number for two arrays")]
    for lane in 0..lanes {
        meet!(lane);
    }
    sums
}
