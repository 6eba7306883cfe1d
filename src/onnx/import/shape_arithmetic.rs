//! Where constants come from besides initializers: Constant, Shape and what exporters compute with shapes.

use std::rc::Rc;

use super::constant::{Constant, Decoded, Elements, IntType, decode, strides};
use super::node::{NodeView, Outcome, axis, invalid, unsupported};
use super::{Importer, Known};
use crate::graph::{Op, ValueId};

impl Importer<'_> {
    pub(super) fn constant_node(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["value", "value_float", "value_floats", "value_int", "value_ints"])?;
        node.at_most_inputs(0)?;
        if node.proto.attribute.len() != 1 {
            return invalid("expected one attribute");
        }
        let name = node.output(0).unwrap_or_default().to_owned();
        let constant = if let Some(tensor) = node.tensor("value")? {
            match decode(&tensor, name, self.limits.dims, self.limits.elements, &mut self.conversions)? {
                Decoded::Constant(constant) => constant,
                Decoded::Unusable(reason) => {
                    self.bind(node, 0, Known::Unusable(reason));
                    return Ok(());
                }
            }
        } else if let Some(float) = node.float_if_given("value_float")? {
            Constant::float(name, vec![], vec![float])?
        } else if let Some(floats) = node.floats("value_floats")? {
            Constant::float(name, vec![floats.len()], floats.to_vec())?
        } else if let Some(int) = node.int_if_given("value_int")? {
            Constant::int(name, vec![], vec![int], IntType::I64)
        } else {
            let ints = node.ints("value_ints")?.unwrap_or_default();
            Constant::int(name, vec![ints.len()], ints.to_vec(), IntType::I64)
        };
        self.bind_constant(node, constant);
        Ok(())
    }

    pub(super) fn constant_of_shape(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["value"])?;
        node.at_most_inputs(1)?;
        let shape = self.known_shape(node, 0)?;
        self.reserve_shape(&shape)?;
        let count = shape.iter().product();
        let name = node.name.clone();
        let filled = match node.tensor("value")? {
            None => Constant::float(name, shape, vec![0.0; count])?,
            Some(tensor) => {
                let (dims, elements) = (self.limits.dims, self.limits.elements);
                match decode(&tensor, name.clone(), dims, elements, &mut self.conversions)? {
                    Decoded::Unusable(reason) => return unsupported(reason),
                    Decoded::Constant(one) => match (&one.elements, one.as_f32()) {
                        (Elements::Float(_), Some(&[x])) => Constant::float(name, shape, vec![x; count])?,
                        (Elements::Int(x, int_type), _) if x.len() == 1 => {
                            Constant::int(name, shape, vec![x[0]; count], *int_type)
                        }
                        _ => {
                            return invalid(format!(
                                "value has the shape {:?}, expected one element",
                                one.shape
                            ));
                        }
                    },
                }
            }
        };
        self.bind_constant(node, filled);
        Ok(())
    }

    /// A constant operand that is a shape.
    pub(super) fn known_shape(&self, node: &NodeView, at: usize) -> Outcome<Vec<usize>> {
        let ints = self.ints(node, at, "the shape")?;
        if ints.len() > self.limits.dims {
            return invalid(format!("a shape of {} dimensions", ints.len()));
        }
        let dims: Option<Vec<usize>> = ints.iter().map(|&d| usize::try_from(d).ok()).collect();
        match dims {
            Some(dims) => Ok(dims),
            None => invalid(format!("negative extent in the shape {ints:?}")),
        }
    }

    pub(super) fn shape_of(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["start", "end"])?;
        node.at_most_inputs(1)?;
        let shape = self.shape(node, 0)?;
        // Counted from the last where negative, and clamped.
        let bound = |given: i64| {
            let from_first = if given < 0 { given.saturating_add(shape.len() as i64) } else { given };
            from_first.clamp(0, shape.len() as i64) as usize
        };
        let (start, end) = (bound(node.int("start", 0)?), bound(node.int("end", i64::MAX)?));
        let dims: Vec<i64> = shape[start.min(end)..end].iter().map(|&d| d as i64).collect();
        let name = node.name.clone();
        self.bind_constant(node, Constant::int(name, vec![dims.len()], dims, IntType::I64));
        Ok(())
    }

    pub(super) fn size_of(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(1)?;
        let count = self.shape(node, 0)?.iter().try_fold(1i64, |n, &d| n.checked_mul(i64::try_from(d).ok()?));
        let Some(count) = count else {
            return invalid("too many elements");
        };
        self.bind_constant(node, Constant::int(node.name.clone(), vec![], vec![count], IntType::I64));
        Ok(())
    }

    pub(super) fn range(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["stash_type"])?;
        node.at_most_inputs(3)?;
        let mut numbers = [0i128; 3];
        let mut types = Vec::new();
        for (at, number) in numbers.iter_mut().enumerate() {
            let Some(constant) = self.constant(node, at)? else {
                return unsupported("of computed operands");
            };
            match &constant.elements {
                Elements::Int(one, int_type) if one.len() == 1 => {
                    *number = one[0].into();
                    types.push(*int_type);
                }
                Elements::Int(..) => return invalid("operands that are no scalars"),
                Elements::Float(_) => return unsupported("of numbers that are no integers"),
            }
        }
        let [start, limit, delta] = numbers;
        if delta == 0 {
            return invalid("a step of 0");
        }
        let span = limit - start;
        let count =
            if (span > 0) == (delta > 0) { span.unsigned_abs().div_ceil(delta.unsigned_abs()) } else { 0 };
        self.reserve(u64::try_from(count).unwrap_or(u64::MAX))?;
        // Each lies between start and limit.
        let elements: Vec<i64> = (0..count as i128).map(|i| (start + i * delta) as i64).collect();
        self.bind_constant(node, Constant::int(node.name.clone(), vec![elements.len()], elements, types[0]));
        Ok(())
    }

    /// Elements at known indices: folded for constants, a slice for one index or evenly spaced ones.
    pub(super) fn gather(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axis"])?;
        node.at_most_inputs(2)?;
        let along = node.int("axis", 0)?;
        let shape = self.shape(node, 0)?;
        let axis = axis(along, shape.len())?;
        let ints = self.ints(node, 1, "the indices")?;
        let index_shape = self.shape(node, 1)?;
        let extent = shape[axis] as i64;
        let mut indices = Vec::with_capacity(ints.len());
        for index in ints {
            let from_first = if index < 0 { index.saturating_add(extent) } else { index };
            if !(0..extent).contains(&from_first) {
                return invalid(format!("index {index} in dimension {axis} of {shape:?}"));
            }
            indices.push(from_first as usize);
        }
        let mut out = shape[..axis].to_vec();
        out.extend(&index_shape);
        out.extend(&shape[axis + 1..]);
        if let Some(constant) = self.constant(node, 0)? {
            self.reserve_shape(&out)?;
            let gathered = gathered(node, &constant, axis, &indices, out)?;
            self.bind_constant(node, gathered);
            return Ok(());
        }
        let x = self.float(node, 0)?;
        let y = self.select_along(node, x, axis, &indices)?;
        self.emit_reshape(node, y, out)
    }

    /// The elements of a computed value at some indices along one dimension: a slice, or several in a row.
    pub(super) fn select_along(
        &mut self,
        node: &NodeView,
        x: ValueId,
        axis: usize,
        indices: &[usize],
    ) -> Outcome<ValueId> {
        // Each a first index, a step and a number of elements.
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for &index in indices {
            match runs.last_mut() {
                Some((first, step, count)) if *count == 1 && index > *first => {
                    (*step, *count) = (index - *first, 2)
                }
                Some((first, step, count)) if *count > 1 && index == *first + *step * *count => *count += 1,
                _ => runs.push((index, 1, 1)),
            }
        }
        if runs.len() > MAX_RUNS {
            return unsupported(format!("{} runs of computed elements", runs.len()));
        }
        let shape = self.graph.shape(x).to_vec();
        if runs.is_empty() {
            return invalid("the list of indices is empty");
        }
        if *runs == [(0, 1, shape[axis])] {
            return Ok(x);
        }
        let mut parts = Vec::new();
        for (i, &(first, by, count)) in runs.iter().enumerate() {
            let (mut start, mut step, mut size) = (vec![0; shape.len()], vec![1; shape.len()], shape.clone());
            (start[axis], step[axis], size[axis]) = (first, by, count);
            parts.push(self.part(node, &format!("run{i}"), Op::Slice { start, step, size }, vec![x])?);
        }
        match *parts {
            [one] => Ok(one),
            _ => self.part(node, "runs", Op::Concat { axis }, parts),
        }
    }
}

