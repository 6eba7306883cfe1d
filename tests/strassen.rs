//! Layers with Strassen's algorithm in whole networks: the same bits on every instruction set and any number of threads, compiled or
//! not, in a dense network as in its baseline; and which layers are computed so.

#[allow(dead_code, reason = "the networks here are few")]
#[path = "support/dense_nets.rs"]
mod dense_nets;
#[allow(dead_code, reason = "the networks here are others")]
#[path = "support/random_graph.rs"]
mod random_graph;

use std::sync::Arc;

use dense_nets::Net;
use random_graph::{Choices, Seed};
use sinew::graph::{BinaryOp, Graph, Op, PoolKind};
use sinew::optimize::densify::{Dense, Selection};
use sinew::plan::file::LoadOptions;
use sinew::plan::{Family, PlanOptions, Strassen, WeightType};
use sinew::{Isa, Model, Options, Session, SessionOptions, Tensor};

fn options(plan: PlanOptions) -> Options {
    Options { plan, ..Options::default() }
}

fn model(graph: &Graph, plan: &PlanOptions) -> Model {
    Model::new(graph.clone(), &options(plan.clone())).expect("a checked graph is planned")
}

/// How many steps are computed so.
fn steps(model: &Model) -> usize {
    model.plan().steps.iter().filter(|step| step.algorithm == "strassen").count()
}

