//! Compiled models: the same bits as the model they were written from, weights used in place, and an error for every
//! file that was not written so, checksums included.

#![allow(unsafe_code, reason = "a file of the test's own is read where it lies")]

#[path = "support/random_graph.rs"]
mod random_graph;

use std::sync::Arc;

use random_graph::{Choices, Seed, random_graph};
use sinew::graph::Graph;
use sinew::plan::file::LoadOptions;
use sinew::plan::{Family, Io, PlanOptions, Winograd};
use sinew::{Data, Error, Model, Options, Session, SessionOptions, Tensor};
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
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let mut session = Session::new(Arc::new(model), options).expect("a session");
    let outputs = session.run_tensors(std::slice::from_ref(input)).expect("an input that fits");
    let bits = |tensor: &Tensor| match tensor.data() {
        Data::F32(data) => data.iter().map(|x| u64::from(x.to_bits())).collect(),
        Data::I64(data) => data.iter().map(|&x| x as u64).collect(),
        Data::U8(_) => unreachable!("no outputs of 8 bits"),
    };
    outputs.iter().map(bits).collect()
}

fn variants() -> [Options; 4] {
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
            ..plan
        }),
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

/// Every damaged byte of header and plan is noticed, every damaged weight where that is asked for.
#[test]
fn checksums_notice_every_damage() {
    let graph = random_graph(&mut Seed(11), 4);
    let (_, file) = compile(&graph, &Options::default());
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
        let graph = random_graph(&mut choices, 6);
        let options = &variants()[choices.pick(4)];
        let (_, file) = compile(&graph, options);
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
