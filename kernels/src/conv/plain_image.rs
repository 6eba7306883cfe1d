//! First layers: from a plain image of a few channels, in any element order, to blocks.
//!
//! ```text
//! input     element (channel, row, column) at channel * strides[0] + row * strides[1] + column * strides[2]
//! weights   [output block][channel][tap row][tap column][16]
//! ```
//!
//! Vectors are output channels, as everywhere; each element of the image is read by itself, so that one, three or
//! four channels cost what they are and the image needs no layout change. Order of a sum: channel, tap row, tap
//! column, for any element order. Tap rows outside the image are left out of the sum; a tap column outside counts
//! as a product with zero.
//!
//! The lines of the image under a row of the output are copied first, with zeros left and right of them:
//!
//! ```text
//! scratch   [channel][line % kept][phase][column / phases]     phases: 1 up to stride 2, else the stride
//! ```
//!
//! So no tile is at an edge, and the pixels of a tile are one or two elements apart. Each line is copied once: those that the next
//! row reads again stay where they are.

use core::mem;
use core::ops::Range;

use crate::Block;
use crate::conv::ConvGeometry;
use crate::conv::tiling::{MAX_TAPS, Rows, choose};
use crate::epilogue::{Epilogue, Finish, Tail};
use crate::simd::{Simd, ask, unroll};

/// One image, a run of output blocks.
#[derive(Clone, Copy, Debug)]
pub struct PlainConvArgs<'a> {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// Channels of the image.
    pub channels: usize,
    /// The image.
    pub input: &'a [f32],
    /// Distances of channels, rows and columns in the image.
    pub strides: [usize; 3],
    /// `[output block][channel][tap row][tap column]`, starting at the first output block that is computed.
    pub weights: &'a [Block],
    /// Bias and residual start at the first output block that is computed.
    pub epilogue: Epilogue<'a>,
}

/// `scratch` has [`scratch_len`] elements; `out` has one slice per output block, each the pixels of the range; with
/// MaxMin, then the same again.
pub type PlainConvFn =
    fn(args: &PlainConvArgs<'_>, pixels: Range<usize>, scratch: &mut [f32], out: &mut [&mut [Block]]);

/// Whether the algorithm takes a kernel of this size.
pub fn supports(geometry: &ConvGeometry) -> bool {
    geometry.taps() <= MAX_TAPS
}

/// What a [`PlainRowFn`] computes: tiles side by side in one output row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainRow<'a> {
    /// The copied lines, from what the first tile reads on.
    input: &'a [f32],
    channels: usize,
    /// Distances of channels and of a tile's pixels there, and the first element of each tap.
    channel_stride: usize,
    step: usize,
    starts: &'a [usize],
    /// From the first weight that is used on, of the first output block of the tiles.
    weights: &'a [Block],
    /// Weights of one channel, and of one output block.
    weights_stride: [usize; 2],
    tail: Tail<'a>,
    /// Pixels of an output plane.
    plane: usize,
    tiles: usize,
    ahead: Ahead<'a>,
    /// The first pixel in the output planes, and in each output slice.
    pixel: usize,
    at: usize,
}

/// Lines of the image that the next row of the output reads, and that are asked for while this one is computed.
#[derive(Clone, Copy, Debug)]
struct Ahead<'a> {
    /// The image from the first of them on.
    image: &'a [f32],
    /// Elements between channels.
    channel_stride: usize,
    /// Elements of all of them in one channel.
    len: usize,
}

impl Ahead<'_> {
    const NOTHING: Self = Ahead { image: &[], channel_stride: 0, len: 0 };

    /// Asks for the share of one of `tiles` tiles.
    #[inline(never)]
    fn ask<S: Simd>(&self, simd: S, channels: usize, tile: usize, tiles: usize) {
        let share = self.len * tile / tiles..self.len * (tile + 1) / tiles;
        let from = self.image.get(share.start..).unwrap_or(&[]);
        // where channels lie side by side the first one's lines hold all
        let rows = if self.channel_stride < self.len { 1 } else { channels };
        ask(simd, from, self.channel_stride.max(self.len), rows, share.len());
    }
}

