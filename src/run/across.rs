//! Steps that take all channels of a pixel together, softmax and normalization across channels: shared out by pixels.
//!
//! Their kernels want whole planes. A part copies some pixels of every block side by side, has them computed as small
//! planes, and copies them to their place: two copies, little beside an exponential for every number.

use sinew_kernels::Block;

use super::parallel::{Cut, for_each_part};

/// Calls `compute(input, output)` for whole planes, or for some pixels of all planes at a time where the step is cut.
pub(super) fn across_channels(
    cut: Cut,
    input: &[Block],
    out: &mut [Block],
    plane: usize,
    scratch: &mut [Block],
    compute: &(dyn Fn(&[Block], &mut [Block]) + Sync),
) {
    if cut.parts == 1 {
        return compute(input, out);
    }
    for_each_part(cut, out, plane, scratch, &|part, planes, scratch| {
        let (from, to) = scratch.split_at_mut(scratch.len() / 2);
        let most = from.len() / planes.len();
        for first in part.pixels.clone().step_by(most) {
            let count = most.min(part.pixels.end - first);
            let (from, to) = (&mut from[..planes.len() * count], &mut to[..planes.len() * count]);
            for (pixels, plane) in from.chunks_exact_mut(count).zip(input.chunks_exact(plane)) {
                pixels.copy_from_slice(&plane[first..][..count]);
            }
            compute(from, to);
            for (plane, pixels) in planes.iter_mut().zip(to.chunks_exact(count)) {
                plane[first - part.pixels.start..][..count].copy_from_slice(pixels);
            }
        }
    });
}
