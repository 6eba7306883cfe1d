//! Reductions: means and maxima over the last dimensions, softmax, ArgMax, and those of known integers.

use super::Importer;
use super::constant::{Constant, Elements};
use super::node::{NodeView, Outcome, axes, axis, invalid, unsupported};
use crate::graph::{Op, PoolKind};

impl Importer<'_> {
    /// ReduceMean and ReduceMax: a global pool of what is regrouped as an image.
    pub(super) fn reduce(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axes", "keepdims", "noop_with_empty_axes"])?;
        node.at_most_inputs(2)?;
        let kind = if node.op() == "ReduceMax" { PoolKind::Max } else { PoolKind::Average };
        let keep_dims = node.flag("keepdims", true)?;
        let shape = self.shape(node, 0)?;
        let Some(reduced) = self.reduced_axes(node, shape.len())? else {
            return self.forward(node, 0);
        };
        if kind == PoolKind::Max
            && self.constant(node, 0)?.is_some_and(|constant| constant.as_ints().is_some())
        {
            return self.reduce_constant(node);
        }
        let mut x = self.float(node, 0)?;
        let out: Vec<usize> = match keep_dims {
            true => (0..shape.len()).map(|i| if reduced.contains(&i) { 1 } else { shape[i] }).collect(),
            false => (0..shape.len()).filter(|i| !reduced.contains(i)).map(|i| shape[i]).collect(),
        };
        // Extents of 1 may stand anywhere.
        let (long, kept): (Vec<usize>, Vec<usize>) =
            (0..shape.len()).filter(|&i| shape[i] > 1).partition(|i| reduced.contains(i));
        if long.is_empty() {
            return self.emit_reshape(node, x, out);
        }
        let extent = |dims: &[usize]| dims.iter().map(|&i| shape[i]).product::<usize>();
        let is_image = shape.len() == 4 && kept.iter().all(|&i| i < 2) && long.iter().all(|&i| i >= 2);
        if !is_image {
            if kept.iter().any(|&i| i > long[0]) {
                let permutation: Vec<usize> =
                    (0..shape.len()).filter(|i| !long.contains(i)).chain(long.iter().copied()).collect();
                x = self.part(node, "transpose", Op::Transpose { permutation }, vec![x])?;
            }
            // What stays comes first, in its order; the batch stays the batch.
            let batch = if kept.first() == Some(&0) { 1 } else { 0 };
            let image = vec![extent(&kept[..batch]), extent(&kept[batch..]), 1, extent(&long)];
            x = self.reshaped(node, "image", x, image)?;
        } else if keep_dims {
            return self.emit(node, Op::GlobalPool(kind), vec![x]);
        }
        let y = self.part(node, "pool", Op::GlobalPool(kind), vec![x])?;
        self.emit_reshape(node, y, out)
    }

    /// The dimensions that a reduction takes, in ascending order; none where the node says to do nothing.
    pub(super) fn reduced_axes(&mut self, node: &NodeView, rank: usize) -> Outcome<Option<Vec<usize>>> {
        let list = match (node.ints("axes")?, node.input(1)) {
            (Some(_), Some(_)) => return invalid("axes as an attribute and as an input"),
            (Some(list), None) => list.to_vec(),
            (None, Some(_)) => self.ints(node, 1, "the list of axes")?,
            (None, None) => Vec::new(),
        };
        if !list.is_empty() {
            return axes(&list, rank).map(Some);
        }
        let do_nothing = node.flag("noop_with_empty_axes", false)?;
        Ok(if do_nothing { None } else { Some((0..rank).collect()) })
    }

    /// Sums, products and extremes of known integers.
    pub(super) fn reduce_constant(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axes", "keepdims", "noop_with_empty_axes"])?;
        node.at_most_inputs(2)?;
        let keep_dims = node.flag("keepdims", true)?;
        let Some(constant) = self.constant(node, 0)? else {
            return unsupported("of a computed operand");
        };
        let Elements::Int(elements, int_type) = &constant.elements else {
            return unsupported("of a constant that is not of integers");
        };
        let shape = &constant.shape;
        let Some(reduced) = self.reduced_axes(node, shape.len())? else {
            return self.forward(node, 0);
        };
        let kept = |i: &usize| !reduced.contains(i);
        let combine: fn(i64, i64) -> Option<i64> = match node.op() {
            "ReduceSum" => i64::checked_add,
            "ReduceProd" => i64::checked_mul,
            "ReduceMax" => |a, b| Some(a.max(b)),
            _ => |a, b| Some(a.min(b)),
        };
        // An element goes where its kept indices say.
        let out: Vec<usize> = (0..shape.len()).map(|i| if kept(&i) { shape[i] } else { 1 }).collect();
        self.reserve_shape(&out)?;
        let mut results: Vec<Option<i64>> = vec![None; out.iter().product()];
        for (at, &x) in elements.iter().enumerate() {
            let (mut rest, mut to, mut stride) = (at, 0, 1);
            for i in (0..shape.len()).rev() {
                if kept(&i) {
                    to += rest % shape[i] * stride;
                    stride *= shape[i];
                }
                rest /= shape[i];
            }
            let combined = match results[to] {
                None => Some(x),
                Some(so_far) => combine(so_far, x),
            };
            results[to] = match combined.filter(|&result| int_type.contains(result)) {
                Some(result) => Some(result),
                None => return unsupported("integers that overflow"),
            };
        }
        let Some(results) = results.into_iter().collect::<Option<Vec<i64>>>() else {
            return unsupported("of an empty constant");
        };
        let out = if keep_dims { out } else { (0..shape.len()).filter(kept).map(|i| shape[i]).collect() };
        let name = node.name.clone();
        self.bind_constant(node, Constant::int(name, out, results, *int_type));
        Ok(())
    }

    pub(super) fn softmax(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axis"])?;
        node.at_most_inputs(1)?;
        let x = self.float(node, 0)?;
        let shape = self.graph.shape(x).to_vec();
        let default = if node.opset < 13 { 1 } else { -1 };
        let axis = match node.int("axis", default)? {
            // The flattened form may put everything in the rows.
            last if node.opset < 13 && last == shape.len() as i64 => {
                return unsupported("softmax over nothing");
            }
            given => axis(given, shape.len())?,
        };
        if node.opset >= 13 || shape[axis + 1..].iter().all(|&d| d == 1) {
            return self.emit(node, Op::Softmax { axis }, vec![x]);
        }
        // Before operator set 13 all dimensions from the axis on sum to one.
        let flat = vec![shape[..axis].iter().product(), shape[axis..].iter().product()];
        let x = self.reshaped(node, "flat", x, flat)?;
        let y = self.part(node, "softmax", Op::Softmax { axis: 1 }, vec![x])?;
        self.emit_reshape(node, y, shape)
    }

    pub(super) fn arg_max(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["axis", "keepdims", "select_last_index"])?;
        node.at_most_inputs(1)?;
        if node.flag("select_last_index", false)? {
            return unsupported("the last of equal maxima (select_last_index)");
        }
        let keep_dims = node.flag("keepdims", true)?;
        let along = node.int("axis", 0)?;
        let x = self.float(node, 0)?;
        let axis = axis(along, self.graph.shape(x).len())?;
        self.emit(node, Op::ArgMax { axis, keep_dims }, vec![x])
    }
}
