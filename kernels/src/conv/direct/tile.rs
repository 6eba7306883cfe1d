//! A tile of direct convolution: its sums in registers over one chunk of the reduction.

use super::Chunk;
#[cfg(doc)]
use super::places::{OUTSIDE, UNEVEN};
use crate::epilogue::Tail;
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// What a [`RowFn`] computes: one chunk of the reduction, for tiles one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    /// Its weights are those of the first output block.
    pub(super) chunk: Chunk<'a>,
    /// Weights of the chunk, of one output block.
    pub(super) len: usize,
    /// Taps in the image, and those in rows above it.
    pub(super) taps: usize,
    pub(super) skipped: usize,
    /// The weights that are needed next, from the first of the tiles' blocks on: a tile asks for `ahead_step` of each block
    /// at every tap, so that they do not come from memory when they are needed.
    pub(super) ahead: &'a [Block],
    pub(super) ahead_step: usize,
    pub(super) tail: Tail<'a>,
    /// Pixels of an output plane.
    pub(super) plane: usize,
    pub(super) tiles: usize,
    /// The first pixel in the output planes, and in each output slice.
    pub(super) pixel: usize,
    pub(super) at: usize,
}

/// Computes tiles of a fixed number of pixels and output blocks; `out` has one slice per block.
///
/// `places` is where the taps find their input in a plane: for each tile and tap the distance of its pixels there
/// ([`UNEVEN`] where there is no such), and the place of each pixel ([`OUTSIDE`] where it is left or right of the image).
pub(crate) type RowFn = fn(row: &Row<'_>, places: &[u32], out: &mut [&mut [Block]]);

/// The weights that tiles ask for, of each of `N` blocks.
struct Ahead<'a, const N: usize> {
    weights: [&'a [Block]; N],
    step: usize,
}

impl<'a, const N: usize> Ahead<'a, N> {
    #[inline(always)]
    fn of(row: &Row<'a>) -> Self {
        let mut weights: [&[Block]; N] = [&[]; N];
        unroll!(j < N <= 4, {
            weights[j] = row.ahead.get(j * row.chunk.weights_stride..).unwrap_or(&[]);
        });
        Self { weights, step: row.ahead_step }
    }

    /// Asks for the share of one tap: a few at a time, since loads would wait behind many.
    #[inline(always)]
    fn ask<S: Simd>(&mut self, simd: S) {
        // one of each block at a time: a loop over those of a block is unrolled so far that its ends take longer
        let mut step = self.step;
        unroll!(j < N <= 4, { step = step.min(self.weights[j].len()) });
        for _ in 0..step {
            unroll!(j < N <= 4, {
                if let Some((weights, rest)) = self.weights[j].split_first() {
                    simd.prefetch(weights);
                    self.weights[j] = rest;
                }
            });
        }
    }
}

impl Row<'_> {
    /// The sums of the chunks before, which lie in the output from `at` on.
    #[inline(always)]
    fn start<S: Simd, const M: usize, const N: usize, const G: usize>(
        &self,
        simd: S,
        at: usize,
        out: &[&mut [Block]],
    ) -> [[S::Vector; N]; M] {
        let mut sums = [[simd.splat(0.0); N]; M];
        if !self.chunk.first {
            unroll!(j < N <= 4, {
                let out = &out[j][at..][..M];
                unroll!(i < M <= 16, { sums[i][j] = simd.load(&out[i]) });
            });
        }
        // groups have none
        for addend in self.chunk.addends.iter().flatten().filter(|_| G == LANES) {
            unroll!(j < N <= 4, {
                let more = &addend.sums[j * addend.plane + at - addend.at..][..M];
                unroll!(i < M <= 16, { sums[i][j] = simd.add(sums[i][j], simd.load(&more[i])) });
            });
        }
        sums
    }

    /// Stores the sums of the tile `done` pixels after the first, after the last chunk with what follows them.
    #[inline(always)]
    fn end<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        sums: [[S::Vector; N]; M],
        done: usize,
        out: &mut [&mut [Block]],
    ) {
        let at = self.at + done;
        if self.chunk.last {
            return self.tail.store(simd, sums, (self.plane, self.pixel + done), at, out);
        }
        unroll!(j < N <= 4, {
            let out = &mut out[j][at..][..M];
            unroll!(i < M <= 16, { simd.store(&mut out[i], sums[i][j]) });
        });
    }
}

/// No more pixels of a tile have an address each; wider tiles have one address and a distance, since addresses would take the
/// registers that there are on x86. So have small groups, for which finding addresses takes as long as what is done with them.
const ADDRESSES: usize = 8;

/// Stands in for a pixel left or right of the image.
static ZEROS: Block = [0.0; LANES];

