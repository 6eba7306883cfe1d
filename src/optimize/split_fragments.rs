//! Runs of dilated layers as fragments: a map becomes the maps of its pixels that are congruent modulo the dilation, on
//! each of which the layers are plain ones without any dilation. Split once, interleaved once at the end.
//!
//! ```text
//! x          a b a b a b a      fragments of 2 x 2     a a a a   b b b
//!            c d c d c d c                             a a a a   b b b
//!            a b a b a b a                             c c c c   d d d
//! ```
//! A window with dilation `d` joins pixels that are congruent modulo `d` only, so an output fragment depends on one input
//! fragment, through the same window without dilation. A layer whose stride was removed splits each fragment again, by
//! that stride `s`: the parts are the layer with its stride, started at each of `s x s` pixels. Fragment 0 is then the
//! baseline's own layer on the baseline's own map.
//!
//! Bitwise for the same algorithm. But the choice of algorithm sees layers without a dilation here, Winograd among
//! them: that is what the pass is for, and where no layer of a run can use it the run stays as it is.

mod assign;

use std::collections::HashMap;

use crate::error::Result;
use crate::graph::{Conv, Graph, Node, Op, Pads, Pool, ValueId};
use assign::{Assignment, Role};

/// Rows and columns, or a number for each.
type Pair = [usize; 2];
/// Nodes of a split graph at most, so that no file takes long to plan: more stay dilated.
const MAX_NODES: usize = 1 << 15;
/// No split.
const WHOLE: Pair = [1, 1];

pub(super) fn run(graph: &mut Graph) -> usize {
    let assignment = assign::assign(graph);
    let split = assignment.roles.iter().filter(|role| !matches!(role, Role::Whole)).count();
    let fragments: usize =
        graph.nodes.iter().map(|node| assignment.split(node.output).iter().product::<usize>()).sum();
    if split == 0 || fragments > MAX_NODES {
        return 0;
    }
    match rewrite(graph, &assignment) {
        Ok(rewritten) => *graph = rewritten,
        Err(error) => unreachable!("fragments of checked sizes fit their layers: {error}"),
    }
    split
}

fn rewrite(graph: &Graph, assignment: &Assignment) -> Result<Graph> {
    let mut rewriter = Rewriter {
        old: graph,
        new: Graph { nodes: Vec::new(), ..graph.clone() },
        assignment,
        forms: HashMap::new(),
    };
    for (node, role) in graph.nodes.iter().zip(&assignment.roles) {
        match *role {
            Role::Whole => rewriter.whole(node)?,
            Role::PixelWise => rewriter.pixel_wise(node)?,
            Role::Window { dilation, stride } => rewriter.window(node, dilation, stride)?,
        }
    }
    for &output in &graph.outputs {
        rewriter.form(output, WHOLE)?;
    }
    let mut new = rewriter.new;
    new.remove_unused();
    Ok(new)
}

/// How many of `total` are congruent to `phase` modulo `step`.
fn count(total: usize, phase: usize, step: usize) -> usize {
    total.saturating_sub(phase).div_ceil(step)
}

/// All phases of a split, row by row.
fn phases([down, across]: Pair) -> impl Iterator<Item = Pair> {
    (0..down).flat_map(move |row| (0..across).map(move |column| [row, column]))
}

struct Rewriter<'g> {
    old: &'g Graph,
    new: Graph,
    assignment: &'g Assignment,
    /// The forms of a value that exist: its fragments for a split.
    forms: HashMap<(ValueId, Pair), Vec<ValueId>>,
}

