//! The output transform: the sums of a tile to M x M pixels, bias, residual and activation at once.

use crate::Block;
use crate::conv::winograd::batch::{Batch, Planes, Run};
use crate::conv::winograd::transform::{self, Domain, STRIDED, most_lacking};
use crate::epilogue::Tail;
use crate::simd::{Simd, unroll};

/// Pixels are asked for so many tiles ahead.
const AHEAD: usize = 2;

/// What an [`OutputFn`] takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output<'a> {
    pub(crate) batch: Batch<'a>,
    /// Blocks from one xi to the next in the sums.
    pub(crate) stride: usize,
    pub(crate) tail: Tail<'a>,
    /// The output block, counted from the first one computed.
    pub(crate) block: usize,
    /// The pixel that the output slice starts with.
    pub(crate) start: usize,
    /// Whether pixels are asked for ahead, since the map is large.
    pub(crate) asks: bool,
}

/// Transforms one batch of one output block: `m` is `[xi][tile]`, `out` the pixels of the block from `start` on.
/// Pixels beyond the output's edges are left out.
pub(crate) type OutputFn = fn(&Output<'_>, m: &[Block], out: &mut [Block]);

/// `T` and `M` are the sizes of the domain and of a tile, or the largest ones.
#[inline(always)]
pub(crate) fn transform<S: Simd, const T: usize, const M: usize>(
    simd: S,
    domain: &Domain,
    outputs: usize,
    args: &Output<'_>,
    m: &[Block],
    out: &mut [Block],
) {
    let Output { batch, stride, tail, block, start, asks } = *args;
    let size = domain.size;
    assert!(size <= T && outputs <= M, "room for the tile");
    let (height, width) = (batch.geometry.out_height, batch.geometry.out_width);
    let bias = simd.load(tail.bias(block));
    let mut half = [[simd.splat(0.0); T]; M];
    let planes = Planes { plane: height * width, width, step: outputs };
    for Run { row, columns, index, at, lacks } in batch.runs() {
        let lacks = if domain.has_narrow() && (M > 2 || T == STRIDED) { lacks } else { [0; 2] };
        for (i, column) in columns.enumerate() {
            if asks && index + i + AHEAD < batch.count {
                batch.ask(simd, index + i + AHEAD, &planes, out, start);
            }
            for c in 0..size {
                let most = most_lacking(size, c);
                let at = at[most] + i;
                let mut values = [simd.splat(0.0); T];
                if lacks[1] <= most {
                    unroll!(r < size of T, {
                        if lacks[0] <= most_lacking(size, r) {
                            values[r] = simd.load(&m[(r * size + c) * stride + at]);
                        }
                    });
                }
                let mut values = transform::output::<S, T, M>(simd, domain, outputs, &values);
                if lacks[0] > 0 {
                    transform::narrow_outputs(simd, domain, lacks[0], &mut values);
                }
                unroll!(y < outputs of M, { half[y][c] = values[y] });
            }
            let (top, left) = (row * outputs, column * outputs);
            let columns = outputs.min(width - left);
            for (y, half) in half[..outputs.min(height - top)].iter().enumerate() {
                let mut values = transform::output::<S, T, M>(simd, domain, outputs, half);
                if lacks[1] > 0 {
                    transform::narrow_outputs(simd, domain, lacks[1], &mut values);
                }
                let pixel = (top + y) * width + left;
                let out = &mut out[pixel - start..][..columns];
                unroll!(x < outputs of M, { values[x] = simd.add(values[x], bias) });
                if let Some(residual) = tail.residual(block, height * width, pixel, columns) {
                    unroll!(x < outputs of M, {
                        if x < columns {
                            values[x] = simd.add(values[x], simd.load(&residual[x]));
                        }
                    });
                }
                unroll!(x < outputs of M, {
                    if x < columns {
                        simd.store(&mut out[x], Tail::apply(simd, values[x], tail.constants(simd)));
                    }
                });
            }
        }
    }
}
