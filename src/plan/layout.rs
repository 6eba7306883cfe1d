//! How a value lies in the arena: in blocks of 16 channels, or plain.
//!
//! ```text
//! blocked   [batch][block][height][width][16]     parts: 24 and 40 channels
//!           block 0  channels  0..16 of part 0
//!           block 1  channels 16..24 of part 0, 8 dead lanes
//!           block 2  channels  0..16 of part 1
//!           ...
//! plain     row-major, as the graph's shape says
//! ```
//! A part starts at a block. Concatenation and MaxMin append parts, so nothing moves; a convolution's weights are
//! permuted to match.

use serde::{Deserialize, Serialize};
use sinew_kernels::{Block, LANES};

/// Channels in blocks of 16. Values of rank 2 are `[N, C, 1, 1]`, of rank 3 `[N, C, 1, L]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// Images.
    pub batch: usize,
    /// Channels of each part; every part starts at a block.
    pub parts: Vec<usize>,
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

impl Blocked {
    /// The layout of a shape with its channels in one part; `None` where the rank is not 2, 3 or 4.
    pub fn of_shape(shape: &[usize]) -> Option<Self> {
        let (batch, channels, height, width) = match *shape {
            [n, c] => (n, c, 1, 1),
            [n, c, l] => (n, c, 1, l),
            [n, c, h, w] => (n, c, h, w),
            _ => return None,
        };
        Some(Self { batch, parts: vec![channels], height, width })
    }

    /// Blocks of one image.
    pub fn blocks(&self) -> usize {
        self.parts.iter().map(|channels| channels.div_ceil(LANES)).sum()
    }

    /// Pixels of one block.
    pub fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// All channels.
    pub fn channels(&self) -> usize {
        self.parts.iter().sum()
    }

    /// Live channels of each block.
    pub fn lanes(&self) -> Vec<u8> {
        let part = |&channels: &usize| {
            (0..channels.div_ceil(LANES)).map(move |block| (channels - block * LANES).min(LANES) as u8)
        };
        self.parts.iter().flat_map(part).collect()
    }

    /// Whether every block but the last is full, so that channel `c` is lane `c % 16` of block `c / 16`.
    pub fn is_contiguous(&self) -> bool {
        let full = self.parts.len().saturating_sub(1);
        self.parts[..full].iter().all(|channels| channels % LANES == 0)
    }

    /// Blocks that one image occupies.
    pub fn image_blocks(&self) -> usize {
        self.blocks() * self.pixels()
    }
}

/// One number per channel as blocks, dead lanes zero: biases, scales, slopes.
pub fn pack_channels(values: &[f32], layout: &Blocked) -> Vec<Block> {
    let mut values = values.iter();
    layout
        .lanes()
        .into_iter()
        .map(|live| {
            let mut block = [0.0; LANES];
            for (lane, value) in block[..usize::from(live)].iter_mut().zip(&mut values) {
                *lane = *value;
            }
            block
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_start_at_blocks() {
        let layout = Blocked { batch: 1, parts: vec![24, 40], height: 2, width: 3 };
        assert_eq!(layout.lanes(), [16, 8, 16, 16, 8]);
        assert_eq!((layout.blocks(), layout.channels(), layout.image_blocks()), (5, 64, 30));
        assert!(!layout.is_contiguous());
        let values: Vec<f32> = (0..64).map(|c| c as f32).collect();
        let packed = pack_channels(&values, &layout);
        assert_eq!(packed[1][7], 23.0);
        assert_eq!(packed[1][8], 0.0);
        assert_eq!(packed[2][0], 24.0);
    }
}
