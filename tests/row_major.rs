//! Graphs whose edges are row-major: pools, scales and element-wise nodes run there without a layout change, and give
//! the bits that they give in blocks, on every instruction set and number of threads.

#[path = "support/random_graph.rs"]
#[allow(dead_code, reason = "its graphs serve other tests")]
mod random_graph;

use std::sync::Arc;

use random_graph::{Choices, Seed};
use sinew::graph::{BinaryOp, Conv, Excite, Graph, Op, Pads, Pool, PoolKind, ValueId};
use sinew::plan::file::LoadOptions;
use sinew::plan::{Io, PlanOptions};
use sinew::run::outputs_of;
use sinew::{DType, Input, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// Fewer under emulation.
fn cases() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

/// A number, one in sixteen a NaN, a zero of either sign or an infinity.
fn number(choices: &mut impl Choices) -> f32 {
    const SPECIAL: [f32; 5] = [f32::NAN, 0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY];
    if choices.pick(16) == 0 { SPECIAL[choices.pick(SPECIAL.len())] } else { choices.number() }
}

fn tensor(choices: &mut impl Choices, shape: &[usize]) -> Tensor {
    let data = (0..shape.iter().product()).map(|_| number(choices)).collect();
    Tensor::f32(shape.to_vec(), data).expect("as many numbers as the shape holds")
}

fn constant(graph: &mut Graph, choices: &mut impl Choices, shape: &[usize]) -> ValueId {
    let data = (0..shape.iter().product()).map(|_| choices.number()).collect();
    let tensor = Tensor::f32(shape.to_vec(), data).expect("as many numbers as the shape holds");
    graph.add_constant(format!("c{}", graph.values.len()), tensor)
}

fn max_pool(kernel: usize, stride: usize, pad: usize) -> Op {
    let pads = Pads { top: pad, left: pad, bottom: pad, right: pad };
    Op::Pool(Pool {
        kind: PoolKind::Max,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pads,
        ceil_mode: false,
        count_include_pad: false,
    })
}

fn random_pool(choices: &mut impl Choices) -> Op {
    let mut size = |most: usize| [1 + choices.pick(most), 1 + choices.pick(most)];
    let (kernel, stride) = (size(5), size(3));
    let mut pad = |kernel: usize| choices.pick(kernel / 2 + 1);
    Op::Pool(Pool {
        kernel,
        stride,
        dilation: [1; 2],
        pads: Pads {
            top: pad(kernel[0]),
            left: pad(kernel[1]),
            bottom: pad(kernel[0]),
            right: pad(kernel[1]),
        },
        kind: if choices.pick(2) == 0 { PoolKind::Max } else { PoolKind::Average },
        ceil_mode: choices.pick(2) == 0,
        count_include_pad: choices.pick(2) == 0,
    })
}

fn activation(choices: &mut impl Choices) -> Activation {
    [Activation::Identity, Activation::Relu, Activation::Sigmoid, Activation::HardSwish, Activation::Neg]
        [choices.pick(5)]
}

fn add(graph: &mut Graph, op: Op, inputs: Vec<ValueId>) -> Option<ValueId> {
    graph.add_node(format!("n{}", graph.nodes.len()), op, inputs).ok()
}

/// A gate of the map's own means: without dense layers, which change nothing here.
fn gate(graph: &mut Graph, x: ValueId) -> Option<ValueId> {
    let means = add(graph, Op::GlobalPool(PoolKind::Average), vec![x])?;
    add(graph, Op::Unary(Activation::Sigmoid), vec![means])
}

fn scaled(graph: &mut Graph, x: ValueId, residual: Option<ValueId>, after: Activation) -> Option<ValueId> {
    let scale = gate(graph, x)?;
    let op = Op::Excite(Excite::Scale { residual: residual.is_some(), after });
    add(graph, op, [x, scale].into_iter().chain(residual).collect())
}

fn batch_norm(graph: &mut Graph, choices: &mut impl Choices, x: ValueId) -> Option<ValueId> {
    let channels = graph.shape(x)[1];
    let statistics: Vec<ValueId> = (0..3).map(|_| constant(graph, choices, &[channels])).collect();
    let variance = (0..channels).map(|_| 0.5 + choices.number().abs()).collect();
    let variance = graph.add_constant("variance", Tensor::f32(vec![channels], variance).ok()?);
    add(graph, Op::BatchNorm { epsilon: 1e-5 }, [vec![x], statistics, vec![variance]].concat())
}

/// A convolution with a 3x3 window that keeps the size of its map.
fn window(dilation: [usize; 2]) -> Op {
    let [down, across] = dilation;
    Op::Conv(Conv {
        kernel: [3; 2],
        stride: [1; 2],
        dilation,
        pads: Pads { top: down, left: across, bottom: down, right: across },
        groups: 1,
        before: Activation::Identity,
        residual: false,
        after: Activation::Identity,
    })
}

/// A filter of its own for each channel.
fn depthwise(
    graph: &mut Graph,
    choices: &mut impl Choices,
    x: ValueId,
    kernel: usize,
    stride: usize,
    after: Activation,
) -> Option<ValueId> {
    let channels = graph.shape(x)[1];
    let weights = constant(graph, choices, &[channels, 1, kernel, kernel]);
    let bias = constant(graph, choices, &[channels]);
    let mut pad = || choices.pick(kernel);
    let pads = Pads { top: pad(), left: pad(), bottom: pad(), right: pad() };
    let op = Op::Conv(Conv {
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1; 2],
        pads,
        groups: channels,
        before: Activation::Identity,
        residual: false,
        after,
    });
    add(graph, op, vec![x, weights, bias])
}

