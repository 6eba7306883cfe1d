//! Forms that exporters take apart: put together where they are exactly the form, left and reported where they are not.

#[path = "support/reference.rs"]
#[allow(dead_code, reason = "the error bounds serve other tests")]
mod reference;

use reference::{Exact, evaluate};
use sinew::graph::{Graph, MaxMinOrder, Op, Pads};
use sinew::onnx::{Attribute, Builder, ImportOptions, Imported, Recovery, import};
use sinew::{DType, Error, Result, Tensor};
use sinew_kernels::activation::Activation;

/// Options with every form left as the file has it.
fn as_written() -> ImportOptions {
    let left_out = sinew::onnx::recover::FORMS.iter().map(|form| form.name.to_owned()).collect();
    ImportOptions { left_out, ..ImportOptions::default() }
}

/// A model with one image `x`, whose nodes each write `y` or a name of their own.
struct Sketch {
    builder: Builder,
    nodes: usize,
}

impl Sketch {
    fn new(shape: &[usize]) -> Self {
        let mut builder = Builder::new("sketch");
        builder.input("x", DType::F32, shape);
        Self { builder, nodes: 0 }
    }

    fn number(&mut self, name: &str, x: f32) -> Result<()> {
        self.constant(name, &[], vec![x])
    }

    fn constant(&mut self, name: &str, shape: &[usize], elements: Vec<f32>) -> Result<()> {
        self.builder.constant(name, &Tensor::f32(shape, elements)?);
        Ok(())
    }

    /// `y = op(inputs)`, with names apart by spaces.
    fn op(&mut self, y: &str, op: &str, inputs: &str, attributes: &[(&str, Attribute)]) {
        self.nodes += 1;
        let inputs: Vec<&str> = inputs.split(' ').collect();
        self.builder.node(&format!("n{}", self.nodes), op, &inputs, &[y], attributes);
    }

    fn finish(mut self, outputs: &str) -> Result<(Graph, Recovery)> {
        for output in outputs.split(' ') {
            self.builder.output(output, DType::F32, [""; 0]);
        }
        let graph = import(&self.builder.encode(), &as_written())?.graph;
        let names: Vec<String> = graph.outputs.iter().map(|&id| graph.value(id).name.clone()).collect();
        let shapes: Vec<Vec<usize>> = graph.outputs.iter().map(|&id| graph.shape(id).to_vec()).collect();
        let before = values(&graph);
        let Imported { graph, recovery, .. } = import(&self.builder.encode(), &ImportOptions::default())?;
        graph.check()?;
        for (before, after) in before.iter().zip(&values(&graph)) {
            let near =
                before.values.iter().zip(&after.values).all(|(a, b)| (a - b).abs() <= 1e-6 * (1.0 + a.abs()));
            assert!(near, "{recovery:?} changed {before:?} to {after:?}");
        }
        for (&id, (name, shape)) in graph.outputs.iter().zip(names.iter().zip(&shapes)) {
            assert_eq!(
                (&graph.value(id).name, graph.shape(id)),
                (name, shape.as_slice()),
                "the outputs stay"
            );
        }
        Ok((graph, recovery))
    }
}

/// The outputs for numbers from -4 to 4, which reach every branch of the functions.
fn values(graph: &Graph) -> Vec<Exact> {
    let shape = graph.shape(graph.inputs[0]).to_vec();
    let x = (0..shape.iter().product()).map(|i: usize| f64::from((i * 37 % 64) as u8) / 8.0 - 4.0).collect();
    evaluate(graph, &[Exact::new(shape, x)])
}

const IMAGE: [usize; 4] = [1, 3, 4, 5];

fn operators(graph: &Graph) -> Vec<&'static str> {
    graph.nodes.iter().map(|node| node.op.name()).collect()
}

fn what(recovery: &Recovery) -> Vec<&'static str> {
    recovery.recovered.iter().map(|recovered| recovered.what).collect()
}

fn reasons(recovery: &Recovery) -> Vec<String> {
    recovery
        .missed
        .iter()
        .map(|missed| format!("{} {}: {}", missed.what, missed.node, missed.reason))
        .collect()
}

