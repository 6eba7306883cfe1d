//! Whether a plan that was read from a file can run: every place inside the arena, the weights or the caller's memory,
//! every size as the kernels require it, nothing read where it is written, and an end in sight.
//!
//! A planned graph passes by construction. The match on [`Work`] is exhaustive: a new kind of step needs its rule.

mod conv;
mod fused;
mod place;
mod plain;

use sinew_kernels::strided::MAX_RANK;

use super::Plan;
use super::file::malformed;
use super::layout::Blocked;
use super::step::{Operand, Plain, PlainPlace, Step, Strided, View, Work, unpacked_in_runs};
use crate::error::{Error, Result};
use crate::graph::{Pool, PoolKind};
use crate::run::parallel::{Along, Cut, MAX_PLANES};
use crate::tensor::DType;
use place::{Checked, Extent, product};

/// Why a step is refused.
type Reason = &'static str;
type Check<T = ()> = std::result::Result<T, Reason>;

/// Largest extent of anything: products of two of them stay far within 64 bits.
const MAX_EXTENT: usize = 1 << 30;

/// Threads that a plan may be cut for.
const MAX_THREADS: usize = 1024;

/// Checks a plan.
///
/// # Errors
/// Names the first step that is wrong.
pub(super) fn validate(plan: &Plan, threads: usize, macs: u64) -> Result<()> {
    let refuse = |reason: Reason| Err(malformed(reason.into()));
    if !(1..=MAX_THREADS).contains(&threads) {
        return refuse("its number of threads makes no sense");
    }
    if plan.scratch_blocks > plan.arena_blocks || plan.offsets.iter().any(|&at| at > plan.arena_blocks) {
        return refuse("a buffer lies outside of the arena");
    }
    for port in plan.inputs.iter().chain(&plan.outputs) {
        if port.shape.len() > MAX_RANK || product(&port.shape).is_none() {
            return Err(malformed(format!("the shape {:?} of \"{}\" makes no sense", port.shape, port.name)));
        }
    }
    let mut total = 0u128;
    for step in plan.edge_in.iter().chain(&plan.steps).chain(&plan.edge_out) {
        let cost = Validator { plan, step }
            .step()
            .map_err(|reason| malformed(format!("step \"{}\" ({}): {reason}", step.name, step.op)))?;
        total += cost;
        if total > u128::from(macs) {
            let found = u64::try_from(total).unwrap_or(u64::MAX);
            return Err(Error::TooLarge { what: "multiply-accumulates of a run".into(), found, limit: macs });
        }
    }
    Ok(())
}

/// Refuses where a condition does not hold.
fn ensure(condition: bool, reason: Reason) -> Check {
    if condition { Ok(()) } else { Err(reason) }
}

struct Validator<'p> {
    plan: &'p Plan,
    step: &'p Step,
}

