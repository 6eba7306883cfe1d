//! Kernels on row-major maps: every table against the scalar one's kernels on blocks, bit for bit.

mod support {
    pub mod blocks;
    pub mod windows;
}

use proptest::prelude::*;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::depthwise::DepthwiseArgs;
use sinew_kernels::elementwise::{Addend, ScaleArgs};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::Kernels;
use sinew_kernels::plain::depthwise::{self, PlainDepthwiseArgs};
use sinew_kernels::plain::pool::{PlainPoolArgs, supports};
use sinew_kernels::plain::{PlainAddend, PlainGlobalArgs, PlainScaleArgs};
use sinew_kernels::pool::{PoolArgs, PoolKind};
use sinew_kernels::{Block, LANES};
use support::blocks::{Numbers, UNWRITTEN, config, tables};
use support::windows::{common, geometry, kind, part, up_to};

/// The scalar table: the last one.
fn scalar() -> &'static Kernels {
    tables().last().expect("scalar is always there")
}

/// Row-major planes as blocks, dead lanes zero.
fn blocks(plain: &[f32], plane: usize) -> Vec<Block> {
    let channels = plain.len() / plane;
    let at = |block: usize, pixel: usize, lane: usize| {
        let channel = block * LANES + lane;
        if channel < channels { plain[channel * plane + pixel] } else { 0.0 }
    };
    (0..channels.div_ceil(LANES))
        .flat_map(|block| (0..plane).map(move |pixel| (block, pixel)))
        .map(|(block, pixel)| std::array::from_fn(|lane| at(block, pixel, lane)))
        .collect()
}

/// Blocks as row-major planes, with one NaN.
fn plain_bits(blocks: &[Block], channels: usize) -> Vec<u32> {
    let plane = blocks.len() / channels.div_ceil(LANES);
    let at = |channel: usize, pixel: usize| blocks[channel / LANES * plane + pixel][channel % LANES];
    (0..channels)
        .flat_map(|channel| (0..plane).map(move |pixel| at(channel, pixel)))
        .map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() })
        .collect()
}

fn bits(data: &[f32]) -> Vec<u32> {
    data.iter().map(|x| x.to_bits()).collect()
}

/// Calls a kernel on the elements of a range, between guards.
fn guarded(name: &str, len: usize, run: impl FnOnce(&mut [f32])) -> Vec<f32> {
    const GUARD: usize = 32;
    let mut data = vec![UNWRITTEN; len + 2 * GUARD];
    run(&mut data[GUARD..GUARD + len]);
    let intact = |guard: &[f32]| guard.iter().all(|x| x.to_bits() == UNWRITTEN.to_bits());
    assert!(intact(&data[..GUARD]) && intact(&data[GUARD + len..]), "{name} wrote beside its output");
    data[GUARD..GUARD + len].to_vec()
}

fn activation(kind: usize) -> Activation {
    [
        Activation::Identity,
        Activation::Relu,
        Activation::Clip { low: -0.5, high: 0.75 },
        Activation::Sigmoid,
        Activation::HardSwish,
    ][kind]
}

/// A pool of row-major planes.
struct PoolCase {
    g: ConvGeometry,
    kind: PoolKind,
    channels: usize,
    cut: (f64, f64),
    seed: u64,
    special: bool,
}

