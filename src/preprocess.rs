//! Images as tensors: size, colours and scale, from 8-bit RGB pixels, whoever decoded them.
//!
//! Resizing is bilinear with antialiasing, in the arithmetic of `BILINEAR` in Pillow 11: a triangle that reaches one
//! output pixel to each side, weights rounded to 22 bits, along rows first, 8 bits in between. Weights take only
//! `+ - * /` in f64 and sums are integers, so that every machine gives the same bits.

use std::fmt;

use crate::error::{Error, Result};
use crate::plan::Port;
use crate::tensor::{DType, Data, Tensor};

/// An image: rows of pixels, top to bottom, 3 bytes each: red, green, blue.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    width: usize,
    height: usize,
    rgb: &'a [u8],
}

impl<'a> Pixels<'a> {
    /// An image in memory.
    ///
    /// # Errors
    /// Where it is empty, or where the bytes are not three for each pixel.
    pub fn new(width: usize, height: usize, rgb: &'a [u8]) -> Result<Self> {
        let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if bytes != Some(rgb.len()) || rgb.is_empty() {
            let reason = format!("{} bytes are no image of {width}x{height} pixels of 3 bytes", rgb.len());
            return Err(Error::Malformed { what: "image".into(), reason });
        }
        Ok(Self { width, height, rgb })
    }
}

/// How an image of another shape fills the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// All of the image; proportions change.
    #[default]
    Stretch,
    /// The largest part in the middle that has the input's proportions.
    Crop,
    /// All of the image in the middle; the rest is black.
    Pad,
}

/// The channels of the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel: `(19595 R + 38470 G + 7471 B) / 65536`, rounded.
    Gray,
}

/// What a pixel's value becomes before mean and deviation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// `value / 255`.
    Unit,
    /// The value as it is.
    Byte,
}

/// What is done with an image: `(value - mean) / std` after resizing and choosing colours.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocess {
    /// How the image fills the input.
    pub resize: Resize,
    /// The channels; by default RGB, or gray where the input has one channel.
    pub color: Option<Color>,
    /// Taken away, in the order of the tensor's channels; gray uses the first one.
    pub mean: [f32; 3],
    /// The divisor, in the order of the tensor's channels; gray uses the first one.
    pub std: [f32; 3],
    /// The scale; by default 0 to 1, or the byte itself where the input takes bytes.
    pub range: Option<Range>,
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { resize: Resize::Stretch, color: None, mean: [0.0; 3], std: [1.0; 3], range: None }
    }
}

impl Preprocess {
    /// What these options mean for one input of a model.
    ///
    /// # Errors
    /// Where the input is no image of 1 or 3 channels, or the options do not fit it.
    pub fn for_input(&self, port: &Port) -> Result<Recipe> {
        let refuse = |reason: String| Err(Error::Tensor { tensor: port.name.clone(), reason });
        // Channels first is what ONNX defines; last is taken where only that makes sense.
        let (size, layout) = match *port.shape {
            [_, channels @ (1 | 3), height, width] => ([channels, height, width], Layout::Nchw),
            [_, height, width, channels @ (1 | 3)] => ([channels, height, width], Layout::Nhwc),
            _ => {
                let reason = format!("{:?} is no batch of images with 1 or 3 channels", port.shape);
                return refuse(reason);
            }
        };
        let [channels, height, width] = size;
        let color = match (self.color, channels) {
            (None, 1) => Color::Gray,
            (None, _) => Color::Rgb,
            (Some(color), _) if color.channels() == channels => color,
            (Some(color), _) => {
                let name = color.name();
                return refuse(format!("{channels} channels, but the color {name} has {}", color.channels()));
            }
        };
        let bytes = match port.dtype {
            DType::F32 => false,
            DType::U8 => true,
            DType::I64 => return refuse("takes i64, an image gives f32 or u8".into()),
        };
        let scales = (self.mean, self.std) != ([0.0; 3], [1.0; 3]) || self.range == Some(Range::Unit);
        if bytes && scales {
            return refuse("takes u8: mean, std and the range 0-1 do not apply".into());
        }
        for (option, values) in [("mean", self.mean), ("std", self.std)] {
            let is_wrong = |x: &f32| !x.is_finite() || option == "std" && *x == 0.0;
            if let Some(wrong) = values.iter().position(is_wrong) {
                // Which one is enough: writing floats as text takes 15 KB, and nothing else in the C library does.
                let reason = format!("number {} is no scale: it is zero or not finite", wrong + 1);
                return Err(Error::Option { option: option.into(), reason });
            }
        }
        let range = self.range.unwrap_or(if bytes { Range::Byte } else { Range::Unit });
        let Self { resize, mean, std, .. } = *self;
        Ok(Recipe { layout, dtype: port.dtype, height, width, resize, color, mean, std, range })
    }
}