fn run(model: Model, isa: Isa, poison: bool, input: &Tensor) -> Vec<f32> {
    let options = SessionOptions { isa: Some(isa), ..SessionOptions::default() };
    let mut session = Session::new(Arc::new(model), options).expect("a supported instruction set");
    session.set_poison(poison);
    let out = session.run_tensors(std::slice::from_ref(input)).expect("an input of the model's shape");
    out[0].as_f32().expect("outputs are f32").to_vec()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn input(graph: &Graph, number: impl FnMut() -> f32) -> Tensor {
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let count = shape.iter().product();
    Tensor::f32(shape, std::iter::repeat_with(number).take(count).collect()).expect("as many numbers")
}

/// A residual block of 1x1 layers, the second with a stride, and its shortcut: of `channels` and twice as many.
fn bottleneck(channels: usize, size: [usize; 2]) -> Graph {
    let mut net = Net::new(3, channels, size);
    let x = net.graph.inputs[0];
    let main = net.conv(x, channels, 1, 1, [0, 0], 1);
    let main = net.relu(main);
    let main = net.conv(main, 2 * channels, 1, 2, [0, 0], 1);
    let short = net.conv(x, 2 * channels, 1, 2, [0, 0], 1);
    let sum = net.add(Op::Binary(BinaryOp::Add), vec![main, short]);
    let y = net.relu(sum);
    net.finish(y)
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
    let isas: Vec<Isa> = sinew_kernels::isa::supported().iter().map(|table| table.isa).collect();
    // one unit of pixels in the layers with the stride, several, and an odd number
    for (channels, size) in [(128, [16, 16]), (128, [29, 31]), (128, [17, 17])] {
        let graph = bottleneck(channels, size);
        let mut seed = Seed(5);
        let input = input(&graph, || seed.number());
        let one = model(&graph, &PlanOptions::default());
        assert_eq!(steps(&one), 3, "{channels} channels, {size:?}");
        let want = bits(&run(one, Isa::Scalar, false, &input));
        for &isa in &isas {
            for (threads, poison) in [(1, false), (2, true), (3, false), (7, false)] {
                let plan = PlanOptions { threads, ..PlanOptions::default() };
                let got = bits(&run(model(&graph, &plan), isa, poison, &input));
                assert!(got == want, "{channels} channels, {size:?}, {isa}, {threads} threads");
            }
        }
    }
}

/// Where no sum is rounded, what comes out is what comes out without the algorithm.
#[test]
fn without_rounding_it_changes_nothing() {
    let mut graph = bottleneck(128, [18, 20]);
    let mut seed = Seed(9);
    let mut small = || seed.pick(5) as f32 - 2.0;
    for value in &mut graph.values {
        if let Some(constant) = &value.constant {
            let shape = constant.shape().to_vec();
            let numbers = (0..constant.len()).map(|_| small()).collect();
            value.constant = Some(Arc::new(Tensor::f32(shape, numbers).expect("as many numbers")));
        }
    }
    let input = input(&graph, small);
    let [on, off] = [Strassen::On, Strassen::Off].map(|strassen| {
        let model = model(&graph, &PlanOptions { strassen, ..PlanOptions::default() });
        assert_eq!(steps(&model), if strassen == Strassen::On { 3 } else { 0 });
        run(model, sinew_kernels::isa::supported()[0].isa, false, &input)
    });
    assert!(on.iter().any(|&x| x != 0.0) && on == off);
}

#[test]
fn a_compiled_model_has_the_same_bits() {
    let graph = bottleneck(128, [16, 18]);
    let mut seed = Seed(7);
    let input = input(&graph, || seed.number());
    let isa = sinew_kernels::isa::supported()[0].isa;
    for weights in [WeightType::F32, WeightType::F16] {
        let model = model(&graph, &PlanOptions { weights, ..PlanOptions::default() });
        assert_eq!(steps(&model), 3);
        let mut file = Vec::new();
        model.compile(&mut file).expect("memory can be written");
        let read =
            Model::from_compiled(&file, &LoadOptions::default()).expect("a file that was just written");
        assert_eq!(
            bits(&run(read, isa, false, &input)),
            bits(&run(model, isa, false, &input)),
            "{weights:?}"
        );
    }
}

/// A stride that is removed makes four maps of a layer, the first of which is the baseline's.
#[test]
fn dense_layers_equal_their_baseline() {
    for size in [[28, 30], [33, 31]] {
        let graph = bottleneck(128, size);
        let mut seed = Seed(11);
        let input = input(&graph, || seed.number());
        let Dense { graph: dense, outputs, .. } = graph.densify(&Selection::Last(1)).expect("a stride");
        let step = outputs[0].step;
        let plan = PlanOptions::default();
        let [small, large] = [&graph, &dense].map(|graph| {
            let model = model(graph, &plan);
            assert!(steps(&model) >= 3, "{size:?}");
            run(model, sinew_kernels::isa::supported()[0].isa, false, &input)
        });
        let [own, all] = [&graph, &dense].map(|graph| graph.shape(graph.outputs[0]).to_vec());
        for (index, want) in small.iter().enumerate() {
            let (plane, y, x) = (index / (own[2] * own[3]), index / own[3] % own[2], index % own[3]);
            let got = large[(plane * all[2] + y * step[0]) * all[3] + x * step[1]];
            assert_eq!(got.to_bits(), want.to_bits(), "{size:?} plane {plane}, row {y}, column {x}");
        }
    }
}

/// A stride beyond the map leaves one pixel, and no fragments: the dense layer is computed as that pixel is.
#[test]
fn a_map_that_is_not_taken_apart_has_the_bits_of_its_baseline() {
    let mut net = Net::new(3, 128, [12, 12]);
    let x = net.graph.inputs[0];
    let y = net.conv(x, 128, 1, 16, [0, 0], 1);
    let graph = net.finish(y);
    let mut seed = Seed(13);
    let input = input(&graph, || seed.number());
    let dense = graph.densify(&Selection::Last(1)).expect("a stride").graph;
    let [small, large] = [&graph, &dense].map(|graph| {
        let model = model(graph, &PlanOptions::default());
        assert_eq!(steps(&model), 0);
        run(model, sinew_kernels::isa::supported()[0].isa, false, &input)
    });
    let first_pixels: Vec<f32> = large.iter().copied().step_by(12 * 12).collect();
    assert_eq!(bits(&small), bits(&first_pixels));
}

/// A dense layer behind the mean of the map is one pixel of the baseline: it stays one layer on the whole dense map.
#[test]
fn a_dense_layer_is_not_taken_apart() {
    let mut net = Net::new(5, 32, [17, 17]);
    let x = net.graph.inputs[0];
    let pooled = net.pool(x, PoolKind::Max, 2, 2, [0, 0], false);
    let y = net.head(pooled, 64);
    let graph = net.finish(y);
    let dense = graph.densify(&Selection::Last(1)).expect("a stride").graph;
    for graph in [&graph, &dense] {
        let model = model(graph, &PlanOptions::default());
        let layers = model.plan().steps.iter().filter(|step| step.name == "n3").count();
        assert_eq!(layers, 1);
    }
}

/// One layer of 1x1.
fn layer(channels: [usize; 2], size: usize, groups: usize) -> Graph {
    let mut net = Net::new(1, channels[0], [size; 2]);
    let x = net.graph.inputs[0];
    let y = net.conv(x, channels[1], 1, 1, [0, 0], groups);
    net.finish(y)
}

/// What `docs/strassen.md` says.
#[test]
fn layers_are_chosen_by_shape_and_options() {
    let is_chosen = |graph: &Graph, plan: PlanOptions| steps(&model(graph, &plan)) == 1;
    let auto = PlanOptions::default();
    for (channels, size, groups, chosen) in [
        ([128, 128], 14, 1, true),
        ([96, 192], 8, 1, true),
        // few channels, few pixels, blocks that are no pairs or groups of four, channels that are no blocks, groups
        ([64, 256], 14, 1, false),
        ([256, 64], 14, 1, false),
        ([512, 512], 7, 1, false),
        ([112, 128], 14, 1, false),
        ([128, 112], 14, 1, false),
        ([120, 128], 14, 1, false),
        ([256, 256], 14, 2, false),
    ] {
        assert_eq!(
            is_chosen(&layer(channels, size, groups), auto.clone()),
            chosen,
            "{channels:?} {size} {groups}"
        );
    }
    let large = layer([128, 128], 14, 1);
    let on = PlanOptions { strassen: Strassen::On, ..auto.clone() };
    assert!(is_chosen(&layer([32, 64], 2, 1), on.clone()) && !is_chosen(&layer([112, 128], 14, 1), on));
    assert!(!is_chosen(&large, PlanOptions { strassen: Strassen::Off, ..auto.clone() }));
    assert!(!is_chosen(&large, PlanOptions { compact_weights: true, ..auto.clone() }));
    assert!(!is_chosen(&large, PlanOptions { conv: Some(Family::Direct), ..auto.clone() }));
    assert!(is_chosen(&large, PlanOptions { error_budget: Some(9.0), ..auto.clone() }));
    assert!(!is_chosen(&large, PlanOptions { error_budget: Some(8.9), ..auto }));
}