/// Every table against the scalar pool on blocks.
fn check_pool(&PoolCase { g, kind, channels, cut, seed, special }: &PoolCase) {
    let input = Numbers::new(seed).plain(channels * g.in_pixels(), special);
    let packed = blocks(&input, g.in_pixels());
    let mut want = vec![[0f32; LANES]; channels.div_ceil(LANES) * g.out_pixels()];
    let mut planes: Vec<&mut [Block]> = want.chunks_mut(g.out_pixels()).collect();
    (scalar().pool.run)(&PoolArgs { geometry: g, kind, input: &packed }, 0..g.out_pixels(), &mut planes);
    let want = plain_bits(&want, channels);
    let all = channels * g.out_height;
    let rows = part(all, cut);
    for table in tables() {
        let name = table.plain_pool.name;
        let args = PlainPoolArgs { geometry: g, kind, input: &input };
        for rows in [0..all, rows.clone()] {
            let got = guarded(name, rows.len() * g.out_width, |out| {
                (table.plain_pool.run)(&args, rows.clone(), out);
            });
            assert_eq!(bits(&got), &want[rows.start * g.out_width..rows.end * g.out_width], "{}", name);
        }
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn a_plain_pool_is_the_pool_on_blocks(
        g in geometry(
            prop_oneof![4 => common(), 1 => up_to([7, 7], [4, 2], [3, 3])],
            1..12usize,
            prop_oneof![3 => 1..20usize, 2 => 20..60usize, 1 => 120..300usize],
        ),
        kind in kind(), channels in 1..20usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64, special: bool,
    ) {
        prop_assume!(supports(kind, g.kernel, g.stride, g.dilation));
        check_pool(&PoolCase { g, kind, channels, cut, seed, special });
    }

    /// Maxima whose columns are joined in registers: three with stride 2 and a border on the left, two side by side without any.
    #[test]
    fn maxima_without_lines_are_the_pool_on_blocks(
        outputs in 32..150usize, three: bool, kernel_rows in 1..=3usize, stride_rows in 1..=2usize, above in 0..=1usize,
        height in 3..9usize, channels in 1..4usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64, special: bool,
    ) {
        let pad_top = above.min(kernel_rows - 1);
        let (in_width, columns, stride, pad_left) = if three { (2 * outputs, 3, 2, 1) } else { (outputs + 1, 2, 1, 0) };
        let g = ConvGeometry {
            in_height: height,
            in_width,
            out_height: (height + pad_top - kernel_rows) / stride_rows + 1,
            out_width: outputs,
            kernel: [kernel_rows, columns],
            stride: [stride_rows, stride],
            dilation: [1, 1],
            pad_top,
            pad_left,
        };
        check_pool(&PoolCase { g, kind: PoolKind::Max, channels, cut, seed, special });
    }

    #[test]
    fn a_plain_global_pool_is_the_one_on_blocks(
        channels in 1..40usize, height in 1..20usize,
        width in prop_oneof![3 => 1..20usize, 1 => 100..300usize], max: bool, seed: u64, special: bool,
    ) {
        let kind = if max { PoolKind::Max } else { PoolKind::Average };
        let plane = height * width;
        let input = Numbers::new(seed).plain(channels * plane, special);
        let mut want = vec![[0f32; LANES]; channels.div_ceil(LANES)];
        (scalar().global_pool.run)(kind, width, &blocks(&input, plane), &mut want);
        for table in tables() {
            let mut got = vec![[UNWRITTEN; LANES]; want.len()];
            let args = PlainGlobalArgs { kind, input: &input, plane, width };
            (table.plain_global_pool.run)(&args, &mut got);
            let (got, want) = (plain_bits(&got, channels), plain_bits(&want, channels));
            prop_assert_eq!(got, want, "{}", table.plain_global_pool.name);
        }
    }

    #[test]
    fn a_plain_scale_is_the_scale_on_blocks(
        channels in 1..20usize, plane in prop_oneof![4 => 1..70usize, 1 => 1000..1200usize], addend in 0..3usize,
        after in 0..5usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64, special: bool,
    ) {
        let after = activation(after);
        let mut numbers = Numbers::new(seed);
        let [input, map] = [(); 2].map(|()| numbers.plain(channels * plane, special));
        let [scale, shift] = [(); 2].map(|()| numbers.plain(channels, special));
        let (packed, packed_map) = (blocks(&input, plane), blocks(&map, plane));
        let (scales, shifts) = (blocks(&scale, 1), blocks(&shift, 1));
        let mut want = vec![[0f32; LANES]; packed.len()];
        let mut planes: Vec<&mut [Block]> = want.chunks_mut(plane).collect();
        let args = ScaleArgs {
            input: Some(&packed),
            scale: &scales,
            addend: [Addend::Nothing, Addend::Channel(&shifts), Addend::Map(&packed_map)][addend],
            plane,
            after,
        };
        (scalar().scale.run)(&args, 0..plane, &mut planes);
        let want = plain_bits(&want, channels);
        let all = channels * plane;
        let range = part(all, cut);
        for table in tables() {
            let name = table.plain_scale.name;
            let addend = [PlainAddend::Nothing, PlainAddend::Channel(&shift), PlainAddend::Map(&map)][addend];
            let args = PlainScaleArgs { input: &input, scale: &scale, addend, plane, after };
            for range in [0..all, range.clone()] {
                let got = guarded(name, range.len(), |out| (table.plain_scale.run)(&args, range.start, out));
                prop_assert_eq!(bits(&got), &want[range], "{}", name);
            }
        }
    }

    #[test]
    fn a_plain_depthwise_convolution_is_the_one_on_blocks(
        kernel in prop_oneof![Just(3usize), Just(5usize)], stride in 1..=2usize,
        in_height in prop_oneof![3 => 1..20usize, 1 => 20..60usize],
        in_width in prop_oneof![3 => 5..50usize, 1 => 100..300usize],
        pads in (0..6usize, 0..5usize, 0..6usize, 0..6usize), images in 1..3usize, channels in 1..4usize,
        after in 0..5usize, cut in (0.0..1.0f64, 0.0..1.0f64), seed: u64, special: bool,
    ) {
        let (pad_top, pad_left, bottom, right) = pads;
        let out = |covered: usize| covered.saturating_sub(kernel) / stride + 1;
        let g = ConvGeometry {
            in_height,
            in_width,
            out_height: out(pad_top + in_height + bottom),
            out_width: out(pad_left + in_width + right),
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            pad_top,
            pad_left,
        };
        prop_assume!(depthwise::supports(&g));
        let after = activation(after);
        let mut numbers = Numbers::new(seed);
        let input = numbers.plain(images * channels * g.in_pixels(), special);
        let weights = numbers.plain(channels * g.taps(), special && seed.is_multiple_of(2));
        let bias = numbers.plain(channels, false);
        let mut want = Vec::new();
        for image in input.chunks(channels * g.in_pixels()) {
            let mut out = vec![[0f32; LANES]; g.out_pixels()];
            let epilogue = Epilogue {
                bias: &blocks(&bias, 1),
                scale: None,
                before: Activation::Identity,
                residual: None,
                residual_scale: None,
                after,
                max_min: false,
            };
            let (input, weights) = (blocks(image, g.in_pixels()), blocks(&weights, g.taps()));
            let args = DepthwiseArgs { geometry: g, input: &input, weights: &weights, epilogue };
            (scalar().depthwise.run)(&args, 0..g.out_pixels(), &mut [&mut out]);
            want.extend(plain_bits(&out, channels));
        }
        let all = images * channels * g.out_height;
        let rows = part(all, cut);
        for table in tables() {
            let name = table.plain_depthwise.name;
            let args =
                PlainDepthwiseArgs { geometry: g, channels, input: &input, weights: &weights, bias: &bias, after };
            for rows in [0..all, rows.clone()] {
                let got = guarded(name, rows.len() * g.out_width, |out| {
                    (table.plain_depthwise.run)(&args, rows.clone(), out);
                });
                prop_assert_eq!(bits(&got), &want[rows.start * g.out_width..rows.end * g.out_width], "{}", name);
            }
        }
    }
}
