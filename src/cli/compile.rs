//! `sinew compile`: a model as a `.sinew` file, or as an array in a C header, for programs that link the library.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use sinew::plan::Io;

use super::files::Staged;
use super::inputs::{FileArguments, SourceArguments, given};
use super::load::{Loaded, ModelArguments, load};
use super::times::{bytes, count};
use super::{Failure, Report, Result, compiled, rounding};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Where the compiled model goes
    #[arg(short, long, value_name = "OUT.sinew", required_unless_present = "c_array")]
    output: Option<PathBuf>,
    /// Where a C header with the compiled model as an array goes
    #[arg(long, value_name = "OUT.h")]
    c_array: Option<PathBuf>,
    #[command(flatten)]
    files: FileArguments,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    compiled::refuse(&arguments.model.model)?;
    let engine = &arguments.model.engine;
    let Loaded { model, mut notices, .. } = load(&arguments.model, None, Io::Plain)?;
    let plan = model.plan();
    let mut file = Vec::new();
    model.compile(&mut file)?;
    let mut report = Report::default();
    let mut staged = Staged::default();
    if let Some(path) = &arguments.output {
        staged.add(path, &file)?;
        report.line(format!(
            "{}: {} bytes ({})",
            path.display(),
            count(file.len() as u64),
            bytes(file.len() as u64)
        ));
    }
    if let Some(path) = &arguments.c_array {
        let name = identifier(path)?;
        staged.add(path, c_array(&name, &file, plan.arena_bytes()).as_bytes())?;
        report.line(format!("{}: array {name}, {} bytes", path.display(), count(file.len() as u64)));
    }
    let (weights, arena) = (plan.weights_bytes(), plan.arena_bytes());
    report.line(format!(
        "weights {} bytes, arena {} bytes, threads {}",
        count(weights as u64),
        count(arena as u64),
        model.threads()
    ));
    if engine.rounds_weights() {
        rounding::tell(&arguments.model, &model, &arguments.files, &arguments.source, &mut report)?;
    } else if let Some(option) = given(&arguments.files, &arguments.source) {
        return Err(Failure(format!("{option}: only --weights f16 compares outputs")));
    }
    staged.commit()?;
    notices.append(&mut report.notices);
    report.notices = notices;
    report.set("weights", if engine.rounds_weights() { "f16" } else { "f32" });
    report.set("bytes", file.len());
    report.set("weights_bytes", weights);
    report.set("arena_bytes", arena);
    report.set("threads", model.threads());
    report.set("output", arguments.output.as_ref().map(|path| path.display().to_string()));
    report.set("c_array", arguments.c_array.as_ref().map(|path| path.display().to_string()));
    Ok(report)
}

/// The name of the array: that of the file, as C takes it.
fn identifier(path: &std::path::Path) -> Result<String> {
    let stem = path.file_stem().ok_or_else(|| Failure::at(path, "is no name of a file"))?;
    let stem = stem.to_string_lossy();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Ok(if name.starts_with(|c: char| c.is_ascii_digit()) { format!("model_{name}") } else { name })
}

/// A header for one C or C++ file: the array, aligned as the library uses it in place, and the sizes to plan with.
fn c_array(name: &str, file: &[u8], arena_bytes: usize) -> String {
    let upper = name.to_ascii_uppercase();
    let mut text = String::with_capacity(file.len() * 4 + 1024);
    let _ = write!(
        text,
        "/* A compiled model, written by `sinew compile --c-array`. Include it in one file.\n \
         * sinew_model_in_place({name}, {upper}_BYTES, ...) uses it where it lies. */\n\
         #ifndef {upper}_H\n#define {upper}_H\n\n\
         #define {upper}_BYTES {}\n#define {upper}_ARENA_BYTES {arena_bytes}\n\n\
         #ifdef __cplusplus\nalignas(64)\n#else\n_Alignas(64)\n#endif\n\
         static const unsigned char {name}[{upper}_BYTES] = {{\n",
        file.len()
    );
    for line in file.chunks(32) {
        for byte in line {
            let _ = write!(text, "{byte},");
        }
        text.push('\n');
    }
    let _ = write!(text, "}};\n\n#endif\n");
    text
}
