//! Element-wise operations on blocked activations: functions of one map, of two, and scale-and-add.
//!
//! ```text
//! map       [block][pixel][16]     of the output's shape, planes of `plane` pixels
//! channel   [block][16]            one number per channel: a gate, a bias, a constant vector
//! pixel     [pixel][16]            a map of one channel: lane 0 of each block, for all channels
//! out       one slice per block, each the pixels of `pixels`, [pixel][16]
//! ```
//!
//! Every operand starts at the first block that is computed; a pixel operand is the same for all. Any part of the
//! blocks and any range of pixels may be computed by itself: the bits are the same. Dead lanes are computed as
//! any others.

use core::ops::Range;

use crate::Block;
use crate::LANES;
use crate::activation::{Activation, specialize};
use crate::epilogue::NO_CLAMP;
use crate::simd::Simd;

/// `out = activation(input)`, of equal lengths.
pub type ActivateFn = fn(activation: Activation, input: &[Block], out: &mut [Block]);
/// `data = activation(data)`.
pub type ActivateInPlaceFn = fn(activation: Activation, data: &mut [Block]);
/// `out = after(op(left, right))`.
pub type BinaryFn = fn(args: &BinaryArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]);
/// `positive = relu(input)` and `negative = relu(-input)`, of equal lengths.
pub type MaxMinFn = fn(input: &[Block], positive: &mut [Block], negative: &mut [Block]);
/// `out = after(input * scale + addend)`.
pub type ScaleFn = fn(args: &ScaleArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]);

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `left + right`
    Add,
    /// `left - right`
    Sub,
    /// `left * right`
    Mul,
    /// `left / right`
    Div,
    /// The larger one; NaN if either is; +0 for a zero.
    Max,
    /// The smaller one; NaN if either is; +0 for a zero.
    Min,
    /// `left` where it is above zero, `right * left` elsewhere.
    PRelu,
}

