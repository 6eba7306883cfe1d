//! Operators that change a shape or the order of elements: reshapes, transposition, repetition, blocks to channels and back.

use super::Importer;
use super::constant::{Constant, strides};
use super::fold::expanded;
use super::node::{NodeView, Outcome, Problem, axes, axis, invalid, unsupported};
use super::window::positive;
use crate::graph::{BinaryOp, Op, shape};

impl Importer<'_> {
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
