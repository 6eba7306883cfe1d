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

use core::array::from_fn;
use core::ops::Range;

use crate::conv::ConvGeometry;
use crate::simd::{Simd, unroll};
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
    let no_empty_window = |out: usize, extent, axis| (0..out).all(|at| taps(at, extent, axis).1 > 0);
    assert!(no_empty_window(g.out_height, g.in_height, rows_axis(g)), "a window has no row of the image");
    assert!(no_empty_window(g.out_width, g.in_width, columns_axis(g)), "a window has no column of the image");
    pixels.start / g.out_width..pixels.end / g.out_width
}

/// A reduction whose order does not show, into `N` outputs.
trait Reduce<S: Simd, const N: usize>: Copy {
    type Value: Copy;
    fn of(self, simd: S, x: S::Vector) -> Self::Value;
    fn join(self, simd: S, a: Self::Value, b: Self::Value) -> Self::Value;
    fn join3(self, simd: S, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    fn store(self, simd: S, value: Self::Value, at: usize, out: &mut [&mut [Block]; N]);
}

#[derive(Clone, Copy)]
struct Largest;

impl<S: Simd> Reduce<S, 1> for Largest {
    type Value = S::Vector;

    #[inline(always)]
    fn of(self, _simd: S, x: S::Vector) -> S::Vector {
        x
    }

    #[inline(always)]
    fn join(self, simd: S, a: S::Vector, b: S::Vector) -> S::Vector {
        simd.max(a, b)
    }

    #[inline(always)]
    fn join3(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        simd.max3(a, b, c)
    }

    #[inline(always)]
    fn store(self, simd: S, value: S::Vector, at: usize, out: &mut [&mut [Block]; 1]) {
        simd.store(&mut out[0][at], simd.add(value, simd.splat(0.0)));
    }
}

/// The largest and the smallest element: the largest of `x` and of `-x`, from one load.
#[derive(Clone, Copy)]
struct Extremes;

impl<S: Simd> Reduce<S, 2> for Extremes {
    type Value = [S::Vector; 2];

    #[inline(always)]
    fn of(self, _simd: S, x: S::Vector) -> [S::Vector; 2] {
        [x, x]
    }

    #[inline(always)]
    fn join(self, simd: S, a: [S::Vector; 2], b: [S::Vector; 2]) -> [S::Vector; 2] {
        [simd.max(a[0], b[0]), simd.min(a[1], b[1])]
    }

