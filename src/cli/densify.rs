//! `sinew densify`: the dense equivalent of a model as an ONNX file, and the proof that it is one.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sinew::graph::{Graph, Op};
use sinew::onnx::{Imported, export};
use sinew::optimize::densify::{Dense, Positions, Selection};
use sinew::plan::{Io, Port};
use sinew::{Data, Model, Options, Session, Tensor};

use super::engine::EngineArguments;
use super::files::Staged;
use super::inputs::{FileArguments, SourceArguments, gather};
use super::load::{ModelArguments, import_bytes, left_out, read_model};
use super::times::{count, shape as by_x};
use super::{Failure, Report, Result, compiled, progress};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Remove the last N strides; branches that run side by side count once
    #[arg(long, value_name = "N", required_unless_present = "layers", conflicts_with = "layers")]
    last: Option<usize>,
    /// Remove the strides of these layers, named by node or output
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    layers: Vec<String>,
    /// The ONNX file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "check")]
    output: Option<PathBuf>,
    /// Run the model and its dense form and compare all positions
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let path = &arguments.model.model;
    let (forms, _) = left_out(&arguments.model.engine);
    let at = |error: sinew::Error| Failure::at(path, error);
    compiled::refuse(path)?;
    let shapes = arguments.model.shapes.shapes.clone();
    let Imported { graph: baseline, notices, .. } =
        import_bytes(&read_model(path)?, shapes, forms.clone()).map_err(at)?;
    let selection = match arguments.last {
        Some(last) => Selection::Last(last),
        None => Selection::Layers(arguments.layers.clone()),
    };
    let Dense { graph, removed, outputs } = baseline.densify(&selection).map_err(at)?;
    let bytes = export(&graph).map_err(at)?;
    // What the file says is what is told and checked from here on.
    let dense = import_bytes(&bytes, Vec::new(), forms).map_err(at)?.graph;

    let mut report = Report { notices, ..Report::default() };
    for (name, stride) in &removed {
        report.line(format!("{name}: stride {} becomes 1", by_x(stride)));
    }
    for ((&id, &own), positions) in dense.outputs.iter().zip(&baseline.outputs).zip(&outputs) {
        report.line(format!(
            "{}: {} becomes {}; the model's position n is {} n, neighbours are {} input pixels apart",
            dense.value(id).name,
            by_x(baseline.shape(own)),
            by_x(dense.shape(id)),
            by_x(&positions.step),
            by_x(&positions.input_step),
        ));
    }
    let (macs, dense_macs) = (baseline.macs(), dense.macs());
    report.line(format!(
        "multiply-accumulates: {} become {} ({:.2} times)",
        count(macs),
        count(dense_macs),
        dense_macs as f64 / macs.max(1) as f64
    ));
    let hashes = [weights_hash(&baseline), weights_hash(&dense)];
    let same = hashes[0] == hashes[1];
    report.line(match same {
        true => format!("weights: the same, sha256 {}", hashes[0]),
        false => format!("weights: NOT the same, sha256 {} and {}", hashes[0], hashes[1]),
    });
    report.refused = !same;
    let removed = removed.iter().map(|(name, stride)| json!({ "name": name, "stride": stride }));
    report.set("removed", removed.collect::<Value>());
    report.set("macs", json!({ "model": macs, "dense": dense_macs }));
    report.set("weights_sha256", json!({ "model": hashes[0], "dense": hashes[1] }));
    let mut told: Vec<Value> = outputs
        .iter()
        .zip(&dense.outputs)
        .map(|(positions, &id)| {
            json!({
                "name": dense.value(id).name,
                "shape": dense.shape(id),
                "step": positions.step,
                "input_step": positions.input_step,
            })
        })
        .collect();
    if arguments.check {
        check(arguments, baseline, dense, &outputs, &mut told, &mut report)?;
    }
    report.set("outputs", told);
    if let Some(path) = &arguments.output {
        let mut staged = Staged::default();
        staged.add(path, &bytes)?;
        staged.commit()?;
        report.line(format!("written to {}", path.display()));
    }
    Ok(report)
}

