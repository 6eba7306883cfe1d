//! How a layer can be shared out between threads.

use sinew_kernels::LANES;
use sinew_kernels::conv::strassen;

use crate::plan::choose::Algorithm;
use crate::run::parallel::Along;

/// How a layer can be shared out, the best way first: the larger operand is the one to divide. `group` is the blocks of a group
/// where a call has several; `width` is the outputs in a row, or in a unit of pixels that stay together, of which each stands for `pool` x
/// `pool` of the layer's.
pub(super) fn ways(
    algorithm: Algorithm,
    group: Option<usize>,
    [width, pool]: [usize; 2],
    many_weights: bool,
) -> Vec<Along> {
    let blocks = |unit| Along::Blocks { unit };
    let rows = Along::Pixels { unit: width.max(1) };
    let (by_weights, by_pixels) = match algorithm {
        Algorithm::Dense => return vec![blocks(1)],
        // pairs of vectors of pixels
        Algorithm::FewOutputs => return vec![Along::Pixels { unit: 2 * LANES }],
        Algorithm::Depthwise | Algorithm::Grouped => return vec![blocks(1), rows],
        Algorithm::Winograd(tile, _) => {
            let rows = Along::Pixels { unit: tile.output / pool * width.max(1) };
            match group {
                Some(group) => return vec![blocks(group), rows],
                None => ([blocks(4), blocks(2)], rows),
            }
        }
        Algorithm::Strassen => ([blocks(strassen::GROUP); 2], rows),
        // whole tiles of 14 pixels, the widest there are
        Algorithm::Pointwise => ([blocks(2), blocks(1)], Along::Pixels { unit: 14 }),
        _ => ([blocks(2), blocks(1)], rows),
    };
    let mut ways = by_weights.to_vec();
    ways.insert(if many_weights { ways.len() } else { 0 }, by_pixels);
    ways
}
