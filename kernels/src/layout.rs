//! Between the caller's plain images and blocks of 16 channels, and between blocked layouts with other parts.
//!
//! ```text
//! plain     element (channel, row, column) at channel * s0 + row * s1 + column * s2: NCHW, NHWC, any crop of them
//! blocked   [block][row][column][16]; a part of 24 channels:
//!           block 0   channels  0..16
//!           block 1   channels 16..24, then 8 dead lanes
//!           the next part starts at block 2
//! ```
//! Which channels a block holds follows from `lanes`, the live channels of each block, since channels keep their
//! order. Dead lanes are written as zeros. On the way out to plain every NaN becomes 7fc00000.

use core::ops::Range;

use crate::math::canonical_nan;
use crate::simd::Simd;
use crate::{Block, LANES};

/// Plain elements as they come: f32, or bytes to be converted (exactly).
#[derive(Clone, Copy, Debug)]
pub enum PlainInput<'a> {
    /// 32-bit floating point.
    F32(&'a [f32]),
    /// 8-bit unsigned integers.
    U8(&'a [u8]),
}

/// What [`PackFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct PackArgs<'a> {
    /// The image, from channel 0 of its first pixel on.
    pub input: PlainInput<'a>,
    /// Elements between channels, rows and columns.
    pub strides: [usize; 3],
    /// Pixels in a row.
    pub width: usize,
    /// The channel in lane 0 of the first output block.
    pub first_channel: usize,
    /// Live channels of each output block.
    pub lanes: &'a [u8],
}

/// What [`UnpackFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct UnpackArgs<'a> {
    /// `[block][pixel]`, whole planes, from the first block that is copied on.
    pub input: &'a [Block],
    /// Pixels of a plane.
    pub plane: usize,
    /// Elements between channels, rows and columns of the output.
    pub strides: [usize; 3],
    /// Pixels in a row.
    pub width: usize,
    /// Live channels of each block that is copied.
    pub lanes: &'a [u8],
}

/// Plain to blocks. Any range of pixels, flattened over rows of `width`.
pub type PackFn = fn(args: &PackArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]);
/// Blocks to plain: pixels `pixels` of whole rows. `out` starts at the first block's first channel in the first of
/// these rows; so a run of channel planes (NCHW) or of rows (NHWC) can be written by itself.
pub type UnpackFn = fn(args: &UnpackArgs<'_>, pixels: Range<usize>, out: &mut [f32]);

/// Runs of pixels that are `strides[2]` apart in the plain image: `f(pixel, offset, length)`, the offset counted
/// from row `first_row`.
#[inline(always)]
fn for_each_run(
    pixels: Range<usize>,
    width: usize,
    strides: [usize; 3],
    first_row: usize,
    mut f: impl FnMut(usize, usize, usize),
) {
    if pixels.is_empty() {
        return;
    }
    assert!(width > 0, "rows without pixels");
    let mut at = pixels.start;
    let seamless = strides[1] == width * strides[2];
    while at < pixels.end {
        let (row, column) = (at / width, at % width);
        let length = if seamless { pixels.end - at } else { (width - column).min(pixels.end - at) };
        f(at, (row - first_row) * strides[1] + column * strides[2], length);
        at += length;
    }
}

/// The algorithm behind every [`PackFn`].
#[inline(always)]
pub(crate) fn pack<S: Simd>(simd: S, args: &PackArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    assert!(args.lanes.len() >= out.len(), "the lanes of each output block");
    for out in out.iter() {
        assert_eq!(out.len(), pixels.len(), "an output slice is not as long as the range of pixels");
    }
    match args.input {
        PlainInput::F32(data) => pack_from(simd, data, args, pixels, out),
        PlainInput::U8(data) => pack_from(simd, data, args, pixels, out),
    }
}

#[inline(always)]
fn pack_from<S: Simd, T: Element>(
    simd: S,
    data: &[T],
    args: &PackArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
) {
    let mut channel = args.first_channel;
    for (out, &live) in out.iter_mut().zip(args.lanes) {
        let live = usize::from(live);
        assert!(live <= LANES, "at most 16 live lanes");
        let data = &data[(channel * args.strides[0]).min(data.len())..];
        for_each_run(
            pixels.clone(),
            args.width,
            args.strides,
            0,
            #[inline(always)]
            |pixel, offset, length| {
                let out = &mut out[pixel - pixels.start..][..length];
                let data = &data[offset..];
                if S::PLAIN {
                    pack_elements(data, args.strides, live, out);
                } else if args.strides[2] == 1 && args.strides[0] != 1 && out.len() >= LANES {
                    pack_planes(simd, data, args.strides[0], live, out);
                } else {
                    pack_pixels(simd, data, args.strides, live, out);
                }
            },
        );
        channel += live;
    }
}

/// Blocks of a row that are transposed in one go.
const ROW: usize = 8;

/// What a plain image is made of.
trait Element: Copy + Into<f32> + 'static {
    /// A row of a dead channel.
    const ZEROS: &'static [[Self; LANES]; ROW];

    /// Block `at` of 16 rows as f32, where it lies or in `buffers`.
    fn rows<'a>(
        rows: &[&'a [[Self; LANES]]; LANES],
        at: usize,
        buffers: &'a mut [Block; LANES],
    ) -> [&'a Block; LANES];
}

impl Element for f32 {
    const ZEROS: &'static [Block; ROW] = &[[0.0; LANES]; ROW];

    #[inline(always)]
    fn rows<'a>(rows: &[&'a [Block]; LANES], at: usize, _: &'a mut [Block; LANES]) -> [&'a Block; LANES] {
        let mut blocks: [&Block; LANES] = [&rows[0][at]; LANES];
        for (block, row) in blocks.iter_mut().zip(rows) {
            *block = &row[at];
        }
        blocks
    }
}

