//! Layers in groups of channels: every table gives the bits of each group by itself, whatever the cut; what one group reads does
//! not reach another, though several share a block.

use std::ops::Range;

use proptest::prelude::*;
use sinew_kernels::conv::ConvArgs;
use sinew_kernels::conv::winograd::{Groups, Reads, WeightForm};
use sinew_kernels::epilogue::Epilogue;
use sinew_kernels::isa::{self, Isa};
use sinew_kernels::{Block, LANES};

use super::{Layer, Random, TILES, assert_same, config, find, require_tables};

/// Groups side by side, each with a layer of its own size; or, of `spread` channels, several in each.
#[derive(Debug)]
struct Grouped {
    parts: Vec<Layer>,
    /// The output of each, without a guard.
    want: Vec<Vec<Block>>,
    spread: usize,
}

/// Lane `l` of each block is lane `l % width` of the same block of part `l / width`.
fn merged(parts: &[&[Block]], width: usize) -> Vec<Block> {
    (0..parts[0].len())
        .map(|index| std::array::from_fn(|lane| parts[lane / width][index][lane % width]))
        .collect()
}

/// The layer by itself on the scalar table.
fn by_itself(layer: &Layer) -> Vec<Block> {
    let mut out = layer.run(find(Isa::Scalar, layer.tile), WeightForm::Stored, layer.tiles());
    out.pop();
    out
}

/// One block with groups of `width` channels, and its output.
fn sharing(groups: &[Layer], width: usize) -> (Layer, Vec<Block>) {
    let of = |field: fn(&Layer) -> &[Block]| merged(&groups.iter().map(field).collect::<Vec<_>>(), width);
    let first = &groups[0];
    let residual = first.residual.as_ref().map(|_| of(|group| group.residual.as_deref().unwrap_or_default()));
    let layer = Layer {
        lanes: vec![width as u8],
        input: of(|group| &group.input),
        plain: of(|group| &group.plain),
        packed: of(|group| &group.packed),
        bias: of(|group| &group.bias),
        residual,
        residual_scale: None,
        ..*first
    };
    let outputs: Vec<_> = groups.iter().map(by_itself).collect();
    (layer, merged(&outputs.iter().map(|out| &out[..]).collect::<Vec<_>>(), width))
}

impl Grouped {
    fn reads(&self, form: WeightForm, first: usize) -> Reads {
        let groups = Groups { first, blocks: self.parts[0].out_blocks(), spread: self.spread };
        Reads { form, groups }
    }

    fn blocks(&self) -> usize {
        self.parts.len() * self.parts[0].out_blocks()
    }

    fn all(&self, field: impl Fn(&Layer) -> &[Block]) -> Vec<Block> {
        self.parts.iter().flat_map(|part| field(part).to_vec()).collect()
    }

    /// Every table, in two runs of blocks and in batches of `count` tiles.
    fn agree(&self, form: WeightForm, count: usize, cut: usize) {
        let first = &self.parts[0];
        let plane = first.geometry.out_pixels();
        let (input, bias) = (self.all(|part| &part.input), self.all(|part| &part.bias));
        let weights = match form {
            WeightForm::Stored => self.all(|part| &part.packed),
            WeightForm::Plain => self.all(|part| &part.plain),
        };
        let residual =
            first.residual.as_ref().map(|_| self.all(|part| part.residual.as_deref().unwrap_or_default()));
        let (per_block, want) = (weights.len() / self.blocks(), self.want.concat());
        for table in isa::supported() {
            let kernel = find(table.isa, first.tile);
            let mut out = vec![[f32::NAN; LANES]; want.len()];
            let mut run = |blocks: Range<usize>| {
                let args = ConvArgs {
                    geometry: first.geometry,
                    lanes: &first.lanes,
                    input: &input,
                    weights: &weights[blocks.start * per_block..],
                    epilogue: Epilogue {
                        scale: None,
                        bias: &bias[blocks.start..],
                        before: first.before,
                        residual: residual.as_ref().map(|residual| &residual[blocks.start * plane..]),
                        residual_scale: None,
                        after: first.after,
                        max_min: false,
                    },
                };
                let own = first.out_blocks().min(blocks.len());
                let len = kernel.tile.scratch_of(form, count, first.lanes.len(), own, false);
                let mut scratch = vec![[f32::NAN; LANES]; len];
                let mut slices: Vec<_> =
                    out[blocks.start * plane..blocks.end * plane].chunks_mut(plane).collect();
                kernel.run(self.reads(form, blocks.start), &args, 0..plane, &mut slices, &mut scratch);
            };
            let cut = cut % (self.blocks() + 1);
            run(0..cut);
            run(cut..self.blocks());
            assert_same(&out, &want, &format!("{} {form:?}, cut at {cut}", kernel.name));
        }
    }
}

prop_compose! {
    fn grouped()(
        tile in prop::sample::select(&TILES[..]),
        size in (1..20usize, 1..20usize),
        pads in prop::array::uniform4(0..3usize),
        spread in prop::sample::select(&[4, 8, LANES][..]),
        lanes in prop::collection::vec(1..=16u8, 1..3),
        out_blocks in 1..7usize,
        parts in 1..4usize,
        has_residual in any::<bool>(),
        special in any::<bool>(),
        seed in any::<u64>(),
    ) -> Grouped {
        let size = (size.0.max(tile.kernel), size.1.max(tile.kernel));
        let mut random = Random(seed | 1);
        let mut layer = |lanes: &[u8], out_blocks: usize| {
            let seed = random.below(1 << 20) as u64;
            let mut layer = Layer::new(tile, size, pads, lanes, out_blocks, seed);
            layer.residual = has_residual.then(|| random.blocks(out_blocks * layer.geometry.out_pixels()));
            if special && random.below(2) == 0 {
                let at = random.below(layer.input.len());
                layer.input[at][0] = [f32::NAN, f32::INFINITY][random.below(2)];
            }
            layer
        };
        let (parts, want) = (0..parts)
            .map(|_| match spread {
                LANES => {
                    let part = layer(&lanes, out_blocks);
                    let want = by_itself(&part);
                    (part, want)
                }
                width => {
                    let groups: Vec<_> = (0..LANES / width).map(|_| layer(&[width as u8], 1)).collect();
                    sharing(&groups, width)
                }
            })
            .unzip();
        Grouped { parts, want, spread }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn groups_equal_each_by_itself(
        grouped in grouped(),
        count in 1..30usize,
        cut in any::<usize>(),
        stored in any::<bool>(),
    ) {
        require_tables();
        let form = if stored { WeightForm::Stored } else { WeightForm::Plain };
        grouped.agree(form, count, cut);
    }
}
