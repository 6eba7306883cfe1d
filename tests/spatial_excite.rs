//! Gates of pixels (sSE) and of pixels and channels (scSE): found, one pass over the map, the bits of the nodes as they
//! were written, and within the bound of the definition in f64. What is none of them is left alone.

#[path = "support/random_graph.rs"]
#[allow(dead_code, reason = "its graphs serve other tests")]
mod random_graph;
#[path = "support/reference.rs"]
mod reference;

use std::sync::Arc;

use random_graph::{Choices, Seed};
use reference::Exact;
use sinew::graph::{BinaryOp, Conv, Graph, Op, Pads, PoolKind, ValueId};
use sinew::optimize::{Found, fuse_spatial_excite};
use sinew::plan::PlanOptions;
use sinew::{DType, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// How the two scaled maps become one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Both {
    Add,
    Max,
    /// Only pixels are scaled.
    No,
}

#[derive(Clone, Copy, Debug)]
struct Form {
    shape: [usize; 4],
    hidden: usize,
    gate: Activation,
    both: Both,
    /// The map is a convolution's, in place of the graph's input.
    trunk: bool,
    /// Operands of products and sums the other way round.
    swapped: bool,
}

const PLAIN: Form = Form {
    shape: [2, 20, 7, 9],
    hidden: 6,
    gate: Activation::Sigmoid,
    both: Both::Add,
    trunk: true,
    swapped: false,
};

impl Form {
    fn random(choices: &mut impl Choices) -> Self {
        let channels = [2, 15, 16, 17, 32, 40][choices.pick(6)];
        Self {
            shape: [1 + choices.pick(2), channels, 1 + choices.pick(12), 2 + choices.pick(11)],
            hidden: [1, 6, 17][choices.pick(3)],
            gate: [Activation::Sigmoid, Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }]
                [choices.pick(2)],
            both: [Both::Add, Both::Max, Both::No][choices.pick(3)],
            trunk: choices.pick(2) == 0,
            swapped: choices.pick(2) == 0,
        }
    }
}

/// A graph that grows, with numbers for its weights.
struct Net {
    graph: Graph,
    numbers: Seed,
}

impl Net {
    fn new(shape: [usize; 4], numbers: Seed) -> (Self, ValueId) {
        let mut graph = Graph::default();
        let x = graph.add_value("x", shape.to_vec(), DType::F32);
        graph.inputs.push(x);
        (Self { graph, numbers }, x)
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let numbers = (0..shape.iter().product()).map(|_| self.numbers.number()).collect();
        Tensor::f32(shape, numbers).expect("as many numbers as the shape holds")
    }

    fn node(&mut self, name: &str, op: Op, inputs: Vec<ValueId>) -> ValueId {
        self.graph.add_node(name, op, inputs).expect("it fits")
    }

    fn conv(&mut self, name: &str, x: ValueId, outputs: usize, kernel: usize) -> ValueId {
        let channels = self.graph.shape(x)[1];
        let weights = self.tensor(&[outputs, channels, kernel, kernel]);
        let weights = self.graph.add_constant(format!("{name}/w"), weights);
        let bias = self.tensor(&[outputs]);
        let bias = self.graph.add_constant(format!("{name}/b"), bias);
        let pad = kernel / 2;
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [1, 1],
            dilation: [1, 1],
            pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
            groups: 1,
            before: Activation::Identity,
            residual: false,
            after: Activation::Identity,
        };
        self.node(name, Op::Conv(conv), vec![x, weights, bias])
    }

    fn binary(&mut self, name: &str, op: BinaryOp, mut operands: [ValueId; 2], swapped: bool) -> ValueId {
        if swapped {
            operands.reverse();
        }
        self.node(name, Op::Binary(op), operands.to_vec())
    }

    fn channel_gate(&mut self, form: &Form, u: ValueId) -> ValueId {
        let z = self.node("z", Op::GlobalPool(PoolKind::Average), vec![u]);
        let hidden = self.conv("w1", z, form.hidden, 1);
        let hidden = self.node("relu", Op::Unary(Activation::Relu), vec![hidden]);
        let sums = self.conv("w2", hidden, form.shape[1], 1);
        self.node("s", Op::Unary(form.gate), vec![sums])
    }

    fn pixel_gate(&mut self, form: &Form, u: ValueId) -> ValueId {
        let sums = self.conv("w", u, 1, 1);
        self.node("q", Op::Unary(form.gate), vec![sums])
    }

    fn finish(mut self, y: ValueId) -> Graph {
        self.graph.outputs.push(y);
        self.graph
    }
}

