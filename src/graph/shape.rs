//! Shape inference: what an operator's output looks like, given its inputs; everything that does not fit is refused.
//!
//! Window sizes are those of ONNX and PyTorch: the last window of a floor size lies inside the padded input, the last
//! one of a ceil size may reach beyond it but starts inside the input or its left border.

use super::op::{Conv, Op, Pads, Pool};

/// The shape of an operator's output.
///
/// # Errors
/// Where the number of inputs, their shapes or the attributes contradict each other; the message says what was found
/// and what was expected.
pub fn infer(op: &Op, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let shape = match op {
        Op::Conv(conv) => conv_shape(conv, inputs)?,
        Op::Dense { .. } => dense_shape(inputs)?,
        Op::Pool(pool) => pool_shape(pool, inputs)?,
        Op::GlobalPool(_) => {
            let [n, c, _, _] = image(one(inputs)?)?;
            vec![n, c, 1, 1]
        }
        Op::BatchNorm { .. } => batch_norm_shape(inputs)?,
        Op::Unary(_) => one(inputs)?.to_vec(),
        Op::PRelu => {
            let [x, slope] = exactly(inputs)?;
            if broadcast(x, slope)? != x {
                return Err(format!("slope {slope:?} cannot be broadcast to the input {x:?}"));
            }
            x.to_vec()
        }
        Op::Binary(_) => {
            let [a, b] = exactly(inputs)?;
            broadcast(a, b)?
        }
        Op::Softmax { axis } => {
            let x = one(inputs)?;
            check_axis(*axis, x)?;
            x.to_vec()
        }
        Op::Concat { axis } => concat_shape(*axis, inputs)?,
        Op::MaxMin { .. } => {
            let [n, c, h, w] = image(one(inputs)?)?;
            vec![n, multiply(c, 2)?, h, w]
        }
        Op::Transpose { permutation } => transpose_shape(permutation, one(inputs)?)?,
        Op::Reshape { shape } => {
            let x = one(inputs)?;
            if elements(shape)? != elements(x)? {
                return Err(format!("{x:?} cannot be reshaped to {shape:?}: the number of elements differs"));
            }
            shape.clone()
        }
        Op::Pad { amounts, .. } => {
            let x = one(inputs)?;
            check_rank("pads", amounts.len(), x)?;
            let padded = |(&d, amount): (&usize, &[usize; 2])| add(add(d, amount[0])?, amount[1]);
            x.iter().zip(amounts).map(padded).collect::<Result<_, _>>()?
        }
        Op::Slice { start, step, size } => slice_shape(start, step, size, one(inputs)?)?,
        Op::UpsampleNearest { factors } => {
            let [n, c, h, w] = image(one(inputs)?)?;
            vec![n, c, multiply(h, factors[0])?, multiply(w, factors[1])?]
        }
        Op::ArgMax { axis, keep_dims } => {
            let mut shape = one(inputs)?.to_vec();
            check_axis(*axis, &shape)?;
            if *keep_dims {
                shape[*axis] = 1;
            } else {
                shape.remove(*axis);
            }
            shape
        }
        Op::Lrn { size, .. } => {
            if *size == 0 {
                return Err("size is 0, expected at least 1".to_owned());
            }
            image(one(inputs)?)?.to_vec()
        }
        Op::Excite(excite) => excite.shape(inputs)?,
    };
    if shape.contains(&0) {
        return Err(format!("the output would be empty: {shape:?}"));
    }
    elements(&shape)?;
    Ok(shape)
}

/// The shape of two operands broadcast against each other: aligned at the last dimension, extents equal or 1.
///
/// # Errors
/// Where they do not fit.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    // Dimension i counted from the last; missing ones are 1.
    let dim = |shape: &[usize], i: usize| shape.len().checked_sub(i + 1).map_or(1, |at| shape[at]);
    let pairs = (0..rank).rev().map(|i| (dim(a, i), dim(b, i)));
    pairs
        .map(|pair| match pair {
            (1, d) | (d, 1) => Ok(d),
            (d, e) if d == e => Ok(d),
            _ => Err(format!("{a:?} and {b:?} cannot be broadcast against each other")),
        })
        .collect()
}

