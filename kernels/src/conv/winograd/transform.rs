//! The one-dimensional transforms, for any number of points.
//!
//! A minimal algorithm for M outputs of an R-tap filter multiplies polynomials of T = M + R - 1 coefficients by
//! their values at T points (Toom-Cook; Lavin and Gray, arXiv 1509.09308, use it for convolutions):
//! `y = A' [(G g) * (B' d)]`. The points are 0, pairs of +p and -p, and infinity, so each pair shares its even and its
//! odd half: with `Q_i(x²) = prod over j != i of (x² - p_j²)`,
//!
//! ```text
//! B' row of 0:         prod over all j of (x² - p_j²)        G row: 1 / B'[0][0]                 A' column: (1, 0, 0 ..)
//! B' rows of ±p_i:     (x² ± p_i x) Q_i(x²)                  G row: (±p)^k / (2 p² Q_i(p²))      A' column: (±p)^k
//! B' row of infinity:  x prod over all j of (x² - p_j²)      G row: (0 .. 0, 1)                  A' column: (0 .. 0, 1)
//! ```
//!
//! (`x^n` stands for column n.) `docs/winograd.md` writes the matrices out and counts the roundings of each chain.

use crate::simd::{Simd, unroll};

pub(crate) mod stride_two;

/// Pairs of points that a tile may lack in one direction: none, one or two.
pub(crate) const KINDS: usize = 3;

/// How many pairs of points a tile may lack and yet have a position: narrow tiles lack the last pair, or the last two. With stride 2 it is
/// the position in which two outputs meet that they lack, and one of the two with the middle tap.
pub(crate) const fn most_lacking(size: usize, position: usize) -> usize {
    let pairs_behind = match size {
        STRIDED => [KINDS, 0, KINDS, KINDS, 0][position],
        _ if position == 0 || position == size - 1 => KINDS,
        _ => (size - 2 - position) / 2,
    };
    if pairs_behind < KINDS { pairs_behind } else { KINDS - 1 }
}

/// Most pairs of points that a domain has.
const MOST: usize = 3;

/// Positions of the domain for stride 2.
pub(crate) const STRIDED: usize = 5;

/// What the transforms of a domain are made of. All of it is known when compiling, but in the scalar path, which has one
/// code for all domains.
pub(crate) struct Domain {
    /// How many positions there are: with stride 1, points.
    pub(crate) size: usize,
    /// How many of them have weights of their own.
    pub(crate) weights_size: usize,
    /// Whether outputs are two inputs apart: all below is for stride 1.
    strided: bool,
    /// Pairs of points.
    pairs: usize,
    /// Coefficients of `prod (x² - p_j²)` over all j, ascending; the leading one is 1.
    all: [f32; MOST + 1],
    /// The same without the pair i.
    others: [[f32; MOST + 1]; MOST],
    /// `p_i^k`, exact as far as they are used; as many as `unroll!` names.
    powers: [[f32; 8]; MOST],
    /// `p_i^k / (2 p_i² Q_i(p_i²))`: the rows of G of +p_i, each entry rounded once.
    weights: [[f32; 5]; MOST],
    /// `G[0][0]`.
    first_weight: f32,
}

