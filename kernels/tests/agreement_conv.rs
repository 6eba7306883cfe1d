//! Convolution: every instruction set gives the bits of the scalar table, and the scalar table lies within the
//! derived bound of the definition in f64.

mod support {
    pub mod blocks;
}

use proptest::prelude::*;
use proptest::sample::Index;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::reference::Reference;
use sinew_kernels::conv::{ConvArgs, ConvFn, ConvGeometry};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::{Block, LANES};
use support::blocks::{Guarded, Numbers, assert_same, config, tables};

/// A convolution in the layout of ONNX, and what happens to its sums.
#[derive(Clone, Debug)]
struct Case {
    channels: usize,
    outputs: usize,
    groups: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: [usize; 2],
    /// Rows and columns below and right of the image.
    end_pads: [usize; 2],
    before: Activation,
    residual: bool,
    after: Activation,
    max_min: bool,
    special: bool,
    seed: u64,
}

impl Case {
    fn out_size(&self) -> Option<[usize; 2]> {
        let extent = |axis: usize| {
            let covered = self.size[axis] + self.pads[axis] + self.end_pads[axis];
            let window = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            Some(covered.checked_sub(window)? / self.stride[axis] + 1)
        };
        Some([extent(0)?, extent(1)?])
    }

    fn geometry(&self) -> ConvGeometry {
        let [out_height, out_width] = self.out_size().expect("filtered");
        ConvGeometry {
            in_height: self.size[0],
            in_width: self.size[1],
            out_height,
            out_width,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad_top: self.pads[0],
            pad_left: self.pads[1],
        }
    }
}

