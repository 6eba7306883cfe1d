//! Matrix products with constant weights: Gemm and MatMul become dense layers with weights `[O, K]`.

use std::rc::Rc;

use super::Importer;
use super::constant::{Constant, strides};
use super::node::{NodeView, Outcome, invalid, unsupported};
use crate::graph::{BinaryOp, Op, ValueId};
use sinew_kernels::activation::Activation;

impl Importer<'_> {
    pub(super) fn gemm(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["alpha", "beta", "transA", "transB"])?;
        node.at_most_inputs(3)?;
        let (alpha, beta) = (node.float("alpha", 1.0)?, node.float("beta", 1.0)?);
        let (transpose_a, transpose_b) = (node.int("transA", 0)? != 0, node.int("transB", 0)? != 0);
        let mut x = self.float(node, 0)?;
        let weights = self.float_constant(node, 1, "the second factor")?;
        let (&[_, _], &[_, _]) = (self.graph.shape(x), &*weights.shape) else {
            return invalid(format!(
                "the factors are {:?} and {:?}, expected matrices",
                self.graph.shape(x),
                weights.shape
            ));
        };
        if transpose_a {
            x = self.part(node, "transpose", Op::Transpose { permutation: vec![1, 0] }, vec![x])?;
        }
        let weights = if transpose_b { weights } else { Rc::new(self.transposed(&weights)?) };
        let outputs = weights.shape[0];
        let addend = match node.input(2) {
            Some(_) => self.scaled_addend(node, beta)?,
            None => Addend::None,
        };
        // A bias is the same for all rows and comes right after the sum.
        match addend {
            Addend::Constant(c) if alpha == 1.0 && is_bias(&c.shape, outputs) => {
                self.reserve(outputs as u64)?;
                let bias = spread(c.as_f32().unwrap_or_default(), outputs);
                let bias = self.add_constant(c.name.clone(), vec![outputs], bias)?;
                self.emit_dense(node, x, &weights, bias)
            }
            Addend::None if alpha == 1.0 => {
                let bias = self.zero_bias(node, outputs)?;
                self.emit_dense(node, x, &weights, bias)
            }
            addend => {
                let bias = self.zero_bias(node, outputs)?;
                let weights = self.constant_value(&weights);
                let dense = Op::Dense { after: Activation::Identity };
                let mut y = self.part(node, "product", dense, vec![x, weights, bias])?;
                let shape = self.graph.shape(y).to_vec();
                let addend = match addend {
                    Addend::None => None,
                    Addend::Constant(c) => Some(self.constant_value(&c)),
                    Addend::Computed(c) => Some(c),
                };
                if alpha != 1.0 {
                    let alpha = self.add_constant(format!("{}/alpha", node.name), vec![], vec![alpha])?;
                    match addend {
                        None => return self.emit(node, Op::Binary(BinaryOp::Mul), vec![y, alpha]),
                        Some(_) => {
                            y = self.part(node, "scaled", Op::Binary(BinaryOp::Mul), vec![y, alpha])?
                        }
                    }
                }
                let Some(addend) = addend else {
                    return invalid("there is nothing to add");
                };
                if crate::graph::shape::broadcast(&shape, self.graph.shape(addend)).as_ref() != Ok(&shape) {
                    let found = self.graph.shape(addend);
                    return invalid(format!(
                        "the addend {found:?} cannot be broadcast to the product {shape:?}"
                    ));
                }
                self.emit(node, Op::Binary(BinaryOp::Add), vec![y, addend])
            }
        }
    }

    /// `beta * C`.
    fn scaled_addend(&mut self, node: &NodeView, beta: f32) -> Outcome<Addend> {
        if beta == 0.0 {
            // Not multiplied: C may hold anything then.
            return Ok(Addend::None);
        }
        if self.constant(node, 2)?.is_none() {
            let c = self.float(node, 2)?;
            if beta == 1.0 {
                return Ok(Addend::Computed(c));
            }
            let beta = self.add_constant(format!("{}/beta", node.name), vec![], vec![beta])?;
            return Ok(Addend::Computed(self.part(
                node,
                "addend",
                Op::Binary(BinaryOp::Mul),
                vec![c, beta],
            )?));
        }
        let c = self.float_constant(node, 2, "the addend")?;
        if beta == 1.0 {
            return Ok(Addend::Constant(c));
        }
        self.reserve_shape(&c.shape)?;
        let scaled = c.as_f32().unwrap_or_default().iter().map(|x| beta * x).collect();
        Ok(Addend::Constant(Rc::new(Constant::float(c.name.clone(), c.shape.clone(), scaled)?)))
    }

    pub(super) fn mat_mul(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(2)?;
        if self.constant(node, 0)?.is_some() {
            return unsupported("the first factor is a constant");
        }
        let x = self.float(node, 0)?;
        let weights = self.float_constant(node, 1, "the second factor")?;
        let matrix = match *weights.shape {
            [k] => vec![k, 1],
            [.., k, m] if weights.shape.iter().rev().skip(2).all(|&d| d == 1) => vec![k, m],
            _ => return unsupported(format!("a second factor of the shape {:?}", weights.shape)),
        };
        let [k, outputs] = [matrix[0], matrix[1]];
        let shape = self.graph.shape(x).to_vec();
        let Some((&columns, rows)) = shape.split_last() else {
            return invalid("the first factor is a scalar");
        };
        if columns != k {
            return invalid(format!("the factors are {shape:?} and {:?}", weights.shape));
        }
        // [.., K] x [.., K, M]: leading ones of the second factor count only where the first has fewer.
        let mut out = vec![1; weights.shape.len().saturating_sub(shape.len().max(2))];
        out.extend(rows);
        if weights.shape.len() > 1 {
            out.push(outputs);
        }
        self.reserve_shape(&weights.shape)?;
        let matrix = weights.reshaped(weights.name.clone(), matrix)?;
        let weights = Rc::new(self.transposed(&matrix)?);
        let bias = self.zero_bias(node, outputs)?;
        let flat = vec![rows.iter().product(), k];
        let x = self.reshaped(node, "rows", x, flat.clone())?;
        if out == [flat[0], outputs] {
            return self.emit_dense(node, x, &weights, bias);
        }
        let weights = self.constant_value(&weights);
        let y =
            self.part(node, "product", Op::Dense { after: Activation::Identity }, vec![x, weights, bias])?;
        self.emit_reshape(node, y, out)
    }

    fn emit_dense(
        &mut self,
        node: &NodeView,
        x: ValueId,
        weights: &Rc<Constant>,
        bias: ValueId,
    ) -> Outcome<()> {
        let weights = self.constant_value(weights);
        self.emit(node, Op::Dense { after: Activation::Identity }, vec![x, weights, bias])
    }

    fn zero_bias(&mut self, node: &NodeView, outputs: usize) -> Outcome<ValueId> {
        self.reserve(outputs as u64)?;
        self.add_constant(format!("{}/bias", node.name), vec![outputs], vec![0.0; outputs])
    }

    fn transposed(&mut self, matrix: &Constant) -> Outcome<Constant> {
        self.reserve_shape(&matrix.shape)?;
        let [rows, columns] = [matrix.shape[0], matrix.shape[1]];
        let along = strides(&matrix.shape);
        Ok(matrix.strided(matrix.name.clone(), vec![columns, rows], 0, &[along[1], along[0]])?)
    }
}

/// What a Gemm adds to its product.
enum Addend {
    None,
    Constant(Rc<Constant>),
    Computed(ValueId),
}

/// Whether a constant that is added to `[N, outputs]` is the same for all rows.
fn is_bias(shape: &[usize], outputs: usize) -> bool {
    match *shape {
        [] | [1] | [1, 1] => true,
        [d] | [1, d] => d == outputs,
        _ => false,
    }
}

fn spread(bias: &[f32], outputs: usize) -> Vec<f32> {
    match bias {
        &[one] => vec![one; outputs],
        _ => bias.to_vec(),
    }
}
