//! Streams of ResNet in ResNet stacked into one convolution: within the derived bound of the definition in f64, whatever
//! the form of the shortcut, and never where the identity does not hold.

#[path = "support/numbers.rs"]
#[allow(dead_code, reason = "other tests want numbers without a scale")]
mod numbers;
#[path = "support/reference.rs"]
mod reference;

use std::sync::Arc;

use numbers::Numbers;
use reference::Exact;
use sinew::graph::{BinaryOp, Conv, Graph, Op, Pads, Pool, PoolKind, ValueId};
use sinew::optimize::stack_streams;
use sinew::plan::{Family, PlanOptions, Shortcut, Winograd};
use sinew::{DType, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// What is added to the sum of the first stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Skip {
    None,
    Identity,
    /// 1x1, of the same stride.
    Projection,
    /// 1x1 with a normalization of its own.
    NormalizedProjection,
    /// Every other pixel, with channels of zeros.
    Subsample,
    /// The mean of 2x2 pixels, with channels of zeros.
    Average,
    /// The largest of 2x2 pixels, which is no convolution.
    Largest,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    inputs: usize,
    outputs: usize,
    stride: usize,
    size: [usize; 2],
    skip: Skip,
    /// Pads of the 3x3 convolutions.
    pad: usize,
    /// Pairs of streams (to, from) whose weights are zero: `rt` is from t to r.
    zeros: &'static [&'static str],
    layers: usize,
    bias: bool,
    outer: bool,
    /// Factors of the normalizations near one, and weights that keep the size of what passes through.
    tame: bool,
}

const PLAIN: Case = Case {
    inputs: 16,
    outputs: 16,
    stride: 1,
    size: [9, 10],
    skip: Skip::Identity,
    pad: 1,
    zeros: &[],
    layers: 1,
    bias: false,
    outer: false,
    tame: false,
};

struct Net {
    tame: bool,
    graph: Graph,
    numbers: Numbers,
}

impl Net {
    fn add(&mut self, op: Op, inputs: Vec<ValueId>) -> ValueId {
        let name = format!("n{}", self.graph.nodes.len());
        self.graph.add_node(name, op, inputs).expect("it fits")
    }

    fn constant(&mut self, shape: &[usize], scale: f32) -> ValueId {
        let tensor = self.numbers.scaled(shape, scale);
        self.graph.add_constant(format!("c{}", self.graph.values.len()), tensor)
    }

