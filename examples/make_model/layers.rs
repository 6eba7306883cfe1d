//! Layers with random weights: He-scaled, so that activations keep their size from layer to layer.

use std::collections::HashMap;

use sinew::onnx::{Attribute, Builder};
use sinew::{DType, Data, Result, Tensor};

/// SplitMix64: one 64-bit state, the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, 24 bits: exact in f32.
    pub fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// Mean 0 and variance 1: the sum of four uniform numbers, whose variance is 1/3. No function of the C library is
    /// involved, which would give other bits elsewhere.
    fn normal(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.uniform()).sum();
        (sum - 2.0) * 3f32.sqrt()
    }
}

/// What follows the sums of a layer.
#[derive(Clone, Copy, PartialEq)]
pub enum Act {
    None,
    Relu,
    /// One operator.
    HardSwish,
    /// `x * clip(x + 3, 0, 6) / 6`, as exporters without the operator write it.
    HardSwishApart,
    Sigmoid,
    /// With the slope 1/6, as PyTorch has it.
    HardSigmoid,
}

/// A convolution's window, groups and scale.
#[derive(Clone, Copy)]
pub struct Conv {
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub groups: usize,
    pub act: Act,
    /// Factor of the weights' He scale.
    pub gain: f32,
    /// Without a normalization: whether there is a bias.
    pub bias: bool,
}

impl Conv {
    /// A window of `kernel` x `kernel` taps, with ReLU.
    pub fn new(kernel: usize) -> Self {
        Self { kernel, stride: 1, dilation: 1, groups: 1, act: Act::Relu, gain: 1.0, bias: true }
    }

    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    pub fn act(self, act: Act) -> Self {
        Self { act, ..self }
    }

    pub fn gain(self, gain: f32) -> Self {
        Self { gain, ..self }
    }

    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

/// A network that is being written, with the shape of every value.
pub struct Layers {
    builder: Builder,
    random: Random,
    shapes: HashMap<String, Vec<usize>>,
    nodes: usize,
    constants: usize,
    batch_norm: bool,
}

impl Layers {
    pub fn new(name: &str, seed: u64, batch_norm: bool) -> Self {
        let (builder, random) = (Builder::new(name), Random(seed));
        Self { builder, random, shapes: HashMap::new(), nodes: 0, constants: 0, batch_norm }
    }

    pub fn input(&mut self, shape: [usize; 4]) -> String {
        self.named_input("x", shape)
    }

    /// One of several inputs.
    pub fn named_input(&mut self, name: &str, shape: [usize; 4]) -> String {
        self.builder.input(name, DType::F32, shape);
        self.shapes.insert(name.to_owned(), shape.to_vec());
        name.to_owned()
    }

    pub fn finish(mut self, y: &str) -> Vec<u8> {
        let shape = self.shape(y);
        self.builder.node("output", "Identity", &[y], &["y"], &[]);
        self.builder.output("y", DType::F32, &shape);
        self.builder.encode()
    }

    pub fn shape(&self, x: &str) -> Vec<usize> {
        self.shapes[x].clone()
    }

    /// The channels of an image.
    pub fn channels(&self, x: &str) -> usize {
        self.shapes[x][1]
    }

    fn constant(&mut self, prefix: &str, tensor: &Tensor) -> String {
        self.constants += 1;
        let name = format!("{prefix}{}", self.constants);
        self.builder.constant(&name, tensor);
        name
    }

    fn normal(&mut self, prefix: &str, shape: &[usize], deviation: f32) -> Result<String> {
        let elements = (0..shape.iter().product()).map(|_| self.random.normal() * deviation).collect();
        Ok(self.constant(prefix, &Tensor::f32(shape, elements)?))
    }

    fn uniform(&mut self, prefix: &str, count: usize, low: f32, high: f32) -> Result<String> {
        let elements = (0..count).map(|_| low + (high - low) * self.random.uniform()).collect();
        Ok(self.constant(prefix, &Tensor::f32([count], elements)?))
    }

    fn scalar(&mut self, x: f32) -> Result<String> {
        Ok(self.constant("c", &Tensor::f32([], vec![x])?))
    }

    fn op(&mut self, op: &str, inputs: &[&str], shape: &[usize], attributes: &[(&str, Attribute)]) -> String {
        self.nodes += 1;
        let output = format!("t{}", self.nodes);
        let name = format!("{}_{}", op.to_lowercase(), self.nodes);
        self.builder.node(&name, op, inputs, &[&output], attributes);
        self.shapes.insert(output.clone(), shape.to_vec());
        output
    }