impl Rewriter<'_> {
    fn whole(&mut self, node: &Node) -> Result<()> {
        for &input in &node.inputs {
            self.form(input, WHOLE)?;
        }
        self.new.nodes.push(node.clone());
        Ok(())
    }

    /// One node for each fragment; the operands that are no maps are the same for all.
    fn pixel_wise(&mut self, node: &Node) -> Result<()> {
        let split = self.assignment.split(node.output);
        let mut operands = Vec::new();
        for &input in &node.inputs {
            operands.push(if self.assignment.is_map(self.old, node, input) {
                self.form(input, split)?
            } else {
                self.form(input, WHOLE)?
            });
        }
        let op = match &node.op {
            Op::Conv(conv) => Op::Conv(Conv { dilation: [1, 1], ..conv.clone() }),
            op => op.clone(),
        };
        let mut fragments = Vec::new();
        for index in 0..split[0] * split[1] {
            let of = |operand: &Vec<ValueId>| operand[index.min(operand.len() - 1)];
            let inputs = operands.iter().map(of).collect();
            fragments.push(self.new.add_node(node.name.clone(), op.clone(), inputs)?);
        }
        self.forms.insert((node.output, split), fragments);
        Ok(())
    }

    /// A window: without its dilation, and with the stride that was removed from it.
    fn window(&mut self, node: &Node, dilation: Pair, stride: Pair) -> Result<()> {
        let split = [dilation[0] * stride[0], dilation[1] * stride[1]];
        let input = self.form(node.inputs[0], dilation)?;
        let residual = match node.inputs.get(3) {
            Some(&residual) => Some(self.form(residual, split)?),
            None => None,
        };
        let sizes = [2, 3].map(|d| self.old.shape(node.output)[d]);
        let mut fragments = Vec::new();
        for (index, phase) in phases(split).enumerate() {
            let window = Window::of(&node.op, dilation, stride, phase);
            let x = input[window.input];
            let own = self.new.shape(x)[2..].to_vec();
            let output = if let Op::Pool(pool) = &node.op {
                // All parts of one fragment are one step, so its window has the same pads for all of them.
                let first =
                    [0, 1].map(|axis| count(sizes[axis], phase[axis] % dilation[axis], dilation[axis]));
                let pads = window.pads(first, [own[0], own[1]], [1, 1], [0, 0]);
                let pool = Pool { stride, dilation: [1, 1], pads, ceil_mode: false, ..pool.clone() };
                let op = match stride {
                    [1, 1] => Op::Pool(pool),
                    _ => Op::PoolFragment { pool, phase: window.part },
                };
                self.new.add_node(node.name.clone(), op, vec![x])?
            } else if let Op::Conv(conv) = &node.op {
                let skipped = [0, 1].map(|axis| window.part[axis].saturating_sub(window.before[axis]));
                let x = self.cut(node, x, skipped)?;
                let own = [own[0] - skipped[0], own[1] - skipped[1]];
                let wanted = [0, 1].map(|axis| count(sizes[axis], phase[axis], split[axis]));
                let pads = window.pads(wanted, own, stride, window.part);
                let conv = Conv { stride, dilation: [1, 1], pads, ..conv.clone() };
                let mut inputs = vec![x, node.inputs[1], node.inputs[2]];
                inputs.extend(residual.as_ref().map(|fragments| fragments[index]));
                // the residual's factors
                inputs.extend(node.inputs.get(4));
                self.new.add_node(node.name.clone(), Op::Conv(conv), inputs)?
            } else {
                unreachable!("windows are convolutions and pools")
            };
            if let Some(&hint) = self.old.equivalent_strides.get(&node.output) {
                self.new.equivalent_strides.insert(output, hint);
            }
            fragments.push(output);
        }
        self.forms.insert((node.output, split), fragments);
        Ok(())
    }

    /// A map without its first rows and columns.
    fn cut(&mut self, node: &Node, x: ValueId, skipped: Pair) -> Result<ValueId> {
        if skipped == [0, 0] {
            return Ok(x);
        }
        self.slice(&node.name.clone(), x, skipped, WHOLE)
    }

    fn slice(&mut self, name: &str, x: ValueId, first: Pair, step: Pair) -> Result<ValueId> {
        let shape = self.new.shape(x);
        let size =
            [shape[0], shape[1], count(shape[2], first[0], step[0]), count(shape[3], first[1], step[1])];
        let op = Op::Slice {
            start: vec![0, 0, first[0], first[1]],
            step: vec![1, 1, step[0], step[1]],
            size: size.to_vec(),
        };
        self.new.add_node(name, op, vec![x])
    }

    /// A value's fragments for a split; for none, the value itself.
    fn form(&mut self, id: ValueId, split: Pair) -> Result<Vec<ValueId>> {
        if let Some(fragments) = self.forms.get(&(id, split)) {
            return Ok(fragments.clone());
        }
        // What there is already: a coarser split is split again, all others go through the whole map.
        let own = self.assignment.split(id);
        let name = self.old.value(id).name.clone();
        if split == WHOLE {
            if own != WHOLE {
                let inputs = self.form(id, own)?;
                let op = Op::Interleave { steps: own };
                self.new.nodes.push(Node { name, op, inputs, output: id });
            }
            self.forms.insert((id, WHOLE), vec![id]);
            return Ok(vec![id]);
        }
        let divides = split[0].is_multiple_of(own[0]) && split[1].is_multiple_of(own[1]);
        let from = if divides { own } else { WHOLE };
        let coarse = self.form(id, from)?;
        let step = [split[0] / from[0], split[1] / from[1]];
        let mut fragments = Vec::new();
        for phase in phases(split) {
            let within = coarse[phase[0] % from[0] * from[1] + phase[1] % from[1]];
            let first = [phase[0] / from[0], phase[1] / from[1]];
            fragments.push(self.slice(&name, within, first, step)?);
        }
        self.forms.insert((id, split), fragments.clone());
        Ok(fragments)
    }
}

/// The window of one output fragment.
///
/// Output `d m + r` is the sum over taps of `w[i] x[d m + r + d i - p]`; with `f = (r - p) mod d` that reads element
/// `m + i - (p - r + f) / d` of fragment `f`: the same window, and `(p - r + f) / d` rows of padding before it.
struct Window {
    kernel: Pair,
    /// Which input fragment it looks at.
    input: usize,
    /// Rows above and columns on the left of it, for the first part.
    before: Pair,
    /// Which part it is of what the removed stride splits.
    part: Pair,
}

impl Window {
    fn of(op: &Op, dilation: Pair, stride: Pair, phase: Pair) -> Self {
        let (kernel, pads) = match op {
            Op::Conv(conv) => (conv.kernel, conv.pads),
            Op::Pool(pool) => (pool.kernel, pool.pads),
            _ => unreachable!("windows are convolutions and pools"),
        };
        let pads = [pads.top, pads.left];
        let axis = |axis: usize| {
            let (d, p, r) = (dilation[axis], pads[axis], phase[axis] % dilation[axis]);
            let from = (r + d * p - p) % d;
            (from, (p + from - r) / d)
        };
        let [(row, above), (column, left)] = [axis(0), axis(1)];
        let part = [phase[0] / dilation[0], phase[1] / dilation[1]];
        debug_assert!(part[0] < stride[0] && part[1] < stride[1]);
        Self { kernel, input: row * dilation[1] + column, before: [above, left], part }
    }

    /// Pads that give `wanted` outputs of an input of `size`, from pixel `part` on.
    fn pads(&self, wanted: Pair, size: Pair, stride: Pair, part: Pair) -> Pads {
        let axis = |axis: usize| {
            let before = self.before[axis].saturating_sub(part[axis]);
            let reach = (wanted[axis] - 1) * stride[axis] + self.kernel[axis];
            (before, reach.saturating_sub(size[axis] + before))
        };
        let [(top, bottom), (left, right)] = [axis(0), axis(1)];
        Pads { top, left, bottom, right }
    }
}