/// The order of a tensor's dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Channels, then pixels.
    Nchw,
    /// Pixels, then channels.
    Nhwc,
}

/// What is done with each image for one input of a model: nothing is left open.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The order of the tensor's dimensions.
    pub layout: Layout,
    /// What the tensor holds: f32 or u8.
    pub dtype: DType,
    /// Rows of the tensor.
    pub height: usize,
    /// Pixels of a row of the tensor.
    pub width: usize,
    /// How the image fills the tensor.
    pub resize: Resize,
    /// The channels.
    pub color: Color,
    /// Taken away, for each channel.
    pub mean: [f32; 3],
    /// The divisor, for each channel.
    pub std: [f32; 3],
    /// The scale before that.
    pub range: Range,
}

impl Recipe {
    /// The tensor of one image, with a batch of 1.
    ///
    /// # Errors
    /// Never for an image that [`Pixels::new`] accepted.
    pub fn tensor(&self, image: &Pixels<'_>) -> Result<Tensor> {
        let planes = self.planes(image);
        let (count, pixels) = (planes.len(), self.height * self.width);
        let at = |index: usize| match self.layout {
            Layout::Nchw => (index / pixels, index % pixels),
            Layout::Nhwc => (index % count, index / count),
        };
        let elements = (0..count * pixels).map(|index| {
            let (channel, pixel) = at(index);
            (channel, planes[channel][pixel])
        });
        let data = match self.dtype {
            DType::U8 => Data::U8(elements.map(|(_, value)| value).collect()),
            _ => Data::F32(elements.map(|(channel, value)| self.scaled(channel, value)).collect()),
        };
        let shape = match self.layout {
            Layout::Nchw => vec![1, count, self.height, self.width],
            Layout::Nhwc => vec![1, self.height, self.width, count],
        };
        Tensor::new(shape, data)
    }

    fn scaled(&self, channel: usize, value: u8) -> f32 {
        let value = match self.range {
            Range::Unit => f32::from(value) / 255.0,
            Range::Byte => f32::from(value),
        };
        (value - self.mean[channel]) / self.std[channel]
    }

    /// The resized channels, in the order of the tensor.
    fn planes(&self, image: &Pixels<'_>) -> Vec<Vec<u8>> {
        let pixels = image.rgb.as_chunks::<3>().0;
        let plane = |of: fn(&[u8; 3]) -> u8| self.resized(pixels.iter().map(of).collect(), image);
        let mut planes = match self.color {
            Color::Gray => vec![plane(luma)],
            Color::Rgb | Color::Bgr => vec![plane(|p| p[0]), plane(|p| p[1]), plane(|p| p[2])],
        };
        if self.color == Color::Bgr {
            planes.reverse();
        }
        planes
    }

    fn resized(&self, plane: Vec<u8>, image: &Pixels<'_>) -> Vec<u8> {
        let (width, height) = (image.width, image.height);
        // Wider than the tensor: compared without division.
        let wider = width as u128 * self.height as u128 > height as u128 * self.width as u128;
        let (mut from, mut to) = ([width, height], [self.width, self.height]);
        match (self.resize, wider) {
            (Resize::Stretch, _) => {}
            (Resize::Crop, true) => from[0] = share(height, self.width, self.height),
            (Resize::Crop, false) => from[1] = share(width, self.height, self.width),
            (Resize::Pad, true) => to[1] = share(self.width, height, width),
            (Resize::Pad, false) => to[0] = share(self.height, width, height),
        }
        let [left, top] = [(width - from[0]) / 2, (height - from[1]) / 2];
        let part: Vec<u8> = plane
            .chunks_exact(width)
            .skip(top)
            .take(from[1])
            .flat_map(|row| &row[left..left + from[0]])
            .copied()
            .collect();
        // Rows, then columns: each pass turns the image on its side.
        let turned = resize_rows(&part, from[0], to[0]);
        let filled = resize_rows(&turned, from[1], to[1]);
        if to == [self.width, self.height] {
            return filled;
        }
        let mut padded = vec![0; self.width * self.height];
        let [left, top] = [(self.width - to[0]) / 2, (self.height - to[1]) / 2];
        for (row, from) in padded.chunks_exact_mut(self.width).skip(top).zip(filled.chunks_exact(to[0])) {
            row[left..left + to[0]].copy_from_slice(from);
        }
        padded
    }
}

