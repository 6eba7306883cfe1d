//! Operations across channels: every table against the scalar one bit for bit, the scalar one against f64.

#[path = "support/blocks.rs"]
mod support;

use std::ops::Range;

use proptest::prelude::*;
use sinew_kernels::channels::{LrnArgs, SoftmaxArgs};
use sinew_kernels::{Block, LANES};
use support::{Guarded, Numbers, assert_same, config, same, tables};

const EPS: f64 = 1.0 / (1 << 23) as f64;

/// Live channels of each block: parts that each end in a ragged block, or one part.
fn lanes(parts: &[usize]) -> Vec<u8> {
    let part = |&channels: &usize| (0..channels).step_by(LANES).map(move |c| (channels - c).min(LANES) as u8);
    parts.iter().flat_map(part).collect()
}

/// Blocks whose dead lanes are NaN.
fn image(numbers: &mut Numbers, lanes: &[u8], plane: usize, special: bool) -> Vec<Block> {
    let mut image = numbers.blocks(lanes.len() * plane, special);
    for (blocks, &live) in image.chunks_mut(plane).zip(lanes) {
        for block in blocks {
            block[usize::from(live)..].fill(f32::NAN);
        }
    }
    image
}

/// The channels of one pixel, in order.
fn channels(image: &[Block], lanes: &[u8], plane: usize, pixel: usize) -> Vec<f32> {
    let block = |(block, &live): (usize, &u8)| image[block * plane + pixel][..usize::from(live)].to_vec();
    lanes.iter().enumerate().flat_map(block).collect()
}

/// Runs every table over the pixels of `range`; the last result is the scalar one's.
fn run(
    lanes: &[u8],
    plane: usize,
    range: &Range<usize>,
    kernel: impl Fn(usize, &mut [Block]) -> &'static str,
) -> Vec<Block> {
    let result = |table: usize| {
        let mut out = Guarded::new(1, lanes.len() * plane);
        let name = out.with(|out| kernel(table, out[0]));
        let out = out.take(name);
        for (i, block) in out.iter().enumerate().filter(|(i, _)| !range.contains(&(i % plane))) {
            assert!(
                block.iter().all(|x| x.to_bits() == support::UNWRITTEN.to_bits()),
                "{name} wrote pixel {i}"
            );
        }
        (name, out)
    };
    let last = tables().len() - 1;
    let (_, want) = result(last);
    for table in 0..last {
        let (name, got) = result(table);
        assert_same(name, &got, &want, lanes, plane);
    }
    want
}

