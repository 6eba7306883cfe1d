//! Packed weights of convolutions and dense layers: one copy for all layers that share them.

use std::ops::Range;

use sinew_kernels::conv::winograd::{WeightForm, WinogradTile};
use sinew_kernels::{Block, LANES, isa};

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
        let mut plain = None;
        let packed = match algorithm {
            Algorithm::Depthwise => pack_depthwise(weights, taps, input),
            Algorithm::Grouped => pack_grouped(weights, output.channels(), channels, taps),
            _ => {
                let per_group = (outputs * channels * taps).max(1);
                let pack = |values| Filters { values, outputs, channels, taps }.pack_by_block(&layout);
                let packed: Vec<Block> = weights.chunks(per_group).flat_map(pack).collect();
                match algorithm {
                    Algorithm::Winograd(tile, WeightForm::Stored) => {
                        let packed = plain.insert(packed);
                        transformed(tile, &lanes, packed)
                    }
                    _ => packed,
                }
            }
        };
        let per_block = packed.len() / output.blocks().max(1);
        let bias = self.push_weights(&pack_channels(bias, output));
        let residual_scale = self.residual_scale_of(layer, output);
        let before = match (algorithm, &plain) {
            (Algorithm::Winograd(tile, _), Some(plain)) => {
                Some((Transform { tile, lanes: lanes.clone() }, &plain[..]))
            }
            _ => None,
        };
        let weights = self.push_layer_weights(&packed, before);
        let packed = Packed { weights, per_block, bias, residual_scale, lanes, group_channels };
        self.packed.insert(key, packed.clone());
        Ok(packed)
    }
}

/// Weights transformed for Winograd: the same bits on every instruction set.
pub(in crate::plan) fn transformed(tile: WinogradTile, lanes: &[u8], plain: &[Block]) -> Vec<Block> {
    let Some(kernel) = isa::supported()[0].winograd.iter().find(|kernel| kernel.tile == tile) else {
        unreachable!("only tiles that have kernels are chosen")
    };
    let taps = tile.kernel * tile.kernel;
    let mut packed = vec![[0.0; LANES]; plain.len() / taps * tile.positions()];
    kernel.pack(lanes, plain, &mut packed);
    packed
}