/// `extent * numerator / denominator` to the nearest, at least 1.
fn share(extent: usize, numerator: usize, denominator: usize) -> usize {
    let (product, denominator) = (extent as u128 * numerator as u128, denominator as u128);
    let nearest = (product + denominator / 2) / denominator;
    usize::try_from(nearest).unwrap_or(usize::MAX).max(1)
}

fn luma([red, green, blue]: &[u8; 3]) -> u8 {
    let sum = 19595 * u32::from(*red) + 38470 * u32::from(*green) + 7471 * u32::from(*blue);
    ((sum + 0x8000) >> 16) as u8
}

/// Fraction bits of a weight: 8 are left for the pixel and 2 for sign and overflow in 32 bits.
const WEIGHT_BITS: u32 = 22;

/// Resizes every row of `width` pixels to `to` and gives the image transposed.
fn resize_rows(image: &[u8], width: usize, to: usize) -> Vec<u8> {
    let rows: Vec<&[u8]> = image.chunks_exact(width).collect();
    if width == to {
        return (0..to).flat_map(|x| rows.iter().map(move |row| row[x])).collect();
    }
    let mut turned = Vec::with_capacity(to * rows.len());
    for x in 0..to {
        let (first, weights) = triangle(x, width, to);
        turned.extend(rows.iter().map(|row| {
            let products =
                row[first..].iter().zip(&weights).map(|(&pixel, weight)| i64::from(pixel) * weight);
            let sum = (1 << (WEIGHT_BITS - 1)) + products.sum::<i64>();
            (sum >> WEIGHT_BITS).clamp(0, 255) as u8
        }));
    }
    turned
}

/// The first input pixel that counts for output pixel `x`, and the weights from there on.
fn triangle(x: usize, from: usize, to: usize) -> (usize, Vec<i64>) {
    let scale = from as f64 / to as f64;
    // An enlarged image is interpolated between neighbours; in a reduced one every pixel counts.
    let support = if scale < 1.0 { 1.0 } else { scale };
    let center = (x as f64 + 0.5) * scale;
    let first = (center - support + 0.5) as usize; // below 0 becomes 0
    let end = ((center + support + 0.5) as usize).min(from);
    let heights: Vec<f64> = (first..end)
        .map(|at| {
            let distance = ((at as f64 - center + 0.5) * (1.0 / support)).abs();
            if distance < 1.0 { 1.0 - distance } else { 0.0 }
        })
        .collect();
    let mut sum = 0.0;
    for height in &heights {
        sum += height;
    }
    let one = f64::from(1 << WEIGHT_BITS);
    (first, heights.iter().map(|height| (0.5 + height / sum * one) as i64).collect())
}

impl Color {
    fn channels(self) -> usize {
        if self == Color::Gray { 1 } else { 3 }
    }

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Color::Rgb => "rgb",
            Color::Bgr => "bgr",
            Color::Gray => "gray",
        }
    }
}

impl Resize {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Resize::Stretch => "stretch",
            Resize::Crop => "crop",
            Resize::Pad => "pad",
        }
    }
}

impl Range {
    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Range::Unit => "0-1",
            Range::Byte => "0-255",
        }
    }
}

impl Layout {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "NCHW",
            Layout::Nhwc => "NHWC",
        }
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resize, height, width, color, range, mean, std, layout, .. } = self;
        write!(f, "{} to {width}x{height}, {}, range {}", resize.name(), color.name(), range.name())?;
        let channels = color.channels();
        write!(f, ", mean {:?}, std {:?}, {}", &mean[..channels], &std[..channels], layout.name())
    }
}