#[test]
fn hard_swish_in_every_order() -> Result<()> {
    type Build = fn(&mut Sketch);
    let orders: [Build; 5] = [
        |s| {
            s.op("t", "Mul", "x c", &[]);
            s.op("y", "Div", "t six", &[]);
        },
        |s| {
            s.op("t", "Div", "c six", &[]);
            s.op("y", "Mul", "t x", &[]);
        },
        |s| {
            s.op("t", "Mul", "sixth c", &[]);
            s.op("y", "Mul", "x t", &[]);
        },
        |s| {
            s.op("t", "Mul", "x c", &[]);
            s.op("y", "Mul", "t sixth", &[]);
        },
        |s| {
            s.op("h", "HardSigmoid", "x", &[("alpha", (1.0 / 6.0).into()), ("beta", 0.5.into())]);
            s.op("y", "Mul", "h x", &[]);
        },
    ];
    for order in orders {
        let mut sketch = Sketch::new(&IMAGE);
        for (name, number) in [("three", 3.0), ("zero", 0.0), ("six", 6.0), ("sixth", 1.0 / 6.0)] {
            sketch.number(name, number)?;
        }
        sketch.op("s", "Add", "three x", &[]);
        sketch.op("c", "Clip", "s zero six", &[]);
        order(&mut sketch);
        let (graph, recovery) = sketch.finish("y")?;
        assert_eq!(operators(&graph), ["HardSwish"]);
        assert_eq!((what(&recovery), reasons(&recovery)), (vec!["hard_swish"], vec![]));
    }
    Ok(())
}

#[test]
fn near_hard_swish_is_reported() -> Result<()> {
    let build = |three: f32, six: f32, outputs: &str| {
        let mut sketch = Sketch::new(&IMAGE);
        for (name, number) in [("three", three), ("zero", 0.0), ("six", six), ("divisor", 6.0)] {
            sketch.number(name, number)?;
        }
        sketch.op("s", "Add", "x three", &[]);
        sketch.op("c", "Clip", "s zero six", &[]);
        sketch.op("t", "Mul", "x c", &[]);
        sketch.op("y", "Div", "t divisor", &[]);
        sketch.finish(outputs)
    };
    let (graph, recovery) = build(2.5, 6.0, "y")?;
    assert_eq!(operators(&graph), ["Add", "Clip", "Mul", "Div"]);
    assert!(reasons(&recovery)[0].contains("clip(x + 2.5, 0, 6)"), "{recovery:?}");
    assert_eq!(recovery.missed.len(), 1);
    let (graph, recovery) = build(3.0, 5.5, "y")?;
    assert_eq!(graph.nodes.len(), 4);
    assert!(reasons(&recovery)[0].contains("clip(x + 3, 0, 5.5)"), "{recovery:?}");
    let (graph, recovery) = build(3.0, 6.0, "y c")?;
    assert_eq!(graph.nodes.len(), 4);
    assert_eq!(reasons(&recovery), ["hard_swish n4: \"c\" is read elsewhere too"]);
    let mut sketch = Sketch::new(&IMAGE);
    for (name, number) in [("three", 3.0), ("zero", 0.0), ("six", 6.0)] {
        sketch.number(name, number)?;
    }
    sketch.op("s", "Sub", "x three", &[]);
    sketch.op("c", "Clip", "s zero six", &[]);
    sketch.op("t", "Mul", "x c", &[]);
    sketch.op("y", "Div", "t six", &[]);
    assert_eq!(sketch.finish("y")?.0.nodes.len(), 4, "3 is subtracted, not added");
    let (graph, recovery) = build(3.0, 6.0, "y t")?;
    assert_eq!(graph.nodes.len(), 4, "{recovery:?}");
    Ok(())
}

