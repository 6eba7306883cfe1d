//! Element-wise operators, and those that leave their operand as it is.

use super::node::{NodeView, Outcome, invalid, unsupported};
use super::{Importer, Known};
use crate::graph::{BinaryOp, Op, ValueId};
use crate::onnx::proto::element_type;
use crate::tensor::DType;
use sinew_kernels::activation::Activation;

impl Importer<'_> {
    pub(super) fn unary(&mut self, node: &NodeView) -> Outcome<()> {
        node.at_most_inputs(1)?;
        let none: &[&str] = &[];
        node.attributes(match node.op() {
            "LeakyRelu" | "Elu" | "Swish" | "Celu" => &["alpha"],
            "HardSigmoid" => &["alpha", "beta"],
            "Gelu" => &["approximate"],
            _ => none,
        })?;
        let activation = match node.op() {
            "Relu" => Activation::Relu,
            "LeakyRelu" => Activation::LeakyRelu { slope: node.float("alpha", 0.01)? },
            "Elu" => Activation::Elu { alpha: node.float("alpha", 1.0)? },
            // With alpha = 1 it is Elu, with which nothing but that value is in use.
            "Celu" => match node.float("alpha", 1.0)? {
                1.0 => Activation::Elu { alpha: 1.0 },
                alpha => return unsupported(format!("alpha = {alpha}, other than 1")),
            },
            "Sigmoid" => Activation::Sigmoid,
            "HardSigmoid" => {
                Activation::HardSigmoid { alpha: node.float("alpha", 0.2)?, beta: node.float("beta", 0.5)? }
            }
            "HardSwish" => Activation::HardSwish,
            "Swish" => match node.float("alpha", 1.0)? {
                1.0 => Activation::Silu,
                alpha => return unsupported(format!("alpha = {alpha}, other than 1")),
            },
            "Tanh" => Activation::Tanh,
            "Exp" => Activation::Exp,
            "Log" => Activation::Log,
            "Sqrt" => Activation::Sqrt,
            "Neg" => Activation::Neg,
            "Abs" => Activation::Abs,
            "Reciprocal" => Activation::Reciprocal,
            "Erf" => Activation::Erf,
            "Softplus" => Activation::Softplus,
            "Gelu" => match node.string("approximate", "none")? {
                "none" => Activation::Gelu,
                other => return unsupported(format!("approximate = {other}")),
            },
            other => return unsupported(format!("{other} is no element-wise function")),
        };
        if let Some(constant) = self.constant(node, 0)?
            && let Some(folded) = self.fold_unary(node, activation, &constant)?
        {
            self.bind_constant(node, folded);
            return Ok(());
        }
        let x = self.float(node, 0)?;
        self.emit(node, Op::Unary(activation), vec![x])
    }

    pub(super) fn arithmetic(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(2)?;
        let op = match node.op() {
            "Add" => BinaryOp::Add,
            "Sub" => BinaryOp::Sub,
            "Mul" => BinaryOp::Mul,
            _ => BinaryOp::Div,
        };
        if let (Some(a), Some(b)) = (self.constant(node, 0)?, self.constant(node, 1)?) {
            let folded = self.fold_binary(node, op, &a, &b)?;
            self.bind_constant(node, folded);
            return Ok(());
        }
        let inputs = vec![self.float(node, 0)?, self.float(node, 1)?];
        self.emit(node, Op::Binary(op), inputs)
    }

    /// Sum, Mean, Max and Min of any number of operands, from the first to the last.
    pub(super) fn variadic(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        let op = match node.op() {
            "Max" => BinaryOp::Max,
            "Min" => BinaryOp::Min,
            _ => BinaryOp::Add,
        };
        let count = node.proto.input.len();
        let mut constants = Vec::new();
        for at in 0..count {
            constants.extend(self.constant(node, at)?);
        }
        if let [first, rest @ ..] = constants.as_slice()
            && constants.len() == count
            && node.op() != "Mean"
        {
            let mut so_far = std::rc::Rc::clone(first);
            for next in rest {
                so_far = self.fold_binary(node, op, &so_far, next)?.into();
            }
            self.bind(node, 0, Known::Constant(so_far));
            return Ok(());
        }
        let mut so_far = self.float(node, 0)?;
        if count == 1 {
            return self.forward(node, 0);
        }
        let is_mean = node.op() == "Mean";
        for at in 1..count {
            let inputs = vec![so_far, self.float(node, at)?];
            if at + 1 == count && !is_mean {
                return self.emit(node, Op::Binary(op), inputs);
            }
            so_far = self.part(node, &at.to_string(), Op::Binary(op), inputs)?;
        }
        let count = self.add_constant(format!("{}/count", node.name), vec![], vec![count as f32])?;
        self.emit(node, Op::Binary(BinaryOp::Div), vec![so_far, count])
    }

    pub(super) fn p_relu(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(2)?;
        let inputs = vec![self.float(node, 0)?, self.float(node, 1)?];
        self.emit(node, Op::PRelu, inputs)
    }

    pub(super) fn clip(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["min", "max"])?;
        node.at_most_inputs(3)?;
        // Bounds left out are the extremes of the type, so infinities are clipped.
        let mut bounds = [f32::MIN, f32::MAX];
        for (i, name) in ["min", "max"].into_iter().enumerate() {
            let input = match node.input(i + 1) {
                Some(_) => {
                    let constant = self.float_constant(node, i + 1, name)?;
                    match constant.as_f32() {
                        Some(&[one]) => Some(one),
                        _ => {
                            return invalid(format!(
                                "{name} has the shape {:?}, expected a scalar",
                                constant.shape
                            ));
                        }
                    }
                }
                None => None,
            };
            match (node.float_if_given(name)?, input) {
                (Some(_), Some(_)) => return invalid(format!("{name} as an attribute and as an input")),
                (Some(bound), None) | (None, Some(bound)) => bounds[i] = bound,
                (None, None) => {}
            }
        }
        let [low, high] = bounds;
        // Also where one is NaN.
        if low.partial_cmp(&high).is_none_or(|order| order.is_gt()) {
            return unsupported(format!("bounds {low} and {high}"));
        }
        let x = self.float(node, 0)?;
        self.emit(node, Op::Unary(Activation::Clip { low, high }), vec![x])
    }

    /// Powers that are products, roots or quotients; the general one would need a function of its own.
    pub(super) fn pow(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(2)?;
        let Some(exponent) = self.constant(node, 1)? else {
            return unsupported("the exponent is no constant");
        };
        let exponent: Vec<f32> = match (exponent.as_f32(), exponent.as_ints()) {
            (Some(floats), _) => floats.to_vec(),
            (None, Some(ints)) => ints.iter().map(|&x| x as f32).collect(),
            (None, None) => Vec::new(),
        };
        let (&[exponent], true) = (exponent.as_slice(), self.shape(node, 1)?.len() <= 1) else {
            return unsupported("the exponent is no scalar");
        };
        let x = self.float(node, 0)?;
        let unary = match exponent {
            1.0 => return self.forward(node, 0),
            2.0 => return self.emit(node, Op::Binary(BinaryOp::Mul), vec![x, x]),
            3.0 => {
                let square = self.part(node, "square", Op::Binary(BinaryOp::Mul), vec![x, x])?;
                return self.emit(node, Op::Binary(BinaryOp::Mul), vec![square, x]);
            }
            0.5 => Activation::Sqrt,
            -1.0 => Activation::Reciprocal,
            other => return unsupported(format!("the exponent {other}")),
        };
        self.emit(node, Op::Unary(unary), vec![x])
    }

    /// `x * tanh(softplus(x))`, as its definition says.
    pub(super) fn mish(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(1)?;
        let x = self.float(node, 0)?;
        let softplus = self.part(node, "softplus", Op::Unary(Activation::Softplus), vec![x])?;
        let tanh = self.part(node, "tanh", Op::Unary(Activation::Tanh), vec![softplus])?;
        self.emit(node, Op::Binary(BinaryOp::Mul), vec![x, tanh])
    }

    pub(super) fn identity(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(1)?;
        self.forward(node, 0)
    }

    pub(super) fn dropout(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["ratio", "seed"])?;
        node.at_most_inputs(3)?;
        if node.input(2).is_some() {
            let training = self.ints(node, 2, "training_mode")?;
            if training.iter().any(|&x| x != 0) {
                return unsupported("training mode");
            }
        }
        self.float(node, 0)?;
        self.forward(node, 0)
    }

    pub(super) fn cast(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["to", "saturate", "round_mode"])?;
        node.at_most_inputs(1)?;
        match node.int_if_given("to")? {
            Some(to) => self.cast_to(node, i32::try_from(to).unwrap_or_default()),
            None => invalid("attribute to is missing"),
        }
    }

    pub(super) fn cast_like(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&["saturate", "round_mode"])?;
        node.at_most_inputs(2)?;
        let to = match self.known(node, 1)? {
            Known::Computed(_, DType::F32) => element_type::FLOAT,
            Known::Constant(constant) if constant.as_f32().is_some() => element_type::FLOAT,
            _ => return unsupported("to the type of integers"),
        };
        self.cast_to(node, to)
    }

    fn cast_to(&mut self, node: &NodeView, to: i32) -> Outcome<()> {
        let refuse = |from: &str| unsupported(format!("from {from} to {}", element_type::name(to)));
        let (id, dtype): (ValueId, DType) = match self.known(node, 0)? {
            Known::Constant(constant) => {
                let constant = std::rc::Rc::clone(constant);
                let folded = self.fold_cast(node, &constant, to)?;
                self.bind_constant(node, folded);
                return Ok(());
            }
            Known::Computed(id, dtype) => (*id, *dtype),
            Known::Unusable(_) | Known::Unknown => return refuse("something unknown"),
        };
        let same = match dtype {
            DType::F32 => to == element_type::FLOAT,
            DType::U8 => to == element_type::UINT8,
            DType::I64 => to == element_type::INT64,
        };
        if same {
            return self.forward(node, 0);
        }
        if to != element_type::FLOAT {
            return refuse(dtype.name());
        }
        if self.producers.contains_key(&id) {
            return unsupported("the result of ArgMax is an output only");
        }
        // The caller's integers become f32 where they enter.
        self.bind(node, 0, Known::Computed(id, DType::F32));
        Ok(())
    }
}
