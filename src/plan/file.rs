//! The compiled model, `.sinew`: a plan and its packed weights, which a run uses where they lie in the file.
//!
//! ```text
//! 0      header, 128 bytes: magic, version, sizes, checksums; little-endian
//! 128    the plan: ports, steps, buffers (postcard), then zeros up to a multiple of 64
//! ...    the weights: blocks of 16 f32, as kernels read them; or stretches of f32 and of halves (`f16.rs`)
//! ```
//! Header and plan are checked at load, the weights on request only: any bits are numbers. A file that was not written
//! here must give an error, never a panic, so the plan is validated as well (`validate.rs`).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use memmap2::Mmap;
use sinew_kernels::Block;
use xxhash_rust::xxh64::xxh64;

use super::Plan;
use super::f16::{self, Stretch};
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::run::arena::ALIGN;

#[cfg(target_endian = "big")]
compile_error!("compiled models hold little-endian numbers that are used where they lie");

/// The first bytes of every file: a name, and line ends that a text transfer would change.
pub const MAGIC: [u8; 8] = *b"SINEW\r\n\x1a";

/// Readers know this version only: a plan is written for the steps that this version has, and weights are packed as these read them.
const VERSION: u32 = 7;

/// Bytes before the plan: two cache lines.
const HEADER: usize = 128;

/// What a reader accepts, checked before anything of that size is allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Whether the weights' checksum is checked, which reads all of them.
    pub check_weights: bool,
    /// Bytes of the plan.
    pub plan_bytes: usize,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

impl Default for LoadOptions {
    /// Far above any network that a CPU would run: arenas of 4 GiB, or of 1 GiB where addresses have 32 bits.
    fn default() -> Self {
        Self {
            check_weights: false,
            plan_bytes: 64 << 20,
            arena_bytes: 1 << (usize::BITS - 2).min(32),
            macs: 100_000_000_000_000,
        }
    }
}

/// Where a compiled model is.
pub(crate) enum Source<'a> {
    /// Bytes that do not stay: the weights are copied.
    Copied(&'a [u8]),
    /// Bytes that stay, aligned to [`ALIGN`]: the weights are used there.
    InPlace(&'static [u8]),
    /// A file: the weights are used there.
    Mapped(Mmap),
}

impl Source<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Source::Copied(bytes) => bytes,
            Source::InPlace(bytes) => bytes,
            Source::Mapped(map) => map,
        }
    }
}

/// What a compiled model holds.
pub(crate) struct Compiled {
    pub(crate) name: String,
    pub(crate) threads: usize,
    pub(crate) plan: Plan,
}

/// Whether bytes begin as a compiled model does.
pub fn is_compiled(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Maps a file.
///
/// # Errors
/// Where it cannot be read.
#[allow(unsafe_code, reason = "one memory-map call: weights are used where they lie in the file")]
pub(crate) fn map(path: &Path) -> Result<Mmap> {
    let at = |source: io::Error| Error::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(at)?;
    // SAFETY: as everywhere with mapped files, nobody may shorten or change the file while it is in use; this is
    // written at `Model::open`. All bytes that decide on memory are copied out and checked.
    unsafe { Mmap::map(&file) }.map_err(at)
}

/// Sizes and checksums, as they stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    plan_bytes: u64,
    weights_start: u64,
    weights_bytes: u64,
    plan_sum: u64,
    weights_sum: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let fields =
            [self.plan_bytes, self.weights_start, self.weights_bytes, self.plan_sum, self.weights_sum];
        for (to, field) in bytes[16..].chunks_exact_mut(8).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
        let sum = xxh64(&bytes[..HEADER - 8], 0);
        bytes[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn of(bytes: &[u8]) -> Result<Self> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Err(malformed(format!("{} bytes are less than a header", bytes.len())));
        };
        if !is_compiled(header) {
            return Err(malformed("it does not begin as a compiled model".into()));
        }
        let version = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if version != VERSION {
            return Err(malformed(format!("version {version}, this library reads version {VERSION}")));
        }
        let mut fields = [0; 5];
        for (field, from) in fields.iter_mut().zip(header[16..].as_chunks::<8>().0) {
            *field = u64::from_le_bytes(*from);
        }
        let [plan_bytes, weights_start, weights_bytes, plan_sum, weights_sum] = fields;
        let read = Header { plan_bytes, weights_start, weights_bytes, plan_sum, weights_sum };
        // Compares the checksum and all bytes that must be zero.
        if read.to_bytes() != *header {
            return Err(malformed("the header's checksum is wrong".into()));
        }
        Ok(read)
    }
}

/// Writes a compiled model.
///
/// # Errors
/// Where writing fails.
pub(crate) fn write(name: &str, threads: usize, plan: &Plan, to: &mut dyn Write) -> Result<()> {
    let (stretches, weights) = f16::encode(&plan.weights, &plan.halves);
    let body =
        postcard::to_allocvec(&(name, threads, plan, stretches)).map_err(|e| malformed(e.to_string()))?;
    let start = (HEADER + body.len()).next_multiple_of(ALIGN);
    let header = Header {
        plan_bytes: body.len() as u64,
        weights_start: start as u64,
        weights_bytes: weights.len() as u64,
        plan_sum: xxh64(&body, 0),
        weights_sum: xxh64(&weights, 0),
    };
    let zeros = vec![0; start - HEADER - body.len()];
    for part in [&header.to_bytes()[..], &body, &zeros, &weights] {
        to.write_all(part).map_err(|error| malformed(error.to_string()))?;
    }
    to.flush().map_err(|error| malformed(error.to_string()))
}

