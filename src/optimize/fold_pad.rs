//! Zero borders into the pads of the convolution behind them. Bitwise: both read zeros there.

use crate::graph::{Conv, Graph, Op};

pub(super) fn run(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| {
        let Op::Conv(conv) = &node.op else { return None };
        let pad = super::sole_producer(graph, node.inputs[0])?;
        let Op::Pad { amounts, value } = &graph.nodes[pad].op else { return None };
        let [[0, 0], [0, 0], [top, bottom], [left, right]] = amounts[..] else { return None };
        if *value != 0.0 {
            return None;
        }
        let mut pads = conv.pads;
        pads.top += top;
        pads.bottom += bottom;
        pads.left += left;
        pads.right += right;
        let mut merged = node.clone();
        merged.op = Op::Conv(Conv { pads, ..conv.clone() });
        merged.inputs[0] = graph.nodes[pad].inputs[0];
        Some((merged, pad))
    })
}
