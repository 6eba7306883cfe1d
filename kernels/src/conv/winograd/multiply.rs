//! The products: for each xi, sums over the input channels for some tiles times some output blocks.
//!
//! Where they are few, register tiles go over all xi one after another: choosing tiles and calling them would take as long as
//! they do. Groups of channels that share a block with others read their own channels of it, as in `grouped.rs`.

use core::ops::RangeInclusive;

use crate::conv::direct::accumulate;
use crate::conv::live;
use crate::conv::tiling::{Rows, choose};
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// The products of one xi, or of some that follow each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    /// How many, and blocks from one to the next.
    pub(crate) positions: usize,
    pub(crate) next: Next,
    /// Channels of a group of which a block holds several; 16 where all outputs of a block read all its inputs.
    pub(crate) spread: usize,
    /// `[input block][tile]`.
    pub(crate) v: &'a [Block],
    /// Tiles of the batch: blocks from one input block to the next, and from one output block to the next.
    pub(crate) count: usize,
    /// How many of them, from the first one on, are computed.
    pub(crate) tiles: usize,
    /// Live channels of each input block.
    pub(crate) lanes: &'a [u8],
    /// `[output block][k]`, one k per live channel.
    pub(crate) u: &'a [Block],
    /// Blocks from one output block to the next in `u`, and in `ahead`.
    pub(crate) u_stride: usize,
    /// The weights that are needed next, or none: tiles ask for them a few at a time, so that they do not come from memory then.
    pub(crate) ahead: &'a [Block],
    /// Output blocks.
    pub(crate) blocks: usize,
    /// Whether the sums continue from what `m` holds.
    pub(crate) resume: bool,
}

/// Blocks from one xi to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Next {
    pub(crate) v: usize,
    pub(crate) u: usize,
    pub(crate) m: usize,
}

/// Computes all tiles and blocks of a product; `m` is `[output block][tile]` for each xi.
pub(crate) type MultiplyFn = fn(&Product<'_>, m: &mut [Block]);

/// `groups` tiles of registers, one below the other, the first at tile `first`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    first: usize,
    groups: usize,
}

/// Computes register tiles of a fixed number of tiles and output blocks.
pub(crate) type ColumnFn = fn(&Product<'_>, Column, m: &mut [Block]);

/// The register tiles of `blocks` output blocks: how many tiles each takes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers<'a> {
    pub(crate) blocks: usize,
    pub(crate) rows: Rows<'a, ColumnFn>,
}

/// The register tiles of one number of blocks: the function, the blocks, and each number of tiles; of small groups one block and
/// the channels of a group.
macro_rules! registers {
    ($column:ident, $blocks:literal: $($rows:literal)*) => { registers!($column, $blocks, 16: $($rows)*) };
    ($column:ident, $blocks:literal, $group:literal: $($rows:literal)*) => {
        $crate::conv::winograd::multiply::Registers {
            blocks: $blocks,
            rows: &[$(($rows, $column::<$rows, $blocks, $group>)),*],
        }
    };
}
pub(crate) use registers;

/// Weights of a chunk of the reduction: they stay in the first-level cache while the tiles of a batch pass over them.
const CHUNK_BYTES: usize = 16 << 10;

/// Fewer weights stay there by themselves.
const PANEL_BYTES: usize = 40 << 10;

/// For so many tiles of a batch a reduction is cut: with more, loading and storing sums between chunks costs more than weights from
/// the second-level cache do; fewer are one tile of registers, which reads its weights once.
const CHUNKED_TILES: RangeInclusive<usize> = 7..=24;

