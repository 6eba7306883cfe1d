//! Element-wise functions and sums behind a convolution or dense layer into its epilogue,
//! `after(before(sum + bias) + residual)`. Bitwise: the same functions and sums of the same rounded numbers, taken
//! before the store.

use sinew_kernels::activation::Activation;

use crate::graph::{BinaryOp, Conv, Graph, Node, Op};

pub(super) fn run(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| match node.op {
        Op::Unary(function) => fuse_activation(graph, node, function),
        Op::Binary(BinaryOp::Add) => fuse_residual(graph, node),
        _ => None,
    })
}

fn fuse_activation(graph: &Graph, node: &Node, function: Activation) -> Option<(Node, usize)> {
    let producer = super::sole_producer(graph, node.inputs[0])?;
    let layer = &graph.nodes[producer];
    let op = match &layer.op {
        Op::Conv(conv) if conv.after == Activation::Identity => {
            Op::Conv(Conv { after: function, ..conv.clone() })
        }
        Op::Dense { after: Activation::Identity } => Op::Dense { after: function },
        _ => return None,
    };
    Some((Node { op, output: node.output, ..layer.clone() }, producer))
}

fn fuse_residual(graph: &Graph, node: &Node) -> Option<(Node, usize)> {
    if graph.shape(node.inputs[0]) != graph.shape(node.inputs[1]) {
        return None;
    }
    // Of two convolutions the later one takes the sum: the other's result is there by then.
    let candidates = [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])];
    let (producer, other) = candidates
        .into_iter()
        .filter_map(|(value, other)| Some((super::sole_producer(graph, value)?, other)))
        .filter(|&(producer, _)| matches!(&graph.nodes[producer].op, Op::Conv(conv) if !conv.residual))
        .max_by_key(|&(producer, _)| producer)?;
    let layer = graph.nodes[producer].clone();
    let Op::Conv(conv) = layer.op else { return None };
    let fused = Conv { before: conv.after, residual: true, after: Activation::Identity, ..conv };
    let mut inputs = layer.inputs;
    inputs.push(other);
    Some((Node { name: layer.name, op: Op::Conv(fused), inputs, output: node.output }, producer))
}
