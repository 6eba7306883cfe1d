//! Equivalent mapping: the same network at more positions. Chosen strides become 1, and every later layer looks at
//! pixels that lie as far apart as those of the baseline: windows are dilated, pads grow (Wu, Xie, Luo,
//! arXiv 1605.07251, eConv and ePool).
//!
//! A value's *equivalent stride* `m` is the product of the strides removed before it. Along each axis, a baseline value
//! `b` of `N` and its dense form `x` of `D` elements keep
//! - `x[m n] = b[n]`, borders included,
//! - `m (N - 1) < D <= m N`: every index that is a multiple of `m` and lies outside of the baseline lies outside of the
//!   dense form as well, where both read the same padding.
//!
//! Windows only join elements that are congruent modulo `m`, so both hold again behind a window whose dilation and pads
//! are `m` times those of the baseline. Where a partial last window counts, the dense form is lengthened to hold it.
//! The identity is bitwise wherever the order of summation is the same.

mod select;

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::graph::{Conv, Graph, Node, Op, Pads, Pool, PoolKind, ValueId, shape};
use crate::tensor::{DType, Tensor};
pub use select::Selection;
use sinew_kernels::activation::Activation;

/// Rows and columns, or a factor for each.
type Pair = [usize; 2];

/// A network that computes a baseline's outputs at more positions.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Plain convolutions and pools, with dilations.
    pub graph: Graph,
    /// The layers whose stride was removed, and that stride.
    pub removed: Vec<(String, [usize; 2])>,
    /// For each output, where the baseline's positions are.
    pub outputs: Vec<Positions>,
}

/// Where a baseline's output lies in the dense one: `dense[step * n] = baseline[n]` along height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The product of the removed strides.
    pub step: [usize; 2],
    /// Input pixels between neighbours of the dense output: the product of the strides that stay.
    pub input_step: [usize; 2],
}

impl Graph {
    /// The dense form of a network: the selected strides become 1 and all that follows keeps its meaning.
    ///
    /// Weights stay the same tensors. Behind a removed stride a dense layer on a flattened map becomes a convolution with
    /// the same numbers, and a global pool a window as large as the baseline's map: one result per position.
    ///
    /// # Errors
    /// Where the selection names no strided layer or leaves a stride behind a removed one, and where an operator behind a
    /// removed stride has no dense form: what mixes positions of a map in any other way.
    pub fn densify(&self, selection: &Selection) -> Result<Dense> {
        let removed = select::removed(self, selection)?;
        let mut walk = Walk {
            base: self,
            dense: self.clone(),
            step: vec![[1, 1]; self.values.len()],
            input_step: vec![[1, 1]; self.values.len()],
            flat: HashMap::new(),
            removed: &removed,
        };
        for position in 0..self.nodes.len() {
            walk.node(position).map_err(|reason| node_error(&self.nodes[position], reason))?;
        }
        let outputs = walk.positions()?;
        let mut graph = walk.dense;
        let strided = |id: &ValueId| walk.step[id.0] != [1, 1];
        graph.equivalent_strides =
            (0..self.values.len()).map(ValueId).filter(strided).map(|id| (id, walk.step[id.0])).collect();
        graph.remove_unused();
        graph.check()?;
        let mut removed: Vec<usize> = removed.into_iter().collect();
        removed.sort_unstable();
        let named = |position: usize| {
            let node = &self.nodes[position];
            (node.name.clone(), select::stride(&node.op).unwrap_or([1, 1]))
        };
        Ok(Dense { graph, removed: removed.into_iter().map(named).collect(), outputs })
    }
}

fn node_error(node: &Node, reason: String) -> Error {
    Error::Node { op: node.op.name().to_owned(), node: node.name.clone(), reason }
}

/// The state of the walk through the nodes. The dense graph has the baseline's values, with other extents.
struct Walk<'g> {
    base: &'g Graph,
    dense: Graph,
    /// The equivalent stride of each value.
    step: Vec<Pair>,
    input_step: Vec<Pair>,
    /// Values that are flattened maps in the baseline and still maps here: height and width of the baseline's map.
    flat: HashMap<ValueId, Pair>,
    removed: &'g HashSet<usize>,
}

