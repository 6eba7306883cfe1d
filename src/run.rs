//! Runs a plan: loops over its steps and decides nothing.
//!
//! A [`Session`] is a model and an arena, used by one thread at a time. On one thread `run` makes no allocation, takes
//! no lock, makes no system call and does not spin, from the first run on.

mod across;
pub mod arena;
mod borrow;
mod conv;
mod elementwise;
mod excite;
mod fragments;
mod layout;
mod maps;
pub(crate) mod parallel;
mod plain;
pub(crate) mod pool;
mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use sinew_kernels::isa::{self, Isa, Kernels, fp_state::FpState};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::plan::Port;
use crate::tensor::{DType, Data, Tensor};
use arena::Arena;
use parallel::ParallelFor;

/// What a run takes for one graph input: row-major elements.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// 32-bit floating point.
    F32(&'a [f32]),
    /// 8-bit unsigned integers.
    U8(&'a [u8]),
    /// 64-bit signed integers.
    I64(&'a [i64]),
}

/// Where a run writes one graph output: row-major elements.
#[derive(Debug)]
pub enum Output<'a> {
    /// 32-bit floating point.
    F32(&'a mut [f32]),
    /// 64-bit signed integers.
    I64(&'a mut [i64]),
}

impl Input<'_> {
    fn dtype_and_len(&self) -> (DType, usize) {
        match self {
            Input::F32(data) => (DType::F32, data.len()),
            Input::U8(data) => (DType::U8, data.len()),
            Input::I64(data) => (DType::I64, data.len()),
        }
    }
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        match tensor.data() {
            Data::F32(data) => Input::F32(data),
            Data::U8(data) => Input::U8(data),
            Data::I64(data) => Input::I64(data),
        }
    }
}

impl Output<'_> {
    fn dtype_and_len(&self) -> (DType, usize) {
        match self {
            Output::F32(data) => (DType::F32, data.len()),
            Output::I64(data) => (DType::I64, data.len()),
        }
    }
}

/// How a session runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// The instruction set; `None` takes `SINEW_ISA` where it is set, and the best that the CPU has elsewhere.
    pub isa: Option<Isa>,
    /// Threads to run on; `None` and more than the plan is cut for are the plan's number. No result depends on it.
    pub threads: Option<usize>,
}

/// The table for an exact choice, for `SINEW_ISA`, or the best there is.
///
/// # Errors
/// Where the CPU lacks what was asked for, or `SINEW_ISA` names no instruction set.
pub fn kernels_for(wanted: Option<Isa>) -> Result<&'static Kernels> {
    let wanted = match (wanted, std::env::var("SINEW_ISA")) {
        (Some(isa), _) => Some(isa),
        (None, Ok(name)) => Some(name.parse::<Isa>().map_err(|error| Error::Option {
            option: "SINEW_ISA".into(),
            reason: format!("\"{name}\": {error}"),
        })?),
        (None, Err(_)) => None,
    };
    let Some(isa) = wanted else { return Ok(&isa::supported()[0]) };
    isa::table(isa).ok_or(Error::IsaUnavailable { isa: isa.name(), missing: isa.required_features() })
}

/// What is told of every step: its index and nanoseconds.
type OnStep = Box<dyn FnMut(usize, u64) + Send>;

/// A model with an arena of its own: what runs.
pub struct Session<'a> {
    model: Arc<Model>,
    kernels: &'static Kernels,
    arena: Arena<'a>,
    #[cfg(feature = "parallel")]
    pool: Option<rayon::ThreadPool>,
    /// The caller's threads instead of a pool.
    parallel_for: Option<ParallelFor>,
    step_ns: Vec<u64>,
    on_step: Option<OnStep>,
    cancel: Option<Arc<AtomicBool>>,
    profiling: bool,
    poison: bool,
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("model", &self.model.name())
            .field("isa", &self.isa())
            .finish_non_exhaustive()
    }
}

impl Session<'static> {
    /// A session that makes its own arena.
    ///
    /// # Errors
    /// Where the instruction set is not available or threads cannot be started.
    pub fn new(model: Arc<Model>, options: SessionOptions) -> Result<Self> {
        let arena = Arena::own(model.plan().arena_blocks);
        Session::with(model, options, arena, None)
    }
}