    fn conv(
        &mut self,
        x: ValueId,
        outputs: usize,
        kernel: usize,
        stride: usize,
        pad: usize,
        scale: f32,
    ) -> ValueId {
        let channels = self.graph.shape(x)[1];
        let weights = self.constant(&[outputs, channels, kernel, kernel], scale);
        let bias = self.constant(&[outputs], scale);
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
            groups: 1,
            before: Activation::Identity,
            residual: false,
            after: Activation::Identity,
        };
        self.add(Op::Conv(conv), vec![x, weights, bias])
    }

    fn sum(&mut self, a: ValueId, b: ValueId) -> ValueId {
        self.add(Op::Binary(BinaryOp::Add), vec![a, b])
    }

    /// Scales of both signs, a zero and a tiny one; a variance that is nearly zero.
    fn norm(&mut self, x: ValueId) -> ValueId {
        let channels = self.graph.shape(x)[1];
        let mut gamma: Vec<f32> = (0..channels).map(|_| self.numbers.next() * 1.5).collect();
        if self.tame {
            gamma.iter_mut().for_each(|gamma| *gamma = 0.9 + gamma.abs() / 10.0);
        } else {
            (gamma[0], gamma[1]) = (0.0, 1e-30);
        }
        let gamma = Tensor::f32([channels], gamma).expect("it fits");
        let gamma = self.graph.add_constant("gamma", gamma);
        let (beta, mean) = (self.constant(&[channels], 0.5), self.constant(&[channels], 0.5));
        let mut variance: Vec<f32> = (0..channels).map(|_| 0.5 + self.numbers.next().abs()).collect();
        variance[2] = if self.tame { 1.0 } else { 1e-6 };
        let variance = Tensor::f32([channels], variance).expect("it fits");
        let variance = self.graph.add_constant("variance", variance);
        self.add(Op::BatchNorm { epsilon: 1e-3 }, vec![x, gamma, beta, mean, variance])
    }

    fn skip(&mut self, case: &Case, r: ValueId) -> Option<ValueId> {
        let pool = |kind, extent| Pool {
            kind,
            kernel: [extent; 2],
            stride: [case.stride; 2],
            dilation: [1, 1],
            pads: Pads::default(),
            ceil_mode: extent == 2,
            count_include_pad: false,
        };
        let smaller = match case.skip {
            Skip::None => return None,
            Skip::Identity => return Some(r),
            Skip::Projection => return Some(self.conv(r, case.outputs, 1, case.stride, 0, 0.4)),
            Skip::NormalizedProjection => {
                let y = self.conv(r, case.outputs, 1, case.stride, 0, 0.4);
                return Some(self.norm(y));
            }
            Skip::Subsample => {
                let shape = self.graph.shape(r).to_vec();
                let step = vec![1, 1, case.stride, case.stride];
                let size = shape.iter().zip(&step).map(|(extent, step)| extent.div_ceil(*step)).collect();
                self.add(Op::Slice { start: vec![0; 4], step, size }, vec![r])
            }
            Skip::Average => self.add(Op::Pool(pool(PoolKind::Average, 2)), vec![r]),
            Skip::Largest => self.add(Op::Pool(pool(PoolKind::Max, 2)), vec![r]),
        };
        if case.inputs == case.outputs {
            return Some(smaller);
        }
        let amounts = vec![[0, 0], [0, case.outputs - case.inputs], [0, 0], [0, 0]];
        Some(self.add(Op::Pad { amounts, value: 0.0 }, vec![smaller]))
    }

    fn layer(&mut self, case: &Case, [r, t]: [ValueId; 2]) -> [ValueId; 2] {
        let mut sums = Vec::new();
        for to in ["r", "t"] {
            let mut terms = [("r", r), ("t", t)].map(|(from, x)| {
                let scale = if case.zeros.contains(&&*format!("{to}{from}")) {
                    0.0
                } else if case.tame {
                    0.05
                } else {
                    0.15
                };
                self.conv(x, case.outputs, 3, case.stride, case.pad, scale)
            });
            if !case.bias {
                // The other way round: the order of the terms is an exporter's.
                terms.reverse();
            }
            let mut sum = self.sum(terms[0], terms[1]);
            if to == "r"
                && let Some(skip) = self.skip(case, r)
            {
                sum = if case.bias { self.sum(skip, sum) } else { self.sum(sum, skip) };
            }
            sums.push(sum);
        }
        let streams = [self.norm(sums[0]), self.norm(sums[1])];
        streams.map(|stream| self.add(Op::Unary(Activation::Relu), vec![stream]))
    }
}

fn network(case: &Case, seed: u64) -> Graph {
    let mut net = Net { tame: case.tame, graph: Graph::default(), numbers: Numbers(seed) };
    let [height, width] = case.size;
    let x = net.graph.add_value("x", vec![2, 7, height, width], DType::F32);
    net.graph.inputs.push(x);
    let mut streams = [0, 1].map(|_| {
        let y = net.conv(x, case.inputs, 3, 1, 1, 0.3);
        let y = net.norm(y);
        net.add(Op::Unary(Activation::Relu), vec![y])
    });
    for _ in 0..case.layers {
        let before = streams;
        streams = net.layer(case, streams);
        if case.outer {
            streams = [net.sum(streams[0], before[0]), net.sum(before[1], streams[1])];
        }
    }
    let both = net.add(Op::Concat { axis: 1 }, streams.to_vec());
    let y = net.conv(both, 5, 1, 1, 0, 0.3);
    let y = net.norm(y);
    let y = net.add(Op::GlobalPool(PoolKind::Average), vec![y]);
    net.graph.outputs = vec![both, y];
    net.graph
}

fn options(conv: Option<Family>, shortcut: Shortcut) -> Options {
    let winograd = if conv == Some(Family::Direct) { Winograd::Off } else { Winograd::Tile(4) };
    Options { plan: PlanOptions { conv, winograd, shortcut, ..PlanOptions::default() }, ..Options::default() }
}

