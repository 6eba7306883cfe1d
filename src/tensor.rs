//! A shape and data in the caller's own layout: row-major, no padding.

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements at the engine's boundary; inside everything is f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DType {
    /// 32-bit floating point.
    F32,
    /// 8-bit unsigned integers: inputs only, converted to f32 exactly.
    U8,
    /// 64-bit signed integers: inputs, and the outputs of ArgMax.
    I64,
}

impl DType {
    /// The name used in messages and JSON: `f32`, `u8`, `i64`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::U8 => "u8",
            DType::I64 => "i64",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::U8 => 1,
            DType::I64 => 8,
        }
    }
}

/// A tensor's elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// 32-bit floating point.
    F32(Vec<f32>),
    /// 8-bit unsigned integers.
    U8(Vec<u8>),
    /// 64-bit signed integers.
    I64(Vec<i64>),
}

/// A shape and its elements, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of the given shape.
    ///
    /// # Errors
    /// Where the number of elements is not the product of the shape.
    pub fn new(shape: Vec<usize>, data: Data) -> crate::Result<Self> {
        let tensor = Self { shape, data };
        let expected = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if expected != Some(tensor.len()) {
            return Err(crate::Error::Tensor {
                tensor: String::new(),
                reason: format!("{} elements do not fill the shape {:?}", tensor.len(), tensor.shape),
            });
        }
        Ok(tensor)
    }

    /// A tensor of f32 elements; see [`Tensor::new`].
    ///
    /// # Errors
    /// Where the number of elements is not the product of the shape.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> crate::Result<Self> {
        Self::new(shape.into(), Data::F32(data))
    }

    /// The extent of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements, for writing.
    pub(crate) fn data_mut(&mut self) -> &mut Data {
        &mut self.data
    }

    /// The elements where they are f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(data) => Some(data),
            _ => None,
        }
    }

    /// The elements where they are i64.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.data {
            Data::I64(data) => Some(data),
            _ => None,
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::U8(_) => DType::U8,
            Data::I64(_) => DType::I64,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::F32(data) => data.len(),
            Data::U8(data) => data.len(),
            Data::I64(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
