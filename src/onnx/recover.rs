//! Operators that exporters take apart, put together again: hard-swish, SiLU, GELU, MaxMin, batch normalization, bias.
//!
//! A form is recovered only where nothing else reads what lies inside it. What is found and what was nearly found are
//! reported by node. Each form has a name and can be left out.

mod activations;
mod layers;

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Op, ValueId, shape};
use crate::tensor::Tensor;

/// A form that is recognised.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// The name by which it is left out.
    pub name: &'static str,
    /// What equals what.
    pub identity: &'static str,
    /// Whether the recovered operator gives the same bits (but for the sign of a zero); if not, it is the same function of
    /// real numbers with other roundings.
    pub bitwise: bool,
    find: fn(&View, usize) -> Option<Found>,
}

/// All forms. At each node the first that fits is taken.
pub const FORMS: [Form; 10] = [
    Form {
        name: "max_min",
        identity: "relu(concat(x, -x)) and concat(relu(x), relu(-x)) are MaxMin",
        bitwise: true,
        find: layers::max_min,
    },
    Form { name: "silu", identity: "x * sigmoid(x) is SiLU", bitwise: true, find: activations::silu },
    // The factor 1/6 of the operator is rounded to f32 before the fused multiply-add; the form with a clip rounds the sum,
    // the product and the quotient.
    Form {
        name: "hard_swish",
        identity: "x * clip(x + 3, 0, 6) / 6 and x * hard_sigmoid(x) with 1/6 and 1/2 are hard-swish",
        bitwise: false,
        find: activations::hard_swish,
    },
    // As above, with one rounding in place of two.
    Form {
        name: "hard_sigmoid",
        identity: "clip(x + c, 0, s) / s and clip(a x + b, 0, 1) are hard-sigmoid",
        bitwise: false,
        find: activations::hard_sigmoid,
    },
    // x / sqrt 2 becomes a product, and the halves are added in one fused multiply-add.
    Form {
        name: "gelu",
        identity: "x * (1 + erf(x / sqrt 2)) / 2 is GELU, whatever the order of the factors",
        bitwise: false,
        find: activations::gelu,
    },
    Form {
        name: "clip",
        identity: "min(max(x, a), b), max(min(x, b), a) and min(relu(x), b) are clips",
        bitwise: true,
        find: activations::clip,
    },
    Form {
        name: "expand",
        identity: "what an element-wise operator broadcasts anyway need not be repeated before",
        bitwise: true,
        find: layers::expand,
    },
    Form {
        name: "bias",
        identity: "a constant per channel added to the sums of a layer without bias is its bias",
        bitwise: true,
        find: layers::bias,
    },
    // Two roundings become one.
    Form {
        name: "batch_norm",
        identity: "x * s + t, (x - m) * s and (x + m) / d with a constant per channel are batch normalizations",
        bitwise: false,
        find: layers::batch_norm,
    },
    Form {
        name: "reshape_last",
        identity: "an element-wise function of a reshaped image is the reshaped function of the image",
        bitwise: true,
        find: layers::reshape_last,
    },
];

/// An operator that was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The form's name.
    pub what: &'static str,
    /// The node that computes it now.
    pub node: String,
}

/// A place that looks like a form and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The form's name.
    pub what: &'static str,
    /// The last node of the form.
    pub node: String,
    /// What is different.
    pub reason: String,
}

/// What was found in a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// What was put together.
    pub recovered: Vec<Recovered>,
    /// What was not, and why.
    pub missed: Vec<Missed>,
}