#[test]
fn hard_sigmoid() -> Result<()> {
    for (scale, is_quotient) in [(6.0, true), (1.0 / 6.0, false)] {
        let mut sketch = Sketch::new(&IMAGE);
        for (name, number) in [("three", 3.0), ("zero", 0.0), ("six", 6.0), ("scale", scale)] {
            sketch.number(name, number)?;
        }
        sketch.op("s", "Add", "x three", &[]);
        sketch.op("c", "Clip", "s zero six", &[]);
        sketch.op("y", if is_quotient { "Div" } else { "Mul" }, "c scale", &[]);
        let (graph, _) = sketch.finish("y")?;
        assert_eq!(graph.nodes[0].op, Op::Unary(Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }));
    }
    let mut sketch = Sketch::new(&IMAGE);
    for (name, number) in [("a", 0.2), ("b", 0.5), ("zero", 0.0), ("one", 1.0)] {
        sketch.number(name, number)?;
    }
    sketch.op("t", "Mul", "x a", &[]);
    sketch.op("s", "Add", "t b", &[]);
    sketch.op("y", "Clip", "s zero one", &[]);
    let (graph, _) = sketch.finish("y")?;
    assert_eq!(graph.nodes[0].op, Op::Unary(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }));
    Ok(())
}

#[test]
fn silu_and_gelu() -> Result<()> {
    let mut sketch = Sketch::new(&IMAGE);
    sketch.op("s", "Sigmoid", "x", &[]);
    sketch.op("y", "Mul", "x s", &[]);
    assert_eq!(operators(&sketch.finish("y")?.0), ["Silu"]);

    let mut sketch = Sketch::new(&IMAGE);
    sketch.op("s", "Sigmoid", "x", &[]);
    sketch.op("y", "Mul", "x s", &[]);
    let (graph, recovery) = sketch.finish("y s")?;
    assert_eq!(
        (graph.nodes.len(), reasons(&recovery)),
        (2, vec!["silu n2: \"s\" is read elsewhere too".to_owned()])
    );

    for order in 0..3 {
        let mut sketch = Sketch::new(&IMAGE);
        let root = std::f32::consts::SQRT_2;
        for (name, number) in [("root", root), ("inverse", 1.0 / root), ("one", 1.0), ("half", 0.5)] {
            sketch.number(name, number)?;
        }
        match order {
            0 => sketch.op("d", "Div", "x root", &[]),
            _ => sketch.op("d", "Mul", "inverse x", &[]),
        }
        sketch.op("e", "Erf", "d", &[]);
        sketch.op("g", "Add", "one e", &[]);
        match order {
            0 => {
                sketch.op("t", "Mul", "x g", &[]);
                sketch.op("y", "Mul", "t half", &[]);
            }
            1 => {
                sketch.op("t", "Mul", "half x", &[]);
                sketch.op("y", "Mul", "t g", &[]);
            }
            _ => {
                sketch.op("t", "Mul", "g half", &[]);
                sketch.op("y", "Mul", "x t", &[]);
            }
        }
        let (graph, recovery) = sketch.finish("y")?;
        assert_eq!((operators(&graph), what(&recovery)), (vec!["Gelu"], vec!["gelu"]));
    }
    Ok(())
}

#[test]
fn clips_of_bounds() -> Result<()> {
    for (inner, outer, expected) in [
        (("Max", "x zero"), ("Min", "t six"), "Clip"),
        (("Min", "six x"), ("Max", "zero t"), "Clip"),
        (("Relu", "x"), ("Min", "t six"), "Clip"),
        (("Max", "x six"), ("Min", "t zero"), "Min"),
    ] {
        let mut sketch = Sketch::new(&IMAGE);
        sketch.number("zero", 0.0)?;
        sketch.number("six", 6.0)?;
        sketch.op("t", inner.0, inner.1, &[]);
        sketch.op("y", outer.0, outer.1, &[]);
        let (graph, _) = sketch.finish("y")?;
        assert_eq!(operators(&graph).last(), Some(&expected));
        if expected == "Clip" {
            assert_eq!(graph.nodes[0].op, Op::Unary(Activation::Clip { low: 0.0, high: 6.0 }));
        }
    }
    Ok(())
}