/// Over the elements of all layers' constants, in the order of the layers. A dense layer that became a convolution has
/// the same elements in another shape.
fn weights_hash(graph: &Graph) -> String {
    let mut hash = Sha256::new();
    let layers = graph
        .nodes
        .iter()
        .filter(|node| matches!(node.op, Op::Conv(_) | Op::Dense { .. } | Op::BatchNorm { .. }));
    for id in layers.flat_map(|node| &node.inputs) {
        for element in graph.constant(*id).unwrap_or_default() {
            hash.update(element.to_le_bytes());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs the model and its dense form on the same input, and the model on shifted ones.
fn check(
    arguments: &Arguments,
    baseline: Graph,
    dense: Graph,
    outputs: &[Positions],
    told: &mut [Value],
    report: &mut Report,
) -> Result<()> {
    let engine = &arguments.model.engine;
    let (mut baseline, mut dense) = (session(baseline, engine)?, session(dense, engine)?);
    let ports = baseline.model().inputs().to_vec();
    let inputs = gather(&arguments.files, &arguments.source, &ports)?;
    report.notices.extend(inputs.notices());
    if inputs.batches != 1 {
        return Err(Failure(format!("--check takes one batch, the input holds {}", inputs.batches)));
    }
    let given: Vec<Tensor> = inputs
        .batch(0)
        .iter()
        .zip(&ports)
        .map(|(input, port)| {
            let data = match input {
                sinew::Input::F32(data) => Data::F32(data.to_vec()),
                sinew::Input::U8(data) => Data::U8(data.to_vec()),
                sinew::Input::I64(data) => Data::I64(data.to_vec()),
            };
            Tensor::new(port.shape.clone(), data)
        })
        .collect::<sinew::Result<_>>()?;
    let large = dense.run_tensors(&given)?;
    let small = baseline.run_tensors(&given)?;
    report.set("isa", baseline.isa().name());
    report.set("seed", inputs.seed);
    let names: Vec<String> = baseline.model().outputs().iter().map(|port| port.name.clone()).collect();
    for (index, positions) in outputs.iter().enumerate() {
        let found = compare(&small[index], &large[index], positions.step, [0, 0]);
        report.refused |= found.different > 0;
        let answer = if found.different == 0 { "equal bit for bit" } else { "DIFFERENT" };
        report.line(format!(
            "check \"{}\": {answer}, {} of {} values of the model, borders included",
            names[index],
            count(found.compared - found.different),
            count(found.compared)
        ));
        told[index]["compared"] = found.compared.into();
        told[index]["different"] = found.different.into();
    }
    // The other phases are the model on an image that is moved by some pixels.
    if !ports.iter().all(|port| port.shape.len() == 4) {
        report.line("other phases: not compared, not every input is [N, C, H, W]");
        return Ok(());
    }
    let phases: u64 =
        outputs.iter().map(|positions| positions.step.iter().product::<usize>() as u64 - 1).sum();
    let bar = progress::bar(phases, engine.json);
    for (index, positions) in outputs.iter().enumerate() {
        let mut sum = Compared::default();
        let [down, across] = positions.step;
        for phase in (1..down * across).map(|phase| [phase / across, phase % across]) {
            let by = [0, 1].map(|axis| phase[axis] * positions.input_step[axis]);
            let moved = given.iter().zip(&ports).map(|(tensor, port)| moved(tensor, port, by));
            let moved = baseline.run_tensors(&moved.collect::<sinew::Result<Vec<_>>>()?)?;
            let found = compare(&moved[index], &large[index], positions.step, phase);
            sum.compared += found.compared;
            sum.different += found.different;
            sum.close += found.close;
            sum.largest = sum.largest.max(found.largest);
            bar.inc(1);
        }
        report.line(format!(
            "other phases of \"{}\" against the model on the moved image: {} of {} values equal bit for bit, {} up to \
             rounding (1e-5 of the largest), largest difference {:.3e}; where a window reaches a border, the moved image \
             has padding in place of pixels",
            names[index],
            count(sum.compared - sum.different),
            count(sum.compared),
            count(sum.close),
            sum.largest
        ));
        told[index]["other_phases"] = json!({ "compared": sum.compared, "different": sum.different, "close": sum.close, "largest_difference": sum.largest });
    }
    bar.finish_and_clear();
    Ok(())
}

fn session(graph: Graph, engine: &EngineArguments) -> Result<Session<'static>> {
    let mut disabled_passes = left_out(engine).1;
    // The model's head in the order that the file has it, and that the dense form keeps.
    disabled_passes.push("average_first".into());
    let options = Options { plan: engine.plan_options(Io::Plain), disabled_passes };
    Ok(Session::new(Arc::new(Model::new(graph, &options)?), engine.session_options())?)
}

#[derive(Default)]
struct Compared {
    compared: u64,
    different: u64,
    /// Not further apart than rounding explains.
    close: u64,
    largest: f64,
}

/// Compares a model's output with the positions of a dense one that are `phase` beyond a multiple of `step`. Rows and
/// columns are the last two dimensions of the dense one; a model's output without any has one of each.
fn compare(small: &Tensor, large: &Tensor, step: [usize; 2], phase: [usize; 2]) -> Compared {
    let mut own = small.shape().to_vec();
    own.resize(large.shape().len(), 1);
    let image = |shape: &[usize]| match shape {
        [.., height, width] => [*height, *width],
        _ => [1, 1],
    };
    let ([rows, columns], [height, width]) = (image(&own), image(large.shape()));
    let size = numbers(small).into_iter().map(f64::abs).fold(0.0, f64::max);
    let mut found = Compared::default();
    for (index, want) in numbers(small).into_iter().enumerate() {
        let (plane, pixel) = (index / (rows * columns), index % (rows * columns));
        let (y, x) = (pixel / columns * step[0] + phase[0], pixel % columns * step[1] + phase[1]);
        if y >= height || x >= width {
            // All of the model's own positions are there.
            let missing = u64::from(phase == [0, 0]);
            found.compared += missing;
            found.different += missing;
            continue;
        }
        let got = number(large, (plane * height + y) * width + x);
        found.compared += 1;
        found.different += u64::from(got.to_bits() != want.to_bits());
        found.close += u64::from(got.to_bits() == want.to_bits() || (got - want).abs() <= 1e-5 * size);
        found.largest = found.largest.max((got - want).abs());
    }
    found
}

/// Exact: all elements are f32, or indices of channels.
fn number(tensor: &Tensor, index: usize) -> f64 {
    match tensor.data() {
        Data::F32(data) => f64::from(data[index]),
        Data::U8(data) => f64::from(data[index]),
        Data::I64(data) => data[index] as f64,
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    (0..tensor.shape().iter().product()).map(|index| number(tensor, index)).collect()
}

/// An image whose pixel 0 is the given one's pixel `by`; zeros come in at the far sides.
fn moved(tensor: &Tensor, port: &Port, [down, across]: [usize; 2]) -> sinew::Result<Tensor> {
    let [height, width] = [port.shape[2], port.shape[3]];
    let from = |index: usize| {
        let (plane, pixel) = (index / (height * width), index % (height * width));
        let (y, x) = (pixel / width + down, pixel % width + across);
        (y < height && x < width).then_some((plane * height + y) * width + x)
    };
    let all = 0..port.len();
    let data = match tensor.data() {
        Data::F32(data) => Data::F32(all.map(|i| from(i).map_or(0.0, |i| data[i])).collect()),
        Data::U8(data) => Data::U8(all.map(|i| from(i).map_or(0, |i| data[i])).collect()),
        Data::I64(data) => Data::I64(all.map(|i| from(i).map_or(0, |i| data[i])).collect()),
    };
    Tensor::new(port.shape.clone(), data)
}
