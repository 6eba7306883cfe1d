//! Maxima of row-major planes whose columns are joined while they are in registers, without a line.

use core::ops::Range;

use super::{PlainPoolArgs, Rows, check, window_rows};
use crate::LANES;
use crate::conv::ConvGeometry;
use crate::plain::{block_at, block_at_mut, cover};
use crate::pool::PoolKind;
use crate::simd::Simd;

/// The maxima that need no line, and whether these are some.
#[inline(always)]
pub(crate) fn pool_in_registers<S: Simd>(
    simd: S,
    args: &PlainPoolArgs<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) -> bool {
    let Some(kind) = in_registers(&args.geometry).filter(|_| args.kind == PoolKind::Max) else {
        return false;
    };
    check(args, &rows, out);
    for (y, out) in rows.zip(out.chunks_mut(args.geometry.out_width)) {
        let window = window_rows(args, y, 0);
        match kind {
            InRegisters::Three => largest_of_three(simd, &window, out),
            InRegisters::Two => largest_of_two(simd, &window, out),
        }
    }
    true
}

/// Which maxima they are.
#[derive(Clone, Copy)]
enum InRegisters {
    /// Three columns with stride 2, the first one left of the image.
    Three,
    /// Two columns side by side, without a border.
    Two,
}

/// Of windows of three rows at most.
fn in_registers(g: &ConvGeometry) -> Option<InRegisters> {
    let columns = (g.kernel[1], g.stride[1], g.dilation[1], g.pad_left);
    match columns {
        _ if g.kernel[0] > 3 || g.out_width < 2 * LANES => None,
        (3, 2, 1, 1) => (g.in_width == 2 * g.out_width).then_some(InRegisters::Three),
        (2, 1, 1, 0) => (g.in_width == g.out_width + 1).then_some(InRegisters::Two),
        _ => None,
    }
}

/// The largest of the rows of a window, of 16 columns. There are three at most; fewer are some of them again.
#[inline(always)]
fn largest_of_column<S: Simd>(simd: S, rows: &[&[f32]; 3], at: usize) -> S::Vector {
    let [first, second, third] = rows;
    simd.max3(simd.load(block_at(first, at)), simd.load(block_at(second, at)), simd.load(block_at(third, at)))
}

/// The rows of a window of three at most.
#[inline(always)]
fn three_rows<'a>(window: &Rows<'a>, len: usize) -> [&'a [f32]; 3] {
    let last = window.count - 1;
    [window.row(0, len), window.row(last.min(1), len), window.row(last, len)]
}

/// Columns `2 i - 1` to `2 i + 1`.
#[inline(always)]
fn largest_of_three<S: Simd>(simd: S, window: &Rows<'_>, out: &mut [f32]) {
    let len = out.len();
    let rows = three_rows(window, 2 * len);
    let mut before = simd.splat(f32::NEG_INFINITY);
    for at in (0..=len - LANES).step_by(LANES) {
        before = three_columns(simd, &rows, at, before, out);
    }
    if !len.is_multiple_of(LANES) {
        // the last ones, some of them again
        let at = len - LANES;
        three_columns(simd, &rows, at, largest_of_column(simd, &rows, 2 * at - LANES), out);
    }
}

/// 16 outputs from `at` on; gives the odd columns, which one further are those on the left: `before` ends with the one before.
#[inline(always)]
fn three_columns<S: Simd>(
    simd: S,
    rows: &[&[f32]; 3],
    at: usize,
    before: S::Vector,
    out: &mut [f32],
) -> S::Vector {
    let [even, odd] =
        simd.unzip(largest_of_column(simd, rows, 2 * at), largest_of_column(simd, rows, 2 * at + LANES));
    let v = simd.max3(simd.shift_in(before, odd), even, odd);
    simd.store(block_at_mut(out, at), simd.canonical_nan(simd.add(v, simd.splat(0.0))));
    odd
}

#[inline(always)]
fn largest_of_two<S: Simd>(simd: S, window: &Rows<'_>, out: &mut [f32]) {
    let rows = three_rows(window, out.len() + 1);
    cover(
        out.len(),
        #[inline(always)]
        |at| {
            let v = simd.max(largest_of_column(simd, &rows, at), largest_of_column(simd, &rows, at + 1));
            let v = simd.canonical_nan(simd.add(v, simd.splat(0.0)));
            simd.store(block_at_mut(out, at), v);
        },
    );
}
