//! Where a model's inputs come from: files, raw bytes, or a seed.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use sinew::plan::Port;
use sinew::preprocess::{Color, Pixels, Preprocess, Range, Recipe, Resize};
use sinew::{DType, Data, Input, Tensor};

use super::random::Random;
use super::times::shape as by_x;
use super::{Failure, Result, files, npy};

/// What every command that runs a model takes.
#[derive(Args)]
pub(super) struct SourceArguments {
    /// All inputs one after the other as little-endian f32, in the model's own layout
    #[arg(long, value_name = "FILE")]
    raw_input: Option<PathBuf>,
    /// Seed of the random inputs that are taken where none are given
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Files for inputs, and what is done with images.
#[derive(Args)]
pub(super) struct FileArguments {
    /// A file for an input: .npy, .png, .jpg or .pb (an ONNX tensor); repeatable, several for one input are its batch
    #[arg(long = "input", value_name = "[NAME=]FILE", conflicts_with = "raw_input")]
    files: Vec<String>,
    /// How an image of another size fills the input: stretch, crop or pad
    #[arg(long, value_name = "HOW", default_value = "stretch", value_parser = resize, help_heading = "Images")]
    resize: Resize,
    /// Channels: rgb, bgr or gray [default: rgb, or gray for an input with one channel]
    #[arg(long, value_name = "ORDER", value_parser = color, help_heading = "Images")]
    color: Option<Color>,
    /// Taken from each channel, in the input's order; one number for all
    #[arg(long, value_name = "A,B,C", default_value = "0", value_parser = channels, help_heading = "Images")]
    #[arg(allow_hyphen_values = true)]
    mean: [f32; 3],
    /// Divides each channel after that, in the input's order; one number for all
    #[arg(long, value_name = "A,B,C", default_value = "1", value_parser = channels, help_heading = "Images")]
    std: [f32; 3],
    /// Scale of the channels before that: 0-1 or 0-255 [default: 0-1, or bytes for a u8 input]
    #[arg(long, value_name = "RANGE", value_parser = range, help_heading = "Images")]
    range: Option<Range>,
}

/// Elements for all inputs, for one batch of the model or several.
pub(super) struct Inputs {
    elements: Vec<Data>,
    /// How often the model runs.
    pub(super) batches: usize,
    /// The seed, where the elements are random.
    pub(super) seed: Option<u64>,
    /// What was done with images: once for each input that has any.
    recipes: Vec<(String, Recipe)>,
}

impl Inputs {
    /// What one run takes.
    pub(super) fn batch(&self, index: usize) -> Vec<Input<'_>> {
        let part = |len: usize| {
            let one = len / self.batches;
            index * one..(index + 1) * one
        };
        let inputs = self.elements.iter().map(|data| match data {
            Data::F32(data) => Input::F32(&data[part(data.len())]),
            Data::U8(data) => Input::U8(&data[part(data.len())]),
            Data::I64(data) => Input::I64(&data[part(data.len())]),
        });
        inputs.collect()
    }

    /// What a user should know.
    pub(super) fn notices(&self) -> Vec<String> {
        self.recipes.iter().map(|(name, recipe)| format!("images for \"{name}\": {recipe}")).collect()
    }

    pub(super) fn json(&self) -> Value {
        let recipe = |(name, recipe): &(String, Recipe)| {
            json!({
                "input": name,
                "resize": recipe.resize.name(),
                "width": recipe.width,
                "height": recipe.height,
                "color": recipe.color.name(),
                "range": recipe.range.name(),
                "mean": recipe.mean,
                "std": recipe.std,
                "layout": recipe.layout.name(),
            })
        };
        self.recipes.iter().map(recipe).collect()
    }
}

/// The option that gives inputs, if there is one.
pub(super) fn given(files: &FileArguments, source: &SourceArguments) -> Option<&'static str> {
    let options = [("--input", !files.files.is_empty()), ("--raw-input", source.raw_input.is_some())];
    options.into_iter().find_map(|(name, given)| given.then_some(name))
}

/// Inputs from raw bytes or from the seed.
pub(super) fn from_source(source: &SourceArguments, ports: &[Port]) -> Result<Inputs> {
    let (elements, seed) = match &source.raw_input {
        Some(path) => (from_raw(path, ports)?, None),
        None => {
            let mut random = Random::new(source.seed);
            (ports.iter().map(|port| random.fill(port)).collect(), Some(source.seed))
        }
    };
    Ok(Inputs { elements, batches: 1, seed, recipes: Vec::new() })
}

