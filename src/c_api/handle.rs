//! What every function does first and last: check the handle, catch panics, tell what went wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::{Failure, Message, Status};

pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// A field of every handle. What was freed has lost it, as long as nobody uses the memory again: a guard against a
/// common mistake, no proof.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Mark(pub(super) u64);

impl Mark {
    pub(super) const MODEL: Mark = Mark(0x5eed_5157_4e0d_e101);
    pub(super) const SESSION: Mark = Mark(0x5eed_5157_5e55_1012);
    const FREED: Mark = Mark(0);
}

/// A handle's type.
pub(super) trait Handle {
    const MARK: Mark;
    fn mark(&self) -> Mark;
    fn set_mark(&mut self, mark: Mark);
}

pub(super) fn null() -> Failure {
    Failure::new(Status::NullPointer, "a pointer is null")
}

/// The handle behind a pointer.
///
/// # Safety
/// The pointer is null, or one that this library gave, used as the header says.
pub(super) unsafe fn handle<'h, H: Handle>(pointer: *const H) -> Outcome<&'h H> {
    // SAFETY: the caller's contract.
    let handle = unsafe { pointer.as_ref() }.ok_or_else(null)?;
    if handle.mark() != H::MARK {
        return Err(Failure::new(Status::BadHandle, "the handle was freed, or is none"));
    }
    Ok(handle)
}

/// What an out pointer points at.
///
/// # Safety
/// The pointer is null, or points at memory of the type that nobody else uses during the call.
pub(super) unsafe fn out<'o, T>(pointer: *mut T) -> Outcome<&'o mut T> {
    // SAFETY: the caller's contract.
    unsafe { pointer.as_mut() }.ok_or_else(null)
}

/// Gives a new handle away.
pub(super) fn give<H: Handle>(handle: H) -> *mut H {
    Box::into_raw(Box::new(handle))
}

/// Frees a handle.
///
/// # Safety
/// The pointer was checked by `handle`, and nobody uses it again.
pub(super) unsafe fn free<H: Handle>(pointer: *mut H) {
    // SAFETY: it came from `give`.
    let mut handle = unsafe { Box::from_raw(pointer) };
    handle.set_mark(Mark::FREED);
    // The mark must reach memory before the memory is given back.
    std::hint::black_box(&mut handle);
}

/// Runs the body of a function: no panic crosses, and `message` says what went wrong.
pub(super) fn guard(message: Option<&mut Message>, body: impl FnOnce() -> Outcome) -> Status {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        // A payload may panic when it is dropped.
        std::mem::forget(payload);
        Err(Failure::new(Status::Internal, "a fault of the library; its text is on standard error"))
    });
    match (outcome, message) {
        (Ok(()), None) => Status::Ok,
        (Ok(()), Some(message)) => {
            message.clear();
            Status::Ok
        }
        (Err(failure), None) => failure.status,
        (Err(failure), Some(message)) => {
            message.set(failure.text);
            failure.status
        }
    }
}
