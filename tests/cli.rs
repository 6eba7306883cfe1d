//! The command line as scripts see it: exit status, standard output, standard error, JSON keys, files.

#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sinew::onnx::Builder;
use sinew::{DType, Tensor};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/demo/demo.onnx");
const CLASSES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/demo/classes.txt");

// ---- running the program ----

fn sinew(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
    command.env_remove("SINEW_ISA").args(arguments).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Standard output of a command that succeeds.
fn succeeds(arguments: &[&str]) -> String {
    let output = sinew(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

/// The JSON of a command that succeeds: one object, and nothing beside it.
fn json(arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    let output = sinew(&arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{arguments:?}");
    object(&output.stdout)
}

fn object(stdout: &[u8]) -> Value {
    let value: Value = serde_json::from_slice(stdout).expect("one JSON value");
    assert!(value.is_object());
    assert_eq!(value["version"], 1);
    assert!(value["notices"].is_array());
    value
}

/// The one line that a refused command writes.
fn refused(arguments: &[&str]) -> String {
    let output = sinew(arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    assert!(error.starts_with("error: ") && error.ends_with('\n'), "{arguments:?}: {error:?}");
    assert_eq!(error.lines().count(), 1, "{arguments:?}: {error:?}");
    error.to_owned()
}

fn has(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "{key} in {value}");
    }
}

// ---- files ----

/// A folder of one test, empty at its start.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for a test");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name in UTF-8").to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file for a test");
        path
    }

    /// A `.npy` file of version 1.0, by hand.
    fn npy(&self, name: &str, descr: &str, shape: &[usize], data: &[u8]) -> String {
        let extents: String = shape.iter().map(|extent| format!("{extent},")).collect();
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({extents}), }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(header.len()).expect("a short header").to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        self.write(name, &bytes)
    }

    fn npy_f32(&self, name: &str, shape: &[usize], data: &[f32]) -> String {
        self.npy(name, "<f4", shape, &little_endian(data))
    }

    /// A binary file's elements after the header, as f32.
    fn read_npy_f32(&self, name: &str) -> Vec<f32> {
        let bytes = std::fs::read(self.path(name)).expect("a file that was written");
        let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        floats(&bytes[header..])
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("a folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> =
            entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn little_endian(data: &[f32]) -> Vec<u8> {
    data.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// `y = relu(x)` of the given shape; a symbol leaves an extent open.
fn relu(dtype: DType, shape: &[&str]) -> Vec<u8> {
    let mut model = Builder::new("relu");
    model.input("x", dtype, shape.iter().copied());
    model.node("act", "Relu", &["x"], &["y"], &[]);
    model.output("y", DType::F32, shape.iter().copied());
    model.encode()
}

/// Two inputs added.
fn sum() -> Vec<u8> {
    let mut model = Builder::new("sum");
    model.input("a", DType::F32, [1usize, 4]);
    model.input("b", DType::F32, [1usize, 4]);
    model.node("add", "Add", &["a", "b"], &["y"], &[]);
    model.output("y", DType::F32, [1usize, 4]);
    model.encode()
}

/// A protobuf `TensorProto` of f32, by hand.
fn tensor_proto(shape: &[u8], data: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for &extent in shape {
        bytes.extend([0x08, extent]); // dims
    }
    bytes.extend([0x10, 1]); // data_type: float
    let raw = little_endian(data);
    bytes.extend([0x4a, u8::try_from(raw.len()).expect("a short tensor")]); // raw_data
    bytes.extend(raw);
    bytes
}

// ---- usage ----

#[test]
fn help_and_version_are_answers() {
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"]] {
        assert!(!succeeds(arguments).is_empty());
    }
    let help = succeeds(&["--help"]);
    for command in ["run", "inspect", "plan", "bench", "machine"] {
        assert!(help.contains(command));
    }
}

#[test]
fn wrong_usage_is_one_line() {
    for (arguments, part) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["nonsense"], "nonsense"),
        (&["run"], "MODEL"),
        (&["run", DEMO, "--thread", "2"], "--thread"),
        (&["run", DEMO, "--threads", "0"], "--threads"),
        (&["run", DEMO, "--threads", "many"], "many"),
        (&["run", DEMO, "--isa", "sse9"], "unknown instruction set"),
        (&["run", DEMO, "--conv", "fft"], "direct, im2col or winograd"),
        (&["run", DEMO, "--winograd", "3"], "off, 2, 4 or 6"),
        (&["run", DEMO, "--shape", "image"], "NAME=1x3x224x224"),
        (&["run", DEMO, "--shape", "image=1x0"], "NAME=1x3x224x224"),
        (&["run", DEMO, "--resize", "shrink"], "stretch, crop or pad"),
        (&["run", DEMO, "--mean", "1,2"], "three"),
        (&["run", DEMO, "--input", "a.npy", "--raw-input", "b"], "--raw-input"),
        (&["run", DEMO, "--without", "nonsense"], "nonsense"),
        (&["bench", DEMO, "--io", "sideways"], "plain or blocked"),
        (&["bench", DEMO, "--seconds", "-1"], "-1"),
        (&["bench", DEMO, "--runs", "3", "--seconds", "1"], "--seconds"),
        (&["plan"], "MODEL"),
        (&["inspect", "a.onnx", "b.onnx"], "b.onnx"),
    ] {
        let error = refused(arguments);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn a_missing_instruction_set_is_named_with_its_flag() {
    let lacking = if cfg!(target_arch = "x86_64") { ("neon", "neon") } else { ("avx512", "avx512f") };
    let commands = [&["run", DEMO][..], &["bench", DEMO], &["plan", DEMO], &[]];
    for command in commands {
        let error = refused(&[command, &["--isa", lacking.0]].concat());
        assert!(error.contains("lacks") && error.contains(lacking.1), "{error}");
    }
    #[cfg(target_arch = "x86_64")]
    if !std::is_x86_feature_detected!("avx512f") {
        assert!(refused(&["run", DEMO, "--isa", "avx512"]).contains("avx512f"));
    }
    let by_name = |name| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sinew"));
        command.env("SINEW_ISA", name).args(["plan", DEMO, "--json"]).output().expect("the program starts")
    };
    assert_eq!(by_name("sse9").status.code(), Some(2));
    assert!(text(&by_name("sse9").stderr).contains("SINEW_ISA"));
    assert_eq!(object(&by_name("scalar").stdout)["isa"], "scalar");
}

#[test]
fn bad_models_are_refused_in_one_line() {
    let folder = Folder::new("bad_models");
    let whole = std::fs::read(DEMO).expect("the demo");
    let truncated = folder.write("truncated.onnx", &whole[..whole.len() / 2]);
    let empty = folder.write("empty.onnx", b"");
    let text = folder.write("text.onnx", b"this is no model\nat all\n");
    let missing = folder.path("missing.onnx");
    let directory = folder.path("");
    for path in [&truncated, &empty, &text, &missing, &directory] {
        for command in ["run", "plan", "bench", "inspect"] {
            let error = refused(&[command, path]);
            assert!(error.contains(path.as_str()), "{error}");
        }
    }
    let error = refused(&["run", DEMO, "--shape", "picture=1x1x28x28"]);
    assert!(error.contains("picture") && error.contains("image"), "{error}");
    let error = refused(&["run", DEMO, "--shape", "image=1x3x28x28"]);
    assert!(error.contains("image"), "{error}");
}

// ---- run ----

#[test]
fn run_without_input_takes_the_seed() {
    let first = json(&["run", DEMO]);
    has(&first, &["isa", "threads", "outputs"]);
    let output = &first["outputs"][0];
    assert_eq!((&output["name"], &output["dtype"]), (&"logits".into(), &"f32".into()));
    assert_eq!(output["shape"], serde_json::json!([1, 10]));
    assert_eq!(output["sha256"].as_str().map(str::len), Some(64));
    let top = output["top"].as_array().expect("one list an item");
    assert_eq!((top.len(), top[0].as_array().map(Vec::len)), (1, Some(5)));
    has(&top[0][0], &["index", "value"]);
    assert!(top[0][0]["value"].as_f64() >= top[0][1]["value"].as_f64());
    assert_eq!(first["seed"], 0);

    let same = json(&["run", DEMO, "--seed", "0"]);
    let other = json(&["run", DEMO, "--seed", "1"]);
    assert_eq!(output["sha256"], same["outputs"][0]["sha256"]);
    assert_ne!(output["sha256"], other["outputs"][0]["sha256"]);
}

#[test]
fn instruction_sets_and_threads_give_the_same_bits() {
    let hash = |arguments: &[&str]| {
        let value = json(&[&["run", DEMO, "--seed", "7"], arguments].concat());
        value["outputs"][0]["sha256"].as_str().expect("a hash").to_owned()
    };
    let expected = hash(&["--isa", "scalar"]);
    for table in sinew_kernels::isa::supported() {
        for threads in ["1", "2", "3"] {
            let isa = table.isa.name();
            assert_eq!(hash(&["--isa", isa, "--threads", threads]), expected, "{isa} on {threads} threads");
        }
    }
}

#[test]
fn random_inputs_are_the_documented_ones() {
    let folder = Folder::new("random");
    let model = folder.write("relu.onnx", &relu(DType::F32, &["1", "4"]));
    let raw = folder.path("y.bin");
    succeeds(&["run", &model, "--seed", "3", "--raw-output", &raw]);
    // SplitMix64 from 3: the upper 24 bits of each number, scaled to -1..1; then ReLU.
    let mut state = 3u64;
    let expected: Vec<f32> = (0..4)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let number = ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0;
            number.max(0.0)
        })
        .collect();
    assert_eq!(floats(&std::fs::read(raw).expect("written")), expected);
}

