//! How, where and with what: a graph becomes a flat list of steps whose kernel, packed weights and buffers are
//! resolved. A plan depends on the model and the options only, never on the machine or on a timing.

mod build;
pub mod choose;
mod f16;
pub mod file;
pub mod layout;
mod memory;
mod pack;
pub mod step;
mod validate;
mod weights;

use serde::{Deserialize, Serialize};
use sinew_kernels::Block;

use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::DType;
pub use choose::{Algorithm, Family};
use step::Step;
use weights::Weights;

/// What a plan depends on besides the model.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Parts into which a large step is cut: one per thread.
    pub threads: usize,
    /// The algorithm for every convolution that it serves; others keep their choice.
    pub conv: Option<Family>,
    /// Which Winograd tiles may be chosen.
    pub winograd: Winograd,
    /// Whether Strassen's algorithm may be chosen.
    pub strassen: Strassen,
    /// By how much the error bound of Winograd's or Strassen's algorithm may exceed that of direct convolution; what is
    /// beyond it is not chosen. See
    /// [`WinogradTile::error_factor`](sinew_kernels::conv::winograd::WinogradTile::error_factor) and
    /// [`strassen::ERROR_FACTOR`](sinew_kernels::conv::strassen::ERROR_FACTOR).
    pub error_budget: Option<f64>,
    /// Whether weights are kept as they are in the file and transformed inside a run: slower, without any growth.
    pub compact_weights: bool,
    /// Where the identity shortcut of a layer stacked from streams is added.
    pub shortcut: Shortcut,
    /// How precise the weights of convolutions and dense layers are, and how compiled models store them.
    pub weights: WeightType,
    /// Whether graph inputs and outputs change layout inside a run.
    pub io: Io,
    /// First-level data cache that blocking assumes, in bytes. Never detected.
    pub l1_bytes: usize,
    /// Second-level cache that blocking assumes, in bytes. Never detected.
    pub l2_bytes: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            conv: None,
            winograd: Winograd::Auto,
            strassen: Strassen::Auto,
            error_budget: None,
            compact_weights: false,
            shortcut: Shortcut::Auto,
            weights: WeightType::F32,
            io: Io::Plain,
            l1_bytes: 32 << 10,
            l2_bytes: 1 << 20,
        }
    }
}

/// Which Winograd tiles may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winograd {
    /// Any, by shape.
    Auto,
    /// None.
    Off,
    /// Only this output tile; with stride 2 there is one of 2 only.
    Tile(usize),
}

/// Whether 1x1 layers are computed with Strassen's algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strassen {
    /// By shape.
    Auto,
    /// Never.
    Off,
    /// Wherever it serves.
    On,
}

/// Where a layer's identity shortcut goes, of those that [`crate::optimize::stack_streams`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// Added to the sums under Winograd, whose transforms would round it; otherwise folded.
    Auto,
    /// Into the centre tap: a product among the others.
    Fold,
    /// To the sums, with one rounding.
    Add,
}

/// The type of the weights of convolutions and dense layers. Biases and all other constants are f32, and so is what a
/// run computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// As they are.
    F32,
    /// Rounded to 16 bits, nearest even, and stored so in compiled models. [`Shortcut::Auto`] then adds: in the centre
    /// tap, small weights would lose their digits to a factor near one.
    F16,
}

/// The layout at the graph's edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// The caller's own, row-major: the layout change is part of a run.
    Plain,
    /// Blocks of 16 channels: the layout change happens outside of a run.
    Blocked,
}

/// A graph input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The name in the model.
    pub name: String,
    /// The extent of each dimension.
    pub shape: Vec<usize>,
    /// What the caller hands in or gets.
    pub dtype: DType,
}

impl Port {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Everything that a run needs but the arena and the kernels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// In the order in which they run.
    pub steps: Vec<Step>,
    /// What the caller hands in.
    pub inputs: Vec<Port>,
    /// What the caller gets.
    pub outputs: Vec<Port>,
    /// Changes of layout at the edges that are not part of a run: with [`Io::Blocked`] only.
    pub(crate) edge_in: Vec<Step>,
    pub(crate) edge_out: Vec<Step>,
    /// Packed weights of all steps; in a compiled model they follow the plan.
    #[serde(skip)]
    pub(crate) weights: Weights,
    /// Those that a compiled model stores as halves.
    #[serde(skip)]
    pub(crate) halves: Vec<f16::Halves>,
    /// Offset of each buffer in the arena, in blocks.
    pub(crate) offsets: Vec<usize>,
    /// Blocks of the arena: values and scratch.
    pub(crate) arena_blocks: usize,
    /// Blocks of the largest scratch, which lies in the arena.
    pub(crate) scratch_blocks: usize,
}

impl Plan {
    /// Plans a graph.
    ///
    /// # Errors
    /// Where the graph breaks an invariant or is too large for this machine's address space, or 16 bits cannot hold a
    /// weight that they are to hold.
    pub fn new(graph: &Graph, options: &PlanOptions) -> Result<Self> {
        build::build(graph, options)
    }

    /// Bytes of the packed weights.
    pub fn weights_bytes(&self) -> usize {
        size_of_val(&self.weights[..])
    }

    /// Bytes of the packed weights that lie in memory of their own: none of a compiled model that is used in place.
    pub fn owned_weights_bytes(&self) -> usize {
        self.weights.owned_bytes()
    }

    /// Bytes of the arena: everything that a run writes besides the caller's outputs. Exact.
    pub fn arena_bytes(&self) -> usize {
        self.arena_blocks * size_of::<Block>()
    }

    /// Where in the arena the result of a step begins, in bytes, and the last step that uses it; none where the result
    /// goes to the caller.
    pub fn placement(&self, step: usize) -> Option<(usize, usize)> {
        let (buffer, skip) = self.steps.get(step)?.output_buffer()?;
        let last = self.steps.iter().rposition(|step| step.buffers.contains(&buffer))?;
        Some(((self.offsets[buffer] + skip) * size_of::<Block>(), last))
    }

    /// Bytes of the arena that are scratch of the step that needs most.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_blocks * size_of::<Block>()
    }
}
