//! Inputs of bytes that are only packed: the packing step reads the bytes themselves, and no f32 plane is stored.

use super::Builder;
use crate::plan::step::{Plain, PlainPlace, Step, Work};
use crate::tensor::DType;

impl Builder<'_> {
    /// Takes out each conversion of bytes whose result is read by packing steps alone.
    pub(super) fn pack_bytes(&mut self) {
        for (input, id) in self.graph.inputs.iter().enumerate() {
            if self.graph.value(*id).dtype == DType::U8 {
                self.pack_bytes_of(input);
            }
        }
    }

    fn pack_bytes_of(&mut self, input: usize) {
        let converts = |step: &Step| match step.work {
            Work::Convert { input: own, to: Plain { place: PlainPlace::Arena(buffer), .. } } => {
                (own == input).then_some(buffer)
            }
            _ => None,
        };
        let packs = |step: &Step, buffer: usize| match &step.work {
            Work::Pack { from, .. } => from.place == PlainPlace::Arena(buffer),
            _ => false,
        };
        let steps = || self.edge_in.iter().chain(&self.steps);
        let Some(buffer) = steps().find_map(converts) else { return };
        let mut readers = steps().filter(|step| step.buffers.contains(&buffer) && converts(step).is_none());
        if !readers.all(|step| packs(step, buffer)) {
            return;
        }
        for list in [&mut self.edge_in, &mut self.steps] {
            list.retain(|step| converts(step) != Some(buffer));
            for step in list.iter_mut().filter(|step| packs(step, buffer)) {
                let Work::Pack { from, .. } = &mut step.work else { continue };
                from.place = PlainPlace::Input(input);
                step.buffers = step.work.buffers();
                step.why.insert_str(0, "bytes ");
            }
        }
        self.buffers[buffer].blocks = 0;
    }
}
