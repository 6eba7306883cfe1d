//! Convolution with groups that are no whole blocks (4 or 8 channels a group, multipliers, any number), without
//! computing zeros.
//!
//! Output lane `l` of a block reads the `cin` input channels of its own group. A row of the input is spread once into
//! `cin` copies, the j-th of which has in lane `l` the j-th channel of lane `l`'s group; after that every tap is one
//! plain multiply-add of whole blocks:
//!
//! ```text
//! scratch   [ring of rows][j][padded row][16]      zeros left and right of the image
//! weights   [output block][tap row][tap column][j][16]
//! ```
//!
//! With a stride `s`, a padded row holds its columns 0, s, 2s, ... first, then 1, s + 1, ...: neighbouring outputs
//! read neighbouring blocks, whatever the stride.
//!
//! Order of a sum: tap row, tap column, j. Tap rows outside the image are left out; a tap column outside counts as a
//! product with zero.

use core::ops::Range;

use super::ConvGeometry;
use super::direct::{self, Chunk, Places, RowFn};
use super::tiling::Rows;
use crate::cover::{Sizes, cover};
use crate::epilogue::{Epilogue, Finish, Tail};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// `out` has one slice per output block, each the pixels of the range: whole rows.
pub type GroupedFn =
    fn(args: &GroupedArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]], scratch: &mut [Block]);

/// One image, a run of output blocks.
#[derive(Clone, Copy, Debug)]
pub struct GroupedArgs<'a> {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// Channels of a group, in the input and in the output.
    pub channels: [usize; 2],
    /// Groups.
    pub groups: usize,
    /// All blocks of the image, channel `c` in lane `c % 16` of block `c / 16`.
    pub input: &'a [Block],
    /// The first output block that is computed: that of `weights` and of the epilogue's operands.
    pub first_block: usize,
    /// From the first output block on.
    pub weights: &'a [Block],
    /// From the first output block on.
    pub epilogue: Epilogue<'a>,
}

/// Columns of a padded row that are a stride apart: the outputs and what the window adds.
fn columns(g: &ConvGeometry) -> usize {
    g.out_width.max(1) + (g.kernel[1] - 1) * g.dilation[1] / g.stride[1]
}

/// Pixels of a row with its zeros.
fn padded_width(g: &ConvGeometry) -> usize {
    g.stride[1] * columns(g)
}

/// Rows that are kept.
fn ring(g: &ConvGeometry) -> usize {
    (g.kernel[0] - 1) * g.dilation[0] + 1
}

/// Scratch that a call needs: `channels` are those of a group of the input.
pub fn scratch_blocks(geometry: &ConvGeometry, channels: usize) -> usize {
    ring(geometry) * channels * padded_width(geometry)
}

/// Computes a fixed number of pixels of one row, from pixel `first` on; `at` is where that is in the slice of `out`.
pub(crate) type TileFn = fn(row: &Row<'_>, first: usize, at: usize, out: &mut [&mut [Block]]);

/// The rows that one output row of one block reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// `[ring slot][j][padded row]`.
    rows: &'a [Block],
    /// `[tap row][tap column][j]`.
    weights: &'a [Block],
    /// First and last but one tap row inside the image.
    taps: (usize, usize),
    /// Input row of tap row 0, which may lie above the image.
    top: isize,
    geometry: ConvGeometry,
    channels: usize,
    width: usize,
    tail: Tail<'a>,
    /// The row's first pixel in the output.
    pixel: usize,
}

/// The entry points of one instruction set: tiles, and the second pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// Tiles of direct convolution for numbers of channels a group, by that number.
    pub(crate) direct: &'a [(usize, Rows<'a, RowFn>)],
    pub(crate) tiles: Sizes<'a, TileFn>,
    pub(crate) spread: SpreadFn,
    pub(crate) finish: Finish,
}

/// `out[i]` has in lane `l` lane `lanes[l]` of `from[i * step]`. Written by hand for each instruction set, which all have
/// instructions for it.
pub(crate) type SpreadFn = fn(from: &[Block], step: usize, lanes: &[u32; LANES], out: &mut [Block]);

