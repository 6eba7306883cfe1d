//! A model's inputs and outputs: how many, what they are, which has a name.

use std::ffi::{CStr, c_char};

use super::handle::{guard, handle, null, out};
use super::model::{ModelHandle, no_index};
use super::status::{Failure, Status};
use crate::tensor::DType;

/// 32-bit floating point.
pub const SINEW_DTYPE_F32: i32 = 0;
/// 8-bit unsigned integers.
pub const SINEW_DTYPE_U8: i32 = 1;
/// 64-bit signed integers.
pub const SINEW_DTYPE_I64: i32 = 2;

/// An input or output. What it points at stays until the model is freed.
#[repr(C)]
pub struct TensorInfo {
    /// Its name in the model.
    pub name: *const c_char,
    /// One of `SINEW_DTYPE_*`.
    pub dtype: i32,
    /// The number of dimensions.
    pub rank: usize,
    /// The extent of each; elements are row-major.
    pub shape: *const usize,
    /// The product of the shape.
    pub elements: usize,
    /// The size of its memory.
    pub bytes: usize,
}

/// Which of a model's tensors.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Input,
    Output,
}

/// The number of inputs; 0 for no model.
///
/// # Safety
/// The model is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_input_count(model: *const ModelHandle) -> usize {
    // SAFETY: the caller's contract.
    unsafe { count(model, Side::Input) }
}

/// The number of outputs; 0 for no model.
///
/// # Safety
/// The model is null, or one that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_output_count(model: *const ModelHandle) -> usize {
    // SAFETY: the caller's contract.
    unsafe { count(model, Side::Output) }
}

/// What an input is.
///
/// # Safety
/// The model was not freed; `info` points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_input(
    model: *const ModelHandle,
    index: usize,
    info: *mut TensorInfo,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe { describe(model, Side::Input, index, info) }
}

/// What an output is.
///
/// # Safety
/// The model was not freed; `info` points at the structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_output(
    model: *const ModelHandle,
    index: usize,
    info: *mut TensorInfo,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe { describe(model, Side::Output, index, info) }
}

/// The index of the input of that name.
///
/// # Safety
/// The model was not freed; `name` ends with a zero; `index` points at the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_find_input(
    model: *const ModelHandle,
    name: *const c_char,
    index: *mut usize,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe { find(model, Side::Input, name, index) }
}

/// The index of the output of that name.
///
/// # Safety
/// The model was not freed; `name` ends with a zero; `index` points at the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinew_model_find_output(
    model: *const ModelHandle,
    name: *const c_char,
    index: *mut usize,
) -> Status {
    // SAFETY: the caller's contract.
    unsafe { find(model, Side::Output, name, index) }
}

/// # Safety
/// The model is null, or one that was not freed.
unsafe fn count(model: *const ModelHandle, side: Side) -> usize {
    // SAFETY: the caller's contract.
    unsafe { handle(model) }.map_or(0, |model| model.ports(side).0.len())
}

/// # Safety
/// The model was not freed; `info` points at the structure.
unsafe fn describe(model: *const ModelHandle, side: Side, index: usize, info: *mut TensorInfo) -> Status {
    // SAFETY: the caller's contract.
    guard(None, || unsafe {
        let ((ports, names), info) = (handle(model)?.ports(side), out(info)?);
        let (Some(port), Some(name)) = (ports.get(index), names.get(index)) else {
            return Err(no_index());
        };
        let dtype = match port.dtype {
            DType::F32 => SINEW_DTYPE_F32,
            DType::U8 => SINEW_DTYPE_U8,
            DType::I64 => SINEW_DTYPE_I64,
        };
        *info = TensorInfo {
            name: name.as_ptr(),
            dtype,
            rank: port.shape.len(),
            shape: port.shape.as_ptr(),
            elements: port.len(),
            bytes: port.len() * port.dtype.bytes(),
        };
        Ok(())
    })
}

/// # Safety
/// The model was not freed; `name` is null or ends with a zero; `index` points at the result.
unsafe fn find(model: *const ModelHandle, side: Side, name: *const c_char, index: *mut usize) -> Status {
    // SAFETY: the caller's contract.
    guard(None, || unsafe {
        let ((_, names), index) = (handle(model)?.ports(side), out(index)?);
        if name.is_null() {
            return Err(null());
        }
        let name = CStr::from_ptr(name);
        let found = names.iter().position(|own| own.as_c_str() == name);
        *index = found.ok_or_else(|| Failure::new(Status::NotFound, "no input or output has that name"))?;
        Ok(())
    })
}
