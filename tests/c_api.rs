//! The C interface as an integrator sees it: the static library, the header and the system's compiler. Programs of
//! `examples/c` and `tests/c` are built and run, and their answers compared with those of the Rust interface.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};

use sinew::onnx::{ImportOptions, import};
use sinew::plan::file::LoadOptions;
use sinew::preprocess::{Pixels, Preprocess};
use sinew::{Data, Model, Options, Session, SessionOptions, Tensor};

/// Largest growth of a C program that uses the whole interface, linked as below: bytes. Measured figures stand in
/// docs/integrating.md; this leaves less than a page.
const SIZE_LIMIT: u64 = 1_179_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for what these tests make.
fn folder() -> &'static Path {
    let folder = Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/c_api"));
    std::fs::create_dir_all(folder).expect("a folder that can be made");
    folder
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a command prints; it must succeed.
fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// `target/release`, wherever it is.
fn profile_folder() -> PathBuf {
    let program = std::env::current_exe().expect("a running test");
    program.ancestors().nth(2).expect("target/release/deps/test").to_owned()
}

/// The static library, with the shared one beside it: for compiled models only, in the profile for devices.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let target = profile_folder().parent().expect("a target folder").to_owned();
        let arguments =
            "rustc --quiet -p sinew --lib --crate-type staticlib,cdylib --profile dist --no-default-features";
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(root()).args(arguments.split(' ')).args(["--features", "capi", "--target-dir"]);
        succeed(cargo.arg(&target));
        target.join("dist/libsinew.a")
    })
}

/// Builds a C or C++ program against the library.
fn build(source: &str, name: &str, options: &[&str]) -> PathBuf {
    // With an ending: a program called `memory` would be what C++ includes as <memory> from this folder.
    let program = folder().join(format!("{name}.out"));
    let source = root().join(source);
    let cpp = source.extension().is_some_and(|extension| extension == "cpp");
    let mut compiler = Command::new(if cpp { "c++" } else { "cc" });
    compiler.args(if cpp { ["-std=c++17"] } else { ["-std=gnu11"] });
    compiler.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-I"]).arg(root().join("src/c_api"));
    compiler.arg("-I").arg(folder()).arg(source).arg("-o").arg(&program).arg(library());
    succeed(compiler.args(["-lm", "-lpthread", "-ldl"]).args(options));
    program
}

/// A model file with random weights, in ONNX.
fn network(kind: &str, arguments: &[&str]) -> PathBuf {
    let path = folder().join(format!("{kind}{}.onnx", arguments.concat()));
    static MADE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MADE.lock();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args([
        "run",
        "--quiet",
        "-p",
        "sinew",
        "--example",
        "make_model",
        "--target-dir",
    ]);
    cargo.arg(profile_folder().parent().expect("a target folder"));
    if profile_folder().ends_with("release") {
        cargo.arg("--release");
    }
    succeed(cargo.arg("--").arg(kind).arg(&path).args(arguments));
    path
}

fn compile(onnx: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = folder().join(name);
    let flag = if name.ends_with(".h") { "--c-array" } else { "--output" };
    succeed(
        Command::new(env!("CARGO_BIN_EXE_sinew"))
            .arg("compile")
            .arg(onnx)
            .arg(flag)
            .arg(&path)
            .args(arguments),
    );
    path
}

fn small() -> PathBuf {
    network("resnet", &["--size", "64", "--width", "0.25"])
}

fn load(onnx: &Path) -> Arc<Model> {
    let bytes = std::fs::read(onnx).expect("a model file");
    let graph = import(&bytes, &ImportOptions::default()).expect("a supported model").graph;
    Arc::new(Model::new(graph, &Options::default()).expect("a checked graph"))
}

fn outputs(model: &Arc<Model>, inputs: &[Tensor]) -> Vec<f32> {
    let mut session = Session::new(Arc::clone(model), SessionOptions::default()).expect("a session");
    let outputs = session.run_tensors(inputs).expect("inputs that fit");
    outputs[0].as_f32().expect("an f32 output").to_vec()
}

/// Runs a program under memcheck as well: no error, no leak. `REQUIRE_VALGRIND` makes its absence a failure.
fn memcheck(program: &Path, arguments: &[&Path]) {
    if run(Command::new("sh").args(["-c", "command -v valgrind"])).status.success() {
        let mut valgrind = Command::new("valgrind");
        // An instruction set that it can emulate.
        let isa = if cfg!(target_arch = "x86_64") { "avx2" } else { "neon" };
        valgrind.env("SINEW_ISA", isa).args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
        // The table of instruction sets stays reachable for ever: the one thing that is global.
        let leaks = "definite,indirect,possible";
        valgrind.args([format!("--errors-for-leak-kinds={leaks}"), format!("--show-leak-kinds={leaks}")]);
        succeed(valgrind.arg(program).args(arguments));
    } else {
        assert!(std::env::var_os("REQUIRE_VALGRIND").is_none(), "valgrind is required and not there");
        eprintln!("no valgrind here: {} was not checked", program.display());
    }
}