/// Computes tiles of a fixed number of pixels and output blocks. `out` has one slice per block.
pub(crate) type PlainRowFn = fn(row: &PlainRow<'_>, out: &mut [&mut [Block]]);

/// The tiles of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainTiles<'a> {
    /// `rows[n - 1]` computes tiles of `n` output blocks; all have the same numbers of pixels.
    pub(crate) rows: &'a [Rows<'a, PlainRowFn>],
    pub(crate) finish: Finish,
}

/// How the lines of an image lie in the scratch.
#[derive(Clone, Copy, Debug)]
struct Lines {
    /// Lines from the first tap row of a window to its last one.
    window: usize,
    /// Lines that are kept: those of a window, or of the image where it has fewer.
    kept: usize,
    /// Columns that are a multiple of so many apart lie one after another: 1 where tiles step over what is between.
    phases: usize,
    /// Elements of a phase; each line has all phases.
    len: usize,
}

impl Lines {
    fn of(geometry: &ConvGeometry) -> Self {
        let &ConvGeometry { in_height, kernel, stride, dilation, out_width, .. } = geometry;
        let phases = if stride[1] > LARGEST_STEP { stride[1] } else { 1 };
        // from the first tap of the first pixel to the last tap of the last one
        let columns = (out_width.max(1) - 1)
            .saturating_mul(stride[1])
            .saturating_add((kernel[1].max(1) - 1).saturating_mul(dilation[1]))
            .saturating_add(1);
        let window = (kernel[0].max(1) - 1).saturating_mul(dilation[0]).saturating_add(1);
        let kept = window.min(in_height.max(1));
        Self { window, kept, phases, len: columns.div_ceil(phases) }
    }

    /// Elements of a line.
    fn line(self) -> usize {
        self.phases.saturating_mul(self.len)
    }

    /// Elements of a channel.
    fn channel(self) -> usize {
        self.kept.saturating_mul(self.line())
    }

    /// Where a line is that is counted from the upper border on.
    fn start(self, line: usize) -> usize {
        line % self.kept * self.line()
    }

    /// Where the first pixel's tap in this column of the window is.
    fn place(self, column: usize) -> usize {
        column % self.phases * self.len + column / self.phases
    }
}

/// The largest distance of pixels that has an inner loop of its own.
const LARGEST_STEP: usize = 2;

/// How many elements of scratch the kernel wants: the lines under one row of the output, with what is left and right of them.
/// The largest number there is for sizes that no memory holds.
pub fn scratch_len(geometry: &ConvGeometry, channels: usize) -> usize {
    channels.saturating_mul(Lines::of(geometry).channel())
}