/// The number of elements of a shape.
///
/// # Errors
/// Where it does not fit.
pub fn elements(shape: &[usize]) -> Result<usize, String> {
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= MAX_ELEMENTS)
        .ok_or_else(|| format!("{shape:?} has too many elements"))
}

/// Bytes of f32 must fit an `isize`, the most that Rust allocates.
const MAX_ELEMENTS: usize = isize::MAX as usize / 4;

pub(super) fn conv_shape(conv: &Conv, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let (operands, residual) = match (inputs.len(), conv.residual) {
        (3, false) => (inputs, None),
        (4, true) => (&inputs[..3], Some(inputs[3])),
        (n, residual) => {
            let expected =
                if residual { "4 inputs: x, weights, bias, residual" } else { "3 inputs: x, weights, bias" };
            return Err(format!("{n} inputs, expected {expected}"));
        }
    };
    let [x, weights, bias] = exactly(operands)?;
    let [n, c, h, w] = image(x)?;
    let &[o, per_group, kh, kw] = weights else {
        return Err(format!("weights have the shape {weights:?}, expected [O, C / groups, KH, KW]"));
    };
    if conv.groups == 0 || !c.is_multiple_of(conv.groups) || !o.is_multiple_of(conv.groups) {
        return Err(format!("{c} input and {o} output channels cannot be split into {} groups", conv.groups));
    }
    if per_group != c / conv.groups {
        return Err(if conv.groups == 1 {
            format!("weights have {per_group} input channels, the input has {c}")
        } else {
            format!(
                "weights have {per_group} input channels, the input has {c} in {} groups, so {} each",
                conv.groups,
                c / conv.groups
            )
        });
    }
    if [kh, kw] != conv.kernel {
        return Err(format!(
            "weights have {kh}x{kw} taps, the kernel has {}x{}",
            conv.kernel[0], conv.kernel[1]
        ));
    }
    if bias != [o] {
        return Err(format!("bias has the shape {bias:?}, expected [{o}]"));
    }
    let [out_h, out_w] = window_sizes([h, w], conv.kernel, conv.stride, conv.dilation, conv.pads, false)?;
    let shape = vec![n, o, out_h, out_w];
    if let Some(residual) = residual.filter(|&residual| residual != shape) {
        return Err(format!("residual has the shape {residual:?}, expected that of the output {shape:?}"));
    }
    Ok(shape)
}

fn dense_shape(inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let [x, weights, bias] = exactly(inputs)?;
    let (&[n, k], &[o, k_weights]) = (x, weights) else {
        return Err(format!("input {x:?} and weights {weights:?}, expected [N, K] and [O, K]"));
    };
    if k != k_weights {
        return Err(format!("weights have {k_weights} columns, the input has {k}"));
    }
    if bias != [o] {
        return Err(format!("bias has the shape {bias:?}, expected [{o}]"));
    }
    Ok(vec![n, o])
}

fn pool_shape(pool: &Pool, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let [n, c, h, w] = image(one(inputs)?)?;
    let Pads { top, left, .. } = pool.pads;
    let [out_h, out_w] =
        window_sizes([h, w], pool.kernel, pool.stride, pool.dilation, pool.pads, pool.ceil_mode)?;
    for (axis, (size, pad, out)) in [(h, top, out_h), (w, left, out_w)].into_iter().enumerate() {
        let (stride, dilation) = (pool.stride[axis], pool.dilation[axis]);
        for position in 0..out {
            // In the padded input; the input starts at `pad`. None of these overflows: the window is inside.
            let start = position * stride;
            let skipped = pad.saturating_sub(start).div_ceil(dilation);
            if skipped >= pool.kernel[axis] || start + skipped * dilation - pad >= size {
                return Err(format!(
                    "window {position} along the {} lies in the border with all its taps",
                    ["height", "width"][axis]
                ));
            }
        }
    }
    Ok(vec![n, c, out_h, out_w])
}

