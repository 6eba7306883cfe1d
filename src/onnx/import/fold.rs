//! Arithmetic on constants. Floating point is folded only where the operation is exact up to one rounding, which is the
//! same everywhere: `+ - * /`, square root, negation, absolute value, reciprocal, and what picks one of its operands.

use super::Importer;
use super::constant::{Constant, Elements, IntType};
use super::node::{NodeView, Outcome, Problem, invalid, unsupported};
use crate::graph::{BinaryOp, shape};
use crate::onnx::proto::element_type;
use sinew_kernels::activation::Activation;

impl Importer<'_> {
    /// An element-wise function of a constant; none where it is not folded.
    pub(super) fn fold_unary(
        &mut self,
        node: &NodeView,
        activation: Activation,
        x: &Constant,
    ) -> Outcome<Option<Constant>> {
        let name = node.name.clone();
        match &x.elements {
            Elements::Float(_) => {
                let f: fn(f32) -> f32 = match activation {
                    Activation::Neg => |x| -x,
                    Activation::Abs => f32::abs,
                    Activation::Sqrt => f32::sqrt,
                    Activation::Reciprocal => |x| 1.0 / x,
                    _ => return Ok(None),
                };
                self.reserve_shape(&x.shape)?;
                let elements = x.as_f32().unwrap_or_default().iter().map(|&x| f(x)).collect();
                Ok(Some(Constant::float(name, x.shape.clone(), elements)?))
            }
            Elements::Int(elements, int_type) => {
                let f: fn(i64) -> Option<i64> = match activation {
                    Activation::Neg => i64::checked_neg,
                    Activation::Abs => i64::checked_abs,
                    _ => return Ok(None),
                };
                self.reserve_shape(&x.shape)?;
                let elements = elements.iter().map(|&x| f(x).filter(|&y| int_type.contains(y)));
                let elements = elements.collect::<Option<Vec<i64>>>().ok_or_else(overflow)?;
                Ok(Some(Constant::int(name, x.shape.clone(), elements, *int_type)))
            }
        }
    }

    /// An arithmetic operation on two constants.
    pub(super) fn fold_binary(
        &mut self,
        node: &NodeView,
        op: BinaryOp,
        a: &Constant,
        b: &Constant,
    ) -> Outcome<Constant> {
        let name = node.name.clone();
        let shape = self.broadcast_constants(&[a, b])?;
        match (&a.elements, &b.elements) {
            (Elements::Float(_), Elements::Float(_)) => {
                let f: fn(f32, f32) -> f32 = match op {
                    BinaryOp::Add => |a, b| a + b,
                    BinaryOp::Sub => |a, b| a - b,
                    BinaryOp::Mul => |a, b| a * b,
                    BinaryOp::Div => |a, b| a / b,
                    BinaryOp::Max => |a, b| if a > b || a.is_nan() { a } else { b },
                    BinaryOp::Min => |a, b| if a < b || a.is_nan() { a } else { b },
                };
                let (a, b) = (expanded(a, &shape)?, expanded(b, &shape)?);
                let pairs = a.as_f32().unwrap_or_default().iter().zip(b.as_f32().unwrap_or_default());
                let elements = pairs.map(|(&a, &b)| f(a, b)).collect();
                Ok(Constant::float(name, shape, elements)?)
            }
            (Elements::Int(_, int_type), Elements::Int(_, other)) if int_type == other => {
                let f: fn(i64, i64) -> Option<i64> = match op {
                    BinaryOp::Add => i64::checked_add,
                    BinaryOp::Sub => i64::checked_sub,
                    BinaryOp::Mul => i64::checked_mul,
                    // Towards zero, as in C.
                    BinaryOp::Div => i64::checked_div,
                    BinaryOp::Max => |a, b| Some(a.max(b)),
                    BinaryOp::Min => |a, b| Some(a.min(b)),
                };
                if op == BinaryOp::Div && b.as_ints().is_some_and(|b| b.contains(&0)) {
                    return invalid("division of integers by zero");
                }
                let (a, b) = (expanded(a, &shape)?, expanded(b, &shape)?);
                let pairs = a.as_ints().unwrap_or_default().iter().zip(b.as_ints().unwrap_or_default());
                let elements = pairs.map(|(&a, &b)| f(a, b).filter(|&y| int_type.contains(y)));
                let elements = elements.collect::<Option<Vec<i64>>>().ok_or_else(overflow)?;
                Ok(Constant::int(name, shape, elements, *int_type))
            }
            _ => invalid("operands of different types"),
        }
    }

    /// A comparison or a logical operation on constants.
    pub(super) fn compare(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        let count = if node.op() == "Not" { 1 } else { 2 };
        node.at_most_inputs(count)?;
        let Some(a) = self.constant(node, 0)? else {
            return unsupported("of a computed operand");
        };
        // Not compares with false.
        let b = match count {
            1 => Constant::int("", vec![], vec![0], IntType::Bool).into(),
            _ => match self.constant(node, 1)? {
                Some(b) => b,
                None => return unsupported("of a computed operand"),
            },
        };
        let shape = self.broadcast_constants(&[&a, &b])?;
        let (a, b) = (expanded(&a, &shape)?, expanded(&b, &shape)?);
        let test: fn(Option<std::cmp::Ordering>) -> bool = match node.op() {
            "Equal" | "Not" => |order| order.is_some_and(|order| order.is_eq()),
            "Greater" => |order| order.is_some_and(|order| order.is_gt()),
            "GreaterOrEqual" => |order| order.is_some_and(|order| order.is_ge()),
            "Less" => |order| order.is_some_and(|order| order.is_lt()),
            _ => |order| order.is_some_and(|order| order.is_le()),
        };
        let truths: Vec<bool> = match (&a.elements, &b.elements) {
            (Elements::Int(a, left), Elements::Int(b, right)) if left == right => match node.op() {
                "And" => a.iter().zip(b).map(|(&a, &b)| a != 0 && b != 0).collect(),
                "Or" => a.iter().zip(b).map(|(&a, &b)| a != 0 || b != 0).collect(),
                _ => a.iter().zip(b).map(|(a, b)| test(Some(a.cmp(b)))).collect(),
            },
            (Elements::Float(_), Elements::Float(_)) if !matches!(node.op(), "And" | "Or") => {
                let pairs = a.as_f32().unwrap_or_default().iter().zip(b.as_f32().unwrap_or_default());
                pairs.map(|(a, b)| test(a.partial_cmp(b))).collect()
            }
            _ => return invalid("operands of these types"),
        };
        let truths = truths.into_iter().map(i64::from).collect();
        self.bind_constant(node, Constant::int(node.name.clone(), shape, truths, IntType::Bool));
        Ok(())
    }

    /// `Where`: the second operand where the first is true, the third elsewhere.
    pub(super) fn select(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(3)?;
        let (Some(which), Some(a), Some(b)) =
            (self.constant(node, 0)?, self.constant(node, 1)?, self.constant(node, 2)?)
        else {
            return unsupported("a choice between computed operands");
        };
        let shape = self.broadcast_constants(&[&which, &a, &b])?;
        let (which, a, b) = (expanded(&which, &shape)?, expanded(&a, &shape)?, expanded(&b, &shape)?);
        let Some(which) = which.as_ints() else {
            return invalid("the condition holds no truth values");
        };
        let name = node.name.clone();
        let chosen = match (&a.elements, &b.elements) {
            (Elements::Float(_), Elements::Float(_)) => {
                let pairs = a.as_f32().unwrap_or_default().iter().zip(b.as_f32().unwrap_or_default());
                let elements =
                    which.iter().zip(pairs).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect();
                Constant::float(name, shape, elements)?
            }
            (Elements::Int(a, left), Elements::Int(b, right)) if left == right => {
                let pairs = a.iter().zip(b);
                let elements =
                    which.iter().zip(pairs).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect();
                Constant::int(name, shape, elements, *left)
            }
            _ => return invalid("operands of different types"),
        };
        self.bind_constant(node, chosen);
        Ok(())
    }

    /// Floor and Ceil of constants, which appear where sizes are computed.
    pub(super) fn round(&mut self, node: &NodeView) -> Outcome<()> {
        node.attributes(&[])?;
        node.at_most_inputs(1)?;
        let Some(x) = self.constant(node, 0)? else {
            return unsupported("of a computed operand");
        };
        let Some(elements) = x.as_f32() else {
            return invalid("of integers");
        };
        self.reserve_shape(&x.shape)?;
        let f: fn(f32) -> f32 = if node.op() == "Floor" { f32::floor } else { f32::ceil };
        let elements = elements.iter().map(|&x| f(x)).collect();
        let folded = Constant::float(node.name.clone(), x.shape.clone(), elements)?;
        self.bind_constant(node, folded);
        Ok(())
    }

    /// A constant in another type.
    pub(super) fn fold_cast(&mut self, node: &NodeView, x: &Constant, to: i32) -> Outcome<Constant> {
        let name = node.name.clone();
        self.reserve_shape(&x.shape)?;
        if to == element_type::FLOAT {
            return match &x.elements {
                Elements::Float(_) => Ok(x.reshaped(name, x.shape.clone())?),
                Elements::Int(elements, _) => {
                    let elements = elements.iter().map(|&x| x as f32).collect();
                    Ok(Constant::float(name, x.shape.clone(), elements)?)
                }
            };
        }
        let Some(int_type) = IntType::from_element_type(to) else {
            return unsupported(format!("a constant to {}", element_type::name(to)));
        };
        let truth = int_type == IntType::Bool;
        let elements: Option<Vec<i64>> = match &x.elements {
            Elements::Float(_) => {
                let whole = |x: f32| -> Option<i64> {
                    match truth {
                        true => Some((x != 0.0).into()),
                        // Towards zero; 2^63 and above, infinities and NaN are out of range.
                        false => ((-9.223_372e18..9.223_372e18).contains(&x)).then_some(x as i64),
                    }
                };
                x.as_f32().unwrap_or_default().iter().map(|&x| whole(x)).collect()
            }
            Elements::Int(elements, _) => {
                Some(elements.iter().map(|&x| if truth { (x != 0).into() } else { x }).collect())
            }
        };
        match elements {
            Some(elements) if elements.iter().all(|&x| int_type.contains(x)) => {
                Ok(Constant::int(name, x.shape.clone(), elements, int_type))
            }
            _ => unsupported(format!("a constant out of the range of {}", element_type::name(to))),
        }
    }

    /// The common shape of constants, after its elements are counted.
    fn broadcast_constants(&mut self, constants: &[&Constant]) -> Outcome<Vec<usize>> {
        let mut common = Vec::new();
        for constant in constants {
            common = shape::broadcast(&common, &constant.shape).map_err(Problem::Invalid)?;
            self.reserve_shape(&common)?;
        }
        Ok(common)
    }
}

/// A constant broadcast to a shape that it fits.
pub(super) fn expanded(x: &Constant, shape: &[usize]) -> Outcome<Constant> {
    if x.shape == shape {
        return Ok(x.clone());
    }
    let own = super::constant::strides(&x.shape);
    let missing = shape.len() - x.shape.len();
    let along = |i: usize| if i < missing || x.shape[i - missing] == 1 { 0 } else { own[i - missing] };
    let strides: Vec<isize> = (0..shape.len()).map(along).collect();
    Ok(x.strided(x.name.clone(), shape.to_vec(), 0, &strides)?)
}

fn overflow() -> Problem {
    Problem::Unsupported("integers that overflow".to_owned())
}
