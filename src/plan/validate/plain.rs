//! Steps on row-major maps.

use sinew_kernels::LANES;
use sinew_kernels::plain::depthwise;
use sinew_kernels::plain::pool::supports;

use super::conv::sizes;
use super::place::{Checked, Extent, product};
use super::{Check, Validator, ensure, windows};
use crate::plan::step::{Plain, PlainOp, PlainOperand, PlainWork, View};
use crate::run::pool::pool_kind;

impl Validator<'_> {
    pub(super) fn plain(&self, work: &PlainWork) -> Check<u128> {
        let PlainWork { op, shape, out_size, from, to } = work;
        self.plain_read(from)?;
        self.plain_written(to)?;
        ensure(product(shape) == Some(from.len), "another number of elements than the input")?;
        ensure(product(&work.out_shape()) == Some(to.len), "another number of elements than the output")?;
        let mut cost = to.len as u128;
        match op {
            PlainOp::Pool(pool) => {
                cost *= windows(pool, pool.stride, &work.input_layout(), *out_size)?;
                ensure(
                    supports(pool_kind(pool), pool.kernel, pool.stride, pool.dilation),
                    "windows that are too large",
                )?;
            }
            PlainOp::Depthwise { geometry: g, weights, bias, after: _ } => {
                let taps = sizes(g)?.taps;
                cost *= taps as u128;
                ensure(depthwise::supports(g), "windows or planes of other sizes")?;
                ensure(shape[2..] == [g.in_height, g.in_width], "another size of the input")?;
                ensure(*out_size == [g.out_height, g.out_width], "another size of the output")?;
                let numbers = shape[1].checked_mul(taps).ok_or("weights that make no sense")?;
                ensure(self.weights(weights)? >= numbers.div_ceil(LANES), "too few weights")?;
                ensure(self.weights(bias)? >= shape[1].div_ceil(LANES), "too few biases")?;
            }
            PlainOp::Unary(_) | PlainOp::Binary { .. } => {}
            PlainOp::Scale { addend, .. } => {
                ensure(!matches!(addend, Some(PlainOperand::Scalar(_))), "an addend without channels")?;
            }
        }
        if !matches!(op, PlainOp::Pool(_) | PlainOp::Depthwise { .. }) {
            ensure(shape[2..] == out_size[..], "operands of different sizes")?;
        }
        let mut reads = vec![self.plain_blocks(from)?];
        if let Some(other) = work.other() {
            self.plain_read(&other)?;
            ensure(other.len == from.len, "operands of different sizes")?;
            reads.push(self.plain_blocks(&other)?);
        }
        for view in work.per_channel().into_iter().flatten() {
            reads.push(self.channel_numbers(view, shape[0], shape[1])?);
        }
        self.apart(&reads, &[self.plain_blocks(to)?.of_all(shape[0])])?;
        Ok(cost)
    }

    /// One number per channel, channels in one part.
    fn channel_numbers(&self, view: &View, batch: usize, channels: usize) -> Check<Extent> {
        let extent = self.read(view, batch)?;
        ensure(view.layout.is_contiguous(), "channels in several parts")?;
        ensure(extent.blocks >= channels.div_ceil(LANES), "an operand that is too small")?;
        Ok(extent)
    }

    pub(super) fn plain_global_pool(&self, from: &Plain, size: [usize; 2], output: &View) -> Check<u128> {
        self.plain_read(from)?;
        let target = self.written(output)?;
        let layout = &output.layout;
        let shape = [layout.batch, layout.channels(), size[0], size[1]];
        ensure(product(&shape) == Some(from.len), "another number of elements than the input")?;
        ensure(layout.is_contiguous(), "channels in several parts")?;
        ensure(layout.pixels() == 1, "more than one pixel")?;
        self.apart(&[self.plain_blocks(from)?], &[target])?;
        Ok(from.len as u128)
    }
}
