//! Images as inputs.

use super::handle::Outcome;
use super::options::{ImageOptions, check_size};
use super::status::{Failure, Status};
use crate::plan::Port;
use crate::preprocess::{Color, Pixels, Preprocess, Range, Resize};
use crate::tensor::Tensor;

/// All of the image; proportions change.
pub const SINEW_RESIZE_STRETCH: i32 = 0;
/// The largest part in the middle that has the input's proportions.
pub const SINEW_RESIZE_CROP: i32 = 1;
/// All of the image in the middle; the rest is black.
pub const SINEW_RESIZE_PAD: i32 = 2;

/// RGB, or gray where the input has one channel.
pub const SINEW_COLOR_AUTO: i32 = 0;
/// Red, green, blue.
pub const SINEW_COLOR_RGB: i32 = 1;
/// Blue, green, red.
pub const SINEW_COLOR_BGR: i32 = 2;
/// One channel.
pub const SINEW_COLOR_GRAY: i32 = 3;

/// 0 to 1, or the bytes as they are where the input takes bytes.
pub const SINEW_RANGE_AUTO: i32 = 0;
/// `value / 255`.
pub const SINEW_RANGE_UNIT: i32 = 1;
/// The value as it is.
pub const SINEW_RANGE_BYTE: i32 = 2;

/// The tensor that an image becomes.
pub(super) fn tensor(port: &Port, pixels: &Pixels<'_>, options: Option<&ImageOptions>) -> Outcome<Tensor> {
    let preprocess = match options {
        Some(options) => preprocess(options)?,
        None => Preprocess::default(),
    };
    let tensor = preprocess.for_input(port)?.tensor(pixels)?;
    if tensor.len() != port.len() {
        return Err(Failure::new(Status::BadArgument, "the input is a batch of images, not one"));
    }
    Ok(tensor)
}

fn preprocess(options: &ImageOptions) -> Outcome<Preprocess> {
    check_size::<ImageOptions>(options.size)?;
    let unknown = || Failure::new(Status::BadArgument, "an image option has an unknown number");
    let resize = match options.resize {
        SINEW_RESIZE_STRETCH => Resize::Stretch,
        SINEW_RESIZE_CROP => Resize::Crop,
        SINEW_RESIZE_PAD => Resize::Pad,
        _ => return Err(unknown()),
    };
    let color = match options.color {
        SINEW_COLOR_AUTO => None,
        SINEW_COLOR_RGB => Some(Color::Rgb),
        SINEW_COLOR_BGR => Some(Color::Bgr),
        SINEW_COLOR_GRAY => Some(Color::Gray),
        _ => return Err(unknown()),
    };
    let range = match options.range {
        SINEW_RANGE_AUTO => None,
        SINEW_RANGE_UNIT => Some(Range::Unit),
        SINEW_RANGE_BYTE => Some(Range::Byte),
        _ => return Err(unknown()),
    };
    Ok(Preprocess { resize, color, mean: options.mean, std: options.std, range })
}
