//! What to compute: values and nodes in topological order, all shapes known.
//!
//! `onnx` writes a graph, the passes of `optimize` rewrite it, `plan` turns it into steps.

pub mod op;

use std::sync::Arc;

use crate::tensor::{DType, Tensor};
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

    /// How many nodes read a value; a graph output counts as one more.
    pub fn uses(&self, id: ValueId) -> usize {
        let reads = self.nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == id).count();
        reads + self.outputs.iter().filter(|&&output| output == id).count()
    }
}