    #[inline(always)]
    fn join3(self, simd: S, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value {
        [simd.max3(a[0], b[0], c[0]), simd.min3(a[1], b[1], c[1])]
    }

    #[inline(always)]
    fn store(self, simd: S, value: [S::Vector; 2], at: usize, out: &mut [&mut [Block]; 2]) {
        simd.store(&mut out[0][at], simd.relu(value[0]));
        simd.store(&mut out[1][at], simd.relu(simd.neg(value[1])));
    }
}

/// One output by its taps.
#[inline(always)]
fn reduce_window<S: Simd, R: Reduce<S, N>, const N: usize>(
    simd: S,
    reduce: R,
    g: &ConvGeometry,
    plane: &[Block],
    (y, x): (usize, usize),
) -> R::Value {
    let (row, rows) = taps(y, g.in_height, rows_axis(g));
    let (column, columns) = taps(x, g.in_width, columns_axis(g));
    let mut value = reduce.of(simd, simd.load(&plane[row * g.in_width + column]));
    for i in 0..rows {
        let taps = plane[(row + i * g.dilation[0]) * g.in_width + column..].iter();
        for tap in taps.step_by(g.dilation[1]).take(columns) {
            value = reduce.join(simd, value, reduce.of(simd, simd.load(tap)));
        }
    }
    value
}

#[inline(always)]
fn reduce_all<S: Simd, R: Reduce<S, N>, const N: usize, const K: usize>(
    simd: S,
    reduce: R,
    values: [R::Value; K],
) -> R::Value {
    let mut value = values[0];
    let mut k = 1;
    while k + 1 < K {
        value = reduce.join3(simd, value, values[k], values[k + 1]);
        k += 2;
    }
    if k < K { reduce.join(simd, value, values[k]) } else { value }
}

/// Element `j` of chunk `i` of each row, reduced.
#[inline(always)]
fn reduce_column<S: Simd, R: Reduce<S, N>, const N: usize, const KH: usize, const STRIDE: usize>(
    simd: S,
    reduce: R,
    rows: &[&[[Block; STRIDE]]; KH],
    (i, j): (usize, usize),
) -> R::Value {
    let mut taps = [reduce.of(simd, simd.load(&rows[0][i][j])); KH];
    for k in 1..KH {
        taps[k] = reduce.of(simd, simd.load(&rows[k][i][j]));
    }
    reduce_all(simd, reduce, taps)
}

/// As many outputs of one row as `range` holds, whose windows of KH x (STRIDE + CARRY) taps lie in the columns:
/// `rows` begin at the first one's first column.
///
/// The taps of a column are reduced first; the last CARRY columns of a window are the first ones of the next.
/// Plain loops throughout: the compiler leaves array maps in a function of this size as calls.
#[inline(always)]
fn reduce_row<
    S: Simd,
    R: Reduce<S, N>,
    const N: usize,
    const KH: usize,
    const STRIDE: usize,
    const CARRY: usize,
>(
    simd: S,
    reduce: R,
    rows: [&[Block]; KH],
    range: Range<usize>,
    out: &mut [&mut [Block]; N],
) {
    let n = range.len();
    let none = reduce.of(simd, simd.splat(0.0));
    let mut carry = [none; CARRY];
    let mut chunks: [&[[Block; STRIDE]]; KH] = [&[]; KH];
    let mut first: [&[[Block; 1]]; KH] = [&[]; KH];
    for k in 0..KH {
        let (start, rest) = rows[k].split_at(CARRY);
        first[k] = start.as_chunks().0;
        chunks[k] = &rest[..n * STRIDE].as_chunks().0[..n];
    }
    for (j, carry) in carry.iter_mut().enumerate() {
        *carry = reduce_column(simd, reduce, &first, (j, 0));
    }
    for i in 0..n {
        let mut new = [none; STRIDE];
        for (j, new) in new.iter_mut().enumerate() {
            *new = reduce_column(simd, reduce, &chunks, (i, j));
        }
        let mut value = reduce_all(simd, reduce, new);
        if CARRY == 2 && STRIDE == 1 {
            value = reduce.join3(simd, carry[0], carry[1], value);
        } else if CARRY == 1 && STRIDE == 2 {
            value = reduce.join3(simd, new[0], new[1], carry[0]);
        } else {
            for &carry in &carry {
                value = reduce.join(simd, value, carry);
            }
        }
        for j in 0..CARRY {
            carry[j] = if j + STRIDE < CARRY { carry[j + STRIDE] } else { new[j + STRIDE - CARRY] };
        }
        reduce.store(simd, value, range.start + i, out);
    }
}

/// The output columns whose windows lie in the image.
fn inner_columns(g: &ConvGeometry) -> Range<usize> {
    let reach = (g.kernel[1] - 1) * g.dilation[1] + 1;
    let end = match (g.in_width + g.pad_left).checked_sub(reach) {
        Some(room) => (room / g.stride[1] + 1).min(g.out_width),
        None => 0,
    };
    g.pad_left.div_ceil(g.stride[1]).min(end)..end
}

/// A row of outputs whose windows lie in the columns, with KH x (STRIDE + CARRY) taps without dilation.
#[inline(always)]
fn reduce_inner<
    S: Simd,
    R: Reduce<S, N>,
    const N: usize,
    const KH: usize,
    const STRIDE: usize,
    const CARRY: usize,
>(
    simd: S,
    reduce: R,
    g: &ConvGeometry,
    plane: &[Block],
    (y, columns): (usize, Range<usize>),
    at: usize,
    out: &mut [&mut [Block]; N],
) {
    // Rows above and below the image are replaced by its nearest, which the window holds as well.
    let column = columns.start * STRIDE - g.pad_left;
    let mut rows: [&[Block]; KH] = [&[]; KH];
    for (k, slot) in rows.iter_mut().enumerate() {
        let row = (y * STRIDE + k).saturating_sub(g.pad_top).min(g.in_height - 1);
        *slot = &plane[row * g.in_width..][column..g.in_width];
    }
    reduce_row::<S, R, N, KH, STRIDE, CARRY>(simd, reduce, rows, at + columns.start..at + columns.end, out);
}

/// The windows that have code of their own.
fn is_common(g: &ConvGeometry) -> bool {
    g.dilation == [1, 1]
        && matches!((g.kernel, g.stride), ([2, 2], [2, 2]) | ([3, 3], [1, 1]) | ([3, 3], [2, 2]))
}

/// Columns whose taps are reduced at a time: 8 KB.
const COLUMNS: usize = 128;

/// One plane, any window: the taps of each column are reduced first, then those columns.
#[inline(always)]
fn reduce_any_plane<S: Simd, R: Reduce<S, N>, const N: usize>(
    simd: S,
    reduce: R,
    g: &ConvGeometry,
    plane: &[Block],
    rows: Range<usize>,
    out: &mut [&mut [Block]; N],
) {
    let reach = (g.kernel[1] - 1) * g.dilation[1] + 1;
    let mut columns = [reduce.of(simd, simd.splat(0.0)); COLUMNS];
    // Outputs whose windows fit in `COLUMNS`.
    let step = if reach <= COLUMNS { (COLUMNS - reach) / g.stride[1] + 1 } else { 0 };
    for (i, y) in rows.enumerate() {
        let at = i * g.out_width;
        if step < 2 {
            for x in 0..g.out_width {
                reduce.store(simd, reduce_window(simd, reduce, g, plane, (y, x)), at + x, out);
            }
            continue;
        }
        let (row, taps_down) = taps(y, g.in_height, rows_axis(g));
        for x in (0..g.out_width).step_by(step) {
            let last = (x + step).min(g.out_width) - 1;
            let start = (x * g.stride[1]).saturating_sub(g.pad_left);
            let end = (last * g.stride[1] + reach).saturating_sub(g.pad_left).min(g.in_width);
            let columns = &mut columns[..end - start];
            let input = &plane[row * g.in_width..];
            for (column, tap) in columns.iter_mut().zip(&input[start..end]) {
                *column = reduce.of(simd, simd.load(tap));
            }
            for k in 1..taps_down {
                let input = &plane[(row + k * g.dilation[0]) * g.in_width..];
                for (column, tap) in columns.iter_mut().zip(&input[start..end]) {
                    *column = reduce.join(simd, *column, reduce.of(simd, simd.load(tap)));
                }
            }
            for x in x..=last {
                let (column, taps_across) = taps(x, g.in_width, columns_axis(g));
                let mut value = columns[column - start];
                for k in 1..taps_across {
                    value = reduce.join(simd, value, columns[column - start + k * g.dilation[1]]);
                }
                reduce.store(simd, value, at + x, out);
            }
        }
    }
}

/// One plane of a reduction whose order does not show: the common windows, and any other.
#[inline(always)]
fn reduce_plane<S: Simd, R: Reduce<S, N>, const N: usize>(
    simd: S,
    reduce: R,
    g: &ConvGeometry,
    plane: &[Block],
    rows: Range<usize>,
    out: &mut [&mut [Block]; N],
) {
    let inner = if S::PLAIN { 0..0 } else { inner_columns(g) };
    if !S::PLAIN && !is_common(g) {
        return reduce_any_plane(simd, reduce, g, plane, rows, out);
    }
    for (i, y) in rows.enumerate() {
        let at = i * g.out_width;
        for x in (0..inner.start).chain(inner.end..g.out_width) {
            reduce.store(simd, reduce_window(simd, reduce, g, plane, (y, x)), at + x, out);
        }
        if inner.is_empty() {
            continue;
        }
        let row = (y, inner.clone());
        match (g.kernel[0], g.stride[0]) {
            (2, _) => reduce_inner::<S, R, N, 2, 2, 0>(simd, reduce, g, plane, row, at, out),
            (_, 1) => reduce_inner::<S, R, N, 3, 1, 2>(simd, reduce, g, plane, row, at, out),
            _ => reduce_inner::<S, R, N, 3, 2, 1>(simd, reduce, g, plane, row, at, out),
        }
    }
}

/// The sum of a window of up to 16 taps.
#[inline(always)]
pub(crate) fn add_rows<S: Simd>(
    simd: S,
    data: &[Block],
    (rows, row_stride): (usize, usize),
    (columns, dilation): (usize, usize),
) -> S::Vector {
    let mut total = simd.splat(0.0);
    for row in 0..rows {
        let mut sum = simd.splat(0.0);
        for column in 0..columns {
            sum = simd.add(sum, simd.load(&data[row * row_stride + column * dilation]));
        }
        total = simd.add(total, sum);
    }
    total
}

/// The sum of a larger window.
#[inline(always)]
fn add_taps<S: Simd>(
    simd: S,
    data: &[Block],
    (rows, row_stride): (usize, usize),
    (columns, dilation): (usize, usize),
) -> S::Vector {
    let mut chains = [[0.0; LANES]; LANES];
    let mut tap = 0;
    for row in 0..rows {
        for column in 0..columns {
            let chain = &mut chains[tap % LANES];
            simd.store(
                chain,
                simd.add(simd.load(chain), simd.load(&data[row * row_stride + column * dilation])),
            );
            tap += 1;
        }
    }
    add_chains(simd, &chains)
}

/// The taps in the image and its border, along one axis; `extent` counts the border.
#[inline(always)]
pub(crate) fn counted(
    at: usize,
    extent: usize,
    (kernel, stride, dilation, _): (usize, usize, usize, usize),
) -> usize {
    taps(at, extent, (kernel, stride, dilation, 0)).1
}

/// By what the sum of a window is divided.
#[inline(always)]
fn divisor(args: &PoolArgs<'_>, (y, x): (usize, usize)) -> f32 {
    let g = &args.geometry;
    let taps = match args.kind {
        PoolKind::AverageWithBorder { pad_bottom, pad_right } => {
            counted(y, g.pad_top + g.in_height + pad_bottom, rows_axis(g))
                * counted(x, g.pad_left + g.in_width + pad_right, columns_axis(g))
        }
        _ => taps(y, g.in_height, rows_axis(g)).1 * taps(x, g.in_width, columns_axis(g)).1,
    };
    taps as f32
}

/// The mean of one window.
#[inline(always)]
fn window_mean<S: Simd>(simd: S, args: &PoolArgs<'_>, plane: &[Block], at: (usize, usize)) -> S::Vector {
    let g = &args.geometry;
    let (row, rows) = taps(at.0, g.in_height, rows_axis(g));
    let (column, columns) = taps(at.1, g.in_width, columns_axis(g));
    let data = &plane[row * g.in_width + column..];
    let (rows, columns) = ((rows, g.dilation[0] * g.in_width), (columns, g.dilation[1]));
    let sum = match g.taps() {
        ..=FEW_TAPS => add_rows(simd, data, rows, columns),
        _ => add_taps(simd, data, rows, columns),
    };
    simd.div(sum, simd.splat(divisor(args, at)))
}

/// `out.len()` means of windows of KH x KW taps that lie in the image, STRIDE apart; `rows` begin at the first
/// one's first column.
#[inline(always)]
fn mean_row<S: Simd, const KH: usize, const KW: usize, const STRIDE: usize>(
    simd: S,
    rows: [&[Block]; KH],
    out: &mut [Block],
) {
    let divisor = simd.splat((KH * KW) as f32);
    let zero = simd.splat(0.0);
    let rows = rows.map(
        #[inline(always)]
        |row| &row[..(out.len() - 1) * STRIDE + KW],
    );
    for (i, out) in out.iter_mut().enumerate() {
        let mut total = zero;
        for row in rows {
            let mut sum = zero;
            for tap in &row[i * STRIDE..][..KW] {
                sum = simd.add(sum, simd.load(tap));
            }
            total = simd.add(total, sum);
        }
        simd.store(out, simd.div(total, divisor));
    }
}

/// A row of means of windows that lie in the image.
#[inline(always)]
fn mean_inner<S: Simd, const KH: usize, const KW: usize, const STRIDE: usize>(
    simd: S,
    g: &ConvGeometry,
    plane: &[Block],
    (row, columns): (usize, Range<usize>),
    out: &mut [Block],
) {
    let column = columns.start * STRIDE - g.pad_left;
    let rows: [&[Block]; KH] = from_fn(
        #[inline(always)]
        |k| &plane[(row + k) * g.in_width..][column..g.in_width],
    );
    mean_row::<S, KH, KW, STRIDE>(simd, rows, &mut out[columns]);
}

/// One plane of means: the common windows, and any other.
#[inline(always)]
fn mean_plane<S: Simd>(simd: S, args: &PoolArgs<'_>, plane: &[Block], rows: Range<usize>, out: &mut [Block]) {
    let g = &args.geometry;
    let inner = if !S::PLAIN && is_common(g) { inner_columns(g) } else { 0..0 };
    for (y, out) in rows.zip(out.chunks_mut(g.out_width)) {
        let (row, rows) = taps(y, g.in_height, rows_axis(g));
        let inner = if rows == g.kernel[0] { inner.clone() } else { 0..0 };
        for x in (0..inner.start).chain(inner.end..g.out_width) {
            simd.store(&mut out[x], window_mean(simd, args, plane, (y, x)));
        }
        if inner.is_empty() {
            continue;
        }
        let row = (row, inner);
        match (g.kernel[0], g.stride[0]) {
            (2, _) => mean_inner::<S, 2, 2, 2>(simd, g, plane, row, out),
            (_, 1) => mean_inner::<S, 3, 3, 1>(simd, g, plane, row, out),
            _ => mean_inner::<S, 3, 3, 2>(simd, g, plane, row, out),
        }
    }
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

/// The algorithm behind `global_pool` of every instruction set.
#[inline(always)]
pub(crate) fn global_pool<S: Simd>(
    simd: S,
    kind: PoolKind,
    width: usize,
    input: &[Block],
    out: &mut [Block],
) {
    if out.is_empty() {
        return;
    }
    let pixels = input.len() / out.len();
    assert!(pixels > 0 && input.len() == pixels * out.len(), "planes of equal size, not empty");
    assert!(width > 0 && pixels.is_multiple_of(width), "no whole rows");
    for (plane, out) in input.chunks_exact(pixels).zip(out) {
        match kind {
            PoolKind::Max => {
                let (chunks, rest) = plane.as_chunks::<4>();
                let mut largest = [simd.load(&plane[0]); 4];
                for chunk in chunks {
                    for (largest, x) in largest.iter_mut().zip(chunk) {
                        *largest = simd.max(*largest, simd.load(x));
                    }
                }
                for x in rest {
                    largest[0] = simd.max(largest[0], simd.load(x));
                }
                let [a, b, c, d] = largest;
                let value = simd.max(simd.max(a, b), simd.max(c, d));
                simd.store(out, simd.add(value, simd.splat(0.0)));
            }
            _ if pixels <= FEW_TAPS => {
                let sum = add_rows(simd, plane, (pixels / width, width), (width, 1));
                simd.store(out, simd.div(sum, simd.splat(pixels as f32)));
            }
            _ => {
                let mut chains = [[0.0; LANES]; LANES];
                for part in plane.chunks(PART) {
                    add_part(simd, part, &mut chains);
                }
                simd.store(out, simd.div(add_chains(simd, &chains), simd.splat(pixels as f32)));
            }
        }
    }
}

/// Pixels of a plane over which the chains of its sum are taken a few at a time: 16 KB, in the first-level cache.
const PART: usize = 256;

/// Adds pixels to the chains of a plane's sum, from the first one on: four chains at a time are in registers.
#[inline(always)]
fn add_part<S: Simd>(simd: S, part: &[Block], chains: &mut [Block; LANES]) {
    const CHAINS: usize = 4;
    let (whole, rest) = part.as_chunks::<LANES>();
    for (four, chains) in chains.as_chunks_mut::<CHAINS>().0.iter_mut().enumerate() {
        let first = four * CHAINS;
        let mut sums = [simd.splat(0.0); CHAINS];
        unroll!(n < CHAINS <= 4, { sums[n] = simd.load(&chains[n]) });
        for pixels in whole {
            unroll!(n < CHAINS <= 4, { sums[n] = simd.add(sums[n], simd.load(&pixels[first + n])) });
        }
        unroll!(n < CHAINS <= 4, {
            if let Some(pixel) = rest.get(first + n) {
                sums[n] = simd.add(sums[n], simd.load(pixel));
            }
            simd.store(&mut chains[n], sums[n]);
        });
    }
}

/// The sum of the 16 chains of a plane's sum, as a tree.
#[inline(always)]
pub(crate) fn add_chains<S: Simd>(simd: S, chains: &[Block; LANES]) -> S::Vector {
    const HALF: usize = LANES / 2;
    let mut sums = [simd.splat(0.0); HALF];
    let mut half = HALF;
    unroll!(i < half of HALF, { sums[i] = simd.add(simd.load(&chains[i]), simd.load(&chains[i + HALF])) });
    half /= 2;
    while half > 0 {
        for i in 0..half {
            sums[i] = simd.add(sums[i], sums[i + half]);
        }
        half /= 2;
    }
    sums[0]
}