    /// A convolution that pads so that a stride of 1 keeps the size.
    pub fn conv(&mut self, x: &str, outputs: usize, conv: Conv) -> Result<String> {
        let [n, c, h, w] = self.shape(x)[..] else { unreachable!("convolutions are of images") };
        let Conv { kernel, stride, dilation, groups, act, gain, bias } = conv;
        let pad = dilation * (kernel - 1) / 2;
        let size = |extent: usize| (extent + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
        let per_group = c / groups;
        let deviation = gain * (2.0 / (per_group * kernel * kernel) as f32).sqrt();
        let weights = self.normal("w", &[outputs, per_group, kernel, kernel], deviation)?;
        let attributes = [
            ("kernel_shape", [kernel, kernel][..].into()),
            ("strides", [stride, stride][..].into()),
            ("dilations", [dilation, dilation][..].into()),
            ("pads", [pad; 4][..].into()),
            ("group", (groups as i64).into()),
        ];
        let shape = [n, outputs, size(h), size(w)];
        let mut y = if bias && !self.batch_norm {
            let bias = self.normal("b", &[outputs], 0.1)?;
            self.op("Conv", &[x, &weights, &bias], &shape, &attributes)
        } else {
            self.op("Conv", &[x, &weights], &shape, &attributes)
        };
        if self.batch_norm {
            let gamma = self.uniform("gamma", outputs, 0.8, 1.2)?;
            let beta = self.normal("beta", &[outputs], 0.1)?;
            let mean = self.uniform("mean", outputs, -0.1, 0.1)?;
            let variance = self.uniform("variance", outputs, 0.8, 1.2)?;
            let inputs = [y.as_str(), &gamma, &beta, &mean, &variance];
            y = self.op("BatchNormalization", &inputs, &shape, &[("epsilon", 1e-5.into())]);
        }
        self.act(&y, act)
    }

    pub fn act(&mut self, x: &str, act: Act) -> Result<String> {
        let shape = self.shape(x);
        Ok(match act {
            Act::None => x.to_owned(),
            Act::Relu => self.op("Relu", &[x], &shape, &[]),
            Act::HardSwish => self.op("HardSwish", &[x], &shape, &[]),
            Act::Sigmoid => self.op("Sigmoid", &[x], &shape, &[]),
            Act::HardSigmoid => {
                self.op("HardSigmoid", &[x], &shape, &[("alpha", (1.0 / 6.0).into()), ("beta", 0.5.into())])
            }
            Act::HardSwishApart => {
                let (three, zero, six) = (self.scalar(3.0)?, self.scalar(0.0)?, self.scalar(6.0)?);
                let sum = self.op("Add", &[x, &three], &shape, &[]);
                let clipped = self.op("Clip", &[&sum, &zero, &six], &shape, &[]);
                let product = self.op("Mul", &[x, &clipped], &shape, &[]);
                self.op("Div", &[&product, &six], &shape, &[])
            }
        })
    }

    pub fn add(&mut self, a: &str, b: &str, act: Act) -> Result<String> {
        let shape = self.shape(a);
        let sum = self.op("Add", &[a, b], &shape, &[]);
        self.act(&sum, act)
    }

    /// A max pool; without a border where `kernel` is even.
    pub fn max_pool(&mut self, x: &str, kernel: usize, stride: usize) -> String {
        let [n, c, h, w] = self.shape(x)[..] else { unreachable!("pools are of images") };
        let pad = (kernel - 1) / 2;
        let size = |extent: usize| (extent + 2 * pad - kernel) / stride + 1;
        let attributes = [
            ("kernel_shape", [kernel, kernel][..].into()),
            ("strides", [stride, stride][..].into()),
            ("pads", [pad; 4][..].into()),
        ];
        self.op("MaxPool", &[x], &[n, c, size(h), size(w)], &attributes)
    }

    pub fn global_average(&mut self, x: &str) -> String {
        let shape = self.shape(x);
        self.op("GlobalAveragePool", &[x], &[shape[0], shape[1], 1, 1], &[])
    }

    pub fn concat(&mut self, parts: &[&str]) -> String {
        let mut shape = self.shape(parts[0]);
        shape[1] = parts.iter().map(|part| self.channels(part)).sum();
        self.op("Concat", parts, &shape, &[("axis", 1.into())])
    }

    pub fn flatten(&mut self, x: &str) -> String {
        let shape = self.shape(x);
        self.op("Flatten", &[x], &[shape[0], shape[1..].iter().product()], &[("axis", 1.into())])
    }

    pub fn dense(&mut self, x: &str, outputs: usize, act: Act) -> Result<String> {
        let [n, k] = self.shape(x)[..] else { unreachable!("dense layers are of rows") };
        let weights = self.normal("w", &[outputs, k], (2.0 / k as f32).sqrt())?;
        let bias = self.normal("b", &[outputs], 0.1)?;
        let y = self.op("Gemm", &[x, &weights, &bias], &[n, outputs], &[("transB", 1.into())]);
        self.act(&y, act)
    }

    /// Squeeze-and-excitation with convolutions: `x * gate(w2 relu(w1 mean(x)))`.
    pub fn squeeze_excite(&mut self, x: &str, squeezed: usize, gate: Act) -> Result<String> {
        let batch_norm = std::mem::replace(&mut self.batch_norm, false);
        let mean = self.global_average(x);
        let z = self.conv(&mean, squeezed, Conv::new(1))?;
        let z = self.conv(&z, self.channels(x), Conv::new(1).act(gate))?;
        self.batch_norm = batch_norm;
        Ok(self.op("Mul", &[x, &z], &self.shape(x), &[]))
    }

    /// Squeeze-aggregated excitation: `branches` dense layers side by side in place of the first one.
    pub fn aggregate_excite(&mut self, x: &str, squeezed: usize, branches: usize) -> Result<String> {
        let shape = self.shape(x);
        let mean = self.global_average(x);
        let row = self.flatten(&mean);
        let parts =
            (0..branches).map(|_| self.dense(&row, squeezed, Act::Relu)).collect::<Result<Vec<_>>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let z = self.concat(&parts);
        let z = self.dense(&z, shape[1], Act::Sigmoid)?;
        let pixel = [shape[0], shape[1], 1, 1];
        let target = Tensor::new(vec![4], Data::I64(pixel.iter().map(|&d| d as i64).collect()))?;
        let target = self.constant("s", &target);
        let z = self.op("Reshape", &[&z, &target], &pixel, &[]);
        Ok(self.op("Mul", &[x, &z], &shape, &[]))
    }

    /// `relu(concat(x, -x))`: twice the channels.
    pub fn max_min(&mut self, x: &str) -> Result<String> {
        let shape = self.shape(x);
        let negative = self.op("Neg", &[x], &shape, &[]);
        let both = self.concat(&[x, &negative]);
        self.act(&both, Act::Relu)
    }
}
