//! Random networks with strides to remove: windows, pools, residual blocks and heads, one- and two-dimensional.

use super::random_graph::{Choices, Seed};
use sinew::graph::{BinaryOp, Conv, Graph, MaxMinOrder, Op, Pads, Pool, PoolKind, ValueId};
use sinew::{DType, Tensor};
use sinew_kernels::activation::Activation;

pub struct Net {
    pub graph: Graph,
    pub seed: Seed,
    /// One row only.
    pub flat: bool,
}

impl Net {
    pub fn new(seed: u64, channels: usize, [height, width]: [usize; 2]) -> Self {
        let mut graph = Graph { name: "net".into(), ..Graph::default() };
        let x = graph.add_value("x", vec![1, channels, height, width], DType::F32);
        graph.inputs.push(x);
        Self { graph, seed: Seed(seed), flat: height == 1 }
    }

    pub fn constant(&mut self, shape: Vec<usize>, scale: f32) -> ValueId {
        let values = (0..shape.iter().product()).map(|_| self.seed.number() * scale).collect();
        let name = format!("c{}", self.graph.values.len());
        self.graph.add_constant(name, Tensor::f32(shape, values).expect("as many numbers as the shape holds"))
    }

    fn sizes(&self, size: usize, other: usize) -> [usize; 2] {
        if self.flat { [other, size] } else { [size, size] }
    }

    fn pads(&self, [before, after]: [usize; 2]) -> Pads {
        let [top, bottom] = if self.flat { [0, 0] } else { [before, after] };
        Pads { top, bottom, left: before, right: after }
    }

    /// A convolution with a bias, which makes every filler visible.
    pub fn conv(
        &mut self,
        x: ValueId,
        outputs: usize,
        kernel: usize,
        stride: usize,
        pads: [usize; 2],
        groups: usize,
    ) -> ValueId {
        let channels = self.graph.shape(x)[1];
        let [kh, kw] = self.sizes(kernel, 1);
        let scale = 1.5 / ((channels / groups * kh * kw) as f32).sqrt();
        let weights = self.constant(vec![outputs, channels / groups, kh, kw], scale);
        let bias = self.constant(vec![outputs], 1.0);
        let conv = Conv {
            kernel: [kh, kw],
            stride: self.sizes(stride, 1),
            dilation: [1, 1],
            pads: self.pads(pads),
            groups,
            before: Activation::Identity,
            residual: false,
            after: Activation::Identity,
        };
        self.add(Op::Conv(conv), vec![x, weights, bias])
    }

    pub fn pool(
        &mut self,
        x: ValueId,
        kind: PoolKind,
        kernel: usize,
        stride: usize,
        pads: [usize; 2],
        ceil: bool,
    ) -> ValueId {
        let pool = Pool {
            kind,
            kernel: self.sizes(kernel, 1),
            stride: self.sizes(stride, 1),
            dilation: [1, 1],
            pads: self.pads(pads),
            ceil_mode: ceil,
            count_include_pad: !ceil && self.seed.pick(2) == 0,
        };
        self.add(Op::Pool(pool), vec![x])
    }

    pub fn relu(&mut self, x: ValueId) -> ValueId {
        self.add(Op::Unary(Activation::Relu), vec![x])
    }

    pub fn add(&mut self, op: Op, inputs: Vec<ValueId>) -> ValueId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.add_node(name, op, inputs).expect("operands that fit")
    }

    /// A residual block whose branches both have the stride.
    pub fn block(&mut self, x: ValueId, outputs: usize, stride: usize) -> ValueId {
        let main = self.conv(x, outputs, 3, stride, [1, 1], 1);
        let main = self.relu(main);
        let main = self.conv(main, outputs, 3, 1, [1, 1], 1);
        let short = self.conv(x, outputs, 1, stride, [0, 0], 1);
        let sum = self.add(Op::Binary(BinaryOp::Add), vec![main, short]);
        self.relu(sum)
    }

    /// Global average, dense layer, softmax.
    pub fn head(&mut self, x: ValueId, outputs: usize) -> ValueId {
        let channels = self.graph.shape(x)[1];
        let mean = self.add(Op::GlobalPool(PoolKind::Average), vec![x]);
        let flat = self.add(Op::Reshape { shape: vec![1, channels] }, vec![mean]);
        let weights = self.constant(vec![outputs, channels], 0.3);
        let bias = self.constant(vec![outputs], 0.5);
        let dense = self.add(Op::Dense { after: Activation::Identity }, vec![flat, weights, bias]);
        self.add(Op::Softmax { axis: 1 }, vec![dense])
    }

    pub fn finish(mut self, output: ValueId) -> Graph {
        self.graph.outputs.push(output);
        self.graph
    }
}

/// A random network with at least one stride; `None` where the map has become too small for one.
pub fn random_net(seed: u64) -> Option<Graph> {
    let mut choices = Seed(seed ^ 0x5eed);
    let flat = choices.pick(3) == 0;
    let size = |choices: &mut Seed| if flat { 30 + choices.pick(61) } else { 13 + choices.pick(22) };
    let [height, width] = [if flat { 1 } else { size(&mut choices) }, size(&mut choices)];
    let mut net = Net::new(seed, 1 + choices.pick(5), [height, width]);
    let mut x = net.graph.inputs[0];
    let mut strides = 0;
    for _ in 0..4 + choices.pick(4) {
        let channels = net.graph.shape(x)[1];
        let small = net.graph.shape(x)[3].min(if flat { 99 } else { net.graph.shape(x)[2] });
        let wide = [3, 16, 17, 20, 32][choices.pick(5)];
        let strided = small >= 8 && strides < 3;
        match choices.pick(9) {
            0..=2 if small >= 3 => {
                x = net.conv(x, wide, 3, 1, [choices.pick(2), choices.pick(3)], 1);
                x = net.relu(x);
            }
            3 if strided => {
                let kernel = 1 + choices.pick(3);
                let pads = [choices.pick(kernel), choices.pick(kernel)];
                x = net.conv(x, wide, kernel, 2 + choices.pick(2), pads, 1);
                strides += 1;
            }
            4 | 5 if strided => {
                let kind = if choices.pick(2) == 0 { PoolKind::Max } else { PoolKind::Average };
                let (kernel, ceil) = (2 + choices.pick(2), choices.pick(2) == 0);
                let pads = [choices.pick(2), choices.pick(2)];
                x = net.pool(x, kind, kernel, 2 + choices.pick(kernel - 1), pads, ceil);
                strides += 1;
            }
            6 if strided && !flat => {
                x = net.block(x, 16 + choices.pick(8), 2);
                strides += 1;
            }
            7 if small >= 3 && channels <= 32 => {
                x = net.conv(x, channels, 3, 1, [1, 1], channels);
                if choices.pick(2) == 0 {
                    x = net.add(Op::MaxMin { order: MaxMinOrder::PositiveFirst }, vec![x]);
                }
            }
            8 => x = net.conv(x, wide, 1, 1, [0, 0], 1),
            _ => {}
        }
    }
    if strides == 0 {
        return None;
    }
    if choices.pick(3) == 0 {
        x = net.head(x, 5);
    }
    Some(net.finish(x))
}