/// One side of a binary operation.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a> {
    /// `[block][pixel]`, whole planes.
    Map(&'a [Block]),
    /// What the output's slices hold before.
    Out,
    /// One block per output block.
    Channel(&'a [Block]),
    /// One block per pixel of the plane, of which lane 0 counts.
    Pixel(&'a [Block]),
    /// One number.
    Scalar(f32),
}

/// What [`BinaryFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct BinaryArgs<'a> {
    /// The function.
    pub op: BinaryOp,
    /// Its first operand.
    pub left: Operand<'a>,
    /// Its second operand.
    pub right: Operand<'a>,
    /// Pixels of a whole plane.
    pub plane: usize,
    /// Applied last.
    pub after: Activation,
}

/// What is added to a scaled map.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// Nothing: the product is rounded.
    Nothing,
    /// One block per output block, in one fused multiply-add.
    Channel(&'a [Block]),
    /// `[block][pixel]`, whole planes, in one fused multiply-add.
    Map(&'a [Block]),
    /// The map times one number per pixel, both products rounded; in place of the sum the larger one, where asked for.
    Pixel {
        /// One block per pixel of the plane, of which lane 0 counts.
        gates: &'a [Block],
        /// The larger product, as [`BinaryOp::Max`] has it.
        larger: bool,
    },
}

/// What [`ScaleFn`] takes: a squeeze-excite gate with the residual behind it, or a batch normalization.
#[derive(Clone, Copy, Debug)]
pub struct ScaleArgs<'a> {
    /// `[block][pixel]`, whole planes; what the output's slices hold before where there is none.
    pub input: Option<&'a [Block]>,
    /// One block per output block.
    pub scale: &'a [Block],
    /// Added to the product.
    pub addend: Addend<'a>,
    /// Pixels of a whole plane.
    pub plane: usize,
    /// Applied last.
    pub after: Activation,
}

/// Pixels handled at a time: operands that are no maps are laid out as such for that many, 4 KB each, and
/// activations that are no clamp run over what was just written while it is in the first-level cache, so that each
/// is compiled once.
const CHUNK: usize = 64;

/// The algorithm behind the [`ActivateInPlaceFn`]s: functions with many steps go part by part, which makes their code
/// shorter; the next part hides the latency as the registers of a whole block would.
#[inline(always)]
pub(crate) fn activate_in_place<S: Simd, P: Simd, const N: usize>(
    simd: S,
    parts: [P; N],
    activation: Activation,
    data: &mut [Block],
) {
    specialize!(activation => if activation.has_many_steps() {
        for at in 0..data.len() * N {
            let (simd, block) = (parts[at % N], &mut data[at / N]);
            simd.store(block, activation.apply(simd, simd.load(block)));
        }
    } else {
        for block in data {
            simd.store(block, activation.apply(simd, simd.load(block)));
        }
    });
}

/// The same, lane by lane, with one code for each function and no loops of their own.
#[inline(always)]
pub(crate) fn activate_lanes<S: Simd<Vector = [f32; 1]>>(
    simd: S,
    activation: Activation,
    data: &mut [Block],
) {
    for x in data.as_flattened_mut() {
        [*x] = activation.apply(simd, [*x]);
    }
}

/// The algorithm behind every [`ActivateFn`]; `rest` is the [`ActivateInPlaceFn`] of the same instruction set.
#[inline(always)]
pub(crate) fn activate<S: Simd>(
    simd: S,
    rest: ActivateInPlaceFn,
    activation: Activation,
    input: &[Block],
    out: &mut [Block],
) {
    assert_eq!(input.len(), out.len(), "input and output differ in length");
    match activation.as_clamp() {
        Some(clamp) => {
            let clamp = Clamp::new(simd, clamp);
            map(
                simd,
                Some(input),
                out,
                #[inline(always)]
                |_, x| clamp.apply(simd, x),
            );
        }
        None => {
            for (out, input) in out.chunks_mut(CHUNK).zip(input.chunks(CHUNK)) {
                out.copy_from_slice(input);
                rest(activation, out);
            }
        }
    }
}

/// The part of an operand that belongs to one chunk of one block, laid out in `buffer` where it is no map.
///
/// A register would save one load from the first-level cache per block, and cost a loop for each pair of kinds.
/// The chunks of one block come in order, the first one being as long as any: constants are laid out once.
#[inline(always)]
fn operand<'a>(
    operand: &Operand<'a>,
    (block, plane): (usize, usize),
    (at, is_first): (usize, bool),
    out: &[Block],
    buffer: &'a mut [Block; CHUNK],
) -> &'a [Block] {
    let buffer = &mut buffer[..out.len()];
    match operand {
        Operand::Map(map) => return &map[block * plane + at..][..out.len()],
        Operand::Channel(_) | Operand::Scalar(_) if !is_first => {}
        Operand::Channel(channels) => buffer.fill(channels[block]),
        Operand::Scalar(x) => buffer.fill([*x; LANES]),
        Operand::Out => buffer.copy_from_slice(out),
        Operand::Pixel(pixels) => {
            for (to, from) in buffer.iter_mut().zip(&pixels[at..][..out.len()]) {
                *to = [from[0]; LANES];
            }
        }
    }
    buffer
}

impl Operand<'_> {
    fn check(&self, blocks: usize, plane: usize) {
        match *self {
            Operand::Map(map) => assert!(map.len() >= blocks * plane, "a map operand is short"),
            Operand::Channel(channels) => assert!(channels.len() >= blocks, "a channel operand is short"),
            Operand::Pixel(pixels) => assert!(pixels.len() >= plane, "a pixel operand is short"),
            Operand::Out | Operand::Scalar(_) => {}
        }
    }
}

fn check_out(plane: usize, pixels: &Range<usize>, out: &[&mut [Block]]) {
    assert!(pixels.start <= pixels.end && pixels.end <= plane, "pixels beyond the plane");
    for out in out {
        assert_eq!(out.len(), pixels.len(), "an output slice is not as long as the range of pixels");
    }
}

