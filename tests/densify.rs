//! Equivalent mapping: baseline positions of a dense network equal the baseline bit for bit, borders included, under every
//! size rule; every known way to get it wrong is caught; fragments equal the dilated layers.

#[path = "support/dense_nets.rs"]
mod dense_nets;
#[allow(dead_code, reason = "the networks here are others")]
#[path = "support/random_graph.rs"]
mod random_graph;

use std::sync::Arc;

use dense_nets::{Net, random_net};
use random_graph::{Choices, Seed};
use sinew::graph::{BinaryOp, Graph, Op, Pool, PoolKind};
use sinew::optimize::densify::{Dense, Selection};
use sinew::plan::{Family, PlanOptions, Shortcut, Winograd};
use sinew::{Isa, Model, Options, Session, SessionOptions, Tensor};

fn input(graph: &Graph, seed: u64) -> Tensor {
    let mut seed = Seed(seed);
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let data = (0..shape.iter().product()).map(|_| seed.number()).collect();
    Tensor::f32(shape, data).expect("as many numbers as the shape holds")
}

fn run_on(graph: &Graph, options: &Options, isa: Isa, poison: bool, input: &Tensor) -> Tensor {
    let model = Arc::new(Model::new(graph.clone(), options).expect("a checked graph is planned"));
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported instruction set");
    session.set_poison(poison);
    session.run_tensors(std::slice::from_ref(input)).expect("inputs of the model's shape").remove(0)
}

fn best() -> Isa {
    sinew_kernels::isa::supported()[0].isa
}

fn run(graph: &Graph, options: &Options, input: &Tensor) -> Tensor {
    run_on(graph, options, best(), false, input)
}

/// Without the one pass that computes a baseline's head in another order than the dense form can.
fn options(conv: Option<Family>, whole: bool) -> Options {
    let mut disabled_passes = vec!["average_first".to_owned()];
    disabled_passes.extend(whole.then(|| "split_fragments".to_owned()));
    Options { plan: PlanOptions { conv, ..PlanOptions::default() }, disabled_passes }
}

/// Rows and columns are the last two dimensions of a dense output; a baseline's without any has one of each.
fn mismatches(baseline: &Tensor, dense: &Tensor, step: [usize; 2]) -> usize {
    let rank = dense.shape().len();
    let mut own = baseline.shape().to_vec();
    own.resize(rank, 1);
    let [rows, columns] = [own[rank - 2], own[rank - 1]];
    let [height, width] = [dense.shape()[rank - 2], dense.shape()[rank - 1]];
    let (small, large) = (baseline.as_f32().expect("f32"), dense.as_f32().expect("f32"));
    let mut wrong = 0;
    for plane in 0..own[..rank - 2].iter().product() {
        for y in 0..rows {
            for x in 0..columns {
                let want = small[(plane * rows + y) * columns + x];
                let inside = y * step[0] < height && x * step[1] < width;
                let got = inside.then(|| large[(plane * height + y * step[0]) * width + x * step[1]]);
                wrong += usize::from(got.map(f32::to_bits) != Some(want.to_bits()));
            }
        }
    }
    wrong
}

fn depth(graph: &Graph) -> usize {
    (1..).take_while(|&last| graph.densify(&Selection::Last(last)).is_ok()).last().unwrap_or(0)
}

fn cases() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

/// Seeds that failed once: slices of a pool on a row-major image, before a convolution of two channels.
const FOUND: [u64; 1] = [835];

/// Means that count the border have no dense form where a partial last window reaches beyond it; all others have.
#[test]
fn baseline_positions_are_bitwise_equal() {
    let (mut nets, mut heads) = (0, 0);
    for seed in (0..cases()).chain(FOUND) {
        let Some(graph) = random_net(seed) else { continue };
        let x = input(&graph, seed);
        let deepest = depth(&graph);
        assert!(deepest > 0, "seed {seed}: {:?} {graph:#?}", graph.densify(&Selection::Last(1)).err());
        for last in 1..=deepest {
            let Dense { graph: dense, outputs, removed } =
                graph.densify(&Selection::Last(last)).expect("as before");
            assert!(!removed.is_empty());
            for (conv, whole) in [
                (None, false),
                (Some(Family::Direct), true),
                (Some(Family::Direct), false),
                (Some(Family::Im2col), false),
            ] {
                let options = options(conv, whole);
                let (small, large) = (run(&graph, &options, &x), run(&dense, &options, &x));
                let wrong = mismatches(&small, &large, outputs[0].step);
                assert_eq!(
                    wrong,
                    0,
                    "seed {seed}, last {last}, {conv:?}, whole {whole}: of {} {graph:#?}",
                    small.len()
                );
            }
            nets += 1;
            heads += usize::from(dense.shape(dense.outputs[0]).len() != graph.shape(graph.outputs[0]).len());
        }
    }
    assert!(nets as u64 > cases() / 2 && heads > 0, "{nets} nets, {heads} heads");
}

