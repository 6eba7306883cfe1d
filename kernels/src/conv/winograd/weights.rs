//! The weight transform: one row of T values at a time, from the weights that direct convolution reads.
//!
//! Packing writes all rows of a layer with it; a run that starts from plain weights writes the row it needs next
//! to a scratch in the first-level cache. So the bits are the same.

use crate::conv::winograd::transform::{self, WeightRow};
use crate::simd::Simd;
use crate::{Block, LANES};

/// Transforms one row of one output block for a run of input blocks.
///
/// `plain` is `[input block][tap row][tap column][live lane]`, `u` receives `[column][k]`, `stride` blocks from one
/// column to the next.
pub(crate) type WeightsFn = fn(row: usize, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize);

#[inline(always)]
pub(crate) fn transform<S: Simd, const T: usize, const R: usize>(
    simd: S,
    row: usize,
    plain: &[Block],
    lanes: &[u8],
    u: &mut [Block],
    stride: usize,
) {
    let row = WeightRow::new::<S, T>(simd, row);
    let mut plain = plain;
    let mut k = 0;
    for live in lanes {
        let live = usize::from(*live).min(LANES);
        let (block, rest) = plain.split_at(R * R * live);
        for lane in 0..live {
            let mut values = [simd.splat(0.0); R];
            for (c, value) in values.iter_mut().enumerate() {
                let mut taps = [simd.splat(0.0); R];
                for (r, tap) in taps.iter_mut().enumerate() {
                    *tap = simd.load(&block[(r * R + c) * live + lane]);
                }
                *value = row.apply(simd, &taps);
            }
            for (c, value) in transform::weights::<S, T, R>(simd, &values).iter().enumerate() {
                simd.store(&mut u[c * stride + k + lane], *value);
            }
        }
        plain = rest;
        k += live;
    }
}
