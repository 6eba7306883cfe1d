//! Pools of row-major planes: lanes are neighbouring outputs.
//!
//! ```text
//! line          . x x x x x x x x .      columns under some outputs of a row: the image's, the border's around them
//! stride 1      tap k of outputs i .. i + 16 is columns i + k .. i + k + 16
//! stride 2      columns 2 i + k .. 2 i + k + 32, of which the even ones are tap k and the odd ones tap k + 1
//! ```
//!
//! A maximum takes the rows of its windows together first, then the columns. A mean adds each row of its windows up from
//! left to right, then these sums, as on blocks. The border holds what changes no result: -infinity for a maximum, +0 for
//! a sum, which is never -0. Some lines are filled before the first is read: a load that reaches over two stores waits
//! until both have left the store buffer.

mod in_registers;

use core::ops::Range;

pub(crate) use self::in_registers::pool_in_registers;
use super::{block_at, block_at_mut, cover};
use crate::LANES;
use crate::conv::ConvGeometry;
use crate::pool::{FEW_TAPS, PoolKind, columns_axis, counted, rows_axis, taps};
use crate::simd::Simd;

/// Output rows `rows`, counted over all planes: `out` holds these.
pub type PlainPoolFn = fn(args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]);

/// What [`PlainPoolFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct PlainPoolArgs<'a> {
    /// The sizes, which [`supports`] accepts.
    pub geometry: ConvGeometry,
    /// What is taken of a window.
    pub kind: PoolKind,
    /// Whole planes.
    pub input: &'a [f32],
}

/// The largest distance of outputs in a row of the input.
const MAX_STRIDE: usize = 2;
/// The largest window, with its dilation.
const MAX_REACH: usize = 32;
/// Outputs of a row at a time.
const OUTPUTS: usize = 128;
/// Columns under that many outputs, in whole blocks.
const LINE: usize = OUTPUTS * MAX_STRIDE + MAX_REACH;
/// Lines that are filled before the first is read: the rows of a window, or some rows' maxima.
const LINES: usize = 8;

/// Whether the windows are small enough for the lines, and means are sums by rows.
pub fn supports(kind: PoolKind, kernel: [usize; 2], stride: [usize; 2], dilation: [usize; 2]) -> bool {
    if kind != PoolKind::Max && kernel[0].saturating_mul(kernel[1]) > FEW_TAPS {
        return false;
    }
    let reach = (kernel[1] - 1).saturating_mul(dilation[1]).saturating_add(1);
    stride[1] <= MAX_STRIDE && reach <= MAX_REACH && kernel[0] <= LINES
}

/// Asserts the contract.
pub(super) fn check(args: &PlainPoolArgs<'_>, rows: &Range<usize>, out: &[f32]) {
    let g = &args.geometry;
    assert!(supports(args.kind, g.kernel, g.stride, g.dilation), "windows that are too large");
    assert_eq!(out.len(), rows.len() * g.out_width, "the output is not these rows");
    assert!(args.input.len() >= rows.end.div_ceil(g.out_height) * g.in_pixels(), "the input is short");
    let no_empty_window = |out: usize, extent, axis| (0..out).all(|at| taps(at, extent, axis).1 > 0);
    assert!(no_empty_window(g.out_height, g.in_height, rows_axis(g)), "a window has no row of the image");
    assert!(no_empty_window(g.out_width, g.in_width, columns_axis(g)), "a window has no column of the image");
}

/// The image's columns under some outputs of a row, and where they begin in a line.
#[inline(never)]
fn columns(g: &ConvGeometry, first: usize, outputs: usize) -> (Range<usize>, usize) {
    let start = first * g.stride[1];
    let end = start + (outputs - 1) * g.stride[1] + (g.kernel[1] - 1) * g.dilation[1] + 1;
    let from = start.saturating_sub(g.pad_left).min(g.in_width);
    let to = end.saturating_sub(g.pad_left).clamp(from, g.in_width);
    (from..to, g.pad_left.saturating_sub(start))
}

/// By what the sum of a window is divided, along one axis: taps in the image, or in its border as well.
pub(super) fn divisor(kind: PoolKind, g: &ConvGeometry, at: usize, axis: usize) -> usize {
    let (extent, before, which) = match axis {
        0 => (g.in_height, g.pad_top, rows_axis(g)),
        _ => (g.in_width, g.pad_left, columns_axis(g)),
    };
    match kind {
        PoolKind::AverageWithBorder { pad_bottom, pad_right } => {
            counted(at, before + extent + if axis == 0 { pad_bottom } else { pad_right }, which)
        }
        _ => taps(at, extent, which).1,
    }
}

