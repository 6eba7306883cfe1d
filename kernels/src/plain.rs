//! Row-major maps as they are, without blocks: what a caller's tensor needs before or after blocks pay.
//!
//! ```text
//! input, out     [channel][row][column], planes without gaps
//! a block        16 neighbours of a row: lanes are pixels, and a number per channel is splat
//! ```
//!
//! A layout change moves a whole map twice, which costs more than a pool or a scale itself. So these read and write
//! the map in place, with lanes of neighbouring pixels. Each gives the bits of its counterpart on blocks: the order of every sum
//! is that of `pool.rs`. Every NaN that is stored is 7fc00000, so that a result may be a graph output.
//!
//! Planes are cut into blocks of 16; the last block of a row or plane overlaps the one before it, which stores some
//! results twice. What is shorter than a block goes through a padded one.

pub mod depthwise;
pub(crate) mod elements;
pub mod pool;

use crate::activation::Activation;
use crate::elementwise::{ActivateInPlaceFn, Clamp};
use crate::epilogue::NO_CLAMP;
use crate::pool::{FEW_TAPS, PoolKind, add_chains, add_rows};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// `out = after(input * scale + addend)` for the elements from `first` on, counted from the input's first.
pub type PlainScaleFn = fn(args: &PlainScaleArgs<'_>, first: usize, out: &mut [f32]);
/// One block per 16 planes.
pub type PlainGlobalFn = fn(args: &PlainGlobalArgs<'_>, out: &mut [Block]);

/// What is added to a scaled row-major map.
#[derive(Clone, Copy, Debug)]
pub enum PlainAddend<'a> {
    /// Nothing: the product is rounded.
    Nothing,
    /// One number per channel, in one fused multiply-add.
    Channel(&'a [f32]),
    /// A map, in one fused multiply-add.
    Map(&'a [f32]),
}

/// What [`PlainScaleFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct PlainScaleArgs<'a> {
    /// The map.
    pub input: &'a [f32],
    /// One number per channel.
    pub scale: &'a [f32],
    /// Added to the product.
    pub addend: PlainAddend<'a>,
    /// Elements of a channel.
    pub plane: usize,
    /// Applied last.
    pub after: Activation,
}

/// What [`PlainGlobalFn`] takes.
#[derive(Clone, Copy, Debug)]
pub struct PlainGlobalArgs<'a> {
    /// The largest element, or the mean.
    pub kind: PoolKind,
    /// The planes, from that of lane 0 of the first output block on; lanes beyond the last one are dead.
    pub input: &'a [f32],
    /// Elements of a plane.
    pub plane: usize,
    /// Elements of a row.
    pub width: usize,
}

/// Blocks that a part of a channel goes through where it cannot be computed in place: 4 KB.
const CHUNK: usize = 64;

/// Calls `f` with the offsets of blocks that cover `len` elements, the last one overlapping.
///
/// # Panics
/// With fewer elements than a block.
#[inline(always)]
fn cover(len: usize, mut f: impl FnMut(usize)) {
    assert!(len >= LANES, "shorter than a block");
    for at in (0..len).step_by(LANES) {
        f(at.min(len - LANES));
    }
}

/// The block at `at`.
#[inline(always)]
fn block_at(data: &[f32], at: usize) -> &Block {
    match data[at..].first_chunk() {
        Some(block) => block,
        None => panic!("a block beyond the end"),
    }
}

/// The block at `at`, to be written.
#[inline(always)]
fn block_at_mut(data: &mut [f32], at: usize) -> &mut Block {
    match data[at..].first_chunk_mut() {
        Some(block) => block,
        None => panic!("a block beyond the end"),
    }
}

/// The algorithm behind every [`PlainScaleFn`] but the scalar one; `rest` is the [`ActivateInPlaceFn`] of the same instruction set.
#[inline(always)]
pub(crate) fn scale<S: Simd>(
    simd: S,
    rest: ActivateInPlaceFn,
    args: &PlainScaleArgs<'_>,
    first: usize,
    out: &mut [f32],
) {
    let clamp = args.after.as_clamp();
    let bounds = Clamp::new(simd, clamp.unwrap_or(NO_CLAMP));
    let (nothing, map) = match args.addend {
        PlainAddend::Nothing => (true, None),
        PlainAddend::Channel(_) => (false, None),
        PlainAddend::Map(map) => (false, Some(&map[first..][..out.len()])),
    };
    let input = &args.input[first..][..out.len()];
    let mut at = 0;
    while at < out.len() {
        let channel = (first + at) / args.plane;
        let end = ((channel + 1) * args.plane - first).min(out.len());
        let scale = simd.splat(args.scale[channel]);
        let shift = simd.splat(match args.addend {
            PlainAddend::Channel(shift) => shift[channel],
            _ => 0.0,
        });
        let (x, out, map) = (&input[at..end], &mut out[at..end], map.map(|map| &map[at..end]));
        at = end;
        if clamp.is_some() && out.len() >= LANES {
            cover(
                out.len(),
                #[inline(always)]
                |at| {
                    let addend = if let Some(map) = map { simd.load(block_at(map, at)) } else { shift };
                    let y = scaled(simd, simd.load(block_at(x, at)), scale, addend, nothing);
                    simd.store(block_at_mut(out, at), simd.canonical_nan(bounds.apply(simd, y)));
                },
            );
            continue;
        }
        let mut buffers = [[[0.0; LANES]; CHUNK]; 2];
        let [values, addends] = &mut buffers;
        for (chunk, out) in out.chunks_mut(CHUNK * LANES).enumerate() {
            let (start, len) = (chunk * CHUNK * LANES, out.len());
            values.as_flattened_mut()[..len].copy_from_slice(&x[start..][..len]);
            if let Some(map) = map {
                addends.as_flattened_mut()[..len].copy_from_slice(&map[start..][..len]);
            }
            let values = &mut values[..len.div_ceil(LANES)];
            for (v, addend) in values.iter_mut().zip(&*addends) {
                let addend = if map.is_some() { simd.load(addend) } else { shift };
                let y = scaled(simd, simd.load(v), scale, addend, nothing);
                simd.store(v, bounds.apply(simd, y));
            }
            if clamp.is_none() {
                rest(args.after, values);
            }
            for v in &mut *values {
                simd.store(v, simd.canonical_nan(simd.load(v)));
            }
            out.copy_from_slice(&values.as_flattened()[..len]);
        }
    }
}

/// `x * scale`, and `addend` in the same rounding unless there is none.
#[inline(always)]
fn scaled<S: Simd>(simd: S, x: S::Vector, scale: S::Vector, addend: S::Vector, nothing: bool) -> S::Vector {
    if nothing { simd.mul(x, scale) } else { simd.mul_add(x, scale, addend) }
}

impl PlainGlobalArgs<'_> {
    fn check(&self, out: &[Block]) {
        let &Self { plane, width, input, .. } = self;
        assert!(width > 0 && plane > 0 && plane.is_multiple_of(width), "no whole rows");
        assert!(input.len() > out.len().saturating_sub(1) * LANES * plane, "a block without a channel");
    }
}

