//! The largest element and the mean of whole planes.

use super::means::{add_chains, add_rows};
use super::{FEW_TAPS, PoolArgs, PoolFn, PoolKind};
use crate::conv::ConvGeometry;
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// Asserts the contract; gives the pixels of a plane.
fn check(width: usize, input: &[Block], out: &[Block]) -> usize {
    let pixels = input.len() / out.len();
    assert!(pixels > 0 && input.len() == pixels * out.len(), "planes of equal size, not empty");
    assert!(width > 0 && pixels.is_multiple_of(width), "no whole rows");
    pixels
}

/// The scalar `global_pool`: a window as large as the plane, by `pool` of the same table.
pub(crate) fn global_pool_as_window(
    pool: PoolFn,
    kind: PoolKind,
    width: usize,
    input: &[Block],
    out: &mut [Block],
) {
    if out.is_empty() {
        return;
    }
    let pixels = check(width, input, out);
    let size = [pixels / width, width];
    let geometry = ConvGeometry {
        in_height: size[0],
        in_width: width,
        out_height: 1,
        out_width: 1,
        kernel: size,
        ..ConvGeometry::ONE_PIXEL
    };
    let kind = if kind == PoolKind::Max { kind } else { PoolKind::Average };
    for (plane, out) in input.chunks_exact(pixels).zip(out) {
        pool(&PoolArgs { geometry, kind, input: plane }, 0..1, &mut [core::slice::from_mut(out)]);
    }
}

/// The algorithm behind `global_pool` of every other instruction set.
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
    let pixels = check(width, input, out);
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
