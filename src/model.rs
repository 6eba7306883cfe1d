//! A model: the optimized graph's plan and packed weights. Immutable, shared by any number of sessions.

use std::io::Write;
use std::path::Path;

use sinew_kernels::isa::fp_state::FpState;

use crate::error::Result;
use crate::graph::Graph;
use crate::optimize::{Applied, optimize};
use crate::plan::file::{self, Compiled, LoadOptions, Source};
use crate::plan::{Plan, PlanOptions, Port};

/// How a model is prepared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// What the plan depends on.
    pub plan: PlanOptions,
    /// Names of passes that do not run; see [`crate::optimize::PASSES`].
    pub disabled_passes: Vec<String>,
}

/// A network ready to run.
#[derive(Debug)]
pub struct Model {
    name: String,
    plan: Plan,
    passes: Vec<Applied>,
    threads: usize,
}

impl Model {
    /// Optimizes and plans a graph and packs its weights.
    ///
    /// # Errors
    /// Where the graph breaks an invariant, or an option names what does not exist.
    pub fn new(mut graph: Graph, options: &Options) -> Result<Self> {
        // A host may flush denormals; what is computed here must not depend on it.
        let _state = FpState::set_default();
        let passes = optimize(&mut graph, &options.disabled_passes)?;
        let plan = Plan::new(&graph, &options.plan)?;
        Ok(Self { name: graph.name, plan, passes, threads: options.plan.threads })
    }

    /// Opens a compiled model: the file is mapped and its weights are used there, or widened where they have 16 bits.
    /// Nobody may shorten or change the file while the model lives; replacing it under its name by a new one is safe.
    ///
    /// # Errors
    /// Where the file cannot be read or is no compiled model of this version, or exceeds a limit.
    pub fn open(path: &Path, options: &LoadOptions) -> Result<Self> {
        file::map(path).and_then(|map| Self::compiled(Source::Mapped(map), options))
    }

    /// A compiled model from bytes that need not stay: the weights are copied.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_compiled(bytes: &[u8], options: &LoadOptions) -> Result<Self> {
        Self::compiled(Source::Copied(bytes), options)
    }

    /// A compiled model in flash or in an array of the program, aligned to [`crate::run::arena::ALIGN`]: its weights are
    /// used there.
    ///
    /// # Errors
    /// As [`Model::open`], and where the bytes are not aligned.
    pub fn in_place(bytes: &'static [u8], options: &LoadOptions) -> Result<Self> {
        Self::compiled(Source::InPlace(bytes), options)
    }

    pub(crate) fn compiled(source: Source<'_>, options: &LoadOptions) -> Result<Self> {
        let Compiled { name, threads, plan } = file::read(source, options)?;
        Ok(Self { name, plan, passes: Vec::new(), threads })
    }

    /// Writes the compiled model, `.sinew`: plan and packed weights, the same on every machine. One that was read from
    /// weights of 16 bits is written with weights of 32, which are the same numbers.
    ///
    /// # Errors
    /// Where writing fails.
    pub fn compile(&self, to: &mut dyn Write) -> Result<()> {
        file::write(&self.name, self.threads, &self.plan, to)
    }

    /// The model's name in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The steps, their algorithms and reasons, and the exact memory.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The passes that ran, and how often each rewrote something; none are known of a compiled model.
    pub fn passes(&self) -> &[Applied] {
        &self.passes
    }

    /// What a run takes.
    pub fn inputs(&self) -> &[Port] {
        &self.plan.inputs
    }

    /// What a run gives.
    pub fn outputs(&self) -> &[Port] {
        &self.plan.outputs
    }

    /// The number of threads that the plan is cut for.
    pub fn threads(&self) -> usize {
        self.threads
    }
}
