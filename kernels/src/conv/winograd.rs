//! Winograd convolution F(m x m, r x r): tiles of m x m outputs from T x T inputs, T = m + r - 1, by T * T
//! products per pair of channels instead of m * m * r * r; with stride 2, T = 2 (m - 1) + r.
//!
//! ```text
//! input  [input block][pixel]                       weights  [output block][input block][tap][live lane]
//!    | B' d B, a batch of tiles                        | G g G', when packing or inside the run
//! v  [xi][input block][tile]                        u  [output block][xi][k]
//!    +---------------------> products, per xi <-----------+
//!                         m  [xi][output block][tile]
//!                            | A' m A, bias, residual, activation
//!                         output  [output block][pixel]
//! ```
//!
//! xi is one of the T * T positions, row by row; all are in blocks of 16 channels. With stride 2 some positions have the same
//! weights: u holds each once. From one xi to the next is an odd number of
//! blocks: with a power of two all T * T lines of a tile would meet in one or two sets of the first-level cache.
//!
//! Order of a result: transforms along a row first for the input, along a column first for weights and sums
//! (`transform` has the order inside); one chain of fused multiply-adds per xi, from +0 over input blocks and live
//! lanes; bias, residual and activation as everywhere. Nothing depends on batches or on how a layer is split.

use core::ops::Range;

use crate::conv::ConvArgs;
use crate::epilogue::Finish;
use crate::{Block, LANES};

pub(crate) mod batch;
pub(crate) mod input;
mod maps;
pub(crate) mod multiply;
pub(crate) mod output;
pub(crate) mod plain;
mod pooled;
pub(crate) mod sizes;
pub(crate) mod transform;
pub(crate) mod weights;

use batch::{Batch, Grid, Kinds, NO_TILES, asks, having};
use input::InputFn;
use multiply::{MultiplyFn, Next, Product};
use output::{Output, OutputFn};
use plain::PlainWeights;
pub use pooled::{POOL, Pooled};
use sizes::{FEW_TILES, FEW_WEIGHTS, GROUP, PAIRED_TILES, Run};
pub use sizes::{Groups, Reads, WeightForm, WinogradTile};
use weights::{Row, WeightsFn};

/// One algorithm on one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Winograd {
    /// `winograd_<outputs of a tile>_<kernel>_<isa>`, with the stride before the last where it is not one.
    pub name: &'static str,
    /// The sizes.
    pub tile: WinogradTile,
    pub(crate) input: InputFn,
    pub(crate) weights: WeightsFn,
    pub(crate) multiply: MultiplyFn,
    pub(crate) output: OutputFn,
    /// Output blocks that are worked on together where [`PAIRED_TILES`] meet stored weights that stream.
    pub(crate) streamed: usize,
    pub(crate) plain: PlainWeights,
    pub(crate) finish: Finish,
}

