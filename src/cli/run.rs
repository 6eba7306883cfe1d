//! `sinew run`: a model's outputs, for files, raw bytes or random inputs.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use sinew::plan::Io;
use sinew::{Input, Session, Tensor};

use super::files::{self, Staged, file_name};
use super::inputs::{FileArguments, SourceArguments, gather};
use super::load::{Loaded, ModelArguments, load};
use super::outputs::Outputs;
use super::{Failure, Report, Result, npy, progress};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    source: SourceArguments,
    /// The batch of one run: sets the first dimension of every input
    #[arg(long, value_name = "N", conflicts_with = "shapes", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,
    /// A folder that every output is written to, as NAME.npy
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// All outputs one after the other as little-endian f32, in the model's own layout
    #[arg(long, value_name = "FILE")]
    raw_output: Option<PathBuf>,
    /// How many of the largest elements of each item are told
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Names of the classes, one a line
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// A folder that every step's result is written to, as .npy with an index.json
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let batch = arguments.batch.map(|batch| batch as usize);
    let Loaded { model, mut notices, .. } = load(&arguments.model, batch, Io::Plain)?;
    let inputs = gather(&arguments.files, &arguments.source, model.inputs())?;
    let labels = arguments.labels.as_deref().map(read_labels).transpose()?;
    if arguments.dump.is_some() && inputs.batches > 1 {
        return Err(Failure(format!("--dump takes one batch, the input holds {}", inputs.batches)));
    }
    let mut outputs = Outputs::new(model.inputs(), model.outputs(), inputs.batches)?;
    let engine = &arguments.model.engine;
    let mut session = Session::new(model, engine.session_options())?;
    let mut staged = Staged::default();
    if let Some(folder) = &arguments.dump {
        dump(&mut session, &inputs.batch(0), &mut outputs, folder, &mut staged)?;
    } else {
        let bar = progress::bar(inputs.batches as u64, engine.json);
        for index in 0..inputs.batches {
            session.run(&inputs.batch(index), &mut outputs.batch(index))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
    }

    let mut report = Report::default();
    let name = arguments.model.model.display();
    let from = match inputs.seed {
        Some(seed) => format!(", random inputs of seed {seed}"),
        None if inputs.batches > 1 => format!(", {} batches", inputs.batches),
        None => String::new(),
    };
    let (isa, threads) = (session.isa().name(), engine.threads());
    report.line(format!("{name}: isa {isa}, threads {threads}{from}"));
    report.set("isa", isa);
    report.set("threads", threads);
    report.set("seed", inputs.seed);
    report.set("batches", inputs.batches);
    report.set("images", inputs.json());
    outputs.tell(arguments.top, labels.as_deref(), &mut report)?;
    if let Some(folder) = &arguments.output {
        let names = outputs.stage(folder, &mut staged)?;
        report.line(format!("written to {}: {}", folder.display(), names.join(", ")));
        report.set("files", names);
    }
    if let Some(path) = &arguments.raw_output {
        outputs.stage_raw(path, &mut staged)?;
    }
    staged.commit()?;
    notices.extend(inputs.notices());
    report.notices = notices;
    Ok(report)
}

fn read_labels(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::at(path, error))?;
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// Runs one batch and writes what every step computes, in the order of the steps, then the outputs.
///
/// A result is written as the values that it holds, without the lanes that fill up a block: it does not depend on the
/// machine. What a step hands to the caller stands among the outputs.
fn dump(
    session: &mut Session<'_>,
    inputs: &[Input<'_>],
    outputs: &mut Outputs,
    folder: &Path,
    staged: &mut Staged,
) -> Result<()> {
    files::make_folder(folder)?;
    let model = session.model().clone();
    let mut steps: Vec<Value> = Vec::new();
    let mut failure = None;
    let mut write = |index: usize, tensor: &Tensor| -> Result<()> {
        let step = &model.plan().steps[index];
        let file = format!("{index:04}_{}.npy", file_name(&step.name));
        let path = folder.join(&file);
        let bytes = npy::write(tensor.shape(), tensor.data()).map_err(|error| Failure::at(&path, error))?;
        staged.add(&path, &bytes)?;
        steps.push(json!({
            "index": index,
            "name": step.name,
            "op": step.op,
            "algorithm": step.algorithm,
            "shape": tensor.shape(),
            "dtype": tensor.dtype().name(),
            "file": file,
        }));
        Ok(())
    };
    session.run_and_see(inputs, &mut outputs.batch(0), |index, tensor| {
        if failure.is_none() {
            failure = write(index, &tensor).err();
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let names = outputs.stage(&folder.join("outputs"), staged)?;
    let isa = session.isa().name();
    let index = json!({ "version": 1, "model": model.name(), "isa": isa, "steps": steps, "outputs": names });
    staged.add(&folder.join("index.json"), format!("{index:#}\n").as_bytes())
}
