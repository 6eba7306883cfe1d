//! Packed weights of convolutions and dense layers: one copy for all layers that share them.

use std::ops::Range;

use sinew_kernels::conv::winograd::WeightForm;
use sinew_kernels::{Block, LANES};

use super::Layer;
use crate::error::Result;
use crate::graph::ValueId;
use crate::plan::build::{Builder, node_error};
use crate::plan::choose::Algorithm;
use crate::plan::f16::Transform;
use crate::plan::layout::{Blocked, pack_channels};
use crate::plan::pack::{Filters, pack_depthwise, pack_grouped};

/// A layer's packed weights and bias.
#[derive(Clone)]
pub(in crate::plan) struct Packed {
    pub(super) weights: Range<usize>,
    pub(super) per_block: usize,
    pub(super) bias: Range<usize>,
    pub(super) residual_scale: Option<Range<usize>>,
    /// Live channels of each input block of a group.
    pub(super) lanes: Vec<u8>,
    pub(super) group_channels: [usize; 2],
}

/// What packed weights depend on.
#[derive(PartialEq, Eq, Hash)]
pub(in crate::plan) struct PackedKey {
    constants: [ValueId; 2],
    /// Whether the weights hold the shortcut, and the residual's factors where it is added.
    folded: bool,
    residual_scale: Option<ValueId>,
    algorithm: Algorithm,
    groups: usize,
    parts: [Vec<usize>; 2],
}

impl<'g> Builder<'g> {
    pub(super) fn weights_of<'l>(&self, layer: &'l Layer<'g>) -> Result<(&'l [f32], &'g [f32])> {
        let constants =
            (self.graph.constant(layer.node.inputs[1]), self.graph.constant(layer.node.inputs[2]));
        match constants {
            (Some(weights), Some(bias)) => Ok((layer.folded.as_deref().unwrap_or(weights), bias)),
            _ => Err(node_error(layer.node, "its weights and bias must be constants")),
        }
    }

    /// The residual's factors, packed.
    pub(super) fn residual_scale_of(&mut self, layer: &Layer<'g>, output: &Blocked) -> Option<Range<usize>> {
        let scale = self.graph.constant(layer.residual_scale?)?;
        Some(self.push_weights(&pack_channels(scale, output)))
    }

    /// Packs weights and bias.
    pub(super) fn pack_layer(
        &mut self,
        layer: &Layer<'g>,
        algorithm: Algorithm,
        group_channels: [usize; 2],
        input: &Blocked,
        output: &Blocked,
    ) -> Result<Packed> {
        // Fragments of one map have the same weights.
        let key = PackedKey {
            constants: [layer.node.inputs[1], layer.node.inputs[2]],
            folded: layer.folded.is_some(),
            residual_scale: layer.residual_scale,
            algorithm,
            groups: layer.groups,
            parts: [input.parts.clone(), output.parts.clone()],
        };
        if let Some(packed) = self.packed.get(&key) {
            return Ok(packed.clone());
        }
        let (weights, bias) = self.weights_of(layer)?;
        let taps = layer.geometry.taps();
        let [channels, outputs] = group_channels;
        let layout = match layer.groups {
            1 => input.clone(),
            _ => Blocked { parts: vec![channels], ..input.clone() },
        };
        let lanes = layout.lanes();
        let bias = self.push_weights(&pack_channels(bias, output));
        let residual_scale = self.residual_scale_of(layer, output);
        let start = self.weights.len();
        let per_group = (outputs * channels * taps).max(1);
        // Winograd's of groups that share blocks are these before their transform: one input block with so many live lanes
        let of_shared_blocks = algorithm == Algorithm::Grouped || layer.groups > 1 && channels < LANES;
        let pack = |add: &mut dyn FnMut(Block)| {
            if of_shared_blocks {
                return pack_grouped(weights, output.channels(), channels, taps).into_iter().for_each(add);
            }
            for values in weights.chunks(per_group) {
                let filters = Filters { values, outputs, channels, taps };
                filters.pack_by_block(&layout, &mut |block| add(block));
            }
        };
        let transform = match algorithm {
            Algorithm::Winograd(tile, WeightForm::Stored) => {
                Some(Transform::Winograd { tile, lanes: lanes.clone() })
            }
            Algorithm::Strassen => Some(Transform::Strassen { in_blocks: lanes.len() }),
            _ => None,
        };
        let mut plain = Vec::new();
        match &transform {
            Some(transform) => {
                plain.reserve(weights.len().div_ceil(LANES));
                pack(&mut |block| plain.push(block));
                let Some(blocks) = transform.packed_blocks(plain.len()) else {
                    unreachable!("only what has kernels is chosen")
                };
                self.weights.resize(start + blocks, [0.0; LANES]);
                transform.apply(&plain, &mut self.weights[start..]);
            }
            None if algorithm == Algorithm::Depthwise => {
                self.push_weights(&pack_depthwise(weights, taps, input));
            }
            None => pack(&mut |block| self.weights.push(block)),
        }
        let before = transform.map(|transform| (transform, &plain[..]));
        let weights = self.layer_weights(start, before);
        let per_block = weights.len() / output.blocks().max(1);
        let packed = Packed { weights, per_block, bias, residual_scale, lanes, group_channels };
        self.packed.insert(key, packed.clone());
        Ok(packed)
    }
}