#[test]
fn an_image_is_classified_as_in_rust() {
    let onnx = root().join("zoo/demo/demo.onnx");
    let sinew = compile(&onnx, "demo.sinew", &[]);
    let (width, height) = (40, 30);
    let rgb: Vec<u8> = (0..width * height * 3).map(|i| (i * 7919 % 251) as u8).collect();
    let ppm = folder().join("image.ppm");
    let header = format!("P6\n{width} {height}\n255\n");
    std::fs::write(&ppm, [header.as_bytes(), &rgb].concat()).expect("a file that can be written");

    let model = load(&onnx);
    let pixels = Pixels::new(width, height, &rgb).expect("an image");
    let recipe = Preprocess::default().for_input(&model.inputs()[0]).expect("an image input");
    let scores = outputs(&model, &[recipe.tensor(&pixels).expect("an image")]);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let want: String = order[..3].iter().map(|&i| format!("class {i}: {:.6}\n", scores[i])).collect();

    let program = build("examples/c/classify.c", "classify", &[]);
    assert_eq!(succeed(Command::new(&program).arg(&sinew).arg(&ppm)), want);
    memcheck(&program, &[&sinew, &ppm]);
}

#[test]
fn a_model_in_an_array_runs_in_static_memory() {
    let onnx = small();
    compile(&onnx, "model.h", &[]);
    let model = load(&onnx);
    let port = &model.inputs()[0];
    let data = (0..port.len()).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
    let scores = outputs(&model, &[Tensor::new(port.shape.clone(), Data::F32(data)).expect("a full tensor")]);
    let name = &model.outputs()[0].name;
    let want: String = (0..4).map(|i| format!("{name}[{i}] = {:.6}\n", scores[i])).collect();
    let program = build("examples/c/static_memory.c", "static_memory", &[]);
    assert_eq!(succeed(&mut Command::new(&program)), want);
    memcheck(&program, &[]);
}

#[test]
fn a_programs_own_threads_give_the_same_bits() {
    let sinew = compile(
        &network("resnet", &["--size", "96", "--width", "0.5"]),
        "threads.sinew",
        &["--threads", "3"],
    );
    let program = build("examples/c/own_threads.c", "own_threads", &[]);
    for _ in 0..5 {
        let said = succeed(Command::new(&program).arg(&sinew));
        assert!(said.starts_with("3 threads") && said.ends_with("the same bits\n"), "{said}");
    }
    memcheck(&program, &[&sinew]);
}

#[test]
fn two_sessions_share_a_model() {
    let sinew = compile(&small(), "two.sinew", &[]);
    let program = build("examples/c/two_sessions.c", "two_sessions", &[]);
    assert_eq!(succeed(Command::new(&program).arg(&sinew)), "two sessions, the same bits\n");
    memcheck(&program, &[&sinew]);
}

#[test]
fn misuse_gives_a_status() {
    let sinew = compile(&small(), "errors.sinew", &[]);
    let program = build("examples/c/errors.c", "errors", &[]);
    let said = succeed(Command::new(&program).arg(&sinew));
    assert!(said.ends_with("all as expected\n"), "{said}");
    memcheck(&program, &[&sinew]);
}

#[test]
fn cpp_includes_the_header() {
    let sinew = compile(&small(), "cpp.sinew", &[]);
    let program = build("examples/c/classify.cpp", "classify_cpp", &[]);
    let said = succeed(Command::new(&program).arg(&sinew));
    assert!(said.starts_with("class "), "{said}");
    memcheck(&program, &[&sinew]);
}

/// From the first run on; a planted allocation and a planted system call are caught.
#[test]
fn a_run_neither_allocates_nor_calls_the_system() {
    let sinew = compile(&small(), "traps.sinew", &[]);
    let wraps =
        ["malloc", "calloc", "realloc", "posix_memalign", "free"].map(|name| format!("-Wl,--wrap={name}"));
    let wraps: Vec<&str> = wraps.iter().map(String::as_str).collect();
    let program = build("tests/c/traps.c", "traps", &wraps);
    assert_eq!(succeed(Command::new(&program).arg(&sinew)), "no allocation and no system call\n");
    for fault in ["allocate", "call"] {
        let output = run(Command::new(&program).arg(&sinew).arg(fault));
        assert!(!output.status.success(), "a planted fault was not caught: {fault}");
    }
}

