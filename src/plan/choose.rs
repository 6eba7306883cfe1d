//! Which algorithm computes a convolution: one ordered list, best first. The first that serves the shape and whose
//! rule holds is taken; the last serves all. The rule looks at one image, at shapes and options only.

mod strassen;
mod winograd;

use serde::{Deserialize, Serialize};
use sinew_kernels::LANES;
use sinew_kernels::conv::winograd::{Groups, WeightForm, WinogradTile};
use sinew_kernels::conv::{ConvGeometry, direct, few_outputs, plain_image};

use self::strassen::strassen;
use super::PlanOptions;
use winograd::{any_winograd, winograd};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// One image, one window: a matrix times a vector, at the speed of memory.
    Dense,
    /// One filter per channel.
    Depthwise,
    /// From the plain image: few channels, never padded to a block.
    PlainImage,
    /// Winograd with tiles of this size, from weights in this form.
    Winograd(WinogradTile, WeightForm),
    /// 1x1, stride 1: the map as one row of pixels.
    Pointwise,
    /// 1x1 with an eighth less of products.
    Strassen,
    /// 1x1, stride 1, a few output channels: pixels are lanes.
    FewOutputs,
    /// Groups that are no whole blocks, without computing zeros.
    Grouped,
    /// Any window, from the blocks as they lie.
    Direct,
    /// Gathered windows times the weights.
    Im2col,
}

impl Algorithm {
    /// The name in plans and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Dense => "dense",
            Algorithm::Depthwise => "depthwise",
            Algorithm::PlainImage => "plain-image",
            Algorithm::Winograd(tile, form) => match (tile.output, tile.stride, form) {
                (_, 2, WeightForm::Stored) => "winograd-2-stride-2",
                (_, 2, WeightForm::Plain) => "winograd-2-stride-2-plain-weights",
                (2, _, WeightForm::Stored) => "winograd-2",
                (2, _, WeightForm::Plain) => "winograd-2-plain-weights",
                (4, _, WeightForm::Stored) => "winograd-4",
                (4, _, WeightForm::Plain) => "winograd-4-plain-weights",
                (_, _, WeightForm::Stored) => "winograd-6",
                (_, _, WeightForm::Plain) => "winograd-6-plain-weights",
            },
            Algorithm::Pointwise => "pointwise",
            Algorithm::Strassen => "strassen",
            Algorithm::FewOutputs => "few-outputs",
            Algorithm::Grouped => "grouped",
            Algorithm::Direct => "direct",
            Algorithm::Im2col => "im2col",
        }
    }
}

/// A first layer with at most so many channels reads the plain image.
pub const PLAIN_IMAGE_CHANNELS: usize = 4;

/// What the choice looks at.
#[derive(Clone, Debug)]
pub struct ConvShape {
    /// The sizes.
    pub geometry: ConvGeometry,
    /// Groups.
    pub groups: usize,
    /// All input channels.
    pub in_channels: usize,
    /// All output channels.
    pub out_channels: usize,
    /// Whether every group is whole blocks, on both sides.
    pub groups_are_blocks: bool,
    /// Whether the input is there in plain form, and not in blocks.
    pub plain_input: bool,
    /// Whether something besides bias and activations is done to a sum: a residual, a scale, MaxMin.
    pub combined: bool,
    /// Maps of about this size with the same weights: the fragments of a dilated layer, times the images of a batch.
    pub maps: usize,
    /// Whether it is behind a removed stride and not computed as fragments, the first of which is the baseline's map.
    pub joined: bool,
    /// Bytes of all constants of the network.
    pub network: u64,
}

impl ConvShape {
    /// Channels of a group, in and out.
    fn group_channels(&self) -> [usize; 2] {
        [self.in_channels / self.groups, self.out_channels / self.groups]
    }

    /// Whether blocks hold several groups of a size that Winograd has code for.
    fn groups_share_blocks(&self) -> bool {
        self.groups > 1 && self.group_channels()[0] < LANES && Groups::supports(self.group_channels())
    }
}

/// The choice and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What was taken.
    pub algorithm: Algorithm,
    /// Why it was taken and why those before it were not.
    pub why: String,
}

/// Algorithms that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// No transforms and no gathering.
    Direct,
    /// Gathered windows.
    Im2col,
    /// Winograd, wherever it serves.
    Winograd,
}

impl Family {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Family::Direct => "direct",
            Family::Im2col => "im2col",
            Family::Winograd => "winograd",
        }
    }
}

/// An entry of the list: the reason for taking it, or for passing on.
type Rule = fn(&ConvShape, &PlanOptions) -> Result<(Algorithm, String), String>;

/// Best first.
const RULES: [(&str, Rule); 11] = [
    ("depthwise", depthwise),
    ("dense", dense),
    ("plain-image", from_plain_image),
    ("winograd", winograd),
    ("few-outputs", few_outputs),
    ("strassen", strassen),
    ("pointwise", pointwise),
    ("grouped", grouped),
    ("im2col", strided_pixels),
    ("direct", from_blocks),
    ("im2col", gathered),
];

