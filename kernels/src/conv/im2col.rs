//! Convolution by gathering: the windows of a strip of output pixels become columns of a matrix, in the same blocks of
//! 16 as any map, and the pointwise tile of direct convolution multiplies it with the weights.
//!
//! ```text
//! scratch   [k / 16][strip pixel][k % 16]     k: input block, tap row, tap column, live lane
//! ```
//!
//! Weights and the order of a sum are those of [direct](super::ConvArgs) convolution; every tap outside the image counts
//! as a product with zero. Serves every shape. There is no arithmetic here: it calls the table.

use core::ops::Range;

use super::{ConvArgs, ConvGeometry};
use crate::activation::Activation;
use crate::epilogue::Epilogue;
use crate::isa::Kernels;
use crate::{Block, LANES};

/// Output blocks that share a pass over the strip.
const GROUP: usize = 4;

/// Blocks of one gathered pixel; at most [`MAX_COLUMN`] can be served.
pub fn column_blocks(geometry: &ConvGeometry, lanes: &[u8]) -> usize {
    (geometry.taps() * lanes.iter().copied().map(usize::from).sum::<usize>()).div_ceil(LANES)
}

/// Scratch for strips of as many pixels as `bytes` hold, at least 14: the widest tile.
pub fn scratch_blocks(geometry: &ConvGeometry, lanes: &[u8], bytes: usize) -> usize {
    let column = column_blocks(geometry, lanes);
    let pixels = (bytes / size_of::<Block>() / column.max(1)).clamp(14, geometry.out_pixels().max(14));
    column * pixels
}

/// Computes `pixels` of the output blocks in `out`; `scratch` holds one column at least.
///
/// # Panics
/// Where an operand does not fit the geometry.
pub fn run(
    kernels: &Kernels,
    args: &ConvArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
    scratch: &mut [Block],
) {
    let blocks = args.check(&pixels, out);
    let column = column_blocks(&args.geometry, args.lanes);
    let strip = scratch.len() / column.max(1);
    assert!(strip > 0, "the scratch holds one gathered pixel");
    let mut start = pixels.start;
    while start < pixels.end {
        let end = pixels.end.min(start + strip);
        let columns = &mut scratch[..column * (end - start)];
        gather(args, start..end, columns);
        multiply(kernels, args, columns, start - pixels.start, &mut out[..blocks]);
        start = end;
    }
    let (plane, part) = (args.geometry.out_pixels(), (0, pixels.len()));
    args.epilogue.finish_all(kernels.finish, 0..blocks, (plane, pixels.start), part, out);
}

/// Writes the windows of `pixels`.
fn gather(args: &ConvArgs<'_>, pixels: Range<usize>, columns: &mut [Block]) {
    let g = &args.geometry;
    let count = pixels.len();
    let mut k = 0;
    for (plane, live) in
        args.input.chunks_exact(g.in_pixels()).zip(args.lanes.iter().copied().map(usize::from))
    {
        for (ky, kx) in (0..g.kernel[0]).flat_map(|ky| (0..g.kernel[1]).map(move |kx| (ky, kx))) {
            for (at, pixel) in pixels.clone().enumerate() {
                let (y, x) = (pixel / g.out_width, pixel % g.out_width);
                let row = (y * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pad_top);
                let column = (x * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pad_left);
                let inside = row < g.in_height && column < g.in_width;
                let source = if inside { plane[row * g.in_width + column] } else { [0.0; LANES] };
                let first = k % LANES;
                let split = live.min(LANES - first);
                columns[k / LANES * count + at][first..first + split].copy_from_slice(&source[..split]);
                if split < live {
                    columns[(k / LANES + 1) * count + at][..live - split]
                        .copy_from_slice(&source[split..live]);
                }
            }
            k += live;
        }
    }
}

/// Sums and bias of one strip; `at` is where its first pixel is in each output slice.
fn multiply(kernels: &Kernels, args: &ConvArgs<'_>, columns: &[Block], at: usize, out: &mut [&mut [Block]]) {
    let k = args.weights_per_block();
    let mut live = [LANES as u8; MAX_COLUMN];
    let blocks = k.div_ceil(LANES);
    let count = columns.len() / blocks;
    let geometry = ConvGeometry { in_width: count, out_width: count, ..ConvGeometry::ONE_PIXEL };
    assert!(blocks <= MAX_COLUMN, "a window of at most {} channels and taps", MAX_COLUMN * LANES);
    live[blocks - 1] = (k - (blocks - 1) * LANES) as u8;
    for (group, out) in out.chunks_mut(GROUP).enumerate() {
        let block = group * GROUP;
        let epilogue = Epilogue {
            bias: &args.epilogue.bias[block..],
            scale: args.epilogue.scale.map(|scale| &scale[block..]),
            before: Activation::Identity,
            residual: None,
            residual_scale: None,
            after: Activation::Identity,
            max_min: false,
        };
        let weights = &args.weights[block * k..];
        let strip = ConvArgs { geometry, lanes: &live[..blocks], input: columns, weights, epilogue };
        let count_blocks = out.len();
        let mut slices: [&mut [Block]; GROUP] = Default::default();
        for (slice, out) in slices.iter_mut().zip(out.iter_mut()) {
            *slice = &mut out[at..at + count];
        }
        (kernels.direct.run)(&strip, 0..count, &mut slices[..count_blocks]);
    }
}

/// Blocks of the longest gathered window: 2048 channels with a 7x7 window.
pub const MAX_COLUMN: usize = 128 * 49;
