//! Layers and what surrounds them: MaxMin, batch normalization, bias, repetition, reshapes.

use super::{Change, Found, Operand, View};
use crate::graph::{BinaryOp, MaxMinOrder, Node, Op, ValueId, shape};
use crate::tensor::Tensor;
use sinew_kernels::activation::Activation;

/// MaxMin is on channels.
const CHANNELS: usize = 1;

pub(super) fn max_min(view: &View, at: usize) -> Option<Found> {
    let node = view.node(at);
    if node.op == Op::Unary(Activation::Relu) {
        // relu(concat(x, -x))
        let (_, concat) = view.producer(node.inputs[0])?;
        let (x, negative, order) = halves(view, concat)?;
        if let Some(missed) = max_min_missed(view, concat, x) {
            return Some(missed);
        }
        for id in [node.inputs[0], negative] {
            if !view.is_read_once(id) {
                return Some(Found::Missed(format!(
                    "\"{}\" is read elsewhere too",
                    view.graph.value(id).name
                )));
            }
        }
        return Some(Found::Rewrite(vec![Change::new(at, Op::MaxMin { order }, vec![x.into()])]));
    }
    if halves(view, node).is_some() {
        // Where a ReLU follows, it says more.
        return Some(Found::Missed("no ReLU follows x and -x side by side".to_owned()));
    }
    // concat(relu(x), relu(-x))
    let &[a, b] = concat_inputs(node)?;
    let ((_, relu_a), (_, relu_b)) = (view.producer(a)?, view.producer(b)?);
    if [relu_a, relu_b].iter().any(|relu| relu.op != Op::Unary(Activation::Relu)) {
        return None;
    }
    let (x, negative, order) = pair(view, relu_a.inputs[0], relu_b.inputs[0])?;
    if let Some(missed) = max_min_missed(view, node, x) {
        return Some(missed);
    }
    for id in [a, b, negative] {
        if !view.is_read_once(id) {
            return Some(Found::Missed(format!("\"{}\" is read elsewhere too", view.graph.value(id).name)));
        }
    }
    Some(Found::Rewrite(vec![Change::new(at, Op::MaxMin { order }, vec![x.into()])]))
}

fn max_min_missed(view: &View, concat: &Node, x: ValueId) -> Option<Found> {
    let shape = view.graph.shape(x);
    match concat.op {
        Op::Concat { axis: CHANNELS } if shape.len() == 4 => None,
        Op::Concat { axis: CHANNELS } => {
            Some(Found::Missed(format!("x has the shape {shape:?}, expected an image")))
        }
        Op::Concat { axis } => {
            Some(Found::Missed(format!("x and -x side by side in dimension {axis}, expected 1")))
        }
        _ => None,
    }
}

fn concat_inputs(node: &Node) -> Option<&[ValueId; 2]> {
    match node.op {
        Op::Concat { .. } => node.inputs.as_slice().try_into().ok(),
        _ => None,
    }
}

/// `x` and `-x` of a concatenation of both.
fn halves(view: &View, concat: &Node) -> Option<(ValueId, ValueId, MaxMinOrder)> {
    let &[a, b] = concat_inputs(concat)?;
    pair(view, a, b)
}

fn pair(view: &View, a: ValueId, b: ValueId) -> Option<(ValueId, ValueId, MaxMinOrder)> {
    if negated(view, b) == Some(a) {
        Some((a, b, MaxMinOrder::PositiveFirst))
    } else if negated(view, a) == Some(b) {
        Some((b, a, MaxMinOrder::NegativeFirst))
    } else {
        None
    }
}

/// What a value is the negative of: by Neg, as `-1 * x` or as `0 - x`.
fn negated(view: &View, id: ValueId) -> Option<ValueId> {
    let (_, node) = view.producer(id)?;
    let x = match (&node.op, &*node.inputs) {
        (Op::Unary(Activation::Neg), &[x]) => x,
        (Op::Binary(BinaryOp::Mul), &[x, c]) if view.scalar(c) == Some(-1.0) => x,
        (Op::Binary(BinaryOp::Mul), &[c, x]) if view.scalar(c) == Some(-1.0) => x,
        (Op::Binary(BinaryOp::Sub), &[c, x]) if view.scalar(c) == Some(0.0) => x,
        _ => return None,
    };
    (view.graph.shape(x) == view.graph.shape(id)).then_some(x)
}

/// An operand that was multiplied by ones, which repeats it, in front of an operator that broadcasts.
pub(super) fn expand(view: &View, at: usize) -> Option<Found> {
    let node = view.node(at);
    let (Op::Binary(op), &[a, b]) = (&node.op, &*node.inputs) else {
        return None;
    };
    let source = |id: ValueId| {
        let (_, producer) = view.producer(id)?;
        let (Op::Binary(BinaryOp::Mul), &[x, ones]) = (&producer.op, &*producer.inputs) else {
            return None;
        };
        (view.scalar(ones) == Some(1.0)).then_some(x)
    };
    let out = view.graph.shape(node.output);
    for (old, other, is_first) in [(a, b, true), (b, a, false)] {
        if let Some(x) = source(old)
            && shape::broadcast(view.graph.shape(x), view.graph.shape(other)).is_ok_and(|shape| shape == out)
        {
            let inputs = if is_first { vec![x.into(), other.into()] } else { vec![other.into(), x.into()] };
            return Some(Found::Rewrite(vec![Change::new(at, Op::Binary(*op), inputs)]));
        }
    }
    None
}

