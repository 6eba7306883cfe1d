//! The command line: one file per subcommand, each of which makes a [`Report`]; only this file prints.
//!
//! Exit status: 0 done, 1 the answer is no, 2 bad usage or bad input. With 2, standard error holds one line and standard
//! output nothing: a report is printed only once it is complete.

mod bench;
mod compile;
mod compiled;
mod demo;
mod densify;
mod engine;
mod files;
mod inputs;
mod inspect;
mod load;
mod machine;
mod npy;
mod outputs;
mod peak;
mod picture;
mod plan;
mod progress;
mod random;
mod rounding;
mod run;
mod table;
mod times;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use serde_json::{Map, Value, json};

/// CNN inference for CPUs. Without a subcommand: a demo on the embedded model and images
///
/// Exit status: 0 done, 1 the answer is no, 2 bad usage or bad input, with one line on standard error.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    demo: demo::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// Compute a model's outputs
    ///
    /// Inputs come from files, from raw bytes, or, where none are given, from a seed. A file may hold several batches of
    /// the model's size: the model runs once for each, and the outputs are joined along their first dimension. Text tells
    /// the largest elements of the first items; --json tells those of all.
    Run(run::Arguments),
    /// List what a model file holds: operators, shapes, parameters, multiply-accumulates
    ///
    /// Recovered are operators that the file has in pieces; missed are places that look like one and are none. With nodes
    /// that are not supported it lists those, all at once, and exits with status 1.
    Inspect(inspect::Arguments),
    /// List the steps that a run takes, the algorithm of each and why, and the exact memory
    ///
    /// A plan depends on the model and the options only: it is the same on every machine and instruction set.
    Plan(plan::Arguments),
    /// Time warm runs: minimum, median, 99th percentile
    Bench(bench::Arguments),
    /// Compute a model's outputs at more positions: strides become 1, later layers dilated, weights stay the same
    ///
    /// Every position of the model is one of the dense one, with the same value: dense[M n] = model[n], M being the product
    /// of the removed strides. --check runs both and compares all bits; where they differ, the exit status is 1.
    Densify(densify::Arguments),
    /// Write a model as a .sinew file or a C array, for programs that link the library
    ///
    /// The file holds the plan, options such as --threads included, and the packed weights; every instruction set reads it.
    Compile(compile::Arguments),
    /// Measure this machine: instruction sets, caches, peak of multiply-adds, bandwidth
    ///
    /// No plan uses what is found here.
    Machine(machine::Arguments),
}

/// Why a command cannot be done: bad usage or bad input, in one line.
#[derive(Debug)]
struct Failure(String);

type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// About a file.
    fn at(path: &std::path::Path, reason: impl std::fmt::Display) -> Self {
        Failure(format!("{}: {reason}", path.display()))
    }
}

impl From<sinew::Error> for Failure {
    fn from(error: sinew::Error) -> Self {
        Failure(error.to_string())
    }
}

/// A command's complete answer, both as text and as JSON.
#[derive(Default)]
struct Report {
    text: String,
    json: Map<String, Value>,
    /// What a user should know: conversions, assumptions. On standard error, or in the JSON.
    notices: Vec<String>,
    /// Whether the answer is no.
    refused: bool,
}

impl Report {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.json.insert(key.to_owned(), value.into());
    }
}

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return print(&error.to_string(), ExitCode::SUCCESS);
        }
        Err(error) => return fail(&usage(&error.to_string())),
    };
    let (json, report) = match &arguments.command {
        None => (arguments.demo.engine.json, demo::run(&arguments.demo)),
        Some(Command::Run(options)) => (options.model.engine.json, run::run(options)),
        Some(Command::Inspect(options)) => (options.json, inspect::run(options)),
        Some(Command::Plan(options)) => (options.model.engine.json, plan::run(options)),
        Some(Command::Bench(options)) => (options.model.engine.json, bench::run(options)),
        Some(Command::Densify(options)) => (options.model.engine.json, densify::run(options)),
        Some(Command::Compile(options)) => (options.model.engine.json, compile::run(options)),
        Some(Command::Machine(options)) => (options.json, machine::run(options)),
    };
    let mut report = match report {
        Ok(report) => report,
        Err(Failure(reason)) => return fail(&reason),
    };
    let status = if report.refused { ExitCode::from(1) } else { ExitCode::SUCCESS };
    if json {
        report.set("version", 1);
        report.set("notices", json!(report.notices));
        return print(&format!("{}\n", Value::Object(report.json)), status);
    }
    for notice in &report.notices {
        eprintln!("note: {}", one_line(notice));
    }
    print(&report.text, status)
}

/// Whether a terminal shows standard output, and colours are wanted.
fn colored() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn print(text: &str, status: ExitCode) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => status,
        // A reader such as `head` has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => status,
        Err(error) => fail(&format!("standard output: {error}")),
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("error: {}", one_line(reason));
    ExitCode::from(2)
}

/// Names in model files may hold anything, line breaks and escape sequences included.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace(char::is_control, "?")
}

/// What is wrong, of clap's paragraphs: without the usage and the pointer to the help.
fn usage(message: &str) -> String {
    let reason = message.split("\n\nUsage:").next().unwrap_or(message);
    let reason = reason.split("\n\nFor more information").next().unwrap_or(reason);
    let reason = reason.strip_prefix("error: ").unwrap_or(reason);
    reason.split("\n\n").map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
