//! Which values lie in fragments, and in how many: from the dilations of the windows that read them.

use sinew_kernels::LANES;
use sinew_kernels::conv::{ConvGeometry, strassen};

use super::{Pair, WHOLE};
use crate::graph::{Graph, Node, Op, ValueId};

/// Parts into which one pool is split at most.
const MAX_PARTS: usize = 64;

/// Fragments of one map at most: with more of them each is tiny.
const MAX_FRAGMENTS: usize = 1024;

/// What a node does with fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes whole maps.
    Whole,
    /// Each pixel by itself: any fragments do.
    PixelWise,
    /// A window over fragments of its dilation, whose output is split further by a stride.
    Window { dilation: Pair, stride: Pair },
}

/// A role for each node, and a split for each value.
pub(super) struct Assignment {
    pub(super) roles: Vec<Role>,
    splits: Vec<Pair>,
}

impl Assignment {
    /// Fragments of a value, down and across, as its producer makes it.
    pub(super) fn split(&self, id: ValueId) -> Pair {
        self.splits[id.0]
    }

    /// Whether a pixel-wise node takes fragments of this operand, and not the same numbers for all.
    pub(super) fn is_map(&self, graph: &Graph, node: &Node, id: ValueId) -> bool {
        is_map(graph, node, id)
    }
}

fn is_map(graph: &Graph, node: &Node, id: ValueId) -> bool {
    graph.shape(id).len() == 4 && graph.shape(id)[2..] == graph.shape(node.output)[2..]
}

/// Whether a node treats every pixel by itself, at every position alike.
fn is_pixel_wise(graph: &Graph, node: &Node) -> bool {
    if graph.shape(node.output).len() != 4 {
        return false;
    }
    match &node.op {
        Op::Unary(_) | Op::BatchNorm { .. } | Op::MaxMin { .. } | Op::Lrn { .. } => true,
        Op::Softmax { axis } | Op::Concat { axis } => *axis == 1,
        Op::Binary(_) | Op::PRelu => node.inputs.iter().all(|&id| {
            let shape = graph.shape(id);
            let same_everywhere = shape[shape.len().saturating_sub(2)..].iter().all(|&extent| extent == 1);
            same_everywhere || (is_map(graph, node, id) && graph.constant(id).is_none())
        }),
        Op::Conv(conv) => {
            let one_pixel = conv.kernel == [1, 1] && conv.stride == [1, 1] && conv.pads == Default::default();
            one_pixel && !joins_pixels(graph, node)
        }
        _ => false,
    }
}

/// Whether a 1x1 convolution behind a removed stride may be computed by Strassen's algorithm, whose rounding depends on the map
/// that a pixel is in: it has to be the baseline's. One pixel is a dense layer, which rounds as any direct convolution.
fn joins_pixels(graph: &Graph, node: &Node) -> bool {
    let Op::Conv(conv) = &node.op else { return false };
    let Some(strides) = graph.equivalent_strides.get(&node.output) else { return false };
    let several = (0..2).any(|axis| graph.shape(node.output)[axis + 2] > strides[axis]);
    let blocks = [node.inputs[0], node.output].map(|id| graph.shape(id)[1] / LANES);
    conv.kernel == [1, 1]
        && conv.groups == 1
        && several
        && strassen::supports(&ConvGeometry::ONE_PIXEL, blocks[0], blocks[1])
}

/// The dilation of a window with stride 1 that can be taken apart: at least one row or column in each fragment.
fn dilation(graph: &Graph, node: &Node) -> Option<Pair> {
    let (stride, dilation) = match &node.op {
        Op::Conv(conv) => (conv.stride, conv.dilation),
        Op::Pool(pool) if !pool.ceil_mode => (pool.stride, pool.dilation),
        _ => return None,
    };
    let wide = |id: ValueId| (0..2).all(|axis| graph.shape(id)[axis + 2] >= dilation[axis]);
    let few = dilation[0].saturating_mul(dilation[1]) <= MAX_FRAGMENTS;
    (stride == [1, 1] && few && wide(node.inputs[0]) && wide(node.output)).then_some(dilation)
}

/// Whether a convolution gains from having no dilation: where Winograd serves its fragments, or nothing but fragments gives the
/// baseline's bits.
fn gains(graph: &Graph, node: &Node, dilation: Pair) -> bool {
    let Op::Conv(conv) = &node.op else { return false };
    if joins_pixels(graph, node) {
        return true;
    }
    let channels = [graph.shape(node.inputs[0])[1], graph.shape(node.output)[1]];
    // The first fragment, which is the largest: a dense layer's baseline has this size.
    let size =
        (0..2).map(|axis| graph.shape(node.output)[axis + 2].div_ceil(dilation[axis])).min().unwrap_or(0);
    matches!(conv.kernel, [3, 3] | [5, 5])
        && channels.iter().all(|channels| channels / conv.groups >= 16)
        && size >= 2
}

fn multiple(split: Pair, of: Pair) -> bool {
    split[0].is_multiple_of(of[0]) && split[1].is_multiple_of(of[1])
}

fn common(a: Pair, b: Pair) -> Pair {
    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    [gcd(a[0], b[0]), gcd(a[1], b[1])]
}