fn convolution(graph: &mut Graph, choices: &mut impl Choices, x: ValueId) -> Option<ValueId> {
    let (inputs, outputs) = (graph.shape(x)[1], 1 + choices.pick(20));
    let (weights, bias) =
        (constant(graph, choices, &[outputs, inputs, 3, 3]), constant(graph, choices, &[outputs]));
    add(graph, window([1; 2]), vec![x, weights, bias])
}

/// One node, or a few that belong together, on a random value.
fn node(graph: &mut Graph, choices: &mut impl Choices, values: &[ValueId]) -> Option<ValueId> {
    let x = values[values.len() - 1 - choices.pick(values.len().min(3))];
    let shape = graph.shape(x).to_vec();
    let same: Vec<ValueId> = values.iter().copied().filter(|&id| graph.shape(id) == shape).collect();
    let other = same[choices.pick(same.len())];
    match choices.pick(14) {
        0..=2 => {
            let pool = random_pool(choices);
            add(graph, pool, vec![x])
        }
        3 => {
            let kind = if choices.pick(2) == 0 { PoolKind::Max } else { PoolKind::Average };
            add(graph, Op::GlobalPool(kind), vec![x])
        }
        4 => {
            let function = activation(choices);
            add(graph, Op::Unary(function), vec![x])
        }
        5 => batch_norm(graph, choices, x),
        6 | 7 => {
            let residual = (choices.pick(2) == 0).then_some(other);
            let after = activation(choices);
            scaled(graph, x, residual, after)
        }
        // An input of fewer channels it would read as a plain image, which sums up in another order.
        8 | 9 => {
            let (kernel, stride) = ([3, 5][choices.pick(2)], 1 + choices.pick(2));
            let after = activation(choices);
            depthwise(graph, choices, x, kernel, stride, after)
        }
        10 if shape[1] > 4 || !graph.inputs.contains(&x) => convolution(graph, choices, x),
        _ => {
            let op =
                [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Max, BinaryOp::Min][choices.pick(5)];
            let y = match choices.pick(5) {
                0 => constant(graph, choices, &[1, shape[1], 1, 1]),
                1 => constant(graph, choices, &[shape[1], 1, 1]),
                2 => constant(graph, choices, &[1]),
                3 => constant(graph, choices, &shape),
                _ => other,
            };
            add(graph, Op::Binary(op), if choices.pick(2) == 0 { vec![x, y] } else { vec![y, x] })
        }
    }
}

/// Two inputs of one shape and some nodes.
fn random_edges(choices: &mut impl Choices) -> Graph {
    let mut graph = Graph { name: "edges".into(), ..Graph::default() };
    let width = if choices.pick(4) == 0 { 1 + choices.pick(20) } else { 16 + choices.pick(30) };
    let channels = [1, 3, 5, 16, 17, 33][choices.pick(6)];
    let shape = vec![1 + choices.pick(3), channels, 1 + choices.pick(20), width];
    let mut values: Vec<ValueId> =
        ["x", "r"].map(|name| graph.add_value(name, shape.clone(), DType::F32)).to_vec();
    graph.inputs.clone_from(&values);
    for _ in 0..1 + choices.pick(5) {
        values.extend(node(&mut graph, choices, &values));
    }
    graph.outputs.push(values[values.len() - 1]);
    if values.len() > 3 && choices.pick(3) == 0 {
        graph.outputs.push(values[values.len() / 2 + 1]);
        graph.outputs.dedup();
    }
    graph.remove_unused();
    graph
}

