//! What is computed on row-major maps as they lie, so that no layout change is planned for it.
//!
//! A node may run so where it has such a form and the maps that it reads are row-major already: the caller's inputs, and
//! results of such nodes. It does where that saves a layout change: where nothing needs its result in blocks, or where
//! the result is smaller than the inputs that nothing else needs in blocks. Taking one node out may change the answer for
//! its neighbours, so these are asked again until all stay; a node that is out never comes back, so the set is the
//! largest one, whatever the order.

use std::ops::Range;

use sinew_kernels::LANES;
use sinew_kernels::activation::Activation;
use sinew_kernels::plain::{depthwise, pool};

use super::fragments::takes_pixels;
use super::plain::{Meets, regrouped_pixels, takes_channels};
use super::{Builder, node_error};
use crate::error::Result;
use crate::graph::{BinaryOp, Conv, Excite, Node, Op, ValueId};
use crate::plan::Io;
use crate::plan::layout::Blocked;
use crate::plan::step::{Place, PlainOp, PlainOperand, PlainWork, View, Work};
use crate::run::pool::pool_kind;
use crate::tensor::DType;

/// Why a step is one of these.
const WHY: &str = "on the row-major map as it lies";

/// The search for the nodes that run so.
struct Search {
    /// By node: the maps that it would read; none for a node that does not run so.
    maps: Vec<Option<Vec<ValueId>>>,
    /// By value: whether it exists in row-major order.
    plain: Vec<bool>,
    /// By value: how often it is read in blocks.
    block_reads: Vec<usize>,
}

impl<'g> Builder<'g> {
    /// Decides which nodes run on row-major maps.
    pub(super) fn find_row_major(&mut self) {
        let graph = self.graph;
        if self.options.io == Io::Blocked {
            return;
        }
        let mut search = Search {
            maps: Vec::with_capacity(graph.nodes.len()),
            plain: vec![false; graph.values.len()],
            block_reads: vec![0; graph.values.len()],
        };
        for id in &graph.inputs {
            // Integers are packed as they are, without a plane of numbers.
            search.plain[id.0] = graph.value(*id).dtype == DType::F32;
        }
        let mut readers = vec![Vec::new(); graph.values.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            let maps = self.row_major_maps(node).filter(|maps| maps.iter().all(|id| search.plain[id.0]));
            search.plain[node.output.0] = maps.is_some() && !matches!(node.op, Op::GlobalPool(_));
            for (input, id) in node.inputs.iter().enumerate() {
                readers[id.0].push(index);
                let in_blocks = match &maps {
                    Some(maps) => !maps.contains(id),
                    None => !self.takes_plain(node, input),
                };
                search.block_reads[id.0] += usize::from(in_blocks);
            }
            search.maps.push(maps);
        }
        let mut again: Vec<usize> = (0..graph.nodes.len()).collect();
        while let Some(index) = again.pop() {
            let node = &graph.nodes[index];
            let Some(maps) = search.maps[index].clone() else { continue };
            if self.saves_a_layout_change(node, &maps, &search) {
                continue;
            }
            search.maps[index] = None;
            search.plain[node.output.0] = false;
            again.extend(&readers[node.output.0]);
            for id in maps {
                again.extend(self.producers.get(&id));
                if search.block_reads[id.0] == 0 {
                    again.extend(&readers[id.0]);
                }
                search.block_reads[id.0] += 1;
            }
        }
        let runs = graph.nodes.iter().zip(&search.maps).filter(|(_, maps)| maps.is_some());
        self.row_major = runs.map(|(node, _)| node.output).collect();
    }

    /// Whether a value lies in row-major order because such a node made it, and what moved it since would have left it in blocks.
    /// Without these nodes it lies in blocks.
    pub(super) fn is_of_row_major(&self, mut id: ValueId) -> bool {
        while !self.row_major.contains(&id) {
            let Some(&producer) = self.producers.get(&id) else { return false };
            let node = &self.graph.nodes[producer];
            let keeps_blocks = takes_channels(self.graph, node)
                || takes_pixels(self.graph, node)
                || regrouped_pixels(self.graph, node).is_some();
            if !keeps_blocks {
                return false;
            }
            id = node.inputs[0];
        }
        true
    }

    fn saves_a_layout_change(&self, node: &Node, maps: &[ValueId], search: &Search) -> bool {
        if !maps.iter().all(|id| search.plain[id.0]) {
            return false;
        }
        let len = |id: ValueId| self.graph.shape(id).iter().product::<usize>();
        let out = node.output;
        let spared: usize = maps.iter().filter(|id| search.block_reads[id.0] == 0).map(|&id| len(id)).sum();
        search.plain[out.0] && search.block_reads[out.0] == 0 || len(out) < spared
    }

    /// The maps that a node would read in row-major order; `None` where it has no such form.
    fn row_major_maps(&self, node: &Node) -> Option<Vec<ValueId>> {
        let x = *node.inputs.first()?;
        Blocked::of_shape(self.graph.shape(x))?;
        Blocked::of_shape(self.graph.shape(node.output))?;
        match &node.op {
            Op::Pool(window) => {
                let wide = self.graph.shape(x).last().is_some_and(|&width| width >= LANES);
                (wide && pool::supports(pool_kind(window), window.kernel, window.stride, window.dilation))
                    .then(|| vec![x])
            }
            Op::Conv(conv) => {
                let geometry = self.geometry_of(node, conv).ok()?;
                let alone = conv.before == Activation::Identity && !conv.residual;
                (alone && self.is_depthwise(node) && depthwise::supports(&geometry)).then(|| vec![x])
            }
            Op::GlobalPool(_) | Op::Unary(_) | Op::BatchNorm { .. } => Some(vec![x]),
            Op::Binary(_) => {
                let main = self.main_operand(node)?;
                let (main, other) = (node.inputs[main], node.inputs[1 - main]);
                match self.meets(main, other)? {
                    Meets::Same if other != main && self.graph.constant(other).is_none() => {
                        Some(vec![main, other])
                    }
                    Meets::Same | Meets::PerChannel | Meets::Scalar => Some(vec![main]),
                    Meets::PerPixel => None,
                }
            }
            Op::Excite(Excite::Scale { .. }) => {
                Some([x].into_iter().chain(node.inputs.get(2).copied().filter(|&id| id != x)).collect())
            }
            _ => None,
        }
    }

