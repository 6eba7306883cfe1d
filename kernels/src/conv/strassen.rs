//! 1x1 convolution with an eighth less of products: one step of Strassen's algorithm, in Winograd's form.
//!
//! The map is a matrix of pixels by input channels, the weights are one of input by output channels. With each cut in two in both
//! directions, seven products of quarters do what eight do (Strassen, "Gaussian elimination is not optimal", 1969; Winograd's form
//! with the fewest additions: Higham, "Accuracy and Stability of Numerical Algorithms", section 23.1):
//!
//! ```text
//! S1 = A21 + A22   S2 = S1 - A11   S3 = A11 - A21   S4 = A12 - S2       of the map, inside a run
//! T1 = B12 - B11   T2 = B22 - T1   T3 = B22 - B12   T4 = B21 - T2       of the weights, when they are packed
//!
//! M = A11 B11      U = M + S2 T2      V = U + S3 T3      W = S1 T1
//! C11 = M + A12 B21                   C12 = U + W + S4 B22
//! C21 = V + A22 T4                    C22 = V + W
//! ```
//!
//! A product that is added to something continues its chains, so that little more is written than without the algorithm. What is
//! cut, and how:
//!
//! - pixels: units of [`unit()`], each in two halves, the first one larger by one where the number is odd;
//! - input channels: chunks of up to 32 blocks, each in two halves; their results add up in the output;
//! - output channels: groups of [`GROUP`] blocks, each in two halves.
//!
//! The order of a sum: what the output has of the chunks before, then the addends of the lines above from left to right, then the
//! chain. It depends on the place of a pixel in the map, so the cuts do not depend on the instruction set or the threads.
//!
//! ```text
//! weights   [group][chunk][B11 B21 T2 T3 T4 T1 B22][output block of half a group][channel of half a chunk][16]
//! scratch   [U V W][2 output blocks][pixel of half a unit], [S1 S2 S3 S4][input block of half a chunk][pixel of half a unit],
//!           with a stride the pixels that are read: [input block of a chunk][pixel of a unit]
//! ```

use core::ops::Range;

use super::direct::{Addend, Chunk, Places, RowFn, Tiles, is_pointwise, run_groups};
use super::im2col::gather;
use super::tiling::Rows;
use super::{ConvArgs, ConvGeometry};
use crate::epilogue::Epilogue;
use crate::simd::Simd;
use crate::{Block, LANES};

/// Output blocks that are computed together; their number is a multiple of it.
pub const GROUP: usize = 4;

/// Input blocks of a chunk of the reduction at most: with more, its sums and pixels would leave the second-level cache.
const CHUNK: usize = 32;

/// Pixels of a unit at most: so many that weights come from far away rarely enough, and no more than the same cache holds with
/// the sums of a chunk.
const MOST_PIXELS: usize = 196;

/// Products of a step.
const PRODUCTS: usize = 7;

/// How many times the bound on the error of direct convolution the one of this algorithm is, for inputs and weights of one size:
/// `docs/numerics.md` derives it.
pub const ERROR_FACTOR: f64 = 9.0;

/// Computes the output pixels of the range, which starts at a multiple of [`unit()`] and ends at one or at the end of the map, for all
/// output blocks in `out`; `scratch` holds [`scratch_blocks`].
pub type StrassenFn =
    fn(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]], scratch: &mut [Block]);

/// Whether the algorithm takes this window, so many whole input blocks and so many output blocks.
pub fn supports(geometry: &ConvGeometry, in_blocks: usize, out_blocks: usize) -> bool {
    let reaches = |direction: usize, inputs: usize, outputs: usize| {
        outputs.checked_sub(1).and_then(|last| last.checked_mul(geometry.stride[direction])) < Some(inputs)
    };
    geometry.taps() == 1
        && (geometry.pad_top, geometry.pad_left) == (0, 0)
        && reaches(0, geometry.in_height, geometry.out_height)
        && reaches(1, geometry.in_width, geometry.out_width)
        && in_blocks > 0
        && in_blocks.is_multiple_of(2)
        && out_blocks.is_multiple_of(GROUP)
}

/// Pixels of a map of so many that are computed together: as even as whole tiles of 14 pixels in both halves allow.
pub fn unit(pixels: usize) -> usize {
    let units = pixels.div_ceil(MOST_PIXELS).max(1);
    pixels.div_ceil(units).next_multiple_of(28)
}

/// Blocks of packed weights of one output block: seven for every four of plain ones.
pub fn weights_per_block(in_blocks: usize) -> usize {
    in_blocks * LANES * PRODUCTS / 4
}

