//! Reductions whose order does not show: the largest element of a window, and MaxMin's two.

use core::ops::Range;

use super::{columns_axis, inner_columns, is_common, rows_axis, taps};
use crate::Block;
use crate::conv::ConvGeometry;
use crate::simd::Simd;

/// A reduction whose order does not show, into `N` outputs.
pub(super) trait Reduce<S: Simd, const N: usize>: Copy {
    type Value: Copy;
    fn of(self, simd: S, x: S::Vector) -> Self::Value;
    fn join(self, simd: S, a: Self::Value, b: Self::Value) -> Self::Value;
    fn join3(self, simd: S, a: Self::Value, b: Self::Value, c: Self::Value) -> Self::Value;
    fn store(self, simd: S, value: Self::Value, at: usize, out: &mut [&mut [Block]; N]);
}

#[derive(Clone, Copy)]
pub(super) struct Largest;

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
pub(super) struct Extremes;

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
    let inner = inner_columns(g);
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
                // divisions at the edges only
                let (column, taps_across) = match inner.contains(&x) {
                    true => (x * g.stride[1] - g.pad_left, g.kernel[1]),
                    false => taps(x, g.in_width, columns_axis(g)),
                };
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
pub(super) fn reduce_plane<S: Simd, R: Reduce<S, N>, const N: usize>(
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
