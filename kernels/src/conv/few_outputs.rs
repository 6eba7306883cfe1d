//! 1x1 convolutions to a few channels: gates of pixels, last layers that give a map or two. Lanes are neighbouring pixels, where
//! lanes that are output channels would mostly be dead: 16 pixels of a block are transposed, and one lane of theirs meets
//! one weight.
//!
//! Order of a result: the one of direct convolution, a chain of fused multiply-adds from +0 over input blocks and live
//! lanes; so are its bits.

use core::ops::Range;

use crate::activation::Activation;
use crate::conv::ConvArgs;
use crate::elementwise::ActivateInPlaceFn;
use crate::simd::Simd;
use crate::{Block, LANES};

/// Most channels of an output.
pub const MOST: usize = 4;

/// Groups of 16 pixels whose sums are worked on together: a block is read in runs of 16 KB.
const GROUPS: usize = 16;

/// Computes the output pixels of the range, `outputs` lanes of each; the others stay as they are. Weights are those of a 1x1
/// direct convolution. There is no residual, no scale and no MaxMin.
pub type FewOutputsFn = fn(args: &ConvArgs<'_>, outputs: usize, pixels: Range<usize>, out: &mut [Block]);

/// The algorithm behind every [`FewOutputsFn`]; `activate` is of the same instruction set.
///
/// # Panics
/// Where an argument does not fit the geometry, or asks for what this does not do.
#[inline(always)]
pub(crate) fn run<S: Simd>(
    simd: S,
    activate: ActivateInPlaceFn,
    args: &ConvArgs<'_>,
    outputs: usize,
    pixels: Range<usize>,
    out: &mut [Block],
) {
    check(args, outputs, &pixels, out);
    let epilogue = &args.epilogue;
    let activations = [epilogue.before, epilogue.after].map(|f| (f != Activation::Identity).then_some(f));
    let mut sums = [[0.0; LANES]; MOST * GROUPS];
    for (first, out) in pixels.step_by(GROUPS * LANES).zip(out.chunks_mut(GROUPS * LANES)) {
        // a vector of each output, group by group
        let sums = &mut sums[..out.len().div_ceil(LANES) * outputs];
        sums.fill([0.0; LANES]);
        add_products(simd, args, (first, out.len()), outputs, sums);
        for (i, sum) in sums.iter_mut().enumerate() {
            let bias = simd.splat(epilogue.bias[0][i % outputs]);
            simd.store(sum, simd.add(simd.load(sum), bias));
        }
        for activation in activations.into_iter().flatten() {
            activate(activation, sums);
        }
        for (i, pixel) in out.iter_mut().enumerate() {
            for (j, value) in pixel[..outputs].iter_mut().enumerate() {
                *value = sums[i / LANES * outputs + j][i % LANES];
            }
        }
    }
}

/// Adds the products of all channels to the outputs of `len` pixels from `first` on.
#[inline(always)]
fn add_products<S: Simd>(
    simd: S,
    args: &ConvArgs<'_>,
    (first, len): (usize, usize),
    outputs: usize,
    sums: &mut [Block],
) {
    let plane = args.geometry.in_pixels();
    let (mut last, mut lanes) = ([[0.0; LANES]; LANES], [[0.0; LANES]; LANES]);
    let mut weights = args.weights;
    for (block, live) in args.lanes.iter().enumerate() {
        let (now, later) = weights.split_at(usize::from(*live).min(LANES));
        let input = &args.input[block * plane + first..][..len];
        for (pixels, sums) in input.chunks(LANES).zip(sums.chunks_exact_mut(outputs)) {
            let pixels = pixels.first_chunk().unwrap_or_else(|| {
                last[..pixels.len()].copy_from_slice(pixels);
                &last
            });
            simd.transpose(pixels.each_ref(), &mut lanes);
            // a chain ends with its block, and the next one hides its latency
            for (n, sum) in sums.iter_mut().enumerate() {
                let mut chain = simd.load(sum);
                for (x, weights) in lanes.iter().zip(now) {
                    chain = simd.mul_add(simd.load(x), simd.splat(weights[n]), chain);
                }
                simd.store(sum, chain);
            }
        }
        weights = later;
    }
}

/// What the rest relies on.
fn check(args: &ConvArgs<'_>, outputs: usize, pixels: &Range<usize>, out: &[Block]) {
    let (g, epilogue) = (&args.geometry, &args.epilogue);
    assert!((1..=MOST).contains(&outputs), "a few outputs");
    assert!(supports(g), "a 1x1 window without stride or border");
    assert!(epilogue.residual.is_none() && epilogue.scale.is_none(), "neither residual nor scale");
    assert!(!epilogue.max_min, "no MaxMin");
    assert!(pixels.start <= pixels.end && pixels.end <= g.out_pixels(), "pixels of the output");
    assert_eq!(out.len(), pixels.len(), "the slice holds the pixels of the range");
    assert!(!epilogue.bias.is_empty(), "bias of the output block");
    args.check_layer(1);
}

/// Whether a geometry is served.
pub fn supports(g: &super::ConvGeometry) -> bool {
    g.kernel == [1, 1]
        && g.stride == [1, 1]
        && (g.pad_top, g.pad_left) == (0, 0)
        && (g.in_height, g.in_width) == (g.out_height, g.out_width)
}