/// Blocks of scratch for a map of so many input blocks.
pub fn scratch_blocks(geometry: &ConvGeometry, in_blocks: usize) -> usize {
    let chunk = in_blocks.min(CHUNK);
    let pixels = unit(geometry.out_pixels()).min(geometry.out_pixels());
    let copy = if is_pointwise(geometry) { 0 } else { chunk * pixels };
    (4 * chunk / 2 + 3 * GROUP / 2) * pixels.div_ceil(2) + copy
}

/// The input blocks of each chunk: an even number, as even as can be.
fn chunks(in_blocks: usize) -> impl Iterator<Item = Range<usize>> {
    let (pairs, count) = (in_blocks / 2, in_blocks.div_ceil(CHUNK));
    (0..count).map(move |index| 2 * (pairs * index / count)..2 * (pairs * (index + 1) / count))
}

/// Packs weights `[output block][channel][16]` of so many input blocks: the same bits everywhere.
///
/// # Panics
/// Where the numbers of blocks are none that [`supports`] takes, or `packed` is not 7/4 of `plain`.
pub fn pack(in_blocks: usize, plain: &[Block], packed: &mut [Block]) {
    let channels = in_blocks * LANES;
    assert!(
        in_blocks.is_multiple_of(2) && plain.len().is_multiple_of(GROUP * channels),
        "pairs and groups of blocks"
    );
    assert_eq!(packed.len() * 4, plain.len() * PRODUCTS, "seven products for four quarters");
    let mut packed = packed.iter_mut();
    for group in plain.chunks_exact(GROUP * channels) {
        for chunk in chunks(in_blocks) {
            let half = chunk.len() / 2 * LANES;
            for (product, block) in
                (0..PRODUCTS).flat_map(|product| (0..GROUP / 2).map(move |block| (product, block)))
            {
                let left = &group[block * channels + chunk.start * LANES..][..2 * half];
                let right = &group[(GROUP / 2 + block) * channels + chunk.start * LANES..][..2 * half];
                for channel in 0..half {
                    let quarters =
                        [left[channel], right[channel], left[half + channel], right[half + channel]];
                    if let Some(packed) = packed.next() {
                        *packed = of_product(product, &quarters);
                    }
                }
            }
        }
    }
}

/// From the weights of all quarters, those of a product.
fn of_product(product: usize, [b11, b12, b21, b22]: &[Block; 4]) -> Block {
    core::array::from_fn(|lane| {
        let (b11, b12, b21, b22) = (b11[lane], b12[lane], b21[lane], b22[lane]);
        let t1 = b12 - b11;
        let t2 = b22 - t1;
        [b11, b21, t2, b22 - b12, b21 - t2, t1, b22][product]
    })
}

/// Sums of the map, of a pair of input blocks: from pixels of the first and of the second, of which `half` are those of A11 and A12
/// and the others, as many or one less, those of A21 and A22, which then end with a zero.
pub(crate) type SumFn = fn(first: &[Block], second: &[Block], half: usize, sums: &mut [&mut [Block]; 4]);

/// What a [`SumFn`] computes.
#[inline(always)]
pub(crate) fn sum<S: Simd>(
    simd: S,
    first: &[Block],
    second: &[Block],
    half: usize,
    [s1, s2, s3, s4]: &mut [&mut [Block]; 4],
) {
    let ((a11, a21), (a12, a22)) = (first.split_at(half), second.split_at(half));
    let sums = s1.iter_mut().zip(s2.iter_mut()).zip(s3.iter_mut()).zip(s4.iter_mut());
    for (pixel, (((s1, s2), s3), s4)) in sums.enumerate().take(half) {
        let (a11, a12) = (simd.load(&a11[pixel]), simd.load(&a12[pixel]));
        let [a21, a22] = [a21, a22].map(
            #[inline(always)]
            |a| a.get(pixel).map_or(simd.splat(0.0), |a| simd.load(a)),
        );
        let sum = simd.add(a21, a22);
        let difference = simd.sub(sum, a11);
        simd.store(s1, sum);
        simd.store(s2, difference);
        simd.store(s3, simd.sub(a11, a21));
        simd.store(s4, simd.sub(a12, difference));
    }
}

