//! Means of windows.

use core::array::from_fn;
use core::ops::Range;

use super::{FEW_TAPS, PoolArgs, PoolKind, Window, columns_axis, inner_columns, is_common, rows_axis, taps};
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
pub(crate) fn counted(
    at: usize,
    extent: usize,
    (kernel, stride, dilation, _): (usize, usize, usize, usize),
) -> usize {
    taps(at, extent, (kernel, stride, dilation, 0)).1
}

/// A window, and by what its sum is divided.
#[inline(never)]
fn window(args: &PoolArgs<'_>, (y, x): (usize, usize)) -> (Window, f32) {
    let g = &args.geometry;
    let window = Window::of(g, (y, x));
    let taps = match args.kind {
        PoolKind::AverageWithBorder { pad_bottom, pad_right } => {
            counted(y, g.pad_top + g.in_height + pad_bottom, rows_axis(g))
                * counted(x, g.pad_left + g.in_width + pad_right, columns_axis(g))
        }
        _ => window.rows * window.columns,
    };
    (window, taps as f32)
}

/// The mean of one window.
#[inline(always)]
fn window_mean<S: Simd>(simd: S, args: &PoolArgs<'_>, plane: &[Block], at: (usize, usize)) -> S::Vector {
    let g = &args.geometry;
    let (Window { start, rows, columns }, divisor) = window(args, at);
    let data = &plane[start..];
    let (rows, columns) = ((rows, g.dilation[0] * g.in_width), (columns, g.dilation[1]));
    let sum = match g.taps() {
        ..=FEW_TAPS => add_rows(simd, data, rows, columns),
        _ => add_taps(simd, data, rows, columns),
    };
    simd.div(sum, simd.splat(divisor))
}

/// A row of means of windows of K x K taps that lie in the image.
#[inline(always)]
fn mean_inner<S: Simd, const K: usize>(
    simd: S,
    g: &ConvGeometry,
    plane: &[Block],
    (row, columns): (usize, Range<usize>),
    out: &mut [Block],
) {
    let divisor = simd.splat((K * K) as f32);
    let column = columns.start * g.stride[1] - g.pad_left;
    let rows: [&[Block]; K] = from_fn(
        #[inline(always)]
        |k| &plane[(row + k) * g.in_width..][column..g.in_width],
    );
    for (i, out) in out[columns].iter_mut().enumerate() {
        let mut total = simd.splat(0.0);
        for row in rows {
            let mut sum = simd.splat(0.0);
            for tap in &row[i * g.stride[1]..][..K] {
                sum = simd.add(sum, simd.load(tap));
            }
            total = simd.add(total, sum);
        }
        simd.store(out, simd.div(total, divisor));
    }
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
        match g.kernel[0] {
            2 => mean_inner::<S, 2>(simd, g, plane, row, out),
            _ => mean_inner::<S, 3>(simd, g, plane, row, out),
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