/// A layer whose stride is removed is that layer on each of four phases, by the tile with stride 2 as before; so is one that
/// keeps its stride behind it.
#[test]
fn strided_winograd_layers_equal_their_baseline() {
    for (size, compact_weights) in [([41, 44], false), ([45, 24], false), ([57, 60], false), ([57, 60], true)]
    {
        let mut net = Net::new(21, 20, size);
        let x = net.conv(net.graph.inputs[0], 32, 3, 2, [1, 1], 1);
        let x = net.relu(x);
        let x = net.conv(x, 40, 3, 2, [1, 1], 1);
        let graph = net.finish(x);
        let x = input(&graph, 3);
        let options = options(None, false);
        let options = Options { plan: PlanOptions { compact_weights, ..options.plan.clone() }, ..options };
        let steps = |graph: &Graph| {
            let model = Model::new(graph.clone(), &options).expect("a checked graph is planned");
            model.plan().steps.iter().filter(|step| step.algorithm == "winograd-2-stride-2").count()
        };
        let own = steps(&graph);
        assert_eq!(own, if compact_weights { 0 } else { 2 }, "{size:?}");
        for last in [1, 2] {
            let Dense { graph: dense, outputs, .. } =
                graph.densify(&Selection::Last(last)).expect("two strides");
            // each removed stride is four phases of what it was
            assert!(compact_weights || steps(&dense) >= own + 3, "{size:?}: {} and {own}", steps(&dense));
            let (small, large) = (run(&graph, &options, &x), run(&dense, &options, &x));
            assert_eq!(mismatches(&small, &large, outputs[0].step), 0, "{size:?}, last {last}");
        }
    }
}

/// Layers whose weights stream take the tile of one map, by itself or as one of many fragments: as many as pay for transforming
/// weights inside the run, which the baseline does not do.
#[test]
fn streaming_winograd_layers_equal_their_baseline() {
    for size in [[28, 30], [33, 32], [64, 61]] {
        let mut net = Net::new(23, 24, size);
        let x = net.conv(net.graph.inputs[0], 32, 3, 1, [1, 1], 1);
        let x = net.pool(x, PoolKind::Max, 2, 2, [0, 0], false);
        let x = net.conv(x, 40, 3, 1, [1, 1], 1);
        let x = net.pool(x, PoolKind::Max, 2, 2, [0, 0], false);
        let x = net.conv(x, 32, 3, 1, [1, 1], 1);
        let graph = net.finish(x);
        let x = input(&graph, 5);
        let options = options(None, false);
        let plan = PlanOptions { l2_bytes: 0, ..options.plan.clone() };
        let options = Options { plan, ..options };
        let steps = |graph: &Graph, algorithm: &str| {
            let model = Model::new(graph.clone(), &options).expect("a checked graph is planned");
            model.plan().steps.iter().filter(|step| step.algorithm == algorithm).count()
        };
        let Dense { graph: dense, outputs, .. } = graph.densify(&Selection::Last(2)).expect("two strides");
        assert!(steps(&graph, "winograd-4") > 0, "{size:?}");
        assert!(
            steps(&dense, "winograd-4-plain-weights") > steps(&graph, "winograd-4-plain-weights"),
            "{size:?}"
        );
        let (small, large) = (run(&graph, &options, &x), run(&dense, &options, &x));
        assert_eq!(mismatches(&small, &large, outputs[0].step), 0, "{size:?}");
    }
}

