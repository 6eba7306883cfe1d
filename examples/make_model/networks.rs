//! The networks: their published layouts, at any image size and width.

use super::layers::{Act, Conv, Layers};
use sinew::Result;

/// What a network is made with.
pub struct Settings {
    /// Height and width of the image.
    pub size: usize,
    pub batch: usize,
    /// Factor of all channel counts.
    pub width: f32,
    pub seed: u64,
    /// Whether convolutions are followed by a normalization, which is otherwise folded into them.
    pub batch_norm: bool,
}

impl Settings {
    /// A channel count times the width, a multiple of 8.
    fn channels(&self, count: usize) -> usize {
        if self.width == 1.0 {
            return count;
        }
        (((count as f32 * self.width / 8.0).round() as usize) * 8).max(8)
    }

    fn start(&self, name: &str) -> (Layers, String) {
        let mut net = Layers::new(name, self.seed, self.batch_norm);
        let x = net.input([self.batch, 3, self.size, self.size]);
        (net, x)
    }
}

/// A network that can be made.
pub struct Kind {
    pub name: &'static str,
    /// The default size of the image.
    pub size: usize,
    /// Whether its convolutions are followed by normalizations by default.
    pub batch_norm: bool,
    pub build: fn(&Settings) -> Result<Vec<u8>>,
}

pub const KINDS: [Kind; 13] = [
    Kind { name: "resnet", size: 224, batch_norm: true, build: |settings| resnet(settings, Block::Plain) },
    Kind {
        name: "se_resnet",
        size: 224,
        batch_norm: false,
        build: |settings| resnet(settings, Block::SqueezeExcite),
    },
    Kind {
        name: "sae_resnet",
        size: 224,
        batch_norm: false,
        build: |settings| resnet(settings, Block::Aggregate),
    },
    Kind { name: "resnext", size: 224, batch_norm: true, build: |settings| resnet(settings, Block::Grouped) },
    Kind { name: "vgg16", size: 224, batch_norm: false, build: vgg16 },
    Kind {
        name: "mobilenetv3",
        size: 224,
        batch_norm: false,
        build: |settings| mobilenet(settings, Act::HardSwish),
    },
    Kind {
        name: "mobilenetv3_apart",
        size: 224,
        batch_norm: false,
        build: |settings| mobilenet(settings, Act::HardSwishApart),
    },
    Kind { name: "rir_cifar", size: 32, batch_norm: false, build: rir },
    Kind { name: "rir_block", size: 32, batch_norm: true, build: rir_block },
    Kind { name: "maxmin_block", size: 32, batch_norm: false, build: max_min_block },
    Kind { name: "maxmin_cifar", size: 32, batch_norm: false, build: max_min },
    Kind { name: "dilated", size: 224, batch_norm: false, build: dilated },
    Kind { name: "tiny", size: 8, batch_norm: false, build: tiny },
];

#[derive(Clone, Copy, PartialEq)]
enum Block {
    Plain,
    SqueezeExcite,
    Aggregate,
    Grouped,
}

/// ResNet-50 with the stride in the 3x3 convolution; with squeeze-and-excitation of reduction 16, with the aggregated kind
/// (four branches, reduction 32), or as ResNeXt-50 with 32 groups of 4 channels and more.
fn resnet(settings: &Settings, block: Block) -> Result<Vec<u8>> {
    let name = match block {
        Block::Plain => "resnet50",
        Block::SqueezeExcite => "se_resnet50",
        Block::Aggregate => "sae_resnet50",
        Block::Grouped => "resnext50_32x4d",
    };
    let (mut net, x) = settings.start(name);
    let x = net.conv(&x, settings.channels(64), Conv::new(7).stride(2))?;
    let mut x = net.max_pool(&x, 3, 2);
    for (channels, blocks, first_stride) in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)] {
        let (outputs, mut middle, mut groups) =
            (settings.channels(channels * 4), settings.channels(channels), 1);
        if block == Block::Grouped {
            middle = settings.channels(channels * 2);
            // Narrow networks have fewer groups than 32.
            groups = (1..=32).rev().find(|&groups| middle.is_multiple_of(groups)).unwrap_or(1);
        }
        for i in 0..blocks {
            let stride = if i == 0 { first_stride } else { 1 };
            let shortcut = match i {
                0 => net.conv(&x, outputs, Conv::new(1).stride(stride).act(Act::None).gain(0.7))?,
                _ => x.clone(),
            };
            let y = net.conv(&x, middle, Conv::new(1))?;
            let y = net.conv(&y, middle, Conv::new(3).stride(stride).groups(groups))?;
            let y = net.conv(&y, outputs, Conv::new(1).act(Act::None).gain(0.5))?;
            let y = match block {
                Block::Plain | Block::Grouped => y,
                Block::SqueezeExcite => net.squeeze_excite(&y, (outputs / 16).max(4), Act::Sigmoid)?,
                Block::Aggregate => net.aggregate_excite(&y, (outputs / 32).max(4), 4)?,
            };
            x = net.add(&y, &shortcut, Act::Relu)?;
        }
    }
    classify(net, &x, 1000)
}

