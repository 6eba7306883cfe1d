//! What happens to a sum before it is stored: bias, residual and activation.
//!
//! A tile calls `Tail` on its sums while they are in registers: bias, residual, and the activations that are a
//! clamp. Whatever is more goes to a `Finish` over the pixels just written, while they are in the first-level
//! cache: the tiles stay small, and the costly activations are compiled once. The bits are the same.

use core::ops::Range;

use crate::activation::Activation;
use crate::elementwise::ActivateInPlaceFn;
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// `after(before(sum * scale + bias) + residual)`, the residual times a number per channel where it has a scale.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// One block per output block; zeros where the layer has no bias.
    pub bias: &'a [Block],
    /// One block per output block, by which the sums are multiplied in the same operation that adds the bias: a gate
    /// that is known before the convolution. Depthwise and Winograd convolutions take none.
    pub scale: Option<&'a [Block]>,
    /// Applied before the residual is added. Use `after` where there is no residual.
    pub before: Activation,
    /// `[output block][pixel]`, laid out as the whole output planes.
    pub residual: Option<&'a [Block]>,
    /// One block per output block, by which the residual is multiplied in one fused multiply-add.
    pub residual_scale: Option<&'a [Block]>,
    /// Applied last.
    pub after: Activation,
    /// MaxMin: the output has twice the slices, and the second half receives `after(-v)` where the first half
    /// receives `after(v)`, `v` being `before(sum + bias) + residual`.
    pub max_min: bool,
}

impl<'a> Epilogue<'a> {
    /// The part that tiles apply.
    pub(crate) fn tail(&self) -> Tail<'a> {
        let all = !self.has_rest();
        let (low, high, zero) = self.after.as_clamp().filter(|_| all).unwrap_or(NO_CLAMP);
        Tail { bias: self.bias, scale: self.scale, residual: self.residual.filter(|_| all), low, high, zero }
    }

    /// Whether a [`Finish`] is needed after the tail.
    pub(crate) fn has_rest(&self) -> bool {
        self.max_min
            || self.residual_scale.is_some()
            || self.before != Activation::Identity
            || self.after.as_clamp().is_none()
    }

    /// What every producer of an output relies on; gives the number of output blocks.
    ///
    /// # Panics
    /// Where an operand is too small or the slices of `out` do not hold `pixels` of planes of `plane`.
    pub(crate) fn check(&self, plane: usize, pixels: &Range<usize>, out: &[&mut [Block]]) -> usize {
        let blocks = self.blocks(out.len());
        assert!(!self.max_min || out.len().is_multiple_of(2), "MaxMin fills two halves");
        self.check_operands(plane, blocks);
        assert!(pixels.start <= pixels.end && pixels.end <= plane, "pixels of the output");
        assert!(out.iter().all(|out| out.len() == pixels.len()), "a slice holds the pixels of the range");
        blocks
    }

    /// Of that, what is read for `blocks` blocks.
    pub(crate) fn check_operands(&self, plane: usize, blocks: usize) {
        assert!(self.bias.len() >= blocks, "bias of every output block");
        assert!(self.scale.is_none_or(|scale| scale.len() >= blocks), "scale of every output block");
        assert!(
            self.residual.is_none_or(|residual| residual.len() >= blocks * plane),
            "residual of every block"
        );
        assert!(self.residual_scale.is_none_or(|scale| scale.len() >= blocks), "scale of every block");
    }

    /// This epilogue for output blocks from `block` on, of planes of `plane` pixels.
    #[inline(always)]
    pub(crate) fn starting_at(&self, block: usize, plane: usize) -> Epilogue<'a> {
        let residual = self.residual.map(|residual| &residual[block * plane..]);
        Epilogue {
            bias: &self.bias[block..],
            scale: self.scale.map(|scale| &scale[block..]),
            residual,
            residual_scale: self.residual_scale.map(|scale| &scale[block..]),
            ..*self
        }
    }

    /// How many blocks `slices` output slices hold.
    pub(crate) fn blocks(&self, slices: usize) -> usize {
        if self.max_min { slices / 2 } else { slices }
    }
}

/// Bounds, and what is added after them: -0.0 changes nothing, +0.0 makes +0.0 of -0.0.
pub(crate) const NO_CLAMP: (f32, f32, f32) = (f32::NEG_INFINITY, f32::INFINITY, -0.0);

impl Activation {
    /// The activation as `clamp(x, low, high) + zero`, if it is one.
    pub(crate) fn as_clamp(self) -> Option<(f32, f32, f32)> {
        match self {
            Activation::Identity => Some(NO_CLAMP),
            Activation::Relu => Some((0.0, f32::INFINITY, 0.0)),
            Activation::Clip { low, high } => Some((low, high, -0.0)),
            _ => None,
        }
    }
}

/// What a tile does to its sums: `clamp(sum * scale + bias + residual, low, high) + zero`.
///
/// One form for identity, ReLU and clip, so that a tile has no branch on the activation, and no copy of its code
/// for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail<'a> {
    bias: &'a [Block],
    scale: Option<&'a [Block]>,
    residual: Option<&'a [Block]>,
    low: f32,
    high: f32,
    zero: f32,
}

/// Multiplying with it changes nothing: stands in for a scale, so that a sum is scaled and gets its bias in the one
/// operation that an addition would take.
static ONES: Block = [1.0; LANES];

