//! One ONNX node while it is imported: its attributes with their types checked, and why a node may be refused.

use crate::error::Error;
use crate::onnx::proto::{AttributeProto, NodeProto, TensorMessage, attribute_type};

/// Why a node is not imported.
#[derive(Debug)]
pub(super) enum Problem {
    /// Valid, but not implemented: collected, and the import goes on.
    Unsupported(String),
    /// The file contradicts itself here.
    Invalid(String),
    /// An operand comes from a node that is not supported: nothing to say about this one.
    UnknownOperand,
    /// Anything else that ends the import.
    Fatal(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Fatal(error)
    }
}

/// No operator has nearly as many; they are compared with each other.
const MAX_ATTRIBUTES: usize = 64;

pub(super) type Outcome<T> = std::result::Result<T, Problem>;

pub(super) fn unsupported<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Problem::Unsupported(reason.into()))
}

pub(super) fn invalid<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Problem::Invalid(reason.into()))
}

/// A node and the operator set that gives it its meaning.
pub(super) struct NodeView<'a> {
    pub proto: &'a NodeProto,
    /// The node's name, or its first output's.
    pub name: String,
    pub opset: i64,
}

impl<'a> NodeView<'a> {
    pub fn op(&self) -> &'a str {
        self.proto.op_type.as_deref().unwrap_or_default()
    }

    /// Refuses attributes other than these: one that is not understood could change the meaning.
    pub fn attributes(&self, known: &[&str]) -> Outcome<()> {
        let found = self.proto.attribute.len();
        if found > MAX_ATTRIBUTES {
            return invalid(format!("{found} attributes"));
        }
        for (i, attribute) in self.proto.attribute.iter().enumerate() {
            let name = attribute.name.as_deref().unwrap_or_default();
            if self.proto.attribute[..i].iter().any(|earlier| earlier.name == attribute.name) {
                return invalid(format!("attribute {name} is given twice"));
            }
            if !known.contains(&name) {
                return unsupported(format!("attribute {name}"));
            }
        }
        Ok(())
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.proto.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// A scalar attribute. Where the type is stated, an absent value is a zero that the writer left out.
    fn scalar<T>(
        &self,
        name: &str,
        attribute_type: i32,
        value: impl Fn(&'a AttributeProto) -> Option<T>,
        zero: T,
    ) -> Outcome<Option<T>> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(None);
        };
        match (attribute.r#type, value(attribute)) {
            (None | Some(0), Some(value)) => Ok(Some(value)),
            (Some(stated), value) if stated == attribute_type => Ok(Some(value.unwrap_or(zero))),
            _ => invalid(format!("attribute {name} has the wrong type")),
        }
    }

    pub fn int_if_given(&self, name: &str) -> Outcome<Option<i64>> {
        self.scalar(name, attribute_type::INT, |attribute| attribute.i, 0)
    }

    pub fn int(&self, name: &str, default: i64) -> Outcome<i64> {
        Ok(self.int_if_given(name)?.unwrap_or(default))
    }

    /// An attribute that is 0 or 1.
    pub fn flag(&self, name: &str, default: bool) -> Outcome<bool> {
        match self.int(name, default.into())? {
            0 => Ok(false),
            1 => Ok(true),
            other => invalid(format!("{name} is {other}, expected 0 or 1")),
        }
    }

    pub fn float_if_given(&self, name: &str) -> Outcome<Option<f32>> {
        self.scalar(name, attribute_type::FLOAT, |attribute| attribute.f, 0.0)
    }

    pub fn float(&self, name: &str, default: f32) -> Outcome<f32> {
        Ok(self.float_if_given(name)?.unwrap_or(default))
    }

    pub fn string(&self, name: &str, default: &'static str) -> Outcome<&'a str> {
        let bytes = self.scalar(name, attribute_type::STRING, |attribute| attribute.s.as_deref(), &[][..])?;
        match bytes.map(std::str::from_utf8) {
            None => Ok(default),
            Some(Ok(string)) => Ok(string),
            Some(Err(_)) => invalid(format!("attribute {name} is not UTF-8")),
        }
    }

    pub fn ints(&self, name: &str) -> Outcome<Option<&'a [i64]>> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(None);
        };
        match attribute.r#type {
            None | Some(0 | attribute_type::INTS) => Ok(Some(&attribute.ints)),
            _ => invalid(format!("attribute {name} has the wrong type")),
        }
    }

    pub fn floats(&self, name: &str) -> Outcome<Option<&'a [f32]>> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(None);
        };
        match attribute.r#type {
            None | Some(0 | attribute_type::FLOATS) => Ok(Some(&attribute.floats)),
            _ => invalid(format!("attribute {name} has the wrong type")),
        }
    }

    pub fn tensor(&self, name: &str) -> Outcome<Option<TensorMessage<'a>>> {
        let Some(attribute) = self.attribute(name) else {
            return Ok(None);
        };
        match (&attribute.t, attribute.r#type) {
            (Some(tensor), None | Some(0 | attribute_type::TENSOR)) => match TensorMessage::decode(tensor) {
                Ok(tensor) => Ok(Some(tensor)),
                Err(error) => invalid(format!("attribute {name}: {error}")),
            },
            _ => invalid(format!("attribute {name} has the wrong type")),
        }
    }

    /// The name of an input; none where an optional one is left out.
    pub fn input(&self, at: usize) -> Option<&'a str> {
        self.proto.input.get(at).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The name of an output; none where it is left out.
    pub fn output(&self, at: usize) -> Option<&'a str> {
        self.proto.output.get(at).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Refuses inputs beyond the last that the operator has.
    pub fn at_most_inputs(&self, count: usize) -> Outcome<()> {
        let found = self.proto.input.len();
        if found > count { invalid(format!("{found} inputs, expected at most {count}")) } else { Ok(()) }
    }
}

/// A dimension as the file counts it: from the last one where negative.
pub(super) fn axis(axis: i64, rank: usize) -> Outcome<usize> {
    let signed_rank = rank as i64;
    let from_first = if axis < 0 { axis.saturating_add(signed_rank) } else { axis };
    if (0..signed_rank).contains(&from_first) {
        Ok(from_first as usize)
    } else {
        invalid(format!("there is no dimension {axis} of {rank}"))
    }
}

/// Several dimensions, in ascending order; a repeated one is refused.
pub(super) fn axes(list: &[i64], rank: usize) -> Outcome<Vec<usize>> {
    let mut found = list.iter().map(|&at| axis(at, rank)).collect::<Outcome<Vec<usize>>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair[0] == pair[1]) {
        return invalid(format!("a dimension is named twice in {list:?}"));
    }
    Ok(found)
}
