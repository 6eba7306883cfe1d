//! Strassen's algorithm: every instruction set gives the bits of the scalar table, the scalar table lies within the derived bound of
//! the definition in f64, and where all sums are exact it gives what direct convolution does.

mod support {
    pub mod blocks;
}

use proptest::prelude::*;
use proptest::sample::Index;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::{ConvArgs, ConvGeometry, strassen};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::{Block, LANES};
use support::blocks::{Guarded, Numbers, assert_same, config, tables};

/// A layer, and what happens to its sums.
#[derive(Clone, Debug)]
struct Case {
    in_blocks: usize,
    groups: usize,
    /// Of the output.
    size: [usize; 2],
    stride: [usize; 2],
    before: Activation,
    residual: bool,
    residual_scaled: bool,
    after: Activation,
    max_min: bool,
    scaled: bool,
    seed: u64,
}

/// Its operands.
struct Operands {
    geometry: ConvGeometry,
    lanes: Vec<u8>,
    input: Vec<Block>,
    /// `[output block][channel][16]`, and packed.
    plain: Vec<Block>,
    packed: Vec<Block>,
    bias: Vec<Block>,
    residual: Vec<Block>,
    scale: Vec<Block>,
}

impl Case {
    fn out_blocks(&self) -> usize {
        self.groups * strassen::GROUP
    }

    fn operands(&self, mut numbers: impl FnMut(usize) -> Vec<Block>) -> Operands {
        let [out_height, out_width] = self.size;
        let reach = |axis: usize| (self.size[axis] - 1) * self.stride[axis] + 1;
        // one row and column more than are read, where there is a stride
        let [in_height, in_width] = [0, 1].map(|axis| reach(axis) + usize::from(self.stride[axis] > 1));
        let stride = self.stride;
        let geometry =
            ConvGeometry { in_height, in_width, out_height, out_width, stride, ..ConvGeometry::ONE_PIXEL };
        let plain = numbers(self.out_blocks() * self.in_blocks * LANES);
        let mut packed =
            vec![[f32::NAN; LANES]; self.out_blocks() * strassen::weights_per_block(self.in_blocks)];
        strassen::pack(self.in_blocks, &plain, &mut packed);
        Operands {
            geometry,
            lanes: vec![LANES as u8; self.in_blocks],
            input: numbers(self.in_blocks * geometry.in_pixels()),
            plain,
            packed,
            bias: numbers(self.out_blocks()),
            residual: numbers(self.out_blocks() * geometry.out_pixels()),
            scale: numbers(self.out_blocks()),
        }
    }

    fn args<'a>(&self, operands: &'a Operands) -> ConvArgs<'a> {
        ConvArgs {
            geometry: operands.geometry,
            lanes: &operands.lanes,
            input: &operands.input,
            weights: &operands.packed,
            epilogue: Epilogue {
                bias: &operands.bias,
                scale: self.scaled.then_some(&operands.scale[..]),
                before: self.before,
                residual: self.residual.then_some(&operands.residual[..]),
                residual_scale: self.residual_scaled.then_some(&operands.scale[..]),
                after: self.after,
                max_min: self.max_min,
            },
        }
    }
}

/// The output, computed in parts between the cuts, with scratch of exactly the size that is asked for.
fn run(case: &Case, operands: &Operands, table: &Kernels, cuts: &[usize]) -> Vec<Block> {
    let slices = case.out_blocks() * if case.max_min { 2 } else { 1 };
    let mut out = vec![Vec::new(); slices];
    for cut in cuts.windows(2) {
        let len = cut[1] - cut[0];
        let mut part = Guarded::new(slices, len);
        let mut scratch =
            vec![[f32::NAN; LANES]; strassen::scratch_blocks(&operands.geometry, case.in_blocks)];
        part.with(|slices| (table.strassen.run)(&case.args(operands), cut[0]..cut[1], slices, &mut scratch));
        for (out, part) in out.iter_mut().zip(part.take(table.strassen.name).chunks(len.max(1))) {
            out.extend(part);
        }
    }
    out.concat()
}

fn scalar() -> &'static Kernels {
    tables().last().expect("scalar is always there")
}

