//! Convolution: what every algorithm takes, and one file per algorithm.
//!
//! ```text
//! input     [input block][in_height][in_width][16]
//! weights   [output block][k][16]      k = one number per live input channel and tap, in the algorithm's order
//! output    one slice per output block, each the pixels of `pixels`, [pixel][16]
//! ```

pub mod direct;
pub mod few_outputs;
pub mod grouped;
pub mod im2col;
pub mod plain_image;
pub mod reference;
pub mod strassen;
pub(crate) mod tiling;
pub mod winograd;

use core::ops::Range;

use crate::Block;
use crate::epilogue::Epilogue;

/// The sizes of one convolution of one group of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ConvGeometry {
    /// Rows of the input.
    pub in_height: usize,
    /// Pixels in a row of the input.
    pub in_width: usize,
    /// Rows of the output.
    pub out_height: usize,
    /// Pixels in a row of the output.
    pub out_width: usize,
    /// Taps, vertical and horizontal.
    pub kernel: [usize; 2],
    /// Distance of output pixels in the input, vertical and horizontal.
    pub stride: [usize; 2],
    /// Distance of taps in the input, vertical and horizontal.
    pub dilation: [usize; 2],
    /// Rows of zeros above the input; those below follow from the output's height.
    pub pad_top: usize,
    /// Columns of zeros left of the input.
    pub pad_left: usize,
}

impl ConvGeometry {
    /// A 1x1 convolution of one pixel: a dense layer.
    pub const ONE_PIXEL: Self = Self {
        in_height: 1,
        in_width: 1,
        out_height: 1,
        out_width: 1,
        kernel: [1, 1],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 0,
        pad_left: 0,
    };

    /// Pixels of the output.
    pub fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Pixels of the input.
    pub fn in_pixels(&self) -> usize {
        self.in_height * self.in_width
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The tap rows that are inside the image for row `y` of the output.
    pub(crate) fn tap_rows(&self, y: usize) -> Range<usize> {
        let (top, step) = (y * self.stride[0], self.dilation[0]);
        let end = (self.in_height + self.pad_top).saturating_sub(top).div_ceil(step).min(self.kernel[0]);
        self.pad_top.saturating_sub(top).div_ceil(step).min(end)..end
    }
}

/// Computes the output pixels of the range, for all output blocks in `out`.
///
/// `out` has one slice per output block, each the pixels of the range; with MaxMin, then the same again.
pub type ConvFn = fn(args: &ConvArgs<'_>, pixels: Range<usize>, out: &mut [&mut [Block]]);

/// One image, one group of channels, a run of output blocks.
#[derive(Clone, Copy, Debug)]
pub struct ConvArgs<'a> {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// Live channels of each input block, 1 to 16. Dead lanes may hold anything and are never read into a sum.
    pub lanes: &'a [u8],
    /// `[input block][pixel]`.
    pub input: &'a [Block],
    /// `[output block][k]`, starting at the first output block that is computed.
    pub weights: &'a [Block],
    /// Bias and residual start at the first output block that is computed.
    pub epilogue: Epilogue<'a>,
}

/// Live channels of some blocks.
pub(crate) fn live(lanes: &[u8]) -> usize {
    lanes.iter().copied().map(usize::from).sum()
}

impl ConvArgs<'_> {
    /// Weights of one output block: a number per live input channel and tap.
    pub(crate) fn weights_per_block(&self) -> usize {
        self.geometry.taps() * live(self.lanes)
    }

    /// What every algorithm relies on; gives the number of output blocks.
    ///
    /// # Panics
    /// Where an operand is too small for the geometry or the slices of `out` do not hold `pixels`.
    pub(crate) fn check(&self, pixels: &Range<usize>, out: &[&mut [Block]]) -> usize {
        let geometry = &self.geometry;
        let blocks = self.epilogue.check(geometry.out_pixels(), pixels, out);
        self.check_layer(blocks);
        blocks
    }

    /// Of that, what depends on the number of blocks alone.
    pub(crate) fn check_layer(&self, blocks: usize) {
        let geometry = &self.geometry;
        assert!(
            self.lanes.iter().all(|lanes| (1..=16).contains(lanes)),
            "an input block has 1 to 16 live lanes"
        );
        assert_eq!(self.input.len(), self.lanes.len() * geometry.in_pixels(), "input blocks times pixels");
        assert!(self.weights.len() >= blocks * self.weights_per_block(), "weights of every output block");
    }
}
