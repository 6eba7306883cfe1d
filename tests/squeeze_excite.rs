//! Squeeze-and-excitation in every form and placement: found, the same bits on every instruction set and number of
//! threads, and within the bound of the graph as it was written. What must not be rewritten is not, and would be wrong.

#[path = "support/gated_graph.rs"]
mod gated_graph;
#[path = "support/random_graph.rs"]
#[allow(dead_code, reason = "its graphs serve other tests")]
mod random_graph;
#[path = "support/reference.rs"]
mod reference;

use std::sync::Arc;

use gated_graph::{Form, Net, gated_graph};
use random_graph::{Choices, Seed};
use reference::Exact;
use sinew::graph::{Excite, Graph, Op};
use sinew::optimize::{fuse_squeeze_excite, optimize};
use sinew::plan::{Family, PlanOptions, Winograd};
use sinew::{Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// Fewer under emulation.
fn cases() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

fn isas() -> Vec<Isa> {
    sinew_kernels::isa::supported().iter().map(|table| table.isa).collect()
}

fn input(graph: &Graph, choices: &mut impl Choices) -> Tensor {
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let data = (0..shape.iter().product()).map(|_| choices.number()).collect();
    Tensor::f32(shape, data).expect("as many numbers as the shape holds")
}

fn without(passes: &[&str], plan: PlanOptions) -> Options {
    Options { plan, disabled_passes: passes.iter().map(|&name| name.to_owned()).collect() }
}

fn run(graph: &Graph, options: &Options, isa: Isa, poison: bool, input: &Tensor) -> Vec<f32> {
    let model = Arc::new(Model::new(graph.clone(), options).expect("a checked graph is planned"));
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported set");
    session.set_poison(poison);
    let mut run = || {
        let outputs = session.run_tensors(std::slice::from_ref(input)).expect("inputs of the model's shape");
        outputs[0].as_f32().expect("outputs are f32").to_vec()
    };
    let first = run();
    assert_eq!(bits(&first), bits(&run()), "a second run on the same arena differs");
    first
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn exact(graph: &Graph, input: &Tensor) -> Exact {
    let data = input.as_f32().expect("inputs are f32").iter().map(|&x| f64::from(x)).collect();
    let plain = graph.without_excite().expect("a checked graph");
    reference::evaluate(&plain, &[Exact::new(input.shape().to_vec(), data)]).remove(0)
}

/// Whether every value lies within the interpreter's bound, which follows each rounding through the graph.
fn is_close(got: &[f32], want: &Exact) -> bool {
    got.iter().zip(want.values.iter().zip(&want.error)).all(|(&got, (want, error))| {
        (f64::from(got) - want).abs() <= 2.0 * error * f64::from(f32::EPSILON) + 1e-35
    })
}

fn optimized(graph: &Graph, disabled: &[&str]) -> Graph {
    let mut graph = graph.clone();
    let disabled: Vec<String> = disabled.iter().map(|&name| name.to_owned()).collect();
    optimize(&mut graph, &disabled).expect("known passes");
    graph.check().expect("passes keep the invariants");
    graph
}

fn count(graph: &Graph, of: impl Fn(&Excite) -> bool) -> usize {
    graph.nodes.iter().filter(|node| matches!(&node.op, Op::Excite(excite) if of(excite))).count()
}

const GATE: fn(&Excite) -> bool = |excite| matches!(excite, Excite::Gate { .. });
const GATE_FIRST: fn(&Excite) -> bool = |excite| matches!(excite, Excite::ScaledConv(_));

#[test]
fn every_form_is_found_and_gives_the_same_bits_everywhere() {
    let isas = isas();
    let mut first = 0;
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let (graph, form) = gated_graph(&mut choices);
        let input = input(&graph, &mut choices);
        let found = fuse_squeeze_excite::found(&graph);
        let what = if form.branches > 1 { "aggregate_excite" } else { "squeeze_excite" };
        assert!(
            matches!(&found[..], [found] if found.missed.is_none() && found.what == what),
            "seed {seed}: {found:?} of {form:?}"
        );
        let fused = optimized(&graph, &[]);
        assert_eq!(count(&fused, GATE), 1, "seed {seed}: {form:?}");
        assert_eq!(count(&fused, GATE_FIRST), usize::from(form.is_gate_first()), "seed {seed}: {form:?}");
        first += usize::from(form.is_gate_first());
        let want = exact(&graph, &input);
        for conv in [None, Some(Family::Im2col)] {
            let plan = PlanOptions { conv, winograd: Winograd::Tile(2), ..PlanOptions::default() };
            let options = without(&[], plan.clone());
            let scalar = run(&graph, &options, Isa::Scalar, false, &input);
            assert!(is_close(&scalar, &want), "seed {seed}, {conv:?}: {form:?}");
            for &isa in &isas {
                for poison in [false, true] {
                    let got = run(&graph, &options, isa, poison, &input);
                    assert_eq!(bits(&got), bits(&scalar), "seed {seed}, {isa}, poison {poison}: {form:?}");
                }
            }
            #[cfg(feature = "parallel")]
            for threads in [2, 3] {
                let options = without(&[], PlanOptions { threads, ..plan.clone() });
                let got = run(&graph, &options, isas[0], false, &input);
                assert_eq!(bits(&got), bits(&scalar), "seed {seed}, {threads} threads: {form:?}");
            }
        }
    }
    assert!(first * 10 > cases() as usize, "gate-first was tried {first} times only");
}

/// Large enough to be cut into parts: threads that share out a map, its squeeze and a gate.
#[cfg(feature = "parallel")]
#[test]
fn large_blocks_give_the_same_bits_on_any_number_of_threads() {
    for seed in 0..6 {
        let mut choices = Seed(seed);
        let form = Form { channels: 272, hidden: 96, ..Form::random(&mut choices) };
        let graph = Net::new([1, 64, 31, 17], Seed(seed)).finish(&form);
        let input = input(&graph, &mut choices);
        let want = run(&graph, &Options::default(), isas()[0], false, &input);
        for threads in [2, 3, 5] {
            let options = without(&[], PlanOptions { threads, ..PlanOptions::default() });
            let got = run(&graph, &options, isas()[0], false, &input);
            assert_eq!(bits(&got), bits(&want), "{threads} threads: {form:?}");
        }
    }
}

#[test]
fn gates_and_squeezes_keep_every_bit() {
    let mut tried = 0;
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let (graph, form) = gated_graph(&mut choices);
        // With a residual one rounding is saved, and 1 + s rounds before the product.
        if form.residual || form.inner_residual {
            continue;
        }
        tried += 1;
        let input = input(&graph, &mut choices);
        let with = run(&graph, &without(&["gate_first"], PlanOptions::default()), isas()[0], false, &input);
        let passes = ["gate_first", "fuse_squeeze_excite"];
        let unfused = run(&graph, &without(&passes, PlanOptions::default()), isas()[0], false, &input);
        assert_eq!(bits(&with), bits(&unfused), "seed {seed}: {form:?}");
    }
    assert!(tried > 0);
}

