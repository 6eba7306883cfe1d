//! Tensors whose elements are known while importing: initializers, `Constant` nodes and what is folded from them.
//!
//! All floating point is f32 here; all integers are i64 and remember the range of their type.

use std::cell::Cell;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::graph::{ValueId, shape};
use crate::half;
use crate::onnx::proto::{TensorMessage, TensorProto, element_type};
use crate::tensor::Tensor;

/// Known elements and their shape.
#[derive(Clone, Debug)]
pub(super) struct Constant {
    pub name: String,
    pub shape: Vec<usize>,
    pub elements: Elements,
    /// The graph's value, once a node reads it.
    pub value: Cell<Option<ValueId>>,
}

#[derive(Clone, Debug)]
pub(super) enum Elements {
    Float(Arc<Tensor>),
    Int(Vec<i64>, IntType),
}

/// The type of integers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntType {
    I64,
    I32,
    U8,
    Bool,
}

impl IntType {
    pub fn contains(self, x: i64) -> bool {
        match self {
            IntType::I64 => true,
            IntType::I32 => i32::try_from(x).is_ok(),
            IntType::U8 => u8::try_from(x).is_ok(),
            IntType::Bool => x == 0 || x == 1,
        }
    }

    pub fn from_element_type(found: i32) -> Option<Self> {
        match found {
            element_type::INT64 => Some(IntType::I64),
            element_type::INT32 => Some(IntType::I32),
            element_type::UINT8 => Some(IntType::U8),
            element_type::BOOL => Some(IntType::Bool),
            _ => None,
        }
    }
}

impl Constant {
    pub fn float(name: impl Into<String>, shape: Vec<usize>, elements: Vec<f32>) -> Result<Self> {
        let tensor = Arc::new(Tensor::f32(shape.clone(), elements)?);
        Ok(Self { name: name.into(), shape, elements: Elements::Float(tensor), value: Cell::new(None) })
    }

    pub fn int(name: impl Into<String>, shape: Vec<usize>, elements: Vec<i64>, int_type: IntType) -> Self {
        let elements = Elements::Int(elements, int_type);
        Self { name: name.into(), shape, elements, value: Cell::new(None) }
    }

    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.elements {
            Elements::Float(tensor) => tensor.as_f32(),
            Elements::Int(..) => None,
        }
    }

    pub fn as_ints(&self) -> Option<&[i64]> {
        match &self.elements {
            Elements::Float(_) => None,
            Elements::Int(elements, _) => Some(elements),
        }
    }

    /// The same elements in another shape of as many; f32 elements are shared where the shape stays.
    pub fn reshaped(&self, name: impl Into<String>, shape: Vec<usize>) -> Result<Self> {
        match &self.elements {
            Elements::Float(tensor) if tensor.shape() == shape => {
                let elements = Elements::Float(Arc::clone(tensor));
                Ok(Self { name: name.into(), shape, elements, value: Cell::new(None) })
            }
            Elements::Float(tensor) => Self::float(name, shape, tensor.as_f32().unwrap_or_default().to_vec()),
            Elements::Int(elements, int_type) => Ok(Self::int(name, shape, elements.clone(), *int_type)),
        }
    }

    /// Elements picked at `offset + sum of index * stride`, one for each index of `shape`; all must exist.
    pub fn strided(
        &self,
        name: impl Into<String>,
        shape: Vec<usize>,
        offset: usize,
        strides: &[isize],
    ) -> Result<Self> {
        match &self.elements {
            Elements::Float(tensor) => {
                let picked = pick(tensor.as_f32().unwrap_or_default(), &shape, offset, strides);
                Self::float(name, shape, picked)
            }
            Elements::Int(elements, int_type) => {
                let picked = pick(elements, &shape, offset, strides);
                Ok(Self::int(name, shape, picked, *int_type))
            }
        }
    }
}

/// Distances of neighbours along each dimension of a row-major tensor.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i] as isize);
    }
    strides
}

fn pick<T: Copy>(from: &[T], shape: &[usize], offset: usize, strides: &[isize]) -> Vec<T> {
    let count = shape.iter().product();
    let mut picked = Vec::with_capacity(count);
    if count == 0 {
        return picked;
    }
    let mut index = vec![0usize; shape.len()];
    let mut at = offset as isize;
    loop {
        picked.push(from[at as usize]);
        // The next index: the last dimension that has one more, those after it from their start.
        let mut dim = shape.len();
        loop {
            if dim == 0 {
                return picked;
            }
            dim -= 1;
            index[dim] += 1;
            at += strides[dim];
            if index[dim] < shape[dim] {
                break;
            }
            at -= strides[dim] * shape[dim] as isize;
            index[dim] = 0;
        }
    }
}

/// What a tensor of the file holds.
pub(super) enum Decoded {
    Constant(Constant),
    /// A type that is not computed with; the text says which.
    Unusable(String),
}

/// Names of tensors that were converted to f32, by their type in the file.
#[derive(Debug, Default)]
pub(super) struct Conversions {
    float16: Vec<String>,
    bfloat16: Vec<String>,
    double: Vec<String>,
}

impl Conversions {
    pub fn notices(self) -> impl Iterator<Item = String> {
        let lists = [
            ("float16", self.float16, "exactly"),
            ("bfloat16", self.bfloat16, "exactly"),
            ("double", self.double, "rounded"),
        ];
        lists.into_iter().filter(|(_, names, _)| !names.is_empty()).map(|(from, names, how)| {
            let plural = if names.len() == 1 { "" } else { "s" };
            format!("{} {from} tensor{plural} converted to f32 ({how}): {}", names.len(), names.join(", "))
        })
    }
}

