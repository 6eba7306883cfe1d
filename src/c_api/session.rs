//! Sessions: a model with an arena of its own, used by one thread at a time.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::handle::{Handle, Mark, Outcome, free, give, guard, handle, null, out};
use super::image;
use super::model::{ModelHandle, memory, no_index};
use super::options::{ImageOptions, OnStep, ParallelFor, SessionOptions, check_size};
use super::status::{Failure, Message, Status};
use super::{isa_of, number_of};
use crate::plan::Port;
use crate::preprocess::Pixels;
use crate::run::arena::Arena;
use crate::run::parallel;
use crate::run::{self, Input, Output, Session};
use crate::tensor::{DType, Data, Tensor};

/// What runs a model: an arena of its own, used by one thread at a time. A second call at the same time gets
/// `SINEW_STATUS_BUSY`.
pub struct SessionHandle {
    mark: Mark,
    busy: AtomicBool,
    cancel: Arc<AtomicBool>,
    inner: UnsafeCell<Inner>,
}

// SAFETY: `inner` is reached only by the one call that has set `busy`.
unsafe impl Sync for SessionHandle {}

impl Handle for SessionHandle {
    const MARK: Mark = Mark::SESSION;

    fn mark(&self) -> Mark {
        self.mark
    }

    fn set_mark(&mut self, mark: Mark) {
        self.mark = mark;
    }
}

struct Inner {
    session: Session<'static>,
    inputs: Vec<Bound>,
    outputs: Vec<Bound>,
    /// Room for a run's operands, used by nothing between runs: nothing is allocated in a run.
    input_slices: Vec<Input<'static>>,
    output_slices: Vec<Output<'static>>,
    /// What images became, for the inputs that take one.
    images: Vec<Option<Tensor>>,
    message: Message,
    /// The session's options refer to it. Boxed: it does not move.
    _threads: Option<Box<Threads>>,
}

/// The caller's memory of one input or output.
#[derive(Clone, Copy)]
struct Bound {
    at: *mut u8,
    bytes: usize,
}

const UNBOUND: Bound = Bound { at: std::ptr::null_mut(), bytes: 0 };

impl Bound {
    fn overlaps(&self, other: &Bound) -> bool {
        let (a, b) = (self.at.addr(), other.at.addr());
        a < b + other.bytes && b < a + self.bytes
    }
}

/// A context of the caller, handed back to it on whatever thread it uses.
#[derive(Clone, Copy)]
struct Context(*mut c_void);

// SAFETY: the library never looks at it; what the caller's functions do with it on their threads is theirs.
unsafe impl Send for Context {}

impl Context {
    fn get(self) -> *mut c_void {
        self.0
    }
}

/// The caller's threads.
struct Threads {
    parallel_for: ParallelFor,
    context: *mut c_void,
}

/// A step's parts, as `parallel_for` hands them back.
struct Task<'t> {
    part: &'t (dyn Fn(usize) + Sync),
    panicked: AtomicBool,
}

/// Computes one part: what `parallel_for` calls. No panic crosses the caller's code.
unsafe extern "C" fn compute_part(task: *mut c_void, index: usize) {
    // SAFETY: `hand_out` made it, and does not return before all parts have.
    let task = unsafe { &*task.cast_const().cast::<Task<'_>>() };
    let part = std::panic::AssertUnwindSafe(|| (task.part)(index));
    if let Err(payload) = std::panic::catch_unwind(part) {
        std::mem::forget(payload);
        task.panicked.store(true, Ordering::Release);
    }
}

/// Has the caller compute the parts of a step.
fn hand_out(threads: usize, parts: usize, part: &(dyn Fn(usize) + Sync)) {
    // SAFETY: the address of the session's own box, which lives as long as the session.
    let threads = unsafe { &*std::ptr::with_exposed_provenance::<Threads>(threads) };
    let Some(parallel_for) = threads.parallel_for else { return };
    let task = Task { part, panicked: AtomicBool::new(false) };
    let at = std::ptr::from_ref(&task).cast::<c_void>().cast_mut();
    // SAFETY: the caller's function, as the header says: it returns when all parts have.
    unsafe { parallel_for(threads.context, parts, Some(compute_part), at) };
    assert!(!task.panicked.load(Ordering::Acquire), "a part of a step has failed");
}

/// Makes a session of a model.
///
/// # Safety
/// The model was not freed; `options` (may be null) and `message` (may be null) point at their structures; `session`
/// receives the handle. An arena that is handed over is used by nobody else until the session is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_new(
    model: *const ModelHandle,
    options: *const SessionOptions,
    session: *mut *mut SessionHandle,
    message: *mut Message,
) -> Status {
    // SAFETY: the caller's contract, as in every function here.
    guard(unsafe { message.as_mut() }, || unsafe {
        let (model, session) = (handle(model)?, out(session)?);
        *session = std::ptr::null_mut();
        let options = match options.as_ref() {
            Some(options) => {
                check_size::<SessionOptions>(options.size)?;
                *options
            }
            None => {
                let mut defaults = std::mem::MaybeUninit::uninit();
                super::options::sinew_session_options_init(defaults.as_mut_ptr());
                defaults.assume_init()
            }
        };
        *session = give(SessionHandle::new(model, &options)?);
        Ok(())
    })
}