/// Sums of convolutions and a shortcut are one convolution in both forms, with the shortcut in the same place: with a stride
/// it is in the centre tap, and stays there where the stride is removed.
#[test]
fn sums_of_convolutions_equal_their_baseline() {
    let mut net = Net::new(31, 20, [29, 32]);
    let mut x = net.conv(net.graph.inputs[0], 32, 3, 1, [1, 1], 1);
    for stride in [1, 2, 1, 2, 1] {
        let [a, b] = [0, 1].map(|_| net.conv(x, 32, 3, stride, [1, 1], 1));
        let kept = if stride == 1 { x } else { net.pool(x, PoolKind::Max, 1, stride, [0, 0], false) };
        let sum = net.add(Op::Binary(BinaryOp::Add), vec![a, b]);
        let sum = net.add(Op::Binary(BinaryOp::Add), vec![sum, kept]);
        x = net.relu(sum);
    }
    let graph = net.finish(x);
    let x = input(&graph, 7);
    for conv in [None, Some(Family::Direct)] {
        for shortcut in [Shortcut::Auto, Shortcut::Add, Shortcut::Fold] {
            let options = options(conv, false);
            let plan = PlanOptions { shortcut, ..options.plan.clone() };
            let options = Options { plan, ..options };
            let stacked = |graph: &Graph| {
                let model = Model::new(graph.clone(), &options).expect("a checked graph is planned");
                model.passes().iter().find(|pass| pass.name == "stack_streams").map(|pass| pass.rewrites)
            };
            for last in [1, 2] {
                let Dense { graph: dense, outputs, .. } =
                    graph.densify(&Selection::Last(last)).expect("two strides");
                assert_eq!((stacked(&graph), stacked(&dense)), (Some(5), Some(5)));
                let (small, large) = (run(&graph, &options, &x), run(&dense, &options, &x));
                assert_eq!(mismatches(&small, &large, outputs[0].step), 0, "{conv:?}, {shortcut:?}, {last}");
            }
        }
    }
}

#[test]
fn fragments_equal_the_dilated_form() {
    let mut split = 0;
    for seed in 0..cases() / 2 {
        let Some(graph) = random_net(seed) else { continue };
        let x = input(&graph, seed);
        let dense = graph.densify(&Selection::Last(depth(&graph))).expect("as deep as it goes").graph;
        let direct = Some(Family::Direct);
        let dilated = run(&dense, &options(direct, true), &x);
        let model = Model::new(dense.clone(), &options(direct, false)).expect("a checked graph is planned");
        split += usize::from(
            model.passes().iter().any(|pass| pass.name == "split_fragments" && pass.rewrites > 0),
        );
        let fragments = run(&dense, &options(direct, false), &x);
        assert_eq!(bits(&dilated), bits(&fragments), "seed {seed}: {dense:#?}");
        // Winograd rounds otherwise; its errors stay small against the values, which are of order one.
        let fast = run(&dense, &options(None, false), &x);
        for (a, b) in dilated.as_f32().expect("f32").iter().zip(fast.as_f32().expect("f32")) {
            assert!((a - b).abs() <= 1e-3 * (1.0 + a.abs()), "seed {seed}: {a} {b}");
        }
    }
    assert!(split as u64 > cases() / 10, "{split} nets had fragments");
}

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_bits() {
    for seed in 0..cases() / 8 {
        let Some(graph) = random_net(seed) else { continue };
        let x = input(&graph, seed);
        let dense = graph.densify(&Selection::Last(depth(&graph))).expect("as deep as it goes").graph;
        for conv in [None, Some(Family::Direct)] {
            let want = bits(&run_on(&dense, &options(conv, false), Isa::Scalar, false, &x));
            for table in sinew_kernels::isa::supported() {
                for poison in [false, true] {
                    let got = run_on(&dense, &options(conv, false), table.isa, poison, &x);
                    assert_eq!(bits(&got), want, "seed {seed}, {}, poison {poison}", table.isa);
                }
            }
            #[cfg(feature = "parallel")]
            for threads in [2, 3] {
                let mut options = options(conv, false);
                options.plan.threads = threads;
                assert_eq!(bits(&run(&dense, &options, &x)), want, "seed {seed}, {threads} threads");
            }
        }
    }
}

