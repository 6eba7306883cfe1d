//! ONNX files to graphs: what each operator becomes at each operator set, and that every bad file is refused with a message
//! that says where and what.

#[path = "support/reference.rs"]
#[allow(dead_code, reason = "the error bounds serve other tests")]
mod reference;

use proptest::prelude::*;
use sinew::graph::{Graph, Op, Pads, PoolKind};
use sinew::onnx::{Attribute, Builder, ImportOptions, Imported, Limits, export, import};
use sinew::{DType, Data, Error, Result, Tensor};
use sinew_kernels::activation::Activation;

use reference::{Exact, evaluate};

/// Options with every form left as the file has it.
fn as_written() -> ImportOptions {
    let left_out = sinew::onnx::recover::FORMS.iter().map(|form| form.name.to_owned()).collect();
    ImportOptions { left_out, ..ImportOptions::default() }
}

/// A node under test: its input `x`, further inputs as initializers, its attributes.
struct Case<'a> {
    opset: i64,
    op: &'a str,
    shape: &'a [usize],
    constants: Vec<Option<Tensor>>,
    attributes: Vec<(&'a str, Attribute)>,
    outputs: usize,
}

fn case<'a>(opset: i64, op: &'a str, shape: &'a [usize]) -> Case<'a> {
    Case { opset, op, shape, constants: Vec::new(), attributes: Vec::new(), outputs: 1 }
}

impl<'a> Case<'a> {
    fn with(mut self, constant: Tensor) -> Self {
        self.constants.push(Some(constant));
        self
    }

    /// Leaves an optional input out.
    fn without(mut self) -> Self {
        self.constants.push(None);
        self
    }

    fn attribute(mut self, name: &'a str, value: impl Into<Attribute>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    fn outputs(mut self, outputs: usize) -> Self {
        self.outputs = outputs;
        self
    }

    fn import(&self) -> Result<Graph> {
        let mut model = Builder::new(self.op);
        model.opset(self.opset).input("x", DType::F32, self.shape);
        let mut inputs = vec!["x".to_owned()];
        for (i, constant) in self.constants.iter().enumerate() {
            inputs.push(match constant {
                Some(tensor) => {
                    model.constant(&format!("c{i}"), tensor);
                    format!("c{i}")
                }
                None => String::new(),
            });
        }
        let outputs: Vec<String> = (0..self.outputs).map(|i| format!("y{i}")).collect();
        let names = |list: &[String]| -> Vec<&'static str> {
            list.iter().map(|name| &*Box::leak(name.clone().into_boxed_str())).collect()
        };
        model.node("node", self.op, &names(&inputs), &names(&outputs), &self.attributes);
        for output in &outputs {
            model.output(output, DType::F32, [""; 0]);
        }
        let graph = import(&model.encode(), &as_written())?.graph;
        // Whatever is read can be written and read again.
        let again = import(&export(&graph)?, &as_written())?.graph;
        assert_eq!(
            again.shape(again.outputs[0]),
            graph.shape(graph.outputs[0]),
            "{} {}",
            self.op,
            self.opset
        );
        Ok(graph)
    }

    /// The operators and the shape of the first output.
    fn check(&self, operators: &[&str], shape: &[usize]) -> Result<Graph> {
        let graph = self.import()?;
        let found: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(found, operators, "{} at operator set {}", self.op, self.opset);
        assert_eq!(graph.shape(graph.outputs[0]), shape, "{} at operator set {}", self.op, self.opset);
        Ok(graph)
    }

    /// The first output for `x = 0, 1, 2, ...`.
    fn check_values(&self, expected: &[f64]) -> Result<()> {
        let graph = self.import()?;
        let count: usize = self.shape.iter().product();
        let x = Exact::new(self.shape.to_vec(), (0..count).map(|i| i as f64).collect());
        let y = evaluate(&graph, &[x]);
        let near = y[0].values.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-6);
        assert!(
            near && y[0].values.len() == expected.len(),
            "{}: {:?}, not {expected:?}",
            self.op,
            y[0].values
        );
        Ok(())
    }

    /// The reason for which the node is refused as not implemented.
    fn refused(&self) -> String {
        match self.import() {
            Err(Error::Unsupported(list)) => list[0].reason.clone(),
            other => panic!("{} at operator set {}: {other:?}", self.op, self.opset),
        }
    }

    /// The message of any other error.
    fn wrong(&self) -> String {
        match self.import() {
            Err(Error::Unsupported(list)) => panic!("{} is refused: {list:?}", self.op),
            Err(error) => error.to_string(),
            Ok(graph) => panic!("{} at operator set {} is accepted: {graph:?}", self.op, self.opset),
        }
    }
}

fn floats(shape: &[usize], elements: &[f32]) -> Tensor {
    Tensor::f32(shape, elements.to_vec()).expect("as many elements as the shape holds")
}

fn filled(shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    Tensor::f32(shape, (0..count).map(|i| 0.5 + i as f32 * 0.25).collect()).expect("as many elements")
}

fn number(x: f32) -> Tensor {
    floats(&[], &[x])
}

fn ints(elements: &[i64]) -> Tensor {
    Tensor::new(vec![elements.len()], Data::I64(elements.to_vec()))
        .expect("as many elements as the shape holds")
}

const X: [usize; 4] = [2, 4, 6, 5];

