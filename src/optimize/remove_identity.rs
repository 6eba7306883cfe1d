//! Removes nodes that give their input: identities and reshapes to the same shape; a reshape of a reshape reads the
//! first one's input.

use sinew_kernels::activation::Activation;

use crate::graph::{Graph, Op};

pub(super) fn run(graph: &mut Graph) -> usize {
    let mut rewrites = 0;
    for position in (0..graph.nodes.len()).rev() {
        let node = &graph.nodes[position];
        let (input, output) = (node.inputs[0], node.output);
        let same_shape = graph.shape(input) == graph.shape(output);
        let gives_input = match node.op {
            Op::Unary(Activation::Identity) => true,
            Op::Reshape { .. } => same_shape,
            _ => false,
        };
        // A graph output keeps its name, and an input handed straight out keeps a node.
        if gives_input && !graph.outputs.contains(&output) {
            graph.replace_uses(output, input);
            graph.nodes.remove(position);
            rewrites += 1;
        }
    }
    for position in 0..graph.nodes.len() {
        if !matches!(graph.nodes[position].op, Op::Reshape { .. }) {
            continue;
        }
        let input = graph.nodes[position].inputs[0];
        if let Some(first) =
            graph.nodes.iter().find(|node| node.output == input && matches!(node.op, Op::Reshape { .. }))
        {
            let source = first.inputs[0];
            graph.nodes[position].inputs[0] = source;
            rewrites += 1;
        }
    }
    rewrites
}