/// Puts together what exporters took apart, but for the forms in `disabled`.
///
/// # Errors
/// Where `disabled` holds a name that is no form.
pub(super) fn recover(graph: &mut Graph, disabled: &[String]) -> Result<Recovery> {
    if let Some(unknown) = disabled.iter().find(|name| FORMS.iter().all(|form| form.name != name.as_str())) {
        let names: Vec<&str> = FORMS.iter().map(|form| form.name).collect();
        return Err(Error::Option {
            option: "disabled form".to_owned(),
            reason: format!("\"{unknown}\" is no form; expected one of {}", names.join(", ")),
        });
    }
    let forms: Vec<&Form> =
        FORMS.iter().filter(|form| !disabled.iter().any(|name| name == form.name)).collect();
    let mut rewriter = Rewriter::new(graph);
    // A form may show only after another one, mostly an earlier node's: few rounds suffice, and each shrinks the graph or
    // moves a reshape down.
    while rewriter.round(&forms) {}
    let recovered = rewriter.recovered();
    skip_identities(graph);
    graph.remove_unused();
    let missed = missed(graph, &forms);
    Ok(Recovery { recovered, missed })
}

/// Lets readers of a reshape to the same shape, which moving reshapes leaves behind, read its source.
fn skip_identities(graph: &mut Graph) {
    let mut sources: HashMap<ValueId, ValueId> = HashMap::new();
    for at in 0..graph.nodes.len() {
        for input in &mut graph.nodes[at].inputs {
            *input = *sources.get(input).unwrap_or(input);
        }
        let node = &graph.nodes[at];
        if let (Op::Reshape { .. }, &[source]) = (&node.op, &*node.inputs)
            && graph.shape(source) == graph.shape(node.output)
        {
            sources.insert(node.output, source);
        }
    }
}

fn missed(graph: &Graph, forms: &[&Form]) -> Vec<Missed> {
    let index = Index::new(graph);
    let view = View { graph, index: &index };
    let mut missed = Vec::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        for form in forms {
            if let Some(Found::Missed(reason)) = (form.find)(&view, at) {
                missed.push((at, Missed { what: form.name, node: node.name.clone(), reason }));
            }
        }
    }
    // Part of a form may look like the form as well: the last node speaks for all.
    let inputs =
        missed.iter().flat_map(|(at, of)| graph.nodes[*at].inputs.iter().map(|&input| (of.what, input)));
    let parts: HashSet<(&str, ValueId)> = inputs.collect();
    let last = missed.into_iter().filter(|(at, of)| !parts.contains(&(of.what, graph.nodes[*at].output)));
    last.map(|(_, missed)| missed).collect()
}

/// What a form says of a node that could be its last.
enum Found {
    /// The nodes to change, the last one last.
    Rewrite(Vec<Change>),
    /// It looks like the form, and the text says why it is none.
    Missed(String),
}

/// A node with another operator.
struct Change {
    node: usize,
    op: Op,
    inputs: Vec<Operand>,
    /// The node whose name it takes, where that tells more than its own.
    named_after: Option<usize>,
}

impl Change {
    fn new(node: usize, op: Op, inputs: Vec<Operand>) -> Self {
        Self { node, op, inputs, named_after: None }
    }
}

enum Operand {
    Value(ValueId),
    /// A new constant, with the name of what it belongs to.
    New(String, Tensor),
}

impl From<ValueId> for Operand {
    fn from(id: ValueId) -> Self {
        Operand::Value(id)
    }
}

/// Who writes a value, and how many read it.
struct Index {
    producers: Vec<Option<usize>>,
    /// A graph output counts as one more.
    uses: Vec<usize>,
}

impl Index {
    fn new(graph: &Graph) -> Self {
        let mut index = Self { producers: vec![None; graph.values.len()], uses: vec![0; graph.values.len()] };
        for (at, node) in graph.nodes.iter().enumerate() {
            index.producers[node.output.0] = Some(at);
            for input in &node.inputs {
                index.uses[input.0] += 1;
            }
        }
        for output in &graph.outputs {
            index.uses[output.0] += 1;
        }
        index
    }
}

/// A graph to look for forms in.
struct View<'a> {
    graph: &'a Graph,
    index: &'a Index,
}

