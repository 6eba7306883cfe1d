//! A pool that a Winograd convolution does itself: the bits of the two steps, on every instruction set and any number of
//! threads, and the map between them in no arena.

#[path = "support/numbers.rs"]
mod numbers;

use std::sync::Arc;

use numbers::Numbers;
use sinew::graph::{Conv, Graph, MaxMinOrder, Op, Pads, Pool, PoolKind};
use sinew::plan::{Family, PlanOptions, Winograd};
use sinew::{DType, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// What comes behind the convolution.
#[derive(Clone, Copy, Debug)]
enum Behind {
    Pool(PoolKind),
    MaxMin(MaxMinOrder),
}

const KINDS: [Behind; 4] = [
    Behind::Pool(PoolKind::Max),
    Behind::Pool(PoolKind::Average),
    Behind::MaxMin(MaxMinOrder::PositiveFirst),
    Behind::MaxMin(MaxMinOrder::NegativeFirst),
];

#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    channels: usize,
    outputs: usize,
    groups: usize,
    kernel: usize,
    stride: usize,
    tile: usize,
    size: [usize; 2],
    after: Activation,
    compact_weights: bool,
    residual: bool,
}

const PLAIN: Case = Case {
    batch: 1,
    channels: 32,
    outputs: 40,
    groups: 1,
    kernel: 3,
    stride: 1,
    tile: 4,
    size: [16, 20],
    after: Activation::Relu,
    compact_weights: false,
    residual: false,
};

fn cases() -> Vec<Case> {
    vec![
        PLAIN,
        Case { size: [13, 19], ..PLAIN },
        Case { size: [3, 2], ..PLAIN },
        Case { batch: 3, after: Activation::HardSwish, tile: 2, ..PLAIN },
        Case { channels: 64, outputs: 96, groups: 2, after: Activation::Identity, ..PLAIN },
        Case { channels: 32, outputs: 32, groups: 4, ..PLAIN },
        Case { batch: 2, channels: 24, outputs: 24, groups: 6, compact_weights: true, ..PLAIN },
        Case { tile: 6, size: [31, 26], compact_weights: true, ..PLAIN },
        Case { kernel: 5, after: Activation::Clip { low: -0.25, high: 0.5 }, ..PLAIN },
        Case { channels: 128, outputs: 256, size: [56, 30], ..PLAIN },
        Case { stride: 2, tile: 2, size: [31, 45], ..PLAIN },
        Case { stride: 2, tile: 2, size: [12, 5], compact_weights: true, ..PLAIN },
        Case { stride: 2, tile: 2, channels: 128, outputs: 256, size: [60, 57], ..PLAIN },
    ]
}

fn window(kind: PoolKind) -> Pool {
    let pads = Pads { top: 0, left: 0, bottom: 0, right: 0 };
    Pool {
        kind,
        kernel: [2; 2],
        stride: [2; 2],
        dilation: [1; 2],
        pads,
        ceil_mode: false,
        count_include_pad: false,
    }
}

/// The graph, and the convolution's output.
fn graph(case: &Case, behind: Behind, pool: Pool, numbers: &mut Numbers) -> Graph {
    let mut graph = Graph::default();
    let [height, width] = case.size;
    let x = graph.add_value("x", vec![case.batch, case.channels, height, width], DType::F32);
    graph.inputs.push(x);
    let shape = [case.outputs, case.channels / case.groups, case.kernel, case.kernel];
    let weights = graph.add_constant("weights", numbers.tensor(&shape));
    let bias = graph.add_constant("bias", numbers.tensor(&[case.outputs]));
    let pad = case.kernel / 2;
    let conv = Conv {
        kernel: [case.kernel; 2],
        stride: [case.stride; 2],
        dilation: [1; 2],
        pads: Pads { top: pad, left: pad, bottom: pad, right: pad },
        groups: case.groups,
        before: Activation::Identity,
        residual: case.residual,
        after: case.after,
    };
    let mut inputs = vec![x, weights, bias];
    if case.residual {
        let shape = [case.batch, case.outputs, height, width];
        inputs.push(graph.add_constant("other", numbers.tensor(&shape)));
    }
    let mut y = graph.add_node("conv", Op::Conv(conv), inputs).expect("it fits");
    if let Behind::MaxMin(order) = behind {
        y = graph.add_node("maxmin", Op::MaxMin { order }, vec![y]).expect("it fits");
    }
    y = graph.add_node("pool", Op::Pool(pool), vec![y]).expect("it fits");
    graph.outputs.push(y);
    graph
}

fn options(case: &Case, threads: usize) -> Options {
    Options {
        plan: PlanOptions {
            conv: Some(Family::Winograd),
            winograd: Winograd::Tile(case.tile),
            compact_weights: case.compact_weights,
            threads,
            ..PlanOptions::default()
        },
        ..Options::default()
    }
}

