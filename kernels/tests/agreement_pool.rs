//! Pools: every table against the scalar one bit for bit, the scalar one against the definition: exactly for
//! maxima, within the rounding of the sums in f64 for means.

mod support {
    pub mod blocks;
    pub mod windows;
}

use proptest::prelude::*;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::pool::{PoolArgs, PoolKind};
use sinew_kernels::{Block, LANES};
use support::blocks::{Guarded, Numbers, assert_same, config, same, tables};
use support::windows::{common, kind, part, up_to};

/// The taps of one window in the image.
fn window(g: &ConvGeometry, y: usize, x: usize) -> Vec<usize> {
    let mut taps = Vec::new();
    for i in 0..g.kernel[0] {
        for j in 0..g.kernel[1] {
            let row = (y * g.stride[0] + i * g.dilation[0]).wrapping_sub(g.pad_top);
            let column = (x * g.stride[1] + j * g.dilation[1]).wrapping_sub(g.pad_left);
            if row < g.in_height && column < g.in_width {
                taps.push(row * g.in_width + column);
            }
        }
    }
    taps
}

/// Taps in the image and its border.
fn bordered(g: &ConvGeometry, y: usize, x: usize, bottom: usize, right: usize) -> usize {
    let inside = |at: usize, k: usize, axis: usize, extent| {
        (0..k).filter(|i| at * g.stride[axis] + i * g.dilation[axis] < extent).count()
    };
    inside(y, g.kernel[0], 0, g.pad_top + g.in_height + bottom)
        * inside(x, g.kernel[1], 1, g.pad_left + g.in_width + right)
}

fn largest(values: impl Iterator<Item = f32>) -> f32 {
    values.reduce(|a, b| if a.is_nan() || a > b { a } else { b }).unwrap() + 0.0
}

/// Compares with a mean in f64: n additions, one division and the sum of the row sums round.
fn check_mean(got: f32, taps: &[f32], divisor: usize) -> Result<(), String> {
    let sum: f64 = taps.iter().copied().map(f64::from).sum();
    let finite = taps.iter().filter(|x| x.is_finite());
    let size: f64 = finite.map(|x| f64::from(x.abs())).sum();
    if size > f64::from(f32::MAX) {
        return Ok(()); // A part of the sum may be infinite.
    }
    let want = sum / divisor as f64;
    if !want.is_finite() {
        let agrees = got.is_nan() == want.is_nan() && (got.is_nan() || got == want as f32);
        return if agrees { Ok(()) } else { Err(format!("{got:e} is not {want:e}")) };
    }
    let bound = (taps.len() + 2) as f64 * 2f64.powi(-24) * size / divisor as f64 + 2f64.powi(-149);
    let error = (f64::from(got) - want).abs();
    if error <= bound { Ok(()) } else { Err(format!("{got:e} is not {want:e}: {error:e} above {bound:e}")) }
}

/// Sizes with no empty window.
fn geometry() -> impl Strategy<Value = ConvGeometry> {
    let fives = Just(([5, 5], [1, 1], [1, 1]));
    let windows = prop_oneof![4 => common(), 1 => fives, 1 => up_to([5, 5], [3, 3], [2, 2])];
    support::windows::geometry(windows, 1..20usize, prop_oneof![4 => 1..20usize, 1 => 100..200usize])
}