/// What [`StrassenFn`] computes.
///
/// # Panics
/// Where an operand does not fit the geometry, the algorithm does not take it, or the scratch is too small.
pub(crate) fn run(
    tiles: &Tiles<'_>,
    sum: SumFn,
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let blocks = args.check(&pixels, out);
    let (geometry, in_blocks) = (&args.geometry, args.lanes.len());
    let (plane, unit) = (geometry.out_pixels(), unit(geometry.out_pixels()));
    assert!(
        supports(geometry, in_blocks, blocks),
        "1x1 without pads, of pairs of blocks to groups of blocks"
    );
    assert!(args.lanes.iter().all(|&lanes| usize::from(lanes) == LANES), "whole input blocks");
    assert!(pixels.start.is_multiple_of(unit), "whole units");
    assert!(pixels.end.is_multiple_of(unit) || pixels.end == plane, "whole units, or the last one");
    let per_block = weights_per_block(in_blocks);
    assert!(args.weights.len() >= blocks * per_block, "weights of every product");
    let mut places = [Places::new(), Places::new()];
    for start in pixels.clone().step_by(unit) {
        let own = start..pixels.end.min(start + unit);
        let half = own.len().div_ceil(2);
        let halves = [half, own.len() - half];
        for (places, pixels) in places.iter_mut().zip(halves) {
            let strip = ConvGeometry { in_width: pixels, out_width: pixels, ..ConvGeometry::ONE_PIXEL };
            let end = places.find(&strip, tiles.pointwise[0], 0..pixels);
            assert_eq!(end, pixels, "half a unit is few runs of tiles");
        }
        for chunk in chunks(in_blocks) {
            let (temporary, scratch) = scratch.split_at_mut(3 * GROUP / 2 * half);
            let (sums, copy) = scratch.split_at_mut(4 * chunk.len() / 2 * half);
            let map = if is_pointwise(geometry) {
                Map { input: &args.input[chunk.start * plane..], plane, start }
            } else {
                let channels = chunk.start * LANES..chunk.end * LANES;
                gather(args, own.clone(), channels, copy);
                Map { input: copy, plane: own.len(), start: 0 }
            };
            map.sums(sum, chunk.len() / 2, halves, sums);
            for block in (0..blocks).step_by(GROUP) {
                let step = Step {
                    rows: tiles.pointwise,
                    places: &places,
                    halves,
                    lanes: &args.lanes[..chunk.len() / 2],
                    map,
                    sums,
                    weights: &args.weights[block * per_block..][chunk.start * LANES * PRODUCTS * GROUP / 4..],
                    first: chunk.start == 0,
                    last: chunk.end == in_blocks,
                    plane,
                    pixels: [start, start + half],
                    at: [start - pixels.start, start - pixels.start + half],
                };
                let epilogue = args.epilogue.starting_at(block, plane);
                step.run(temporary, &epilogue, &mut out[block..block + GROUP]);
            }
        }
        args.epilogue.finish(tiles.finish, 0..blocks, (plane, start), (start - pixels.start, own.len()), out);
    }
}

/// Where the pixels of a unit are, of a chunk of input blocks: from `start` on, in planes of `plane`.
#[derive(Clone, Copy)]
struct Map<'a> {
    input: &'a [Block],
    plane: usize,
    start: usize,
}

impl<'a> Map<'a> {
    /// From pixel `pixel` of the unit on, in input block `block`.
    fn from(&self, block: usize, pixel: usize) -> &'a [Block] {
        &self.input[block * self.plane + self.start + pixel..]
    }

    /// All sums of the map, for so many pairs of blocks.
    fn sums(&self, sum: SumFn, pairs: usize, [half, second]: [usize; 2], sums: &mut [Block]) {
        let (s1, rest) = sums.split_at_mut(pairs * half);
        let (s2, rest) = rest.split_at_mut(pairs * half);
        let (s3, s4) = rest.split_at_mut(pairs * half);
        for pair in 0..pairs {
            let own = pair * half..(pair + 1) * half;
            let mut sums = [&mut s1[own.clone()], &mut s2[own.clone()], &mut s3[own.clone()], &mut s4[own]];
            let len = half + second;
            sum(&self.from(pair, 0)[..len], &self.from(pairs + pair, 0)[..len], half, &mut sums);
        }
    }
}

/// What a product has on its left.
#[derive(Clone, Copy)]
enum Left {
    /// A quarter: half of the pixels, half of the channels.
    Map(usize, usize),
    /// S1 to S4, from zero on.
    Sum(usize),
}