impl Validator<'_> {
    /// Checks a step; gives roughly what it costs, in multiply-accumulates.
    fn step(&self) -> Check<u128> {
        let Step { buffers, scratch, scratch_blocks, cut, .. } = self.step;
        ensure(buffers.iter().all(|&buffer| buffer < self.plan.offsets.len()), "an unknown buffer")?;
        ensure(scratch.is_some() || *scratch_blocks == 0, "scratch without a buffer")?;
        self.cut(*cut)?;
        match &self.step.work {
            Work::Convert { input, to } => {
                let port = self.plan.inputs.get(*input).ok_or("an unknown input")?;
                ensure(matches!(to.place, PlainPlace::Arena(_)), "converts to elsewhere than the arena")?;
                ensure(to.len == port.len(), "another number of elements than the input")?;
                self.plain_written(to)?;
                Ok(to.len as u128)
            }
            Work::Pack { from, strides, to, lanes } => {
                let target = self.written(to)?;
                self.packed(from)?;
                self.edge(*strides, &to.layout, lanes, from)?;
                self.apart(&[self.plain_blocks(from)?], &[target])?;
                Ok(target.size() as u128 * 16)
            }
            Work::Unpack { from, to, strides, lanes } => {
                let source = self.read(from, from.layout.batch)?;
                self.plain_written(to)?;
                self.edge(*strides, &from.layout, lanes, to)?;
                let runs = unpacked_in_runs(&from.layout, *strides);
                let cut = self.step.cut;
                ensure(cut.parts == 1 || runs == Some(cut.along), "a cut of what cannot be cut")?;
                self.apart(&[source], &[self.plain_blocks(to)?])?;
                Ok(source.size() as u128 * 16)
            }
            Work::CopyPlain { from, to, copy, fill: _ } => {
                self.plain_read(from)?;
                self.plain_written(to)?;
                strided(copy, from.len, to.len)?;
                let whole = self.step.cut.parts == 1 || copy.outermost().is_some();
                ensure(whole, "a cut of what cannot be cut")?;
                self.apart(&[self.plain_blocks(from)?], &[self.plain_blocks(to)?])?;
                Ok(to.len as u128)
            }
            Work::CopyPixels { from, to, copy } => {
                let target = self.written(to)?;
                let source = self.read(from, to.layout.batch)?;
                strided(copy, source.blocks, target.blocks)?;
                self.whole_rows(pixels(copy, &to.layout)?)?;
                self.apart(&[source], &[target])?;
                Ok(target.size() as u128)
            }
            Work::CopyChannels { from, to, first, count, lanes: [in_lanes, out_lanes] } => {
                let target = self.written(to)?;
                let source = self.read(from, to.layout.batch)?;
                ensure(*in_lanes == from.layout.lanes() && *out_lanes == to.layout.lanes(), "other lanes")?;
                ensure(from.layout.pixels() == to.layout.pixels(), "planes of different sizes")?;
                let end = first.checked_add(*count).ok_or("too many channels")?;
                ensure(end <= from.layout.channels(), "channels that are not there")?;
                self.apart(&[source], &[target])?;
                Ok(target.size() as u128)
            }
            Work::Conv(conv) => self.conv(conv),
            Work::ConvMaps(maps) => self.conv_maps(maps),
            Work::PlainConv(conv) => self.plain_conv(conv),
            Work::Pool { pool, input, output } => self.pool(pool, input, output),
            Work::PoolFragments { pool, input, parts } => self.pool_fragments(pool, input, parts),
            Work::MaxMinPool { pool, input, positive, negative } => {
                self.max_min_pool(pool, input, [positive, negative])
            }
            Work::Gate(gate) => self.gate(gate),
            Work::Scale { input, scale, residual, after: _, output } => {
                self.scale(input, scale, residual.as_ref(), output)
            }
            Work::Concurrent { larger: _, input, scale, spatial, output } => {
                self.concurrent(input, [scale, spatial], output)
            }
            Work::Plain(work) => self.plain(work),
            Work::PlainGlobalPool { kind: _, from, size, output } => {
                self.plain_global_pool(from, *size, output)
            }
            Work::GlobalPool { kind: _, input, output } => {
                let (source, target) = self.pair(input, output)?;
                ensure(input.layout.blocks() == output.layout.blocks(), "other channels")?;
                ensure(output.layout.pixels() == 1, "more than one pixel")?;
                self.apart(&[source], &[target])?;
                Ok(source.size() as u128 * 16)
            }
            Work::Unary { function: _, input, output } => self.map(input, output, &[]),
            Work::Binary { op: _, swapped: _, a, b, output } => self.binary(a, b, output),
            Work::Affine { input, output, scale, shift } => self.map(input, output, &[scale, shift]),
            Work::PRelu { input, output, slope } => self.map(input, output, &[slope]),
            Work::MaxMin { input, positive, negative } => {
                let targets = [self.written(positive)?, self.written(negative)?];
                ensure(positive.layout.batch == input.layout.batch, "another batch")?;
                ensure(negative.layout.batch == input.layout.batch, "another batch")?;
                let source = self.read(input, input.layout.batch)?;
                ensure(targets.iter().all(|half| half.blocks == source.blocks), "halves of another size")?;
                self.apart(&[source], &targets)?;
                Ok(source.size() as u128 * 16)
            }
            Work::Softmax { input, output, lanes } => {
                ensure(*lanes == output.layout.lanes(), "other lanes")?;
                self.across_channels(input, output)
            }
            Work::Lrn { lanes, input, output, size, alpha: _, beta: _, bias: _ } => {
                ensure(*lanes == output.layout.lanes(), "other lanes")?;
                ensure(output.layout.is_contiguous(), "channels in several parts")?;
                ensure((1..=MAX_EXTENT).contains(size), "a window that makes no sense")?;
                Ok(self.across_channels(input, output)? * *size as u128)
            }
            Work::ArgMax { from, output, extents } => {
                self.plain_read(from)?;
                let [outer, axis, inner] = *extents;
                let port = self.plan.outputs.get(*output).ok_or("an unknown output")?;
                ensure(port.dtype == DType::I64, "indices to an output that holds none")?;
                ensure(product(extents) == Some(from.len) && axis > 0, "another number of elements")?;
                ensure(product(&[outer, inner]) == Some(port.len()), "another number of results")?;
                Ok(from.len as u128)
            }
        }
    }

    /// How the step is cut: parts that tile the output, whatever its size.
    fn cut(&self, cut: Cut) -> Check {
        let (Along::Blocks { unit } | Along::Pixels { unit }) = cut.along;
        ensure((1..=MAX_THREADS).contains(&cut.parts), "a number of parts that makes no sense")?;
        ensure((1..=1 << 40).contains(&unit), "a unit that makes no sense")
    }

    /// Kernels that compute whole rows get whole rows.
    fn whole_rows(&self, width: usize) -> Check {
        let Cut { parts, along } = self.step.cut;
        let whole = match along {
            Along::Pixels { unit } => unit % width == 0,
            Along::Blocks { .. } => true,
        };
        ensure(parts == 1 || whole, "cut within a row")
    }

    /// A plain value's strides of image, channel, row and pixel against the blocks on the other side.
    fn edge(&self, strides: [usize; 4], layout: &Blocked, lanes: &[u8], plain: &Plain) -> Check {
        ensure(lanes == layout.lanes(), "other lanes")?;
        let extents = [layout.batch, layout.channels(), layout.height, layout.width];
        ensure(last_index(&extents, &strides, 0)? < plain.len, "elements that are not there")?;
        self.whole_rows(layout.width)
    }

    /// Operands of an element-wise step, and constants per channel.
    fn map(&self, input: &View, output: &View, constants: &[&std::ops::Range<usize>]) -> Check<u128> {
        let (source, target) = self.pair(input, output)?;
        ensure(source.blocks == target.blocks, "operands of different sizes")?;
        for range in constants {
            ensure(self.weights(range)? >= output.layout.blocks(), "too few constants")?;
        }
        self.apart(&[source], &[target])?;
        Ok(target.size() as u128 * 16)
    }

    /// A step that takes all channels of a pixel together.
    fn across_channels(&self, input: &View, output: &View) -> Check<u128> {
        let cost = self.map(input, output, &[])?;
        let Cut { parts, along } = self.step.cut;
        if parts > 1 {
            let blocks = output.layout.blocks();
            ensure(matches!(along, Along::Pixels { .. }), "a cut between the channels of a pixel")?;
            ensure(blocks <= MAX_PLANES, "more channels than are shared out")?;
            ensure(self.scratch()?.0 >= 2 * blocks, "too little scratch")?;
        }
        let (source, target) = self.pair(input, output)?;
        self.apart_with_scratch(&[source], &[target])?;
        Ok(cost)
    }

    fn binary(&self, a: &View, b: &Operand, output: &View) -> Check<u128> {
        let (source, target) = self.pair(a, output)?;
        ensure(source.blocks == target.blocks, "operands of different sizes")?;
        let layout = &output.layout;
        let (other, needed) = match b {
            Operand::Same(view) => (view, target.blocks),
            Operand::PerChannel(view) => (view, layout.blocks()),
            Operand::PerPixel(view) => (view, layout.pixels()),
            Operand::Scalar(_) => {
                self.apart(&[source], &[target])?;
                return Ok(target.size() as u128 * 16);
            }
        };
        let other = self.read(other, layout.batch)?;
        ensure(other.blocks >= needed, "an operand that is too small")?;
        self.apart(&[source, other], &[target])?;
        Ok(target.size() as u128 * 16)
    }

    fn pool(&self, pool: &Pool, input: &View, output: &View) -> Check<u128> {
        let (source, target) = self.pair(input, output)?;
        ensure(input.layout.blocks() == output.layout.blocks(), "other channels")?;
        let taps = windows(pool, pool.stride, &input.layout, [output.layout.height, output.layout.width])?;
        self.whole_rows(output.layout.width)?;
        self.apart(&[source], &[target])?;
        Ok(target.size() as u128 * 16 * taps)
    }

    /// What a step of one operand reads and writes, image by image.
    fn pair(&self, input: &View, output: &View) -> Check<(Extent, Extent)> {
        let target = self.written(output)?;
        Ok((self.read(input, output.layout.batch)?, target))
    }
}

