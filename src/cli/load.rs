//! From a model file and options to a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use sinew::onnx::recover::FORMS;
use sinew::onnx::{ImportOptions, Imported, Limits, Recovery, import};
use sinew::plan::Io;
use sinew::{Model, Options};

use super::engine::EngineArguments;
use super::{Failure, Result, compiled, files};

/// A model and how it is prepared.
#[derive(Args, Clone)]
pub(super) struct ModelArguments {
    /// An ONNX file; run, plan, bench and inspect read compiled models, .sinew, as well
    pub(super) model: PathBuf,
    #[command(flatten)]
    pub(super) shapes: ShapeArguments,
    #[command(flatten)]
    pub(super) engine: EngineArguments,
}

/// Extents that a file leaves open.
#[derive(Args, Clone)]
pub(super) struct ShapeArguments {
    /// All extents of an input whose shape the file leaves open, or another batch; repeatable
    #[arg(long = "shape", value_name = "NAME=1x3x224x224", value_parser = named_shape)]
    pub(super) shapes: Vec<(String, Vec<usize>)>,
}

/// A model ready to run, and what its file said.
pub(super) struct Loaded {
    pub(super) model: Arc<Model>,
    pub(super) notices: Vec<String>,
    /// Of the file; none are known of a compiled model.
    pub(super) parameters: Option<u64>,
    pub(super) macs: u64,
    pub(super) recovery: Recovery,
}

/// Loads a model file; with `batch`, all inputs have that batch.
pub(super) fn load(arguments: &ModelArguments, batch: Option<usize>, io: Io) -> Result<Loaded> {
    let path = &arguments.model;
    if compiled::found(path)? {
        return compiled::load(arguments, batch, io);
    }
    let bytes = read_model(path)?;
    let at = |error: sinew::Error| Failure::at(path, error);
    let engine = &arguments.engine;
    let mut imported =
        import_bytes(&bytes, arguments.shapes.shapes.clone(), left_out(engine).0).map_err(at)?;
    if let Some(batch) = batch {
        let graph = &imported.graph;
        let with_batch = |value: &sinew::graph::Value| {
            let mut shape = value.shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = batch;
            }
            (value.name.clone(), shape)
        };
        let shapes = graph.inputs.iter().map(|&id| with_batch(graph.value(id))).collect();
        imported = import_bytes(&bytes, shapes, left_out(engine).0).map_err(at)?;
    }
    prepare(imported, engine, io).map_err(at)
}

/// Plans what was read.
pub(super) fn prepare(imported: Imported, engine: &EngineArguments, io: Io) -> sinew::Result<Loaded> {
    let Imported { graph, notices, recovery, .. } = imported;
    let (parameters, macs) = (Some(graph.parameters()), graph.macs());
    let options = Options { plan: engine.plan_options(io), disabled_passes: left_out(engine).1 };
    let model = Arc::new(Model::new(graph, &options)?);
    Ok(Loaded { model, notices, parameters, macs, recovery })
}

/// The forms and the passes that are left out: they share an option, and each checks its own names.
pub(super) fn left_out(engine: &EngineArguments) -> (Vec<String>, Vec<String>) {
    engine.without.iter().cloned().partition(|name| FORMS.iter().any(|form| form.name == name))
}

/// Reads the bytes of a model file, unless there are too many.
pub(super) fn read_model(path: &Path) -> Result<Vec<u8>> {
    let (found, limit) = (std::fs::metadata(path), Limits::default().bytes);
    match found.map_err(|error| Failure::at(path, error))?.len() {
        found if found > limit => Err(Failure::at(path, format!("{found} bytes, the limit is {limit}"))),
        _ => files::read(path),
    }
}

/// Reads an ONNX model with the default limits, the forms of these names left as they are.
pub(super) fn import_bytes(
    bytes: &[u8],
    shapes: Vec<(String, Vec<usize>)>,
    left_out: Vec<String>,
) -> sinew::Result<Imported> {
    import(bytes, &ImportOptions { shapes, left_out, ..ImportOptions::default() })
}

fn named_shape(text: &str) -> std::result::Result<(String, Vec<usize>), String> {
    let expected = "expected NAME=1x3x224x224";
    let (name, extents) = text.rsplit_once('=').ok_or(expected)?;
    let extents: Option<Vec<usize>> =
        extents.split('x').map(|extent| extent.parse().ok().filter(|&extent| extent > 0)).collect();
    Ok((name.to_owned(), extents.ok_or(expected)?))
}