impl Element for u8 {
    const ZEROS: &'static [[u8; LANES]; ROW] = &[[0; LANES]; ROW];

    #[inline(always)]
    fn rows<'a>(
        rows: &[&'a [[u8; LANES]]; LANES],
        at: usize,
        buffers: &'a mut [Block; LANES],
    ) -> [&'a Block; LANES] {
        for (buffer, row) in buffers.iter_mut().zip(rows) {
            *buffer = widen(&row[at]);
        }
        buffers.each_ref()
    }
}

/// 16 elements as f32.
#[inline(always)]
fn widen<T: Copy + Into<f32>>(from: &[T; LANES]) -> Block {
    let mut block = [0.0; LANES];
    for i in 0..LANES {
        block[i] = from[i].into();
    }
    block
}

/// One element at a time.
#[inline(never)]
fn pack_elements<T: Copy + Into<f32>>(data: &[T], strides: [usize; 3], live: usize, out: &mut [Block]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = [0.0; LANES];
        for (lane, to) in out[..live].iter_mut().enumerate() {
            *to = data[i * strides[2] + lane * strides[0]].into();
        }
    }
}

/// 16 pixels of up to 16 channels at a time: rows of a plane side by side, then transposed. There are 16 at least.
#[inline(always)]
fn pack_planes<S: Simd, T: Element>(
    simd: S,
    data: &[T],
    channel_stride: usize,
    live: usize,
    out: &mut [Block],
) {
    let mut buffers = [[0.0; LANES]; LANES];
    let pixels = out.len();
    let mut at = 0;
    while at < pixels {
        // Pixels left over go with some before them once more.
        at = at.min(pixels - LANES);
        let (tiles, _) = out[at..].as_chunks_mut::<LANES>();
        let blocks = tiles.len().min(ROW);
        let mut rows = [&T::ZEROS[..blocks]; LANES];
        for (channel, row) in rows[..live].iter_mut().enumerate() {
            *row = &data[channel * channel_stride + at..].as_chunks().0[..blocks];
        }
        for (i, out) in tiles[..blocks].iter_mut().enumerate() {
            simd.transpose(T::rows(&rows, i, &mut buffers), out);
        }
        at += blocks * LANES;
    }
}

/// One pixel at a time; its channels lie together in NHWC.
#[inline(always)]
fn pack_pixels<S: Simd, T: Copy + Into<f32>>(
    simd: S,
    data: &[T],
    strides: [usize; 3],
    live: usize,
    out: &mut [Block],
) {
    let mut is_live = [0.0; LANES];
    is_live[..live].fill(1.0);
    let (is_live, zero) = (simd.load(&is_live), simd.splat(0.0));
    // Reads what lies behind the channels too, where the image goes on.
    let mut done = 0;
    while strides[0] == 1
        && done < out.len()
        && let Some(from) = data[done * strides[2]..].first_chunk()
    {
        simd.store(&mut out[done], simd.select_gt(is_live, zero, simd.load(&widen(from)), zero));
        done += 1;
    }
    if done < out.len() {
        pack_elements(&data[done * strides[2]..], strides, live, &mut out[done..]);
    }
}

/// The algorithm behind every [`UnpackFn`].
#[inline(always)]
pub(crate) fn unpack<S: Simd>(simd: S, args: &UnpackArgs<'_>, pixels: Range<usize>, out: &mut [f32]) {
    assert!(pixels.start <= pixels.end && pixels.end <= args.plane, "pixels beyond the plane");
    assert!(args.input.len() >= args.lanes.len() * args.plane, "the input is short");
    if pixels.is_empty() {
        return;
    }
    assert!(args.width > 0 && pixels.start.is_multiple_of(args.width), "pixels are no whole rows");
    let first_row = pixels.start / args.width;
    let mut channel = 0;
    for (input, &live) in args.input.chunks(args.plane).zip(args.lanes) {
        let live = usize::from(live);
        assert!(live <= LANES, "at most 16 live lanes");
        let start = (channel * args.strides[0]).min(out.len());
        let out = &mut out[start..];
        for_each_run(
            pixels.clone(),
            args.width,
            args.strides,
            first_row,
            #[inline(always)]
            |pixel, offset, length| {
                let input = &input[pixel..][..length];
                let out = &mut out[offset..];
                if S::PLAIN {
                    unpack_elements(input, args.strides, live, out);
                } else if args.strides[2] == 1 && args.strides[0] != 1 && input.len() >= LANES {
                    unpack_planes(simd, input, args.strides[0], live, out);
                } else {
                    unpack_pixels(simd, input, args.strides, live, out);
                }
            },
        );
        channel += live;
    }
}

