//! ONNX bytes to a graph in normal form: NCHW, every shape known, constants folded, every convolution with a bias.
//!
//! A node becomes operators of the graph, or, where its operands are known, a constant; `Identity`, `Dropout` and `Cast`
//! to float become nothing. Files are not trusted: sizes are checked before anything is allocated.

mod constant;
mod elementwise;
mod fold;
mod layout;
mod matrix;
mod node;
mod reduce;
mod resize;
mod shape_arithmetic;
mod window;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use prost::Message;

use self::constant::{Constant, Conversions, Decoded, Elements};
use self::node::{NodeView, Outcome, Problem, invalid, unsupported};
use super::proto::{Dimension, GraphProto, ModelProto, NodeProto, ValueInfoProto, element_type};
use crate::error::{Error, Result, Unsupported};
use crate::graph::{Graph, Op, Value, ValueId};
use crate::tensor::{DType, Tensor};
use sinew_kernels::activation::Activation;

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
        Self { bytes: 1 << 31, nodes: 100_000, dims: 8, elements: 1 << 31, macs: 100_000_000_000_000 }
    }
}

/// A file read.
#[derive(Debug)]
pub struct Imported {
    /// The network.
    pub graph: Graph,
    /// What a user should know: conversions, extents that were assumed.
    pub notices: Vec<String>,
    /// The operator set of the file.
    pub opset: i64,
    /// Who wrote the file, with the version.
    pub producer: String,
}

