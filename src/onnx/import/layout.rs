//! Operators that move elements: concatenation, slices, borders, reshapes, transposition.

use std::rc::Rc;

use super::constant::{Constant, Elements, strides};
use super::fold::expanded;
use super::node::{NodeView, Outcome, Problem, axes, axis, invalid, unsupported};
use super::shape_arithmetic::sliced_constant;
use super::window::positive;
use super::{Importer, Known};
use crate::graph::{BinaryOp, Op, ValueId, shape};

impl Importer<'_> {
    pub(super) fn concat(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axis"])?;
        let Some(along) = node.int_if_given("axis")? else {
            return invalid("attribute axis is missing");
        };
        let count = node.proto.input.len();
        let axis = axis(along, self.shape(node, 0)?.len())?;
        if count == 1 {
            return self.forward(node, 0);
        }
        let mut constants = Vec::new();
        for at in 0..count {
            constants.extend(self.constant(node, at)?);
        }
        if constants.len() == count {
            let folded = self.fold_concat(node, axis, &constants)?;
            self.bind_constant(node, folded);
            return Ok(());
        }
        let inputs = (0..count).map(|at| self.float(node, at)).collect::<Outcome<Vec<ValueId>>>()?;
        self.emit(node, Op::Concat { axis }, inputs)
    }

    fn fold_concat(&mut self, node: &NodeView, axis: usize, parts: &[Rc<Constant>]) -> Outcome<Constant> {
        let first = &parts[0];
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        for part in parts {
            let fits = part.shape.len() == shape.len()
                && part.shape.iter().zip(&first.shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
            if !fits {
                return invalid(format!("{:?} and {:?} do not fit", part.shape, first.shape));
            }
            shape[axis] += part.shape[axis];
        }
        self.reserve_shape(&shape)?;
        let outer = shape[..axis].iter().product::<usize>();
        let inner = shape[axis + 1..].iter().product::<usize>();
        let run = |part: &Constant, o: usize| {
            let length = part.shape[axis] * inner;
            o * length..(o + 1) * length
        };
        let name = node.name.clone();
        if let Elements::Int(_, int_type) = first.elements {
            let mut elements = Vec::new();
            for o in 0..outer {
                for part in parts {
                    match &part.elements {
                        Elements::Int(from, other) if *other == int_type => {
                            elements.extend(&from[run(part, o)])
                        }
                        _ => return invalid("operands of different types"),
                    }
                }
            }
            return Ok(Constant::int(name, shape, elements, int_type));
        }
        let mut elements = Vec::new();
        for o in 0..outer {
            for part in parts {
                match part.as_f32() {
                    Some(from) => elements.extend(&from[run(part, o)]),
                    None => return invalid("operands of different types"),
                }
            }
        }
        Ok(Constant::float(name, shape, elements)?)
    }

    pub(super) fn split(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axis", "split", "num_outputs"])?;
        node.at_most_inputs(2)?;
        let along = node.int("axis", 0)?;
        let shape = self.shape(node, 0)?;
        let axis = axis(along, shape.len())?;
        let outputs = node.proto.output.len();
        let listed = match (node.ints("split")?, node.input(1)) {
            (Some(_), Some(_)) => return invalid("sizes as an attribute and as an input"),
            (Some(list), None) => Some(list.to_vec()),
            (None, Some(_)) => Some(self.ints(node, 1, "the list of sizes")?),
            (None, None) => None,
        };
        if node.int_if_given("num_outputs")?.is_some_and(|count| count != outputs as i64) {
            return invalid(format!("num_outputs is not the number of outputs, {outputs}"));
        }
        let sizes: Vec<usize> = match listed {
            Some(list) => list.iter().map(|&size| positive("a size", size)).collect::<Outcome<_>>()?,
            None => {
                // Equal ones; from operator set 18 on the last may be smaller.
                let size = shape[axis].div_ceil(outputs);
                let last = shape[axis] as i64 - size as i64 * (outputs as i64 - 1);
                if last <= 0 || (node.opset < 18 && last != size as i64) {
                    return invalid(format!("{} elements cannot be split into {outputs} parts", shape[axis]));
                }
                let mut sizes = vec![size; outputs];
                sizes[outputs - 1] = last as usize;
                sizes
            }
        };
        let total = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
        if sizes.len() != outputs || total != Some(shape[axis]) {
            return invalid(format!(
                "parts of {sizes:?} for {outputs} outputs and {} elements along dimension {axis}",
                shape[axis]
            ));
        }
        let constant = self.constant(node, 0)?;
        let mut first = 0;
        for (output, &extent) in sizes.iter().enumerate() {
            let (mut start, mut size) = (vec![0; shape.len()], shape.clone());
            (start[axis], size[axis]) = (first, extent);
            first += extent;
            if node.output(output).is_none() {
                continue;
            }
            if let Some(constant) = &constant {
                self.reserve_shape(&size)?;
                let ranges: Vec<(usize, i64, usize)> =
                    start.iter().zip(&size).map(|(&start, &size)| (start, 1, size)).collect();
                let part = sliced_constant(format!("{}/{output}", node.name), constant, &ranges)?;
                self.bind(node, output, Known::Constant(Rc::new(part)));
            } else if size == shape {
                let known = self.known(node, 0)?.clone();
                self.bind(node, output, known);
            } else {
                let x = self.float(node, 0)?;
                self.emit_at(node, output, Op::Slice { start, step: vec![1; shape.len()], size }, vec![x])?;
            }
        }
        Ok(())
    }

    pub(super) fn slice(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axes", "ends", "starts"])?;
        node.at_most_inputs(5)?;
        let list = |at: usize, name: &'static str| -> Outcome<Option<Vec<i64>>> {
            match (node.ints(name)?, node.input(at)) {
                (Some(_), Some(_)) => invalid(format!("{name} as an attribute and as an input")),
                (Some(list), None) => Ok(Some(list.to_vec())),
                (None, Some(_)) => self.ints(node, at, name).map(Some),
                (None, None) => Ok(None),
            }
        };
        let (Some(starts), Some(ends)) = (list(1, "starts")?, list(2, "ends")?) else {
            return invalid("starts or ends are missing");
        };
        let along = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), along.len(), steps.len()] != [starts.len(); 3] {
            return invalid("starts, ends, axes and steps differ in number");
        }
        let shape = self.shape(node, 0)?;
        axes(&along, shape.len())?;
        let mut ranges: Vec<(usize, i64, usize)> = shape.iter().map(|&d| (0, 1, d)).collect();
        for (i, &at) in along.iter().enumerate() {
            let at = axis(at, shape.len())?;
            ranges[at] = range(starts[i], ends[i], steps[i], shape[at])?;
        }
        if let Some(constant) = self.constant(node, 0)? {
            let size: Vec<usize> = ranges.iter().map(|range| range.2).collect();
            self.reserve_shape(&size)?;
            let folded = sliced_constant(node.name.clone(), &constant, &ranges)?;
            self.bind_constant(node, folded);
            return Ok(());
        }
        let x = self.float(node, 0)?;
        if ranges.iter().zip(&shape).all(|(&range, &d)| range == (0, 1, d)) {
            return self.forward(node, 0);
        }
        if ranges.iter().any(|range| range.2 == 0) {
            return invalid(format!("the slice of {shape:?} is empty"));
        }
        if ranges.iter().any(|range| range.1 < 1) {
            let backwards: Vec<usize> =
                (0..shape.len()).filter(|&at| ranges[at] != (0, 1, shape[at])).collect();
            let &[at] = backwards.as_slice() else {
                return unsupported("negative steps beside others");
            };
            let (start, step, count) = ranges[at];
            let indices: Vec<usize> = (0..count as i64).map(|i| (start as i64 + i * step) as usize).collect();
            let y = self.select_along(node, x, at, &indices)?;
            return self.emit_reshape(node, y, self.graph.shape(y).to_vec());
        }
        let op = Op::Slice {
            start: ranges.iter().map(|range| range.0).collect(),
            step: ranges.iter().map(|range| range.1 as usize).collect(),
            size: ranges.iter().map(|range| range.2).collect(),
        };
        self.emit(node, op, vec![x])
    }

    pub(super) fn pad(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["mode", "pads", "value"])?;
        node.at_most_inputs(4)?;
        let mode = node.string("mode", "constant")?;
        if mode != "constant" {
            return unsupported(format!("mode {mode}"));
        }
        let amounts = match (node.ints("pads")?, node.input(1)) {
            (Some(_), Some(_)) => return invalid("pads as an attribute and as an input"),
            (Some(list), None) => list.to_vec(),
            (None, Some(_)) => self.ints(node, 1, "the amounts")?,
            (None, None) => return invalid("the amounts are missing"),
        };
        let value = match node.input(2) {
            None => node.float("value", 0.0)?,
            Some(_) => match self.float_constant(node, 2, "the value")?.as_f32() {
                Some(&[value]) => value,
                _ => return invalid("the value is no scalar"),
            },
        };
        let x = self.float(node, 0)?;
        let rank = self.graph.shape(x).len();
        let along: Vec<usize> = match node.input(3) {
            None => (0..rank).collect(),
            Some(_) => {
                let list = self.ints(node, 3, "the list of axes")?;
                axes(&list, rank)?;
                list.iter().map(|&at| axis(at, rank)).collect::<Outcome<_>>()?
            }
        };
        if amounts.len() != 2 * along.len() {
            return invalid(format!("{} amounts for {} dimensions", amounts.len(), along.len()));
        }
        if amounts.iter().any(|&amount| amount < 0) {
            return unsupported("negative amounts");
        }
        if amounts.iter().all(|&amount| amount == 0) {
            return self.forward(node, 0);
        }
        let mut pairs = vec![[0; 2]; rank];
        for (i, &at) in along.iter().enumerate() {
            pairs[at] = [amounts[i] as usize, amounts[along.len() + i] as usize];
        }
        self.emit(node, Op::Pad { amounts: pairs, value }, vec![x])
    }

    pub(super) fn reshape_node(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["allowzero"])?;
        node.at_most_inputs(2)?;
        let keeps_zero = node.flag("allowzero", false)?;
        let target = self.ints(node, 1, "the shape")?;
        let from = self.shape(node, 0)?;
        if target.len() > self.limits.dims {
            return invalid(format!("a shape of {} dimensions", target.len()));
        }
        let mut open = None;
        let mut out = Vec::with_capacity(target.len());
        for (i, &d) in target.iter().enumerate() {
            out.push(match d {
                0 if keeps_zero => 0,
                0 => match from.get(i) {
                    Some(&d) => d,
                    None => return invalid(format!("{target:?} copies dimension {i} of {from:?}")),
                },
                -1 if open.replace(i).is_some() => return invalid(format!("two open extents in {target:?}")),
                -1 => 1,
                d => positive("an extent", d)?,
            });
        }
        let count = shape::elements(&from).map_err(Problem::Invalid)?;
        let known = shape::elements(&out).map_err(Problem::Invalid)?;
        if let Some(open) = open {
            if known == 0 || !count.is_multiple_of(known) {
                return invalid(format!("{from:?} cannot be reshaped to {target:?}"));
            }
            out[open] = count / known;
        } else if known != count {
            return invalid(format!(
                "{from:?} cannot be reshaped to {target:?}: the number of elements differs"
            ));
        }
        self.reshape_to(node, out)
    }

    /// The first operand in another shape of as many elements.
    fn reshape_to(&mut self, node: &NodeView, out: Vec<usize>) -> Outcome<()> {
        if let Some(constant) = self.constant(node, 0)? {
            if constant.shape != out {
                self.reserve_shape(&out)?;
            }
            let folded = constant.reshaped(node.name.clone(), out)?;
            self.bind_constant(node, folded);
            return Ok(());
        }
        // Integers may keep their shape.
        if self.shape(node, 0)? == out {
            return self.forward(node, 0);
        }
        let x = self.float(node, 0)?;
        self.emit_reshape(node, x, out)
    }

    pub(super) fn flatten(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axis"])?;
        node.at_most_inputs(1)?;
        let along = node.int("axis", 1)?;
        let from = self.shape(node, 0)?;
        // One more than a dimension: all of them may come first.
        let at = if along == from.len() as i64 { from.len() } else { axis(along, from.len())? };
        let product = |dims: &[usize]| shape::elements(dims).map_err(Problem::Invalid);
        let out = vec![product(&from[..at])?, product(&from[at..])?];
        self.reshape_to(node, out)
    }

    pub(super) fn squeeze(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axes"])?;
        node.at_most_inputs(2)?;
        let from = self.shape(node, 0)?;
        let dropped = match self.axes_operand(node)? {
            Some(list) => axes(&list, from.len())?,
            None => (0..from.len()).filter(|&i| from[i] == 1).collect(),
        };
        if let Some(&at) = dropped.iter().find(|&&at| from[at] != 1) {
            return invalid(format!("dimension {at} of {from:?} is not 1"));
        }
        let out = (0..from.len()).filter(|i| !dropped.contains(i)).map(|i| from[i]).collect();
        self.reshape_to(node, out)
    }

    pub(super) fn unsqueeze(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axes"])?;
        node.at_most_inputs(2)?;
        let from = self.shape(node, 0)?;
        let Some(list) = self.axes_operand(node)? else {
            return invalid("the list of axes is missing");
        };
        let rank = from.len() + list.len();
        if rank > self.limits.dims {
            return invalid(format!("{rank} dimensions"));
        }
        let added = axes(&list, rank)?;
        let mut kept = from.iter();
        let out = (0..rank)
            .map(|i| if added.contains(&i) { 1 } else { kept.next().copied().unwrap_or(1) })
            .collect();
        self.reshape_to(node, out)
    }

    /// Axes as an attribute or, later, as the second input.
    fn axes_operand(&self, node: &NodeView) -> Outcome<Option<Vec<i64>>> {
        match (node.ints("axes")?, node.input(1)) {
            (Some(_), Some(_)) => invalid("axes as an attribute and as an input"),
            (Some(list), None) => Ok(Some(list.to_vec())),
            (None, Some(_)) => self.ints(node, 1, "the list of axes").map(Some),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn transpose(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["perm"])?;
        node.at_most_inputs(1)?;
        let from = self.shape(node, 0)?;
        let permutation: Vec<usize> = match node.ints("perm")? {
            None => (0..from.len()).rev().collect(),
            Some(list) if list.len() != from.len() => {
                return invalid(format!("perm is {list:?} for {} dimensions", from.len()));
            }
            Some(list) => {
                axes(list, from.len())?;
                list.iter().map(|&at| axis(at, from.len())).collect::<Outcome<_>>()?
            }
        };
        if permutation.iter().enumerate().all(|(i, &at)| i == at) {
            return self.forward(node, 0);
        }
        if let Some(constant) = self.constant(node, 0)? {
            self.reserve_shape(&from)?;
            let along = strides(&from);
            let (shape, along) =
                permutation.iter().map(|&at| (from[at], along[at])).collect::<(Vec<_>, Vec<_>)>();
            let folded = constant.strided(node.name.clone(), shape, 0, &along)?;
            self.bind_constant(node, folded);
            return Ok(());
        }
        let x = self.float(node, 0)?;
        self.emit(node, Op::Transpose { permutation }, vec![x])
    }

    pub(super) fn expand(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(2)?;
        let target = self.known_shape(node, 1)?;
        let from = self.shape(node, 0)?;
        let out = shape::broadcast(&from, &target).map_err(Problem::Invalid)?;
        if let Some(constant) = self.constant(node, 0)? {
            self.reserve_shape(&out)?;
            let folded = expanded(&constant, &out)?;
            self.bind_constant(node, Constant { name: node.name.clone(), ..folded });
            return Ok(());
        }
        self.expand_to(node, &from, out)
    }

    /// Repeats the first operand, which is computed, along dimensions of extent 1.
    fn expand_to(&mut self, node: &NodeView, from: &[usize], out: Vec<usize>) -> Outcome<()> {
        if shape::elements(&out) == shape::elements(from) {
            return self.reshape_to(node, out);
        }
        let x = self.float(node, 0)?;
        // One times x is x. Ones are needed along the repeated dimensions only.
        let missing = out.len() - from.len();
        let repeated = |i: usize| i < missing || from[i - missing] != out[i];
        let ones: Vec<usize> = (0..out.len()).map(|i| if repeated(i) { out[i] } else { 1 }).collect();
        self.reserve_shape(&ones)?;
        let count = ones.iter().product();
        let ones = self.add_constant(format!("{}/ones", node.name), ones, vec![1.0; count])?;
        self.emit(node, Op::Binary(BinaryOp::Mul), vec![x, ones])
    }

    pub(super) fn tile(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(2)?;
        let repeats = self.ints(node, 1, "the list of repeats")?;
        if repeats.iter().all(|&times| times == 1) {
            return self.forward(node, 0);
        }
        let from = self.shape(node, 0)?;
        if repeats.len() != from.len() {
            return invalid(format!("{} repeats for {} dimensions", repeats.len(), from.len()));
        }
        if self.constant(node, 0)?.is_some()
            || repeats.iter().zip(&from).any(|(&times, &d)| times != 1 && d != 1)
        {
            return unsupported(format!("{from:?} repeated {repeats:?} times"));
        }
        let mut out = from.clone();
        for (d, &times) in out.iter_mut().zip(&repeats) {
            if times != 1 {
                *d = positive("a number of repeats", times)?;
            }
        }
        self.expand_to(node, &from, out)
    }

    /// Channels to pixels, as reshape, transpose, reshape.
    pub(super) fn depth_to_space(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["blocksize", "mode"])?;
        node.at_most_inputs(1)?;
        let b = positive("blocksize", node.int("blocksize", 0)?)?;
        let mode = node.string("mode", "DCR")?;
        let x = self.float(node, 0)?;
        let &[n, c, h, w] = self.graph.shape(x) else {
            return invalid(format!(
                "the input has the shape {:?}, expected [N, C, H, W]",
                self.graph.shape(x)
            ));
        };
        let Some(depth) =
            b.checked_mul(b).filter(|&square| c.is_multiple_of(square)).map(|square| c / square)
        else {
            return invalid(format!("{c} channels are no multiple of {b} x {b}"));
        };
        let (split, permutation) = match mode {
            "DCR" => (vec![n, b, b, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
            "CRD" => (vec![n, depth, b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
            other => return invalid(format!("mode is {other}")),
        };
        let x = self.reshaped(node, "split", x, split)?;
        let x = self.part(node, "transpose", Op::Transpose { permutation }, vec![x])?;
        // Their product is that of the input's.
        self.emit(node, Op::Reshape { shape: vec![n, depth, h * b, w * b] }, vec![x])
    }

    /// Pixels to channels, as reshape, transpose, reshape.
    pub(super) fn space_to_depth(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["blocksize", "mode"])?;
        node.at_most_inputs(1)?;
        let b = positive("blocksize", node.int("blocksize", 0)?)?;
        let mode = node.string("mode", "DCR")?;
        if mode != "DCR" {
            return unsupported(format!("mode {mode}"));
        }
        let x = self.float(node, 0)?;
        let &[n, c, h, w] = self.graph.shape(x) else {
            return invalid(format!(
                "the input has the shape {:?}, expected [N, C, H, W]",
                self.graph.shape(x)
            ));
        };
        if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
            return invalid(format!("{h} x {w} pixels are no multiple of {b} x {b}"));
        }
        let x = self.reshaped(node, "split", x, vec![n, c, h / b, b, w / b, b])?;
        let permutation = vec![0, 3, 5, 1, 2, 4];
        let x = self.part(node, "transpose", Op::Transpose { permutation }, vec![x])?;
        // Their product is that of the input's.
        self.emit(node, Op::Reshape { shape: vec![n, c * b * b, h / b, w / b] }, vec![x])
    }
}

/// First index, step and number of elements of a slice of `extent` elements, bounds clamped as ONNX says.
fn range(start: i64, end: i64, step: i64, extent: usize) -> Outcome<(usize, i64, usize)> {
    if step == 0 {
        return invalid("a step of 0");
    }
    let extent = extent as i128;
    let from_first = |index: i64| if index < 0 { i128::from(index) + extent } else { index.into() };
    let (start, end) = if step > 0 {
        (from_first(start).clamp(0, extent), from_first(end).clamp(0, extent))
    } else {
        (from_first(start).clamp(-1, extent - 1), from_first(end).clamp(-1, extent - 1))
    };
    let span = if step > 0 { end - start } else { start - end };
    let count = span.max(0).unsigned_abs().div_ceil(step.unsigned_abs().into());
    // A step beyond the extent takes one element.
    let step = step.clamp(-(extent as i64).max(1), (extent as i64).max(1));
    Ok((start.max(0) as usize, step, count as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_bounds_are_clamped() {
        for (start, end, step, extent, expected) in [
            (0, 4, 1, 4, (0, 1, 4)),
            (1, i64::MAX, 2, 6, (1, 2, 3)),
            (-2, i64::MAX, 1, 5, (3, 1, 2)),
            (0, -1, 1, 5, (0, 1, 4)),
            (-1, i64::MIN, -1, 3, (2, -1, 3)),
            (i64::MAX, 0, -2, 5, (4, -2, 2)),
            (3, 2, 1, 5, (3, 1, 0)),
            (0, i64::MAX, i64::MAX, 5, (0, 5, 1)),
        ] {
            let got = range(start, end, step, extent);
            assert!(
                matches!(got, Ok(found) if found == expected),
                "{start}..{end} by {step} of {extent}: {got:?}"
            );
        }
    }
}
