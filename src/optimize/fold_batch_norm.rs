//! Inference batch normalization into the weights and bias of the convolution or dense layer in front of it:
//! `gamma / sqrt(variance + epsilon) * (w x + b - mean) + beta`. Exact in real arithmetic; the folded numbers are
//! computed in f64 and rounded once. A normalization with nothing in front of it stays, as one multiply-add a pixel.

use std::sync::Arc;

use crate::graph::{Graph, Node, Op, ValueId};
use crate::tensor::Data;

pub(super) fn run(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| {
        let Op::BatchNorm { epsilon } = node.op else { return None };
        let producer = super::sole_producer(graph, node.inputs[0])?;
        let layer = graph.nodes[producer].clone();
        if !is_linear(&layer.op) {
            return None;
        }
        let (scale, shift) = affine(graph, &node.inputs[1..], epsilon)?;
        let (weights, bias) = (layer.inputs[1], layer.inputs[2]);
        graph.constant(weights).and(graph.constant(bias))?;
        let mut merged = Node { output: node.output, ..layer };
        merged.inputs[1] = changed(graph, weights, |weights| {
            let per_output = (weights.len() / scale.len().max(1)).max(1);
            for (weights, scale) in weights.chunks_mut(per_output).zip(&scale) {
                weights.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            }
        })?;
        merged.inputs[2] = changed(graph, bias, |bias| {
            for (b, (scale, shift)) in bias.iter_mut().zip(scale.iter().zip(&shift)) {
                *b = (f64::from(*b) * scale + shift) as f32;
            }
        })?;
        Some((merged, producer))
    })
}

/// A new constant made of another one: of its memory, where only one node reads that.
fn changed(graph: &mut Graph, id: ValueId, change: impl FnOnce(&mut [f32])) -> Option<ValueId> {
    let is_last = graph.uses(id) == 1;
    let value = &mut graph.values[id.0];
    let name = format!("{}/folded", value.name);
    let mut tensor = if is_last { value.constant.take() } else { value.constant.clone() }?;
    if let Data::F32(data) = Arc::make_mut(&mut tensor).data_mut() {
        change(data);
    }
    Some(graph.add_constant(name, Arc::unwrap_or_clone(tensor)))
}

fn is_linear(op: &Op) -> bool {
    use sinew_kernels::activation::Activation::Identity;
    match op {
        Op::Conv(conv) => conv.before == Identity && conv.after == Identity && !conv.residual,
        Op::Dense { after } => *after == Identity,
        _ => false,
    }
}

/// Scale and shift per channel, in f64, from gamma, beta, mean and variance.
pub(crate) fn affine(graph: &Graph, inputs: &[ValueId], epsilon: f32) -> Option<(Vec<f64>, Vec<f64>)> {
    let [gamma, beta, mean, variance] = inputs else { return None };
    let (gamma, beta) = (graph.constant(*gamma)?, graph.constant(*beta)?);
    let (mean, variance) = (graph.constant(*mean)?, graph.constant(*variance)?);
    let scale: Vec<f64> = gamma
        .iter()
        .zip(variance)
        .map(|(&gamma, &variance)| f64::from(gamma) / (f64::from(variance) + f64::from(epsilon)).sqrt())
        .collect();
    let shift = beta
        .iter()
        .zip(mean)
        .zip(&scale)
        .map(|((&beta, &mean), scale)| f64::from(beta) - f64::from(mean) * scale)
        .collect();
    Some((scale, shift))
}

#[cfg(test)]
mod tests {
    use sinew_kernels::activation::Activation::Identity;

    use super::*;
    use crate::graph::{Conv, Pads};
    use crate::tensor::{DType, Tensor};

    /// Two layers share their weights, and each has its own normalization: the first one must not change the other's.
    #[test]
    fn shared_weights_are_folded_for_each_layer() {
        let mut graph = Graph::default();
        let x = graph.add_value("x", vec![1, 2, 1, 1], DType::F32);
        graph.inputs.push(x);
        let constant = |graph: &mut Graph, shape: &[usize], values: &[f32]| {
            graph.add_constant("c", Tensor::f32(shape, values.to_vec()).expect("as many values"))
        };
        let weights = constant(&mut graph, &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]);
        let bias = constant(&mut graph, &[2], &[1.0, 2.0]);
        let conv = Conv {
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads: Pads { top: 0, left: 0, bottom: 0, right: 0 },
            groups: 1,
            before: Identity,
            residual: false,
            after: Identity,
        };
        for (name, gamma) in [("first", 2.0), ("second", 4.0)] {
            let inputs = vec![x, weights, bias];
            let y = graph.add_node("y", Op::Conv(conv.clone()), inputs).expect("it fits");
            let statistics = [gamma, 0.5, 0.0, 1.0].map(|value| constant(&mut graph, &[2], &[value; 2]));
            let inputs = [&[y][..], &statistics].concat();
            let z = graph.add_node(name, Op::BatchNorm { epsilon: 0.0 }, inputs).expect("it fits");
            graph.outputs.push(z);
        }
        assert_eq!(run(&mut graph), 2);
        graph.check().expect("every operand is there");
        let folded = graph.nodes.iter().map(|node| [1, 2].map(|at| graph.constant(node.inputs[at])));
        let expected: [[&[f32]; 2]; 2] =
            [[&[2.0, 4.0, 6.0, 8.0], &[2.5, 4.5]], [&[4.0, 8.0, 12.0, 16.0], &[4.5, 8.5]]];
        assert!(folded.eq(expected.map(|layer| layer.map(Some))));
    }
}