impl<'a> Session<'a> {
    /// A session in the caller's memory: [`crate::plan::Plan::arena_bytes`] bytes aligned to [`arena::ALIGN`].
    ///
    /// # Errors
    /// As [`Session::new`], and where the memory is too small or not aligned.
    pub fn with_arena(model: Arc<Model>, options: SessionOptions, arena: &'a mut [u8]) -> Result<Self> {
        let arena = Arena::lent(arena, model.plan().arena_blocks)?;
        Session::with(model, options, arena, None)
    }

    pub(crate) fn with(
        model: Arc<Model>,
        options: SessionOptions,
        arena: Arena<'a>,
        parallel_for: Option<ParallelFor>,
    ) -> Result<Self> {
        let kernels = kernels_for(options.isa)?;
        let threads = options.threads.map_or(model.threads(), |threads| threads.min(model.threads()));
        let own_threads = if parallel_for.is_some() { 1 } else { threads };
        #[cfg(feature = "parallel")]
        let pool =
            match own_threads {
                0 | 1 => None,
                threads => {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    Some(pool.map_err(|error| Error::Option {
                        option: "threads".into(),
                        reason: error.to_string(),
                    })?)
                }
            };
        #[cfg(not(feature = "parallel"))]
        if own_threads > 1 {
            let reason = format!(
                "{own_threads} asked for, but this library was built without the `parallel` feature; \
                 1 runs the same plan"
            );
            return Err(Error::Option { option: "threads".into(), reason });
        }
        let step_ns = vec![0; model.plan().steps.len()];
        Ok(Self {
            model,
            kernels,
            arena,
            #[cfg(feature = "parallel")]
            pool,
            parallel_for,
            step_ns,
            on_step: None,
            cancel: None,
            profiling: false,
            poison: false,
        })
    }

