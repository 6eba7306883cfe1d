//! Sizes: of tiles, of what a run starts from, and of what is worked on at once.

use core::ops::{Range, RangeInclusive};

#[cfg(doc)]
use super::Winograd;
use super::batch::{Grid, Kinds};
use super::transform::{self, KINDS};
use crate::LANES;

/// Output blocks whose sums are kept between the products and the output transform.
pub(crate) const GROUP: usize = 4;

/// Blocks of scratch for one row of transformed weights: 50 KB.
pub(super) const ROW: usize = 800;

/// Blocks of weights that are near enough for each register tile to go over: 256 KB.
const NEAR_WEIGHTS: usize = 4 << 10;

/// Blocks of weights, of all positions, that are not asked for ahead, since they are near or few to wait for: 640 KB.
pub(super) const FEW_WEIGHTS: usize = 10 << 10;

/// So many tiles are one register tile, or two.
pub(super) const FEW_TILES: usize = 8;

/// So many tiles meet two streams of weights as fast as they come, on an instruction set with the registers for it.
pub(super) const PAIRED_TILES: RangeInclusive<usize> = FEW_TILES + 1..=16;

/// So many tiles are a few register tiles.
const SOME_TILES: usize = 24;

/// The sizes of one algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WinogradTile {
    /// Outputs of a tile in each direction.
    pub output: usize,
    /// Taps in each direction.
    pub kernel: usize,
    /// Inputs from one output to the next in each direction: 1 or 2.
    pub stride: usize,
}

impl WinogradTile {
    /// Inputs of a tile in each direction.
    pub const fn domain(self) -> usize {
        (self.output - 1) * self.stride + self.kernel
    }

    /// Transformed weights in each direction: the last ones of the `domain` positions have the same where there are fewer.
    pub(super) const fn weight_side(self) -> usize {
        if self.stride == 1 { self.domain() } else { self.domain() - self.output + 1 }
    }

    /// Transformed weights per pair of channels.
    pub const fn weights(self) -> usize {
        self.weight_side() * self.weight_side()
    }

    /// The positions that take the transformed weight `index`.
    fn positions_of(self, index: usize) -> impl Iterator<Item = usize> {
        let (side, domain) = (self.weight_side(), self.domain());
        let [rows, columns] =
            [index / side, index % side].map(|at| at..if at + 1 < side { at + 1 } else { domain });
        rows.flat_map(move |row| columns.clone().map(move |column| row * domain + column))
    }

    /// Positions that register tiles go over one after another, where each has so many blocks of weights: all, as many as a row has
    /// weights, or one.
    pub(super) const fn at_once(self, weights: usize, count: usize) -> usize {
        let all = weights * self.positions();
        let near = all <= NEAR_WEIGHTS || all <= FEW_WEIGHTS && count <= FEW_TILES;
        // with some tiles a call is short beside what it costs, so a row may have half as many weights again
        let row =
            if count <= SOME_TILES && self.stride == 1 { NEAR_WEIGHTS * 3 / 4 } else { NEAR_WEIGHTS / 2 };
        if near && self.stride == 1 {
            self.positions()
        } else if weights * self.weight_side() <= row {
            self.weight_side()
        } else {
            1
        }
    }

    /// Calls `visit` for the positions of some transformed weights, `at_once` at a time, or fewer where not all of these have as many
    /// of the tiles ([`having`](super::batch::having)).
    pub(super) fn each_run(
        self,
        weights: Range<usize>,
        at_once: usize,
        tiles: &Kinds,
        mut visit: impl FnMut(Run),
    ) {
        let (side, domain) = (self.weight_side(), self.domain());
        for weight in weights.step_by(at_once) {
            for xi in self.positions_of(weight) {
                self.split_run(Run { weight, xi, len: at_once, tiles: 0 }, tiles, &mut visit);
            }
            // positions behind such a run take its last weight once more
            let last = weight + at_once - 1;
            for xi in self.positions_of(last).filter(|xi| at_once > 1 && xi % domain >= side) {
                self.split_run(Run { weight: last, xi, len: 1, tiles: 0 }, tiles, &mut visit);
            }
        }
    }

    /// Calls `visit` for the parts of a run that have as many tiles, where that is not none.
    fn split_run(self, mut run: Run, tiles: &Kinds, visit: &mut impl FnMut(Run)) {
        let domain = self.domain();
        let most = |position: usize| transform::most_lacking(domain, position);
        let count = |xi: usize| tiles[most(xi / domain)][most(xi % domain)];
        let all_alike = tiles[0][0] == tiles[KINDS - 1][KINDS - 1];
        while run.len > 0 {
            let own = count(run.xi);
            let len = if all_alike {
                run.len
            } else {
                (0..run.len).take_while(|i| count(run.xi + i) == own).count()
            };
            if own > 0 {
                visit(Run { len, tiles: own, ..run });
            }
            run = Run { weight: run.weight + len, xi: run.xi + len, len: run.len - len, tiles: 0 };
        }
    }

    /// Pairs of points that the last tile lacks in a direction in which so many of its outputs are in the map: it has two inputs and two
    /// outputs less for each, with stride 2 one output. It is narrow where that is not none.
    const fn lacking(self, outputs: usize) -> usize {
        (self.output - outputs) * self.stride / 2
    }