/// The bias of a layer whose own is zeros.
pub(super) fn bias(view: &View, at: usize) -> Option<Found> {
    let node = view.node(at);
    let (Op::Binary(BinaryOp::Add), &[a, b]) = (&node.op, &*node.inputs) else {
        return None;
    };
    let (y, constant) = if view.graph.constant(b).is_some() { (a, b) } else { (b, a) };
    let elements = view.graph.constant(constant)?;
    let (mut layer_at, mut layer) = view.inner(y)?;
    let out = view.graph.shape(node.output);
    let reshaped = matches!(layer.op, Op::Reshape { .. });
    if reshaped {
        (layer_at, layer) = view.inner(layer.inputs[0])?;
    }
    let channel = match &layer.op {
        Op::Conv(conv) if !conv.residual && !reshaped => {
            if (conv.before, conv.after) != (Activation::Identity, Activation::Identity) {
                return None;
            }
            CHANNELS
        }
        // Rows of the product; a reshape leaves them whole where the last dimension stays.
        Op::Dense { after: Activation::Identity } => out.len().checked_sub(1)?,
        _ => return None,
    };
    let &[x, weights, zeros] = &*layer.inputs else {
        return None;
    };
    let count = view.graph.shape(weights)[0];
    // One number for several channels is rather part of an activation: the 3 of clip(x + 3, 0, 6) / 6.
    if elements.len() == 1 && count > 1 {
        return None;
    }
    if view.scalar(zeros)? != 0.0 || out.get(channel) != Some(&count) || view.graph.shape(y) != out {
        return None;
    }
    let per_channel = per_channel(elements, view.graph.shape(constant), out.len(), channel, count)?;
    let bias = Tensor::f32([count], per_channel).ok()?;
    let name = view.graph.value(constant).name.clone();
    let inputs = vec![x.into(), weights.into(), Operand::New(name, bias)];
    if reshaped {
        let dense = Change::new(layer_at, layer.op.clone(), inputs);
        let shape = out.to_vec();
        let reshape = Change::new(at, Op::Reshape { shape }, vec![layer.output.into()]);
        return Some(Found::Rewrite(vec![dense, reshape]));
    }
    let change = Change { named_after: Some(layer_at), ..Change::new(at, layer.op.clone(), inputs) };
    Some(Found::Rewrite(vec![change]))
}

/// One element for each channel of a constant that is broadcast to `rank` dimensions and varies along `channel` only.
fn per_channel(
    elements: &[f32],
    shape: &[usize],
    rank: usize,
    channel: usize,
    count: usize,
) -> Option<Vec<f32>> {
    let missing = rank.checked_sub(shape.len())?;
    let varies = shape.iter().enumerate().any(|(i, &d)| d != 1 && i + missing != channel);
    match elements {
        _ if varies => None,
        &[one] => Some(vec![one; count]),
        _ if elements.len() == count => Some(elements.to_vec()),
        _ => None,
    }
}

/// One step of a normalization: `x * scale` or `x + shift`, per channel.
enum Step {
    Scale(Vec<f32>),
    Shift(Vec<f32>),
}

fn step(view: &View, node: &Node) -> Option<(ValueId, Step, bool)> {
    let (&Op::Binary(op), &[a, b]) = (&node.op, &*node.inputs) else {
        return None;
    };
    let is_commutative = matches!(op, BinaryOp::Add | BinaryOp::Mul);
    let (x, constant) = match (view.graph.constant(a), view.graph.constant(b)) {
        (None, Some(_)) => (a, b),
        (Some(_), None) if is_commutative => (b, a),
        _ => return None,
    };
    let shape = view.graph.shape(x);
    if view.graph.shape(node.output) != shape {
        return None;
    }
    let elements = view.graph.constant(constant)?;
    let count = *shape.get(CHANNELS)?;
    let each = per_channel(elements, view.graph.shape(constant), shape.len(), CHANNELS, count)?;
    let step = match op {
        BinaryOp::Mul => Step::Scale(each),
        BinaryOp::Div => Step::Scale(each.iter().map(|x| 1.0 / x).collect()),
        BinaryOp::Add => Step::Shift(each),
        BinaryOp::Sub => Step::Shift(each.iter().map(|x| -x).collect()),
        BinaryOp::Max | BinaryOp::Min => return None,
    };
    Some((x, step, elements.len() > 1))
}

