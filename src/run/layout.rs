//! Changes of layout: plain to blocks and back, copies of boxes.

use std::ops::Range;

use sinew_kernels::{Block, LANES, layout, strided};

use super::Input;
use super::borrow::views;
use super::parallel::{Along, Cut, for_each_part, for_each_run};
use super::step::{Run, canonicalize, f32_input, f32_output, image, open, plain_blocks};
use crate::plan::layout::Blocked;
use crate::plan::step::{Plain, PlainPlace, Step, Strided, View};

impl Run<'_, '_, '_> {
    pub(super) fn convert(&mut self, step: &Step, input: usize, to: Plain) {
        let PlainPlace::Arena(buffer) = to.place else { unreachable!("conversions go to the arena") };
        let range = plain_blocks(self.plan, buffer, to);
        let out = &mut bytemuck::cast_slice_mut::<Block, f32>(&mut self.arena[range])[..to.len];
        let input = &self.inputs[input];
        for_each_run(step.cut, out, to.len, &|at| at, &|at, out| match input {
            Input::F32(data) => out.copy_from_slice(&data[at]),
            Input::U8(data) => out.iter_mut().zip(&data[at]).for_each(|(out, &x)| *out = f32::from(x)),
            Input::I64(data) => out.iter_mut().zip(&data[at]).for_each(|(out, &x)| *out = x as f32),
        });
    }

    pub(super) fn pack(&mut self, step: &Step, from: Plain, strides: [usize; 4], to: &View, lanes: &[u8]) {
        let (plan, kernels) = (self.plan, self.kernels);
        let in_arena = match from.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, from),
            _ => 0..0,
        };
        for index in 0..to.layout.batch {
            let ([source], [out]) = views(self.arena, [in_arena.clone()], [image(plan, to, index)]);
            let skip = index * strides[0];
            let input = match from.place {
                PlainPlace::Arena(_) => layout::PlainInput::F32(&bytemuck::cast_slice(source)[skip..]),
                PlainPlace::Weights(at) => {
                    let constants = &plan.weights[at..at + from.len.div_ceil(LANES)];
                    layout::PlainInput::F32(&bytemuck::cast_slice(constants)[skip..])
                }
                PlainPlace::Input(input) => match &self.inputs[input] {
                    Input::U8(data) => layout::PlainInput::U8(&data[skip..]),
                    input => layout::PlainInput::F32(&f32_input(input)[skip..]),
                },
                PlainPlace::Output(_) => unreachable!("outputs are only written"),
            };
            for_each_part(step.cut, out, to.layout.pixels(), &mut [], &|part, out, _| {
                let lanes = &lanes[part.first_block..];
                let first_channel = lanes_before(&to.layout, part.first_block);
                let strides = [strides[1], strides[2], strides[3]];
                let args = layout::PackArgs { input, strides, width: to.layout.width, first_channel, lanes };
                (kernels.pack.run)(&args, part.pixels, out);
            });
        }
    }

    pub(super) fn unpack(&mut self, step: &Step, from: &View, to: Plain, strides: [usize; 4], lanes: &[u8]) {
        let (plan, kernels) = (self.plan, self.kernels);
        let in_arena = match to.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, to),
            _ => 0..0,
        };
        let (plane, width) = (from.layout.pixels(), from.layout.width);
        for index in 0..from.layout.batch {
            let ([input], [target]) = open(plan, self.arena, index, [Some(from)], [in_arena.clone()]);
            let target: &mut [f32] = match to.place {
                PlainPlace::Arena(_) => bytemuck::cast_slice_mut(target),
                PlainPlace::Output(output) => f32_output(&mut self.outputs[output]),
                _ => unreachable!("unpacking goes to the arena or to an output"),
            };
            let target = &mut target[index * strides[0]..];
            let unpack = |blocks: Range<usize>, pixels: Range<usize>, out: &mut [f32]| {
                let args = layout::UnpackArgs {
                    input: &input[blocks.start * plane..],
                    plane,
                    strides: [strides[1], strides[2], strides[3]],
                    width,
                    lanes: &lanes[blocks],
                };
                (kernels.unpack.run)(&args, pixels, out);
            };
            let runs = Cut { along: Along::Blocks { unit: 1 }, ..step.cut };
            match step.cut.along {
                Along::Blocks { .. } => {
                    let start = |block: usize| lanes_before(&from.layout, block) * strides[1];
                    for_each_run(runs, target, lanes.len(), &start, &|blocks, out| {
                        unpack(blocks, 0..plane, out);
                    });
                }
                Along::Pixels { .. } => {
                    let start = |row: usize| row * strides[2];
                    for_each_run(runs, target, from.layout.height, &start, &|rows, out| {
                        unpack(0..lanes.len(), rows.start * width..rows.end * width, out);
                    });
                }
            }
        }
    }

    pub(super) fn copy_channels(
        &mut self,
        step: &Step,
        from: &View,
        to: &View,
        (first, count): (usize, usize),
        [in_lanes, out_lanes]: &[Vec<u8>; 2],
    ) {
        let plane = to.layout.pixels();
        for index in 0..to.layout.batch {
            let ([input], [out]) =
                open(self.plan, self.arena, index, [Some(from)], [image(self.plan, to, index)]);
            for_each_part(step.cut, out, plane, &mut [], &|part, out, _| {
                let args = layout::CopyChannelsArgs {
                    input,
                    in_lanes,
                    plane,
                    from_channel: first,
                    to_channel: 0,
                    count,
                    first_channel: lanes_before(&to.layout, part.first_block),
                    out_lanes: &out_lanes[part.first_block..],
                };
                layout::copy_channels(&args, part.pixels, out);
            });
        }
    }

    pub(super) fn copy_plain(
        &mut self,
        step: &Step,
        [from, to]: [Plain; 2],
        copy: &Strided,
        fill: Option<f32>,
    ) {
        let plan = self.plan;
        let in_arena = |plain: Plain| match plain.place {
            PlainPlace::Arena(buffer) => plain_blocks(plan, buffer, plain),
            _ => 0..0,
        };
        let ([source], [target]) = views(self.arena, [in_arena(from)], [in_arena(to)]);
        let source: &[f32] = match from.place {
            PlainPlace::Arena(_) => bytemuck::cast_slice(source),
            PlainPlace::Weights(at) => bytemuck::cast_slice(&plan.weights[at..at + from.len.div_ceil(LANES)]),
            PlainPlace::Input(index) => f32_input(&self.inputs[index]),
            PlainPlace::Output(_) => unreachable!("outputs are only written"),
        };
        let target: &mut [f32] = match to.place {
            PlainPlace::Arena(_) => bytemuck::cast_slice_mut(target),
            PlainPlace::Output(index) => f32_output(&mut self.outputs[index]),
            _ => unreachable!("copies go to the arena or to an output"),
        };
        if let Some(value) = fill {
            target.fill(value);
        }
        let is_output = matches!(to.place, PlainPlace::Output(_));
        let outer = copy.outermost().unwrap_or(0);
        let start = |unit: usize| copy.to_start + unit * copy.to_strides[outer];
        for_each_run(step.cut, target, copy.extents[outer], &start, &|units, target| {
            let mut own = *copy;
            own.extents[outer] = units.len();
            own.from_start += units.start * copy.from_strides[outer];
            // A part's elements begin with its first unit, but for the first part's.
            own.to_start = if units.start == 0 { copy.to_start } else { 0 };
            copy_box(source, target, &own);
            if is_output {
                canonicalize(target);
            }
        });
    }

    pub(super) fn copy_pixels(&mut self, step: &Step, from: &View, to: &View, copy: &Strided) {
        let [blocks, rows] = copy.blocks_and_rows();
        let unit = copy.to_strides[rows];
        for index in 0..to.layout.batch {
            let ([source], [target]) =
                open(self.plan, self.arena, index, [Some(from)], [image(self.plan, to, index)]);
            for_each_part(step.cut, target, to.layout.pixels(), &mut [], &|part, planes, _| {
                let first = part.pixels.start / unit;
                let end = part.pixels.end.div_ceil(unit).min(copy.extents[rows]);
                if first >= end {
                    return;
                }
                let mut own = *copy;
                (own.extents[blocks], own.extents[rows]) = (1, end - first);
                own.from_start +=
                    first * copy.from_strides[rows] + part.first_block * copy.from_strides[blocks];
                for plane in planes.iter_mut() {
                    copy_box(source, plane, &own);
                    own.from_start += copy.from_strides[blocks];
                }
            });
        }
    }
}

/// Copies a box of elements or of blocks.
fn copy_box<T: Copy>(from: &[T], to: &mut [T], copy: &Strided) {
    let (from, to) = (&from[copy.from_start..], &mut to[copy.to_start..]);
    strided::copy(from, to, &copy.extents, &copy.from_strides, &copy.to_strides);
}

/// Channels in the blocks before a block.
fn lanes_before(layout: &Blocked, block: usize) -> usize {
    let mut channels = 0;
    let mut blocks = 0;
    for &part in &layout.parts {
        let own = part.div_ceil(LANES);
        if block < blocks + own {
            return channels + (block - blocks) * LANES;
        }
        (channels, blocks) = (channels + part, blocks + own);
    }
    channels
}