/// What the rows of tiles read of the input for pixel `pixel` of the output.
fn pixel_of(operands: &Operands, block: usize, pixel: usize) -> &Block {
    let g = &operands.geometry;
    let (y, x) = (pixel / g.out_width * g.stride[0], pixel % g.out_width * g.stride[1]);
    &operands.input[block * g.in_pixels() + y * g.in_width + x]
}

/// `|y - y64| <= (K + 6 + chunks) * eps * (Q + |b|)`, where `Q` takes every factor of the seven products as the sum of the absolute
/// values of what it is a sum of: see `docs/numerics.md`.
fn assert_close(case: &Case, operands: &Operands, got: &[Block]) {
    const CHUNK: usize = 32;
    let (plane, channels) = (operands.geometry.out_pixels(), case.in_blocks * LANES);
    let unit = strassen::unit(plane);
    let (pairs, chunks) = (case.in_blocks / 2, case.in_blocks.div_ceil(CHUNK));
    let terms = (channels + 6 + chunks) as f64;
    for start in (0..plane).step_by(unit) {
        let len = unit.min(plane - start);
        let half = len.div_ceil(2);
        for first in 0..half {
            let second = (half + first < len).then_some(half + first);
            // every other group and lane
            for left in (0..case.out_blocks()).filter(|block| block % strassen::GROUP < 2).step_by(3) {
                for lane in (case.seed as usize % 3..LANES).step_by(5) {
                    let (mut sums, mut bounds) = ([0.0; 4], [0.0; 4]);
                    for index in 0..chunks {
                        let own = pairs * index / chunks..pairs * (index + 1) / chunks;
                        let blocks = own.len();
                        for (pair, channel) in (0..blocks).flat_map(|pair| (0..LANES).map(move |c| (pair, c)))
                        {
                            let blocks = [2 * own.start + pair, 2 * own.start + blocks + pair];
                            let a = |pixel: Option<usize>, half: usize| {
                                pixel.map_or(0.0, |p| {
                                    f64::from(pixel_of(operands, blocks[half], start + p)[channel])
                                })
                            };
                            let b = |half: usize, right: usize| {
                                let k = blocks[half] * LANES + channel;
                                f64::from(operands.plain[(left + right * 2) * channels + k][lane])
                            };
                            let a = [[a(Some(first), 0), a(Some(first), 1)], [a(second, 0), a(second, 1)]];
                            let b = [[b(0, 0), b(0, 1)], [b(1, 0), b(1, 1)]];
                            for (quarter, sum) in sums.iter_mut().enumerate() {
                                let (row, column) = (quarter / 2, quarter % 2);
                                *sum += a[row][0] * b[0][column] + a[row][1] * b[1][column];
                            }
                            let [[a11, a12], [a21, a22]] = a.map(|row| row.map(f64::abs));
                            let [[b11, b12], [b21, b22]] = b.map(|row| row.map(f64::abs));
                            let (s1, s2, s3, s4) =
                                (a21 + a22, a21 + a22 + a11, a11 + a21, a12 + a21 + a22 + a11);
                            let (t1, t2, t3, t4) =
                                (b12 + b11, b22 + b12 + b11, b22 + b12, b21 + b22 + b12 + b11);
                            let (m, u, v, w) = (a11 * b11, s2 * t2, s3 * t3, s1 * t1);
                            let magnitudes =
                                [m + a12 * b21, m + u + w + s4 * b22, m + u + v + a22 * t4, m + u + v + w];
                            bounds
                                .iter_mut()
                                .zip(magnitudes)
                                .for_each(|(bound, magnitude)| *bound += magnitude);
                        }
                    }
                    for quarter in 0..4 {
                        let Some(pixel) = [Some(first), second][quarter / 2] else { continue };
                        let block = left + 2 * (quarter % 2);
                        let bias = f64::from(operands.bias[block][lane]);
                        let want = sums[quarter] + bias;
                        let got = f64::from(got[block * plane + start + pixel][lane]);
                        let bound = terms * (f64::from(f32::EPSILON) * (bounds[quarter] + bias.abs()))
                            + 2.0 * terms * 2f64.powi(-149);
                        assert!(
                            (got - want).abs() <= bound,
                            "block {block} pixel {pixel} lane {lane}: {got:e} is not {want:e}"
                        );
                    }
                }
            }
        }
    }
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        3 => Just(Activation::Identity),
        3 => Just(Activation::Relu),
        1 => Just(Activation::Clip { low: -0.5, high: 0.5 }),
        1 => Just(Activation::HardSwish),
    ]
}

