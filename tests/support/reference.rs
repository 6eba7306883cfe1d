//! A naive interpreter of graphs in f64: it shares no code with the engine and specifies what a graph means.

use std::collections::HashMap;

use sinew::graph::{BinaryOp, Graph, MaxMinOrder, Op, PoolKind, ValueId};
use sinew_kernels::activation::Activation;

/// A tensor in f64, and for every element the sum of magnitudes that went into it: what rounding errors scale with.
#[derive(Clone, Debug)]
pub struct Exact {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
    /// An error bound in units of 2^-23, carried along.
    pub error: Vec<f64>,
}

impl Exact {
    pub fn new(shape: Vec<usize>, values: Vec<f64>) -> Self {
        let error = vec![0.0; values.len()];
        Self { shape, values, error }
    }

    fn strides(&self) -> Vec<usize> {
        strides(&self.shape)
    }

    fn at(&self, index: &[usize]) -> usize {
        self.strides().iter().zip(index).map(|(stride, i)| stride * i).sum()
    }
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let total: usize = shape.iter().product();
    (0..total).map(move |mut flat| {
        let mut index = vec![0; shape.len()];
        for d in (0..shape.len()).rev() {
            index[d] = flat % shape[d];
            flat /= shape[d];
        }
        index
    })
}

/// Evaluates all values that the outputs need.
pub fn evaluate(graph: &Graph, inputs: &[Exact]) -> Vec<Exact> {
    let mut values: HashMap<ValueId, Exact> =
        graph.inputs.iter().copied().zip(inputs.iter().cloned()).collect();
    for (id, value) in graph.values.iter().enumerate() {
        if let Some(data) = value.constant.as_deref().and_then(|tensor| tensor.as_f32()) {
            let data = data.iter().map(|&x| f64::from(x)).collect();
            values.insert(ValueId(id), Exact::new(value.shape.clone(), data));
        }
    }
    for node in &graph.nodes {
        let operands: Vec<&Exact> = node.inputs.iter().map(|id| &values[id]).collect();
        let result = node_value(&node.op, &operands, graph.shape(node.output));
        values.insert(node.output, result);
    }
    graph.outputs.iter().map(|id| values[id].clone()).collect()
}

/// The largest absolute derivative that the activation has anywhere, for carrying errors along.
fn lipschitz(function: Activation) -> f64 {
    match function {
        Activation::HardSwish | Activation::Silu | Activation::Gelu => 1.6,
        Activation::HardSigmoid { alpha, .. } => f64::from(alpha.abs()),
        Activation::LeakyRelu { slope } => f64::from(slope.abs()).max(1.0),
        Activation::Elu { alpha } => f64::from(alpha.abs()).max(1.0),
        _ => 1.2,
    }
}

pub fn activate(function: Activation, x: f64) -> f64 {
    match function {
        Activation::Identity => x,
        Activation::Relu => {
            if x > 0.0 || x.is_nan() {
                x
            } else {
                0.0
            }
        }
        Activation::LeakyRelu { slope } => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope) * x
            }
        }
        Activation::Clip { low, high } => {
            if x < f64::from(low) {
                f64::from(low)
            } else if x > f64::from(high) {
                f64::from(high)
            } else {
                x
            }
        }
        Activation::HardSigmoid { alpha, beta } => (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0),
        Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        Activation::Exp => x.exp(),
        Activation::Neg => -x,
        Activation::Abs => x.abs(),
        Activation::Sqrt => x.sqrt(),
        Activation::Reciprocal => 1.0 / x,
        Activation::Elu { alpha } => {
            if x > 0.0 {
                x
            } else {
                f64::from(alpha) * x.exp_m1()
            }
        }
        Activation::Erf => libm::erf(x),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Activation::Log => x.ln(),
        Activation::Softplus => x.exp().ln_1p(),
    }
}

fn through(function: Activation, values: &mut [f64], error: &mut [f64]) {
    if function == Activation::Identity {
        return;
    }
    for (value, error) in values.iter_mut().zip(error) {
        *value = activate(function, *value);
        *error = *error * lipschitz(function) + 8.0 * value.abs() + 1e-30;
    }
}

