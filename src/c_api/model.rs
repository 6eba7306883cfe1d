//! Models: loading, and what they say of themselves. A model never changes: any number of threads may use it at once.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;

use super::handle::{Handle, Mark, Outcome, free, give, guard, handle, null, out};
use super::options::{ModelOptions, check_size};
use super::ports::Side;
use super::status::{Failure, Message, Status};
use crate::model::Model;
use crate::plan::Port;
use crate::plan::file::{self, LoadOptions, Source};

/// A network ready to run. Immutable: any number of threads may use it at once, one session each.
pub struct ModelHandle {
    mark: Mark,
    pub(super) model: Arc<Model>,
    name: CString,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    /// Name, operator and algorithm of each step.
    steps: Vec<[CString; 3]>,
}

impl Handle for ModelHandle {
    const MARK: Mark = Mark::MODEL;

    fn mark(&self) -> Mark {
        self.mark
    }

    fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
    }
}

/// A step of a run. What it points at stays until the model is freed.
#[repr(C)]
pub struct StepInfo {
    /// The node it comes from.
    pub name: *const c_char,
    /// What it does.
    pub op: *const c_char,
    /// How.
    pub algorithm: *const c_char,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes that must move at least.
    pub bytes: u64,
}

/// What a model and each of its sessions need, exactly.
#[repr(C)]
pub struct Memory {
    /// Packed weights: shared by all sessions.
    pub weights_bytes: usize,
    /// The arena of a session.
    pub arena_bytes: usize,
    /// The part of the arena that is scratch.
    pub scratch_bytes: usize,
    /// The part of the weights that lies in memory of the library: none of a compiled model that is used in place, all
    /// where its file holds 16-bit weights.
    pub owned_weights_bytes: usize,
}

/// Loads a model from a file: compiled, `.sinew`, or ONNX where the library was built with the feature `onnx`.
///
/// A compiled model is mapped and its weights are used where they lie in the file, which nobody may shorten or change
/// while the model lives; replacing it under its name by a new file is safe. Weights of 16 bits are widened into memory
/// of the library.
///
/// # Safety
/// `path` ends with a zero; `options` (may be null) and `message` (may be null) point at their structures; `model`
/// receives the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_open(
    path: *const c_char,
    options: *const ModelOptions,
    model: *mut *mut ModelHandle,
    message: *mut Message,
) -> Status {
    // SAFETY: the caller's contract, as in every function here.
    guard(unsafe { message.as_mut() }, || unsafe {
        let (options, model) = (options.as_ref(), out(model)?);
        *model = std::ptr::null_mut();
        if path.is_null() {
            return Err(null());
        }
        let path = path_of(CStr::from_ptr(path))?;
        let map = file::map(&path)?;
        let loaded = if file::is_compiled(&map) {
            Model::compiled(Source::Mapped(map), &limits(options)?)?
        } else {
            from_onnx(&map, options)?
        };
        *model = give(ModelHandle::new(loaded));
        Ok(())
    })
}

/// Loads a model from memory that need not stay: all of it is copied.
///
/// # Safety
/// As `sinew_model_open`; `bytes` points at `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_from_memory(
    bytes: *const c_void,
    size: usize,
    options: *const ModelOptions,
    model: *mut *mut ModelHandle,
    message: *mut Message,
) -> Status {
    // SAFETY: the caller's contract.
    guard(unsafe { message.as_mut() }, || unsafe {
        let (options, model) = (options.as_ref(), out(model)?);
        *model = std::ptr::null_mut();
        let bytes = memory(bytes, size)?;
        let loaded = if file::is_compiled(bytes) {
            Model::compiled(Source::Copied(bytes), &limits(options)?)?
        } else {
            from_onnx(bytes, options)?
        };
        *model = give(ModelHandle::new(loaded));
        Ok(())
    })
}

/// Uses a compiled model where it lies: in flash, or in an array that `sinew compile --c-array` wrote. Its weights are
/// not copied, unless they have 16 bits.
///
/// # Safety
/// As `sinew_model_open`; `bytes` points at `size` bytes that stay unchanged until the model and all its sessions are
/// freed. They must be aligned to `SINEW_ALIGNMENT`, else the model is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_in_place(
    bytes: *const c_void,
    size: usize,
    options: *const ModelOptions,
    model: *mut *mut ModelHandle,
    message: *mut Message,
) -> Status {
    // SAFETY: the caller's contract; it promises that the bytes outlive all that uses them.
    guard(unsafe { message.as_mut() }, || unsafe {
        let (options, model) = (options.as_ref(), out(model)?);
        *model = std::ptr::null_mut();
        let bytes: &'static [u8] = memory(bytes, size)?;
        let loaded = Model::compiled(Source::InPlace(bytes), &limits(options)?)?;
        *model = give(ModelHandle::new(loaded));
        Ok(())
    })
}

/// Frees a model. Its sessions go on; memory that they share is freed with the last of them. Null is fine.
///
/// # Safety
/// The model is null, or one that was not freed, and nobody uses it afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_free(model: *mut ModelHandle) -> Status {
    guard(None, || {
        if model.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's contract.
        unsafe {
            handle(model.cast_const())?;
            free(model);
        }
        Ok(())
    })
}

/// The model's name in its file; null for no model.
///
/// # Safety
/// The model is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_name(model: *const ModelHandle) -> *const c_char {
    // SAFETY: the caller's contract.
    unsafe { handle(model) }.map_or(std::ptr::null(), |model| model.name.as_ptr())
}