    /// The model that this session runs.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa
    }

    /// Whether each run takes the time of each step.
    pub fn set_profiling(&mut self, on: bool) {
        self.profiling = on;
    }

    /// Nanoseconds of each step in the last run with profiling on, in the plan's order.
    pub fn step_times(&self) -> &[u64] {
        &self.step_ns
    }

    /// Calls `see` after every step of a run with the step's index and nanoseconds, on the thread that runs.
    pub fn set_on_step(&mut self, see: Option<impl FnMut(usize, u64) + Send + 'static>) {
        self.on_step = see.map(|see| Box::new(see) as OnStep);
    }

    /// Lets a run look at a flag between steps and end with [`Error::Cancelled`] where it is set.
    pub fn set_cancel(&mut self, flag: Option<Arc<AtomicBool>>) {
        self.cancel = flag;
    }

    /// Fills the dead lanes of every step's result with NaN: for tests, which must see no difference.
    #[doc(hidden)]
    pub fn set_poison(&mut self, on: bool) {
        self.poison = on;
    }

    /// Computes the outputs.
    ///
    /// With [`crate::plan::Io::Blocked`] the inputs and outputs that change layout at the edges are read by
    /// [`Session::load_inputs`] and written by [`Session::store_outputs`] instead.
    ///
    /// # Errors
    /// Where the number, type or size of an input or output is not the model's, or the run was cancelled. Nothing else can
    /// fail.
    pub fn run(&mut self, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        self.check(inputs, outputs)?;
        self.on_threads(|session| session.execute(Stage::Run, inputs, outputs))
    }

    /// As [`Session::run`], and hands every step's result to `see`: the step's index and the result, row-major.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_and_see(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        mut see: impl FnMut(usize, Tensor),
    ) -> Result<()> {
        self.check(inputs, outputs)?;
        let _state = FpState::set_default();
        let model = Arc::clone(&self.model);
        for (index, step) in model.plan().steps.iter().enumerate() {
            let mut run = step::Run {
                plan: model.plan(),
                kernels: self.kernels,
                arena: self.arena.blocks(),
                inputs,
                outputs,
            };
            run.step(step);
            if let Some(tensor) = run.result(step) {
                see(index, tensor);
            }
        }
        Ok(())
    }

    /// Brings the inputs into blocks: with [`crate::plan::Io::Blocked`], before runs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn load_inputs(&mut self, inputs: &[Input<'_>]) -> Result<()> {
        self.check_inputs(inputs)?;
        self.execute(Stage::EdgeIn, inputs, &mut [])
    }

    /// Brings the outputs out of blocks: with [`crate::plan::Io::Blocked`], after runs.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn store_outputs(&mut self, outputs: &mut [Output<'_>]) -> Result<()> {
        self.check_outputs(outputs)?;
        self.execute(Stage::EdgeOut, &[], outputs)
    }

    /// Computes the outputs of tensors: allocates the results.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn run_tensors(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let inputs: Vec<Input<'_>> = inputs.iter().map(Input::from).collect();
        let mut results = self.new_outputs()?;
        let mut outputs = outputs_of(&mut results);
        self.run(&inputs, &mut outputs)?;
        Ok(results)
    }

    /// Zeroed tensors of the outputs' shapes.
    ///
    /// # Errors
    /// Never for a planned model.
    pub fn new_outputs(&self) -> Result<Vec<Tensor>> {
        let zeros = |port: &Port| match port.dtype {
            DType::I64 => Data::I64(vec![0; port.len()]),
            _ => Data::F32(vec![0.0; port.len()]),
        };
        self.model.outputs().iter().map(|port| Tensor::new(port.shape.clone(), zeros(port))).collect()
    }

    fn on_threads(&mut self, run: impl FnOnce(&mut Self) -> Result<()> + Send) -> Result<()> {
        #[cfg(feature = "parallel")]
        if let Some(pool) = self.pool.take() {
            let result = pool.install(|| run(self));
            self.pool = Some(pool);
            return result;
        }
        match self.parallel_for {
            Some(parallel_for) => parallel_for.install(|| run(self)),
            None => run(self),
        }
    }

    fn execute(&mut self, stage: Stage, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<()> {
        let _state = FpState::set_default();
        let plan = self.model.plan();
        let steps = match stage {
            Stage::Run => &plan.steps,
            Stage::EdgeIn => &plan.edge_in,
            Stage::EdgeOut => &plan.edge_out,
        };
        let mut run = step::Run { plan, kernels: self.kernels, arena: self.arena.blocks(), inputs, outputs };
        let profiling = (self.profiling || self.on_step.is_some()) && matches!(stage, Stage::Run);
        let mut before = profiling.then(Instant::now);
        for (index, step) in steps.iter().enumerate() {
            if self.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Cancelled);
            }
            run.step(step);
            if self.poison {
                run.poison(step);
            }
            if let Some(start) = before {
                let now = Instant::now();
                self.step_ns[index] = u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX);
                before = Some(now);
                if let Some(see) = &mut self.on_step {
                    see(index, self.step_ns[index]);
                    before = Some(Instant::now());
                }
            }
        }
        Ok(())
    }

    fn check(&self, inputs: &[Input<'_>], outputs: &[Output<'_>]) -> Result<()> {
        self.check_inputs(inputs)?;
        self.check_outputs(outputs)
    }

    fn check_inputs(&self, inputs: &[Input<'_>]) -> Result<()> {
        check_ports("inputs", self.model.inputs(), inputs.iter().map(Input::dtype_and_len))
    }

    fn check_outputs(&self, outputs: &[Output<'_>]) -> Result<()> {
        check_ports("outputs", self.model.outputs(), outputs.iter().map(Output::dtype_and_len))
    }
}

/// Which list of steps runs.
#[derive(Clone, Copy)]
enum Stage {
    Run,
    EdgeIn,
    EdgeOut,
}

/// Tensors as places to write to.
pub fn outputs_of(tensors: &mut [Tensor]) -> Vec<Output<'_>> {
    tensors
        .iter_mut()
        .map(|tensor| match tensor.data_mut() {
            Data::F32(data) => Output::F32(data),
            Data::I64(data) => Output::I64(data),
            Data::U8(_) => unreachable!("no model has 8-bit outputs"),
        })
        .collect()
}

fn check_ports(
    what: &str,
    ports: &[Port],
    found: impl ExactSizeIterator<Item = (DType, usize)>,
) -> Result<()> {
    if found.len() != ports.len() {
        let reason = format!("the model has {}, {} given", ports.len(), found.len());
        return Err(Error::Tensor { tensor: what.into(), reason });
    }
    for (port, (dtype, len)) in ports.iter().zip(found) {
        if (dtype, len) != (port.dtype, port.len()) {
            let reason = format!(
                "expected {} elements of {} for shape {:?}, got {len} of {}",
                port.len(),
                port.dtype.name(),
                port.shape,
                dtype.name()
            );
            return Err(Error::Tensor { tensor: port.name.clone(), reason });
        }
    }
    Ok(())
}
