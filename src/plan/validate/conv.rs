//! Convolutions: what each algorithm requires of geometry, weights, scratch and cut.

use std::ops::Range;

use sinew_kernels::conv::winograd::{Groups, POOL, Pooled};
use sinew_kernels::conv::{ConvGeometry, direct, few_outputs, grouped, im2col, plain_image, strassen};
use sinew_kernels::{LANES, isa};

use super::place::{Checked, Extent, product};
use super::{Check, MAX_EXTENT, Validator, ensure, last_index};
use crate::plan::choose::Algorithm;
use crate::plan::step::{ConvWork, PlainConvWork, PoolBehind, View};
use crate::run::parallel::Along;

/// Sizes of a convolution that are known to make sense.
pub(super) struct Sizes {
    in_pixels: usize,
    out_pixels: usize,
    pub(super) taps: usize,
}

pub(super) fn sizes(g: &ConvGeometry) -> Check<Sizes> {
    let small = [g.stride, g.dilation].concat().into_iter().all(|size| (1..=MAX_EXTENT).contains(&size))
        && g.pad_top <= MAX_EXTENT
        && g.pad_left <= MAX_EXTENT;
    let windows = [g.kernel[0].checked_mul(g.dilation[0]), g.kernel[1].checked_mul(g.dilation[1])];
    let small = small && windows.into_iter().all(|window| window.is_some_and(|window| window <= MAX_EXTENT));
    let pixels =
        (product(&[g.in_height, g.in_width]), product(&[g.out_height, g.out_width]), product(&g.kernel));
    match pixels {
        (Some(in_pixels), Some(out_pixels), Some(taps)) if small => Ok(Sizes { in_pixels, out_pixels, taps }),
        _ => Err("a geometry that makes no sense"),
    }
}