/// Splits a product over the register tiles of one instruction set, those of most blocks first, one block last, and its
/// reduction into chunks where that pays; between chunks the sums lie in `m`.
#[inline(always)]
pub(crate) fn split(choices: &[Registers<'_>], product: &Product<'_>, m: &mut [Block]) {
    let Product { v, count, tiles, lanes, u, .. } = *product;
    let in_blocks = lanes.len();
    let panel = choices[0].blocks.min(product.blocks) * in_blocks * size_of::<[Block; LANES]>();
    let chunked = panel > PANEL_BYTES && CHUNKED_TILES.contains(&tiles);
    let chunks = if chunked { panel.div_ceil(CHUNK_BYTES) } else { 1 };
    let mut begin = 0;
    for index in 0..chunks {
        let part = in_blocks * index / chunks..in_blocks * (index + 1) / chunks;
        let end = begin + live(&lanes[part.clone()]);
        let chunk = Product {
            v: &v[part.start * count..],
            lanes: &lanes[part],
            u: &u[begin..],
            ahead: if index + 1 < chunks { &u[end..] } else { product.ahead },
            resume: product.resume || index > 0,
            ..*product
        };
        split_chunk(choices, &chunk, m);
        begin = end;
    }
}

/// One chunk.
fn split_chunk(choices: &[Registers<'_>], product: &Product<'_>, m: &mut [Block]) {
    let Product { count, tiles, .. } = *product;
    let mut done = 0;
    for choice in choices {
        let end = product.blocks - (product.blocks - done) % choice.blocks;
        let mut first = 0;
        while done < end && first < tiles {
            // no tile over another one: sums that continue from memory would be added to twice
            let (size, groups) = choose(choice.rows, tiles - first);
            let (rows, column) = choice.rows[size];
            for block in (done..end).step_by(choice.blocks) {
                let skip = block * product.u_stride;
                let ahead = product.ahead.get(skip..).unwrap_or(&[]);
                let part = Product { u: &product.u[skip..], ahead, ..*product };
                let m = &mut m[block * count..];
                column(&part, Column { first, groups }, m);
            }
            first += rows * groups;
        }
        done = end;
    }
}

/// One chain per sum, over input blocks and live lanes, from +0 or from the stored sum.
#[inline(always)]
pub(crate) fn column<S: Simd, const ROWS: usize, const BLOCKS: usize, const G: usize>(
    simd: S,
    product: &Product<'_>,
    Column { first, groups }: Column,
    m: &mut [Block],
) {
    let Product { count, tiles, lanes, u_stride, ahead, resume, positions, next, .. } = *product;
    // the tile's share of the weights ahead, for each block of its input
    let step = (ROWS * LANES).div_ceil(tiles) * BLOCKS;
    for position in 0..positions {
        let (v, u) = (&product.v[position * next.v..], &product.u[position * next.u..]);
        let m = &mut m[position * next.m..][..BLOCKS * count];
        let ahead = ahead.get(position * next.u..).unwrap_or(&[]);
        for group in 0..groups {
            let at = first + group * ROWS;
            let mut sums = [[simd.splat(0.0); BLOCKS]; ROWS];
            if resume {
                unroll!(j < BLOCKS <= 4, {
                    let m = &m[j * count + at..][..ROWS];
                    unroll!(i < ROWS <= 16, { sums[i][j] = simd.load(&m[i]) });
                });
            }
            let mut k = 0;
            let asked = at * lanes.len() * LANES / tiles;
            for block in 0..lanes.len() {
                // of one output block after the other, what this block of the input is to ask for of all
                let from = block % BLOCKS * u_stride + asked + block / BLOCKS * step;
                // as many at a time as there are blocks: a plain loop over all is unrolled so far that its ends take longer
                let mut share = ahead.get(from..).unwrap_or(&[]);
                for _ in 0..(step / BLOCKS).min(share.len() / BLOCKS) {
                    let some;
                    (some, share) = share.split_at(BLOCKS);
                    unroll!(j < BLOCKS <= 4, { simd.prefetch(&some[j]) });
                }
                let live = usize::from(lanes[block]).min(G);
                let tiles = &v[block * count + at..][..ROWS];
                let mut weights: [&[Block]; BLOCKS] = [&[]; BLOCKS];
                unroll!(j < BLOCKS <= 4, { weights[j] = &u[j * u_stride + k..][..live] });
                sums = accumulate::<S, ROWS, BLOCKS, G>(
                    simd,
                    sums,
                    weights,
                    #[inline(always)]
                    |i| &tiles[i],
                );
                k += live;
            }
            unroll!(j < BLOCKS <= 4, {
                let m = &mut m[j * count + at..][..ROWS];
                unroll!(i < ROWS <= 16, { simd.store(&mut m[i], sums[i][j]) });
            });
        }
    }
}
