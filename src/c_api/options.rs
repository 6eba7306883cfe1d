//! Options of models, sessions and images: plain structures that begin with their own size.

use std::ffi::c_void;

use super::SINEW_ISA_AUTO;
use super::handle::Outcome;
use super::status::{Failure, Status};

/// How a model is loaded. Fill it with `sinew_model_options_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ModelOptions {
    /// Bytes of this structure.
    pub size: usize,
    /// Whether the checksum of a compiled model's weights is checked, which reads all of them: 0 or 1.
    pub check_weights: i32,
    /// The parts into which large steps of an ONNX model are cut: one per thread. A compiled model has its own.
    pub threads: u32,
    /// The largest arena that is accepted, in bytes.
    pub max_arena_bytes: usize,
    /// The most multiply-accumulates of one run that are accepted.
    pub max_macs: u64,
}

/// Computes the parts of a step: calls `task(task_context, index)` once for each index below `parts`, in any order, on
/// any thread, and returns when all calls have returned.
pub type ParallelFor = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        parts: usize,
        task: Option<unsafe extern "C" fn(task_context: *mut c_void, index: usize)>,
        task_context: *mut c_void,
    ),
>;

/// Told of every step that has run: its index in the model, and how long it took.
pub type OnStep = Option<unsafe extern "C" fn(context: *mut c_void, step: usize, nanoseconds: u64)>;

/// How a session runs. Fill it with `sinew_session_options_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionOptions {
    /// Bytes of this structure.
    pub size: usize,
    /// One of `SINEW_ISA_*`; one that the CPU lacks is an error.
    pub isa: i32,
    /// Threads to run on, at most those that the model is cut for; 0 for that number. More than one needs `parallel_for`
    /// or a library built with the feature `parallel`. No result depends on it.
    pub threads: u32,
    /// Memory for the session's arena, aligned to `SINEW_ALIGNMENT`, which stays until the session is freed; null lets
    /// the session allocate it.
    pub arena: *mut c_void,
    /// Bytes of it: at least `sinew_memory.arena_bytes`.
    pub arena_bytes: usize,
    /// The caller's threads instead of the library's; may be null.
    pub parallel_for: ParallelFor,
    /// Handed to `parallel_for`.
    pub parallel_context: *mut c_void,
    /// Told of every step, on the thread that runs; may be null.
    pub on_step: OnStep,
    /// Handed to `on_step`.
    pub step_context: *mut c_void,
}

/// How an image becomes an input: `(value - mean) / std` after resizing and choosing colours. Fill it with
/// `sinew_image_options_init` first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ImageOptions {
    /// Bytes of this structure.
    pub size: usize,
    /// How an image of another shape fills the input: one of `SINEW_RESIZE_*`.
    pub resize: i32,
    /// The channels: one of `SINEW_COLOR_*`.
    pub color: i32,
    /// What a value is before mean and deviation: one of `SINEW_RANGE_*`.
    pub range: i32,
    /// Taken away, in the order of the input's channels.
    pub mean: [f32; 3],
    /// The divisor, in the order of the input's channels.
    pub std: [f32; 3],
}

/// Fills in the defaults: no checksum of the weights, one thread, an arena of at most 4 GiB.
///
/// # Safety
/// `options` is null or points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_options_init(options: *mut ModelOptions) {
    let limits = crate::plan::file::LoadOptions::default();
    // SAFETY: the caller's contract.
    if let Some(options) = unsafe { options.as_mut() } {
        *options = ModelOptions {
            size: size_of::<ModelOptions>(),
            check_weights: 0,
            threads: 1,
            max_arena_bytes: limits.arena_bytes,
            max_macs: limits.macs,
        };
    }
}

/// Fills in the defaults: the best instruction set, the model's threads, an arena of the session's own.
///
/// # Safety
/// `options` is null or points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_options_init(options: *mut SessionOptions) {
    // SAFETY: the caller's contract.
    if let Some(options) = unsafe { options.as_mut() } {
        *options = SessionOptions {
            size: size_of::<SessionOptions>(),
            isa: SINEW_ISA_AUTO,
            threads: 0,
            arena: std::ptr::null_mut(),
            arena_bytes: 0,
            parallel_for: None,
            parallel_context: std::ptr::null_mut(),
            on_step: None,
            step_context: std::ptr::null_mut(),
        };
    }
}

/// Fills in the defaults: stretched, RGB or gray as the input takes it, 0 to 1 or bytes likewise.
///
/// # Safety
/// `options` is null or points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_image_options_init(options: *mut ImageOptions) {
    // SAFETY: the caller's contract.
    if let Some(options) = unsafe { options.as_mut() } {
        *options = ImageOptions {
            size: size_of::<ImageOptions>(),
            resize: super::image::SINEW_RESIZE_STRETCH,
            color: super::image::SINEW_COLOR_AUTO,
            range: super::image::SINEW_RANGE_AUTO,
            mean: [0.0; 3],
            std: [1.0; 3],
        };
    }
}

/// Refuses a structure of another version.
pub(super) fn check_size<T>(size: usize) -> Outcome {
    if size == size_of::<T>() {
        return Ok(());
    }
    Err(Failure::new(Status::BadArgument, "the options' size is not that of this library; was init called?"))
}
