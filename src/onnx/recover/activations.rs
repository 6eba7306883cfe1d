//! Element-wise functions of one value that were written as sums, products and clips.

use super::{Change, Found, View};
use crate::graph::{BinaryOp, Op, ValueId};
use sinew_kernels::activation::Activation;

/// A constant as exporters write it: rounded to f32 once or twice.
fn is_near(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 2.0 * f64::from(f32::EPSILON) * expected.abs()
}

/// The last node becomes a function of `x`, if `x` has its shape.
fn function(view: &View, at: usize, x: ValueId, activation: Activation) -> Option<Found> {
    let same = view.graph.shape(x) == view.graph.shape(view.node(at).output);
    same.then(|| Found::Rewrite(vec![Change::new(at, Op::Unary(activation), vec![x.into()])]))
}

fn read_elsewhere(view: &View, id: ValueId) -> Found {
    Found::Missed(format!("\"{}\" is read elsewhere too", view.graph.value(id).name))
}

/// `x + c` with a number `c`: gives `x` and `c`.
fn sum(view: &View, id: ValueId) -> Option<(ValueId, f32)> {
    let (_, node) = view.producer(id)?;
    match (&node.op, &*node.inputs) {
        (Op::Binary(BinaryOp::Add), &[a, b]) => {
            view.scalar(b).map(|c| (a, c)).or_else(|| view.scalar(a).map(|c| (b, c)))
        }
        (Op::Binary(BinaryOp::Sub), &[a, b]) => view.scalar(b).map(|c| (a, -c)),
        _ => None,
    }
}

/// A product: the factors that are no numbers, and the product of the numbers. Factors that nothing else reads and that are
/// products are taken apart.
fn product(view: &View, at: usize) -> Option<(Vec<ValueId>, f64)> {
    let (mut factors, mut number) = (Vec::new(), 1.0);
    let mut open = vec![(at, 0)];
    while let Some((at, depth)) = open.pop() {
        let node = view.node(at);
        let divides = node.op == Op::Binary(BinaryOp::Div);
        if !divides && node.op != Op::Binary(BinaryOp::Mul) {
            return None;
        }
        for (i, &input) in node.inputs.iter().enumerate() {
            let is_denominator = divides && i == 1;
            if let Some(scalar) = view.scalar(input) {
                number *= if is_denominator { 1.0 / f64::from(scalar) } else { f64::from(scalar) };
                continue;
            }
            if is_denominator {
                return None;
            }
            // Two products below the last one are as deep as exporters go.
            match view.inner(input) {
                Some((inner, node))
                    if depth < 2 && matches!(node.op, Op::Binary(BinaryOp::Mul | BinaryOp::Div)) =>
                {
                    open.push((inner, depth + 1));
                }
                _ => factors.push(input),
            }
        }
    }
    Some((factors, number))
}

pub(super) fn silu(view: &View, at: usize) -> Option<Found> {
    let node = view.node(at);
    let (Op::Binary(BinaryOp::Mul), &[a, b]) = (&node.op, &*node.inputs) else {
        return None;
    };
    for (x, gate) in [(a, b), (b, a)] {
        if let Some((_, producer)) = view.producer(gate)
            && producer.op == Op::Unary(Activation::Sigmoid)
            && producer.inputs[0] == x
        {
            return if view.is_read_once(gate) {
                function(view, at, x, Activation::Silu)
            } else {
                Some(read_elsewhere(view, gate))
            };
        }
    }
    None
}

pub(super) fn hard_swish(view: &View, at: usize) -> Option<Found> {
    let (factors, number) = product(view, at)?;
    let &[a, b] = factors.as_slice() else {
        return None;
    };
    for (x, gate) in [(a, b), (b, a)] {
        let Some((_, producer)) = view.producer(gate) else {
            continue;
        };
        match producer.op {
            Op::Unary(Activation::HardSigmoid { alpha, beta }) if producer.inputs[0] == x => {
                if !is_near(alpha.into(), 1.0 / 6.0) || beta != 0.5 || !is_near(number, 1.0) {
                    return Some(Found::Missed(format!(
                        "{number} * x * hard_sigmoid(x) with {alpha} and {beta}, expected 1 and 1/6 and 0.5"
                    )));
                }
            }
            Op::Unary(Activation::Clip { low, high }) => {
                let sum_id = producer.inputs[0];
                let Some((of, c)) = sum(view, sum_id).filter(|&(of, _)| of == x) else {
                    continue;
                };
                if (low, high, c) != (0.0, 6.0, 3.0) || !is_near(number, 1.0 / 6.0) {
                    return Some(Found::Missed(format!(
                        "{number} * x * clip(x + {c}, {low}, {high}), expected 1/6 * x * clip(x + 3, 0, 6)"
                    )));
                }
                if !view.is_read_once(sum_id) {
                    return Some(read_elsewhere(view, sum_id));
                }
                if of != x {
                    continue;
                }
            }
            _ => continue,
        }
        return if view.is_read_once(gate) {
            function(view, at, x, Activation::HardSwish)
        } else {
            Some(read_elsewhere(view, gate))
        };
    }
    None
}

