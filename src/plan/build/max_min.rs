//! MaxMin: both halves of its output, from a map, from a map with a pool behind it, or from a convolution's sums.

use super::Builder;
use crate::error::Result;
use crate::graph::{MaxMinOrder, Node, Pool};
use crate::plan::layout::Blocked;
use crate::plan::step::{View, Work};

impl Builder<'_> {
    pub(super) fn max_min(&mut self, node: &Node, order: MaxMinOrder) -> Result<()> {
        let input = self.blocks_of(node.inputs[0])?;
        let output = self.make_blocked(node.output);
        let [positive, negative] = halves(output, input.layout.parts.clone(), order);
        self.push(node.name.clone(), Work::MaxMin { input, positive, negative }, "both halves in one pass")
    }

    pub(super) fn max_min_pool(&mut self, node: &Node, pool: &Pool, order: MaxMinOrder) -> Result<()> {
        let input = self.blocks_of(node.inputs[0])?;
        let output = self.make_blocked(node.output);
        let [positive, negative] = halves(output, input.layout.parts.clone(), order);
        let work = Work::MaxMinPool { pool: pool.clone(), input, positive, negative };
        self.push(node.name.clone(), work, "the largest and the smallest of each window in one pass")
    }
}

/// Where `relu(x)` and `relu(-x)` go, for `x` with the channels of `parts`.
pub(super) fn halves(output: View, parts: Vec<usize>, order: MaxMinOrder) -> [View; 2] {
    let layout = Blocked { parts, ..output.layout };
    let first = View { layout, ..output };
    let second = View { skip: first.skip + first.layout.image_blocks(), ..first.clone() };
    match order {
        MaxMinOrder::PositiveFirst => [first, second],
        MaxMinOrder::NegativeFirst => [second, first],
    }
}
