//! `sinew bench`: times of warm runs.

mod steps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use sinew::plan::Io;
use sinew::{Input, Session};

use super::files::Staged;
use super::inputs::{SourceArguments, from_source};
use super::load::{Loaded, ModelArguments, load};
use super::outputs::Outputs;
use super::times::{Times, time};
use super::{Report, Result, peak, progress};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    #[command(flatten)]
    source: SourceArguments,
    /// Whether the layout change at the edges is part of a run (plain) or not (blocked)
    #[arg(long, value_name = "LAYOUT", default_value = "plain", value_parser = io)]
    io: Io,
    /// Timed runs
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Time of all timed runs together, of which there are three or more [default: 1, with --json 0.1]
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// All outputs one after the other as little-endian f32, in the model's own layout
    #[arg(long, value_name = "FILE")]
    raw_output: Option<PathBuf>,
    /// Also the time of every step, its speed and the bytes that it must move
    #[arg(long)]
    steps: bool,
}

/// Fewer have no median.
const FEWEST_RUNS: usize = 3;
/// How long the peak of multiply-adds is measured.
const PEAK_TIME: Duration = Duration::from_millis(20);

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let engine = &arguments.model.engine;
    let Loaded { model, notices, macs, .. } = load(&arguments.model, None, arguments.io)?;
    let inputs = from_source(&arguments.source, model.inputs())?;
    let mut outputs = Outputs::new(model.inputs(), model.outputs(), 1)?;
    let mut session = Session::new(model, engine.session_options())?;
    let times = timed(&mut session, &inputs.batch(0), &mut outputs, arguments)?;
    if let Some(path) = &arguments.raw_output {
        let mut staged = Staged::default();
        outputs.stage_raw(path, &mut staged)?;
        staged.commit()?;
    }

    let span = arguments.span();
    let least = match arguments.steps {
        true => Some(steps::least_times(&mut session, &inputs.batch(0), &mut outputs, span)?),
        false => None,
    };
    let (isa, threads) = (session.isa(), engine.threads());
    let peak = peak::gflops(&peak::probe(isa)?, threads, PEAK_TIME);
    let gflops = 2.0 * macs as f64 / times.min() as f64;
    let mut report = Report { notices, ..Report::default() };
    let (name, io) = (arguments.model.model.display(), name(arguments.io));
    report.line(format!("{name}: isa {isa}, threads {threads}, io {io}, {} runs", times.runs()));
    report.line(format!("min    {}", time(times.min())));
    report.line(format!("median {}", time(times.median())));
    report.line(format!("p99    {}", time(times.p99())));
    report.line(format!(
        "{gflops:.1} GFLOP/s at the minimum (direct form), {:.1} % of the {peak:.1} GFLOP/s that a loop of multiply-adds reached just now",
        100.0 * gflops / peak
    ));
    report.set("isa", isa.name());
    report.set("threads", threads);
    report.set("io", io);
    report.set("seed", inputs.seed);
    report.set("runs", times.runs());
    report.set("min_ns", times.min());
    report.set("median_ns", times.median());
    report.set("p99_ns", times.p99());
    report.set("macs", macs);
    report.set("gflops", gflops);
    report.set("peak_gflops", peak);
    if let Some(least) = least {
        steps::tell(&session, &least, peak, &mut report);
    }
    Ok(report)
}

impl Arguments {
    /// Time of all timed runs together.
    fn span(&self) -> Duration {
        let default = Duration::from_millis(if self.model.engine.json { 100 } else { 1000 });
        self.seconds.unwrap_or(default)
    }
}

/// Warm runs, then timed ones. With blocked edges the layout changes before and after all of them.
fn timed(
    session: &mut Session<'_>,
    inputs: &[Input<'_>],
    outputs: &mut Outputs,
    arguments: &Arguments,
) -> Result<Times> {
    let json = arguments.model.engine.json;
    let span = arguments.span();
    let enough = |runs: usize, elapsed: Duration| match arguments.runs {
        Some(wanted) => runs >= wanted as usize,
        None => runs >= FEWEST_RUNS && elapsed >= span,
    };
    let mut places = outputs.batch(0);
    if arguments.io == Io::Blocked {
        session.load_inputs(inputs)?;
    }
    // The first run touches all memory; caches and clock need a few more.
    let warm = Instant::now();
    loop {
        session.run(inputs, &mut places)?;
        if warm.elapsed() >= span / 10 {
            break;
        }
    }
    let length = arguments.runs.map_or(span.as_millis() as u64, u64::from);
    let bar = progress::bar(length, json);
    let mut nanoseconds = Vec::new();
    let begin = Instant::now();
    while !enough(nanoseconds.len(), begin.elapsed()) {
        let start = Instant::now();
        session.run(inputs, &mut places)?;
        nanoseconds.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
        if !bar.is_hidden() {
            bar.set_position(match arguments.runs {
                Some(_) => nanoseconds.len() as u64,
                None => begin.elapsed().as_millis() as u64,
            });
        }
    }
    bar.finish_and_clear();
    if arguments.io == Io::Blocked {
        session.store_outputs(&mut places)?;
    }
    Ok(Times::new(nanoseconds))
}

fn name(io: Io) -> &'static str {
    match io {
        Io::Plain => "plain",
        Io::Blocked => "blocked",
    }
}

pub(super) fn io(text: &str) -> std::result::Result<Io, String> {
    [Io::Plain, Io::Blocked]
        .into_iter()
        .find(|&io| name(io) == text)
        .ok_or("expected plain or blocked".into())
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|seconds| !seconds.is_zero()).ok_or("expected a time in seconds above 0".into())
}
