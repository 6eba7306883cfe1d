//! The ONNX messages, by hand: the fields that are read or written, with the tags of `onnx.proto`; others are skipped.
//!
//! What is refused anyway (nested graphs, sparse tensors, functions) is kept as undecoded bytes: its presence is known
//! and nothing recurses. Scalars are optional and lists unpacked where the original (proto2) has them so; readers tell
//! an absent value from a zero.

use std::borrow::Cow;

use prost::encoding::encode_varint;
use prost::{DecodeError, Message, Oneof};

use crate::error::{Error, Result};

/// A model file, without its graph: see [`encode`] and [`parts`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub producer_version: Option<String>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringStringEntryProto {
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

/// A graph, without its initializers.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
    /// `SparseTensorProto`, undecoded.
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub sparse_initializer: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    /// A [`TensorMessage`], undecoded.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub t: Option<Vec<u8>>,
    /// `GraphProto`, undecoded.
    #[prost(bytes = "vec", optional, tag = "6")]
    pub g: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    /// `GraphProto`, undecoded.
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub graphs: Vec<Vec<u8>>,
    #[prost(int32, optional, tag = "20")]
    pub r#type: Option<i32>,
}

/// Values of `AttributeProto.type`.
pub(crate) mod attribute_type {
    pub const FLOAT: i32 = 1;
    pub const INT: i32 = 2;
    pub const STRING: i32 = 3;
    pub const TENSOR: i32 = 4;
    pub const FLOATS: i32 = 6;
    pub const INTS: i32 = 7;
}

/// A tensor, without its elements as raw bytes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    pub data_type: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

/// A tensor and its elements as raw bytes, where it has such: they are read where they lie in the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct TensorMessage<'a> {
    pub proto: TensorProto,
    pub raw_data: Option<Cow<'a, [u8]>>,
}

impl<'a> TensorMessage<'a> {
    pub(crate) fn decode(bytes: &'a [u8]) -> std::result::Result<Self, DecodeError> {
        let proto = TensorProto::decode(bytes)?;
        Ok(Self { proto, raw_data: parts(bytes, RAW_DATA_FIELD).last().map(Cow::Borrowed) })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.proto.encode_to_vec();
        if let Some(raw_data) = &self.raw_data {
            append(RAW_DATA_FIELD, raw_data, &mut bytes);
        }
        bytes
    }
}

/// Values of `TensorProto.data_type` and `TypeProto.Tensor.elem_type`.
pub(crate) mod element_type {
    pub const FLOAT: i32 = 1;
    pub const UINT8: i32 = 2;
    pub const INT32: i32 = 6;
    pub const INT64: i32 = 7;
    pub const BOOL: i32 = 9;
    pub const FLOAT16: i32 = 10;
    pub const DOUBLE: i32 = 11;
    pub const BFLOAT16: i32 = 16;

    /// The name in messages.
    pub fn name(element_type: i32) -> String {
        const NAMES: [&str; 17] = [
            "undefined",
            "float",
            "uint8",
            "int8",
            "uint16",
            "int16",
            "int32",
            "int64",
            "string",
            "bool",
            "float16",
            "double",
            "uint32",
            "uint64",
            "complex64",
            "complex128",
            "bfloat16",
        ];
        let known = usize::try_from(element_type).ok().and_then(|at| NAMES.get(at));
        known.map_or_else(|| format!("element type {element_type}"), |&name| name.to_owned())
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    #[prost(int32, optional, tag = "1")]
    pub elem_type: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

/// `TensorShapeProto.Dimension`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct DimensionProto {
    #[prost(oneof = "Dimension", tags = "1, 2")]
    pub value: Option<Dimension>,
}

/// The value of a dimension; none where it is unknown.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Dimension {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Symbol(String),
}

/// Counts what decoding would allocate for, without allocating, and refuses more than `nodes` allows.
///
/// A message of two bytes becomes a struct of hundreds: the size of the file alone bounds too little.
///
/// # Errors
/// Where there are more; what is malformed is left to the decoder.
pub(crate) fn check_counts(bytes: &[u8], nodes: usize) -> Result<()> {
    // Names, attributes and dimensions: a node has a few of each.
    let limit = (nodes as u64).saturating_mul(64);
    let mut found = 0;
    count(bytes, &MODEL, &mut found, limit);
    if found > limit {
        let what = "the number of names, attributes and other parts".to_owned();
        return Err(Error::TooLarge { what, found, limit });
    }
    Ok(())
}

/// The fields of a message that are messages of a known kind themselves.
struct Kind(&'static [(u64, &'static Kind)]);

const MODEL: Kind = Kind(&[(7, &GRAPH), (8, &LEAF)]);
const GRAPH: Kind = Kind(&[(1, &NODE), (5, &LEAF), (11, &VALUE_INFO), (12, &VALUE_INFO)]);
const NODE: Kind = Kind(&[(5, &ATTRIBUTE)]);
const ATTRIBUTE: Kind = Kind(&[(5, &LEAF)]);
const VALUE_INFO: Kind = Kind(&[(2, &TYPE)]);
const TYPE: Kind = Kind(&[(1, &TENSOR_TYPE)]);
const TENSOR_TYPE: Kind = Kind(&[(2, &SHAPE)]);
const SHAPE: Kind = Kind(&[(1, &LEAF)]);
const LEAF: Kind = Kind(&[]);

/// Adds the length-delimited fields in a message and in those of a known kind within.
fn count(bytes: &[u8], kind: &Kind, found: &mut u64, limit: u64) {
    for (number, field) in Fields(bytes) {
        if *found > limit {
            return;
        }
        let Some(field) = field else { continue };
        *found += 1;
        if let Some((_, inner)) = kind.0.iter().find(|(known, _)| *known == number) {
            count(field, inner, found, limit);
        }
    }
}

/// The number of the graph in a model, of the initializers in a graph, and of the elements in a tensor. They are most of a file:
/// found where they lie in it and read one by one, they are not in memory twice.
pub(crate) const GRAPH_FIELD: u64 = 7;
pub(crate) const INITIALIZER_FIELD: u64 = 5;
const RAW_DATA_FIELD: u64 = 9;

/// The messages, or bytes, of that number in a message.
pub(crate) fn parts(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    Fields(message).filter(move |field| field.0 == number).filter_map(|field| field.1)
}

/// The bytes of a model file.
pub(crate) fn encode(model: &ModelProto, graph: &GraphProto, initializers: &[TensorMessage<'_>]) -> Vec<u8> {
    let mut inner = graph.encode_to_vec();
    for tensor in initializers {
        append(INITIALIZER_FIELD, &tensor.encode(), &mut inner);
    }
    let mut bytes = model.encode_to_vec();
    append(GRAPH_FIELD, &inner, &mut bytes);
    bytes
}

fn append(number: u64, message: &[u8], to: &mut Vec<u8>) {
    encode_varint(number << 3 | 2, to);
    encode_varint(message.len() as u64, to);
    to.extend_from_slice(message);
}

/// The fields of a message, up to where it is malformed: the number of each, and its bytes where they have a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u64, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let key = varint(&mut self.0)?;
        let length = match key & 7 {
            0 => varint(&mut self.0).map(|_| 0)?,
            1 => 8,
            2 => varint(&mut self.0)?,
            5 => 4,
            _ => return None,
        };
        let (field, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some((key >> 3, (key & 7 == 2).then_some(field)))
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
