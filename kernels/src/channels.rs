//! Operations across the channels of a pixel: softmax and local response normalization.
//!
//! A sum over channels is one chain per lane over the blocks, then a fixed tree over the 16 lanes (8 apart, 4, 2, 1);
//! dead lanes are left out.

use core::ops::Range;

use crate::activation::Activation;
use crate::elementwise::ActivateInPlaceFn;
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

/// Asserts that input and output are whole planes of all blocks; gives the pixels of one.
fn plane_of(input: &[Block], lanes: &[u8], out: &[Block]) -> usize {
    assert_eq!(input.len(), out.len(), "input and output differ in length");
    assert!(!lanes.is_empty() && out.len().is_multiple_of(lanes.len()), "whole planes");
    out.len() / lanes.len()
}

/// Pixels handled at a time: the exponential of one block of them runs over 4 KB.
const CHUNK: usize = 64;

/// A block with its dead lanes replaced.
#[inline(always)]
fn live(block: &Block, lanes: u8, dead: f32) -> Block {
    let mut block = *block;
    for lane in &mut block[usize::from(lanes)..] {
        *lane = dead;
    }
    block
}

/// The pixels `start..end` of each chunk of a range.
fn chunks(pixels: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    pixels.clone().step_by(CHUNK).map(move |start| start..pixels.end.min(start + CHUNK))
}

/// The algorithm behind every [`SoftmaxFn`]: `exp(x - max)` and a true division by the sum. `activate` is of the same
/// instruction set: the exponential is compiled once.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(
    simd: S,
    activate: ActivateInPlaceFn,
    args: &SoftmaxArgs<'_>,
    pixels: Range<usize>,
    out: &mut [Block],
) {
    let plane = plane_of(args.input, args.lanes, out);
    for pixels in chunks(pixels) {
        for pixel in pixels.clone() {
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
            for block in 0..args.lanes.len() {
                let at = block * plane + pixel;
                simd.store(&mut out[at], simd.sub(simd.load(&args.input[at]), largest));
            }
        }
        for block in 0..args.lanes.len() {
            activate(Activation::Exp, &mut out[block * plane..][pixels.clone()]);
        }
        for pixel in pixels {
            let mut sum = simd.splat(0.0);
            for (block, &lanes) in args.lanes.iter().enumerate() {
                sum = simd.add(sum, simd.load(&live(&out[block * plane + pixel], lanes, 0.0)));
            }
            let mut tree = [0.0; LANES];
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
}

/// The algorithm behind every [`LrnFn`]: the squares of a window are added from its first channel to its last, and the
/// power is `exp(-beta * log(..))`, by `activate` of the same instruction set.
#[inline(always)]
pub(crate) fn lrn<S: Simd>(
    simd: S,
    activate: ActivateInPlaceFn,
    args: &LrnArgs<'_>,
    pixels: Range<usize>,
    out: &mut [Block],
) {
    let plane = plane_of(args.input, args.lanes, out);
    let channels = (args.lanes.len() - 1) * LANES + usize::from(args.lanes[args.lanes.len() - 1]);
    let (scale, bias) = (simd.splat(args.alpha / args.size as f32), simd.splat(args.bias));
    let minus_beta = simd.splat(-args.beta);
    let before = (args.size - 1) / 2;
    for pixels in chunks(pixels) {
        for (block, &lanes) in args.lanes.iter().enumerate() {
            let out = &mut out[block * plane..][pixels.clone()];
            for (pixel, out) in pixels.clone().zip(&mut *out) {
                let mut sum = simd.splat(0.0);
                for step in 0..args.size {
                    let mut window = [0.0; LANES];
                    for (lane, x) in window.iter_mut().enumerate().take(usize::from(lanes)) {
                        let channel = (block * LANES + lane + step).wrapping_sub(before);
                        if channel < channels {
                            *x = args.input[channel / LANES * plane + pixel][channel % LANES];
                        }
                    }
                    let x = simd.load(&window);
                    sum = simd.mul_add(x, x, sum);
                }
                simd.store(out, simd.mul_add(sum, scale, bias));
            }
            activate(Activation::Log, out);
            for out in &mut *out {
                simd.store(out, simd.mul(minus_beta, simd.load(out)));
            }
            activate(Activation::Exp, out);
            for (out, x) in out.iter_mut().zip(&args.input[block * plane..][pixels.clone()]) {
                simd.store(out, simd.mul(simd.load(x), simd.load(out)));
            }
        }
    }
}
