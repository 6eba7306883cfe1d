//! What a stream of a layer is: an activation of a normalized sum, whose terms are convolutions and shortcuts.

use sinew_kernels::activation::Activation;

use crate::graph::{BinaryOp, Conv, Graph, Node, Op, Pads, PoolKind, ValueId};

/// The window that all terms of a stream share.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    /// 1 where the kernel has one tap.
    pub(super) dilation: [usize; 2],
    pub(super) pads: Pads,
}

impl Window {
    /// One tap.
    fn of_pixels(stride: [usize; 2]) -> Self {
        Self { kernel: [1, 1], stride, dilation: [1, 1], pads: Pads::default() }
    }

    fn of(conv: &Conv) -> Self {
        let dilation = if conv.kernel == [1, 1] { [1, 1] } else { conv.dilation };
        Self { kernel: conv.kernel, stride: conv.stride, dilation, pads: conv.pads }
    }
}

/// One term of a sum, linear in its source.
#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) source: ValueId,
    pub(super) kind: TermKind,
    /// Inputs and epsilon of a normalization of the term alone.
    pub(super) norm: Option<(Vec<ValueId>, f32)>,
}

#[derive(Clone, Debug)]
pub(super) enum TermKind {
    /// Weights and bias; a 1x1 window stands at the centre of the others.
    Conv { weights: ValueId, bias: ValueId },
    /// The source as it is, at the centre tap, its channels the first ones of the result.
    Identity,
    /// The mean of 2x2 pixels.
    Average,
}

/// `after(norm(sum of terms))`.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) terms: Vec<Term>,
    /// What the terms read, each once, in the order in which the values were made.
    pub(super) sources: Vec<ValueId>,
    pub(super) window: Window,
    pub(super) norm: Option<(Vec<ValueId>, f32)>,
    pub(super) after: Activation,
    /// The value and the node that it ends in, and all its nodes.
    pub(super) end: ValueId,
    pub(super) last: usize,
    pub(super) nodes: Vec<usize>,
}

impl Stream {
    /// Whether two streams can be computed by one convolution.
    pub(super) fn couples_with(&self, other: &Stream) -> bool {
        self.sources == other.sources && self.window == other.window && self.after == other.after
    }

    /// Whether there is more than one convolution: a sum, or a normalization behind a shortcut.
    pub(super) fn is_sum(&self) -> bool {
        let convs = self.terms.iter().filter(|term| matches!(term.kind, TermKind::Conv { .. })).count();
        convs > 1 || self.terms.len() > 1 && self.norm.is_some()
    }

    pub(super) fn has_shortcut_of(&self, source: ValueId) -> bool {
        self.terms.iter().any(|term| term.source == source && matches!(term.kind, TermKind::Identity))
    }
}

/// A node's inner parts are read by nothing else.
struct Finder<'g> {
    graph: &'g Graph,
    nodes: Vec<usize>,
}

impl<'g> Finder<'g> {
    /// The node that writes a value that nothing else reads.
    fn inner(&self, id: ValueId) -> Option<(usize, &'g Node)> {
        if self.graph.uses(id) != 1 {
            return None;
        }
        let at = self.graph.producer(id)?;
        Some((at, &self.graph.nodes[at]))
    }

    /// The terms of a sum, and of the sums in it.
    fn terms(&mut self, id: ValueId, is_end: bool) -> Vec<ValueId> {
        let shape = self.graph.shape(id);
        let node = match is_end {
            true => self.graph.producer(id).map(|at| (at, &self.graph.nodes[at])),
            false => self.inner(id),
        };
        if let Some((at, node)) = node
            && node.op == Op::Binary(BinaryOp::Add)
            && node.inputs.iter().all(|&input| self.graph.shape(input) == shape)
        {
            self.nodes.push(at);
            return node.inputs.iter().flat_map(|&input| self.terms(input, false)).collect();
        }
        vec![id]
    }

    fn norm(&mut self, id: ValueId) -> Option<(ValueId, (Vec<ValueId>, f32))> {
        let (at, node) = self.inner(id)?;
        let Op::BatchNorm { epsilon } = node.op else { return None };
        self.nodes.push(at);
        Some((node.inputs[0], (node.inputs[1..].to_vec(), epsilon)))
    }
}

