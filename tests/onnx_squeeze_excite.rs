//! Squeeze-and-excitation as exporters write it: every squeeze with every kind of dense layer and gate, of channels, of
//! pixels or of both, is found, fused and gives the values of the file.

#[path = "support/reference.rs"]
mod reference;

use std::sync::Arc;

use reference::{Exact, evaluate};
use sinew::onnx::{Builder, ImportOptions, import};
use sinew::optimize::{fuse_spatial_excite, fuse_squeeze_excite};
use sinew::{DType, Data, Model, Options, Result, Session, SessionOptions, Tensor};

const CHANNELS: usize = 20;
const HIDDEN: usize = 6;
const SIZE: [usize; 2] = [5, 4];

/// Numbers that rounding shows in, the same in every run.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.3 - 1.0).collect()
}

/// A block that is being written: `x` in, `y` out.
struct File {
    builder: Builder,
    nodes: usize,
}

impl File {
    fn new() -> Self {
        let mut builder = Builder::new("block");
        builder.input("x", DType::F32, [2, CHANNELS, SIZE[0], SIZE[1]]);
        Self { builder, nodes: 0 }
    }

    fn constant(&mut self, shape: &[usize], values: Vec<f32>) -> Result<String> {
        self.nodes += 1;
        let name = format!("c{}", self.nodes);
        self.builder.constant(&name, &Tensor::f32(shape, values)?);
        Ok(name)
    }

    fn ints(&mut self, values: &[i64]) -> Result<String> {
        self.nodes += 1;
        let name = format!("c{}", self.nodes);
        self.builder.constant(&name, &Tensor::new(vec![values.len()], Data::I64(values.to_vec()))?);
        Ok(name)
    }

    fn op(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, sinew::onnx::Attribute)]) -> String {
        self.nodes += 1;
        let name = format!("n{}", self.nodes);
        self.builder.node(&name, op, inputs, &[&name], attributes);
        name
    }

    fn squeeze(&mut self, form: &str) -> Result<String> {
        let axes = [2usize, 3];
        Ok(match form {
            "ReduceMean" => self.op("ReduceMean", &["x"], &[("axes", axes[..].into())]),
            "ReduceMean without dimensions" => {
                self.op("ReduceMean", &["x"], &[("axes", axes[..].into()), ("keepdims", 0.into())])
            }
            "AveragePool" => self.op("AveragePool", &["x"], &[("kernel_shape", SIZE[..].into())]),
            _ => self.op("GlobalAveragePool", &["x"], &[]),
        })
    }

    fn dense(&mut self, form: &str, x: &str, [inputs, outputs]: [usize; 2], seed: usize) -> Result<String> {
        let weights = numbers(inputs * outputs, seed);
        let bias = numbers(outputs, seed + 1);
        Ok(match form {
            "Conv" => {
                let w = self.constant(&[outputs, inputs, 1, 1], weights)?;
                let b = self.constant(&[outputs], bias)?;
                self.op("Conv", &[x, &w, &b], &[])
            }
            "Conv without bias" => {
                let w = self.constant(&[outputs, inputs, 1, 1], weights)?;
                self.op("Conv", &[x, &w], &[])
            }
            "Gemm" => {
                let w = self.constant(&[outputs, inputs], weights)?;
                let b = self.constant(&[outputs], bias)?;
                self.op("Gemm", &[x, &w, &b], &[("transB", 1.into())])
            }
            "MatMul" => {
                let w = self.constant(&[inputs, outputs], weights)?;
                self.op("MatMul", &[x, &w], &[])
            }
            _ => {
                let w = self.constant(&[inputs, outputs], weights)?;
                let b = self.constant(&[outputs], bias)?;
                let sums = self.op("MatMul", &[x, &w], &[]);
                self.op("Add", &[&sums, &b], &[])
            }
        })
    }

    fn gate(&mut self, form: &str, x: &str) -> Result<String> {
        Ok(match form {
            "Sigmoid" => self.op("Sigmoid", &[x], &[]),
            "HardSigmoid 1/6" => self.op("HardSigmoid", &[x], &[("alpha", (1.0 / 6.0).into())]),
            "HardSigmoid 1/5" => self.op("HardSigmoid", &[x], &[]),
            _ => {
                let three = self.constant(&[], vec![3.0])?;
                let (zero, six) = (self.constant(&[], vec![0.0])?, self.constant(&[], vec![6.0])?);
                let sum = self.op("Add", &[x, &three], &[]);
                let clipped = self.op("Clip", &[&sum, &zero, &six], &[]);
                self.op("Div", &[&clipped, &six], &[])
            }
        })
    }

    /// `branches` dense layers, then one; `x * gate`.
    fn finish(mut self, [squeeze, dense, gate]: [&str; 3], branches: usize) -> Result<Vec<u8>> {
        let rows = !dense.starts_with("Conv");
        let mut z = self.squeeze(squeeze)?;
        if rows != squeeze.contains("without") {
            let shape: &[i64] = if rows { &[2, CHANNELS as i64] } else { &[2, CHANNELS as i64, 1, 1] };
            let shape = self.ints(shape)?;
            z = self.op("Reshape", &[&z, &shape], &[]);
        }
        let mut parts = Vec::new();
        for branch in 0..branches {
            let sums = self.dense(dense, &z, [CHANNELS, HIDDEN], 10 * branch + 1)?;
            parts.push(self.op("Relu", &[&sums], &[]));
        }
        if branches > 1 {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            z = self.op("Concat", &parts, &[("axis", 1.into())]);
        } else {
            z.clone_from(&parts[0]);
        }
        let sums = self.dense(dense, &z, [HIDDEN * branches, CHANNELS], 99)?;
        let mut s = self.gate(gate, &sums)?;
        if rows {
            let shape = self.ints(&[2, CHANNELS as i64, 1, 1])?;
            s = self.op("Reshape", &[&s, &shape], &[]);
        }
        self.builder.node("product", "Mul", &["x", &s], &["y"], &[]);
        Ok(self.encode())
    }

    /// `x * q`, with a number per pixel; with `both`, joined with `x * s`.
    fn finish_spatial(mut self, gate: &str, both: Option<&str>) -> Result<Vec<u8>> {
        let sums = self.dense("Conv", "x", [CHANNELS, 1], 7)?;
        let q = self.gate(gate, &sums)?;
        let Some(both) = both else {
            self.builder.node("product", "Mul", &["x", &q], &["y"], &[]);
            return Ok(self.encode());
        };
        let by_pixel = self.op("Mul", &["x", &q], &[]);
        let z = self.squeeze("GlobalAveragePool")?;
        let hidden = self.dense("Conv", &z, [CHANNELS, HIDDEN], 1)?;
        let hidden = self.op("Relu", &[&hidden], &[]);
        let sums = self.dense("Conv", &hidden, [HIDDEN, CHANNELS], 99)?;
        let s = self.gate(gate, &sums)?;
        let by_channel = self.op("Mul", &["x", &s], &[]);
        self.builder.node("both", both, &[&by_channel, &by_pixel], &["y"], &[]);
        Ok(self.encode())
    }

    fn encode(mut self) -> Vec<u8> {
        self.builder.output("y", DType::F32, [2, CHANNELS, SIZE[0], SIZE[1]]);
        self.builder.encode()
    }
}