/// A pool large enough that its step is shared out.
#[cfg(feature = "parallel")]
/// With a second-level cache that holds nothing, all weights stream, and all maps of a layer are one step.
#[test]
fn maps_that_are_worked_on_together_have_the_bits_of_each_by_itself() {
    let mut together = 0;
    for seed in 0..cases() / 4 {
        let Some(graph) = random_net(seed) else { continue };
        let dense = graph.densify(&Selection::Last(depth(&graph))).expect("as deep as it goes").graph;
        let x = input(&dense, seed);
        let planned = |l2_bytes, threads, compact_weights| {
            let options = options(Some(Family::Winograd), false);
            let winograd = Winograd::Tile(2);
            let plan = PlanOptions { winograd, l2_bytes, threads, compact_weights, ..options.plan };
            Options { plan, ..options }
        };
        let apart = planned(1 << 30, 1, false);
        let want = bits(&run_on(&dense, &apart, Isa::Scalar, false, &x));
        for threads in [1, 2, 3] {
            for compact in [false, true] {
                let options = planned(0, threads, compact);
                let model = Model::new(dense.clone(), &options).expect("a checked graph is planned");
                let joined = |why: &str| why.contains("maps at once");
                together += model.plan().steps.iter().filter(|step| joined(&step.why)).count();
                for isa in [best(), Isa::Scalar] {
                    let got = bits(&run_on(&dense, &options, isa, true, &x));
                    assert_eq!(got, want, "seed {seed}, {threads} threads, {isa}: {dense:#?}");
                }
            }
        }
    }
    assert!(together > 0, "no maps were worked on together");
}