/// Tiles of `M` pixels times `N` output blocks. Groups of `G` channels read their own channels of one input block; with
/// `G` 16 all outputs read all inputs.
// Loops over array indices: `map`, `from_fn` and `zip` are not inlined reliably across codegen units.
#[inline(always)]
pub(crate) fn row<S: Simd, const M: usize, const N: usize, const G: usize>(
    simd: S,
    row: &Row<'_>,
    places: &[u32],
    out: &mut [&mut [Block]],
) {
    let chunk = &row.chunk;
    let mut weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { weights[j] = &chunk.weights[j * chunk.weights_stride..][..row.len] });
    let mut ahead = Ahead::<N>::of(row);
    for tile in 0..row.tiles {
        let places = &places[tile * row.taps * (M + 1)..][..row.taps * (M + 1)];
        let at = row.at + tile * M;
        let mut sums = row.start::<S, M, N, G>(simd, at, out);
        let (mut input, mut weights) = (chunk.input, weights);
        for lanes in chunk.lanes {
            let lanes = usize::from(*lanes);
            let plane;
            (plane, input) = input.split_at(chunk.in_plane.min(input.len()));
            let mut taps = weights;
            unroll!(j < N <= 4, {
                taps[j] = &weights[j][row.skipped * lanes..];
                weights[j] = &weights[j][chunk.taps * lanes..];
            });
            for places in places.chunks_exact(M + 1) {
                ahead.ask(simd);
                let mut tap = taps;
                unroll!(j < N <= 4, { (tap[j], taps[j]) = taps[j].split_at(lanes) });
                macro_rules! meet {
                    ($pixel:expr) => {
                        sums = accumulate::<S, M, N, G>(
                            simd,
                            sums,
                            tap,
                            #[inline(always)]
                            $pixel,
                        )
                    };
                }
                if (M > ADDRESSES || G < LANES) && !S::PLAIN && places[0] == 1 {
                    let x = &plane[places[1] as usize..][..M];
                    meet!(|i| &x[i]);
                } else if M > ADDRESSES && !S::PLAIN && places[0] == 2 {
                    let x = &plane[places[1] as usize..][..M * 2 - 1];
                    meet!(|i| &x[i * 2]);
                } else if M <= ADDRESSES {
                    let mut x = [&ZEROS; M];
                    unroll!(i < M <= 16, { x[i] = plane.get(places[i + 1] as usize).unwrap_or(&ZEROS) });
                    meet!(|i| x[i]);
                } else {
                    let mut x = [[0.0; LANES]; M];
                    for (pixel, place) in x.iter_mut().zip(&places[1..]) {
                        *pixel = *plane.get(*place as usize).unwrap_or(&ZEROS);
                    }
                    meet!(|i| &x[i]);
                }
            }
        }
        row.end(simd, sums, tile * M, out);
    }
}

/// What [`row`] computes where every output is of the input at its own place: one address for a tile, and so a third of the
/// instructions around its inner loop.
#[inline(always)]
pub(crate) fn pointwise_row<S: Simd, const M: usize, const N: usize>(
    simd: S,
    row: &Row<'_>,
    places: &[u32],
    out: &mut [&mut [Block]],
) {
    let chunk = &row.chunk;
    let mut all_weights: [&[Block]; N] = [&[]; N];
    unroll!(j < N <= 4, { all_weights[j] = &chunk.weights[j * chunk.weights_stride..][..row.len] });
    let mut ahead = Ahead::<N>::of(row);
    let mut inputs = &chunk.input[places[1] as usize..];
    for tile in 0..row.tiles {
        let mut sums = row.start::<S, M, N, LANES>(simd, row.at + tile * M, out);
        let (mut input, mut weights) = (inputs, all_weights);
        inputs = inputs.get(M..).unwrap_or(&[]);
        for lanes in chunk.lanes {
            ahead.ask(simd);
            let lanes = usize::from(*lanes).min(LANES);
            let x = &input[..M];
            let mut w = weights;
            unroll!(j < N <= 4, { (w[j], weights[j]) = weights[j].split_at(lanes) });
            sums = accumulate::<S, M, N, LANES>(
                simd,
                sums,
                w,
                #[inline(always)]
                |i| &x[i],
            );
            input = input.get(chunk.in_plane..).unwrap_or(&[]);
        }
        row.end(simd, sums, tile * M, out);
    }
}

/// One input block, under one tap or at one Winograd position: row `i` of the tile is `x(i)`, and its first lanes meet the weights,
/// as many as there are.
#[inline(always)]
pub(crate) fn accumulate<'a, S: Simd, const M: usize, const N: usize, const G: usize>(
    simd: S,
    mut sums: [[S::Vector; N]; M],
    weights: [&[Block]; N],
    x: impl Fn(usize) -> &'a Block,
) -> [[S::Vector; N]; M] {
    let mut tap = weights;
    macro_rules! meet {
        ($lane:ident) => {
            let mut w = [simd.splat(0.0); N];
            unroll!(j < N <= 4, { w[j] = simd.load(&tap[j][$lane]) });
            unroll!(i < M <= 16, {
                let x = simd.spread::<G>(x(i), $lane);
                unroll!(j < N <= 4, { sums[i][j] = simd.mul_add(x, w[j], sums[i][j]) });
            });
        };
    }
    // straight code: what spreads a lane depends on it
    if G < LANES && !S::PLAIN {
        unroll!(j < N <= 4, { tap[j] = &weights[j][..G] });
        unroll!(lane < G <= 16, {
            meet!(lane);
        });
        return sums;
    }
    // seen to be inside the block, and of unknown length: small tiles are not unrolled
    let lanes = weights[0].len().min(LANES);
    unroll!(j < N <= 4, { tap[j] = &weights[j][..lanes] });
    #[allow(clippy::needless_range_loop, reason = "one number for two arrays")]
    for lane in 0..lanes {
        meet!(lane);
    }
    sums
}
