//! MaxMin where its input is made and where its output goes.
//!
//! - `pool_max_min`: a max pool of MaxMin is `relu(max x)` and `relu(-min x)` of each window of `x`, since ReLU and negation
//!   are monotone and lose no bit: one sweep over `x`, and the two halves are never stored unpooled.
//! - `fuse_max_min`: a convolution that only MaxMin reads stores both halves from its sums: the map before MaxMin is never
//!   stored. The bias changes its sign with the rest, which `-(sum + bias)` does by itself.
//!
//! Both leave every bit as it is. Of a convolution, MaxMin and a pool, the pool takes MaxMin: the unpooled halves would be
//! twice the map.

use sinew_kernels::activation::Activation;

use crate::graph::{Conv, Graph, Op, PoolKind};

pub(super) fn pool(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| {
        let Op::Pool(pool) = &node.op else { return None };
        let max_min = super::sole_producer(graph, node.inputs[0])?;
        let Op::MaxMin { order } = graph.nodes[max_min].op else { return None };
        if pool.kind != PoolKind::Max {
            return None; // mean(relu(x)) is not relu(mean(x))
        }
        let mut merged = node.clone();
        merged.op = Op::MaxMinPool { pool: pool.clone(), order };
        merged.inputs = graph.nodes[max_min].inputs.clone();
        Some((merged, max_min))
    })
}

pub(super) fn convolution(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| {
        let Op::MaxMin { order } = node.op else { return None };
        let producer = super::sole_producer(graph, node.inputs[0])?;
        let layer = &graph.nodes[producer];
        let Op::Conv(conv) = &layer.op else { return None };
        // A dilated convolution may run as fragments, which are put together again as one map.
        if conv.dilation != [1, 1] {
            return None;
        }
        let before = match (conv.before, conv.after, conv.residual) {
            (before, Activation::Identity, _) => before,
            (Activation::Identity, after, false) => after,
            _ => return None,
        };
        let conv = Conv { before, after: Activation::Relu, ..conv.clone() };
        let mut merged = layer.clone();
        merged.op = Op::ConvMaxMin { conv, order };
        merged.output = node.output;
        Some((merged, producer))
    })
}
