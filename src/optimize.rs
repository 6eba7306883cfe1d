//! Rewrites of the graph that keep its meaning: the ordered list of passes, each with a name and an identity.
//!
//! A pass can be switched off by name; its effect on the result is then zero where the identity is bitwise, and within
//! the bounds of `docs/numerics.md` where it is exact in real arithmetic only.

mod average_first;
mod dense_to_convolution;
pub mod densify;
mod fold_batch_norm;
mod fold_pad;
mod fuse_epilogue;
mod fuse_max_min;
pub mod fuse_spatial_excite;
pub mod fuse_squeeze_excite;
mod gate_first;
mod remove_identity;
mod split_fragments;
pub mod stack_streams;

use crate::graph::{Graph, Node, ValueId};
pub(crate) use fold_batch_norm::affine as batch_norm_affine;

/// One rewrite.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// The name by which it is switched off.
    pub name: &'static str,
    /// The identity it relies on.
    pub identity: &'static str,
    /// Whether the rewritten graph gives the same bits.
    pub bitwise: bool,
    run: fn(&mut Graph) -> usize,
}

/// A block that a pass rewrites, found in a graph as imported, or a place that looks like one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The block's name in reports.
    pub what: &'static str,
    /// Its last node.
    pub node: String,
    /// Why it is none; nothing where it is one.
    pub missed: Option<String>,
}

/// All passes, in the order in which they run.
pub const PASSES: [Pass; 13] = [
    Pass {
        name: "remove_identity",
        identity: "x = x; a reshape of a reshape is the last one",
        bitwise: true,
        run: remove_identity::run,
    },
    Pass {
        name: "fold_pad",
        identity: "a convolution of a zero-padded image is the convolution with larger pads",
        bitwise: true,
        run: fold_pad::run,
    },
    Pass {
        name: "stack_streams",
        identity: "convolutions of r and t, added up, are one convolution of both; a shortcut is its centre tap",
        bitwise: false,
        run: stack_streams::run,
    },
    Pass {
        name: "fold_batch_norm",
        identity: "s * (w x + b) + t = (s w) x + (s b + t)",
        bitwise: false,
        run: fold_batch_norm::run,
    },
    Pass {
        name: "fuse_spatial_excite",
        identity: "s u + q u and max(s u, q u), gates of channels and of pixels, in one pass over u",
        // The nodes' own bits; but `fuse_squeeze_excite` would save a rounding of the sum.
        bitwise: false,
        run: fuse_spatial_excite::run,
    },
    Pass {
        name: "fuse_squeeze_excite",
        identity: "dense layers of one vector are one layer; x + s x = (1 + s) x; s x + y in one operation",
        bitwise: false,
        run: fuse_squeeze_excite::run,
    },
    Pass {
        name: "gate_first",
        identity: "mean(w v + b) = w mean(v) + b, so that a gate may be known before the map that it scales",
        bitwise: false,
        run: gate_first::run,
    },
    Pass {
        name: "average_first",
        identity: "mean(w x + b) = w mean(x) + b of a 1x1 convolution without an activation",
        bitwise: false,
        run: average_first::run,
    },
    Pass {
        name: "fuse_epilogue",
        identity: "f(conv(x)) + y and f(conv(x) + y) with sum and f taken before the store",
        bitwise: true,
        run: fuse_epilogue::run,
    },
    Pass {
        name: "dense_to_convolution",
        identity: "a dense layer on a flattened image is a convolution whose window is the image",
        bitwise: false,
        run: dense_to_convolution::run,
    },
    Pass {
        name: "split_fragments",
        identity: "a dilated layer is the plain layer on each map of pixels congruent modulo the dilation",
        // The same algorithm gives the same bits; but the choice sees plain layers, and Winograd may serve them.
        bitwise: false,
        run: split_fragments::run,
    },
    Pass {
        name: "pool_max_min",
        identity: "max-pool(relu(x), relu(-x)) = relu(max x), relu(-min x)",
        bitwise: true,
        run: fuse_max_min::pool,
    },
    Pass {
        name: "fuse_max_min",
        identity: "relu(y) and relu(-y) of a convolution's sum y, taken before the store",
        bitwise: true,
        run: fuse_max_min::convolution,
    },
];

/// How often a pass applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The pass.
    pub name: &'static str,
    /// The number of nodes it rewrote.
    pub rewrites: usize,
}

/// Runs every pass whose name is not in `disabled`.
///
/// # Errors
/// Where `disabled` holds a name that is no pass.
pub fn optimize(graph: &mut Graph, disabled: &[String]) -> crate::Result<Vec<Applied>> {
    if let Some(unknown) = disabled.iter().find(|name| PASSES.iter().all(|pass| pass.name != name.as_str())) {
        let names: Vec<&str> = PASSES.iter().map(|pass| pass.name).collect();
        return Err(crate::Error::Option {
            option: "disabled pass".into(),
            reason: format!("\"{unknown}\" is no pass; expected one of {}", names.join(", ")),
        });
    }
    let mut applied = Vec::new();
    for pass in PASSES.iter().filter(|pass| disabled.iter().all(|name| name != pass.name)) {
        let rewrites = (pass.run)(graph);
        debug_assert!(graph.check().is_ok(), "after {}: {:?}", pass.name, graph.check());
        applied.push(Applied { name: pass.name, rewrites });
    }
    graph.remove_unused();
    Ok(applied)
}

/// The node that computes `value`, if it is computed, and if its only use is the one that the caller looks at.
fn sole_producer(graph: &Graph, value: ValueId) -> Option<usize> {
    let node = graph.nodes.iter().position(|node| node.output == value)?;
    (graph.uses(value) == 1).then_some(node)
}

/// Rewrites the graph node by node: `merge` looks at a node, may change the graph's earlier nodes and values, and gives
/// the node that takes its place and the earlier node that it swallowed.
fn merge_into_later(graph: &mut Graph, merge: impl Fn(&mut Graph, &Node) -> Option<(Node, usize)>) -> usize {
    let mut rewrites = 0;
    let mut position = 0;
    while position < graph.nodes.len() {
        let node = graph.nodes[position].clone();
        if let Some((merged, swallowed)) = merge(graph, &node) {
            graph.nodes[position] = merged;
            graph.nodes.remove(swallowed);
            rewrites += 1;
        } else {
            position += 1;
        }
    }
    rewrites
}
