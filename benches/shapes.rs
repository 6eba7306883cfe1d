//! Real layers, with the networks that they come from.

use sinew::graph::{Conv, Graph, Op, Pads};
use sinew::{DType, Tensor};
use sinew_kernels::activation::Activation;

/// A convolution with bias and ReLU.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub model: &'static str,
    pub channels: usize,
    pub size: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    pub dilation: usize,
}

const fn layer(
    model: &'static str,
    [channels, size, outputs]: [usize; 3],
    [kernel, stride, groups]: [usize; 3],
) -> Layer {
    Layer { model, channels, size, outputs, kernel, stride, groups, dilation: 1 }
}

/// Layers of common networks: one of each kind that asks something else of a kernel.
pub const LAYERS: &[Layer] = &[
    layer("resnet50", [3, 224, 64], [7, 2, 1]),
    layer("resnet50", [64, 56, 64], [1, 1, 1]),
    layer("resnet50", [64, 56, 64], [3, 1, 1]),
    layer("resnet50", [64, 56, 256], [1, 1, 1]),
    layer("resnet50", [256, 56, 64], [1, 1, 1]),
    layer("resnet50", [128, 56, 128], [3, 2, 1]),
    layer("resnet50", [512, 28, 128], [1, 1, 1]),
    layer("resnet50", [128, 28, 128], [3, 1, 1]),
    layer("resnet50", [256, 14, 1024], [1, 1, 1]),
    layer("resnet50", [1024, 14, 256], [1, 1, 1]),
    layer("resnet50", [256, 14, 256], [3, 1, 1]),
    layer("resnet50", [512, 7, 2048], [1, 1, 1]),
    layer("resnet50", [2048, 7, 512], [1, 1, 1]),
    layer("resnet50", [512, 7, 512], [3, 1, 1]),
    layer("vgg16", [64, 224, 64], [3, 1, 1]),
    layer("vgg16", [256, 56, 256], [3, 1, 1]),
    layer("vgg16", [512, 28, 512], [3, 1, 1]),
    layer("vgg16", [512, 14, 512], [3, 1, 1]),
    layer("cifar", [64, 32, 64], [3, 1, 1]),
    layer("cifar", [32, 16, 32], [3, 1, 1]),
    layer("cifar", [64, 8, 64], [3, 1, 1]),
    layer("mobilenetv3", [16, 112, 96], [1, 1, 1]),
    layer("mobilenetv3", [96, 14, 576], [1, 1, 1]),
    layer("mobilenetv3", [960, 7, 160], [1, 1, 1]),
    layer("mobilenetv3", [32, 112, 32], [3, 1, 32]),
    layer("mobilenetv3", [96, 112, 96], [3, 2, 96]),
    layer("mobilenetv3", [144, 56, 144], [3, 1, 144]),
    layer("mobilenetv3", [576, 14, 576], [3, 1, 576]),
    layer("mobilenetv3", [72, 56, 72], [5, 2, 72]),
    layer("mobilenetv3", [120, 28, 120], [5, 1, 120]),
    layer("mobilenetv3", [672, 14, 672], [5, 1, 672]),
    layer("mobilenetv3", [960, 7, 960], [5, 1, 960]),
    layer("resnext50", [128, 56, 128], [3, 1, 32]),
    layer("resnext50", [256, 28, 256], [3, 1, 32]),
    layer("resnext50", [512, 14, 512], [3, 1, 32]),
    layer("resnext50", [1024, 7, 1024], [3, 1, 32]),
    Layer { dilation: 2, ..layer("dense", [256, 64, 256], [3, 1, 1]) },
    Layer { dilation: 4, ..layer("dense", [256, 64, 256], [3, 1, 1]) },
];

impl Layer {
    /// `model/kernel-channels-outputs@size`.
    pub fn name(&self) -> String {
        let Layer { model, channels, size, outputs, kernel, stride, groups, dilation } = self;
        let mut kind = format!("{kernel}x{kernel}");
        for (letter, value) in [("s", stride), ("g", groups), ("d", dilation)] {
            if *value > 1 {
                kind += &format!("{letter}{value}");
            }
        }
        format!("{model}/{kind}_{channels}-{outputs}@{size}")
    }

    /// The layer as a graph with fixed pseudo-random weights.
    pub fn graph(&self) -> sinew::Result<Graph> {
        let pad = self.dilation * (self.kernel - 1) / 2;
        let mut graph = Graph { name: self.name(), ..Graph::default() };
        let x = graph.add_value("x", vec![1, self.channels, self.size, self.size], DType::F32);
        graph.inputs.push(x);
        let shape = [self.outputs, self.channels / self.groups, self.kernel, self.kernel];
        let weights = graph.add_constant("w", Tensor::f32(shape, numbers(shape.iter().product(), 0.1))?);
        let bias = graph.add_constant("b", Tensor::f32([self.outputs], numbers(self.outputs, 0.1))?);
        let conv = Conv {
            kernel: [self.kernel; 2],
            stride: [self.stride; 2],
            dilation: [self.dilation; 2],
            pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
            groups: self.groups,
            before: Activation::Identity,
            residual: false,
            after: Activation::Relu,
        };
        let y = graph.add_node("conv", Op::Conv(conv), vec![x, weights, bias])?;
        graph.outputs.push(y);
        Ok(graph)
    }
}

/// Fixed numbers in -scale..scale that no kernel finds easy.
pub fn numbers(count: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next() * scale).collect()
}