prop_compose! {
    fn case()(
        // more than one chunk too
        in_blocks in prop_oneof![6 => 1..=4usize, 1 => 15..=20usize].prop_map(|pairs| 2 * pairs),
        groups in 1..=2usize,
        // more than one unit too
        size in prop_oneof![3 => [1..=9usize, 1..=9usize], 1 => [5..=21usize, 10..=21usize]],
        stride in prop_oneof![2 => Just([1, 1]), 1 => [1..=3usize, 1..=3usize].boxed()],
        before in prop_oneof![3 => Just(Activation::Identity), 1 => activation()],
        residual: bool,
        residual_scaled in prop::bool::weighted(0.3),
        after in activation(),
        max_min in prop::bool::weighted(0.2),
        scaled in prop::bool::weighted(0.3),
        seed: u64,
    ) -> Case {
        let size = if in_blocks > 8 { size.map(|size| size.min(7)) } else { size };
        Case {
            in_blocks, groups, size, stride, before, residual, residual_scaled, after, max_min, scaled, seed,
        }
    }
}

/// Whole, and in parts of whole units.
fn check(case: &Case, operands: &Operands, cuts: &[Index]) -> Vec<Block> {
    let plane = operands.geometry.out_pixels();
    let unit = strassen::unit(plane);
    let mut parts: Vec<_> = cuts.iter().map(|cut| (cut.index(plane / unit + 1) * unit).min(plane)).collect();
    parts.extend([0, plane]);
    parts.sort_unstable();
    let want = run(case, operands, scalar(), &[0, plane]);
    let lanes = vec![LANES as u8; want.len() / plane];
    for table in tables() {
        for cuts in [&[0, plane][..], &parts] {
            assert_same(table.strassen.name, &run(case, operands, table, cuts), &want, &lanes, plane);
        }
    }
    want
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn strassen_agrees(
        case in case(),
        special in prop::bool::weighted(0.2),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        let mut numbers = Numbers::new(case.seed);
        let operands = case.operands(|len| numbers.blocks(len, special));
        check(&case, &operands, &cuts);
    }

    #[test]
    fn strassen_errs_within_its_bound(case in case()) {
        let identity = Activation::Identity;
        let case = Case {
            before: identity, after: identity, residual: false, max_min: false, scaled: false, residual_scaled: false,
            ..case
        };
        let mut numbers = Numbers::new(case.seed);
        let operands = case.operands(|len| numbers.blocks(len, false));
        let got = run(&case, &operands, scalar(), &[0, operands.geometry.out_pixels()]);
        assert_close(&case, &operands, &got);
    }

    /// Small integers: no sum is rounded, so the identity itself is what is compared.
    #[test]
    fn without_rounding_strassen_is_direct_convolution(case in case()) {
        let before = if case.before == Activation::HardSwish { Activation::Relu } else { case.before };
        let after = if case.after == Activation::HardSwish { Activation::Relu } else { case.after };
        let case = Case { before, after, ..case };
        let mut numbers = Numbers::new(case.seed);
        let mut small = |len| -> Vec<Block> {
            (0..len).map(|_| std::array::from_fn(|_| numbers.below(9) as f32 - 4.0)).collect()
        };
        let operands = case.operands(&mut small);
        let plane = operands.geometry.out_pixels();
        let got = run(&case, &operands, scalar(), &[0, plane]);
        let slices = got.len() / plane;
        let mut want = Guarded::new(slices, plane);
        let args = ConvArgs { weights: &operands.plain, ..case.args(&operands) };
        want.with(|out| (scalar().direct.run)(&args, 0..plane, out));
        // a zero may have another sign
        let positive = |blocks: Vec<Block>| -> Vec<Block> { blocks.iter().map(|b| b.map(|x| x + 0.0)).collect() };
        let want = positive(want.take("direct"));
        assert_same("strassen", &positive(got), &want, &vec![LANES as u8; slices], plane);
    }
}

/// No unit is cut worse than into halves of whole tiles and one of a rest.
#[test]
fn units_are_even() {
    for (pixels, unit) in
        [(1, 28), (49, 56), (100, 112), (196, 196), (256, 140), (400, 140), (784, 196), (3136, 196)]
    {
        assert_eq!(strassen::unit(pixels), unit, "{pixels} pixels");
    }
}