#[test]
fn max_min_in_both_orders() -> Result<()> {
    for (parts, order) in [("x n", MaxMinOrder::PositiveFirst), ("n x", MaxMinOrder::NegativeFirst)] {
        for negation in ["Neg", "Mul", "Sub"] {
            for relu_first in [false, true] {
                let mut sketch = Sketch::new(&IMAGE);
                sketch.constant("minus", &[1, 1, 1, 1], vec![-1.0])?;
                sketch.number("zero", 0.0)?;
                let operands = [("Neg", "x"), ("Mul", "x minus"), ("Sub", "zero x")];
                let operands =
                    operands.iter().find(|(op, _)| *op == negation).map_or("x", |(_, operands)| operands);
                sketch.op("n", negation, operands, &[]);
                if relu_first {
                    sketch.op("a", "Relu", &parts[..1], &[]);
                    sketch.op("b", "Relu", &parts[2..], &[]);
                    sketch.op("y", "Concat", "a b", &[("axis", 1.into())]);
                } else {
                    sketch.op("c", "Concat", parts, &[("axis", 1.into())]);
                    sketch.op("y", "Relu", "c", &[]);
                }
                let (graph, recovery) = sketch.finish("y")?;
                assert_eq!(graph.nodes.len(), 1, "{parts} {negation} {relu_first}");
                assert_eq!(graph.nodes[0].op, Op::MaxMin { order });
                assert_eq!((what(&recovery), reasons(&recovery)), (vec!["max_min"], vec![]));
            }
        }
    }
    Ok(())
}

#[test]
fn near_max_min_is_reported() -> Result<()> {
    let build = |axis: i64, relu: bool, outputs: &str| {
        let mut sketch = Sketch::new(&IMAGE);
        sketch.op("n", "Neg", "x", &[]);
        sketch.op("c", "Concat", "x n", &[("axis", axis.into())]);
        sketch.op("y", if relu { "Relu" } else { "Tanh" }, "c", &[]);
        sketch.finish(outputs).map(|(graph, recovery)| (graph.nodes.len(), reasons(&recovery)))
    };
    assert_eq!(
        build(2, true, "y")?,
        (3, vec!["max_min n3: x and -x side by side in dimension 2, expected 1".into()])
    );
    assert_eq!(build(1, false, "y")?, (3, vec!["max_min n2: no ReLU follows x and -x side by side".into()]));
    assert_eq!(build(1, true, "y n")?, (3, vec!["max_min n3: \"n\" is read elsewhere too".into()]));
    Ok(())
}

#[test]
fn bias_and_batch_norm() -> Result<()> {
    let build = |nodes: &[(&str, &str)]| {
        let mut sketch = Sketch::new(&IMAGE);
        sketch.constant("w", &[2, 3, 1, 1], vec![0.5, -1.0, 2.0, 1.5, 0.25, 3.0])?;
        sketch.constant("s", &[2, 1, 1], vec![2.0, 3.0])?;
        sketch.constant("t", &[1, 2, 1, 1], vec![-0.5, 0.75])?;
        sketch.constant("m", &[3, 1, 1], vec![0.1, 0.2, 0.3])?;
        sketch.constant("d", &[1, 3, 1, 1], vec![0.5, 0.25, 4.0])?;
        let mut last = "x".to_owned();
        for (i, (op, operand)) in nodes.iter().enumerate() {
            let y = if i + 1 == nodes.len() { "y".to_owned() } else { format!("v{i}") };
            sketch.op(&y, op, &format!("{last} {operand}"), &[]);
            last = y;
        }
        sketch.finish("y")
    };
    let constants = |graph: &Graph, at: usize| -> Vec<Vec<f32>> {
        graph.nodes[at].inputs[1..]
            .iter()
            .map(|&id| graph.constant(id).unwrap_or_default().to_vec())
            .collect()
    };
    let (graph, _) = build(&[("Conv", "w"), ("Add", "t")])?;
    assert_eq!(operators(&graph), ["Conv"]);
    assert_eq!(graph.constant(graph.nodes[0].inputs[2]), Some([-0.5, 0.75].as_slice()));
    assert_eq!(graph.nodes[0].name, "n1", "the layer keeps its name");

    let (graph, recovery) = build(&[("Conv", "w"), ("Mul", "s"), ("Add", "t")])?;
    assert_eq!(
        (operators(&graph), what(&recovery)),
        (vec!["Conv", "BatchNormalization"], vec!["batch_norm"])
    );
    assert_eq!(constants(&graph, 1), [[2.0, 3.0], [-0.5, 0.75], [0.0, 0.0], [1.0, 1.0]]);

    let (graph, _) = build(&[("Sub", "m"), ("Div", "d"), ("Conv", "w")])?;
    assert_eq!(operators(&graph), ["BatchNormalization", "Conv"]);
    assert_eq!(constants(&graph, 0), [[2.0, 4.0, 0.25], [0.0; 3], [0.1, 0.2, 0.3], [1.0; 3]]);

    // The layer has a bias already, or the constant is no bias.
    let (graph, _) = build(&[("Conv", "w"), ("Add", "t"), ("Add", "s")])?;
    assert_eq!(operators(&graph), ["Conv", "Add"]);
    Ok(())
}

