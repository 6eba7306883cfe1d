//! Pooling: the largest element or the mean of a window, of a whole plane, and MaxMin with a pool behind it.
//!
//! ```text
//! input     [block][in_height][in_width][16]     starting at the first block that is computed
//! out       one slice per block, each whole output rows, [pixel][16]
//! ```
//!
//! - Maximum: NaN where a tap is NaN, +0 for a zero. The order of the taps does not show.
//! - Mean of a window of up to 16 taps: each row of the window is summed from left to right, starting from +0; the row sums
//!   are added from top to bottom, starting from +0; one true division by the number of taps.
//! - Mean of a larger window: 16 chains, each starting from +0; tap `i` of those in the image, row by row, is added to chain
//!   `i % 16`. Then chain `j` takes chain `j + 8`, `j + 4`, `j + 2`, `j + 1`; one true division. So 16 neighbours are
//!   16 independent additions, in blocks and in row-major planes.
//! - A plane's mean is that of a window as large as the plane, bit for bit.
//! - Every window must hold a tap of the image.

mod extrema;
mod global;
mod means;

use core::ops::Range;

use self::extrema::{Extremes, Largest, reduce_plane};
pub(crate) use self::global::{global_pool, global_pool_as_window};
use self::means::mean_plane;
pub(crate) use self::means::{add_chains, add_rows, counted};
use crate::conv::ConvGeometry;
use crate::simd::Simd;
use crate::{Block, LANES};

/// `out = pool(input)`, or, for `maxmin_pool`, the same of two outputs: the slices of `relu(x)`, then those of
/// `relu(-x)`.
pub type PoolFn = fn(args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]);
/// One block per plane: `input` holds `out.len()` planes of equal size, in rows of `width`.
pub type GlobalPoolFn = fn(kind: PoolKind, width: usize, input: &[Block], out: &mut [Block]);

/// A window of no more taps is summed by rows, a larger one in chains.
pub(crate) const FEW_TAPS: usize = LANES;

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// The mean of the taps that lie in the image.
    Average,
    /// The sum of the taps that lie in the image, divided by the number of taps in the image and its border.
    AverageWithBorder {
        /// Rows of the border below the image; those above are the geometry's.
        pad_bottom: usize,
        /// Columns of the border on the right.
        pad_right: usize,
    },
}

/// What [`PoolFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct PoolArgs<'a> {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// Ignored by MaxMin.
    pub kind: PoolKind,
    /// `[block][pixel]`.
    pub input: &'a [Block],
}

/// The taps of one axis that lie in the image, for output `at`: their first index in the image and their number.
#[inline(always)]
pub(crate) fn taps(at: usize, extent: usize, axis: (usize, usize, usize, usize)) -> (usize, usize) {
    let (kernel, stride, dilation, pad) = axis;
    let first = (at * stride) as isize - pad as isize;
    let skipped = if first < 0 { first.unsigned_abs().div_ceil(dilation) } else { 0 };
    let start = (first + (skipped * dilation) as isize) as usize;
    if skipped >= kernel || start >= extent {
        return (start, 0);
    }
    (start, (kernel - skipped).min((extent - start).div_ceil(dilation)))
}

pub(crate) fn rows_axis(g: &ConvGeometry) -> (usize, usize, usize, usize) {
    (g.kernel[0], g.stride[0], g.dilation[0], g.pad_top)
}

pub(crate) fn columns_axis(g: &ConvGeometry) -> (usize, usize, usize, usize) {
    (g.kernel[1], g.stride[1], g.dilation[1], g.pad_left)
}

/// Asserts the contract; gives the output rows that `pixels` are.
fn check(args: &PoolArgs<'_>, pixels: &Range<usize>, planes: usize, out: &[&mut [Block]]) -> Range<usize> {
    let g = &args.geometry;
    assert!(args.input.len() >= planes * g.in_pixels(), "the input is short");
    assert!(pixels.start <= pixels.end && pixels.end <= g.out_pixels(), "pixels beyond the output");
    for out in out {
        assert_eq!(out.len(), pixels.len(), "an output slice is not as long as the range of pixels");
    }
    if pixels.is_empty() {
        return 0..0;
    }
    let whole_rows = |at: usize| at.is_multiple_of(g.out_width);
    assert!(whole_rows(pixels.start) && whole_rows(pixels.end), "pixels are no whole rows");
    // taps side by side leave the image at its ends only
    let no_empty_window = |out: usize, extent, axis: (usize, usize, usize, usize)| {
        let step = if axis.2 == 1 { out.max(2) - 1 } else { 1 };
        (0..out).step_by(step).all(|at| taps(at, extent, axis).1 > 0)
    };
    assert!(no_empty_window(g.out_height, g.in_height, rows_axis(g)), "a window has no row of the image");
    assert!(no_empty_window(g.out_width, g.in_width, columns_axis(g)), "a window has no column of the image");
    pixels.start / g.out_width..pixels.end / g.out_width
}

/// The output columns whose windows lie in the image.
#[inline(never)]
fn inner_columns(g: &ConvGeometry) -> Range<usize> {
    let reach = (g.kernel[1] - 1) * g.dilation[1] + 1;
    let end = match (g.in_width + g.pad_left).checked_sub(reach) {
        Some(room) => (room / g.stride[1] + 1).min(g.out_width),
        None => 0,
    };
    g.pad_left.div_ceil(g.stride[1]).min(end)..end
}

/// The windows that have code of their own.
fn is_common(g: &ConvGeometry) -> bool {
    g.dilation == [1, 1]
        && matches!((g.kernel, g.stride), ([2, 2], [2, 2]) | ([3, 3], [1, 1]) | ([3, 3], [2, 2]))
}

/// The algorithm behind `pool` of every instruction set.
#[inline(always)]
pub(crate) fn pool<S: Simd>(simd: S, args: &PoolArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]) {
    let rows = check(args, &pixels, out.len(), out);
    let g = &args.geometry;
    for (block, out) in out.iter_mut().enumerate() {
        let plane = &args.input[block * g.in_pixels()..][..g.in_pixels()];
        let rows = rows.clone();
        if args.kind == PoolKind::Max {
            reduce_plane(simd, Largest, g, plane, rows, &mut [&mut **out]);
            continue;
        }
        mean_plane(simd, args, plane, rows, out);
    }
}

/// The algorithm behind `maxmin_pool` of every instruction set: `relu(max)` to the first half of the slices,
/// `relu(-min)` to the second: the max pool of MaxMin's two halves, from one sweep over the map before them.
#[inline(always)]
pub(crate) fn maxmin_pool<S: Simd>(
    simd: S,
    args: &PoolArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
) {
    assert!(out.len().is_multiple_of(2), "two output slices per block");
    let rows = check(args, &pixels, out.len() / 2, out);
    let g = &args.geometry;
    let (positive, negative) = out.split_at_mut(out.len() / 2);
    for (block, (positive, negative)) in positive.iter_mut().zip(negative).enumerate() {
        let plane = &args.input[block * g.in_pixels()..][..g.in_pixels()];
        reduce_plane(simd, Extremes, g, plane, rows.clone(), &mut [&mut **positive, &mut **negative]);
    }
}
