//! Layouts and places: where values lie, and in which form they are there.

use sinew_kernels::{Block, LANES};

use super::{Buffer, Builder, fragments, image_strides, merge_full, row_major, strided};
use crate::error::Result;
use crate::graph::{Excite, Op, ValueId};
use crate::plan::WeightType;
use crate::plan::f16::{Halves, Transform};
use crate::plan::layout::Blocked;
use crate::plan::step::{Place, Plain, PlainPlace, View, Work};

impl<'g> Builder<'g> {
    /// Decides the parts of every value that can lie in blocks, and gives the inputs of each channel concatenation
    /// their place in its result.
    pub(super) fn lay_out(&mut self) {
        let graph = self.graph;
        for (value, parts) in graph.values.iter().zip(&mut self.parts) {
            *parts = Blocked::of_shape(&value.shape).map(|layout| layout.parts).unwrap_or_default();
        }
        for node in &graph.nodes {
            if Blocked::of_shape(graph.shape(node.output)).is_none() {
                continue;
            }
            let of = |id: ValueId| self.parts[id.0].clone();
            self.parts[node.output.0] = match &node.op {
                Op::Pool(_) | Op::GlobalPool(_) | Op::BatchNorm { .. } | Op::UpsampleNearest { .. } => {
                    of(node.inputs[0])
                }
                Op::PoolFragment { .. } | Op::Interleave { .. } => of(node.inputs[0]),
                Op::Slice { .. } if fragments::takes_pixels(graph, node) => of(node.inputs[0]),
                Op::Unary(_) | Op::PRelu | Op::Excite(Excite::Scale { .. } | Excite::Concurrent { .. }) => {
                    of(node.inputs[0])
                }
                Op::Conv(_) if self.is_depthwise(node) => of(node.inputs[0]),
                Op::ConvMaxMin { .. } if self.is_depthwise(node) => {
                    [of(node.inputs[0]), of(node.inputs[0])].concat()
                }
                Op::ConvMaxMin { .. } => vec![graph.shape(node.output)[1] / 2; 2],
                Op::Binary(_) => {
                    self.main_operand(node).map_or_else(|| of(node.output), |a| of(node.inputs[a]))
                }
                Op::MaxMin { .. } | Op::MaxMinPool { .. } => {
                    [of(node.inputs[0]), of(node.inputs[0])].concat()
                }
                Op::Concat { axis: 1 } => node.inputs.iter().flat_map(|&input| of(input)).collect(),
                _ => of(node.output),
            };
            merge_full(&mut self.parts[node.output.0]);
            if !matches!(node.op, Op::Concat { axis: 1 }) {
                continue;
            }
            let mut block = 0;
            for &input in &node.inputs {
                // A reshape or a slice may be a view of something that lies elsewhere; an input is packed into its place.
                let is_view = match self.producers.get(&input) {
                    Some(&producer) => {
                        matches!(graph.nodes[producer].op, Op::Reshape { .. } | Op::Slice { .. })
                    }
                    None => !graph.inputs.contains(&input),
                };
                if !is_view {
                    self.homes.entry(input).or_insert((node.output, block));
                }
                block += self.parts[input.0].iter().map(|channels| channels.div_ceil(LANES)).sum::<usize>();
            }
        }
    }

    /// Makes a buffer; it lives once a step uses it.
    pub(super) fn buffer(&mut self, blocks: usize) -> usize {
        self.buffers.push(Buffer { blocks, first: usize::MAX, last: 0 });
        self.buffers.len() - 1
    }

    /// Lets a buffer live through the whole run, and between runs.
    pub(super) fn pin(&mut self, place: Place) {
        if let Place::Arena(buffer) = place {
            self.buffers[buffer].first = 0;
            self.buffers[buffer].last = usize::MAX;
        }
    }

    /// The layout of a value that can lie in blocks.
    pub(super) fn layout(&self, id: ValueId) -> Blocked {
        match Blocked::of_shape(self.graph.shape(id)) {
            Some(layout) => Blocked { parts: self.parts[id.0].clone(), ..layout },
            None => unreachable!("only values of rank 2 to 4 lie in blocks"),
        }
    }

    /// A place for a value's blocks: in its concatenation, or a buffer of its own.
    pub(super) fn make_blocked(&mut self, id: ValueId) -> View {
        if let Some(view) = &self.blocked[id.0] {
            return view.clone();
        }
        let layout = self.layout(id);
        let view = match self.homes.get(&id) {
            Some(&(whole, block)) => {
                let whole = self.make_blocked(whole);
                View { skip: whole.skip + block * layout.pixels(), layout, ..whole }
            }
            None => {
                let stride = layout.image_blocks();
                let place = Place::Arena(self.buffer(layout.batch * stride));
                View { place, skip: 0, batch_stride: stride, layout }
            }
        };
        self.blocked[id.0] = Some(view.clone());
        view
    }