/// Whether every window of a pool with this stride has a tap in the image; gives the taps of one at most.
fn windows(pool: &Pool, stride: [usize; 2], input: &Blocked, outputs: [usize; 2]) -> Check<u128> {
    let pads = [pool.pads.top, pool.pads.left, pool.pads.bottom, pool.pads.right];
    let sizes = [pool.kernel, stride, pool.dilation].concat();
    ensure(sizes.iter().all(|size| (1..=MAX_EXTENT).contains(size)), "a window that makes no sense")?;
    ensure(pads.iter().all(|pad| *pad <= MAX_EXTENT), "a border that makes no sense")?;
    let extents = [input.height, input.width];
    let mut taps = 1;
    for axis in [0, 1] {
        // The taps that lie in the image are at most those that fit in it.
        taps *= pool.kernel[axis].min(extents[axis].div_ceil(pool.dilation[axis])) as u128;
        for at in 0..outputs[axis] {
            let start = at * stride[axis];
            let skipped = pads[axis].saturating_sub(start).div_ceil(pool.dilation[axis]);
            let first = start + skipped * pool.dilation[axis] - pads[axis];
            ensure(skipped < pool.kernel[axis] && first < extents[axis], "a window outside of the image")?;
        }
    }
    if pool.kind == PoolKind::Average && pool.count_include_pad {
        let window = |axis: usize| (pool.kernel[axis] as u128) * (pool.dilation[axis] as u128);
        ensure(window(0).max(window(1)) <= 1 << 40, "a window that makes no sense")?;
    }
    Ok(taps)
}

