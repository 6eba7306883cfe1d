//! Products from plain weights, which are transformed inside the run, row by row of the positions.
//!
//! A few input blocks at a time, so that their plain weights and the row stay in a near cache for all rows; the sums continue from
//! memory. With four or eight tiles, and where registers hold the sums of a row of positions for four, the transformed weights
//! never leave the registers.

use super::multiply::{Next, Product};
use super::sizes::{GROUP, ROW, Run};
use super::transform::{Domain, WeightRow};
use super::weights::{Row, transform_row};
use super::{Room, Winograd, channels};
use crate::conv::ConvArgs;
use crate::simd::{Simd, unroll};
use crate::{Block, LANES};

/// How an instruction set goes about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainWeights {
    /// Output blocks that are worked on together: those of a register tile.
    together: usize,
    /// For few tiles, a multiple of [`JOINED_TILES`].
    joined: Option<JoinedFn>,
}

impl PlainWeights {
    /// With register tiles of one output block.
    pub(crate) const BLOCK_BY_BLOCK: PlainWeights = PlainWeights { together: 1, joined: None };
}

/// Tiles that [`joined`] computes: those of a map of 7 or 8 pixels in each direction, in tiles of 4x4 outputs.
const JOINED_TILES: usize = 4;

/// So many tiles are computed four after four, which transforms the weights twice; with more, one transform in memory is less.
const MOST_JOINED: usize = 8;

/// One row of positions for one output block and some input blocks, all lanes of which are live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joined<'a> {
    /// The row.
    index: usize,
    /// `[input block][tap row][tap column][lane]`.
    plain: &'a [Block],
    /// The plain weights that are needed next, or none.
    ahead: &'a [Block],
    /// `[input block][tile]` for each position, `v_stride` blocks from one to the next, from the first of the tiles on.
    v: &'a [Block],
    v_stride: usize,
    /// Tiles of the batch.
    count: usize,
    /// Blocks from one position to the next in `m`.
    m_stride: usize,
    /// Whether the sums continue from what `m` holds.
    resume: bool,
}

/// Computes a row for [`JOINED_TILES`] tiles; `m` is `[tile]` for each position.
pub(crate) type JoinedFn = fn(args: &Joined<'_>, m: &mut [Block]);

/// Gives the kernels of an instruction set register tiles of several output blocks, two for weights that stream, and one of them
/// [`joined`].
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX-512 alone has the registers"))]
pub(crate) fn with_joined<const N: usize>(mut kernels: [Winograd; N], joined: JoinedFn) -> [Winograd; N] {
    for kernel in &mut kernels {
        let has_code = (kernel.tile.output, kernel.tile.kernel) == (4, 3);
        kernel.streamed = 2;
        kernel.plain = PlainWeights { together: GROUP, joined: has_code.then_some(joined) };
    }
    kernels
}

/// Transforms weights and multiplies them in registers: the sums of a row of positions, 24 for `T` = 6, are all there at once. One chain
/// per sum, as in [`column`](super::multiply::column).
#[inline(always)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "AVX-512 alone has the registers"))]
pub(crate) fn joined<S: Simd, const T: usize, const R: usize>(simd: S, args: &Joined<'_>, m: &mut [Block]) {
    let &Joined { index, m_stride, .. } = args;
    let kind = WeightRow::new(simd, Domain::of(T), R, index);
    let mut sums = [[simd.splat(0.0); JOINED_TILES]; T];
    if args.resume {
        unroll!(c < T of T, {
            let m = &m[c * m_stride..][..JOINED_TILES];
            unroll!(i < JOINED_TILES <= 4, { sums[c][i] = simd.load(&m[i]) });
        });
    }
    // The weights ahead are asked for in all rows: the first and the last, which load less for their products, ask for three at a
    // lane, the others for one. The last one overlaps.
    let single = index == 0 || index == T - 1;
    let from = if index == 0 { 0 } else { (2 + index.min(T - 2)) * LANES };
    for (block, plain) in args.plain.chunks_exact(R * R * LANES).enumerate() {
        let mut v: [&[Block]; T] = [&[]; T];
        unroll!(c < T of T, { v[c] = &args.v[c * args.v_stride + block * args.count..][..JOINED_TILES] });
        // where nothing follows, what is here already
        let asked = args.ahead.get(block * R * R * LANES + from..).and_then(|ahead| ahead.get(..3 * LANES));
        let asked = asked.unwrap_or(&plain[..3 * LANES]);
        let plain = plain.as_chunks().0;
        for lane in 0..LANES {
            simd.prefetch(&asked[lane]);
            if single {
                simd.prefetch(&asked[LANES + lane]);
                simd.prefetch(&asked[2 * LANES + lane]);
            }
            let u = transform_row::<S, T, R>(simd, &kind, plain, lane);
            unroll!(c < T of T, {
                unroll!(i < JOINED_TILES <= 4, {
                    sums[c][i] = simd.mul_add(simd.splat(v[c][i][lane]), u[c], sums[c][i]);
                });
            });
        }
    }
    unroll!(c < T of T, {
        let m = &mut m[c * m_stride..][..JOINED_TILES];
        unroll!(i < JOINED_TILES <= 4, { simd.store(&mut m[i], sums[c][i]) });
    });
}

/// Some input blocks and some output blocks of a product.
struct Chunk<'a> {
    /// The plain weights of the first output block, from its first input block of the chunk on.
    plain: &'a [Block],
    lanes: &'a [u8],
    /// Input blocks before.
    skipped: usize,
    /// Output blocks, and those of the room's sums that are before.
    blocks: usize,
    at: usize,
}

