//! One element at a time: the scalar path on row-major maps.

use core::ops::Range;

use super::depthwise::PlainDepthwiseArgs;
use super::pool::{PlainPoolArgs, check, divisor};
use super::{PlainAddend, PlainGlobalArgs, PlainScaleArgs};
use crate::elementwise::ActivateInPlaceFn;
use crate::math::canonical_nan;
use crate::pool::{FEW_TAPS, PoolKind, columns_axis, rows_axis, taps};
use crate::simd::Simd;
use crate::{Block, LANES};

/// The scalar [`super::PlainScaleFn`].
#[inline(always)]
pub(crate) fn scale<S: Simd<Vector = [f32; 1]>>(
    simd: S,
    activate: ActivateInPlaceFn,
    args: &PlainScaleArgs<'_>,
    first: usize,
    out: &mut [f32],
) {
    let mut at = first;
    for out in out.chunks_mut(LANES) {
        let mut values = [0.0; LANES];
        for value in &mut values[..out.len()] {
            let channel = at / args.plane;
            let (x, scale) = (args.input[at], args.scale[channel]);
            let addend = match args.addend {
                PlainAddend::Nothing => None,
                PlainAddend::Channel(shift) => Some(shift[channel]),
                PlainAddend::Map(map) => Some(map[at]),
            };
            [*value] = match addend {
                Some(addend) => simd.mul_add([x], [scale], [addend]),
                None => simd.mul([x], [scale]),
            };
            at += 1;
        }
        activate(args.after, core::slice::from_mut(&mut values));
        out.copy_from_slice(&values.map(canonical_nan)[..out.len()]);
    }
}

/// The scalar [`super::depthwise::PlainDepthwiseFn`].
#[inline(always)]
pub(crate) fn depthwise<S: Simd<Vector = [f32; 1]>>(
    simd: S,
    activate: ActivateInPlaceFn,
    args: &PlainDepthwiseArgs<'_>,
    rows: Range<usize>,
    out: &mut [f32],
) {
    args.check(&rows, out);
    let g = &args.geometry;
    let mut at = rows.start * g.out_width;
    for out in out.chunks_mut(LANES) {
        let mut values = [0.0; LANES];
        for value in &mut values[..out.len()] {
            let (plane, pixel) = (at / g.out_pixels(), at % g.out_pixels());
            let (y, x) = (pixel / g.out_width, pixel % g.out_width);
            let input = &args.input[plane * g.in_pixels()..][..g.in_pixels()];
            let weights = &args.weights[plane % args.channels * g.taps()..][..g.taps()];
            let mut sum = [0.0];
            for tap_row in g.tap_rows(y) {
                let row = &input[(y * g.stride[0] + tap_row - g.pad_top) * g.in_width..][..g.in_width];
                for (tap, &w) in weights[tap_row * g.kernel[1]..][..g.kernel[1]].iter().enumerate() {
                    let x = row.get((x * g.stride[1] + tap).wrapping_sub(g.pad_left)).copied();
                    sum = simd.mul_add([x.unwrap_or(0.0)], [w], sum);
                }
            }
            [*value] = simd.add(sum, [args.bias[plane % args.channels]]);
            at += 1;
        }
        activate(args.after, core::slice::from_mut(&mut values));
        out.copy_from_slice(&values.map(canonical_nan)[..out.len()]);
    }
}

/// The scalar [`super::PlainGlobalFn`].
pub(crate) fn global_pool(args: &PlainGlobalArgs<'_>, out: &mut [Block]) {
    args.check(out);
    for (planes, out) in args.input.chunks(LANES * args.plane).zip(out) {
        *out = [0.0; LANES];
        for (plane, out) in planes.chunks_exact(args.plane).zip(out) {
            *out = match args.kind {
                PoolKind::Max => plane.iter().copied().fold(f32::NEG_INFINITY, larger) + 0.0,
                _ => sum(plane, args.width) / plane.len() as f32,
            };
        }
    }
}

/// The sum of a plane, in the order of `pool.rs`.
fn sum(plane: &[f32], width: usize) -> f32 {
    let add = |sum: f32, x: &f32| sum + x;
    if plane.len() <= FEW_TAPS {
        return plane.chunks(width).map(|row| row.iter().fold(0.0, add)).fold(0.0, |sum, row| sum + row);
    }
    let mut chains = [0.0; LANES];
    for part in plane.chunks(LANES) {
        for (chain, x) in chains.iter_mut().zip(part) {
            *chain += x;
        }
    }
    for distance in [8, 4, 2, 1] {
        for lane in 0..distance {
            chains[lane] += chains[lane + distance];
        }
    }
    chains[0]
}

/// As [`Simd::max`].
fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

/// The scalar [`super::pool::PlainPoolFn`].
pub(crate) fn pool(args: &PlainPoolArgs<'_>, rows: Range<usize>, out: &mut [f32]) {
    let g = &args.geometry;
    if out.is_empty() {
        return;
    }
    check(args, &rows, out);
    for (row, out) in rows.zip(out.chunks_mut(g.out_width)) {
        let image = &args.input[row / g.out_height * g.in_pixels()..][..g.in_pixels()];
        let y = row % g.out_height;
        let (top, down) = taps(y, g.in_height, rows_axis(g));
        for (x, out) in out.iter_mut().enumerate() {
            let (left, across) = taps(x, g.in_width, columns_axis(g));
            let (mut largest, mut total) = (f32::NEG_INFINITY, 0.0);
            for k in 0..down {
                let row = &image[(top + k * g.dilation[0]) * g.in_width..][..g.in_width];
                let mut sum = 0.0;
                for &tap in row[left..].iter().step_by(g.dilation[1]).take(across) {
                    largest = larger(largest, tap);
                    sum += tap;
                }
                total += sum;
            }
            *out = canonical_nan(match args.kind {
                PoolKind::Max => largest + 0.0,
                _ => total / (divisor(args.kind, g, x, 1) * divisor(args.kind, g, y, 0)) as f32,
            });
        }
    }
}