fn options(threads: usize, io: Io) -> Options {
    Options { plan: PlanOptions { threads, io, ..PlanOptions::default() }, ..Options::default() }
}

fn run(model: Model, isa: Isa, poison: bool, inputs: &[Tensor]) -> Vec<Vec<u32>> {
    let session = SessionOptions { isa: Some(isa), ..SessionOptions::default() };
    let mut session = Session::new(Arc::new(model), session).expect("a supported instruction set");
    session.set_poison(poison);
    let inputs: Vec<Input<'_>> = inputs.iter().map(Input::from).collect();
    let mut results = session.new_outputs().expect("shapes of the plan");
    let mut outputs = outputs_of(&mut results);
    session.load_inputs(&inputs).expect("inputs of the model's shape");
    session.run(&inputs, &mut outputs).expect("inputs of the model's shape");
    session.store_outputs(&mut outputs).expect("outputs of the model's shapes");
    drop(outputs);
    let bits = |tensor: &Tensor| tensor.as_f32().unwrap_or_default().iter().map(|x| x.to_bits()).collect();
    results.iter().map(bits).collect()
}

fn plan(graph: &Graph, options: &Options) -> Model {
    Model::new(graph.clone(), options).expect("a checked graph is planned")
}

/// The graph's bits in row-major order, on every instruction set, are those in blocks; gives the number of steps on
/// row-major maps.
fn check(graph: &Graph, inputs: &[Tensor], threads: &[usize], what: &str) -> usize {
    let want = run(plan(graph, &options(1, Io::Blocked)), Isa::Scalar, false, inputs);
    for table in sinew_kernels::isa::supported() {
        for &threads in threads {
            let got = run(plan(graph, &options(threads, Io::Plain)), table.isa, true, inputs);
            assert!(got == want, "{what}: {} with {threads} threads: {graph:#?}", table.isa);
        }
    }
    let model = plan(graph, &options(threads[0], Io::Plain));
    let mut file = Vec::new();
    model.compile(&mut file).expect("memory can be written");
    let read = Model::from_compiled(&file, &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{what}: {error}: {graph:#?}"));
    let found = steps(&model).iter().filter(|step| step.1 == "row-major").count();
    assert!(run(read, Isa::Scalar, false, inputs) == want, "{what}, compiled: {graph:#?}");
    found
}

/// What each step does, and how.
fn steps(model: &Model) -> Vec<(String, String)> {
    let steps = model.plan().steps.iter();
    steps.map(|step| (step.op.to_string(), step.algorithm.to_string())).collect()
}

#[test]
fn row_major_steps_give_the_bits_of_blocks() {
    let threads: &[usize] = if cfg!(feature = "parallel") { &[1, 3] } else { &[1] };
    let mut found = 0;
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let graph = random_edges(&mut choices);
        let shapes: Vec<Vec<usize>> = graph.inputs.iter().map(|&id| graph.shape(id).to_vec()).collect();
        let inputs: Vec<Tensor> = shapes.iter().map(|shape| tensor(&mut choices, shape)).collect();
        found += check(&graph, &inputs, threads, &format!("seed {seed}"));
    }
    assert!(found as u64 > cases(), "only {found} steps were on row-major maps");
}

/// A graph of two inputs as `build` continues it.
fn graph(shape: [usize; 4], build: impl Fn(&mut Graph, ValueId, ValueId) -> Option<ValueId>) -> Graph {
    let mut graph = Graph::default();
    let [x, r] = ["x", "r"].map(|name| graph.add_value(name, shape.to_vec(), DType::F32));
    graph.inputs = vec![x, r];
    let y = build(&mut graph, x, r).expect("it fits");
    graph.outputs.push(y);
    graph.remove_unused();
    graph
}

/// Large enough for several threads, with planes that no block divides.
const SHAPE: [usize; 4] = [2, 40, 89, 91];

fn unary(graph: &mut Graph, x: ValueId, function: Activation) -> Option<ValueId> {
    add(graph, Op::Unary(function), vec![x])
}

/// Graphs that need no layout change.
fn without_blocks() -> Vec<(&'static str, Graph)> {
    vec![
        ("max pool 3x3 / 2", graph(SHAPE, |graph, x, _| add(graph, max_pool(3, 2, 1), vec![x]))),
        ("max pool 2x2", graph(SHAPE, |graph, x, _| add(graph, max_pool(2, 1, 0), vec![x]))),
        (
            "depthwise 5x5 / 2, 3x3",
            graph(SHAPE, |graph, x, _| {
                let y = depthwise(graph, &mut Seed(4), x, 5, 2, Activation::HardSwish)?;
                depthwise(graph, &mut Seed(5), y, 3, 1, Activation::Relu)
            }),
        ),
        ("gate, residual and ReLU", graph(SHAPE, |graph, x, r| scaled(graph, x, Some(r), Activation::Relu))),
        ("gate and sigmoid", graph(SHAPE, |graph, x, _| scaled(graph, x, None, Activation::Sigmoid))),
        (
            "sum, function and pool",
            graph(SHAPE, |graph, x, r| {
                let sum = add(graph, Op::Binary(BinaryOp::Add), vec![x, r])?;
                let y = unary(graph, sum, Activation::Tanh)?;
                add(graph, max_pool(3, 1, 1), vec![y])
            }),
        ),
        (
            "per channel",
            graph(SHAPE, |graph, x, r| {
                let y = batch_norm(graph, &mut Seed(1), x)?;
                let numbers = constant(graph, &mut Seed(2), &[40, 1, 1]);
                let z = add(graph, Op::Binary(BinaryOp::Max), vec![numbers, y])?;
                add(graph, Op::Binary(BinaryOp::Mul), vec![r, z])
            }),
        ),
    ]
}

#[test]
fn edges_without_blocks_have_no_layout_change() {
    let threads: &[usize] = if cfg!(feature = "parallel") { &[1, 2, 3, 5] } else { &[1] };
    for (what, graph) in without_blocks() {
        let model = plan(&graph, &options(1, Io::Plain));
        for (op, algorithm) in steps(&model) {
            assert!(!["pack", "unpack", "copy"].contains(&op.as_str()), "{what}: {:?}", steps(&model));
            assert!(algorithm == "row-major" || op == "activation", "{what}: {:?}", steps(&model));
        }
        let mut choices = Seed(9);
        let inputs: Vec<Tensor> = graph.inputs.iter().map(|_| tensor(&mut choices, &SHAPE)).collect();
        check(&graph, &inputs, threads, what);
    }
}

#[test]
fn what_is_packed_is_the_smaller_side_of_a_pool() {
    let graph = graph([1, 24, 40, 40], |graph, x, _| {
        let pooled = add(graph, max_pool(2, 2, 0), vec![x])?;
        convolution(graph, &mut Seed(3), pooled)
    });
    let model = plan(&graph, &options(1, Io::Plain));
    let ops: Vec<String> = steps(&model).into_iter().map(|(op, _)| op).collect();
    assert_eq!(ops, ["max-pool", "pack", "Conv", "unpack"]);
}

/// A map that a convolution needs in blocks anyway is pooled there.
#[test]
fn a_map_in_blocks_stays_there() {
    let graph = graph([1, 24, 40, 40], |graph, x, _| {
        let y = convolution(graph, &mut Seed(3), x)?;
        let pooled = add(graph, max_pool(3, 1, 1), vec![x])?;
        let z = convolution(graph, &mut Seed(3), pooled)?;
        add(graph, Op::Binary(BinaryOp::Add), vec![y, z])
    });
    let model = plan(&graph, &options(1, Io::Plain));
    let found = steps(&model);
    assert!(found.iter().all(|(_, algorithm)| algorithm != "row-major"), "{found:?}");
    assert_eq!(found.iter().filter(|(op, _)| op == "pack").count(), 1, "{found:?}");
}

/// The fragments of a map for dilated layers are copied from blocks: one step packs the map.
#[test]
fn a_map_that_is_taken_apart_is_packed_once() {
    let graph = graph([2, 24, 37, 40], |graph, x, _| {
        let (weights, bias) =
            (constant(graph, &mut Seed(5), &[32, 24, 3, 3]), constant(graph, &mut Seed(6), &[32]));
        add(graph, window([3, 2]), vec![x, weights, bias])
    });
    let model = plan(&graph, &options(1, Io::Plain));
    let found = steps(&model);
    let count = |name: &str| found.iter().filter(|(op, _)| op == name).count();
    assert_eq!((count("pack"), count("unpack"), count("copy")), (1, 1, 12), "{found:?}");
    let inputs: Vec<Tensor> = graph.inputs.iter().map(|&id| tensor(&mut Seed(7), graph.shape(id))).collect();
    check(&graph, &inputs, &[1], "fragments");
}
