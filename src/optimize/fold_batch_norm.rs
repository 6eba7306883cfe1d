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
