//! Builds a plan: walks the nodes in order, gives every value a place and every node its steps.
//!
//! A value exists in blocks, plain, or both; whichever a step needs is made where it is first needed, by a visible
//! step. Concatenation and MaxMin write nothing twice: their inputs' producers write into the result's place.

mod bytes;
mod conv;
mod cut;
mod edges;
mod excite;
mod fragments;
mod max_min;
mod places;
mod plain;
mod row_major;
mod shortcut;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use aligned_vec::AVec;
use sinew_kernels::{Block, LANES};

use super::choose::{Choice, ConvShape};
use super::f16::{self, Halves};
use super::layout::{Blocked, pack_channels};
use super::memory::{self, Lifetime};
use super::step::{MAX_RANK, Place, Plain, PlainPlace, Step, Strided, View, Work};
use super::weights::Weights;
use super::{Plan, PlanOptions, Port, WeightType};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Op, PoolKind, ValueId};
use crate::run::arena::ALIGN;

pub(super) fn build(graph: &Graph, options: &PlanOptions) -> Result<Plan> {
    graph.check()?;
    if let Some(value) = graph.values.iter().find(|value| value.shape.len() > MAX_RANK) {
        let reason = format!("{} dimensions, at most {MAX_RANK} are planned", value.shape.len());
        return Err(Error::Tensor { tensor: value.name.clone(), reason });
    }
    let rounded = (options.weights == WeightType::F16).then(|| f16::rounded(graph)).transpose()?;
    let mut builder = Builder::new(rounded.as_ref().unwrap_or(graph), options);
    builder.lay_out();
    builder.find_row_major();
    let graph = builder.graph;
    for index in 0..graph.inputs.len() {
        builder.bind_input(index)?;
    }
    for node in &graph.nodes {
        builder.node(node)?;
    }
    let mut edge_out = Vec::new();
    for (index, &id) in graph.outputs.iter().enumerate() {
        builder.bind_output(index, id, &mut edge_out)?;
    }
    builder.finish(edge_out)
}

/// A buffer of the arena.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    blocks: usize,
    first: usize,
    last: usize,
}

struct Builder<'g> {
    graph: &'g Graph,
    options: &'g PlanOptions,
    /// Bytes of all constants of the graph.
    constants: u64,
    steps: Vec<Step>,
    edge_in: Vec<Step>,
    buffers: Vec<Buffer>,
    weights: AVec<Block>,
    halves: Vec<Halves>,
    /// Channels of each part of every value that can lie in blocks; empty for others.
    parts: Vec<Vec<usize>>,
    blocked: Vec<Option<View>>,
    plain: Vec<Option<Plain>>,
    /// The concatenation that a value is part of, and its first block there.
    homes: HashMap<ValueId, (ValueId, usize)>,
    producers: HashMap<ValueId, usize>,
    /// Reads of each value, graph outputs included.
    uses: Vec<usize>,
    packed: HashMap<conv::PackedKey, conv::Packed>,
    /// The choices for layers with the same weights.
    choices: HashMap<ValueId, Vec<(ConvShape, Choice)>>,
    /// What is computed on row-major maps.
    row_major: HashSet<ValueId>,
    /// What a step has computed together with another node's result.
    done: HashSet<ValueId>,
}

