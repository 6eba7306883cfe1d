//! Weights in the order in which kernels read them: `[output block][k][16]`, one number per live input channel and
//! tap, so that a tile reads one stream per output block.

use sinew_kernels::{Block, LANES};

use super::layout::Blocked;

/// Weights `[O, C, KH, KW]` of one group.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a> {
    /// The numbers, row-major.
    pub values: &'a [f32],
    /// `O`.
    pub outputs: usize,
    /// `C`.
    pub channels: usize,
    /// `KH * KW`.
    pub taps: usize,
}

impl Filters<'_> {
    fn at(&self, output: usize, channel: usize, tap: usize) -> f32 {
        if output < self.outputs {
            self.values[(output * self.channels + channel) * self.taps + tap]
        } else {
            0.0
        }
    }

    fn lanes(&self, block: usize, channel: usize, tap: usize) -> Block {
        std::array::from_fn(|lane| self.at(block * LANES + lane, channel, tap))
    }

    fn blocks(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// `[output block][input block][tap][live lane][16]`: direct, pointwise, im2col and dense. Adds block after block.
    pub fn pack_by_block(&self, input: &Blocked, add: &mut impl FnMut(Block)) {
        let lanes = input.lanes();
        for block in 0..self.blocks() {
            let mut first = 0;
            for &live in &lanes {
                let channels = first..first + usize::from(live);
                for tap in 0..self.taps {
                    channels.clone().for_each(|channel| add(self.lanes(block, channel, tap)));
                }
                first = channels.end;
            }
        }
    }

    /// `[output block][channel][tap][16]`: a plain image.
    pub fn pack_by_channel(&self) -> Vec<Block> {
        let mut packed = Vec::with_capacity(self.blocks() * self.channels * self.taps);
        for block in 0..self.blocks() {
            for channel in 0..self.channels {
                packed.extend((0..self.taps).map(|tap| self.lanes(block, channel, tap)));
            }
        }
        packed
    }
}

/// One filter per channel, `[C, 1, KH, KW]`: `[block][tap][16]`, channels where the layout has them.
pub fn pack_depthwise(values: &[f32], taps: usize, layout: &Blocked) -> Vec<Block> {
    let mut packed = Vec::with_capacity(layout.blocks() * taps);
    let mut first = 0;
    for live in layout.lanes().into_iter().map(usize::from) {
        let at =
            |lane: usize, tap: usize| if lane < live { values[(first + lane) * taps + tap] } else { 0.0 };
        packed.extend((0..taps).map(|tap| std::array::from_fn(|lane| at(lane, tap))));
        first += live;
    }
    packed
}

/// Groups that are no whole blocks, `[O, C / groups, KH, KW]`: `[output block][tap][channel of the group][16]`.
pub fn pack_grouped(values: &[f32], outputs: usize, channels: usize, taps: usize) -> Vec<Block> {
    let filters = Filters { values, outputs, channels, taps };
    let block = |block| {
        let tap = move |tap| (0..channels).map(move |channel| filters.lanes(block, channel, tap));
        (0..taps).flat_map(tap)
    };
    (0..filters.blocks()).flat_map(block).collect()
}
