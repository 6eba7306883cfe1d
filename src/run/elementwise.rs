//! Functions of one map or two, element by element.

use std::ops::Range;

use sinew_kernels::activation::Activation;
use sinew_kernels::elementwise;

use super::parallel::for_each_part;
use super::step::{Run, image, open};
use crate::graph::BinaryOp;
use crate::plan::step::{Operand, Step, View};

/// A function of two numbers, as the kernels name it.
pub(super) fn binary_op(op: BinaryOp) -> elementwise::BinaryOp {
    match op {
        BinaryOp::Add => elementwise::BinaryOp::Add,
        BinaryOp::Sub => elementwise::BinaryOp::Sub,
        BinaryOp::Mul => elementwise::BinaryOp::Mul,
        BinaryOp::Div => elementwise::BinaryOp::Div,
        BinaryOp::Max => elementwise::BinaryOp::Max,
        BinaryOp::Min => elementwise::BinaryOp::Min,
    }
}

impl Run<'_, '_, '_> {
    pub(super) fn unary(&mut self, step: &Step, function: Activation, input: &View, output: &View) {
        let kernels = self.kernels;
        let plane = output.layout.pixels();
        for index in 0..output.layout.batch {
            let ([x], [out]) =
                open(self.plan, self.arena, index, [Some(input)], [image(self.plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                for (block, out) in out.iter_mut().enumerate() {
                    let start = (part.first_block + block) * plane + part.pixels.start;
                    (kernels.activate.run)(function, &x[start..start + out.len()], out);
                }
            });
        }
    }

    pub(super) fn binary(
        &mut self,
        step: &Step,
        (op, swapped): (BinaryOp, bool),
        a: &View,
        b: &Operand,
        output: &View,
    ) {
        let kernels = self.kernels;
        let plane = output.layout.pixels();
        let other = match b {
            Operand::Same(view) | Operand::PerChannel(view) | Operand::PerPixel(view) => Some(view),
            Operand::Scalar(_) => None,
        };
        let op = binary_op(op);
        for index in 0..output.layout.batch {
            let ([x, y], [out]) =
                open(self.plan, self.arena, index, [Some(a), other], [image(self.plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let left = elementwise::Operand::Map(&x[part.first_block * plane..]);
                let right = match b {
                    Operand::Same(_) => elementwise::Operand::Map(&y[part.first_block * plane..]),
                    Operand::PerChannel(_) => elementwise::Operand::Channel(&y[part.first_block..]),
                    Operand::PerPixel(_) => elementwise::Operand::Pixel(y),
                    Operand::Scalar(value) => elementwise::Operand::Scalar(*value),
                };
                let (left, right) = if swapped { (right, left) } else { (left, right) };
                let args = elementwise::BinaryArgs { op, left, right, plane, after: Activation::Identity };
                (kernels.binary.run)(&args, part.pixels, out);
            });
        }
    }

    pub(super) fn affine(
        &mut self,
        step: &Step,
        input: &View,
        output: &View,
        scale: &Range<usize>,
        shift: &Range<usize>,
    ) {
        let (plan, kernels) = (self.plan, self.kernels);
        let plane = output.layout.pixels();
        let (scale, shift) = (&plan.weights[scale.clone()], &plan.weights[shift.clone()]);
        for index in 0..output.layout.batch {
            let ([x], [out]) = open(plan, self.arena, index, [Some(input)], [image(plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let args = elementwise::ScaleArgs {
                    input: Some(&x[part.first_block * plane..]),
                    scale: &scale[part.first_block..],
                    addend: elementwise::Addend::Channel(&shift[part.first_block..]),
                    plane,
                    after: Activation::Identity,
                };
                (kernels.scale.run)(&args, part.pixels, out);
            });
        }
    }

    pub(super) fn prelu(&mut self, step: &Step, input: &View, output: &View, slope: &Range<usize>) {
        let (plan, kernels) = (self.plan, self.kernels);
        let plane = output.layout.pixels();
        let slope = &plan.weights[slope.clone()];
        for index in 0..output.layout.batch {
            let ([x], [out]) = open(plan, self.arena, index, [Some(input)], [image(plan, output, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let args = elementwise::BinaryArgs {
                    op: elementwise::BinaryOp::PRelu,
                    left: elementwise::Operand::Map(&x[part.first_block * plane..]),
                    right: elementwise::Operand::Channel(&slope[part.first_block..]),
                    plane,
                    after: Activation::Identity,
                };
                (kernels.binary.run)(&args, part.pixels, out);
            });
        }
    }
}
