//! Which strides are removed: those that are named, or the last ones.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::graph::{Conv, Graph, Op, Pool};

/// The layers whose stride is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The last so many strides of a path through the network; branches that run side by side count once.
    Last(usize),
    /// The layers with these names, or whose outputs have them.
    Layers(Vec<String>),
}

/// The stride of a layer with a window.
pub(super) fn stride(op: &Op) -> Option<[usize; 2]> {
    match op {
        Op::Conv(Conv { stride, .. }) | Op::Pool(Pool { stride, .. }) => Some(*stride),
        _ => None,
    }
}

/// The positions of the selected nodes.
pub(super) fn removed(graph: &Graph, selection: &Selection) -> Result<HashSet<usize>> {
    let wrong = |option: &str, reason: String| Err(Error::Option { option: option.into(), reason });
    // For each strided node, how many strides the longest path to it holds, its own included.
    let mut depth = vec![0; graph.values.len()];
    let mut strided = Vec::new();
    for (position, node) in graph.nodes.iter().enumerate() {
        let before = node.inputs.iter().map(|id| depth[id.0]).max().unwrap_or(0);
        let own = stride(&node.op).is_some_and(|stride| stride != [1, 1]);
        depth[node.output.0] = before + usize::from(own);
        if own {
            strided.push((position, before + 1));
        }
    }
    match selection {
        Selection::Last(count) => {
            let deepest = strided.iter().map(|&(_, depth)| depth).max().unwrap_or(0);
            if *count == 0 || *count > deepest {
                return wrong(
                    "last",
                    format!("{count} strides, the network has {deepest} one behind another"),
                );
            }
            let kept = deepest - count;
            Ok(strided.into_iter().filter(|&(_, depth)| depth > kept).map(|(position, _)| position).collect())
        }
        Selection::Layers(names) => {
            let mut found = HashSet::new();
            for name in names {
                let named = |(position, _): &&(usize, usize)| {
                    let node = &graph.nodes[*position];
                    node.name == *name || graph.value(node.output).name == *name
                };
                let Some(&(position, _)) = strided.iter().find(named) else {
                    let all: Vec<&str> =
                        strided.iter().map(|&(position, _)| graph.nodes[position].name.as_str()).collect();
                    let reason =
                        format!("\"{name}\" is no layer with a stride; those are {}", all.join(", "));
                    return wrong("layers", reason);
                };
                found.insert(position);
            }
            if found.is_empty() {
                return wrong("layers", "no layer is named".into());
            }
            Ok(found)
        }
    }
}
