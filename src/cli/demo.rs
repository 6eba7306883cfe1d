//! `sinew` alone: classifies the embedded images with the embedded model, through the same importer as any file.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use sinew::plan::Io;
use sinew::{Data, Input, Output, Session};
use sinew_kernels::activation::Activation;
use sinew_kernels::isa;

use super::engine::EngineArguments;
use super::load::{Loaded, import_bytes, left_out, prepare};
use super::table::Table;
use super::times::{Times, count, time};
use super::{Failure, Report, Result, colored, npy, picture};

/// A trained classifier of Fashion-MNIST images that uses MaxMin, ResNet in ResNet and SaE; see `zoo/demo/README.md`.
const MODEL: &[u8] = include_bytes!("../../zoo/demo/demo.onnx");
const IMAGES: &[u8] = include_bytes!("../../zoo/demo/images.npy");
const LABELS: &[u8] = include_bytes!("../../zoo/demo/labels.npy");
const CLASSES: &str = include_str!("../../zoo/demo/classes.txt");

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) engine: EngineArguments,
}

/// Pictures shown side by side, and the columns between them.
const SHOWN: usize = 4;
const GAP: &str = "  ";
/// Steps of the profile.
const HOTTEST: usize = 5;
/// Runs are timed for about so long, each image once at least.
const TIMED: Duration = Duration::from_millis(500);
/// Classes told for an image.
const TOP: usize = 3;

/// An image and what the model makes of it.
struct Prediction {
    label: usize,
    probabilities: Vec<f32>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let engine = &arguments.engine;
    let Loaded { model, parameters: Some(parameters), macs, .. } =
        prepare(import_bytes(MODEL, Vec::new(), left_out(engine).0)?, engine, Io::Plain)?
    else {
        unreachable!("the parameters of an ONNX file are known");
    };
    let mut session = Session::new(model, engine.session_options())?;
    let images = embedded(IMAGES)?;
    let labels = embedded(LABELS)?;
    let classes: Vec<&str> = CLASSES.lines().collect();
    let size = session.model().inputs()[0].len();

    let inputs: Vec<Vec<f32>> =
        images.chunks(size).map(|image| image.iter().map(|&x| f32::from(x) / 255.0).collect()).collect();
    let mut logits = vec![0.0; classes.len()];
    let mut predictions = Vec::new();
    for (input, &label) in inputs.iter().zip(&labels) {
        session.run(&[Input::F32(input)], &mut [Output::F32(&mut logits)])?;
        predictions.push(Prediction { label: usize::from(label), probabilities: softmax(&logits) });
    }
    let times = timed(&mut session, &inputs, &mut logits)?;
    let profile = profile(&mut session, &inputs, &mut logits)?;

    let mut report = Report::default();
    let isa = session.isa().name();
    let others: Vec<&str> = isa::supported().iter().map(|table| table.isa.name()).collect();
    let threads = engine.threads();
    report.line("Sinew demo: a classifier of Fashion-MNIST images with MaxMin, ResNet in ResNet and SaE");
    report.line(format!(
        "{} parameters, {} multiply-accumulates an image; isa {isa} (of {}), threads {threads}",
        count(parameters),
        count(macs),
        others.join(", ")
    ));
    report.line("");
    show(&predictions, &images, size, &classes, &mut report);
    let correct = predictions.iter().filter(|prediction| prediction.top()[0] == prediction.label).count();
    let accuracy = correct as f64 / predictions.len() as f64;
    report.line(format!(
        "{correct} of {} embedded images classified correctly ({:.1} %)",
        predictions.len(),
        100.0 * accuracy
    ));
    report.line(format!(
        "{} an image at best, {} in the median of {} runs of batch 1",
        time(times.min()),
        time(times.median()),
        times.runs()
    ));
    report.line("");
    report.set("isa", isa);
    report.set("threads", threads);
    report.set("parameters", parameters);
    report.set("macs", macs);
    report.set("images", predictions.len());
    report.set("correct", correct);
    report.set("accuracy", accuracy);
    report.set("runs", times.runs());
    report.set("min_ns", times.min());
    report.set("median_ns", times.median());
    let told: Vec<Value> = predictions.iter().map(|prediction| prediction.json(&classes)).collect();
    report.set("predictions", told);
    tell_profile(&session, &profile, inputs.len(), &mut report);
    Ok(report)
}

/// The bytes of an embedded array.
fn embedded(file: &[u8]) -> Result<Vec<u8>> {
    let tensor = npy::read(file).map_err(Failure)?;
    match tensor.data() {
        Data::U8(bytes) => Ok(bytes.clone()),
        _ => Err(Failure("the embedded images are not bytes".into())),
    }
}

/// Exponentials divided by their sum.
fn softmax(logits: &[f32]) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = logits.iter().map(|logit| Activation::Exp.eval(logit - largest)).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.into_iter().map(|x| x / sum).collect()
}