/// Reads an ONNX model.
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
    let Some(graph) = model.graph else {
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
    importer.run(graph, options)?;
    let Importer { mut graph, mut notices, conversions, .. } = importer;
    graph.remove_unused();
    graph.check()?;
    notices.extend(conversions.notices());
    let producer =
        [model.producer_name, model.producer_version].into_iter().flatten().filter(|part| !part.is_empty());
    Ok(Imported { graph, notices, opset, producer: producer.collect::<Vec<_>>().join(" ") })
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
    fn run(&mut self, graph: GraphProto, options: &ImportOptions) -> Result<()> {
        let GraphProto { node: nodes, initializer, input, output, sparse_initializer, .. } = graph;
        if !sparse_initializer.is_empty() {
            let reason = "sparse initializers are not implemented".to_owned();
            return Err(Error::Tensor { tensor: String::new(), reason });
        }
        for (what, count) in [
            ("the number of nodes", nodes.len()),
            ("the number of initializers", initializer.len()),
            ("the number of inputs", input.len()),
            ("the number of outputs", output.len()),
        ] {
            check_limit(what, count as u64, self.limits.nodes as u64)?;
        }
        for tensor in initializer {
            let name = tensor.name.clone().unwrap_or_default();
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

    fn inputs(&mut self, inputs: &[ValueInfoProto], shapes: &[(String, Vec<usize>)]) -> Result<()> {
        let mut names = Vec::new();
        let mut seen = HashSet::new();
        for input in inputs {
            let name = input.name.clone().unwrap_or_default();
            if !seen.insert(name.clone()) {
                return Err(Error::Tensor { tensor: name, reason: "is an input twice".to_owned() });
            }
            // Before version 4 of the format initializers were listed as inputs as well: they are constants.
            if self.values.contains_key(&name) {
                continue;
            }
            names.push(name.clone());
            let tensor_type = input.r#type.as_ref().and_then(|of| of.tensor_type.as_ref());
            let found = tensor_type.and_then(|of| of.elem_type);
            let dtype = match found {
                Some(element_type::FLOAT) => DType::F32,
                Some(element_type::UINT8) => DType::U8,
                Some(element_type::INT64) => DType::I64,
                _ => {
                    let reason = match found {
                        Some(found) => format!("element type {}", element_type::name(found)),
                        None => "no tensor".to_owned(),
                    };
                    self.unsupported.push(Unsupported { node: name.clone(), op: "input".to_owned(), reason });
                    self.define(name, Known::Unknown, "input")?;
                    continue;
                }
            };
            let declared = tensor_type.and_then(|of| of.shape.as_ref()).map(|shape| {
                shape.dim.iter().map(|dim| dim.value.as_ref()).collect::<Vec<Option<&Dimension>>>()
            });
            let asked = shapes.iter().filter(|(of, _)| *of == name).map(|(_, shape)| shape.as_slice());
            let asked: Vec<&[usize]> = asked.collect();
            if asked.len() > 1 {
                return Err(option_error(&name, "given twice".to_owned()));
            }
            let shape = self.input_shape(&name, declared.as_deref(), asked.first().copied())?;
            let id = self.graph.add_value(name.clone(), shape, dtype);
            self.check_value(id)?;
            self.graph.inputs.push(id);
            self.define(name, Known::Computed(id, dtype), "input")?;
        }
        match shapes.iter().find(|(name, _)| !names.contains(name)) {
            Some((name, _)) => {
                let reason = format!("the model has no such input; it has {}", names.join(", "));
                Err(option_error(name, reason))
            }
            None => Ok(()),
        }
    }

    /// The extents of an input: those of the file, with those asked for in place of the unknown ones and of the batch.
    fn input_shape(
        &mut self,
        name: &str,
        declared: Option<&[Option<&Dimension>]>,
        asked: Option<&[usize]>,
    ) -> Result<Vec<usize>> {
        let error = |reason| Err(Error::Tensor { tensor: name.to_owned(), reason });
        if let Some(asked) = asked
            && asked.contains(&0)
        {
            return Err(option_error(name, format!("an extent is 0 in {}", by_x(asked))));
        }
        let Some(declared) = declared else {
            return match asked {
                Some(asked) => Ok(asked.to_vec()),
                None => error(format!(
                    "its shape is not declared; give it with --shape {name}=1x3x224x224 or the like"
                )),
            };
        };
        check_limit(
            &format!("the number of dimensions of \"{name}\""),
            declared.len() as u64,
            self.limits.dims as u64,
        )?;
        if let Some(asked) = asked
            && asked.len() != declared.len()
        {
            let text = declared_text(declared);
            return Err(option_error(name, format!("{} extents, the file declares {text}", asked.len())));
        }
        let mut shape = Vec::with_capacity(declared.len());
        for (i, dimension) in declared.iter().enumerate() {
            // Some exporters write -1 where they mean an unknown extent.
            let fixed = match dimension {
                Some(Dimension::Value(-1)) | Some(Dimension::Symbol(_)) | None => None,
                Some(Dimension::Value(d)) => match usize::try_from(*d) {
                    Ok(d) if d > 0 => Some(d),
                    _ => {
                        return error(format!(
                            "extent {d} in its declared shape {}",
                            declared_text(declared)
                        ));
                    }
                },
            };
            shape.push(match (fixed, asked.map(|asked| asked[i])) {
                (Some(d), None) => d,
                (Some(d), Some(asked)) if d == asked => d,
                (Some(d), Some(asked)) if i == 0 => {
                    self.notices
                        .push(format!("input \"{name}\": batch {asked} as asked for, the file says {d}"));
                    asked
                }
                (Some(d), Some(asked)) => {
                    let text = declared_text(declared);
                    let reason = format!("{asked} in dimension {i}, the file fixes {d} ({text})");
                    return Err(option_error(name, reason));
                }
                (None, Some(asked)) => asked,
                (None, None) if i == 0 => {
                    let text = declared_text(declared);
                    self.notices
                        .push(format!("input \"{name}\" {text}: batch 1 is assumed; --shape sets another"));
                    1
                }
                (None, None) => {
                    return error(format!(
                        "its declared shape {} leaves extents open; give all of them: --shape {name}={}",
                        declared_text(declared),
                        example(declared)
                    ));
                }
            });
        }
        Ok(shape)
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

    fn outputs(&mut self, outputs: &[ValueInfoProto]) -> Result<()> {
        if outputs.is_empty() {
            return Err(malformed("the graph has no outputs".to_owned()));
        }
        let (mut names, mut written) = (HashSet::new(), HashSet::new());
        for output in outputs {
            let name = output.name.clone().unwrap_or_default();
            let error = |reason: &str| Err(Error::Tensor { tensor: name.clone(), reason: reason.to_owned() });
            let mut refuse = |reason: String| {
                self.unsupported.push(Unsupported { node: name.clone(), op: "output".to_owned(), reason });
            };
            let id = match self.values.get(&name) {
                None => return error("is an output, but nothing defines it"),
                Some(Known::Unknown) => continue,
                Some(Known::Unusable(reason)) => {
                    refuse(reason.clone());
                    continue;
                }
                Some(&Known::Computed(id, dtype)) => {
                    let refused = match (dtype, self.producers.contains_key(&id)) {
                        (DType::F32, _) => None,
                        (_, false) => Some(format!("an input of type {} as an output", dtype.name())),
                        (_, true) if written.contains(&id) => Some("integers under a second name".to_owned()),
                        (_, true) => None,
                    };
                    if let Some(reason) = refused {
                        refuse(reason);
                        continue;
                    }
                    id
                }
                Some(Known::Constant(constant)) => match constant.elements {
                    Elements::Float(_) => {
                        let constant = Rc::clone(constant);
                        self.constant_value(&constant)
                    }
                    Elements::Int(..) => {
                        refuse("a constant of integers".to_owned());
                        continue;
                    }
                },
            };
            if !names.insert(name.clone()) {
                return error("is an output twice");
            }
            // An output is written by a node of its own; its value bears its name.
            let own = if self.producers.contains_key(&id) && !written.contains(&id) {
                id
            } else {
                let own = self.graph.add_node(name.clone(), Op::Unary(Activation::Identity), vec![id])?;
                self.producers.insert(own, self.graph.nodes.len() - 1);
                own
            };
            written.insert(own);
            self.graph.values[own.0].name = name;
            self.graph.outputs.push(own);
        }
        Ok(())
    }

    // ---- what operators build on ----

    /// What an input is; it must be given.
    fn known(&self, node: &NodeView, at: usize) -> Outcome<&Known> {
        let Some(name) = node.input(at) else {
            return invalid(format!("input {at} is missing"));
        };
        match &self.values[name] {
            Known::Unknown => Err(Problem::UnknownOperand),
            Known::Unusable(reason) => unsupported(reason.clone()),
            known => Ok(known),
        }
    }

    /// An f32 operand, computed or constant.
    fn float(&mut self, node: &NodeView, at: usize) -> Outcome<ValueId> {
        match self.known(node, at)? {
            Known::Computed(id, DType::F32) => Ok(*id),
            Known::Constant(constant) if matches!(constant.elements, Elements::Float(_)) => {
                let constant = Rc::clone(constant);
                if constant.shape.contains(&0) {
                    return unsupported(format!("operand \"{}\" is empty", constant.name));
                }
                Ok(self.constant_value(&constant))
            }
            _ => unsupported(format!("operand \"{}\" holds integers", node.input(at).unwrap_or_default())),
        }
    }

    /// A known operand; none where it is computed.
    fn constant(&self, node: &NodeView, at: usize) -> Outcome<Option<Rc<Constant>>> {
        Ok(match self.known(node, at)? {
            Known::Constant(constant) => Some(Rc::clone(constant)),
            _ => None,
        })
    }

    /// A known f32 operand, such as weights; `what` it is goes into the message where it is computed.
    fn float_constant(&self, node: &NodeView, at: usize, what: &str) -> Outcome<Rc<Constant>> {
        match self.constant(node, at)? {
            None => unsupported(format!("{what} \"{}\" is no constant", node.input(at).unwrap_or_default())),
            Some(constant) if constant.as_f32().is_none() => unsupported(format!("{what} holds integers")),
            Some(constant) => Ok(constant),
        }
    }

    /// Known integers: a shape, axes, pads.
    fn ints(&self, node: &NodeView, at: usize, what: &str) -> Outcome<Vec<i64>> {
        match self.constant(node, at)? {
            None => unsupported(format!("{what} \"{}\" is no constant", node.input(at).unwrap_or_default())),
            Some(constant) => match constant.as_ints() {
                Some(ints) => Ok(ints.to_vec()),
                None => invalid(format!("{what} holds no integers")),
            },
        }
    }

    /// The shape of an operand, computed or constant.
    fn shape(&self, node: &NodeView, at: usize) -> Outcome<Vec<usize>> {
        Ok(match self.known(node, at)? {
            Known::Computed(id, _) => self.graph.shape(*id).to_vec(),
            Known::Constant(constant) => constant.shape.clone(),
            Known::Unusable(_) | Known::Unknown => return Err(Problem::UnknownOperand),
        })
    }

    /// The graph's value of a constant, made at its first use.
    fn constant_value(&mut self, constant: &Rc<Constant>) -> ValueId {
        if let Some(id) = constant.value.get() {
            return id;
        }
        let Elements::Float(tensor) = &constant.elements else {
            unreachable!("callers ask for f32 constants only");
        };
        self.graph.values.push(Value {
            name: constant.name.clone(),
            shape: constant.shape.clone(),
            dtype: DType::F32,
            constant: Some(Arc::clone(tensor)),
        });
        let id = ValueId(self.graph.values.len() - 1);
        constant.value.set(Some(id));
        id
    }

    /// Adds a constant that the file does not hold.
    fn add_constant(&mut self, name: String, shape: Vec<usize>, elements: Vec<f32>) -> Outcome<ValueId> {
        Ok(self.graph.add_constant(name, Tensor::f32(shape, elements)?))
    }

    /// Counts elements that are about to be made from constants.
    fn reserve(&mut self, elements: u64) -> Outcome<()> {
        self.folded = self.folded.saturating_add(elements);
        Ok(check_limit("the number of elements folded from constants", self.folded, self.limits.elements)?)
    }

    /// As [`Importer::reserve`], for a shape.
    fn reserve_shape(&mut self, shape: &[usize]) -> Outcome<()> {
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d as u64)).unwrap_or(u64::MAX);
        self.reserve(count)
    }

    fn check_value(&self, id: ValueId) -> Result<()> {
        let value = self.graph.value(id);
        let dims = value.shape.len() as u64;
        check_limit(
            &format!("the number of dimensions of \"{}\"", value.name),
            dims,
            self.limits.dims as u64,
        )?;
        let count = value.shape.iter().fold(1u64, |n, &d| n.saturating_mul(d as u64));
        check_limit(&format!("the number of elements of \"{}\"", value.name), count, self.limits.elements)
    }

    /// Adds an operator whose output is no output of the node.
    fn part(&mut self, node: &NodeView, suffix: &str, op: Op, inputs: Vec<ValueId>) -> Outcome<ValueId> {
        self.add(format!("{}/{suffix}", node.name), node, op, inputs)
    }

    fn add(&mut self, name: String, node: &NodeView, op: Op, inputs: Vec<ValueId>) -> Outcome<ValueId> {
        let id = self.graph.add_node(name, op, inputs).map_err(|error| match error {
            // In the file's words.
            Error::Node { reason, .. } => Problem::Invalid(reason),
            other => Problem::Fatal(other),
        })?;
        self.check_value(id)?;
        let at = self.graph.nodes.len() - 1;
        self.producers.insert(id, at);
        self.macs = self.macs.saturating_add(self.graph.node_macs(&self.graph.nodes[at]));
        check_limit(
            &format!("the number of multiply-accumulates up to \"{}\"", node.name),
            self.macs,
            self.limits.macs,
        )?;
        Ok(id)
    }

    /// Adds the operator that writes an output of the node.
    fn emit_at(&mut self, node: &NodeView, output: usize, op: Op, inputs: Vec<ValueId>) -> Outcome<()> {
        let dtype = op.output_dtype();
        let name = match output {
            0 => node.name.clone(),
            _ => format!("{}/{output}", node.name),
        };
        let id = self.add(name, node, op, inputs)?;
        if let Some(name) = node.output(output) {
            self.graph.values[id.0].name = name.to_owned();
        }
        self.bind(node, output, Known::Computed(id, dtype));
        Ok(())
    }

    /// Adds the operator that writes the node's first output.
    fn emit(&mut self, node: &NodeView, op: Op, inputs: Vec<ValueId>) -> Outcome<()> {
        self.emit_at(node, 0, op, inputs)
    }

    /// Says what an output of the node is.
    fn bind(&mut self, node: &NodeView, output: usize, known: Known) {
        if let Some(name) = node.output(output) {
            self.values.insert(name.to_owned(), known);
        }
    }

    /// The node's first output is a constant.
    fn bind_constant(&mut self, node: &NodeView, constant: Constant) {
        self.bind(node, 0, Known::Constant(Rc::new(constant)));
    }

    /// The node's first output is one of its inputs.
    fn forward(&mut self, node: &NodeView, at: usize) -> Outcome<()> {
        let known = self.known(node, at)?.clone();
        self.bind(node, 0, known);
        Ok(())
    }

    /// A value in another shape: itself where the shape is the same, the source where it was reshaped already.
    fn reshaped(&mut self, node: &NodeView, suffix: &str, x: ValueId, shape: Vec<usize>) -> Outcome<ValueId> {
        let source = self.reshape_source(x);
        if self.graph.shape(source) == shape {
            return Ok(source);
        }
        self.part(node, suffix, Op::Reshape { shape }, vec![source])
    }

    /// What a value is a mere reshape of; itself where it is none.
    fn reshape_source(&self, x: ValueId) -> ValueId {
        match self.producers.get(&x).map(|&at| &self.graph.nodes[at]) {
            Some(producer) if matches!(producer.op, Op::Reshape { .. }) => producer.inputs[0],
            _ => x,
        }
    }

    /// The node's first output is `x` in another shape.
    fn emit_reshape(&mut self, node: &NodeView, x: ValueId, shape: Vec<usize>) -> Outcome<()> {
        if self.graph.shape(x) == shape {
            self.bind(node, 0, Known::Computed(x, DType::F32));
            return Ok(());
        }
        let source = self.reshape_source(x);
        if self.graph.shape(source) == shape {
            self.bind(node, 0, Known::Computed(source, DType::F32));
            return Ok(());
        }
        self.emit(node, Op::Reshape { shape }, vec![source])
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

fn option_error(name: &str, reason: String) -> Error {
    Error::Option { option: format!("--shape {name}"), reason }
}

fn by_x(shape: &[usize]) -> String {
    shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// A declared shape as the file has it: `[batch, 3, ?, ?]`.
fn declared_text(declared: &[Option<&Dimension>]) -> String {
    let dims = declared.iter().map(|dimension| match dimension {
        Some(Dimension::Value(d)) => d.to_string(),
        Some(Dimension::Symbol(symbol)) if !symbol.is_empty() => symbol.clone(),
        _ => "?".to_owned(),
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

/// A `--shape` value that fits: 1 for the batch, 224 for what is open.
fn example(declared: &[Option<&Dimension>]) -> String {
    let dims = declared.iter().enumerate().map(|(i, dimension)| match dimension {
        Some(Dimension::Value(d)) if *d > 0 => d.to_string(),
        _ if i == 0 => "1".to_owned(),
        _ => "224".to_owned(),
    });
    dims.collect::<Vec<_>>().join("x")
}