fn steps(model: &Model) -> Vec<&str> {
    model.plan().steps.iter().map(|step| &*step.op).collect()
}

fn run(graph: &Graph, options: &Options, isa: Isa, poison: bool, input: &Tensor) -> Vec<Tensor> {
    let model = Arc::new(Model::new(graph.clone(), options).expect("a checked graph is planned"));
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported instruction set");
    session.set_poison(poison);
    session.run_tensors(std::slice::from_ref(input)).expect("an input of the model's shape")
}

fn bits(tensors: &[Tensor]) -> Vec<u32> {
    tensors.iter().flat_map(|tensor| tensor.as_f32().expect("f32").iter().map(|x| x.to_bits())).collect()
}

fn input(graph: &Graph) -> Tensor {
    Numbers(77).scaled(graph.shape(graph.inputs[0]), 1.0)
}

fn exact(graph: &Graph, input: &Tensor) -> Vec<Exact> {
    let data = input.as_f32().expect("f32").iter().map(|&x| f64::from(x)).collect();
    reference::evaluate(graph, &[Exact::new(input.shape().to_vec(), data)])
}

/// The largest error in units of the interpreter's bound, of which a result may have two.
fn worst(got: &[Tensor], want: &[Exact]) -> f64 {
    let mut worst = 0f64;
    for (got, want) in got.iter().zip(want) {
        for (got, (want, error)) in got.as_f32().expect("f32").iter().zip(want.values.iter().zip(&want.error))
        {
            let error = error * f64::from(f32::EPSILON) + 1e-35;
            worst = worst.max((f64::from(*got) - want).abs() / error);
        }
    }
    worst
}

fn convolutions(graph: &Graph) -> usize {
    let model = Model::new(graph.clone(), &Options::default()).expect("a checked graph is planned");
    steps(&model).iter().filter(|step| **step == "Conv").count()
}

/// Every legal shortcut, odd and even sizes, ragged and whole blocks.
fn legal() -> Vec<Case> {
    let wide = Case { outputs: 32, stride: 2, ..PLAIN };
    let mut cases = vec![
        PLAIN,
        Case { inputs: 8, outputs: 8, ..PLAIN },
        Case { inputs: 5, outputs: 5, bias: true, ..PLAIN },
        Case { inputs: 24, outputs: 24, layers: 2, ..PLAIN },
        Case { layers: 3, outer: true, ..PLAIN },
        Case { skip: Skip::None, ..PLAIN },
        Case { skip: Skip::Projection, outputs: 11, ..PLAIN },
        Case { skip: Skip::Average, size: [10, 8], ..wide },
        Case { skip: Skip::Average, size: [10, 8], stride: 2, ..PLAIN },
    ];
    for size in [[9, 9], [10, 10], [9, 10], [5, 8]] {
        for skip in [Skip::Projection, Skip::NormalizedProjection, Skip::Subsample] {
            cases.push(Case { skip, size, ..wide });
            cases.push(Case { skip, size, inputs: 6, outputs: 9, bias: true, ..wide });
        }
    }
    cases
}

#[test]
fn stacked_streams_are_the_definition() {
    let isas: Vec<Isa> = sinew_kernels::isa::supported().iter().map(|table| table.isa).collect();
    for (seed, case) in legal().into_iter().enumerate() {
        let graph = network(&case, seed as u64);
        let input = input(&graph);
        let want = exact(&graph, &input);
        // One convolution of both streams per layer, one for the start, one for the head.
        assert_eq!(convolutions(&graph), case.layers + 2, "{case:?}");
        let direct = Some(Family::Direct);
        for (conv, shortcut) in [
            (direct, Shortcut::Auto),
            (direct, Shortcut::Add),
            (Some(Family::Im2col), Shortcut::Add),
            (Some(Family::Winograd), Shortcut::Auto),
            (Some(Family::Winograd), Shortcut::Fold),
        ] {
            let options = options(conv, shortcut);
            let scalar = run(&graph, &options, Isa::Scalar, false, &input);
            if conv != Some(Family::Winograd) {
                let worst = worst(&scalar, &want);
                assert!(worst <= 2.0, "{case:?} {conv:?} {shortcut:?}: {worst} bounds");
            }
            for &isa in &isas {
                for (threads, poison) in [(1, true), (2, false), (3, false)] {
                    let plan = PlanOptions { threads, ..options.plan.clone() };
                    let got = run(&graph, &Options { plan, ..options.clone() }, isa, poison, &input);
                    assert!(bits(&got) == bits(&scalar), "{case:?} {conv:?} {isa} {threads} threads");
                }
            }
        }
    }
}

