//! Random small graphs: every instruction set and number of threads gives the same bits, dead lanes do not matter, and
//! the values are those of a naive f64 interpreter.

#[path = "support/random_graph.rs"]
mod random_graph;
#[path = "support/reference.rs"]
mod reference;

use std::sync::Arc;

use random_graph::{Choices, Seed, random_graph};
use reference::Exact;
use sinew::graph::Graph;
use sinew::plan::{Family, PlanOptions, Winograd};
use sinew::{Data, Isa, Model, Options, Session, SessionOptions, Tensor};

fn isas() -> Vec<Isa> {
    let supported: Vec<Isa> = sinew_kernels::isa::supported().iter().map(|table| table.isa).collect();
    for required in
        std::env::var("REQUIRE_ISA").unwrap_or_default().split(',').filter(|name| !name.is_empty())
    {
        assert!(supported.iter().any(|isa| isa.name() == required), "{required} is required and not there");
    }
    supported
}

fn input(graph: &Graph, choices: &mut impl Choices) -> Tensor {
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let data = (0..shape.iter().product()).map(|_| choices.number()).collect();
    Tensor::f32(shape, data).expect("as many numbers as the shape holds")
}

fn run(graph: &Graph, options: &Options, isa: Isa, poison: bool, input: &Tensor) -> Vec<Tensor> {
    let model = Arc::new(Model::new(graph.clone(), options).expect("a checked graph is planned"));
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported instruction set");
    session.set_poison(poison);
    let first = session.run_tensors(std::slice::from_ref(input)).expect("inputs of the model's shape");
    let second = session.run_tensors(std::slice::from_ref(input)).expect("inputs of the model's shape");
    assert!(bits(&first) == bits(&second), "a second run on the same arena differs: {graph:#?}");
    first
}

fn bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
    let of = |tensor: &Tensor| match tensor.data() {
        Data::F32(data) => data.iter().map(|x| u64::from(x.to_bits())).collect(),
        Data::I64(data) => data.iter().map(|&x| x as u64).collect(),
        Data::U8(data) => data.iter().map(|&x| u64::from(x)).collect(),
    };
    tensors.iter().map(of).collect()
}

fn threads(threads: usize) -> Options {
    Options { plan: PlanOptions { threads, ..PlanOptions::default() }, ..Options::default() }
}

fn forced(conv: Family, winograd: Winograd) -> Options {
    Options {
        plan: PlanOptions { conv: Some(conv), winograd, ..PlanOptions::default() },
        ..Options::default()
    }
}

/// The number of graphs: fewer under emulation.
fn cases() -> u64 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_bits() {
    let isas = isas();
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let graph = random_graph(&mut choices, 8);
        let input = input(&graph, &mut choices);
        let mut streamed = forced(Family::Winograd, Winograd::Tile(4));
        streamed.plan.l2_bytes = 0;
        for options in [
            threads(1),
            forced(Family::Im2col, Winograd::Off),
            forced(Family::Winograd, Winograd::Tile(2)),
            streamed,
        ] {
            let want = bits(&run(&graph, &options, Isa::Scalar, false, &input));
            for &isa in &isas {
                for poison in [false, true] {
                    let got = bits(&run(&graph, &options, isa, poison, &input));
                    assert_eq!(got, want, "seed {seed}, {isa}, poison {poison}, {options:?}: {graph:#?}");
                }
            }
            #[cfg(feature = "parallel")]
            for threads in [2, 3] {
                let plan = PlanOptions { threads, ..options.plan.clone() };
                let got = bits(&run(&graph, &Options { plan, ..options.clone() }, isas[0], false, &input));
                assert_eq!(got, want, "seed {seed}, {threads} threads");
            }
        }
    }
}

/// Whether each value lies within the interpreter's bound.
fn assert_close(got: &[Tensor], want: &[Exact], what: &str) {
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.shape(), want.shape, "{what}");
        let values: Vec<f64> = match got.data() {
            Data::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Data::I64(data) => data.iter().map(|&x| x as f64).collect(),
            Data::U8(_) => unreachable!("no outputs of 8 bits"),
        };
        for (i, (got, (want, error))) in values.iter().zip(want.values.iter().zip(&want.error)).enumerate() {
            let bound = 2.0 * error * f64::from(f32::EPSILON) + 1e-35;
            assert!(
                (got - want).abs() <= bound || got.is_nan() && want.is_nan(),
                "{what}: element {i} is {got}, want {want} within {bound}"
            );
        }
    }
}

#[test]
fn values_are_those_of_the_reference() {
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let graph = random_graph(&mut choices, 8);
        let input = input(&graph, &mut choices);
        let data = input.as_f32().expect("inputs are f32").iter().map(|&x| f64::from(x)).collect();
        let want = reference::evaluate(&graph, &[Exact::new(input.shape().to_vec(), data)]);
        let off: Vec<String> = sinew::optimize::PASSES.iter().map(|pass| pass.name.to_owned()).collect();
        let compact = forced(Family::Winograd, Winograd::Tile(2));
        let compact = Options { plan: PlanOptions { compact_weights: true, ..compact.plan }, ..compact };
        let variants = [
            ("all passes", Options::default()),
            ("no passes", Options { disabled_passes: off, ..Options::default() }),
            ("direct", forced(Family::Direct, Winograd::Off)),
            ("im2col", forced(Family::Im2col, Winograd::Off)),
            ("winograd 2", forced(Family::Winograd, Winograd::Tile(2))),
            ("winograd 2 from plain weights", compact),
        ];
        for (what, options) in variants {
            let got = run(&graph, &options, Isa::Scalar, false, &input);
            assert_close(&got, &want, &format!("seed {seed}, {what}: {graph:#?}"));
        }
    }
}

#[test]
fn bitwise_passes_leave_every_bit() {
    let bitwise = |pass: &&sinew::optimize::Pass| pass.bitwise;
    let off: Vec<String> =
        sinew::optimize::PASSES.iter().filter(bitwise).map(|pass| pass.name.to_owned()).collect();
    for seed in 0..cases() {
        let mut choices = Seed(seed);
        let graph = random_graph(&mut choices, 10);
        let input = input(&graph, &mut choices);
        let plan = PlanOptions { winograd: Winograd::Off, ..PlanOptions::default() };
        let on = Options { plan: plan.clone(), ..Options::default() };
        let off = Options { plan, disabled_passes: off.clone() };
        let (with, without) =
            (run(&graph, &on, Isa::Scalar, false, &input), run(&graph, &off, Isa::Scalar, false, &input));
        assert_eq!(bits(&with), bits(&without), "seed {seed}: {graph:#?}");
    }
}
