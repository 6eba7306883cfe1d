//! From the value that scales a map back to the pooled channels: two dense layers in any of the forms that exporters
//! give them, k of them side by side (SENetV2), with or without biases, `1 +` at the end or not.

use sinew_kernels::activation::Activation;

use crate::graph::{BinaryOp, Graph, Node, Op, PoolKind, ValueId};

/// A gate that was found.
#[derive(Debug, PartialEq)]
pub(super) struct Gate {
    /// Pooled channels `[N, C, 1, 1]`.
    pub(super) pooled: ValueId,
    /// In the order in which they run.
    pub(super) layers: Vec<Layer>,
    /// Whether 1 is added at last.
    pub(super) plus_one: bool,
    /// Dense layers side by side in the first layer: more than one in SENetV2.
    pub(super) branches: usize,
}

/// A dense layer.
#[derive(Debug, PartialEq)]
pub(super) struct Layer {
    /// `[outputs, inputs]`
    pub(super) weights: Vec<f32>,
    pub(super) bias: Vec<f32>,
    pub(super) after: Activation,
}

impl Gate {
    /// What it is called in reports.
    pub(super) fn name(&self) -> &'static str {
        if self.branches > 1 { "aggregate_excite" } else { "squeeze_excite" }
    }
}

/// Follows `s` back to pooled channels; the error says what was found instead.
pub(super) fn find(graph: &Graph, s: ValueId) -> Result<Gate, String> {
    let walk = Walk { graph };
    let mut at = walk.vector(s);
    let mut plus_one = false;
    if let Some(node) = walk.producer(at)
        && let Some(x) = walk.plus_one(node)
    {
        walk.read_once(node.output, s)?;
        (plus_one, at) = (true, walk.vector(x));
    }
    let (mut layers, mut branches) = (Vec::new(), 1);
    loop {
        let Some(node) = walk.producer(at) else {
            return Err(format!("it comes from \"{}\", which nothing computes", graph.value(at).name));
        };
        if let Op::GlobalPool(_) | Op::Pool(_) = node.op
            && !layers.is_empty()
        {
            return match graph.shape(at) {
                [_, _, 1, 1] if walk.pools_all(node) => {
                    layers.reverse();
                    Ok(Gate { pooled: at, layers, plus_one, branches })
                }
                _ => Err(format!("\"{}\" does not pool the whole map", node.name)),
            };
        }
        let (layer, input, count) = walk.layer(at, s)?;
        branches = branches.max(count);
        layers.push(layer);
        if layers.len() > 2 {
            return Err("more than two dense layers".to_owned());
        }
        at = walk.vector(input);
    }
}

struct Walk<'g> {
    graph: &'g Graph,
}

