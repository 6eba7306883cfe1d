//! A layer with a pool behind it: what a batch of tiles gives for one output block is pooled while it lies in a cache, and
//! the unpooled map is stored nowhere. The bits are those of the layer and then the pool.

use core::ops::Range;

use super::batch::{Batch, Grid};
use super::output::Output;
use super::{Reads, Sums, Winograd, Work};
use crate::Block;
use crate::conv::{ConvArgs, ConvGeometry};
use crate::epilogue::Epilogue;
use crate::pool::{PoolArgs, PoolFn, PoolKind};

/// Window and stride of such a pool, in both directions. A tile has an even number of outputs, so no window leaves its tile.
pub const POOL: usize = 2;

/// The pool, of the instruction set that the layer runs on.
#[derive(Clone, Copy, Debug)]
pub struct Pooled {
    /// `pool`, or `maxmin_pool`.
    pub run: PoolFn,
    /// What is taken of a window.
    pub kind: PoolKind,
    /// Whether each output block has two slices: `run` is `maxmin_pool`.
    pub halves: bool,
}

impl Pooled {
    /// Rows and columns of the pooled map: whole windows only.
    pub const fn size(geometry: &ConvGeometry) -> [usize; 2] {
        [geometry.out_height / POOL, geometry.out_width / POOL]
    }

    /// Output blocks of so many slices.
    fn blocks(&self, slices: usize) -> usize {
        if self.halves { slices / 2 } else { slices }
    }

    /// Pools a strip of `rows` rows of `columns` outputs to pixels `at..` of one output block, whose rows are `width`.
    fn strip(
        &self,
        strip: &[Block],
        [rows, columns]: [usize; 2],
        (at, width): (usize, usize),
        block: usize,
        out: &mut [&mut [Block]],
    ) {
        let [down, along] = [rows / POOL, columns / POOL];
        let geometry = ConvGeometry {
            in_height: rows,
            in_width: columns,
            out_height: down,
            out_width: along,
            kernel: [POOL; 2],
            stride: [POOL; 2],
            dilation: [1; 2],
            pad_top: 0,
            pad_left: 0,
        };
        let args = PoolArgs { geometry, kind: self.kind, input: &strip[..rows * columns] };
        // whole rows lie one after the other, parts of rows do not
        let rows_at_once = if along == width { down } else { 1 };
        let (positive, negative) = out.split_at_mut(self.blocks(out.len()));
        for y in (0..down).step_by(rows_at_once) {
            let pixels = y * along..(y + rows_at_once) * along;
            let target = at + y * width..at + y * width + pixels.len();
            let positive = &mut positive[block][target.clone()];
            match negative.get_mut(block) {
                None => (self.run)(&args, pixels, &mut [positive]),
                Some(negative) => (self.run)(&args, pixels, &mut [positive, &mut negative[target]]),
            }
        }
    }
}

