//! Means of windows.

use core::array::from_fn;
use core::ops::Range;

use super::{FEW_TAPS, PoolArgs, PoolKind, columns_axis, inner_columns, is_common, rows_axis, taps};
use crate::conv::ConvGeometry;
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

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
pub(super) fn mean_plane<S: Simd>(
    simd: S,
    args: &PoolArgs<'_>,
    plane: &[Block],
    rows: Range<usize>,
    out: &mut [Block],
) {
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