/// One element at a time.
#[inline(never)]
fn unpack_elements(input: &[Block], strides: [usize; 3], live: usize, out: &mut [f32]) {
    for (i, input) in input.iter().enumerate() {
        for (lane, &from) in input[..live].iter().enumerate() {
            out[i * strides[2] + lane * strides[0]] = canonical_nan(from);
        }
    }
}

/// 16 pixels at a time, of which there are 16 at least.
#[inline(always)]
fn unpack_planes<S: Simd>(simd: S, input: &[Block], channel_stride: usize, live: usize, out: &mut [f32]) {
    let mut columns = [[0.0; LANES]; LANES];
    let mut at = 0;
    while at < input.len() {
        // Pixels left over go with some before them once more.
        at = at.min(input.len() - LANES);
        let Some(tile) = input[at..].first_chunk::<LANES>() else { unreachable!("a whole tile") };
        simd.transpose(tile.each_ref(), &mut columns);
        for (channel, column) in columns[..live].iter().enumerate() {
            if let Some(out) = out[channel * channel_stride + at..][..LANES].first_chunk_mut() {
                simd.store(out, simd.canonical_nan(simd.load(column)));
            }
        }
        at += LANES;
    }
}

/// One pixel at a time; its channels lie together in NHWC.
#[inline(always)]
fn unpack_pixels<S: Simd>(simd: S, input: &[Block], strides: [usize; 3], live: usize, out: &mut [f32]) {
    if live < LANES || strides[0] != 1 {
        return unpack_elements(input, strides, live, out);
    }
    for (i, input) in input.iter().enumerate() {
        if let Some(out) = out[i * strides[2]..][..LANES].first_chunk_mut() {
            simd.store(out, simd.canonical_nan(simd.load(input)));
        }
    }
}

/// What [`copy_channels`] takes.
#[derive(Clone, Copy, Debug)]
pub struct CopyChannelsArgs<'a> {
    /// `[block][pixel]`, whole planes, from its first block on.
    pub input: &'a [Block],
    /// Live channels of each input block.
    pub in_lanes: &'a [u8],
    /// Pixels of a plane.
    pub plane: usize,
    /// The first channel that is copied.
    pub from_channel: usize,
    /// Where it goes: an output channel, counted over all output blocks.
    pub to_channel: usize,
    /// How many channels are copied.
    pub count: usize,
    /// The channel in lane 0 of the first output slice.
    pub first_channel: usize,
    /// Live channels of the block of each output slice.
    pub out_lanes: &'a [u8],
}

/// Copies a run of channels between layouts with other parts: ragged concatenation, slices of channels.
///
/// Output channels outside the run stay as they are; in every block that receives a channel the dead lanes become
/// zeros. Any range of pixels.
pub fn copy_channels(args: &CopyChannelsArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    assert!(pixels.start <= pixels.end && pixels.end <= args.plane, "pixels beyond the plane");
    assert!(args.input.len() >= args.in_lanes.len() * args.plane, "the input is short");
    assert!(args.out_lanes.len() >= out.len(), "the lanes of each output block");
    let mut channel = args.first_channel;
    let end = args.to_channel + args.count;
    // The input block that holds a channel, found from the last one: both sides go up.
    let (mut block, mut block_start) = (0, 0);
    for (out, &live) in out.iter_mut().zip(args.out_lanes) {
        assert_eq!(out.len(), pixels.len(), "an output slice is not as long as the range of pixels");
        let live = usize::from(live);
        let mut at = channel.max(args.to_channel);
        let stop = end.min(channel + live);
        if at < stop && live < LANES {
            for out in out.iter_mut() {
                out[live..].fill(0.0);
            }
        }
        while at < stop {
            let from = at - args.to_channel + args.from_channel;
            while from >= block_start + usize::from(args.in_lanes[block]) {
                block_start += usize::from(args.in_lanes[block]);
                block += 1;
            }
            let from_lane = from - block_start;
            let to_lane = at - channel;
            let length = (usize::from(args.in_lanes[block]) - from_lane).min(stop - at);
            let input = &args.input[block * args.plane..][pixels.clone()];
            if length == LANES {
                out.copy_from_slice(input);
            } else {
                for (out, input) in out.iter_mut().zip(input) {
                    out[to_lane..to_lane + length].copy_from_slice(&input[from_lane..from_lane + length]);
                }
            }
            at += length;
        }
        channel += live;
    }
}
