//! Squeeze-and-excitation blocks in the forms in which networks have them.

use super::random_graph::{Choices, Seed};
use sinew::graph::{BinaryOp, Conv, Graph, Op, Pads, Pool, PoolKind, ValueId};
use sinew::{DType, Tensor};
use sinew_kernels::activation::Activation;

/// What computes the map that is gated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trunk {
    /// A 1x1 convolution: the last one of a bottleneck.
    Pointwise,
    /// The same in two groups.
    Grouped,
    /// A 3x3 convolution: a basic block.
    Square,
    /// One filter per channel: MobileNet.
    Depthwise,
    /// Branches side by side: Inception.
    Concat,
    /// The block's input: SE-PRE.
    None,
}

/// One block.
#[derive(Clone, Debug)]
pub struct Form {
    pub trunk: Trunk,
    pub trunk_after: Activation,
    pub trunk_stride: usize,
    pub channels: usize,
    pub hidden: usize,
    /// Dense layers side by side.
    pub branches: usize,
    /// Whether the activation stands behind the concatenation of the branches.
    pub late_activation: bool,
    pub layers: usize,
    pub between: Activation,
    pub gate: Activation,
    /// Dense layers of rows, or 1x1 convolutions of pixels.
    pub rows: bool,
    pub biases: bool,
    /// `x + s x`, as a sum or as `(1 + s) x`.
    pub inner_residual: bool,
    pub one_plus: bool,
    pub residual: bool,
    pub relu: bool,
    /// The operands of sums and products the other way round.
    pub swapped: bool,
    /// A 1x1 convolution behind it.
    pub projected: bool,
    /// Forms that must be missed.
    pub hidden_is_output: bool,
    pub squeezes_rows_only: bool,
}

impl Form {
    pub fn plain(channels: usize, hidden: usize) -> Self {
        Self {
            trunk: Trunk::Square,
            trunk_after: Activation::Identity,
            trunk_stride: 1,
            channels,
            hidden,
            branches: 1,
            late_activation: false,
            layers: 2,
            between: Activation::Relu,
            gate: Activation::Sigmoid,
            rows: false,
            biases: true,
            inner_residual: false,
            one_plus: false,
            residual: false,
            relu: false,
            swapped: false,
            projected: false,
            hidden_is_output: false,
            squeezes_rows_only: false,
        }
    }

    pub fn random(choices: &mut impl Choices) -> Self {
        let trunks = [
            Trunk::Pointwise,
            Trunk::Pointwise,
            Trunk::Grouped,
            Trunk::Square,
            Trunk::Depthwise,
            Trunk::Concat,
            Trunk::None,
        ];
        let activation = |choices: &mut dyn FnMut(usize) -> usize| {
            [Activation::Identity, Activation::Identity, Activation::Relu, Activation::Silu][choices(4)]
        };
        let mut pick = |n: usize| choices.pick(n);
        let trunk = trunks[pick(trunks.len())];
        Self {
            trunk,
            trunk_after: if trunk == Trunk::None { Activation::Identity } else { activation(&mut pick) },
            trunk_stride: 1 + usize::from(pick(6) == 0),
            channels: [1, 2, 15, 16, 17, 24, 32, 40, 48][pick(9)],
            hidden: [1, 2, 6, 16, 17, 20][pick(6)],
            branches: [1, 1, 2, 3, 4][pick(5)],
            late_activation: pick(2) == 0,
            layers: 1 + usize::from(pick(5) > 0),
            between: [Activation::Relu, Activation::HardSwish, Activation::Relu][pick(3)],
            gate: [
                Activation::Sigmoid,
                Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
                Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
                Activation::Tanh,
            ][pick(4)],
            rows: pick(2) == 0,
            biases: pick(2) == 0,
            inner_residual: pick(3) == 0,
            one_plus: pick(2) == 0,
            residual: pick(2) == 0,
            relu: pick(2) == 0,
            swapped: pick(2) == 0,
            projected: pick(3) == 0,
            hidden_is_output: false,
            squeezes_rows_only: false,
        }
    }

    /// Whether the gate can be known before the map.
    pub fn is_gate_first(&self) -> bool {
        let linear = self.trunk_after == Activation::Identity && self.trunk_stride == 1;
        linear && (self.trunk == Trunk::Pointwise || self.trunk == Trunk::Grouped && self.channels > 1)
    }
}

/// A graph that is being written.
pub struct Net {
    graph: Graph,
    seed: Seed,
}

impl Net {
    pub fn new(shape: [usize; 4], seed: Seed) -> Self {
        let mut graph = Graph { name: "gated".into(), ..Graph::default() };
        let x = graph.add_value("x", shape.to_vec(), DType::F32);
        graph.inputs.push(x);
        Self { graph, seed }
    }

    fn constant(&mut self, shape: &[usize], scale: f32) -> ValueId {
        let values = (0..shape.iter().product()).map(|_| self.seed.number() * scale).collect();
        let name = format!("c{}", self.graph.values.len());
        self.graph.add_constant(name, Tensor::f32(shape, values).expect("as many numbers as the shape holds"))
    }

