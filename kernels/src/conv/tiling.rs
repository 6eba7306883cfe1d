//! What direct forms share: cutting an output into runs of equal tiles, and finding a tile's input.
//!
//! None of this is vector code, and it is compiled once for all instruction sets.

use core::ops::Range;

use crate::conv::ConvGeometry;

/// No tile has more pixels.
pub(crate) const WIDEST: usize = 16;

/// No kernel has more taps; larger ones are left to the gather.
pub(crate) const MAX_TAPS: usize = 128;

/// Each number of pixels that tiles of some number of output blocks exist for, rising from one, with the function
/// that computes them.
pub(crate) type Rows<'a, F> = &'a [(usize, F)];

/// The tiles of one number of blocks: the function, the blocks, and each number of pixels.
macro_rules! tiles {
    ($row:ident, $blocks:literal: $($pixels:literal)*) => { &[$(($pixels, $row::<$pixels, $blocks>)),*] };
}
pub(crate) use tiles;

/// Equal tiles side by side in one row of the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Row and first column of the output.
    pub(crate) y: usize,
    pub(crate) x: usize,
    /// Pixels of a tile, and number of tiles. There are several only where no tap is left or right of the image.
    pub(crate) m: usize,
    pub(crate) tiles: usize,
}

/// Cuts columns of row `y` of the output into runs.
pub(crate) fn cut_row<F: Copy>(
    rows: Rows<'_, F>,
    geometry: &ConvGeometry,
    y: usize,
    columns: Range<usize>,
    mut visit: impl FnMut(Run, F),
) {
    let mut x = columns.start;
    while x < columns.end {
        let (m, count, function) = choose(rows, columns.end - x);
        let end = x + m * count;
        while x < end {
            let tiles = geometry.tiles_inside(x, m).clamp(1, (end - x) / m);
            visit(Run { y, x, m, tiles }, function);
            x += tiles * m;
        }
    }
}

/// Cuts a range of pixels at the ends of rows: gives the row and the columns of each part.
pub(crate) fn cut_rows(width: usize, pixels: Range<usize>, mut visit: impl FnMut(usize, Range<usize>)) {
    let mut first = pixels.start;
    while first < pixels.end {
        let (y, x) = (first / width, first % width);
        let len = (pixels.end - first).min(width - x);
        visit(y, x..x + len);
        first += len;
    }
}

/// Chooses tiles for the first of `pixels` in a row: their pixels, their number and the function.
///
/// As few as can be and as even as can be. Where there are no tiles of such a size, the next larger ones and a
/// rest, or two halves.
pub(crate) fn choose<F: Copy>(rows: Rows<'_, F>, pixels: usize) -> (usize, usize, F) {
    let widest = rows[rows.len() - 1].0;
    let tiles = pixels.div_ceil(widest);
    let mut m = pixels.div_ceil(tiles);
    let mut count = pixels - tiles * (m - 1);
    let has = |m| rows.iter().any(|row| row.0 == m);
    if !(has(m) && (count == tiles || has(m - 1))) {
        let larger = rows.iter().map(|row| row.0).find(|&size| size >= m && size <= pixels);
        m = larger.unwrap_or(pixels.div_ceil(2));
        count = pixels / m;
    }
    let (m, row) = rows[rows.iter().rposition(|row| row.0 <= m).unwrap_or(0)];
    (m, count, row)
}

impl ConvGeometry {
    /// Whether all taps of a run are between the left and the right edge.
    pub(crate) fn is_inside(&self, run: &Run) -> bool {
        self.tiles_inside(run.x, run.m) >= run.tiles
    }

    /// How many tiles of `m` pixels from `x` on have all their taps between the left and the right edge.
    fn tiles_inside(&self, x: usize, m: usize) -> usize {
        let stride = self.stride[1];
        let right = x * stride + (m - 1) * stride + (self.kernel[1] - 1) * self.dilation[1];
        if x * stride < self.pad_left || right >= self.in_width + self.pad_left {
            return 0;
        }
        (self.in_width + self.pad_left - 1 - right) / (m * stride) + 1
    }
}

/// Where a tile finds its input, the same for every input channel or block: found once for a run, so that from
/// one tap to the next there is only an addition or two on the way to the next load. (Where they were computed on
/// the way, some twenty cycles passed at each tap in which the multipliers ran dry.)
#[derive(Debug)]
pub(crate) struct Taps {
    taps: [Tap; MAX_TAPS],
    count: usize,
    /// Taps of rows above the image, which come before.
    pub(crate) skipped: usize,
}

/// One tap of a run of tiles.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tap {
    /// The first tile's first pixel, counted from the start of a plane; meaningless where it is left of its line.
    pub(crate) start: usize,
    /// The line that it is in, counted likewise.
    pub(crate) line: usize,
    /// Its column; wraps to a huge one where that is left of the image.
    pub(crate) column: usize,
    /// Whether all pixels of the run are in the line.
    pub(crate) inside: bool,
}

impl Taps {
    pub(crate) fn new() -> Self {
        Self { taps: [Tap::default(); MAX_TAPS], count: 0, skipped: 0 }
    }

    /// The taps in the image, row by row.
    #[inline(always)]
    pub(crate) fn inside(&self) -> &[Tap] {
        &self.taps[..self.count]
    }

    /// Finds the taps of a run in planes whose lines and pixels are `strides` apart.
    pub(crate) fn find(&mut self, geometry: &ConvGeometry, run: &Run, strides: [usize; 2]) {
        let &ConvGeometry { in_width, in_height, kernel, stride, dilation, pad_top, pad_left, .. } = geometry;
        (self.count, self.skipped) = (0, 0);
        for tap_y in 0..kernel[0] {
            // wraps to below the image where it is above
            let y = (run.y * stride[0] + tap_y * dilation[0]).wrapping_sub(pad_top);
            if y >= in_height {
                if self.count == 0 {
                    self.skipped += kernel[1];
                }
                continue;
            }
            let line = y * strides[0];
            for tap_x in 0..kernel[1] {
                let column = (run.x * stride[1] + tap_x * dilation[1]).wrapping_sub(pad_left);
                let inside = column < in_width && (run.m - 1) * stride[1] < in_width - column;
                let start = line.wrapping_add(column.wrapping_mul(strides[1]));
                self.taps[self.count] = Tap { start, line, column, inside };
                self.count += 1;
            }
        }
    }
}
