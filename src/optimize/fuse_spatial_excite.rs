//! Spatial squeeze-and-excitation (sSE), `q u` with `q = sigmoid(w u + b)` one number per pixel; and beside the one per
//! channel (scSE), whose sum or maximum becomes one operator: `s u + q u` or `max(s u, q u)`.
//!
//! The operator rounds both products and their sum, as the nodes do. (The maximum of the products is not the product with
//! the larger gate: of a negative number it is that with the smaller one.)

use sinew_kernels::activation::Activation;

use super::Found;
use super::fuse_squeeze_excite::{is_gate_of_pooled, scaling};
use crate::graph::{BinaryOp, Excite, Graph, Node, Op, ValueId};

/// The spatial blocks of a graph as imported, and what is nearly one: `spatial_excite`, and `concurrent_excite` where a map
/// is scaled by channels as well.
pub fn found(graph: &Graph) -> Vec<Found> {
    let mut graph = graph.clone();
    super::fold_batch_norm::run(&mut graph);
    let found = graph.nodes.iter().filter_map(|node| {
        let (what, missed) = match (product(&graph, node), concurrent(&graph, node)) {
            (Some((x, q)), _) => ("spatial_excite", spatial_gate(&graph, x, q).err()),
            (_, Some(block)) => ("concurrent_excite", block.err()),
            _ => return None,
        };
        Some(Found { what, node: node.name.clone(), missed })
    });
    found.collect()
}

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut blocks = 0;
    for position in 0..graph.nodes.len() {
        if let Some(Ok((larger, inputs))) = concurrent(graph, &graph.nodes[position]) {
            let node = &mut graph.nodes[position];
            (node.op, node.inputs) = (Op::Excite(Excite::Concurrent { larger }), inputs.to_vec());
            blocks += 1;
        }
    }
    graph.remove_unused();
    blocks
}

/// The map and the gate of a product with one computed number for each pixel of each image.
fn product(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId)> {
    let (Op::Binary(BinaryOp::Mul), &[a, b]) = (&node.op, &*node.inputs) else { return None };
    let fits = |x: ValueId, q: ValueId| {
        let (&[n, channels, height, width], &[m, 1, rows, columns]) = (graph.shape(x), graph.shape(q)) else {
            return false;
        };
        (n, height, width) == (m, rows, columns)
            && channels > 1
            && height * width > 1
            && [x, q].iter().all(|&id| graph.constant(id).is_none())
    };
    [(a, b), (b, a)].into_iter().find(|&(x, q)| fits(x, q))
}

/// Whether `q` is a sigmoid of one weighted sum of the map's channels; the error says what it is instead.
fn spatial_gate(graph: &Graph, x: ValueId, q: ValueId) -> Result<(), String> {
    let producer = |id: ValueId| {
        let unknown = || format!("it comes from \"{}\", which nothing computes", graph.value(id).name);
        graph.producer(id).map(|at| &graph.nodes[at]).ok_or_else(unknown)
    };
    let is_sigmoid = |of: Activation| matches!(of, Activation::Sigmoid | Activation::HardSigmoid { .. });
    let mut node = producer(q)?;
    let mut gated = false;
    if let Op::Unary(function) = node.op
        && is_sigmoid(function)
    {
        gated = true;
        node = producer(node.inputs[0])?;
    }
    match &node.op {
        Op::Conv(conv)
            if conv.kernel != [1, 1] || conv.stride != [1, 1] || conv.pads != Default::default() =>
        {
            Err(format!("\"{}\" is no 1x1 convolution of every pixel", node.name))
        }
        Op::Conv(conv) if conv.residual || conv.before != Activation::Identity => {
            Err(format!("\"{}\" adds something else", node.name))
        }
        Op::Conv(_) if node.inputs[0] != x => Err(format!("\"{}\" is of another map", node.name)),
        Op::Conv(conv) if gated && conv.after == Activation::Identity || !gated && is_sigmoid(conv.after) => {
            Ok(())
        }
        Op::Conv(_) => Err(format!("no sigmoid alone follows \"{}\"", node.name)),
        op => Err(format!("\"{}\" is {}, expected a 1x1 convolution", node.name, op.name())),
    }
}

/// Whether the larger one is taken, and map, gate of channels and gate of pixels.
type Block = (bool, [ValueId; 3]);

/// The sum or the maximum of a map scaled by channels and a map scaled by pixels, if the node is one; the error says why it
/// is no block.
fn concurrent(graph: &Graph, node: &Node) -> Option<Result<Block, String>> {
    let (Op::Binary(op @ (BinaryOp::Add | BinaryOp::Max)), &[a, b]) = (&node.op, &*node.inputs) else {
        return None;
    };
    let of = |id: ValueId| graph.producer(id).map(|at| &graph.nodes[at]);
    let products = |channels: ValueId, pixels: ValueId| {
        let (channels, pixels) = (of(channels)?, of(pixels)?);
        Some(((channels, scaling(graph, channels)?), (pixels, product(graph, pixels)?)))
    };
    let ((by_channel, (x, s)), (by_pixel, (y, q))) = products(a, b).or_else(|| products(b, a))?;
    // What is no block of its own is reported there.
    if !is_gate_of_pooled(graph, s) || spatial_gate(graph, y, q).is_err() {
        return None;
    }
    let read_elsewhere = [by_channel, by_pixel].into_iter().find(|node| graph.uses(node.output) != 1);
    Some(match read_elsewhere {
        _ if x != y => Err("its products are of two maps".to_owned()),
        Some(node) => Err(format!("\"{}\" is read elsewhere too", node.name)),
        None => Ok((*op == BinaryOp::Max, [x, s, q])),
    })
}