impl<'a> View<'a> {
    fn node(&self, at: usize) -> &'a Node {
        &self.graph.nodes[at]
    }

    /// The node that writes a value.
    fn producer(&self, id: ValueId) -> Option<(usize, &'a Node)> {
        self.index.producers[id.0].map(|at| (at, self.node(at)))
    }

    fn is_read_once(&self, id: ValueId) -> bool {
        self.index.uses[id.0] == 1
    }

    /// The node that writes a value that nothing else reads.
    fn inner(&self, id: ValueId) -> Option<(usize, &'a Node)> {
        self.producer(id).filter(|_| self.is_read_once(id))
    }

    /// The number that all elements of a constant are.
    fn scalar(&self, id: ValueId) -> Option<f32> {
        let (first, rest) = self.graph.constant(id)?.split_first()?;
        // Compared by bits: zeros differ in sign.
        rest.iter().all(|x| x.to_bits() == first.to_bits()).then_some(*first)
    }
}

struct Rewriter<'a> {
    graph: &'a mut Graph,
    index: Index,
    /// The form that each node is the result of.
    found: Vec<Option<&'static str>>,
}

impl<'a> Rewriter<'a> {
    fn new(graph: &'a mut Graph) -> Self {
        let (index, found) = (Index::new(graph), vec![None; graph.nodes.len()]);
        Self { graph, index, found }
    }

    /// Looks at every node once; tells whether anything changed.
    fn round(&mut self, forms: &[&Form]) -> bool {
        let mut changed = false;
        for at in 0..self.graph.nodes.len() {
            // A node that nothing reads any more.
            if self.index.uses[self.graph.nodes[at].output.0] == 0 {
                continue;
            }
            for form in forms {
                let found = (form.find)(&View { graph: self.graph, index: &self.index }, at);
                if let Some(Found::Rewrite(changes)) = found
                    && self.apply(changes)
                {
                    self.found[at] = Some(form.name);
                    changed = true;
                    break;
                }
            }
        }
        changed
    }

    /// Changes the nodes of a form; tells whether they fit.
    fn apply(&mut self, changes: Vec<Change>) -> bool {
        for Change { node: at, op, inputs, named_after } in changes {
            let inputs: Vec<ValueId> = inputs.into_iter().map(|operand| self.operand(operand)).collect();
            let shapes: Vec<&[usize]> = inputs.iter().map(|&id| self.graph.shape(id)).collect();
            let Ok(shape) = shape::infer(&op, &shapes) else {
                return false;
            };
            let name = named_after.map(|other| self.graph.nodes[other].name.clone());
            let node = &mut self.graph.nodes[at];
            let output = node.output;
            node.name = name.unwrap_or(std::mem::take(&mut node.name));
            node.op = op;
            for &input in &inputs {
                self.index.uses[input.0] += 1;
            }
            let before = std::mem::replace(&mut self.graph.nodes[at].inputs, inputs);
            self.graph.values[output.0].shape = shape;
            self.release(before);
        }
        true
    }

    fn operand(&mut self, operand: Operand) -> ValueId {
        match operand {
            Operand::Value(id) => id,
            Operand::New(name, tensor) => {
                self.index.producers.push(None);
                self.index.uses.push(0);
                self.graph.add_constant(name, tensor)
            }
        }
    }

    /// Takes back one use of each value, and those of the nodes that are unused then.
    fn release(&mut self, mut values: Vec<ValueId>) {
        while let Some(id) = values.pop() {
            self.index.uses[id.0] -= 1;
            if self.index.uses[id.0] == 0
                && let Some(at) = self.index.producers[id.0]
            {
                values.extend(&self.graph.nodes[at].inputs);
            }
        }
    }

    /// The nodes that are results of forms and still in use.
    fn recovered(&self) -> Vec<Recovered> {
        let nodes = self.graph.nodes.iter().zip(&self.found);
        let used = nodes.filter(|(node, _)| self.index.uses[node.output.0] > 0);
        used.filter_map(|(node, found)| found.map(|what| Recovered { what, node: node.name.clone() }))
            .collect()
    }
}