fn timed(session: &mut Session<'_>, inputs: &[Vec<f32>], logits: &mut [f32]) -> Result<Times> {
    let mut nanoseconds = Vec::new();
    let begin = Instant::now();
    while nanoseconds.is_empty() || begin.elapsed() < TIMED {
        for input in inputs {
            let start = Instant::now();
            session.run(&[Input::F32(input)], &mut [Output::F32(logits)])?;
            nanoseconds.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    Ok(Times::new(nanoseconds))
}

/// Nanoseconds of each step, summed over all images.
fn profile(session: &mut Session<'_>, inputs: &[Vec<f32>], logits: &mut [f32]) -> Result<Vec<u64>> {
    session.set_profiling(true);
    let mut sums = vec![0; session.step_times().len()];
    for input in inputs {
        session.run(&[Input::F32(input)], &mut [Output::F32(logits)])?;
        for (sum, &time) in sums.iter_mut().zip(session.step_times()) {
            *sum += time;
        }
    }
    session.set_profiling(false);
    Ok(sums)
}

fn tell_profile(session: &Session<'_>, profile: &[u64], images: usize, report: &mut Report) {
    let steps = &session.model().plan().steps;
    let total: u64 = profile.iter().sum();
    let mut order: Vec<usize> = (0..profile.len()).collect();
    order.sort_by_key(|&step| std::cmp::Reverse(profile[step]));
    let mut table = Table::new(&["hottest steps", "op", "algorithm", ">time", ">share"]);
    let mut told: Vec<Value> = Vec::new();
    for &index in order.iter().take(HOTTEST) {
        let step = &steps[index];
        let mean = profile[index] / images as u64;
        let share = profile[index] as f64 / total.max(1) as f64;
        table.row([
            step.name.clone(),
            step.op.to_string(),
            step.algorithm.to_string(),
            time(mean),
            format!("{:.1} %", 100.0 * share),
        ]);
        told.push(json!({
            "name": step.name,
            "op": step.op,
            "algorithm": step.algorithm,
            "ns": mean,
            "share": share,
        }));
    }
    report.text.push_str(&table.render());
    report.line(format!("of {} steps that take {} an image", steps.len(), time(total / images as u64)));
    report.set("hottest", told);
}

/// Pictures side by side, as many as fit the terminal, each with the classes it was taken for.
fn show(predictions: &[Prediction], images: &[u8], size: usize, classes: &[&str], report: &mut Report) {
    let width = size.isqrt();
    let columns =
        console::Term::stdout().size_checked().map_or(usize::MAX, |(_, columns)| usize::from(columns));
    let fitting = (columns.saturating_add(GAP.len()) / (width + GAP.len())).clamp(1, SHOWN);
    let colored = colored();
    let shown = predictions.iter().zip(images.chunks(size)).take(SHOWN);
    let cells: Vec<Vec<String>> = shown
        .map(|(prediction, image)| {
            let mut lines = picture::lines(image, width, colored);
            lines.extend(prediction.lines(classes, width, colored));
            lines
        })
        .collect();
    for row in cells.chunks(fitting) {
        for line in 0..row[0].len() {
            let parts: Vec<&str> = row.iter().map(|cell| cell[line].as_str()).collect();
            report.line(parts.join(GAP).trim_end());
        }
        report.line("");
    }
}

impl Prediction {
    /// Classes, the most probable first.
    fn top(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.probabilities.len()).collect();
        order.sort_by(|&a, &b| self.probabilities[b].total_cmp(&self.probabilities[a]));
        order
    }

    /// What the image is, and a bar for each of the most probable classes.
    fn lines(&self, classes: &[&str], width: usize, colored: bool) -> Vec<String> {
        const NAME: usize = 11;
        const NUMBER: usize = 8;
        let top = self.top();
        let verdict = if top[0] == self.label { "right" } else { "wrong" };
        let mut lines = vec![format!("{:width$}", format!("{}: {verdict}", classes[self.label]))];
        let room = width.saturating_sub(NAME + 1 + NUMBER);
        for class in top.into_iter().take(TOP) {
            let probability = self.probabilities[class];
            let mark = if colored { "█" } else { "#" };
            let bar = mark.repeat((probability * room as f32 + 0.5) as usize);
            let percent = format!("{:.1} %", 100.0 * probability);
            lines.push(format!("{:NAME$} {bar:room$}{percent:>NUMBER$}", classes[class]));
        }
        lines
    }

    fn json(&self, classes: &[&str]) -> Value {
        let told = |class: usize| json!({ "index": class, "value": self.probabilities[class], "label": classes[class] });
        let top: Vec<Value> = self.top().into_iter().take(TOP).map(told).collect();
        json!({ "label": classes[self.label], "top": top })
    }
}