impl Domain {
    /// The domain of 4, 6 or 8 points, or that of 5 positions for stride 2.
    #[inline(always)]
    pub(crate) const fn of(size: usize) -> &'static Domain {
        const FIVE: &Domain = &Domain { size: STRIDED, weights_size: 4, strided: true, ..*FOUR };
        const FOUR: &Domain = &Domain::new([1.0, 0.0, 0.0], 1);
        const SIX: &Domain = &Domain::new([0.625, 1.5, 0.0], 2);
        const EIGHT: &Domain = &Domain::new([0.5, 2.0, 1.0], 3);
        match size {
            4 => FOUR,
            STRIDED => FIVE,
            6 => SIX,
            8 => EIGHT,
            _ => panic!("domains have 4, 5, 6 or 8 positions"),
        }
    }

    /// Whether there are narrow tiles.
    #[inline(always)]
    pub(crate) const fn has_narrow(&self) -> bool {
        self.size > 4
    }

    /// From the positive point of each pair. Four points are the usual 0, 1, -1, infinity. Six: 5/8 and 3/2 make half the
    /// error of the usual 1 and 2; their products are short, so all of `A` and `B` is exact. Eight: no points on
    /// a grid of 1/8 were better than the usual 1/2, 1 and 2; 1 is the last, which narrow tiles lack first, since without
    /// another one their error is larger.
    const fn new(points: [f64; MOST], pairs: usize) -> Domain {
        let others = [
            narrow(product(points, pairs, 0)),
            narrow(product(points, pairs, 1)),
            narrow(product(points, pairs, 2)),
        ];
        let all = product(points, pairs, MOST);
        let mut powers = [[0.0; 8]; MOST];
        let mut weights = [[0.0; 5]; MOST];
        let mut i = 0;
        while i < MOST {
            let square = points[i] * points[i];
            let mut scale = 2.0 * square;
            let mut j = 0;
            while j < pairs {
                if j != i {
                    scale *= square - points[j] * points[j];
                }
                j += 1;
            }
            let (mut k, mut power) = (0, 1.0);
            while k < 8 {
                powers[i][k] = power as f32;
                if k < 5 && i < pairs {
                    weights[i][k] = (power / scale) as f32;
                }
                power *= points[i];
                k += 1;
            }
            i += 1;
        }
        let first_weight = (1.0 / all[0]) as f32;
        let size = 2 * pairs + 2;
        Domain {
            size,
            weights_size: size,
            strided: false,
            pairs,
            all: narrow(all),
            others,
            powers,
            weights,
            first_weight,
        }
    }

    /// `p²` of the last pair but `before`.
    #[inline(always)]
    const fn square(&self, before: usize) -> f32 {
        self.powers[self.pairs - 1 - before][2]
    }

    /// Whether a narrow tile lacks two pairs.
    #[inline(always)]
    const fn lacks_two(&self, lacks: usize) -> bool {
        self.size == 8 && lacks == 2
    }
}

/// Coefficients of `prod (x² - p_j²)` over all pairs j but one, ascending.
const fn product(points: [f64; MOST], pairs: usize, without: usize) -> [f64; MOST + 1] {
    let mut product = [1.0, 0.0, 0.0, 0.0];
    let mut degree = 0;
    let mut j = 0;
    while j < pairs {
        if j != without {
            let square = points[j] * points[j];
            degree += 1;
            let mut k = degree;
            while k > 0 {
                product[k] = product[k - 1] - square * product[k];
                k -= 1;
            }
            product[0] *= -square;
        }
        j += 1;
    }
    product
}

const fn narrow(from: [f64; MOST + 1]) -> [f32; MOST + 1] {
    [from[0] as f32, from[1] as f32, from[2] as f32, from[3] as f32]
}

/// A polynomial in x² of leading coefficient 1, on every second value from `start` on.
#[inline(always)]
fn chain<S: Simd, const T: usize>(
    simd: S,
    coefficients: &[f32; MOST + 1],
    degree: usize,
    d: &[S::Vector; T],
    start: usize,
) -> S::Vector {
    let mut sum = d[start + 2 * degree];
    unroll!(j < degree of MOST, {
        if j < degree {
            let k = degree - 1 - j;
            sum = simd.mul_add(simd.splat(coefficients[k]), d[start + 2 * k], sum);
        }
    });
    sum
}

/// `B' d`.
#[inline(always)]
pub(crate) fn input<S: Simd, const T: usize>(simd: S, domain: &Domain, d: &[S::Vector; T]) -> [S::Vector; T] {
    if domain.strided {
        return stride_two::input(simd, d);
    }
    let &Domain { size, pairs, .. } = domain;
    let mut out = *d;
    out[0] = chain(simd, &domain.all, pairs, d, 0);
    out[size - 1] = chain(simd, &domain.all, pairs, d, 1);
    unroll!(i < pairs of MOST, {
        if i < pairs {
            let even = chain(simd, &domain.others[i], pairs - 1, d, 2);
            let odd = chain(simd, &domain.others[i], pairs - 1, d, 1);
            let point = domain.powers[i][1];
            out[1 + 2 * i] = simd.mul_add(simd.splat(point), odd, even);
            out[2 + 2 * i] = simd.mul_add(simd.splat(-point), odd, even);
        }
    });
    out
}

