//! The weight transform: one row of T values at a time, from the weights that direct convolution reads.
//!
//! Packing writes all rows of a layer with it; a run that starts from plain weights writes the row it needs next
//! to a scratch in the first-level cache. So the bits are the same.

use crate::conv::winograd::transform::{self, WeightRow};
use crate::simd::{Simd, unroll};
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
    let mut first = 0;
    let mut k = 0;
    for live in lanes {
        let live = usize::from(*live).min(LANES);
        let block = &plain[first..][..R * R * live];
        for lane in 0..live {
            let mut values = [simd.splat(0.0); R];
            // the branch on the row is inside: it is foreseen, and a loop for each kind of row would be three of them
            match &row {
                WeightRow::Zero(weight) => {
                    unroll!(c < R <= 16, { values[c] = simd.mul(*weight, simd.load(&block[c * live + lane])) });
                }
                WeightRow::Infinity => {
                    let last = &block[R * (R - 1) * live..];
                    unroll!(c < R <= 16, { values[c] = simd.load(&last[c * live + lane]) });
                }
                WeightRow::Pair(pair) => {
                    unroll!(c < R <= 16, {
                        let mut taps = [simd.splat(0.0); R];
                        unroll!(r < R <= 16, { taps[r] = simd.load(&block[(r * R + c) * live + lane]) });
                        values[c] = pair.apply(simd, &taps);
                    });
                }
            }
            let values = transform::weights::<S, T, R>(simd, &values);
            unroll!(c < T <= 16, { simd.store(&mut u[c * stride + k], values[c]) });
            k += 1;
        }
        first += R * R * live;
    }
}
