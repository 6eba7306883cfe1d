//! The invariants of a graph, checked after import and, in debug builds, after every pass.

use std::collections::HashSet;

use super::{Graph, Node, Op, ValueId, shape};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

impl Graph {
    /// Checks what every graph promises: indices in range, every value written once and before its use, shapes as
    /// inferred, constants where an operator demands them, names of inputs and outputs unique.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self) -> Result<()> {
        let mut defined = vec![false; self.values.len()];
        for (id, value) in self.values.iter().enumerate() {
            let fail = |reason| Err(Error::Tensor { tensor: value.name.clone(), reason });
            if value.shape.contains(&0) {
                return fail(format!("an extent is 0 in the shape {:?}", value.shape));
            }
            if let Err(reason) = shape::elements(&value.shape) {
                return fail(reason);
            }
            if let Some(constant) = value.constant.as_deref() {
                if (constant.shape(), constant.dtype()) != (&value.shape, value.dtype) {
                    return fail(format!(
                        "the elements are {} {:?}, expected {} {:?}",
                        constant.dtype().name(),
                        constant.shape(),
                        value.dtype.name(),
                        value.shape
                    ));
                }
                defined[id] = true;
            }
        }
        let mut is_input = vec![false; self.values.len()];
        for &input in &self.inputs {
            self.define(&mut defined, input)?;
            is_input[input.0] = true;
        }
        for node in &self.nodes {
            self.check_node(node, &defined, &is_input).map_err(|reason| Error::Node {
                op: node.op.name().to_owned(),
                node: node.name.clone(),
                reason,
            })?;
            self.define(&mut defined, node.output)?;
        }
        for &output in &self.outputs {
            if !defined.get(output.0).is_some_and(|&defined| defined) {
                return Err(self.value_error(output, "is an output, but nothing computes it"));
            }
        }
        for ids in [&self.inputs, &self.outputs] {
            let mut names = HashSet::new();
            for &id in ids {
                if !names.insert(self.value(id).name.as_str()) {
                    return Err(self.value_error(id, "the name of an input or output is used twice"));
                }
            }
        }
        Ok(())
    }

    fn define(&self, defined: &mut [bool], id: ValueId) -> Result<()> {
        match defined.get_mut(id.0) {
            None => Err(self.value_error(id, "there is no such value")),
            Some(true) => Err(self.value_error(id, "is written twice")),
            Some(defined) => {
                *defined = true;
                Ok(())
            }
        }
    }

    fn value_error(&self, id: ValueId, reason: &str) -> Error {
        let tensor = self.values.get(id.0).map_or_else(|| format!("#{}", id.0), |value| value.name.clone());
        Error::Tensor { tensor, reason: reason.to_owned() }
    }

    fn check_node(
        &self,
        node: &Node,
        defined: &[bool],
        is_input: &[bool],
    ) -> std::result::Result<(), String> {
        for &ValueId(id) in &node.inputs {
            match defined.get(id) {
                None => return Err(format!("input #{id} does not exist")),
                Some(false) => {
                    return Err(format!("input \"{}\" is not known before its use", self.values[id].name));
                }
                Some(true) => {}
            }
            let value = &self.values[id];
            if value.dtype != DType::F32 && !is_input[id] {
                let (name, dtype) = (&value.name, value.dtype.name());
                return Err(format!("input \"{name}\" is {dtype}; inside a graph all is f32"));
            }
        }
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|&id| self.shape(id)).collect();
        let shape = shape::infer(&node.op, &shapes)?;
        let Some(output) = self.values.get(node.output.0) else {
            return Err(format!("output #{} does not exist", node.output.0));
        };
        if (&output.shape, output.dtype) != (&shape, node.op.output_dtype()) {
            return Err(format!(
                "the output is {} {:?}, expected {} {shape:?}",
                output.dtype.name(),
                output.shape,
                node.op.output_dtype().name()
            ));
        }
        let constant = match &node.op {
            Op::Conv(_) | Op::Dense { .. } => 1..3,
            Op::BatchNorm { .. } => 1..5,
            Op::Excite(excite) => excite.constants(),
            _ => 0..0,
        };
        for &id in &node.inputs[constant] {
            let value = self.value(id);
            if value.constant.as_deref().and_then(Tensor::as_f32).is_none() {
                return Err(format!("input \"{}\" is not a constant", value.name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{BinaryOp, PoolKind};
    use sinew_kernels::activation::Activation;

    fn small() -> Result<Graph> {
        let mut graph = Graph::default();
        let x = graph.add_value("x", vec![1, 2, 3, 3], DType::F32);
        graph.inputs.push(x);
        let relu = graph.add_node("relu", Op::Unary(Activation::Relu), vec![x])?;
        let pool = graph.add_node("pool", Op::GlobalPool(PoolKind::Average), vec![relu])?;
        let y = graph.add_node("y", Op::Binary(BinaryOp::Mul), vec![relu, pool])?;
        graph.outputs.push(y);
        Ok(graph)
    }

    fn message(change: impl FnOnce(&mut Graph)) -> Result<String> {
        let mut graph = small()?;
        graph.check()?;
        change(&mut graph);
        Ok(graph.check().err().map(|error| error.to_string()).unwrap_or_default())
    }

    #[test]
    fn violations_are_named() -> Result<()> {
        let swapped = message(|graph| graph.nodes.swap(0, 1))?;
        assert_eq!(swapped, "GlobalAveragePool \"pool\": input \"relu\" is not known before its use");
        let shape = message(|graph| graph.values[2].shape = vec![1, 2])?;
        assert_eq!(shape, "GlobalAveragePool \"pool\": the output is f32 [1, 2], expected f32 [1, 2, 1, 1]");
        assert_eq!(
            message(|graph| graph.outputs[0].0 = 9)?,
            "tensor \"#9\": is an output, but nothing computes it"
        );
        assert_eq!(message(|graph| graph.nodes[2].output = ValueId(1))?, "tensor \"relu\": is written twice");
        let twice = message(|graph| graph.outputs.push(graph.outputs[0]))?;
        assert_eq!(twice, "tensor \"y\": the name of an input or output is used twice");
        Ok(())
    }

    #[test]
    fn unused_nodes_go_and_names_of_outputs_stay() -> Result<()> {
        let mut graph = small()?;
        let [x, relu, _, y] = [0, 1, 2, 3].map(ValueId);
        assert_eq!((graph.uses(relu), graph.producer(relu), graph.producer(x)), (2, Some(0), None));
        assert!(graph.replace_uses(y, relu));
        graph.remove_unused();
        graph.check()?;
        assert_eq!(graph.nodes.len(), 1);
        assert_eq!(graph.value(graph.outputs[0]).name, "y");
        assert!(!graph.replace_uses(relu, x), "an input cannot become an output");
        graph.check()
    }
}
