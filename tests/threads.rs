//! Steps that are no convolutions, on maps large enough to be shared out: any number of threads gives the same bits.

#[path = "support/numbers.rs"]
mod numbers;

use std::sync::Arc;

use numbers::Numbers;
use sinew::graph::{BinaryOp, Graph, MaxMinOrder, Op, PoolKind, ValueId};
use sinew::plan::{Io, PlanOptions};
use sinew::{DType, Data, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

/// One image of 40 channels and a size that nothing divides: 1.3 MB, worth several threads.
const SHAPE: [usize; 4] = [1, 40, 89, 91];

/// A graph of one input, as `build` continues it.
fn graph(shape: &[usize], dtype: DType, build: impl Fn(&mut Graph, ValueId) -> Vec<ValueId>) -> Graph {
    let mut graph = Graph::default();
    let x = graph.add_value("x", shape.to_vec(), dtype);
    graph.inputs.push(x);
    graph.outputs = build(&mut graph, x);
    for (i, id) in graph.outputs.clone().into_iter().enumerate() {
        graph.values[id.0].name = format!("y{i}");
    }
    graph
}

fn node(graph: &mut Graph, op: Op, x: ValueId) -> ValueId {
    graph.add_node(op.name(), op, vec![x]).expect("it fits")
}

fn bits(tensors: &[Tensor]) -> Vec<u64> {
    let of = |tensor: &Tensor| -> Vec<u64> {
        match tensor.data() {
            Data::F32(data) => data.iter().map(|x| u64::from(x.to_bits())).collect(),
            Data::I64(data) => data.iter().map(|&x| x as u64).collect(),
            Data::U8(data) => data.iter().map(|&x| u64::from(x)).collect(),
        }
    };
    tensors.iter().flat_map(of).collect()
}

fn run(graph: &Graph, plan: PlanOptions, isa: Isa, input: &Tensor) -> (Vec<u64>, Vec<String>) {
    let options = Options { plan, disabled_passes: vec!["remove_identity".to_owned()] };
    let model = Arc::new(Model::new(graph.clone(), &options).expect("a checked graph is planned"));
    let steps = model.plan().steps.iter().map(|step| step.op.to_string()).collect();
    let mut session = Session::new(model, SessionOptions { isa: Some(isa), ..SessionOptions::default() })
        .expect("a supported instruction set");
    session.set_poison(true);
    let inputs = [sinew::Input::from(input)];
    let mut results = session.new_outputs().expect("shapes of the plan");
    let mut outputs = sinew::run::outputs_of(&mut results);
    session.load_inputs(&inputs).expect("an input of the model's shape");
    session.run(&inputs, &mut outputs).expect("an input of the model's shape");
    session.store_outputs(&mut outputs).expect("outputs of the model's shapes");
    drop(outputs);
    (bits(&results), steps)
}

/// Runs the graph on every instruction set and several numbers of threads, with the steps it is about.
fn check(graph: &Graph, steps: &[&str], input: &Tensor) -> Vec<u64> {
    let (want, found) = run(graph, PlanOptions::default(), Isa::Scalar, input);
    for step in steps {
        assert!(found.iter().any(|found| found == step), "{step} is not among {found:?}");
    }
    for table in sinew_kernels::isa::supported() {
        for threads in [1, 2, 3, 5] {
            for io in [Io::Plain, Io::Blocked] {
                let plan = PlanOptions { threads, io, ..PlanOptions::default() };
                let (got, _) = run(graph, plan, table.isa, input);
                assert!(got == want, "{steps:?}: {} with {threads} threads, {io:?}", table.isa);
            }
        }
    }
    want
}

fn image(shape: &[usize]) -> Tensor {
    let mut numbers = Numbers(1);
    let mut values: Vec<f32> =
        std::iter::repeat_with(|| numbers.next()).take(shape.iter().product()).collect();
    let special = [f32::NAN, f32::INFINITY, -0.0, 1e-40];
    for (value, special) in values.iter_mut().step_by(5003).zip(special.into_iter().cycle()) {
        *value = special;
    }
    Tensor::f32(shape, values).expect("as many numbers as the shape holds")
}

#[test]
fn pixels_across_channels() {
    for shape in [SHAPE, [2, 70, 50, 61]] {
        let softmax = graph(&shape, DType::F32, |graph, x| vec![node(graph, Op::Softmax { axis: 1 }, x)]);
        check(&softmax, &["softmax", "unpack"], &image(&shape));
        let lrn = Op::Lrn { size: 5, alpha: 0.5, beta: 0.75, bias: 1.0 };
        let lrn = graph(&shape, DType::F32, |graph, x| vec![node(graph, lrn.clone(), x)]);
        check(&lrn, &["lrn"], &image(&shape));
    }
    // More channels than one call gets planes: one thread, the same bits.
    let shape = [1, 2100, 14, 15];
    let wide = graph(&shape, DType::F32, |graph, x| vec![node(graph, Op::Softmax { axis: 1 }, x)]);
    check(&wide, &["softmax"], &image(&shape));
}

#[test]
fn planes() {
    let pools = graph(&SHAPE, DType::F32, |graph, x| {
        [PoolKind::Average, PoolKind::Max].map(|kind| node(graph, Op::GlobalPool(kind), x)).to_vec()
    });
    check(&pools, &["global-average", "global-max"], &image(&SHAPE));
    for order in [MaxMinOrder::PositiveFirst, MaxMinOrder::NegativeFirst] {
        let both = graph(&SHAPE, DType::F32, |graph, x| vec![node(graph, Op::MaxMin { order }, x)]);
        check(&both, &["maxmin"], &image(&SHAPE));
    }
}

#[test]
fn pixels_of_fragments() {
    let phases = [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]];
    // Few blocks are shared out by rows, many by blocks.
    for shape in [SHAPE, [2, 10, 181, 120], [1, 100, 40, 31]] {
        let apart = graph(&shape, DType::F32, |graph, x| {
            let y = node(graph, Op::Unary(Activation::Relu), x);
            let parts = phases.map(|[down, across]| {
                let size =
                    vec![shape[0], shape[1], (shape[2] - down).div_ceil(3), (shape[3] - across).div_ceil(2)];
                let part = Op::Slice { start: vec![0, 0, down, across], step: vec![1, 1, 3, 2], size };
                let part = node(graph, part, y);
                node(graph, Op::Unary(Activation::Tanh), part)
            });
            let whole =
                graph.add_node("whole", Op::Interleave { steps: [3, 2] }, parts.to_vec()).expect("it fits");
            vec![whole]
        });
        let got = check(&apart, &["copy"], &image(&shape));
        let whole = graph(&shape, DType::F32, |graph, x| {
            let y = node(graph, Op::Unary(Activation::Relu), x);
            vec![node(graph, Op::Unary(Activation::Tanh), y)]
        });
        assert!(got == check(&whole, &[], &image(&shape)), "{shape:?}");
    }
}