fn from_raw(path: &Path, ports: &[Port]) -> Result<Vec<Data>> {
    let bytes = files::read(path)?;
    let expected: usize = ports.iter().map(Port::len).sum::<usize>() * size_of::<f32>();
    if bytes.len() != expected {
        let shapes: Vec<String> =
            ports.iter().map(|port| format!("\"{}\" {}", port.name, by_x(&port.shape))).collect();
        let reason =
            format!("{} bytes, the inputs take {expected} as f32: {}", bytes.len(), shapes.join(", "));
        return Err(Failure::at(path, reason));
    }
    let mut numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let mut elements = Vec::new();
    for port in ports {
        let values = numbers.by_ref().take(port.len());
        elements.push(match port.dtype {
            DType::F32 => Data::F32(values.collect()),
            DType::U8 => Data::U8(whole(values, 0.0, 255.0, port, path)?),
            // Beyond this not every integer is an f32.
            DType::I64 => Data::I64(whole(values, -16_777_216.0, 16_777_216.0, port, path)?),
        });
    }
    Ok(elements)
}

/// Whole numbers that are given as f32.
trait Whole: Sized {
    fn from_whole(x: f32) -> Self;
}

impl Whole for u8 {
    fn from_whole(x: f32) -> Self {
        x as u8
    }
}

impl Whole for i64 {
    fn from_whole(x: f32) -> Self {
        x as i64
    }
}

fn whole<T: Whole>(
    values: impl Iterator<Item = f32>,
    low: f32,
    high: f32,
    port: &Port,
    path: &Path,
) -> Result<Vec<T>> {
    let convert = |x: f32| {
        let fits = (low..=high).contains(&x) && x.fract() == 0.0;
        let reason = || format!("input \"{}\" takes {}, {x} is none", port.name, port.dtype.name());
        if fits { Ok(T::from_whole(x)) } else { Err(Failure::at(path, reason())) }
    };
    values.map(convert).collect()
}

/// Inputs from files, or from the source where there are none.
///
/// An input takes batches of the model's size, one after the other: the model runs once for each.
pub(super) fn gather(arguments: &FileArguments, source: &SourceArguments, ports: &[Port]) -> Result<Inputs> {
    if arguments.files.is_empty() {
        return from_source(source, ports);
    }
    let mut recipes = Vec::new();
    let mut elements = Vec::new();
    let mut batches = None;
    for (port, files) in ports.iter().zip(assign(&arguments.files, ports)?) {
        if files.is_empty() {
            let reason = format!("input \"{0}\" is missing: give it with --input {0}=FILE", port.name);
            return Err(Failure(reason));
        }
        let mut all: Option<Data> = None;
        for path in &files {
            let data = read(path, port, arguments, &mut recipes)?;
            match &mut all {
                None => all = Some(data),
                Some(all) => append(all, data),
            }
        }
        let all = all.unwrap_or(Data::F32(Vec::new()));
        let found = len(&all) / port.len();
        if !len(&all).is_multiple_of(port.len()) {
            let batch = port.shape[0];
            let items = len(&all) / (port.len() / batch);
            let reason =
                format!("input \"{}\": {items} items are no multiple of the batch {batch}", port.name);
            return Err(Failure(reason));
        }
        if *batches.get_or_insert(found) != found {
            let expected = batches.unwrap_or_default();
            let reason =
                format!("input \"{}\": {found} batches, the inputs before have {expected}", port.name);
            return Err(Failure(reason));
        }
        elements.push(all);
    }
    Ok(Inputs { elements, batches: batches.unwrap_or(1), seed: None, recipes })
}

/// The files of each input, in order: those with its name, and those without any name for the inputs that are left.
fn assign<'a>(files: &'a [String], ports: &[Port]) -> Result<Vec<Vec<&'a Path>>> {
    let mut assigned = vec![Vec::new(); ports.len()];
    let mut unnamed = Vec::new();
    for file in files {
        let named = file.split_once('=').map(|(name, path)| (name, Path::new(path)));
        match named.and_then(|(name, path)| Some((ports.iter().position(|port| port.name == name)?, path))) {
            Some((port, path)) => assigned[port].push(path),
            // A name of a file may hold a `=` as well.
            None if named.is_none() || Path::new(file).exists() => unnamed.push(Path::new(file)),
            None => {
                let name = named.map_or("", |(name, _)| name);
                return Err(Failure(format!("no input is named \"{name}\"; the model has {}", names(ports))));
            }
        }
    }
    let free: Vec<usize> = (0..ports.len()).filter(|&port| assigned[port].is_empty()).collect();
    match free[..] {
        // Several files for a single input are its batch.
        [only] => assigned[only] = unnamed,
        _ if unnamed.len() <= free.len() => {
            free.iter().zip(unnamed).for_each(|(&port, path)| assigned[port].push(path));
        }
        _ => {
            let reason = format!("{} files for {}; name them: --input NAME=FILE", files.len(), names(ports));
            return Err(Failure(reason));
        }
    }
    Ok(assigned)
}

