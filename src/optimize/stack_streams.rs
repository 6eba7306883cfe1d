//! ResNet in ResNet: the four convolutions of a generalised residual layer, and its shortcut, as one convolution.
//!
//! Two streams `r' = f(norm(conv(r) + conv(t) + shortcut(r)))` and `t' = f(norm(conv(r) + conv(t)))` are, with the
//! channels of `r` and `t` side by side, one convolution of twice the channels. A shortcut that is a convolution itself
//! (1x1 of the same stride, a subsampled or averaged input) is added to the weights at the taps that it reads; the
//! normalization is folded last, for it scales the shortcut as well. The identity stays apart, as a residual with a
//! factor per channel: the plan adds it to the sums where Winograd would round it, and to the centre tap elsewhere.
//!
//! Windows may be dilated. A layer whose stride was removed keeps its shortcut where it was, in the centre tap.
//!
//! Exact in real arithmetic; the order of the sums is another one. Streams that do not read both inputs, because
//! weights are zero, keep convolutions of their own. A sum of convolutions that is one stream is handled alike.

mod stream;
mod weights;

use std::collections::HashSet;

use sinew_kernels::activation::Activation;

use self::stream::Stream;
use super::Found;
use crate::graph::{BinaryOp, Conv, Graph, Node, Op, ValueId};
use crate::tensor::DType;

/// The blocks of a graph as imported, and what is nearly one: `generalized_residual`, or `sum_of_convolutions` where
/// there is one stream.
pub fn found(graph: &Graph) -> Vec<Found> {
    let (blocks, missed) = blocks(graph);
    let name = |stream: &Stream| graph.nodes[stream.last].name.clone();
    let found = blocks.iter().filter(|block| block.kind != Kind::Start).map(|block| Found {
        what: if block.streams.len() == 2 { "generalized_residual" } else { "sum_of_convolutions" },
        node: block.streams.iter().max_by_key(|stream| stream.last).map(name).unwrap_or_default(),
        missed: None,
    });
    let missed = missed.into_iter().map(|(node, reason)| Found {
        what: "generalized_residual",
        node: graph.nodes[node].name.clone(),
        missed: Some(reason),
    });
    found.chain(missed).collect()
}

pub(super) fn run(graph: &mut Graph) -> usize {
    let (blocks, _) = blocks(graph);
    // Nodes move while they are rewritten: blocks are found again by the values that their streams end in.
    let mut rewrites = 0;
    for block in &blocks {
        rewrites += usize::from(rewrite(graph, block).is_some());
    }
    join_slices(graph);
    graph.remove_unused();
    rewrites
}

/// Streams that become one convolution.
struct Block {
    streams: Vec<Stream>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Streams that read the same two inputs, or a single one that sums convolutions.
    Layer,
    /// The two convolutions of one input whose results are the inputs of a layer.
    Start,
}

/// All blocks in the order of their nodes, and the nodes that end something that is nearly one.
fn blocks(graph: &Graph) -> (Vec<Block>, Vec<(usize, String)>) {
    let (mut streams, mut missed) = (Vec::new(), Vec::new());
    let mut inside = HashSet::new();
    // Last to first: the largest form is seen before its parts.
    for node in (0..graph.nodes.len()).rev() {
        if inside.contains(&node) {
            continue;
        }
        match stream::find(graph, node) {
            Some(Ok(stream)) => {
                inside.extend(stream.nodes.iter().copied());
                streams.push(stream);
            }
            Some(Err(reason)) => missed.push((node, reason)),
            None => {}
        }
    }
    streams.reverse();
    missed.reverse();
    let mut blocks = Vec::new();
    while let Some(first) = (!streams.is_empty()).then(|| streams.remove(0)) {
        let partner = streams.iter().position(|other| first.couples_with(other));
        if first.sources.len() == 2
            && let Some(partner) = partner
        {
            let second = streams.remove(partner);
            blocks.push(Block { streams: ordered(first, second), kind: Kind::Layer });
        } else if first.is_sum() {
            blocks.push(Block { streams: vec![first], kind: Kind::Layer });
        } else if let Some(partner) = partner
            && starts_a_layer(&blocks, &streams, &first, &streams[partner])
        {
            let second = streams.remove(partner);
            blocks.push(Block { streams: vec![first, second], kind: Kind::Start });
        }
    }
    (blocks, missed)
}

/// The stream that its first input's shortcut belongs to comes first.
fn ordered(first: Stream, second: Stream) -> Vec<Stream> {
    let keeps = |stream: &Stream, source: usize| stream.has_shortcut_of(stream.sources[source]);
    if keeps(&second, 0) && !keeps(&first, 0) { vec![second, first] } else { vec![first, second] }
}

/// Whether the results of two streams are the inputs of a layer.
fn starts_a_layer(blocks: &[Block], later: &[Stream], first: &Stream, second: &Stream) -> bool {
    let reads_both =
        |stream: &Stream| stream.sources.contains(&first.end) && stream.sources.contains(&second.end);
    later.iter().chain(blocks.iter().flat_map(|block| &block.streams)).any(reads_both)
}

/// Writes a block as one convolution, or one for each stream where weights are zero.
fn rewrite(graph: &mut Graph, block: &Block) -> Option<()> {
    let streams: Vec<&Stream> = block.streams.iter().collect();
    let live: Vec<Vec<ValueId>> = streams.iter().map(|stream| weights::live_sources(graph, stream)).collect();
    if live.iter().all(|sources| *sources == live[0]) {
        return write(graph, &streams, &live[0]);
    }
    for (stream, sources) in streams.iter().zip(&live) {
        write(graph, &[stream], sources)?;
    }
    Some(())
}

