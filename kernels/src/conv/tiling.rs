//! What direct forms share: the sizes that there are tiles of, and the choice among them.

/// No tile has more pixels.
pub(crate) const WIDEST: usize = 16;

/// No kernel has more taps; larger ones are left to the gather.
pub(crate) const MAX_TAPS: usize = 128;

/// Each number of pixels that tiles of some number of output blocks exist for, rising from one, with the function
/// that computes them.
pub(crate) type Rows<'a, F> = &'a [(usize, F)];

/// The tiles of one number of blocks: the function, the blocks, and each number of pixels; then, where wide tiles have a function
/// of their own, that and their numbers of pixels.
macro_rules! tiles {
    ($row:ident, $blocks:literal: $($pixels:literal)* $(, $wide:ident: $($wide_pixels:literal)*)?) => {
        &[$(($pixels, $row::<$pixels, $blocks>),)* $($(($wide_pixels, $wide::<$wide_pixels, $blocks>),)*)?]
    };
}
pub(crate) use tiles;

/// Chooses tiles for the first of `pixels` one after another: which of the sizes, and their number.
///
/// As few as can be and as even as can be. Where there are no tiles of such a size, the next larger ones and a
/// rest, or two halves.
pub(crate) fn choose<F>(rows: Rows<'_, F>, pixels: usize) -> (usize, usize) {
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
    (rows.iter().rposition(|row| row.0 <= m).unwrap_or(0), count)
}