    /// A value's blocks, made by a layout change if they are not there.
    pub(super) fn blocks_of(&mut self, id: ValueId) -> Result<View> {
        if let Some(view) = &self.blocked[id.0] {
            return Ok(view.clone());
        }
        if let Some(values) = self.graph.constant(id) {
            let layout = self.layout(id);
            let view = self.constant_blocks(values, layout);
            self.blocked[id.0] = Some(view.clone());
            return Ok(view);
        }
        let (from, strides) = match self.strided_source(id) {
            Some(source) => source,
            None => (self.plain_of(id)?, row_major(self.graph.shape(id))),
        };
        let strides = image_strides(&strides);
        let to = self.make_blocked(id);
        let name = self.graph.value(id).name.clone();
        let work = Work::pack(from, strides, to.clone());
        self.push(name, work, "to blocks of 16 channels")?;
        Ok(to)
    }

    /// Packs a constant among the weights.
    pub(super) fn constant_blocks(&mut self, values: &[f32], layout: Blocked) -> View {
        let skip = self.weights.len();
        let pixels = layout.pixels();
        let per_image = layout.channels() * pixels;
        for image in values.chunks(per_image.max(1)) {
            let mut first = 0;
            for live in layout.lanes().into_iter().map(usize::from) {
                for pixel in 0..pixels {
                    let at =
                        |lane: usize| if lane < live { image[(first + lane) * pixels + pixel] } else { 0.0 };
                    self.weights.push(std::array::from_fn(at));
                }
                first += live;
            }
        }
        View { place: Place::Weights, skip, batch_stride: layout.image_blocks(), layout }
    }

    /// A value in row-major order, made by a layout change if it is not there.
    pub(super) fn plain_of(&mut self, id: ValueId) -> Result<Plain> {
        if let Some(plain) = self.plain[id.0] {
            return Ok(plain);
        }
        let len = self.graph.shape(id).iter().product();
        if let Some(values) = self.graph.constant(id) {
            let at = self.weights.len();
            self.push_weights_flat(values);
            let plain = Plain { place: PlainPlace::Weights(at), len };
            self.plain[id.0] = Some(plain);
            return Ok(plain);
        }
        if let Some((from, strides)) = self.strided_source(id) {
            let shape = self.graph.shape(id).to_vec();
            let to = self.make_plain(len);
            let copy = strided(&shape, &strides, &row_major(&shape), 0, 0);
            self.push(
                self.graph.value(id).name.clone(),
                Work::CopyPlain { from, to, copy, fill: None },
                "reorders dimensions",
            )?;
            self.plain[id.0] = Some(to);
            return Ok(to);
        }
        let Some(from) = self.blocked[id.0].clone() else {
            unreachable!("a value is computed before it is used")
        };
        let to = self.make_plain(len);
        let strides = image_strides(&row_major(self.graph.shape(id)));
        self.push(self.graph.value(id).name.clone(), Work::unpack(from, to, strides), "to row-major order")?;
        self.plain[id.0] = Some(to);
        Ok(to)
    }

    /// Plain elements in the arena (not the caller's), for steps that read them as flat blocks.
    pub(super) fn arena_plain_of(&mut self, id: ValueId) -> Result<Plain> {
        let from = self.plain_of(id)?;
        if matches!(from.place, PlainPlace::Arena(_) | PlainPlace::Weights(_)) {
            return Ok(from);
        }
        let to = self.make_plain(from.len);
        let copy = strided(&[from.len], &[1], &[1], 0, 0);
        self.push(
            self.graph.value(id).name.clone(),
            Work::CopyPlain { from, to, copy, fill: None },
            "into the arena",
        )?;
        self.plain[id.0] = Some(to);
        Ok(to)
    }

    pub(super) fn make_plain(&mut self, len: usize) -> Plain {
        Plain { place: PlainPlace::Arena(self.buffer(len.div_ceil(LANES))), len }
    }

    pub(super) fn push_weights_flat(&mut self, values: &[f32]) {
        for chunk in values.chunks(LANES) {
            let mut block = [0.0; LANES];
            block[..chunk.len()].copy_from_slice(chunk);
            self.weights.push(block);
        }
    }

    pub(super) fn push_weights(&mut self, blocks: &[Block]) -> std::ops::Range<usize> {
        let start = self.weights.len();
        self.weights.extend_from_slice(blocks);
        start..self.weights.len()
    }

    /// The range of a layer's weights, all that were added from `start` on; `plain` are those before a transform.
    pub(super) fn layer_weights(
        &mut self,
        start: usize,
        plain: Option<(Transform, &[Block])>,
    ) -> std::ops::Range<usize> {
        let range = start..self.weights.len();
        if self.options.weights == WeightType::F16 {
            let (transform, plain) = match plain {
                Some((transform, plain)) => (Some(transform), plain),
                None => (None, &self.weights[start..]),
            };
            self.halves.extend(Halves::of(range.clone(), transform, plain));
        }
        range
    }

    /// A value that is plain already but for the order of its dimensions: its elements and a stride per dimension.
    pub(super) fn strided_source(&self, id: ValueId) -> Option<(Plain, Vec<usize>)> {
        if let Some(plain) = self.plain[id.0] {
            return Some((plain, row_major(self.graph.shape(id))));
        }
        let node = &self.graph.nodes[*self.producers.get(&id)?];
        let Op::Transpose { permutation } = &node.op else { return None };
        let (plain, strides) = self.strided_source(node.inputs[0])?;
        Some((plain, permutation.iter().map(|&dimension| strides[dimension]).collect()))
    }
}
