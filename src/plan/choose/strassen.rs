//! Strassen's algorithm: where it pays. The rule follows `docs/strassen.md`.

use sinew_kernels::LANES;
use sinew_kernels::conv::strassen::{self, ERROR_FACTOR};

use super::{Algorithm, ConvShape};
use crate::plan::{PlanOptions, Strassen};

/// Channels on either side below which sums take what the products save.
const CHANNELS: usize = 96;

/// Pixels below which there are too few for each weight, of which there are more.
const PIXELS: usize = 64;

pub(super) fn strassen(shape: &ConvShape, options: &PlanOptions) -> Result<(Algorithm, String), String> {
    let ConvShape { in_channels, out_channels, .. } = *shape;
    let [in_blocks, out_blocks] = [in_channels, out_channels].map(|channels| channels / LANES);
    if !strassen::supports(&shape.geometry, in_blocks, out_blocks) || shape.groups != 1 {
        return Err("not 1x1 of all channels without pads, by blocks in pairs and fours".into());
    }
    if !shape.groups_are_blocks {
        return Err("channels are no whole blocks".into());
    }
    if shape.joined {
        return Err("the pixels of the baseline lie among others".into());
    }
    if options.strassen == Strassen::Off {
        return Err("switched off".into());
    }
    if options.compact_weights {
        return Err("weights are kept as they are".into());
    }
    if options.error_budget.is_some_and(|budget| ERROR_FACTOR > budget) {
        return Err(format!("its error bound is {ERROR_FACTOR} times that of direct convolution"));
    }
    let pixels = shape.geometry.out_pixels();
    if options.strassen == Strassen::Auto {
        if in_channels.min(out_channels) < CHANNELS {
            return Err("with few channels, sums take what the products save".into());
        }
        if pixels < PIXELS {
            return Err(format!("{pixels} pixels are few for the weights of seven products"));
        }
    }
    Ok((Algorithm::Strassen, "seven products of quarters in place of eight".into()))
}