/// The shape of a tensor in the file.
fn tensor_shape(tensor: &TensorProto, max_dims: usize, max_elements: u64) -> Result<Vec<usize>> {
    let name = tensor.name.clone().unwrap_or_default();
    if tensor.dims.len() > max_dims {
        return Err(Error::TooLarge {
            what: format!("the number of dimensions of \"{name}\""),
            found: tensor.dims.len() as u64,
            limit: max_dims as u64,
        });
    }
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let Some(dims) = dims else {
        return Err(Error::Tensor { tensor: name, reason: format!("negative extent in {:?}", tensor.dims) });
    };
    let count = shape::elements(&dims).map_err(|reason| Error::Tensor { tensor: name.clone(), reason })?;
    if count as u64 > max_elements {
        let what = format!("the number of elements of \"{name}\"");
        return Err(Error::TooLarge { what, found: count as u64, limit: max_elements });
    }
    Ok(dims)
}

/// Reads a tensor of the file.
pub(super) fn decode(
    tensor: &TensorMessage<'_>,
    name: String,
    max_dims: usize,
    max_elements: u64,
    conversions: &mut Conversions,
) -> Result<Decoded> {
    let TensorMessage { proto: tensor, raw_data } = tensor;
    let error = |reason: String| Error::Tensor { tensor: name.clone(), reason };
    let fail = |reason| Err(error(reason));
    if tensor.data_location == Some(1) {
        return fail(
            "its elements are in another file (external data); store them inside the model".to_owned(),
        );
    }
    let shape = tensor_shape(tensor, max_dims, max_elements)?;
    let count: usize = shape.iter().product();
    let found = tensor.data_type.unwrap_or_default();
    let raw = raw_data.as_deref();
    let floats: Option<Vec<f32>> = match found {
        element_type::FLOAT => Some(match raw {
            Some(raw) => numbers(raw, f32::from_le_bytes),
            None => Ok(tensor.float_data.clone()),
        }),
        element_type::DOUBLE => Some(match raw {
            Some(raw) => numbers(raw, |bytes| f64::from_le_bytes(bytes) as f32),
            None => Ok(tensor.double_data.iter().map(|&x| x as f32).collect()),
        }),
        element_type::FLOAT16 | element_type::BFLOAT16 => {
            let convert = if found == element_type::FLOAT16 { half::to_f32 } else { bfloat_to_f32 };
            Some(match raw {
                Some(raw) => numbers(raw, |bytes| convert(u16::from_le_bytes(bytes))),
                // The low half of each number.
                None => Ok(tensor.int32_data.iter().map(|&bits| convert(bits as u16)).collect()),
            })
        }
        _ => None,
    }
    .transpose()
    .map_err(error)?;
    if let Some(floats) = floats {
        match found {
            element_type::FLOAT16 => conversions.float16.push(name.clone()),
            element_type::BFLOAT16 => conversions.bfloat16.push(name.clone()),
            element_type::DOUBLE => conversions.double.push(name.clone()),
            _ => {}
        }
        if floats.len() != count {
            return fail(format!("{} elements do not fill the shape {shape:?}", floats.len()));
        }
        return Constant::float(name, shape, floats).map(Decoded::Constant);
    }
    let Some(int_type) = IntType::from_element_type(found) else {
        return Ok(Decoded::Unusable(format!(
            "\"{name}\" has the element type {}",
            element_type::name(found)
        )));
    };
    let ints: Vec<i64> = match (int_type, raw) {
        (IntType::I64, Some(raw)) => numbers(raw, i64::from_le_bytes),
        (IntType::I64, None) => Ok(tensor.int64_data.clone()),
        (IntType::I32, Some(raw)) => numbers(raw, |bytes| i32::from_le_bytes(bytes).into()),
        (IntType::U8 | IntType::Bool, Some(raw)) => Ok(raw.iter().map(|&byte| byte.into()).collect()),
        (_, None) => Ok(tensor.int32_data.iter().map(|&x| x.into()).collect()),
    }
    .map_err(error)?;
    if ints.len() != count {
        return fail(format!("{} elements do not fill the shape {shape:?}", ints.len()));
    }
    if let Some(x) = ints.iter().find(|&&x| !int_type.contains(x)) {
        return fail(format!("{x} is no {}", element_type::name(found)));
    }
    Ok(Decoded::Constant(Constant::int(name, shape, ints, int_type)))
}

fn numbers<const N: usize, T>(
    raw: &[u8],
    read: impl Fn([u8; N]) -> T,
) -> std::result::Result<Vec<T>, String> {
    let (whole, rest) = raw.as_chunks::<N>();
    if rest.is_empty() {
        Ok(whole.iter().map(|&bytes| read(bytes)).collect())
    } else {
        Err(format!("{} bytes are no whole number of elements of {N} bytes", raw.len()))
    }
}

fn bfloat_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat_is_the_upper_half() {
        assert_eq!(bfloat_to_f32(0xc049), -3.140_625);
    }

    #[test]
    fn strided_picks_transpose_reverse_and_repeat() -> Result<()> {
        let source = Constant::int("m", vec![2, 3], vec![0, 1, 2, 3, 4, 5], IntType::I64);
        let transposed = source.strided("t", vec![3, 2], 0, &[1, 3])?;
        assert_eq!(transposed.as_ints(), Some([0, 3, 1, 4, 2, 5].as_slice()));
        let reversed = source.strided("r", vec![3], 5, &[-1])?;
        assert_eq!(reversed.as_ints(), Some([5, 4, 3].as_slice()));
        let repeated = source.strided("e", vec![2, 2], 1, &[0, 3])?;
        assert_eq!(repeated.as_ints(), Some([1, 4, 1, 4].as_slice()));
        let scalar = source.strided("s", vec![], 2, &[])?;
        assert_eq!(scalar.as_ints(), Some([2].as_slice()));
        Ok(())
    }
}