#[test]
fn outputs_are_written_and_batches_joined() {
    let folder = Folder::new("batches");
    let model = folder.write("relu.onnx", &relu(DType::F32, &["N", "2", "2", "2"]));
    let values: Vec<f32> = (0..24).map(|x| x as f32 - 11.5).collect();
    let positive: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
    let images = folder.npy_f32("x.npy", &[3, 2, 2, 2], &values);
    let out = folder.path("out");
    let value = json(&["run", &model, "--input", &images, "--output", &out, "--top", "1"]);
    assert_eq!(value["batches"], 3);
    assert_eq!(value["outputs"][0]["shape"], serde_json::json!([3, 2, 2, 2]));
    assert_eq!(value["outputs"][0]["top"].as_array().map(Vec::len), Some(3));
    assert_eq!(value["outputs"][0]["top"][2][0]["index"], 7);
    assert_eq!(value["files"], serde_json::json!(["y.npy"]));
    assert_eq!(folder.read_npy_f32("out/y.npy"), positive);
    assert!(value["notices"][0].as_str().is_some_and(|notice| notice.contains("batch 1")));

    // The same hash whatever the batch, from one file or from three.
    let hash = |arguments: &[&str]| {
        let value = json(&[&["run", &model], arguments].concat());
        value["outputs"][0]["sha256"].clone()
    };
    let expected = hash(&["--input", &images]);
    assert_eq!(hash(&["--input", &images, "--batch", "3"]), expected);
    assert_eq!(hash(&["--input", &images, "--shape", "x=3x2x2x2"]), expected);
    let parts: Vec<String> = (0..3)
        .map(|part| folder.npy_f32(&format!("{part}.npy"), &[1, 2, 2, 2], &values[part * 8..][..8]))
        .collect();
    assert_eq!(hash(&["--input", &parts[0], "--input", &parts[1], "--input", &parts[2]]), expected);
    assert!(refused(&["run", &model, "--input", &images, "--batch", "2"]).contains("multiple"));
}

