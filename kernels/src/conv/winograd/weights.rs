//! The weight transform: one row of T values at a time, from the weights that direct convolution reads.
//!
//! Packing writes all rows of a layer with it; a run that starts from plain weights writes the row it needs next
//! to a scratch in the first-level cache. So the bits are the same.

use crate::conv::live;
use crate::conv::winograd::WinogradTile;
use crate::conv::winograd::transform::{self, Domain, STRIDED, WeightRow};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// One of the rows of a tile's transformed weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) tile: WinogradTile,
    pub(crate) index: usize,
}

impl Row {
    /// Whether weights of this domain and kernel are packed as a rule: a run starts from plain ones of small tiles with
    /// stride 1. The others have code for all sizes.
    pub(crate) const fn is_packed(domain: usize, kernel: usize) -> bool {
        domain == STRIDED || domain > 6 || kernel > 3
    }
}

/// Transforms one row of one output block for a run of input blocks.
///
/// `plain` is `[input block][tap row][tap column][live lane]`, `u` receives `[column][k]`, `stride` blocks from one
/// column to the next.
pub(crate) type WeightsFn = fn(row: &Row, plain: &[Block], lanes: &[u8], u: &mut [Block], stride: usize);

/// `T` and `R` are the sizes of the domain and of the kernel, or the largest ones; `taps` is the kernel's.
#[inline(always)]
pub(crate) fn transform<S: Simd, const T: usize, const R: usize>(
    simd: S,
    (domain, taps): (&Domain, usize),
    row: &Row,
    plain: &[Block],
    lanes: &[u8],
    u: &mut [Block],
    stride: usize,
) {
    let size = domain.weights_size;
    assert!(size <= T && taps <= R, "room for the tile");
    let index = row.index;
    let row = WeightRow::new(simd, domain, taps, index);
    // as many weights of what follows as this row's share of them
    let mut ahead =
        plain[taps * taps * live(lanes)..].get(index * taps * taps * live(lanes) / size..).unwrap_or(&[]);
    let share = (taps * taps).div_ceil(size);
    let mut first = 0;
    let mut k = 0;
    for live in lanes {
        let live = usize::from(*live).min(LANES);
        let block = &plain[first..][..taps * taps * live];
        for lane in 0..live {
            let asked;
            (asked, ahead) = ahead.split_at(share.min(ahead.len()));
            for weights in asked {
                simd.prefetch(weights);
            }
            let mut values = [simd.splat(0.0); R];
            // the branch on the row is inside: it is foreseen, and a loop for each kind of row would be two of them
            match &row {
                WeightRow::Single { tap, weight } => {
                    let row = &block[tap * taps * live..];
                    unroll!(c < taps of R, { values[c] = simd.mul(*weight, simd.load(&row[c * live + lane])) });
                }
                WeightRow::Sum => unroll!(c < taps of R, {
                    let [first, last] = [0, (taps - 1) * taps * live].map(
                        #[inline(always)]
                        |row| simd.load(&block[row + c * live + lane]),
                    );
                    values[c] = simd.add(first, last);
                }),
                WeightRow::Pair(pair) => {
                    unroll!(c < taps of R, {
                        let mut column = [simd.splat(0.0); R];
                        unroll!(r < taps of R, { column[r] = simd.load(&block[(r * taps + c) * live + lane]) });
                        values[c] = pair.apply(simd, taps, &column);
                    });
                }
            }
            let values = transform::weights::<S, T, R>(simd, domain, taps, &values);
            unroll!(c < size of T, {
                if c < size {
                    simd.store(&mut u[c * stride + k], values[c]);
                }
            });
            k += 1;
        }
        first += taps * taps * live;
    }
}

/// The same for any tile.
#[inline(always)]
pub(crate) fn transform_any<S: Simd>(
    simd: S,
    row: &Row,
    plain: &[Block],
    lanes: &[u8],
    u: &mut [Block],
    stride: usize,
) {
    let of = (Domain::of(row.tile.domain()), row.tile.kernel);
    transform::<_, 8, 5>(simd, of, row, plain, lanes, u, stride);
}