/// Frees a session. Null is fine. A session that runs is not freed: `SINEW_STATUS_BUSY`.
///
/// # Safety
/// The session is null, or one that was not freed, and nobody uses it afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_free(session: *mut SessionHandle) -> Status {
    guard(None, || {
        if session.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's contract.
        unsafe {
            if handle(session.cast_const())?.busy.swap(true, Ordering::Acquire) {
                return Err(busy());
            }
            free(session);
        }
        Ok(())
    })
}

/// Says where an input's elements are, for all runs from now on. They are read during runs, where they lie.
///
/// # Safety
/// The session was not freed; `data` points at `bytes` bytes that stay while it is bound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_bind_input(
    session: *mut SessionHandle,
    index: usize,
    data: *const c_void,
    bytes: usize,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe {
        enter(session, |inner| {
            let bound = bind(inner.session.model().inputs(), index, data.cast_mut(), bytes)?;
            inner.inputs[index] = bound;
            Ok(())
        })
    }
}

/// Says where an output's elements go, for all runs from now on. They are written during runs, where they lie.
///
/// # Safety
/// The session was not freed; `data` points at `bytes` bytes that stay while it is bound.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_bind_output(
    session: *mut SessionHandle,
    index: usize,
    data: *mut c_void,
    bytes: usize,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe {
        enter(session, |inner| {
            let bound = bind(inner.session.model().outputs(), index, data, bytes)?;
            inner.outputs[index] = bound;
            Ok(())
        })
    }
}

/// Makes an input of an image: rows of pixels from top to bottom, 3 bytes each: red, green, blue. It is read during this
/// call only; this call allocates.
///
/// # Safety
/// The session was not freed; `rgb` points at `width * height * 3` bytes; `options` (may be null) at its structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_set_image(
    session: *mut SessionHandle,
    index: usize,
    rgb: *const u8,
    width: usize,
    height: usize,
    options: *const ImageOptions,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe {
        enter(session, |inner| {
            let Some(port) = inner.session.model().inputs().get(index) else { return Err(no_index()) };
            let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
            let bytes =
                bytes.ok_or_else(|| Failure::new(Status::BadArgument, "an image that is too large"))?;
            let pixels = Pixels::new(width, height, memory(rgb.cast(), bytes)?)?;
            let tensor = image::tensor(port, &pixels, options.as_ref())?;
            let tensor = inner.images[index].insert(tensor);
            inner.inputs[index] = match tensor.data() {
                Data::F32(data) => bytes_of(data),
                Data::U8(data) => bytes_of(data),
                Data::I64(data) => bytes_of(data),
            };
            Ok(())
        })
    }
}

/// Computes the outputs. On one thread it makes no allocation, takes no lock and makes no system call.
///
/// # Safety
/// The session was not freed; the bound memory is still there, and nobody else uses it during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_run(session: *mut SessionHandle) -> Status {
    // SAFETY: the caller's contract.
    unsafe {
        let status = enter(session, |inner| {
            // What a run that failed may have left.
            inner.input_slices.clear();
            inner.output_slices.clear();
            inner.run()
        });
        if status == Status::Cancelled {
            (*session).cancel.store(false, Ordering::Relaxed);
        }
        status
    }
}