/// Chooses the algorithm of a convolution.
pub fn choose(shape: &ConvShape, options: &PlanOptions) -> Choice {
    let mut passed = Vec::new();
    let mut forced = None;
    if let Some(wanted) = options.conv {
        match force(shape, wanted, options) {
            Ok(choice) => return choice,
            Err(reason) => forced = Some(format!("{} cannot serve it: {reason}", wanted.name())),
        }
    }
    passed.extend(forced);
    for (name, rule) in RULES {
        match rule(shape, options) {
            Ok((algorithm, reason)) => {
                passed.insert(0, reason);
                return Choice { algorithm, why: passed.join("; ") };
            }
            Err(reason) => passed.push(format!("not {name}: {reason}")),
        }
    }
    unreachable!("windows are gathered where nothing else serves")
}

/// The wanted algorithm, if it serves the shape.
fn force(shape: &ConvShape, wanted: Family, options: &PlanOptions) -> Result<Choice, String> {
    let candidates: &[Rule] = match wanted {
        Family::Winograd => &[any_winograd],
        Family::Im2col => &[gathered],
        Family::Direct => &[depthwise, dense, from_plain_image, few_outputs, pointwise, grouped, from_blocks],
    };
    let taken = candidates.iter().map(|rule| rule(shape, options));
    let algorithm = taken.reduce(|first, next| first.or(next)).unwrap_or(Err("nothing serves it".into()))?.0;
    Ok(Choice { algorithm, why: "asked for".into() })
}

fn depthwise(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.groups > 1 && shape.groups == shape.in_channels && shape.in_channels == shape.out_channels {
        return Ok((Algorithm::Depthwise, "one filter per channel".into()));
    }
    Err("channels are mixed".into())
}

fn dense(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    let g = &shape.geometry;
    let one_window = g.kernel == [g.in_height, g.in_width] && g.out_pixels() == 1;
    if one_window && g.pad_top == 0 && g.pad_left == 0 && g.dilation == [1, 1] && shape.groups == 1 {
        return Ok((Algorithm::Dense, "the window is the whole input".into()));
    }
    Err("more than one output pixel".into())
}

fn from_plain_image(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if !shape.plain_input {
        return Err("the input lies in blocks".into());
    }
    if shape.groups != 1 || shape.in_channels > PLAIN_IMAGE_CHANNELS {
        return Err(format!("{} channels fill a block well enough", shape.in_channels));
    }
    if !plain_image::supports(&shape.geometry) {
        return Err("its window has too many taps".into());
    }
    Ok((Algorithm::PlainImage, format!("{} channels are read as they lie, none padded", shape.in_channels)))
}

/// Pixels of a map that fill the lanes.
const FEW_PIXELS: usize = 16;

fn few_outputs(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.out_channels > few_outputs::MOST {
        return Err(format!("{} output channels", shape.out_channels));
    }
    if !few_outputs::supports(&shape.geometry) || shape.groups != 1 {
        return Err("not 1x1 of all channels without stride and pads".into());
    }
    if shape.combined {
        return Err("its sums meet a residual, a scale or MaxMin".into());
    }
    if shape.geometry.out_pixels() < FEW_PIXELS {
        return Err("few pixels".into());
    }
    Ok((Algorithm::FewOutputs, format!("{} output channels: pixels are lanes", shape.out_channels)))
}

fn pointwise(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    let g = &shape.geometry;
    if g.kernel != [1, 1] || g.stride != [1, 1] {
        return Err("not 1x1 with stride 1".into());
    }
    if g.in_pixels() != g.out_pixels() || g.pad_top != 0 || g.pad_left != 0 {
        return Err("it has pads".into());
    }
    if shape.groups != 1 && !shape.groups_are_blocks {
        return Err("groups are no whole blocks".into());
    }
    Ok((Algorithm::Pointwise, "1x1: the map is one row of pixels".into()))
}

fn grouped(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.groups == 1 || shape.groups_are_blocks {
        return Err("channels are whole blocks".into());
    }
    let channels = shape.in_channels / shape.groups;
    Ok((Algorithm::Grouped, format!("{channels} channels a group: no zeros are multiplied")))
}

/// Output channels that pay for gathering pixels: so many blocks read the copy.
const MANY_OUTPUTS: usize = 64;

/// 1x1 with a stride: the pixels that are read, side by side, make it a pointwise layer.
fn strided_pixels(shape: &ConvShape, options: &PlanOptions) -> Result<(Algorithm, String), String> {
    let g = &shape.geometry;
    if g.kernel != [1, 1] || g.stride == [1, 1] {
        return Err("not 1x1 with a stride".into());
    }
    if shape.out_channels / shape.groups < MANY_OUTPUTS {
        return Err("too few outputs read a gathered pixel".into());
    }
    gathered(shape, options)
        .map(|(algorithm, _)| (algorithm, "the pixels between are left out once for all outputs".into()))
}

fn from_blocks(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.groups > 1 && !shape.groups_are_blocks {
        return Err("groups are no whole blocks".into());
    }
    if !direct::supports(&shape.geometry) {
        return Err("its window has too many taps".into());
    }
    Ok((Algorithm::Direct, "straight from the blocks, no copy".into()))
}

fn gathered(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.groups > 1 && !shape.groups_are_blocks {
        return Err("groups are no whole blocks".into());
    }
    Ok((Algorithm::Im2col, "gathered windows".into()))
}