/// Every algorithm that an instruction set has, from the entry points of that set: generic over the sizes, or, after
/// `any`, one for all of them.
macro_rules! winograd_kernels {
    ($isa:ident: $($part:ident),*) => {
        $crate::conv::winograd::winograd_kernels!(@all @sized $isa $($part),*)
    };
    ($isa:ident: any $($part:ident),*) => {
        $crate::conv::winograd::winograd_kernels!(@all @any $isa $($part),*)
    };
    (@all @$kind:ident $isa:ident $($part:ident),*) => {
        [
            $crate::conv::winograd::winograd_kernels!(@$kind $isa 2 3 1 4 $($part),*),
            $crate::conv::winograd::winograd_kernels!(@$kind $isa 4 3 1 6 $($part),*),
            $crate::conv::winograd::winograd_kernels!(@$kind $isa 6 3 1 8 $($part),*),
            $crate::conv::winograd::winograd_kernels!(@$kind $isa 2 5 1 6 $($part),*),
            $crate::conv::winograd::winograd_kernels!(@$kind $isa 4 5 1 8 $($part),*),
            $crate::conv::winograd::winograd_kernels!(@$kind $isa 2 3 2 5 $($part),*),
        ]
    };
    (
        @sized $isa:ident $m:literal $r:literal $s:literal $t:literal
        $input:ident, $weights:ident, $multiply:ident, $output:ident, $finish:ident
    ) => {
        $crate::conv::winograd::winograd_kernels!(
            @one $isa $m $r $s $input::<$t>, $weights::<$t, $r>, $multiply, $output::<$t, $m>, $finish
        )
    };
    (@any $isa:ident $m:literal $r:literal $s:literal $t:literal $($part:ident),*) => {
        $crate::conv::winograd::winograd_kernels!(@one $isa $m $r $s $($part),*)
    };
    (
        @one $isa:ident $m:literal $r:literal $s:literal
        $input:expr, $weights:expr, $multiply:expr, $output:expr, $finish:expr
    ) => {
        $crate::conv::winograd::Winograd {
            name: $crate::conv::winograd::winograd_kernels!(@name $isa $m $r $s),
            tile: $crate::conv::winograd::WinogradTile { output: $m, kernel: $r, stride: $s },
            input: $input,
            weights: $weights,
            multiply: $multiply,
            output: $output,
            streamed: $crate::conv::winograd::sizes::GROUP,
            plain: $crate::conv::winograd::plain::PlainWeights::BLOCK_BY_BLOCK,
            finish: $finish,
        }
    };
    (@name $isa:ident $m:literal $r:literal 1) => {
        concat!("winograd_", $m, "x", $m, "_", $r, "x", $r, "_", stringify!($isa))
    };
    (@name $isa:ident $m:literal $r:literal $s:literal) => {
        concat!("winograd_", $m, "x", $m, "_", $r, "x", $r, "_stride", $s, "_", stringify!($isa))
    };
}
pub(crate) use winograd_kernels;

/// What one run computes.
struct Work {
    reads: Reads,
    /// Output blocks.
    blocks: usize,
    grid: Grid,
    tiles: Range<usize>,
    /// Tiles that the scratch holds.
    count: usize,
    /// Batches are of a multiple of so many tiles.
    unit: usize,
}

/// The sums of one batch and one output block.
struct Sums<'a> {
    batch: Batch<'a>,
    block: usize,
    /// `[xi][tile]`, `stride` blocks from one xi to the next.
    m: &'a [Block],
    stride: usize,
}

/// The scratch of one batch.
struct Room<'a> {
    /// Its tiles, and those that have each position ([`having`]).
    count: usize,
    tiles: Kinds,
    v: &'a mut [Block],
    v_stride: usize,
    m: &'a mut [Block],
    m_stride: usize,
    /// One row of transformed weights.
    row: &'a mut [Block],
}

impl Winograd {
    /// Computes `pixels` of the output blocks in `out`, one slice each (two with MaxMin). `pixels` starts at a
    /// multiple of `tile.output` rows and ends at one or at the last pixel. As many tiles are worked on together
    /// as `scratch` holds; it holds one at least.
    ///
    /// # Panics
    /// Where an argument does not fit the geometry, or the tile does not.
    pub fn run(
        &self,
        reads: Reads,
        args: &ConvArgs<'_>,
        pixels: Range<usize>,
        out: &mut [&mut [Block]],
        scratch: &mut [Block],
    ) {
        self.check(reads, args, &pixels, out);
        if pixels.is_empty() || out.is_empty() {
            return;
        }
        let geometry = &args.geometry;
        let blocks = args.epilogue.blocks(out.len());
        let count = self.count_in(
            reads.form,
            scratch.len(),
            args.lanes.len(),
            blocks.min(reads.groups.blocks),
            false,
        );
        let size = self.tile.output;
        let across = geometry.out_width.div_ceil(size);
        let tile_row = size * geometry.out_width;
        let first = pixels.start / tile_row * across;
        let tiles = first..pixels.end.div_ceil(tile_row) * across;
        let tail = args.epilogue.tail();
        let grid = self.tile.grid([geometry.out_height, geometry.out_width], across);
        let work = Work { reads, blocks, grid, tiles, count, unit: 1 };
        self.each_block(args, &work, scratch, &mut |sums| {
            let &Sums { batch, block, m, stride } = sums;
            let asks = asks(blocks * geometry.out_pixels(), reads.groups.spread);
            let output = Output { batch, stride, tail, block, start: pixels.start, asks };
            (self.output)(&output, m, out[block]);
            // the rows that this batch has completed
            let row_of = |tile: usize| (tile / across * tile_row).min(pixels.end);
            let (begin, end) = (row_of(batch.first), row_of(batch.first + batch.count));
            let at = (begin - pixels.start, end - begin);
            args.epilogue.finish(self.finish, block..block + 1, (geometry.out_pixels(), begin), at, out);
        });
    }

