//! Convolutions and dense layers: geometry, choice, packed weights, and how the work is cut.

use std::ops::Range;

use sinew_kernels::LANES;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::winograd::{WeightForm, WinogradTile};
use sinew_kernels::conv::{ConvGeometry, grouped, im2col, plain_image};
use sinew_kernels::{Block, isa};

use super::{Builder, image_strides, node_error, strided};
use crate::error::Result;
use crate::graph::{Conv, Node, Op, ValueId};
use crate::plan::choose::{self, Algorithm, Choice, ConvShape, fragment};
use crate::plan::layout::{Blocked, pack_channels};
use crate::plan::pack::{Filters, pack_depthwise, pack_grouped};
use crate::plan::step::{ConvWork, Place, PlainConvWork, Step, View, Work};
use crate::run::parallel::{Along, Cut};

/// Multiply-accumulates that are worth another thread: some 10 us, several times what it costs to hand them over.
const MACS_PER_PART: u64 = 400_000;

/// What a convolution or dense layer is, before its algorithm is known.
struct Layer<'g> {
    node: &'g Node,
    geometry: ConvGeometry,
    groups: usize,
    before: Activation,
    residual: Option<ValueId>,
    after: Activation,
    macs: u64,
}

/// Where a layer's operands are.
struct Operands {
    input: View,
    output: View,
    residual: Option<View>,
}

/// A layer's packed weights and bias.
struct Packed {
    weights: Range<usize>,
    per_block: usize,
    bias: Range<usize>,
    /// Live channels of each input block of a group.
    lanes: Vec<u8>,
    group_channels: [usize; 2],
}

impl<'g> Builder<'g> {
    pub(super) fn is_depthwise(&self, node: &Node) -> bool {
        let Op::Conv(conv) = &node.op else { return false };
        let (input, output) = (self.graph.shape(node.inputs[0]), self.graph.shape(node.output));
        conv.groups > 1 && conv.groups == input[1] && conv.groups == output[1]
    }

    /// Whether a node is a convolution that reads its input as a plain image.
    pub(super) fn reads_plain_image(&self, node: &Node) -> bool {
        let Op::Conv(conv) = &node.op else { return false };
        conv.groups == 1 && self.graph.shape(node.inputs[0])[1] <= choose::PLAIN_IMAGE_CHANNELS
    }

    pub(super) fn convolution(&mut self, node: &'g Node, conv: &Conv) -> Result<()> {
        let input = self.graph.shape(node.inputs[0]);
        let output = self.graph.shape(node.output);
        let (&[_, _, in_height, in_width], &[_, _, out_height, out_width]) = (input, output) else {
            return Err(node_error(node, "it needs four dimensions"));
        };
        let geometry = ConvGeometry {
            in_height,
            in_width,
            out_height,
            out_width,
            kernel: conv.kernel,
            stride: conv.stride,
            dilation: conv.dilation,
            pad_top: conv.pads.top,
            pad_left: conv.pads.left,
        };
        let residual = conv.residual.then(|| node.inputs[3]);
        self.layer(Layer {
            node,
            geometry,
            groups: conv.groups,
            before: conv.before,
            residual,
            after: conv.after,
            macs: self.graph.node_macs(node),
        })
    }

    pub(super) fn dense(&mut self, node: &'g Node, after: Activation) -> Result<()> {
        let geometry = ConvGeometry {
            in_height: 1,
            in_width: 1,
            out_height: 1,
            out_width: 1,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pad_top: 0,
            pad_left: 0,
        };
        let macs = self.graph.node_macs(node);
        let before = Activation::Identity;
        self.layer(Layer { node, geometry, groups: 1, before, residual: None, after, macs })
    }

