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

use core::ops::Range;

use crate::Block;
use crate::conv::ConvGeometry;
use crate::conv::tiling::{MAX_TAPS, Rows, WIDEST, choose};
use crate::epilogue::{Epilogue, Finish, Tail};
use crate::simd::{Simd, unroll};

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
    /// The image, or what was gathered from it.
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
    /// The first pixel in the output planes, and in each output slice.
    pixel: usize,
    at: usize,
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

/// How many elements of scratch the kernel wants: the elements under a tile, one piece per tap, for tiles at the
/// left and right edge and for distances of pixels that have no inner loop of their own.
pub fn scratch_len(geometry: &ConvGeometry, channels: usize) -> usize {
    channels * geometry.taps() * WIDEST
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
    let weights_stride = [geometry.taps(), args.channels * geometry.taps()];
    let step = geometry.stride[1] * args.strides[2];
    let mut taps = Taps::new();
    let mut starts = [0; MAX_TAPS];
    let most = tiles.rows.len();
    cut_rows(width, pixels.clone(), |y, columns| {
        let first = y * width + columns.start;
        let part = (first - pixels.start, columns.len());
        cut_row(tiles.rows[most - 1], geometry, y, columns, |run, _| {
            let gather = step > LARGEST_STEP || !geometry.is_inside(&run);
            // one tile at a time where it is gathered, for all output blocks
            let times = if gather { run.tiles } else { 1 };
            for part in 0..times {
                let run = Run { x: run.x + part * run.m, tiles: run.tiles / times, ..run };
                taps.find(geometry, &run, [args.strides[1], args.strides[2]]);
                let starts = &mut starts[..taps.inside().len()];
                let (input, channel_stride, step) = if gather {
                    args.gather(&taps, &run, scratch);
                    for (tap, start) in starts.iter_mut().enumerate() {
                        *start = tap * run.m;
                    }
                    (&*scratch, starts.len() * run.m, 1)
                } else {
                    for (start, tap) in starts.iter_mut().zip(taps.inside()) {
                        *start = tap.start;
                    }
                    (args.input, args.strides[0], step)
                };
                let pixel = y * width + run.x;
                for block in (0..blocks).step_by(most) {
                    let group = block..blocks.min(block + most);
                    let row = PlainRow {
                        input,
                        channels: args.channels,
                        channel_stride,
                        step,
                        starts,
                        weights: &args.weights[block * weights_stride[1] + taps.skipped..],
                        weights_stride,
                        tail: args.epilogue.starting_at(block, plane).tail(),
                        plane,
                        tiles: run.tiles,
                        pixel,
                        at: pixel - pixels.start,
                    };
                    let function = tiles.rows[group.len() - 1].iter().find(|row| row.0 == run.m);
                    if let Some((_, function)) = function {
                        function(&row, &mut out[group]);
                    }
                }
            }
        });
        args.epilogue.finish(tiles.finish, 0..blocks, (plane, first), part, out);
    });
}

/// The largest distance of pixels that has an inner loop of its own.
const LARGEST_STEP: usize = 2;

/// Tiles of `M` pixels times `N` output blocks.
#[inline(always)]
pub(crate) fn row<S: Simd, const M: usize, const N: usize>(
    simd: S,
    row: &PlainRow<'_>,
    out: &mut [&mut [Block]],
) {
    for tile in 0..row.tiles {
        let shift = tile * M;
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
    /// Lays out the elements under the first tile of a run: `[channel][tap][pixel]`, zeros outside the image.
    fn gather(&self, taps: &Taps, run: &Run, scratch: &mut [f32]) {
        let mut tiles = scratch.chunks_exact_mut(run.m);
        for channel in 0..self.channels {
            for (tap, tile) in taps.inside().iter().zip(&mut tiles) {
                let line = channel * self.strides[0] + tap.line;
                let mut column = tap.column;
                for pixel in tile {
                    let inside = column < self.geometry.in_width;
                    *pixel = if inside { self.input[line + column * self.strides[2]] } else { 0.0 };
                    column = column.wrapping_add(self.geometry.stride[1]);
                }
            }
        }
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

/// Equal tiles side by side in one row of the output.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Row and first column of the output.
    y: usize,
    x: usize,
    /// Pixels of a tile, and number of tiles. There are several only where no tap is left or right of the image.
    m: usize,
    tiles: usize,
}

/// Cuts columns of row `y` of the output into runs.
fn cut_row<F: Copy>(
    rows: Rows<'_, F>,
    geometry: &ConvGeometry,
    y: usize,
    columns: Range<usize>,
    mut visit: impl FnMut(Run, F),
) {
    let mut x = columns.start;
    while x < columns.end {
        let (size, count) = choose(rows, columns.end - x);
        let (m, function) = rows[size];
        let end = x + m * count;
        while x < end {
            let tiles = geometry.tiles_inside(x, m).clamp(1, (end - x) / m);
            visit(Run { y, x, m, tiles }, function);
            x += tiles * m;
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

impl ConvGeometry {
    /// Whether all taps of a run are between the left and the right edge.
    fn is_inside(&self, run: &Run) -> bool {
        self.tiles_inside(run.x, run.m) >= run.tiles
    }

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

/// Where a tile finds its input, the same for every input channel or block: found once for a run, so that from
/// one tap to the next there is only an addition or two on the way to the next load. (Where they were computed on
/// the way, some twenty cycles passed at each tap in which the multipliers ran dry.)
#[derive(Debug)]
struct Taps {
    taps: [Tap; MAX_TAPS],
    count: usize,
    /// Taps of rows above the image, which come before.
    skipped: usize,
}

/// One tap of a run of tiles.
#[derive(Clone, Copy, Debug, Default)]
struct Tap {
    /// The first tile's first pixel, counted from the start of a plane; meaningless where it is left of its line.
    start: usize,
    /// The line that it is in, counted likewise.
    line: usize,
    /// Its column; wraps to a huge one where that is left of the image.
    column: usize,
}

impl Taps {
    fn new() -> Self {
        Self { taps: [Tap::default(); MAX_TAPS], count: 0, skipped: 0 }
    }

    /// The taps in the image, row by row.
    #[inline(always)]
    fn inside(&self) -> &[Tap] {
        &self.taps[..self.count]
    }

    /// Finds the taps of a run in planes whose lines and pixels are `strides` apart.
    fn find(&mut self, geometry: &ConvGeometry, run: &Run, strides: [usize; 2]) {
        let &ConvGeometry { in_height, kernel, stride, dilation, pad_top, pad_left, .. } = geometry;
        (self.count, self.skipped) = (0, 0);
        for tap_y in 0..kernel[0] {
            // wraps to below the image where it is above
            let y = (run.y * stride[0] + tap_y * dilation[0]).wrapping_sub(pad_top);
            if y >= in_height {
                if self.count == 0 {
                    self.skipped += kernel[1];
                }
                continue;
            }
            let line = y * strides[0];
            for tap_x in 0..kernel[1] {
                let column = (run.x * stride[1] + tap_x * dilation[1]).wrapping_sub(pad_left);
                let start = line.wrapping_add(column.wrapping_mul(strides[1]));
                self.taps[self.count] = Tap { start, line, column };
                self.count += 1;
            }
        }
    }
}