/// Slices that one node may become: colour channels in another order, not a permutation of all channels.
const MAX_RUNS: usize = 64;

fn gathered(
    node: &NodeView,
    from: &Rc<Constant>,
    axis: usize,
    indices: &[usize],
    out: Vec<usize>,
) -> Outcome<Constant> {
    let outer: usize = from.shape[..axis].iter().product();
    let inner: usize = from.shape[axis + 1..].iter().product();
    let name = node.name.clone();
    // Runs of `inner` elements stay together.
    let run = |o: usize, i: usize| (o * from.shape[axis] + i) * inner;
    let runs = (0..outer).flat_map(|o| indices.iter().map(move |&i| (o, i)));
    Ok(match &from.elements {
        Elements::Float(tensor) => {
            let all = tensor.as_f32().unwrap_or_default();
            Constant::float(name, out, runs.flat_map(|(o, i)| &all[run(o, i)..][..inner]).copied().collect())?
        }
        Elements::Int(all, int_type) => {
            let picked = runs.flat_map(|(o, i)| &all[run(o, i)..][..inner]).copied().collect();
            Constant::int(name, out, picked, *int_type)
        }
    })
}

/// Part of a constant along each dimension, steps of either sign.
pub(super) fn sliced_constant(
    name: String,
    x: &Constant,
    ranges: &[(usize, i64, usize)],
) -> Outcome<Constant> {
    let along = strides(&x.shape);
    let offset = ranges.iter().zip(&along).map(|(range, stride)| range.0 as isize * stride).sum::<isize>();
    let strides: Vec<isize> =
        ranges.iter().zip(&along).map(|(range, stride)| stride.saturating_mul(range.1 as isize)).collect();
    let size = ranges.iter().map(|range| range.2).collect();
    Ok(x.strided(name, size, offset.max(0) as usize, &strides)?)
}