    fn layer(&mut self, layer: Layer<'g>) -> Result<()> {
        let node = layer.node;
        let x = node.inputs[0];
        let (in_channels, out_channels) = (self.graph.shape(x)[1], self.graph.shape(node.output)[1]);
        let group_channels = [in_channels / layer.groups, out_channels / layer.groups];
        if !choose::serves_window(&layer.geometry, group_channels[0]) {
            return Err(node_error(node, "its window is too large"));
        }
        let parts_are_blocks = match &self.blocked[x.0] {
            Some(view) => view.layout.is_contiguous(),
            None => true,
        };
        let shape = ConvShape {
            geometry: layer.geometry,
            groups: layer.groups,
            in_channels,
            out_channels,
            groups_are_blocks: group_channels.iter().all(|channels| channels % LANES == 0)
                && parts_are_blocks,
            plain_input: self.blocked[x.0].is_none()
                && self.graph.shape(x).len() == 4
                && self.strided_source(x).is_some(),
        };
        if let Some(choice) = choose::choose_fragments(&shape, self.options) {
            return self.fragments(layer, group_channels, choice);
        }
        let choice = choose::choose(&shape, self.options);
        match choice.algorithm {
            Algorithm::PlainImage => self.plain_image(layer, choice.why),
            algorithm => self.blocked_layer(layer, group_channels, algorithm, choice.why),
        }
    }

    fn weights_of(&self, layer: &Layer<'g>) -> Result<(&'g [f32], &'g [f32])> {
        let constants =
            (self.graph.constant(layer.node.inputs[1]), self.graph.constant(layer.node.inputs[2]));
        match constants {
            (Some(weights), Some(bias)) => Ok((weights, bias)),
            _ => Err(node_error(layer.node, "its weights and bias must be constants")),
        }
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
        let output = self.make_blocked(node.output);
        let residual = self.residual_of(&layer, &output)?;
        let channels = self.graph.shape(node.inputs[0])[1];
        let taps = layer.geometry.taps();
        let filters = Filters { values: weights, outputs: output.layout.channels(), channels, taps };
        let packed = filters.pack_by_channel();
        let bias = self.push_weights(&pack_channels(bias, &output.layout));
        let along = Along::Pixels { unit: layer.geometry.out_width };
        let cut = self.cut_conv(layer.macs, &output.layout, 1, along);
        let scratch = plain_image::scratch_len(&layer.geometry, channels).div_ceil(LANES);
        let work = Work::PlainConv(Box::new(PlainConvWork {
            geometry: layer.geometry,
            channels,
            strides: image_strides(&strides),
            input,
            output,
            residual,
            weights_per_block: channels * taps,
            weights: self.push_weights(&packed),
            bias,
            before: layer.before,
            after: layer.after,
        }));
        self.push_conv(&layer, work, (Algorithm::PlainImage, why), layer.macs, cut, scratch)
    }

    fn blocked_layer(
        &mut self,
        layer: Layer<'g>,
        group_channels: [usize; 2],
        algorithm: Algorithm,
        why: String,
    ) -> Result<()> {
        let node = layer.node;
        let mut input = self.blocks_of(node.inputs[0])?;
        if layer.groups > 1 && algorithm != Algorithm::Depthwise {
            input = self.one_part(&node.name, input)?;
        }
        let output = self.make_blocked(node.output);
        let residual = self.residual_of(&layer, &output)?;
        let packed = self.pack_layer(&layer, algorithm, group_channels, &input.layout, &output.layout)?;
        let operands = Operands { input, output, residual };
        self.push_layer(&layer, algorithm, layer.geometry, &packed, operands, why)
    }