impl<'g> Builder<'g> {
    fn new(graph: &'g Graph, options: &'g PlanOptions) -> Self {
        let mut uses = vec![0; graph.values.len()];
        for id in graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs) {
            uses[id.0] += 1;
        }
        Self {
            graph,
            options,
            constants: graph.parameters() * size_of::<f32>() as u64,
            steps: Vec::new(),
            edge_in: Vec::new(),
            buffers: Vec::new(),
            weights: AVec::with_capacity(ALIGN, expected_weights(graph)),
            halves: Vec::new(),
            parts: vec![Vec::new(); graph.values.len()],
            blocked: vec![None; graph.values.len()],
            plain: vec![None; graph.values.len()],
            homes: HashMap::new(),
            producers: graph.nodes.iter().enumerate().map(|(i, node)| (node.output, i)).collect(),
            uses,
            packed: HashMap::new(),
            choices: HashMap::new(),
            row_major: HashSet::new(),
            done: HashSet::new(),
        }
    }

    // ---- steps ----

    /// Adds a step on one thread, or on all where it moves enough bytes.
    fn push(&mut self, name: String, work: Work, why: &str) -> Result<()> {
        let bytes = work.bytes();
        let (cut, scratch_blocks) = self.cut(&work, bytes);
        let (op, algorithm) = (work.verb(), work.verb());
        self.push_step(Step {
            name,
            op: op.into(),
            algorithm: algorithm.into(),
            why: why.to_owned(),
            macs: 0,
            bytes,
            buffers: work.buffers(),
            work,
            scratch: None,
            scratch_blocks,
            cut,
        })
    }

    fn push_step(&mut self, mut step: Step) -> Result<()> {
        if step.scratch_blocks > 0 {
            let scratch = self.buffer(step.scratch_blocks);
            step.scratch = Some(scratch);
            step.buffers.push(scratch);
        }
        let now = self.steps.len();
        for &buffer in &step.buffers {
            let buffer = &mut self.buffers[buffer];
            buffer.first = buffer.first.min(now);
            buffer.last = buffer.last.max(now);
        }
        self.steps.push(step);
        Ok(())
    }

    fn node(&mut self, node: &'g Node) -> Result<()> {
        if self.done.contains(&node.output) {
            return Ok(());
        }
        if self.row_major.contains(&node.output) {
            return self.on_row_major(node);
        }
        match &node.op {
            Op::Conv(conv) => self.convolution(node, conv, None),
            Op::ConvMaxMin { conv, order } => self.convolution(node, conv, Some(*order)),
            Op::Dense { after } => self.dense(node, *after),
            Op::Pool(pool) => {
                let input = self.blocks_of(node.inputs[0])?;
                let output = self.make_blocked(node.output);
                self.push(
                    node.name.clone(),
                    Work::Pool { pool: pool.clone(), input, output },
                    "window by window",
                )
            }
            Op::PoolFragment { pool, .. } => self.pool_fragments(node, pool),
            Op::Interleave { steps } => self.interleave(node, *steps),
            Op::GlobalPool(kind) => {
                let input = self.blocks_of(node.inputs[0])?;
                let output = self.make_blocked(node.output);
                if *kind == PoolKind::Average && self.squeeze_in_producer(&input, &output) {
                    return Ok(());
                }
                self.push(
                    node.name.clone(),
                    Work::GlobalPool { kind: *kind, input, output },
                    "one pass over the map",
                )
            }
            Op::Unary(function) => {
                let (input, output) = self.elementwise(node)?;
                self.push(node.name.clone(), Work::Unary { function: *function, input, output }, "one pass")
            }
            Op::BatchNorm { epsilon } => {
                let input = self.blocks_of(node.inputs[0])?;
                let output = self.make_blocked(node.output);
                let [scale, shift] = self.batch_norm(node, *epsilon, &input.layout)?;
                self.push(
                    node.name.clone(),
                    Work::Affine { input, output, scale, shift },
                    "one multiply-add a number",
                )
            }
            Op::PRelu => self.prelu(node),
            Op::Binary(op) => self.binary(node, *op),
            Op::Softmax { axis } => self.softmax(node, *axis),
            Op::Concat { axis } => self.concat(node, *axis),
            Op::MaxMin { order } => self.max_min(node, *order),
            Op::MaxMinPool { pool, order } => self.max_min_pool(node, pool, *order),
            Op::Transpose { permutation } => self.transpose(node, permutation),
            Op::Reshape { .. } => self.reshape(node),
            Op::Pad { amounts, value } => self.pad(node, amounts, *value),
            Op::Slice { start, step, size } => self.slice(node, start, step, size),
            Op::UpsampleNearest { factors } => self.upsample(node, *factors),
            Op::ArgMax { axis, .. } => self.arg_max(node, *axis),
            Op::Excite(excite) => self.excite(node, excite),
            Op::Lrn { size, alpha, beta, bias } => {
                let input = self.blocks_of(node.inputs[0])?;
                let input = self.one_part(&node.name, input)?;
                let output = self.make_blocked(node.output);
                let work = Work::Lrn {
                    lanes: input.layout.lanes(),
                    input,
                    output,
                    size: *size,
                    alpha: *alpha,
                    beta: *beta,
                    bias: *bias,
                };
                self.push(node.name.clone(), work, "a window of channels")
            }
        }
    }

    /// What a batch normalization multiplies by and adds, among the weights.
    fn batch_norm(&mut self, node: &Node, epsilon: f32, layout: &Blocked) -> Result<[Range<usize>; 2]> {
        let Some((scale, shift)) = crate::optimize::batch_norm_affine(self.graph, &node.inputs[1..], epsilon)
        else {
            return Err(node_error(node, "its statistics are not constant"));
        };
        Ok([scale, shift].map(|values| {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            self.push_weights(&pack_channels(&values, layout))
        }))
    }

    /// Input and output of an element-wise node: blocks, or plain elements as if they were.
    fn elementwise(&mut self, node: &Node) -> Result<(View, View)> {
        let id = node.inputs[0];
        let in_blocks = Blocked::of_shape(self.graph.shape(id)).is_some();
        if in_blocks && (self.blocked[id.0].is_some() || self.strided_source(id).is_some()) {
            let input = self.blocks_of(id)?;
            let output = self.make_blocked(node.output);
            return Ok((input, output));
        }
        let input = self.arena_plain_of(id)?;
        let output = self.make_plain(input.len);
        self.plain[node.output.0] = Some(output);
        Ok((flat(input), flat(output)))
    }

    /// The same value with all its channels in one part, by a repacking step where they are in several.
    fn one_part(&mut self, name: &str, view: View) -> Result<View> {
        if view.layout.is_contiguous() {
            return Ok(view);
        }
        let parts = vec![view.layout.channels()];
        self.repack(name, view, parts)
    }

    /// The same value with other parts.
    fn repack(&mut self, name: &str, from: View, parts: Vec<usize>) -> Result<View> {
        let layout = Blocked { parts, ..from.layout.clone() };
        let stride = layout.image_blocks();
        let place = Place::Arena(self.buffer(layout.batch * stride));
        let to = View { place, skip: 0, batch_stride: stride, layout };
        let count = from.layout.channels();
        let work = Work::copy_channels(from, to.clone(), 0, count);
        self.push(name.to_owned(), work, "channels of other parts")?;
        Ok(to)
    }

    fn concat(&mut self, node: &'g Node, axis: usize) -> Result<()> {
        if axis != 1 || Blocked::of_shape(self.graph.shape(node.output)).is_none() {
            return self.concat_plain(node, axis);
        }
        let whole = self.make_blocked(node.output);
        let mut block = 0;
        for &input in &node.inputs {
            let view = self.blocks_of(input)?;
            let skip = whole.skip + block * whole.layout.pixels();
            if (view.place, view.skip) != (whole.place, skip) {
                let to = View { skip, layout: view.layout.clone(), ..whole.clone() };
                let count = view.layout.channels();
                let copy = Work::copy_channels(view.clone(), to, 0, count);
                self.push(node.name.clone(), copy, "its producer writes elsewhere")?;
            }
            block += view.layout.blocks();
        }
        Ok(())
    }

    // ---- finishing ----

    fn finish(mut self, edge_out: Vec<Step>) -> Result<Plan> {
        self.pack_bytes();
        let lifetimes: Vec<Lifetime> = self
            .buffers
            .iter()
            .map(|buffer| Lifetime {
                blocks: buffer.blocks,
                first: buffer.first.min(buffer.last),
                last: buffer.last,
            })
            .collect();
        let (offsets, arena_blocks) = memory::place(&lifetimes);
        let scratch_blocks = self.steps.iter().map(|step| step.scratch_blocks).max().unwrap_or(0);
        let port = |&id: &ValueId| {
            let value = self.graph.value(id);
            Port { name: value.name.clone(), shape: value.shape.clone(), dtype: value.dtype }
        };
        Ok(Plan {
            inputs: self.graph.inputs.iter().map(port).collect(),
            outputs: self.graph.outputs.iter().map(port).collect(),
            steps: self.steps,
            edge_in: self.edge_in,
            edge_out,
            weights: Weights::owned(self.weights),
            halves: self.halves,
            offsets,
            arena_blocks,
            scratch_blocks,
        })
    }
}

