//! MaxMin in a convolution's epilogue and in front of a pool: the same bits as its own step, on every instruction set.

#[path = "support/numbers.rs"]
mod numbers;

use std::sync::Arc;

use numbers::Numbers;
use sinew::graph::{Conv, Graph, MaxMinOrder, Op, Pads, Pool, PoolKind};
use sinew::plan::{Family, PlanOptions, Winograd};
use sinew::{DType, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// A convolution, MaxMin and perhaps a pool.
#[derive(Clone, Debug)]
struct Case {
    name: &'static str,
    channels: usize,
    outputs: usize,
    groups: usize,
    kernel: usize,
    stride: usize,
    size: [usize; 2],
    conv: Option<Family>,
    before: Activation,
    residual: bool,
}

const PLAIN: Case = Case {
    name: "direct",
    channels: 20,
    outputs: 24,
    groups: 1,
    kernel: 3,
    stride: 1,
    size: [11, 9],
    conv: Some(Family::Direct),
    before: Activation::Identity,
    residual: false,
};

/// Every algorithm, ragged and whole blocks of channels.
fn cases() -> Vec<Case> {
    let leaky = Activation::LeakyRelu { slope: 0.3 };
    vec![
        PLAIN,
        Case { name: "strided", stride: 2, size: [13, 8], ..PLAIN },
        Case { name: "pointwise", kernel: 1, outputs: 37, ..PLAIN },
        Case { name: "winograd", conv: Some(Family::Winograd), channels: 32, outputs: 40, ..PLAIN },
        Case { name: "gathered", conv: Some(Family::Im2col), outputs: 21, ..PLAIN },
        Case { name: "gathered with residual", conv: Some(Family::Im2col), residual: true, ..PLAIN },
        Case { name: "plain image", channels: 3, kernel: 5, ..PLAIN },
        Case { name: "grouped", groups: 4, ..PLAIN },
        Case { name: "groups of blocks", channels: 32, outputs: 64, groups: 2, ..PLAIN },
        Case { name: "depthwise", channels: 24, groups: 24, ..PLAIN },
        Case { name: "activation in front", before: leaky, ..PLAIN },
        Case { name: "residual", residual: true, ..PLAIN },
        Case { name: "many blocks", channels: 16, outputs: 1100, kernel: 1, size: [4, 3], ..PLAIN },
    ]
}

fn pool(kernel: usize, stride: usize, pad: usize, ceil_mode: bool, kind: PoolKind) -> Pool {
    Pool {
        kind,
        kernel: [kernel; 2],
        stride: [stride; 2],
        dilation: [1, 1],
        pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
        ceil_mode,
        count_include_pad: false,
    }
}

fn graph(case: &Case, order: MaxMinOrder, pool: Option<Pool>, numbers: &mut Numbers) -> Graph {
    let mut graph = Graph::default();
    let [height, width] = case.size;
    let x = graph.add_value("x", vec![2, case.channels, height, width], DType::F32);
    graph.inputs.push(x);
    let per_group = case.channels / case.groups;
    let weights = numbers.tensor(&[case.outputs, per_group, case.kernel, case.kernel]);
    let weights = graph.add_constant("weights", weights);
    let bias = graph.add_constant("bias", numbers.tensor(&[case.outputs]));
    let pad = case.kernel / 2;
    let conv = Conv {
        kernel: [case.kernel; 2],
        stride: [case.stride; 2],
        dilation: [1, 1],
        pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
        groups: case.groups,
        before: case.before,
        residual: false,
        after: Activation::Identity,
    };
    let mut y = graph.add_node("conv", Op::Conv(conv), vec![x, weights, bias]).expect("it fits");
    if case.residual {
        let shape = graph.shape(y).to_vec();
        let other = graph.add_constant("other", numbers.tensor(&shape));
        y = graph.add_node("sum", Op::Binary(sinew::graph::BinaryOp::Add), vec![y, other]).expect("it fits");
    }
    y = graph.add_node("maxmin", Op::MaxMin { order }, vec![y]).expect("it fits");
    if let Some(pool) = pool {
        y = graph.add_node("pool", Op::Pool(pool), vec![y]).expect("it fits");
    }
    graph.outputs.push(y);
    graph
}

fn options(conv: Option<Family>, threads: usize, fused: bool) -> Options {
    let off = ["pool_max_min", "fuse_max_min"].map(str::to_owned).to_vec();
    Options {
        plan: PlanOptions { conv, threads, winograd: Winograd::Auto, ..PlanOptions::default() },
        disabled_passes: if fused { vec![] } else { off },
    }
}

fn run(graph: &Graph, options: &Options, isa: Isa, poison: bool, input: &Tensor) -> (Vec<u32>, Vec<String>) {
    let model = Arc::new(Model::new(graph.clone(), options).expect("a checked graph is planned"));
    let steps = model.plan().steps.iter().map(|step| format!("{} {}", step.op, step.algorithm)).collect();
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported instruction set");
    session.set_poison(poison);
    session.run_tensors(std::slice::from_ref(input)).expect("an input of the model's shape");
    let out = session.run_tensors(std::slice::from_ref(input)).expect("an input of the model's shape");
    (out[0].as_f32().expect("outputs are f32").iter().map(|x| x.to_bits()).collect(), steps)
}

const ORDERS: [MaxMinOrder; 2] = [MaxMinOrder::PositiveFirst, MaxMinOrder::NegativeFirst];

fn pools() -> [Option<Pool>; 5] {
    let max = PoolKind::Max;
    [
        None,
        Some(pool(2, 2, 0, false, max)),
        Some(pool(3, 2, 0, true, max)),
        Some(pool(3, 2, 1, false, max)),
        Some(pool(2, 1, 1, false, max)),
    ]
}

#[test]
fn fused_and_apart_give_the_same_bits_everywhere() {
    let isas: Vec<Isa> = sinew_kernels::isa::supported().iter().map(|table| table.isa).collect();
    let mut numbers = Numbers(7);
    for (case, special) in cases().into_iter().flat_map(|case| [(case.clone(), false), (case, true)]) {
        for (order, pool) in ORDERS.into_iter().flat_map(|order| pools().map(|pool| (order, pool))) {
            let graph = graph(&case, order, pool.clone(), &mut numbers);
            let mut input = numbers.tensor(graph.shape(graph.inputs[0]));
            if special {
                input = with_special_numbers(&input, &mut numbers);
            }
            let (want, apart) = run(&graph, &options(case.conv, 1, false), Isa::Scalar, false, &input);
            assert!(apart.iter().any(|step| step.starts_with("maxmin")), "{apart:?}");
            for &isa in &isas {
                for (threads, poison) in [(1, false), (2, true), (3, false)] {
                    let (got, steps) = run(&graph, &options(case.conv, threads, true), isa, poison, &input);
                    assert!(
                        got == want,
                        "{}: {case:?} {order:?} {pool:?} {isa} {threads} threads",
                        case.name
                    );
                    let alone = if pool.is_some() { "maxmin-pool maxmin-pool" } else { "" };
                    let of_max_min: Vec<_> = steps.iter().filter(|step| step.starts_with("maxmin")).collect();
                    assert!(of_max_min.iter().all(|step| *step == alone), "{steps:?}");
                }
            }
        }
    }
}

/// Some NaN, infinities, zeros of both signs and denormal numbers.
fn with_special_numbers(input: &Tensor, numbers: &mut Numbers) -> Tensor {
    let special = [f32::NAN, -0.0, 0.0, 1e-40, f32::INFINITY, -1e-41];
    let mut values = input.as_f32().expect("inputs are f32").to_vec();
    for (i, value) in values.iter_mut().enumerate() {
        if numbers.next() > 0.9 {
            *value = special[i % special.len()];
        }
    }
    Tensor::f32(input.shape(), values).expect("the same shape")
}

/// MaxMin of `conv(x)` by definition, with the bias added behind it where `after` says so.
fn defined(graph: &Graph, case: &Case, input: &Tensor, bias_behind: bool) -> Vec<f32> {
    let mut without = graph.clone();
    without.nodes.truncate(1);
    without.outputs = vec![without.nodes[0].output];
    let bias = graph.constant(graph.nodes[0].inputs[2]).expect("a constant").to_vec();
    if bias_behind {
        let zeros =
            without.add_constant("zeros", Tensor::f32([bias.len()], vec![0.0; bias.len()]).expect("it fits"));
        without.nodes[0].inputs[2] = zeros;
    }
    let (h, _) = run(&without, &options(case.conv, 1, true), Isa::Scalar, false, input);
    let h: Vec<f32> = h.into_iter().map(f32::from_bits).collect();
    let pixels = h.len() / 2 / case.outputs;
    let half = |image: &[f32], sign: f32| -> Vec<f32> {
        let add = |i: usize| if bias_behind { bias[i / pixels] } else { 0.0 };
        image.iter().enumerate().map(|(i, h)| (sign * h + add(i)).max(0.0)).collect()
    };
    h.chunks(h.len() / 2).flat_map(|image| [half(image, 1.0), half(image, -1.0)].concat()).collect()
}

#[test]
fn the_bias_changes_its_sign_with_the_rest() {
    let mut numbers = Numbers(3);
    let graph = graph(&PLAIN, MaxMinOrder::PositiveFirst, None, &mut numbers);
    let input = numbers.tensor(graph.shape(graph.inputs[0]));
    let (got, _) = run(&graph, &options(PLAIN.conv, 1, true), Isa::Scalar, false, &input);
    let got: Vec<f32> = got.into_iter().map(f32::from_bits).collect();
    assert_eq!(got, defined(&graph, &PLAIN, &input, false));
    assert_ne!(got, defined(&graph, &PLAIN, &input, true), "a bias behind MaxMin is another network");
}

#[test]
fn only_maxima_are_pooled_before_max_min() {
    let mut numbers = Numbers(5);
    let average = pool(2, 2, 0, false, PoolKind::Average);
    let graph = graph(&PLAIN, MaxMinOrder::PositiveFirst, Some(average), &mut numbers);
    let input = numbers.tensor(graph.shape(graph.inputs[0]));
    let (want, _) = run(&graph, &options(PLAIN.conv, 1, false), Isa::Scalar, false, &input);
    let (got, steps) = run(&graph, &options(PLAIN.conv, 1, true), Isa::Scalar, false, &input);
    assert!(steps.iter().any(|step| step.starts_with("average-pool")), "{steps:?}");
    assert_eq!(got, want);
    // The wrong rewrite: MaxMin of the mean.
    let mut wrong = graph.clone();
    let [pooled, both] = [wrong.nodes[2].clone(), wrong.nodes[1].clone()];
    wrong.nodes.truncate(1);
    let conv = wrong.nodes[0].output;
    let mean = wrong.add_node("mean", pooled.op, vec![conv]).expect("it fits");
    wrong.outputs = vec![wrong.add_node("both", both.op, vec![mean]).expect("it fits")];
    let (other, _) = run(&wrong, &options(PLAIN.conv, 1, true), Isa::Scalar, false, &input);
    assert_ne!(other, want);
}

#[test]
fn a_map_that_is_read_elsewhere_stays() {
    let mut numbers = Numbers(9);
    let mut graph = graph(&PLAIN, MaxMinOrder::NegativeFirst, None, &mut numbers);
    let conv = graph.nodes[0].output;
    let mean = graph.add_node("mean", Op::GlobalPool(PoolKind::Average), vec![conv]).expect("it fits");
    graph.outputs.push(mean);
    let model = Model::new(graph, &Options::default()).expect("a checked graph is planned");
    assert!(model.plan().steps.iter().any(|step| step.op == "maxmin"));
}