/// Ends the run in progress, or else the next one, between two steps with `SINEW_STATUS_CANCELLED`. Any thread may call
/// it, and so may the session's callbacks.
///
/// # Safety
/// The session was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_cancel(session: *const SessionHandle) -> Status {
    guard(None, || {
        // SAFETY: the caller's contract.
        let session = unsafe { handle(session) }?;
        session.cancel.store(true, Ordering::Relaxed);
        Ok(())
    })
}

/// The instruction set in use, one of `SINEW_ISA_*`; -1 for no session, and while another thread is in a call.
///
/// # Safety
/// The session is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_isa(session: *mut SessionHandle) -> i32 {
    let mut isa = -1;
    // SAFETY: the caller's contract.
    unsafe {
        enter(session, |inner| {
            isa = number_of(inner.session.isa());
            Ok(())
        });
    }
    isa
}

/// What the last call with this session said; empty where all went well. Read it on the thread that made the call,
/// before the next one.
///
/// # Safety
/// The session is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_session_message(session: *const SessionHandle) -> *const c_char {
    // SAFETY: the caller's contract.
    match unsafe { handle(session) } {
        // SAFETY: the text is part of the session; its address is taken without reading it.
        Ok(session) => unsafe { (&raw const (*session.inner.get()).message.text).cast() },
        Err(_) => c"no session".as_ptr(),
    }
}

fn busy() -> Failure {
    Failure::new(Status::Busy, "another thread is in a call with this session")
}

/// Runs the body of a call with a session: alone, and with its outcome in the session's message.
///
/// # Safety
/// The session is null, or one that was not freed.
unsafe fn enter(session: *mut SessionHandle, body: impl FnOnce(&mut Inner) -> Outcome) -> Status {
    // SAFETY: the caller's contract.
    let session = match unsafe { handle(session.cast_const()) } {
        Ok(session) => session,
        Err(failure) => return failure.status,
    };
    if session.busy.swap(true, Ordering::Acquire) {
        return Status::Busy;
    }
    // SAFETY: this call has set `busy`, so no other one is here; body and message are used one after the other.
    let status = unsafe {
        let inner = session.inner.get();
        let mut failure = None;
        let status = guard(None, || {
            body(&mut *inner).map_err(|reason| {
                let status = reason.status;
                failure = Some(reason);
                Failure::new(status, "")
            })
        });
        let message = &mut (*inner).message;
        match (status, failure) {
            (Status::Ok, _) => message.clear(),
            (_, Some(failure)) => message.set(failure.text),
            (_, None) => message.set("a fault of the library; its text is on standard error"),
        }
        status
    };
    session.busy.store(false, Ordering::Release);
    status
}

impl SessionHandle {
    /// # Safety
    /// The options' arena and functions are what the header says.
    unsafe fn new(model: &ModelHandle, options: &SessionOptions) -> Outcome<Self> {
        let model = Arc::clone(&model.model);
        let blocks = model.plan().arena_bytes() / super::SINEW_ALIGNMENT;
        let arena = if options.arena.is_null() {
            Arena::own(blocks)
        } else {
            if options.arena_bytes > isize::MAX as usize {
                return Err(Failure::new(Status::BadArgument, "an arena that is too large"));
            }
            // SAFETY: the caller hands this memory over until the session is freed.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(options.arena.cast::<u8>(), options.arena_bytes) };
            Arena::lent(bytes, blocks)?
        };
        let unknown = |status| Failure::new(status, "isa has an unknown number");
        let run_options = run::SessionOptions {
            isa: isa_of(options.isa).map_err(unknown)?,
            threads: (options.threads > 0).then_some(options.threads as usize),
        };
        let threads = options.parallel_for.is_some().then(|| {
            Box::new(Threads { parallel_for: options.parallel_for, context: options.parallel_context })
        });
        let parallel_for = threads.as_ref().filter(|_| options.threads != 1).map(|threads| {
            let context = std::ptr::from_ref::<Threads>(threads).expose_provenance();
            parallel::ParallelFor { run: hand_out, context }
        });
        let mut session = Session::with(model, run_options, arena, parallel_for)?;
        let cancel = Arc::new(AtomicBool::new(false));
        session.set_cancel(Some(Arc::clone(&cancel)));
        session.set_on_step(on_step(options.on_step, Context(options.step_context)));
        let (inputs, outputs) = (session.model().inputs().len(), session.model().outputs().len());
        let inner = Inner {
            session,
            inputs: vec![UNBOUND; inputs],
            outputs: vec![UNBOUND; outputs],
            input_slices: Vec::with_capacity(inputs),
            output_slices: Vec::with_capacity(outputs),
            images: (0..inputs).map(|_| None).collect(),
            message: Message::EMPTY,
            _threads: threads,
        };
        Ok(Self { mark: Mark::SESSION, busy: AtomicBool::new(false), cancel, inner: UnsafeCell::new(inner) })
    }
}