/// Reads a compiled model.
///
/// # Errors
/// Where a checksum is wrong, the plan contradicts itself, or a limit is exceeded.
pub(crate) fn read(source: Source<'_>, options: &LoadOptions) -> Result<Compiled> {
    let bytes = source.bytes();
    let header = Header::of(bytes)?;
    limit("the plan in bytes", header.plan_bytes, options.plan_bytes as u64)?;
    let cut = || malformed(format!("{} bytes are less than its header says", bytes.len()));
    let body = part(bytes, HEADER as u64, header.plan_bytes).ok_or_else(cut)?;
    let weights = part(bytes, header.weights_start, header.weights_bytes).ok_or_else(cut)?;
    if xxh64(body, 0) != header.plan_sum {
        return Err(malformed("the plan's checksum is wrong".into()));
    }
    if options.check_weights && xxh64(weights, 0) != header.weights_sum {
        return Err(malformed("the weights' checksum is wrong".into()));
    }
    let (name, threads, mut plan, stretches): (String, usize, Plan, Vec<Stretch>) =
        postcard::from_bytes(body).map_err(|error| malformed(format!("the plan: {error}")))?;
    let (start, len) = (header.weights_start as usize, weights.len());
    plan.weights = if stretches.is_empty() {
        in_blocks(source, start, len)?
    } else {
        let fit = f16::decode(&stretches, weights);
        fit.ok_or_else(|| malformed("its weights are not those of its plan".into()))?
    };
    limit("the arena in blocks of 64 bytes", plan.arena_blocks as u64, (options.arena_bytes / ALIGN) as u64)?;
    super::validate::validate(&plan, threads, options.macs)?;
    Ok(Compiled { name, threads, plan })
}

/// Weights that are blocks already, used where they stay.
fn in_blocks(source: Source<'_>, start: usize, bytes: usize) -> Result<Weights> {
    if !start.is_multiple_of(ALIGN) || !bytes.is_multiple_of(size_of::<Block>()) {
        return Err(malformed("its weights are no aligned blocks".into()));
    }
    Ok(match source {
        Source::Copied(all) => Weights::made(bytes / size_of::<Block>(), |blocks| {
            bytemuck::cast_slice_mut(blocks).copy_from_slice(&all[start..start + bytes]);
        }),
        Source::InPlace(all) => match bytemuck::try_cast_slice(&all[start..start + bytes]) {
            Ok(blocks) if all.as_ptr().addr().is_multiple_of(ALIGN) => Weights::in_place(blocks),
            _ => return Err(malformed(format!("its address is no multiple of {ALIGN}"))),
        },
        Source::Mapped(map) => Weights::mapped(map, start, bytes)
            .ok_or_else(|| malformed("the mapped weights are not aligned".into()))?,
    })
}

fn part(bytes: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
    bytes.get(start..start.checked_add(len)?)
}

fn limit(what: &str, found: u64, limit: u64) -> Result<()> {
    if found > limit {
        return Err(Error::TooLarge { what: what.into(), found, limit });
    }
    Ok(())
}

pub(super) fn malformed(reason: String) -> Error {
    Error::Malformed { what: "compiled model".into(), reason }
}

#[cfg(test)]
mod tests {
    use sinew_kernels::LANES;
    use sinew_kernels::conv::strassen;
    use sinew_kernels::isa::{self, Isa};

    use super::*;

    /// Kernels of another build read the stored weights, in the order of their own transforms. Where this hash changes the version must, or
    /// older files would give wrong outputs.
    #[test]
    fn weights_are_packed_as_the_version_says() {
        let plain = |kernel: usize| -> Vec<Block> {
            let value = |i: usize| (i * 37 % 101) as f32 - 50.0;
            (0..4 * 2 * LANES * kernel * kernel)
                .map(|k| std::array::from_fn(|lane| value(k * LANES + lane)))
                .collect()
        };
        let mut all: Vec<Block> = Vec::new();
        for winograd in isa::table(Isa::Scalar).expect("the scalar table is always there").winograd {
            let plain = plain(winograd.tile.kernel);
            let mut packed = vec![[0.0; LANES]; 4 * 2 * LANES * winograd.tile.weights()];
            winograd.pack(&[LANES as u8; 2], &plain, &mut packed);
            all.extend(packed);
        }
        let plain = plain(1);
        let mut packed = vec![[0.0; LANES]; 4 * strassen::weights_per_block(2)];
        strassen::pack(2, &plain, &mut packed);
        all.extend(packed);
        let hash = xxh64(bytemuck::cast_slice(&all), 0);
        assert_eq!((VERSION, format!("{hash:016x}").as_str()), (7, "110ba296ec7253a0"));
    }
}