#[test]
fn convolutions() -> Result<()> {
    for opset in [7, 11, 22] {
        let conv = || case(opset, "Conv", &X);
        let graph = conv()
            .with(filled(&[3, 4, 3, 2]))
            .attribute("strides", [2, 1])
            .attribute("pads", [1, 0, 2, 1])
            .check(&["Conv"], &[2, 3, 4, 5])?;
        let node = &graph.nodes[0];
        let Op::Conv(conv_op) = &node.op else { panic!("expected a convolution") };
        assert_eq!(conv_op.pads, Pads { top: 1, left: 0, bottom: 2, right: 1 });
        assert_eq!((conv_op.kernel, conv_op.stride), ([3, 2], [2, 1]));
        assert_eq!(graph.constant(node.inputs[2]), Some([0.0; 3].as_slice()), "a bias is there always");
        let grouped = conv().with(filled(&[6, 2, 1, 1])).with(filled(&[6])).attribute("group", 2);
        grouped.check(&["Conv"], &[2, 6, 6, 5])?;
        let dilated = conv().with(filled(&[1, 4, 2, 2])).attribute("dilations", [3, 2]);
        dilated.check(&["Conv"], &[2, 1, 3, 3])?;
        for (auto, pads) in [("SAME_UPPER", [0, 1, 1, 2]), ("SAME_LOWER", [1, 2, 0, 1]), ("VALID", [0; 4])] {
            let same = conv()
                .with(filled(&[1, 4, 3, 4]))
                .attribute("auto_pad", auto)
                .attribute("strides", [2, 1])
                .import()?;
            let Op::Conv(conv_op) = &same.nodes[0].op else { panic!("expected a convolution") };
            let Pads { top, left, bottom, right } = conv_op.pads;
            assert_eq!([top, left, bottom, right], pads, "{auto}");
        }
        let row = case(opset, "Conv", &[1, 2, 9]).with(filled(&[3, 2, 4])).attribute("pads", [1, 2]);
        row.check(&["Reshape", "Conv", "Reshape"], &[1, 3, 9])?;

        assert_eq!(
            conv().with(filled(&[3, 3, 1, 1])).wrong(),
            "Conv \"node\": weights have 3 input channels, the input has 4"
        );
        assert_eq!(
            conv().with(filled(&[3, 4, 1, 1])).attribute("kernel_shape", [3, 3]).wrong(),
            "Conv \"node\": kernel_shape [3, 3], the weights have [1, 1]"
        );
        assert_eq!(
            conv().with(filled(&[3, 4, 9, 1])).wrong(),
            "Conv \"node\": the window covers 9 pixels, the padded input has 6"
        );
        assert_eq!(
            conv().with(filled(&[3, 4, 1, 1])).attribute("pads", [-1, 0, 0, 0]).refused(),
            "negative pads"
        );
        assert_eq!(conv().with(filled(&[3, 4, 1, 1])).attribute("fancy", 1).refused(), "attribute fancy");
        assert_eq!(
            conv().with(filled(&[3, 4, 1, 1])).attribute("group", 1.5).wrong(),
            "Conv \"node\": attribute group has the wrong type"
        );
        assert!(
            case(opset, "Conv", &[1, 1, 4, 4, 4])
                .with(filled(&[1; 5]))
                .refused()
                .contains("spatial dimensions")
        );
    }
    Ok(())
}

#[test]
fn pools() -> Result<()> {
    let pool = |op| case(17, op, &X).attribute("kernel_shape", [3, 2]).attribute("strides", [2, 2]);
    pool("MaxPool").check(&["MaxPool"], &[2, 4, 2, 2])?;
    pool("MaxPool").attribute("ceil_mode", 1).check(&["MaxPool"], &[2, 4, 3, 3])?;
    pool("MaxPool").attribute("dilations", [2, 3]).check(&["MaxPool"], &[2, 4, 1, 1])?;
    pool("AveragePool").attribute("pads", [1, 1, 1, 1]).check(&["AveragePool"], &[2, 4, 3, 3])?;
    let counted = pool("AveragePool").attribute("ceil_mode", 1).attribute("count_include_pad", 1);
    assert_eq!(counted.refused(), "an average over windows that reach beyond the counted border");
    case(17, "MaxPool", &[1, 2, 8])
        .attribute("kernel_shape", [2])
        .check(&["Reshape", "MaxPool", "Reshape"], &[1, 2, 7])?;
    assert!(case(17, "MaxPool", &X).wrong().ends_with("attribute kernel_shape is missing"));
    assert!(
        pool("MaxPool")
            .attribute("pads", [3, 0, 0, 0])
            .wrong()
            .contains("lies in the border with all its taps")
    );
    case(17, "GlobalAveragePool", &X).check(&["GlobalAveragePool"], &[2, 4, 1, 1])?;
    case(17, "GlobalMaxPool", &[2, 3, 7]).check(&["Reshape", "GlobalMaxPool", "Reshape"], &[2, 3, 1])?;
    Ok(())
}

#[test]
fn reductions() -> Result<()> {
    case(13, "ReduceMean", &X).attribute("axes", [2, 3]).check(&["GlobalAveragePool"], &[2, 4, 1, 1])?;
    let dropped = case(18, "ReduceMean", &X).with(ints(&[-1, -2])).attribute("keepdims", 0);
    dropped.check(&["GlobalAveragePool", "Reshape"], &[2, 4])?;
    case(13, "ReduceMax", &[2, 3, 2]).attribute("axes", [1]).check_values(&[4.0, 5.0, 10.0, 11.0])?;
    case(13, "ReduceMean", &[2, 2, 2]).attribute("axes", [0, 2]).check_values(&[2.5, 4.5])?;
    case(13, "ReduceMean", &[2, 3]).check_values(&[2.5])?;
    case(18, "ReduceMean", &X).attribute("noop_with_empty_axes", 1).check(&["Identity"], &X)?;
    assert_eq!(case(13, "ReduceSum", &X).refused(), "of a computed operand");
    assert!(
        case(13, "ReduceMean", &X).attribute("axes", [4]).wrong().contains("there is no dimension 4 of 4")
    );
    assert!(case(13, "ReduceMean", &X).attribute("axes", [1, -3]).wrong().contains("named twice"));
    Ok(())
}