pub(super) fn hard_sigmoid(view: &View, at: usize) -> Option<Found> {
    let node = view.node(at);
    if let Op::Unary(Activation::Clip { low: 0.0, high: 1.0 }) = node.op {
        // clip(a x + b, 0, 1)
        let (scaled, beta) = sum(view, node.inputs[0]).filter(|_| view.is_read_once(node.inputs[0]))?;
        let (at_scaled, _) = view.inner(scaled)?;
        let (factors, alpha) = product(view, at_scaled)?;
        let &[x] = factors.as_slice() else {
            return None;
        };
        return function(view, at, x, Activation::HardSigmoid { alpha: alpha as f32, beta });
    }
    // clip(x + c, 0, s) / s
    let (factors, number) = product(view, at)?;
    let &[clipped] = factors.as_slice() else {
        return None;
    };
    let (_, producer) = view.producer(clipped)?;
    let Op::Unary(Activation::Clip { low: 0.0, high }) = producer.op else {
        return None;
    };
    let sum_id = producer.inputs[0];
    let (x, c) = sum(view, sum_id)?;
    if high.is_infinite() || !is_near(f64::from(high) * number, 1.0) {
        return Some(Found::Missed(format!(
            "{number} * clip(x + {c}, 0, {high}): the factor is not 1/{high}"
        )));
    }
    for id in [clipped, sum_id] {
        if !view.is_read_once(id) {
            return Some(read_elsewhere(view, id));
        }
    }
    let alpha = 1.0 / f64::from(high);
    let beta = (f64::from(c) * alpha) as f32;
    function(view, at, x, Activation::HardSigmoid { alpha: alpha as f32, beta })
}

pub(super) fn gelu(view: &View, at: usize) -> Option<Found> {
    let (factors, number) = product(view, at)?;
    let &[a, b] = factors.as_slice() else {
        return None;
    };
    for (x, gate) in [(a, b), (b, a)] {
        let Some((erf, one)) = sum(view, gate) else {
            continue;
        };
        let Some((_, producer)) =
            view.producer(erf).filter(|(_, node)| node.op == Op::Unary(Activation::Erf))
        else {
            continue;
        };
        let scaled = producer.inputs[0];
        let Some((_, factor)) = view
            .producer(scaled)
            .and_then(|(at_scaled, _)| product(view, at_scaled))
            .filter(|(factors, _)| *factors == [x])
        else {
            continue;
        };
        if !is_near(factor, std::f64::consts::FRAC_1_SQRT_2) || !is_near(number, 0.5) || one != 1.0 {
            return Some(Found::Missed(format!(
                "{number} * x * ({one} + erf({factor} * x)), expected 0.5 * x * (1 + erf(x / sqrt 2))"
            )));
        }
        for id in [gate, erf, scaled] {
            if !view.is_read_once(id) {
                return Some(read_elsewhere(view, id));
            }
        }
        return function(view, at, x, Activation::Gelu);
    }
    None
}

pub(super) fn clip(view: &View, at: usize) -> Option<Found> {
    let outer = bound(view, at)?;
    let (inner_at, _) = view.inner(outer.x)?;
    let inner = bound(view, inner_at)?;
    let (low, high) = match (outer.is_upper, inner.is_upper) {
        (true, false) => (inner.bound, outer.bound),
        (false, true) => (outer.bound, inner.bound),
        _ => return None,
    };
    // With crossed bounds the order would matter.
    if low > high || low.is_nan() || high.is_nan() {
        return None;
    }
    function(view, at, inner.x, Activation::Clip { low, high })
}

/// `min(x, bound)`, `max(x, bound)` or `relu(x)`.
struct Bound {
    x: ValueId,
    bound: f32,
    is_upper: bool,
}

fn bound(view: &View, at: usize) -> Option<Bound> {
    let node = view.node(at);
    match (&node.op, &*node.inputs) {
        (Op::Unary(Activation::Relu), &[x]) => Some(Bound { x, bound: 0.0, is_upper: false }),
        (Op::Binary(op @ (BinaryOp::Max | BinaryOp::Min)), &[a, b]) => {
            let (x, bound) = view.scalar(b).map(|c| (a, c)).or_else(|| view.scalar(a).map(|c| (b, c)))?;
            Some(Bound { x, bound, is_upper: *op == BinaryOp::Min })
        }
        _ => None,
    }
}