fn model(graph: &Graph, options: &Options) -> Model {
    Model::new(graph.clone(), options).expect("a checked graph is planned")
}

/// Whether a step of its own pools.
fn pools_apart(model: &Model) -> bool {
    model.plan().steps.iter().any(|step| step.algorithm.ends_with("-pool"))
}

fn run(model: Model, isa: Isa, poison: bool, input: &Tensor) -> Vec<u32> {
    let options = SessionOptions { isa: Some(isa), ..SessionOptions::default() };
    let mut session = Session::new(Arc::new(model), options).expect("a supported instruction set");
    session.set_poison(poison);
    let out = session.run_tensors(std::slice::from_ref(input)).expect("an input of the model's shape");
    out[0].as_f32().expect("outputs are f32").iter().map(|x| x.to_bits()).collect()
}

/// The same graph with the convolution's map as an output too, so that it is stored.
fn stored(graph: &Graph) -> Graph {
    let mut stored = graph.clone();
    stored.outputs.push(stored.nodes[0].output);
    stored
}

#[test]
fn pooled_at_once_and_apart_give_the_same_bits() {
    let isas: Vec<Isa> = sinew_kernels::isa::supported().iter().map(|table| table.isa).collect();
    let mut numbers = Numbers(11);
    for (case, behind) in cases().iter().flat_map(|case| KINDS.map(|behind| (case, behind))) {
        let kind = match behind {
            Behind::Pool(kind) => kind,
            Behind::MaxMin(_) => PoolKind::Max,
        };
        let graph = graph(case, behind, window(kind), &mut numbers);
        let input = numbers.tensor(graph.shape(graph.inputs[0]));
        let apart = model(&stored(&graph), &options(case, 1));
        assert!(pools_apart(&apart), "{case:?} {behind:?}");
        let want = run(apart, Isa::Scalar, false, &input);
        for &isa in &isas {
            for (threads, poison) in [(1, false), (2, true), (3, false)] {
                let at_once = model(&graph, &options(case, threads));
                // images whose weights stream are worked on together, and pooled apart
                assert!(case.batch > 1 || !pools_apart(&at_once), "{case:?} {behind:?}");
                let got = run(at_once, isa, poison, &input);
                assert!(got == want, "{case:?} {behind:?} {isa} {threads} threads");
            }
        }
    }
}

#[test]
fn the_map_between_is_in_no_arena() {
    let case = Case { channels: 16, outputs: 64, size: [64, 64], ..PLAIN };
    let graph = graph(&case, KINDS[0], window(PoolKind::Max), &mut Numbers(5));
    let bytes = |graph: &Graph| model(graph, &options(&case, 1)).plan().arena_bytes();
    let map = 64 * 64 * 64 * size_of::<f32>();
    let (at_once, apart) = (bytes(&graph), bytes(&stored(&graph)));
    assert!(at_once + map / 2 < apart, "{at_once} and {apart} bytes, a map of {map}");
}

/// What reaches beyond the map, overlaps, or needs the map for something else has a step of its own.
#[test]
fn other_pools_are_steps_of_their_own() {
    let max = window(PoolKind::Max);
    let padded = Pads { top: 1, left: 1, bottom: 1, right: 1 };
    let below = Pads { bottom: 1, right: 1, ..max.pads };
    let odd = Case { size: [15, 15], ..PLAIN };
    let others = [
        (&PLAIN, Pool { kernel: [3; 2], ..max.clone() }),
        (&PLAIN, Pool { stride: [1; 2], ..max.clone() }),
        (&PLAIN, Pool { stride: [2, 1], ..max.clone() }),
        (&PLAIN, Pool { dilation: [2; 2], ..max.clone() }),
        (&PLAIN, Pool { pads: padded, ..max.clone() }),
        (&odd, Pool { pads: below, ..max.clone() }),
        (&odd, Pool { ceil_mode: true, ..max.clone() }),
        (&Case { residual: true, ..PLAIN }, max.clone()),
    ];
    for (case, pool) in others {
        let graph = graph(case, KINDS[0], pool.clone(), &mut Numbers(9));
        assert!(pools_apart(&model(&graph, &options(case, 1))), "{case:?} {pool:?}");
    }
    let direct = PlanOptions { conv: Some(Family::Direct), ..PlanOptions::default() };
    let direct = Options { plan: direct, ..Options::default() };
    let graph = graph(&PLAIN, KINDS[0], max, &mut Numbers(9));
    assert!(pools_apart(&model(&graph, &direct)));
    assert!(!pools_apart(&model(&graph, &options(&PLAIN, 1))));
}