impl<'g> Walk<'g> {
    fn producer(&self, id: ValueId) -> Option<&'g Node> {
        self.graph.nodes.iter().find(|node| node.output == id)
    }

    /// The value behind reshapes of one row of channels per image: `[N, C]`, `[N, C, 1, 1]`, `[N, 1, 1, C]`.
    fn vector(&self, mut id: ValueId) -> ValueId {
        let is_row = |id: ValueId| {
            let shape = self.graph.shape(id);
            shape.iter().skip(1).filter(|&&extent| extent != 1).count() <= 1
        };
        while let Some(node) = self.producer(id)
            && matches!(node.op, Op::Reshape { .. } | Op::Transpose { .. })
            && is_row(node.output)
            && is_row(node.inputs[0])
            && self.graph.shape(node.output).first() == self.graph.shape(node.inputs[0]).first()
        {
            id = node.inputs[0];
        }
        id
    }

    /// The other operand where the node adds 1.
    fn plus_one(&self, node: &Node) -> Option<ValueId> {
        let (Op::Binary(BinaryOp::Add), &[a, b]) = (&node.op, &*node.inputs) else { return None };
        let ones =
            |id: ValueId| self.graph.constant(id).is_some_and(|values| values.iter().all(|&x| x == 1.0));
        let x = if ones(b) {
            a
        } else if ones(a) {
            b
        } else {
            return None;
        };
        (self.graph.shape(x) == self.graph.shape(node.output)).then_some(x)
    }

    /// A value inside the gate must not be read outside of it; the gate itself (`s`) may.
    fn read_once(&self, id: ValueId, s: ValueId) -> Result<(), String> {
        if id == s || self.graph.uses(id) == 1 {
            return Ok(());
        }
        Err(format!("\"{}\" is read elsewhere too", self.graph.value(id).name))
    }

    /// The dense layer, or several side by side, whose activated sums `at` is; its input and how many there are.
    fn layer(&self, at: ValueId, s: ValueId) -> Result<(Layer, ValueId, usize), String> {
        let (after, at) = self.activation(at, s)?;
        if let Some(node) = self.producer(at)
            && matches!(node.op, Op::Concat { .. })
        {
            return self.branches(node, after, s);
        }
        let (layer, input) = self.dense(at, after, s)?;
        Ok((layer, input, 1))
    }

    /// The activation that ends at a value, if there is one, and what it is of.
    fn activation(&self, at: ValueId, s: ValueId) -> Result<(Activation, ValueId), String> {
        match self.producer(at) {
            Some(Node { op: Op::Unary(function), inputs, output, .. }) => {
                self.read_once(*output, s)?;
                Ok((*function, self.vector(inputs[0])))
            }
            _ => Ok((Activation::Identity, at)),
        }
    }

    /// A dense layer or a 1x1 convolution of one pixel.
    fn dense(&self, at: ValueId, outer: Activation, s: ValueId) -> Result<(Layer, ValueId), String> {
        let Some(node) = self.producer(at) else {
            return Err(format!("it comes from \"{}\", which nothing computes", self.graph.value(at).name));
        };
        self.read_once(at, s)?;
        let own = match &node.op {
            Op::Conv(conv) if conv.residual || conv.before != Activation::Identity => {
                return Err(format!("\"{}\" adds something else", node.name));
            }
            Op::Conv(conv) if conv.groups != 1 => {
                return Err(format!("\"{}\" has {} groups", node.name, conv.groups));
            }
            Op::Conv(conv) if conv.kernel != [1, 1] => {
                let [height, width] = conv.kernel;
                return Err(format!("\"{}\" has a window of {height}x{width}", node.name));
            }
            Op::Conv(conv) => conv.after,
            Op::Dense { after } => *after,
            op => return Err(format!("\"{}\" is {}, expected a dense layer", node.name, op.name())),
        };
        let input = self.graph.shape(node.inputs[0]);
        if input.iter().skip(2).any(|&extent| extent != 1) {
            return Err(format!("\"{}\" is of a map {input:?}, expected one pixel", node.name));
        }
        let after = match (own, outer) {
            (own, Activation::Identity) => own,
            (Activation::Identity, outer) => outer,
            _ => return Err(format!("two activations follow \"{}\"", node.name)),
        };
        match (self.graph.constant(node.inputs[1]), self.graph.constant(node.inputs[2])) {
            (Some(weights), Some(bias)) => {
                Ok((Layer { weights: weights.to_vec(), bias: bias.to_vec(), after }, node.inputs[0]))
            }
            _ => Err(format!("the weights of \"{}\" are computed", node.name)),
        }
    }

    /// Dense layers of one input side by side: one layer, whose rows are theirs. Each output keeps its own sum.
    fn branches(
        &self,
        concat: &Node,
        outer: Activation,
        s: ValueId,
    ) -> Result<(Layer, ValueId, usize), String> {
        self.read_once(concat.output, s)?;
        // Channels of a vector, wherever the other dimensions of 1 stand.
        let Op::Concat { axis } = concat.op else { unreachable!("called for concatenations") };
        if axis == 0 {
            return Err(format!("\"{}\" is along the batch", concat.name));
        }
        let mut stacked: Option<(Layer, ValueId)> = None;
        for &branch in &concat.inputs {
            let (after, at) = self.activation(self.vector(branch), s)?;
            let (layer, input) = self.dense(at, after, s)?;
            let input = self.vector(input);
            match &mut stacked {
                None => stacked = Some((layer, input)),
                Some((all, of)) if *of == input && all.after == layer.after => {
                    all.weights.extend(layer.weights);
                    all.bias.extend(layer.bias);
                }
                Some((_, of)) => {
                    let what = if *of != input { "inputs" } else { "activations" };
                    return Err(format!("the branches of \"{}\" have different {what}", concat.name));
                }
            }
        }
        let Some((mut layer, input)) = stacked else { return Err("no branches".to_owned()) };
        layer.after = match (layer.after, outer) {
            (own, Activation::Identity) => own,
            (Activation::Identity, outer) => outer,
            _ => return Err(format!("activations on both sides of \"{}\"", concat.name)),
        };
        Ok((layer, input, concat.inputs.len()))
    }

    fn pools_all(&self, node: &Node) -> bool {
        match &node.op {
            Op::GlobalPool(_) => true,
            Op::Pool(pool) => {
                let map = self.graph.shape(node.inputs[0]);
                pool.kind == PoolKind::Average && map[2..] == pool.kernel && pool.pads == Default::default()
            }
            _ => false,
        }
    }
}
