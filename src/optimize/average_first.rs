//! The mean over a map before the 1x1 convolution in front of it, not after: `mean(w x + b) = w mean(x) + b`, with as
//! many times less work as the map has pixels. Exact in real arithmetic; not where an activation stands between.

use sinew_kernels::activation::Activation;

use crate::graph::{Conv, Graph, Node, Op, Pads, PoolKind};
use crate::tensor::DType;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut rewrites = 0;
    for position in 0..graph.nodes.len() {
        let mean = graph.nodes[position].clone();
        if mean.op != Op::GlobalPool(PoolKind::Average) {
            continue;
        }
        let Some(producer) = super::sole_producer(graph, mean.inputs[0]) else { continue };
        let layer = graph.nodes[producer].clone();
        let Op::Conv(conv) = &layer.op else { continue };
        if !is_linear_and_pointwise(conv) {
            continue;
        }
        let x = graph.shape(layer.inputs[0]);
        let shape = vec![x[0], x[1], 1, 1];
        let pooled = graph.add_value(format!("{}/mean", graph.value(mean.output).name), shape, DType::F32);
        let inputs = vec![layer.inputs[0]];
        graph.nodes[producer] = Node { name: mean.name, op: mean.op, inputs, output: pooled };
        let mut inputs = layer.inputs.clone();
        inputs[0] = pooled;
        graph.nodes[position] = Node { inputs, output: mean.output, ..layer };
        rewrites += 1;
    }
    rewrites
}

fn is_linear_and_pointwise(conv: &Conv) -> bool {
    (conv.kernel, conv.stride, conv.pads) == ([1, 1], [1, 1], Pads::default())
        && !conv.residual
        && conv.before == Activation::Identity
        && conv.after == Activation::Identity
}
