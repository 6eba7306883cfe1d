//! Nodes that mix or move whole dimensions: on blocks where their form allows, on plain elements elsewhere.

use sinew_kernels::LANES;

use super::{Builder, flat, image_strides, node_error, row_major, strided};
use crate::error::Result;
use crate::graph::{BinaryOp, Graph, Node, Op, ValueId};
use crate::plan::layout::{Blocked, pack_channels};
use crate::plan::step::{Operand, Place, Plain, View, Work};

/// How the second operand of a binary node meets the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meets {
    Same,
    PerChannel,
    PerPixel,
    Scalar,
}

/// A shape with ones in front, so that it has `rank` dimensions.
fn aligned(shape: &[usize], rank: usize) -> Vec<usize> {
    let mut all = vec![1; rank.saturating_sub(shape.len())];
    all.extend_from_slice(shape);
    all
}

fn meets(graph: &Graph, main: ValueId, other: ValueId) -> Option<Meets> {
    let shape = graph.shape(main);
    let other_shape = aligned(graph.shape(other), shape.len());
    let spatial_is_one = other_shape.iter().skip(2).all(|&extent| extent == 1);
    if graph.constant(other).is_some_and(|values| values.len() == 1) {
        return Some(Meets::Scalar);
    }
    if shape == graph.shape(other) {
        return Some(Meets::Same);
    }
    if other_shape[1] == shape[1] && spatial_is_one && (other_shape[0] == 1 || other_shape[0] == shape[0]) {
        return Some(Meets::PerChannel);
    }
    // A value with one channel per image has it in lane 0 of its blocks.
    (graph.shape(other).len() == shape.len()
        && other_shape[1] == 1
        && other_shape[0] == shape[0]
        && other_shape[2..] == shape[2..])
        .then_some(Meets::PerPixel)
}

impl<'g> Builder<'g> {
    /// How `other` meets `main` in a binary node.
    pub(super) fn meets(&self, main: ValueId, other: ValueId) -> Option<Meets> {
        meets(self.graph, main, other)
    }

    /// Which operand of a binary node gives the result's shape, if the other one meets it in blocks.
    pub(super) fn main_operand(&self, node: &Node) -> Option<usize> {
        let graph = self.graph;
        let output = graph.shape(node.output);
        Blocked::of_shape(output)?;
        let serves = |&main: &usize| {
            let id = node.inputs[main];
            graph.shape(id) == output
                && graph.constant(id).is_none()
                && meets(graph, id, node.inputs[1 - main]).is_some()
        };
        [0, 1].into_iter().find(serves)
    }

    pub(super) fn binary(&mut self, node: &'g Node, op: BinaryOp) -> Result<()> {
        let Some(main) = self.main_operand(node) else { return self.binary_plain(node, op) };
        let (a_id, b_id) = (node.inputs[main], node.inputs[1 - main]);
        let swapped = main == 1;
        let a = self.blocks_of(a_id)?;
        let b = match meets(self.graph, a_id, b_id) {
            Some(Meets::Scalar) => Operand::Scalar(self.graph.constant(b_id).map_or(0.0, |values| values[0])),
            Some(Meets::Same) => {
                let b = self.blocks_of(b_id)?;
                let b = if b.layout == a.layout {
                    b
                } else {
                    self.repack(&node.name, b, a.layout.parts.clone())?
                };
                Operand::Same(b)
            }
            Some(Meets::PerChannel) => Operand::PerChannel(self.per_channel(node, b_id, &a)?),
            Some(Meets::PerPixel) => Operand::PerPixel(self.blocks_of(b_id)?),
            None => unreachable!("checked by main_operand"),
        };
        let output = self.make_blocked(node.output);
        self.push(node.name.clone(), Work::Binary { op, swapped, a, b, output }, "one pass")
    }

    /// One number per channel in the parts of `main`; the batch stride is zero where all images share them.
    pub(super) fn per_channel(&mut self, node: &Node, id: ValueId, main: &View) -> Result<View> {
        let channels = main.layout.channels();
        let layout = Blocked { batch: 1, height: 1, width: 1, ..main.layout.clone() };
        let blocks = layout.blocks();
        if let Some(values) = self.graph.constant(id) {
            let skip = self.weights.len();
            let batch = values.len() / channels.max(1);
            for image in values.chunks(channels.max(1)) {
                self.weights.extend_from_slice(&pack_channels(image, &layout));
            }
            let batch_stride = if batch == 1 { 0 } else { blocks };
            return Ok(View {
                place: Place::Weights,
                skip,
                batch_stride,
                layout: Blocked { batch, ..layout },
            });
        }
        let shape = self.graph.shape(id);
        if shape.len() != self.graph.shape(node.output).len() {
            // `[C, 1, 1]` computed at run time: its elements lie in channel order already.
            let plain = self.arena_plain_of(id)?;
            let from = View {
                layout: Blocked { batch: 1, parts: vec![channels], height: 1, width: 1 },
                batch_stride: 0,
                ..flat(plain)
            };
            let from = if from.layout.parts == layout.parts {
                from
            } else {
                self.repack(&node.name, from, layout.parts)?
            };
            return Ok(View { batch_stride: 0, ..from });
        }
        let view = self.blocks_of(id)?;
        let view = if view.layout.parts == layout.parts {
            view
        } else {
            self.repack(&node.name, view, layout.parts)?
        };
        let batch_stride = if view.layout.batch == 1 { 0 } else { view.batch_stride };
        Ok(View { batch_stride, ..view })
    }