/// Puts one convolution of the sources side by side in the place of the streams.
fn write(graph: &mut Graph, streams: &[&Stream], sources: &[ValueId]) -> Option<()> {
    let ends: Vec<usize> = streams.iter().filter_map(|stream| graph.producer(stream.end)).collect();
    let mut at = *ends.iter().min()?;
    let main = &streams[0].window;
    let summed = weights::sum(graph, streams, sources)?;
    let name = graph.nodes[at].name.clone();
    let x = stacked(graph, &mut at, sources, &name)?;
    let mut inputs = vec![
        x,
        graph.add_constant(format!("{name}/weights"), summed.weights),
        graph.add_constant(format!("{name}/bias"), summed.bias),
    ];
    if let Some((of, scale)) = summed.residual {
        inputs.push(of.unwrap_or(x));
        inputs.push(graph.add_constant(format!("{name}/shortcut"), scale));
    }
    let conv = Conv {
        kernel: main.kernel,
        stride: main.stride,
        dilation: main.dilation,
        pads: main.pads,
        groups: 1,
        before: Activation::Identity,
        residual: inputs.len() > 3,
        after: streams[0].after,
    };
    if let [stream] = streams {
        let end = graph.producer(stream.end)?;
        graph.nodes[end] = Node { name, op: Op::Conv(conv), inputs, output: stream.end };
        return Some(());
    }
    let y = graph.insert_node(at, format!("{name}/stacked"), Op::Conv(conv), inputs).ok()?;
    if let Some(&strides) = graph.equivalent_strides.get(&streams[0].end) {
        graph.equivalent_strides.insert(y, strides);
    }
    // Each stream is a slice of the result, where it ended before: what reads it comes after that.
    let mut first = 0;
    for stream in streams {
        let end = graph.producer(stream.end)?;
        let size = graph.shape(stream.end).to_vec();
        let (start, step) = (vec![0, first, 0, 0], vec![1; 4]);
        first += size[1];
        (graph.nodes[end].op, graph.nodes[end].inputs) = (Op::Slice { start, step, size }, vec![y]);
    }
    Some(())
}

/// Values side by side along the channels: what they are slices of, sums of such, or a concatenation. Nodes go in front of
/// position `at`, which moves with them.
fn stacked(graph: &mut Graph, at: &mut usize, values: &[ValueId], name: &str) -> Option<ValueId> {
    let &[a, b] = values else { return values.first().copied() };
    if let Some(whole) = whole_of(graph, values) {
        return Some(whole);
    }
    let operands = |graph: &Graph, id: ValueId| {
        let node = &graph.nodes[graph.producer(id)?];
        (node.op == Op::Binary(BinaryOp::Add)).then(|| [node.inputs[0], node.inputs[1]])
    };
    if let (Some([a0, a1]), Some([b0, b1])) = (operands(graph, a), operands(graph, b))
        && let Some((left, right)) = [([a0, b0], [a1, b1]), ([a0, b1], [a1, b0])]
            .into_iter()
            .find_map(|(left, right)| Some((whole_of(graph, &left)?, whole_of(graph, &right)?)))
        && graph.shape(left) == graph.shape(right)
    {
        // Shortcuts around several layers: the streams are slices of the sum from here on.
        let ends = [graph.producer(a)?, graph.producer(b)?];
        let position = ends[0].min(ends[1]);
        let sum = graph
            .insert_node(position, format!("{name}/sum"), Op::Binary(BinaryOp::Add), vec![left, right])
            .ok()?;
        *at += 1;
        let mut first = 0;
        for (value, end) in [a, b].into_iter().zip(ends) {
            let size = graph.shape(value).to_vec();
            let op = Op::Slice { start: vec![0, first, 0, 0], step: vec![1; 4], size };
            first += graph.shape(value)[1];
            let node = &mut graph.nodes[end + 1];
            (node.op, node.inputs) = (op, vec![sum]);
        }
        return Some(sum);
    }
    let whole =
        graph.insert_node(*at, format!("{name}/streams"), Op::Concat { axis: 1 }, values.to_vec()).ok()?;
    *at += 1;
    Some(whole)
}

/// What values are the slices of, in order and without a gap.
fn whole_of(graph: &Graph, values: &[ValueId]) -> Option<ValueId> {
    let mut whole = None;
    let mut first = 0;
    for &value in values {
        let node = &graph.nodes[graph.producer(value)?];
        let Op::Slice { start, step, size } = &node.op else { return None };
        let source = node.inputs[0];
        if whole.is_some_and(|whole| whole != source) || start[..] != [0, first, 0, 0] || step[..] != [1; 4] {
            return None;
        }
        whole = Some(source);
        first += size[1];
    }
    let shape = graph.shape(whole?);
    let (own, last) = (graph.shape(values[0]), shape.get(1)?);
    (*last == first && shape[0] == own[0] && shape[2..] == own[2..]).then_some(whole?)
}

/// Lets readers of a concatenation of all slices of a value read the value.
fn join_slices(graph: &mut Graph) {
    for position in (0..graph.nodes.len()).rev() {
        let node = &graph.nodes[position];
        if node.op == (Op::Concat { axis: 1 })
            && graph.value(node.output).dtype == DType::F32
            && let Some(whole) = whole_of(graph, &node.inputs)
        {
            let output = node.output;
            graph.replace_uses(output, whole);
        }
    }
}