/// The algorithm behind every [`PlainPoolFn`] but the scalar one.
#[inline(always)]
pub(crate) fn pool<S: Simd>(simd: S, args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]) {
    let g = &args.geometry;
    if out.is_empty() {
        return;
    }
    check(args, &rows, out);
    let max = args.kind == PoolKind::Max;
    if max && pool_in_registers(simd, args, rows.clone(), out) {
        return;
    }
    for first in (0..g.out_width).step_by(OUTPUTS) {
        let outputs = first..g.out_width.min(first + OUTPUTS);
        let (columns, lead) = columns(g, first, outputs.len());
        let mut lines = [[if max { f32::NEG_INFINITY } else { 0.0 }; LINE]; LINES];
        let image_of = lead..lead + columns.len();
        let mut divisors = [1.0; OUTPUTS];
        if !max {
            for (x, to) in outputs.clone().zip(&mut divisors) {
                *to = divisor(args.kind, g, x, 1) as f32;
            }
        }
        let mut y = rows.start;
        for out in out.chunks_mut(LINES * g.out_width) {
            for (line, out) in out.chunks_mut(g.out_width).enumerate() {
                let window = window_rows(args, y, columns.start);
                if max {
                    largest_of_rows(simd, &window, &mut lines[line][image_of.clone()]);
                } else {
                    for (k, line) in lines[..window.count].iter_mut().enumerate() {
                        line[image_of.clone()].copy_from_slice(window.row(k, columns.len()));
                    }
                    let divisor = divisor(args.kind, g, y % g.out_height, 0) as f32;
                    means(simd, g, &lines[..window.count], (&divisors, divisor), &mut out[outputs.clone()]);
                }
                y += 1;
            }
            if max {
                for (line, out) in lines.iter().zip(out.chunks_mut(g.out_width)) {
                    largest_of_columns(simd, g, line, &mut out[outputs.clone()]);
                }
            }
        }
    }
}

/// The rows of the windows of an output row.
struct Rows<'a> {
    taps: &'a [f32],
    count: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn row(&self, k: usize, len: usize) -> &'a [f32] {
        &self.taps[k * self.stride..][..len]
    }
}

/// Those of output row `y`, counted over all planes, from column `column` on.
#[inline(always)]
fn window_rows<'a>(args: &PlainPoolArgs<'a>, y: usize, column: usize) -> Rows<'a> {
    let g = &args.geometry;
    let (plane, y) = (y / g.out_height, y % g.out_height);
    let image = &args.input[plane * g.in_pixels()..][..g.in_pixels()];
    let (top, count) = taps(y, g.in_height, rows_axis(g));
    Rows { taps: &image[top * g.in_width + column..], count, stride: g.dilation[0] * g.in_width }
}

/// The largest of each column of some rows, to `line`.
#[inline(always)]
fn largest_of_rows<S: Simd>(simd: S, rows: &Rows<'_>, line: &mut [f32]) {
    match rows.count {
        2 if line.len() >= LANES => largest_of_few_rows::<S, 2>(simd, rows, line),
        3 if line.len() >= LANES => largest_of_few_rows::<S, 3>(simd, rows, line),
        _ => {
            for (block, line) in line.chunks_mut(LANES).enumerate() {
                let (mut largest, mut tap) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
                for k in 0..rows.count {
                    let row = &rows.row(k, block * LANES + line.len())[block * LANES..];
                    tap[..line.len()].copy_from_slice(row);
                    let v = simd.max(simd.load(&largest), simd.load(&tap));
                    simd.store(&mut largest, v);
                }
                line.copy_from_slice(&largest[..line.len()]);
            }
        }
    }
}

#[inline(always)]
fn largest_of_few_rows<S: Simd, const ROWS: usize>(simd: S, rows: &Rows<'_>, line: &mut [f32]) {
    let len = line.len();
    let mut row: [&[f32]; ROWS] = [&[]; ROWS];
    for (k, row) in row.iter_mut().enumerate() {
        *row = rows.row(k, len);
    }
    cover(
        len,
        #[inline(always)]
        |at| {
            let mut v = simd.load(block_at(row[0], at));
            if ROWS == 2 {
                v = simd.max(v, simd.load(block_at(row[1], at)));
            }
            if ROWS == 3 {
                v = simd.max3(v, simd.load(block_at(row[1], at)), simd.load(block_at(row[2], at)));
            }
            simd.store(block_at_mut(line, at), v);
        },
    );
}

/// What the columns of a window are reduced to.
trait Reduce<S: Simd>: Copy {
    fn join(self, simd: S, a: S::Vector, b: S::Vector) -> S::Vector;
    fn join3(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector;
}

#[derive(Clone, Copy)]
struct Largest;

impl<S: Simd> Reduce<S> for Largest {
    #[inline(always)]
    fn join(self, simd: S, a: S::Vector, b: S::Vector) -> S::Vector {
        simd.max(a, b)
    }

    #[inline(always)]
    fn join3(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        simd.max3(a, b, c)
    }
}

/// From left to right. The first tap stands for the sum of +0 and it: that differs for -0 only, and only where all taps
/// are -0; the sum of the rows, which starts from +0, does not show it.
#[derive(Clone, Copy)]
struct Sum;

impl<S: Simd> Reduce<S> for Sum {
    #[inline(always)]
    fn join(self, simd: S, a: S::Vector, b: S::Vector) -> S::Vector {
        simd.add(a, b)
    }