fn classify(mut net: Layers, x: &str, classes: usize) -> Result<Vec<u8>> {
    let mean = net.global_average(x);
    let row = net.flatten(&mean);
    let y = net.dense(&row, classes, Act::None)?;
    Ok(net.finish(&y))
}

fn vgg16(settings: &Settings) -> Result<Vec<u8>> {
    let (mut net, mut x) = settings.start("vgg16");
    for (channels, layers) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..layers {
            x = net.conv(&x, settings.channels(channels), Conv::new(3))?;
        }
        x = net.max_pool(&x, 2, 2);
    }
    let mut x = net.flatten(&x);
    for _ in 0..2 {
        x = net.dense(&x, settings.channels(4096), Act::Relu)?;
    }
    let y = net.dense(&x, 1000, Act::None)?;
    Ok(net.finish(&y))
}

/// MobileNetV3-Large. Rows: taps, expanded channels, output channels, whether gated, whether hard-swish, stride.
fn mobilenet(settings: &Settings, swish: Act) -> Result<Vec<u8>> {
    const ROWS: [(usize, usize, usize, bool, bool, usize); 15] = [
        (3, 16, 16, false, false, 1),
        (3, 64, 24, false, false, 2),
        (3, 72, 24, false, false, 1),
        (5, 72, 40, true, false, 2),
        (5, 120, 40, true, false, 1),
        (5, 120, 40, true, false, 1),
        (3, 240, 80, false, true, 2),
        (3, 200, 80, false, true, 1),
        (3, 184, 80, false, true, 1),
        (3, 184, 80, false, true, 1),
        (3, 480, 112, true, true, 1),
        (3, 672, 112, true, true, 1),
        (5, 672, 160, true, true, 2),
        (5, 960, 160, true, true, 1),
        (5, 960, 160, true, true, 1),
    ];
    let (mut net, x) = settings.start("mobilenetv3_large");
    let mut x = net.conv(&x, settings.channels(16), Conv::new(3).stride(2).act(swish))?;
    for (kernel, expanded, outputs, gated, swishes, stride) in ROWS {
        let act = if swishes { swish } else { Act::Relu };
        let (inputs, expanded, outputs) =
            (net.channels(&x), settings.channels(expanded), settings.channels(outputs));
        let y = match expanded == inputs {
            true => x.clone(),
            false => net.conv(&x, expanded, Conv::new(1).act(act))?,
        };
        let mut y = net.conv(&y, expanded, Conv::new(kernel).stride(stride).groups(expanded).act(act))?;
        if gated {
            // A quarter, as the next multiple of 8.
            y = net.squeeze_excite(&y, (expanded / 4).div_ceil(8) * 8, Act::HardSigmoid)?;
        }
        let y = net.conv(&y, outputs, Conv::new(1).act(Act::None).gain(0.7))?;
        x = if stride == 1 && inputs == outputs { net.add(&y, &x, Act::None)? } else { y };
    }
    let x = net.conv(&x, settings.channels(960), Conv::new(1).act(swish))?;
    let mean = net.global_average(&x);
    let row = net.flatten(&mean);
    let row = net.dense(&row, settings.channels(1280), swish)?;
    let y = net.dense(&row, 1000, Act::None)?;
    Ok(net.finish(&y))
}

