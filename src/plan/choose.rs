//! Which algorithm computes a convolution: one ordered list, best first. The first that serves the shape and whose
//! rule holds is taken; the last serves all. The rule looks at one image, at shapes and options only.

use sinew_kernels::conv::ConvGeometry;

use super::{PlanOptions, Winograd};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// One image, one window: a matrix times a vector, at the speed of memory.
    Dense,
    /// One filter per channel.
    Depthwise,
    /// From the plain image: few channels, never padded to a block.
    PlainImage,
    /// Winograd with output tiles of this size.
    Winograd(usize),
    /// 1x1, stride 1: the map as one row of pixels.
    Pointwise,
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
            Algorithm::Winograd(2) => "winograd-2",
            Algorithm::Winograd(4) => "winograd-4",
            Algorithm::Winograd(_) => "winograd-6",
            Algorithm::Pointwise => "pointwise",
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
    /// Whether the input is a plain graph input that nothing else needs in blocks.
    pub plain_input: bool,
}

/// The choice and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What was taken.
    pub algorithm: Algorithm,
    /// Why it was taken and why those before it were not.
    pub why: String,
}

/// An entry of the list: the reason for taking it, or for passing on.
type Rule = fn(&ConvShape, &PlanOptions) -> Result<(Algorithm, String), String>;

/// Best first.
const RULES: [(&str, Rule); 8] = [
    ("depthwise", depthwise),
    ("dense", dense),
    ("plain-image", plain_image),
    ("winograd", winograd),
    ("pointwise", pointwise),
    ("grouped", grouped),
    ("direct", direct),
    ("im2col", im2col),
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
    unreachable!("im2col serves every shape")
}

/// The wanted algorithm, if it serves the shape.
fn force(shape: &ConvShape, wanted: Algorithm, options: &PlanOptions) -> Result<Choice, String> {
    let (algorithm, _) = match wanted {
        Algorithm::Winograd(_) => winograd(shape, options)?,
        Algorithm::Im2col => im2col(shape, options)?,
        _ => {
            let candidates: [Rule; 6] = [depthwise, dense, plain_image, pointwise, grouped, direct];
            candidates.into_iter().find_map(|rule| rule(shape, options).ok()).ok_or("no direct form")?
        }
    };
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

fn plain_image(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if !shape.plain_input {
        return Err("the input is not a plain graph input".into());
    }
    if shape.groups != 1 || shape.in_channels > PLAIN_IMAGE_CHANNELS {
        return Err(format!("{} channels fill a block well enough", shape.in_channels));
    }
    Ok((Algorithm::PlainImage, format!("{} channels are read as they lie, none padded", shape.in_channels)))
}

fn winograd(_: &ConvShape, options: &PlanOptions) -> Result<(Algorithm, String), String> {
    match options.winograd {
        Winograd::Off => Err("switched off".into()),
        _ => Err("no kernel".into()),
    }
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

fn direct(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.groups > 1 && !shape.groups_are_blocks {
        return Err("groups are no whole blocks".into());
    }
    Ok((Algorithm::Direct, "straight from the blocks, no copy".into()))
}

fn im2col(shape: &ConvShape, _: &PlanOptions) -> Result<(Algorithm, String), String> {
    if shape.groups > 1 && !shape.groups_are_blocks {
        return Err("groups are no whole blocks".into());
    }
    Ok((Algorithm::Im2col, "serves every shape".into()))
}
