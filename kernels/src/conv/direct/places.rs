//! How a batch of pixels is cut into tiles, and where the taps of each find their input.

use core::ops::Range;

use super::is_pointwise;
use super::tile::RowFn;
use crate::conv::ConvGeometry;
use crate::conv::tiling::{MAX_TAPS, Rows, WIDEST, choose};

/// The place of a pixel left or right of the image.
pub(super) const OUTSIDE: u32 = u32::MAX;
/// The distance of pixels that have no common one.
pub(super) const UNEVEN: u32 = 0;

/// A batch of pixels cut into tiles, and where the taps of each find their input: found once for all output blocks and
/// the whole reduction, so that from one tap to the next there are only a few loads on the way to the next input.
#[derive(Debug)]
pub(crate) struct Places {
    runs: [Option<Run>; RUNS],
    count: usize,
    places: [u32; PLACES],
}

/// A batch has at most so many runs and places: 9 KB of stack. One tile with the most taps fits.
const RUNS: usize = 8;
const PLACES: usize = 2304;
const _: () = assert!(PLACES >= MAX_TAPS * (WIDEST + 1));

/// Equal tiles one after another, all of whose pixels have the same tap rows inside the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Which number of pixels of those that there are tiles of.
    pub(super) size: usize,
    pub(super) tiles: usize,
    /// The first of its places.
    places: usize,
    /// Taps in the image, and those in rows above it.
    pub(super) taps: usize,
    pub(super) skipped: usize,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self { runs: [None; RUNS], count: 0, places: [0; PLACES] }
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs[..self.count].iter().flatten()
    }

    pub(super) fn tiles(&self) -> usize {
        self.runs().map(|run| run.tiles).sum()
    }

    /// The places of the tiles of a run.
    pub(super) fn of(&self, run: &Run) -> &[u32] {
        &self.places[run.places..]
    }

    /// Cuts as many of the pixels as there is room for; gives the first one that is left.
    pub(crate) fn find(
        &mut self,
        geometry: &ConvGeometry,
        rows: Rows<'_, RowFn>,
        pixels: Range<usize>,
    ) -> usize {
        let width = geometry.out_width;
        self.count = 0;
        let (mut pixel, mut used) = (pixels.start, 0);
        while pixel < pixels.end && self.count < RUNS {
            let y = pixel / width;
            let tap_rows = geometry.tap_rows(y);
            let like = |y: &usize| geometry.tap_rows(*y) == tap_rows;
            let band = (y..geometry.out_height).take_while(like).count();
            let band_end = pixels.end.min((y + band) * width);
            let (size, count) = choose(rows, band_end - pixel);
            let m = rows[size].0;
            let taps = tap_rows.len() * geometry.kernel[1];
            let room = (PLACES - used).checked_div(taps * (m + 1)).unwrap_or(count);
            let tiles = count.min(room);
            if tiles == 0 {
                break;
            }
            let skipped = tap_rows.start * geometry.kernel[1];
            self.runs[self.count] = Some(Run { size, tiles, places: used, taps, skipped });
            self.count += 1;
            for tile in 0..tiles {
                let places = &mut self.places[used..][..taps * (m + 1)];
                find_tile(geometry, &tap_rows, pixel + tile * m, m, places);
                used += places.len();
            }
            pixel += m * tiles;
        }
        pixel
    }
}

/// Finds the places of the taps of one tile: `m` pixels from `first` on.
fn find_tile(geometry: &ConvGeometry, tap_rows: &Range<usize>, first: usize, m: usize, places: &mut [u32]) {
    if is_pointwise(geometry) {
        places[0] = 1;
        for (place, pixel) in places[1..].iter_mut().zip(first..) {
            *place = pixel as u32;
        }
        return;
    }
    let &ConvGeometry { in_width, out_width, kernel, stride, dilation, pad_top, pad_left, .. } = geometry;
    let mut starts = [(0, 0); WIDEST];
    let (mut y, mut x) = (first / out_width, first % out_width);
    for start in &mut starts[..m] {
        *start = (y * stride[0], x * stride[1]);
        x += 1;
        if x == out_width {
            (y, x) = (y + 1, 0);
        }
    }
    let mut taps = places.chunks_exact_mut(m + 1);
    for tap_y in tap_rows.clone() {
        for (tap_x, places) in (0..kernel[1]).zip(&mut taps) {
            for (place, &(row, column)) in places[1..].iter_mut().zip(&starts[..m]) {
                let row = row + tap_y * dilation[0] - pad_top;
                // wraps to a huge one where it is left of the image
                let column = (column + tap_x * dilation[1]).wrapping_sub(pad_left);
                *place = if column < in_width { (row * in_width + column) as u32 } else { OUTSIDE };
            }
            let step = places.get(2).map_or(1, |next| next.wrapping_sub(places[1]));
            let even = places[1..].windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == step);
            places[0] = if even && places[1] != OUTSIDE && places[m] != OUTSIDE { step } else { UNEVEN };
        }
    }
}
