//! Writes ONNX networks with random weights, for benchmarks and tests: the layers of real networks at their real sizes,
//! or smaller ones.
//!
//!     cargo run --release --example make_model -- KIND OUT.onnx [--size N] [--batch N] [--width F] [--seed S] [--bn yes|no]
//!         [--input FILE]
//!
//! `--input` also writes numbers for the network's input, as `sinew run --raw-input` takes them: signed zeros and
//! denormals are among those of every image, NaN and infinities among those of the last one of several.
//!
//! The same arguments give the same bytes on every machine.

mod input;
mod layers;
mod networks;

use std::process::ExitCode;

use networks::{KINDS, Settings};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("make_model: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<String, String> {
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
    let usage = format!(
        "usage: make_model KIND OUT.onnx [--size N] [--batch N] [--width F] [--seed S] [--bn yes|no] [--input FILE]; KIND is one of {}",
        kinds.join(", ")
    );
    let [kind, path, options @ ..] = arguments else {
        return Err(usage);
    };
    let Some(kind) = KINDS.iter().find(|known| known.name == kind.as_str()) else {
        return Err(format!("{kind} is no kind; {usage}"));
    };
    let mut settings =
        Settings { size: kind.size, batch: 1, width: 1.0, seed: 1, batch_norm: kind.batch_norm };
    let mut input = None;
    let (pairs, rest) = options.as_chunks::<2>();
    if let [option] = rest {
        return Err(format!("{option} needs a value; {usage}"));
    }
    for [option, value] in pairs {
        let wrong = || format!("{option} {value}: no such value; {usage}");
        match option.as_str() {
            "--size" => settings.size = value.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?,
            "--batch" => settings.batch = value.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?,
            "--width" => settings.width = value.parse().ok().filter(|&f| f > 0.0).ok_or_else(wrong)?,
            "--seed" => settings.seed = value.parse().map_err(|_| wrong())?,
            "--input" => input = Some(value),
            "--bn" => {
                settings.batch_norm = match value.as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong()),
                }
            }
            _ => return Err(format!("{option} is no option; {usage}")),
        }
    }
    let bytes = (kind.build)(&settings).map_err(|error| error.to_string())?;
    std::fs::write(path, &bytes).map_err(|error| format!("{path}: {error}"))?;
    let imported =
        sinew::onnx::import(&bytes, &sinew::onnx::ImportOptions::default()).map_err(|e| e.to_string())?;
    let graph = imported.graph;
    if let Some(file) = input {
        let numbers = input::hard_numbers(graph.shape(graph.inputs[0]), settings.seed);
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        std::fs::write(file, bytes).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(format!(
        "{path}: {} nodes, {:.1} M parameters, {:.1} M multiply-accumulates",
        graph.nodes.len(),
        graph.parameters() as f64 / 1e6,
        graph.macs() as f64 / 1e6
    ))
}