/// The number of steps of a run; 0 for no model.
///
/// # Safety
/// The model is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_step_count(model: *const ModelHandle) -> usize {
    // SAFETY: the caller's contract.
    unsafe { handle(model) }.map_or(0, |model| model.steps.len())
}

/// The threads that the model's plan is cut for; 0 for no model.
///
/// # Safety
/// The model is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_threads(model: *const ModelHandle) -> usize {
    // SAFETY: the caller's contract.
    unsafe { handle(model) }.map_or(0, |model| model.model.threads())
}

/// What a step is.
///
/// # Safety
/// The model was not freed; `info` points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_step(
    model: *const ModelHandle,
    index: usize,
    info: *mut StepInfo,
) -> Status {
    // SAFETY: the caller's contract.
    guard(None, || unsafe {
        let (model, info) = (handle(model)?, out(info)?);
        let (Some([name, op, algorithm]), Some(step)) =
            (model.steps.get(index), model.model.plan().steps.get(index))
        else {
            return Err(no_index());
        };
        *info = StepInfo {
            name: name.as_ptr(),
            op: op.as_ptr(),
            algorithm: algorithm.as_ptr(),
            macs: step.macs,
            bytes: step.bytes,
        };
        Ok(())
    })
}

/// The memory that the model and each of its sessions need, before a session is made.
///
/// # Safety
/// The model was not freed; `memory` points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_memory(model: *const ModelHandle, memory: *mut Memory) -> Status {
    // SAFETY: the caller's contract.
    guard(None, || unsafe {
        let (model, memory) = (handle(model)?, out(memory)?);
        let plan = model.model.plan();
        *memory = Memory {
            weights_bytes: plan.weights_bytes(),
            arena_bytes: plan.arena_bytes(),
            scratch_bytes: plan.scratch_bytes(),
            owned_weights_bytes: plan.owned_weights_bytes(),
        };
        Ok(())
    })
}

impl ModelHandle {
    /// Inputs or outputs, and their names.
    pub(super) fn ports(&self, side: Side) -> (&[Port], &[CString]) {
        match side {
            Side::Input => (self.model.inputs(), &self.inputs),
            Side::Output => (self.model.outputs(), &self.outputs),
        }
    }

    fn new(model: Model) -> Self {
        let names = |ports: &[Port]| ports.iter().map(|port| c_string(&port.name)).collect();
        let steps = model.plan().steps.iter();
        Self {
            mark: Mark::MODEL,
            name: c_string(model.name()),
            inputs: names(model.inputs()),
            outputs: names(model.outputs()),
            steps: steps
                .map(|step| [c_string(&step.name), c_string(&step.op), c_string(&step.algorithm)])
                .collect(),
            model: Arc::new(model),
        }
    }
}

/// Text for C, up to its first zero.
fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

pub(super) fn no_index() -> Failure {
    Failure::new(Status::BadArgument, "an index that is too large")
}

/// # Safety
/// `bytes` is null or points at `size` bytes that stay for `'m`.
pub(super) unsafe fn memory<'m>(bytes: *const c_void, size: usize) -> Outcome<&'m [u8]> {
    if bytes.is_null() {
        return Err(null());
    }
    if size > isize::MAX as usize {
        return Err(Failure::new(Status::BadArgument, "a size that makes no sense"));
    }
    // SAFETY: the caller's contract.
    Ok(unsafe { std::slice::from_raw_parts(bytes.cast(), size) })
}

#[cfg(unix)]
fn path_of(path: &CStr) -> Outcome<std::path::PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(path.to_bytes()).into())
}

#[cfg(not(unix))]
fn path_of(path: &CStr) -> Outcome<std::path::PathBuf> {
    let path = path.to_str().map_err(|_| Failure::new(Status::BadArgument, "the path is not UTF-8"))?;
    Ok(path.into())
}

fn limits(options: Option<&ModelOptions>) -> Outcome<LoadOptions> {
    let Some(options) = options else { return Ok(LoadOptions::default()) };
    check_size::<ModelOptions>(options.size)?;
    Ok(LoadOptions {
        check_weights: options.check_weights != 0,
        arena_bytes: options.max_arena_bytes,
        macs: options.max_macs,
        ..LoadOptions::default()
    })
}

#[cfg(feature = "onnx")]
fn from_onnx(bytes: &[u8], options: Option<&ModelOptions>) -> Outcome<Model> {
    use crate::error::Error;
    use crate::onnx::{ImportOptions, Limits, import};
    let limits = limits(options)?;
    let threads = options.map_or(1, |options| options.threads as usize);
    if !(1..=1024).contains(&threads) {
        return Err(Failure::new(Status::BadArgument, "threads must be 1 to 1024"));
    }
    let import_options = ImportOptions {
        limits: Limits { macs: limits.macs, ..Limits::default() },
        ..ImportOptions::default()
    };
    let graph = import(bytes, &import_options)?.graph;
    let plan = crate::plan::PlanOptions { threads, ..Default::default() };
    let model = Model::new(graph, &crate::Options { plan, ..Default::default() })?;
    let (found, limit) = (model.plan().arena_bytes() as u64, limits.arena_bytes as u64);
    if found > limit {
        return Err(Error::TooLarge { what: "the arena in bytes".into(), found, limit }.into());
    }
    Ok(model)
}

#[cfg(not(feature = "onnx"))]
fn from_onnx(_bytes: &[u8], _options: Option<&ModelOptions>) -> Outcome<Model> {
    Err(Failure::new(
        Status::Unsupported,
        "not a compiled model; this library was built without ONNX import (`sinew compile` makes one)",
    ))
}