/// The stream that ends in a node. Nothing where it is no sum with a convolution; an error where it is one but not of a
/// form that can be stacked.
pub(super) fn find(graph: &Graph, last: usize) -> Option<Result<Stream, String>> {
    let node = &graph.nodes[last];
    let end = node.output;
    if graph.shape(end).len() != 4 {
        return None;
    }
    let mut finder = Finder { graph, nodes: vec![last] };
    let (mut value, mut is_end, mut after) = (end, true, Activation::Identity);
    if let Op::Unary(Activation::Relu) = node.op {
        (value, is_end, after) = (node.inputs[0], false, Activation::Relu);
    }
    let mut norm = None;
    if is_end && let Op::BatchNorm { epsilon } = node.op {
        norm = Some((node.inputs[1..].to_vec(), epsilon));
        (value, is_end) = (node.inputs[0], false);
    } else if let Some((inner, found)) = finder.norm(value).filter(|_| !is_end) {
        (value, norm) = (inner, Some(found));
    }
    let is_sum_or_conv = |node: &Node| matches!(node.op, Op::Binary(BinaryOp::Add) | Op::Conv(_));
    let producer = if is_end { Some((last, node)) } else { finder.inner(value) };
    if !producer.is_some_and(|(_, node)| is_sum_or_conv(node)) {
        return None;
    }
    let ids = finder.terms(value, is_end);
    let mut terms = Vec::new();
    let mut windows: Vec<(Window, bool)> = Vec::new();
    for &id in &ids {
        let is_end = is_end && ids.len() == 1;
        terms.push(term(&mut finder, id, is_end, &mut windows));
    }
    let convs = windows.iter().filter(|(_, is_conv)| *is_conv).count();
    if convs == 0 {
        return None;
    }
    let widest = |(window, _): &&(Window, bool)| window.kernel[0] * window.kernel[1];
    let window = windows.iter().filter(|(_, is_conv)| *is_conv).max_by_key(widest)?.0.clone();
    // A 1x1 convolution of what no wide one reads would be multiplied by zeros at all taps but one: as any other value,
    // it is the shortcut of an ordinary residual block, not of this one.
    let mut sources: Vec<ValueId> = Vec::new();
    for (term, (own, is_conv)) in terms.iter().zip(&windows) {
        if *is_conv && own.kernel == window.kernel && !sources.contains(&term.source) {
            sources.push(term.source);
        }
    }
    let wide = windows.iter().filter(|(own, is_conv)| *is_conv && own.kernel == window.kernel).count();
    let looks_like_one = wide > 1 && window.kernel != [1, 1];
    let foreign = terms.iter().any(|term| !sources.contains(&term.source));
    sources.sort_by_key(|&id| graph.producer(id));
    let reason = if foreign {
        Some("a term of the sum is neither a convolution nor a shortcut of a convolution's input".to_owned())
    } else if sources.len() > 2 {
        Some("its convolutions read more than two values".to_owned())
    } else {
        None
    };
    let stream = Stream { terms, sources, window, norm, after, end, last, nodes: finder.nodes };
    match reason.or_else(|| misaligned(graph, &stream, &windows)) {
        Some(reason) => looks_like_one.then_some(Err(reason)),
        None if stream.sources.len() > 1 && !looks_like_one => None,
        None => Some(Ok(stream)),
    }
}

/// One term. `windows` collects the windows, and whether they are those of convolutions.
fn term(finder: &mut Finder<'_>, id: ValueId, is_end: bool, windows: &mut Vec<(Window, bool)>) -> Term {
    let graph = finder.graph;
    let kept = finder.nodes.len();
    let (mut value, mut norm) = (id, None);
    if !is_end && let Some((inner, found)) = finder.norm(id) {
        (value, norm) = (inner, Some(found));
    }
    let node = match is_end {
        true => graph.producer(value).map(|at| (at, &graph.nodes[at])),
        false => finder.inner(value),
    };
    if let Some((at, node)) = node
        && let Op::Conv(conv) = &node.op
        && is_plain(conv)
    {
        finder.nodes.push(at);
        windows.push((Window::of(conv), true));
        let kind = TermKind::Conv { weights: node.inputs[1], bias: node.inputs[2] };
        return Term { source: node.inputs[0], kind, norm };
    }
    if let Some((source, stride, kind)) = shortcut(finder, value) {
        windows.push((Window::of_pixels(stride), false));
        return Term { source, kind, norm };
    }
    // A value as it is; a normalization in front of it is its own.
    windows.push((Window::of_pixels([1, 1]), false));
    if norm.is_some() {
        return Term { source: value, kind: TermKind::Identity, norm };
    }
    finder.nodes.truncate(kept);
    Term { source: id, kind: TermKind::Identity, norm: None }
}

