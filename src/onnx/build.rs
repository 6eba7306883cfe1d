//! Writes ONNX files: a list of nodes, initializers, inputs and outputs, in the order they are added.

use super::proto::{
    AttributeProto, Dimension, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorMessage, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto,
    ValueInfoProto, attribute_type, element_type, encode,
};
use crate::tensor::{DType, Data, Tensor};

/// An ONNX model that is being written.
///
/// Nothing is checked: a file that contradicts itself can be written as well.
/// ```
/// use sinew::onnx::{Builder, ImportOptions, import};
/// use sinew::{DType, Tensor};
///
/// # fn main() -> sinew::Result<()> {
/// let mut model = Builder::new("tiny");
/// model.input("x", DType::F32, [1, 2]);
/// model.constant("w", &Tensor::f32([2, 3], vec![1.0; 6])?);
/// model.node("product", "MatMul", &["x", "w"], &["t"], &[]);
/// model.node("act", "LeakyRelu", &["t"], &["y"], &[("alpha", 0.1.into())]);
/// model.output("y", DType::F32, [1, 3]);
/// let graph = import(&model.encode(), &ImportOptions::default())?.graph;
/// assert_eq!(graph.shape(graph.outputs[0]), [1, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Builder {
    model: ModelProto,
    graph: GraphProto,
    initializers: Vec<TensorMessage<'static>>,
}

/// The value of a node's attribute.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// An integer.
    Int(i64),
    /// A number.
    Float(f32),
    /// A text.
    String(String),
    /// Integers.
    Ints(Vec<i64>),
    /// Numbers.
    Floats(Vec<f32>),
    /// A tensor.
    Tensor(Tensor),
}

/// The extent of a dimension of an input or output.
#[derive(Clone, Debug)]
pub enum Extent {
    /// A number; ONNX allows what makes no sense.
    Fixed(i64),
    /// A name that stands for a number.
    Symbol(String),
    /// Nothing is said.
    Unknown,
}

impl Builder {
    /// An empty model of operator set 17.
    pub fn new(name: impl Into<String>) -> Self {
        let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(17) };
        let model = ModelProto {
            ir_version: Some(8),
            producer_name: Some("sinew".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            opset_import: vec![opset],
            metadata_props: Vec::new(),
        };
        let graph = GraphProto { name: Some(name.into()), ..GraphProto::default() };
        Self { model, graph, initializers: Vec::new() }
    }

    /// The operator set whose meaning the nodes have.
    pub fn opset(&mut self, version: i64) -> &mut Self {
        self.model.opset_import[0].version = Some(version);
        self
    }

    /// The version of the file format.
    pub fn ir_version(&mut self, version: i64) -> &mut Self {
        self.model.ir_version = Some(version);
        self
    }

    /// Adds an input.
    pub fn input(&mut self, name: &str, dtype: DType, shape: impl IntoIterator<Item = impl Into<Extent>>) {
        self.input_of_type(name, element_type_of(dtype), shape);
    }

    /// Adds an input of any element type of ONNX, by its number there.
    pub fn input_of_type(
        &mut self,
        name: &str,
        element_type: i32,
        shape: impl IntoIterator<Item = impl Into<Extent>>,
    ) {
        self.graph.input.push(value_info(name, element_type, shape));
    }

    /// Adds an output: the name of a value that a node writes.
    pub fn output(&mut self, name: &str, dtype: DType, shape: impl IntoIterator<Item = impl Into<Extent>>) {
        self.graph.output.push(value_info(name, element_type_of(dtype), shape));
    }

    /// Adds an initializer.
    pub fn constant(&mut self, name: &str, tensor: &Tensor) {
        self.initializers.push(tensor_message(name, tensor));
    }

    /// Adds an initializer of any element type of ONNX, by its number there, with its little-endian bytes.
    pub fn constant_of_type(&mut self, name: &str, element_type: i32, shape: &[i64], bytes: Vec<u8>) {
        let proto = TensorProto {
            dims: shape.to_vec(),
            data_type: Some(element_type),
            name: Some(name.to_owned()),
            ..TensorProto::default()
        };
        self.initializers.push(TensorMessage { proto, raw_data: Some(bytes.into()) });
    }

    /// Adds an initializer whose elements are said to be in another file.
    pub fn external_constant(&mut self, name: &str, shape: &[i64]) {
        let proto = TensorProto {
            dims: shape.to_vec(),
            data_type: Some(element_type::FLOAT),
            name: Some(name.to_owned()),
            data_location: Some(1),
            ..TensorProto::default()
        };
        self.initializers.push(TensorMessage { proto, raw_data: None });
    }