/// The index of the last element of a box.
fn last_index(extents: &[usize], strides: &[usize], start: usize) -> Check<usize> {
    let mut last = start;
    for (&extent, &stride) in extents.iter().zip(strides) {
        let along = extent.checked_sub(1).ok_or("nothing to copy")?.checked_mul(stride);
        last = along.and_then(|along| last.checked_add(along)).ok_or("elements that are not there")?;
    }
    Ok(last)
}

/// A copy of a box between operands of these sizes; each target is written at most once.
fn strided(copy: &Strided, from: usize, to: usize) -> Check {
    let count = product(&copy.extents).ok_or("a box that makes no sense")?;
    ensure(count <= to, "more elements than the target holds")?;
    ensure(
        last_index(&copy.extents, &copy.from_strides, copy.from_start)? < from,
        "reads beyond its source",
    )?;
    ensure(last_index(&copy.extents, &copy.to_strides, copy.to_start)? < to, "writes beyond its target")
}

/// A copy of pixels to every block of a map, what goes to one row of it apart from the next; gives the pixels from one to
/// the next.
fn pixels(copy: &Strided, to: &Blocked) -> Check<usize> {
    let [blocks, rows] = copy.blocks_and_rows();
    let outer = copy.extents[..blocks].iter().all(|&extent| extent == 1);
    let whole = (copy.extents[blocks], copy.to_strides[blocks]) == (to.blocks(), to.pixels());
    ensure(outer && whole, "pixels of other blocks")?;
    let unit = copy.to_strides[rows];
    let last = last_index(&copy.extents[rows + 1..], &copy.to_strides[rows + 1..], copy.to_start)?;
    ensure(last < unit, "pixels beyond their row")?;
    let last = last_index(&[copy.extents[rows]], &[unit], last)?;
    ensure(last < to.pixels(), "pixels beyond their plane")?;
    Ok(unit)
}

impl Checked for Validator<'_> {
    fn plan(&self) -> &Plan {
        self.plan
    }
}
