//! Depthwise convolution of row-major planes: lanes are neighbouring outputs of a row.
//!
//! ```text
//! a strip    16 outputs of some rows below each other
//! a line     a row of the image under it
//! ```
//!
//! Tap `k` of 16 neighbours is 16 neighbours of a line, every second one with stride 2. So each line is loaded once and meets the tap
//! rows of all rows that it is under, whose sums are in registers. The order of a sum is that of `depthwise.rs`: tap row, tap column,
//! tap rows outside the image left out, tap columns outside it products with zero.

use core::ops::Range;

use crate::LANES;
use crate::activation::Activation;
use crate::conv::ConvGeometry;
use crate::elementwise::ActivateInPlaceFn;
use crate::epilogue::NO_CLAMP;
use crate::simd::{Inside, Simd, unroll};

/// Output rows `rows`, counted over all planes: `out` holds these.
pub type PlainDepthwiseFn = fn(args: &PlainDepthwiseArgs<'_>, rows: Range<usize>, out: &mut [f32]);

/// What [`PlainDepthwiseFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct PlainDepthwiseArgs<'a> {
    /// The sizes, which [`supports`] accepts.
    pub geometry: ConvGeometry,
    /// Planes of an image.
    pub channels: usize,
    /// Whole planes.
    pub input: &'a [f32],
    /// `[channel][tap row][tap column]`.
    pub weights: &'a [f32],
    /// One number per channel.
    pub bias: &'a [f32],
    /// Applied last.
    pub after: Activation,
}

impl PlainDepthwiseArgs<'_> {
    /// Asserts the contract.
    pub(super) fn check(&self, rows: &Range<usize>, out: &[f32]) {
        let g = &self.geometry;
        assert!(supports(g), "windows or planes of other sizes");
        assert_eq!(out.len(), rows.len() * g.out_width, "the output is not these rows");
        assert!(self.input.len() >= rows.end.div_ceil(g.out_height) * g.in_pixels(), "the input is short");
        assert!(self.weights.len() >= self.channels * g.taps(), "weights of every channel");
        assert!(self.bias.len() >= self.channels, "bias of every channel");
    }
}

/// Whether windows and planes are of the sizes that there is code for, and which fill most lanes.
pub fn supports(g: &ConvGeometry) -> bool {
    let square = |size: [usize; 2], sizes: [usize; 2]| size[0] == size[1] && sizes.contains(&size[0]);
    square(g.kernel, [3, 5])
        && square(g.stride, [1, 2])
        && g.dilation == [1, 1]
        && g.pad_left < g.kernel[1]
        && g.out_width >= if g.kernel[1] == 3 { LANES / 2 + 1 } else { LANES }
}

/// What a [`StripFn`] computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strip<'a> {
    /// Rows of the image, the first one under tap row `first` of row 0.
    lines: &'a [f32],
    in_width: usize,
    first: usize,
    count: usize,
    /// The column under the leftmost tap, which may have wrapped to below zero.
    column: usize,
    /// Asked for on the way.
    ahead: &'a [f32],
    weights: &'a [f32],
    bias: f32,
    clamp: (f32, f32, f32),
    /// Rows of the output, and their distance.
    rows: usize,
    width: usize,
}

/// Computes a strip for one size of window; `out` begins with its first output.
pub(crate) type StripFn = fn(strip: &Strip<'_>, out: &mut [f32]);

/// The windows of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strips<'a> {
    /// Kernel size, stride, and what computes a strip.
    pub(crate) windows: &'a [(usize, usize, StripFn)],
    /// What is left of the activation.
    pub(crate) activate: ActivateInPlaceFn,
}

/// The [`Strips`] of one instruction set.
macro_rules! plain_strips {
    ($strip:ident, $activate:ident) => {
        crate::plain::depthwise::Strips {
            windows: &[
                (3, 1, $strip::<3, 1, 3>),
                (3, 2, $strip::<3, 2, 2>),
                (5, 1, $strip::<5, 1, 5>),
                (5, 2, $strip::<5, 2, 3>),
            ],
            activate: $activate,
        }
    };
}
#[allow(unused_imports, reason = "used by each instruction set that has registers to fill")]
pub(crate) use plain_strips;

/// The algorithm behind every [`PlainDepthwiseFn`] but the scalar one.
#[inline(always)]
pub(crate) fn run<S: Simd>(
    simd: S,
    strips: &Strips<'_>,
    args: &PlainDepthwiseArgs<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    args.check(&rows, out);
    let g = &args.geometry;
    let ([kernel, _], [stride, _]) = (g.kernel, g.stride);
    let window = strips.windows.iter().find(|window| (window.0, window.1) == (kernel, stride));
    let Some((_, _, compute)) = window else { unreachable!("a window that is supported") };
    let clamp = args.after.as_clamp();
    let asks = size_of_val(args.input) + size_of_val(out) >= 1 << 20;
    let mut row = rows.start;
    while row < rows.end {
        let (plane, y) = (row / g.out_height, row % g.out_height);
        let count = (g.out_height - y).min(rows.end - row);
        let channel = plane % args.channels;
        // the lines in the image, counted from the first tap row of row y
        let top = y * stride;
        let first = g.pad_top.saturating_sub(top);
        let end = (g.pad_top + g.in_height).saturating_sub(top).min((count - 1) * stride + kernel).max(first);
        let above = if first < end { top + first - g.pad_top } else { 0 };
        let mut strip = Strip {
            lines: &args.input[plane * g.in_pixels()..][..g.in_pixels()][above * g.in_width..],
            in_width: g.in_width,
            first,
            count: end - first,
            column: 0,
            ahead: &[],
            weights: &args.weights[channel * g.taps()..][..g.taps()],
            bias: args.bias[channel],
            clamp: clamp.unwrap_or(NO_CLAMP),
            rows: count,
            width: g.out_width,
        };
        let at = (row - rows.start) * g.out_width;
        for x in (0..g.out_width).step_by(LANES) {
            let x = x.min(g.out_width.max(LANES) - LANES);
            strip.column = (x * stride).wrapping_sub(g.pad_left);
            let ahead = (plane + 1) * g.in_pixels() + x * g.in_pixels() / g.out_width;
            strip.ahead = if asks { args.input.get(ahead..).unwrap_or_default() } else { &[] };
            compute(&strip, &mut out[at + x..]);
        }
        row += count;
    }
    if clamp.is_none() {
        activate_rest(simd, strips.activate, args.after, out);
    }
}

