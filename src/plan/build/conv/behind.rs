//! A pool behind a convolution that does it itself: the map between them is never stored.

use sinew_kernels::conv::winograd::{POOL, Pooled};

use super::Layer;
use crate::graph::{Node, Op, PoolKind};
use crate::plan::build::Builder;
use crate::plan::build::max_min::halves;
use crate::plan::step::{PoolBehind, View};

impl<'g> Builder<'g> {
    /// The pool that alone reads a layer's result, where it takes whole windows of 2x2, 2 apart, without a border.
    pub(super) fn pool_behind(&self, layer: &Layer<'g>) -> Option<(&'g Node, PoolBehind)> {
        let graph = self.graph;
        let map = layer.node.output;
        if self.uses[map.0] != 1 || layer.max_min.is_some() || layer.residual.is_some() {
            return None;
        }
        let behind = &graph.nodes[self.producers[&map] + 1..];
        let node = behind.iter().find(|node| node.inputs.contains(&map))?;
        let (pool, kind) = match &node.op {
            Op::Pool(pool) if pool.kind == PoolKind::Max => (pool, PoolBehind::Largest),
            Op::Pool(pool) => (pool, PoolBehind::Mean),
            Op::MaxMinPool { pool, .. } => (pool, PoolBehind::MaxMin),
            _ => return None,
        };
        let is_common = (pool.kernel, pool.stride, pool.dilation) == ([POOL; 2], [POOL; 2], [1; 2])
            && (pool.pads.top, pool.pads.left) == (0, 0)
            // neither a border below or on the right, nor a window that is not whole
            && graph.shape(node.output)[2..] == Pooled::size(&layer.geometry);
        is_common.then_some((node, kind))
    }

    /// Where the pool's result goes; the pool is done then.
    pub(super) fn pooled_outputs(&mut self, layer: &Layer<'g>, node: &Node) -> (View, Option<View>) {
        self.done.insert(node.output);
        let output = self.make_blocked(node.output);
        let Op::MaxMinPool { order, .. } = node.op else { return (output, None) };
        let parts = self.parts[layer.node.output.0].clone();
        let [positive, negative] = halves(output, parts, order);
        (positive, Some(negative))
    }
}