fn on_step(on_step: OnStep, context: Context) -> Option<impl FnMut(usize, u64) + Send + 'static> {
    let on_step = on_step?;
    Some(move |step, nanoseconds| {
        // SAFETY: the caller's function and its context.
        unsafe { on_step(context.get(), step, nanoseconds) }
    })
}

impl Inner {
    fn run(&mut self) -> Outcome {
        let model = Arc::clone(self.session.model());
        for (bound, _) in
            self.inputs.iter().zip(model.inputs()).chain(self.outputs.iter().zip(model.outputs()))
        {
            if bound.at.is_null() {
                return Err(Failure::new(Status::BadBuffer, "an input or output is not bound"));
            }
        }
        for (index, output) in self.outputs.iter().enumerate() {
            if self.inputs.iter().chain(&self.outputs[..index]).any(|other| output.overlaps(other)) {
                return Err(Failure::new(Status::BadBuffer, "an output overlaps another operand"));
            }
        }
        for (bound, port) in self.inputs.iter().zip(model.inputs()) {
            // SAFETY: `bind` checked size and alignment; the caller keeps the memory; nothing writes it: no output
            // overlaps it. The slices are gone before this call returns.
            let input = unsafe {
                match port.dtype {
                    DType::F32 => Input::F32(std::slice::from_raw_parts(bound.at.cast(), port.len())),
                    DType::U8 => Input::U8(std::slice::from_raw_parts(bound.at, port.len())),
                    DType::I64 => Input::I64(std::slice::from_raw_parts(bound.at.cast(), port.len())),
                }
            };
            self.input_slices.push(input);
        }
        for (bound, port) in self.outputs.iter().zip(model.outputs()) {
            // SAFETY: as above, and outputs overlap nothing.
            let output = unsafe {
                match port.dtype {
                    DType::I64 => Output::I64(std::slice::from_raw_parts_mut(bound.at.cast(), port.len())),
                    DType::F32 | DType::U8 => {
                        Output::F32(std::slice::from_raw_parts_mut(bound.at.cast(), port.len()))
                    }
                }
            };
            self.output_slices.push(output);
        }
        let result = self.session.run(&self.input_slices, &mut self.output_slices);
        self.input_slices.clear();
        self.output_slices.clear();
        result.map_err(Failure::from)
    }
}

/// Memory for one of the ports, if it is of its size and alignment.
fn bind(ports: &[Port], index: usize, data: *mut c_void, bytes: usize) -> Outcome<Bound> {
    let port = ports.get(index).ok_or_else(no_index)?;
    if data.is_null() {
        return Err(null());
    }
    if bytes != port.len() * port.dtype.bytes() {
        return Err(crate::error::Error::Tensor {
            tensor: port.name.clone(),
            reason: format!("{bytes} bytes, expected {}", port.len() * port.dtype.bytes()),
        }
        .into());
    }
    if !data.addr().is_multiple_of(port.dtype.bytes()) {
        return Err(Failure::new(Status::BadBuffer, "the memory is not aligned to its elements"));
    }
    Ok(Bound { at: data.cast(), bytes })
}

fn bytes_of<T>(data: &[T]) -> Bound {
    Bound { at: data.as_ptr().cast_mut().cast(), bytes: size_of_val(data) }
}