#[test]
fn inputs_go_by_name_or_in_order() {
    let folder = Folder::new("names");
    let model = folder.write("sum.onnx", &sum());
    let a = folder.npy_f32("a.npy", &[1, 4], &[1.0, 2.0, 3.0, 4.0]);
    let b = folder.write("b.pb", &tensor_proto(&[1, 4], &[10.0, 20.0, 30.0, 40.0]));
    let raw = folder.path("y.bin");
    let (named_a, named_b) = (format!("a={a}"), format!("b={b}"));
    for inputs in [[&named_b, &named_a], [&a, &b], [&named_b, &a]] {
        let [first, second] = inputs;
        succeeds(&["run", &model, "--input", first, "--input", second, "--raw-output", &raw]);
        assert_eq!(floats(&std::fs::read(&raw).expect("written")), [11.0, 22.0, 33.0, 44.0]);
    }
    let both = folder.write("both.bin", &little_endian(&[1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0]));
    succeeds(&["run", &model, "--raw-input", &both, "--raw-output", &raw]);
    assert_eq!(floats(&std::fs::read(&raw).expect("written")), [11.0, 22.0, 33.0, 44.0]);

    assert!(refused(&["run", &model, "--input", &a]).contains("\"b\" is missing"));
    assert!(refused(&["run", &model, "--input", "c=a.npy"]).contains("\"c\""));
    assert!(
        refused(&["run", &model, "--input", &a, "--input", &b, "--input", &a]).contains("--input NAME=FILE")
    );
    assert!(refused(&["run", &model, "--raw-input", &a]).contains("32"));
    assert!(refused(&["run", &model, "--input", &named_a, "--input", "b=none.npy"]).contains("none.npy"));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let folder = Folder::new("misfits");
    let model = folder.write("relu.onnx", &relu(DType::F32, &["1", "2", "2", "2"]));
    let out = folder.path("out");
    let cases = [
        (folder.npy_f32("shape.npy", &[1, 2, 2, 3], &[0.0; 12]), "1x2x2x3"),
        (folder.npy_f32("rank.npy", &[8], &[0.0; 8]), "takes 1x2x2x2"),
        (folder.npy("dtype.npy", "<f8", &[1, 2, 2, 2], &[0; 64]), "float32"),
        (folder.npy("bytes.npy", "|u1", &[1, 2, 2, 2], &[0; 8]), "holds u8"),
        (folder.npy("short.npy", "<f4", &[1, 2, 2, 2], &[0; 31]), "31 bytes"),
        (folder.npy("huge.npy", "<f4", &[1 << 40, 2, 2, 2], &[0; 32]), "fill"),
        (folder.write("text.npy", b"no array"), ".npy"),
        (folder.write("text.png", b"no image"), "1 or 3 channels"),
        (folder.write("text.pb", b"no tensor"), "text.pb"),
        (folder.write("x.tiff", b""), ".npy, .png, .jpg or .pb"),
        (folder.path("missing.npy"), "missing.npy"),
    ];
    for (path, part) in &cases {
        let error = refused(&["run", &model, "--input", path, "--output", &out]);
        assert!(error.contains(part) && error.contains(path.as_str()), "{error}");
    }
    assert!(!Path::new(&out).exists());
    let error = refused(&["run", &model, "--raw-input", &folder.write("short.bin", &[0; 31])]);
    assert!(error.contains("31 bytes") && error.contains("32"), "{error}");
    let error = refused(&["run", &model, "--labels", CLASSES]);
    assert!(error.contains("10 labels"), "{error}");
}

#[test]
fn outputs_are_written_completely_or_not_at_all() {
    let folder = Folder::new("whole");
    let model = folder.write("relu.onnx", &relu(DType::F32, &["1", "4"]));
    let blocked = folder.write("file", b"a file, no folder");
    let inside = format!("{blocked}/y");
    let raw = folder.path("y.bin");
    refused(&["run", &model, "--raw-output", &raw, "--output", &inside]);
    refused(&["run", &model, "--raw-output", &inside]);
    // What was written before the failure is taken back.
    let out = folder.path("out");
    refused(&["run", &model, "--output", &out, "--raw-output", &inside]);
    std::fs::remove_dir(&out).expect("an empty folder");
    refused(&["run", &model, "--raw-output", &folder.path("")]);
    assert_eq!(folder.names(), ["file", "relu.onnx"]);
    succeeds(&["run", &model, "--raw-output", &raw]);
    assert_eq!(folder.names(), ["file", "relu.onnx", "y.bin"]);
}