fn graph(form: &Form, seed: u64) -> Graph {
    let (mut net, x) = Net::new(form.shape, Seed(seed));
    let u = if form.trunk { net.conv("trunk", x, form.shape[1], 3) } else { x };
    let q = net.pixel_gate(form, u);
    let by_pixel = net.binary("by_pixel", BinaryOp::Mul, [u, q], form.swapped);
    let y = match form.both {
        Both::No => by_pixel,
        both => {
            let s = net.channel_gate(form, u);
            let by_channel = net.binary("by_channel", BinaryOp::Mul, [u, s], form.swapped);
            let op = if both == Both::Add { BinaryOp::Add } else { BinaryOp::Max };
            net.binary("both", op, [by_channel, by_pixel], form.swapped)
        }
    };
    net.finish(y)
}

fn isas() -> Vec<Isa> {
    sinew_kernels::isa::supported().iter().map(|table| table.isa).collect()
}

fn input(graph: &Graph, seed: u64) -> Tensor {
    let mut seed = Seed(seed);
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let numbers = (0..shape.iter().product()).map(|_| seed.number()).collect();
    Tensor::f32(shape, numbers).expect("as many numbers as the shape holds")
}

fn run(
    graph: &Graph,
    off: &[&str],
    threads: usize,
    isa: Isa,
    poison: bool,
    input: &Tensor,
) -> (Vec<f32>, Vec<String>) {
    let disabled_passes = off.iter().map(|&name| name.to_owned()).collect();
    let options = Options { plan: PlanOptions { threads, ..PlanOptions::default() }, disabled_passes };
    let model = Arc::new(Model::new(graph.clone(), &options).expect("a checked graph is planned"));
    let steps = model.plan().steps.iter().map(|step| step.op.to_string()).collect();
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported set");
    session.set_poison(poison);
    let outputs = session.run_tensors(std::slice::from_ref(input)).expect("an input of the model's shape");
    (outputs[0].as_f32().expect("outputs are f32").to_vec(), steps)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn names(found: &[Found]) -> Vec<(&str, Option<&str>)> {
    found.iter().map(|found| (found.what, found.missed.as_deref())).collect()
}

const APART: [&str; 2] = ["fuse_spatial_excite", "fuse_squeeze_excite"];

#[test]
fn every_form_is_found_and_keeps_its_bits_everywhere() {
    let mut tried = [0; 3];
    for seed in 0..120 {
        let form = Form::random(&mut Seed(seed));
        let graph = graph(&form, seed);
        let input = input(&graph, seed + 1000);
        tried[form.both as usize] += 1;
        let found = fuse_spatial_excite::found(&graph);
        let (expected, step) = match form.both {
            Both::No => (vec![("spatial_excite", None)], "multiply"),
            _ => (vec![("spatial_excite", None), ("concurrent_excite", None)], "scale-both"),
        };
        assert_eq!(names(&found), expected, "seed {seed}: {form:?}");
        let (want, _) = run(&graph, &APART, 1, Isa::Scalar, false, &input);
        for isa in isas() {
            for (threads, poison) in [(1, false), (1, true), (2, false)] {
                let (got, steps) = run(&graph, &[], threads, isa, poison, &input);
                assert_eq!(bits(&got), bits(&want), "seed {seed}, {isa}, {threads} threads: {form:?}");
                let passes = ["multiply", "add", "maximum", "scale", "scale-both"];
                let passes: Vec<&String> =
                    steps.iter().filter(|step| passes.contains(&step.as_str())).collect();
                assert_eq!(passes, [step], "seed {seed}: {form:?}");
            }
        }
        let data = input.as_f32().expect("inputs are f32").iter().map(|&x| f64::from(x)).collect();
        let exact = reference::evaluate(&graph, &[Exact::new(input.shape().to_vec(), data)]).remove(0);
        for ((got, want), error) in want.iter().zip(&exact.values).zip(&exact.error) {
            let bound = 2.0 * error * f64::from(f32::EPSILON) + 1e-35;
            assert!((f64::from(*got) - want).abs() <= bound, "seed {seed}: {got} is not {want}, {form:?}");
        }
    }
    assert!(tried.iter().all(|&tried| tried > 10), "{tried:?}");
}

/// Large enough to be cut into parts, by blocks and by rows.
#[test]
fn large_maps_give_the_same_bits_on_any_number_of_threads() {
    for (both, channels) in [(Both::Add, 70), (Both::Max, 70), (Both::Max, 20)] {
        let form = Form { shape: [1, channels, 83, 95], both, trunk: false, ..PLAIN };
        let graph = graph(&form, 3);
        let input = input(&graph, 4);
        let (want, _) = run(&graph, &APART, 1, Isa::Scalar, false, &input);
        for threads in [1, 2, 3, 5] {
            let (got, _) = run(&graph, &[], threads, isas()[0], true, &input);
            assert_eq!(bits(&got), bits(&want), "{threads} threads: {form:?}");
        }
    }
}

/// The file's graph and the fused one mean the same: what is written apart again gives the same bits.
#[test]
fn fused_forms_are_written_apart() {
    for both in [Both::Add, Both::Max] {
        let graph = graph(&Form { both, ..PLAIN }, 5);
        let input = input(&graph, 6);
        let mut fused = graph.clone();
        let off: Vec<String> = sinew::optimize::PASSES
            .iter()
            .map(|pass| pass.name)
            .filter(|name| *name != APART[0])
            .map(str::to_owned)
            .collect();
        sinew::optimize::optimize(&mut fused, &off).expect("known passes");
        assert!(fused.nodes.iter().any(|node| node.op.name() == "Concurrent"));
        let apart = fused.without_excite().expect("a checked graph");
        apart.check().expect("it keeps the invariants");
        let (want, _) = run(&graph, &APART, 1, Isa::Scalar, false, &input);
        let (got, _) = run(&apart, &APART, 1, Isa::Scalar, false, &input);
        assert_eq!(bits(&got), bits(&want));
    }
}

/// Of a negative number the larger product is that with the smaller gate.
#[test]
fn the_larger_gate_is_another_network() {
    let form = Form { both: Both::Max, trunk: false, ..PLAIN };
    let right = graph(&form, 7);
    let input = input(&right, 8);
    let (mut net, x) = Net::new(form.shape, Seed(7));
    let q = net.pixel_gate(&form, x);
    let s = net.channel_gate(&form, x);
    let larger = net.binary("larger", BinaryOp::Max, [s, q], false);
    let y = net.binary("y", BinaryOp::Mul, [x, larger], false);
    let (right, _) = run(&right, &[], 1, isas()[0], false, &input);
    let (wrong, _) = run(&net.finish(y), &[], 1, isas()[0], false, &input);
    let x = input.as_f32().expect("inputs are f32");
    let same = |i: &usize| (right[*i] - wrong[*i]).abs() <= 1e-6;
    assert!((0..x.len()).filter(|&i| x[i] >= 0.0).all(|i| same(&i)), "of positive numbers it is the same");
    assert!((0..x.len()).filter(|&i| x[i] < 0.0).any(|i| !same(&i)), "the wrong form is seen");
}

#[test]
fn misses_say_why() {
    let miss = |build: &dyn Fn(&mut Net, ValueId) -> ValueId| {
        let (mut net, x) = Net::new(PLAIN.shape, Seed(1));
        let y = build(&mut net, x);
        let found = fuse_spatial_excite::found(&net.finish(y));
        let last = found.last().expect("something like a block").clone();
        (last.what, last.missed.unwrap_or_default())
    };
    let scaled = |net: &mut Net, x, q| net.binary("y", BinaryOp::Mul, [x, q], false);
    let sigmoid = |net: &mut Net, sums| net.node("q", Op::Unary(Activation::Sigmoid), vec![sums]);
    let window = miss(&|net, x| {
        let sums = net.conv("w", x, 1, 3);
        let q = sigmoid(net, sums);
        scaled(net, x, q)
    });
    assert_eq!(window, ("spatial_excite", "\"w\" is no 1x1 convolution of every pixel".to_owned()));
    let other = miss(&|net, x| {
        let u = net.conv("u", x, 20, 1);
        let q = net.pixel_gate(&PLAIN, x);
        scaled(net, u, q)
    });
    assert_eq!(other, ("spatial_excite", "\"w\" is of another map".to_owned()));
    let linear = miss(&|net, x| {
        let q = net.conv("w", x, 1, 1);
        scaled(net, x, q)
    });
    assert_eq!(linear, ("spatial_excite", "no sigmoid alone follows \"w\"".to_owned()));
    let two_maps = miss(&|net, x| {
        let u = net.conv("u", x, 20, 1);
        let (q, s) = (net.pixel_gate(&PLAIN, x), net.channel_gate(&PLAIN, u));
        let by_pixel = net.binary("by_pixel", BinaryOp::Mul, [x, q], false);
        let by_channel = net.binary("by_channel", BinaryOp::Mul, [u, s], false);
        net.binary("both", BinaryOp::Add, [by_pixel, by_channel], false)
    });
    assert_eq!(two_maps, ("concurrent_excite", "its products are of two maps".to_owned()));
    let read_twice = miss(&|net, x| {
        let (q, s) = (net.pixel_gate(&PLAIN, x), net.channel_gate(&PLAIN, x));
        let by_pixel = net.binary("by_pixel", BinaryOp::Mul, [x, q], false);
        let by_channel = net.binary("by_channel", BinaryOp::Mul, [x, s], false);
        net.graph.outputs.push(by_pixel);
        net.binary("both", BinaryOp::Max, [by_pixel, by_channel], false)
    });
    assert_eq!(read_twice, ("concurrent_excite", "\"by_pixel\" is read elsewhere too".to_owned()));
}
