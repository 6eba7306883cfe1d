//! Operations across the channels of a pixel: softmax and local response normalization.
//!
//! A sum over channels is one chain per lane over the blocks, then a fixed tree over the 16 lanes (8 apart, 4, 2, 1);
//! dead lanes are left out.

use core::ops::Range;

use crate::math::{exp, log};
use crate::simd::Simd;
use crate::{Block, LANES};

/// `out = softmax(input)` over the channels of each pixel.
pub type SoftmaxFn = fn(args: &SoftmaxArgs<'_>, pixels: Range<usize>, out: &mut [Block]);

/// What [`SoftmaxFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxArgs<'a> {
    /// `[block][pixel]`; the output is laid out alike.
    pub input: &'a [Block],
    /// Live channels of each block.
    pub lanes: &'a [u8],
}

/// `out = input / (bias + alpha / size * sum of squares)^beta`, the sum over a window of channels.
pub type LrnFn = fn(args: &LrnArgs<'_>, pixels: Range<usize>, out: &mut [Block]);

/// What [`LrnFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct LrnArgs<'a> {
    /// `[block][pixel]`, channel `c` in lane `c % 16` of block `c / 16`; the output is laid out alike.
    pub input: &'a [Block],
    /// Live channels of each block.
    pub lanes: &'a [u8],
    /// Channels in the window: `(size - 1) / 2` before, `size / 2` behind.
    pub size: usize,
    /// Scale of the sum of squares, before division by `size`.
    pub alpha: f32,
    /// The exponent.
    pub beta: f32,
    /// Added to the scaled sum.
    pub bias: f32,
}

/// A block with its dead lanes replaced.
#[inline(always)]
fn live(block: &Block, lanes: u8, dead: f32) -> Block {
    let mut block = *block;
    for lane in &mut block[usize::from(lanes)..] {
        *lane = dead;
    }
    block
}

/// The algorithm behind every [`SoftmaxFn`]: `exp(x - max)` and a true division by the sum.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(simd: S, args: &SoftmaxArgs<'_>, pixels: Range<usize>, out: &mut [Block]) {
    assert_eq!(args.input.len(), out.len(), "input and output differ in length");
    assert!(!args.lanes.is_empty() && out.len().is_multiple_of(args.lanes.len()), "whole planes");
    let plane = out.len() / args.lanes.len();
    for pixel in pixels {
        let mut largest = simd.splat(f32::NEG_INFINITY);
        for (block, &lanes) in args.lanes.iter().enumerate() {
            let x = live(&args.input[block * plane + pixel], lanes, f32::NEG_INFINITY);
            largest = simd.max(simd.load(&x), largest);
        }
        let mut tree = [0.0; LANES];
        simd.store(&mut tree, largest);
        // NaN is the largest of all.
        let larger = |a: f32, b: f32| if a.is_nan() || a > b { a } else { b };
        let largest = simd.splat(tree.into_iter().fold(f32::NEG_INFINITY, larger));
        let mut sum = simd.splat(0.0);
        for (block, &lanes) in args.lanes.iter().enumerate() {
            let at = block * plane + pixel;
            simd.store(&mut out[at], exp(simd, simd.sub(simd.load(&args.input[at]), largest)));
            sum = simd.add(sum, simd.load(&live(&out[at], lanes, 0.0)));
        }
        simd.store(&mut tree, sum);
        for distance in [8, 4, 2, 1] {
            for lane in 0..distance {
                tree[lane] += tree[lane + distance];
            }
        }
        let sum = simd.splat(tree[0]);
        for block in 0..args.lanes.len() {
            let at = block * plane + pixel;
            let quotient = simd.div(simd.load(&out[at]), sum);
            simd.store(&mut out[at], quotient);
        }
    }
}

/// The algorithm behind every [`LrnFn`]: the squares of a window are added from its first channel to its last, and the
/// power is `exp(-beta * log(..))`.
#[inline(always)]
pub(crate) fn lrn<S: Simd>(simd: S, args: &LrnArgs<'_>, pixels: Range<usize>, out: &mut [Block]) {
    assert_eq!(args.input.len(), out.len(), "input and output differ in length");
    assert!(!args.lanes.is_empty() && out.len().is_multiple_of(args.lanes.len()), "whole planes");
    let plane = out.len() / args.lanes.len();
    let channels = (args.lanes.len() - 1) * LANES + usize::from(args.lanes[args.lanes.len() - 1]);
    let scale = simd.splat(args.alpha / args.size as f32);
    for pixel in pixels {
        for (block, &lanes) in args.lanes.iter().enumerate() {
            let mut sum = simd.splat(0.0);
            let first = block * LANES;
            let before = (args.size - 1) / 2;
            for step in 0..args.size {
                let mut window = [0.0; LANES];
                for (lane, x) in window.iter_mut().enumerate().take(usize::from(lanes)) {
                    let channel = (first + lane + step).wrapping_sub(before);
                    if channel < channels {
                        *x = args.input[channel / LANES * plane + pixel][channel % LANES];
                    }
                }
                let x = simd.load(&window);
                sum = simd.mul_add(x, x, sum);
            }
            let base = simd.mul_add(sum, scale, simd.splat(args.bias));
            let power = exp(simd, simd.mul(simd.splat(-args.beta), log(simd, base)));
            let at = block * plane + pixel;
            simd.store(&mut out[at], simd.mul(simd.load(&args.input[at]), power));
        }
    }
}
