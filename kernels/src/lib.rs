//! The kernels of the sinew inference engine: single-threaded, no graph, no files, no allocation.
//!
//! Every activation is `[batch][channel block][height][width][16]`: 16 channels are one [`Block`], on every
//! instruction set. A kernel is reached through a table of function pointers, one table per instruction set:
//! [`isa::supported`] lists those that this CPU can run, best first, scalar last.
//!
//! Two ways in: *how an operation works* is the module of its name, written once over [`simd::Simd`];
//! *what a CPU runs* is `isa/<instruction set>.rs`, with every tile size and its reason.
//!
//! Every table gives the same bits as the scalar one. What that takes is written in `docs/numerics.md`.

#![cfg_attr(not(feature = "std"), no_std)]

pub mod activation;
pub mod channels;
pub mod conv;
pub(crate) mod cover;
pub mod depthwise;
pub mod elementwise;
pub mod epilogue;
pub mod isa;
pub mod layout;
pub(crate) mod math;
pub mod plain;
pub mod pool;
pub mod probe;
pub mod simd;
pub mod strided;

/// Channels in a block.
pub const LANES: usize = 16;

/// 16 channels of one pixel: one cache line.
pub type Block = [f32; LANES];
