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

pub(crate) mod dense;
mod places;
mod tile;

use core::ops::Range;

use self::dense::DenseFn;
pub(crate) use self::places::Places;
use self::places::{OUTSIDE, Run};
pub(crate) use self::tile::{Row, RowFn, accumulate, pointwise_row, row};
use crate::conv::tiling::{MAX_TAPS, Rows, WIDEST};
use crate::conv::{ConvArgs, ConvGeometry, live};
use crate::epilogue::{Epilogue, Finish};
use crate::{Block, LANES};

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles<'a> {
    /// `rows[n - 1]` computes tiles of `n` output blocks; all have tiles of the same numbers of pixels.
    pub(crate) rows: &'a [Rows<'a, RowFn>],
    /// The same, for outputs that are of the input at their own place only.
    pub(crate) pointwise: &'a [Rows<'a, RowFn>],
    /// For a window that is the whole input: how many blocks are computed at once. With less, or without, tiles of one pixel do.
    pub(crate) dense: Option<(usize, DenseFn)>,
    pub(crate) finish: Finish,
}

/// A part of the reduction: input blocks, and their weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'a> {
    /// Live lanes of the input blocks.
    pub(crate) lanes: &'a [u8],
    /// From the first input block on.
    pub(crate) input: &'a [Block],
    pub(crate) in_plane: usize,
    /// Taps of a window.
    pub(crate) taps: usize,
    /// Those of the first output block, which begin with those of the chunk; the next block's are `weights_stride` further.
    pub(crate) weights: &'a [Block],
    pub(crate) weights_stride: usize,
    /// Whether it is the first one, and the last one.
    pub(crate) first: bool,
    pub(crate) last: bool,
    /// What its sums get besides those of the chunks before.
    pub(crate) addends: [Option<Addend<'a>>; 2],
}

/// Sums that were computed before: planes of `plane` pixels, one for each output block, for the pixels from `at` on of the
/// output slices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addend<'a> {
    pub(crate) sums: &'a [Block],
    pub(crate) plane: usize,
    pub(crate) at: usize,
}

/// Whether the algorithm takes a kernel of this size.
pub fn supports(geometry: &ConvGeometry) -> bool {
    geometry.taps() <= MAX_TAPS && geometry.in_pixels() < OUTSIDE as usize
}

/// Weights and blocks of input of a chunk: the weights stay in the first-level cache while the tiles of a batch pass over
/// them, and so does the input of one tile, each block of which is in lines of its own.
const CHUNK_BYTES: usize = 18 << 10;
pub(super) const CHUNK_BLOCKS: usize = 9;

/// Bytes of input of a chunk, which stay in the second-level cache while groups of output blocks pass over them.
pub(super) const BATCH_BYTES: usize = 128 << 10;

/// Computes `pixels` of all output blocks in `out`.
///
/// Loops, from the outside: batches of pixels, chunks of the reduction, groups of output blocks, tiles. So the input
/// of a chunk is read from the second-level cache by every group, its weights by every tile from the first, and weights
/// that do not fit any cache are read once a batch.
pub(crate) fn run(tiles: &Tiles<'_>, args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    let blocks = args.check(&pixels, out);
    let geometry = &args.geometry;
    let dense = tiles.dense.filter(|(size, _)| *size <= blocks && dense::is_dense(geometry));
    if let Some(dense) = dense.filter(|_| !pixels.is_empty()) {
        dense::run(dense, args, blocks, out);
        return args.epilogue.finish(tiles.finish, 0..blocks, (1, 0), (0, 1), out);
    }
    assert!(supports(geometry), "too many taps, or too large a plane");
    let rows = if is_pointwise(geometry) { tiles.pointwise } else { tiles.rows };
    let (taps, in_blocks, in_plane) = (geometry.taps(), args.lanes.len(), geometry.in_pixels());
    let chunk_bytes = rows.len() * taps * size_of::<[Block; LANES]>();
    let chunks = in_blocks.div_ceil((CHUNK_BYTES / chunk_bytes).clamp(1, CHUNK_BLOCKS));
    let batch = batch_pixels(geometry, in_blocks.div_ceil(chunks));
    let weights_from = |block: usize| &args.weights[taps * live(&args.lanes[..block])..];
    let mut places = Places::new();
    let mut start = pixels.start;
    while start < pixels.end && blocks > 0 {
        let end = places.find(geometry, rows[0], start..pixels.end.min(start + batch));
        // One tile takes all weights once, at the pace of memory.
        let single = places.tiles() == 1;
        let chunks = if single { 1 } else { chunks };
        let at = start - pixels.start;
        for index in 0..chunks {
            let part = in_blocks * index / chunks..in_blocks * (index + 1) / chunks;
            let chunk = Chunk {
                lanes: &args.lanes[part.clone()],
                input: &args.input[part.start * in_plane..],
                in_plane,
                taps,
                weights: weights_from(part.start),
                weights_stride: args.weights_per_block(),
                first: index == 0,
                last: index + 1 == chunks,
                addends: [None; 2],
            };
            let next = (!single).then(|| weights_from(part.end));
            let place = (geometry.out_pixels(), start, at);
            run_groups(rows, &places, &chunk, next, &args.epilogue, place, &mut out[..blocks]);
        }
        let part = (at, end - start);
        args.epilogue.finish(tiles.finish, 0..blocks, (geometry.out_pixels(), start), part, out);
        start = end;
    }
}

