//! ONNX bytes to a graph in normal form: NCHW, every shape known, constants folded, every convolution with a bias, and
//! what exporters take apart put together again.
//!
//! A node becomes operators of the graph, or, where its operands are known, a constant; `Identity`, `Dropout` and `Cast`
//! to float become nothing. Files are not trusted: sizes are checked before anything is allocated.

mod constant;
mod elementwise;
mod emit;
mod fold;
mod interface;
mod layout;
mod matrix;
mod node;
mod parts;
mod reduce;
mod resize;
mod shape_arithmetic;
mod window;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use prost::Message;

use self::constant::{Constant, Conversions, Decoded, Elements, IntType};
use self::node::{NodeView, Outcome, Problem, unsupported};
use super::export::EQUIVALENT_STRIDE;
use super::proto::{
    GRAPH_FIELD, GraphProto, INITIALIZER_FIELD, ModelProto, NodeProto, StringStringEntryProto, TensorMessage,
    element_type, parts,
};
use super::recover::{Recovery, recover};
use crate::error::{Error, Result, Unsupported};
use crate::graph::{Graph, ValueId};
use crate::tensor::{DType, Data, Tensor};

/// The newest operator set whose changes are known here.
const NEWEST_OPSET: i64 = 28;
const OLDEST_OPSET: i64 = 7;

/// How a file is read.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Input names with all their extents, for inputs with unknown ones: `--shape NAME=1x3x224x224`. Extents that the file
    /// fixes cannot be changed, but for the first one, the batch.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// The most that is accepted.
    pub limits: Limits,
    /// Names of forms that stay apart as the file has them; see [`FORMS`](super::recover::FORMS).
    pub left_out: Vec<String>,
}

/// Caps on what a file may ask for, checked before anything of that size is allocated.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Nodes, initializers, inputs and outputs, each.
    pub nodes: usize,
    /// Dimensions of one tensor.
    pub dims: usize,
    /// Elements of one tensor, and of all tensors folded from constants together.
    pub elements: u64,
    /// Multiply-accumulates of one run.
    pub macs: u64,
}

impl Default for Limits {
    /// A message of protobuf ends at 2 GiB; the others are far above any network that a CPU would run.
    fn default() -> Self {
        Self { bytes: 1 << 31, nodes: 20_000, dims: 8, elements: 1 << 31, macs: 100_000_000_000_000 }
    }
}

/// A file read.
#[derive(Debug)]
pub struct Imported {
    /// The network, ready for [`Model::new`](crate::Model::new).
    pub graph: Graph,
    /// What exporters had taken apart and is one operator now, and what only looks like it.
    pub recovery: Recovery,
    /// What a user should know: conversions, extents that were assumed.
    pub notices: Vec<String>,
    /// The operator set of the file.
    pub opset: i64,
    /// Who wrote the file, with the version.
    pub producer: String,
}

/// Reads an ONNX model, and puts together the operators that exporters take apart.
///
/// # Errors
/// Where the file is malformed, contradicts itself or the options, exceeds a limit, or uses what is not implemented; in the
/// last case every such node is listed.
pub fn import(bytes: &[u8], options: &ImportOptions) -> Result<Imported> {
    let limits = &options.limits;
    check_limit("the size of the file in bytes", bytes.len() as u64, limits.bytes)?;
    super::proto::check_counts(bytes, limits.nodes)?;
    let model = ModelProto::decode(bytes).map_err(|error| malformed(error.to_string()))?;
    let opset = opset(&model)?;
    let (mut graph, mut initializers) = (None, Vec::new());
    // Where there are several, together they are one, as everywhere in protobuf.
    for part in parts(bytes, GRAPH_FIELD) {
        let graph: &mut GraphProto = graph.get_or_insert_default();
        graph.merge(part).map_err(|error| malformed(error.to_string()))?;
        initializers.extend(parts(part, INITIALIZER_FIELD));
    }
    let Some(graph) = graph else {
        return Err(malformed("it holds no graph; is it an ONNX file?".to_owned()));
    };
    let mut importer = Importer {
        limits,
        opset,
        graph: Graph { name: graph.name.clone().unwrap_or_default(), ..Graph::default() },
        values: HashMap::new(),
        producers: HashMap::new(),
        node_names: HashSet::new(),
        unsupported: Vec::new(),
        notices: Vec::new(),
        conversions: Conversions::default(),
        folded: 0,
        macs: 0,
    };
    if opset > NEWEST_OPSET {
        importer.notices.push(format!(
            "operator set {opset} is newer than {NEWEST_OPSET}, the last one known here; nodes are read as in {NEWEST_OPSET}"
        ));
    }
    importer.run(graph, &initializers, options)?;
    importer.read_equivalent_strides(&model.metadata_props);
    let Importer { mut graph, mut notices, conversions, .. } = importer;
    graph.remove_unused();
    graph.check()?;
    let recovery = recover(&mut graph, &options.left_out)?;
    notices.extend(conversions.notices());
    let producer =
        [model.producer_name, model.producer_version].into_iter().flatten().filter(|part| !part.is_empty());
    Ok(Imported { graph, recovery, notices, opset, producer: producer.collect::<Vec<_>>().join(" ") })
}

