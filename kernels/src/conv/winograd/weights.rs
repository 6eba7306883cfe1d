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

/// `T` and `R` are the sizes of the domain and of the kernel; `any` is the same for all sizes, for blocks with dead lanes.
#[inline(always)]
pub(crate) fn transform<S: Simd, const T: usize, const R: usize>(
    simd: S,
    any: WeightsFn,
    row: &Row,
    plain: &[Block],
    lanes: &[u8],
    u: &mut [Block],
    stride: usize,
) {
    let kind = WeightRow::new(simd, Domain::of(T), R, row.index);
    let (taps, share) = (R * R, (R * R).div_ceil(T));
    // as many weights of what follows as this row's share of them
    let all = taps * live(lanes);
    let mut ahead = plain.get(all + row.index * all / T..).unwrap_or(&[]);
    let (mut first, mut k) = (0, 0);
    for block in lanes.chunks(1) {
        let live = live(block);
        let plain = &plain[first..][..taps * live];
        if live < LANES {
            any(row, plain, block, &mut u[k..], stride);
        } else {
            let plain = &plain[..taps * LANES];
            // where nothing follows, what is here already
            let asked = ahead.split_off(..share * LANES).unwrap_or(&plain[..share * LANES]);
            whole::<S, T, R>(simd, &kind, plain.as_chunks().0, asked.as_chunks().0, &mut u[k..], stride);
        }
        k += live;
        first += taps * live;
    }
}

/// One input block of 16 live lanes.
#[inline(always)]
fn whole<S: Simd, const T: usize, const R: usize>(
    simd: S,
    kind: &WeightRow<S::Vector>,
    plain: &[[Block; LANES]],
    asked: &[[Block; LANES]],
    u: &mut [Block],
    stride: usize,
) {
    let mut parts = u.chunks_mut(stride);
    let mut columns = [const { None::<&mut [Block; LANES]> }; T];
    unroll!(c < T of T, {
        columns[c] = parts.next().and_then(<[Block]>::first_chunk_mut);
        assert!(columns[c].is_some(), "room for every column");
    });
    for lane in 0..LANES {
        for asked in asked {
            simd.prefetch(&asked[lane]);
        }
        let values = transform_row::<S, T, R>(simd, kind, plain, lane);
        unroll!(c < T of T, {
            if let Some(column) = &mut columns[c] {
                simd.store(&mut column[lane], values[c]);
            }
        });
    }
}

/// One row of the transformed weights of one lane; `plain` is `[tap][lane]`.
#[inline(always)]
pub(super) fn transform_row<S: Simd, const T: usize, const R: usize>(
    simd: S,
    kind: &WeightRow<S::Vector>,
    plain: &[[Block; LANES]],
    lane: usize,
) -> [S::Vector; T] {
    let mut values = [simd.splat(0.0); R];
    // the branch is in here: it is foreseen, and a loop for each kind of row would be two of them
    match kind {
        WeightRow::Single { tap, weight } => {
            let row = &plain[tap * R..][..R];
            unroll!(c < R of R, { values[c] = simd.mul(*weight, simd.load(&row[c][lane])) });
        }
        WeightRow::Pair(pair) => unroll!(c < R of R, {
            let mut column = [simd.splat(0.0); R];
            unroll!(r < R of R, { column[r] = simd.load(&plain[r * R + c][lane]) });
            values[c] = pair.apply(simd, R, &column);
        }),
        WeightRow::Sum => unreachable!("of stride 2, which has no code of its own"),
    }
    transform::weights::<S, T, R>(simd, Domain::of(T), R, &values)
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
    const T: usize = 8;
    const R: usize = 5;
    let (domain, taps) = (Domain::of(row.tile.domain()), row.tile.kernel);
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
