//! The input transform: tiles of T x T pixels, M apart (with stride 2, 2 M), to T * T values each.

use crate::Block;
use crate::conv::ConvGeometry;
use crate::conv::winograd::transform::{self, Domain};
use crate::simd::{Simd, unroll};

/// A run of tiles, numbered row by row over the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) geometry: &'a ConvGeometry,
    /// Outputs of a tile in each direction.
    pub(crate) size: usize,
    /// Tiles in a row.
    pub(crate) across: usize,
    /// The first tile.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
    /// Tiles that are worked on together, those of other maps included: from one input block to the next.
    pub(crate) together: usize,
}

impl Batch<'_> {
    /// Inputs of a tile in each direction.
    pub(crate) fn domain(&self) -> usize {
        (self.size - 1) * self.geometry.stride[0] + self.geometry.kernel[0]
    }

    /// Inputs from one tile to the next.
    pub(crate) fn step(&self) -> usize {
        self.size * self.geometry.stride[0]
    }

    /// Row and column of the first tile, in tiles.
    #[inline(always)]
    pub(crate) fn start(&self) -> (usize, usize) {
        (self.first / self.across, self.first % self.across)
    }
}

/// Transforms one batch of every input block: `v` is `[xi][input block][tile]` from the batch's first tile on, `stride`
/// blocks from one xi to the next.
pub(crate) type InputFn = fn(batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride: usize);

/// Pixels
const AHEAD: usize = 32;

/// `T` is the size of the domain, or the largest one.
#[inline(always)]
pub(crate) fn transform<S: Simd, const T: usize>(
    simd: S,
    domain: &Domain,
    batch: &Batch<'_>,
    input: &[Block],
    v: &mut [Block],
    stride: usize,
) {
    let (size, step) = (domain.size, batch.step());
    assert!(size <= T, "room for the domain");
    let geometry = batch.geometry;
    let (height, width) = (geometry.in_height, geometry.in_width);
    // set once: for each tile, it would be a `memset` that takes a third of the transform's time
    let mut half = [[simd.splat(0.0); T]; T];
    for (block, plane) in input.chunks_exact(height * width).enumerate() {
        let first = block * batch.together;
        let (mut row, mut column) = batch.start();
        for at in first..first + batch.count {
            // what is above or left of the input wraps around to numbers that no index reaches
            let top = (row * step).wrapping_sub(geometry.pad_top);
            let left = (column * step).wrapping_sub(geometry.pad_left);
            // loops: straight code for all T * T values, which no register file holds, would only be larger
            for (r, half) in half[..size].iter_mut().enumerate() {
                let y = top.wrapping_add(r);
                *half = if y < height {
                    let row = &plane[y * width..][..width];
                    for pixel in left.wrapping_add(AHEAD)..left.wrapping_add(AHEAD + step) {
                        if let Some(pixel) = row.get(pixel) {
                            simd.prefetch(pixel);
                        }
                    }
                    transform::input(simd, domain, &pixels(simd, size, row, left))
                } else {
                    [simd.splat(0.0); T]
                };
            }
            for c in 0..size {
                let mut values = [half[0][c]; T];
                unroll!(r < size of T, { values[r] = half[r][c] });
                let values = transform::input(simd, domain, &values);
                unroll!(r < size of T, { simd.store(&mut v[(r * size + c) * stride + at], values[r]) });
            }
            column += 1;
            if column == batch.across {
                (row, column) = (row + 1, 0);
            }
        }
    }
}

/// `size` pixels of a row from `left` on, zero outside.
#[inline(always)]
fn pixels<S: Simd, const T: usize>(simd: S, size: usize, row: &[Block], left: usize) -> [S::Vector; T] {
    let mut d = [simd.splat(0.0); T];
    if left < row.len() && row.len() - left >= size {
        let inside = &row[left..][..size];
        unroll!(c < size of T, { d[c] = simd.load(&inside[c]) });
    } else {
        unroll!(c < size of T, {
            let x = left.wrapping_add(c);
            if x < row.len() {
                d[c] = simd.load(&row[x]);
            }
        });
    }
    d
}