proptest! {
    #![proptest_config(config(160))]

    #[test]
    fn pool_matches_its_definition(
        g in geometry(), kind in kind(), blocks in 1..3usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64,
        special: bool,
    ) {
        let input = Numbers::new(seed).blocks(blocks * g.in_pixels(), special);
        let rows = part(g.out_height, cut);
        let pixels = rows.start * g.out_width..rows.end * g.out_width;
        let args = PoolArgs { geometry: g, kind, input: &input };
        let results: Vec<Vec<Block>> = tables().iter().map(|table| {
            let mut out = Guarded::new(blocks, pixels.len());
            out.with(|out| (table.pool.run)(&args, pixels.clone(), out));
            out.take(table.pool.name)
        }).collect();
        let (scalar, others) = results.split_last().unwrap();
        for (table, got) in tables().iter().zip(others) {
            assert_same(table.pool.name, got, scalar, &vec![16; blocks], pixels.len());
        }
        for (i, got) in scalar.iter().enumerate() {
            let (block, pixel) = (i / pixels.len(), pixels.start + i % pixels.len());
            let (y, x) = (pixel / g.out_width, pixel % g.out_width);
            let taps = window(&g, y, x);
            for lane in 0..LANES {
                let taps: Vec<f32> = taps.iter().map(|tap| input[block * g.in_pixels() + tap][lane]).collect();
                match kind {
                    PoolKind::Max => {
                        let want = largest(taps.iter().copied());
                        prop_assert!(same(got[lane], want), "{} is not {want}", got[lane]);
                    }
                    PoolKind::Average => check_mean(got[lane], &taps, taps.len()).map_err(TestCaseError::fail)?,
                    PoolKind::AverageWithBorder { pad_bottom, pad_right } => {
                        let count = bordered(&g, y, x, pad_bottom, pad_right);
                        check_mean(got[lane], &taps, count).map_err(TestCaseError::fail)?;
                    }
                }
            }
        }
    }

    #[test]
    fn maxmin_pool_is_maxmin_and_then_a_pool(
        g in geometry(), blocks in 1..3usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64, special: bool,
    ) {
        let input = Numbers::new(seed).blocks(blocks * g.in_pixels(), special);
        let relu = |x: f32| if x > 0.0 || x.is_nan() { x } else { 0.0 };
        let rows = part(g.out_height, cut);
        let pixels = rows.start * g.out_width..rows.end * g.out_width;
        let args = PoolArgs { geometry: g, kind: PoolKind::Max, input: &input };
        let mut want = Vec::new();
        for sign in [1.0, -1.0] {
            for block in 0..blocks {
                for pixel in pixels.clone() {
                    let taps = window(&g, pixel / g.out_width, pixel % g.out_width);
                    want.push(std::array::from_fn(|lane| {
                        let taps = taps.iter().map(|tap| input[block * g.in_pixels() + tap][lane]);
                        largest(taps.map(|x| relu(sign * x)))
                    }));
                }
            }
        }
        for table in tables() {
            let mut out = Guarded::new(2 * blocks, pixels.len());
            out.with(|out| (table.maxmin_pool.run)(&args, pixels.clone(), out));
            let name = table.maxmin_pool.name;
            assert_same(name, &out.take(name), &want, &vec![16; 2 * blocks], pixels.len());
        }
    }

    #[test]
    fn a_global_pool_is_a_pool_of_one_window(
        blocks in 1..4usize, size in (1..12usize, 1..12usize), seed: u64, special: bool,
    ) {
        let (height, width) = size;
        let mut numbers = Numbers::new(seed);
        let input = numbers.blocks(blocks * height * width, special);
        let geometry = ConvGeometry {
            in_height: height, in_width: width, out_height: 1, out_width: 1, kernel: [height, width],
            stride: [1, 1], dilation: [1, 1], pad_top: 0, pad_left: 0,
        };
        for kind in [PoolKind::Max, PoolKind::Average] {
            let args = PoolArgs { geometry, kind, input: &input };
            let mut want = Guarded::new(blocks, 1);
            want.with(|out| (tables().last().unwrap().pool.run)(&args, 0..1, out));
            let want = want.take("pool");
            for table in tables() {
                let mut out = Guarded::new(1, blocks);
                out.with(|out| (table.global_pool.run)(kind, width, &input, out[0]));
                let name = table.global_pool.name;
                assert_same(name, &out.take(name), &want, &vec![16; blocks], 1);
            }
        }
    }
}

#[test]
fn an_empty_window_is_refused() {
    let geometry = ConvGeometry {
        in_height: 2,
        in_width: 2,
        out_height: 2,
        out_width: 2,
        kernel: [2, 2],
        stride: [1, 2],
        dilation: [1, 1],
        pad_top: 0,
        pad_left: 1,
    };
    let input = [[0.0; LANES]; 4];
    let args =
        PoolArgs { geometry: ConvGeometry { pad_left: 2, ..geometry }, kind: PoolKind::Max, input: &input };
    let mut out = [[0.0; LANES]; 4];
    let run = std::panic::AssertUnwindSafe(|| (tables()[0].pool.run)(&args, 0..4, &mut [&mut out]));
    assert!(std::panic::catch_unwind(run).is_err());
    let args = PoolArgs { geometry, ..args };
    (tables()[0].pool.run)(&args, 0..4, &mut [&mut out]);
}

/// Whether the mean of one window, and of a plane of its size, is `want` on every table.
fn check_order(size: [usize; 2], numbers: &[f32], want: f32) {
    let input: Vec<Block> = numbers.iter().map(|&x| [x; LANES]).collect();
    let geometry =
        ConvGeometry { in_height: size[0], in_width: size[1], kernel: size, ..ConvGeometry::ONE_PIXEL };
    let args = PoolArgs { geometry, kind: PoolKind::Average, input: &input };
    for table in tables() {
        let mut got = [[[0.0; LANES]]; 2];
        let [window, plane] = &mut got;
        (table.pool.run)(&args, 0..1, &mut [window]);
        (table.global_pool.run)(PoolKind::Average, size[1], &input, plane);
        assert_eq!(got, [[[want; LANES]]; 2], "{}", table.pool.name);
    }
}

/// Summed from left to right and then down, 1 + 2^-24 + 2^-24 is 1 in each row; any other order shows.
#[test]
fn means_of_few_taps_are_summed_by_rows() {
    let tiny = 2f32.powi(-24);
    let rows = [[1.0, tiny, tiny], [tiny, tiny, 1.0], [tiny, 1.0, tiny]];
    let sum = |row: [f32; 3]| ((0.0 + row[0]) + row[1]) + row[2];
    let want = (((0.0 + sum(rows[0])) + sum(rows[1])) + sum(rows[2])) / 9.0;
    check_order([3, 3], rows.as_flattened(), want);
}

/// 16 chains, then their tree.
#[test]
fn means_of_many_taps_are_summed_in_chains() {
    for size in [[1, 17], [5, 7], [9, 16]] {
        let numbers: Vec<f32> = (0..size[0] * size[1]).map(|i| 1.0 / (3.0 + i as f32)).collect();
        let mut chains = [0f32; LANES];
        for (i, x) in numbers.iter().enumerate() {
            chains[i % LANES] += x;
        }
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                chains[i] += chains[i + half];
            }
        }
        check_order(size, &numbers, chains[0] / numbers.len() as f32);
    }
}
