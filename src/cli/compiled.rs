//! Compiled models on the command line. Their plan is settled: what would change it is an error, not ignored.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use sinew::Model;
use sinew::onnx::Recovery;
use sinew::plan::file::{LoadOptions, MAGIC, is_compiled};
use sinew::plan::{Io, Port};

use super::engine::EngineArguments;
use super::load::{Loaded, ModelArguments};
use super::table::Table;
use super::times::{count, shape as by_x};
use super::{Failure, Report, Result};

/// Whether a file begins as a compiled model does.
pub(super) fn found(path: &Path) -> Result<bool> {
    let mut start = [0; MAGIC.len()];
    let file = File::open(path).map_err(|error| Failure::at(path, error))?;
    match file.take(start.len() as u64).read(&mut start) {
        Ok(read) => Ok(is_compiled(&start[..read])),
        Err(error) => Err(Failure::at(path, error)),
    }
}

/// An error for commands that need the graph.
pub(super) fn refuse(path: &Path) -> Result<()> {
    match found(path)? {
        true => Err(Failure::at(path, "a compiled model holds no graph; give the ONNX file it was made of")),
        false => Ok(()),
    }
}

/// Opens a compiled model.
pub(super) fn open(path: &Path) -> Result<Model> {
    Model::open(path, &LoadOptions::default()).map_err(|error| Failure::at(path, error))
}

/// Opens a compiled model, with the options that its plan leaves open only.
pub(super) fn load(arguments: &ModelArguments, batch: Option<usize>, io: Io) -> Result<Loaded> {
    let ModelArguments { model: path, shapes, engine } = arguments;
    let model = open(path)?;
    let settled =
        [("--shape", !shapes.shapes.is_empty()), ("--batch", batch.is_some()), ("--io", io != Io::Plain)];
    let given = settled.into_iter().find_map(|(name, given)| given.then_some(name));
    if let Some(name) = given.or_else(|| engine.of_the_plan()) {
        let reason = format!("{name} changes the plan, which a compiled model has; compile it again");
        return Err(Failure::at(path, reason));
    }
    check_threads(&model, engine).map_err(|reason| Failure::at(path, reason))?;
    let macs = model.plan().steps.iter().map(|step| step.macs).sum();
    Ok(Loaded {
        model: Arc::new(model),
        notices: Vec::new(),
        parameters: None,
        macs,
        recovery: Recovery::default(),
    })
}

fn check_threads(model: &Model, engine: &EngineArguments) -> std::result::Result<(), String> {
    let (wanted, planned) = (engine.threads(), model.threads());
    if wanted <= planned {
        return Ok(());
    }
    let s = if planned == 1 { "" } else { "s" };
    Err(format!(
        "--threads {wanted}: its plan is cut for {planned} thread{s}; compile it with --threads {wanted}"
    ))
}

/// What a compiled model tells: no operators, parameters or forms, but steps and exact memory.
pub(super) fn inspect(path: &Path) -> Result<Report> {
    let model = open(path)?;
    let (plan, mut report) = (model.plan(), Report::default());
    let bytes = std::fs::metadata(path).map_err(|error| Failure::at(path, error))?.len();
    let macs: u64 = plan.steps.iter().map(|step| step.macs).sum();
    let (threads, weights, arena) = (model.threads(), plan.weights_bytes(), plan.arena_bytes());
    report.line(format!("{}, {} bytes, compiled from \"{}\"", path.display(), count(bytes), model.name()));
    report.line(format!(
        "{} multiply-accumulates, weights {} bytes, arena {} bytes, threads {threads}",
        count(macs),
        count(weights as u64),
        count(arena as u64)
    ));
    for (what, ports) in [("input", model.inputs()), ("output", model.outputs())] {
        for Port { name, shape, dtype } in ports {
            report.line(format!("{what} \"{name}\" {} {}", dtype.name(), by_x(shape)));
        }
    }
    let mut ops: BTreeMap<&str, u64> = BTreeMap::new();
    for step in &plan.steps {
        *ops.entry(&step.op).or_default() += 1;
    }
    let mut table = Table::new(&["step", ">count"]);
    for (op, number) in &ops {
        table.row([(*op).to_owned(), number.to_string()]);
    }
    report.line("");
    report.text.push_str(&table.render());
    report.set("bytes", bytes);
    report.set("threads", threads);
    report.set("weights_bytes", weights);
    report.set("arena_bytes", arena);
    report.set("macs", macs);
    report.set("ops", json!(ops));
    for (key, ports) in [("inputs", model.inputs()), ("outputs", model.outputs())] {
        let port =
            |port: &Port| json!({ "name": port.name, "shape": port.shape, "dtype": port.dtype.name() });
        report.set(key, ports.iter().map(port).collect::<Value>());
    }
    for key in ["opset", "producer", "parameters", "recovered", "missed"] {
        report.set(key, Value::Null);
    }
    report.set("unsupported", json!([]));
    Ok(report)
}