    /// Both operands spread to the result's shape, then combined as flat blocks.
    fn binary_plain(&mut self, node: &'g Node, op: BinaryOp) -> Result<()> {
        let a = self.spread(node, node.inputs[0])?;
        let b = self.spread(node, node.inputs[1])?;
        let output = self.make_plain(a.len);
        self.plain[node.output.0] = Some(output);
        let work =
            Work::Binary { op, swapped: false, a: flat(a), b: Operand::Same(flat(b)), output: flat(output) };
        self.push(node.name.clone(), work, "one pass over plain elements")
    }

    /// A value's elements repeated to the shape of the node's output, in the arena.
    fn spread(&mut self, node: &Node, id: ValueId) -> Result<Plain> {
        let shape = self.graph.shape(node.output).to_vec();
        if self.graph.shape(id) == shape {
            return self.arena_plain_of(id);
        }
        let from = self.plain_of(id)?;
        let own = aligned(self.graph.shape(id), shape.len());
        let strides: Vec<usize> = row_major(&own)
            .iter()
            .zip(&own)
            .map(|(&stride, &extent)| if extent == 1 { 0 } else { stride })
            .collect();
        let to = self.make_plain(shape.iter().product());
        let copy = strided(&shape, &strides, &row_major(&shape), 0, 0);
        self.push(
            node.name.clone(),
            Work::CopyPlain { from, to, copy, fill: None },
            "repeated to the result's shape",
        )?;
        Ok(to)
    }

    pub(super) fn prelu(&mut self, node: &'g Node) -> Result<()> {
        let (x, slope) = (node.inputs[0], node.inputs[1]);
        let Some(values) = self.graph.constant(slope) else {
            return Err(node_error(node, "its slope must be a constant"));
        };
        let Some(layout) = Blocked::of_shape(self.graph.shape(x)) else {
            return Err(node_error(node, "its input must have 2 to 4 dimensions"));
        };
        let per_channel = match meets(self.graph, x, slope) {
            Some(Meets::Scalar) => vec![values[0]; layout.channels()],
            Some(Meets::PerChannel) if values.len() == layout.channels() => values.to_vec(),
            _ => return Err(node_error(node, "its slope must be one number, or one per channel")),
        };
        let input = self.blocks_of(x)?;
        let packed = pack_channels(&per_channel, &input.layout);
        let slope = self.push_weights(&packed);
        let output = self.make_blocked(node.output);
        self.push(node.name.clone(), Work::PRelu { input, output, slope }, "one pass")
    }

    pub(super) fn softmax(&mut self, node: &'g Node, axis: usize) -> Result<()> {
        let id = node.inputs[0];
        let shape = self.graph.shape(id).to_vec();
        if axis == 1 && Blocked::of_shape(&shape).is_some() {
            let input = self.blocks_of(id)?;
            let input = self.one_part(&node.name, input)?;
            let output = self.make_blocked(node.output);
            return self.push(
                node.name.clone(),
                Work::Softmax { lanes: input.layout.lanes(), input, output },
                "over channels",
            );
        }
        // Rows along the axis, as channels of single pixels.
        let rows = shape.iter().product::<usize>() / shape[axis].max(1);
        let layout = Blocked { batch: rows, parts: vec![shape[axis]], height: 1, width: 1 };
        let (inner_first, back) = axis_last(&shape, axis);
        let from = self.plain_of(id)?;
        let sorted = if axis + 1 == shape.len() {
            from
        } else {
            let to = self.make_plain(from.len);
            let strides: Vec<usize> = inner_first.iter().map(|&d| row_major(&shape)[d]).collect();
            let extents: Vec<usize> = inner_first.iter().map(|&d| shape[d]).collect();
            let copy = strided(&extents, &strides, &row_major(&extents), 0, 0);
            self.push(
                node.name.clone(),
                Work::CopyPlain { from, to, copy, fill: None },
                "its dimension last",
            )?;
            to
        };
        let [input, output] = [(); 2].map(|()| {
            let stride = layout.image_blocks();
            let place = Place::Arena(self.buffer(rows * stride));
            View { place, skip: 0, batch_stride: stride, layout: layout.clone() }
        });
        let strides = image_strides(&[shape[axis], 1]);
        self.push(node.name.clone(), Work::pack(sorted, strides, input.clone()), "rows as channels")?;
        self.push(
            node.name.clone(),
            Work::Softmax { lanes: layout.lanes(), input, output: output.clone() },
            "over channels",
        )?;
        let to = self.make_plain(sorted.len);
        self.push(node.name.clone(), Work::unpack(output, to, strides), "to row-major order")?;
        if axis + 1 == shape.len() {
            self.plain[node.output.0] = Some(to);
            return Ok(());
        }
        let extents: Vec<usize> = inner_first.iter().map(|&d| shape[d]).collect();
        let strides: Vec<usize> = back.iter().map(|&d| row_major(&extents)[d]).collect();
        let copy = strided(&shape, &strides, &row_major(&shape), 0, 0);
        let target = self.plain_target(node.output);
        self.push(
            node.name.clone(),
            Work::CopyPlain { from: to, to: target, copy, fill: None },
            "dimensions back in order",
        )
    }