#[test]
fn elements_in_rows() {
    let permutation = vec![0, 2, 3, 1];
    let turned = graph(&SHAPE, DType::F32, |graph, x| {
        let y = node(graph, Op::Unary(Activation::Relu), x);
        vec![node(graph, Op::Transpose { permutation: permutation.clone() }, y)]
    });
    let got = check(&turned, &["unpack"], &image(&SHAPE));
    let [_, channels, height, width] = SHAPE;
    let input = image(&SHAPE);
    let input = input.as_f32().expect("inputs are f32");
    for (i, &got) in got.iter().enumerate().step_by(977) {
        let (pixel, channel) = (i / channels, i % channels);
        let x = input[channel * height * width + pixel];
        let want = if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { x.max(0.0) + 0.0 };
        assert_eq!(got, u64::from(want.to_bits()), "element {i}");
    }
    let padded = graph(&[SHAPE[0], SHAPE[1], SHAPE[2] * SHAPE[3]], DType::F32, |graph, x| {
        let pad = Op::Pad { amounts: vec![[0, 0], [2, 1], [3, 4]], value: 0.5 };
        vec![node(graph, pad, x)]
    });
    check(&padded, &["copy"], &image(&[SHAPE[0], SHAPE[1], SHAPE[2] * SHAPE[3]]));
}

/// Bytes that are only packed are read where they are; where something else takes them as numbers they are converted.
#[test]
fn bytes() {
    let shape = [2, 40, 89, 61];
    let count: usize = shape.iter().product();
    let data: Vec<u8> = (0..count).map(|i| (i * 31 % 251) as u8).collect();
    let floats = Tensor::f32(shape, data.iter().map(|&x| f32::from(x)).collect()).expect("it fits");
    let bytes = Tensor::new(shape.to_vec(), Data::U8(data)).expect("it fits");
    let halves = |graph: &mut Graph, x: ValueId| {
        let mean = graph.add_constant("mean", Numbers(2).tensor(&[1, 80, 1, 1]));
        let halves = node(graph, Op::MaxMin { order: MaxMinOrder::PositiveFirst }, x);
        graph.add_node("scaled", Op::Binary(BinaryOp::Sub), vec![halves, mean]).expect("it fits")
    };
    let packed = |dtype| graph(&shape, dtype, |graph, x| vec![halves(graph, x)]);
    let (_, steps) = run(&packed(DType::U8), PlanOptions::default(), Isa::Scalar, &bytes);
    assert!(!steps.iter().any(|step| step == "convert"), "{steps:?}");
    let plan = |dtype| {
        let model = Model::new(packed(dtype), &Options::default()).expect("a checked graph is planned");
        model.plan().arena_bytes()
    };
    assert_eq!(plan(DType::U8), plan(DType::F32), "no plane of converted numbers is stored");
    let want = check(&packed(DType::F32), &["pack"], &floats);
    assert!(check(&packed(DType::U8), &["pack"], &bytes) == want);

    let both = |dtype| {
        graph(&shape, dtype, |graph, x| {
            let turned = node(graph, Op::Transpose { permutation: vec![3, 2, 1, 0] }, x);
            vec![halves(graph, x), turned]
        })
    };
    let want = check(&both(DType::F32), &["pack", "copy"], &floats);
    assert!(check(&both(DType::U8), &["convert", "pack", "copy"], &bytes) == want);
}
