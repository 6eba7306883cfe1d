//! A dense layer on a flattened `[N, C, H, W]` becomes a convolution with an H x W window: the weights are the same
//! numbers, `[O, C * H * W]` read as `[O, C, H, W]`, and the image is used as it lies. Exact in real arithmetic; the
//! sum runs in the convolution's order.

use crate::graph::{Conv, Graph, Node, Op, Pads};
use crate::tensor::{DType, Tensor};
use sinew_kernels::activation::Activation;

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut rewrites = 0;
    for position in 0..graph.nodes.len() {
        let node = graph.nodes[position].clone();
        let Op::Dense { after } = node.op else { continue };
        let Some(image) = flattened_image(graph, &node) else { continue };
        let [batch, channels, height, width] = graph.shape(image)[..] else { continue };
        let outputs = graph.shape(node.inputs[1])[0];
        let Some(weights) = graph.constant(node.inputs[1]) else { continue };
        let Ok(tensor) = Tensor::f32([outputs, channels, height, width], weights.to_vec()) else { continue };
        let name = format!("{}/window", graph.value(node.inputs[1]).name);
        let weights = graph.add_constant(name, tensor);
        let name = format!("{}/image", graph.value(node.output).name);
        let pixels = graph.add_value(name, vec![batch, outputs, 1, 1], DType::F32);
        let conv = Conv {
            kernel: [height, width],
            stride: [1, 1],
            dilation: [1, 1],
            pads: Pads::default(),
            groups: 1,
            before: Activation::Identity,
            residual: false,
            after,
        };
        let reshape = Node {
            name: format!("{}/flat", node.name),
            op: Op::Reshape { shape: graph.shape(node.output).to_vec() },
            inputs: vec![pixels],
            output: node.output,
        };
        let inputs = vec![image, weights, node.inputs[2]];
        graph.nodes[position] = Node { name: node.name, op: Op::Conv(conv), inputs, output: pixels };
        graph.nodes.insert(position + 1, reshape);
        rewrites += 1;
    }
    graph.remove_unused();
    rewrites
}

/// The image behind a dense layer's input, where that is `[N, C, H, W]` reshaped to `[N, C * H * W]` with more than one
/// pixel.
fn flattened_image(graph: &Graph, dense: &Node) -> Option<crate::graph::ValueId> {
    let reshape = graph
        .nodes
        .iter()
        .find(|node| node.output == dense.inputs[0] && matches!(node.op, Op::Reshape { .. }))?;
    let (image, flat) = (graph.shape(reshape.inputs[0]), graph.shape(reshape.output));
    let pixels = image.get(2..4)?.iter().product::<usize>();
    (image.len() == 4 && image[0] == flat[0] && pixels > 1).then_some(reshape.inputs[0])
}