/// `op(a, b)`; call it where `op` is known at compile time, or once per number.
#[inline(always)]
pub(crate) fn apply_binary<S: Simd>(simd: S, op: BinaryOp, a: S::Vector, b: S::Vector) -> S::Vector {
    let zero = simd.splat(0.0);
    match op {
        BinaryOp::Add => simd.add(a, b),
        BinaryOp::Sub => simd.sub(a, b),
        BinaryOp::Mul => simd.mul(a, b),
        BinaryOp::Div => simd.div(a, b),
        BinaryOp::Max => simd.add(simd.max(a, b), zero),
        BinaryOp::Min => simd.add(simd.min(a, b), zero),
        BinaryOp::PRelu => simd.select_gt(a, zero, a, simd.mul(b, a)),
    }
}

/// `out = op(left, right)` and the clamp; one loop for each function.
#[inline(always)]
fn zip<S: Simd>(
    simd: S,
    op: BinaryOp,
    left: &[Block],
    right: &[Block],
    clamp: (f32, f32, f32),
    out: &mut [Block],
) {
    let clamp = Clamp::new(simd, clamp);
    for ((out, left), right) in out.iter_mut().zip(left).zip(right) {
        let v = apply_binary(simd, op, simd.load(left), simd.load(right));
        simd.store(out, clamp.apply(simd, v));
    }
}

/// An activation that is a clamp; every result goes through one, since beside the memory traffic it is free.
#[derive(Clone, Copy)]
pub(crate) struct Clamp<V> {
    low: V,
    high: V,
    zero: V,
}

impl<V: Copy> Clamp<V> {
    #[inline(always)]
    pub(crate) fn new<S: Simd<Vector = V>>(simd: S, (low, high, zero): (f32, f32, f32)) -> Self {
        Self { low: simd.splat(low), high: simd.splat(high), zero: simd.splat(zero) }
    }

    #[inline(always)]
    pub(crate) fn apply<S: Simd<Vector = V>>(self, simd: S, v: V) -> V {
        simd.add(simd.clamp(v, self.low, self.high), self.zero)
    }
}

/// For an instruction set that applies activations by itself after the other lanes are done.
pub(crate) fn later(_: Activation, _: &mut [Block]) {}

/// The algorithm behind every [`BinaryFn`]; `rest` is the [`ActivateInPlaceFn`] of the same instruction set.
#[inline(always)]
pub(crate) fn binary<S: Simd>(
    simd: S,
    rest: ActivateInPlaceFn,
    args: &BinaryArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
) {
    check_out(args.plane, &pixels, out);
    args.left.check(out.len(), args.plane);
    args.right.check(out.len(), args.plane);
    let clamp = args.after.as_clamp();
    let bounds = clamp.unwrap_or(NO_CLAMP);
    let mut buffers = [[[0.0; LANES]; CHUNK]; 2];
    let [left_buffer, right_buffer] = &mut buffers;
    for (block, out) in out.iter_mut().enumerate() {
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let at = (pixels.start + chunk * CHUNK, chunk == 0);
            let left = operand(&args.left, (block, args.plane), at, out, left_buffer);
            let right = operand(&args.right, (block, args.plane), at, out, right_buffer);
            match args.op {
                BinaryOp::Add => zip(simd, BinaryOp::Add, left, right, bounds, out),
                BinaryOp::Sub => zip(simd, BinaryOp::Sub, left, right, bounds, out),
                BinaryOp::Mul => zip(simd, BinaryOp::Mul, left, right, bounds, out),
                BinaryOp::Div => zip(simd, BinaryOp::Div, left, right, bounds, out),
                BinaryOp::Max => zip(simd, BinaryOp::Max, left, right, bounds, out),
                BinaryOp::Min => zip(simd, BinaryOp::Min, left, right, bounds, out),
                BinaryOp::PRelu => zip(simd, BinaryOp::PRelu, left, right, bounds, out),
            }
            if clamp.is_none() {
                rest(args.after, out);
            }
        }
    }
}