pub(super) fn batch_norm(view: &View, at: usize) -> Option<Found> {
    let (inner_value, last, last_varies) = step(view, view.node(at))?;
    let (inner_at, inner) = view.inner(inner_value)?;
    let ones = |count: usize| vec![1.0; count];
    let zeros = |count: usize| vec![0.0; count];
    // gamma, beta, mean; variance 1 and epsilon 0.
    let (x, [gamma, beta, mean], varies) = match (step(view, inner), last) {
        (Some((x, Step::Scale(scale), varies)), Step::Shift(shift)) => {
            let count = scale.len();
            (x, [scale, shift, zeros(count)], varies || last_varies)
        }
        (Some((x, Step::Shift(shift), varies)), Step::Scale(scale)) => {
            let mean = shift.iter().map(|x| -x).collect();
            (x, [scale.clone(), zeros(scale.len()), mean], varies || last_varies)
        }
        // A shift after a normalization of this kind.
        (None, Step::Shift(shift)) => {
            let (Op::BatchNorm { epsilon: 0.0 }, [x, gamma, beta, mean, variance]) =
                (&inner.op, &*inner.inputs)
            else {
                return None;
            };
            if view.scalar(*variance) != Some(1.0) || view.scalar(*beta) != Some(0.0) {
                return None;
            }
            let (gamma, mean) = (view.graph.constant(*gamma)?.to_vec(), view.graph.constant(*mean)?.to_vec());
            (*x, [gamma, shift, mean], true)
        }
        // A scale right after a layer, into which it will be folded.
        (None, Step::Scale(scale)) => {
            let is_linear = match &inner.op {
                Op::Conv(conv) => !conv.residual && [conv.before, conv.after] == [Activation::Identity; 2],
                Op::Dense { after } => *after == Activation::Identity,
                _ => false,
            };
            if !is_linear {
                return None;
            }
            let count = scale.len();
            (inner_value, [scale, zeros(count), zeros(count)], true)
        }
        (Some(_), _) => return None,
    };
    // Numbers alone are rather part of an activation.
    if !varies || view.graph.shape(x) != view.graph.shape(view.node(at).output) {
        return None;
    }
    let name = &view.graph.nodes[inner_at].name;
    let count = gamma.len();
    let mut inputs = vec![Operand::Value(x)];
    for (part, elements) in [("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", ones(count))] {
        inputs.push(Operand::New(format!("{name}/{part}"), Tensor::f32([count], elements).ok()?));
    }
    Some(Found::Rewrite(vec![Change::new(at, Op::BatchNorm { epsilon: 0.0 }, inputs)]))
}

/// Reshapes of images go behind element-wise operators, so that these are next to the layer and the reshape is next to
/// another one or to a dense layer.
pub(super) fn reshape_last(view: &View, at: usize) -> Option<Found> {
    let node = view.node(at);
    let out = view.graph.shape(node.output).to_vec();
    let reshape_of = |id: ValueId| {
        let (reshape_at, reshape) = view.producer(id)?;
        let source = *reshape.inputs.first()?;
        let is_image = matches!(reshape.op, Op::Reshape { .. }) && view.graph.shape(source).len() == 4;
        is_image.then_some((reshape_at, source))
    };
    let rewrite = |reshape_at: usize, inputs: Vec<Operand>| {
        let operator = Change { named_after: Some(at), ..Change::new(reshape_at, node.op.clone(), inputs) };
        let moved = view.graph.nodes[reshape_at].output;
        let reshape = Change::new(at, Op::Reshape { shape: out.clone() }, vec![moved.into()]);
        Found::Rewrite(vec![operator, reshape])
    };
    match (&node.op, &*node.inputs) {
        (Op::Reshape { .. }, &[x]) => {
            // A reshape of a reshape is one of its source.
            let (_, inner) = view.producer(x)?;
            let source = *inner.inputs.first()?;
            let is_reshape = matches!(inner.op, Op::Reshape { .. });
            is_reshape.then(|| Found::Rewrite(vec![Change::new(at, node.op.clone(), vec![source.into()])]))
        }
        (Op::Unary(_), &[x]) => {
            let (reshape_at, source) = reshape_of(x).filter(|_| view.is_read_once(x))?;
            Some(rewrite(reshape_at, vec![source.into()]))
        }
        (Op::BatchNorm { .. }, &[x, ref parameters @ ..]) => {
            let (reshape_at, source) = reshape_of(x).filter(|_| view.is_read_once(x))?;
            if view.graph.shape(source)[..2] != *out.get(..2)? {
                return None;
            }
            let inputs = [source].into_iter().chain(parameters.iter().copied()).map(Operand::Value).collect();
            Some(rewrite(reshape_at, inputs))
        }
        (Op::Binary(_), &[a, b]) => {
            let ((at_a, source_a), (at_b, source_b)) = (reshape_of(a)?, reshape_of(b)?);
            if view.graph.shape(source_a) != view.graph.shape(source_b)
                || view.graph.shape(a) != view.graph.shape(b)
            {
                return None;
            }
            // Both sources are known where the later reshape stands.
            let (later_at, later) = if at_a > at_b { (at_a, a) } else { (at_b, b) };
            let inputs = vec![source_a.into(), source_b.into()];
            view.is_read_once(later).then(|| rewrite(later_at, inputs))
        }
        _ => None,
    }
}
