//! A gate behind a linear 1x1 convolution from the means of that convolution's input: the mean of `w v + b` is
//! `w mean(v) + b`, and the dense layer behind it takes both, `w1 (w z + b) + b1 = (w1 w) z + (w1 b + b1)`. The gate is
//! known before the convolution runs, which then stores `after(s (w v + b) + residual)`: its map is written once and
//! read by nobody.
//!
//! Exact in real arithmetic; the stacked layer is computed in f64 and rounded once. It has fewer weights than the one
//! it replaces wherever the convolution widens, as in every bottleneck.

use sinew_kernels::activation::Activation;

use crate::graph::{Conv, Excite, Graph, Node, Op, PoolKind, ValueId};
use crate::tensor::{DType, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut rewrites = 0;
    for position in 0..graph.nodes.len() {
        rewrites += usize::from(rewrite(graph, position).is_some());
    }
    graph.remove_unused();
    rewrites
}

/// What is there before: `y = conv(v)`, `z = mean(y)`, `s = gate(z)`, `after(s y + residual)`.
fn rewrite(graph: &mut Graph, position: usize) -> Option<()> {
    let scale = graph.nodes[position].clone();
    let (after, y, s, residual) = match &scale.op {
        Op::Excite(Excite::Scale { after, .. }) => {
            (*after, scale.inputs[0], scale.inputs[1], scale.inputs.get(2).copied())
        }
        Op::Binary(crate::graph::BinaryOp::Mul) => {
            let is_map = |id: ValueId| graph.shape(id) == graph.shape(scale.output);
            let (y, s) = match scale.inputs[..] {
                [a, b] if is_map(a) => (a, b),
                [a, b] => (b, a),
                _ => return None,
            };
            (Activation::Identity, y, s, None)
        }
        _ => return None,
    };
    let gate_at = super::sole_producer(graph, s)?;
    let gate = graph.nodes[gate_at].clone();
    let Op::Excite(Excite::Gate { .. }) = gate.op else { return None };
    let pool_at = super::sole_producer(graph, gate.inputs[0])?;
    let pool = graph.nodes[pool_at].clone();
    if pool.op != Op::GlobalPool(PoolKind::Average) || pool.inputs[0] != y || graph.uses(y) != 2 {
        return None;
    }
    let conv_node = graph.nodes[graph.producer(y)?].clone();
    let Op::Conv(conv) = &conv_node.op else { return None };
    let v = conv_node.inputs[0];
    if !is_linear_1x1(conv, graph.shape(v), graph.shape(y)) {
        return None;
    }

    let (weights, bias) = (graph.constant(conv_node.inputs[1])?, graph.constant(conv_node.inputs[2])?);
    let (w1, b1) = (graph.constant(gate.inputs[1])?, graph.constant(gate.inputs[2])?);
    let (stacked, shifted) = through(weights, bias, w1, b1, conv.groups);
    let [batch, channels, ..] = *graph.shape(v) else { return None };
    let stacked = Tensor::f32([b1.len(), channels], stacked).ok()?;
    let shifted = Tensor::f32([b1.len()], shifted).ok()?;

    let z = graph.add_value(format!("{}/means", gate.name), vec![batch, channels, 1, 1], DType::F32);
    graph.nodes[pool_at] = Node { inputs: vec![v], output: z, ..pool };
    let gate = &mut graph.nodes[gate_at];
    gate.inputs[0] = z;
    let name = gate.name.clone();
    let stacked = graph.add_constant(format!("{name}/stacked_w0"), stacked);
    let shifted = graph.add_constant(format!("{name}/stacked_b0"), shifted);
    graph.nodes[gate_at].inputs[1..3].copy_from_slice(&[stacked, shifted]);
    let op = Conv { residual: residual.is_some(), after, ..conv.clone() };
    let inputs = conv_node.inputs.iter().copied().chain([s]).chain(residual).collect();
    graph.nodes[position] = Node {
        name: conv_node.name.clone(),
        op: Op::Excite(Excite::ScaledConv(op)),
        inputs,
        output: scale.output,
    };
    Some(())
}

/// Whether the mean of the output is the same function of the mean of the input: no activation, every input pixel
/// read by one output pixel. (With a stride the means would be those of the pixels that are read.)
fn is_linear_1x1(conv: &Conv, input: &[usize], output: &[usize]) -> bool {
    let linear = conv.before == Activation::Identity && conv.after == Activation::Identity && !conv.residual;
    let depthwise = conv.groups > 1 && conv.groups == input[1] && conv.groups == output[1];
    linear && !depthwise && conv.kernel == [1, 1] && conv.stride == [1, 1] && conv.pads == Default::default()
}

/// `w1 w` and `w1 b + b1`, where `w` is block-diagonal in `groups`: `[O, C / groups]`.
fn through(w: &[f32], b: &[f32], w1: &[f32], b1: &[f32], groups: usize) -> (Vec<f32>, Vec<f32>) {
    let outputs = b.len();
    let (group_outputs, group_inputs) = (outputs / groups, w.len() / outputs);
    let mut stacked = Vec::with_capacity(b1.len() * group_inputs * groups);
    let mut shifted = Vec::with_capacity(b1.len());
    let mut sums = vec![0.0; group_inputs * groups];
    for (row, &b1) in w1.chunks_exact(outputs).zip(b1) {
        sums.fill(0.0);
        let mut shift = f64::from(b1);
        for (o, (&w1, &b)) in row.iter().zip(b).enumerate() {
            shift += f64::from(w1) * f64::from(b);
            let sums = &mut sums[o / group_outputs * group_inputs..][..group_inputs];
            for (sum, &w) in sums.iter_mut().zip(&w[o * group_inputs..]) {
                *sum += f64::from(w1) * f64::from(w);
            }
        }
        stacked.extend(sums.iter().map(|&sum| sum as f32));
        shifted.push(shift as f32);
    }
    (stacked, shifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_stay_apart() {
        // Two groups of one input and two outputs: w is diag(1 2 | 3 4) by columns.
        let (stacked, shifted) =
            through(&[1.0, 2.0, 3.0, 4.0], &[0.5, 0.25, 0.0, 1.0], &[1.0, 10.0, 100.0, 1000.0], &[7.0], 2);
        assert_eq!(stacked, [21.0, 4300.0]);
        assert_eq!(shifted, [7.0 + 0.5 + 2.5 + 1000.0]);
    }
}
