//! Dense layers: one window that is the whole input, a matrix times a vector.
//!
//! A weight is read once, so the speed is that of where the weights come from. Several output blocks at a time are as many
//! streams that the hardware reads ahead, and as many chains that hide the latency of each other.

use core::slice;

use super::tile::accumulate;
use crate::conv::{ConvArgs, ConvGeometry};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// Computes some output blocks, each of `len` weights, the first of which is `block`: all of `out`, one pixel each.
pub(crate) type DenseFn = fn(args: &ConvArgs<'_>, len: usize, block: usize, out: &mut [&mut [Block]]);

/// Whether the window is the input.
pub(super) fn is_dense(geometry: &ConvGeometry) -> bool {
    let &ConvGeometry { in_height, in_width, pad_top, pad_left, .. } = geometry;
    geometry.kernel == [in_height, in_width]
        && geometry.dilation == [1, 1]
        && (geometry.out_pixels(), pad_top, pad_left) == (1, 0, 0)
}

/// Computes all output blocks, `size` at a time. The last ones may lie over those before and compute some again, to the same
/// bits.
pub(super) fn run(
    (size, function): (usize, DenseFn),
    args: &ConvArgs<'_>,
    blocks: usize,
    out: &mut [&mut [Block]],
) {
    let len = args.weights_per_block();
    for block in (0..blocks).step_by(size) {
        let block = block.min(blocks - size);
        function(args, len, block, &mut out[block..block + size]);
    }
}

/// `N` output blocks, each a chain over input blocks, taps and live lanes, from +0: the order of all direct convolution.
#[inline(always)]
pub(crate) fn blocks<S: Simd, const N: usize>(
    simd: S,
    args: &ConvArgs<'_>,
    len: usize,
    block: usize,
    out: &mut [&mut [Block]],
) {
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &args.weights[(block + j) * len..][..len] });
    let mut sums = [[simd.splat(0.0); N]; 1];
    for (lanes, window) in args.lanes.iter().zip(args.input.chunks_exact(args.geometry.taps())) {
        for x in window {
            let mut tap = weights;
            unroll!(j < N <= 4, { (tap[j], weights[j]) = weights[j].split_at(usize::from(*lanes)) });
            sums = accumulate::<S, 1, N, LANES>(
                simd,
                sums,
                tap,
                #[inline(always)]
                |_| x,
            );
        }
    }
    unroll!(j < N <= 4, { simd.store(&mut out[j][0], sums[0][j]) });
    // one after the other, in a quarter of the code
    for (j, out) in out.iter_mut().enumerate() {
        let sum = [[simd.load(&out[0])]];
        args.epilogue.starting_at(block + j, 1).tail().store(simd, sum, (1, 0), 0, slice::from_mut(out));
    }
}
