//! Loops that measure the machine with the instructions that kernels use: the peak of fused multiply-adds, and
//! how fast memory is read and copied. No plan depends on what they find.

use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// The loops of one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct ProbeKernel {
    /// Name of the loop of multiply-adds.
    pub name: &'static str,
    /// Independent chains of the loop of multiply-adds, in blocks.
    pub chains: usize,
    /// `rounds` times `chain += factor * addend` on every chain, in registers. `state` holds factor and addend,
    /// then the chains.
    pub fma_loop: fn(rounds: usize, state: &mut [Block]),
    /// Adds every block to a sum.
    pub read_loop: fn(from: &[Block], sum: &mut Block),
    /// Writes every block elsewhere, through registers: a library's copy might write around the caches, which no
    /// kernel does.
    pub copy_loop: fn(from: &[Block], to: &mut [Block]),
}

impl ProbeKernel {
    /// Floating-point operations of so many rounds: a multiply-add is two.
    pub fn flops(&self, rounds: usize) -> f64 {
        (2 * self.chains * LANES) as f64 * rounds as f64
    }
}

/// See [`ProbeKernel::fma_loop`].
#[inline(always)]
pub(crate) fn fma_loop<S: Simd, const CHAINS: usize>(simd: S, rounds: usize, state: &mut [Block]) {
    assert_eq!(state.len(), 2 + CHAINS, "factor, addend and {CHAINS} chains");
    let factor = simd.load(&state[0]);
    let addend = simd.load(&state[1]);
    let mut chains: [S::Vector; CHAINS] = core::array::from_fn(
        #[inline(always)]
        |chain| simd.load(&state[2 + chain]),
    );
    for _ in 0..rounds {
        for chain in &mut chains {
            *chain = simd.mul_add(factor, addend, *chain);
        }
    }
    for (to, chain) in state[2..].iter_mut().zip(chains) {
        simd.store(to, chain);
    }
}

/// See [`ProbeKernel::read_loop`]. An addition waits up to 4 cycles for its sum while 2 loads start in each: `SUMS` blocks
/// are 8 registers or more. Each sum is of a stream of its own: from memory a core reads several at once faster than one.
#[inline(always)]
pub(crate) fn read_loop<S: Simd, const SUMS: usize>(simd: S, from: &[Block], sum: &mut Block) {
    let mut sums = [simd.splat(0.0); SUMS];
    let length = from.len() / SUMS;
    let (from, rest) = from.split_at(length * SUMS);
    let mut streams: [&[Block]; SUMS] = [&[]; SUMS];
    unroll!(i < SUMS <= 16, { streams[i] = &from[i * length..][..length] });
    #[allow(clippy::needless_range_loop, reason = "one number for several arrays")]
    for at in 0..length {
        unroll!(i < SUMS <= 16, { sums[i] = simd.add(sums[i], simd.load(&streams[i][at])) });
    }
    for block in rest {
        sums[0] = simd.add(sums[0], simd.load(block));
    }
    let mut total = simd.load(sum);
    for part in sums {
        total = simd.add(total, part);
    }
    simd.store(sum, total);
}

/// See [`ProbeKernel::copy_loop`]. Zero is added because the compiler makes a library call of a mere copy.
#[inline(always)]
pub(crate) fn copy_loop<S: Simd>(simd: S, from: &[Block], to: &mut [Block]) {
    assert_eq!(from.len(), to.len(), "as many blocks on both sides");
    let zero = simd.splat(0.0);
    for (from, to) in from.iter().zip(to) {
        let block = simd.add(simd.load(from), zero);
        simd.store(to, block);
    }
}