fn range(cut: (f64, f64), plane: usize) -> Range<usize> {
    let ends = [cut.0, cut.1].map(|cut| (cut * (plane + 1) as f64) as usize);
    ends[0].min(ends[1])..ends[0].max(ends[1])
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn softmax_matches_its_definition(
        parts in prop::collection::vec(1..50usize, 1..4), plane in 1..6usize, cut in (0.0..1.0f64, 0.0..1.0f64),
        spread in prop_oneof![Just(1f32), Just(20.0), Just(1e4)], seed: u64, special: bool,
    ) {
        let (lanes, range) = (lanes(&parts), range(cut, plane));
        let mut input = image(&mut Numbers::new(seed), &lanes, plane, special);
        input.iter_mut().flatten().for_each(|x| *x *= spread);
        let args = SoftmaxArgs { input: &input, lanes: &lanes };
        let got = run(&lanes, plane, &range, |table, out| {
            (tables()[table].softmax.run)(&args, range.clone(), out);
            tables()[table].softmax.name
        });
        for pixel in range {
            let x = channels(&input, &lanes, plane, pixel);
            let got = channels(&got, &lanes, plane, pixel);
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if x.iter().any(|x| x.is_nan()) || max.is_infinite() {
                prop_assert!(got.iter().all(|x| x.is_nan()), "{x:?} gives {got:?}");
                continue;
            }
            let exact = |x: f32| (f64::from(x) - f64::from(max)).exp();
            let sum: f64 = x.iter().map(|&x| exact(x)).sum();
            for (&x, &got) in x.iter().zip(&got) {
                let want = exact(x) / sum;
                // Roundings of the difference, of the power, of the sum (whose terms err alike) and of the quotient.
                let distance = (f64::from(max) - f64::from(x)).min(110.0);
                let bound = (distance + lanes.len() as f64 + 10.0) * EPS * want + 2f64.powi(-148);
                let error = (f64::from(got) - want).abs();
                prop_assert!(error <= bound, "{got:e} is not {want:e}");
            }
        }
    }

    #[test]
    fn lrn_matches_its_definition(
        channel_count in 1..70usize, plane in 1..6usize, cut in (0.0..1.0f64, 0.0..1.0f64), size in 1..9usize,
        constants in (0.0..2.0f32, prop_oneof![Just(0.75f32), Just(0.5), 0.1..2.0f32], 0.5..3.0f32), seed: u64,
        special: bool,
    ) {
        let (lanes, range) = (lanes(&[channel_count]), range(cut, plane));
        let (alpha, beta, bias) = constants;
        let input = image(&mut Numbers::new(seed), &lanes, plane, special);
        let args = LrnArgs { input: &input, lanes: &lanes, size, alpha, beta, bias };
        let got = run(&lanes, plane, &range, |table, out| {
            (tables()[table].lrn.run)(&args, range.clone(), out);
            tables()[table].lrn.name
        });
        for pixel in range {
            let x = channels(&input, &lanes, plane, pixel);
            let got = channels(&got, &lanes, plane, pixel);
            for (c, &got) in got.iter().enumerate() {
                let window = &x[c.saturating_sub((size - 1) / 2)..(c + size / 2 + 1).min(x.len())];
                if window.iter().any(|x| x.is_nan()) {
                    prop_assert!(got.is_nan());
                    continue;
                }
                // Squares that leave the range of f32 are the tables' business only.
                if window.iter().any(|x| x.abs() > 1e9) {
                    continue;
                }
                let squares: f64 = window.iter().map(|&x| f64::from(x).powi(2)).sum();
                let base = f64::from(bias) + f64::from(alpha) / size as f64 * squares;
                let want = f64::from(x[c]) * base.powf(-f64::from(beta));
                // The base errs by a few units for each square, which the power scales by beta; so does its logarithm.
                let relative = f64::from(beta) * (size as f64 + 4.0 + 2.0 * base.ln().abs()) + 4.0;
                let bound = relative * EPS * want.abs() + 2f64.powi(-148);
                prop_assert!((f64::from(got) - want).abs() <= bound, "{got:e} is not {want:e}");
            }
        }
    }
}

/// The sum is a chain over blocks and then a tree of lanes 8, 4, 2 and 1 apart; another order shows in the last bit.
#[test]
fn softmax_sums_blocks_first_and_then_a_tree_of_lanes() {
    let mut numbers = Numbers::new(7);
    let lanes = [16, 16, 16, 5];
    let exp = |x: f32| sinew_kernels::activation::Activation::Exp.eval(x);
    let mut telling = 0;
    for _ in 0..32 {
        let input = image(&mut numbers, &lanes, 1, false);
        let x = channels(&input, &lanes, 1, 0);
        let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = x.iter().map(|x| exp(x - max)).collect();
        let mut sums = [0f32; LANES];
        for block in powers.chunks(LANES) {
            sums.iter_mut().zip(block).for_each(|(sum, power)| *sum += power);
        }
        for distance in [8, 4, 2, 1] {
            (0..distance).for_each(|lane| sums[lane] += sums[lane + distance]);
        }
        telling += usize::from(sums[0] != powers.iter().sum::<f32>());
        let args = SoftmaxArgs { input: &input, lanes: &lanes };
        for table in tables() {
            let mut out = [[0.0; LANES]; 4];
            (table.softmax.run)(&args, 0..1, &mut out);
            for (got, power) in channels(&out, &lanes, 1, 0).into_iter().zip(&powers) {
                assert!(same(got, power / sums[0]), "{}", table.softmax.name);
            }
        }
    }
    assert!(telling > 0, "no case where the order shows");
}