#[test]
fn the_rewrites_are_identities_of_real_numbers() {
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let (graph, form) = gated_graph(&mut choices);
        let input = input(&graph, &mut choices);
        let want = exact(&graph, &input);
        for disabled in [&[][..], &["gate_first"]] {
            let got = exact(&optimized(&graph, disabled), &input);
            for (got, (want, error)) in got.values.iter().zip(want.values.iter().zip(&want.error)) {
                // Only folded weights are rounded, once.
                assert!(
                    (got - want).abs() <= error * f64::from(f32::EPSILON) + 1e-30,
                    "seed {seed}: {form:?}"
                );
            }
        }
    }
}

/// A wrong rewrite of `graph` must be seen: its values lie outside the bound.
fn assert_seen(right: &Graph, wrong: &Graph, what: &str) {
    let input = input(right, &mut Seed(7));
    let want = exact(right, &input);
    let got: Vec<f32> = exact(wrong, &input).values.iter().map(|&x| x as f32).collect();
    assert!(!is_close(&got, &want), "{what} goes unseen");
}

#[test]
fn what_is_no_identity_is_left_alone_and_would_be_seen() {
    let plain =
        Form { trunk: gated_graph::Trunk::Pointwise, residual: true, relu: true, ..Form::plain(24, 6) };
    let graph = |form: &Form| Net::new([2, 20, 6, 5], Seed(3)).finish(form);
    let right = graph(&plain);
    assert_eq!(count(&optimized(&right, &[]), GATE_FIRST), 1, "the form that the others differ from");

    // Behind an activation the mean of the output is no function of the mean of the input.
    let behind = graph(&Form { trunk_after: Activation::Relu, ..plain.clone() });
    let fused = optimized(&behind, &[]);
    assert_eq!(count(&fused, GATE_FIRST), 0);
    let mut wrong = optimized(&right, &[]);
    for node in &mut wrong.nodes {
        if let Op::Excite(Excite::ScaledConv(conv)) = &mut node.op {
            conv.after = Activation::Identity;
            let bare = conv.clone();
            node.op = Op::Excite(Excite::ScaledConv(bare));
        }
    }
    assert_seen(&right, &wrong, "a residual without its activation");
    assert_seen(&behind, &right, "gate-first through an activation");

    // With a stride the means are those of the pixels that are read.
    let strided = graph(&Form { trunk_stride: 2, residual: false, ..plain.clone() });
    assert_eq!(count(&optimized(&strided, &[]), GATE_FIRST), 0);
    let mut wrong = strided.clone();
    let pool = wrong.nodes.iter().position(|node| matches!(node.op, Op::GlobalPool(_))).expect("a squeeze");
    let means = wrong
        .insert_node(0, "means", Op::GlobalPool(sinew::graph::PoolKind::Average), vec![wrong.inputs[0]])
        .expect("an image");
    let trunk = wrong.nodes.iter().position(|node| matches!(node.op, Op::Conv(_))).expect("a trunk");
    let Op::Conv(conv) = wrong.nodes[trunk].op.clone() else { unreachable!() };
    let mut inputs = wrong.nodes[trunk].inputs.clone();
    inputs[0] = means;
    let conv = sinew::graph::Conv { stride: [1, 1], ..conv };
    wrong.nodes[pool + 1] =
        sinew::graph::Node { op: Op::Conv(conv), inputs, ..wrong.nodes[pool + 1].clone() };
    assert_seen(&strided, &wrong, "means over all pixels in front of a stride");

    // The gate does not pass through a sum: the residual must stay unscaled.
    let mut wrong = optimized(&right, &["gate_first"]);
    let at = wrong.nodes.iter().position(|node| matches!(node.op, Op::Excite(Excite::Scale { .. })));
    let node = wrong.nodes[at.expect("a scaling")].clone();
    let sum = wrong
        .insert_node(
            at.expect("a scaling"),
            "sum",
            Op::Binary(sinew::graph::BinaryOp::Add),
            vec![node.inputs[0], node.inputs[2]],
        )
        .expect("equal shapes");
    let at = at.expect("a scaling") + 1;
    wrong.nodes[at].op = Op::Excite(Excite::Scale { residual: false, after: Activation::Relu });
    wrong.nodes[at].inputs = vec![sum, node.inputs[1]];
    assert_seen(&right, &wrong, "a scaled residual");

    // Without the 1 of an inner residual.
    let inner = graph(&Form { inner_residual: true, ..plain.clone() });
    let mut wrong = optimized(&inner, &[]);
    for node in &mut wrong.nodes {
        if let Op::Excite(Excite::Gate { plus_one, .. }) = &mut node.op {
            assert!(std::mem::take(plus_one), "the inner residual is in the gate");
        }
    }
    assert_seen(&inner, &wrong, "an inner residual that is lost");
}