    /// Adds a node. An empty name of an input or output leaves it out.
    pub fn node(
        &mut self,
        name: &str,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        // "domain::Operator" for operators that are not ONNX's own.
        let (domain, op) = match op.split_once("::") {
            Some((domain, op)) => (Some(domain.to_owned()), op),
            None => (None, op),
        };
        self.graph.node.push(NodeProto {
            input: owned(inputs),
            output: owned(outputs),
            name: Some(name.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: attributes.iter().map(|(name, value)| attribute_proto(name, value)).collect(),
            domain,
        });
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.model, &self.graph, &self.initializers)
    }

    /// Adds an entry to the model's metadata, which no engine needs.
    pub fn metadata(&mut self, key: &str, value: &str) {
        let entry = StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) };
        self.model.metadata_props.push(entry);
    }
}

fn element_type_of(dtype: DType) -> i32 {
    match dtype {
        DType::F32 => element_type::FLOAT,
        DType::U8 => element_type::UINT8,
        DType::I64 => element_type::INT64,
    }
}

fn value_info(
    name: &str,
    element_type: i32,
    shape: impl IntoIterator<Item = impl Into<Extent>>,
) -> ValueInfoProto {
    let dimension = |extent: Extent| DimensionProto {
        value: match extent {
            Extent::Fixed(d) => Some(Dimension::Value(d)),
            Extent::Symbol(symbol) => Some(Dimension::Symbol(symbol)),
            Extent::Unknown => None,
        },
    };
    let dim = shape.into_iter().map(|extent| dimension(extent.into())).collect();
    let tensor_type =
        TensorTypeProto { elem_type: Some(element_type), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

fn tensor_message(name: &str, tensor: &Tensor) -> TensorMessage<'static> {
    let bytes: Vec<u8> = match tensor.data() {
        Data::F32(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::U8(data) => data.clone(),
        Data::I64(data) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
    };
    let proto = TensorProto {
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(element_type_of(tensor.dtype())),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    };
    TensorMessage { proto, raw_data: Some(bytes.into()) }
}

fn attribute_proto(name: &str, value: &Attribute) -> AttributeProto {
    let mut attribute = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    attribute.r#type = Some(match value {
        Attribute::Int(i) => {
            attribute.i = Some(*i);
            attribute_type::INT
        }
        Attribute::Float(f) => {
            attribute.f = Some(*f);
            attribute_type::FLOAT
        }
        Attribute::String(s) => {
            attribute.s = Some(s.clone().into_bytes());
            attribute_type::STRING
        }
        Attribute::Ints(ints) => {
            attribute.ints = ints.clone();
            attribute_type::INTS
        }
        Attribute::Floats(floats) => {
            attribute.floats = floats.clone();
            attribute_type::FLOATS
        }
        Attribute::Tensor(tensor) => {
            attribute.t = Some(tensor_message("", tensor).encode());
            attribute_type::TENSOR
        }
    });
    attribute
}

impl From<usize> for Extent {
    fn from(d: usize) -> Self {
        Extent::Fixed(i64::try_from(d).unwrap_or(i64::MAX))
    }
}

impl From<&usize> for Extent {
    fn from(d: &usize) -> Self {
        (*d).into()
    }
}

/// A symbol; a text that is a number is a fixed extent, "" an unknown one.
impl From<&str> for Extent {
    fn from(text: &str) -> Self {
        match (text, text.parse()) {
            ("", _) => Extent::Unknown,
            (_, Ok(d)) => Extent::Fixed(d),
            _ => Extent::Symbol(text.to_owned()),
        }
    }
}

impl From<i64> for Attribute {
    fn from(i: i64) -> Self {
        Attribute::Int(i)
    }
}

impl From<f32> for Attribute {
    fn from(f: f32) -> Self {
        Attribute::Float(f)
    }
}

impl From<&str> for Attribute {
    fn from(s: &str) -> Self {
        Attribute::String(s.to_owned())
    }
}

impl From<&[usize]> for Attribute {
    fn from(sizes: &[usize]) -> Self {
        Attribute::Ints(sizes.iter().map(|&i| i as i64).collect())
    }
}

impl<const N: usize> From<[i64; N]> for Attribute {
    fn from(ints: [i64; N]) -> Self {
        Attribute::Ints(ints.to_vec())
    }
}

impl<const N: usize> From<[f32; N]> for Attribute {
    fn from(floats: [f32; N]) -> Self {
        Attribute::Floats(floats.to_vec())
    }
}

impl From<Tensor> for Attribute {
    fn from(tensor: Tensor) -> Self {
        Attribute::Tensor(tensor)
    }
}
