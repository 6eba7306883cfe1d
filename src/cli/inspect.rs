//! `sinew inspect`: what a model file holds, what was recognised in it, and what this engine does not implement.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use sinew::Error;
use sinew::error::Unsupported;
use sinew::graph::{Graph, ValueId};
use sinew::onnx::{Imported, Missed, Recovered};
use sinew::optimize::{fuse_spatial_excite, fuse_squeeze_excite, stack_streams};

use super::load::{ShapeArguments, import_bytes, read_model};
use super::table::Table;
use super::times::{count, shape as by_x};
use super::{Failure, Report, Result, compiled};

#[derive(Args)]
pub(super) struct Arguments {
    /// An ONNX file, or a compiled model, .sinew
    model: PathBuf,
    #[command(flatten)]
    shapes: ShapeArguments,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let path = &arguments.model;
    if compiled::found(path)? {
        if !arguments.shapes.shapes.is_empty() {
            return Err(Failure::at(path, "--shape: a compiled model has all its shapes"));
        }
        return compiled::inspect(path);
    }
    let bytes = read_model(path)?;
    let mut report = Report::default();
    report.set("bytes", bytes.len());
    let title = format!("{}, {} bytes", path.display(), count(bytes.len() as u64));
    match import_bytes(&bytes, arguments.shapes.shapes.clone(), Vec::new()) {
        Ok(mut imported) => {
            add_blocks(&mut imported);
            report
                .line(format!("{title}, operator set {}, written by {}", imported.opset, imported.producer));
            supported(&imported, &mut report);
            report.notices = imported.notices;
        }
        Err(Error::Unsupported(nodes)) => {
            report.line(title);
            unsupported(&nodes, &mut report);
        }
        Err(error) => return Err(Failure::at(path, error)),
    }
    Ok(report)
}

/// Blocks that passes put together are only looked for here.
fn add_blocks(Imported { graph, recovery, .. }: &mut Imported) {
    let found =
        [fuse_squeeze_excite::found(graph), fuse_spatial_excite::found(graph), stack_streams::found(graph)];
    for found in found.into_iter().flatten() {
        let (what, node) = (found.what, found.node);
        match found.missed {
            None => recovery.recovered.push(Recovered { what, node }),
            Some(reason) => recovery.missed.push(Missed { what, node, reason }),
        }
    }
}

fn supported(imported: &Imported, report: &mut Report) {
    let Imported { graph, recovery, .. } = imported;
    let (parameters, macs) = (graph.parameters(), graph.macs());
    report.line(format!("{} parameters, {} multiply-accumulates", count(parameters), count(macs)));
    for (what, values) in [("input", &graph.inputs), ("output", &graph.outputs)] {
        for &id in values {
            let value = graph.value(id);
            report.line(format!("{what} \"{}\" {} {}", value.name, value.dtype.name(), by_x(&value.shape)));
        }
    }
    let mut ops: BTreeMap<&str, u64> = BTreeMap::new();
    for node in &graph.nodes {
        *ops.entry(node.op.name()).or_default() += 1;
    }
    let mut table = Table::new(&["operator", ">count"]);
    for (op, number) in &ops {
        table.row([(*op).to_owned(), number.to_string()]);
    }
    report.line("");
    report.text.push_str(&table.render());
    for found in &recovery.recovered {
        report.line(format!("recovered {} at \"{}\"", found.what, found.node));
    }
    for missed in &recovery.missed {
        report.line(format!("missed {} at \"{}\": {}", missed.what, missed.node, missed.reason));
    }
    let recovered = |found: &Recovered| json!({ "what": found.what, "node": found.node });
    let missed =
        |missed: &Missed| json!({ "what": missed.what, "node": missed.node, "reason": missed.reason });
    report.set("opset", imported.opset);
    report.set("producer", imported.producer.as_str());
    report.set("parameters", parameters);
    report.set("macs", macs);
    report.set("inputs", ports(graph, &graph.inputs));
    report.set("outputs", ports(graph, &graph.outputs));
    report.set("ops", json!(ops));
    report.set("recovered", recovery.recovered.iter().map(recovered).collect::<Value>());
    report.set("missed", recovery.missed.iter().map(missed).collect::<Value>());
    report.set("unsupported", json!([]));
}

fn ports(graph: &Graph, values: &[ValueId]) -> Value {
    let port = |&id: &ValueId| {
        let value = graph.value(id);
        json!({ "name": value.name, "shape": value.shape, "dtype": value.dtype.name() })
    };
    values.iter().map(port).collect()
}

/// Shapes behind such a node are not known, and so are no counts.
fn unsupported(nodes: &[Unsupported], report: &mut Report) {
    report.refused = true;
    let plural = if nodes.len() == 1 { "" } else { "s" };
    report.line(format!("{} unsupported node{plural}", nodes.len()));
    let mut table = Table::new(&["operator", "node", "reason"]);
    for node in nodes {
        table.row([node.op.clone(), node.node.clone(), node.reason.clone()]);
    }
    report.text.push_str(&table.render());
    let unsupported = |node: &Unsupported| json!({ "node": node.node, "op": node.op, "reason": node.reason });
    for key in ["parameters", "macs", "ops", "recovered", "missed"] {
        report.set(key, Value::Null);
    }
    report.set("unsupported", nodes.iter().map(unsupported).collect::<Value>());
}