/// The splits that the readers of each value have in common.
fn wanted(graph: &Graph, off: &[bool]) -> Vec<Pair> {
    let mut wanted: Vec<Option<Pair>> = vec![None; graph.values.len()];
    let want = |wanted: &mut Vec<Option<Pair>>, id: ValueId, split: Pair| {
        let entry = &mut wanted[id.0];
        *entry = Some(entry.map_or(split, |other| common(other, split)));
    };
    for &output in &graph.outputs {
        want(&mut wanted, output, WHOLE);
    }
    for (position, node) in graph.nodes.iter().enumerate().rev() {
        let behind = wanted[node.output.0].unwrap_or(WHOLE);
        let inputs = node.inputs.clone();
        if off[position] {
            inputs.into_iter().for_each(|id| want(&mut wanted, id, WHOLE));
        } else if is_pixel_wise(graph, node) {
            for id in inputs {
                want(&mut wanted, id, if is_map(graph, node, id) { behind } else { WHOLE });
            }
        } else if let Some(dilation) = dilation(graph, node) {
            want(&mut wanted, node.inputs[0], dilation);
            if let Some(&residual) = node.inputs.get(3) {
                want(&mut wanted, residual, dilation);
            }
        } else {
            inputs.into_iter().for_each(|id| want(&mut wanted, id, WHOLE));
        }
    }
    wanted.into_iter().map(|split| split.unwrap_or(WHOLE)).collect()
}

/// Assigns roles to all nodes that are not off.
fn assign_all(graph: &Graph, off: &[bool]) -> Assignment {
    let wanted = wanted(graph, off);
    let mut splits = vec![WHOLE; graph.values.len()];
    let mut roles = Vec::new();
    for (position, node) in graph.nodes.iter().enumerate() {
        let role = if off[position] {
            Role::Whole
        } else if is_pixel_wise(graph, node) {
            let split = pixel_wise_split(graph, node, &splits, wanted[node.output.0]);
            splits[node.output.0] = split;
            if split == WHOLE { Role::Whole } else { Role::PixelWise }
        } else {
            window(graph, node, &mut splits, wanted[node.output.0])
        };
        roles.push(role);
    }
    Assignment { roles, splits }
}

/// The split of a pixel-wise node: that of its maps; where they differ, the finest, or none where none is wanted.
fn pixel_wise_split(graph: &Graph, node: &Node, splits: &[Pair], wanted: Pair) -> Pair {
    let mut maps = node.inputs.iter().filter(|&&id| is_map(graph, node, id)).map(|id| splits[id.0]);
    let first = maps.next().unwrap_or(WHOLE);
    let Some(other) = maps.find(|&split| split != first) else { return first };
    let finest = if multiple(first, other) { first } else { other };
    let fits =
        node.inputs.iter().filter(|&&id| is_map(graph, node, id)).all(|id| multiple(finest, splits[id.0]));
    if fits && wanted != WHOLE { finest } else { WHOLE }
}

fn window(graph: &Graph, node: &Node, splits: &mut [Pair], wanted: Pair) -> Role {
    let Some(dilation) = dilation(graph, node) else { return Role::Whole };
    let sizes = [2, 3].map(|d| graph.shape(node.output)[d]);
    let fits = |split: Pair| {
        multiple(split, dilation)
            && split[0].saturating_mul(split[1]) <= MAX_FRAGMENTS
            && (0..2).all(|axis| sizes[axis] >= split[axis])
    };
    let reach = |axis: usize| match &node.op {
        Op::Conv(conv) => dilation[axis] * (conv.kernel[axis] - 1),
        _ => 0,
    };
    let split = match &node.op {
        // The parts of a pool cost the same together as the pool.
        Op::Pool(_) if fits(wanted) && wanted[0] * wanted[1] <= MAX_PARTS * dilation[0] * dilation[1] => {
            wanted
        }
        // A convolution that had a stride is computed as it was then.
        Op::Conv(conv) => match graph.equivalent_strides.get(&node.output) {
            // Every window begins in the image: a part of it can be cut off.
            Some(&hint) if fits(hint) && conv.pads.bottom <= reach(0) && conv.pads.right <= reach(1) => hint,
            _ => dilation,
        },
        _ => dilation,
    };
    if split == WHOLE {
        return Role::Whole;
    }
    splits[node.output.0] = split;
    Role::Window { dilation, stride: [split[0] / dilation[0], split[1] / dilation[1]] }
}

/// Roles for a graph; all whole where nothing gains.
pub(super) fn assign(graph: &Graph) -> Assignment {
    let mut off = vec![false; graph.nodes.len()];
    loop {
        let assignment = assign_all(graph, &off);
        let idle = idle(graph, &assignment);
        if idle.is_empty() {
            return assignment;
        }
        idle.into_iter().for_each(|position| off[position] = true);
    }
}

/// The nodes of all runs without a layer that gains.
fn idle(graph: &Graph, assignment: &Assignment) -> Vec<usize> {
    // Nodes that hand fragments to each other are one run.
    let mut run: Vec<usize> = (0..graph.nodes.len()).collect();
    fn root(run: &[usize], mut at: usize) -> usize {
        while run[at] != at {
            at = run[at];
        }
        at
    }
    let split = |position: usize| assignment.roles[position] != Role::Whole;
    for (position, node) in graph.nodes.iter().enumerate().filter(|&(position, _)| split(position)) {
        for producer in
            node.inputs.iter().filter_map(|&id| graph.producer(id)).filter(|&producer| split(producer))
        {
            let (a, b) = (root(&run, position), root(&run, producer));
            run[a.max(b)] = a.min(b);
        }
    }
    let gains = |position: &usize| match assignment.roles[*position] {
        Role::Window { dilation, .. } => gains(graph, &graph.nodes[*position], dilation),
        _ => false,
    };
    let gaining: Vec<usize> =
        (0..graph.nodes.len()).filter(gains).map(|position| root(&run, position)).collect();
    (0..graph.nodes.len())
        .filter(|&position| split(position) && !gaining.contains(&root(&run, position)))
        .collect()
}