    /// Computes the sums of all tiles, group by group and batch by batch, and calls `visit` for each output block of each
    /// batch.
    fn each_block(
        &self,
        args: &ConvArgs<'_>,
        work: &Work,
        scratch: &mut [Block],
        visit: &mut dyn FnMut(&Sums<'_>),
    ) {
        let Work { reads: Reads { form, groups }, blocks, grid, tiles, count, unit } = work;
        let in_blocks = args.lanes.len();
        let in_group = in_blocks * args.geometry.in_pixels();
        let (row, scratch) = scratch.split_at_mut(form.row());
        let (units, most) = (tiles.len() / unit, count / unit);
        let batches = units.div_ceil(most);
        for (index, own) in groups.of(*blocks) {
            let input = &args.input[index * in_group..][..in_group];
            let group = self.group(*form, tiles.len(), args.weights.len()).min(own.len());
            for index in 0..batches {
                // even batches: none is left with a few tiles only
                let begin = |index: usize| tiles.start + units * index / batches * unit;
                let (first, count) = (begin(index), begin(index + 1) - begin(index));
                let (geometry, size) = (&args.geometry, self.tile.output);
                let asks = asks(args.input.len(), groups.spread);
                let together = grid.count(&(first..first + count));
                let batch =
                    Batch { geometry, size, grid: *grid, first, count, before: NO_TILES, together, asks };
                let (v_stride, m_stride) = ((in_blocks * count) | 1, (group * count) | 1);
                let (v, m) = scratch.split_at_mut(self.tile.positions() * v_stride);
                (self.input)(&batch, input, v, v_stride);
                let tiles = having(&together);
                let mut room = Room { count, tiles, v, v_stride, m, m_stride, row };
                for block in own.clone().step_by(group) {
                    let group = group.min(own.end - block);
                    self.products((*form, groups.spread), args, block, group, &mut room);
                    for j in 0..group {
                        visit(&Sums { batch, block: block + j, m: &room.m[j * count..], stride: m_stride });
                    }
                }
            }
        }
    }

    /// Output blocks whose sums are kept between the products and the output transform, for a layer of so many tiles and blocks of
    /// weights.
    fn group(&self, form: WeightForm, tiles: usize, weights: usize) -> usize {
        let streams = form == WeightForm::Stored && weights > FEW_WEIGHTS;
        if streams && PAIRED_TILES.contains(&tiles) { self.streamed } else { GROUP }
    }

    /// How many tiles the scratch holds.
    fn count_in(
        &self,
        form: WeightForm,
        scratch: usize,
        in_blocks: usize,
        out_blocks: usize,
        pooled: bool,
    ) -> usize {
        let [fixed, each] = self.tile.scratch_parts(form, in_blocks, out_blocks, pooled);
        let count = scratch.saturating_sub(fixed) / each;
        assert!(count > 0, "the scratch holds one tile at least");
        count
    }

    /// The products of some output blocks.
    fn products(
        &self,
        (form, spread): (WeightForm, usize),
        args: &ConvArgs<'_>,
        block: usize,
        group: usize,
        room: &mut Room<'_>,
    ) {
        match form {
            WeightForm::Stored => self.stored(spread, args, block, group, room),
            WeightForm::Plain => self.plain(spread, args, block, group, room),
        }
    }

    /// From transformed weights.
    fn stored(&self, spread: usize, args: &ConvArgs<'_>, block: usize, group: usize, room: &mut Room<'_>) {
        let count = room.count;
        let channels = channels(args.lanes);
        let weights = self.tile.weights();
        let u_stride = weights * channels;
        let at_once = self.tile.at_once(group * channels, count);
        // a few tiles meet several streams of weights too fast for more than what the hardware asks for by itself
        let asks = args.weights.len() > FEW_WEIGHTS && (count > FEW_TILES || group == 1);
        self.tile.each_run(0..weights, at_once, &room.tiles, |Run { weight, xi, len, tiles }| {
            // one row ahead, or the next of the same blocks; after the last one the next blocks
            let next = weight + at_once.min(self.tile.weight_side());
            let next = if next < weights { (block, next) } else { (block + group, 0) };
            let ahead = next.0 * u_stride + next.1 * channels;
            let product = Product {
                positions: len,
                next: Next { v: room.v_stride, u: channels, m: room.m_stride },
                spread,
                v: &room.v[xi * room.v_stride..],
                count,
                tiles,
                lanes: args.lanes,
                u: &args.weights[block * u_stride + weight * channels..],
                u_stride,
                ahead: args.weights.get(ahead..).filter(|_| asks).unwrap_or(&[]),
                blocks: group,
                resume: false,
            };
            (self.multiply)(&product, &mut room.m[xi * room.m_stride..]);
        });
    }

    /// Transforms plain weights of whole output blocks for [`WeightForm::Stored`]: the same bits on every
    /// instruction set, and those that a run from plain weights uses.
    ///
    /// # Panics
    /// Where the sizes do not fit each other.
    pub fn pack(&self, lanes: &[u8], plain: &[Block], packed: &mut [Block]) {
        let channels = channels(lanes);
        let plain_size = self.tile.kernel * self.tile.kernel * channels;
        let packed_size = self.tile.weights() * channels;
        assert_eq!(
            plain.len() / plain_size * packed_size,
            packed.len(),
            "packed weights of every output block"
        );
        assert_eq!(plain.len() % plain_size, 0, "plain weights of whole output blocks");
        for (plain, packed) in plain.chunks_exact(plain_size).zip(packed.chunks_exact_mut(packed_size)) {
            for (r, packed) in packed.chunks_exact_mut(self.tile.weight_side() * channels).enumerate() {
                let row = Row { tile: self.tile, index: r };
                (self.weights)(&row, plain, lanes, packed, channels);
            }
        }
    }

    /// What the rest relies on.
    fn check(&self, reads: Reads, args: &ConvArgs<'_>, pixels: &Range<usize>, out: &[&mut [Block]]) {
        let blocks = args.epilogue.check(args.geometry.out_pixels(), pixels, out);
        self.check_groups(reads, args, blocks);
        let tile_row = self.tile.output * args.geometry.out_width;
        let whole =
            |pixel: usize| pixel.is_multiple_of(tile_row.max(1)) || pixel == args.geometry.out_pixels();
        assert!(whole(pixels.start) && whole(pixels.end), "parts are cut between rows of tiles");
    }

    /// Of that, the sizes of the operands.
    fn check_groups(&self, Reads { form, groups }: Reads, args: &ConvArgs<'_>, blocks: usize) {
        let in_group = args.lanes.len() * args.geometry.in_pixels();
        let needed = groups.of(blocks).last().map_or(0, |(group, _)| group + 1);
        assert!(args.input.len() >= needed * in_group, "input of every group");
        ConvArgs { input: &args.input[..in_group], ..*args }.check_layer(blocks);
        let spread = groups.spread;
        let serves =
            spread == LANES || matches!(spread, 4 | 8) && groups.blocks == 1 && *args.lanes == [spread as u8];
        assert!(serves, "groups of 4 or 8 channels share a block");
        self.check_layer(form, args, blocks);
    }

    /// Of that, what does not depend on the part.
    fn check_layer(&self, form: WeightForm, args: &ConvArgs<'_>, blocks: usize) {
        let geometry = &args.geometry;
        let WinogradTile { kernel, stride, .. } = self.tile;
        assert!(args.epilogue.scale.is_none(), "a Winograd convolution takes no scale");
        assert_eq!(geometry.kernel, [kernel; 2], "the tile's kernel");
        assert_eq!(
            (geometry.stride, geometry.dilation),
            ([stride; 2], [1; 2]),
            "the tile's stride, no dilation"
        );
        let per_channel = match form {
            WeightForm::Stored => self.tile.weights(),
            WeightForm::Plain => kernel * kernel,
        };
        let needed = blocks * per_channel * channels(args.lanes);
        assert!(args.weights.len() >= needed, "weights of every output block");
    }
}

/// Live channels.
fn channels(lanes: &[u8]) -> usize {
    lanes.iter().copied().map(usize::from).sum()
}
