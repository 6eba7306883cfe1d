//! What the tests of pools share: windows over images, none of them empty.

use std::ops::Range;

use proptest::prelude::*;
use sinew_kernels::conv::ConvGeometry;
use sinew_kernels::pool::PoolKind;

/// Window, stride and dilation.
pub type Window = ([usize; 2], [usize; 2], [usize; 2]);

/// The windows of most networks.
pub fn common() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(([2, 2], [2, 2], [1, 1])),
        Just(([2, 2], [1, 1], [1, 1])),
        Just(([3, 3], [1, 1], [1, 1])),
        Just(([3, 3], [2, 2], [1, 1])),
    ]
}

/// Windows of up to so many taps, strides and dilations in each direction.
pub fn up_to(taps: [usize; 2], strides: [usize; 2], dilations: [usize; 2]) -> impl Strategy<Value = Window> {
    let pair = |[height, width]: [usize; 2]| [1..=height, 1..=width];
    (pair(taps), pair(strides), pair(dilations))
}

/// Such windows over images of such sizes, with borders, where no window is empty.
pub fn geometry(
    windows: impl Strategy<Value = Window>,
    in_height: impl Strategy<Value = usize>,
    in_width: impl Strategy<Value = usize>,
) -> impl Strategy<Value = ConvGeometry> {
    (windows, in_height, in_width, 0..4usize, 0..4usize, 0..4usize, 0..4usize)
        .prop_map(|((kernel, stride, dilation), in_height, in_width, top, left, bottom, right)| {
            let out = |extent: usize, axis: usize, before: usize, after: usize| {
                let reach = (kernel[axis] - 1) * dilation[axis] + 1;
                (extent + before + after).saturating_sub(reach) / stride[axis] + 1
            };
            ConvGeometry {
                in_height,
                in_width,
                out_height: out(in_height, 0, top, bottom),
                out_width: out(in_width, 1, left, right),
                kernel,
                stride,
                dilation,
                pad_top: top,
                pad_left: left,
            }
        })
        .prop_filter("a window is empty", |g| {
            let holds = |at: usize, axis: usize, extent: usize, pad: usize| {
                (0..g.kernel[axis])
                    .any(|k| (at * g.stride[axis] + k * g.dilation[axis]).wrapping_sub(pad) < extent)
            };
            (0..g.out_height).all(|y| holds(y, 0, g.in_height, g.pad_top))
                && (0..g.out_width).all(|x| holds(x, 1, g.in_width, g.pad_left))
        })
}

/// Every kind of pool.
pub fn kind() -> impl Strategy<Value = PoolKind> {
    let border = |(pad_bottom, pad_right)| PoolKind::AverageWithBorder { pad_bottom, pad_right };
    prop_oneof![Just(PoolKind::Max), Just(PoolKind::Average), (0..3usize, 0..3usize).prop_map(border),]
}

/// The part of `0..=all` between two shares of it.
pub fn part(all: usize, cut: (f64, f64)) -> Range<usize> {
    let [a, b] = [cut.0, cut.1].map(|cut| (cut * (all + 1) as f64) as usize);
    a.min(b)..a.max(b)
}
