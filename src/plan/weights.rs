//! The packed weights of a plan, wherever they lie: computed here, in the caller's memory, or in a mapped file.

use std::ops::Deref;
use std::sync::Arc;

use aligned_vec::AVec;
use memmap2::Mmap;
use sinew_kernels::{Block, LANES};

use crate::run::arena::ALIGN;

/// Blocks that steps read, aligned to a cache line.
#[derive(Clone, Debug)]
pub(crate) struct Weights(Place);

#[derive(Clone, Debug)]
enum Place {
    Owned(AVec<Block>),
    Lent(&'static [Block]),
    Mapped { map: Arc<Mmap>, start: usize, bytes: usize },
}

impl Weights {
    /// Blocks of this process, aligned to [`ALIGN`].
    pub(crate) fn owned(blocks: AVec<Block>) -> Self {
        Self(Place::Owned(blocks))
    }

    /// `count` blocks of this process that `fill` computes, from zeros.
    pub(crate) fn made(count: usize, fill: impl FnOnce(&mut [Block])) -> Self {
        let mut blocks = AVec::from_iter(ALIGN, std::iter::repeat_n([0.0; LANES], count));
        fill(&mut blocks);
        Self(Place::Owned(blocks))
    }

    /// Bytes in memory of their own.
    pub(crate) fn owned_bytes(&self) -> usize {
        match &self.0 {
            Place::Owned(blocks) => size_of_val(&blocks[..]),
            Place::Lent(_) | Place::Mapped { .. } => 0,
        }
    }

    /// Blocks where they lie: in flash, or in an array of the program.
    pub(crate) fn in_place(blocks: &'static [Block]) -> Self {
        Self(Place::Lent(blocks))
    }

    /// `bytes` bytes from `start` on of a mapped file; nothing where they are no aligned blocks inside it.
    pub(crate) fn mapped(map: Mmap, start: usize, bytes: usize) -> Option<Self> {
        let part = map.get(start..start.checked_add(bytes)?)?;
        let aligned = part.as_ptr().addr().is_multiple_of(ALIGN);
        let blocks: Result<&[Block], _> = bytemuck::try_cast_slice(part);
        (aligned && blocks.is_ok()).then(|| Self(Place::Mapped { map: Arc::new(map), start, bytes }))
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self::in_place(&[])
    }
}

impl Deref for Weights {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        match &self.0 {
            Place::Owned(blocks) => blocks,
            Place::Lent(blocks) => blocks,
            Place::Mapped { map, start, bytes } => bytemuck::cast_slice(&map[*start..start + bytes]),
        }
    }
}
