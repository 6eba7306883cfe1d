//! Resize and Upsample where they repeat pixels by whole factors.

use super::Importer;
use super::node::{NodeView, Outcome, axis, invalid, unsupported};
use super::window::Image;
use crate::graph::Op;

impl Importer<'_> {
    pub(super) fn resize(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[
            "antialias",
            "axes",
            "coordinate_transformation_mode",
            "cubic_coeff_a",
            "exclude_outside",
            "extrapolation_value",
            "keep_aspect_ratio_policy",
            "mode",
            "nearest_mode",
            "scales",
        ])?;
        node.at_most_inputs(4)?;
        let mode = node.string("mode", "nearest")?;
        if mode != "nearest" {
            return unsupported(format!("mode {mode}"));
        }
        let policy = node.string("keep_aspect_ratio_policy", "stretch")?;
        if policy != "stretch" {
            return unsupported(format!("keep_aspect_ratio_policy {policy}"));
        }
        // The first form of both took the pixel at the index divided by the scale, rounded down.
        let first_form = node.op() == "Upsample" || node.opset < 11;
        let coordinates = node
            .string("coordinate_transformation_mode", if first_form { "asymmetric" } else { "half_pixel" })?;
        let rounding =
            node.string("nearest_mode", if first_form { "floor" } else { "round_prefer_floor" })?;
        let x = self.float(node, 0)?;
        let shape = self.graph.shape(x).to_vec();
        let along: Vec<usize> = match node.ints("axes")? {
            None => (0..shape.len()).collect(),
            Some(list) => list.iter().map(|&at| axis(at, shape.len())).collect::<Outcome<_>>()?,
        };
        let mut factors = vec![1; shape.len()];
        let sizes = match node.input(3) {
            Some(_) => self.ints(node, 3, "the list of sizes")?,
            None => Vec::new(),
        };
        if sizes.is_empty() {
            let scales = self.scales(node, if first_form { 1 } else { 2 })?;
            if scales.len() != along.len() {
                return invalid(format!("{} scales for {} dimensions", scales.len(), along.len()));
            }
            for (&at, &scale) in along.iter().zip(&scales) {
                factors[at] = whole_factor(scale)?;
            }
        } else {
            if sizes.len() != along.len() {
                return invalid(format!("{} sizes for {} dimensions", sizes.len(), along.len()));
            }
            for (&at, &size) in along.iter().zip(&sizes) {
                factors[at] = match usize::try_from(size) {
                    Ok(size) if size > 0 && size.is_multiple_of(shape[at]) => size / shape[at],
                    _ => return unsupported(format!("from {} to {size}: no whole factor", shape[at])),
                };
            }
        }
        if factors.iter().all(|&factor| factor == 1) {
            return self.forward(node, 0);
        }
        if factors.iter().take(2).any(|&factor| factor != 1) {
            return unsupported("a change of the batch or the channels");
        }
        let largest = factors.iter().copied().max().unwrap_or(1);
        // Where the pixel at index i / factor, rounded down, is the nearest one. Half pixels are never half way between
        // two; indices divided by the factor are so for even factors, and below half way up to a factor of 2 only.
        let repeats = match coordinates {
            "half_pixel" | "pytorch_half_pixel" | "half_pixel_symmetric" => {
                matches!(rounding, "round_prefer_floor" | "round_prefer_ceil")
            }
            "asymmetric" => rounding == "floor" || (rounding == "round_prefer_floor" && largest <= 2),
            "tf_half_pixel_for_nn" => rounding == "floor",
            _ => false,
        };
        if !repeats {
            return unsupported(format!("nearest pixels with {coordinates} and {rounding}"));
        }
        let Image { x, is_row } = self.image(node, x)?;
        let factors = match *factors {
            [_, _, height, width] => [height, width],
            [_, _, width] => [1, width],
            _ => return invalid(format!("the input has the shape {shape:?}, expected [N, C, H, W]")),
        };
        self.emit_on_image(node, is_row, Op::UpsampleNearest { factors }, vec![x])
    }

    fn scales(&mut self, node: &NodeView, at: usize) -> Outcome<Vec<f32>> {
        if let Some(scales) = node.floats("scales")? {
            return Ok(scales.to_vec());
        }
        let scales = self.float_constant(node, at, "the list of scales")?;
        Ok(scales.as_f32().unwrap_or_default().to_vec())
    }
}

fn whole_factor(scale: f32) -> Outcome<usize> {
    // Factors that f32 holds exactly, far above any in use.
    if (1.0..=65536.0).contains(&scale) && scale.fract() == 0.0 {
        Ok(scale as usize)
    } else {
        unsupported(format!("the scale {scale}: no whole factor"))
    }
}