#[test]
fn matrix_products() -> Result<()> {
    // x = [[0, 1, 2], [3, 4, 5]]
    let w = floats(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let gemm = |opset| case(opset, "Gemm", &[2, 3]).with(w.clone());
    gemm(7).with(floats(&[2], &[0.5, -0.5])).check(&["Dense"], &[2, 2])?;
    gemm(7).with(floats(&[2], &[0.5, -0.5])).check_values(&[13.5, 15.5, 40.5, 51.5])?;
    gemm(11).check_values(&[13.0, 16.0, 40.0, 52.0])?;
    gemm(11).with(number(1.0)).attribute("beta", 3.0).check(&["Dense"], &[2, 2])?;
    gemm(11).with(number(1.0)).attribute("beta", 3.0).check_values(&[16.0, 19.0, 43.0, 55.0])?;
    gemm(11).attribute("alpha", 0.5).check(&["Dense", "Mul"], &[2, 2])?;
    gemm(11).with(floats(&[2, 1], &[1.0, 2.0])).check_values(&[14.0, 17.0, 42.0, 54.0])?;
    gemm(11).with(filled(&[3])).wrong();
    case(11, "Gemm", &[3, 2])
        .with(w.clone())
        .attribute("transA", 1)
        .check(&["Transpose", "Dense"], &[2, 2])?;
    case(11, "Gemm", &[2, 2])
        .with(w.clone())
        .attribute("transB", 1)
        .check_values(&[2.0, 4.0, 6.0, 8.0, 18.0, 28.0])?;
    assert!(
        case(11, "Gemm", &[2, 2]).with(w.clone()).wrong().contains("weights have 3 columns, the input has 2")
    );

    case(13, "MatMul", &[2, 3]).with(w.clone()).check_values(&[13.0, 16.0, 40.0, 52.0])?;
    case(13, "MatMul", &[5, 4, 3]).with(w.clone()).check(&["Reshape", "Dense", "Reshape"], &[5, 4, 2])?;
    case(13, "MatMul", &[3]).with(w.clone()).check(&["Reshape", "Dense", "Reshape"], &[2])?;
    case(13, "MatMul", &[2, 3]).with(floats(&[3], &[1.0, 2.0, 3.0])).check_values(&[8.0, 26.0])?;
    assert!(
        case(13, "MatMul", &[2, 3])
            .with(filled(&[2, 3, 2]))
            .refused()
            .contains("a second factor of the shape")
    );
    assert!(case(13, "MatMul", &[2, 4]).with(w).wrong().contains("the factors are [2, 4] and [3, 2]"));
    Ok(())
}

#[test]
fn element_wise_operators() -> Result<()> {
    for opset in [7, 12, 20] {
        for op in ["Relu", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Neg", "Abs", "Reciprocal", "Softplus"] {
            case(opset, op, &X).check(&[op], &X)?;
        }
        case(opset, "PRelu", &X).with(filled(&[4, 1, 1])).check(&["PRelu"], &X)?;
        case(opset, "Mul", &X).with(filled(&[5])).check(&["Mul"], &X)?;
        case(opset, "Div", &[3, 1]).with(filled(&[2, 1, 4])).check(&["Div"], &[2, 3, 4])?;
        case(opset, "Sum", &X).with(filled(&X)).with(filled(&X)).check(&["Add", "Add"], &X)?;
        case(opset, "Mean", &[2]).with(floats(&[2], &[4.0, 6.0])).check_values(&[2.0, 3.5])?;
        case(opset, "Max", &[3]).with(floats(&[3], &[1.0, 1.0, 1.0])).check_values(&[1.0, 1.0, 2.0])?;
        case(opset, "Pow", &[4]).with(number(2.0)).check_values(&[0.0, 1.0, 4.0, 9.0])?;
        case(opset, "Pow", &[3]).with(number(3.0)).check_values(&[0.0, 1.0, 8.0])?;
        assert_eq!(case(opset, "Pow", &X).with(number(2.5)).refused(), "the exponent 2.5");
        assert!(case(opset, "Add", &[2, 3]).with(filled(&[2])).wrong().contains("cannot be broadcast"));
    }
    case(6 + 1, "Clip", &[4])
        .attribute("min", 1.0)
        .attribute("max", 2.0)
        .check_values(&[1.0, 1.0, 2.0, 2.0])?;
    case(11, "Clip", &[4]).without().with(number(1.5)).check_values(&[0.0, 1.0, 1.5, 1.5])?;
    assert_eq!(case(11, "Clip", &X).with(number(2.0)).with(number(1.0)).refused(), "bounds 2 and 1");
    case(18, "Mish", &X).check(&["Softplus", "Tanh", "Mul"], &X)?;
    case(20, "Gelu", &X).check(&["Gelu"], &X)?;
    assert_eq!(case(20, "Gelu", &X).attribute("approximate", "tanh").refused(), "approximate = tanh");
    Ok(())
}

#[test]
fn softmax_flattened_before_operator_set_13() -> Result<()> {
    case(12, "Softmax", &X).check(&["Reshape", "Softmax", "Reshape"], &X)?;
    case(12, "Softmax", &[2, 5, 1, 1]).check(&["Softmax"], &[2, 5, 1, 1])?;
    let last = case(13, "Softmax", &X).check(&["Softmax"], &X)?;
    assert_eq!(last.nodes[0].op, Op::Softmax { axis: 3 });
    let channels = case(13, "Softmax", &X).attribute("axis", -3).check(&["Softmax"], &X)?;
    assert_eq!(channels.nodes[0].op, Op::Softmax { axis: 1 });
    Ok(())
}

#[test]
fn normalizations() -> Result<()> {
    let batch_norm = |opset| {
        let parameters =
            (0..4).fold(case(opset, "BatchNormalization", &X), |case, _| case.with(filled(&[4])));
        parameters.attribute("epsilon", 1e-3)
    };
    for opset in [7, 9, 14, 15] {
        let graph = batch_norm(opset).check(&["BatchNormalization"], &X)?;
        assert_eq!(graph.nodes[0].op, Op::BatchNorm { epsilon: 1e-3 });
    }
    assert!(batch_norm(7).attribute("spatial", 0).refused().contains("spatial"));
    assert_eq!(batch_norm(14).attribute("training_mode", 1).refused(), "training mode");
    assert_eq!(batch_norm(9).outputs(5).refused(), "training mode");
    assert!(case(15, "BatchNormalization", &X).with(filled(&[4])).wrong().contains("input 2 is missing"));
    case(13, "LRN", &X).attribute("size", 3).check(&["LRN"], &X)?;
    assert_eq!(case(17, "InstanceNormalization", &X).refused(), "this operator is not implemented");
    Ok(())
}

#[test]
fn moved_elements() -> Result<()> {
    case(7, "Slice", &[2, 4])
        .attribute("starts", [1, -3])
        .attribute("ends", [2, 1000])
        .check_values(&[5.0, 6.0, 7.0])?;
    let stepped = || case(10, "Slice", &[2, 5]).with(ints(&[0])).with(ints(&[i64::MAX])).with(ints(&[1]));
    stepped().with(ints(&[2])).check_values(&[0.0, 2.0, 4.0, 5.0, 7.0, 9.0])?;
    let backwards = case(10, "Slice", &[1, 3]).with(ints(&[-1])).with(ints(&[i64::MIN])).with(ints(&[1]));
    backwards.with(ints(&[-1])).check_values(&[2.0, 1.0, 0.0])?;
    assert!(stepped().with(ints(&[0])).wrong().contains("a step of 0"));
    assert!(case(10, "Slice", &[4]).with(ints(&[3])).with(ints(&[1])).wrong().contains("is empty"));

    case(7, "Pad", &[2])
        .attribute("pads", [1, 2])
        .attribute("value", 9.0)
        .check_values(&[9.0, 0.0, 1.0, 9.0, 9.0])?;
    case(13, "Pad", &[2]).with(ints(&[1, 0])).check_values(&[0.0, 0.0, 1.0])?;
    let last = case(18, "Pad", &[2, 1]).with(ints(&[0, 1])).with(number(7.0)).with(ints(&[-1]));
    last.check_values(&[0.0, 7.0, 1.0, 7.0])?;
    assert_eq!(
        case(13, "Pad", &X).with(ints(&[0; 8])).attribute("mode", "reflect").refused(),
        "mode reflect"
    );
    assert_eq!(case(13, "Pad", &[3]).with(ints(&[-1, 0])).refused(), "negative amounts");

    case(7, "Transpose", &[2, 3]).check_values(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])?;
    case(7, "Flatten", &X).check(&["Reshape"], &[2, 120])?;
    case(11, "Flatten", &X).attribute("axis", -1).check(&["Reshape"], &[48, 5])?;
    case(7, "Reshape", &X).with(ints(&[0, -1, 3])).check(&["Reshape"], &[2, 40, 3])?;
    assert!(case(7, "Reshape", &X).with(ints(&[7, -1])).wrong().contains("cannot be reshaped"));
    assert!(case(7, "Reshape", &X).with(ints(&[-1, -1])).wrong().contains("two open extents"));
    assert!(
        case(14, "Reshape", &X).with(ints(&[0, 120])).attribute("allowzero", 1).wrong().contains("differs")
    );
    case(7, "Squeeze", &[1, 3, 1]).attribute("axes", [0]).check(&["Reshape"], &[3, 1])?;
    case(13, "Squeeze", &[1, 3, 1]).check(&["Reshape"], &[3])?;
    case(13, "Unsqueeze", &[2, 3]).with(ints(&[0, -1])).check(&["Reshape"], &[1, 2, 3, 1])?;
    assert!(case(13, "Squeeze", &[2, 3]).with(ints(&[0])).wrong().contains("is not 1"));

    case(7, "Split", &[2, 4]).attribute("axis", 1).outputs(2).check_values(&[0.0, 1.0, 4.0, 5.0])?;
    case(13, "Split", &[3]).with(ints(&[1, 2])).outputs(2).check(&["Slice", "Slice"], &[1])?;
    case(18, "Split", &[5]).attribute("num_outputs", 2).outputs(2).check(&["Slice", "Slice"], &[3])?;
    assert!(case(13, "Split", &[5]).outputs(2).wrong().contains("cannot be split into 2 parts"));
    case(7, "Concat", &[2, 3]).with(filled(&[2, 1])).attribute("axis", 1).check(&["Concat"], &[2, 4])?;
    case(13, "Gather", &[2, 3])
        .with(ints(&[2, 0]))
        .attribute("axis", 1)
        .check_values(&[2.0, 0.0, 5.0, 3.0])?;
    case(13, "Expand", &[2, 1]).with(ints(&[2])).check_values(&[0.0, 0.0, 1.0, 1.0])?;
    case(13, "DepthToSpace", &[1, 4, 1, 1]).attribute("blocksize", 2).check_values(&[0.0, 1.0, 2.0, 3.0])?;
    let wide = case(13, "DepthToSpace", &[1, 4, 1, 2]).attribute("blocksize", 2);
    wide.check_values(&[0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0])?;
    case(13, "Gather", &[5]).with(ints(&[0, 2, 2, 3, 4, 1])).check_values(&[0.0, 2.0, 2.0, 3.0, 4.0, 1.0])?;
    case(13, "SpaceToDepth", &[1, 1, 2, 2]).attribute("blocksize", 2).check_values(&[0.0, 1.0, 2.0, 3.0])?;
    assert!(case(13, "DepthToSpace", &X).attribute("blocksize", 3).wrong().contains("no multiple of 3 x 3"));
    Ok(())
}