    /// A dilated convolution as plain ones on its fragments: output pixels that are congruent modulo the dilation
    /// depend on input pixels that are congruent too, and on those it is the undilated convolution.
    ///
    /// Output `d m + r` is the sum over taps of `w[i] x[d m + r + d i - p]`; with `f = (r - p) mod d` that reads element
    /// `m + i - (p - r + f) / d` of fragment `f`: the same window, and `(p - r + f) / d` rows of zeros before it.
    fn fragments(&mut self, layer: Layer<'g>, group_channels: [usize; 2], choice: Choice) -> Result<()> {
        let node = layer.node;
        let mut input = self.blocks_of(node.inputs[0])?;
        if layer.groups > 1 {
            input = self.one_part(&node.name, input)?;
        }
        let output = self.make_blocked(node.output);
        let residual = self.residual_of(&layer, &output)?;
        let packed =
            self.pack_layer(&layer, choice.algorithm, group_channels, &input.layout, &output.layout)?;
        let [down, across] = layer.geometry.dilation;
        for (row, column) in (0..down).flat_map(|row| (0..across).map(move |column| (row, column))) {
            let (geometry, from) = fragment(&layer.geometry, [row, column]);
            let steps = [down, across];
            let fragment_input =
                self.gather(node, &input, from, steps, [geometry.in_height, geometry.in_width])?;
            let sizes = [geometry.out_height, geometry.out_width];
            let residual = match &residual {
                Some(view) => Some(self.gather(node, view, [row, column], steps, sizes)?),
                None => None,
            };
            let fragment_output = self.scratch_view(&output, sizes);
            let operands = Operands { input: fragment_input, output: fragment_output.clone(), residual };
            self.push_layer(&layer, choice.algorithm, geometry, &packed, operands, choice.why.clone())?;
            let own = strides_of(&fragment_output.layout, [1, 1]);
            let extents = [output.layout.blocks(), sizes[0], sizes[1]];
            let start = row * output.layout.width + column;
            let copy = strided(&extents, &own, &strides_of(&output.layout, steps), 0, start);
            let work = Work::CopyPixels { from: fragment_output, to: output.clone(), copy };
            self.push(node.name.clone(), work, "a fragment back into the map")?;
        }
        Ok(())
    }

    /// Every `steps`-th pixel from `start` on, as a map of its own.
    fn gather(
        &mut self,
        node: &Node,
        from: &View,
        start: [usize; 2],
        steps: [usize; 2],
        sizes: [usize; 2],
    ) -> Result<View> {
        let to = self.scratch_view(from, sizes);
        let extents = [from.layout.blocks(), sizes[0], sizes[1]];
        let first = start[0] * from.layout.width + start[1];
        let copy =
            strided(&extents, &strides_of(&from.layout, steps), &strides_of(&to.layout, [1, 1]), first, 0);
        self.push(
            node.name.clone(),
            Work::CopyPixels { from: from.clone(), to: to.clone(), copy },
            "a fragment of the map",
        )?;
        Ok(to)
    }

    /// A buffer for a map with the channels of another one and its own size.
    fn scratch_view(&mut self, like: &View, [height, width]: [usize; 2]) -> View {
        let layout = Blocked { height, width, ..like.layout.clone() };
        let batch_stride = layout.image_blocks();
        let place = Place::Arena(self.buffer(layout.batch * batch_stride));
        View { place, skip: 0, batch_stride, layout }
    }

