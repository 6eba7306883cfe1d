//! The input transform: tiles of T x T pixels, M apart (with stride 2, 2 M), to T * T values each.

use crate::Block;
use crate::conv::winograd::batch::{Batch, Planes, Run};
use crate::conv::winograd::transform::{self, Domain, most_lacking};
use crate::simd::{Simd, unroll};

/// Transforms one batch of every input block: `v` is `[xi][input block][tile]` from the batch's first tile on, `stride`
/// blocks from one xi to the next.
pub(crate) type InputFn = fn(batch: &Batch<'_>, input: &[Block], v: &mut [Block], stride: usize);

/// Pixels are asked for so many tiles ahead.
const AHEAD: usize = 4;

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
    let together: usize = batch.together.iter().flatten().sum();
    let planes = Planes { plane: height * width, width, step };
    // the rows that the tiles above have not read
    let start = (size - step) * width;
    for (block, plane) in input.chunks_exact(height * width).enumerate() {
        for Run { row, columns, index, at, lacks } in batch.runs() {
            let lacks = if domain.has_narrow() { lacks } else { [0; 2] };
            // what is above or left of the input wraps around to numbers that no index reaches
            let top = (row * step).wrapping_sub(geometry.pad_top);
            let mut rows: [&[Block]; T] = [&[]; T];
            for (r, own) in rows[..size].iter_mut().enumerate() {
                let y = top.wrapping_add(r);
                if y < height {
                    *own = &plane[y * width..][..width];
                }
            }
            for (i, column) in columns.enumerate() {
                if batch.asks {
                    batch.ask(
                        simd,
                        block * batch.count + index + i + AHEAD,
                        &planes,
                        input.get(start..).unwrap_or(&[]),
                        0,
                    );
                }
                let at = at.map(|at| block * together + at + i);
                let left = (column * step).wrapping_sub(geometry.pad_left);
                // loops: straight code for all T * T values, which no register file holds, would only be larger
                for (half, row) in half.iter_mut().zip(&rows[..size]) {
                    let mut d = pixels(simd, size, row, left);
                    if lacks[1] > 0 {
                        transform::widen_inputs(simd, domain, lacks[1], &mut d);
                    }
                    *half = transform::input(simd, domain, &d);
                }
                for c in 0..size {
                    let most = most_lacking(size, c);
                    if lacks[1] > most {
                        continue;
                    }
                    let at = at[most];
                    let mut values = [half[0][c]; T];
                    unroll!(r < size of T, { values[r] = half[r][c] });
                    if lacks[0] > 0 {
                        transform::widen_inputs(simd, domain, lacks[0], &mut values);
                    }
                    let values = transform::input(simd, domain, &values);
                    unroll!(r < size of T, {
                        if lacks[0] <= most_lacking(size, r) {
                            simd.store(&mut v[(r * size + c) * stride + at], values[r]);
                        }
                    });
                }
            }
        }
    }
}

/// `size` pixels of a row from `left` on, zero outside.
#[inline(always)]
fn pixels<S: Simd, const T: usize>(simd: S, size: usize, row: &[Block], left: usize) -> [S::Vector; T] {
    let mut d = [simd.splat(0.0); T];
    if let Some(inside) = row.get(left..left.wrapping_add(size)) {
        unroll!(c < size of T, { d[c] = simd.load(&inside[c]) });
    } else {
        unroll!(c < size of T, {
            if let Some(pixel) = row.get(left.wrapping_add(c)) {
                d[c] = simd.load(pixel);
            }
        });
    }
    d
}
