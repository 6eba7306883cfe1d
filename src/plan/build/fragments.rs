//! Fragments: maps of every so many pixels, cut out of a map, pooled into, and put together again.

use sinew_kernels::LANES;

use super::{Builder, strided};
use crate::error::Result;
use crate::graph::{Graph, Node, Op, Pool, ValueId};
use crate::plan::choose::{self, Algorithm, Choice, ConvShape};
use crate::plan::layout::Blocked;
use crate::plan::step::{Place, Step, View, Work};
use crate::run::parallel::{Along, Cut};

/// Whether a slice takes whole pixels, all channels of them.
pub(super) fn takes_pixels(graph: &Graph, node: &Node) -> bool {
    let Op::Slice { step, size, .. } = &node.op else { return false };
    let own = graph.shape(node.inputs[0]);
    own.len() == 4 && size[..2] == own[..2] && step[..2] == [1, 1]
}

/// Whether a slice takes every so many pixels of a whole map with enough channels to fill a block: such maps are packed once, and
/// their fragments copied block by block.
pub(super) fn takes_fragment(graph: &Graph, node: &Node) -> bool {
    let Op::Slice { start, step, size } = &node.op else { return false };
    let own = graph.shape(node.inputs[0]);
    let whole = |d: usize| start[d] < step[d] && size[d] == own[d].saturating_sub(start[d]).div_ceil(step[d]);
    takes_pixels(graph, node) && own[1] >= LANES && step[2..] != [1, 1] && whole(2) && whole(3)
}

/// Blocks between planes, rows and pixels, of pixels that are `steps` apart.
fn strides_of(layout: &Blocked, steps: [usize; 2]) -> [usize; 3] {
    [layout.pixels(), steps[0] * layout.width, steps[1]]
}

impl<'g> Builder<'g> {
    /// Every so many pixels as a map of their own.
    pub(super) fn take_pixels(
        &mut self,
        node: &Node,
        from: View,
        first: [usize; 2],
        steps: [usize; 2],
    ) -> Result<()> {
        let to = self.make_blocked(node.output);
        let extents = [to.layout.blocks(), to.layout.height, to.layout.width];
        let start = first[0] * from.layout.width + first[1];
        let copy =
            strided(&extents, &strides_of(&from.layout, steps), &strides_of(&to.layout, [1, 1]), start, 0);
        self.push(node.name.clone(), Work::CopyPixels { from, to, copy }, "a fragment of the map")
    }

    /// Fragments back into one map.
    pub(super) fn interleave(&mut self, node: &'g Node, steps: [usize; 2]) -> Result<()> {
        let to = self.make_blocked(node.output);
        for (index, &input) in node.inputs.iter().enumerate() {
            let from = self.blocks_of(input)?;
            debug_assert_eq!(from.layout.parts, to.layout.parts);
            let extents = [to.layout.blocks(), from.layout.height, from.layout.width];
            let start = index / steps[1] * to.layout.width + index % steps[1];
            let copy = strided(
                &extents,
                &strides_of(&from.layout, [1, 1]),
                &strides_of(&to.layout, steps),
                0,
                start,
            );
            let work = Work::CopyPixels { from, to: to.clone(), copy };
            self.push(node.name.clone(), work, "a fragment back into the map")?;
        }
        Ok(())
    }

    /// All parts of one pool in one step, with the first of them: the parts lie one after the other in one buffer.
    pub(super) fn pool_fragments(&mut self, node: &'g Node, pool: &Pool) -> Result<()> {
        if self.blocked[node.output.0].is_some() {
            return Ok(());
        }
        let input = self.blocks_of(node.inputs[0])?;
        let is_part = |other: &&Node| {
            other.inputs == node.inputs
                && matches!(&other.op, Op::PoolFragment { pool: own, .. } if own == pool)
        };
        let mut parts: Vec<(ValueId, [usize; 2])> = Vec::new();
        for part in self.graph.nodes.iter().filter(is_part) {
            let Op::PoolFragment { phase, .. } = part.op else { continue };
            if parts.iter().all(|&(_, other)| other != phase) {
                parts.push((part.output, phase));
            }
        }
        parts.sort_by_key(|&(_, phase)| phase);
        let layouts: Vec<Blocked> = parts.iter().map(|&(id, _)| self.layout(id)).collect();
        let image_blocks: usize = layouts.iter().map(Blocked::image_blocks).sum();
        let place = Place::Arena(self.buffer(input.layout.batch * image_blocks));
        let mut skip = 0;
        let mut views = Vec::new();
        for (&(id, _), layout) in parts.iter().zip(layouts) {
            let own = layout.image_blocks();
            let view = View { place, skip, batch_stride: image_blocks, layout };
            skip += own;
            self.blocked[id.0] = Some(view.clone());
            views.push(view);
        }
        // Pooled rows are spread out from the first caches.
        let width: usize = views[..pool.stride[1]].iter().map(|part| part.layout.width).sum();
        let height: usize = views.iter().step_by(pool.stride[1]).map(|part| part.layout.height).sum();
        let band = (4 * self.options.l1_bytes / 64 / width).clamp(1, height);
        let blocks = input.layout.blocks();
        let work = Work::PoolFragments { pool: pool.clone(), input, parts: views };
        let bytes = work.bytes();
        let parts = self.cut_bytes(bytes, work.output_layout()).parts.min(blocks);
        self.push_step(Step {
            name: node.name.clone(),
            op: node.op.name().into(),
            algorithm: work.verb().into(),
            why: "every position of the window, each to its fragment".to_owned(),
            macs: 0,
            bytes,
            buffers: work.buffers(),
            work,
            scratch: None,
            scratch_blocks: band * width * parts,
            cut: Cut { parts, along: Along::Blocks { unit: 1 } },
        })
    }

    /// How many maps a layer's weights are for.
    pub(super) fn fragments_of(&self, node: &Node) -> usize {
        self.uses[node.inputs[1].0].max(1)
    }

    /// Whether a layer is behind a removed stride and its map is not taken apart by that.
    pub(super) fn is_joined(&self, node: &Node) -> bool {
        let strides = self.graph.equivalent_strides.get(&node.output);
        strides.is_some_and(|[down, across]| self.fragments_of(node) < down * across)
    }

    /// The algorithm of a layer. Layers with the same weights on maps that differ by a pixel at most are fragments of one
    /// map and take one choice: that of the first, which has the size of the baseline's map.
    pub(super) fn choice_of(&mut self, weights: ValueId, shape: ConvShape) -> Choice {
        let known = self.choices.entry(weights).or_default();
        for (other, choice) in known.iter() {
            if is_sibling(other, &shape)
                && !matches!(choice.algorithm, Algorithm::Dense | Algorithm::PlainImage)
            {
                return choice.clone();
            }
        }
        let choice = choose::choose(&shape, self.options);
        known.push((shape, choice.clone()));
        choice
    }
}

/// Whether two layers with the same weights differ in their sizes alone, by a pixel at most.
fn is_sibling(a: &ConvShape, b: &ConvShape) -> bool {
    let near = |a: usize, b: usize| a.abs_diff(b) <= 1;
    let (g, h) = (&a.geometry, &b.geometry);
    near(g.in_height, h.in_height)
        && near(g.in_width, h.in_width)
        && (g.kernel, g.stride, g.dilation) == (h.kernel, h.stride, h.dilation)
        && (g.kernel != [1, 1] || (g.pad_top, g.pad_left) == (h.pad_top, h.pad_left))
        && (a.groups, a.maps) == (b.groups, b.maps)
        && (a.groups_are_blocks, a.plain_input) == (b.groups_are_blocks, b.plain_input)
}