    #[inline(always)]
    fn join3(self, simd: S, a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector {
        simd.add(simd.add(a, b), c)
    }
}

/// How the columns of a window lie.
trait Columns<S: Simd>: Copy {
    /// The taps of the 16 outputs from `at` on, from left to right, reduced.
    fn reduce<R: Reduce<S>>(self, simd: S, reduce: R, line: &[f32; LINE], at: usize) -> S::Vector;
}

/// Two or three neighbours.
#[derive(Clone, Copy)]
struct Few<const TAPS: usize, const STRIDE: usize>;

/// Columns that `Few` reads for 16 outputs, in whole blocks.
const REACH: usize = 3 * LANES;

impl<S: Simd, const TAPS: usize, const STRIDE: usize> Columns<S> for Few<TAPS, STRIDE> {
    #[inline(always)]
    fn reduce<R: Reduce<S>>(self, simd: S, reduce: R, line: &[f32; LINE], at: usize) -> S::Vector {
        let Some(line) = line[at * STRIDE..].first_chunk::<REACH>() else { unreachable!("a line is longer") };
        let load = |k: usize| simd.load(block_at(line, k));
        let [first, second] = if STRIDE == 1 { [load(0), load(1)] } else { simd.unzip(load(0), load(LANES)) };
        if TAPS == 2 {
            return reduce.join(simd, first, second);
        }
        let third = if STRIDE == 1 { load(2) } else { simd.unzip(load(2), load(2 + LANES))[0] };
        reduce.join3(simd, first, second, third)
    }
}

/// Any.
#[derive(Clone, Copy)]
struct Any {
    taps: usize,
    stride: usize,
    dilation: usize,
}

impl Any {
    fn of(g: &ConvGeometry) -> Self {
        Self { taps: g.kernel[1], stride: g.stride[1], dilation: g.dilation[1] }
    }
}

impl<S: Simd> Columns<S> for Any {
    #[inline(always)]
    fn reduce<R: Reduce<S>>(self, simd: S, reduce: R, line: &[f32; LINE], at: usize) -> S::Vector {
        let mut value = simd.splat(0.0);
        for k in 0..self.taps {
            let from = at * self.stride + k * self.dilation;
            let mut tap = simd.load(block_at(line, from));
            if self.stride == 2 {
                tap = simd.unzip(tap, simd.load(block_at(line, from + LANES)))[0];
            }
            value = if k == 0 { tap } else { reduce.join(simd, value, tap) };
        }
        value
    }
}

/// Stores what `f` gives for each block of outputs.
#[inline(always)]
fn store_outputs<S: Simd>(simd: S, out: &mut [f32], f: impl Fn(usize) -> S::Vector) {
    let len = out.len();
    let mut block = [0.0; LANES];
    let target = if len < LANES { &mut block[..] } else { &mut *out };
    cover(
        target.len(),
        #[inline(always)]
        |at| simd.store(block_at_mut(target, at), simd.canonical_nan(f(at))),
    );
    if len < LANES {
        out.copy_from_slice(&block[..len]);
    }
}

/// The largest of the columns of each window.
#[inline(always)]
fn largest_of_columns<S: Simd>(simd: S, g: &ConvGeometry, line: &[f32; LINE], out: &mut [f32]) {
    match (g.kernel[1], g.stride[1], g.dilation[1]) {
        (3, 1, 1) => largest_of(simd, line, out, Few::<3, 1>),
        (2, 2, 1) => largest_of(simd, line, out, Few::<2, 2>),
        (3, 2, 1) => largest_of(simd, line, out, Few::<3, 2>),
        _ => largest_of(simd, line, out, Any::of(g)),
    }
}

#[inline(always)]
fn largest_of<S: Simd>(simd: S, line: &[f32; LINE], out: &mut [f32], columns: impl Columns<S>) {
    store_outputs(
        simd,
        out,
        #[inline(always)]
        |at| simd.add(columns.reduce(simd, Largest, line, at), simd.splat(0.0)),
    );
}

/// The means of one row of windows, whose rows are `lines`.
#[inline(always)]
fn means<S: Simd>(
    simd: S,
    g: &ConvGeometry,
    lines: &[[f32; LINE]],
    (divisors, divisor): (&[f32; OUTPUTS], f32),
    out: &mut [f32],
) {
    let columns = Any::of(g);
    let divisor = simd.splat(divisor);
    store_outputs(
        simd,
        out,
        #[inline(always)]
        |at| {
            let mut total = simd.splat(0.0);
            for line in lines {
                total = simd.add(total, columns.reduce(simd, Sum, line, at));
            }
            simd.div(total, simd.mul(simd.load(block_at(divisors, at)), divisor))
        },
    );
}