    pub(super) fn concat_plain(&mut self, node: &'g Node, axis: usize) -> Result<()> {
        let shape = self.graph.shape(node.output).to_vec();
        let sources = node.inputs.iter().map(|&input| self.plain_of(input)).collect::<Result<Vec<_>>>()?;
        let to = self.plain_target(node.output);
        let mut start = 0;
        for (&input, from) in node.inputs.iter().zip(sources) {
            let own = self.graph.shape(input);
            let copy = strided(own, &row_major(own), &row_major(&shape), 0, start);
            start += own[axis] * row_major(&shape)[axis];
            self.push(node.name.clone(), Work::CopyPlain { from, to, copy, fill: None }, "plain elements")?;
        }
        Ok(())
    }

    pub(super) fn transpose(&mut self, node: &'g Node, permutation: &[usize]) -> Result<()> {
        let id = node.inputs[0];
        if self.strided_source(id).is_some() && !self.graph.outputs.contains(&node.output) {
            return Ok(()); // read in its new order wherever it is used
        }
        let shape = self.graph.shape(node.output).to_vec();
        let in_blocks = self.blocked[id.0].clone().filter(|_| self.plain[id.0].is_none());
        if let (Some(from), true) = (in_blocks, (2..=4).contains(&shape.len())) {
            // Where each input dimension goes in the output.
            let out = row_major(&shape);
            let mut strides = vec![0; shape.len()];
            for (to, &dimension) in permutation.iter().enumerate() {
                strides[dimension] = out[to];
            }
            let to = self.plain_target(node.output);
            return self.push(
                node.name.clone(),
                Work::unpack(from, to, image_strides(&strides)),
                "to row-major order",
            );
        }
        let (from, own) = match self.strided_source(id) {
            Some(source) => source,
            None => (self.plain_of(id)?, row_major(self.graph.shape(id))),
        };
        let strides: Vec<usize> = permutation.iter().map(|&dimension| own[dimension]).collect();
        let to = self.plain_target(node.output);
        let copy = strided(&shape, &strides, &row_major(&shape), 0, 0);
        self.push(node.name.clone(), Work::CopyPlain { from, to, copy, fill: None }, "reorders dimensions")
    }

    /// The same elements: another view where one exists, plain elsewhere.
    pub(super) fn reshape(&mut self, node: &'g Node) -> Result<()> {
        let id = node.inputs[0];
        if let Some(layout) = regrouped_pixels(self.graph, node)
            && let Some(view) = self.blocked[id.0].clone()
            && view.layout.is_contiguous()
        {
            self.blocked[node.output.0] = Some(View { layout, ..view });
            return Ok(());
        }
        let plain = self.plain_of(id)?;
        self.plain[node.output.0] = Some(plain);
        Ok(())
    }

    pub(super) fn pad(&mut self, node: &'g Node, amounts: &[[usize; 2]], value: f32) -> Result<()> {
        let id = node.inputs[0];
        let (own, shape) = (self.graph.shape(id).to_vec(), self.graph.shape(node.output).to_vec());
        let from = self.plain_of(id)?;
        let strides = row_major(&shape);
        let start = amounts.iter().zip(&strides).map(|([before, _], stride)| before * stride).sum();
        let copy = strided(&own, &row_major(&own), &strides, 0, start);
        let to = self.plain_target(node.output);
        self.push(
            node.name.clone(),
            Work::CopyPlain { from, to, copy, fill: Some(value) },
            "borders around plain elements",
        )
    }

