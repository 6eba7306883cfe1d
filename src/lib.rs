//! CNN inference for CPUs: hand-tuned f32 kernels for AVX2, AVX-512 and NEON chosen at run time, a tiny graph
//! executor, and a scalar path that every kernel equals bit for bit.

#[cfg(feature = "capi")]
pub mod c_api;
pub mod error;
pub mod graph;
mod half;
mod model;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod optimize;
pub mod plan;
pub mod preprocess;
pub mod run;
pub mod tensor;

pub use error::{Error, Result};
pub use model::{Model, Options};
pub use run::{Input, Output, Session, SessionOptions};
pub use sinew_kernels::isa::Isa;
pub use tensor::{DType, Data, Tensor};
