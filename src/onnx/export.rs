//! A graph to ONNX bytes, for any tool that reads them; what ONNX has no operator for becomes several nodes.

use std::collections::{HashMap, HashSet};

use super::build::{Attribute, Builder};
use crate::error::{Error, Result};
use crate::graph::{Conv, Graph, MaxMinOrder, Node, Op, Pads, Pool, PoolKind, ValueId};
use crate::tensor::{DType, Data, Tensor};
use sinew_kernels::activation::Activation;

/// Has every operator that is needed: Gelu, and averages over dilated windows.
const OPSET: i64 = 20;
/// The version of the format that came with it.
const IR_VERSION: i64 = 9;
/// `TensorProto.FLOAT`, which Cast names.
const FLOAT: i64 = 1;

/// Begins the metadata key of a value's equivalent stride; the value's name follows.
pub(super) const EQUIVALENT_STRIDE: &str = "sinew.equivalent_stride:";

/// Writes a graph as an ONNX model of operator set 20.
///
/// Inputs and outputs keep their names. An output that is an input under the input's own name is no node: the file lists
/// the name on both sides.
///
/// # Errors
/// Where the graph breaks an invariant, or an output bears the name of an input and is another value: in a file a name is
/// one value.
pub fn export(graph: &Graph) -> Result<Vec<u8>> {
    graph.check()?;
    let graph = &graph.without_excite()?;
    let mut builder = Builder::new(&graph.name);
    builder.opset(OPSET).ir_version(IR_VERSION);
    let mut writer =
        Writer { graph, builder, names: HashMap::new(), taken: HashSet::new(), nodes: HashSet::new() };
    // These are the interface: they come first, so that they keep their names.
    for &id in &graph.inputs {
        writer.name(id);
    }
    for node in graph.nodes.iter().filter(|node| hands_through(graph, node)) {
        let name = writer.name(node.inputs[0]);
        writer.names.insert(node.output, name);
    }
    for &id in &graph.outputs {
        writer.name(id);
    }
    for &id in &graph.inputs {
        writer.input(id);
    }
    for node in graph.nodes.iter().filter(|node| !hands_through(graph, node)) {
        writer.node(node)?;
    }
    for &id in &graph.outputs {
        let value = graph.value(id);
        let name = writer.name(id);
        if name != value.name {
            let reason = "is the name of an input and of an output that is not that input".to_owned();
            return Err(Error::Tensor { tensor: value.name.clone(), reason });
        }
        writer.builder.output(&name, value.dtype, &value.shape);
    }
    for node in &graph.nodes {
        if let Some([down, across]) = graph.equivalent_strides.get(&node.output) {
            let name = writer.name(node.output);
            writer.builder.metadata(&format!("{EQUIVALENT_STRIDE}{name}"), &format!("{down}x{across}"));
        }
    }
    Ok(writer.builder.encode())
}

struct Writer<'a> {
    graph: &'a Graph,
    builder: Builder,
    /// What nodes read for a value.
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
    nodes: HashSet<String>,
}