#[test]
fn large_pools_are_shared_out() {
    let mut net = Net::new(7, 70, [64, 61]);
    let x = net.pool(net.graph.inputs[0], PoolKind::Max, 3, 2, [1, 1], false);
    let x = net.conv(x, 16, 3, 1, [1, 1], 1);
    let graph = net.finish(x);
    let dense = graph.densify(&Selection::Last(1)).expect("one stride").graph;
    let x = input(&graph, 7);
    let want = bits(&run(&dense, &options(None, false), &x));
    for threads in [2, 3] {
        let mut options = options(None, false);
        options.plan.threads = threads;
        let model = Model::new(dense.clone(), &options).expect("a checked graph is planned");
        assert!(model.plan().steps.iter().any(|step| step.algorithm == "pool-fragments"));
        assert_eq!(bits(&run(&dense, &options, &x)), want);
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.as_f32().expect("f32").iter().map(|x| x.to_bits()).collect()
}

// ---- the ways to get it wrong ----

/// Two pools, three padded convolutions, biases; averages and positive weights would hide nothing.
fn baseline(size: usize, kernel: usize, ceil: bool) -> Graph {
    let mut net = Net::new(3, 2, [size, size + 1]);
    let x = net.graph.inputs[0];
    let x = net.conv(x, 4, 3, 1, [1, 1], 1);
    let x = net.pool(x, PoolKind::Average, kernel, 2, [0, 0], ceil);
    let x = net.conv(x, 4, 3, 1, [1, 1], 1);
    let x = net.pool(x, PoolKind::Average, kernel, 2, [0, 0], ceil);
    let x = net.conv(x, 4, 3, 1, [1, 1], 1);
    net.finish(x)
}

/// A dense network with changed nodes; what follows takes the new extents.
fn altered(dense: &Graph, change: impl Fn(usize, &mut Op)) -> Graph {
    let mut graph = Graph { name: "altered".into(), ..Graph::default() };
    let mut map = std::collections::HashMap::new();
    for id in (0..dense.values.len()).map(sinew::graph::ValueId) {
        let value = dense.value(id);
        if let Some(constant) = &value.constant {
            map.insert(id, graph.add_constant(value.name.clone(), constant.as_ref().clone()));
        } else if dense.inputs.contains(&id) {
            let input = graph.add_value(value.name.clone(), value.shape.clone(), value.dtype);
            graph.inputs.push(input);
            map.insert(id, input);
        }
    }
    for (index, node) in dense.nodes.iter().enumerate() {
        let mut op = node.op.clone();
        change(index, &mut op);
        let inputs = node.inputs.iter().map(|id| map[id]).collect();
        let output = graph.add_node(node.name.clone(), op, inputs).expect("the altered node still fits");
        map.insert(node.output, output);
    }
    graph.outputs = dense.outputs.iter().map(|id| map[id]).collect();
    graph
}

fn wrong_positions(size: usize, kernel: usize, ceil: bool, change: impl Fn(usize, &mut Op)) -> usize {
    let graph = baseline(size, kernel, ceil);
    let x = input(&graph, 11);
    let options = options(Some(Family::Direct), true);
    let Dense { graph: dense, outputs, .. } = graph.densify(&Selection::Last(2)).expect("two strides");
    assert_eq!(outputs[0].step, [4, 4]);
    let small = run(&graph, &options, &x);
    mismatches(&small, &run(&altered(&dense, change), &options, &x), [4, 4])
}

/// Pads and dilation of a window.
fn window(op: &mut Op) -> Option<(&mut sinew::graph::Pads, &mut [usize; 2])> {
    match op {
        Op::Conv(conv) => Some((&mut conv.pads, &mut conv.dilation)),
        Op::Pool(pool) => Some((&mut pool.pads, &mut pool.dilation)),
        _ => None,
    }
}

#[test]
fn every_size_modulo_the_step_is_exact_in_floor_and_ceil_mode() {
    for size in 40..48 {
        for (kernel, ceil) in [(2, false), (3, false), (2, true), (3, true)] {
            assert_eq!(wrong_positions(size, kernel, ceil, |_, _| {}), 0, "size {size}, {kernel}, {ceil}");
        }
    }
}

#[test]
fn pads_of_the_baseline_are_wrong() {
    // The convolution behind both pools: pads 1 in place of 4.
    let wrong = wrong_positions(40, 2, false, |index, op| {
        if let (4, Some((pads, _))) = (index, window(op)) {
            *pads = sinew::graph::Pads { top: 1, bottom: 1, left: 1, right: 1 };
        }
    });
    assert!(wrong > 0);
    let shifted = wrong_positions(40, 2, false, |index, op| {
        if let (4, Some((pads, _))) = (index, window(op)) {
            (pads.left, pads.right) = (pads.left + 1, pads.right - 1);
        }
    });
    assert!(shifted > 0);
}

#[test]
fn a_later_pool_without_dilation_is_wrong() {
    let wrong = wrong_positions(40, 2, false, |index, op| {
        if let (3, Some((_, dilation))) = (index, window(op)) {
            *dilation = [1, 1];
        }
    });
    assert!(wrong > 0);
}

#[test]
fn dropped_pools_are_wrong() {
    let wrong = wrong_positions(40, 2, false, |index, op| {
        if let (1 | 3, Op::Pool(pool)) = (index, op) {
            *pool = Pool { kernel: [1, 1], ..pool.clone() };
        }
    });
    assert!(wrong > 0);
}

/// A pool that keeps its size by partial windows holds an element where the baseline reads padding: wrong unless the
/// size is a multiple of the step.
#[test]
fn pools_that_keep_their_size_are_wrong_where_sizes_do_not_divide() {
    let same = |_: usize, op: &mut Op| {
        if let Op::Pool(pool) = op {
            (pool.pads.bottom, pool.pads.right) = (pool.dilation[0], pool.dilation[1]);
        }
    };
    for size in 40..48 {
        // The other extent is one larger.
        let wrong = wrong_positions(size, 2, false, same);
        assert!(wrong > 0, "size {size}");
    }
    let graph = {
        let mut net = Net::new(3, 2, [40, 40]);
        let x = net.graph.inputs[0];
        let x = net.pool(x, PoolKind::Average, 2, 2, [0, 0], false);
        let x = net.conv(x, 4, 3, 1, [1, 1], 1);
        net.finish(x)
    };
    let x = input(&graph, 11);
    let options = options(Some(Family::Direct), true);
    let dense = graph.densify(&Selection::Last(1)).expect("one stride").graph;
    let small = run(&graph, &options, &x);
    assert_eq!(
        mismatches(&small, &run(&altered(&dense, same), &options, &x), [2, 2]),
        0,
        "sizes that divide"
    );
}

/// Natural lengths under a baseline whose partial last windows count: the dense map is too short.
#[test]
fn natural_lengths_are_wrong_in_ceil_mode() {
    let natural = |_: usize, op: &mut Op| {
        if let Op::Pool(pool) = op {
            (pool.pads.bottom, pool.pads.right) = (0, 0);
        }
    };
    let wrong: Vec<bool> = (40..44).map(|size| wrong_positions(size, 3, true, natural) > 0).collect();
    assert!(wrong.iter().any(|&wrong| wrong), "{wrong:?}");
}

/// Fragments padded to a common length: a bias makes the filler differ from zero, and the next layer reads it.
#[test]
fn filled_up_fragments_are_wrong() {
    let mut net = Net::new(5, 2, [1, 31]);
    let x = net.graph.inputs[0];
    let x = net.conv(x, 4, 3, 1, [1, 1], 1);
    let x = net.conv(x, 4, 3, 1, [1, 1], 1);
    let graph = net.finish(x);
    let options = options(Some(Family::Direct), true);
    // The short fragment of 31 pixels has 15; filled up with a zero it has 16.
    let whole = input(&graph, 1);
    let short: Vec<f32> =
        whole.as_f32().expect("f32").chunks(31).flat_map(|row| row[..15].to_vec()).collect();
    let filled: Vec<f32> = short.chunks(15).flat_map(|row| [row, &[0.0]].concat()).collect();
    let of = |width: usize| {
        let mut graph = graph.clone();
        for value in &mut graph.values {
            if value.constant.is_none() {
                value.shape[3] = width;
            }
        }
        graph
    };
    let exact = run(&of(15), &options, &Tensor::f32([1, 2, 1, 15], short).expect("as many"));
    let leaky = run(&of(16), &options, &Tensor::f32([1, 2, 1, 16], filled).expect("as many"));
    let row = |tensor: &Tensor, width: usize| tensor.as_f32().expect("f32")[..width][..15].to_vec();
    let (exact, leaky) = (row(&exact, 15), row(&leaky, 16));
    assert_eq!(exact[..14], leaky[..14]);
    assert_ne!(exact[14], leaky[14], "the filler leaks into the last output");
}

// ---- what is refused ----

fn refusal(graph: &Graph, selection: &Selection) -> String {
    graph.densify(selection).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn a_stride_behind_a_removed_one_goes_too() {
    let graph = baseline(40, 2, false);
    let message = refusal(&graph, &Selection::Layers(vec!["n1".into()]));
    assert!(message.contains("\"n3\"") && message.contains("stays behind one that is removed"), "{message}");
    assert!(graph.densify(&Selection::Layers(vec!["n1".into(), "n3".into()])).is_ok());
    let message = refusal(&graph, &Selection::Layers(vec!["n0".into()]));
    assert!(message.contains("\"n0\" is no layer with a stride; those are n1, n3"), "{message}");
    assert!(refusal(&graph, &Selection::Last(3)).contains("the network has 2 one behind another"));
    assert!(refusal(&graph, &Selection::Last(0)).contains("0 strides"));
}

#[test]
fn branches_that_meet_lose_their_strides_together() {
    let mut net = Net::new(5, 16, [20, 20]);
    let x = net.block(net.graph.inputs[0], 16, 2);
    let graph = net.finish(x);
    let message = refusal(&graph, &Selection::Layers(vec!["n0".into()]));
    assert!(message.contains("remove the strides of all branches that meet"), "{message}");
    assert_eq!(graph.densify(&Selection::Last(1)).expect("both branches").removed.len(), 2);
}

#[test]
fn a_gate_from_a_whole_dense_map_is_refused() {
    let mut net = Net::new(5, 16, [20, 20]);
    let x = net.pool(net.graph.inputs[0], PoolKind::Max, 2, 2, [0, 0], false);
    let mean = net.add(Op::GlobalPool(PoolKind::Average), vec![x]);
    let gate = net.conv(mean, 16, 1, 1, [0, 0], 1);
    let x = net.add(Op::Binary(sinew::graph::BinaryOp::Mul), vec![x, gate]);
    let graph = net.finish(x);
    let message = refusal(&graph, &Selection::Last(1));
    assert!(message.contains("its gate comes from a whole map"), "{message}");
}

#[test]
fn weights_are_the_same_tensors() {
    let mut net = Net::new(9, 16, [20, 20]);
    let x = net.block(net.graph.inputs[0], 16, 2);
    let x = net.head(x, 5);
    let graph = net.finish(x);
    let dense = graph.densify(&Selection::Last(1)).expect("one stride").graph;
    for (a, b) in graph.nodes.iter().zip(&dense.nodes) {
        for (a, b) in a.inputs.iter().zip(&b.inputs) {
            assert_eq!(graph.constant(*a), dense.constant(*b));
        }
    }
    assert_eq!(graph.parameters(), dense.parameters());
}