fn batch_norm_shape(inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let [x, parameters @ ..] = exactly::<5>(inputs)?;
    let Some(&c) = x.get(1) else {
        return Err(format!("the input has the shape {x:?}, expected [N, C, ...]"));
    };
    for (name, parameter) in ["gamma", "beta", "mean", "variance"].into_iter().zip(parameters) {
        if parameter != [c] {
            return Err(format!("{name} has the shape {parameter:?}, expected [{c}]"));
        }
    }
    Ok(x.to_vec())
}

fn concat_shape(axis: usize, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let [first, rest @ ..] = inputs else {
        return Err("no inputs, expected at least one".to_owned());
    };
    check_axis(axis, first)?;
    let mut shape = first.to_vec();
    for other in rest {
        let fits = other.len() == first.len()
            && other.iter().zip(*first).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !fits {
            return Err(format!("{other:?} and {first:?} differ elsewhere than in dimension {axis}"));
        }
        shape[axis] = add(shape[axis], other[axis])?;
    }
    Ok(shape)
}

fn transpose_shape(permutation: &[usize], x: &[usize]) -> Result<Vec<usize>, String> {
    check_rank("permutation", permutation.len(), x)?;
    let mut seen = vec![false; x.len()];
    let mut shape = Vec::with_capacity(x.len());
    for &from in permutation {
        // Taken once: a second use, as an index out of range, reads as seen.
        let seen = seen.get_mut(from).is_none_or(|seen| std::mem::replace(seen, true));
        if seen {
            return Err(format!("{permutation:?} is no permutation of {} dimensions", x.len()));
        }
        shape.push(x[from]);
    }
    Ok(shape)
}

fn slice_shape(start: &[usize], step: &[usize], size: &[usize], x: &[usize]) -> Result<Vec<usize>, String> {
    check_rank("start", start.len(), x)?;
    check_rank("step", step.len(), x)?;
    check_rank("size", size.len(), x)?;
    for (i, &d) in x.iter().enumerate() {
        let (start, step, size) = (start[i], step[i], size[i]);
        let last = size.checked_sub(1).and_then(|n| n.checked_mul(step)?.checked_add(start));
        if step == 0 || last.is_none_or(|last| last >= d) {
            return Err(format!(
                "{size} elements from {start} in steps of {step} do not lie in dimension {i} of {x:?}"
            ));
        }
    }
    Ok(size.to_vec())
}

/// Output rows and columns of a window that slides over an image.
fn window_sizes(
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    pads: Pads,
    ceil: bool,
) -> Result<[usize; 2], String> {
    let pads = [[pads.top, pads.bottom], [pads.left, pads.right]];
    let mut out = [0; 2];
    for axis in 0..2 {
        out[axis] = window_size(input[axis], kernel[axis], stride[axis], dilation[axis], pads[axis], ceil)?;
    }
    Ok(out)
}

fn window_size(
    input: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    pads: [usize; 2],
    ceil: bool,
) -> Result<usize, String> {
    if kernel == 0 || stride == 0 || dilation == 0 {
        return Err(format!(
            "kernel {kernel}, stride {stride}, dilation {dilation}: each must be at least 1"
        ));
    }
    let extent = add(multiply(kernel - 1, dilation)?, 1)?;
    let padded = add(add(input, pads[0])?, pads[1])?;
    let Some(room) = padded.checked_sub(extent) else {
        return Err(format!("the window covers {extent} pixels, the padded input has {padded}"));
    };
    if !ceil {
        return Ok(room / stride + 1);
    }
    let out = room.div_ceil(stride) + 1;
    let last_start = multiply(out - 1, stride)?;
    add(last_start, extent)?;
    Ok(if last_start >= input + pads[0] { out - 1 } else { out })
}