/// The input channel that lane `l` of the j-th copy comes from. Dead lanes repeat the last group.
fn sources(args: &GroupedArgs<'_>, block: usize, j: usize) -> [u32; LANES] {
    let [cin, cout] = args.channels;
    let mut sources = [0; LANES];
    for (lane, source) in sources.iter_mut().enumerate() {
        let group = ((block * LANES + lane) / cout).min(args.groups - 1);
        *source = (group * cin + j) as u32;
    }
    sources
}

/// Writes the copies of input row `y` for output block `block`.
fn expand(parts: &Parts<'_>, args: &GroupedArgs<'_>, block: usize, y: usize, copies: &mut [Block]) {
    let g = &args.geometry;
    let step = g.stride[1];
    for (j, copy) in copies.chunks_exact_mut(padded_width(g)).enumerate() {
        let sources = sources(args, block, j);
        let place = |channel: u32| (channel as usize / LANES, channel as usize % LANES);
        let near = sources.iter().all(|&channel| place(channel).0 == block);
        for (phase, copy) in copy.chunks_exact_mut(columns(g)).enumerate() {
            // Column `k` is that of input pixel `k * step + phase - pad_left`.
            let before = g.pad_left.saturating_sub(phase).div_ceil(step).min(copy.len());
            let end =
                (g.pad_left + g.in_width).saturating_sub(phase).div_ceil(step).clamp(before, copy.len());
            copy[..before].fill([0.0; LANES]);
            copy[end..].fill([0.0; LANES]);
            let copy = &mut copy[before..end];
            if copy.is_empty() {
                continue;
            }
            let first = before * step + phase - g.pad_left;
            let row = |block: usize| {
                let row = &args.input[block * g.in_pixels() + y * g.in_width..][..g.in_width];
                &row[first..=first + (end - before - 1) * step]
            };
            if near {
                let lanes = sources.map(|channel| channel % LANES as u32);
                (parts.spread)(row(block), step, &lanes, copy);
                continue;
            }
            for (lane, (from, at)) in sources.iter().map(|&channel| place(channel)).enumerate() {
                for (copy, pixel) in copy.iter_mut().zip(row(from).iter().step_by(step)) {
                    copy[lane] = pixel[at];
                }
            }
        }
    }
}

/// The tiles of an instruction set, of as many pixels as listed.
macro_rules! grouped_tiles {
    ($tile:ident: $($pixels:literal)*) => { &[$(($pixels, $tile::<$pixels>)),*] };
}
pub(crate) use grouped_tiles;

/// Tiles of direct convolution with so many channels a group, of as many pixels as listed.
macro_rules! grouped_direct {
    ($tile:ident, $channels:literal: $($pixels:literal)*) => { ($channels, &[$(($pixels, $tile::<$pixels, $channels>)),*]) };
}
#[allow(unused_imports, reason = "not every instruction set has them")]
pub(crate) use grouped_direct;

/// Computes `pixels` of all output blocks in `out`.
pub(crate) fn run(
    parts: &Parts<'_>,
    args: &GroupedArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let g = &args.geometry;
    let [cin, _] = args.channels;
    let (width, ring) = (padded_width(g), ring(g));
    let per_block = g.taps() * cin;
    assert!(pixels.start.is_multiple_of(g.out_width) && pixels.end.is_multiple_of(g.out_width), "whole rows");
    assert!(pixels.end <= g.out_pixels(), "pixels of the output");
    assert_eq!(
        args.input.len(),
        (args.groups * cin).div_ceil(LANES) * g.in_pixels(),
        "input blocks times pixels"
    );
    let blocks = args.epilogue.blocks(out.len());
    assert!(args.weights.len() >= blocks * per_block, "weights of every output block");
    assert!(args.epilogue.bias.len() >= blocks, "bias of every output block");
    let plane = g.out_pixels();
    if pixels.is_empty() {
        return;
    }
    let direct = parts.direct.iter().find(|tiles| args.channels == [tiles.0; 2] && direct::supports(g));
    if let Some((_, tiles)) = direct {
        return run_direct(parts, tiles, args, pixels, out);
    }
    let rows = &mut scratch[..ring * cin * width];
    let tiles = cover(parts.tiles, g.out_width);
    for block in 0..blocks {
        let weights = &args.weights[block * per_block..][..per_block];
        let epilogue = args.epilogue.starting_at(block, plane);
        let mut next = 0; // the first input row that is not in the ring yet
        for y in pixels.start / g.out_width..pixels.end / g.out_width {
            let top = (y * g.stride[0]) as isize - g.pad_top as isize;
            let inside = |tap: usize| {
                let row = top + (tap * g.dilation[0]) as isize;
                row >= 0 && row < g.in_height as isize
            };
            let first = (0..g.kernel[0]).find(|&tap| inside(tap)).unwrap_or(0);
            let last = (first..g.kernel[0]).find(|&tap| !inside(tap)).unwrap_or(g.kernel[0]);
            if first < last {
                // Rows between the taps of a dilated window are those of later windows.
                let begin = top.max(0) as usize;
                let end = (top + ((last - 1) * g.dilation[0]) as isize) as usize + 1;
                for row in next.max(begin)..end {
                    let copies = &mut rows[row % ring * cin * width..][..cin * width];
                    expand(parts, args, args.first_block + block, row, copies);
                }
                next = next.max(end);
            }
            let row = Row {
                rows,
                weights,
                taps: (first, last),
                top,
                geometry: *g,
                channels: cin,
                width,
                tail: epilogue.tail(),
                pixel: y * g.out_width,
            };
            let at = y * g.out_width - pixels.start;
            for run in &tiles {
                for tile in 0..run.count {
                    let first = run.first + tile * run.size;
                    (run.function)(&row, first, at + first, &mut out[block..block + 1]);
                }
            }
        }
    }
    args.epilogue.finish(parts.finish, 0..blocks, (plane, pixels.start), (0, pixels.len()), out);
}

