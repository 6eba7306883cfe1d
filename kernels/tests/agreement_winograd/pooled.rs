//! A pool behind a layer: the bits of the layer and then the pool, whatever the scratch and the split.

use std::ops::Range;

use proptest::prelude::*;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::conv::winograd::{Groups, POOL, Pooled, Reads, WeightForm};
use sinew_kernels::isa::{self, Isa, Kernels};
use sinew_kernels::pool::{PoolArgs, PoolKind};
use sinew_kernels::{Block, LANES};

use super::{Layer, Random, STRIDED, assert_same, config, find, layers, require_tables, tile};

/// The largest, the mean, and the largest of MaxMin.
const POOLS: [(PoolKind, bool); 3] =
    [(PoolKind::Max, false), (PoolKind::Average, false), (PoolKind::Max, true)];

fn pooled(table: &Kernels, (kind, halves): (PoolKind, bool)) -> Pooled {
    let run = if halves { table.maxmin_pool.run } else { table.pool.run };
    Pooled { run, kind, halves }
}

/// All slices of the pooled map, and a guard block.
fn unwritten(layer: &Layer, pool: Pooled) -> Vec<Block> {
    let [height, width] = Pooled::size(&layer.geometry);
    let slices = layer.out_blocks() * if pool.halves { 2 } else { 1 };
    vec![[f32::NAN; LANES]; slices * height * width + 1]
}

/// The layer, then the pool over its map.
fn apart(layer: &Layer, pool: Pooled) -> Vec<Block> {
    let map = layer.run(find(Isa::Scalar, layer.tile), WeightForm::Stored, layer.tiles());
    let mut out = unwritten(layer, pool);
    let [out_height, out_width] = Pooled::size(&layer.geometry);
    if out_height * out_width == 0 {
        return out;
    }
    let geometry = ConvGeometry {
        in_height: layer.geometry.out_height,
        in_width: layer.geometry.out_width,
        out_height,
        out_width,
        kernel: [POOL; 2],
        stride: [POOL; 2],
        dilation: [1; 2],
        pad_top: 0,
        pad_left: 0,
    };
    let args = PoolArgs { geometry, kind: pool.kind, input: &map[..map.len() - 1] };
    let len = out.len() - 1;
    let mut slices: Vec<&mut [Block]> = out[..len].chunks_mut(out_height * out_width).collect();
    (pool.run)(&args, 0..out_height * out_width, &mut slices);
    out
}

/// Output blocks `blocks` and rows of tiles `rows` of the pooled map, with scratch for `count` tiles.
fn run_part(
    layer: &Layer,
    (table, pool): (&Kernels, Pooled),
    (form, count): (WeightForm, usize),
    blocks: Range<usize>,
    rows: Range<usize>,
    out: &mut [Block],
) {
    let kernel = find(table.isa, layer.tile);
    let [height, width] = Pooled::size(&layer.geometry);
    let plane = height * width;
    let [start, end] =
        [rows.start, rows.end].map(|row| (row * (layer.tile.output / POOL) * width).min(plane));
    let all = layer.out_blocks();
    let mut slices: Vec<&mut [Block]> = out
        .chunks_mut(plane.max(1))
        .enumerate()
        .filter(|(index, _)| blocks.contains(&(index % all)))
        .map(|(_, plane)| &mut plane[start..end])
        .collect();
    let len = kernel.tile.scratch_of(form, count, layer.lanes.len(), blocks.len(), true);
    let mut scratch = vec![[f32::NAN; LANES]; len];
    kernel.run_pooled(
        Reads { form, groups: Groups::ONE },
        &layer.args(form, blocks),
        pool,
        start..end,
        &mut slices,
        &mut scratch,
    );
}

/// Every table, pool and weight form, cut anywhere.
fn agree(layer: &Layer, count: usize, cuts: u64) {
    let mut random = Random(cuts | 1);
    for kind in POOLS {
        let want = apart(layer, pooled(isa::table(Isa::Scalar).expect("it is always there"), kind));
        for table in isa::supported() {
            let pool = pooled(table, kind);
            for form in [WeightForm::Stored, WeightForm::Plain] {
                let mut out = unwritten(layer, pool);
                let len = out.len() - 1;
                let block = random.below(layer.out_blocks() + 1);
                let rows = Pooled::size(&layer.geometry)[0].div_ceil(layer.tile.output / POOL);
                for blocks in [0..block, block..layer.out_blocks()] {
                    let cut = random.below(rows + 1);
                    for rows in [0..cut, cut..rows] {
                        let now = (table, pool);
                        run_part(layer, now, (form, count), blocks.clone(), rows, &mut out[..len]);
                    }
                }
                let what = format!("{:?} {kind:?} {form:?} in batches of {count}", table.isa);
                assert_same(&out, &want, &what);
            }
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn layers_with_a_pool_agree(layer in layers(), share in 0.0..1.0f64, cuts in any::<u64>()) {
        require_tables();
        let layer = Layer { residual: None, residual_scale: None, max_min: false, ..layer };
        agree(&layer, 1 + (share * layer.tiles() as f64) as usize, cuts);
    }
}

/// Batches that end within a row of tiles, at its end, and after several rows; an odd row and column that no window takes.
#[test]
fn every_kind_of_strip_agrees() {
    for (tile, size) in [
        (tile(4, 3), (13, 21)),
        (tile(2, 3), (9, 10)),
        (tile(6, 3), (14, 19)),
        (tile(4, 5), (8, 17)),
        (STRIDED, (11, 21)),
    ] {
        let layer = Layer::new(tile, size, [tile.kernel / 2; 4], &[16, 5], 6, 21);
        for count in 1..=layer.tiles() {
            agree(&layer, count, count as u64);
        }
    }
}