/// Reads a tensor from a file of its own, as test data comes with ONNX models: f32, u8 or i64.
///
/// # Errors
/// Where the file is malformed or holds elements of another type.
pub fn read_tensor(bytes: &[u8]) -> Result<Tensor> {
    let limits = Limits::default();
    check_limit("the size of the file in bytes", bytes.len() as u64, limits.bytes)?;
    let bad = |reason: String| Error::Malformed { what: "ONNX tensor".to_owned(), reason };
    let tensor = TensorMessage::decode(bytes).map_err(|error| bad(error.to_string()))?;
    let found = tensor.proto.data_type.unwrap_or_default();
    if !matches!(found, element_type::FLOAT | element_type::UINT8 | element_type::INT64) {
        let found = element_type::name(found);
        return Err(bad(format!("holds elements of type {found}, expected float, uint8 or int64")));
    }
    let name = tensor.proto.name.clone().unwrap_or_default();
    let decoded = constant::decode(&tensor, name, limits.dims, limits.elements, &mut Conversions::default())?;
    match decoded {
        Decoded::Constant(Constant { elements: Elements::Float(tensor), .. }) => {
            Ok(Arc::unwrap_or_clone(tensor))
        }
        Decoded::Constant(Constant { elements: Elements::Int(elements, int_type), shape, .. }) => {
            let data = match int_type {
                // In range: decoding has checked it.
                IntType::U8 => Data::U8(elements.into_iter().map(|x| x as u8).collect()),
                _ => Data::I64(elements),
            };
            Tensor::new(shape, data)
        }
        Decoded::Unusable(reason) => Err(bad(reason)),
    }
}

fn malformed(reason: String) -> Error {
    Error::Malformed { what: "ONNX model".to_owned(), reason }
}

fn check_limit(what: &str, found: u64, limit: u64) -> Result<()> {
    if found > limit { Err(Error::TooLarge { what: what.to_owned(), found, limit }) } else { Ok(()) }
}

fn is_default_domain(domain: Option<&str>) -> bool {
    matches!(domain, None | Some("" | "ai.onnx"))
}

fn opset(model: &ModelProto) -> Result<i64> {
    let own = model.opset_import.iter().find(|set| is_default_domain(set.domain.as_deref()));
    match own.map(|set| set.version.unwrap_or_default()) {
        None => {
            Err(malformed("it names no version of the ONNX operator set; is it an ONNX file?".to_owned()))
        }
        Some(version) if version < OLDEST_OPSET => {
            Err(malformed(format!("operator set {version}, expected {OLDEST_OPSET} or later")))
        }
        Some(version) => Ok(version),
    }
}

/// What is known of a name in the file.
#[derive(Clone)]
enum Known {
    /// A tensor that a caller or a node fills; the type is that of the file. Integers are whole inputs or results of
    /// ArgMax: nothing computes with them.
    Computed(ValueId, DType),
    Constant(Rc<Constant>),
    /// Something that nothing here can use; the text says what it is.
    Unusable(String),
    /// An output of a node that is not supported.
    Unknown,
}

struct Importer<'a> {
    limits: &'a Limits,
    opset: i64,
    graph: Graph,
    values: HashMap<String, Known>,
    /// The node that writes a value.
    producers: HashMap<ValueId, usize>,
    node_names: HashSet<String>,
    unsupported: Vec<Unsupported>,
    notices: Vec<String>,
    conversions: Conversions,
    /// Elements of constants made so far.
    folded: u64,
    macs: u64,
}