    /// Packs weights and bias.
    fn pack_layer(
        &mut self,
        layer: &Layer<'g>,
        algorithm: Algorithm,
        group_channels: [usize; 2],
        input: &Blocked,
        output: &Blocked,
    ) -> Result<Packed> {
        let (weights, bias) = self.weights_of(layer)?;
        let taps = layer.geometry.taps();
        let [channels, outputs] = group_channels;
        let layout = match layer.groups {
            1 => input.clone(),
            _ => Blocked { parts: vec![channels], ..input.clone() },
        };
        let lanes = layout.lanes();
        let packed = match algorithm {
            Algorithm::Depthwise => pack_depthwise(weights, taps, input),
            Algorithm::Grouped => pack_grouped(weights, output.channels(), channels, taps),
            _ => {
                let per_group = (outputs * channels * taps).max(1);
                let pack = |values| Filters { values, outputs, channels, taps }.pack_by_block(&layout);
                let plain: Vec<Block> = weights.chunks(per_group).flat_map(pack).collect();
                match algorithm {
                    Algorithm::Winograd(tile, WeightForm::Stored) => transformed(tile, &lanes, &plain),
                    _ => plain,
                }
            }
        };
        let per_block = packed.len() / output.blocks().max(1);
        let bias = self.push_weights(&pack_channels(bias, output));
        Ok(Packed { weights: self.push_weights(&packed), per_block, bias, lanes, group_channels })
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
        let Operands { input, output, residual } = operands;
        if algorithm == Algorithm::Pointwise {
            let pixels = geometry.in_pixels();
            (geometry.in_height, geometry.out_height) = (1, 1);
            (geometry.in_width, geometry.out_width) = (pixels, pixels);
        }
        // The larger operand is the one to share out.
        let many_weights = packed.weights.len() > input.layout.image_blocks();
        let along = match algorithm {
            Algorithm::Dense | Algorithm::Depthwise | Algorithm::Grouped => Along::Blocks { unit: 1 },
            Algorithm::Winograd(..) if many_weights => Along::Blocks { unit: 4 },
            Algorithm::Winograd(tile, _) => Along::Pixels { unit: tile.output * geometry.out_width },
            _ if many_weights => Along::Blocks { unit: 2 },
            Algorithm::Pointwise => Along::Pixels { unit: 28 },
            _ => Along::Pixels { unit: geometry.out_width },
        };
        let macs = layer.macs * output.layout.pixels() as u64 / layer.geometry.out_pixels().max(1) as u64;
        let cut = self.cut_conv(macs, &output.layout, layer.groups, along);
        let [channels, outputs] = packed.group_channels;
        let scratch = match algorithm {
            Algorithm::Winograd(tile, form) => {
                let transformed = tile.positions() * channels * outputs * size_of::<f32>();
                let blocks = [packed.lanes.len(), outputs.div_ceil(LANES)];
                self.winograd_scratch(tile, form, &geometry, transformed, blocks)
            }
            Algorithm::Grouped => grouped::scratch_blocks(&geometry, channels),
            Algorithm::Im2col => im2col::scratch_blocks(&geometry, &packed.lanes, 4 * self.options.l1_bytes),
            _ => 0,
        };
        let work = Work::Conv(Box::new(ConvWork {
            algorithm,
            geometry,
            lanes: packed.lanes.clone(),
            groups: layer.groups,
            input,
            output,
            residual,
            weights: packed.weights.clone(),
            weights_per_block: packed.per_block,
            bias: packed.bias.clone(),
            before: layer.before,
            after: layer.after,
            group_channels: packed.group_channels,
        }));
        self.push_conv(layer, work, (algorithm, why), macs, cut, scratch)
    }

    /// Scratch for as many tiles at a time as pays: where the transformed weights stay in the second-level cache, so
    /// many that tiles and sums stay there with them; where they stream from further away, more, so that they
    /// stream less often.
    fn winograd_scratch(
        &self,
        tile: WinogradTile,
        form: WeightForm,
        geometry: &ConvGeometry,
        transformed_bytes: usize,
        [in_blocks, out_blocks]: [usize; 2],
    ) -> usize {
        let l2 = self.options.l2_bytes;
        let bytes = if transformed_bytes <= l2 + l2 / 2 { l2 / 2 } else { 5 * l2 };
        let one =
            tile.scratch_of(form, 2, in_blocks, out_blocks) - tile.scratch_of(form, 1, in_blocks, out_blocks);
        let fitting = (bytes / size_of::<Block>() / one).max(1);
        let all = tile.tiles(geometry.out_height, geometry.out_width);
        tile.scratch_of(form, fitting.min(all), in_blocks, out_blocks)
    }

    /// How a convolution of this size is shared out: not at all where a part would be too small to pay.
    fn cut_conv(&self, macs: u64, output: &Blocked, calls: usize, along: Along) -> Cut {
        let per_call = macs / (output.batch * calls).max(1) as u64;
        let parts = self.options.threads.min((per_call / MACS_PER_PART) as usize).max(1);
        Cut { parts, along }
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

/// Weights transformed for Winograd: the same bits on every instruction set.
fn transformed(tile: WinogradTile, lanes: &[u8], plain: &[Block]) -> Vec<Block> {
    let Some(kernel) = isa::supported()[0].winograd.iter().find(|kernel| kernel.tile == tile) else {
        unreachable!("only tiles that have kernels are chosen")
    };
    let taps = tile.kernel * tile.kernel;
    let mut packed = vec![[0.0; LANES]; plain.len() / taps * tile.positions()];
    kernel.pack(lanes, plain, &mut packed);
    packed
}

/// Blocks between planes, and between pixels of a fragment whose pixels are `steps` apart.
fn strides_of(layout: &Blocked, steps: [usize; 2]) -> [usize; 3] {
    [layout.pixels(), steps[0] * layout.width, steps[1]]
}
