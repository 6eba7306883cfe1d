//! One layer on several maps in one step: fragments of one map, or the images of a batch. Where its weights stream from
//! far away, they do so once for all of them.

use sinew_kernels::conv::winograd::{WeightForm, WinogradTile};

use super::{Layer, Operands, conv_work};
use crate::error::Result;
use crate::graph::{Conv, Op, ValueId};
use crate::plan::build::Builder;
use crate::plan::choose::Algorithm;
use crate::plan::step::{ConvWork, Work};
use crate::run::parallel::Along;

/// A layer, and the maps that it is on.
pub(super) enum Maps<'g> {
    One(Layer<'g>),
    /// Several maps, or several images of them: the layer on each map.
    Several(Vec<Layer<'g>>),
}

impl<'g> Builder<'g> {
    /// The layer with all others that do the same to other maps, as far as these are there already.
    pub(super) fn maps_of(&mut self, layer: Layer<'g>, algorithm: Algorithm) -> Result<Maps<'g>> {
        let node = layer.node;
        let is_plain = layer.groups == 1 && layer.scale.is_none() && layer.max_min.is_none();
        let Op::Conv(own) = &node.op else { return Ok(Maps::One(layer)) };
        if !is_plain || layer.folded.is_some() || node.inputs.len() > 4 {
            return Ok(Maps::One(layer));
        }
        let graph = self.graph;
        let images = graph.shape(node.output)[0];
        let here = self.producers[&node.output];
        let mut maps = vec![layer];
        for other in &graph.nodes[here + 1..] {
            let Op::Conv(conv) = &other.op else { continue };
            let is_same = Conv { pads: own.pads, ..conv.clone() } == *own
                && other.inputs.len() == node.inputs.len()
                && other.inputs[1..3] == node.inputs[1..3]
                && self.parts[other.inputs[0].0] == self.parts[node.inputs[0].0]
                && graph.shape(other.output)[0] == images;
            let mut operands = other.inputs[..1].iter().chain(other.inputs.iter().skip(3));
            if !is_same || !operands.all(|&id| self.is_there(id, here)) {
                continue;
            }
            let layer = self.layer_of(other, conv, None)?;
            let shape = self.shape_of(&layer);
            if self.choice_of(other.inputs[1], shape).algorithm == algorithm {
                maps.push(layer);
            }
        }
        match (maps.pop(), maps.is_empty() && images == 1) {
            (Some(one), true) => Ok(Maps::One(one)),
            (last, _) => Ok(Maps::Several(maps.into_iter().chain(last).collect())),
        }
    }

    /// Whether a value is computed before the node at `here`.
    fn is_there(&self, id: ValueId, here: usize) -> bool {
        self.producers.get(&id).is_none_or(|&producer| producer < here)
    }

    pub(super) fn conv_maps(
        &mut self,
        layers: Vec<Layer<'g>>,
        (tile, form): (WinogradTile, WeightForm),
        mut why: String,
    ) -> Result<()> {
        let algorithm = Algorithm::Winograd(tile, form);
        let mut maps: Vec<ConvWork> = Vec::new();
        let (mut macs, mut tiles) = (0, 0);
        for layer in &layers {
            let input = self.blocks_of(layer.node.inputs[0])?;
            let output = self.make_blocked(layer.node.output);
            let residual = self.residual_of(layer, &output)?;
            let channels = [input.layout.channels(), output.layout.channels()];
            let packed = self.pack_layer(layer, algorithm, channels, &input.layout, &output.layout)?;
            tiles += output.layout.batch * tile.tiles(output.layout.height, output.layout.width);
            macs += layer.macs;
            let operands = Operands { input, output, negative: None, pool: None, residual };
            maps.push(conv_work(layer, algorithm, layer.geometry, &packed, operands));
            self.done.insert(layer.node.output);
        }
        let first = &maps[0];
        why.push_str(&format!("; {} maps at once, {tiles} tiles", maps.len() * first.output.layout.batch));
        let scratch =
            self.winograd_scratch((tile, form, false), tiles, first.group_channels, first.lanes.len());
        // Many weights: they are what is shared out.
        let size = [first.output.layout.blocks(), first.output.layout.pixels()];
        let cut = self.cut_conv(macs, 0, size, &[4, 2, 1].map(|unit| Along::Blocks { unit }));
        self.push_conv(&layers[0], Work::ConvMaps(maps), (algorithm, why), macs, cut, scratch)
    }
}
