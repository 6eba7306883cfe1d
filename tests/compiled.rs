//! Compiled models: the same bits as the model they were written from, weights used in place, and an error for every
//! file that was not written so, checksums included.

#![allow(unsafe_code, reason = "a file of the test's own is read where it lies")]

#[path = "support/random_graph.rs"]
mod random_graph;

use std::sync::Arc;

use random_graph::{Choices, Seed, random_graph};
use sinew::graph::{Conv, Excite, Graph, Op, Pads};
use sinew::optimize::{PASSES, optimize};
use sinew::plan::file::LoadOptions;
use sinew::plan::{Family, Io, PlanOptions, Shortcut, Strassen, WeightType, Winograd};
use sinew::{Data, Error, Isa, Model, Options, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;
use xxhash_rust::xxh64::xxh64;

const HEADER: usize = 128;

/// Bytes that stay and are aligned, as those of a C array or of a mapped file are.
fn stays(bytes: &[u8]) -> &'static [u8] {
    let memory = Box::leak(vec![0u8; bytes.len() + 64].into_boxed_slice());
    let start = memory.as_ptr().align_offset(64);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    &memory[start..start + bytes.len()]
}

fn compile(graph: &Graph, options: &Options) -> (Model, Vec<u8>) {
    let model = Model::new(graph.clone(), options).expect("a checked graph is planned");
    let mut file = Vec::new();
    model.compile(&mut file).expect("memory can be written");
    (model, file)
}

fn input(graph: &Graph, choices: &mut impl Choices) -> Tensor {
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let data = (0..shape.iter().product()).map(|_| choices.number()).collect();
    Tensor::f32(shape, data).expect("as many numbers as the shape holds")
}

fn run(model: Model, input: &Tensor) -> Vec<Vec<u64>> {
    run_on(None, model, input)
}

fn run_on(isa: Option<Isa>, model: Model, input: &Tensor) -> Vec<Vec<u64>> {
    let options = SessionOptions { isa, threads: Some(1) };
    let mut session = Session::new(Arc::new(model), options).expect("a session");
    let outputs = session.run_tensors(std::slice::from_ref(input)).expect("an input that fits");
    let bits = |tensor: &Tensor| match tensor.data() {
        Data::F32(data) => data.iter().map(|x| u64::from(x.to_bits())).collect(),
        Data::I64(data) => data.iter().map(|&x| x as u64).collect(),
        Data::U8(_) => unreachable!("no outputs of 8 bits"),
    };
    outputs.iter().map(bits).collect()
}

fn variants() -> [Options; 6] {
    let plan = PlanOptions::default();
    let of = |plan: PlanOptions| Options { plan, ..Options::default() };
    [
        of(plan.clone()),
        of(PlanOptions { threads: 3, io: Io::Plain, ..plan.clone() }),
        of(PlanOptions { conv: Some(Family::Im2col), ..plan.clone() }),
        of(PlanOptions {
            conv: Some(Family::Winograd),
            winograd: Winograd::Tile(2),
            compact_weights: true,
            ..plan.clone()
        }),
        of(PlanOptions { weights: WeightType::F16, ..plan.clone() }),
        of(PlanOptions { weights: WeightType::F16, conv: Some(Family::Winograd), threads: 2, ..plan }),
    ]
}

#[test]
fn a_compiled_model_gives_the_same_bits() {
    for seed in 0..200 {
        let mut choices = Seed(seed);
        let graph = random_graph(&mut choices, 8);
        let input = input(&graph, &mut choices);
        for options in variants() {
            let (model, file) = compile(&graph, &options);
            let check = LoadOptions { check_weights: true, ..LoadOptions::default() };
            let copied = Model::from_compiled(&file, &check)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}: {graph:#?}"));
            let in_place = Model::in_place(stays(&file), &check).expect("a file that was just written");
            assert_eq!((copied.name(), copied.threads()), (model.name(), model.threads()));
            assert_eq!((copied.inputs(), copied.outputs()), (model.inputs(), model.outputs()));
            assert_eq!(copied.plan().arena_bytes(), model.plan().arena_bytes());
            let want = run(model, &input);
            assert_eq!(run(copied, &input), want, "seed {seed}, copied");
            assert_eq!(run(in_place, &input), want, "seed {seed}, in place");
        }
    }
}

/// Compiling is a function of the model: what is read back is written as the same bytes.
#[test]
fn compiling_again_gives_the_same_file() {
    let graph = random_graph(&mut Seed(7), 8);
    let (_, file) = compile(&graph, &Options::default());
    let read = Model::from_compiled(&file, &LoadOptions::default()).expect("a file that was just written");
    let mut again = Vec::new();
    read.compile(&mut again).expect("memory can be written");
    assert!(file == again);
}