#[test]
fn what_is_no_convolution_of_the_inputs_stays() {
    let strided = Case { stride: 2, ..PLAIN };
    for (case, why) in [
        (Case { skip: Skip::Largest, size: [10, 10], ..strided }, "a maximum"),
        (Case { skip: Skip::Average, size: [9, 10], ..strided }, "a mean of an odd size"),
    ] {
        let graph = network(&case, 3);
        let input = input(&graph);
        assert!(convolutions(&graph) > 3, "{why} was stacked");
        let worst = worst(
            &run(&graph, &options(Some(Family::Direct), Shortcut::Auto), Isa::Scalar, false, &input),
            &exact(&graph, &input),
        );
        assert!(worst <= 2.0, "{why}: {worst} bounds");
        let found = stack_streams::found(&graph);
        assert!(found.iter().any(|found| found.missed.is_some()), "{why}: {found:?}");
    }
}

/// The same network with a fault: what a wrong fold would compute.
#[test]
fn wrong_folds_are_seen() {
    let case = Case { layers: 1, ..PLAIN };
    let graph = network(&case, 5);
    let input = input(&graph);
    let want = exact(&graph, &input);
    let got = run(&graph, &options(Some(Family::Direct), Shortcut::Auto), Isa::Scalar, false, &input);
    assert!(worst(&got, &want) <= 2.0);
    let sums: Vec<usize> =
        (0..graph.nodes.len()).filter(|&node| graph.nodes[node].op == Op::Binary(BinaryOp::Add)).collect();
    // The first stream's shortcut is added behind its normalization, as if it were not scaled.
    let mut outside = graph.clone();
    let shortcut = sums[1];
    let [sum, r] = outside.nodes[shortcut].inputs[..] else { panic!("a sum has two operands") };
    let norm =
        outside.nodes.iter().position(|node| node.inputs.first() == Some(&outside.nodes[shortcut].output));
    let norm = norm.expect("a normalization follows");
    outside.nodes[norm].inputs[0] = sum;
    let scaled = outside.nodes[norm].output;
    let relu = outside.nodes.iter().position(|node| node.inputs[..] == [scaled]).expect("a ReLU follows");
    let added =
        outside.insert_node(relu, "outside", Op::Binary(BinaryOp::Add), vec![scaled, r]).expect("it fits");
    outside.nodes[relu + 1].inputs[0] = added;
    let wrong = exact(&outside, &input);
    assert!(worst(&got, &wrong) > 1e3, "a shortcut behind the normalization is another network");
    // The shortcut of the other stream.
    let mut other = graph.clone();
    let t = other.nodes[sums[0] - 1].inputs[0];
    let r_conv = other.nodes[sums[0] - 2].inputs[0];
    other.nodes[shortcut].inputs[1] = if r == t { r_conv } else { t };
    assert!(worst(&got, &exact(&other, &input)) > 1e3, "a shortcut of t is another network");
}

#[test]
fn zero_blocks_leave_smaller_convolutions() {
    for (zeros, expected) in [
        (&["rt", "tr"][..], 2 * 16 * 16), // both streams alone
        (&["rt"], 3 * 16 * 16),           // r alone, t of both
        (&["rr", "tr"], 2 * 16 * 16),     // both of t, but for the shortcut of r
    ] {
        let case =
            Case { skip: if zeros.contains(&"rr") { Skip::None } else { Skip::Identity }, zeros, ..PLAIN };
        let graph = network(&case, 11);
        let input = input(&graph);
        let want = exact(&graph, &input);
        let options = options(Some(Family::Direct), Shortcut::Auto);
        let worst = worst(&run(&graph, &options, Isa::Scalar, false, &input), &want);
        assert!(worst <= 2.0, "{zeros:?}: {worst} bounds");
        let model = Model::new(graph.clone(), &options).expect("a checked graph is planned");
        let per_pixel: u64 = model
            .plan()
            .steps
            .iter()
            .map(|step| step.macs / (2 * 9 * 10 * 9))
            .filter(|&macs| macs % 256 == 0)
            .sum();
        assert_eq!(per_pixel, expected, "{zeros:?}");
    }
}