/// Direct convolution of each block of the input by itself: with as many channels in a group of the input as of the output, a
/// divisor of 16, an output block reads that block only.
fn run_direct(
    parts: &Parts<'_>,
    tiles: Rows<'_, RowFn>,
    args: &GroupedArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
) {
    let g = &args.geometry;
    let [channels, _] = args.channels;
    let (blocks, plane, in_plane) = (args.epilogue.blocks(out.len()), g.out_pixels(), g.in_pixels());
    let weights_stride = g.taps() * channels;
    let mut places = Places::new();
    let mut start = pixels.start;
    while start < pixels.end {
        let end = places.find(g, tiles, start..pixels.end);
        for block in 0..blocks {
            let chunk = Chunk {
                lanes: &[channels as u8],
                input: &args.input[(args.first_block + block) * in_plane..][..in_plane],
                in_plane,
                taps: g.taps(),
                weights: &args.weights[block * weights_stride..],
                weights_stride,
                first: true,
                last: true,
                addends: [None; 2],
            };
            direct::run_group(
                tiles,
                &places,
                &chunk,
                &[],
                &args.epilogue.starting_at(block, plane),
                (plane, start, start - pixels.start),
                &mut out[block..block + 1],
            );
        }
        start = end;
    }
    args.epilogue.finish(parts.finish, 0..blocks, (plane, pixels.start), (0, pixels.len()), out);
}

/// `M` pixels of one output block.
#[inline(always)]
pub(crate) fn tile<S: Simd, const M: usize>(
    simd: S,
    row: &Row<'_>,
    first: usize,
    at: usize,
    out: &mut [&mut [Block]],
) {
    let g = &row.geometry;
    let (ring, step) = (ring(g), g.stride[1]);
    let mut sums = [simd.splat(0.0); M];
    for tap in row.taps.0..row.taps.1 {
        let y = (row.top + (tap * g.dilation[0]) as isize) as usize;
        let copies = &row.rows[y % ring * row.channels * row.width..][..row.channels * row.width];
        let weights = &row.weights[tap * g.kernel[1] * row.channels..][..g.kernel[1] * row.channels];
        for (column, weights) in weights.chunks_exact(row.channels).enumerate() {
            let offset = column * g.dilation[1];
            let start = offset % step * (row.width / step) + offset / step + first;
            for (weight, copy) in weights.iter().zip(copies.chunks_exact(row.width)) {
                let w = simd.load(weight);
                let window = &copy[start..][..M];
                unroll!(i < M <= 16, { sums[i] = simd.mul_add(simd.load(&window[i]), w, sums[i]) });
            }
        }
    }
    let sums = sums.map(
        #[inline(always)]
        |sum| [sum],
    );
    row.tail.store::<S, M, 1>(simd, sums, (g.out_pixels(), row.pixel + first), at, out);
}