#[test]
fn enlargements() -> Result<()> {
    let scales = || floats(&[4], &[1.0, 1.0, 2.0, 3.0]);
    let empty = || floats(&[0], &[]);
    case(7, "Upsample", &X)
        .attribute("scales", [1.0, 1.0, 2.0, 3.0])
        .check(&["UpsampleNearest"], &[2, 4, 12, 15])?;
    case(9, "Upsample", &X).with(scales()).check(&["UpsampleNearest"], &[2, 4, 12, 15])?;
    case(10, "Resize", &X).with(scales()).check(&["UpsampleNearest"], &[2, 4, 12, 15])?;
    let resize = || case(13, "Resize", &X).with(empty()).with(scales());
    resize().check(&["UpsampleNearest"], &[2, 4, 12, 15])?;
    let sizes = case(13, "Resize", &X).without().without().with(ints(&[2, 4, 6, 10]));
    sizes.check(&["UpsampleNearest"], &[2, 4, 6, 10])?;
    let refusals =
        [("floor", "half_pixel"), ("round_prefer_floor", "asymmetric"), ("floor", "align_corners")];
    for (rounding, coordinates) in refusals {
        let refused = resize()
            .attribute("nearest_mode", rounding)
            .attribute("coordinate_transformation_mode", coordinates);
        assert_eq!(refused.refused(), format!("nearest pixels with {coordinates} and {rounding}"));
    }
    assert_eq!(resize().attribute("mode", "linear").refused(), "mode linear");
    let fractional = case(13, "Resize", &X).without().with(floats(&[4], &[1.0, 1.0, 1.5, 1.0]));
    assert_eq!(fractional.refused(), "the scale 1.5: no whole factor");
    Ok(())
}

#[test]
fn arg_max_is_an_output_only() -> Result<()> {
    let graph = case(13, "ArgMax", &X)
        .attribute("axis", 1)
        .attribute("keepdims", 0)
        .check(&["ArgMax"], &[2, 6, 5])?;
    assert_eq!(graph.value(graph.outputs[0]).dtype, DType::I64);
    assert!(case(13, "ArgMax", &X).attribute("select_last_index", 1).refused().contains("select_last_index"));
    let mut model = Builder::new("used");
    model.input("x", DType::F32, [3]);
    model.node("a", "ArgMax", &["x"], &["a"], &[]);
    model.node("c", "Cast", &["a"], &["y"], &[("to", 1.into())]);
    model.output("y", DType::F32, [1]);
    assert_eq!(unsupported(&model.encode()), ["Cast c: the result of ArgMax is an output only"]);
    Ok(())
}

