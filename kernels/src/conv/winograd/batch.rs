//! Which tiles are worked on together, and where they lie in a map.

use core::ops::Range;

use crate::conv::ConvGeometry;
use crate::simd::{Simd, ask};
use crate::{Block, LANES};

/// A run of tiles, numbered row by row over the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) geometry: &'a ConvGeometry,
    /// Outputs of a tile in each direction.
    pub(crate) size: usize,
    /// Tiles in a row.
    pub(crate) across: usize,
    /// The first tile.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
    /// Tiles that are worked on together, those of other maps included: from one input block to the next.
    pub(crate) together: usize,
    /// Whether pixels of the input are asked for ahead.
    pub(crate) asks: bool,
}

/// Tiles of a batch that lie side by side.
pub(crate) struct Run {
    /// In tiles.
    pub(crate) row: usize,
    /// The same.
    pub(crate) columns: Range<usize>,
    /// The first one's number in the batch.
    pub(crate) index: usize,
}

/// How tiles lie in planes of pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    /// Pixels of a plane.
    pub(crate) plane: usize,
    /// Pixels of a row.
    pub(crate) width: usize,
    /// Pixels from one tile to the next in each direction.
    pub(crate) step: usize,
}

/// Whether the pixels of a map of so many blocks are asked for ahead: from 1 MB on, which does not stay in the second-level
/// cache. Where a block holds several groups of channels, asking would take longer than waiting.
pub(crate) fn asks(blocks: usize, spread: usize) -> bool {
    blocks >= 16 << 10 && spread == LANES
}

impl Batch<'_> {
    /// Inputs of a tile in each direction.
    pub(crate) fn domain(&self) -> usize {
        (self.size - 1) * self.geometry.stride[0] + self.geometry.kernel[0]
    }

    /// Inputs from one tile to the next.
    pub(crate) fn step(&self) -> usize {
        self.size * self.geometry.stride[0]
    }

    /// Row and column of a tile of the batch, in tiles.
    #[inline(never)]
    pub(crate) fn place(&self, index: usize) -> (usize, usize) {
        ((self.first + index) / self.across, (self.first + index) % self.across)
    }

    /// The tiles, row by row.
    #[inline(always)]
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> {
        Runs { batch: self, index: 0 }
    }

    /// Asks for the pixels of a tile: `step` rows and columns from its first one on, in a map that begins with pixel `start`. Behind the
    /// last tile of the batch comes the first one in the next plane.
    #[inline(never)]
    pub(crate) fn ask<S: Simd>(&self, simd: S, index: usize, planes: &Planes, map: &[Block], start: usize) {
        let &Planes { plane, width, step } = planes;
        let (row, column) = self.place(index % self.count);
        let first = index / self.count * plane + (row * width + column) * step - start;
        let from = map.get(first..).unwrap_or(&[]);
        ask(simd, from.as_flattened(), width * LANES, step, step * LANES);
    }
}

struct Runs<'a> {
    batch: &'a Batch<'a>,
    index: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline(never)]
    fn next(&mut self) -> Option<Run> {
        let &mut Runs { batch, index } = self;
        if index == batch.count {
            return None;
        }
        let (row, column) = batch.place(index);
        let columns = column..batch.across.min(column + batch.count - index);
        self.index += columns.len();
        Some(Run { row, columns, index })
    }
}