/// Computes `pixels` of all output blocks in `out`.
pub(crate) fn run(
    tiles: &PlainTiles<'_>,
    args: &PlainConvArgs<'_>,
    pixels: Range<usize>,
    scratch: &mut [f32],
    out: &mut [&mut [Block]],
) {
    let blocks = args.check(&pixels, scratch, out);
    let geometry = &args.geometry;
    let (width, plane) = (geometry.out_width, geometry.out_pixels());
    let lines = Lines::of(geometry);
    let step = geometry.stride[1] / lines.phases;
    let mut starts = [0; MAX_TAPS];
    let mut copied = 0;
    let most = tiles.rows.len();
    let last = (pixels.end.max(1) - 1) / width.max(1);
    cut_rows(width, pixels.clone(), |y, columns| {
        copied = args.copy(lines, y, copied, scratch);
        let tap_rows = geometry.tap_rows(y);
        let taps = tap_rows.start * geometry.kernel[1]..tap_rows.end * geometry.kernel[1];
        for (tap_y, starts) in starts.chunks_mut(geometry.kernel[1]).take(geometry.kernel[0]).enumerate() {
            let line = lines.start(y * geometry.stride[0] + tap_y * geometry.dilation[0]);
            for (tap_x, start) in starts.iter_mut().enumerate() {
                *start = line + lines.place(tap_x * geometry.dilation[1]);
            }
        }
        let mut ahead = if y < last { args.ahead(lines, y + 1, copied) } else { Ahead::NOTHING };
        let mut x = columns.start;
        while x < columns.end {
            let (size, tiles_of_size) = choose(tiles.rows[most - 1], columns.end - x);
            let m = tiles.rows[most - 1][size].0;
            let pixel = y * width + x;
            for block in (0..blocks).step_by(most) {
                let group = block..blocks.min(block + most);
                let row = PlainRow {
                    input: &scratch[x * step..],
                    channels: args.channels,
                    channel_stride: lines.channel(),
                    step,
                    starts: &starts[taps.clone()],
                    weights: &args.weights[block * args.channels * geometry.taps() + taps.start..],
                    weights_stride: [geometry.taps(), args.channels * geometry.taps()],
                    tail: args.epilogue.starting_at(block, plane).tail(),
                    plane,
                    tiles: tiles_of_size,
                    ahead: mem::replace(&mut ahead, Ahead::NOTHING),
                    pixel,
                    at: pixel - pixels.start,
                };
                let (_, function) = tiles.rows[group.len() - 1][size];
                function(&row, &mut out[group]);
            }
            x += m * tiles_of_size;
        }
        let first = y * width + columns.start;
        let part = (first - pixels.start, columns.len());
        args.epilogue.finish(tiles.finish, 0..blocks, (plane, first), part, out);
    });
}

/// Tiles of `M` pixels times `N` output blocks.
#[inline(always)]
pub(crate) fn row<S: Simd, const M: usize, const N: usize>(
    simd: S,
    row: &PlainRow<'_>,
    out: &mut [&mut [Block]],
) {
    for tile in 0..row.tiles {
        let shift = tile * M;
        row.ahead.ask(simd, row.channels, tile, row.tiles);
        let sums = if row.step == 2 {
            tile_sums::<S, M, N, 2>(simd, row, shift * 2)
        } else {
            tile_sums::<S, M, N, 1>(simd, row, shift)
        };
        row.tail.store(simd, sums, (row.plane, row.pixel + shift), row.at + shift, out);
    }
}

/// The sums of one tile: pixel `i` reads the element `i * STEP` behind that of pixel 0.
#[inline(always)]
fn tile_sums<S: Simd, const M: usize, const N: usize, const STEP: usize>(
    simd: S,
    row: &PlainRow<'_>,
    shift: usize,
) -> [[S::Vector; N]; M] {
    let mut sums = [[simd.splat(0.0); N]; M];
    for channel in 0..row.channels {
        let input = &row.input[channel * row.channel_stride + shift..];
        sums = accumulate::<S, M, N, STEP>(simd, sums, input, row, channel * row.weights_stride[0]);
    }
    sums
}

/// All taps of one channel, whose weights start at `k`.
#[inline(always)]
fn accumulate<S: Simd, const M: usize, const N: usize, const STEP: usize>(
    simd: S,
    mut sums: [[S::Vector; N]; M],
    input: &[f32],
    row: &PlainRow<'_>,
    k: usize,
) -> [[S::Vector; N]; M] {
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &row.weights[j * row.weights_stride[1] + k..][..row.starts.len()] });
    for (k, start) in row.starts.iter().enumerate() {
        let x = &input[*start..][..(M - 1) * STEP + 1];
        let mut w = [simd.splat(0.0); N];
        unroll!(j < N <= 4, { w[j] = simd.load(&weights[j][k]) });
        unroll!(i < M <= 16, {
            let x = simd.splat(x[i * STEP]);
            unroll!(j < N <= 4, { sums[i][j] = simd.mul_add(x, w[j], sums[i][j]) });
        });
    }
    sums
}

