//! 1x1 convolutions to a few channels: every table against direct convolution of the scalar one, bit for bit.

mod support {
    pub mod blocks;
}

use proptest::prelude::*;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::{ConvArgs, ConvGeometry, few_outputs};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::{Block, LANES};
use support::blocks::{Guarded, Numbers, assert_same, config, tables};

const ACTIVATIONS: [Activation; 5] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Sigmoid,
    Activation::Clip { low: -0.5, high: 0.25 },
    Activation::LeakyRelu { slope: 0.25 },
];

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn few_outputs_are_those_of_direct_convolution(
        lanes in prop::collection::vec(1..=LANES as u8, 1..5),
        outputs in 1..=few_outputs::MOST,
        [height, width] in [1..9usize, 1..20usize],
        cut in (0.0..1.0f64, 0.0..1.0f64),
        before in 0..ACTIVATIONS.len(),
        after in 0..ACTIVATIONS.len(),
        seed: u64,
        special: bool,
    ) {
        let mut numbers = Numbers::new(seed);
        let plane = height * width;
        let ends = [cut.0, cut.1].map(|cut| (cut * (plane + 1) as f64) as usize);
        let pixels = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let geometry = ConvGeometry {
            in_height: height, in_width: width, out_height: height, out_width: width, ..ConvGeometry::ONE_PIXEL
        };
        let mut input = numbers.blocks(lanes.len() * plane, special);
        for (plane, live) in input.chunks_mut(plane).zip(&lanes) {
            for pixel in plane {
                pixel[usize::from(*live)..].fill(f32::NAN);
            }
        }
        let channels: usize = lanes.iter().map(|live| usize::from(*live)).sum();
        let (weights, bias) = (numbers.blocks(channels, false), numbers.blocks(1, false));
        let args = ConvArgs {
            geometry,
            lanes: &lanes,
            input: &input,
            weights: &weights,
            epilogue: Epilogue {
                bias: &bias,
                scale: None,
                before: ACTIVATIONS[before],
                residual: None,
                residual_scale: None,
                after: ACTIVATIONS[after],
                max_min: false,
            },
        };
        let mut want = vec![[0.0; LANES]; pixels.len()];
        let scalar = tables().last().expect("scalar is always there");
        (scalar.direct.run)(&args, pixels.clone(), &mut [&mut want]);
        let live = |blocks: &[Block]| -> Vec<Block> {
            let keep = |block: &Block| std::array::from_fn(|lane| if lane < outputs { block[lane] } else { 0.0 });
            blocks.iter().map(keep).collect()
        };
        for table in tables() {
            let mut out = Guarded::new(1, pixels.len());
            out.with(|out| (table.few_outputs.run)(&args, outputs, pixels.clone(), out[0]));
            let (name, got) = (table.few_outputs.name, out.take(table.few_outputs.name));
            let untouched = |pixel: &Block| pixel[outputs..].iter().all(|x| x.is_nan());
            prop_assert!(got.iter().all(untouched), "{name} wrote other lanes");
            assert_same(name, &live(&got), &live(&want), &[outputs as u8], pixels.len());
        }
    }
}
