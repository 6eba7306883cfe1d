//! One layer on several maps, or on the images of a batch, in one step: weights that stream from far away do so once.

use std::array::from_fn;
use std::ops::Range;

use sinew_kernels::conv::ConvArgs;
use sinew_kernels::epilogue::Epilogue;

use super::borrow::views;
use super::parallel::for_each_run_of_blocks;
use super::step::{Run, image};
use crate::plan::Algorithm;
use crate::plan::step::{ConvWork, Place, Step, View};

/// Maps that are worked on together at most; more of them go one such number after the other.
const MAPS: usize = 16;

impl Run<'_, '_, '_> {
    pub(super) fn conv_maps(&mut self, step: &Step, maps: &[ConvWork]) {
        let (plan, first) = (self.plan, &maps[0]);
        let Algorithm::Winograd(tile, form) = first.algorithm else {
            unreachable!("only Winograd takes several maps")
        };
        let Some(kernel) = self.kernels.winograd.iter().find(|kernel| kernel.tile == tile) else {
            unreachable!("every table has every tile")
        };
        let batch = first.output.layout.batch;
        let (weights, bias) = (&plan.weights[first.weights.clone()], &plan.weights[first.bias.clone()]);
        let blocks = first.output.layout.blocks();
        let total = maps.len() * batch;
        for start in (0..total).step_by(MAPS) {
            let count = MAPS.min(total - start);
            // slots behind the last map repeat it, and are not used
            let map = |slot: usize| (start + slot.min(count - 1)) / batch;
            let index = |slot: usize| (start + slot.min(count - 1)) % batch;
            let operand = |slot: usize| {
                let conv = &maps[map(slot % MAPS)];
                if slot < MAPS { Some(&conv.input) } else { conv.residual.as_ref() }
            };
            let reads: [Range<usize>; 2 * MAPS] = from_fn(|slot| match operand(slot) {
                Some(view) if matches!(view.place, Place::Arena(_)) => image(plan, view, index(slot % MAPS)),
                _ => 0..0,
            });
            let writes: [Range<usize>; MAPS + 1] = from_fn(|slot| {
                if slot < count {
                    image(plan, &maps[map(slot)].output, index(slot))
                } else if slot == MAPS {
                    self.scratch(step)
                } else {
                    0..0
                }
            });
            let (mut read, mut written) = views(self.arena, reads, writes);
            for (slot, read) in read.iter_mut().enumerate() {
                if let Some(view @ View { place: Place::Weights, .. }) = operand(slot) {
                    *read = &plan.weights[image(plan, view, index(slot % MAPS))];
                }
            }
            let (outputs, scratch) = written.split_at_mut(MAPS);
            let outputs = outputs[..count].iter_mut().map(|out| &mut **out);
            for_each_run_of_blocks(step.cut, outputs, blocks, scratch[0], &|own, out, scratch| {
                let block = own.start;
                let args: [ConvArgs<'_>; MAPS] = from_fn(|slot| {
                    let conv = &maps[map(slot)];
                    let plane = conv.geometry.out_pixels();
                    ConvArgs {
                        geometry: conv.geometry,
                        lanes: &first.lanes,
                        input: read[slot],
                        weights: &weights[block * first.weights_per_block..],
                        epilogue: Epilogue {
                            bias: &bias[block..],
                            scale: None,
                            before: first.before,
                            residual: conv.residual.as_ref().map(|_| &read[MAPS + slot][block * plane..]),
                            residual_scale: None,
                            after: first.after,
                            max_min: false,
                        },
                    }
                });
                kernel.run_maps(form, &args[..count], out, scratch);
            });
        }
    }
}
