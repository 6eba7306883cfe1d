//! Squeeze-and-excitation as the engine runs it: a gate per channel, and what the gate scales. Passes write these
//! operators; no file holds them.

use sinew_kernels::activation::Activation;

use super::op::{BinaryOp, Conv, Op, Pads};
use super::{Graph, Node, ValueId};
use crate::error::Result as GraphResult;
use crate::tensor::Tensor;

/// A part of a squeeze-and-excitation block.
#[derive(Clone, Debug, PartialEq)]
pub enum Excite {
    /// A gate per channel: dense layers on pooled channels, one after the other.
    ///
    /// Inputs: z `[N, C, 1, 1]`, then weights `[O, K]` and bias `[O]` of each layer (constant). Output `[N, O, 1, 1]`
    /// with the last layer's `O`.
    Gate {
        /// What follows each layer's sums.
        layers: Vec<Activation>,
        /// Whether 1 is added at last, for `x + s x = (1 + s) x`.
        plus_one: bool,
    },
    /// `after(x * s + residual)`, product and sum rounded once.
    ///
    /// Inputs: x `[N, C, H, W]`, s `[N, C, 1, 1]`, and a residual of x's shape where `residual` is set.
    Scale {
        /// Whether a third input is added.
        residual: bool,
        /// Applied last.
        after: Activation,
    },
    /// `x * s + x * q`, or the larger of the two products; each operation rounded.
    ///
    /// Inputs: x `[N, C, H, W]`, s `[N, C, 1, 1]`, q `[N, 1, H, W]`.
    Concurrent {
        /// The maximum, in place of the sum.
        larger: bool,
    },
    /// `after(s * (w x + b) + residual)`: a convolution whose output channels are scaled before they are stored.
    ///
    /// Inputs: x, weights and bias as those of a convolution, s `[N, O, 1, 1]`, and the residual where it is set.
    ScaledConv(Conv),
}

impl Excite {
    /// The name in listings.
    pub fn name(&self) -> &'static str {
        match self {
            Excite::Gate { .. } => "Gate",
            Excite::Scale { .. } => "Scale",
            Excite::Concurrent { .. } => "Concurrent",
            Excite::ScaledConv(_) => "ScaledConv",
        }
    }

    /// Which inputs must be constants.
    pub(super) fn constants(&self) -> std::ops::Range<usize> {
        match self {
            Excite::Gate { layers, .. } => 1..1 + 2 * layers.len(),
            Excite::Scale { .. } | Excite::Concurrent { .. } => 0..0,
            Excite::ScaledConv(_) => 1..3,
        }
    }

    /// The shape of the output.
    pub(super) fn shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match self {
            Excite::Gate { layers, .. } => gate_shape(layers.len(), inputs),
            Excite::Scale { residual, .. } => {
                let [x, s, rest @ ..] = inputs else { return Err("expected a map and a gate".to_owned()) };
                gates(s, x)?;
                let expected: &[&[usize]] = if *residual { &[x] } else { &[] };
                if rest != expected {
                    return Err(format!("expected {expected:?} after map and gate, found {rest:?}"));
                }
                Ok(x.to_vec())
            }
            Excite::Concurrent { .. } => {
                let [x, s, q] = inputs else { return Err("expected a map and two gates".to_owned()) };
                gates(s, x)?;
                match (x, q) {
                    (&[n, _, h, w], &[batch, 1, height, width]) if [n, h, w] == [batch, height, width] => {
                        Ok(x.to_vec())
                    }
                    _ => Err(format!("the gate {q:?} does not fit the map {x:?}")),
                }
            }
            Excite::ScaledConv(conv) => {
                let [x, weights, bias, s, rest @ ..] = inputs else {
                    return Err("expected x, weights, bias and a gate".to_owned());
                };
                let operands = [&[*x, *weights, *bias], rest].concat();
                let output = super::shape::conv_shape(conv, &operands)?;
                gates(s, &output)?;
                if conv.before != Activation::Identity {
                    return Err("nothing may come between the sums and the gate".to_owned());
                }
                Ok(output)
            }
        }
    }
}

/// Whether `s` is one number for each channel of each image of `map`.
fn gates(s: &[usize], map: &[usize]) -> Result<(), String> {
    match (s, map) {
        (&[n, c, 1, 1], &[batch, channels, _, _]) if (n, c) == (batch, channels) => Ok(()),
        _ => Err(format!("the gate {s:?} does not fit the map {map:?}")),
    }
}

fn gate_shape(layers: usize, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let Some((&&[batch, mut channels, 1, 1], rest)) = inputs.split_first() else {
        return Err(format!("expected pooled channels, found {:?}", inputs.first()));
    };
    let (pairs, left) = rest.as_chunks::<2>();
    if layers == 0 || pairs.len() != layers || !left.is_empty() {
        return Err(format!("expected weights and bias of {layers} layers, found {} inputs", rest.len()));
    }
    for &[weights, bias] in pairs {
        match (weights, bias) {
            (&[outputs, inputs], &[biases]) if inputs == channels && biases == outputs => channels = outputs,
            _ => {
                return Err(format!(
                    "weights {weights:?} and bias {bias:?} do not follow {channels} channels"
                ));
            }
        }
    }
    Ok(vec![batch, channels, 1, 1])
}