/// A node of the dense graph.
struct Form {
    op: Op,
    inputs: Vec<ValueId>,
    /// The equivalent stride of its output.
    step: Pair,
    flat: Option<Pair>,
}

impl Walk<'_> {
    fn node(&mut self, position: usize) -> std::result::Result<(), String> {
        let node = &self.base.nodes[position];
        let removed = self.removed.contains(&position);
        let is_dense = |id: &ValueId| self.step[id.0] != [1, 1] || self.flat.contains_key(id);
        let input_step = node.inputs.iter().map(|id| self.input_step[id.0]).max().unwrap_or([1, 1]);
        let kept = match select::stride(&node.op) {
            Some(stride) if !removed => stride,
            _ => [1, 1],
        };
        let form = if removed || node.inputs.iter().any(is_dense) {
            if kept != [1, 1] {
                // Other phases of the dense form would be no shifts of the baseline.
                return Err(format!(
                    "its stride {}x{} stays behind one that is removed; remove it as well",
                    kept[0], kept[1]
                ));
            }
            self.form(node, removed)?
        } else {
            Form { op: node.op.clone(), inputs: node.inputs.clone(), step: [1, 1], flat: None }
        };
        let shapes: Vec<&[usize]> = form.inputs.iter().map(|&id| self.dense.shape(id)).collect();
        let shape = shape::infer(&form.op, &shapes)?;
        let output = node.output;
        self.dense.values[output.0].shape = shape;
        self.step[output.0] = form.step;
        self.input_step[output.0] = product(input_step, kept);
        self.flat.extend(form.flat.map(|flat| (output, flat)));
        let node = &mut self.dense.nodes[position];
        (node.op, node.inputs) = (form.op, form.inputs);
        Ok(())
    }

    /// A node with its stride removed, or behind a removed one.
    fn form(&mut self, node: &Node, removed: bool) -> std::result::Result<Form, String> {
        let x = node.inputs[0];
        let m = self.step[x.0];
        let inputs = node.inputs.clone();
        let flat = self.flat.get(&x).copied();
        let keeps = |op: Op, inputs: Vec<ValueId>| Ok(Form { op, inputs, step: m, flat });
        match &node.op {
            Op::Conv(conv) => {
                let step = if removed { product(m, conv.stride) } else { m };
                if let Some(residual) = inputs.get(3) {
                    self.same_step(*residual, step)?;
                }
                let dilation = product(conv.dilation, m);
                let conv = Conv { stride: [1, 1], dilation, pads: spread(conv.pads, m), ..conv.clone() };
                Ok(Form { op: Op::Conv(conv), inputs, step, flat: None })
            }
            Op::Pool(pool) => self.pool(node, pool, removed),
            Op::GlobalPool(kind) => {
                let [height, width] = [2, 3].map(|d| self.base.shape(x)[d]);
                let pool = Pool {
                    kind: *kind,
                    kernel: [height, width],
                    stride: [1, 1],
                    dilation: m,
                    pads: Pads::default(),
                    ceil_mode: false,
                    count_include_pad: false,
                };
                keeps(Op::Pool(pool), inputs)
            }
            Op::Dense { after } => self.dense_layer(node, *after),
            Op::Unary(_) | Op::BatchNorm { .. } | Op::MaxMin { .. } | Op::Lrn { .. } => {
                keeps(node.op.clone(), inputs)
            }
            Op::Binary(_) | Op::PRelu => self.join(node),
            Op::Softmax { axis: 1 } | Op::ArgMax { axis: 1, .. } if flat.unwrap_or([1, 1]) == [1, 1] => {
                keeps(node.op.clone(), inputs)
            }
            Op::Concat { axis: 1 } => {
                if inputs.iter().any(|id| self.flat.get(id) != flat.as_ref()) {
                    return Err("it joins flattened maps of other sizes behind a removed stride".into());
                }
                for &other in &inputs {
                    self.same_step(other, m)?;
                }
                keeps(node.op.clone(), inputs)
            }
            Op::Reshape { shape } => self.reshape(node, shape),
            Op::Pad { amounts, value } if flat.is_none() && amounts.len() == 4 => {
                let mut amounts = amounts.clone();
                for (amount, m) in amounts[2..].iter_mut().zip(m) {
                    *amount = amount.map(|pad| pad * m);
                }
                keeps(Op::Pad { amounts, value: *value }, inputs)
            }
            Op::Slice { start, step, size } if flat.is_none() && step.len() == 4 && step[2..] == [1, 1] => {
                let (mut start, mut size) = (start.clone(), size.clone());
                for (axis, factor) in m.into_iter().enumerate() {
                    let d = axis + 2;
                    start[d] *= factor;
                    // What the baseline takes to its end is taken to the end.
                    size[d] = (factor * size[d]).min(self.dense.shape(x)[d] - start[d]);
                }
                keeps(Op::Slice { start, step: step.clone(), size }, inputs)
            }
            _ => Err("it mixes positions of a map behind a removed stride, and has no dense form".into()),
        }
    }

    fn pool(&self, node: &Node, pool: &Pool, removed: bool) -> std::result::Result<Form, String> {
        let x = node.inputs[0];
        let m = self.step[x.0];
        let stride = if removed { pool.stride } else { [1, 1] };
        let step = product(m, stride);
        let dilation = product(pool.dilation, m);
        let mut pads = spread(pool.pads, m);
        let mut longer = false;
        for (axis, [before, after]) in
            [[pads.top, pads.bottom], [pads.left, pads.right]].into_iter().enumerate()
        {
            let natural =
                self.dense.shape(x)[axis + 2] + before + after - dilation[axis] * (pool.kernel[axis] - 1);
            let wanted = step[axis] * (self.base.shape(node.output)[axis + 2] - 1) + 1;
            let after = if axis == 0 { &mut pads.bottom } else { &mut pads.right };
            *after += wanted.saturating_sub(natural);
            longer |= wanted > natural;
        }
        if longer && pool.kind == PoolKind::Average && pool.count_include_pad {
            return Err("its mean counts the border, but not beyond it in a partial last window: this has no dense form".into());
        }
        let pool = Pool { stride: [1, 1], dilation, pads, ceil_mode: false, ..pool.clone() };
        Ok(Form { op: Op::Pool(pool), inputs: node.inputs.clone(), step, flat: None })
    }

    /// A dense layer on a flattened map: a convolution whose window is the baseline's map, with the same weights.
    fn dense_layer(&mut self, node: &Node, after: Activation) -> std::result::Result<Form, String> {
        let x = node.inputs[0];
        let (Some(&kernel), Some(weights)) = (self.flat.get(&x), self.base.constant(node.inputs[1])) else {
            return Err("its input is no flattened map".into());
        };
        let [outputs, channels] = [self.base.shape(node.inputs[1])[0], self.dense.shape(x)[1]];
        let tensor = Tensor::f32([outputs, channels, kernel[0], kernel[1]], weights.to_vec());
        let name = self.base.value(node.inputs[1]).name.clone();
        let weights = self.dense.add_constant(name, tensor.map_err(|error| error.to_string())?);
        let conv = Conv {
            kernel,
            stride: [1, 1],
            dilation: self.step[x.0],
            pads: Pads::default(),
            groups: 1,
            before: Activation::Identity,
            residual: false,
            after,
        };
        let inputs = vec![x, weights, node.inputs[2]];
        self.step.push([1, 1]);
        self.input_step.push([1, 1]);
        Ok(Form { op: Op::Conv(conv), inputs, step: self.step[x.0], flat: Some([1, 1]) })
    }

    /// A function of two operands: maps with the same equivalent stride, or a map and numbers that hold for all of it.
    fn join(&mut self, node: &Node) -> std::result::Result<Form, String> {
        let is_map = |id: &&ValueId| self.base.constant(**id).is_none();
        let maps: Vec<ValueId> = node.inputs.iter().filter(is_map).copied().collect();
        let shape = self.base.shape(node.output);
        let Some(&main) = maps.iter().find(|&&id| self.base.shape(id) == shape) else {
            return Err("its result is larger than its operands, behind a removed stride".into());
        };
        let (step, flat) = (self.step[main.0], self.flat.get(&main).copied());
        let mut inputs = Vec::new();
        for &id in &node.inputs {
            let own = self.base.shape(id).to_vec();
            if let Some(values) = self.base.constant(id) {
                let per_position = if flat.is_some() { &[][..] } else { &own[own.len().saturating_sub(2)..] };
                if values.len() > 1 && per_position.iter().any(|&extent| extent != 1) {
                    return Err(
                        "it has another constant for each position of a map, behind a removed stride".into(),
                    );
                }
                let is_row = flat.is_some() && values.len() > 1;
                inputs.push(if is_row { self.per_channel(id, values, flat)? } else { id });
                continue;
            }
            if own != shape && self.step[id.0] != [1, 1] {
                return Err("its gate comes from a whole map: on the dense map that is another function, with a gate \
                            for each fragment; keep the strides before it"
                    .into());
            }
            if own == shape {
                self.same_step(id, step)?;
            }
            if self.flat.get(&id).copied() != flat {
                return Err("one operand is a flattened map, behind a removed stride".into());
            }
            inputs.push(id);
        }
        Ok(Form { op: node.op.clone(), inputs, step, flat })
    }

    /// Numbers for each feature of a flattened map, for a map.
    fn per_channel(
        &mut self,
        id: ValueId,
        values: &[f32],
        flat: Option<Pair>,
    ) -> std::result::Result<ValueId, String> {
        if flat != Some([1, 1]) {
            return Err("it has another constant for each position of a map, behind a removed stride".into());
        }
        let tensor =
            Tensor::f32([1, values.len(), 1, 1], values.to_vec()).map_err(|error| error.to_string())?;
        let name = self.base.value(id).name.clone();
        self.step.push([1, 1]);
        self.input_step.push([1, 1]);
        Ok(self.dense.add_constant(name, tensor))
    }

    /// Flattening of a map, and its reverse: the dense form stays a map.
    fn reshape(&self, node: &Node, shape: &[usize]) -> std::result::Result<Form, String> {
        let x = node.inputs[0];
        let own = self.base.shape(x);
        let flat = match (own, shape, self.flat.get(&x)) {
            (&[n, c, h, w], &[rows, features], None) if rows == n && features == c * h * w => Some([h, w]),
            (&[n, c], &[rows, channels, 1, 1], Some([1, 1])) if (rows, channels) == (n, c) => None,
            (from, to, flat) if from == to => flat.copied(),
            _ => return Err("it reorders a map behind a removed stride, and has no dense form".into()),
        };
        let op = Op::Unary(Activation::Identity);
        Ok(Form { op, inputs: vec![x], step: self.step[x.0], flat })
    }

    fn same_step(&self, id: ValueId, step: Pair) -> std::result::Result<(), String> {
        let own = self.step[id.0];
        if own == step {
            return Ok(());
        }
        Err(format!(
            "its operands have the equivalent strides {}x{} and {}x{}; remove the strides of all branches that meet",
            step[0], step[1], own[0], own[1]
        ))
    }

    fn positions(&self) -> Result<Vec<Positions>> {
        let of = |&id: &ValueId| {
            if self.flat.get(&id).is_some_and(|&map| map != [1, 1]) {
                let reason = "is a flattened map behind a removed stride: it has no dense form".to_owned();
                return Err(Error::Tensor { tensor: self.base.value(id).name.clone(), reason });
            }
            debug_assert_ne!(self.base.value(id).dtype, DType::U8);
            Ok(Positions { step: self.step[id.0], input_step: self.input_step[id.0] })
        };
        self.base.outputs.iter().map(of).collect()
    }
}

fn product(a: Pair, b: Pair) -> Pair {
    [a[0] * b[0], a[1] * b[1]]
}

/// Pads of a window whose taps are `m` times as far apart.
fn spread(pads: Pads, [down, across]: Pair) -> Pads {
    Pads {
        top: pads.top * down,
        bottom: pads.bottom * down,
        left: pads.left * across,
        right: pads.right * across,
    }
}