/// Whether each output is of the input at its own place.
pub(super) fn is_pointwise(geometry: &ConvGeometry) -> bool {
    let &ConvGeometry { in_height, in_width, out_height, out_width, pad_top, pad_left, .. } = geometry;
    let same_size = (in_height, in_width) == (out_height, out_width);
    same_size && geometry.taps() == 1 && geometry.stride == [1, 1] && (pad_top, pad_left) == (0, 0)
}

/// Pixels that pass over a chunk of `chunk_blocks` blocks of the input before the next chunk.
fn batch_pixels(geometry: &ConvGeometry, chunk_blocks: usize) -> usize {
    // Of a strided input only what taps reach.
    let (in_pixels, out_pixels) = (geometry.in_pixels(), geometry.out_pixels());
    let read = in_pixels.min(out_pixels * geometry.taps()) * chunk_blocks * size_of::<Block>();
    let batches = read.div_ceil(BATCH_BYTES);
    out_pixels.div_ceil(batches.max(1)).next_multiple_of(WIDEST)
}

/// Computes one chunk of the reduction for all output blocks, which have one slice each; `next` are the weights of the chunk after
/// it, where they are to be asked for.
pub(super) fn run_groups(
    rows: &[Rows<'_, RowFn>],
    places: &Places,
    chunk: &Chunk<'_>,
    next: Option<&[Block]>,
    epilogue: &Epilogue<'_>,
    (plane, pixel, at): (usize, usize, usize),
    out: &mut [&mut [Block]],
) {
    let blocks = out.len();
    let mut block = 0;
    while block < blocks {
        let group = rows.len().min(blocks - block);
        let weights = &chunk.weights[block * chunk.weights_stride..];
        let addends = chunk.addends.map(|addend| {
            addend.map(|addend| Addend { sums: &addend.sums[block * addend.plane..], ..addend })
        });
        let end = block + group;
        // the same chunk for the next group, or the next chunk for the first one
        let ahead = match next {
            Some(_) if end < blocks => &weights[group * chunk.weights_stride..],
            next => next.unwrap_or(&[]),
        };
        run_group(
            rows[group - 1],
            places,
            &Chunk { weights, addends, ..*chunk },
            ahead,
            &epilogue.starting_at(block, plane),
            (plane, pixel, at),
            &mut out[block..end],
        );
        block = end;
    }
}

/// Computes one chunk of the reduction for one group of output blocks: all of `out`. `plane` is the pixels of an output
/// plane, `pixel` the first one of `places` in it, and `at` that in the slices of `out`.
pub(super) fn run_group(
    rows: Rows<'_, RowFn>,
    places: &Places,
    chunk: &Chunk<'_>,
    ahead: &[Block],
    epilogue: &Epilogue<'_>,
    (plane, pixel, at): (usize, usize, usize),
    out: &mut [&mut [Block]],
) {
    let len = chunk.taps * live(chunk.lanes);
    // taps of a tile, of all its input
    let taps = |run: &Run| run.taps * chunk.lanes.len();
    let asks: usize = places.runs().map(|run| run.tiles * taps(run)).sum();
    let ahead_step = len.div_ceil(asks.max(1));
    let tail = epilogue.tail();
    let mut row = Row {
        chunk: *chunk,
        len,
        taps: 0,
        skipped: 0,
        ahead: &[],
        ahead_step,
        tail,
        plane,
        tiles: 0,
        pixel,
        at,
    };
    let mut asked = 0;
    for run in places.runs() {
        row.ahead = ahead.get(asked * ahead_step..).unwrap_or(&[]);
        asked += run.tiles * taps(run);
        (row.taps, row.skipped, row.tiles) = (run.taps, run.skipped, run.tiles);
        let (m, function) = rows[run.size];
        function(&row, places.of(run), out);
        (row.pixel, row.at) = (row.pixel + m * run.tiles, row.at + m * run.tiles);
    }
}