#[test]
fn a_file_is_mapped_and_an_unaligned_array_refused() {
    let graph = random_graph(&mut Seed(3), 8);
    let (model, file) = compile(&graph, &Options::default());
    let path = std::env::temp_dir().join(format!("sinew-compiled-{}.sinew", std::process::id()));
    std::fs::write(&path, &file).expect("a folder for temporary files");
    let mapped = Model::open(&path, &LoadOptions::default());
    std::fs::remove_file(&path).expect("a file of our own");
    let input = input(&graph, &mut Seed(4));
    assert_eq!(run(mapped.expect("a file that was just written"), &input), run(model, &input));
    assert!(matches!(Model::open(&path, &LoadOptions::default()), Err(Error::File { .. })));

    let shifted = &stays(&[&[0; 4][..], &file].concat())[4..];
    let refused = Model::in_place(shifted, &LoadOptions::default()).expect_err("not aligned").to_string();
    assert!(refused.contains("64"), "{refused}");
}

/// The number of 16 bits that is nearest, the even one of two; by the definition.
fn to_16_bits(x: f32) -> f32 {
    let exponent = f64::from(x.abs()).log2().floor().max(-14.0) as i32;
    let unit = 2f64.powi(exponent - 10);
    ((f64::from(x) / unit).round_ties_even() * unit) as f32
}

/// The optimized graph with the weights of convolutions, dense layers and gates rounded, and nothing else.
fn rounded(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    optimize(&mut graph, &[]).expect("a checked graph");
    for index in 0..graph.nodes.len() {
        let inputs = graph.nodes[index].inputs.len();
        let weights: Vec<usize> = match &graph.nodes[index].op {
            Op::Conv(_) | Op::ConvMaxMin { .. } | Op::Dense { .. } | Op::Excite(Excite::ScaledConv(_)) => {
                vec![1]
            }
            Op::Excite(Excite::Gate { .. }) => (1..inputs).step_by(2).collect(),
            _ => vec![],
        };
        for at in weights {
            let id = graph.nodes[index].inputs[at];
            let values = graph.constant(id).expect("weights are constants").iter().map(|&x| to_16_bits(x));
            let tensor = Tensor::f32(graph.shape(id).to_vec(), values.collect()).expect("as many as before");
            let name = graph.value(id).name.clone();
            graph.nodes[index].inputs[at] = graph.add_constant(name, tensor);
        }
    }
    graph
}

#[test]
fn weights_of_16_bits_give_the_bits_of_the_rounded_graph() {
    let mut changed = 0;
    for seed in 0..150 {
        let mut choices = Seed(seed);
        let graph = random_graph(&mut choices, 8);
        let input = input(&graph, &mut choices);
        let rounded = rounded(&graph);
        for Options { plan, .. } in variants() {
            let exact = PlanOptions { weights: WeightType::F32, shortcut: Shortcut::Add, ..plan.clone() };
            let disabled_passes = PASSES.iter().map(|pass| pass.name.to_owned()).collect();
            let want = Model::new(rounded.clone(), &Options { plan: exact.clone(), disabled_passes })
                .unwrap_or_else(|error| panic!("seed {seed}: {error}: {rounded:#?}"));
            let want = run(want, &input);
            let half =
                Options { plan: PlanOptions { weights: WeightType::F16, ..plan }, ..Options::default() };
            let (model, file) = compile(&graph, &half);
            assert_eq!(run(model, &input), want, "seed {seed}, as planned");
            let check = LoadOptions { check_weights: true, ..LoadOptions::default() };
            for isa in [None, Some(Isa::Scalar)] {
                let in_place = Model::in_place(stays(&file), &check).expect("a file that was just written");
                assert_eq!(in_place.plan().owned_weights_bytes(), owned_where_halves(&file, &in_place));
                assert_eq!(run_on(isa, in_place, &input), want, "seed {seed}, {isa:?}");
            }
            let (exact, _) = compile(&graph, &Options { plan: exact, ..Options::default() });
            changed += usize::from(run(exact, &input) != want);
        }
    }
    assert!(changed > 300, "{changed} of 900: rounding that changes nothing proves nothing");
}

/// All weights are widened where any are halves: then the file holds fewer bytes than a run reads.
fn owned_where_halves(file: &[u8], model: &Model) -> usize {
    let stored = u64::from_le_bytes(file[32..40].try_into().expect("eight bytes")) as usize;
    let weights = model.plan().weights_bytes();
    if stored < weights { weights } else { 0 }
}