fn names(ports: &[Port]) -> String {
    let names: Vec<String> = ports.iter().map(|port| format!("\"{}\"", port.name)).collect();
    names.join(", ")
}

/// Elements of one file: any number of items of the input's shape.
fn read(
    path: &Path,
    port: &Port,
    arguments: &FileArguments,
    recipes: &mut Vec<(String, Recipe)>,
) -> Result<Data> {
    let at = |reason: String| Failure::at(path, reason);
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    let tensor = match ending.as_str() {
        "npy" => npy::read(&files::read(path)?).map_err(at)?,
        "pb" => sinew::onnx::read_tensor(&files::read(path)?).map_err(|error| at(error.to_string()))?,
        "png" | "jpg" | "jpeg" => {
            let recipe = arguments.preprocess().for_input(port).map_err(|error| at(error.to_string()))?;
            let tensor = image(path, &recipe)?;
            if recipes.iter().all(|(name, _)| *name != port.name) {
                recipes.push((port.name.clone(), recipe));
            }
            tensor
        }
        _ => return Err(at("expected a name that ends in .npy, .png, .jpg or .pb".into())),
    };
    let (found, wanted) = (tensor.shape(), &port.shape[..]);
    if tensor.dtype() != port.dtype {
        let (found, wanted) = (tensor.dtype().name(), port.dtype.name());
        return Err(at(format!("holds {found}, input \"{}\" takes {wanted}", port.name)));
    }
    // Without other dimensions the first one is no batch.
    let fits = found == wanted
        || found.len() == wanted.len() && wanted.len() >= 2 && found[0] > 0 && found[1..] == wanted[1..];
    if !fits {
        let (found, wanted) = (by_x(found), by_x(wanted));
        let reason = format!("shape {found}, input \"{}\" takes {wanted} or batches of it", port.name);
        return Err(at(reason));
    }
    Ok(tensor.data().clone())
}

fn image(path: &Path, recipe: &Recipe) -> Result<Tensor> {
    let at = |error: image::ImageError| Failure::at(path, error);
    let reader = image::ImageReader::open(path).map_err(|error| Failure::at(path, error))?;
    let reader = reader.with_guessed_format().map_err(|error| Failure::at(path, error))?;
    let rgb = reader.decode().map_err(at)?.into_rgb8();
    let pixels = Pixels::new(rgb.width() as usize, rgb.height() as usize, rgb.as_raw())?;
    Ok(recipe.tensor(&pixels)?)
}

impl FileArguments {
    fn preprocess(&self) -> Preprocess {
        let Self { resize, color, mean, std, range, .. } = *self;
        Preprocess { resize, color, mean, std, range }
    }
}

fn len(data: &Data) -> usize {
    match data {
        Data::F32(data) => data.len(),
        Data::U8(data) => data.len(),
        Data::I64(data) => data.len(),
    }
}

/// Appends elements of the same type: [`read`] has checked it.
fn append(all: &mut Data, more: Data) {
    match (all, more) {
        (Data::F32(all), Data::F32(more)) => all.extend(more),
        (Data::U8(all), Data::U8(more)) => all.extend(more),
        (Data::I64(all), Data::I64(more)) => all.extend(more),
        _ => unreachable!("every file has the input's type"),
    }
}

fn resize(name: &str) -> std::result::Result<Resize, String> {
    let all = [Resize::Stretch, Resize::Crop, Resize::Pad];
    all.into_iter().find(|resize| resize.name() == name).ok_or("expected stretch, crop or pad".into())
}

fn color(name: &str) -> std::result::Result<Color, String> {
    let all = [Color::Rgb, Color::Bgr, Color::Gray];
    all.into_iter().find(|color| color.name() == name).ok_or("expected rgb, bgr or gray".into())
}

fn range(name: &str) -> std::result::Result<Range, String> {
    let all = [Range::Unit, Range::Byte];
    all.into_iter().find(|range| range.name() == name).ok_or("expected 0-1 or 0-255".into())
}

fn channels(text: &str) -> std::result::Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|number| number.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[a]) => Ok([a; 3]),
        Some(&[a, b, c]) => Ok([a, b, c]),
        _ => Err("expected one number, or three with commas between".into()),
    }
}
