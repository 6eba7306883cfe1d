//! ONNX files: bytes to a [`Graph`](crate::graph::Graph), and a builder that writes them.
//!
//! Every operator means what its operator set says; what is not implemented is refused, all of it at once.

pub mod build;
pub mod import;
mod proto;

pub use build::{Attribute, Builder, Extent};
pub use import::{ImportOptions, Imported, Limits, import};