impl Tail<'_> {
    /// What is applied last, given its constants in registers.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(simd: S, v: S::Vector, [low, high, zero]: [S::Vector; 3]) -> S::Vector {
        simd.add(simd.clamp(v, low, high), zero)
    }

    /// The constants of [`Tail::apply`].
    #[inline(always)]
    pub(crate) fn constants<S: Simd>(&self, simd: S) -> [S::Vector; 3] {
        [simd.splat(self.low), simd.splat(self.high), simd.splat(self.zero)]
    }

    /// What is applied last, as a clamp.
    pub(crate) fn clamp(&self) -> (f32, f32, f32) {
        (self.low, self.high, self.zero)
    }

    /// Bias of output block `block`, counted from the first one computed.
    #[inline(always)]
    pub(crate) fn bias(&self, block: usize) -> &Block {
        &self.bias[block]
    }

    /// Residual of `len` pixels from `pixel` on, in output block `block`; `plane` is the pixels of a block.
    #[inline(always)]
    pub(crate) fn residual(&self, block: usize, plane: usize, pixel: usize, len: usize) -> Option<&[Block]> {
        match self.residual {
            Some(residual) => Some(&residual[block * plane + pixel..][..len]),
            None => None,
        }
    }

    /// Stores a tile of `M` pixels times `N` output blocks: its pixels are `at..` in each of the slices, and
    /// `pixel..` of planes of `plane`. No branch but one on the residual.
    #[inline(always)]
    pub(crate) fn store<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        mut sums: [[S::Vector; N]; M],
        (plane, pixel): (usize, usize),
        at: usize,
        out: &mut [&mut [Block]],
    ) {
        // not known before the sums are there: else its constants take registers, from them, in the loop over taps
        let tail = core::hint::black_box(self);
        unroll!(j < N <= 4, {
            let out = &mut out[j][at..][..M];
            let bias = simd.load(tail.bias(j));
            let scale = simd.load(tail.scale.map_or(&ONES, |scale| &scale[j]));
            unroll!(i < M <= 16, { sums[i][j] = simd.mul_add(sums[i][j], scale, bias) });
            if let Some(residual) = tail.residual(j, plane, pixel, M) {
                unroll!(i < M <= 16, { sums[i][j] = simd.add(sums[i][j], simd.load(&residual[i])) });
            }
            // after all sums, where scale and bias no longer take registers
            let constants = tail.constants(simd);
            unroll!(i < M <= 16, { simd.store(&mut out[i], Tail::apply(simd, sums[i][j], constants)) });
        });
    }
}

/// The second pass: what [`Tail`] left, over a run of pixels of one block that hold `sum + bias`.
///
/// An entry point of each instruction set (`epilogue_<isa>`), so that algorithms can be given it as a pointer.
pub(crate) type Finish = fn(rest: &Rest<'_>, out: &mut [Block], negative: Option<&mut [Block]>);

/// What a [`Finish`] takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rest<'a> {
    before: Activation,
    after: Activation,
    residual: Option<&'a [Block]>,
    residual_scale: Option<&'a Block>,
}

impl<'a> Epilogue<'a> {
    /// The rest for `len` pixels from `pixel` on, in output block `block` of planes of `plane` pixels.
    pub(crate) fn rest(&self, block: usize, plane: usize, pixel: usize, len: usize) -> Rest<'a> {
        let residual = self.residual.map(|residual| &residual[block * plane + pixel..][..len]);
        let residual_scale = self.residual_scale.map(|scale| &scale[block]);
        Rest { before: self.before, after: self.after, residual, residual_scale }
    }

    /// The second pass, if there is one, of output blocks `blocks`, over pixels `at..at + len` of their slices,
    /// which are pixels `pixel..` of planes of `plane`. `out` is all slices: with MaxMin, both halves.
    #[inline(never)]
    pub(crate) fn finish(
        &self,
        finish: Finish,
        blocks: Range<usize>,
        (plane, pixel): (usize, usize),
        (at, len): (usize, usize),
        out: &mut [&mut [Block]],
    ) {
        if !self.has_rest() {
            return;
        }
        let (out, negative) = out.split_at_mut(self.blocks(out.len()));
        for block in blocks {
            let negative = negative.get_mut(block).map(|slice| &mut slice[at..at + len]);
            finish(&self.rest(block, plane, pixel, len), &mut out[block][at..at + len], negative);
        }
    }
}

/// The algorithm behind every [`Finish`]; `activate` is of the same instruction set.
#[inline(always)]
pub(crate) fn finish<S: Simd>(
    simd: S,
    activate: ActivateInPlaceFn,
    rest: &Rest<'_>,
    out: &mut [Block],
    negative: Option<&mut [Block]>,
) {
    activate(rest.before, out);
    if let Some(residual) = rest.residual {
        assert_eq!(residual.len(), out.len());
        if let Some(scale) = rest.residual_scale {
            let scale = simd.load(scale);
            for (out, residual) in out.iter_mut().zip(residual) {
                simd.store(out, simd.mul_add(simd.load(residual), scale, simd.load(out)));
            }
        } else {
            for (out, residual) in out.iter_mut().zip(residual) {
                simd.store(out, simd.add(simd.load(out), simd.load(residual)));
            }
        }
    }
    if let Some(negative) = negative {
        assert_eq!(negative.len(), out.len());
        if rest.after == Activation::Relu {
            for (negative, out) in negative.iter_mut().zip(&mut *out) {
                let v = simd.load(out);
                simd.store(negative, simd.relu(simd.neg(v)));
                simd.store(out, simd.relu(v));
            }
            return;
        }
        for (negative, out) in negative.iter_mut().zip(&*out) {
            simd.store(negative, simd.neg(simd.load(out)));
        }
        activate(rest.after, negative);
    }
    activate(rest.after, out);
}