impl Writer<'_> {
    /// A name that nothing else has: the one wished for, or that with a number.
    fn unique(taken: &mut HashSet<String>, wish: &str) -> String {
        let wish = if wish.is_empty() { "unnamed" } else { wish };
        let mut name = wish.to_owned();
        let mut number = 1;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{wish}#{number}");
        }
        name
    }

    /// The name of a value; a constant is written when it is first asked for.
    fn name(&mut self, id: ValueId) -> String {
        if let Some(name) = self.names.get(&id) {
            return name.clone();
        }
        let value = self.graph.value(id);
        let name = Self::unique(&mut self.taken, &value.name);
        if let Some(tensor) = &value.constant {
            self.builder.constant(&name, tensor);
        }
        self.names.insert(id, name.clone());
        name
    }

    /// A constant that the graph does not hold.
    fn constant(&mut self, wish: &str, tensor: Result<Tensor>) -> Result<String> {
        let name = Self::unique(&mut self.taken, wish);
        self.builder.constant(&name, &tensor?);
        Ok(name)
    }

    fn ints(&mut self, wish: &str, ints: Vec<i64>) -> Result<String> {
        self.constant(wish, Tensor::new(vec![ints.len()], Data::I64(ints)))
    }

    /// Integers become f32 where they enter.
    fn input(&mut self, id: ValueId) {
        let value = self.graph.value(id);
        let name = self.name(id);
        self.builder.input(&name, value.dtype, &value.shape);
        if value.dtype != DType::F32 {
            let float = Self::unique(&mut self.taken, &format!("{name}/float"));
            self.builder.node(&float, "Cast", &[&name], &[&float], &[("to", FLOAT.into())]);
            self.names.insert(id, float);
        }
    }

    /// A node that writes a value of its own; gives the value's name.
    fn part(&mut self, wish: &str, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = Self::unique(&mut self.taken, wish);
        let name = Self::unique(&mut self.nodes, wish);
        self.builder.node(&name, op, inputs, &[&output], attributes);
        output
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let inputs: Vec<String> = node.inputs.iter().map(|&id| self.name(id)).collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let output = self.name(node.output);
        match &node.op {
            Op::Conv(conv) if inputs.len() < 5 => return self.conv(node, conv, &inputs),
            Op::Conv(_) | Op::ConvMaxMin { .. } | Op::MaxMinPool { .. } => {
                let reason =
                    "a fused form, which ONNX does not have: a graph is written before it is optimized";
                return Err(crate::Error::Node {
                    op: node.op.name().into(),
                    node: node.name.clone(),
                    reason: reason.into(),
                });
            }
            Op::Dense { after } => {
                let attributes = [("transB", 1.into())];
                if *after == Activation::Identity {
                    self.write(node, "Gemm", &inputs, &attributes);
                } else {
                    let sums = self.part(&format!("{}/sums", node.name), "Gemm", &inputs, &attributes);
                    self.activation(node, *after, &sums, &output)?;
                }
            }
            Op::Pool(pool) => return self.pool(node, pool, &inputs),
            Op::PoolFragment { .. } | Op::Interleave { .. } => {
                let reason =
                    "is a fragment of a dilated layer; write the graph before it is split".to_owned();
                let (op, node) = (node.op.name().to_owned(), node.name.clone());
                return Err(Error::Node { op, node, reason });
            }
            Op::GlobalPool(_) | Op::PRelu | Op::Binary(_) => self.write(node, node.op.name(), &inputs, &[]),
            Op::BatchNorm { epsilon } => {
                self.write(node, node.op.name(), &inputs, &[("epsilon", (*epsilon).into())])
            }
            Op::Unary(activation) => self.activation(node, *activation, inputs[0], &output)?,
            Op::Softmax { axis } | Op::Concat { axis } => {
                self.write(node, node.op.name(), &inputs, &[("axis", (*axis as i64).into())]);
            }
            Op::MaxMin { order } => {
                let negative = self.part(&format!("{}/negative", node.name), "Neg", &inputs, &[]);
                let halves = match order {
                    MaxMinOrder::PositiveFirst => [inputs[0], negative.as_str()],
                    MaxMinOrder::NegativeFirst => [negative.as_str(), inputs[0]],
                };
                let both =
                    self.part(&format!("{}/both", node.name), "Concat", &halves, &[("axis", 1.into())]);
                self.write(node, "Relu", &[&both], &[]);
            }
            Op::Transpose { permutation } => {
                self.write(node, "Transpose", &inputs, &[("perm", permutation[..].into())])
            }
            Op::Reshape { shape } => {
                let shape = self.ints(&format!("{}/shape", node.name), signed(shape))?;
                self.write(node, "Reshape", &[inputs[0], &shape], &[]);
            }
            Op::Pad { amounts, value } => {
                let amounts =
                    [0, 1].iter().flat_map(|&end| amounts.iter().map(move |pair| pair[end] as i64)).collect();
                let amounts = self.ints(&format!("{}/amounts", node.name), amounts)?;
                let value = self.constant(&format!("{}/value", node.name), Tensor::f32([], vec![*value]))?;
                self.write(node, "Pad", &[inputs[0], &amounts, &value], &[]);
            }
            Op::Slice { start, step, size } => {
                let last = |i: usize| (start[i] + (size[i] - 1) * step[i]) as i64;
                let rank = start.len();
                let starts = self.ints(&format!("{}/starts", node.name), signed(start))?;
                let ends =
                    self.ints(&format!("{}/ends", node.name), (0..rank).map(|i| last(i) + 1).collect())?;
                let axes = self.ints(&format!("{}/axes", node.name), (0..rank as i64).collect())?;
                let steps = self.ints(&format!("{}/steps", node.name), signed(step))?;
                self.write(node, "Slice", &[inputs[0], &starts, &ends, &axes, &steps], &[]);
            }
            Op::UpsampleNearest { factors: [height, width] } => {
                let scales = vec![1.0, 1.0, *height as f32, *width as f32];
                let scales = self.constant(&format!("{}/scales", node.name), Tensor::f32([4], scales))?;
                let attributes = [
                    ("mode", "nearest".into()),
                    ("coordinate_transformation_mode", "asymmetric".into()),
                    ("nearest_mode", "floor".into()),
                ];
                self.write(node, "Resize", &[inputs[0], "", &scales], &attributes);
            }
            Op::ArgMax { axis, keep_dims } => {
                let attributes =
                    [("axis", (*axis as i64).into()), ("keepdims", i64::from(*keep_dims).into())];
                self.write(node, "ArgMax", &inputs, &attributes);
            }
            Op::Lrn { size, alpha, beta, bias } => {
                let attributes = [
                    ("size", (*size as i64).into()),
                    ("alpha", (*alpha).into()),
                    ("beta", (*beta).into()),
                    ("bias", (*bias).into()),
                ];
                self.write(node, "LRN", &inputs, &attributes);
            }
            Op::Excite(_) => unreachable!("taken apart before"),
        }
        Ok(())
    }

    /// The ONNX node that writes the output of a node of the graph.
    fn write(&mut self, node: &Node, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) {
        let output = self.name(node.output);
        let name = Self::unique(&mut self.nodes, &node.name);
        self.builder.node(&name, op, inputs, &[&output], attributes);
    }

    fn conv(&mut self, node: &Node, conv: &Conv, inputs: &[&str]) -> Result<()> {
        let attributes = [
            ("kernel_shape", conv.kernel[..].into()),
            ("strides", conv.stride[..].into()),
            ("dilations", conv.dilation[..].into()),
            ("pads", pads(conv.pads)),
            ("group", (conv.groups as i64).into()),
        ];
        let output = self.name(node.output);
        // From the sums on: what is left to do decides whether a node writes the output or a part.
        let (has_before, has_after) =
            (conv.before != Activation::Identity, conv.after != Activation::Identity);
        if !has_before && !has_after && !conv.residual {
            self.write(node, "Conv", inputs, &attributes);
            return Ok(());
        }
        let mut y = self.part(&format!("{}/sums", node.name), "Conv", &inputs[..3], &attributes);
        if has_before {
            if !conv.residual && !has_after {
                return self.activation(node, conv.before, &y, &output);
            }
            let before = Self::unique(&mut self.taken, &format!("{}/before", node.name));
            self.activation(node, conv.before, &y, &before)?;
            y = before;
        }
        if conv.residual {
            if !has_after {
                self.write(node, "Add", &[&y, inputs[3]], &[]);
                return Ok(());
            }
            y = self.part(&format!("{}/residual", node.name), "Add", &[&y, inputs[3]], &[]);
        }
        self.activation(node, conv.after, &y, &output)
    }

    /// Engines take pads below the window's taps only. A dense pool's are often larger: then the border is a node of its
    /// own, and a mean that leaves it out is the mean of all taps times `taps / taps in the image`.
    fn pool(&mut self, node: &Node, pool: &Pool, inputs: &[&str]) -> Result<()> {
        let sides = [[pool.pads.top, pool.pads.bottom], [pool.pads.left, pool.pads.right]];
        let mut attributes: Vec<(&str, Attribute)> = vec![
            ("kernel_shape", pool.kernel[..].into()),
            ("strides", pool.stride[..].into()),
            ("ceil_mode", i64::from(pool.ceil_mode).into()),
            ("dilations", pool.dilation[..].into()),
        ];
        let average = pool.kind == PoolKind::Average;
        let small = sides.iter().zip(pool.kernel).all(|(side, kernel)| side.iter().all(|&pad| pad < kernel));
        if small || pool.ceil_mode {
            attributes.push(("pads", pads(pool.pads)));
            if average {
                attributes.push(("count_include_pad", i64::from(pool.count_include_pad).into()));
            }
            self.write(node, node.op.name(), inputs, &attributes);
            return Ok(());
        }
        let [[top, bottom], [left, right]] = sides.map(|side| side.map(|pad| pad as i64));
        let amounts = vec![0, 0, top, left, 0, 0, bottom, right];
        let amounts = self.ints(&format!("{}/amounts", node.name), amounts)?;
        let border = if average { 0.0 } else { f32::NEG_INFINITY };
        let border = self.constant(&format!("{}/border", node.name), Tensor::f32([], vec![border]))?;
        let padded = self.part(&format!("{}/padded", node.name), "Pad", &[inputs[0], &amounts, &border], &[]);
        if !average || pool.count_include_pad {
            self.write(node, node.op.name(), &[&padded], &attributes);
            return Ok(());
        }
        let mean = self.part(&format!("{}/mean", node.name), node.op.name(), &[&padded], &attributes);
        let [_, _, in_height, in_width] = self.graph.shape(node.inputs[0])[..] else { return Ok(()) };
        let [_, _, height, width] = self.graph.shape(node.output)[..] else { return Ok(()) };
        let taps = |axis: usize, at: usize, size: usize| {
            let inside = |tap: &usize| {
                let position = at * pool.stride[axis] + tap * pool.dilation[axis];
                (sides[axis][0]..sides[axis][0] + size).contains(&position)
            };
            (0..pool.kernel[axis]).filter(inside).count()
        };
        let all = (pool.kernel[0] * pool.kernel[1]) as f64;
        let ratio = |y: usize, x: usize| (all / (taps(0, y, in_height) * taps(1, x, in_width)) as f64) as f32;
        let ratios = (0..height).flat_map(|y| (0..width).map(move |x| ratio(y, x))).collect();
        let ratios = Tensor::f32([1, 1, height, width], ratios);
        let ratios = self.constant(&format!("{}/ratios", node.name), ratios)?;
        self.write(node, "Mul", &[&mean, &ratios], &[]);
        Ok(())
    }

    fn activation(&mut self, node: &Node, activation: Activation, x: &str, y: &str) -> Result<()> {
        let op = Op::Unary(activation);
        let mut inputs = vec![x.to_owned()];
        let attributes: Vec<(&str, Attribute)> = match activation {
            Activation::LeakyRelu { slope } => vec![("alpha", slope.into())],
            Activation::HardSigmoid { alpha, beta } => vec![("alpha", alpha.into()), ("beta", beta.into())],
            Activation::Elu { alpha } => vec![("alpha", alpha.into())],
            Activation::Clip { low, high } => {
                for (bound, value) in [("low", low), ("high", high)] {
                    inputs.push(
                        self.constant(&format!("{}/{bound}", node.name), Tensor::f32([], vec![value]))?,
                    );
                }
                Vec::new()
            }
            Activation::Silu => {
                inputs.push(self.part(&format!("{}/gate", node.name), "Sigmoid", &[x], &[]));
                Vec::new()
            }
            _ => Vec::new(),
        };
        let name = if activation == Activation::Silu { "Mul" } else { op.name() };
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let unique = Self::unique(&mut self.nodes, &node.name);
        self.builder.node(&unique, name, &inputs, &[y], &attributes);
        Ok(())
    }
}

/// Whether a node gives an input to the caller under the input's own name. Names of values are distinct in a file, so it
/// is the one form of a node there that its two names leave: none.
fn hands_through(graph: &Graph, node: &Node) -> bool {
    let [input] = node.inputs[..] else { return false };
    node.op == Op::Unary(Activation::Identity)
        && graph.inputs.contains(&input)
        && graph.outputs.contains(&node.output)
        && graph.value(input).name == graph.value(node.output).name
        && graph.value(input).dtype == DType::F32
}

fn signed(list: &[usize]) -> Vec<i64> {
    list.iter().map(|&d| d as i64).collect()
}

fn pads(pads: Pads) -> Attribute {
    [pads.top, pads.left, pads.bottom, pads.right][..].into()
}
