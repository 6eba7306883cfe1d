//! Depthwise convolution: every instruction set gives the bits of the scalar table, and the scalar table lies
//! within the derived bound of the definition in f64.

#[path = "support/blocks.rs"]
mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::conv::reference::Reference;
use sinew_kernels::depthwise::DepthwiseArgs;
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::{Block, LANES};
use support::{Guarded, Numbers, assert_same, config, tables};

/// A depthwise convolution in the terms of ONNX, and what happens to its sums.
#[derive(Clone, Debug)]
struct Case {
    channels: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: [usize; 2],
    end_pads: [usize; 2],
    before: Activation,
    residual: bool,
    after: Activation,
    max_min: bool,
    special: bool,
    seed: u64,
}

impl Case {
    fn geometry(&self) -> Option<ConvGeometry> {
        let extent = |axis: usize| {
            let covered = self.size[axis] + self.pads[axis] + self.end_pads[axis];
            let window = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
            Some(covered.checked_sub(window)? / self.stride[axis] + 1)
        };
        Some(ConvGeometry {
            in_height: self.size[0],
            in_width: self.size[1],
            out_height: extent(0)?,
            out_width: extent(1)?,
            kernel: self.kernel,
            stride: self.stride,
            dilation: self.dilation,
            pad_top: self.pads[0],
            pad_left: self.pads[1],
        })
    }

    fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    fn lanes(&self) -> Vec<u8> {
        let slices = if self.max_min { 2 } else { 1 } * self.blocks();
        let live = |block: usize| (self.channels - block % self.blocks() * LANES).min(LANES) as u8;
        (0..slices).map(live).collect()
    }
}

/// `[channel][i]` to `[block][i][16]`; what lies in no channel is NaN.
fn to_blocks(plain: &[f32], channels: usize) -> Vec<Block> {
    let len = plain.len() / channels;
    let mut out = vec![[f32::NAN; LANES]; channels.div_ceil(LANES) * len];
    for (channel, plain) in plain.chunks(len).enumerate() {
        for (i, &x) in plain.iter().enumerate() {
            out[channel / LANES * len + i][channel % LANES] = x;
        }
    }
    out
}

fn run(table: &Kernels, args: &DepthwiseArgs<'_>, slices: usize, pixels: [usize; 2]) -> Vec<Block> {
    let mut out = Guarded::new(slices, pixels[1] - pixels[0]);
    out.with(|out| (table.depthwise.run)(args, pixels[0]..pixels[1], out));
    out.take(table.depthwise.name)
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
fn assert_close(case: &Case, [input, weights, bias, residual]: &[Vec<f32>; 4], got: &[Block]) {
    let geometry = case.geometry().expect("filtered");
    let plane = geometry.out_pixels();
    let reference = Reference {
        input,
        shape: [case.channels, case.size[0], case.size[1]],
        weights,
        outputs: case.channels,
        groups: case.channels,
        kernel: case.kernel,
        stride: case.stride,
        dilation: case.dilation,
        pads: case.pads,
    };
    let swish = |activation| activation == Activation::HardSwish;
    let (factor, more) = match (swish(case.before), swish(case.after)) {
        (false, false) => (1.0, 0),
        (true, true) => (2.25, 8),
        _ => (1.5, 4),
    };
    for channel in 0..case.channels {
        for pixel in 0..plane {
            let (sum, mut magnitude) =
                reference.sum(channel, pixel / geometry.out_width, pixel % geometry.out_width);
            let bias = f64::from(bias[channel]);
            let mut v = apply(case.before, sum + bias);
            magnitude += bias.abs();
            if case.residual {
                let residual = f64::from(residual[channel * plane + pixel]);
                v += residual;
                magnitude += residual.abs();
            }
            let terms = (geometry.taps() + 2 + 2 + more) as f64;
            let bound = factor * terms * (f64::from(f32::EPSILON) * magnitude + 2f64.powi(-149));
            let halves = if case.max_min { &[1.0, -1.0][..] } else { &[1.0] };
            for (half, sign) in halves.iter().enumerate() {
                let want = apply(case.after, sign * v);
                let block = half * case.blocks() + channel / LANES;
                let got = f64::from(got[block * plane + pixel][channel % LANES]);
                assert!(
                    (got - want).abs() <= bound,
                    "channel {channel} pixel {pixel}: {got:e} is not {want:e}"
                );
            }
        }
    }
}

fn check(case: &Case, cuts: &[Index]) {
    let geometry = case.geometry().expect("filtered");
    let plane = geometry.out_pixels();
    let mut numbers = Numbers::new(case.seed);
    let plain = [
        numbers.plain(case.channels * geometry.in_pixels(), case.special),
        numbers.plain(case.channels * geometry.taps(), case.special && case.seed.is_multiple_of(2)),
        numbers.plain(case.channels, false),
        numbers.plain(case.channels * plane, case.special),
    ];
    let [input, weights, bias, residual] = plain.each_ref().map(|plain| to_blocks(plain, case.channels));
    let args = DepthwiseArgs {
        geometry,
        input: &input,
        weights: &weights,
        epilogue: Epilogue {
            scale: None,
            bias: &bias,
            before: case.before,
            residual: case.residual.then_some(&residual[..]),
            after: case.after,
            max_min: case.max_min,
        },
    };
    let lanes = case.lanes();
    let scalar = &tables()[tables().len() - 1];
    let want = run(scalar, &args, lanes.len(), [0, plane]);
    if !case.special {
        assert_close(case, &plain, &want);
    }
    let rows = cuts.iter().map(|cut| cut.index(geometry.out_height + 1) * geometry.out_width);
    let mut parts: Vec<_> = rows.chain([0, plane]).collect();
    parts.sort_unstable();
    for table in tables() {
        let got = run(table, &args, lanes.len(), [0, plane]);
        assert_same(table.depthwise.name, &got, &want, &lanes, plane);
        for part in parts.windows(2) {
            let got = run(table, &args, lanes.len(), [part[0], part[1]]);
            let want: Vec<_> =
                want.chunks(plane).flat_map(|plane| &plane[part[0]..part[1]]).copied().collect();
            assert_same(table.depthwise.name, &got, &want, &lanes, part[1] - part[0]);
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
    /// Ragged shapes around the tile sizes, half of them with the windows that have code of their own.
    fn case()(
        channels in 1..=37usize,
        size in [1..=9usize, 1..=40usize],
        (kernel, stride, dilation) in prop_oneof![
            1 => Just(([3, 3], [1, 1], [1, 1])),
            1 => Just(([3, 3], [2, 2], [1, 1])),
            1 => Just(([5, 5], [1, 1], [1, 1])),
            1 => Just(([5, 5], [2, 2], [1, 1])),
            1 => Just(([7, 7], [1, 1], [1, 1])),
            3 => ([1..=6usize, 1..=6usize], [1..=3usize, 1..=3usize], [1..=3usize, 1..=3usize]),
        ],
        (pads, end_pads) in ([0..=4usize, 0..=4usize], [0..=4usize, 0..=4usize]),
        before in prop_oneof![3 => Just(Activation::Identity), 1 => activation()],
        residual: bool,
        after in activation(),
        max_min in prop::bool::weighted(0.2),
        special in prop::bool::weighted(0.3),
        seed: u64,
    ) -> Case {
        Case {
            channels, size, kernel, stride, dilation, pads, end_pads, before, residual, after, max_min,
            special, seed,
        }
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn depthwise_convolutions_agree(
        case in case().prop_filter("no output", |case| case.geometry().is_some()),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        check(&case, &cuts);
    }
}