/// The algorithm behind every [`PlainGlobalFn`] but the scalar one.
///
/// The mean of a plane is as in `pool.rs`: its 16 chains are the lanes of one sum. Those of 16 channels are transposed.
#[inline(always)]
pub(crate) fn global_pool<S: Simd>(simd: S, args: &PlainGlobalArgs<'_>, out: &mut [Block]) {
    args.check(out);
    let (plane, width) = (args.plane, args.width);
    for (planes, out) in args.input.chunks(LANES * plane).zip(out) {
        let mut values = [[0.0; LANES]; LANES];
        if args.kind == PoolKind::Max {
            for (value, plane) in values[0].iter_mut().zip(planes.chunks_exact(plane)) {
                *value = largest(simd, plane);
            }
            simd.store(out, simd.add(simd.load(&values[0]), simd.splat(0.0)));
            continue;
        }
        let channels = planes.len() / plane;
        if channels < TOGETHER {
            let one = PlainGlobalArgs { input: planes, ..*args };
            elements::global_pool(&one, core::slice::from_mut(out));
            continue;
        }
        // some planes at a time hide the latency of an addition; the last ones, once more, fill up their number
        let mut chains = [[0.0; LANES]; LANES];
        for channel in (0..channels).step_by(TOGETHER) {
            let channel = channel.min(channels - TOGETHER);
            sum_planes(simd, &planes[channel * plane..], plane, &mut chains[channel..]);
        }
        simd.transpose(chains.each_ref(), &mut values);
        // Of few elements each is a chain of its own.
        let sum = match plane {
            ..=FEW_TAPS => add_rows(simd, &values, (plane / width, width), (width, 1)),
            _ => add_chains(simd, &values),
        };
        simd.store(out, simd.div(sum, simd.splat(plane as f32)));
    }
}

/// Planes whose sums are taken at a time.
const TOGETHER: usize = 4;

/// The 16 chains of the sums of the first planes of `data`.
#[inline(always)]
fn sum_planes<S: Simd>(simd: S, data: &[f32], plane: usize, chains: &mut [Block]) {
    const N: usize = TOGETHER;
    let mut sums = [simd.splat(0.0); N];
    let whole = plane / LANES;
    let mut planes: [&[Block]; N] = [&[]; N];
    unroll!(n < N <= 4, { planes[n] = &data[n * plane..][..plane].as_chunks().0[..whole] });
    #[allow(clippy::needless_range_loop, reason = "one number for N arrays")]
    for at in 0..whole {
        unroll!(n < N <= 4, { sums[n] = simd.add(sums[n], simd.load(&planes[n][at])) });
    }
    let rest = plane - whole * LANES;
    let numbers = simd.load(&core::array::from_fn(|lane| lane as f32));
    unroll!(n < N <= 4, {
        let last = &data[n * plane + whole * LANES..];
        if rest > 0 {
            // What is behind the plane counts as +0: no chain is -0.
            let mut padded = [0.0; LANES];
            let last = last.first_chunk().unwrap_or_else(|| {
                padded[..rest].copy_from_slice(&last[..rest]);
                &padded
            });
            let last = simd.select_gt(simd.splat(rest as f32), numbers, simd.load(last), simd.splat(0.0));
            sums[n] = simd.add(sums[n], last);
        }
        simd.store(&mut chains[n], sums[n]);
    });
}

/// The largest element, whose zero may have either sign.
#[inline(always)]
fn largest<S: Simd>(simd: S, data: &[f32]) -> f32 {
    let (blocks, rest) = data.as_chunks::<LANES>();
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let mut v = simd.load(&last);
    for block in blocks {
        v = simd.max(v, simd.load(block));
    }
    simd.store(&mut last, v);
    // As `Simd::max`: NaN where either is.
    last.into_iter().fold(f32::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b })
}