/// Blocks that packed weights will take, or some more: the constants, and room for the transforms of some of them. What
/// is not used is address space, not memory; where it is too little, weights are copied once.
fn expected_weights(graph: &Graph) -> usize {
    let constants = graph.values.iter().filter_map(|value| value.constant.as_deref());
    let blocks: usize = constants.map(|constant| constant.len().div_ceil(LANES)).sum();
    blocks + blocks / 2
}

fn node_error(node: &Node, reason: &str) -> Error {
    Error::Node { op: node.op.name().into(), node: node.name.clone(), reason: reason.into() }
}

/// Joins each part that ends at a block with the next: the same blocks, fewer parts.
fn merge_full(parts: &mut Vec<usize>) {
    parts.dedup_by(|next, part| {
        let full = *part % LANES == 0;
        if full {
            *part += *next;
        }
        full
    });
}

/// Elements between neighbours, per dimension, of a row-major tensor.
fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dimension in (1..shape.len()).rev() {
        strides[dimension - 1] = strides[dimension] * shape[dimension];
    }
    strides
}

/// The strides of image, channel, row and pixel, for ranks 2 to 4 as [`Blocked::of_shape`] reads them.
fn image_strides(strides: &[usize]) -> [usize; 4] {
    match *strides {
        [n, c] => [n, c, 0, 0],
        [n, c, l] => [n, c, 0, l],
        [n, c, h, w] => [n, c, h, w],
        _ => unreachable!("only values of rank 2 to 4 lie in blocks"),
    }
}

/// A strided copy of a box; dimensions beyond the given ones have extent 1.
fn strided(extents: &[usize], from: &[usize], to: &[usize], from_start: usize, to_start: usize) -> Strided {
    let pad = |values: &[usize], fill: usize| {
        let mut all = [fill; MAX_RANK];
        all[MAX_RANK - values.len()..].copy_from_slice(values);
        all
    };
    Strided {
        extents: pad(extents, 1),
        from_strides: pad(from, 0),
        to_strides: pad(to, 0),
        from_start,
        to_start,
    }
}

/// Plain elements in the arena or the weights as blocks of 16 in a row.
fn flat(plain: Plain) -> View {
    let blocks = plain.len.div_ceil(LANES);
    let layout = Blocked { batch: 1, parts: vec![LANES], height: 1, width: blocks };
    let (place, skip) = match plain.place {
        PlainPlace::Arena(buffer) => (Place::Arena(buffer), 0),
        PlainPlace::Weights(at) => (Place::Weights, at),
        PlainPlace::Input(_) | PlainPlace::Output(_) => {
            unreachable!("flat views are of the engine's own memory")
        }
    };
    View { place, skip, batch_stride: blocks, layout }
}
