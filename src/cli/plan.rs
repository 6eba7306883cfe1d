//! `sinew plan`: the steps of a run, why each is done as it is, where results lie, and the exact memory.

use clap::Args;
use serde_json::{Value, json};
use sinew::plan::Io;
use sinew::plan::step::Step;

use super::bench::io;
use super::load::{Loaded, ModelArguments, load};
use super::table::Table;
use super::times::{bytes, count, shape as by_x};
use super::{Report, Result};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) model: ModelArguments,
    /// Whether the layout change at the edges is part of a run (plain) or not (blocked)
    #[arg(long, value_name = "LAYOUT", default_value = "plain", value_parser = io)]
    io: Io,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let engine = &arguments.model.engine;
    // A plan is the same on every instruction set; one that is asked for must still be there.
    let isa = sinew::run::kernels_for(engine.isa())?.isa.name();
    let Loaded { model, notices, parameters, macs, recovery } = load(&arguments.model, None, arguments.io)?;
    let plan = model.plan();
    let mut report = Report { notices, ..Report::default() };
    let (name, threads) = (arguments.model.model.display(), model.threads());
    report.line(format!(
        "{name}: {} steps, threads {threads} (the plan of every instruction set)",
        plan.steps.len()
    ));
    report.line("");
    let titles = [">#", "step", "op", "algorithm", "result", ">at", ">until", ">moved", ">MMAC", "why"];
    let mut table = Table::new(&titles);
    let mut steps: Vec<Value> = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let placement = plan.placement(index);
        table.row(row(index, step, placement));
        steps.push(json!({
            "name": step.name,
            "op": step.op,
            "algorithm": step.algorithm,
            "why": step.why,
            "shape": step.output_shape(),
            "arena_offset": placement.map(|(offset, _)| offset),
            "last_use": placement.map(|(_, last)| last),
            "bytes": step.bytes,
            "macs": step.macs,
        }));
    }
    report.text.push_str(&table.render());
    report.line("");
    report.line(
        "at: offset in the arena; until: the last step that uses it; moved: operands, weights and result",
    );
    for pass in model.passes().iter().filter(|pass| pass.rewrites > 0) {
        report.line(format!("pass {}: {} rewrites", pass.name, pass.rewrites));
    }
    for found in &recovery.recovered {
        report.line(format!("recovered {} at \"{}\"", found.what, found.node));
    }
    let owned = plan.owned_weights_bytes();
    let (weights, arena, scratch) = (plan.weights_bytes(), plan.arena_bytes(), plan.scratch_bytes());
    let in_file = parameters.map(|parameters| parameters * size_of::<f32>() as u64);
    let growth = in_file.map(|bytes| if bytes == 0 { 1.0 } else { weights as f64 / bytes as f64 });
    let times = growth.map_or(String::new(), |growth| format!(", {growth:.2} times the file's parameters"));
    let told = |what: &str, exact: u64| format!("{what} {} bytes ({})", count(exact), bytes(exact));
    report.line(told("weights", weights as u64) + &times);
    if owned < weights {
        report.line(format!("of the weights, {} bytes in memory, the rest in the file", count(owned as u64)));
    }
    report.line(format!("{}, of which scratch {} bytes", told("arena", arena as u64), count(scratch as u64)));
    let passes: Vec<Value> =
        model.passes().iter().map(|pass| json!({ "name": pass.name, "rewrites": pass.rewrites })).collect();
    report.set("isa", isa);
    report.set("threads", threads);
    report.set("weights_bytes", weights);
    report.set("owned_weights_bytes", owned);
    report.set("parameters_bytes", in_file);
    report.set("weights_growth", growth);
    report.set("arena_bytes", arena);
    report.set("scratch_bytes", scratch);
    report.set("macs", macs);
    report.set("passes", passes);
    report.set("steps", steps);
    Ok(report)
}

fn row(index: usize, step: &Step, placement: Option<(usize, usize)>) -> [String; 10] {
    let (at, until) = placement.map_or_else(
        || ("caller".to_owned(), String::new()),
        |(at, last)| (at.to_string(), last.to_string()),
    );
    let mmac = if step.macs == 0 { String::new() } else { format!("{:.3}", step.macs as f64 / 1e6) };
    [
        index.to_string(),
        step.name.clone(),
        step.op.to_string(),
        step.algorithm.to_string(),
        by_x(&step.output_shape()),
        at,
        until,
        bytes(step.bytes),
        mmac,
        step.why.clone(),
    ]
}
