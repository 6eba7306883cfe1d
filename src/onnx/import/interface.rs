//! What a caller hands in and gets: the inputs with their extents, and the outputs.

use std::collections::HashSet;
use std::rc::Rc;

use super::constant::Elements;
use super::{Importer, Known, check_limit, malformed};
use crate::error::{Error, Result, Unsupported};
use crate::graph::Op;
use crate::onnx::proto::{Dimension, ValueInfoProto, element_type};
use crate::tensor::DType;
use sinew_kernels::activation::Activation;

impl Importer<'_> {
    pub(super) fn inputs(
        &mut self,
        inputs: &[ValueInfoProto],
        shapes: &[(String, Vec<usize>)],
    ) -> Result<()> {
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

    pub(super) fn outputs(&mut self, outputs: &[ValueInfoProto]) -> Result<()> {
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