    pub(super) fn slice(
        &mut self,
        node: &'g Node,
        start: &[usize],
        step: &[usize],
        size: &[usize],
    ) -> Result<()> {
        let id = node.inputs[0];
        let own = self.graph.shape(id).to_vec();
        if super::fragments::takes_fragment(self.graph, node) {
            self.blocks_of(id)?;
        }
        if let (Some(view), true) = (self.blocked[id.0].clone(), takes_channels(self.graph, node)) {
            let layout = Blocked { parts: vec![size[1]], ..view.layout.clone() };
            if view.layout.is_contiguous() && start[1].is_multiple_of(LANES) {
                let skip = view.skip + start[1] / LANES * layout.pixels();
                self.blocked[node.output.0] = Some(View { skip, layout, ..view });
                return Ok(());
            }
            let to = self.make_blocked(node.output);
            let copy = Work::copy_channels(view, to, start[1], size[1]);
            return self.push(node.name.clone(), copy, "channels that start inside a block");
        }
        if let (Some(view), true) =
            (self.blocked[id.0].clone(), super::fragments::takes_pixels(self.graph, node))
        {
            return self.take_pixels(node, view, [start[2], start[3]], [step[2], step[3]]);
        }
        let from = self.plain_of(id)?;
        let strides = row_major(&own);
        let first = start.iter().zip(&strides).map(|(start, stride)| start * stride).sum();
        let steps: Vec<usize> = step.iter().zip(&strides).map(|(step, stride)| step * stride).collect();
        let shape = self.graph.shape(node.output).to_vec();
        let to = self.plain_target(node.output);
        let copy = strided(&shape, &steps, &row_major(&shape), first, 0);
        self.push(
            node.name.clone(),
            Work::CopyPlain { from, to, copy, fill: None },
            "a box of plain elements",
        )
    }

    pub(super) fn upsample(&mut self, node: &'g Node, factors: [usize; 2]) -> Result<()> {
        let from = self.blocks_of(node.inputs[0])?;
        let to = self.make_blocked(node.output);
        let (height, width, wide) = (from.layout.height, from.layout.width, to.layout.width);
        let extents = [from.layout.blocks(), height, factors[0], width, factors[1]];
        let from_strides = [height * width, width, 0, 1, 0];
        let to_strides = [to.layout.pixels(), factors[0] * wide, wide, factors[1], 1];
        let copy = strided(&extents, &from_strides, &to_strides, 0, 0);
        self.push(node.name.clone(), Work::CopyPixels { from, to, copy }, "each pixel repeated")
    }

    pub(super) fn arg_max(&mut self, node: &'g Node, axis: usize) -> Result<()> {
        let Some(output) = self.graph.outputs.iter().position(|&id| id == node.output) else {
            return Err(node_error(node, "its indices can only be a graph output"));
        };
        if self.uses[node.output.0] != 1 {
            return Err(node_error(node, "its indices can only be one graph output"));
        }
        let shape = self.graph.shape(node.inputs[0]).to_vec();
        let from = self.plain_of(node.inputs[0])?;
        let extents = [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()];
        self.push(node.name.clone(), Work::ArgMax { from, output, extents }, "one pass")
    }
}

/// Whether a node takes channels that lie side by side, all their pixels.
pub(super) fn takes_channels(graph: &Graph, node: &Node) -> bool {
    let Op::Slice { step, size, .. } = &node.op else { return false };
    let own = graph.shape(node.inputs[0]);
    let whole = |d: usize| size[d] == own[d] && step[d] == 1;
    (0..own.len()).all(|d| d == 1 || whole(d)) && step.get(1) == Some(&1)
}

/// The layout of a reshaped map whose channels and pixels are the same ones, in rows of another length.
pub(super) fn regrouped_pixels(graph: &Graph, node: &Node) -> Option<Blocked> {
    let Op::Reshape { .. } = &node.op else { return None };
    let from = Blocked::of_shape(graph.shape(node.inputs[0]))?;
    let to = Blocked::of_shape(graph.shape(node.output))?;
    (from.batch == to.batch && from.parts == to.parts && from.pixels() == to.pixels()).then_some(to)
}

/// Orders of dimensions that bring `axis` last, and back.
fn axis_last(shape: &[usize], axis: usize) -> (Vec<usize>, Vec<usize>) {
    let order: Vec<usize> = (0..shape.len()).filter(|&d| d != axis).chain([axis]).collect();
    let mut back = vec![0; shape.len()];
    for (to, &dimension) in order.iter().enumerate() {
        back[dimension] = to;
    }
    (order, back)
}
