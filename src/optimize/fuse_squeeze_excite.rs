//! Squeeze-and-excitation into two operators: the gate, `f2(w2 f1(w1 z + b1) + b2)` of pooled channels, and the scaling
//! of a map with the residual and the activation behind it, `after(s x + residual)`.
//!
//! Of the aggregated kind (SENetV2) the branches are stacked into one dense layer, whose every output has the same sum
//! as before; `x + s x` is `(1 + s) x`. The gate gives the same bits; a fused residual saves one rounding.

mod gate;

use sinew_kernels::activation::Activation;

use super::Found;
use crate::graph::{BinaryOp, Excite, Graph, Node, Op, ValueId};
use crate::tensor::Tensor;

/// The squeeze-and-excitation blocks of a graph as imported, and what is nearly one: `squeeze_excite`, or
/// `aggregate_excite` where dense layers stand side by side.
pub fn found(graph: &Graph) -> Vec<Found> {
    let mut graph = graph.clone();
    super::fold_batch_norm::run(&mut graph);
    let scaled = graph.nodes.iter().filter_map(|node| Some((node, scaling(&graph, node)?.1)));
    let found = scaled.map(|(node, s)| match gate::find(&graph, s) {
        Ok(gate) => Found { what: gate.name(), node: node.name.clone(), missed: None },
        Err(reason) => Found { what: "squeeze_excite", node: node.name.clone(), missed: Some(reason) },
    });
    found.collect()
}

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut gates = 0;
    for position in 0..graph.nodes.len() {
        let Some(s) = gate_of(graph, &graph.nodes[position]) else { continue };
        if let Ok(gate) = gate::find(graph, s) {
            gates += usize::from(write_gate(graph, s, gate));
        }
    }
    let scales = super::merge_into_later(graph, |graph, node| match node.op {
        Op::Binary(BinaryOp::Add) => add(graph, node),
        Op::Unary(function) => activate(graph, node, function),
        _ => None,
    });
    graph.remove_unused();
    gates + scales
}

/// Whether a value is a gate that this pass writes as one.
pub(super) fn is_gate_of_pooled(graph: &Graph, s: ValueId) -> bool {
    gate::find(graph, s).is_ok()
}

/// What scales the channels of a map in a node.
fn gate_of(graph: &Graph, node: &Node) -> Option<ValueId> {
    match node.op {
        Op::Excite(Excite::Concurrent { .. }) => Some(node.inputs[1]),
        _ => scaling(graph, node).map(|(_, s)| s),
    }
}

/// The map and the gate of a product with one computed number for each channel of each image.
pub(super) fn scaling(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId)> {
    let (Op::Binary(BinaryOp::Mul), &[a, b]) = (&node.op, &*node.inputs) else { return None };
    let fits = |x: ValueId, s: ValueId| {
        let (map, gate) = (graph.shape(x), graph.shape(s));
        matches!((map, gate), (&[n, c, ..], &[m, d, 1, 1]) if map.len() == 4 && (n, c) == (m, d))
            && map != gate
            && graph.constant(x).is_none()
            && graph.constant(s).is_none()
    };
    [(a, b), (b, a)].into_iter().find(|&(x, s)| fits(x, s))
}

/// Lets the node that computes `s` be the gate.
fn write_gate(graph: &mut Graph, s: ValueId, gate: gate::Gate) -> bool {
    let Some(position) = graph.producer(s) else { return false };
    let name = graph.nodes[position].name.clone();
    let mut inputs = vec![gate.pooled];
    let activations = gate.layers.iter().map(|layer| layer.after).collect();
    for (index, layer) in gate.layers.into_iter().enumerate() {
        let outputs = layer.bias.len();
        let shape = [outputs, layer.weights.len() / outputs.max(1)];
        let tensors = (Tensor::f32(shape, layer.weights), Tensor::f32([outputs], layer.bias));
        let (Ok(weights), Ok(bias)) = tensors else { return false };
        inputs.push(graph.add_constant(format!("{name}/w{index}"), weights));
        inputs.push(graph.add_constant(format!("{name}/b{index}"), bias));
    }
    let op = Op::Excite(Excite::Gate { layers: activations, plus_one: gate.plus_one });
    graph.nodes[position] = Node { name, op, inputs, output: s };
    true
}

/// The scaling that computes a value which nothing else reads, as long as nothing follows it: its position, its map,
/// its gate and its residual.
fn open_scaling(graph: &Graph, id: ValueId) -> Option<(usize, ValueId, ValueId, Option<ValueId>)> {
    let position = super::sole_producer(graph, id)?;
    let node = &graph.nodes[position];
    match node.op {
        Op::Excite(Excite::Scale { after: Activation::Identity, .. }) => {
            Some((position, node.inputs[0], node.inputs[1], node.inputs.get(2).copied()))
        }
        Op::Binary(BinaryOp::Mul) => {
            let (x, s) = scaling(graph, node)?;
            is_gate(graph, s).then_some((position, x, s, None))
        }
        _ => None,
    }
}

fn is_gate(graph: &Graph, s: ValueId) -> bool {
    let op = graph.producer(s).map(|position| &graph.nodes[position].op);
    matches!(op, Some(Op::Excite(Excite::Gate { .. })))
}

fn add(graph: &mut Graph, node: &Node) -> Option<(Node, usize)> {
    let &[a, b] = &*node.inputs else { return None };
    if graph.shape(a) != graph.shape(b) {
        return None;
    }
    let without = |id: ValueId| open_scaling(graph, id).filter(|(.., residual)| residual.is_none());
    let scalings = [(without(a), b), (without(b), a)];
    // Of two the later one takes the sum: the other's result is there by then.
    let found = scalings.into_iter().filter_map(|(scaling, other)| Some((scaling?, other)));
    let ((position, x, s, _), other) = found.max_by_key(|&((position, ..), _)| position)?;
    let name = graph.nodes[position].name.clone();
    if other == x && takes_one(graph, s) {
        let op = Op::Excite(Excite::Scale { residual: false, after: Activation::Identity });
        return Some((Node { name, op, inputs: vec![x, s], output: node.output }, position));
    }
    let op = Op::Excite(Excite::Scale { residual: true, after: Activation::Identity });
    Some((Node { name, op, inputs: vec![x, s, other], output: node.output }, position))
}

/// Adds 1 to a gate that has one reader and no 1 yet; tells whether it did.
fn takes_one(graph: &mut Graph, s: ValueId) -> bool {
    let Some(position) = super::sole_producer(graph, s) else { return false };
    match &mut graph.nodes[position].op {
        Op::Excite(Excite::Gate { plus_one, .. }) if !*plus_one => {
            *plus_one = true;
            true
        }
        _ => false,
    }
}

fn activate(graph: &Graph, node: &Node, after: Activation) -> Option<(Node, usize)> {
    let (position, x, s, residual) = open_scaling(graph, node.inputs[0])?;
    let op = Op::Excite(Excite::Scale { residual: residual.is_some(), after });
    let inputs = [x, s].into_iter().chain(residual).collect();
    Some((Node { name: graph.nodes[position].name.clone(), op, inputs, output: node.output }, position))
}
