//! Steps that do what several nodes asked for: gates, scales, pools into fragments, pools of MaxMin.

use sinew_kernels::LANES;

use super::place::{Checked, Extent};
use super::{Check, Validator, ensure, windows};
use crate::graph::Pool;
use crate::plan::step::{GateWork, View};
use crate::run::parallel::MAX_PLANES;

impl Validator<'_> {
    pub(super) fn gate(&self, gate: &GateWork) -> Check<u128> {
        let (source, target) = self.pair(&gate.input, &gate.output)?;
        ensure(gate.input.layout.pixels() == 1, "a gate from more than one pixel")?;
        let (mut blocks, mut hidden, mut cost) = (source.blocks, 0usize, 0u128);
        for layer in &gate.layers {
            self.cut(layer.cut)?;
            ensure(layer.lanes.len() == blocks && blocks > 0, "another number of input channels")?;
            ensure(
                layer.lanes.iter().all(|lanes| (1..=LANES as u8).contains(lanes)),
                "lanes that do not exist",
            )?;
            let channels: usize = layer.lanes.iter().copied().map(usize::from).sum();
            ensure(layer.weights_per_block >= channels, "too few weights of a block")?;
            ensure(layer.out_blocks >= 1, "no output channels")?;
            let stored = layer.out_blocks.checked_mul(layer.weights_per_block);
            let weights = self.weights(&layer.weights)?;
            ensure(stored.is_some_and(|stored| stored <= weights), "too few weights")?;
            ensure(self.weights(&layer.bias)? >= layer.out_blocks, "too few biases")?;
            cost += layer.out_blocks as u128 * LANES as u128 * channels as u128;
            blocks = layer.out_blocks;
            hidden = hidden.checked_add(blocks).ok_or("layers that make no sense")?;
        }
        ensure(!gate.layers.is_empty() && blocks == target.blocks, "another number of output channels")?;
        ensure(hidden - blocks <= self.step.scratch_blocks, "too little scratch")?;
        self.apart_with_scratch(&[source], &[target])?;
        Ok(cost * target.batch() as u128)
    }

    pub(super) fn scale(
        &self,
        input: &View,
        scale: &View,
        residual: Option<&View>,
        output: &View,
    ) -> Check<u128> {
        let (source, target) = self.pair(input, output)?;
        ensure(source.blocks == target.blocks, "operands of different sizes")?;
        let scale = self.read(scale, output.layout.batch)?;
        ensure(scale.blocks >= output.layout.blocks(), "an operand that is too small")?;
        let residual = self.residual(residual, output, &target)?;
        let reads: Vec<Extent> = [Some(source), Some(scale), residual].into_iter().flatten().collect();
        self.apart(&reads, &[target])?;
        Ok(target.size() as u128 * LANES as u128)
    }

    pub(super) fn concurrent(&self, input: &View, gates: [&View; 2], output: &View) -> Check<u128> {
        let (source, target) = self.pair(input, output)?;
        let layout = &output.layout;
        ensure(source.blocks == target.blocks, "operands of different sizes")?;
        let [scale, spatial] = gates.map(|gate| self.read(gate, layout.batch));
        let (scale, spatial) = (scale?, spatial?);
        ensure(scale.blocks >= layout.blocks(), "an operand that is too small")?;
        ensure(spatial.blocks >= layout.pixels(), "an operand that is too small")?;
        self.apart(&[source, scale, spatial], &[target])?;
        Ok(target.size() as u128 * LANES as u128)
    }

    /// Parts that lie one after the other, as large as the positions of their phase.
    pub(super) fn pool_fragments(&self, pool: &Pool, input: &View, parts: &[View]) -> Check<u128> {
        let [down, across] = pool.stride;
        let count = down.checked_mul(across).filter(|count| (1..=MAX_PLANES).contains(count));
        ensure(count == Some(parts.len()), "another number of fragments")?;
        let height: usize = parts.iter().step_by(across).map(|part| part.layout.height).sum();
        let width: usize = parts[..across].iter().map(|part| part.layout.width).sum();
        let source = self.read(input, input.layout.batch)?;
        let mut targets = Vec::new();
        let mut skip = parts[0].skip;
        for (index, part) in parts.iter().enumerate() {
            let extent = self.written(part)?;
            let phase = [index / across, index % across];
            let own = [
                height.saturating_sub(phase[0]).div_ceil(down),
                width.saturating_sub(phase[1]).div_ceil(across),
            ];
            ensure([part.layout.height, part.layout.width] == own, "a fragment of another size")?;
            ensure(part.layout.blocks() == input.layout.blocks(), "other channels")?;
            ensure(part.layout.batch == input.layout.batch, "another batch")?;
            ensure((part.place, part.skip) == (parts[0].place, skip), "a fragment that lies elsewhere")?;
            ensure(part.batch_stride == parts[0].batch_stride, "images of different sizes")?;
            skip = skip.checked_add(extent.blocks).ok_or("a value beyond its place")?;
            targets.push(extent);
        }
        ensure(parts[0].batch_stride == skip - parts[0].skip, "images of another size than their fragments")?;
        let taps = windows(pool, [1, 1], &input.layout, [height, width])?;
        let piece = self.step.scratch_blocks / self.step.cut.parts;
        ensure(piece >= width, "too little scratch")?;
        self.apart_with_scratch(&[source], &targets)?;
        Ok(targets.iter().map(|target| target.size() as u128).sum::<u128>() * LANES as u128 * taps)
    }

    pub(super) fn max_min_pool(&self, pool: &Pool, input: &View, halves: [&View; 2]) -> Check<u128> {
        let targets = [self.written(halves[0])?, self.written(halves[1])?];
        let source = self.read(input, input.layout.batch)?;
        let outputs = [halves[0].layout.height, halves[0].layout.width];
        for half in halves {
            ensure(half.layout.batch == input.layout.batch, "another batch")?;
            ensure(half.layout.blocks() == input.layout.blocks(), "other channels")?;
            ensure([half.layout.height, half.layout.width] == outputs, "halves of different sizes")?;
        }
        let taps = windows(pool, pool.stride, &input.layout, outputs)?;
        self.whole_rows(outputs[1])?;
        self.apart(&[source], &targets)?;
        Ok(targets[0].size() as u128 * 2 * LANES as u128 * taps)
    }

    /// As [`Checked::apart`], with the step's scratch among what is written.
    pub(super) fn apart_with_scratch(&self, reads: &[Extent], writes: &[Extent]) -> Check {
        let (_, scratch) = self.scratch()?;
        let writes: Vec<Extent> = writes.iter().copied().chain(scratch).collect();
        self.apart(reads, &writes)
    }
}