/// The operands of a case in the layout of ONNX.
struct Plain {
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Plain {
    fn new(case: &Case) -> Self {
        let mut numbers = Numbers::new(case.seed);
        let geometry = case.geometry();
        let k = case.channels / case.groups * geometry.taps();
        Self {
            input: numbers.plain(case.channels * geometry.in_pixels(), case.special),
            weights: numbers.plain(case.outputs * k, case.special && case.seed % 4 == 0),
            bias: numbers.plain(case.outputs, false),
            residual: numbers.plain(case.outputs * geometry.out_pixels(), case.special),
        }
    }
}

fn blocks(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

fn lanes(channels: usize) -> Vec<u8> {
    (0..blocks(channels)).map(|block| (channels - block * LANES).min(LANES) as u8).collect()
}

/// `[channel][pixel]` to `[block][pixel][16]`; what lies in no channel is NaN.
fn to_blocks(plain: &[f32], channels: usize) -> Vec<Block> {
    let pixels = plain.len() / channels;
    let mut out = vec![[f32::NAN; LANES]; blocks(channels) * pixels];
    for channel in 0..channels {
        for pixel in 0..pixels {
            out[channel / LANES * pixels + pixel][channel % LANES] = plain[channel * pixels + pixel];
        }
    }
    out
}

/// `[output block][input block][tap][live lane][16]`.
fn pack(case: &Case, weights: &[f32]) -> Vec<Block> {
    let taps = case.kernel[0] * case.kernel[1];
    let mut out = Vec::new();
    for block in 0..blocks(case.outputs) {
        for (input_block, live) in lanes(case.channels).into_iter().enumerate() {
            for tap in 0..taps {
                for lane in 0..usize::from(live) {
                    let channel = input_block * LANES + lane;
                    out.push(std::array::from_fn(|output| {
                        let output = block * LANES + output;
                        weights
                            .get((output * case.channels + channel) * taps + tap)
                            .copied()
                            .unwrap_or(f32::NAN)
                    }));
                }
            }
        }
    }
    out
}

/// Runs a kernel with the output pixels cut at the given places; gives the slices one after the other.
fn run(name: &str, kernel: ConvFn, args: &ConvArgs<'_>, slices: usize, cuts: &[usize]) -> Vec<Block> {
    let mut out = vec![Vec::new(); slices];
    for cut in cuts.windows(2) {
        let mut part = Guarded::new(slices, cut[1] - cut[0]);
        part.with(|slices| kernel(args, cut[0]..cut[1], slices));
        let part = part.take(name);
        for (slice, out) in out.iter_mut().enumerate() {
            out.extend(&part[slice * (cut[1] - cut[0])..][..cut[1] - cut[0]]);
        }
    }
    out.concat()
}

fn apply(activation: Activation, v: f64) -> f64 {
    match activation {
        Activation::Identity => v,
        Activation::Relu => v.max(0.0),
        Activation::Clip { low, high } => v.max(low.into()).min(high.into()),
        Activation::HardSwish => v * (v / 6.0 + 0.5).clamp(0.0, 1.0),
        _ => unreachable!("not used in these tests"),
    }
}

/// |y - y64| <= (K + 2) * eps * sum |x * w|, with bias and residual as two terms more. Each hard swish, of slope at
/// most 3/2, may multiply the error and adds a few roundings of its own.
fn assert_close(case: &Case, plain: &Plain, got: &[Block]) {
    let [height, width] = case.out_size().expect("filtered");
    let reference = Reference {
        input: &plain.input,
        shape: [case.channels, case.size[0], case.size[1]],
        weights: &plain.weights,
        outputs: case.outputs,
        groups: case.groups,
        kernel: case.kernel,
        stride: case.stride,
        dilation: case.dilation,
        pads: case.pads,
    };
    let k = case.channels / case.groups * case.kernel[0] * case.kernel[1];
    let swish = |activation| activation == Activation::HardSwish;
    let (factor, more) = match (swish(case.before), swish(case.after)) {
        (false, false) => (1.0, 0),
        (true, true) => (2.25, 8),
        _ => (1.5, 4),
    };
    for output in 0..case.outputs {
        for pixel in 0..height * width {
            let (sum, mut magnitude) = reference.sum(output, pixel / width, pixel % width);
            let bias = f64::from(plain.bias[output]);
            let mut v = apply(case.before, sum + bias);
            magnitude += bias.abs();
            if case.residual {
                let residual = f64::from(plain.residual[output * height * width + pixel]);
                v += residual;
                magnitude += residual.abs();
            }
            let terms = (k + 2 + 2 + more) as f64;
            let bound = factor * terms * (f64::from(f32::EPSILON) * magnitude + 2f64.powi(-149));
            let halves = if case.max_min { &[1.0, -1.0][..] } else { &[1.0] };
            for (half, sign) in halves.iter().enumerate() {
                let want = apply(case.after, sign * v);
                let slice = half * blocks(case.outputs) + output / LANES;
                let got = f64::from(got[slice * height * width + pixel][output % LANES]);
                assert!(
                    (got - want).abs() <= bound,
                    "output {output} pixel {pixel}: {got:e} is not {want:e}"
                );
            }
        }
    }
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        3 => Just(Activation::Identity),
        3 => Just(Activation::Relu),
        1 => Just(Activation::Clip { low: 0.0, high: 6.0 }),
        1 => Just(Activation::Clip { low: -0.5, high: 0.5 }),
        1 => Just(Activation::HardSwish),
    ]
}

prop_compose! {
    /// Ragged shapes around the tile sizes.
    fn dense_case()(
        (channels, outputs) in (1..=37usize, 1..=90usize),
        size in [1..=9usize, 1..=34usize],
        kernel in prop_oneof![
            2 => Just([1, 1]), 2 => Just([3, 3]), 1 => [1..=5usize, 1..=5usize].boxed()
        ],
        stride in prop_oneof![2 => Just([1, 1]), 2 => Just([2, 2]), 1 => [1..=3usize, 1..=3usize].boxed()],
        dilation in prop_oneof![2 => Just([1, 1]), 1 => [1..=3usize, 1..=3usize].boxed()],
        (pads, end_pads) in ([0..=3usize, 0..=3usize], [0..=3usize, 0..=3usize]),
        before in prop_oneof![3 => Just(Activation::Identity), 1 => activation()],
        residual: bool,
        after in activation(),
        max_min in prop::bool::weighted(0.2),
        special in prop::bool::weighted(0.3),
        seed: u64,
    ) -> Case {
        let groups = 1;
        Case {
            channels, outputs, groups, size, kernel, stride, dilation, pads, end_pads, before, residual, after,
            max_min, special, seed,
        }
    }
}

/// Every kernel that takes blocked input and computes all channels from all channels.
fn kernels(table: &Kernels) -> Vec<(&'static str, ConvFn)> {
    vec![(table.direct.name, table.direct.run)]
}

fn check_dense(case: &Case, cuts: &[Index]) {
    let plain = Plain::new(case);
    let geometry = case.geometry();
    let bias = to_blocks(&plain.bias, case.outputs);
    let residual = to_blocks(&plain.residual, case.outputs);
    let args = ConvArgs {
        geometry,
        lanes: &lanes(case.channels),
        input: &to_blocks(&plain.input, case.channels),
        weights: &pack(case, &plain.weights),
        epilogue: Epilogue {
            bias: &bias,
            before: case.before,
            residual: case.residual.then_some(&residual[..]),
            after: case.after,
            max_min: case.max_min,
        },
    };
    let mut out_lanes = lanes(case.outputs);
    if case.max_min {
        out_lanes.extend_from_within(..);
    }
    let slices = out_lanes.len();
    let whole = [0, geometry.out_pixels()];
    let scalar = tables().last().expect("scalar is always there");
    let want: Vec<_> =
        kernels(scalar).into_iter().map(|(name, kernel)| run(name, kernel, &args, slices, &whole)).collect();
    if !case.special {
        for got in &want {
            assert_close(case, &plain, got);
        }
    }
    // whole rows, or any pixels where there is one row
    let unit = if geometry.out_height == 1 { 1 } else { geometry.out_width };
    let mut parts: Vec<_> =
        cuts.iter().map(|cut| cut.index(geometry.out_pixels() / unit + 1) * unit).collect();
    parts.extend(whole);
    parts.sort_unstable();
    for table in tables() {
        for ((name, kernel), want) in kernels(table).into_iter().zip(&want) {
            for cuts in [&whole[..], &parts] {
                let got = run(name, kernel, &args, slices, cuts);
                assert_same(name, &got, want, &out_lanes, geometry.out_pixels());
            }
        }
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn dense_convolutions_agree(
        case in dense_case().prop_filter("no output", |case| case.out_size().is_some()),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        check_dense(&case, &cuts);
    }

    #[test]
    fn pointwise_convolutions_agree(
        mut case in dense_case(),
        pixels in 1..=200usize,
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        (case.size, case.kernel, case.stride) = ([1, pixels], [1, 1], [1, 1]);
        (case.pads, case.end_pads) = ([0, 0], [0, 0]);
        check_dense(&case, &cuts);
    }
}