/// An activation that is no clamp, in place, with one NaN.
#[inline(always)]
fn activate_rest<S: Simd>(simd: S, activate: ActivateInPlaceFn, after: Activation, out: &mut [f32]) {
    let (blocks, rest) = out.as_chunks_mut::<LANES>();
    let mut last = [[0.0; LANES]];
    last[0][..rest.len()].copy_from_slice(rest);
    for blocks in [blocks, &mut last] {
        activate(after, blocks);
        for block in blocks {
            let v = simd.canonical_nan(simd.load(block));
            simd.store(block, v);
        }
    }
    rest.copy_from_slice(&last[0][..rest.len()]);
}

/// The algorithm behind every [`StripFn`]: `LIVE` rows of the output, or a part of the last one, are over a line.
#[inline(always)]
pub(crate) fn strip<S: Simd, const K: usize, const STRIDE: usize, const LIVE: usize>(
    simd: S,
    strip: &Strip<'_>,
    out: &mut [f32],
) {
    const { assert!(LIVE == K.div_ceil(STRIDE)) };
    let Some(taps) = strip.weights.as_chunks::<K>().0.first_chunk::<K>() else { unreachable!("all taps") };
    let mut weights = [[simd.splat(0.0); K]; K];
    unroll!(row < K <= 16, {
        unroll!(t < K <= 16, { weights[row][t] = simd.splat(taps[row][t]) });
    });
    // of each tap, and where a step between lanes is two, of the 16 columns behind these
    let inside = |column: usize| Inside::of(strip.in_width, strip.column.wrapping_add(column));
    let (mut places, mut behind) = ([inside(0); K], [inside(0); K]);
    unroll!(t < K <= 16, { (places[t], behind[t]) = (inside(t), inside(t + LANES)) });
    let (low, high, zero) = strip.clamp;
    let (low, high, zero) = (simd.splat(low), simd.splat(high), simd.splat(zero));
    let bias = simd.splat(strip.bias);
    let mut sums = [simd.splat(0.0); LIVE];
    let mut ahead = strip.ahead.as_chunks().0.iter();
    // A call in the loop would take all registers from the weights: what is less than a block is stored behind it.
    let mut last = bias;
    // Row r ends with line r * STRIDE + K - 1. The first steps are for lines that no row ends with: what they give is stored where
    // row 0 comes to lie.
    for step in 0..strip.rows + LIVE - 1 {
        unroll!(d < STRIDE <= 4, {
            // wraps where the line is above the first one
            let line = (step * STRIDE + K - STRIDE + d).wrapping_sub((LIVE - 1) * STRIDE + strip.first);
            if line < strip.count {
                // as many as a strip is wide
                for block in ahead.by_ref().take(STRIDE) {
                    simd.prefetch(block);
                }
                let line = &strip.lines[line * strip.in_width..][..strip.in_width];
                let mut x = [simd.splat(0.0); K];
                unroll!(t < K <= 16, {
                    if STRIDE == 1 {
                        x[t] = simd.load_inside(line, places[t]);
                    } else if t % 2 == 0 {
                        let next = simd.load_inside(line, behind[t]);
                        let pair = simd.unzip(simd.load_inside(line, places[t]), next);
                        x[t] = pair[0];
                        if t + 1 < K {
                            x[t + 1] = pair[1];
                        }
                    }
                });
                unroll!(t < K <= 16, {
                    unroll!(j < LIVE <= 16, {
                        if K - STRIDE + d >= j * STRIDE {
                            sums[j] = simd.mul_add(x[t], weights[K - STRIDE + d - j * STRIDE][t], sums[j]);
                        }
                    });
                });
            }
        });
        let v = simd.add(simd.clamp(simd.add(sums[0], bias), low, high), zero);
        last = simd.canonical_nan(v);
        let row = (step + 1).saturating_sub(LIVE);
        if let Some(block) = out[row * strip.width..].first_chunk_mut() {
            simd.store(block, last);
        }
        unroll!(j < LIVE <= 16, {
            sums[j] = if j + 1 < LIVE { sums[(j + 1) % LIVE] } else { simd.splat(0.0) };
        });
    }
    let out = &mut out[(strip.rows - 1) * strip.width..];
    if out.len() < LANES {
        let mut block = [0.0; LANES];
        simd.store(&mut block, last);
        out.copy_from_slice(&block[..out.len()]);
    }
}