fn exactly<'a, const N: usize>(inputs: &[&'a [usize]]) -> Result<[&'a [usize]; N], String> {
    inputs.try_into().map_err(|_| format!("{} inputs, expected {N}", inputs.len()))
}

fn one<'a>(inputs: &[&'a [usize]]) -> Result<&'a [usize], String> {
    exactly::<1>(inputs).map(|[x]| x)
}

fn image(x: &[usize]) -> Result<[usize; 4], String> {
    x.try_into().map_err(|_| format!("the input has the shape {x:?}, expected [N, C, H, W]"))
}

fn check_axis(axis: usize, x: &[usize]) -> Result<(), String> {
    if axis < x.len() { Ok(()) } else { Err(format!("the input {x:?} has no dimension {axis}")) }
}

fn check_rank(what: &str, found: usize, x: &[usize]) -> Result<(), String> {
    if found == x.len() {
        Ok(())
    } else {
        Err(format!("{what} for {found} dimensions, the input {x:?} has {}", x.len()))
    }
}

fn add(a: usize, b: usize) -> Result<usize, String> {
    a.checked_add(b).ok_or_else(|| format!("{a} + {b} is too large"))
}

fn multiply(a: usize, b: usize) -> Result<usize, String> {
    a.checked_mul(b).ok_or_else(|| format!("{a} * {b} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::PoolKind;

    fn pool(kernel: usize, stride: usize, pads: [usize; 2], ceil_mode: bool) -> Op {
        Op::Pool(Pool {
            kind: PoolKind::Max,
            kernel: [kernel, 1],
            stride: [stride, 1],
            dilation: [1, 1],
            pads: Pads { top: pads[0], bottom: pads[1], left: 0, right: 0 },
            ceil_mode,
            count_include_pad: false,
        })
    }

    #[test]
    fn pooled_heights() {
        // (height, kernel, stride, pads, ceil) -> height; the last three were computed with PyTorch.
        for (height, kernel, stride, pads, ceil, expected) in [
            (112, 3, 2, [1, 1], false, 56),
            (7, 2, 2, [0, 0], false, 3),
            (7, 2, 2, [0, 0], true, 4),
            (6, 3, 2, [1, 1], true, 4),
            (3, 2, 2, [1, 1], true, 2),
            (5, 1, 3, [0, 0], true, 2),
        ] {
            let got = infer(&pool(kernel, stride, pads, ceil), &[&[1, 1, height, 1]]);
            assert_eq!(got.map(|shape| shape[2]), Ok(expected), "{height} {kernel} {stride} {pads:?} {ceil}");
        }
    }

    #[test]
    fn windows_of_border_alone_are_refused() {
        let got = infer(&pool(2, 1, [2, 0], false), &[&[1, 1, 4, 1]]);
        assert_eq!(got, Err("window 0 along the height lies in the border with all its taps".to_owned()));
        // Taps at -1 and 2 of two rows.
        let Op::Pool(mut dilated) = pool(2, 1, [1, 1], false) else { unreachable!() };
        dilated.dilation = [3, 1];
        assert!(infer(&Op::Pool(dilated), &[&[1, 1, 2, 1]]).is_err());
    }

    #[test]
    fn broadcast_shapes() {
        assert_eq!(broadcast(&[2, 3, 4], &[3, 1]), Ok(vec![2, 3, 4]));
        assert_eq!(broadcast(&[1, 3], &[2, 1]), Ok(vec![2, 3]));
        assert_eq!(broadcast(&[], &[5]), Ok(vec![5]));
        assert!(broadcast(&[2], &[3]).is_err());
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let huge = usize::MAX / 2;
        assert!(infer(&pool(3, 2, [huge, huge], false), &[&[1, 1, 8, 1]]).is_err());
        assert!(infer(&Op::Binary(crate::graph::BinaryOp::Add), &[&[huge, 1], &[1, huge]]).is_err());
        let shape = vec![huge, 4, huge];
        assert!(infer(&Op::Reshape { shape }, &[&[4, 4]]).is_err());
    }
}
