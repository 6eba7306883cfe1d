//! The identity shortcut of a stacked layer: a factor per channel of its own input, added to the sums or to the centre tap.
//!
//! In the centre tap it costs nothing and is one product more among the others: one rounding. Winograd would carry it
//! through its transforms, whose error is that of the largest numbers in the tile, layer after layer; there it is added
//! to the sums, which reads the input once more. So it is where weights have 16 bits: beside a factor near one, small
//! weights would lose their digits.

use sinew_kernels::conv::ConvGeometry;

use crate::graph::Node;
use crate::plan::choose::Algorithm;
use crate::plan::{PlanOptions, Shortcut, WeightType};

/// Whether a layer's residual is its own input at the centre of its window, and goes into the weights there.
pub(super) fn folds(
    node: &Node,
    geometry: &ConvGeometry,
    algorithm: Algorithm,
    options: &PlanOptions,
) -> bool {
    let [input, _, _, residual, _] = node.inputs[..] else { return false };
    let centre = |axis: usize| (geometry.kernel[axis] - 1) / 2 * geometry.dilation[axis];
    let at_centre = geometry.kernel.iter().all(|extent| extent % 2 == 1)
        && geometry.stride == [1, 1]
        && [geometry.pad_top, geometry.pad_left] == [centre(0), centre(1)];
    let wanted = match options.shortcut {
        Shortcut::Auto => options.weights == WeightType::F32 && !matches!(algorithm, Algorithm::Winograd(..)),
        Shortcut::Fold => true,
        Shortcut::Add => false,
    };
    residual == input && at_centre && wanted
}

/// Weights `[O, O, KH, KW]` with the factors added at the centre tap of their own channel.
pub(super) fn folded(weights: &[f32], taps: usize, scale: &[f32]) -> Vec<f32> {
    let mut folded = weights.to_vec();
    for (channel, factor) in scale.iter().enumerate() {
        folded[(channel * scale.len() + channel) * taps + taps / 2] += factor;
    }
    folded
}
