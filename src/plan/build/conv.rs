//! Convolutions and dense layers: geometry, choice, packed weights, and how the work is cut.

mod behind;
mod maps;
mod packed;
mod ways;

use std::ops::Range;

pub(super) use packed::{Packed, PackedKey};
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::winograd::{POOL, WeightForm, WinogradTile};
use sinew_kernels::conv::{ConvGeometry, grouped, im2col, plain_image, strassen};
use sinew_kernels::{Block, LANES};

use self::maps::Maps;
use self::ways::ways;
use super::max_min::halves;
use super::shortcut;
use super::{Builder, image_strides, node_error};
use crate::error::Result;
use crate::graph::{Conv, Excite, MaxMinOrder, Node, Op, ValueId};
use crate::plan::choose::{self, Algorithm, ConvShape};
use crate::plan::layout::pack_channels;
use crate::plan::pack::Filters;
use crate::plan::step::{ConvWork, PlainConvWork, PoolBehind, Step, View, Work};
use crate::run::parallel::{Along, Cut};

/// What a convolution or dense layer is, before its algorithm is known.
struct Layer<'g> {
    node: &'g Node,
    geometry: ConvGeometry,
    groups: usize,
    before: Activation,
    residual: Option<ValueId>,
    /// One number per output channel and image, by which the sums are multiplied.
    scale: Option<ValueId>,
    /// A constant per channel.
    residual_scale: Option<ValueId>,
    after: Activation,
    max_min: Option<MaxMinOrder>,
    /// Weights with the shortcut in them.
    folded: Option<Vec<f32>>,
    macs: u64,
}

/// Where a layer's operands are.
struct Operands {
    input: View,
    output: View,
    /// MaxMin's other half.
    negative: Option<View>,
    /// What makes the output of the layer's map.
    pool: Option<PoolBehind>,
    residual: Option<View>,
}

impl<'g> Builder<'g> {
    pub(super) fn is_depthwise(&self, node: &Node) -> bool {
        let Some((conv, _)) = node.op.convolution() else { return false };
        let (input, weights) = (self.graph.shape(node.inputs[0]), self.graph.shape(node.inputs[1]));
        conv.groups > 1 && conv.groups == input[1] && conv.groups == weights[0]
    }

    /// Whether a node is a convolution that reads its input as a plain image.
    pub(super) fn reads_plain_image(&self, node: &Node) -> bool {
        let Some((conv, _)) = node.op.convolution() else { return false };
        conv.groups == 1 && self.graph.shape(node.inputs[0])[1] <= choose::PLAIN_IMAGE_CHANNELS
    }

    pub(super) fn convolution(
        &mut self,
        node: &'g Node,
        conv: &Conv,
        max_min: Option<MaxMinOrder>,
    ) -> Result<()> {
        let layer = self.layer_of(node, conv, max_min)?;
        self.layer(layer)
    }

    /// The sizes of a convolution.
    pub(super) fn geometry_of(&self, node: &Node, conv: &Conv) -> Result<ConvGeometry> {
        let input = self.graph.shape(node.inputs[0]);
        let output = self.graph.shape(node.output);
        let (&[_, _, in_height, in_width], &[_, _, out_height, out_width]) = (input, output) else {
            return Err(node_error(node, "it needs four dimensions"));
        };
        Ok(ConvGeometry {
            in_height,
            in_width,
            out_height,
            out_width,
            kernel: conv.kernel,
            stride: conv.stride,
            dilation: conv.dilation,
            pad_top: conv.pads.top,
            pad_left: conv.pads.left,
        })
    }