/// From the inputs of a narrow tile, two less than those of a whole one for each pair of points that it lacks, to inputs of a whole one
/// with the same values at the positions that both have. Without the last pair `B'` lacks the factor `x² - q²`, so an input `e_j`
/// is `d_{j+2} - q² d_j`, of which the third and the fourth `d` may be zero. Without the last two it is
/// `d_{j+4} - (q² + r²) d_{j+2} + q² r² d_j`, and four may be zero. With stride 2 nothing meets the third and the fourth.
#[inline(always)]
pub(crate) fn widen_inputs<S: Simd, const T: usize>(
    simd: S,
    domain: &Domain,
    lacks: usize,
    d: &mut [S::Vector; T],
) {
    let (zero, e) = (simd.splat(0.0), *d);
    (d[2], d[3]) = (zero, zero);
    if domain.strided {
        d[4 % T] = e[2];
        return;
    }
    let first = if domain.lacks_two(lacks) {
        (d[4 % T], d[5 % T], d[6 % T], d[7 % T]) = (zero, zero, e[2], e[3]);
        1.0 / (domain.square(0) * domain.square(1))
    } else {
        (d[4 % T], d[5 % T]) = (e[2], e[3]);
        if domain.size == 8 {
            let square = simd.splat(domain.square(0));
            d[6 % T] = simd.mul_add(square, e[2], e[4 % T]);
            d[7 % T] = simd.mul_add(square, e[3], e[5 % T]);
        }
        -1.0 / domain.square(0)
    };
    (d[0], d[1]) = (simd.mul(simd.splat(first), e[0]), simd.mul(simd.splat(first), e[1]));
}

/// From the outputs of a whole tile, of sums that are zero where a narrow one has none, to those of a narrow one: the factors
/// `p² - q²` that its values lack beside the weights are differences of outputs. With stride 2 it has one, the sum of both.
#[inline(always)]
pub(crate) fn narrow_outputs<S: Simd, const M: usize>(
    simd: S,
    domain: &Domain,
    lacks: usize,
    y: &mut [S::Vector; M],
) {
    if domain.strided {
        y[0] = simd.add(y[0], y[1]);
    } else if domain.lacks_two(lacks) {
        let (q, r) = (domain.square(0), domain.square(1));
        let (outer, inner) = (simd.splat(q * r), simd.splat(-(q + r)));
        for k in 0..2 {
            y[k] = simd.mul_add(outer, y[k], simd.mul_add(inner, y[(k + 2) % M], y[(k + 4) % M]));
        }
    } else {
        let scale = simd.splat(-domain.square(0));
        unroll!(k < M of M, {
            if k + 2 < M {
                y[k] = simd.mul_add(scale, y[k], y[(k + 2) % M]);
            }
        });
    }
}

/// `A' m`, for `outputs` outputs.
#[inline(always)]
pub(crate) fn output<S: Simd, const T: usize, const M: usize>(
    simd: S,
    domain: &Domain,
    outputs: usize,
    m: &[S::Vector; T],
) -> [S::Vector; M] {
    if domain.strided {
        return stride_two::output(simd, m);
    }
    let &Domain { size, pairs, .. } = domain;
    let (mut sums, mut differences) = ([m[0]; MOST], [m[0]; MOST]);
    let mut out = [m[0]; M];
    unroll!(i < pairs of MOST, {
        if i < pairs {
            sums[i] = simd.add(m[1 + 2 * i], m[2 + 2 * i]);
            differences[i] = simd.sub(m[1 + 2 * i], m[2 + 2 * i]);
            out[0] = simd.add(out[0], sums[i]);
        }
    });
    unroll!(k < outputs of M, {
        if k > 0 {
            let terms = if k % 2 == 0 { &sums } else { &differences };
            let first = simd.splat(domain.powers[0][k]);
            out[k] =
                if k == outputs - 1 { simd.mul_add(first, terms[0], m[size - 1]) } else { simd.mul(first, terms[0]) };
            unroll!(i < pairs of MOST, {
                if 0 < i && i < pairs {
                    out[k] = simd.mul_add(simd.splat(domain.powers[i][k]), terms[i], out[k]);
                }
            });
        }
    });
    out
}

