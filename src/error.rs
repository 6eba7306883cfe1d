//! The one public error type: each variant says where, what, and what was expected.

use std::path::PathBuf;

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or byte string is not what it should be.
    #[error("{what}: {reason}")]
    Malformed {
        /// The file or the part of it.
        what: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// The model uses what this engine does not implement; every such node is listed.
    #[error("{} unsupported node{}: {}", .0.len(), if .0.len() == 1 { "" } else { "s" }, list(.0))]
    Unsupported(Vec<Unsupported>),
    /// A node's operands or attributes contradict each other.
    #[error("{op} \"{node}\": {reason}")]
    Node {
        /// The operator.
        op: String,
        /// The node's name.
        node: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A tensor handed in or asked for does not fit.
    #[error("tensor \"{tensor}\": {reason}")]
    Tensor {
        /// The tensor's name.
        tensor: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// A model is larger than the caps allow.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What was counted.
        what: String,
        /// How much there is.
        found: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// This CPU cannot run the instruction set that was asked for.
    #[error("instruction set {isa} is not available: this CPU lacks {missing}")]
    IsaUnavailable {
        /// The instruction set asked for.
        isa: &'static str,
        /// The missing CPU features.
        missing: &'static str,
    },
    /// The arena handed over is too small.
    #[error("the arena holds {found} bytes, this session needs {needed} (aligned to 64)")]
    ArenaTooSmall {
        /// Bytes handed over.
        found: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// A run was cancelled between two steps: its outputs hold anything.
    #[error("the run was cancelled")]
    Cancelled,
    /// An option has a value that makes no sense.
    #[error("{option}: {reason}")]
    Option {
        /// The option.
        option: String,
        /// What was found and what was expected.
        reason: String,
    },
}

/// A node that this engine does not implement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// The node's name, or its first output's where it has none.
    pub node: String,
    /// The operator, as in the file.
    pub op: String,
    /// What is not implemented.
    pub reason: String,
}

fn list(nodes: &[Unsupported]) -> String {
    let lines: Vec<String> =
        nodes.iter().map(|n| format!("{} \"{}\" ({})", n.op, n.node, n.reason)).collect();
    lines.join("; ")
}