impl Graph {
    /// The same graph with squeeze-and-excitation taken apart into convolutions, products and sums: the definition of
    /// [`Excite`], and what other tools can read.
    ///
    /// # Errors
    /// Where the graph breaks an invariant.
    pub fn without_excite(&self) -> GraphResult<Graph> {
        let mut graph = Graph { nodes: Vec::with_capacity(self.nodes.len()), ..self.clone() };
        for node in &self.nodes {
            match &node.op {
                Op::Excite(excite) => excite.write_apart(&mut graph, node)?,
                _ => graph.nodes.push(node.clone()),
            }
        }
        Ok(graph)
    }
}

impl Excite {
    fn write_apart(&self, graph: &mut Graph, node: &Node) -> GraphResult<()> {
        let inputs = &node.inputs;
        let mut parts: Vec<(Op, Vec<ValueId>)> = Vec::new();
        // Stands for the part before.
        const LAST: ValueId = ValueId(usize::MAX);
        match self {
            Excite::Gate { layers, plus_one } => {
                for (i, (pair, &after)) in inputs[1..].chunks(2).zip(layers).enumerate() {
                    let value = graph.value(pair[0]).clone();
                    let shape = [value.shape[0], value.shape[1], 1, 1];
                    let values = graph.constant(pair[0]).unwrap_or_default().to_vec();
                    let weights = graph.add_constant(value.name, Tensor::f32(shape, values)?);
                    let input = if i == 0 { inputs[0] } else { LAST };
                    parts.push((Op::Conv(Conv { after, ..POINTWISE }), vec![input, weights, pair[1]]));
                }
                if *plus_one {
                    let one = graph.add_constant(format!("{}/one", node.name), Tensor::f32([1], vec![1.0])?);
                    parts.push((Op::Binary(BinaryOp::Add), vec![LAST, one]));
                }
            }
            Excite::Scale { residual, after } => {
                parts.push((Op::Binary(BinaryOp::Mul), inputs[..2].to_vec()));
                if *residual {
                    parts.push((Op::Binary(BinaryOp::Add), vec![LAST, inputs[2]]));
                }
                parts.push((Op::Unary(*after), vec![LAST]));
            }
            Excite::Concurrent { larger } => {
                let mul = || Op::Binary(BinaryOp::Mul);
                let spatial =
                    graph.add_node(format!("{}/spatial", node.name), mul(), vec![inputs[0], inputs[2]])?;
                parts.push((mul(), inputs[..2].to_vec()));
                let op = if *larger { BinaryOp::Max } else { BinaryOp::Add };
                parts.push((Op::Binary(op), vec![LAST, spatial]));
            }
            Excite::ScaledConv(conv) => {
                let linear = Conv { residual: false, after: Activation::Identity, ..conv.clone() };
                parts.push((Op::Conv(linear), inputs[..3].to_vec()));
                parts.push((Op::Binary(BinaryOp::Mul), vec![LAST, inputs[3]]));
                if conv.residual {
                    parts.push((Op::Binary(BinaryOp::Add), vec![LAST, inputs[4]]));
                }
                parts.push((Op::Unary(conv.after), vec![LAST]));
            }
        }
        let count = parts.len();
        let mut last = LAST;
        for (i, (op, mut inputs)) in parts.into_iter().enumerate() {
            inputs.iter_mut().filter(|input| **input == LAST).for_each(|input| *input = last);
            let name = format!("{}/{i}", node.name);
            if i + 1 == count {
                graph.nodes.push(Node { name: node.name.clone(), op, inputs, output: node.output });
            } else {
                last = graph.add_node(name, op, inputs)?;
            }
        }
        Ok(())
    }
}

/// A dense layer on channels of one pixel.
const POINTWISE: Conv = Conv {
    kernel: [1, 1],
    stride: [1, 1],
    dilation: [1, 1],
    pads: Pads { top: 0, left: 0, bottom: 0, right: 0 },
    groups: 1,
    before: Activation::Identity,
    residual: false,
    after: Activation::Identity,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let gate = Excite::Gate { layers: vec![Activation::Relu, Activation::Sigmoid], plus_one: false };
        let shape = |inputs: &[&[usize]]| gate.shape(inputs);
        assert_eq!(shape(&[&[2, 8, 1, 1], &[3, 8], &[3], &[8, 3], &[8]]), Ok(vec![2, 8, 1, 1]));
        assert!(shape(&[&[2, 8, 1, 1], &[3, 8], &[3], &[8, 4], &[8]]).is_err());
        assert!(shape(&[&[2, 8, 1, 1], &[3, 8], &[3]]).is_err());
        assert!(shape(&[&[2, 8, 2, 1], &[3, 8], &[3], &[8, 3], &[8]]).is_err());
        let scale = Excite::Scale { residual: true, after: Activation::Relu };
        let shape = |inputs: &[&[usize]]| scale.shape(inputs);
        assert!(shape(&[&[2, 8, 4, 4], &[2, 8, 1, 1], &[2, 8, 4, 4]]).is_ok());
        assert!(shape(&[&[2, 8, 4, 4], &[1, 8, 1, 1], &[2, 8, 4, 4]]).is_err());
        assert!(shape(&[&[2, 8, 4, 4], &[2, 8, 1, 1]]).is_err());
        let both = Excite::Concurrent { larger: true };
        let shape = |inputs: &[&[usize]]| both.shape(inputs);
        assert_eq!(shape(&[&[2, 8, 4, 5], &[2, 8, 1, 1], &[2, 1, 4, 5]]), Ok(vec![2, 8, 4, 5]));
        assert!(shape(&[&[2, 8, 4, 5], &[2, 8, 1, 1], &[1, 1, 4, 5]]).is_err());
        assert!(shape(&[&[2, 8, 4, 5], &[2, 1, 4, 5], &[2, 8, 1, 1]]).is_err());
    }
}
