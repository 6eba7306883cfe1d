//! `sinew bench --steps`: where the time of a run goes, and how far each step is from the machine's limit.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sinew::{Input, Session};

use super::super::outputs::Outputs;
use super::super::table::Table;
use super::super::times::time;
use super::super::{Report, Result};

/// The least time of each step over runs that take `span` together, three or more, in nanoseconds.
pub(super) fn least_times(
    session: &mut Session<'_>,
    inputs: &[Input<'_>],
    outputs: &mut Outputs,
    span: Duration,
) -> Result<Vec<u64>> {
    let mut least = vec![u64::MAX; session.model().plan().steps.len()];
    let mut places = outputs.batch(0);
    session.set_profiling(true);
    let (begin, mut runs) = (Instant::now(), 0);
    while runs < super::FEWEST_RUNS || begin.elapsed() < span {
        session.run(inputs, &mut places)?;
        for (least, &now) in least.iter_mut().zip(session.step_times()) {
            *least = now.min(*least);
        }
        runs += 1;
    }
    session.set_profiling(false);
    Ok(least)
}

/// One line a step: time, its share, speed in the direct form beside `peak`, and bytes that must move in the time.
pub(super) fn tell(session: &Session<'_>, least: &[u64], peak: f64, report: &mut Report) {
    let steps = &session.model().plan().steps;
    let total: u64 = least.iter().sum();
    let mut table =
        Table::new(&["step", "algorithm", ">result", ">time", ">share", ">GFLOP/s", ">of peak", ">GB/s"]);
    let mut told: Vec<Value> = Vec::new();
    for (step, &ns) in steps.iter().zip(least) {
        let share = ns as f64 / total.max(1) as f64;
        let gflops = 2.0 * step.macs as f64 / ns.max(1) as f64;
        let gigabytes = step.bytes as f64 / ns.max(1) as f64;
        let shape: Vec<String> = step.output_shape().iter().map(usize::to_string).collect();
        let (speed, of_peak) = match step.macs {
            0 => Default::default(),
            _ => (format!("{gflops:.1}"), format!("{:.0} %", 100.0 * gflops / peak)),
        };
        table.row([
            step.name.clone(),
            step.algorithm.to_string(),
            shape.join("x"),
            time(ns),
            format!("{:.1} %", 100.0 * share),
            speed,
            of_peak,
            format!("{gigabytes:.1}"),
        ]);
        told.push(json!({
            "name": step.name,
            "op": step.op,
            "algorithm": step.algorithm,
            "ns": ns,
            "macs": step.macs,
            "bytes": step.bytes,
        }));
    }
    report.line("");
    report.text.push_str(&table.render());
    report.line(
        "time: the least of all runs; GFLOP/s: in the direct form; GB/s: operands, weights and result once",
    );
    report.set("steps", told);
}