fn node_value(op: &Op, x: &[&Exact], shape: &[usize]) -> Exact {
    let mut out = Exact::new(shape.to_vec(), vec![0.0; shape.iter().product()]);
    match op {
        Op::Conv(conv) => {
            let (input, weights, bias) = (x[0], x[1], x[2]);
            let (channels, height, width) = (weights.shape[1], input.shape[2], input.shape[3]);
            let outputs_per_group = shape[1] / conv.groups;
            for (flat, index) in indices(shape).enumerate() {
                let [n, o, oy, ox] = index[..] else { unreachable!() };
                let (mut sum, mut size, mut error) = (bias.values[o], bias.values[o].abs(), 0.0);
                for c in 0..channels {
                    for ky in 0..conv.kernel[0] {
                        for kx in 0..conv.kernel[1] {
                            let iy =
                                (oy * conv.stride[0] + ky * conv.dilation[0]).wrapping_sub(conv.pads.top);
                            let ix =
                                (ox * conv.stride[1] + kx * conv.dilation[1]).wrapping_sub(conv.pads.left);
                            if iy < height && ix < width {
                                let at = input.at(&[n, o / outputs_per_group * channels + c, iy, ix]);
                                let w = weights.values[weights.at(&[o, c, ky, kx])];
                                sum += input.values[at] * w;
                                size += (input.values[at] * w).abs();
                                error += input.error[at] * w.abs();
                            }
                        }
                    }
                }
                let terms = (channels * conv.kernel[0] * conv.kernel[1] + 3) as f64;
                (out.values[flat], out.error[flat]) = (sum, terms * size + error);
            }
            through(conv.before, &mut out.values, &mut out.error);
            if conv.residual {
                for (flat, residual) in x[3].values.iter().enumerate() {
                    out.values[flat] += residual;
                    out.error[flat] += x[3].error[flat] + residual.abs() + out.values[flat].abs();
                }
            }
            through(conv.after, &mut out.values, &mut out.error);
        }
        Op::Dense { after } => {
            let (input, weights, bias) = (x[0], x[1], x[2]);
            let (outputs, channels) = (weights.shape[0], weights.shape[1]);
            for (flat, index) in indices(shape).enumerate() {
                let [n, o] = index[..] else { unreachable!() };
                assert!(o < outputs);
                let (mut sum, mut size, mut error) = (bias.values[o], bias.values[o].abs(), 0.0);
                for c in 0..channels {
                    let (at, w) = (n * channels + c, weights.values[o * channels + c]);
                    sum += input.values[at] * w;
                    size += (input.values[at] * w).abs();
                    error += input.error[at] * w.abs();
                }
                (out.values[flat], out.error[flat]) = (sum, (channels + 3) as f64 * size + error);
            }
            through(*after, &mut out.values, &mut out.error);
        }
        Op::Pool(pool) => {
            let input = x[0];
            let (height, width) = (input.shape[2] as isize, input.shape[3] as isize);
            for (flat, index) in indices(shape).enumerate() {
                let [n, c, oy, ox] = index[..] else { unreachable!() };
                let (mut best, mut sum, mut size, mut error, mut taps, mut counted) =
                    (f64::NEG_INFINITY, 0.0, 0.0, 0.0f64, 0, 0);
                for ky in 0..pool.kernel[0] {
                    for kx in 0..pool.kernel[1] {
                        let iy =
                            (oy * pool.stride[0] + ky * pool.dilation[0]) as isize - pool.pads.top as isize;
                        let ix =
                            (ox * pool.stride[1] + kx * pool.dilation[1]) as isize - pool.pads.left as isize;
                        let padded =
                            iy < height + pool.pads.bottom as isize && ix < width + pool.pads.right as isize;
                        counted += usize::from(padded);
                        if (0..height).contains(&iy) && (0..width).contains(&ix) {
                            let at = input.at(&[n, c, iy as usize, ix as usize]);
                            let value = input.values[at];
                            best = if value.is_nan() || best.is_nan() { f64::NAN } else { best.max(value) };
                            sum += value;
                            size += value.abs();
                            error = if pool.kind == PoolKind::Max {
                                error.max(input.error[at])
                            } else {
                                error + input.error[at]
                            };
                            taps += 1;
                        }
                    }
                }
                let divisor = if pool.count_include_pad { counted } else { taps } as f64;
                (out.values[flat], out.error[flat]) = match pool.kind {
                    PoolKind::Max => (best, error),
                    PoolKind::Average => (sum / divisor, ((taps + 2) as f64 * size + error) / divisor),
                };
            }
        }
        Op::GlobalPool(kind) => {
            let pixels = x[0].shape[2..].iter().product::<usize>();
            for (flat, plane) in x[0].values.chunks(pixels).enumerate() {
                let errors = &x[0].error[flat * pixels..][..pixels];
                (out.values[flat], out.error[flat]) = match kind {
                    PoolKind::Max => (
                        plane.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                        errors.iter().copied().fold(0.0, f64::max),
                    ),
                    PoolKind::Average => {
                        let size: f64 = plane.iter().map(|v| v.abs()).sum();
                        let error: f64 = errors.iter().sum();
                        (
                            plane.iter().sum::<f64>() / pixels as f64,
                            ((pixels + 2) as f64 * size + error) / pixels as f64,
                        )
                    }
                };
            }
        }
        Op::BatchNorm { epsilon } => {
            let pixels = shape[2..].iter().product::<usize>();
            for flat in 0..out.values.len() {
                let c = flat / pixels % shape[1];
                let scale = x[1].values[c] / (x[4].values[c] + f64::from(*epsilon)).sqrt();
                let shift = x[2].values[c] - x[3].values[c] * scale;
                let product = x[0].values[flat] * scale;
                out.values[flat] = product + shift;
                out.error[flat] = x[0].error[flat] * scale.abs() + 3.0 * (product.abs() + shift.abs());
            }
        }
        Op::Unary(function) => {
            out = x[0].clone();
            through(*function, &mut out.values, &mut out.error);
        }
        Op::PRelu | Op::Binary(_) => {
            let spread = |operand: &Exact, index: &[usize]| {
                let skip = index.len() - operand.shape.len();
                let own: Vec<usize> = operand
                    .shape
                    .iter()
                    .zip(&index[skip..])
                    .map(|(&extent, &i)| if extent == 1 { 0 } else { i })
                    .collect();
                operand.at(&own)
            };
            for (flat, index) in indices(shape).enumerate() {
                let (i, j) = (spread(x[0], &index), spread(x[1], &index));
                let (a, b, ea, eb) = (x[0].values[i], x[1].values[j], x[0].error[i], x[1].error[j]);
                let (value, error) = match op {
                    Op::PRelu => {
                        if a > 0.0 {
                            (a, ea)
                        } else {
                            (a * b, ea * b.abs().max(1.0) + (a * b).abs())
                        }
                    }
                    Op::Binary(BinaryOp::Add) => (a + b, ea + eb + (a + b).abs()),
                    Op::Binary(BinaryOp::Sub) => (a - b, ea + eb + (a - b).abs()),
                    Op::Binary(BinaryOp::Mul) => (a * b, ea * b.abs() + eb * a.abs() + (a * b).abs()),
                    Op::Binary(BinaryOp::Div) => {
                        (a / b, (ea + eb * (a / b).abs()) / b.abs() * 2.0 + (a / b).abs())
                    }
                    Op::Binary(BinaryOp::Max) => (a.max(b), ea.max(eb)),
                    Op::Binary(BinaryOp::Min) => (a.min(b), ea.max(eb)),
                    _ => unreachable!(),
                };
                (out.values[flat], out.error[flat]) = (value, error);
            }
        }
        Op::Softmax { axis } => {
            let (extent, stride) = (shape[*axis], strides(shape)[*axis]);
            for flat in 0..out.values.len() {
                let first = flat / (stride * extent) * stride * extent + flat % stride;
                let row = || (0..extent).map(|i| first + i * stride);
                let largest = row().map(|i| x[0].values[i]).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = row().map(|i| (x[0].values[i] - largest).exp()).sum();
                let spread =
                    row().map(|i| x[0].error[i] + 2.0 * (x[0].values[i] - largest).abs()).fold(0.0, f64::max);
                out.values[flat] = (x[0].values[flat] - largest).exp() / sum;
                out.error[flat] = out.values[flat] * (2.0 * spread + extent as f64 + 16.0) + 1e-30;
            }
        }
        Op::Concat { axis } => {
            let mut start = 0;
            for part in x {
                for (flat, mut index) in indices(&part.shape).enumerate() {
                    index[*axis] += start;
                    let at = out.at(&index);
                    (out.values[at], out.error[at]) = (part.values[flat], part.error[flat]);
                }
                start += part.shape[*axis];
            }
        }
        Op::MaxMin { order } => {
            let half: usize = x[0].values.len() / x[0].shape[0];
            for (flat, (&value, &error)) in x[0].values.iter().zip(&x[0].error).enumerate() {
                let (image, at) = (flat / half * 2 * half, flat % half);
                let (first, second) = match order {
                    MaxMinOrder::PositiveFirst => (value.max(0.0), (-value).max(0.0)),
                    MaxMinOrder::NegativeFirst => ((-value).max(0.0), value.max(0.0)),
                };
                (out.values[image + at], out.error[image + at]) = (first, error);
                (out.values[image + half + at], out.error[image + half + at]) = (second, error);
            }
        }
        Op::Transpose { permutation } => {
            for (flat, index) in indices(shape).enumerate() {
                let mut source = vec![0; index.len()];
                for (to, &from) in permutation.iter().enumerate() {
                    source[from] = index[to];
                }
                let at = x[0].at(&source);
                (out.values[flat], out.error[flat]) = (x[0].values[at], x[0].error[at]);
            }
        }
        Op::Reshape { .. } => {
            out.values.clone_from(&x[0].values);
            out.error.clone_from(&x[0].error);
        }
        Op::Pad { amounts, value } => {
            out.values.fill(f64::from(*value));
            for (flat, index) in indices(&x[0].shape).enumerate() {
                let to: Vec<usize> = index.iter().zip(amounts).map(|(i, [before, _])| i + before).collect();
                let at = out.at(&to);
                (out.values[at], out.error[at]) = (x[0].values[flat], x[0].error[flat]);
            }
        }
        Op::Slice { start, step, .. } => {
            for (flat, index) in indices(shape).enumerate() {
                let from: Vec<usize> = index
                    .iter()
                    .zip(start.iter().zip(step))
                    .map(|(i, (start, step))| start + i * step)
                    .collect();
                let at = x[0].at(&from);
                (out.values[flat], out.error[flat]) = (x[0].values[at], x[0].error[at]);
            }
        }
        Op::UpsampleNearest { factors } => {
            for (flat, index) in indices(shape).enumerate() {
                let at = x[0].at(&[index[0], index[1], index[2] / factors[0], index[3] / factors[1]]);
                (out.values[flat], out.error[flat]) = (x[0].values[at], x[0].error[at]);
            }
        }
        Op::Lrn { size, alpha, beta, bias } => {
            for (flat, index) in indices(shape).enumerate() {
                let c = index[1];
                let first = c.saturating_sub((size - 1) / 2);
                let last = (c + size / 2).min(shape[1] - 1);
                let squares: f64 = (first..=last)
                    .map(|c| x[0].values[x[0].at(&[index[0], c, index[2], index[3]])].powi(2))
                    .sum();
                let scale =
                    (f64::from(*bias) + f64::from(*alpha) / *size as f64 * squares).powf(-f64::from(*beta));
                out.values[flat] = x[0].values[flat] * scale;
                out.error[flat] = x[0].error[flat] * scale * 4.0 + 64.0 * out.values[flat].abs();
            }
        }
        Op::Excite(_) => unreachable!("see Graph::without_excite"),
        Op::ArgMax { axis, .. } => {
            let (extent, stride) = (x[0].shape[*axis], x[0].strides()[*axis]);
            for flat in 0..out.values.len() {
                let first = flat / stride * stride * extent + flat % stride;
                let value = |i: usize| x[0].values[first + i * stride];
                let best = (0..extent).fold(0, |best, i| if value(i) > value(best) { i } else { best });
                out.values[flat] = best as f64;
            }
        }
    }
    out
}
