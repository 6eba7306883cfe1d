//! Inputs and outputs of the graph: the caller's layout on one side, the plan's on the other.

use super::{Builder, image_strides, row_major, strided};
use crate::error::Result;
use crate::graph::{Node, Op, ValueId};
use crate::plan::Io;
use crate::plan::layout::Blocked;
use crate::plan::step::{Plain, PlainPlace, Step, Work};
use crate::tensor::DType;

impl<'g> Builder<'g> {
    pub(super) fn bind_input(&mut self, index: usize) -> Result<()> {
        let id = self.graph.inputs[index];
        let value = self.graph.value(id);
        // What reorders the input or reads an image as it is keeps the caller's layout.
        let stays_plain = |node: &Node| {
            self.reads_plain_image(node) || matches!(node.op, Op::Transpose { .. } | Op::Reshape { .. })
        };
        let in_blocks = self.options.io == Io::Blocked
            && Blocked::of_shape(&value.shape).is_some()
            && !self.graph.nodes.iter().all(|node| !node.inputs.contains(&id) || stays_plain(node));
        let before = std::mem::take(&mut self.steps);
        let len = value.shape.iter().product();
        if value.dtype == DType::F32 {
            self.plain[id.0] = Some(Plain { place: PlainPlace::Input(index), len });
        } else {
            let to = self.make_plain(len);
            self.push(value.name.clone(), Work::Convert { input: index, to }, "integers to f32")?;
            self.plain[id.0] = Some(to);
        }
        if in_blocks {
            let view = self.blocks_of(id)?;
            self.edge_in.append(&mut self.steps);
            self.pin(view.place);
            self.plain[id.0] = None;
        }
        let own = std::mem::replace(&mut self.steps, before);
        for step in own {
            self.push_step(step)?;
        }
        Ok(())
    }

    pub(super) fn bind_output(&mut self, index: usize, id: ValueId, edge_out: &mut Vec<Step>) -> Result<()> {
        let name = self.graph.value(id).name.clone();
        if self.graph.value(id).dtype == DType::I64 {
            return Ok(()); // written by the node itself
        }
        if self.plain[id.0].is_some_and(|plain| plain.place == PlainPlace::Output(index)) {
            return Ok(());
        }
        let len = self.graph.shape(id).iter().product();
        let to = Plain { place: PlainPlace::Output(index), len };
        let work = match (&self.blocked[id.0], self.plain[id.0]) {
            (Some(from), _) => {
                let strides = image_strides(&row_major(self.graph.shape(id)));
                Work::unpack(from.clone(), to, strides)
            }
            _ => {
                let from = self.plain_of(id)?;
                Work::CopyPlain { from, to, copy: strided(&[len], &[1], &[1], 0, 0), fill: None }
            }
        };
        match (&work, self.options.io) {
            (Work::Unpack { from, .. }, Io::Blocked) => {
                self.pin(from.place);
                let steps = std::mem::take(&mut self.steps);
                self.push(name, work, "to row-major order")?;
                edge_out.append(&mut self.steps);
                self.steps = steps;
            }
            _ => self.push(name, work, "to the caller's output")?,
        }
        Ok(())
    }

    /// Where a node that computes a plain value puts it: the caller's output where nothing else reads it.
    pub(super) fn plain_target(&mut self, id: ValueId) -> Plain {
        let len = self.graph.shape(id).iter().product();
        let output = self.graph.outputs.iter().position(|&output| output == id);
        let plain = match output {
            Some(index) if self.uses[id.0] == 1 => Plain { place: PlainPlace::Output(index), len },
            _ => self.make_plain(len),
        };
        self.plain[id.0] = Some(plain);
        plain
    }
}
