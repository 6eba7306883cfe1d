//! Operators that put tensors together and take them apart: concatenation, split, slices, borders.

use std::rc::Rc;

use super::constant::{Constant, Elements};
use super::node::{NodeView, Outcome, axes, axis, invalid, unsupported};
use super::shape_arithmetic::sliced_constant;
use super::window::positive;
use super::{Importer, Known};
use crate::graph::{Op, ValueId};

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