/// The algorithm behind every [`ScaleFn`]; `rest` is the [`ActivateInPlaceFn`] of the same instruction set.
#[inline(always)]
pub(crate) fn scale<S: Simd>(
    simd: S,
    rest: ActivateInPlaceFn,
    args: &ScaleArgs<'_>,
    pixels: Range<usize>,
    out: &mut [&mut [Block]],
) {
    check_out(args.plane, &pixels, out);
    assert!(args.scale.len() >= out.len(), "a scale per output block");
    args.input.map_or(Operand::Out, Operand::Map).check(out.len(), args.plane);
    match args.addend {
        Addend::Nothing => {}
        Addend::Channel(channels) => Operand::Channel(channels).check(out.len(), args.plane),
        Addend::Map(map) => Operand::Map(map).check(out.len(), args.plane),
        Addend::Pixel { gates, .. } => Operand::Pixel(gates).check(out.len(), args.plane),
    }
    let clamp = args.after.as_clamp();
    let bounds = Clamp::new(simd, clamp.unwrap_or(NO_CLAMP));
    for (block, out) in out.iter_mut().enumerate() {
        let scale = simd.load(&args.scale[block]);
        for (chunk, out) in out.chunks_mut(CHUNK).enumerate() {
            let at = block * args.plane + pixels.start + chunk * CHUNK;
            let input = args.input.map(|input| &input[at..][..out.len()]);
            match args.addend {
                Addend::Nothing => map(
                    simd,
                    input,
                    out,
                    #[inline(always)]
                    |_, x| bounds.apply(simd, simd.mul(x, scale)),
                ),
                Addend::Channel(channels) => {
                    let addend = simd.load(&channels[block]);
                    map(
                        simd,
                        input,
                        out,
                        #[inline(always)]
                        |_, x| bounds.apply(simd, simd.mul_add(x, scale, addend)),
                    );
                }
                Addend::Map(addend) => {
                    let addend = &addend[at..][..out.len()];
                    map(
                        simd,
                        input,
                        out,
                        #[inline(always)]
                        |i, x| bounds.apply(simd, simd.mul_add(x, scale, simd.load(&addend[i]))),
                    );
                }
                Addend::Pixel { gates, larger } => {
                    let gates = &gates[pixels.start + chunk * CHUNK..][..out.len()];
                    let op = if larger { BinaryOp::Max } else { BinaryOp::Add };
                    map(
                        simd,
                        input,
                        out,
                        #[inline(always)]
                        |i, x| {
                            let products = [simd.mul(x, scale), simd.mul(x, simd.splat(gates[i][0]))];
                            bounds.apply(simd, apply_binary(simd, op, products[0], products[1]))
                        },
                    );
                }
            }
            if clamp.is_none() {
                rest(args.after, out);
            }
        }
    }
}

/// `out[i] = f(i, input[i])`, or of `out[i]` itself.
#[inline(always)]
fn map<S: Simd>(
    simd: S,
    input: Option<&[Block]>,
    out: &mut [Block],
    f: impl Fn(usize, S::Vector) -> S::Vector,
) {
    match input {
        Some(input) => {
            for (i, (out, x)) in out.iter_mut().zip(input).enumerate() {
                simd.store(out, f(i, simd.load(x)));
            }
        }
        None => {
            for (i, out) in out.iter_mut().enumerate() {
                simd.store(out, f(i, simd.load(out)));
            }
        }
    }
}

/// The algorithm behind every [`MaxMinFn`].
#[inline(always)]
pub(crate) fn maxmin<S: Simd>(simd: S, input: &[Block], positive: &mut [Block], negative: &mut [Block]) {
    assert_eq!(input.len(), positive.len(), "input and output differ in length");
    assert_eq!(input.len(), negative.len(), "input and output differ in length");
    for ((x, positive), negative) in input.iter().zip(positive).zip(negative) {
        let x = simd.load(x);
        simd.store(positive, simd.relu(x));
        simd.store(negative, simd.relu(simd.neg(x)));
    }
}