    /// How tiles cover `height` x `width` outputs, `across` of them in a row.
    pub(super) fn grid(self, [height, width]: [usize; 2], across: usize) -> Grid {
        let lacks = [height, width].map(|outputs| match outputs % self.output {
            0 => 0,
            rest => self.lacking(rest),
        });
        let narrow = [(height, lacks[0]), (width, lacks[1])]
            .map(|(outputs, lacks)| if lacks > 0 { outputs / self.output } else { usize::MAX });
        Grid { across, narrow, lacks }
    }

    /// Products of a map of `height` x `width` outputs, per pair of channels.
    pub const fn products(self, height: usize, width: usize) -> usize {
        self.products_along(height) * self.products_along(width)
    }

    /// Products of a row of so many outputs.
    const fn products_along(self, outputs: usize) -> usize {
        let (whole, rest) = (outputs / self.output, outputs % self.output);
        let last = if rest == 0 { 0 } else { self.domain() - 2 * self.lacking(rest) };
        whole * self.domain() + last
    }

    /// Products per tile and pair of channels.
    pub const fn positions(self) -> usize {
        self.domain() * self.domain()
    }

    /// Tiles that cover `height` x `width` outputs.
    pub const fn tiles(self, height: usize, width: usize) -> usize {
        height.div_ceil(self.output) * width.div_ceil(self.output)
    }

    /// By how much the bound on a result's error may exceed that of direct convolution, for sums over so many
    /// channels: whatever the weights, and inputs of one magnitude. `docs/winograd.md` derives it.
    ///
    /// # Panics
    /// For a tile that has no kernels.
    pub fn error_factor(self, channels: usize) -> f64 {
        // Roundings besides one per channel; the largest |A'| (|G| e |G'| * |B'| 1 |B|) |A| over single taps e.
        let (roundings, largest) = match (self.output, self.kernel, self.stride) {
            (2, 3, 1) => (14, 16.0),
            (4, 3, 1) => (18, 175.5),
            (6, 3, 1) => (22, 1565.0),
            (2, 5, 1) => (20, 175.5),
            (4, 5, 1) => (24, 1565.0),
            (2, 3, 2) => (6, 9.0),
            _ => panic!("no such tile"),
        };
        let direct = self.kernel * self.kernel * channels + 2;
        (channels + roundings) as f64 / 2.0 * largest / direct as f64
    }

    /// Blocks of scratch with which `count` tiles are worked on together: what every run takes, and what each tile
    /// adds. With a pool behind the layer ([`Winograd::run_pooled`]) that is the unpooled outputs too.
    pub const fn scratch_of(
        self,
        form: WeightForm,
        count: usize,
        in_blocks: usize,
        out_blocks: usize,
        pooled: bool,
    ) -> usize {
        let [fixed, each] = self.scratch_parts(form, in_blocks, out_blocks, pooled);
        fixed + each * count
    }

    pub(super) const fn scratch_parts(
        self,
        form: WeightForm,
        in_blocks: usize,
        out_blocks: usize,
        pooled: bool,
    ) -> [usize; 2] {
        let group = if out_blocks < GROUP { out_blocks } else { GROUP };
        let outputs = if pooled { self.outputs() } else { 0 };
        // one block more than it holds makes a stride odd
        [self.positions() * 2 + form.row(), self.positions() * (in_blocks + group) + outputs]
    }

    /// Outputs of a tile.
    pub(super) const fn outputs(self) -> usize {
        self.output * self.output
    }
}

/// Positions from `xi` on that take the transformed weights from `weight` on.
pub(super) struct Run {
    pub(super) weight: usize,
    pub(super) xi: usize,
    pub(super) len: usize,
    /// How many tiles have them.
    pub(super) tiles: usize,
}

/// Which weights a run starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WeightForm {
    /// Transformed by [`Winograd::pack`]: `[output block][xi][k][16]`.
    Stored,
    /// Those that direct convolution reads: `[output block][input block][tap row][tap column][live lane][16]`.
    Plain,
}

impl WeightForm {
    /// Blocks of scratch for transformed weights.
    pub(super) const fn row(self) -> usize {
        match self {
            WeightForm::Stored => 0,
            WeightForm::Plain => ROW,
        }
    }
}

/// Which blocks of the input an output block reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The first output block that is computed, counted from the layer's first.
    pub first: usize,
    /// Output blocks of a group; one where a block holds several groups.
    pub blocks: usize,
    /// Channels of a group, in and out, where a block holds several: 4 or 8; 16 where none does.
    pub spread: usize,
}

/// What a run reads: its weights, and which input blocks for which output block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    /// What the weights are.
    pub form: WeightForm,
    /// The groups of channels.
    pub groups: Groups,
}

impl Groups {
    /// All output blocks read all input blocks.
    pub const ONE: Groups = Groups { first: 0, blocks: usize::MAX, spread: LANES };

    /// Whether there is code for groups of so many channels, in and out: of whole blocks, or the same divisor of 16.
    pub fn supports(channels: [usize; 2]) -> bool {
        let [inputs, outputs] = channels;
        channels.iter().all(|channels| channels % LANES == 0)
            || (inputs == outputs && matches!(inputs, 4 | 8))
    }

    /// The groups of some output blocks: each one's number, and its blocks counted from the first computed.
    pub(super) fn of(self, blocks: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let groups = self.first / self.blocks..(self.first + blocks).div_ceil(self.blocks);
        groups.map(move |group| {
            let begin = group.saturating_mul(self.blocks).max(self.first);
            let end = (group + 1).saturating_mul(self.blocks).min(self.first + blocks);
            (group, begin - self.first..end - self.first)
        })
    }
}