impl PlainConvArgs<'_> {
    /// The lines of the image under row `y` of the output, from line `copied` on.
    #[inline(never)]
    fn new_lines(&self, lines: Lines, y: usize, copied: usize) -> Range<usize> {
        let &ConvGeometry { in_height, stride, pad_top, .. } = &self.geometry;
        let top = y * stride[0];
        let end = top.saturating_add(lines.window).saturating_sub(pad_top).min(in_height);
        top.saturating_sub(pad_top).max(copied)..end
    }

    /// The same, to be asked for.
    fn ahead(&self, lines: Lines, y: usize, copied: usize) -> Ahead<'_> {
        let new = self.new_lines(lines, y, copied);
        let [channel_stride, line, _] = self.strides;
        Ahead {
            image: self.input.get(new.start * line..).unwrap_or(&[]),
            channel_stride,
            len: new.len() * line,
        }
    }

    /// Copies the lines of the image under row `y` of the output, from line `copied` on; gives the line behind them.
    fn copy(&self, lines: Lines, y: usize, copied: usize, scratch: &mut [f32]) -> usize {
        let &ConvGeometry { in_width, pad_top, pad_left, .. } = &self.geometry;
        let step = lines.phases * self.strides[2];
        let new = self.new_lines(lines, y, copied);
        for phase in 0..lines.phases {
            // elements of this phase before a column that is counted from the left border on
            let before = |column: usize| column.saturating_sub(phase).div_ceil(lines.phases).min(lines.len);
            let inside = before(pad_left)..before(in_width + pad_left).max(before(pad_left));
            let first = if inside.is_empty() { 0 } else { inside.start * lines.phases + phase - pad_left };
            for channel in 0..self.channels {
                for line in new.clone() {
                    let from = channel * self.strides[0] + line * self.strides[1] + first * self.strides[2];
                    let to = channel * lines.channel() + lines.start(line + pad_top) + phase * lines.len;
                    copy_line(&self.input[from..], step, inside.clone(), &mut scratch[to..][..lines.len]);
                }
            }
        }
        new.end.max(copied)
    }

    /// What the algorithm relies on; gives the number of output blocks.
    ///
    /// # Panics
    /// Where an operand is too small for the geometry or the slices of `out` do not hold `pixels`.
    fn check(&self, pixels: &Range<usize>, scratch: &[f32], out: &[&mut [Block]]) -> usize {
        let geometry = &self.geometry;
        assert!(supports(geometry), "too many taps");
        let blocks = self.epilogue.check(geometry.out_pixels(), pixels, out);
        let last = |extent: usize, stride: usize| (extent - 1) * stride;
        let end = last(self.channels, self.strides[0])
            + last(geometry.in_height, self.strides[1])
            + last(geometry.in_width, self.strides[2]);
        assert!(scratch.len() >= scratch_len(geometry, self.channels), "scratch");
        assert!(end < self.input.len(), "elements of the image");
        assert!(
            self.weights.len() >= blocks * self.channels * geometry.taps(),
            "weights of every output block"
        );
        blocks
    }
}

/// Copies elements that are `step` apart to `inside`, and zeros to what is left and right of that.
#[inline(never)]
fn copy_line(from: &[f32], step: usize, inside: Range<usize>, to: &mut [f32]) {
    to[..inside.start].fill(0.0);
    to[inside.end..].fill(0.0);
    let to = &mut to[inside];
    match step {
        1 => to.copy_from_slice(&from[..to.len()]),
        step => {
            for (to, from) in to.iter_mut().zip(from.iter().step_by(step)) {
                *to = *from;
            }
        }
    }
}

/// Cuts a range of pixels at the ends of rows: gives the row and the columns of each part.
fn cut_rows(width: usize, pixels: Range<usize>, mut visit: impl FnMut(usize, Range<usize>)) {
    let mut first = pixels.start;
    while first < pixels.end {
        let (y, x) = (first / width, first % width);
        let len = (pixels.end - first).min(width - x);
        visit(y, x..x + len);
        first += len;
    }
}
