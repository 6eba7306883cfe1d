//! Covers a row of outputs with tiles of the few sizes that there are.
//!
//! An output does not depend on the tile that computes it. So where sizes do not add up, the last tile lies partly over the
//! one before it and computes some outputs again, to the same bits: three sizes do what would take one of every width.

/// Sizes of tiles, rising from one, each with the function that computes it.
pub(crate) type Sizes<'a, F> = &'a [(usize, F)];

/// Tiles of one size side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles<F> {
    /// Computes one.
    pub(crate) function: F,
    /// Outputs of one.
    pub(crate) size: usize,
    /// The first output of the first one.
    pub(crate) first: usize,
    /// How many.
    pub(crate) count: usize,
}

/// As few tiles as can be, of at most two sizes, with as few outputs computed twice as can be; a last tile that overlaps
/// comes by itself. No tile has more outputs than the row, which has one at least.
pub(crate) fn cover<F: Copy>(sizes: Sizes<'_, F>, outputs: usize) -> [Tiles<F>; 3] {
    let fitting = sizes.iter().take_while(|size| size.0 <= outputs).count();
    let sizes = &sizes[..fitting];
    let tiles = outputs.div_ceil(sizes[fitting - 1].0);
    let (mut least, mut best) = (usize::MAX, (sizes[0], sizes[0], 0));
    for (i, &large) in sizes.iter().enumerate().filter(|(_, large)| large.0 * tiles >= outputs) {
        for &small in sizes[..=i].iter().rev() {
            let room = large.0 * tiles - outputs;
            let smaller = room.checked_div(large.0 - small.0).unwrap_or(0).min(tiles);
            let computed = large.0 * tiles - smaller * (large.0 - small.0);
            if computed < least {
                (least, best) = (computed, (large, small, smaller));
            }
        }
    }
    let (large, small, smaller) = best;
    let run = |(size, function), first, count| Tiles { function, size, first, count };
    let mut runs =
        [run(large, 0, tiles - smaller), run(small, (tiles - smaller) * large.0, smaller), run(large, 0, 0)];
    if least > outputs {
        let last = &mut runs[usize::from(smaller > 0)];
        last.count -= 1;
        runs[2] = Tiles { first: outputs - last.size, count: 1, ..*last };
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_is_covered_and_little_is_computed_twice() {
        for sizes in [&[1, 3, 4][..], &[1, 4, 7], &[1, 4, 7, 14], &[1, 3, 4, 6], &[1, 2]] {
            let sizes: std::vec::Vec<(usize, ())> = sizes.iter().map(|&size| (size, ())).collect();
            let widest = sizes[sizes.len() - 1].0;
            for outputs in 1..200 {
                let mut computed = std::vec![0; outputs];
                let (mut next, mut tiles) = (0, 0);
                for run in cover(&sizes, outputs) {
                    assert!(sizes.contains(&(run.size, run.function)) || run.count == 0);
                    for tile in 0..run.count {
                        let first = run.first + tile * run.size;
                        assert!(first <= next, "{outputs}: a gap before {first}");
                        computed[first..first + run.size].iter_mut().for_each(|times| *times += 1);
                        next = first + run.size;
                        tiles += 1;
                    }
                }
                assert!(computed.iter().all(|&times| times == 1 || times == 2), "{outputs}: {computed:?}");
                let fitting = sizes.iter().rev().find(|size| size.0 <= outputs).map_or(1, |size| size.0);
                assert_eq!(tiles, outputs.div_ceil(fitting), "{outputs}");
                let twice = computed.iter().filter(|&&times| times == 2).count();
                assert!(twice < widest, "{outputs}: {twice} twice");
            }
        }
        // Maps of a network that halves 224 pixels take no output twice.
        for outputs in [112, 56, 28, 14, 7] {
            for sizes in [[1, 3, 4], [1, 4, 7]] {
                let runs = cover(&sizes.map(|size| (size, ())), outputs);
                assert_eq!(runs[2].count, 0, "{outputs} pixels in tiles of {sizes:?}");
            }
        }
    }
}
