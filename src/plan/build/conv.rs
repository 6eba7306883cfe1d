//! Convolutions and dense layers: geometry, choice, packed weights, and how the work is cut.

use sinew_kernels::LANES;
use sinew_kernels::activation::Activation;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::conv::winograd::{WeightForm, WinogradTile};
use sinew_kernels::{Block, isa};

use super::{Builder, image_strides, node_error};
use crate::error::Result;
use crate::graph::{Conv, Node, Op, ValueId};
use crate::plan::choose::{self, Algorithm, ConvShape};
use crate::plan::layout::{Blocked, pack_channels};
use crate::plan::pack::{Filters, pack_depthwise};
use crate::plan::step::{ConvWork, PlainConvWork, Step, View, Work};
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
        let (weights, bias) =
            (self.push_weights(&packed), self.push_weights(&pack_channels(bias, &output.layout)));
        let cut = self.cut_conv(&layer, &output.layout, 1, Along::Pixels { unit: layer.geometry.out_width });
        let work = Work::PlainConv(Box::new(PlainConvWork {
            geometry: layer.geometry,
            channels,
            strides: image_strides(&strides),
            input,
            output,
            residual,
            weights_per_block: channels * taps,
            weights,
            bias,
            before: layer.before,
            after: layer.after,
        }));
        self.push_conv(&layer, work, Algorithm::PlainImage, why, cut, 0)
    }

    fn blocked_layer(
        &mut self,
        layer: Layer<'g>,
        group_channels: [usize; 2],
        algorithm: Algorithm,
        why: String,
    ) -> Result<()> {
        let node = layer.node;
        let (weights, bias) = self.weights_of(&layer)?;
        let mut input = self.blocks_of(node.inputs[0])?;
        if layer.groups > 1 && algorithm != Algorithm::Depthwise {
            input = self.one_part(&node.name, input)?;
        }
        let output = self.make_blocked(node.output);
        let residual = self.residual_of(&layer, &output)?;
        let taps = layer.geometry.taps();
        let mut geometry = layer.geometry;
        let mut lanes = input.layout.lanes();
        let packed = match algorithm {
            Algorithm::Depthwise => pack_depthwise(weights, taps, &input.layout),
            _ => {
                let [channels, outputs] = group_channels;
                let layout = if layer.groups == 1 {
                    input.layout.clone()
                } else {
                    Blocked { parts: vec![channels], ..input.layout.clone() }
                };
                lanes = layout.lanes();
                let per_group = (outputs * channels * taps).max(1);
                let pack = |values| Filters { values, outputs, channels, taps }.pack_by_block(&layout);
                let plain: Vec<Block> = weights.chunks(per_group).flat_map(pack).collect();
                match algorithm {
                    Algorithm::Winograd(tile, WeightForm::Stored) => transformed(tile, &lanes, &plain),
                    _ => plain,
                }
            }
        };
        if algorithm == Algorithm::Pointwise {
            let pixels = geometry.in_pixels();
            (geometry.in_height, geometry.out_height) = (1, 1);
            (geometry.in_width, geometry.out_width) = (pixels, pixels);
        }
        let weights_per_block = packed.len() / output.layout.blocks().max(1);
        let (weights, bias) =
            (self.push_weights(&packed), self.push_weights(&pack_channels(bias, &output.layout)));
        let along = match algorithm {
            Algorithm::Dense => Along::Blocks { unit: 1 },
            Algorithm::Depthwise => Along::Blocks { unit: 1 },
            // The larger operand is the one to share out.
            Algorithm::Winograd(..) if weights.len() > input.layout.image_blocks() => Along::Blocks { unit: 4 },
            Algorithm::Winograd(tile, _) => Along::Pixels { unit: tile.output * geometry.out_width },
            _ if weights.len() > input.layout.image_blocks() => Along::Blocks { unit: 2 },
            Algorithm::Pointwise => Along::Pixels { unit: 28 },
            _ => Along::Pixels { unit: geometry.out_width },
        };
        let cut = self.cut_conv(&layer, &output.layout, layer.groups, along);
        let blocks = [lanes.len(), group_channels[1].div_ceil(LANES)];
        let scratch = match algorithm {
            Algorithm::Winograd(tile, form) => {
                let transformed = tile.positions() * group_channels[0] * group_channels[1] * size_of::<f32>();
                self.winograd_scratch(tile, form, &geometry, transformed, blocks)
            }
            _ => 0,
        };
        let work = Work::Conv(Box::new(ConvWork {
            algorithm,
            geometry,
            lanes,
            groups: layer.groups,
            input,
            output,
            residual,
            weights,
            weights_per_block,
            bias,
            before: layer.before,
            after: layer.after,
            group_channels,
        }));
        self.push_conv(&layer, work, algorithm, why, cut, scratch)
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
        let one = tile.scratch_of(form, 2, in_blocks, out_blocks) - tile.scratch_of(form, 1, in_blocks, out_blocks);
        let fitting = (bytes / size_of::<Block>() / one).max(1);
        let all = tile.tiles(geometry.out_height, geometry.out_width);
        tile.scratch_of(form, fitting.min(all), in_blocks, out_blocks)
    }

    /// How a convolution of this size is shared out: not at all where a part would be too small to pay.
    fn cut_conv(&self, layer: &Layer<'_>, output: &Blocked, calls: usize, along: Along) -> Cut {
        let per_call = layer.macs / (output.batch * calls).max(1) as u64;
        let parts = self.options.threads.min((per_call / MACS_PER_PART) as usize).max(1);
        Cut { parts, along }
    }

    fn push_conv(
        &mut self,
        layer: &Layer<'g>,
        work: Work,
        algorithm: Algorithm,
        why: String,
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
            op: layer.node.op.name(),
            algorithm: algorithm.name(),
            why,
            macs: layer.macs,
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
