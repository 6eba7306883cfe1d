//! Operators that slide a window over an image: convolutions and pools. One spatial dimension is an image of one row.

use super::Importer;
use super::node::{NodeView, Outcome, invalid, unsupported};
use crate::graph::{Conv, Op, Pads, Pool, PoolKind, ValueId};
use sinew_kernels::activation::Activation;

/// A window over an image.
struct Window {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: Pads,
}

/// The attributes that describe a window.
const WINDOW_ATTRIBUTES: [&str; 5] = ["auto_pad", "dilations", "kernel_shape", "pads", "strides"];

/// `x` as an image, and whether it had one spatial dimension only.
pub(super) struct Image {
    pub x: ValueId,
    pub is_row: bool,
}

impl Importer<'_> {
    /// `[N, C, L]` as `[N, C, 1, L]`; other ranks are refused.
    pub(super) fn image(&mut self, node: &NodeView, x: ValueId) -> Outcome<Image> {
        match *self.graph.shape(x) {
            [_, _, _, _] => Ok(Image { x, is_row: false }),
            [n, c, l] => Ok(Image { x: self.reshaped(node, "image", x, vec![n, c, 1, l])?, is_row: true }),
            [_, _, _, _, ..] => unsupported(format!(
                "the input has the shape {:?}: more than two spatial dimensions",
                self.graph.shape(x)
            )),
            _ => invalid(format!("the input has the shape {:?}, expected [N, C, H, W]", self.graph.shape(x))),
        }
    }

    /// Adds an operator on an image whose output is the node's, with as many dimensions as its input had.
    pub(super) fn emit_on_image(
        &mut self,
        node: &NodeView,
        is_row: bool,
        op: Op,
        inputs: Vec<ValueId>,
    ) -> Outcome<()> {
        if !is_row {
            return self.emit(node, op, inputs);
        }
        let y = self.part(node, "row", op, inputs)?;
        let &[n, c, _, l] = self.graph.shape(y) else {
            return invalid("the output is no image");
        };
        self.emit(node, Op::Reshape { shape: vec![n, c, l] }, vec![y])
    }

    pub(super) fn conv(&mut self, node: &NodeView) -> Outcome<()> {
        let mut known = vec!["group"];
        known.extend(WINDOW_ATTRIBUTES);
        node.attributes(&known)?;
        node.at_most_inputs(3)?;
        let groups = positive("group", node.int("group", 1)?)?;
        let x = self.float(node, 0)?;
        let weights = self.float_constant(node, 1, "the weights")?;
        let Image { x, is_row } = self.image(node, x)?;
        let (kernel, weights) = match (&*weights.shape, is_row) {
            (&[_, _, h, w], false) => ([h, w], self.constant_value(&weights)),
            (&[o, c, l], true) => {
                self.reserve_shape(&weights.shape)?;
                let image = weights.reshaped(weights.name.clone(), vec![o, c, 1, l])?;
                ([1, l], self.constant_value(&image.into()))
            }
            _ => {
                let spatial = if is_row { "[O, C, L]" } else { "[O, C, H, W]" };
                return invalid(format!(
                    "the weights have the shape {:?}, expected {spatial}",
                    weights.shape
                ));
            }
        };
        if self.graph.shape(weights).contains(&0) {
            return invalid(format!("the weights are empty: {:?}", self.graph.shape(weights)));
        }
        let window = self.window(node, x, is_row, Some(kernel))?;
        if window.kernel != kernel {
            return invalid(format!("kernel_shape {:?}, the weights have {kernel:?}", window.kernel));
        }
        let bias = match node.input(2) {
            Some(_) => {
                let bias = self.float_constant(node, 2, "the bias")?;
                self.constant_value(&bias)
            }
            None => {
                let channels = self.graph.shape(weights)[0];
                self.reserve(channels as u64)?;
                self.add_constant(format!("{}/bias", node.name), vec![channels], vec![0.0; channels])?
            }
        };
        let Window { kernel, stride, dilation, pads } = window;
        let (before, after) = (Activation::Identity, Activation::Identity);
        let op = Op::Conv(Conv { kernel, stride, dilation, pads, groups, before, residual: false, after });
        self.emit_on_image(node, is_row, op, vec![x, weights, bias])
    }

    pub(super) fn pool(&mut self, node: &NodeView) -> Outcome<()> {
        let kind = if node.op() == "MaxPool" { PoolKind::Max } else { PoolKind::Average };
        let mut known = vec!["ceil_mode"];
        known.extend(WINDOW_ATTRIBUTES);
        // The order of the indices does not concern the maxima.
        known.push(if kind == PoolKind::Max { "storage_order" } else { "count_include_pad" });
        node.attributes(&known)?;
        node.at_most_inputs(1)?;
        let ceil_mode = node.flag("ceil_mode", false)?;
        let count_include_pad = kind == PoolKind::Average && node.flag("count_include_pad", false)?;
        if ceil_mode && !matches!(node.string("auto_pad", "NOTSET")?, "NOTSET" | "") {
            return unsupported("ceil_mode beside auto_pad");
        }
        let x = self.float(node, 0)?;
        let Image { x, is_row } = self.image(node, x)?;
        let Window { kernel, stride, dilation, pads } = self.window(node, x, is_row, None)?;
        let pool = Pool { kind, kernel, stride, dilation, pads, ceil_mode, count_include_pad };
        if ceil_mode && count_include_pad && self.reaches_beyond_the_border(&pool, x) {
            // Some divide by all taps then, some by those inside the border.
            return unsupported("an average over windows that reach beyond the counted border");
        }
        self.emit_on_image(node, is_row, Op::Pool(pool), vec![x])
    }

    fn reaches_beyond_the_border(&self, pool: &Pool, x: ValueId) -> bool {
        let Ok(out) = crate::graph::shape::infer(&Op::Pool(pool.clone()), &[self.graph.shape(x)]) else {
            return false;
        };
        let Pads { top, left, bottom, right } = pool.pads;
        let borders = [top + bottom, left + right];
        (0..2).any(|axis| {
            let last =
                (out[axis + 2] - 1) * pool.stride[axis] + (pool.kernel[axis] - 1) * pool.dilation[axis];
            last >= self.graph.shape(x)[axis + 2] + borders[axis]
        })
    }

    pub(super) fn global_pool(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(1)?;
        let kind = if node.op() == "GlobalMaxPool" { PoolKind::Max } else { PoolKind::Average };
        let x = self.float(node, 0)?;
        let Image { x, is_row } = self.image(node, x)?;
        self.emit_on_image(node, is_row, Op::GlobalPool(kind), vec![x])
    }

    /// The window that the attributes describe; `kernel` where the weights tell it.
    fn window(
        &self,
        node: &NodeView,
        x: ValueId,
        is_row: bool,
        kernel: Option<[usize; 2]>,
    ) -> Outcome<Window> {
        let dims = if is_row { 1 } else { 2 };
        let pair = |name: &str, default: Option<[usize; 2]>| -> Outcome<[usize; 2]> {
            match (node.ints(name)?, default) {
                (None, Some(default)) => Ok(default),
                (None, None) => invalid(format!("attribute {name} is missing")),
                (Some(list), _) if list.len() == dims => {
                    let mut pair = [1; 2];
                    for (to, &from) in pair[2 - dims..].iter_mut().zip(list) {
                        *to = positive(name, from)?;
                    }
                    Ok(pair)
                }
                (Some(list), _) => invalid(format!("{name} is {list:?}, expected {dims} numbers")),
            }
        };
        let kernel = pair("kernel_shape", kernel)?;
        let stride = pair("strides", Some([1, 1]))?;
        let dilation = pair("dilations", Some([1, 1]))?;
        let explicit = node.ints("pads")?;
        let auto = node.string("auto_pad", "NOTSET")?;
        if !matches!(auto, "NOTSET" | "") && explicit.is_some_and(|pads| pads.iter().any(|&pad| pad != 0)) {
            return unsupported(format!("pads beside auto_pad {auto}"));
        }
        let pads = match auto {
            "NOTSET" | "" => match explicit {
                None => Pads::default(),
                Some(list) if list.len() != 2 * dims => {
                    return invalid(format!("pads is {list:?}, expected {} numbers", 2 * dims));
                }
                Some(list) if list.iter().any(|&pad| pad < 0) => return unsupported("negative pads"),
                Some(list) => {
                    let at = |i: usize| list[i] as usize;
                    match is_row {
                        true => Pads { top: 0, left: at(0), bottom: 0, right: at(1) },
                        false => Pads { top: at(0), left: at(1), bottom: at(2), right: at(3) },
                    }
                }
            },
            "VALID" => Pads::default(),
            "SAME_UPPER" | "SAME_LOWER" => {
                let mut pads = [[0; 2]; 2];
                for (axis, pads) in pads.iter_mut().enumerate() {
                    let total = same_padding(
                        self.graph.shape(x)[axis + 2],
                        kernel[axis],
                        stride[axis],
                        dilation[axis],
                    );
                    let Some(total) = total else {
                        return invalid("the window is too large");
                    };
                    let (less, more) = (total / 2, total - total / 2);
                    *pads = if auto == "SAME_UPPER" { [less, more] } else { [more, less] };
                }
                let [[top, bottom], [left, right]] = pads;
                Pads { top, left, bottom, right }
            }
            other => return invalid(format!("auto_pad is {other}")),
        };
        Ok(Window { kernel, stride, dilation, pads })
    }

    pub(super) fn batch_norm(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["epsilon", "momentum", "spatial", "training_mode"])?;
        node.at_most_inputs(5)?;
        if !node.flag("spatial", true)? {
            return unsupported("statistics per pixel (spatial = 0)");
        }
        // Before operator set 14 it was the number of outputs that asked for training.
        let trains = match node.opset {
            ..14 => (1..node.proto.output.len()).any(|i| node.output(i).is_some()),
            _ => node.flag("training_mode", false)?,
        };
        if trains {
            return unsupported("training mode");
        }
        let epsilon = node.float("epsilon", 1e-5)?;
        let mut inputs = vec![self.float(node, 0)?];
        for (at, what) in [(1, "gamma"), (2, "beta"), (3, "the mean"), (4, "the variance")] {
            let parameter = self.float_constant(node, at, what)?;
            inputs.push(self.constant_value(&parameter));
        }
        self.emit(node, Op::BatchNorm { epsilon }, inputs)
    }

    pub(super) fn lrn(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["alpha", "beta", "bias", "size"])?;
        node.at_most_inputs(1)?;
        let Some(size) = node.int_if_given("size")? else {
            return invalid("attribute size is missing");
        };
        let size = positive("size", size)?;
        let (alpha, beta) = (node.float("alpha", 1e-4)?, node.float("beta", 0.75)?);
        let bias = node.float("bias", 1.0)?;
        let x = self.float(node, 0)?;
        let Image { x, is_row } = self.image(node, x)?;
        self.emit_on_image(node, is_row, Op::Lrn { size, alpha, beta, bias }, vec![x])
    }
}

/// Rows or columns of border so that there are `input / stride` windows, rounded up.
fn same_padding(input: usize, kernel: usize, stride: usize, dilation: usize) -> Option<usize> {
    let extent = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
    let last = (input.div_ceil(stride) - 1).checked_mul(stride)?;
    Some(last.checked_add(extent)?.saturating_sub(input))
}

/// A number that must be at least 1.
pub(super) fn positive(name: &str, found: i64) -> Outcome<usize> {
    match usize::try_from(found) {
        Ok(found) if found > 0 => Ok(found),
        _ => invalid(format!("{name} is {found}, expected at least 1")),
    }
}
