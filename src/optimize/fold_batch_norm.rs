//! Inference batch normalization into the weights and bias of the convolution or dense layer in front of it:
//! `gamma / sqrt(variance + epsilon) * (w x + b - mean) + beta`. Exact in real arithmetic; the folded numbers are
//! computed in f64 and rounded once. A normalization with nothing in front of it stays, as one multiply-add a pixel.

use crate::graph::{Graph, Node, Op};
use crate::tensor::Tensor;

pub(super) fn run(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| {
        let Op::BatchNorm { epsilon } = node.op else { return None };
        let producer = super::sole_producer(graph, node.inputs[0])?;
        let layer = graph.nodes[producer].clone();
        if !is_linear(&layer.op) {
            return None;
        }
        let (scale, shift) = affine(graph, &node.inputs[1..], epsilon)?;
        let (weights, bias) = (graph.value(layer.inputs[1]).clone(), graph.value(layer.inputs[2]).clone());
        let (w, b) = (weights.constant.as_ref()?.as_f32()?, bias.constant.as_ref()?.as_f32()?);
        let per_output = w.len() / scale.len().max(1);
        let folded = w.chunks(per_output.max(1)).zip(&scale);
        let folded = folded.flat_map(|(w, s)| w.iter().map(move |&w| (f64::from(w) * s) as f32)).collect();
        let shifted =
            b.iter().zip(scale.iter().zip(&shift)).map(|(&b, (s, t))| (f64::from(b) * s + t) as f32);
        let weights_tensor = Tensor::f32(weights.shape.clone(), folded).ok()?;
        let bias_tensor = Tensor::f32(bias.shape.clone(), shifted.collect()).ok()?;
        let mut merged = Node { output: node.output, ..layer };
        merged.inputs[1] = graph.add_constant(format!("{}/folded", weights.name), weights_tensor);
        merged.inputs[2] = graph.add_constant(format!("{}/folded", bias.name), bias_tensor);
        Some((merged, producer))
    })
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
pub(crate) fn affine(
    graph: &Graph,
    inputs: &[crate::graph::ValueId],
    epsilon: f32,
) -> Option<(Vec<f64>, Vec<f64>)> {
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
