//! Random small graphs, as the tests make them, from the fuzzer's bytes: planned under random options, run, and every
//! instruction set's bits compared with those of the scalar table, dead lanes filled with NaN.
//!
//!     cargo +nightly fuzz run graph_to_plan

#![no_main]

#[path = "../../tests/support/random_graph.rs"]
mod random_graph;

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use random_graph::{Choices, random_graph};
use sinew::plan::{Family, Io, PlanOptions, Strassen, Winograd};
use sinew::{Data, Isa, Model, Options, Session, SessionOptions, Tensor};

/// Choices from bytes, two at a time; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Choices for Bytes<'_> {
    fn pick(&mut self, n: usize) -> usize {
        let mut next = || match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                usize::from(first)
            }
            None => 0,
        };
        let first = next();
        (if n > 256 { next() << 16 | next() << 8 | first } else { first }) % n
    }
}

fn bits(tensors: &[Tensor]) -> Vec<Vec<u32>> {
    let of = |tensor: &Tensor| match tensor.data() {
        Data::F32(data) => data.iter().map(|x| x.to_bits()).collect(),
        Data::I64(_) | Data::U8(_) => unreachable!("random graphs have outputs of f32"),
    };
    tensors.iter().map(of).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Bytes(bytes);
    let plan = PlanOptions {
        conv: [None, Some(Family::Direct), Some(Family::Im2col), Some(Family::Winograd)][choices.pick(4)],
        winograd: [Winograd::Auto, Winograd::Off, Winograd::Tile(2), Winograd::Tile(4)][choices.pick(4)],
        strassen: [Strassen::Auto, Strassen::Off, Strassen::On][choices.pick(3)],
        compact_weights: choices.pick(2) == 1,
        io: [Io::Plain, Io::Blocked][choices.pick(2)],
        ..PlanOptions::default()
    };
    let graph = random_graph(&mut choices, 6);
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 3e38];
    let data = (0..shape.iter().product())
        .map(|_| if choices.pick(40) == 39 { special[choices.pick(special.len())] } else { choices.number() });
    let input = Tensor::f32(shape.clone(), data.collect()).expect("as many numbers as the shape holds");
    let model = Model::new(graph, &Options { plan, ..Options::default() }).expect("a checked graph is planned");
    let model = Arc::new(model);
    let run = |isa: Isa, poison: bool| {
        let options = SessionOptions { isa: Some(isa), ..SessionOptions::default() };
        let mut session = Session::new(Arc::clone(&model), options).expect("a supported instruction set");
        session.set_poison(poison);
        let inputs = [sinew::Input::from(&input)];
        let mut results = session.new_outputs().expect("shapes of the plan");
        session.load_inputs(&inputs).expect("the model's input");
        let mut outputs = sinew::run::outputs_of(&mut results);
        session.run(&inputs, &mut outputs).expect("the model's inputs and outputs");
        session.store_outputs(&mut outputs).expect("the model's outputs");
        drop(outputs);
        bits(&results)
    };
    let want = run(Isa::Scalar, false);
    for table in sinew_kernels::isa::supported() {
        assert_eq!(run(table.isa, true), want, "{}", table.isa);
    }
});