#[test]
fn bytes_and_images_are_taken() {
    let folder = Folder::new("images");
    let model = folder.write("bytes.onnx", &{
        let mut model = Builder::new("bytes");
        model.input("x", DType::U8, [1usize, 3, 2, 2]);
        model.node("cast", "Cast", &["x"], &["f"], &[("to", 1i64.into())]);
        model.node("act", "Relu", &["f"], &["y"], &[]);
        model.output("y", DType::F32, [1usize, 3, 2, 2]);
        model.encode()
    });
    let floats_model = folder.write("floats.onnx", &relu(DType::F32, &["1", "3", "2", "2"]));
    let pixels: Vec<u8> = (1..=12).map(|x| x * 20).collect();
    let png = folder.path("x.png");
    image::save_buffer(&png, &pixels, 2, 2, image::ExtendedColorType::Rgb8).expect("a picture");
    let planes: Vec<f32> =
        (0..3).flat_map(|channel| (0..4).map(move |pixel| (pixel * 3 + channel + 1) as f32 * 20.0)).collect();
    let raw = folder.path("y.bin");
    let run = |arguments: &[&str]| {
        let value = json(&[&["run"], arguments, &["--raw-output", &raw]].concat());
        (value, floats(&std::fs::read(&raw).expect("written")))
    };

    let (value, result) = run(&[&model, "--input", &png]);
    assert_eq!(result, planes);
    let applied = &value["images"][0];
    has(applied, &["input", "resize", "width", "height", "color", "range", "mean", "std", "layout"]);
    assert_eq!((&applied["color"], &applied["range"]), (&"rgb".into(), &"0-255".into()));
    assert!(value["notices"][0].as_str().is_some_and(|notice| notice.contains("stretch")));
    let flat: Vec<u8> = planes.iter().map(|&x| x as u8).collect();
    let npy = folder.npy("x.npy", "|u1", &[1, 3, 2, 2], &flat);
    assert_eq!(run(&[&model, "--input", &npy]).1, planes);
    let given = folder.write("x.bin", &little_endian(&planes));
    assert_eq!(run(&[&model, "--raw-input", &given]).1, planes);
    let broken = folder.write("broken.bin", &little_endian(&[0.5; 12]));
    assert!(refused(&["run", &model, "--raw-input", &broken]).contains("0.5"));
    assert!(refused(&["run", &model, "--input", &png, "--mean", "1"]).contains("u8"));

    let scaled = ["--color", "bgr", "--mean", "-0.5,0,0.25", "--std", "0.5,2,1"];
    let (_, result) = run(&[&[&floats_model, "--input", &png], &scaled[..]].concat());
    for (index, result) in result.into_iter().enumerate() {
        let (channel, pixel) = (index / 4, index % 4);
        let (mean, std) = ([-0.5, 0.0, 0.25][channel], [0.5, 2.0, 1.0][channel]);
        let value = (planes[(2 - channel) * 4 + pixel] / 255.0 - mean) / std;
        assert_eq!(result, value.max(0.0), "{index}");
    }
    let broken = folder.write("broken.png", &std::fs::read(&png).expect("a picture")[..40]);
    for path in [broken, folder.path("missing.jpg")] {
        assert!(refused(&["run", &floats_model, "--input", &path]).contains(&path));
    }
    // In text the notice stands on standard error.
    let output = sinew(&["run", &floats_model, "--input", &png, "--resize", "pad"]);
    assert!(text(&output.stderr).contains("pad to 2x2"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("sha256"));
}

#[test]
fn labels_name_the_classes() {
    let output = succeeds(&["run", DEMO, "--labels", CLASSES, "--top", "10"]);
    assert!(output.contains("Ankle boot") && output.contains("Trouser"), "{output}");
    let value = json(&["run", DEMO, "--labels", CLASSES, "--top", "2"]);
    let best = &value["outputs"][0]["top"][0][0];
    let classes = std::fs::read_to_string(CLASSES).expect("classes");
    let index = best["index"].as_u64().expect("an index");
    assert_eq!(best["label"].as_str(), classes.lines().nth(usize::try_from(index).expect("small")));
}

#[test]
fn dumps_hold_every_step_and_do_not_depend_on_the_instruction_set() {
    let folder = Folder::new("dump");
    let [first, second] = ["first", "second"].map(|name| folder.path(name));
    let plan = json(&["plan", DEMO]);
    let run = json(&["run", DEMO, "--dump", &first]);
    succeeds(&["run", DEMO, "--dump", &second, "--isa", "scalar"]);
    assert_eq!(run["outputs"], json(&["run", DEMO])["outputs"]);
    let index: Value =
        serde_json::from_slice(&std::fs::read(folder.path("first/index.json")).expect("an index"))
            .expect("JSON");
    has(&index, &["version", "model", "isa", "steps", "outputs"]);
    let steps = index["steps"].as_array().expect("steps");
    // The last step hands the logits over.
    assert!(steps.len() + 1 >= plan["steps"].as_array().map_or(0, Vec::len));
    for step in steps {
        has(step, &["index", "name", "op", "shape", "dtype", "file"]);
        let file = step["file"].as_str().expect("a file");
        let [a, b] = [&first, &second].map(|dump| std::fs::read(format!("{dump}/{file}")).expect("a file"));
        assert_eq!(a, b, "{file}");
    }
    assert_eq!(folder.read_npy_f32("first/outputs/logits.npy").len(), 10);
    let images = folder.npy_f32("x.npy", &[2, 1, 28, 28], &[0.5; 2 * 28 * 28]);
    assert!(refused(&["run", DEMO, "--input", &images, "--dump", &first]).contains("--dump"));
}

// ---- inspect, plan ----

#[test]
fn inspect_names_stacked_streams_and_the_shortcut_has_two_places() {
    let model = "zoo/models/rir.onnx";
    let value = json(&["inspect", model]);
    let recovered = value["recovered"].as_array().expect("a list");
    let layers = recovered.iter().filter(|found| found["what"] == "generalized_residual").count();
    assert_eq!(layers, 6, "{recovered:?}");
    let run = |place: &str| {
        let output = json(&["run", model, "--winograd", "2", "--conv", "winograd", "--shortcut", place]);
        output["outputs"][0]["sha256"].clone()
    };
    assert_ne!(run("fold"), run("add"), "other roundings");
}

#[test]
fn inspect_lists_what_a_file_holds() {
    let value = json(&["inspect", DEMO]);
    has(&value, &["parameters", "macs", "ops", "recovered", "missed", "unsupported", "opset", "producer"]);
    assert_eq!(value["macs"], 8_471_936);
    assert!(value["parameters"].as_u64() >= Some(116_874));
    assert_eq!(value["unsupported"], serde_json::json!([]));
    assert_eq!(value["inputs"][0]["shape"], serde_json::json!([1, 1, 28, 28]));
    assert!(value["ops"]["Conv"].as_u64() > Some(10));
    let text = succeeds(&["inspect", DEMO]);
    assert!(text.contains("Conv") && text.contains("8,471,936"), "{text}");
}

/// `x * sigmoid(w mean(x))` with a ReLU inside that is an output as well: nearly squeeze-and-excitation.
#[test]
fn inspect_tells_blocks_and_misses_of_squeeze_and_excitation() {
    let folder = Folder::new("excite");
    let model = |read: bool| {
        let mut builder = Builder::new("excite");
        builder.input("x", DType::F32, [1, 4, 3, 3]);
        builder.constant("w", &Tensor::f32([4, 4, 1, 1], vec![0.25; 16]).expect("16 elements"));
        builder.node("pool", "GlobalAveragePool", &["x"], &["z"], &[]);
        builder.node("down", "Conv", &["z", "w"], &["h"], &[]);
        builder.node("relu", "Relu", &["h"], &["a"], &[]);
        builder.node("up", "Conv", &["a", "w"], &["t"], &[]);
        builder.node("gate", "Sigmoid", &["t"], &["s"], &[]);
        builder.node("product", "Mul", &["x", "s"], &["y"], &[]);
        builder.output("y", DType::F32, [1, 4, 3, 3]);
        if read {
            builder.output("a", DType::F32, [1, 4, 1, 1]);
        }
        builder.encode()
    };
    let [block, read] = [false, true].map(|read| folder.write(if read { "b" } else { "a" }, &model(read)));
    let value = json(&["inspect", &block]);
    let found = serde_json::json!([{ "what": "squeeze_excite", "node": "product" }]);
    assert_eq!((&value["recovered"], &value["missed"]), (&found, &serde_json::json!([])));
    let value = json(&["inspect", &read]);
    assert_eq!(value["recovered"], serde_json::json!([]));
    assert_eq!(value["missed"][0]["reason"], "\"a\" is read elsewhere too");
}

#[test]
fn inspect_lists_all_unsupported_nodes_at_once() {
    let folder = Folder::new("unsupported");
    let mut model = Builder::new("odd");
    model.input("x", DType::F32, [1usize, 4]);
    model.node("first", "Einsum", &["x"], &["t"], &[("equation", "ij->ji".into())]);
    model.node("second", "own::Thing", &["t"], &["y"], &[]);
    model.output("y", DType::F32, [1usize, 4]);
    let path = folder.write("odd.onnx", &model.encode());
    let output = sinew(&["inspect", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let value = object(&output.stdout);
    let nodes: Vec<_> =
        value["unsupported"].as_array().expect("a list").iter().map(|node| &node["node"]).collect();
    assert_eq!(nodes, ["first", "second"]);
    let output = sinew(&["inspect", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("Einsum") && text(&output.stdout).contains("own.Thing"));
    let error = refused(&["run", &path]);
    assert!(error.contains("first") && error.contains("second"), "{error}");
}

#[test]
fn notices_tell_of_conversions() {
    let folder = Folder::new("notices");
    let mut model = Builder::new("half");
    model.input("x", DType::F32, ["N", "2"]);
    model.constant_of_type("w", 10, &[2, 2], vec![0, 0x3c, 0, 0, 0, 0, 0, 0x3c]);
    model.node("product", "MatMul", &["x", "w"], &["y"], &[]);
    model.output("y", DType::F32, ["N", "2"]);
    let path = folder.write("half.onnx", &model.encode());
    for command in ["run", "inspect", "plan"] {
        let notices = json(&[command, &path])["notices"].to_string();
        assert!(notices.contains("float16") && notices.contains("batch 1"), "{command}: {notices}");
    }
    let output = sinew(&["inspect", &path]);
    assert!(text(&output.stderr).contains("float16") && !text(&output.stdout).contains("float16"));
}

#[test]
fn plan_lists_steps_and_exact_bytes() {
    let value = json(&["plan", DEMO]);
    has(&value, &["weights_bytes", "arena_bytes", "scratch_bytes", "steps", "passes", "weights_growth"]);
    let steps = value["steps"].as_array().expect("steps");
    assert!(!steps.is_empty());
    for step in steps {
        has(step, &["name", "op", "algorithm", "why", "shape", "bytes", "macs"]);
        if let Some(offset) = step["arena_offset"].as_u64() {
            assert!(offset.is_multiple_of(64) && Some(offset) < value["arena_bytes"].as_u64());
            assert!(step["last_use"].as_u64() < Some(steps.len() as u64));
        }
    }
    assert!(value["weights_bytes"].as_u64() > Some(4 * 100_000));
    // The plan of one instruction set is that of all.
    let scalar = json(&["plan", DEMO, "--isa", "scalar"]);
    assert_eq!((&scalar["steps"], &scalar["arena_bytes"]), (&value["steps"], &value["arena_bytes"]));
    let text = succeeds(&["plan", DEMO]);
    assert!(text.contains("arena") && text.contains("stack_streams"), "{text}");
    // A pass that is left out leaves its nodes.
    let without = json(&["plan", DEMO, "--without", "stack_streams"]);
    assert!(without["steps"].as_array().map(Vec::len) > Some(steps.len()));
}

#[test]
fn algorithms_can_be_chosen() {
    let names = |arguments: &[&str]| {
        let value = json(&[&["plan", DEMO], arguments].concat());
        let steps = value["steps"].as_array().expect("steps").clone();
        steps.iter().map(|step| step["algorithm"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert!(names(&["--conv", "im2col"]).iter().any(|name| name == "im2col"));
    assert!(!names(&["--winograd", "off"]).iter().any(|name| name.starts_with("winograd")));
    assert!(!names(&["--conv", "direct"]).iter().any(|name| name.starts_with("winograd")));
    let tiled = names(&["--conv", "winograd", "--winograd", "2"]);
    assert!(tiled.iter().all(|name| !name.starts_with("winograd-4")), "{tiled:?}");
}

// ---- compiled models ----

#[test]
fn a_compiled_model_is_read_like_the_file_it_was_made_of() {
    let folder = Folder::new("compiled");
    let compiled = folder.path("demo.sinew");
    json(&["compile", DEMO, "-o", &compiled, "--threads", "2"]);
    let (of_onnx, of_compiled) = (["run", DEMO, "--seed", "3"], ["run", &compiled, "--seed", "3"]);
    let (want, got) = (json(&of_onnx), json(&of_compiled));
    assert_eq!((&got["outputs"], &got["threads"]), (&want["outputs"], &Value::from(1)));
    assert_eq!(json(&[&of_compiled[..], &["--threads", "2"]].concat())["outputs"], want["outputs"]);

    let (want, got) = (json(&["plan", DEMO, "--threads", "2"]), json(&["plan", &compiled]));
    for key in ["threads", "steps", "weights_bytes", "arena_bytes", "scratch_bytes"] {
        assert_eq!(got[key], want[key], "{key}");
    }
    assert!(got["weights_growth"].is_null() && got["parameters_bytes"].is_null());
    assert!(json(&["bench", &compiled, "--runs", "1"])["gflops"].as_f64() > Some(0.0));
    let told = json(&["inspect", &compiled]);
    has(&told, &["bytes", "macs", "inputs", "outputs", "ops", "threads", "weights_bytes", "arena_bytes"]);
    assert_eq!(told["inputs"], json(&["inspect", DEMO])["inputs"]);
    assert!(told["parameters"].is_null() && told["ops"]["Conv"].as_u64() > Some(0));
    for command in ["run", "plan", "bench", "inspect"] {
        assert!(!succeeds(&[command, &compiled]).is_empty());
    }
}

#[test]
fn what_a_compiled_model_has_settled_is_no_option() {
    let folder = Folder::new("settled");
    let compiled = folder.path("demo.sinew");
    json(&["compile", DEMO, "-o", &compiled, "--threads", "2"]);
    let options: [&[&str]; 9] = [
        &["--shape", "input=2x3x32x32"],
        &["--conv", "direct"],
        &["--winograd", "off"],
        &["--error-budget", "4"],
        &["--compact-weights"],
        &["--shortcut", "add"],
        &["--weights", "f16"],
        &["--without", "stack_streams"],
        &["--threads", "3"],
    ];
    for command in ["run", "plan", "bench"] {
        for option in options {
            let error = refused(&[&[command, &compiled], option].concat());
            assert!(error.contains(&compiled) && error.contains(option[0]), "{error}");
        }
    }
    assert!(refused(&["run", &compiled, "--batch", "2"]).contains("--batch"));
    assert!(refused(&["plan", &compiled, "--io", "blocked"]).contains("--io"));
    assert!(refused(&["inspect", &compiled, "--shape", "x=1x3x8x8"]).contains("--shape"));
    let again = folder.path("again");
    assert!(refused(&["compile", &compiled, "-o", &again]).contains("ONNX"));
    assert!(refused(&["densify", &compiled, "--last", "1", "-o", &again]).contains("ONNX"));
    let cut = std::fs::read(&compiled).expect("a file that was just written");
    let cut = folder.write("cut.sinew", &cut[..1000]);
    assert!(refused(&["run", &cut]).contains("cut.sinew"));
}

#[test]
fn weights_of_16_bits_make_the_file_small_and_tell_what_they_change() {
    let folder = Folder::new("half");
    let (single, half) = (folder.path("single.sinew"), folder.path("half.sinew"));
    let direct = ["--winograd", "off"];
    let of_single = json(&[&["compile", DEMO, "-o", &single], &direct[..]].concat());
    let with_half = [&direct[..], &["--weights", "f16"]].concat();
    let of_half = json(&[&["compile", DEMO, "-o", &half, "--seed", "4"], &with_half[..]].concat());
    let ratio = of_half["bytes"].as_f64().expect("bytes") / of_single["bytes"].as_f64().expect("bytes");
    assert!((0.45..0.6).contains(&ratio), "{ratio}");
    assert_eq!((&of_single["weights"], &of_half["weights"]), (&"f32".into(), &"f16".into()));
    assert_eq!((&of_half["seed"], of_single.get("changes")), (&Value::from(4), None));

    // The file and the option give the same; what is told is what two runs differ by.
    let raw = |model: &str, options: &[&str]| {
        let file = folder.path("raw");
        let arguments = [&["run", model, "--seed", "4", "--raw-output", &file], options].concat();
        let sha = json(&arguments)["outputs"][0]["sha256"].clone();
        (sha, floats(&std::fs::read(&file).expect("a file that was just written")))
    };
    let (sha, rounded) = raw(&half, &[]);
    assert_eq!(raw(DEMO, &with_half).0, sha);
    let (of_exact, exact) = raw(DEMO, &direct);
    assert_ne!(of_exact, sha);
    let change = &of_half["changes"][0];
    assert_eq!(change["name"], "logits");
    let pairs = || exact.iter().zip(&rounded).map(|(&a, &b)| (f64::from(a), f64::from(b)));
    let absolute = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let relative = pairs().map(|(a, b)| (a - b).abs() / a.abs().max(b.abs())).fold(0.0, f64::max);
    for (key, want) in [("largest_absolute", absolute), ("largest_relative", relative)] {
        let told = change[key].as_f64().expect("a number");
        assert!((told - want).abs() <= 1e-9 * want, "{key}: {told} is not {want}");
    }
    assert!(absolute > 0.0 && absolute < 0.05, "{absolute}");
    let plan = json(&["plan", &half]);
    assert_eq!(plan["owned_weights_bytes"], plan["weights_bytes"]);
    assert_eq!(json(&["plan", &single])["owned_weights_bytes"], 0);
    let told = succeeds(&[&["compile", DEMO, "-o", &half, "--weights", "f16"], &direct[..]].concat());
    assert!(told.contains("\"logits\": at most"), "{told}");

    let input = folder.npy_f32("x.npy", &[1, 1, 28, 28], &[0.5; 784]);
    let value = json(&["compile", DEMO, "-o", &half, "--weights", "f16", "--input", &input]);
    assert!(value["seed"].is_null());
    assert!(refused(&["compile", DEMO, "-o", &half, "--input", &input]).contains("--weights"));
    assert!(refused(&["run", DEMO, "--weights", "f8"]).contains("f16"));
}

// ---- bench, machine, demo ----

#[test]
fn bench_times_both_layouts_and_checks_its_answer() {
    let folder = Folder::new("bench");
    let input = folder.write("x.bin", &little_endian(&[0.25; 28 * 28]));
    let [plain, blocked, run] = ["plain.bin", "blocked.bin", "run.bin"].map(|name| folder.path(name));
    succeeds(&["run", DEMO, "--raw-input", &input, "--raw-output", &run]);
    for (io, output) in [("plain", &plain), ("blocked", &blocked)] {
        let arguments =
            ["bench", DEMO, "--threads", "1", "--io", io, "--raw-input", &input, "--raw-output", output];
        let value = json(&arguments);
        has(&value, &["isa", "threads", "io", "seed", "runs", "min_ns", "median_ns", "p99_ns"]);
        assert_eq!((&value["io"], &value["seed"]), (&io.into(), &Value::Null));
        assert!(value["runs"].as_u64() >= Some(3));
        let [min, median, p99] = ["min_ns", "median_ns", "p99_ns"].map(|key| value[key].as_u64());
        assert!(Some(0) < min && min <= median && median <= p99);
        assert_eq!(std::fs::read(output).expect("written"), std::fs::read(&run).expect("written"), "{io}");
    }
    let value = json(&["bench", DEMO, "--runs", "5", "--seed", "9", "--threads", "2"]);
    assert_eq!((&value["runs"], &value["seed"], &value["threads"]), (&5.into(), &9.into(), &2.into()));
    let text = succeeds(&["bench", DEMO, "--seconds", "0.01"]);
    for part in ["min", "median", "p99", "GFLOP/s"] {
        assert!(text.contains(part), "{text}");
    }
    let value = json(&["bench", DEMO, "--runs", "3", "--steps"]);
    let steps = value["steps"].as_array().expect("a list");
    let sum: u64 = steps.iter().filter_map(|step| step["ns"].as_u64()).sum();
    assert!(steps.len() > 3 && sum > 0, "{value}");
    assert!(steps.iter().any(|step| step["macs"].as_u64() > Some(0)) && steps[0]["algorithm"].is_string());
    let text = succeeds(&["bench", DEMO, "--runs", "3", "--steps"]);
    assert!(text.contains("of peak") && text.contains("GB/s"), "{text}");
    let short = folder.write("short.bin", &[0; 4]);
    assert!(refused(&["bench", DEMO, "--raw-input", &short]).contains("3136"));
}

#[test]
fn machine_measures_every_instruction_set() {
    let value = json(&["machine", "--threads", "2"]);
    has(&value, &["cpu", "isas", "caches", "bandwidth", "peak_isa", "peak_gflops"]);
    let sets = value["isas"].as_array().expect("a list");
    assert_eq!(sets.len(), 4);
    for set in sets {
        match set["available"].as_bool() {
            Some(true) => assert!(set["gflops"].as_f64() > Some(0.01), "{set}"),
            _ => assert!(set["missing"].as_str().is_some_and(|missing| !missing.is_empty()), "{set}"),
        }
    }
    let speeds = value["bandwidth"].as_array().expect("a list");
    assert!(speeds.len() >= 4);
    for speed in speeds {
        assert!(speed["read_gb_per_s"].as_f64() > Some(0.01) && speed["copy_gb_per_s"].as_f64() > Some(0.01));
    }
}

#[test]
fn the_demo_classifies_its_images() {
    let value = json(&[]);
    has(&value, &["isa", "threads", "min_ns", "median_ns", "predictions", "hottest"]);
    assert_eq!(value["images"], 120);
    assert!(value["accuracy"].as_f64() >= Some(0.88), "{}", value["accuracy"]);
    assert_eq!(value["predictions"].as_array().map(Vec::len), Some(120));
    let shares = value["hottest"].as_array().expect("steps").iter().map(|step| step["share"].as_f64());
    assert!(shares.clone().count() == 5 && shares.flatten().sum::<f64>() <= 1.0);
    let scalar = json(&["--isa", "scalar", "--threads", "2"]);
    assert_eq!(scalar["isa"], "scalar");
    assert_eq!(scalar["predictions"], value["predictions"]);

    // No terminal: no escape sequences, four pictures side by side.
    let text = succeeds(&[]);
    assert!(!text.contains('\x1b') && text.contains("Ankle boot"));
    assert!(text.lines().any(|line| line.len() > 100));
}

/// The importer's tensors are the crate's own.
#[test]
fn tensor_files_of_onnx_are_read() {
    let tensor = sinew::onnx::read_tensor(&tensor_proto(&[2, 2], &[1.0, -2.5, 0.0, 4.0])).expect("a tensor");
    assert_eq!(tensor, Tensor::f32([2, 2], vec![1.0, -2.5, 0.0, 4.0]).expect("4 elements"));
    assert!(sinew::onnx::read_tensor(&tensor_proto(&[3, 2], &[1.0; 4])).is_err());
    // float64
    assert!(sinew::onnx::read_tensor(&[0x10, 11]).is_err());
}

// ---- densify ----

/// Two convolutions with a stride, thick enough for Winograd between and behind them.
fn strided_model() -> Vec<u8> {
    let mut model = Builder::new("strided");
    model.input("x", DType::F32, [1, 16, 37, 41]);
    for index in 0..4 {
        let number = |i: usize| ((i * 7919 + index * 31) % 2003) as f32 / 12000.0 - 0.08;
        let weights = Tensor::f32([16, 16, 3, 3], (0..16 * 16 * 9).map(number).collect());
        model.constant(&format!("w{index}"), &weights.expect("as many numbers as the shape holds"));
        let input = if index == 0 { "x".to_owned() } else { format!("y{}", index - 1) };
        let stride = if index % 2 == 0 { 2 } else { 1 };
        model.node(
            &format!("layer{index}"),
            "Conv",
            &[&input, &format!("w{index}")],
            &[&format!("y{index}")],
            &[("strides", [stride, stride].into()), ("pads", [1, 1, 1, 1].into())],
        );
    }
    model.output("y3", DType::F32, [1, 16, 10, 11]);
    model.encode()
}

#[test]
fn densify_writes_a_model_that_holds_the_baseline() {
    let folder = Folder::new("densify");
    let (model, dense) = (folder.write("model.onnx", &strided_model()), folder.path("dense.onnx"));
    let (model, dense) = (model.as_str(), dense.as_str());
    for threads in ["1", "2"] {
        let answer = json(&["densify", model, "--last", "2", "-o", dense, "--check", "--threads", threads]);
        assert_eq!(answer["removed"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer["weights_sha256"]["model"], answer["weights_sha256"]["dense"]);
        let output = &answer["outputs"][0];
        assert_eq!(output["step"], serde_json::json!([4, 4]));
        assert_eq!(output["compared"], 16 * 10 * 11);
        assert_eq!(output["different"], 0, "{answer}");
        let phases = &output["other_phases"];
        assert!(phases["compared"].as_u64() > Some(15 * 16 * 9 * 10));
        // Borders differ: the moved image has none where the dense one has pixels.
        assert!(
            phases["different"].as_u64() > Some(0)
                && phases["different"].as_u64() < phases["compared"].as_u64()
        );
    }
    // Biases of zero are written.
    let [parameters, dense_parameters] =
        [model, dense].map(|model| json(&["inspect", model])["parameters"].as_u64().unwrap_or_default());
    assert_eq!(parameters, dense_parameters);
    // As one dilated map the layers take no Winograd, and round otherwise: the answer is no.
    let refused =
        sinew(&["densify", model, "--layers", "layer0,y2", "--check", "--without", "split_fragments"]);
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    assert!(text(&refused.stdout).contains("DIFFERENT"));
    let direct =
        ["densify", model, "--last", "1", "--check", "--without", "split_fragments", "--conv", "direct"];
    assert!(succeeds(&direct).contains("equal bit for bit"));
}

/// Streams whose stride is removed, and streams on dilated maps, are one convolution each, their shortcuts where those of the
/// model are.
#[test]
fn dense_streams_hold_the_baseline() {
    for model in ["resnet", "rir"] {
        let model = format!("zoo/models/{model}.onnx");
        for last in ["1", "2"] {
            for steer in [&[][..], &["--conv", "direct"], &["--shortcut", "add"], &["--shortcut", "fold"]] {
                let answer = json(&[&["densify", &model, "--last", last, "--check"], steer].concat());
                let output = &answer["outputs"][0];
                assert_eq!(
                    (&output["compared"], &output["different"]),
                    (&10.into(), &0.into()),
                    "{model} {steer:?}"
                );
            }
        }
    }
    let folder = Folder::new("dense-streams");
    let dense = folder.path("dense.onnx");
    json(&["densify", "zoo/models/rir.onnx", "--last", "2", "-o", &dense]);
    let passes = json(&["plan", &dense])["passes"].clone();
    let all_seven = |pass: &serde_json::Value| pass["name"] == "stack_streams" && pass["rewrites"] == 7;
    assert!(passes.as_array().is_some_and(|passes| passes.iter().any(all_seven)), "{passes}");
}

#[test]
fn densify_says_what_cannot_be() {
    let folder = Folder::new("densify-refused");
    let model = folder.write("model.onnx", &strided_model());
    let model = model.as_str();
    assert!(
        refused(&["densify", model, "--layers", "layer0", "--check"])
            .contains("\"layer2\": its stride 2x2 stays")
    );
    assert!(
        refused(&["densify", model, "--layers", "layer1", "--check"]).contains("those are layer0, layer2")
    );
    assert!(refused(&["densify", model, "--last", "3", "--check"]).contains("the network has 2"));
    assert!(refused(&["densify", model, "--last", "1"]).contains("--output"));
    assert!(refused(&["densify", model, "--check"]).contains("--last"));
}