impl Winograd {
    /// The products of some output blocks.
    pub(super) fn plain(
        &self,
        spread: usize,
        args: &ConvArgs<'_>,
        block: usize,
        group: usize,
        room: &mut Room<'_>,
    ) {
        let (side, taps) = (self.tile.weight_side(), self.tile.kernel * self.tile.kernel);
        let plain_size = taps * channels(args.lanes);
        let count = room.count;
        // all of them at every position
        let few = count <= MOST_JOINED && count.is_multiple_of(JOINED_TILES) && room.tiles[0][0] == count;
        let joined = self.plain.joined.filter(|_| few);
        let together = if joined.is_some() { 1 } else { self.plain.together };
        for at in (0..group).step_by(together) {
            let blocks = together.min(group - at);
            let row = if blocks == 1 { ROW / 2 } else { ROW };
            let most = (row / (side * blocks * LANES)).max(1);
            let mut plain = &args.weights[(block + at) * plain_size..];
            for (index, lanes) in args.lanes.chunks(most).enumerate() {
                let chunk = Chunk { plain, lanes, skipped: index * most, blocks, at };
                for r in 0..side {
                    match joined.filter(|_| lanes.iter().all(|live| usize::from(*live) == LANES)) {
                        Some(joined) => self.joined_row(joined, r, &chunk, room),
                        None => self.row(r, spread, plain_size, &chunk, room),
                    }
                }
                plain = &plain[taps * channels(lanes)..];
            }
        }
    }

    /// One row of positions, its weights transformed and multiplied at once.
    fn joined_row(&self, joined: JoinedFn, index: usize, chunk: &Chunk<'_>, room: &mut Room<'_>) {
        let taps = self.tile.kernel * self.tile.kernel;
        let (plain, ahead) = chunk.plain.split_at(taps * chunk.lanes.len() * LANES);
        let xi = index * self.tile.domain();
        let count = room.count;
        for tile in (0..count).step_by(JOINED_TILES) {
            let row = Joined {
                index,
                plain,
                ahead,
                v: &room.v[xi * room.v_stride + chunk.skipped * count + tile..],
                v_stride: room.v_stride,
                count,
                m_stride: room.m_stride,
                resume: chunk.skipped > 0,
            };
            joined(&row, &mut room.m[xi * room.m_stride + chunk.at * count + tile..]);
        }
    }

    /// One row of positions, or of transformed weights, its weights written to the scratch and read from there.
    fn row(&self, index: usize, spread: usize, plain_size: usize, chunk: &Chunk<'_>, room: &mut Room<'_>) {
        let &Chunk { plain, lanes, skipped, blocks, at } = chunk;
        let (side, count, k) = (self.tile.weight_side(), room.count, channels(lanes));
        let u_stride = (blocks * k) | 1;
        let row = Row { tile: self.tile, index };
        for j in 0..blocks {
            (self.weights)(&row, &plain[j * plain_size..], lanes, &mut room.row[j * k..], u_stride);
        }
        let at_once = self.tile.at_once(blocks * k, count).min(side);
        let weights = index * side..(index + 1) * side;
        self.tile.each_run(weights, at_once, &room.tiles, |Run { weight, xi, len, tiles }| {
            let product = Product {
                positions: len,
                next: Next { v: room.v_stride, u: u_stride, m: room.m_stride },
                spread,
                v: &room.v[xi * room.v_stride + skipped * count..],
                count,
                tiles,
                lanes,
                u: &room.row[weight % side * u_stride..],
                u_stride: k,
                ahead: &[],
                blocks,
                resume: skipped > 0,
            };
            (self.multiply)(&product, &mut room.m[xi * room.m_stride + at * count..]);
        });
    }
}