fn unsupported(bytes: &[u8]) -> Vec<String> {
    match import(bytes, &as_written()) {
        Err(Error::Unsupported(list)) => {
            list.iter().map(|n| format!("{} {}: {}", n.op, n.node, n.reason)).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_unsupported_is_listed_at_once() {
    let mut model = Builder::new("many");
    model.input("x", DType::F32, [1, 3, 8, 8]);
    model.input_of_type("h", 10, [1]);
    model.constant("w", &filled(&[3, 3, 2, 2]));
    model.constant_of_type("q", 3, &[2], vec![1, 2]);
    model.node("up", "ConvTranspose", &["x", "w"], &["a"], &[]);
    // These read what is not there: nothing is said of them.
    model.node("act", "Relu", &["a"], &["b"], &[]);
    model.node("sum", "Add", &["b", "x"], &["c"], &[]);
    // But this one is not implemented, whatever it reads.
    model.node("grid", "GridSample", &["c", "x"], &["d"], &[]);
    model.node("", "LSTM", &["x"], &["e"], &[]);
    model.node("fused", "com.microsoft::FusedConv", &["x", "w"], &["f"], &[]);
    model.node("quantized", "QLinearConv", &["x"], &["g"], &[]);
    model.node("bytes", "Add", &["x", "q"], &["i"], &[]);
    model.node("pool", "MaxPool", &["x"], &["j", "indices"], &[("kernel_shape", [2, 2].into())]);
    model.node("unpool", "Add", &["j", "indices"], &["k"], &[]);
    model.node("fine", "Relu", &["x"], &["y"], &[]);
    model.output("y", DType::F32, [1, 3, 8, 8]);
    let expected = [
        "input h: element type float16",
        "ConvTranspose up: transposed convolution is not implemented",
        "GridSample grid: this operator is not implemented",
        "LSTM e: recurrent layers are not implemented",
        "com.microsoft.FusedConv fused: this domain of operators is not implemented",
        "QLinearConv quantized: quantised arithmetic is not implemented",
        "Add bytes: \"q\" has the element type int8",
        "Add unpool: output 1 of MaxPool \"pool\" is not computed",
    ];
    assert_eq!(unsupported(&model.encode()), expected);
    let message = import(&model.encode(), &as_written()).map(drop).map_err(|error| error.to_string());
    assert!(message.is_err_and(|message| {
        message.starts_with("8 unsupported nodes: input \"h\" (element type float16); ")
    }));
}

#[test]
fn outputs_that_nobody_reads_are_no_matter() -> Result<()> {
    let mut model = Builder::new("trailing");
    model.opset(12).input("x", DType::F32, [1, 2, 4, 4]);
    model.node("pool", "MaxPool", &["x"], &["a", "indices"], &[("kernel_shape", [2, 2].into())]);
    model.node("drop", "Dropout", &["a"], &["b", "mask"], &[]);
    model.node("unused", "Exp", &["b"], &["c"], &[]);
    model.node("same", "Identity", &["b"], &["y"], &[]);
    model.output("y", DType::F32, [1, 2, 3, 3]);
    let graph = import(&model.encode(), &as_written())?.graph;
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.value(graph.outputs[0]).name, "y");
    Ok(())
}

#[test]
fn outputs_have_nodes_and_names_of_their_own() -> Result<()> {
    let mut model = Builder::new("outputs");
    model.input("x", DType::F32, [2]);
    model.constant("k", &filled(&[3]));
    model.node("", "Relu", &["x"], &["t"], &[]);
    model.node("", "Identity", &["x"], &["a"], &[]);
    model.node("", "Identity", &["t"], &["b"], &[]);
    for (name, extent) in [("a", 2usize), ("t", 2), ("b", 2), ("k", 3)] {
        model.output(name, DType::F32, [extent]);
    }
    let graph = import(&model.encode(), &as_written())?.graph;
    let names: Vec<&str> = graph.outputs.iter().map(|&id| graph.value(id).name.as_str()).collect();
    assert_eq!(names, ["a", "t", "b", "k"]);
    assert!(graph.outputs.iter().all(|&id| graph.producer(id).is_some()));
    Ok(())
}

fn with_shapes(bytes: &[u8], shapes: &[(&str, &[usize])]) -> Result<Imported> {
    let shapes = shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    import(bytes, &ImportOptions { shapes, ..as_written() })
}

fn dynamic(shape: &[&str]) -> Vec<u8> {
    let mut model = Builder::new("dynamic");
    model.input("image", DType::F32, shape.iter().copied());
    model.node("", "GlobalAveragePool", &["image"], &["y"], &[]);
    model.output("y", DType::F32, [""; 4]);
    model.encode()
}

#[test]
fn extents_that_the_file_leaves_open() -> Result<()> {
    let message = |result: Result<Imported>| result.map(drop).map_err(|error| error.to_string()).unwrap_err();
    // The batch is 1 where nothing is said, with a notice.
    for batch in ["N", "", "-1"] {
        let imported = with_shapes(&dynamic(&[batch, "3", "8", "8"]), &[])?;
        assert_eq!(imported.graph.shape(imported.graph.inputs[0]), [1, 3, 8, 8]);
        assert!(imported.notices[0].contains("batch 1 is assumed"), "{:?}", imported.notices);
    }
    let imported = with_shapes(&dynamic(&["N", "3", "height", ""]), &[("image", &[2, 3, 5, 6])])?;
    assert_eq!(imported.graph.shape(imported.graph.inputs[0]), [2, 3, 5, 6]);
    assert!(imported.notices.is_empty());
    assert_eq!(
        message(with_shapes(&dynamic(&["N", "3", "height", ""]), &[])),
        "tensor \"image\": its declared shape [N, 3, height, ?] leaves extents open; give all of them: \
         --shape image=1x3x224x224"
    );
    // A fixed batch can be changed, other fixed extents cannot.
    let imported = with_shapes(&dynamic(&["1", "3", "8", "8"]), &[("image", &[4, 3, 8, 8])])?;
    assert_eq!(imported.notices, ["input \"image\": batch 4 as asked for, the file says 1"]);
    let fixed = dynamic(&["1", "3", "8", "8"]);
    assert_eq!(
        message(with_shapes(&fixed, &[("image", &[1, 3, 9, 8])])),
        "--shape image: 9 in dimension 2, the file fixes 8 ([1, 3, 8, 8])"
    );
    assert_eq!(
        message(with_shapes(&fixed, &[("image", &[1, 3])])),
        "--shape image: 2 extents, the file declares [1, 3, 8, 8]"
    );
    assert_eq!(
        message(with_shapes(&fixed, &[("x", &[1])])),
        "--shape x: the model has no such input; it has image"
    );
    let twice: [(&str, &[usize]); 2] = [("image", &[1, 3, 8, 8]), ("image", &[1, 3, 8, 8])];
    assert_eq!(message(with_shapes(&fixed, &twice)), "--shape image: given twice");
    assert!(message(with_shapes(&fixed, &[("image", &[0, 3, 8, 8])])).contains("an extent is 0"));
    for extent in ["0", "-2", "-9223372036854775808"] {
        let found = message(with_shapes(&dynamic(&["1", "3", extent, "8"]), &[]));
        assert_eq!(
            found,
            format!("tensor \"image\": extent {extent} in its declared shape [1, 3, {extent}, 8]")
        );
    }
    Ok(())
}

#[test]
fn elements_of_other_types() -> Result<()> {
    let mut model = Builder::new("types");
    model.input("x", DType::F32, [2]);
    model.constant_of_type(
        "half",
        10,
        &[2],
        [0x3c00u16, 0x3555].iter().flat_map(|x| x.to_le_bytes()).collect(),
    );
    model.constant_of_type(
        "bfloat",
        16,
        &[2],
        [0x3f80u16, 0xc049].iter().flat_map(|x| x.to_le_bytes()).collect(),
    );
    model.constant_of_type("double", 11, &[2], [0.1f64, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect());
    model.node("", "Add", &["x", "half"], &["a"], &[]);
    model.node("", "Add", &["a", "bfloat"], &["b"], &[]);
    model.node("", "Add", &["b", "double"], &["y"], &[]);
    model.output("y", DType::F32, [2]);
    let imported = import(&model.encode(), &as_written())?;
    let constant = |at: usize| imported.graph.constant(imported.graph.nodes[at].inputs[1]);
    assert_eq!(constant(0), Some([1.0, 0.333_251_95].as_slice()));
    assert_eq!(constant(1), Some([1.0, -3.140_625].as_slice()));
    assert_eq!(constant(2), Some([0.1, -2.0].as_slice()));
    assert_eq!(
        imported.notices,
        [
            "1 float16 tensor converted to f32 (exactly): half",
            "1 bfloat16 tensor converted to f32 (exactly): bfloat",
            "1 double tensor converted to f32 (rounded): double",
        ]
    );
    Ok(())
}

#[test]
fn integer_inputs_enter_as_floats() -> Result<()> {
    for (dtype, name) in [(DType::U8, "u8"), (DType::I64, "i64")] {
        let build = |cast: bool| {
            let mut model = Builder::new("pixels");
            model.input("x", dtype, [1, 2]);
            if cast {
                model.node("", "Cast", &["x"], &["f"], &[("to", 1.into())]);
            } else {
                model.node("", "Identity", &["x"], &["f"], &[]);
            }
            model.node("relu", "Relu", &["f"], &["y"], &[]);
            model.output("y", DType::F32, [1, 2]);
            model.encode()
        };
        let graph = import(&build(true), &as_written())?.graph;
        assert_eq!((graph.nodes.len(), graph.value(graph.inputs[0]).dtype), (1, dtype));
        assert_eq!(unsupported(&build(false)), ["Relu relu: operand \"f\" holds integers"], "{name}");
    }
    Ok(())
}

#[test]
fn shapes_are_computed_while_importing() -> Result<()> {
    // A channel shuffle as exporters write it: every extent comes from Shape.
    let mut model = Builder::new("shuffle");
    model.opset(11).input("x", DType::F32, [1, 6, 2, 2]);
    for (name, value) in [("zero", 0), ("one", 1), ("two", 2), ("four", 4), ("three", 3)] {
        model.constant(name, &ints(&[value]));
    }
    model.node("", "Shape", &["x"], &["s"], &[]);
    model.node("", "Slice", &["s", "zero", "one"], &["n"], &[]);
    model.node("", "Slice", &["s", "one", "two"], &["c"], &[]);
    model.node("", "Slice", &["s", "two", "four"], &["hw"], &[]);
    model.node("", "Div", &["c", "three"], &["each"], &[]);
    model.node("", "Concat", &["n", "three", "each", "hw"], &["split"], &[("axis", 0.into())]);
    model.node("", "Reshape", &["x", "split"], &["a"], &[]);
    model.node("", "Transpose", &["a"], &["b"], &[("perm", [0, 2, 1, 3, 4].into())]);
    model.node("", "Reshape", &["b", "s"], &["y"], &[]);
    model.output("y", DType::F32, [1, 6, 2, 2]);
    let graph = import(&model.encode(), &as_written())?.graph;
    let operators: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
    assert_eq!(operators, ["Reshape", "Transpose", "Reshape"]);
    let x = Exact::new(vec![1, 6, 2, 2], (0..24).map(f64::from).collect());
    let firsts: Vec<f64> = evaluate(&graph, &[x])[0].values.iter().copied().step_by(4).collect();
    assert_eq!(firsts, [0.0, 8.0, 16.0, 4.0, 12.0, 20.0]);
    Ok(())
}

#[test]
fn constants_are_folded_where_that_is_exact() -> Result<()> {
    let mut model = Builder::new("fold");
    model.input("x", DType::F32, [2]);
    model.constant("k", &floats(&[2], &[4.0, 9.0]));
    model.node("", "Constant", &[], &["m"], &[("value", floats(&[1], &[2.0]).into())]);
    model.node("", "Sqrt", &["k"], &["root"], &[]);
    model.node("", "Div", &["root", "m"], &["half"], &[]);
    model.node("", "Reciprocal", &["half"], &["r"], &[]);
    model.node("", "Neg", &["r"], &["n"], &[]);
    model.node("", "Mul", &["x", "n"], &["y"], &[]);
    model.output("y", DType::F32, [2]);
    let graph = import(&model.encode(), &as_written())?.graph;
    assert_eq!(graph.nodes.len(), 1);
    assert_eq!(graph.constant(graph.nodes[0].inputs[1]), Some([-1.0, -1.0 / 1.5].as_slice()));
    Ok(())
}

#[test]
fn names_that_contradict_each_other() {
    let relu = |model: &mut Builder, x: &str, y: &str| model.node("", "Relu", &[x], &[y], &[]);
    let message = |build: &dyn Fn(&mut Builder)| {
        let mut model = Builder::new("names");
        model.input("x", DType::F32, [2]);
        build(&mut model);
        model.output("y", DType::F32, [2]);
        import(&model.encode(), &as_written()).map(drop).map_err(|error| error.to_string()).unwrap_err()
    };
    let reversed = message(&|model| {
        relu(model, "t", "y");
        relu(model, "x", "t");
    });
    assert_eq!(
        reversed,
        "Relu \"y\": input \"t\" is written by a later node; ONNX demands that nodes are in order"
    );
    let cycle = message(&|model| relu(model, "y", "y"));
    assert!(cycle.contains("is written by a later node"), "{cycle}");
    assert_eq!(message(&|model| relu(model, "z", "y")), "Relu \"y\": input \"z\" is not defined anywhere");
    let twice = message(&|model| {
        relu(model, "x", "y");
        relu(model, "x", "y");
    });
    assert_eq!(twice, "Relu \"y\": its output \"y\" is defined already");
    assert_eq!(message(&|model| relu(model, "x", "x")), "Relu \"x\": its output \"x\" is defined already");
    assert_eq!(message(&|_| ()), "tensor \"y\": is an output, but nothing defines it");
    assert_eq!(message(&|model| relu(model, "x", "")), "Relu \"\": it has no output");
    let constants = message(&|model| {
        model.constant("k", &filled(&[1]));
        model.constant("k", &filled(&[1]));
    });
    assert_eq!(constants, "tensor \"k\": the name is defined twice");
    assert_eq!(message(&|model| model.input("x", DType::F32, [2])), "tensor \"x\": is an input twice");
    let outputs = message(&|model| {
        relu(model, "x", "y");
        model.output("y", DType::F32, [2]);
    });
    assert_eq!(outputs, "tensor \"y\": is an output twice");
}

#[test]
fn initializers_that_are_inputs_too_are_constants() -> Result<()> {
    let mut model = Builder::new("old");
    model.opset(7).input("x", DType::F32, X);
    model.input("w", DType::F32, [1, 4, 1, 1]);
    model.constant("w", &filled(&[1, 4, 1, 1]));
    model.node("", "Conv", &["x", "w"], &["y"], &[]);
    model.output("y", DType::F32, [2, 1, 6, 5]);
    let graph = import(&model.encode(), &as_written())?.graph;
    assert_eq!(graph.inputs.len(), 1);
    Ok(())
}

#[test]
fn elements_that_are_missing_or_elsewhere() {
    let message = |build: &dyn Fn(&mut Builder)| {
        let mut model = Builder::new("elements");
        model.input("x", DType::F32, [2]);
        build(&mut model);
        model.output("x", DType::F32, [2]);
        import(&model.encode(), &as_written()).map(drop).map_err(|error| error.to_string()).unwrap_err()
    };
    assert_eq!(
        message(&|model| model.external_constant("w", &[3])),
        "tensor \"w\": its elements are in another file (external data); store them inside the model"
    );
    assert_eq!(
        message(&|model| model.constant_of_type("w", 1, &[2, 2], vec![0; 12])),
        "tensor \"w\": 3 elements do not fill the shape [2, 2]"
    );
    assert_eq!(
        message(&|model| model.constant_of_type("w", 1, &[2], vec![0; 7])),
        "tensor \"w\": 7 bytes are no whole number of elements of 4 bytes"
    );
    assert_eq!(
        message(&|model| model.constant_of_type("w", 1, &[-2], vec![])),
        "tensor \"w\": negative extent in [-2]"
    );
    let huge = message(&|model| model.constant_of_type("w", 1, &[1 << 40, 1 << 40], vec![]));
    assert!(huge.contains("too many elements"), "{huge}");
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    let found = |build: &dyn Fn(&mut Builder), limits: Limits| {
        let mut model = Builder::new("limits");
        build(&mut model);
        match import(&model.encode(), &ImportOptions { limits, ..as_written() }) {
            Err(Error::TooLarge { what, found, limit }) => format!("{what}: {found} > {limit}"),
            other => panic!("{other:?}"),
        }
    };
    let limits = Limits { bytes: 10_000, nodes: 5, dims: 4, elements: 1000, macs: 2000 };
    let conv = |model: &mut Builder| {
        model.input("x", DType::F32, [1, 2, 10, 10]);
        model.constant("w", &filled(&[2, 2, 3, 3]));
        model.node("conv", "Conv", &["x", "w"], &["y"], &[]);
        model.output("y", DType::F32, [1, 2, 8, 8]);
    };
    assert_eq!(
        found(&conv, limits.clone()),
        "the number of multiply-accumulates up to \"conv\": 2304 > 2000"
    );
    let few_bytes = found(&conv, Limits { bytes: 100, ..limits.clone() });
    assert!(few_bytes.starts_with("the size of the file in bytes: "), "{few_bytes}");
    let nodes = |model: &mut Builder| {
        model.input("x", DType::F32, [1]);
        for i in 0..6 {
            model.node("", "Relu", &["x"], &[&format!("y{i}")], &[]);
        }
    };
    assert_eq!(found(&nodes, limits.clone()), "the number of nodes: 6 > 5");
    let parts = |model: &mut Builder| {
        model.input("x", DType::F32, [1]);
        model.node("", "Sum", &["x"; 1000], &["y"], &[]);
    };
    assert_eq!(found(&parts, limits.clone()), "the number of names, attributes and other parts: 321 > 320");
    let dims = |model: &mut Builder| model.input("x", DType::F32, [1usize; 5]);
    assert_eq!(found(&dims, limits.clone()), "the number of dimensions of \"x\": 5 > 4");
    let elements = |model: &mut Builder| model.input("x", DType::F32, [10usize, 101]);
    assert_eq!(found(&elements, limits.clone()), "the number of elements of \"x\": 1010 > 1000");
    // A few bytes that ask for much.
    let bomb = |model: &mut Builder| {
        model.constant("s", &ints(&[1 << 30, 1 << 30, 1 << 30]));
        model.node("", "ConstantOfShape", &["s"], &["k"], &[]);
    };
    assert!(found(&bomb, limits.clone()).starts_with("the number of elements folded from constants: "));
    let steps = |model: &mut Builder| {
        for (name, value) in [("a", 0), ("b", i64::MAX), ("c", 1)] {
            model.constant(name, &Tensor::new(vec![], Data::I64(vec![value])).expect("one element"));
        }
        model.node("", "Range", &["a", "b", "c"], &["k"], &[]);
    };
    assert!(found(&steps, limits).starts_with("the number of elements folded from constants: "));
}

#[test]
fn other_files() {
    let message = |bytes: &[u8]| import(bytes, &as_written()).map(drop).map_err(|error| error.to_string());
    let no_opset = "ONNX model: it names no version of the ONNX operator set; is it an ONNX file?";
    assert_eq!(message(b""), Err(no_opset.to_owned()));
    assert!(message(b"\x89PNG\r\n\x1a\n").is_err());
    assert!(message(&[0xff; 100]).is_err());
    let mut old = Builder::new("old");
    old.opset(6);
    assert_eq!(message(&old.encode()), Err("ONNX model: operator set 6, expected 7 or later".to_owned()));
    assert_eq!(
        message(&Builder::new("empty").encode()),
        Err("ONNX model: the graph has no outputs".to_owned())
    );
    let mut new = Builder::new("new");
    new.opset(1000).input("x", DType::F32, [1]);
    new.output("x", DType::F32, [1]);
    let imported = import(&new.encode(), &as_written());
    assert!(imported.is_ok_and(|imported| imported.notices[0].contains("operator set 1000 is newer")));
}

/// A model with a bit of everything.
fn sample() -> Vec<u8> {
    let mut model = Builder::new("sample");
    model.input("x", DType::F32, ["N", "2", "6", "6"]);
    model.constant("w", &filled(&[4, 2, 3, 3]));
    model.constant_of_type("h", 10, &[4, 1, 1], vec![0x3c; 8]);
    model.constant("shape", &ints(&[0, -1]));
    model.constant("v", &filled(&[4, 3]));
    model.node("conv", "Conv", &["x", "w"], &["a"], &[("pads", [1, 1, 1, 1].into()), ("group", 1.into())]);
    model.node("scale", "Mul", &["a", "h"], &["b"], &[]);
    model.node("relu", "Clip", &["b"], &["c"], &[]);
    model.node(
        "pool",
        "MaxPool",
        &["c"],
        &["d"],
        &[("kernel_shape", [2, 2].into()), ("strides", [2, 2].into())],
    );
    model.node("mean", "ReduceMean", &["d"], &["e"], &[("axes", [2, 3].into()), ("keepdims", 1.into())]);
    model.node("dims", "Shape", &["e"], &["s"], &[]);
    model.node("flat", "Reshape", &["e", "shape"], &["f"], &[]);
    model.node("dense", "Gemm", &["f", "v"], &["g"], &[("alpha", 0.5.into())]);
    model.node("soft", "Softmax", &["g"], &["y"], &[("axis", (-1).into())]);
    model.output("y", DType::F32, [1usize, 3]);
    model.encode()
}

/// Two inputs of which one is an output as it is: its name stands on both sides of the file, now and when it is written.
#[test]
fn an_input_that_is_an_output_keeps_its_name() -> Result<()> {
    let mut model = Builder::new("through");
    model.opset(17).input("x0", DType::F32, [2usize, 3]);
    model.input("x1", DType::F32, [2usize, 3]);
    model.node("neg", "Neg", &["x0"], &["y"], &[]);
    model.node("same", "Identity", &["x1"], &["copy"], &[]);
    for output in ["x0", "y", "copy"] {
        model.output(output, DType::F32, [2usize, 3]);
    }
    let names = |graph: &Graph| -> [Vec<String>; 2] {
        [&graph.inputs, &graph.outputs]
            .map(|ids| ids.iter().map(|&id| graph.value(id).name.clone()).collect())
    };
    let graph = import(&model.encode(), &as_written())?.graph;
    assert_eq!(names(&graph), [vec!["x0", "x1"], vec!["x0", "y", "copy"]]);
    let again = import(&export(&graph)?, &as_written())?.graph;
    assert_eq!(names(&again), names(&graph));
    let x = |sign: f64| Exact::new(vec![2, 3], (0..6).map(|i| sign * f64::from(i)).collect());
    let [x0, x1] = [x(1.0), x(-0.5)];
    let y = evaluate(&again, &[x0.clone(), x1.clone()]);
    assert_eq!([&y[0].values, &y[2].values], [&x0.values, &x1.values]);
    Ok(())
}

/// A graph can give two values one name, a file cannot.
#[test]
fn an_output_with_the_name_of_another_value_is_refused() -> Result<()> {
    let mut graph = Graph::default();
    let x = graph.add_value("x".to_owned(), vec![2, 3], DType::F32);
    graph.inputs.push(x);
    let y = graph.add_node("relu".to_owned(), Op::Unary(Activation::Relu), vec![x])?;
    graph.values[y.0].name = "x".to_owned();
    graph.outputs.push(y);
    graph.check()?;
    let error = export(&graph).map(drop).map_err(|error| error.to_string());
    assert!(error.as_ref().is_err_and(|text| text.contains("\"x\": is the name of an input")), "{error:?}");
    Ok(())
}

const SMALL: Limits = Limits { bytes: 1 << 20, nodes: 100, dims: 6, elements: 1 << 16, macs: 1 << 24 };

#[test]
fn every_prefix_of_a_file_is_refused() -> Result<()> {
    let bytes = sample();
    let options = ImportOptions { limits: SMALL, ..as_written() };
    import(&bytes, &options)?;
    for end in 0..bytes.len() {
        assert!(import(&bytes[..end], &options).is_err(), "{end} of {} bytes", bytes.len());
    }
    Ok(())
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = sample();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let options = ImportOptions { limits: SMALL, ..as_written() };
        if let Ok(imported) = import(&bytes, &options) {
            prop_assert!(imported.graph.check().is_ok());
            let together = import(&bytes, &ImportOptions { left_out: Vec::new(), ..options });
            prop_assert!(together.is_ok_and(|imported| imported.graph.check().is_ok()));
            prop_assert!(export(&imported.graph).is_ok());
        }
    }
}

/// The classifier of the demo, as PyTorch wrote it.
#[test]
fn the_demo_network() -> Result<()> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/zoo/demo/demo.onnx");
    let bytes = std::fs::read(path).map_err(|source| Error::File { path: path.into(), source })?;
    let Imported { graph, notices, .. } = import(&bytes, &ImportOptions::default())?;
    assert!(notices.iter().all(|notice| notice.contains("batch 1 is assumed")), "{notices:?}");
    graph.check()?;
    assert_eq!(graph.macs(), 8_471_936);
    assert!(graph.nodes.iter().any(|node| node.op == Op::GlobalPool(PoolKind::Average)));
    Ok(())
}