/// ResNet in ResNet: two streams, of which the residual one gets the identity; pairs of generalized layers with a shortcut
/// around each.
fn rir(settings: &Settings) -> Result<Vec<u8>> {
    let (mut net, x) = settings.start("rir_cifar");
    let stem = settings.channels(48);
    let mut residual = net.conv(&x, stem, Conv::new(3))?;
    let mut transient = net.conv(&x, stem, Conv::new(3))?;
    for (channels, pairs, first_stride) in [(48, 3, 1), (96, 3, 2), (192, 2, 2)] {
        let channels = settings.channels(channels);
        for i in 0..pairs {
            let stride = if i == 0 { first_stride } else { 1 };
            let before = [residual.clone(), transient.clone()];
            for stride in [stride, 1] {
                [residual, transient] = generalized(&mut net, &residual, &transient, channels, stride)?;
            }
            if net.shape(&before[0]) == net.shape(&residual) {
                residual = net.add(&residual, &before[0], Act::None)?;
                transient = net.add(&transient, &before[1], Act::None)?;
            }
        }
    }
    let both = net.concat(&[&residual, &transient]);
    classify(net, &both, 10)
}

fn generalized(net: &mut Layers, r: &str, t: &str, channels: usize, stride: usize) -> Result<[String; 2]> {
    let straight = Conv::new(3).stride(stride).act(Act::None).gain(0.6);
    let shortcut = match stride == 1 && net.channels(r) == channels {
        true => r.to_owned(),
        false => net.conv(r, channels, Conv::new(1).stride(stride).act(Act::None).gain(0.6))?,
    };
    let mut streams = [String::new(), String::new()];
    for stream in &mut streams {
        let from_residual = net.conv(r, channels, straight)?;
        let from_transient = net.conv(t, channels, straight.without_bias())?;
        *stream = net.add(&from_residual, &from_transient, Act::None)?;
    }
    Ok([net.add(&streams[0], &shortcut, Act::Relu)?, net.act(&streams[1], Act::Relu)?])
}

/// One generalized layer of 48 channels a stream.
fn rir_block(settings: &Settings) -> Result<Vec<u8>> {
    let mut net = Layers::new("rir_block", settings.seed, settings.batch_norm);
    let channels = settings.channels(48);
    let shape = [settings.batch, channels, settings.size, settings.size];
    let streams = ["r", "t"].map(|name| net.named_input(name, shape));
    let [r, t] = generalized(&mut net, &streams[0], &streams[1], channels, 1)?;
    let both = net.concat(&[&r, &t]);
    Ok(net.finish(&both))
}

/// Convolution, MaxMin and a pool, from 64 channels.
fn max_min_block(settings: &Settings) -> Result<Vec<u8>> {
    let mut net = Layers::new("maxmin_block", settings.seed, settings.batch_norm);
    let channels = settings.channels(64);
    let x = net.input([settings.batch, channels, settings.size, settings.size]);
    let y = net.conv(&x, channels, Conv::new(3).act(Act::None))?;
    let y = net.max_min(&y)?;
    let y = net.max_pool(&y, 2, 2);
    Ok(net.finish(&y))
}

fn max_min(settings: &Settings) -> Result<Vec<u8>> {
    let (mut net, mut x) = settings.start("maxmin_cifar");
    for channels in [32, 64, 128] {
        let y = net.conv(&x, settings.channels(channels), Conv::new(3).act(Act::None))?;
        let y = net.max_min(&y)?;
        x = net.max_pool(&y, 2, 2);
    }
    let row = net.flatten(&x);
    let y = net.dense(&row, 10, Act::None)?;
    Ok(net.finish(&y))
}

/// A dense predictor: after a stem of stride 4 the taps move apart in place of further strides; 21 classes a pixel.
fn dilated(settings: &Settings) -> Result<Vec<u8>> {
    let (mut net, x) = settings.start("dilated");
    let x = net.conv(&x, settings.channels(64), Conv::new(7).stride(2))?;
    let mut x = net.max_pool(&x, 3, 2);
    for (channels, dilation) in [(128, 1), (128, 2), (256, 2), (256, 4), (256, 4), (256, 8)] {
        x = net.conv(&x, settings.channels(channels), Conv::new(3).dilation(dilation))?;
    }
    let y = net.conv(&x, 21, Conv::new(1).act(Act::None))?;
    Ok(net.finish(&y))
}

/// A hundred convolutions that take less time than a dispatch of most engines: what is left is the executor's own cost.
fn tiny(settings: &Settings) -> Result<Vec<u8>> {
    let (mut net, mut x) = settings.start("tiny");
    for i in 0..100 {
        x = net.conv(&x, settings.channels(16), Conv::new(if i % 2 == 0 { 3 } else { 1 }))?;
    }
    classify(net, &x, 10)
}
