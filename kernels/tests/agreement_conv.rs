//! Convolution: every instruction set gives the bits of the scalar table, and the scalar table lies within the
//! derived bound of the definition in f64.

mod support {
    pub mod blocks;
}

use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::grouped::{self, GroupedArgs};
use sinew_kernels::conv::plain_image::{self, PlainConvArgs};
use sinew_kernels::conv::reference::Reference;
use sinew_kernels::conv::{ConvArgs, ConvGeometry, im2col};
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
    /// Whether the residual is multiplied by a number per output channel.
    residual_scaled: bool,
    after: Activation,
    max_min: bool,
    /// Whether the sums are multiplied by a number per output channel.
    scaled: bool,
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

    /// With channels halved until it takes a few milliseconds under emulation as well.
    fn affordable(mut self) -> Self {
        let macs = |case: &Self| {
            let [height, width] = case.out_size().unwrap_or([0, 0]);
            height * width * case.kernel[0] * case.kernel[1] * case.channels * case.outputs
        };
        while macs(&self) > 1 << 20 {
            let wider = if self.outputs >= self.channels { &mut self.outputs } else { &mut self.channels };
            *wider = wider.div_ceil(2);
        }
        self
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
    scale: Vec<f32>,
}

impl Plain {
    fn new(case: &Case) -> Self {
        let mut numbers = Numbers::new(case.seed);
        let geometry = case.geometry();
        let k = case.channels / case.groups * geometry.taps();
        Self {
            input: numbers.plain(case.channels * geometry.in_pixels(), case.special),
            weights: numbers.plain(case.outputs * k, case.special && case.seed.is_multiple_of(4)),
            bias: numbers.plain(case.outputs, false),
            residual: numbers.plain(case.outputs * geometry.out_pixels(), case.special),
            scale: numbers.plain(case.outputs, false),
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

/// `[output block][channel][tap][16]`.
fn pack_by_channel(case: &Case, weights: &[f32]) -> Vec<Block> {
    let k = case.channels * case.kernel[0] * case.kernel[1];
    let weight =
        |output: usize, k_index: usize| weights.get(output * k + k_index).copied().unwrap_or(f32::NAN);
    let of_block = |block: usize| {
        (0..k).map(move |index| std::array::from_fn(|output| weight(block * LANES + output, index)))
    };
    (0..blocks(case.outputs)).flat_map(of_block).collect()
}

/// A kernel with its operands: computes the pixels of a range.
type Run<'a> = dyn Fn(Range<usize>, &mut [&mut [Block]]) + 'a;

/// Runs a kernel with the output pixels cut at the given places; gives the slices one after the other.
fn run(name: &str, kernel: &Run<'_>, slices: usize, cuts: &[usize]) -> Vec<Block> {
    let mut out = vec![Vec::new(); slices];
    for cut in cuts.windows(2) {
        let mut part = Guarded::new(slices, cut[1] - cut[0]);
        part.with(|slices| kernel(cut[0]..cut[1], slices));
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
            let scale = if case.scaled { f64::from(plain.scale[output]) } else { 1.0 };
            let mut v = apply(case.before, sum * scale + bias);
            magnitude = magnitude * scale.abs() + bias.abs();
            if case.residual {
                let residual = f64::from(plain.residual[output * height * width + pixel]);
                let scale = if case.residual_scaled { f64::from(plain.scale[output]) } else { 1.0 };
                v += scale * residual;
                magnitude += (scale * residual).abs();
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
        // more than 144 channels: several chunks of the reduction in pointwise convolutions too
        channels in prop_oneof![4 => 1..=70usize, 1 => 150..=330usize],
        outputs in 1..=90usize,
        size in prop_oneof![3 => [1..=9usize, 1..=34usize], 1 => [1..=40usize, 1..=40usize]],
        kernel in prop_oneof![
            2 => Just([1, 1]), 2 => Just([3, 3]), 1 => [1..=7usize, 1..=7usize].boxed()
        ],
        stride in prop_oneof![2 => Just([1, 1]), 2 => Just([2, 2]), 1 => [1..=3usize, 1..=3usize].boxed()],
        dilation in prop_oneof![2 => Just([1, 1]), 1 => [1..=3usize, 1..=3usize].boxed()],
        (pads, end_pads) in ([0..=3usize, 0..=3usize], [0..=3usize, 0..=3usize]),
        before in prop_oneof![3 => Just(Activation::Identity), 1 => activation()],
        residual: bool,
        residual_scaled in prop::bool::weighted(0.3),
        after in activation(),
        max_min in prop::bool::weighted(0.2),
        scaled in prop::bool::weighted(0.3),
        special in prop::bool::weighted(0.3),
        seed: u64,
    ) -> Case {
        let groups = 1;
        Case {
            channels, outputs, groups, size, kernel, stride, dilation, pads, end_pads, before, residual,
            residual_scaled, after, max_min, scaled, special, seed,
        }.affordable()
    }
}

/// Checks one kernel of every table: the scalar one against the definition, the others against the scalar one, the
/// output whole and cut into parts at multiples of `unit` pixels. `kernel` gives a table's name and entry point with its operands.
fn check<'a>(
    case: &Case,
    plain: &Plain,
    (cuts, unit): (&[Index], usize),
    kernel: impl Fn(&'static Kernels) -> (&'static str, Box<Run<'a>>),
) {
    let geometry = case.geometry();
    let mut out_lanes = lanes(case.outputs);
    if case.max_min {
        out_lanes.extend_from_within(..);
    }
    let pixels = geometry.out_pixels();
    let mut parts: Vec<_> = cuts.iter().map(|cut| cut.index(pixels / unit + 1) * unit).collect();
    parts.extend([0, pixels]);
    parts.sort_unstable();
    let (name, scalar) = kernel(tables().last().expect("scalar is always there"));
    let want = run(name, &*scalar, out_lanes.len(), &[0, pixels]);
    if !case.special {
        assert_close(case, plain, &want);
    }
    for table in tables() {
        let (name, kernel) = kernel(table);
        for cuts in [&[0, pixels][..], &parts] {
            let got = run(name, &*kernel, out_lanes.len(), cuts);
            assert_same(name, &got, &want, &out_lanes, pixels);
        }
    }
}

/// Parts are whole rows, or any pixels where there is one row.
fn rows_or_pixels(case: &Case) -> usize {
    let geometry = case.geometry();
    if geometry.out_height == 1 { 1 } else { geometry.out_width }
}

/// What the epilogue reads, in blocks.
struct After {
    bias: Vec<Block>,
    residual: Vec<Block>,
    scale: Vec<Block>,
}

impl After {
    fn new(case: &Case, plain: &Plain) -> Self {
        Self {
            bias: to_blocks(&plain.bias, case.outputs),
            residual: to_blocks(&plain.residual, case.outputs),
            scale: to_blocks(&plain.scale, case.outputs),
        }
    }

    fn epilogue(&self, case: &Case) -> Epilogue<'_> {
        Epilogue {
            bias: &self.bias,
            scale: case.scaled.then_some(&self.scale[..]),
            before: case.before,
            residual: case.residual.then_some(&self.residual[..]),
            residual_scale: case.residual_scaled.then_some(&self.scale[..]),
            after: case.after,
            max_min: case.max_min,
        }
    }
}

fn check_direct(case: &Case, cuts: &[Index]) {
    let plain = Plain::new(case);
    let after = After::new(case, &plain);
    let args = ConvArgs {
        geometry: case.geometry(),
        lanes: &lanes(case.channels),
        input: &to_blocks(&plain.input, case.channels),
        weights: &pack(case, &plain.weights),
        epilogue: after.epilogue(case),
    };
    check(case, &plain, (cuts, rows_or_pixels(case)), |table| {
        let direct = table.direct;
        (direct.name, Box::new(move |pixels, out| (direct.run)(&args, pixels, out)))
    });
}

/// Strips of 5 gathered pixels, so that there are several.
fn check_gathered(case: &Case, cuts: &[Index]) {
    let plain = Plain::new(case);
    let after = After::new(case, &plain);
    let args = ConvArgs {
        geometry: case.geometry(),
        lanes: &lanes(case.channels),
        input: &to_blocks(&plain.input, case.channels),
        weights: &pack(case, &plain.weights),
        epilogue: after.epilogue(case),
    };
    check(case, &plain, (cuts, 1), |table| {
        let kernel = table.im2col;
        let scratch = 5 * im2col::least_scratch(&args.geometry, case.channels);
        let run = move |pixels, out: &mut [&mut [Block]]| {
            (kernel.run)(&args, pixels, out, &mut vec![[f32::NAN; LANES]; scratch]);
        };
        (kernel.name, Box::new(run))
    });
}

/// Groups of any number of channels.
fn check_grouped(case: &Case, cuts: &[Index]) {
    let plain = Plain::new(case);
    let after = After::new(case, &plain);
    let args = GroupedArgs {
        geometry: case.geometry(),
        channels: [case.channels / case.groups, case.outputs / case.groups],
        groups: case.groups,
        input: &to_blocks(&plain.input, case.channels),
        first_block: 0,
        weights: &pack_grouped(case, &plain.weights),
        epilogue: after.epilogue(case),
    };
    check(case, &plain, (cuts, args.geometry.out_width), |table| {
        let kernel = table.grouped;
        let scratch = grouped::scratch_blocks(&args.geometry, args.channels[0]);
        let run = move |pixels, out: &mut [&mut [Block]]| {
            (kernel.run)(&args, pixels, out, &mut vec![[f32::NAN; LANES]; scratch]);
        };
        (kernel.name, Box::new(run))
    });
}

/// `[output block][tap][channel of the group][16]`.
fn pack_grouped(case: &Case, weights: &[f32]) -> Vec<Block> {
    let (taps, channels) = (case.kernel[0] * case.kernel[1], case.channels / case.groups);
    let mut out = Vec::new();
    for (block, tap) in (0..blocks(case.outputs)).flat_map(|block| (0..taps).map(move |tap| (block, tap))) {
        for channel in 0..channels {
            out.push(std::array::from_fn(|lane| {
                let output = block * LANES + lane;
                weights.get((output * channels + channel) * taps + tap).copied().unwrap_or(f32::NAN)
            }));
        }
    }
    out
}

/// The image's elements in the order of rows, pixels, channels.
fn interleave(plain: &[f32], channels: usize) -> Vec<f32> {
    let pixels = plain.len() / channels;
    (0..plain.len()).map(|i| plain[i % channels * pixels + i / channels]).collect()
}

fn check_plain_image(case: &Case, interleaved: bool, cuts: &[Index]) {
    let plain = Plain::new(case);
    let after = After::new(case, &plain);
    let [height, width] = case.size;
    let channels = case.channels;
    let input = if interleaved { interleave(&plain.input, channels) } else { plain.input.clone() };
    let args = PlainConvArgs {
        geometry: case.geometry(),
        channels,
        input: &input,
        strides: if interleaved { [1, width * channels, channels] } else { [height * width, width, 1] },
        weights: &pack_by_channel(case, &plain.weights),
        epilogue: after.epilogue(case),
    };
    check(case, &plain, (cuts, rows_or_pixels(case)), |table| {
        let kernel = table.plain_image;
        let run = move |pixels, out: &mut [&mut [Block]]| {
            let mut scratch = vec![f32::NAN; plain_image::scratch_len(&args.geometry, channels)];
            (kernel.run)(&args, pixels, &mut scratch, out);
        };
        (kernel.name, Box::new(run))
    });
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn direct_convolutions_agree(
        case in dense_case().prop_filter("no output", |case| case.out_size().is_some()),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        check_direct(&case, &cuts);
    }

    #[test]
    fn pointwise_convolutions_agree(
        mut case in dense_case(),
        pixels in 1..=200usize,
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        (case.size, case.kernel, case.stride) = ([1, pixels], [1, 1], [1, 1]);
        (case.pads, case.end_pads) = ([0, 0], [0, 0]);
        check_direct(&case, &cuts);
    }

    /// The window is the input, with more blocks of outputs than are computed at once.
    #[test]
    fn dense_layers_agree(
        mut case in dense_case(),
        outputs in 1..=200usize,
        window in prop_oneof![1 => Just([1, 1]), 1 => [1..=4usize, 1..=4usize]],
    ) {
        (case.size, case.kernel, case.outputs) = (window, window, outputs);
        (case.dilation, case.pads, case.end_pads) = ([1, 1], [0, 0], [0, 0]);
        check_direct(&case, &[]);
    }

    #[test]
    fn convolutions_of_plain_images_agree(
        case in dense_case().prop_filter("no output", |case| case.out_size().is_some()),
        channels in 1..=5usize,
        kernel in prop_oneof![3 => Just(None), 1 => Just(Some([7, 7]))],
        interleaved: bool,
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        let mut case = Case { channels, ..case };
        if let Some(kernel) = kernel {
            (case.kernel, case.dilation, case.pads, case.end_pads) = (kernel, [1, 1], [3, 3], [3, 3]);
        }
        check_plain_image(&case, interleaved, &cuts);
    }

    #[test]
    fn gathered_convolutions_agree(
        case in dense_case().prop_filter("no output", |case| case.out_size().is_some()),
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        check_gathered(&case, &cuts);
    }

    #[test]
    fn grouped_convolutions_agree(
        mut case in dense_case(),
        (groups, inputs, outputs) in prop_oneof![
            2 => (1..=20usize, Just(4usize), Just(4usize)),
            1 => (1..=10usize, Just(8usize), Just(8usize)),
            1 => (1..=40usize, Just(1usize), 1..=3usize),
            3 => (1..=9usize, 1..=20usize, 1..=20usize),
        ],
        cuts in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        (case.groups, case.channels, case.outputs) = (groups, groups * inputs, groups * outputs);
        prop_assume!(case.out_size().is_some());
        check_grouped(&case, &cuts);
    }
}
