//! The transforms of two outputs of three taps, two inputs apart.
//!
//! `y_i = w0 x_2i + w1 x_2i+1 + w2 x_2i+2`: the even inputs meet a filter of two taps, the odd ones a single tap. Two outputs of
//! two taps take three products by the points 0, 1 and infinity, with the weights w0, w0 + w2 and w2; the single tap takes
//! two, both with w1:
//!
//! ```text
//! B'  1  0 -1  0  0      G  1  0  0      A'  1  1  0  1  0
//!     0  0  1  0  0         1  0  1          0  1  1  0  1
//!     0  0 -1  0  1         0  0  1
//!     0  1  0  0  0         0  1  0
//!     0  0  0  1  0         0  1  0
//! ```
//!
//! There is nothing to multiply by, and G's last row is stored once.

use super::WeightRow;
use crate::simd::Simd;

/// `B' d`.
#[inline(always)]
pub(super) fn input<S: Simd, const T: usize>(simd: S, d: &[S::Vector; T]) -> [S::Vector; T] {
    let mut out = *d;
    out[0] = simd.sub(d[0], d[2]);
    out[1] = d[2];
    out[2] = simd.sub(d[4 % T], d[2]);
    out[3] = d[1];
    out[4 % T] = d[3];
    out
}

/// `A' m`: the even products' sum, then the odd one.
#[inline(always)]
pub(super) fn output<S: Simd, const T: usize, const M: usize>(simd: S, m: &[S::Vector; T]) -> [S::Vector; M] {
    let mut out = [m[0]; M];
    out[0] = simd.add(simd.add(m[0], m[1]), m[3]);
    out[1] = simd.add(simd.add(m[1], m[2]), m[4 % T]);
    out
}

/// A row of G.
#[inline(always)]
pub(super) fn weight_row<S: Simd>(simd: S, row: usize) -> WeightRow<S::Vector> {
    let tap = match row {
        0 => 0,
        1 => return WeightRow::Sum,
        2 => 2,
        _ => 1,
    };
    WeightRow::Single { tap, weight: simd.splat(1.0) }
}

/// `G g`, equal rows once.
#[inline(always)]
pub(super) fn weights<S: Simd, const T: usize, const R: usize>(
    simd: S,
    g: &[S::Vector; R],
) -> [S::Vector; T] {
    let mut out = [g[1]; T];
    (out[0], out[1], out[2]) = (g[0], simd.add(g[0], g[2]), g[2]);
    out
}
