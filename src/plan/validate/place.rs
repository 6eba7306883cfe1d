//! Places: whether operands lie where they may, and reads apart from writes.

use std::ops::Range;

use sinew_kernels::{Block, LANES};

use super::{Check, MAX_EXTENT, ensure};
use crate::plan::Plan;
use crate::plan::step::{Place, Plain, PlainPlace, View};
use crate::tensor::DType;

/// What a step touches, image by image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The first block, counted from the start of the arena; none for what lies elsewhere.
    arena: Option<usize>,
    /// Blocks of one image.
    pub(super) blocks: usize,
    stride: usize,
    batch: usize,
}

impl Extent {
    const ELSEWHERE: Extent = Extent { arena: None, blocks: 0, stride: 0, batch: 1 };

    /// Blocks of all images.
    pub(super) fn size(&self) -> usize {
        self.blocks * self.batch
    }

    /// All images, and what lies between them, as one.
    pub(super) fn whole(self) -> Self {
        Extent { blocks: (self.batch - 1) * self.stride + self.blocks, stride: 0, batch: 1, ..self }
    }

    /// The same blocks for each of so many images.
    pub(super) fn of_all(self, batch: usize) -> Self {
        Extent { stride: 0, batch, ..self }
    }

    /// Images.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// The blocks of one image in the arena.
    fn image(&self, index: usize) -> Range<usize> {
        self.arena
            .map_or(0..0, |start| start + index * self.stride..start + index * self.stride + self.blocks)
    }
}

/// The product of extents of at least one, where it is no more than this machine can address.
pub(super) fn product(extents: &[usize]) -> Option<usize> {
    let product = extents.iter().try_fold(1usize, |n, &extent| {
        (1..=MAX_EXTENT).contains(&extent).then(|| n.checked_mul(extent)).flatten()
    })?;
    (product <= isize::MAX as usize / size_of::<Block>()).then_some(product)
}

/// Rules on places, for what knows a plan.
pub(super) trait Checked {
    fn plan(&self) -> &Plan;

    /// Blocks of a range of the weights.
    fn weights(&self, range: &Range<usize>) -> Check<usize> {
        self.plan().weights.get(range.clone()).map(<[Block]>::len).ok_or("weights that are not there")
    }

    /// `blocks` blocks from the start of a buffer on.
    fn buffer(&self, buffer: usize, blocks: usize) -> Check<Extent> {
        let start = *self.plan().offsets.get(buffer).ok_or("an unknown buffer")?;
        let end = start.checked_add(blocks).ok_or("a buffer beyond the arena")?;
        ensure(end <= self.plan().arena_blocks, "a buffer beyond the arena")?;
        Ok(Extent { arena: Some(start), blocks, stride: 0, batch: 1 })
    }

    /// A view from which `batch` images are read.
    fn read(&self, view: &View, batch: usize) -> Check<Extent> {
        let layout = &view.layout;
        let blocks = layout.parts.iter().try_fold(0usize, |sum, &channels| {
            let own = (1..=MAX_EXTENT).contains(&channels).then(|| channels.div_ceil(LANES))?;
            sum.checked_add(own)
        });
        let blocks = blocks.and_then(|blocks| product(&[blocks, layout.height, layout.width]));
        let blocks = blocks.ok_or("a shape that makes no sense")?;
        ensure((1..=MAX_EXTENT).contains(&layout.batch), "a batch that makes no sense")?;
        let between = batch.checked_sub(1).and_then(|last| last.checked_mul(view.batch_stride));
        let end = between.and_then(|between| view.skip.checked_add(between)?.checked_add(blocks));
        let end = end.ok_or("a value beyond its place")?;
        let arena = match view.place {
            Place::Weights => {
                ensure(end <= self.plan().weights.len(), "constants beyond the weights")?;
                None
            }
            Place::Arena(buffer) => {
                self.buffer(buffer, end)?;
                Some(self.plan().offsets[buffer] + view.skip)
            }
        };
        Ok(Extent { arena, blocks, stride: view.batch_stride, batch })
    }

    /// A view to which all its images are written.
    fn written(&self, view: &View) -> Check<Extent> {
        ensure(matches!(view.place, Place::Arena(_)), "constants are written")?;
        let extent = self.read(view, view.layout.batch)?;
        ensure(extent.batch == 1 || extent.stride >= extent.blocks, "images that overlap")?;
        Ok(extent)
    }

    fn plain_read(&self, plain: &Plain) -> Check {
        match plain.place {
            PlainPlace::Input(index) => {
                let port = self.plan().inputs.get(index).ok_or("an unknown input")?;
                ensure(port.dtype == DType::F32, "an input that is not f32")?;
                ensure(port.len() == plain.len, "another number of elements than the input")
            }
            PlainPlace::Weights(at) => {
                let end = at.checked_add(plain.len.div_ceil(LANES)).ok_or("constants beyond the weights")?;
                ensure(end <= self.plan().weights.len(), "constants beyond the weights")
            }
            PlainPlace::Arena(_) => self.plain_blocks(plain).map(|_| ()),
            PlainPlace::Output(_) => Err("an output is read"),
        }
    }

    /// As `plain_read`, and bytes of the caller's, which packing takes as they are.
    fn packed(&self, plain: &Plain) -> Check {
        let PlainPlace::Input(index) = plain.place else { return self.plain_read(plain) };
        let port = self.plan().inputs.get(index).ok_or("an unknown input")?;
        ensure(matches!(port.dtype, DType::F32 | DType::U8), "an input of indices")?;
        ensure(port.len() == plain.len, "another number of elements than the input")
    }

    fn plain_written(&self, plain: &Plain) -> Check {
        match plain.place {
            PlainPlace::Output(index) => {
                let port = self.plan().outputs.get(index).ok_or("an unknown output")?;
                ensure(port.dtype == DType::F32, "an output that is not f32")?;
                ensure(port.len() == plain.len, "another number of elements than the output")
            }
            PlainPlace::Arena(_) => self.plain_blocks(plain).map(|_| ()),
            PlainPlace::Input(_) | PlainPlace::Weights(_) => Err("an input or constants are written"),
        }
    }

    /// Where a plain value lies in the arena.
    fn plain_blocks(&self, plain: &Plain) -> Check<Extent> {
        match plain.place {
            PlainPlace::Arena(buffer) => self.buffer(buffer, plain.len.div_ceil(LANES)),
            _ => Ok(Extent::ELSEWHERE),
        }
    }

    /// No image that is read or written overlaps one that is written with it.
    fn apart(&self, reads: &[Extent], writes: &[Extent]) -> Check {
        let images = writes.iter().chain(reads).map(|extent| extent.batch).max().unwrap_or(0);
        for index in 0..images {
            for (at, write) in writes.iter().enumerate() {
                let write = write.image(index.min(write.batch - 1));
                for other in writes[at + 1..].iter().chain(reads) {
                    let other = other.image(index.min(other.batch - 1));
                    let apart = other.is_empty() || write.is_empty();
                    let apart = apart || other.end <= write.start || write.end <= other.start;
                    ensure(apart, "a value is read or written where another is written")?;
                }
            }
        }
        Ok(())
    }
}
