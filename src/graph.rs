//! What to compute: values and nodes in topological order, all shapes known.
//!
//! `onnx` writes a graph, the passes of `optimize` rewrite it, `plan` turns it into steps.

pub mod check;
pub mod excite;
pub mod op;
pub mod shape;

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
pub use excite::Excite;
pub use op::{BinaryOp, Conv, MaxMinOrder, Op, Pads, Pool, PoolKind};

/// An index into [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A tensor of the graph: an input, a constant, or the output of one node.
#[derive(Clone, Debug)]
pub struct Value {
    /// The name in the file, or one made up.
    pub name: String,
    /// The extent of each dimension.
    pub shape: Vec<usize>,
    /// What the caller hands in or gets; inside all is f32.
    pub dtype: DType,
    /// The elements, where they are known.
    pub constant: Option<Arc<Tensor>>,
}

/// One operation. Every node has one output.
#[derive(Clone, Debug)]
pub struct Node {
    /// The name in the file, or its output's where it has none.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its operands, in the order that the operator names.
    pub inputs: Vec<ValueId>,
    /// What it computes.
    pub output: ValueId,
}

/// A network: nodes in an order in which every input comes before its use.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    /// In topological order.
    pub nodes: Vec<Node>,
    /// Every tensor; some may be unused after passes.
    pub values: Vec<Value>,
    /// What the caller hands in.
    pub inputs: Vec<ValueId>,
    /// What the caller gets.
    pub outputs: Vec<ValueId>,
    /// The product of the strides that [`Graph::densify`] removed before a value, where it is not 1. It changes no result:
    /// it tells which window once had a stride, so that the same algorithm can compute it again.
    pub equivalent_strides: HashMap<ValueId, [usize; 2]>,
}

impl Graph {
    /// The value behind an index.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// The shape of a value.
    pub fn shape(&self, id: ValueId) -> &[usize] {
        &self.values[id.0].shape
    }

    /// The elements of a constant f32 value.
    pub fn constant(&self, id: ValueId) -> Option<&[f32]> {
        self.values[id.0].constant.as_deref().and_then(Tensor::as_f32)
    }

    /// Adds a value that a caller or a node will fill.
    pub fn add_value(&mut self, name: impl Into<String>, shape: Vec<usize>, dtype: DType) -> ValueId {
        self.values.push(Value { name: name.into(), shape, dtype, constant: None });
        ValueId(self.values.len() - 1)
    }

    /// Adds a value whose elements are known.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        let (shape, dtype) = (tensor.shape().to_vec(), tensor.dtype());
        self.values.push(Value { name: name.into(), shape, dtype, constant: Some(Arc::new(tensor)) });
        ValueId(self.values.len() - 1)
    }

    /// Appends a node and returns its output, a new value of the same name whose shape follows from the operator.
    ///
    /// # Errors
    /// Where the operands do not fit the operator.
    pub fn add_node(&mut self, name: impl Into<String>, op: Op, inputs: Vec<ValueId>) -> Result<ValueId> {
        self.insert_node(self.nodes.len(), name, op, inputs)
    }

    /// As [`Graph::add_node`], before the node that is now at `position`; the inputs must be known there.
    ///
    /// # Errors
    /// Where the operands do not fit the operator.
    pub fn insert_node(
        &mut self,
        position: usize,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<ValueId>,
    ) -> Result<ValueId> {
        let name = name.into();
        let shapes: Vec<&[usize]> = inputs.iter().map(|&id| self.shape(id)).collect();
        let shape = shape::infer(&op, &shapes).map_err(|reason| Error::Node {
            op: op.name().to_owned(),
            node: name.clone(),
            reason,
        })?;
        let output = self.add_value(name.clone(), shape, op.output_dtype());
        self.nodes.insert(position, Node { name, op, inputs, output });
        Ok(output)
    }

    /// The position of the node that writes a value; none for inputs and constants.
    pub fn producer(&self, id: ValueId) -> Option<usize> {
        self.nodes.iter().position(|node| node.output == id)
    }

    /// How many nodes read a value; a graph output counts as one more.
    pub fn uses(&self, id: ValueId) -> usize {
        let reads = self.nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == id).count();
        reads + self.outputs.iter().filter(|&&output| output == id).count()
    }

    /// Lets everything that reads `old` read `new` instead, and tells whether `old` is unused now.
    ///
    /// A graph output keeps its name: where `old` is one, `new` becomes the output and takes the name over, and `old` gets
    /// the name of `new`. Where that cannot be, because `new` is an input, a constant or another output, `old` stays.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) -> bool {
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if *input == old {
                *input = new;
            }
        }
        if !self.outputs.contains(&old) {
            return true;
        }
        if old == new || self.outputs.contains(&new) || self.producer(new).is_none() {
            return false;
        }
        for output in self.outputs.iter_mut().filter(|output| **output == old) {
            *output = new;
        }
        let name = std::mem::take(&mut self.values[old.0].name);
        self.values[old.0].name = std::mem::replace(&mut self.values[new.0].name, name);
        true
    }

    /// Removes the nodes that no output depends on, and the elements of constants that no node reads then.
    /// Values keep their indices.
    pub fn remove_unused(&mut self) {
        let mut used = vec![false; self.values.len()];
        for output in &self.outputs {
            used[output.0] = true;
        }
        // Last to first: a node's reader comes after it.
        let mut keep: Vec<bool> = Vec::with_capacity(self.nodes.len());
        for node in self.nodes.iter().rev() {
            let kept = used[node.output.0];
            if kept {
                for input in &node.inputs {
                    used[input.0] = true;
                }
            }
            keep.push(kept);
        }
        self.nodes.retain(|_| keep.pop().unwrap_or(true));
        for (value, used) in self.values.iter_mut().zip(used) {
            if !used {
                value.constant = None;
            }
        }
    }

    /// Multiply-accumulates of all convolutions and dense layers of one run.
    pub fn macs(&self) -> u64 {
        self.nodes.iter().map(|node| self.node_macs(node)).fold(0, u64::saturating_add)
    }

    /// Multiply-accumulates of one node: zero for all but convolutions and dense layers.
    pub fn node_macs(&self, node: &Node) -> u64 {
        let product = |dims: &[usize]| dims.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        match node.op {
            // Weights are [O, ...]: all but the first dimension are one output's products.
            Op::Conv(_) | Op::ConvMaxMin { .. } | Op::Dense { .. } | Op::Excite(Excite::ScaledConv(_)) => {
                let products = self.shape(node.inputs[1]).get(1..).unwrap_or_default();
                // MaxMin gives each sum twice.
                let twice = matches!(node.op, Op::ConvMaxMin { .. });
                let outputs = product(self.shape(node.output)) / if twice { 2 } else { 1 };
                outputs.saturating_mul(product(products))
            }
            _ => 0,
        }
    }

    /// Elements of all constants that nodes read, each counted once.
    pub fn parameters(&self) -> u64 {
        let mut counted = vec![false; self.values.len()];
        let mut sum = 0;
        for input in self.nodes.iter().flat_map(|node| &node.inputs) {
            if let Some(constant) = &self.values[input.0].constant
                && !std::mem::replace(&mut counted[input.0], true)
            {
                sum += constant.len() as u64;
            }
        }
        sum
    }
}
