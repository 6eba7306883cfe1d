//! What the operators build on: operands by their kind, and nodes, constants and bindings added to the graph.

use std::rc::Rc;
use std::sync::Arc;

use super::constant::{Constant, Elements};
use super::node::{NodeView, Outcome, Problem, invalid, unsupported};
use super::{Importer, Known, check_limit};
use crate::error::{Error, Result};
use crate::graph::{Op, Value, ValueId};
use crate::tensor::{DType, Tensor};

impl Importer<'_> {
    /// What an input is; it must be given.
    pub(super) fn known(&self, node: &NodeView, at: usize) -> Outcome<&Known> {
        let Some(name) = node.input(at) else {
            return invalid(format!("input {at} is missing"));
        };
        match &self.values[name] {
            Known::Unknown => Err(Problem::UnknownOperand),
            Known::Unusable(reason) => unsupported(reason.clone()),
            known => Ok(known),
        }
    }

    /// An f32 operand, computed or constant.
    pub(super) fn float(&mut self, node: &NodeView, at: usize) -> Outcome<ValueId> {
        match self.known(node, at)? {
            Known::Computed(id, DType::F32) => Ok(*id),
            Known::Constant(constant) if matches!(constant.elements, Elements::Float(_)) => {
                let constant = Rc::clone(constant);
                if constant.shape.contains(&0) {
                    return unsupported(format!("operand \"{}\" is empty", constant.name));
                }
                Ok(self.constant_value(&constant))
            }
            _ => unsupported(format!("operand \"{}\" holds integers", node.input(at).unwrap_or_default())),
        }
    }

    /// A known operand; none where it is computed.
    pub(super) fn constant(&self, node: &NodeView, at: usize) -> Outcome<Option<Rc<Constant>>> {
        Ok(match self.known(node, at)? {
            Known::Constant(constant) => Some(Rc::clone(constant)),
            _ => None,
        })
    }

    /// A known f32 operand, such as weights; `what` it is goes into the message where it is computed.
    pub(super) fn float_constant(&self, node: &NodeView, at: usize, what: &str) -> Outcome<Rc<Constant>> {
        match self.constant(node, at)? {
            None => unsupported(format!("{what} \"{}\" is no constant", node.input(at).unwrap_or_default())),
            Some(constant) if constant.as_f32().is_none() => unsupported(format!("{what} holds integers")),
            Some(constant) => Ok(constant),
        }
    }

    /// Known integers: a shape, axes, pads.
    pub(super) fn ints(&self, node: &NodeView, at: usize, what: &str) -> Outcome<Vec<i64>> {
        match self.constant(node, at)? {
            None => unsupported(format!("{what} \"{}\" is no constant", node.input(at).unwrap_or_default())),
            Some(constant) => match constant.as_ints() {
                Some(ints) => Ok(ints.to_vec()),
                None => invalid(format!("{what} holds no integers")),
            },
        }
    }

    /// The shape of an operand, computed or constant.
    pub(super) fn shape(&self, node: &NodeView, at: usize) -> Outcome<Vec<usize>> {
        Ok(match self.known(node, at)? {
            Known::Computed(id, _) => self.graph.shape(*id).to_vec(),
            Known::Constant(constant) => constant.shape.clone(),
            Known::Unusable(_) | Known::Unknown => return Err(Problem::UnknownOperand),
        })
    }

    /// The graph's value of a constant, made at its first use.
    pub(super) fn constant_value(&mut self, constant: &Rc<Constant>) -> ValueId {
        if let Some(id) = constant.value.get() {
            return id;
        }
        let Elements::Float(tensor) = &constant.elements else {
            unreachable!("callers ask for f32 constants only");
        };
        self.graph.values.push(Value {
            name: constant.name.clone(),
            shape: constant.shape.clone(),
            dtype: DType::F32,
            constant: Some(Arc::clone(tensor)),
        });
        let id = ValueId(self.graph.values.len() - 1);
        constant.value.set(Some(id));
        id
    }

    /// Adds a constant that the file does not hold.
    pub(super) fn add_constant(
        &mut self,
        name: String,
        shape: Vec<usize>,
        elements: Vec<f32>,
    ) -> Outcome<ValueId> {
        Ok(self.graph.add_constant(name, Tensor::f32(shape, elements)?))
    }

    /// Counts elements that are about to be made from constants.
    pub(super) fn reserve(&mut self, elements: u64) -> Outcome<()> {
        self.folded = self.folded.saturating_add(elements);
        Ok(check_limit("the number of elements folded from constants", self.folded, self.limits.elements)?)
    }

    /// As [`Importer::reserve`], for a shape.
    pub(super) fn reserve_shape(&mut self, shape: &[usize]) -> Outcome<()> {
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64)).unwrap_or(u64::MAX);
        self.reserve(count)
    }

    pub(super) fn check_value(&self, id: ValueId) -> Result<()> {
        let value = self.graph.value(id);
        let dims = value.shape.len() as u64;
        check_limit(
            &format!("the number of dimensions of \"{}\"", value.name),
            dims,
            self.limits.dims as u64,
        )?;
        let count = value.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        check_limit(&format!("the number of elements of \"{}\"", value.name), count, self.limits.elements)
    }

    /// Adds an operator whose output is no output of the node.
    pub(super) fn part(
        &mut self,
        node: &NodeView,
        suffix: &str,
        op: Op,
        inputs: Vec<ValueId>,
    ) -> Outcome<ValueId> {
        self.add(format!("{}/{suffix}", node.name), node, op, inputs)
    }

    pub(super) fn add(
        &mut self,
        name: String,
        node: &NodeView,
        op: Op,
        inputs: Vec<ValueId>,
    ) -> Outcome<ValueId> {
        let id = self.graph.add_node(name, op, inputs).map_err(|error| match error {
            // In the file's words.
            Error::Node { reason, .. } => Problem::Invalid(reason),
            other => Problem::Fatal(other),
        })?;
        self.check_value(id)?;
        let at = self.graph.nodes.len() - 1;
        self.producers.insert(id, at);
        self.macs = self.macs.saturating_add(self.graph.node_macs(&self.graph.nodes[at]));
        check_limit(
            &format!("the number of multiply-accumulates up to \"{}\"", node.name),
            self.macs,
            self.limits.macs,
        )?;
        Ok(id)
    }

    /// Adds the operator that writes an output of the node.
    pub(super) fn emit_at(
        &mut self,
        node: &NodeView,
        output: usize,
        op: Op,
        inputs: Vec<ValueId>,
    ) -> Outcome<()> {
        let dtype = op.output_dtype();
        let name = match output {
            0 => node.name.clone(),
            _ => format!("{}/{output}", node.name),
        };
        let id = self.add(name, node, op, inputs)?;
        if let Some(name) = node.output(output) {
            self.graph.values[id.0].name = name.to_owned();
        }
        self.bind(node, output, Known::Computed(id, dtype));
        Ok(())
    }

    /// Adds the operator that writes the node's first output.
    pub(super) fn emit(&mut self, node: &NodeView, op: Op, inputs: Vec<ValueId>) -> Outcome<()> {
        self.emit_at(node, 0, op, inputs)
    }

    /// Says what an output of the node is.
    pub(super) fn bind(&mut self, node: &NodeView, output: usize, known: Known) {
        if let Some(name) = node.output(output) {
            self.values.insert(name.to_owned(), known);
        }
    }

    /// The node's first output is a constant.
    pub(super) fn bind_constant(&mut self, node: &NodeView, constant: Constant) {
        self.bind(node, 0, Known::Constant(Rc::new(constant)));
    }

    /// The node's first output is one of its inputs.
    pub(super) fn forward(&mut self, node: &NodeView, at: usize) -> Outcome<()> {
        let known = self.known(node, at)?.clone();
        self.bind(node, 0, known);
        Ok(())
    }

    /// A value in another shape: itself where the shape is the same, the source where it was reshaped already.
    pub(super) fn reshaped(
        &mut self,
        node: &NodeView,
        suffix: &str,
        x: ValueId,
        shape: Vec<usize>,
    ) -> Outcome<ValueId> {
        let source = self.reshape_source(x);
        if self.graph.shape(source) == shape {
            return Ok(source);
        }
        self.part(node, suffix, Op::Reshape { shape }, vec![source])
    }

    /// What a value is a mere reshape of; itself where it is none.
    pub(super) fn reshape_source(&self, x: ValueId) -> ValueId {
        match self.producers.get(&x).map(|&at| &self.graph.nodes[at]) {
            Some(producer) if matches!(producer.op, Op::Reshape { .. }) => producer.inputs[0],
            _ => x,
        }
    }

    /// The node's first output is `x` in another shape.
    pub(super) fn emit_reshape(&mut self, node: &NodeView, x: ValueId, shape: Vec<usize>) -> Outcome<()> {
        if self.graph.shape(x) == shape {
            // A part that needs no reshape is the node's own operator.
            if let (Some(last), Some(name)) = (self.graph.nodes.last_mut(), node.output(0))
                && last.output == x
                && last.name.strip_prefix(&node.name).is_some_and(|suffix| suffix.starts_with('/'))
            {
                last.name.clone_from(&node.name);
                self.graph.values[x.0].name = name.to_owned();
            }
            self.bind(node, 0, Known::Computed(x, DType::F32));
            return Ok(());
        }
        let source = self.reshape_source(x);
        if self.graph.shape(source) == shape {
            self.bind(node, 0, Known::Computed(source, DType::F32));
            return Ok(());
        }
        self.emit(node, Op::Reshape { shape }, vec![source])
    }
}
