//! Zero borders into the pads of the convolution behind them, and borders of -infinity into those of a max pool. Bitwise:
//! a convolution reads zeros there, and a maximum never takes a border where the window holds a pixel.

use crate::graph::{Conv, Graph, Op, Pads, Pool, PoolKind, shape};

pub(super) fn run(graph: &mut Graph) -> usize {
    super::merge_into_later(graph, |graph, node| {
        let pad = super::sole_producer(graph, *node.inputs.first()?)?;
        let Op::Pad { amounts, value } = &graph.nodes[pad].op else { return None };
        let [[0, 0], [0, 0], [top, bottom], [left, right]] = amounts[..] else { return None };
        let wider = |pads: Pads| Pads {
            top: pads.top + top,
            bottom: pads.bottom + bottom,
            left: pads.left + left,
            right: pads.right + right,
        };
        let mut merged = node.clone();
        merged.inputs[0] = graph.nodes[pad].inputs[0];
        merged.op = match &node.op {
            Op::Conv(conv) if *value == 0.0 => Op::Conv(Conv { pads: wider(conv.pads), ..conv.clone() }),
            Op::Pool(pool) if pool.kind == PoolKind::Max && *value == f32::NEG_INFINITY => {
                let op = Op::Pool(Pool { pads: wider(pool.pads), ..pool.clone() });
                // Refused where a window would hold no pixel: there the border is what the maximum takes.
                let same = shape::infer(&op, &[graph.shape(merged.inputs[0])]).ok()?;
                if same != graph.shape(node.output) {
                    return None;
                }
                op
            }
            _ => return None,
        };
        Some((merged, pad))
    })
}
