//! Which tiles are worked on together, and where they lie in a map.

use core::ops::Range;

use crate::conv::ConvGeometry;
use crate::simd::{Simd, ask};
use crate::{Block, LANES};

/// A number for each kind of tiles: whole ones; those of a narrow column; of a narrow row; and that of both. Tiles that are worked on
/// together are numbered in this order, so that each position has one run of tiles: narrow ones lack some
/// ([`WinogradTile::class`](super::WinogradTile)).
pub(crate) type Kinds = [usize; 4];

/// How many tiles have the positions of each class, when there are so many of each kind.
pub(crate) fn tiles_of_classes([whole, column, row, corner]: Kinds) -> [usize; 4] {
    [whole + column + row + corner, whole + row, whole + column, whole]
}

/// How tiles cover a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Tiles in a row.
    pub(crate) across: usize,
    /// The row and the column of tiles that are narrow, the last ones; `usize::MAX` where none is.
    pub(crate) narrow: [usize; 2],
}

/// A run of tiles, numbered row by row over the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) geometry: &'a ConvGeometry,
    /// Outputs of a tile in each direction.
    pub(crate) size: usize,
    pub(crate) grid: Grid,
    /// The first tile.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
    /// Tiles before the first one that are worked on together with it, of other maps.
    pub(crate) before: Kinds,
    /// All tiles that are worked on together.
    pub(crate) together: Kinds,
    /// Whether pixels of the input are asked for ahead.
    pub(crate) asks: bool,
}

/// Tiles of a batch that lie side by side, all of one kind.
pub(crate) struct Run {
    /// In tiles.
    pub(crate) row: usize,
    /// The same.
    pub(crate) columns: Range<usize>,
    /// The first one's number in the batch.
    pub(crate) index: usize,
    /// Its number among those that are worked on together: at positions that tiles of a narrow column have, and at those that they
    /// lack. Only in a narrow row these differ, before which the tiles of a narrow column are counted in the first case.
    pub(crate) at: [usize; 2],
    /// Whether they have few rows, and few columns.
    pub(crate) narrow: [bool; 2],
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

impl Grid {
    /// How many of the tiles before this one are of each kind.
    fn before(&self, tile: usize) -> Kinds {
        let (row, column) = (tile / self.across, tile % self.across);
        let [rows, columns] = self.narrow;
        let (whole, narrow) = (self.across.min(columns), usize::from(self.across > columns));
        let (above, below) = (row.min(rows), row.saturating_sub(rows));
        let (in_row, in_narrow) = if row < rows { (column, 0) } else { (0, column) };
        [
            above * whole + in_row.min(columns),
            above * narrow,
            below * whole + in_narrow.min(columns),
            below * narrow,
        ]
    }

    /// How many tiles of a range are of each kind.
    pub(crate) fn count(&self, tiles: &Range<usize>) -> Kinds {
        let (before, end) = (self.before(tiles.start), self.before(tiles.end));
        core::array::from_fn(|kind| end[kind] - before[kind])
    }
}

impl Batch<'_> {
    /// Whether some tiles may be narrow.
    pub(crate) fn has_narrow(&self) -> bool {
        self.grid.narrow != [usize::MAX; 2]
    }

    /// Tiles that are worked on together, up to the last one of the batch.
    pub(crate) fn end(&self) -> Kinds {
        let own = self.grid.count(&(self.first..self.first + self.count));
        core::array::from_fn(|kind| self.before[kind] + own[kind])
    }

    /// [`Run::at`] of a tile.
    #[inline(never)]
    fn numbers(&self, index: usize, narrow: [bool; 2]) -> [usize; 2] {
        let kind = usize::from(narrow[0]) << 1 | usize::from(narrow[1]);
        let of_kind = self.before[kind] + self.grid.count(&(self.first..self.first + index))[kind];
        let [whole, in_column, in_row, _] = self.together;
        let at = of_kind + [0, whole, whole + in_column, whole + in_column + in_row][kind];
        [at, if kind == 2 { of_kind + whole } else { at }]
    }

    /// Some of the tiles, whole rows or a part of one, as those of a map of their own.
    pub(crate) fn strip<'a>(
        &self,
        rows: &Range<usize>,
        columns: &Range<usize>,
        geometry: &'a ConvGeometry,
    ) -> Batch<'a> {
        let across = self.grid.across;
        let before = self.grid.count(&(self.first..rows.start * across + columns.start));
        let [row, column] = self.grid.narrow;
        let beyond = |narrow: usize, skipped| if narrow == usize::MAX { narrow } else { narrow - skipped };
        Batch {
            geometry,
            grid: Grid {
                across: columns.len(),
                narrow: [beyond(row, rows.start), beyond(column, columns.start)],
            },
            first: 0,
            count: rows.len() * columns.len(),
            before: core::array::from_fn(|kind| self.before[kind] + before[kind]),
            asks: false,
            ..*self
        }
    }

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
        ((self.first + index) / self.grid.across, (self.first + index) % self.grid.across)
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
        let narrow = [row == batch.grid.narrow[0], column == batch.grid.narrow[1]];
        let end = if narrow[1] { column + 1 } else { batch.grid.across.min(batch.grid.narrow[1]) };
        let columns = column..end.min(column + batch.count - index);
        self.index += columns.len();
        let at = if batch.has_narrow() { batch.numbers(index, narrow) } else { [batch.before[0] + index; 2] };
        Some(Run { row, columns, index, at, narrow })
    }
}
