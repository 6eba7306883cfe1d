//! Squeeze-and-excitation: the means of planes with the convolution that makes them, the gate as one step, and what it
//! scales.

use std::ops::Range;

use sinew_kernels::activation::Activation;

use super::{Builder, node_error};
use crate::error::Result;
use crate::graph::{BinaryOp, Excite, Node, ValueId};
use crate::plan::layout::{Blocked, pack_channels};
use crate::plan::pack::Filters;
use crate::plan::step::{GateLayer, GateWork, Operand, Place, Step, View, Work};
use crate::run::parallel::{Along, Cut};

/// Weights, in multiply-accumulates, that are worth another thread: a gate is bound by reading them, some 128 KB a part.
const MACS_PER_PART: usize = 32_768;

impl<'g> Builder<'g> {
    pub(super) fn excite(&mut self, node: &'g Node, excite: &Excite) -> Result<()> {
        match excite {
            Excite::Gate { layers, plus_one } => self.gate(node, layers, *plus_one),
            Excite::Scale { after, .. } => self.scale(node, *after),
            Excite::Concurrent { larger } => self.concurrent(node, *larger),
            Excite::ScaledConv(conv) => self.convolution(node, conv, None),
        }
    }

    /// Lets the convolution that writes a map also write the means of its planes; false where no single step does.
    pub(super) fn squeeze_in_producer(&mut self, map: &View, means: &View) -> bool {
        // A step that only reads it (to row-major order) is none that writes it.
        let writes =
            |step: &Step| step.work.output_layout().is_some() && step.work.views().last() == Some(&map);
        let Some(at) = self.steps.iter().rposition(writes) else { return false };
        let step = &mut self.steps[at];
        let Work::Conv(conv) = &mut step.work else { return false };
        if conv.squeeze.is_some() {
            return false;
        }
        conv.squeeze = Some(means.clone());
        step.why.push_str("; with the means of its planes");
        if let Place::Arena(buffer) = means.place {
            step.buffers.push(buffer);
            let buffer = &mut self.buffers[buffer];
            buffer.first = buffer.first.min(at);
            buffer.last = buffer.last.max(at);
        }
        true
    }

    fn gate(&mut self, node: &'g Node, activations: &[Activation], plus_one: bool) -> Result<()> {
        let input = self.blocks_of(node.inputs[0])?;
        let output = self.make_blocked(node.output);
        let mut layout = input.layout.clone();
        let (mut layers, mut macs, mut weights_bytes) = (Vec::new(), 0, 0);
        for (pair, &after) in node.inputs[1..].chunks(2).zip(activations) {
            let (Some(values), Some(bias)) = (self.graph.constant(pair[0]), self.graph.constant(pair[1]))
            else {
                return Err(node_error(node, "its weights and biases must be constants"));
            };
            let (outputs, channels) = (bias.len(), layout.channels());
            let outputs_layout = Blocked { parts: vec![outputs], ..layout.clone() };
            let out_blocks = outputs_layout.blocks();
            let bias = self.push_weights(&pack_channels(bias, &outputs_layout));
            let start = self.weights.len();
            let filters = Filters { values, outputs, channels, taps: 1 };
            filters.pack_by_block(&layout, &mut |block| self.weights.push(block));
            let weights = self.layer_weights(start, None);
            let lanes = std::mem::replace(&mut layout, outputs_layout).lanes();
            let parts = self.options.threads.min(outputs * channels / MACS_PER_PART).max(1);
            macs += (outputs * channels * layout.batch) as u64;
            weights_bytes += size_of_val(&self.weights[weights.clone()]) as u64;
            layers.push(GateLayer {
                lanes,
                out_blocks,
                weights_per_block: weights.len() / out_blocks.max(1),
                weights,
                bias,
                after,
                cut: Cut { parts, along: Along::Blocks { unit: 1 } },
            });
        }
        let hidden =
            layers.split_last().map_or(0, |(_, hidden)| hidden.iter().map(|layer| layer.out_blocks).sum());
        let cut = Cut {
            parts: layers.iter().map(|layer| layer.cut.parts).max().unwrap_or(1),
            along: Along::Blocks { unit: 1 },
        };
        let work = Work::Gate(Box::new(GateWork { input, layers, plus_one, output }));
        self.push_step(Step {
            name: node.name.clone(),
            op: work.verb().into(),
            algorithm: "dense".into(),
            why: format!("{} dense layers in one step", activations.len()),
            macs,
            bytes: work.bytes() + weights_bytes,
            buffers: work.buffers(),
            work,
            scratch: None,
            scratch_blocks: hidden,
            cut,
        })
    }

    fn scale(&mut self, node: &'g Node, after: Activation) -> Result<()> {
        let input = self.blocks_of(node.inputs[0])?;
        let scale = self.per_channel(node, node.inputs[1], &input)?;
        let residual = match node.inputs.get(2) {
            Some(&id) => {
                let view = self.blocks_of(id)?;
                let fits = view.layout == input.layout;
                Some(if fits { view } else { self.repack(&node.name, view, input.layout.parts.clone())? })
            }
            None => None,
        };
        let output = self.make_blocked(node.output);
        let work = Work::Scale { input, scale, residual, after, output };
        self.push(node.name.clone(), work, "scale, residual and activation in one pass")
    }

    fn concurrent(&mut self, node: &'g Node, larger: bool) -> Result<()> {
        let input = self.blocks_of(node.inputs[0])?;
        let scale = self.per_channel(node, node.inputs[1], &input)?;
        let spatial = self.blocks_of(node.inputs[2])?;
        let output = self.make_blocked(node.output);
        let work = Work::Concurrent { larger, input, scale, spatial, output };
        self.push(node.name.clone(), work, "scaled by channels and by pixels in one pass")
    }

    /// The scale of a convolution's output channels, and its bias times that.
    pub(super) fn scaled_bias(
        &mut self,
        node: &Node,
        scale: ValueId,
        bias: &Range<usize>,
        output: &View,
    ) -> Result<[View; 2]> {
        let scale = self.per_channel(node, scale, output)?;
        let layout = Blocked { height: 1, width: 1, ..output.layout.clone() };
        let batch_stride = layout.image_blocks();
        let place = Place::Arena(self.buffer(layout.batch * batch_stride));
        let scaled = View { place, skip: 0, batch_stride, layout: layout.clone() };
        let bias = View {
            place: Place::Weights,
            skip: bias.start,
            batch_stride: 0,
            layout: Blocked { batch: 1, ..layout },
        };
        let (op, b) = (BinaryOp::Mul, Operand::PerChannel(bias));
        let work = Work::Binary { op, swapped: false, a: scale.clone(), b, output: scaled.clone() };
        self.push(node.name.clone(), work, "the bias times the gate")?;
        Ok([scale, scaled])
    }
}
