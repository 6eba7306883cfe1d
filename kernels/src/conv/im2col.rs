//! Convolution by gathering: the windows of a batch of output pixels become columns of a matrix, in the same blocks of
//! 16 as any map, and the pointwise tiles of direct convolution multiply it with the weights.
//!
//! ```text
//! scratch   [k / 16][pixel of the batch][k % 16]     k: input block, tap row, tap column, live lane
//! ```
//!
//! Only the rows of one chunk of the reduction are there at a time. Weights and the order of a sum are those of
//! [direct](super::direct) convolution; every tap outside the image counts as a product with zero. Serves every shape.

use core::ops::Range;

use super::direct::{BATCH_BYTES, CHUNK_BLOCKS, Chunk, Places, Tiles, run_groups};
use super::{ConvArgs, ConvGeometry};
use crate::{Block, LANES};

/// Computes the output pixels of the range, for all output blocks in `out`; `scratch` holds [`least_scratch`] or more.
pub type Im2colFn =
    fn(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]], scratch: &mut [Block]);

/// The fewest blocks of scratch: one gathered pixel.
pub fn least_scratch(geometry: &ConvGeometry, channels: usize) -> usize {
    chunks(geometry.taps() * channels).1
}

/// Blocks of scratch with which the gathered pixels stay in the second-level cache.
pub fn scratch_blocks(geometry: &ConvGeometry, channels: usize) -> usize {
    let one = least_scratch(geometry, channels);
    let pixels = (BATCH_BYTES / size_of::<Block>() / one).min(geometry.out_pixels());
    one * pixels.max(1)
}

/// Chunks of a reduction over `k` numbers, and the blocks of the largest.
fn chunks(k: usize) -> (usize, usize) {
    let columns = k.div_ceil(LANES).max(1);
    let chunks = columns.div_ceil(CHUNK_BLOCKS);
    (chunks, columns.div_ceil(chunks))
}

/// What [`Im2colFn`] computes.
///
/// # Panics
/// Where an operand does not fit the geometry, or the scratch is too small.
pub(crate) fn run(
    tiles: &Tiles<'_>,
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let blocks = args.check(&pixels, out);
    let k = args.weights_per_block();
    let (chunks, chunk_blocks) = chunks(k);
    let batch = scratch.len() / chunk_blocks;
    assert!(batch > 0, "the scratch holds one gathered pixel");
    let (plane, rows) = (args.geometry.out_pixels(), tiles.pointwise);
    let mut places = Places::new();
    let mut start = pixels.start;
    while start < pixels.end && blocks > 0 {
        let width = batch.min(pixels.end - start);
        let strip = ConvGeometry { in_width: width, out_width: width, ..ConvGeometry::ONE_PIXEL };
        let count = places.find(&strip, rows[0], 0..width);
        let at = start - pixels.start;
        for index in 0..chunks {
            let columns = k.div_ceil(LANES) * index / chunks..k.div_ceil(LANES) * (index + 1) / chunks;
            let part = columns.start * LANES..k.min(columns.end * LANES);
            gather(args, start..start + count, part.clone(), scratch);
            let mut lanes = [LANES as u8; CHUNK_BLOCKS];
            if let Some(last) = columns.len().checked_sub(1) {
                lanes[last] = (part.len() - last * LANES) as u8;
            }
            let chunk = Chunk {
                lanes: &lanes[..columns.len()],
                input: scratch,
                in_plane: count,
                taps: 1,
                weights: &args.weights[part.start..],
                weights_stride: k,
                first: index == 0,
                last: index + 1 == chunks,
                addends: [None; 2],
            };
            run_groups(
                rows,
                &places,
                &chunk,
                args.weights.get(part.end..),
                &args.epilogue,
                (plane, start, at),
                &mut out[..blocks],
            );
        }
        args.epilogue.finish(tiles.finish, 0..blocks, (plane, start), (at, count), out);
        start += count;
    }
}

/// Writes numbers `part` of the windows of `pixels`: block after block, in each of which pixel after pixel.
pub(super) fn gather(args: &ConvArgs<'_>, pixels: Range<usize>, part: Range<usize>, columns: &mut [Block]) {
    let g = &args.geometry;
    let count = pixels.len();
    let mut k = 0;
    for (plane, live) in
        args.input.chunks_exact(g.in_pixels()).zip(args.lanes.iter().copied().map(usize::from))
    {
        if k + g.taps() * live <= part.start || k >= part.end {
            k += g.taps() * live;
            continue;
        }
        for (tap_y, tap_x) in (0..g.kernel[0]).flat_map(|y| (0..g.kernel[1]).map(move |x| (y, x))) {
            let from = part.start.saturating_sub(k).min(live);
            let to = part.end.saturating_sub(k).min(live);
            // a tap's lanes lie in one block of the columns, or in two
            let mut lane = from;
            while lane < to {
                let number = k + lane - part.start;
                let lanes = lane..to.min(lane + LANES - number % LANES);
                let column = &mut columns[number / LANES * count..][..count];
                gather_tap(g, plane, [tap_y, tap_x], pixels.start, (lanes.clone(), number % LANES), column);
                lane = lanes.end;
            }
            k += live;
        }
    }
}

/// Writes lanes of what one tap meets, into those of `column` from lane `to` on.
fn gather_tap(
    g: &ConvGeometry,
    plane: &[Block],
    [tap_y, tap_x]: [usize; 2],
    first: usize,
    (lanes, to): (Range<usize>, usize),
    column: &mut [Block],
) {
    let (mut y, mut x) = (first / g.out_width, first % g.out_width);
    let mut column = column;
    while !column.is_empty() {
        let row;
        let len = column.len().min(g.out_width - x);
        (row, column) = column.split_at_mut(len);
        let in_y = (y * g.stride[0] + tap_y * g.dilation[0]).wrapping_sub(g.pad_top);
        let in_row = if in_y < g.in_height { &plane[in_y * g.in_width..][..g.in_width] } else { &[] };
        let mut in_x = (x * g.stride[1] + tap_x * g.dilation[1]).wrapping_sub(g.pad_left);
        for block in row {
            let pixel = in_row.get(in_x).unwrap_or(&[0.0; LANES]);
            if lanes.len() == LANES {
                *block = *pixel;
            } else {
                block[to..to + lanes.len()].copy_from_slice(&pixel[lanes.clone()]);
            }
            in_x = in_x.wrapping_add(g.stride[1]);
        }
        (y, x) = (y + 1, 0);
    }
}