/// Options with every form left as the file has it.
fn as_written() -> ImportOptions {
    let left_out = sinew::onnx::recover::FORMS.iter().map(|form| form.name.to_owned()).collect();
    ImportOptions { left_out, ..ImportOptions::default() }
}

/// Whether the planned file gives the values of its nodes one by one, computed in f64; gives the operators of its steps.
fn check(bytes: &[u8], what: &str) -> Result<Vec<String>> {
    let x = numbers(2 * CHANNELS * SIZE[0] * SIZE[1], 5);
    let graph = import(bytes, &as_written())?.graph;
    let data = x.iter().map(|&x| f64::from(x)).collect();
    let want = evaluate(&graph, &[Exact::new(graph.shape(graph.inputs[0]).to_vec(), data)]).remove(0);
    let graph = import(bytes, &ImportOptions::default())?.graph;
    let model = Arc::new(Model::new(graph, &Options::default())?);
    let shape = model.inputs()[0].shape.clone();
    let mut session = Session::new(Arc::clone(&model), SessionOptions::default())?;
    let got = session.run_tensors(&[Tensor::f32(shape, x)?])?.remove(0);
    let errors = want.values.iter().zip(&want.error).zip(got.as_f32().unwrap_or_default());
    for ((want, error), &got) in errors {
        let bound = 2.0 * error * f64::from(f32::EPSILON);
        assert!((f64::from(got) - want).abs() <= bound, "{what}: {got} is not {want}");
    }
    Ok(model.plan().steps.iter().map(|step| step.op.to_string()).collect())
}

/// Gates of pixels (sSE), and of pixels and channels (scSE).
#[test]
fn gates_of_pixels_are_found() -> Result<()> {
    for gate in ["Sigmoid", "HardSigmoid 1/6", "HardSigmoid apart"] {
        for (both, step) in [(None, "multiply"), (Some("Add"), "scale-both"), (Some("Max"), "scale-both")] {
            let what = format!("{gate}, {both:?}");
            let bytes = File::new().finish_spatial(gate, both)?;
            let graph = import(&bytes, &ImportOptions::default())?.graph;
            let found = fuse_spatial_excite::found(&graph);
            let mut names = vec!["spatial_excite"];
            names.extend(both.map(|_| "concurrent_excite"));
            assert!(found.iter().all(|found| found.missed.is_none()), "{what}: {found:?}");
            assert_eq!(found.iter().map(|found| found.what).collect::<Vec<_>>(), names, "{what}");
            let steps = check(&bytes, &what)?;
            let passes = ["multiply", "add", "maximum", "scale", "scale-both"];
            let passes: Vec<_> = steps.iter().filter(|step| passes.contains(&step.as_str())).collect();
            assert_eq!(passes, [step], "{what}: one pass over the map");
        }
    }
    Ok(())
}

#[test]
fn every_form_of_the_exporters_is_found() -> Result<()> {
    for squeeze in ["GlobalAveragePool", "ReduceMean", "ReduceMean without dimensions", "AveragePool"] {
        for dense in ["Conv", "Conv without bias", "Gemm", "MatMul", "MatMul and Add"] {
            for gate in ["Sigmoid", "HardSigmoid 1/6", "HardSigmoid 1/5", "HardSigmoid apart"] {
                for branches in [1, 3] {
                    let what = format!("{squeeze}, {dense}, {gate}, {branches} branches");
                    let bytes = File::new().finish([squeeze, dense, gate], branches)?;
                    let graph = import(&bytes, &ImportOptions::default())?.graph;
                    let found = fuse_squeeze_excite::found(&graph);
                    let name = if branches > 1 { "aggregate_excite" } else { "squeeze_excite" };
                    assert!(
                        matches!(&found[..], [found] if found.missed.is_none() && found.what == name),
                        "{what}: {found:?}"
                    );
                    let steps = check(&bytes, &what)?;
                    assert_eq!(steps.iter().filter(|step| *step == "gate").count(), 1, "{what}");
                    assert!(steps.iter().all(|step| step != "Conv" && step != "Dense"), "{what}");
                }
            }
        }
    }
    Ok(())
}