    fn op(&mut self, op: Op, inputs: Vec<ValueId>) -> ValueId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.add_node(name, op, inputs).expect("operands that fit")
    }

    fn conv(
        &mut self,
        x: ValueId,
        outputs: usize,
        kernel: usize,
        stride: usize,
        groups: usize,
        bias: bool,
    ) -> ValueId {
        let channels = self.graph.shape(x)[1] / groups;
        let scale = (3.0 / (channels * kernel * kernel) as f32).sqrt();
        let weights = self.constant(&[outputs, channels, kernel, kernel], scale);
        let bias = self.constant(&[outputs], if bias { 0.5 } else { 0.0 });
        let pad = kernel / 2;
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
            groups,
            before: Activation::Identity,
            residual: false,
            after: Activation::Identity,
        };
        self.op(Op::Conv(conv), vec![x, weights, bias])
    }

    fn dense(&mut self, x: ValueId, outputs: usize, bias: bool) -> ValueId {
        if self.graph.shape(x).len() == 4 {
            return self.conv(x, outputs, 1, 1, 1, bias);
        }
        let channels = self.graph.shape(x)[1];
        let weights = self.constant(&[outputs, channels], (3.0 / channels as f32).sqrt());
        let bias = self.constant(&[outputs], if bias { 0.5 } else { 0.0 });
        self.op(Op::Dense { after: Activation::Identity }, vec![x, weights, bias])
    }

    fn activate(&mut self, x: ValueId, function: Activation) -> ValueId {
        if function == Activation::Identity { x } else { self.op(Op::Unary(function), vec![x]) }
    }

    fn pair(&mut self, op: BinaryOp, a: ValueId, b: ValueId, swapped: bool) -> ValueId {
        self.op(Op::Binary(op), if swapped { vec![b, a] } else { vec![a, b] })
    }

    fn trunk(&mut self, x: ValueId, form: &Form) -> ValueId {
        let (channels, stride) = (form.channels, form.trunk_stride);
        let y = match form.trunk {
            Trunk::Pointwise => self.conv(x, channels, 1, stride, 1, true),
            Trunk::Grouped => {
                let wide = self.conv(x, 2 * channels, 1, 1, 1, true);
                self.conv(wide, 2 * channels, 1, stride, 2, true)
            }
            Trunk::Square => self.conv(x, channels, 3, stride, 1, true),
            Trunk::Depthwise => {
                let wide = self.conv(x, channels.max(2), 1, 1, 1, true);
                self.conv(wide, channels.max(2), 3, stride, channels.max(2), true)
            }
            Trunk::Concat => {
                let (a, b) =
                    (self.conv(x, channels, 1, stride, 1, true), self.conv(x, 7, 3, stride, 1, true));
                let b = self.activate(b, Activation::Relu);
                self.op(Op::Concat { axis: 1 }, vec![a, b])
            }
            Trunk::None => x,
        };
        self.activate(y, form.trunk_after)
    }

    fn gate(&mut self, map: ValueId, form: &Form) -> ValueId {
        let [n, c, h, w] = self.graph.shape(map)[..] else { unreachable!("a map") };
        let mut z = if form.squeezes_rows_only {
            let pool = Pool {
                kind: PoolKind::Average,
                kernel: [h, 1],
                stride: [1, w],
                dilation: [1, 1],
                pads: Pads::default(),
                ceil_mode: false,
                count_include_pad: false,
            };
            self.op(Op::Pool(pool), vec![map])
        } else {
            self.op(Op::GlobalPool(PoolKind::Average), vec![map])
        };
        if form.rows {
            z = self.op(Op::Reshape { shape: vec![n, c] }, vec![z]);
        }
        for _ in 1..form.layers {
            let branches: Vec<ValueId> = (0..form.branches)
                .map(|_| {
                    let y = self.dense(z, form.hidden, form.biases);
                    if form.late_activation { y } else { self.activate(y, form.between) }
                })
                .collect();
            z = if form.branches == 1 { branches[0] } else { self.op(Op::Concat { axis: 1 }, branches) };
            if form.late_activation {
                z = self.activate(z, form.between);
            }
            if form.hidden_is_output {
                self.graph.outputs.push(z);
            }
        }
        let s = self.dense(z, c, form.biases);
        let s = self.activate(s, form.gate);
        if form.rows { self.op(Op::Reshape { shape: vec![n, c, 1, 1] }, vec![s]) } else { s }
    }

    pub fn finish(mut self, form: &Form) -> Graph {
        let x = self.graph.inputs[0];
        let map = self.trunk(x, form);
        let mut s = self.gate(map, form);
        if form.inner_residual && form.one_plus {
            let one = self.graph.add_constant("one", Tensor::f32([1], vec![1.0]).expect("one number"));
            s = self.pair(BinaryOp::Add, s, one, form.swapped);
        }
        let mut y = self.pair(BinaryOp::Mul, map, s, form.swapped);
        if form.inner_residual && !form.one_plus {
            y = self.pair(BinaryOp::Add, y, map, form.swapped);
        }
        if form.residual {
            let channels = self.graph.shape(y)[1];
            let shortcut = self.conv(x, channels, 1, form.trunk_stride_of(), 1, true);
            y = self.pair(BinaryOp::Add, y, shortcut, form.swapped);
        }
        if form.relu {
            y = self.activate(y, Activation::Relu);
        }
        if form.projected {
            y = self.conv(y, 19, 1, 1, 1, true);
        }
        self.graph.outputs.insert(0, y);
        self.graph.remove_unused();
        self.graph
    }
}

impl Form {
    fn trunk_stride_of(&self) -> usize {
        if self.trunk == Trunk::None { 1 } else { self.trunk_stride }
    }
}

/// A random block on a random image.
pub fn gated_graph(choices: &mut impl Choices) -> (Graph, Form) {
    let mut form = Form::random(choices);
    // With one layer there is nothing to stack.
    if form.layers == 1 {
        form.branches = 1;
    }
    // A map of one pixel is no map: its gate would have the same shape.
    let size = [3 + choices.pick(8), 3 + choices.pick(8)];
    let shape = [1 + choices.pick(3), 1 + choices.pick(24), size[0], size[1]];
    let seed = Seed(choices.pick(1 << 30) as u64);
    (Net::new(shape, seed).finish(&form), form)
}