/// As the plan says, `N` bytes of arena are enough; `errors.c` shows that `N - 1` are refused.
#[test]
fn a_large_model_loads_at_once_and_needs_what_it_says() {
    let sinew = compile(&network("resnet", &[]), "resnet50.sinew", &[]);
    let program = build("tests/c/memory.c", "memory", &[]);
    let said = succeed(Command::new(&program).arg(&sinew));
    println!("{said}");
    let words: Vec<&str> = said.split_whitespace().collect();
    let of = |name: &str| {
        let at = words.iter().position(|word| *word == name).expect("a figure of that name");
        words[at + 1].parse::<f64>().expect("a number")
    };
    let model = Model::open(&sinew, &LoadOptions::default()).expect("a file that was just written");
    assert_eq!(of("owned"), 0.0, "weights of a mapped file are used there");
    assert_eq!(of("arena"), model.plan().arena_bytes() as f64);
    assert!(of("load_ms") < 5.0, "{said}");
    let allowed = of("weights") + of("arena") + of("operands") + 3e6;
    assert!(of("peak") < allowed, "{said}: {} bytes too many", of("peak") - allowed);
    std::fs::remove_file(&sinew).expect("a file of this test");
}

/// Half of the file; its numbers lie in memory that the library tells of.
#[test]
fn weights_of_16_bits_are_read_and_counted() {
    let onnx = small();
    let direct = ["--winograd", "off"];
    let single = compile(&onnx, "single.sinew", &direct);
    let half = compile(&onnx, "half.sinew", &[&direct[..], &["--weights", "f16"]].concat());
    let bytes = |path: &Path| std::fs::metadata(path).expect("a file that was just written").len() as f64;
    assert!((0.45..0.6).contains(&(bytes(&half) / bytes(&single))), "{} of {}", bytes(&half), bytes(&single));
    let program = build("tests/c/memory.c", "memory_half", &[]);
    for (path, owned) in [(&single, false), (&half, true)] {
        let said = succeed(Command::new(&program).arg(path));
        let words: Vec<&str> = said.split_whitespace().collect();
        let of = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
        assert_eq!(of("owned"), if owned { of("weights") } else { Some("0") }, "{said}");
    }
    let transformed = compile(&onnx, "half_winograd.sinew", &["--conv", "winograd", "--weights", "f16"]);
    let program = build("examples/c/two_sessions.c", "two_sessions_half", &[]);
    for path in [half, transformed] {
        assert_eq!(succeed(Command::new(&program).arg(&path)), "two sessions, the same bits\n");
        memcheck(&program, &[&path]);
    }
}

#[test]
fn the_shared_library_exports_the_interface_only() {
    let shared = library().with_extension("so");
    let said =
        succeed(Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(&shared));
    let mut exported: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    exported.sort_unstable();
    let header = std::fs::read_to_string(root().join("src/c_api/sinew.h")).expect("the header");
    let words = header.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').zip(
        // What stands behind each word: a parameter list makes it a function.
        header
            .split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .map(|word| word.ends_with('(')),
    );
    let mut declared: Vec<&str> =
        words.filter_map(|(word, call)| (call && word.starts_with("sinew_")).then_some(word)).collect();
    declared.sort_unstable();
    declared.dedup();
    assert!(declared.len() > 20, "{declared:?}");
    assert_eq!(exported, declared);

    let program = folder().join("whole_shared.out");
    let mut compiler = Command::new("cc");
    compiler
        .arg("-I")
        .arg(root().join("src/c_api"))
        .arg(root().join("examples/c/errors.c"))
        .arg("-o")
        .arg(&program);
    compiler
        .arg("-pthread")
        .arg(&shared)
        .arg(format!("-Wl,-rpath,{}", shared.parent().expect("a folder").display()));
    succeed(&mut compiler);
    let sinew = compile(&small(), "shared.sinew", &[]);
    assert!(succeed(Command::new(&program).arg(&sinew)).ends_with("all as expected\n"));
}

#[test]
fn a_program_grows_by_less_than_its_budget() {
    let smallest = ["-Wl,--gc-sections", "-s"];
    let size = |program: &Path| std::fs::metadata(program).expect("a program").len();
    let empty = size(&build("tests/c/whole.c", "empty", &["-DEMPTY", "-Wl,--gc-sections", "-s"]));
    let whole = size(&build("tests/c/whole.c", "whole", &smallest));
    let plain = size(&build("tests/c/whole.c", "whole_plain", &[]));
    println!("gc-sections, stripped: {} bytes; plain cc: {plain} bytes", whole - empty);
    assert!(whole - empty < SIZE_LIMIT, "{} bytes", whole - empty);
}
