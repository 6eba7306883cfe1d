//! The memory that a run writes: one aligned buffer, its own or the caller's.

use aligned_vec::AVec;
use sinew_kernels::Block;

use crate::error::{Error, Result};

/// Alignment of the arena and of everything in it: one cache line, one block.
pub const ALIGN: usize = 64;

/// The buffer.
#[derive(Debug)]
pub(crate) enum Arena<'a> {
    /// Made by the session.
    Own(AVec<Block>),
    /// Handed over by the caller.
    Lent(&'a mut [Block]),
}

impl<'a> Arena<'a> {
    /// A buffer of zeros.
    pub(crate) fn own(blocks: usize) -> Self {
        Arena::Own(AVec::from_iter(ALIGN, std::iter::repeat_n([0.0; sinew_kernels::LANES], blocks)))
    }

    /// The caller's bytes, set to zero.
    ///
    /// # Errors
    /// Where they are fewer than `blocks` need, or not aligned to a cache line.
    pub(crate) fn lent(bytes: &'a mut [u8], blocks: usize) -> Result<Self> {
        let (needed, found) = (blocks * size_of::<Block>(), bytes.len());
        if found < needed {
            return Err(Error::ArenaTooSmall { found, needed });
        }
        if !bytes.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(Error::Option {
                option: "arena".into(),
                reason: format!("its address must be a multiple of {ALIGN}"),
            });
        }
        bytes[..needed].fill(0);
        match bytemuck::try_cast_slice_mut(&mut bytes[..needed]) {
            Ok(lent) => Ok(Arena::Lent(lent)),
            Err(reason) => Err(Error::Option { option: "arena".into(), reason: reason.to_string() }),
        }
    }

    pub(crate) fn blocks(&mut self) -> &mut [Block] {
        match self {
            Arena::Own(blocks) => blocks,
            Arena::Lent(blocks) => blocks,
        }
    }
}