    /// Whether a node that does not run so reads an input in row-major order all the same.
    fn takes_plain(&self, node: &Node, input: usize) -> bool {
        let moves = matches!(node.op, Op::Reshape { .. } | Op::Pad { .. } | Op::ArgMax { .. });
        moves || input == 0 && self.reads_plain_image(node) && !self.producers.contains_key(&node.inputs[0])
    }

    /// The step of a node that runs on row-major maps.
    pub(super) fn on_row_major(&mut self, node: &'g Node) -> Result<()> {
        let x = match node.op {
            Op::Binary(_) => node.inputs[self.main_operand(node).unwrap_or(0)],
            _ => node.inputs[0],
        };
        let from = self.plain_of(x)?;
        let Some(layout) = Blocked::of_shape(self.graph.shape(x)) else {
            unreachable!("the search takes values of rank 2 to 4")
        };
        if let Op::GlobalPool(kind) = node.op {
            let output = self.make_blocked(node.output);
            let Blocked { height, width, .. } = layout;
            let work = Work::PlainGlobalPool { kind, from, size: [height, width], output };
            return self.push_row_major(node, work);
        }
        let op = match &node.op {
            Op::Pool(pool) => PlainOp::Pool(pool.clone()),
            Op::Conv(conv) => self.row_major_depthwise(node, conv)?,
            Op::Unary(function) => PlainOp::Unary(*function),
            Op::Binary(op) => self.row_major_binary(node, *op, x, &layout)?,
            Op::BatchNorm { epsilon } => {
                let [scale, shift] = self.batch_norm(node, *epsilon, &layout)?;
                let own = Blocked { batch: 1, height: 1, width: 1, ..layout.clone() };
                let view =
                    |skip: usize| View { place: Place::Weights, skip, batch_stride: 0, layout: own.clone() };
                let addend = Some(PlainOperand::PerChannel(view(shift.start)));
                PlainOp::Scale { scale: view(scale.start), addend, after: Activation::Identity }
            }
            Op::Excite(Excite::Scale { after, .. }) => {
                let scale = self.channel_numbers(node, node.inputs[1], &layout)?;
                let residual = node.inputs.get(2).map(|&id| self.plain_of(id)).transpose()?;
                PlainOp::Scale { scale, addend: residual.map(PlainOperand::Same), after: *after }
            }
            _ => unreachable!("the search takes no other nodes"),
        };
        let shape = [layout.batch, layout.channels(), layout.height, layout.width];
        let Some(output) = Blocked::of_shape(self.graph.shape(node.output)) else {
            unreachable!("the search takes values of rank 2 to 4")
        };
        let to = self.plain_target(node.output);
        let out_size = [output.height, output.width];
        self.push_row_major(node, Work::Plain(Box::new(PlainWork { op, shape, out_size, from, to })))
    }

    fn row_major_depthwise(&mut self, node: &Node, conv: &Conv) -> Result<PlainOp> {
        let geometry = self.geometry_of(node, conv)?;
        let mut numbers = |input: usize| -> Result<Range<usize>> {
            let Some(values) = self.graph.constant(node.inputs[input]) else {
                return Err(node_error(node, "its weights and bias must be constants"));
            };
            let start = self.weights.len();
            self.push_weights_flat(values);
            Ok(start..self.weights.len())
        };
        let bias = numbers(2)?;
        let start = numbers(1)?.start;
        Ok(PlainOp::Depthwise { geometry, weights: self.layer_weights(start, None), bias, after: conv.after })
    }

    fn push_row_major(&mut self, node: &Node, work: Work) -> Result<()> {
        self.push(node.name.clone(), work, WHY)?;
        if let Some(step) = self.steps.last_mut() {
            step.algorithm = "row-major".into();
            if let Op::Conv(_) = node.op {
                step.op = node.op.name().into();
                step.macs = self.graph.node_macs(node);
                let weights = self.graph.shape(node.inputs[1]).iter().product::<usize>();
                step.bytes += (weights * size_of::<f32>()) as u64;
            }
        }
        Ok(())
    }

    fn row_major_binary(
        &mut self,
        node: &'g Node,
        op: BinaryOp,
        main: ValueId,
        layout: &Blocked,
    ) -> Result<PlainOp> {
        let swapped = node.inputs[0] != main;
        let other = node.inputs[usize::from(!swapped)];
        let other = match self.meets(main, other) {
            Some(Meets::Scalar) => {
                PlainOperand::Scalar(self.graph.constant(other).map_or(0.0, |values| values[0]))
            }
            Some(Meets::Same) => PlainOperand::Same(self.plain_of(other)?),
            Some(Meets::PerChannel) => PlainOperand::PerChannel(self.channel_numbers(node, other, layout)?),
            _ => unreachable!("the search takes no other operands"),
        };
        Ok(PlainOp::Binary { op, swapped, other })
    }

    /// One number per channel, channels in one part.
    fn channel_numbers(&mut self, node: &Node, id: ValueId, layout: &Blocked) -> Result<View> {
        let map = View { place: Place::Weights, skip: 0, batch_stride: 0, layout: layout.clone() };
        self.per_channel(node, id, &map)
    }
}
