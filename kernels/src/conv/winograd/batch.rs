//! Which tiles are worked on together, and where they lie in a map.

use core::ops::Range;

use super::transform::KINDS;
use crate::conv::ConvGeometry;
use crate::simd::{Simd, ask};
use crate::{Block, LANES};

/// A number for each kind of tiles: by the pairs of points that it lacks along a column, and along a row. Tiles that are worked on
/// together are numbered in this order, so that each position has one run of tiles.
pub(crate) type Kinds = [[usize; KINDS]; KINDS];

/// No tiles.
pub(crate) const NO_TILES: Kinds = [[0; KINDS]; KINDS];

/// How many tiles have the positions that a tile may lack so many pairs to have ([`most_lacking`](super::transform::most_lacking)) in
/// each direction, where there are so many of each kind.
pub(crate) fn having(tiles: &Kinds) -> Kinds {
    let up_to = |down: usize, along: usize| tiles[..=down].iter().flat_map(|row| &row[..=along]).sum();
    core::array::from_fn(|down| core::array::from_fn(|along| up_to(down, along)))
}

/// All of them.
pub(crate) fn sum(a: &Kinds, b: &Kinds) -> Kinds {
    core::array::from_fn(|down| core::array::from_fn(|along| a[down][along] + b[down][along]))
}

/// How tiles cover a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    /// Tiles in a row.
    pub(crate) across: usize,
    /// The row and the column of tiles that are narrow, the last ones; `usize::MAX` where none is.
    pub(crate) narrow: [usize; 2],
    /// How many pairs of points these lack, in the row and in the column.
    pub(crate) lacks: [usize; 2],
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
    /// Its number among those that are worked on together, at positions that a tile may lack no pair, one or two to have along a row:
    /// before the tiles of a narrow row those of a narrow column are counted where these have the position.
    pub(crate) at: [usize; KINDS],
    /// The pairs of points that they lack along a column, and along a row.
    pub(crate) lacks: [usize; 2],
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
        let ([rows, columns], [down, along]) = (self.narrow, self.lacks);
        let (whole, narrow) = (self.across.min(columns), usize::from(self.across > columns));
        let (above, below) = (row.min(rows), row.saturating_sub(rows));
        let (in_row, in_narrow) = if row < rows { (column, 0) } else { (0, column) };
        let mut tiles = NO_TILES;
        tiles[0][0] = above * whole + in_row.min(columns);
        tiles[0][along] += above * narrow;
        tiles[down][0] += below * whole + in_narrow.min(columns);
        tiles[down][along] += below * narrow;
        tiles
    }

    /// How many tiles of a range are of each kind.
    pub(crate) fn count(&self, tiles: &Range<usize>) -> Kinds {
        let (before, end) = (self.before(tiles.start), self.before(tiles.end));
        core::array::from_fn(|down| core::array::from_fn(|along| end[down][along] - before[down][along]))
    }
}

impl Batch<'_> {
    /// Whether some tiles may be narrow.
    pub(crate) fn has_narrow(&self) -> bool {
        self.grid.narrow != [usize::MAX; 2]
    }

    /// Tiles that are worked on together, up to the last one of the batch.
    pub(crate) fn end(&self) -> Kinds {
        sum(&self.before, &self.grid.count(&(self.first..self.first + self.count)))
    }

    /// [`Run::at`] of a tile.
    #[inline(never)]
    fn numbers(&self, index: usize, [down, along]: [usize; 2]) -> [usize; KINDS] {
        let of_kind =
            self.before[down][along] + self.grid.count(&(self.first..self.first + index))[down][along];
        let in_row: usize = self.together[down][..along].iter().sum();
        let above =
            |most: usize| -> usize { self.together[..down].iter().flat_map(|row| &row[..=most]).sum() };
        core::array::from_fn(|most| above(most) + in_row + of_kind)
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
                ..self.grid
            },
            first: 0,
            count: rows.len() * columns.len(),
            before: sum(&self.before, &before),
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
        let Grid { across, narrow, lacks } = batch.grid;
        let lacks_at =
            |direction: usize, at: usize| if at == narrow[direction] { lacks[direction] } else { 0 };
        let lacks = [lacks_at(0, row), lacks_at(1, column)];
        let end = if column == narrow[1] { column + 1 } else { across.min(narrow[1]) };
        let columns = column..end.min(column + batch.count - index);
        self.index += columns.len();
        let at = if batch.has_narrow() {
            batch.numbers(index, lacks)
        } else {
            [batch.before[0][0] + index; KINDS]
        };
        Some(Run { row, columns, index, at, lacks })
    }
}
