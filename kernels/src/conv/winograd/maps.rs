//! One layer on several maps: fragments of one map, or images. Their tiles are worked on together, so that weights which
//! stay in no cache are read once for all of them, and small maps fill the register tiles.

use core::ops::Range;

use super::batch::{Batch, Kinds, NO_TILES, asks, having};
use super::output::Output;
use super::{GROUP, Room, WeightForm, Winograd};
use crate::conv::{ConvArgs, ConvGeometry};
use crate::{Block, LANES};

impl Winograd {
    /// Computes all pixels of all maps: `maps` are the layer on each of them, the same weights and lanes in each;
    /// `out` is one slice per map, `[output block][pixel]`. The bits are those of [`Winograd::run`] on each map.
    ///
    /// # Panics
    /// Where an argument does not fit the geometry, or the tile does not; with MaxMin.
    pub fn run_maps(
        &self,
        form: WeightForm,
        maps: &[ConvArgs<'_>],
        out: &mut [&mut [Block]],
        scratch: &mut [Block],
    ) {
        assert_eq!(maps.len(), out.len(), "one output per map");
        let Some(layer) = maps.first() else { return };
        let blocks = out[0].len() / layer.geometry.out_pixels();
        for (args, out) in maps.iter().zip(&*out) {
            assert!(!args.epilogue.max_min, "maps have one output each");
            assert_eq!(args.lanes, layer.lanes, "lanes of one layer");
            assert_eq!(out.len(), blocks * args.geometry.out_pixels(), "an output of every block");
            args.check_layer(blocks);
            args.epilogue.check_operands(args.geometry.out_pixels(), blocks);
            self.check_layer(form, args, blocks);
        }
        let in_blocks = layer.lanes.len();
        let group = blocks.min(GROUP);
        let most = self.count_in(form, scratch.len(), in_blocks, group, false);
        let tiles: usize = maps.iter().map(|args| self.tiles_of(args)).sum();
        let batches = tiles.div_ceil(most);
        let (row, scratch) = scratch.split_at_mut(form.row());
        for index in 0..batches {
            let now = tiles * index / batches..tiles * (index + 1) / batches;
            let count = now.len();
            let (v_stride, m_stride) = ((in_blocks * count) | 1, (group * count) | 1);
            let (v, m) = scratch.split_at_mut(self.tile.positions() * v_stride);
            let together = self.together(maps, &now);
            self.each_map(maps, &now, together, |map, batch| {
                (self.input)(&batch, maps[map].input, v, v_stride);
            });
            let tiles = having(&together);
            let mut room = Room { count, tiles, v, v_stride, m, m_stride, row };
            for block in (0..blocks).step_by(group) {
                let group = group.min(blocks - block);
                self.products((form, LANES), layer, block, group, &mut room);
                self.each_map(maps, &now, together, |map, batch| {
                    let (tail, plane) = (maps[map].epilogue.tail(), maps[map].geometry.out_pixels());
                    let asks = asks(out[map].len(), LANES);
                    for j in 0..group {
                        let block = block + j;
                        let output = Output { batch, stride: m_stride, tail, block, start: 0, asks };
                        let out = &mut out[map][block * plane..][..plane];
                        (self.output)(&output, &room.m[j * count..], out);
                    }
                });
            }
        }
        for (args, out) in maps.iter().zip(out) {
            let plane = args.geometry.out_pixels();
            for (block, out) in out.chunks_exact_mut(plane).enumerate().filter(|_| args.epilogue.has_rest()) {
                (self.finish)(&args.epilogue.rest(block, plane, 0, plane), out, None);
            }
        }
    }

    fn tiles_of(&self, args: &ConvArgs<'_>) -> usize {
        self.tile.tiles(args.geometry.out_height, args.geometry.out_width)
    }

    /// How many of the tiles `now`, which are counted over all maps, are of each kind.
    fn together(&self, maps: &[ConvArgs<'_>], now: &Range<usize>) -> Kinds {
        let mut all = NO_TILES;
        self.each_map(maps, now, all, |_, batch| all = batch.end());
        all
    }

    /// Calls `visit` for each map that has some of the tiles `now`, which are counted over all maps: with the map and its
    /// tiles, of which `together` are worked on together.
    fn each_map<'a>(
        &self,
        maps: &'a [ConvArgs<'a>],
        now: &Range<usize>,
        together: Kinds,
        mut visit: impl FnMut(usize, Batch<'a>),
    ) {
        let size = self.tile.output;
        let (mut before, mut of_kinds) = (0, NO_TILES);
        for (map, args) in maps.iter().enumerate() {
            let end = before + self.tiles_of(args);
            let own = now.start.clamp(before, end)..now.end.clamp(before, end);
            if !own.is_empty() {
                let ConvGeometry { out_height, out_width, .. } = args.geometry;
                let batch = Batch {
                    geometry: &args.geometry,
                    size,
                    grid: self.tile.grid([out_height, out_width], out_width.div_ceil(size)),
                    first: own.start - before,
                    count: own.len(),
                    before: of_kinds,
                    together,
                    asks: asks(args.input.len(), LANES),
                };
                of_kinds = batch.end();
                visit(map, batch);
            }
            before = end;
        }
    }
}