/// What of the output is pooled at once: outputs of whole rows of tiles, or of a part of one row of tiles.
struct Strip {
    /// Rows and columns of tiles.
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Winograd {
    /// As [`Winograd::run`], with a pool of windows of 2x2, 2 apart, without a border. `pixels` are of the pooled map,
    /// `geometry.out_height / 2` rows of `geometry.out_width / 2`: from a multiple of `tile.output / 2` rows to one or to the
    /// last pixel. `out` is one slice per output block, or two, all of one half first, where the pool is MaxMin's.
    ///
    /// # Panics
    /// Where an argument does not fit the geometry, or the tile does not; with a residual, or with MaxMin in the epilogue.
    pub fn run_pooled(
        &self,
        reads: Reads,
        args: &ConvArgs<'_>,
        pool: Pooled,
        pixels: Range<usize>,
        out: &mut [&mut [Block]],
        scratch: &mut [Block],
    ) {
        let blocks = self.check_pooled(reads, args, pool, &pixels, out);
        if pixels.is_empty() || blocks == 0 {
            return;
        }
        let count =
            self.count_in(reads.form, scratch.len(), args.lanes.len(), blocks.min(reads.groups.blocks), true);
        let size = self.tile.output;
        let [_, width] = Pooled::size(&args.geometry);
        // tiles without a whole window are left out
        let across = (width * POOL).div_ceil(size);
        let tile_row = size / POOL * width;
        let first = pixels.start / tile_row * across;
        let tiles = first..pixels.end.div_ceil(tile_row) * across;
        // whole rows of tiles where there is room: fewer and longer strips
        let unit = if count >= across { across } else { 1 };
        let grid = self.tile.grid([args.geometry.out_height, args.geometry.out_width], across);
        let work = Work { reads, blocks, grid, tiles, count, unit };
        let (strip, scratch) = scratch.split_at_mut(self.tile.outputs() * count);
        self.each_block(args, &work, scratch, &mut |sums| {
            each_strip(&sums.batch, |part| {
                let size_of_strip = self.outputs_of(args, sums, &part, strip);
                let at = part.rows.start * tile_row + part.columns.start * (size / POOL) - pixels.start;
                pool.strip(strip, size_of_strip, (at, width), sums.block, out);
            });
        });
    }

    /// Transforms some tiles of `sums` to the outputs of a strip; gives their rows and columns.
    fn outputs_of(
        &self,
        args: &ConvArgs<'_>,
        sums: &Sums<'_>,
        part: &Strip,
        strip: &mut [Block],
    ) -> [usize; 2] {
        let size = self.tile.output;
        let [height, width] = Pooled::size(&args.geometry);
        let extent =
            |tiles: &Range<usize>, pooled: usize| (tiles.end * size).min(pooled * POOL) - tiles.start * size;
        let [rows, columns] = [extent(&part.rows, height), extent(&part.columns, width)];
        let map = ConvGeometry { out_height: rows, out_width: columns, ..args.geometry };
        let batch = sums.batch.strip(&part.rows, &part.columns, &map);
        let (tail, block) = (args.epilogue.tail(), sums.block);
        let strip = &mut strip[..rows * columns];
        (self.output)(
            &Output { batch, stride: sums.stride, tail, block, start: 0, asks: false },
            sums.m,
            strip,
        );
        if args.epilogue.has_rest() {
            (self.finish)(&args.epilogue.rest(block, strip.len(), 0, strip.len()), strip, None);
        }
        [rows, columns]
    }

    /// What the rest relies on; gives the number of output blocks.
    fn check_pooled(
        &self,
        reads: Reads,
        args: &ConvArgs<'_>,
        pool: Pooled,
        pixels: &Range<usize>,
        out: &[&mut [Block]],
    ) -> usize {
        let Epilogue { residual, residual_scale, max_min, .. } = args.epilogue;
        assert!(residual.is_none() && residual_scale.is_none(), "a pooled layer takes no residual");
        assert!(!max_min, "MaxMin is the pool's");
        let [height, width] = Pooled::size(&args.geometry);
        let plane = height * width;
        assert!(pixels.start <= pixels.end && pixels.end <= plane, "pixels of the pooled map");
        assert!(!pool.halves || out.len().is_multiple_of(2), "MaxMin fills two halves");
        assert!(out.iter().all(|out| out.len() == pixels.len()), "a slice holds the pixels of the range");
        let blocks = pool.blocks(out.len());
        args.epilogue.check_operands(args.geometry.out_pixels(), blocks);
        self.check_groups(reads, args, blocks);
        let tile_row = self.tile.output / POOL * width;
        let whole = |pixel: usize| pixel.is_multiple_of(tile_row.max(1)) || pixel == plane;
        assert!(whole(pixels.start) && whole(pixels.end), "parts are cut between rows of tiles");
        blocks
    }
}

/// Calls `visit` for each strip of a batch, in the order of its tiles: the end of a row, whole rows, the begin of one.
fn each_strip(batch: &Batch<'_>, mut visit: impl FnMut(Strip)) {
    let &Batch { grid: Grid { across, .. }, first, count, .. } = batch;
    let (mut at, end) = (first, first + count);
    while at < end {
        let (row, column) = (at / across, at % across);
        let whole = (end - at) / across;
        let strip = if column == 0 && whole > 0 {
            Strip { rows: row..row + whole, columns: 0..across }
        } else {
            Strip { rows: row..row + 1, columns: column..across.min(column + end - at) }
        };
        at += strip.rows.len() * strip.columns.len();
        visit(strip);
    }
}