/// A row of G.
#[derive(Clone, Copy)]
pub(crate) enum WeightRow<V> {
    /// Of the point 0, and of infinity: the first tap or the last times a number.
    Single {
        /// Which tap.
        tap: usize,
        /// The number, 1 for infinity.
        weight: V,
    },
    /// Of one of a pair of points.
    Pair(WeightPair<V>),
    /// The first tap and the last.
    Sum,
}

impl<V: Copy> WeightRow<V> {
    /// Row `row`.
    #[inline(always)]
    pub(crate) fn new<S: Simd<Vector = V>>(simd: S, domain: &Domain, taps: usize, row: usize) -> Self {
        if domain.strided {
            stride_two::weight_row(simd, row)
        } else if row == 0 {
            WeightRow::Single { tap: 0, weight: simd.splat(domain.first_weight) }
        } else if row < domain.size - 1 {
            let sign = if row % 2 == 1 { 1.0 } else { -1.0 };
            WeightRow::Pair(WeightPair::new(simd, domain, (row - 1) / 2, sign))
        } else {
            WeightRow::Single { tap: taps - 1, weight: simd.splat(1.0) }
        }
    }
}

/// A row of G of one of a pair of points.
#[derive(Clone, Copy)]
pub(crate) struct WeightPair<V> {
    /// Of the even taps.
    even: [V; 3],
    /// Of the odd taps.
    odd: V,
    /// The second odd tap's factor relative to the first one's.
    square: V,
}

impl<V: Copy> WeightPair<V> {
    /// The row of `sign` times the point of pair `i`.
    #[inline(always)]
    fn new<S: Simd<Vector = V>>(simd: S, domain: &Domain, i: usize, sign: f32) -> Self {
        let weights = &domain.weights[i];
        WeightPair {
            even: [simd.splat(weights[0]), simd.splat(weights[2]), simd.splat(weights[4])],
            odd: simd.splat(sign * weights[1]),
            square: simd.splat(domain.powers[i][2]),
        }
    }

    /// The shares of the even taps and of the odd ones, these before their factor: both points of the pair have
    /// them in common. There are 3 or 5 taps.
    #[inline(always)]
    fn halves<S: Simd<Vector = V>, const R: usize>(&self, simd: S, taps: usize, g: &[V; R]) -> (V, V) {
        let even = simd.mul_add(self.even[1], g[2], simd.mul(self.even[0], g[0]));
        if taps == 3 {
            return (even, g[1]);
        }
        (simd.mul_add(self.even[2], g[R - 1], even), simd.mul_add(self.square, g[R - 2], g[1]))
    }

    /// The row times `g`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd<Vector = V>, const R: usize>(&self, simd: S, taps: usize, g: &[V; R]) -> V {
        let (even, odd) = self.halves(simd, taps, g);
        simd.mul_add(self.odd, odd, even)
    }
}

/// `G g`, all rows, of the first `taps` of `g`.
#[inline(always)]
pub(crate) fn weights<S: Simd, const T: usize, const R: usize>(
    simd: S,
    domain: &Domain,
    taps: usize,
    g: &[S::Vector; R],
) -> [S::Vector; T] {
    if domain.strided {
        return stride_two::weights(simd, g);
    }
    let mut out = [g[taps - 1]; T];
    out[0] = simd.mul(simd.splat(domain.first_weight), g[0]);
    let pairs = domain.pairs;
    unroll!(i < pairs of MOST, {
        if i < pairs {
            let (plus, minus) =
                (WeightPair::new(simd, domain, i, 1.0), WeightPair::new(simd, domain, i, -1.0));
            let (even, odd) = plus.halves(simd, taps, g);
            out[1 + 2 * i] = simd.mul_add(plus.odd, odd, even);
            out[2 + 2 * i] = simd.mul_add(minus.odd, odd, even);
        }
    });
    out
}