#[test]
fn weights_in_place_are_not_owned_and_copied_ones_are() {
    let (model, file) = compile(&random_graph(&mut Seed(7), 8), &Options::default());
    let bytes = model.plan().weights_bytes();
    assert_eq!(model.plan().owned_weights_bytes(), bytes);
    let copied = Model::from_compiled(&file, &LoadOptions::default()).expect("a file that was just written");
    assert_eq!(copied.plan().owned_weights_bytes(), bytes);
    let in_place =
        Model::in_place(stays(&file), &LoadOptions::default()).expect("a file that was just written");
    assert_eq!((in_place.plan().weights_bytes(), in_place.plan().owned_weights_bytes()), (bytes, 0));
}

/// A dense layer of 32 x 64 with one weight of its own.
fn dense(weight: f32) -> Graph {
    let mut graph = Graph::default();
    let input = graph.add_value("x", vec![1, 64], sinew::DType::F32);
    graph.inputs.push(input);
    let numbers =
        (0..32 * 64).map(|i| if i == 77 { weight } else { (i % 31) as f32 / 32.0 - 0.37 }).collect();
    let weights = graph.add_constant("w", Tensor::f32(vec![32, 64], numbers).expect("a full tensor"));
    let bias = graph.add_constant("b", Tensor::f32(vec![32], vec![0.1; 32]).expect("a full tensor"));
    let after = sinew_kernels::activation::Activation::Identity;
    let output =
        graph.add_node("last", Op::Dense { after }, vec![input, weights, bias]).expect("operands that fit");
    graph.outputs.push(output);
    graph
}

#[test]
fn a_weight_beyond_16_bits_is_refused_by_the_name_of_its_layer() {
    let options = Options {
        plan: PlanOptions { weights: WeightType::F16, ..PlanOptions::default() },
        ..Options::default()
    };
    for weight in [65504.0, -65504.0] {
        let (_, half) = compile(&dense(weight), &options);
        let (_, single) = compile(&dense(weight), &Options::default());
        let saved = single.len() - half.len();
        assert!(
            (32 * 64 * 2 - 64..=32 * 64 * 2).contains(&saved),
            "{saved}: half of the weights, a longer plan"
        );
    }
    for weight in [65505.0, -7e4, f32::INFINITY] {
        let error = Model::new(dense(weight), &options).expect_err("too large").to_string();
        assert!(error.contains("\"last\"") && error.contains("65504"), "{error}");
    }
}

/// Every damaged byte of header and plan is noticed, every damaged weight where that is asked for.
#[test]
fn checksums_notice_every_damage() {
    for options in [&variants()[0], &variants()[4]] {
        damage(options);
    }
}

fn damage(options: &Options) {
    let graph = random_graph(&mut Seed(11), 4);
    let (_, file) = compile(&graph, options);
    let check = LoadOptions { check_weights: true, ..LoadOptions::default() };
    let plan = u64::from_le_bytes(file[16..24].try_into().expect("eight bytes")) as usize;
    let weights = u64::from_le_bytes(file[24..32].try_into().expect("eight bytes")) as usize;
    for at in (0..HEADER + plan).chain((weights..file.len()).step_by(61)) {
        let mut damaged = file.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(Model::from_compiled(&damaged, &check).is_err(), "byte {at} of {}", file.len());
        let unchecked = Model::from_compiled(&damaged, &LoadOptions::default());
        assert_eq!(unchecked.is_ok(), at >= weights, "byte {at}");
    }
    for len in 0..file.len() {
        assert!(Model::from_compiled(&file[..len], &check).is_err(), "the first {len} bytes");
    }
}

