//! ONNX files: bytes to a [`Graph`](crate::graph::Graph) and back, and a builder that writes any file.
//!
//! Every operator means what its operator set says; what is not implemented is refused, all of it at once.

pub mod build;
pub mod export;
pub mod import;
mod proto;
pub mod recover;

pub use build::{Attribute, Builder, Extent};
pub use export::export;
pub use import::{ImportOptions, Imported, Limits, import, read_tensor};
pub use recover::{Missed, Recovered, Recovery};
