//! A model: the optimized graph's plan and packed weights. Immutable, shared by any number of sessions.

use crate::error::Result;
use crate::graph::Graph;
use crate::optimize::{Applied, optimize};
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
        let passes = optimize(&mut graph, &options.disabled_passes)?;
        let plan = Plan::new(&graph, &options.plan)?;
        Ok(Self { name: graph.name, plan, passes, threads: options.plan.threads })
    }

    /// The model's name in its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The steps, their algorithms and reasons, and the exact memory.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The passes that ran, and how often each rewrote something.
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