#[test]
fn bias_of_a_product_behind_a_reshape() -> Result<()> {
    let mut sketch = Sketch::new(&[2, 4, 3]);
    sketch.constant("w", &[3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    sketch.constant("b", &[2], vec![0.5, -0.5])?;
    sketch.op("p", "MatMul", "x w", &[]);
    sketch.op("y", "Add", "b p", &[]);
    let (graph, recovery) = sketch.finish("y")?;
    assert_eq!((operators(&graph), what(&recovery)), (vec!["Reshape", "Dense", "Reshape"], vec!["bias"]));
    assert_eq!(graph.constant(graph.nodes[1].inputs[2]), Some([0.5, -0.5].as_slice()));
    Ok(())
}

#[test]
fn repetition_and_reshapes() -> Result<()> {
    let mut sketch = Sketch::new(&IMAGE);
    sketch.builder.constant("shape", &Tensor::new(vec![4], sinew::Data::I64(vec![1, 3, 4, 5]))?);
    sketch.op("g", "GlobalAveragePool", "x", &[]);
    sketch.op("e", "Expand", "g shape", &[]);
    sketch.op("y", "Mul", "e x", &[]);
    let (graph, _) = sketch.finish("y")?;
    assert_eq!(operators(&graph), ["GlobalAveragePool", "Mul"]);

    // A network over rows: nothing but its ends is reshaped.
    let mut sketch = Sketch::new(&[1, 2, 9]);
    sketch.constant("w", &[2, 2, 3], vec![0.5; 12])?;
    for name in ["gamma", "beta", "mean", "variance"] {
        sketch.constant(name, &[2], vec![1.0, 2.0])?;
    }
    let pads = [("pads", [1, 1].into())];
    sketch.op("a", "Conv", "x w", &pads);
    sketch.op("b", "BatchNormalization", "a gamma beta mean variance", &[]);
    sketch.op("c", "Relu", "b", &[]);
    sketch.op("d", "Conv", "c w", &pads);
    sketch.op("e", "Add", "c d", &[]);
    sketch.op("y", "Relu", "e", &[]);
    let (graph, _) = sketch.finish("y")?;
    let expected = ["Reshape", "Conv", "BatchNormalization", "Relu", "Conv", "Add", "Relu", "Reshape"];
    assert_eq!(operators(&graph), expected);
    let Op::Conv(conv) = &graph.nodes[1].op else { panic!("expected a convolution") };
    assert_eq!((conv.kernel, conv.pads), ([1, 3], Pads { left: 1, right: 1, ..Pads::default() }));
    Ok(())
}

#[test]
fn forms_can_be_left_out() -> Result<()> {
    let mut builder = Builder::new("silu");
    builder.input("x", DType::F32, IMAGE);
    builder.node("s", "Sigmoid", &["x"], &["s"], &[]);
    builder.node("y", "Mul", &["x", "s"], &["y"], &[]);
    builder.output("y", DType::F32, IMAGE);
    let without = |name: &str| ImportOptions { left_out: vec![name.to_owned()], ..ImportOptions::default() };
    let Imported { graph, recovery, .. } = import(&builder.encode(), &without("silu"))?;
    assert_eq!((graph.nodes.len(), recovery), (2, Recovery::default()));
    let unknown = import(&builder.encode(), &without("swish"));
    assert!(matches!(unknown, Err(Error::Option { .. })), "{unknown:?}");
    Ok(())
}