/// One chunk of the reduction for one group of output blocks and one unit of pixels.
struct Step<'a> {
    rows: &'a [Rows<'a, RowFn>],
    /// Tiles of each half of the pixels.
    places: &'a [Places; 2],
    halves: [usize; 2],
    /// Live lanes of the input blocks of half a chunk.
    lanes: &'a [u8],
    map: Map<'a>,
    sums: &'a [Block],
    /// Those of the products one after the other; behind them are those that are needed next.
    weights: &'a [Block],
    /// Whether it is the first chunk, and the last one.
    first: bool,
    last: bool,
    /// Pixels of an output plane; the first one of each half there, and in the slices of the output.
    plane: usize,
    pixels: [usize; 2],
    at: [usize; 2],
}

impl<'a> Step<'a> {
    /// What product `index` reads, and the weights behind its own.
    fn chunk(&self, index: usize, left: Left) -> (Chunk<'a>, &'a [Block]) {
        let (blocks, half) = (self.lanes.len(), self.halves[0]);
        let len = blocks * LANES;
        let (input, in_plane) = match left {
            Left::Map(row, column) => (self.map.from(column * blocks, row * half), self.map.plane),
            Left::Sum(index) => (&self.sums[index * blocks * half..], half),
        };
        let (weights, next) = self.weights[index * GROUP / 2 * len..].split_at(GROUP / 2 * len);
        let (lanes, taps, weights_stride, addends) = (self.lanes, 1, len, [None; 2]);
        let (first, last) = (self.first, self.last);
        (Chunk { lanes, input, in_plane, taps, weights, weights_stride, first, last, addends }, next)
    }

    /// Product `index` of the first half of the pixels, added to `addend` or, where that is none and `first` is not set, to what is
    /// in `to`: a sum that stays inside. No epilogue is applied.
    fn inside(
        &self,
        index: usize,
        left: Left,
        first: bool,
        addend: Option<&[Block]>,
        epilogue: &Epilogue<'_>,
        to: &mut [Block],
    ) {
        let half = self.halves[0];
        let (chunk, next) = self.chunk(index, left);
        let addend = addend.map(|sums| Addend { sums, plane: half, at: 0 });
        let chunk = Chunk { first, last: false, addends: [addend, None], ..chunk };
        let (a, b) = to.split_at_mut(half);
        run_groups(self.rows, &self.places[0], &chunk, Some(next), epilogue, (0, 0, 0), &mut [a, b]);
    }

    /// Product `index`, or without one nothing, added to `addends`: pixels of half `row`, of the half of the output blocks in `out`.
    fn quarter(
        &self,
        product: Option<(usize, Left)>,
        row: usize,
        addends: [Option<&[Block]>; 2],
        epilogue: &Epilogue<'_>,
        out: &mut [&mut [Block]],
    ) {
        let (plane, at) = (self.halves[0], self.at[row]);
        let (chunk, next) = match product {
            Some((index, left)) => self.chunk(index, left),
            None => {
                let (chunk, _) = self.chunk(0, Left::Sum(0));
                (Chunk { lanes: &[], ..chunk }, &[][..])
            }
        };
        let addends = addends.map(|addend| addend.map(|sums| Addend { sums, plane, at }));
        let place = (self.plane, self.pixels[row], at);
        run_groups(
            self.rows,
            &self.places[row],
            &Chunk { addends, ..chunk },
            Some(next),
            epilogue,
            place,
            out,
        );
    }

    fn run(&self, temporary: &mut [Block], epilogue: &Epilogue<'_>, out: &mut [&mut [Block]]) {
        let half = GROUP / 2 * self.halves[0];
        let (u, rest) = temporary.split_at_mut(half);
        let (v, w) = rest.split_at_mut(half);
        let (left, right) = out.split_at_mut(GROUP / 2);
        let right_epilogue = epilogue.starting_at(GROUP / 2, self.plane);
        // M, where U will be
        self.inside(0, Left::Map(0, 0), true, None, epilogue, u);
        self.quarter(Some((1, Left::Map(0, 1))), 0, [Some(u), None], epilogue, left);
        self.inside(2, Left::Sum(1), false, None, epilogue, u);
        self.inside(3, Left::Sum(2), true, Some(u), epilogue, v);
        self.quarter(Some((4, Left::Map(1, 1))), 1, [Some(v), None], epilogue, left);
        self.inside(5, Left::Sum(0), true, None, epilogue, w);
        self.quarter(Some((6, Left::Sum(3))), 0, [Some(u), Some(w)], &right_epilogue, right);
        self.quarter(None, 1, [Some(v), Some(w)], &right_epilogue, right);
    }
}
