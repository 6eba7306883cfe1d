//! Random small graphs from a stream of choices: for property tests and for fuzzing.

use sinew::graph::{BinaryOp, Conv, Graph, MaxMinOrder, Op, Pads, Pool, PoolKind, ValueId};
use sinew::{DType, Tensor};
use sinew_kernels::activation::Activation;

/// A source of choices: `pick(n)` gives a number below `n`.
pub trait Choices {
    fn pick(&mut self, n: usize) -> usize;

    /// A rounding-sensitive number in -1..1.
    fn number(&mut self) -> f32 {
        (self.pick(1 << 20) as f32 + 0.37) / (1 << 19) as f32 - 1.0
    }
}

/// SplitMix64: choices without end from one seed.
pub struct Seed(pub u64);

impl Choices for Seed {
    fn pick(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn activation(choices: &mut impl Choices) -> Activation {
    match choices.pick(10) {
        0 => Activation::LeakyRelu { slope: 0.1 },
        1 => Activation::Clip { low: -0.5, high: 0.75 },
        2 => Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        3 => Activation::HardSwish,
        4 => Activation::Sigmoid,
        5 => Activation::Silu,
        6 => Activation::Tanh,
        7 => Activation::Neg,
        8 => Activation::Abs,
        _ => Activation::Relu,
    }
}

fn constant(graph: &mut Graph, choices: &mut impl Choices, shape: Vec<usize>, scale: f32) -> ValueId {
    let mut seed = Seed(choices.pick(1 << 30) as u64);
    let values = (0..shape.iter().product()).map(|_| seed.number() * scale).collect();
    let name = format!("c{}", graph.values.len());
    graph.add_constant(name, Tensor::f32(shape, values).expect("as many numbers as the shape holds"))
}

fn window(choices: &mut impl Choices) -> ([usize; 2], [usize; 2], [usize; 2], Pads) {
    let kernel = [1 + choices.pick(5), 1 + choices.pick(5)];
    let stride = [1 + choices.pick(3), 1 + choices.pick(3)];
    let dilation = [1 + choices.pick(2), 1 + choices.pick(2)];
    let mut pad = |extent: usize| choices.pick(extent);
    let pads =
        Pads { top: pad(kernel[0]), left: pad(kernel[1]), bottom: pad(kernel[0]), right: pad(kernel[1]) };
    (kernel, stride, dilation, pads)
}

/// One random operator on a random value; nothing where the shapes do not allow it.
fn node(graph: &mut Graph, choices: &mut impl Choices, values: &[ValueId]) -> Option<ValueId> {
    let x = values[values.len() - 1 - choices.pick(values.len().min(3))];
    let shape = graph.shape(x).to_vec();
    let name = format!("n{}", graph.nodes.len());
    if shape.len() != 4 {
        let op = match choices.pick(3) {
            0 => Op::Softmax { axis: choices.pick(shape.len()) },
            1 => Op::Unary(activation(choices)),
            _ if shape.len() == 2 => {
                let outputs = 1 + choices.pick(40);
                let weights = constant(graph, choices, vec![outputs, shape[1]], 0.5);
                let bias = constant(graph, choices, vec![outputs], 0.5);
                return graph
                    .add_node(name, Op::Dense { after: Activation::Identity }, vec![x, weights, bias])
                    .ok();
            }
            _ => Op::Reshape {
                shape: vec![shape.iter().product::<usize>() / shape[shape.len() - 1], shape[shape.len() - 1]],
            },
        };
        return graph.add_node(name, op, vec![x]).ok();
    }
    let (channels, sizes) = (shape[1], [shape[2], shape[3]]);
    let (op, inputs) = match choices.pick(22) {
        0..=6 => {
            let (kernel, stride, dilation, pads) = match choices.pick(3) {
                0 => ([1, 1], [1, 1], [1, 1], Pads::default()),
                1 => ([3, 3], [1, 1], [1, 1], Pads { top: 1, left: 1, bottom: 1, right: 1 }),
                _ => window(choices),
            };
            let divisors: Vec<usize> = (1..=channels).filter(|g| channels % g == 0).collect();
            let groups = if choices.pick(3) == 0 { divisors[choices.pick(divisors.len())] } else { 1 };
            let per_group = if groups == channels { 1 } else { 1 + choices.pick((40 / groups).max(1)) };
            let outputs = groups * per_group;
            let weights =
                constant(graph, choices, vec![outputs, channels / groups, kernel[0], kernel[1]], 0.3);
            let bias = constant(graph, choices, vec![outputs], 0.5);
            let conv = Conv {
                kernel,
                stride,
                dilation,
                pads,
                groups,
                before: Activation::Identity,
                residual: false,
                after: Activation::Identity,
            };
            (Op::Conv(conv), vec![x, weights, bias])
        }
        7 | 8 => {
            let (kernel, stride, dilation, pads) = window(choices);
            let kind = if choices.pick(2) == 0 { PoolKind::Max } else { PoolKind::Average };
            // Every window must hold a pixel: ONNX demands pads below the kernel.
            let limit = |pad: usize, kernel: usize| pad.min(kernel / 2);
            let pads = Pads {
                top: limit(pads.top, kernel[0]),
                left: limit(pads.left, kernel[1]),
                bottom: limit(pads.bottom, kernel[0]),
                right: limit(pads.right, kernel[1]),
            };
            let dilation = if kind == PoolKind::Max && pads == Pads::default() { dilation } else { [1, 1] };
            let (ceil_mode, count_include_pad) = (choices.pick(2) == 0, choices.pick(2) == 0);
            (Op::Pool(Pool { kind, kernel, stride, dilation, pads, ceil_mode, count_include_pad }), vec![x])
        }
        9 => (Op::GlobalPool(if choices.pick(2) == 0 { PoolKind::Max } else { PoolKind::Average }), vec![x]),
        10 | 11 => (Op::Unary(activation(choices)), vec![x]),
        12 => {
            let statistics: Vec<ValueId> = [1.0, 0.5, 0.5]
                .iter()
                .map(|&scale| constant(graph, choices, vec![channels], scale))
                .collect();
            let mut seed = Seed(choices.pick(1 << 30) as u64);
            let variance = (0..channels).map(|_| 0.5 + seed.number().abs()).collect();
            let variance = graph.add_constant("variance", Tensor::f32(vec![channels], variance).ok()?);
            (Op::BatchNorm { epsilon: 1e-5 }, [vec![x], statistics, vec![variance]].concat())
        }
        13 | 14 => {
            let op =
                [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Max, BinaryOp::Min][choices.pick(5)];
            let y = match choices.pick(5) {
                0 => constant(graph, choices, vec![1, channels, 1, 1], 1.0),
                1 => constant(graph, choices, vec![1], 1.0),
                2 => constant(graph, choices, vec![1, 1, sizes[0], sizes[1]], 1.0),
                3 => constant(graph, choices, vec![channels, 1, 1], 1.0),
                _ => values[choices.pick(values.len())],
            };
            (Op::Binary(op), if choices.pick(2) == 0 { vec![x, y] } else { vec![y, x] })
        }
        15 => (Op::Softmax { axis: choices.pick(4) }, vec![x]),
        16 | 17 => {
            let axis = if choices.pick(4) == 0 { choices.pick(4) } else { 1 };
            let fits = |id: &&ValueId| {
                let other = graph.shape(**id);
                other.len() == 4 && (0..4).all(|d| d == axis || other[d] == shape[d])
            };
            let candidates: Vec<ValueId> = values.iter().filter(fits).copied().collect();
            let count = 1 + choices.pick(3);
            let others = (0..count).map(|_| candidates[choices.pick(candidates.len())]);
            (Op::Concat { axis }, [x].into_iter().chain(others).collect())
        }
        18 => {
            let order =
                if choices.pick(2) == 0 { MaxMinOrder::PositiveFirst } else { MaxMinOrder::NegativeFirst };
            (Op::MaxMin { order }, vec![x])
        }
        19 => {
            let permutation =
                [[0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 2, 1, 3]][choices.pick(4)].to_vec();
            (Op::Transpose { permutation }, vec![x])
        }
        20 => match choices.pick(3) {
            0 => (Op::Reshape { shape: vec![shape[0], channels * sizes[0] * sizes[1]] }, vec![x]),
            1 => (
                Op::Pad {
                    amounts: vec![[0, 0], [0, choices.pick(2)], [1, 0], [0, 2]],
                    value: choices.number(),
                },
                vec![x],
            ),
            _ => (Op::UpsampleNearest { factors: [1 + choices.pick(2), 1 + choices.pick(2)] }, vec![x]),
        },
        _ => {
            let start: Vec<usize> = shape.iter().map(|&extent| choices.pick(extent.min(20))).collect();
            let start = [0, start[1], start[2] * choices.pick(2), start[3] * choices.pick(2)];
            let step = [1, 1 + choices.pick(2) * choices.pick(2), 1 + choices.pick(2), 1];
            let size = (0..4).map(|d| (shape[d] - start[d]).div_ceil(step[d])).collect();
            (Op::Slice { start: start.to_vec(), step: step.to_vec(), size }, vec![x])
        }
    };
    graph.add_node(name, op, inputs).ok()
}

/// A graph of up to `nodes` nodes with one input, whose last values are outputs.
pub fn random_graph(choices: &mut impl Choices, nodes: usize) -> Graph {
    let mut graph = Graph { name: "random".into(), ..Graph::default() };
    let shape = vec![1 + choices.pick(3), 1 + choices.pick(40), 1 + choices.pick(10), 1 + choices.pick(10)];
    let input = graph.add_value("x", shape, DType::F32);
    graph.inputs.push(input);
    let mut values = vec![input];
    for _ in 0..nodes {
        if let Some(value) = node(&mut graph, choices, &values)
            && graph.shape(value).iter().product::<usize>() <= 1 << 15
        {
            values.push(value);
        }
    }
    graph.outputs.push(values[values.len() - 1]);
    if values.len() > 3 && choices.pick(2) == 0 {
        graph.outputs.push(values[values.len() / 2]);
    }
    graph.remove_unused();
    graph
}