/// The mean of `w v + b` needs the bias in the stacked layer.
#[test]
fn the_stacked_layer_holds_the_bias() {
    let form = Form { trunk: gated_graph::Trunk::Pointwise, ..Form::plain(40, 9) };
    let right = Net::new([1, 12, 4, 4], Seed(11)).finish(&form);
    let mut wrong = optimized(&right, &[]);
    let gate = wrong.nodes.iter().position(|node| matches!(&node.op, Op::Excite(Excite::Gate { .. })));
    let gate = gate.expect("a gate");
    let unfused = optimized(&right, &["gate_first"]);
    let own = unfused.nodes.iter().find(|node| matches!(&node.op, Op::Excite(Excite::Gate { .. })));
    let bias = unfused.constant(own.expect("a gate").inputs[2]).expect("a constant").to_vec();
    let bias = wrong.add_constant("b", Tensor::f32([bias.len()], bias).expect("one number an output"));
    wrong.nodes[gate].inputs[2] = bias;
    assert_seen(&right, &wrong, "a bias that is left out");
}

#[test]
fn hidden_width_is_that_of_the_weights() {
    // 48 channels, reduction 32, 4 branches: 4 numbers, and not floor(4 * 48 / 32) = 6.
    let form = Form { branches: 4, ..Form::plain(48, 1) };
    let graph = Net::new([1, 48, 3, 3], Seed(5)).finish(&form);
    let fused = optimized(&graph, &[]);
    let gate = fused.nodes.iter().find(|node| matches!(&node.op, Op::Excite(Excite::Gate { .. })));
    assert_eq!(fused.shape(gate.expect("a gate").inputs[1])[0], 4);
}

#[test]
fn misses_say_why() {
    let reason = |form: &Form| {
        let graph = Net::new([1, 20, 6, 5], Seed(1)).finish(form);
        let optimized = optimized(&graph, &[]);
        let found = fuse_squeeze_excite::found(&graph);
        assert!(found.iter().all(|found| found.missed.is_some()), "{found:?}");
        assert_eq!(count(&optimized, GATE), 0);
        found.into_iter().next().and_then(|found| found.missed).unwrap_or_default()
    };
    let plain = Form::plain(24, 6);
    let read = reason(&Form { hidden_is_output: true, ..plain.clone() });
    assert!(read.contains("is read elsewhere too"), "{read}");
    let three = reason(&Form { layers: 3, ..plain.clone() });
    assert_eq!(three, "more than two dense layers");
    let squeeze = reason(&Form { squeezes_rows_only: true, ..plain });
    assert!(squeeze.contains("does not pool the whole map") || squeeze.contains("expected"), "{squeeze}");
}