impl Validator<'_> {
    /// The scratch of one part, and where all of it lies.
    pub(super) fn scratch(&self) -> Check<(usize, Option<Extent>)> {
        let extent = match self.step.scratch {
            Some(buffer) => Some(self.buffer(buffer, self.step.scratch_blocks)?),
            None => None,
        };
        Ok((self.step.scratch_blocks / self.step.cut.parts, extent))
    }

    /// A residual of the output's size.
    pub(super) fn residual(
        &self,
        residual: Option<&View>,
        output: &View,
        target: &Extent,
    ) -> Check<Option<Extent>> {
        let Some(view) = residual else { return Ok(None) };
        let extent = self.read(view, output.layout.batch)?;
        ensure(extent.blocks == target.blocks, "a residual of another size")?;
        Ok(Some(extent))
    }

    /// MaxMin's other half.
    fn negative(&self, negative: Option<&View>, output: &View, target: &Extent) -> Check<Option<Extent>> {
        let Some(view) = negative else { return Ok(None) };
        let extent = self.written(view)?;
        ensure(
            extent.blocks == target.blocks && extent.batch() == output.layout.batch,
            "halves of another size",
        )?;
        Ok(Some(extent))
    }

    /// The residual's factors.
    fn residual_scale(&self, scale: Option<&Range<usize>>, output: &View) -> Check {
        let Some(range) = scale else { return Ok(()) };
        ensure(self.weights(range)? >= output.layout.blocks(), "too few factors of a residual")
    }

    pub(super) fn conv(&self, conv: &ConvWork) -> Check<u128> {
        let g = &conv.geometry;
        let Sizes { in_pixels, out_pixels, taps } = sizes(g)?;
        let target = self.written(&conv.output)?;
        let source = self.read(&conv.input, conv.output.layout.batch)?;
        let residual = self.residual(conv.residual.as_ref(), &conv.output, &target)?;
        let (piece, scratch) = self.scratch()?;
        let blocks = conv.output.layout.blocks();
        match conv.pool {
            None => ensure(conv.output.layout.pixels() == out_pixels, "another number of output pixels")?,
            Some(pool) => self.pool_behind(conv, pool)?,
        }
        ensure(conv.groups >= 1, "groups that make no sense")?;
        ensure(self.weights(&conv.bias)? >= blocks, "too few biases")?;
        let weights = self.weights(&conv.weights)?;
        let stored = product(&[blocks, conv.weights_per_block]).ok_or("weights that make no sense")?;
        ensure(stored <= weights, "too few weights")?;
        let channels = match conv.algorithm {
            Algorithm::Grouped => self.grouped(conv, in_pixels, source.blocks, piece)?,
            Algorithm::Depthwise => {
                ensure(source.blocks == blocks * in_pixels, "another number of input pixels or channels")?;
                1
            }
            _ => self.mixed(conv, in_pixels, source.blocks, piece)?,
        };
        let needed = match conv.algorithm {
            Algorithm::Winograd(tile, _) if conv.weights_per_block >= tile.weights() * channels => 0,
            _ => taps.checked_mul(channels).ok_or("weights that make no sense")?,
        };
        ensure(conv.weights_per_block >= needed, "too few weights of a block")?;
        let batch = conv.output.layout.batch;
        self.residual_scale(conv.residual_scale.as_ref(), &conv.output)?;
        let negative = self.negative(conv.negative.as_ref(), &conv.output, &target)?;
        let mut reads: Vec<Extent> = [Some(source), residual].into_iter().flatten().collect();
        if let Some(pair) = &conv.scale {
            let serves = !matches!(conv.algorithm, Algorithm::Depthwise | Algorithm::Winograd(..));
            ensure(serves, "a scale that the algorithm does not take")?;
            for view in pair {
                let extent = self.read(view, batch)?;
                ensure(extent.blocks >= blocks, "a scale that is too small")?;
                reads.push(extent);
            }
        }
        let squeeze = match &conv.squeeze {
            Some(view) => {
                let extent = self.written(view)?;
                let fits = view.layout.batch == batch && extent.blocks == blocks;
                ensure(fits, "means of another number of planes")?;
                Some(extent)
            }
            None => None,
        };
        let writes: Vec<Extent> = [Some(target), negative, squeeze, scratch].into_iter().flatten().collect();
        self.apart(&reads, &writes)?;
        let outputs = product(&[batch, blocks, out_pixels]).ok_or("sizes that make no sense")?;
        Ok(outputs as u128 * LANES as u128 * taps as u128 * channels as u128)
    }

    /// A pool that a convolution does itself.
    fn pool_behind(&self, conv: &ConvWork, pool: PoolBehind) -> Check {
        let layout = &conv.output.layout;
        ensure(matches!(conv.algorithm, Algorithm::Winograd(..)), "a pool that the algorithm does not do")?;
        ensure(
            [layout.height, layout.width] == Pooled::size(&conv.geometry),
            "another size of a pooled map",
        )?;
        ensure(conv.residual.is_none() && conv.residual_scale.is_none(), "a residual before a pool")?;
        ensure(conv.negative.is_some() == (pool == PoolBehind::MaxMin), "halves of another pool")
    }

    /// One layer on several maps.
    pub(super) fn conv_maps(&self, maps: &[ConvWork]) -> Check<u128> {
        let first = maps.first().ok_or("no maps")?;
        ensure(matches!(self.step.cut.along, Along::Blocks { .. }), "maps that are cut by pixels")?;
        let (mut operations, mut reads, mut writes) = (0u128, Vec::new(), Vec::new());
        for conv in maps {
            let one = ConvWork {
                geometry: conv.geometry,
                input: conv.input.clone(),
                output: conv.output.clone(),
                residual: conv.residual.clone(),
                ..first.clone()
            };
            ensure(one == *conv, "maps of different layers")?;
            let serves = matches!(conv.algorithm, Algorithm::Winograd(..)) && conv.groups == 1;
            ensure(serves, "a layer that takes one map")?;
            ensure(conv.negative.is_none() && conv.squeeze.is_none(), "a second output of maps")?;
            ensure(conv.pool.is_none(), "a pool of maps")?;
            ensure(conv.residual_scale.is_none(), "a residual of maps with factors")?;
            operations += self.conv(conv)?;
            // all images of all maps are read and written at once
            let batch = conv.output.layout.batch;
            ensure(batch == first.output.layout.batch, "maps of different batches")?;
            ensure(
                conv.output.layout.blocks() == first.output.layout.blocks(),
                "maps of different channels",
            )?;
            for view in [Some(&conv.input), conv.residual.as_ref()].into_iter().flatten() {
                reads.push(self.read(view, batch)?.whole());
            }
            writes.push(self.written(&conv.output)?.whole());
        }
        writes.extend(self.scratch()?.1);
        self.apart(&reads, &writes)?;
        Ok(operations)
    }

    /// Convolutions of one group, groups of whole blocks, or for Winograd small ones; gives the channels of a group.
    fn mixed(&self, conv: &ConvWork, in_pixels: usize, in_blocks: usize, piece: usize) -> Check<usize> {
        let (g, blocks) = (&conv.geometry, conv.output.layout.blocks());
        let share = matches!(conv.algorithm, Algorithm::Winograd(..)) && conv.groups_share_blocks();
        let groups = if share { blocks } else { conv.groups };
        if share {
            let [channels, _] = conv.group_channels;
            ensure(Groups::supports(conv.group_channels), "groups that share no blocks")?;
            ensure(*conv.lanes == [channels as u8], "lanes of another group")?;
            let all = product(&[conv.groups, channels]).ok_or("groups that make no sense")?;
            ensure(all.div_ceil(LANES) == blocks, "another number of output channels")?;
        }
        ensure(blocks % groups == 0, "groups that are no whole blocks")?;
        ensure(!conv.lanes.is_empty(), "no input channels")?;
        ensure(conv.lanes.iter().all(|lanes| (1..=LANES as u8).contains(lanes)), "lanes that do not exist")?;
        let all = product(&[groups, conv.lanes.len(), in_pixels]);
        ensure(all == Some(in_blocks), "another number of input pixels or channels")?;
        let channels = conv.lanes.iter().copied().map(usize::from).sum();
        match conv.algorithm {
            Algorithm::Winograd(tile, form) => {
                let known = isa::supported()[0].winograd.iter().any(|kernel| kernel.tile == tile);
                ensure(known, "a tile that does not exist")?;
                ensure(g.kernel == [tile.kernel; 2], "another window than the tile's")?;
                let is_fitting = (g.stride, g.dilation) == ([tile.stride; 2], [1; 2]);
                ensure(is_fitting, "another stride than the tile's, or a dilation")?;
                let out_blocks = blocks / groups;
                ensure(
                    tile.scratch_of(form, 1, conv.lanes.len(), out_blocks, conv.pool.is_some()) <= piece,
                    "too little scratch",
                )?;
                let per_channel = match form {
                    sinew_kernels::conv::winograd::WeightForm::Stored => tile.weights(),
                    sinew_kernels::conv::winograd::WeightForm::Plain => tile.kernel * tile.kernel,
                };
                ensure(conv.weights_per_block >= per_channel * channels, "too few weights of a block")?;
                let tile_row = match conv.pool {
                    None => tile.output * g.out_width,
                    Some(_) => tile.output / POOL * conv.output.layout.width,
                };
                self.whole_rows(tile_row)?;
            }
            Algorithm::Im2col => {
                let column = g.taps().checked_mul(channels).ok_or("a window that makes no sense")?;
                ensure(column <= MAX_EXTENT, "a window that is too large")?;
                ensure(piece >= im2col::least_scratch(g, channels), "too little scratch")?;
            }
            Algorithm::Strassen => {
                let in_blocks = conv.lanes.len();
                let serves = conv.groups == 1 && strassen::supports(g, in_blocks, blocks);
                ensure(serves && channels == in_blocks * LANES, "a layer that the algorithm does not take")?;
                ensure(strassen::scratch_blocks(g, in_blocks) <= piece, "too little scratch")?;
                let needed = strassen::weights_per_block(in_blocks);
                ensure(conv.weights_per_block >= needed, "too few weights of a block")?;
                self.whole_rows(strassen::unit(g.out_pixels()))?;
                let whole = match self.step.cut.along {
                    Along::Blocks { unit } => unit % strassen::GROUP == 0,
                    Along::Pixels { .. } => true,
                };
                ensure(self.step.cut.parts == 1 || whole, "cut within a group of blocks")?;
            }
            Algorithm::FewOutputs => {
                let few = (1..=few_outputs::MOST).contains(&conv.output.layout.channels()) && blocks == 1;
                ensure(few && conv.groups == 1 && few_outputs::supports(g), "more than a few outputs")?;
                let combined = conv.residual.is_some() || conv.scale.is_some() || conv.negative.is_some();
                ensure(!combined, "sums that are combined")?;
            }
            _ => ensure(direct::supports(g), "a window that is too large")?,
        }
        Ok(channels)
    }

    /// Groups that are no whole blocks; gives the channels of a group.
    fn grouped(&self, conv: &ConvWork, in_pixels: usize, in_blocks: usize, piece: usize) -> Check<usize> {
        let (g, [channels, outputs]) = (&conv.geometry, conv.group_channels);
        let blocks = conv.output.layout.blocks();
        let all = product(&[conv.groups, channels]).zip(product(&[conv.groups, outputs]));
        let (in_channels, out_channels) = all.ok_or("groups that make no sense")?;
        ensure(out_channels.div_ceil(LANES) == blocks, "another number of output channels")?;
        ensure(
            product(&[in_channels.div_ceil(LANES), in_pixels]) == Some(in_blocks),
            "another number of input pixels or channels",
        )?;
        let width = [g.out_width.checked_mul(g.stride[1]), g.in_width.checked_add(g.pad_left)];
        let row = width.into_iter().try_fold(g.kernel[1] * g.dilation[1], |sum, part| sum.checked_add(part?));
        let rows = (g.kernel[0] - 1) * g.dilation[0] + 1;
        // An upper bound of the scratch, so that the sum below cannot overflow.
        let bound = row.and_then(|row| row.checked_mul(rows)?.checked_mul(channels));
        ensure(bound.is_some(), "a window that makes no sense")?;
        ensure(grouped::scratch_blocks(g, channels) <= piece, "too little scratch")?;
        self.whole_rows(g.out_width)?;
        Ok(channels)
    }

    pub(super) fn plain_conv(&self, conv: &PlainConvWork) -> Check<u128> {
        let g = &conv.geometry;
        let Sizes { out_pixels, taps, .. } = sizes(g)?;
        let target = self.written(&conv.output)?;
        let residual = self.residual(conv.residual.as_ref(), &conv.output, &target)?;
        self.plain_read(&conv.input)?;
        let (piece, scratch) = self.scratch()?;
        let layout = &conv.output.layout;
        ensure(layout.pixels() == out_pixels, "another number of output pixels")?;
        ensure(plain_image::supports(g), "a window that is too large")?;
        ensure((1..=MAX_EXTENT).contains(&conv.channels), "no input channels")?;
        ensure(conv.strides[3] >= 1, "pixels in one place")?;
        let extents = [layout.batch, conv.channels, g.in_height, g.in_width];
        ensure(last_index(&extents, &conv.strides, 0)? < conv.input.len, "elements that are not there")?;
        let needed = plain_image::scratch_len(g, conv.channels);
        ensure(needed.div_ceil(LANES) <= piece, "too little scratch")?;
        ensure(self.weights(&conv.bias)? >= layout.blocks(), "too few biases")?;
        ensure(conv.weights_per_block >= conv.channels * taps, "too few weights of a block")?;
        let weights = self.weights(&conv.weights)?;
        let stored = product(&[layout.blocks(), conv.weights_per_block]);
        ensure(stored.is_some_and(|stored| stored <= weights), "too few weights")?;
        self.residual_scale(conv.residual_scale.as_ref(), &conv.output)?;
        let negative = self.negative(conv.negative.as_ref(), &conv.output, &target)?;
        let reads: Vec<Extent> =
            [Some(self.plain_blocks(&conv.input)?), residual].into_iter().flatten().collect();
        let writes: Vec<Extent> = [Some(target), negative, scratch].into_iter().flatten().collect();
        self.apart(&reads, &writes)?;
        Ok(target.size() as u128 * LANES as u128 * (taps * conv.channels) as u128)
    }
}