impl Importer<'_> {
    /// What a dense network's file says of the strides that were removed. It changes no result but which algorithm
    /// computes it, so what cannot be read is passed over.
    fn read_equivalent_strides(&mut self, entries: &[StringStringEntryProto]) {
        for entry in entries {
            let key = entry.key.as_deref().unwrap_or_default();
            let Some(name) = key.strip_prefix(EQUIVALENT_STRIDE) else { continue };
            let strides = entry.value.as_deref().and_then(|value| value.split_once('x'));
            let Some((down, across)) = strides else { continue };
            let (Ok(down @ 1..), Ok(across @ 1..)) = (down.parse(), across.parse()) else { continue };
            if let Some(&Known::Computed(id, _)) = self.values.get(name) {
                self.graph.equivalent_strides.insert(id, [down, across]);
            }
        }
    }
}

impl Importer<'_> {
    /// `initializers` are undecoded.
    fn run(&mut self, graph: GraphProto, initializers: &[&[u8]], options: &ImportOptions) -> Result<()> {
        let GraphProto { node: nodes, input, output, sparse_initializer, .. } = graph;
        if !sparse_initializer.is_empty() {
            let reason = "sparse initializers are not implemented".to_owned();
            return Err(Error::Tensor { tensor: String::new(), reason });
        }
        for (what, count) in [
            ("the number of nodes", nodes.len()),
            ("the number of initializers", initializers.len()),
            ("the number of inputs", input.len()),
            ("the number of outputs", output.len()),
        ] {
            check_limit(what, count as u64, self.limits.nodes as u64)?;
        }
        for tensor in initializers {
            let tensor = TensorMessage::decode(tensor).map_err(|error| malformed(error.to_string()))?;
            let name = tensor.proto.name.clone().unwrap_or_default();
            let known = match constant::decode(
                &tensor,
                name.clone(),
                self.limits.dims,
                self.limits.elements,
                &mut self.conversions,
            )? {
                Decoded::Constant(constant) => Known::Constant(Rc::new(constant)),
                Decoded::Unusable(reason) => Known::Unusable(reason),
            };
            self.define(name, known, "initializer")?;
        }
        self.inputs(&input, &options.shapes)?;
        let later: HashSet<&str> = nodes.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        for node in &nodes {
            self.node(node, &later)?;
        }
        self.outputs(&output)?;
        if self.unsupported.is_empty() {
            Ok(())
        } else {
            Err(Error::Unsupported(std::mem::take(&mut self.unsupported)))
        }
    }

    fn define(&mut self, name: String, known: Known, what: &str) -> Result<()> {
        if name.is_empty() {
            return Err(malformed(format!("an {what} has no name")));
        }
        match self.values.insert(name.clone(), known) {
            None => Ok(()),
            Some(_) => Err(Error::Tensor { tensor: name, reason: "the name is defined twice".to_owned() }),
        }
    }

    fn node(&mut self, proto: &NodeProto, later: &HashSet<&str>) -> Result<()> {
        let given = proto.name.as_deref().unwrap_or_default();
        let output = proto.output.iter().find(|name| !name.is_empty());
        let name = match output {
            // Names of nodes need not be unique in the file; names of outputs are.
            Some(output) if given.is_empty() || self.node_names.contains(given) => output.clone(),
            _ => given.to_owned(),
        };
        self.node_names.insert(name.clone());
        let node = NodeView { proto, name, opset: self.opset };
        let error = |reason| Error::Node { op: node.op().to_owned(), node: node.name.clone(), reason };
        for input in proto.input.iter().filter(|name| !name.is_empty()) {
            if !self.values.contains_key(input) {
                return Err(error(if later.contains(input.as_str()) {
                    format!(
                        "input \"{input}\" is written by a later node; ONNX demands that nodes are in order"
                    )
                } else {
                    format!("input \"{input}\" is not defined anywhere")
                }));
            }
        }
        if output.is_none() {
            return Err(error("it has no output".to_owned()));
        }
        let mut own = HashSet::new();
        for output in proto.output.iter().filter(|name| !name.is_empty()) {
            if self.values.contains_key(output) || !own.insert(output) {
                return Err(error(format!("its output \"{output}\" is defined already")));
            }
        }
        match self.operator(&node) {
            Ok(()) => {}
            Err(Problem::Unsupported(reason)) => {
                self.unsupported.push(Unsupported {
                    node: node.name.clone(),
                    op: operator_name(proto),
                    reason,
                });
            }
            Err(Problem::UnknownOperand) => {}
            Err(Problem::Invalid(reason)) => return Err(error(reason)),
            Err(Problem::Fatal(fatal)) => return Err(fatal),
        }
        // What an operator did not define: all outputs where it is not supported, else those that nothing here computes.
        for (i, output) in proto.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let unusable = format!("output {i} of {} \"{}\" is not computed", node.op(), node.name);
            let known = if i > 0 && self.values.contains_key(&proto.output[0]) {
                Known::Unusable(unusable)
            } else {
                Known::Unknown
            };
            self.values.entry(output.clone()).or_insert(known);
        }
        Ok(())
    }

    fn operator(&mut self, node: &NodeView) -> Outcome<()> {
        if !is_default_domain(node.proto.domain.as_deref()) {
            return unsupported("this domain of operators is not implemented");
        }
        if node.proto.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
        {
            return unsupported("nested graphs are not implemented");
        }
        match node.op() {
            "Conv" => self.conv(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "GlobalMaxPool" | "GlobalAveragePool" => self.global_pool(node),
            "ReduceMean" | "ReduceMax" => self.reduce(node),
            "ReduceProd" | "ReduceSum" | "ReduceMin" => self.reduce_constant(node),
            "ArgMax" => self.arg_max(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.mat_mul(node),
            "BatchNormalization" => self.batch_norm(node),
            "LRN" => self.lrn(node),
            "Softmax" => self.softmax(node),
            "PRelu" => self.p_relu(node),
            "Clip" => self.clip(node),
            "Pow" => self.pow(node),
            "Mish" => self.mish(node),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node),
            "Sum" | "Mean" | "Max" | "Min" => self.variadic(node),
            "Relu" | "LeakyRelu" | "Elu" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "Tanh" | "Exp"
            | "Log" | "Sqrt" | "Neg" | "Abs" | "Reciprocal" | "Erf" | "Softplus" | "Gelu" | "Swish"
            | "Celu" => self.unary(node),
            "Identity" => self.identity(node),
            "Dropout" => self.dropout(node),
            "Cast" => self.cast(node),
            "CastLike" => self.cast_like(node),
            "Constant" => self.constant_node(node),
            "ConstantOfShape" => self.constant_of_shape(node),
            "Shape" => self.shape_of(node),
            "Size" => self.size_of(node),
            "Range" => self.range(node),
            "Where" => self.select(node),
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Not" => {
                self.compare(node)
            }
            "Floor" | "Ceil" => self.round(node),
            "Gather" => self.gather(node),
            "Concat" => self.concat(node),
            "Split" => self.split(node),
            "Slice" => self.slice(node),
            "Pad" => self.pad(node),
            "Reshape" => self.reshape_node(node),
            "Flatten" => self.flatten(node),
            "Squeeze" => self.squeeze(node),
            "Unsqueeze" => self.unsqueeze(node),
            "Transpose" => self.transpose(node),
            "Expand" => self.expand(node),
            "Tile" => self.tile(node),
            "DepthToSpace" => self.depth_to_space(node),
            "SpaceToDepth" => self.space_to_depth(node),
            "Resize" | "Upsample" => self.resize(node),
            other => unsupported(reason_for(other)),
        }
    }
}

fn operator_name(proto: &NodeProto) -> String {
    let op = proto.op_type.as_deref().unwrap_or_default();
    match proto.domain.as_deref() {
        domain if is_default_domain(domain) => op.to_owned(),
        domain => format!("{}.{op}", domain.unwrap_or_default()),
    }
}

/// Why an operator that is not in the list is not there.
fn reason_for(op: &str) -> &'static str {
    match op {
        "If" | "Loop" | "Scan" | "SequenceMap" => "nested graphs are not implemented",
        "LSTM" | "GRU" | "RNN" => "recurrent layers are not implemented",
        "ConvTranspose" => "transposed convolution is not implemented",
        _ if op.starts_with("QLinear") || op.ends_with("Integer") || op.contains("Quantize") => {
            "quantised arithmetic is not implemented"
        }
        _ => "this operator is not implemented",
    }
}