    fn layer_of(&self, node: &'g Node, conv: &Conv, max_min: Option<MaxMinOrder>) -> Result<Layer<'g>> {
        let geometry = self.geometry_of(node, conv)?;
        // A scale of the sums comes before the residual, one of the residual after it.
        let scaled = matches!(node.op, Op::Excite(Excite::ScaledConv(_)));
        let residual = conv.residual.then(|| node.inputs[if scaled { 4 } else { 3 }]);
        let scale = scaled.then(|| node.inputs[3]);
        let residual_scale = node.inputs.get(4).copied().filter(|_| !scaled);
        Ok(Layer {
            node,
            geometry,
            groups: conv.groups,
            before: conv.before,
            residual,
            scale,
            residual_scale,
            after: conv.after,
            max_min,
            folded: None,
            macs: self.graph.node_macs(node),
        })
    }

    pub(super) fn dense(&mut self, node: &'g Node, after: Activation) -> Result<()> {
        let geometry = ConvGeometry::ONE_PIXEL;
        let macs = self.graph.node_macs(node);
        let before = Activation::Identity;
        let (residual, scale, residual_scale, max_min) = (None, None, None, None);
        self.layer(Layer {
            node,
            geometry,
            groups: 1,
            before,
            residual,
            scale,
            residual_scale,
            after,
            max_min,
            folded: None,
            macs,
        })
    }

    fn layer(&mut self, mut layer: Layer<'g>) -> Result<()> {
        let node = layer.node;
        let shape = self.shape_of(&layer);
        let group_channels = [shape.in_channels / layer.groups, shape.out_channels / layer.groups];
        let mut choice = self.choice_of(node.inputs[1], shape);
        if let Some(scale) = layer.residual_scale.and_then(|id| self.graph.constant(id))
            && layer.groups == 1
            && shortcut::folds(node, &layer.geometry, choice.algorithm, self.options)
        {
            let (weights, _) = self.weights_of(&layer)?;
            layer.folded = Some(shortcut::folded(weights, layer.geometry.taps(), scale));
            (layer.residual, layer.residual_scale) = (None, None);
            choice.why.push_str("; the shortcut is in the centre tap");
        }
        match choice.algorithm {
            Algorithm::PlainImage => self.plain_image(layer, choice.why),
            algorithm => self.blocked_layer(layer, group_channels, algorithm, choice.why),
        }
    }

    /// What the choice of its algorithm looks at.
    fn shape_of(&self, layer: &Layer<'g>) -> ConvShape {
        let node = layer.node;
        let x = node.inputs[0];
        let (in_channels, out_channels) = (self.graph.shape(x)[1], self.graph.shape(node.inputs[1])[0]);
        let group_channels = [in_channels / layer.groups, out_channels / layer.groups];
        let parts_are_blocks = match &self.blocked[x.0] {
            Some(view) => view.layout.is_contiguous(),
            None => true,
        };
        ConvShape {
            geometry: layer.geometry,
            groups: layer.groups,
            in_channels,
            out_channels,
            groups_are_blocks: group_channels.iter().all(|channels| channels % LANES == 0)
                && parts_are_blocks,
            combined: layer.residual.is_some() || layer.scale.is_some() || layer.max_min.is_some(),
            maps: self.fragments_of(node) * self.graph.shape(node.output)[0].max(1),
            joined: self.is_joined(node),
            network: self.constants,
            // A sum from a plain image has another order: whether a step before runs on a row-major map must not change it.
            plain_input: layer.scale.is_none()
                && !self.is_of_row_major(x)
                && self.blocked[x.0].is_none()
                && self.graph.shape(x).len() == 4
                && self.strided_source(x).is_some(),
        }
    }

    /// The scale of a layer's sums, and its bias times the scale, where there is one.
    fn scale_of(
        &mut self,
        layer: &Layer<'g>,
        bias: &Range<usize>,
        output: &View,
    ) -> Result<Option<[View; 2]>> {
        match layer.scale {
            Some(scale) => self.scaled_bias(layer.node, scale, bias, output).map(Some),
            None => Ok(None),
        }
    }

    /// Where the layer's result goes: with MaxMin, two halves.
    fn outputs_of(&mut self, layer: &Layer<'g>) -> (View, Option<View>) {
        let output = self.make_blocked(layer.node.output);
        let Some(order) = layer.max_min else { return (output, None) };
        let parts = match self.is_depthwise(layer.node) {
            true => self.parts[layer.node.inputs[0].0].clone(),
            false => vec![output.layout.channels() / 2],
        };
        let [positive, negative] = halves(output, parts, order);
        (positive, Some(negative))
    }

    /// The residual in the output's layout.
    fn residual_of(&mut self, layer: &Layer<'g>, output: &View) -> Result<Option<View>> {
        let Some(id) = layer.residual else { return Ok(None) };
        let view = self.blocks_of(id)?;
        if view.layout == output.layout {
            return Ok(Some(view));
        }
        self.repack(&layer.node.name, view, output.layout.parts.clone()).map(Some)
    }

    fn plain_image(&mut self, layer: Layer<'g>, why: String) -> Result<()> {
        let node = layer.node;
        let (weights, bias) = self.weights_of(&layer)?;
        let Some((input, strides)) = self.strided_source(node.inputs[0]) else {
            return Err(node_error(node, "its input is not plain"));
        };
        let (output, negative) = self.outputs_of(&layer);
        let residual = self.residual_of(&layer, &output)?;
        let residual_scale = self.residual_scale_of(&layer, &output.layout);
        let channels = self.graph.shape(node.inputs[0])[1];
        let taps = layer.geometry.taps();
        let filters = Filters { values: weights, outputs: output.layout.channels(), channels, taps };
        let bias = self.push_weights(&pack_channels(bias, &output.layout));
        let start = self.push_weights(&filters.pack_by_channel()).start;
        let weights = self.layer_weights(start, None);
        let rows = Along::Pixels { unit: layer.geometry.out_width };
        let images = output.layout.batch.max(1);
        let bytes = (input.len / images + output.layout.image_blocks() * LANES) * size_of::<f32>();
        let size = [output.layout.blocks(), output.layout.pixels()];
        let cut = self.cut_conv(layer.macs / images as u64, bytes as u64, size, &[rows]);
        let scratch = plain_image::scratch_len(&layer.geometry, channels).div_ceil(LANES);
        let work = Work::PlainConv(Box::new(PlainConvWork {
            geometry: layer.geometry,
            channels,
            strides: image_strides(&strides),
            input,
            output,
            negative,
            residual,
            residual_scale,
            weights_per_block: channels * taps,
            weights,
            bias,
            before: layer.before,
            after: layer.after,
        }));
        self.push_conv(&layer, work, (Algorithm::PlainImage, why), layer.macs, cut, scratch)
    }

    fn blocked_layer(
        &mut self,
        mut layer: Layer<'g>,
        group_channels: [usize; 2],
        algorithm: Algorithm,
        mut why: String,
    ) -> Result<()> {
        let node = layer.node;
        if let Algorithm::Winograd(tile, form) = algorithm
            && self.is_streamed(tile, group_channels)
        {
            match self.maps_of(layer, algorithm)? {
                Maps::One(one) => layer = one,
                Maps::Several(maps) => return self.conv_maps(maps, (tile, form), why),
            }
        }
        let mut input = self.blocks_of(node.inputs[0])?;
        if layer.groups > 1 && algorithm != Algorithm::Depthwise {
            input = self.one_part(&node.name, input)?;
        }
        let behind = match algorithm {
            Algorithm::Winograd(..) => self.pool_behind(&layer),
            _ => None,
        };
        let (output, negative, pool) = match behind {
            Some((node, pool)) => {
                why.push_str(&format!("; with the pool \"{}\"", node.name));
                let (output, negative) = self.pooled_outputs(&layer, node);
                (output, negative, Some(pool))
            }
            None => {
                let (output, negative) = self.outputs_of(&layer);
                (output, negative, None)
            }
        };
        let residual = self.residual_of(&layer, &output)?;
        let packed = self.pack_layer(&layer, algorithm, group_channels, &input.layout, &output.layout)?;
        let operands = Operands { input, output, negative, pool, residual };
        self.push_layer(&layer, algorithm, layer.geometry, &packed, operands, why)
    }

    /// Adds the step of a layer whose operands are in blocks.
    fn push_layer(
        &mut self,
        layer: &Layer<'g>,
        algorithm: Algorithm,
        mut geometry: ConvGeometry,
        packed: &Packed,
        operands: Operands,
        why: String,
    ) -> Result<()> {
        let Operands { input, output, negative, pool, residual } = operands;
        let scale = self.scale_of(layer, &packed.bias, &output)?;
        if geometry.in_pixels() == geometry.out_pixels()
            && matches!(algorithm, Algorithm::Pointwise | Algorithm::Strassen)
        {
            let pixels = geometry.in_pixels();
            (geometry.in_height, geometry.out_height) = (1, 1);
            (geometry.in_width, geometry.out_width) = (pixels, pixels);
        }
        // Some kernels know groups, others are called once a group.
        let groups = match algorithm {
            Algorithm::Depthwise | Algorithm::Grouped | Algorithm::Winograd(..) => 1,
            _ => layer.groups.max(1),
        };
        let calls = (output.layout.batch * groups).max(1) as u64;
        let bytes =
            (input.layout.image_blocks() + output.layout.image_blocks()) * size_of::<Block>() / groups;
        // of the map that is stored
        let row_of_outputs = match (algorithm, pool) {
            (Algorithm::Strassen, _) => [strassen::unit(geometry.out_pixels()), 1],
            (_, None) => [geometry.out_width, 1],
            (_, Some(_)) => [output.layout.width, POOL],
        };
        let cut = self.cut_conv(
            layer.macs / calls,
            bytes as u64,
            [output.layout.blocks() / groups, output.layout.pixels()],
            &ways(
                algorithm,
                (groups < layer.groups).then(|| packed.group_channels[1].div_ceil(LANES)),
                row_of_outputs,
                packed.weights.len() > input.layout.image_blocks(),
            ),
        );
        let [channels, _] = packed.group_channels;
        let scratch = match algorithm {
            Algorithm::Winograd(tile, form) => {
                let tiles = tile.tiles(geometry.out_height, geometry.out_width);
                let pooled = pool.is_some();
                self.winograd_scratch((tile, form, pooled), tiles, packed.group_channels, packed.lanes.len())
            }
            Algorithm::Grouped => grouped::scratch_blocks(&geometry, channels),
            Algorithm::Im2col => im2col::scratch_blocks(&geometry, channels),
            Algorithm::Strassen => strassen::scratch_blocks(&geometry, packed.lanes.len()),
            _ => 0,
        };
        let operands = Operands { input, output, negative, pool, residual };
        let work = conv_work(layer, algorithm, geometry, packed, operands);
        let work = Work::Conv(Box::new(ConvWork { scale, ..work }));
        self.push_conv(layer, work, (algorithm, why), layer.macs, cut, scratch)
    }

    /// Scratch for as many tiles at a time as pays: where the transformed weights stay in the second-level cache, so
    /// many that tiles and sums stay there with them; where they stream from further away, more, so that they
    /// stream less often.
    fn winograd_scratch(
        &self,
        (tile, form, pooled): (WinogradTile, WeightForm, bool),
        tiles: usize,
        group_channels: [usize; 2],
        in_blocks: usize,
    ) -> usize {
        let l2 = self.options.l2_bytes;
        let bytes = if self.is_streamed(tile, group_channels) { 5 * l2 } else { l2 / 2 };
        let out_blocks = group_channels[1].div_ceil(LANES);
        let scratch = |count, pooled| tile.scratch_of(form, count, in_blocks, out_blocks, pooled);
        let one = scratch(2, false) - scratch(1, false);
        let fitting = (bytes / size_of::<Block>() / one).max(1);
        scratch(fitting.min(tiles), pooled)
    }

    /// Whether a layer's transformed weights are too many for the second-level cache.
    fn is_streamed(&self, tile: WinogradTile, [channels, outputs]: [usize; 2]) -> bool {
        let l2 = self.options.l2_bytes;
        tile.weights() * channels * outputs * size_of::<f32>() > l2 + l2 / 2
    }

    fn push_conv(
        &mut self,
        layer: &Layer<'g>,
        work: Work,
        (algorithm, why): (Algorithm, String),
        macs: u64,
        cut: Cut,
        scratch_per_part: usize,
    ) -> Result<()> {
        let weights_bytes = match &work {
            Work::Conv(conv) => conv.weights.len() as u64 * 64,
            Work::ConvMaps(maps) => maps[0].weights.len() as u64 * 64,
            Work::PlainConv(conv) => conv.weights.len() as u64 * 64,
            _ => 0,
        };
        self.push_step(Step {
            name: layer.node.name.clone(),
            op: layer.node.op.name().into(),
            algorithm: algorithm.name().into(),
            why,
            macs,
            bytes: work.bytes() + weights_bytes,
            buffers: work.buffers(),
            work,
            scratch: None,
            scratch_blocks: scratch_per_part * cut.parts,
            cut,
        })
    }
}

/// What a layer does to its operands; a scale of its sums is added by the caller.
fn conv_work(
    layer: &Layer<'_>,
    algorithm: Algorithm,
    geometry: ConvGeometry,
    packed: &Packed,
    operands: Operands,
) -> ConvWork {
    let Operands { input, output, negative, pool, residual } = operands;
    ConvWork {
        algorithm,
        geometry,
        lanes: packed.lanes.clone(),
        groups: layer.groups,
        input,
        output,
        negative,
        pool,
        residual,
        scale: None,
        squeeze: None,
        residual_scale: packed.residual_scale.clone(),
        weights: packed.weights.clone(),
        weights_per_block: packed.per_block,
        bias: packed.bias.clone(),
        before: layer.before,
        after: layer.after,
        group_channels: packed.group_channels,
    }
}