/// The step that takes the mean of planes: the one that makes them.
fn mean_of(model: &Model) -> usize {
    let takes = |why: &str| why.contains("with the means of its planes");
    model.plan().steps.iter().position(|step| takes(&step.why)).expect("there is a mean")
}

#[test]
fn the_head_averages_first() {
    let graph = network(&PLAIN, 13);
    let model = Model::new(graph, &Options::default()).expect("a checked graph is planned");
    let ops = steps(&model);
    assert_eq!(ops[mean_of(&model) + 1], "Conv", "{ops:?}");
}

#[test]
fn a_head_with_an_activation_averages_last() {
    let mut graph = network(&Case { tame: true, ..PLAIN }, 13);
    let last = graph.nodes.len() - 1;
    let mean = graph.nodes[last].inputs[0];
    let relu = graph.insert_node(last, "relu", Op::Unary(Activation::Relu), vec![mean]).expect("it fits");
    graph.nodes[last + 1].inputs[0] = relu;
    let input = input(&graph);
    let options = options(Some(Family::Direct), Shortcut::Auto);
    let model = Model::new(graph.clone(), &options).expect("a checked graph is planned");
    let ops = steps(&model);
    assert!(!ops[mean_of(&model) + 1..].contains(&"Conv"), "{ops:?}");
    let got = run(&graph, &options, Isa::Scalar, false, &input);
    assert!(worst(&got, &exact(&graph, &input)) <= 2.0);
    // The mean first would be another network.
    let mut wrong = graph.clone();
    let mean = wrong.nodes.last().expect("a mean").inputs[0];
    let before = wrong.nodes[last].inputs[0];
    wrong.nodes.swap(last, last + 1);
    let (pooled, clipped) = (wrong.nodes[last].output, wrong.nodes[last + 1].output);
    assert_eq!(clipped, mean);
    wrong.nodes[last].inputs[0] = before;
    wrong.nodes[last + 1].inputs[0] = pooled;
    wrong.values[clipped.0].shape = wrong.shape(pooled).to_vec();
    wrong.outputs[1] = clipped;
    let worst = worst(&got[1..], &exact(&wrong, &input)[1..]);
    assert!(worst > 10.0, "{worst} bounds: the mean first is another network");
}

/// Errors of the shortcut under Winograd, in the centre tap and added to the sums: the reason for the default.
#[test]
fn under_winograd_an_added_shortcut_is_closer() {
    let mut folded_is_worse = 0;
    for seed in 0..5 {
        let case = Case { inputs: 24, outputs: 24, layers: 4, size: [12, 12], tame: true, ..PLAIN };
        let graph = network(&case, seed);
        let input = input(&graph);
        let want = exact(&graph, &input);
        let rms = |shortcut| {
            let got = run(&graph, &options(Some(Family::Winograd), shortcut), Isa::Scalar, false, &input);
            let squares = got[0].as_f32().expect("f32").iter().zip(&want[0].values);
            let sum: f64 = squares.map(|(got, want)| (f64::from(*got) - want).powi(2)).sum();
            (sum / want[0].values.len() as f64).sqrt()
        };
        let (fold, add, auto) = (rms(Shortcut::Fold), rms(Shortcut::Add), rms(Shortcut::Auto));
        println!("seed {seed}: folded {fold:.3e}, added {add:.3e}");
        assert_eq!(add, auto, "it is added under Winograd");
        folded_is_worse += usize::from(fold > add);
    }
    assert_eq!(folded_is_worse, 5, "seeds for which the folded shortcut is further from the definition");
}