/// The file with another plan and checksums that are right: what an attacker would write.
fn forged(file: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let field = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes")) as usize;
    let (plan, weights) = (field(16), field(24));
    let mut body = file[HEADER..HEADER + plan].to_vec();
    change(&mut body);
    let mut forged = file[..HEADER].to_vec();
    let start = (HEADER + body.len()).next_multiple_of(64);
    forged[16..24].copy_from_slice(&(body.len() as u64).to_le_bytes());
    forged[24..32].copy_from_slice(&(start as u64).to_le_bytes());
    forged[40..48].copy_from_slice(&xxh64(&body, 0).to_le_bytes());
    let sum = xxh64(&forged[..HEADER - 8], 0);
    forged[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
    forged.extend(body);
    forged.resize(start, 0);
    forged.extend(&file[weights..]);
    forged
}

#[test]
fn a_forged_file_with_nothing_changed_is_accepted() {
    let (_, file) = compile(&random_graph(&mut Seed(5), 6), &Options::default());
    assert!(forged(&file, |_| ()) == file);
}

/// Convolutions one after the other, each with these weights and this stride.
fn layers(choices: &mut impl Choices, shape: [usize; 4], layers: [([usize; 4], usize); 2]) -> Graph {
    let mut graph = Graph::default();
    let x = graph.add_value("x", shape.to_vec(), sinew::DType::F32);
    graph.inputs.push(x);
    let mut y = x;
    for (weights, stride) in layers {
        let [outputs, channels, height, width] = weights;
        let mut constant = |name: &str, shape: Vec<usize>| {
            let numbers = (0..shape.iter().product()).map(|_| choices.number()).collect();
            graph.add_constant(name, Tensor::f32(shape, numbers).expect("as many numbers"))
        };
        let operands = vec![y, constant("w", weights.to_vec()), constant("b", vec![outputs])];
        let conv = Conv {
            kernel: [height, width],
            stride: [stride; 2],
            dilation: [1; 2],
            pads: Pads { top: height / 2, left: width / 2, bottom: height / 2, right: width / 2 },
            groups: graph.shape(y)[1] / channels,
            before: Activation::Identity,
            residual: false,
            after: Activation::Relu,
        };
        y = graph.add_node("conv", Op::Conv(conv), operands).expect("it fits");
    }
    graph.outputs.push(y);
    graph
}

/// Plans with random changes and right checksums are refused, or they run to their end: no panic, no hang.
#[test]
fn forged_plans_never_panic() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300u64);
    let limits = LoadOptions {
        macs: 50_000_000,
        arena_bytes: 64 << 20,
        plan_bytes: 1 << 20,
        ..LoadOptions::default()
    };
    let (mut refused, mut ran) = (0, 0);
    for seed in 0..cases {
        let mut choices = Seed(seed);
        // What random graphs are too small for, or have no more than by chance.
        let (of_pixels, depthwise) = (seed % 8 == 7, seed % 8 == 3);
        let graph = if of_pixels {
            layers(&mut choices, [1, 32, 5, 7], [([64, 32, 1, 1], 1), ([64, 64, 1, 1], 2)])
        } else if depthwise {
            layers(&mut choices, [2, 3, 9, 35], [([3, 1, 5, 5], 2), ([3, 1, 3, 3], 1)])
        } else {
            random_graph(&mut choices, 6)
        };
        let mut options = variants()[choices.pick(6)].clone();
        if of_pixels {
            let weights = [WeightType::F32, WeightType::F16][choices.pick(2)];
            let threads = 1 + choices.pick(2);
            let plan = PlanOptions { strassen: Strassen::On, weights, threads, ..PlanOptions::default() };
            options = Options { plan, ..options };
        }
        let (model, file) = compile(&graph, &options);
        let has = |algorithm: &str| model.plan().steps.iter().any(|step| step.algorithm == algorithm);
        assert!(!of_pixels || has("strassen"), "layers of pixels");
        assert!(!depthwise || options.plan.io == Io::Blocked || has("row-major"), "layers on row-major maps");
        for _ in 0..60 {
            let forged = forged(&file, |body| {
                for _ in 0..=choices.pick(3) {
                    let at = choices.pick(body.len());
                    match choices.pick(6) {
                        0 => body[at] = choices.pick(256) as u8,
                        1 => body[at] = body[at].wrapping_add(1),
                        2 => body[at] = body[at].wrapping_sub(1),
                        3 => body[at] ^= 1 << choices.pick(8),
                        4 => body.insert(at, choices.pick(256) as u8),
                        _ => drop(body.remove(at)),
                    }
                }
            });
            let Ok(model) = Model::from_compiled(&forged, &limits) else {
                refused += 1;
                continue;
            };
            ran += 1;
            let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
            let mut session = Session::new(Arc::new(model), options).expect("a session");
            let inputs: Option<Vec<Tensor>> = session
                .model()
                .inputs()
                .iter()
                .map(|port| {
                    let data = match port.dtype {
                        sinew::DType::F32 => Data::F32(vec![0.5; port.len()]),
                        sinew::DType::U8 => Data::U8(vec![3; port.len()]),
                        sinew::DType::I64 => Data::I64(vec![3; port.len()]),
                    };
                    (port.len() < 1 << 24).then(|| Tensor::new(port.shape.clone(), data).ok()).flatten()
                })
                .collect();
            let small = session.model().outputs().iter().all(|port| port.len() < 1 << 24);
            if let Some(inputs) = inputs.filter(|_| small) {
                let run = std::panic::AssertUnwindSafe(|| session.run_tensors(&inputs).map(|_| ()));
                let result = std::panic::catch_unwind(run);
                assert!(result.is_ok(), "seed {seed}: accepted, then a panic");
            }
        }
    }
    assert!(refused > ran / 10 && ran > 0, "{refused} refused, {ran} ran: the changes test nothing");
}