/// A subsampled or averaged value, with channels of zeros behind its own: source, stride and kind.
fn shortcut(finder: &mut Finder<'_>, id: ValueId) -> Option<(ValueId, [usize; 2], TermKind)> {
    let graph = finder.graph;
    let mut nodes = Vec::new();
    let mut value = id;
    let padded = finder.inner(value).and_then(|(at, node)| Some((at, unpadded(graph, node)?)));
    if let Some((at, inner)) = padded {
        nodes.push(at);
        value = inner;
    }
    let (mut stride, mut kind) = ([1, 1], TermKind::Identity);
    if let Some((at, node)) = finder.inner(value) {
        let shape = graph.shape(node.inputs[0]);
        match &node.op {
            Op::Slice { start, step, .. } if start[..] == [0; 4] && step[..2] == [1, 1] => {
                // All of every step-th row and column, from the first on.
                let all = |axis: usize| graph.shape(node.output)[axis] == shape[axis].div_ceil(step[axis]);
                if !(0..4).all(all) {
                    return None;
                }
                stride = [step[2], step[3]];
            }
            Op::Pool(pool)
                if pool.pads == Pads::default() && (pool.dilation == [1, 1] || pool.kernel == [1, 1]) =>
            {
                stride = pool.stride;
                match (pool.kind, pool.kernel) {
                    (_, [1, 1]) => {}
                    // At odd sizes the convolution has a row or column more, and the last mean would reach outside.
                    (PoolKind::Average, [2, 2])
                        if stride == [2, 2] && shape[2].is_multiple_of(2) && shape[3].is_multiple_of(2) =>
                    {
                        kind = TermKind::Average;
                    }
                    _ => return None,
                }
            }
            _ if nodes.is_empty() => return None,
            _ => {
                finder.nodes.extend(nodes);
                return Some((value, stride, kind));
            }
        }
        nodes.push(at);
        value = node.inputs[0];
    } else if nodes.is_empty() {
        return None;
    }
    finder.nodes.extend(nodes);
    Some((value, stride, kind))
}

/// What a node puts channels of zeros behind.
fn unpadded(graph: &Graph, node: &Node) -> Option<ValueId> {
    match &node.op {
        Op::Pad { amounts, value } if *value == 0.0 => {
            let [[0, 0], [0, _], [0, 0], [0, 0]] = amounts[..] else { return None };
            Some(node.inputs[0])
        }
        Op::Concat { axis: 1 } => {
            let &[x, zeros] = &node.inputs[..] else { return None };
            graph.constant(zeros)?.iter().all(|&zero| zero == 0.0).then_some(x)
        }
        _ => None,
    }
}

fn is_plain(conv: &Conv) -> bool {
    conv.groups == 1
        && !conv.residual
        && conv.before == Activation::Identity
        && conv.after == Activation::Identity
}

/// Why the terms of a stream do not read the pixels under one window, if they do not.
fn misaligned(graph: &Graph, stream: &Stream, windows: &[(Window, bool)]) -> Option<String> {
    let Window { kernel, stride, dilation, pads } = &stream.window;
    let centred = kernel.iter().all(|extent| extent % 2 == 1)
        && [pads.top, pads.left] == [0, 1].map(|axis| kernel[axis] / 2 * dilation[axis]);
    for (term, (window, is_conv)) in stream.terms.iter().zip(windows) {
        if *is_conv && *window == stream.window {
            continue;
        }
        if window.stride != *stride {
            return Some(format!("strides of {stride:?} and {:?} in one sum", window.stride));
        }
        if window.kernel != [1, 1] || window.pads != Pads::default() {
            return Some("windows of different sizes or pads in one sum".to_owned());
        }
        if !centred {
            return Some(format!(
                "the shortcut is not at the centre of a {}x{} window",
                kernel[0], kernel[1]
            ));
        }
        if matches!(term.kind, TermKind::Average)
            && (kernel.iter().any(|&extent| extent < 3) || *dilation != [1, 1])
        {
            return Some("the averaged shortcut is not of taps of the window".to_owned());
        }
        if graph.shape(term.source)[1] > graph.shape(stream.end)[1] && matches!(term.kind, TermKind::Identity)
        {
            return Some("the shortcut has more channels than the result".to_owned());
        }
    }
    None
}
