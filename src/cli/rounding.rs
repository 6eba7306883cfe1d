//! What rounding the weights changes in a model's outputs: both forms on the same input.

use std::sync::Arc;

use serde_json::{Value, json};
use sinew::plan::Io;
use sinew::{Data, Model, Output, Session};

use super::inputs::{FileArguments, SourceArguments, gather};
use super::load::{Loaded, ModelArguments, load};
use super::{Report, Result};

/// Of one output, over all its elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Change {
    /// The largest difference.
    absolute: f64,
    /// The largest difference as a part of the larger of the two numbers.
    relative: f64,
    /// The largest number without rounding, to compare the differences with.
    value: f64,
}

impl Change {
    /// Takes one element into account; of two NaN there is no difference.
    fn add(&mut self, exact: f64, rounded: f64) {
        let size = exact.abs().max(rounded.abs());
        let difference = match () {
            () if exact == rounded || exact.is_nan() && rounded.is_nan() => 0.0,
            () if exact.is_finite() && rounded.is_finite() => (exact - rounded).abs(),
            () => f64::INFINITY,
        };
        self.absolute = self.absolute.max(difference);
        if difference > 0.0 {
            self.relative = self.relative.max(difference / if difference.is_finite() { size } else { 1.0 });
        }
        self.value = self.value.max(exact.abs());
    }

    fn over(exact: &[f64], rounded: &[f64]) -> Self {
        let mut change = Self::default();
        exact.iter().zip(rounded).for_each(|(&exact, &rounded)| change.add(exact, rounded));
        change
    }
}

/// Runs the model with and without rounded weights and tells the difference of every output.
pub(super) fn tell(
    arguments: &ModelArguments,
    rounded: &Arc<Model>,
    files: &FileArguments,
    source: &SourceArguments,
    report: &mut Report,
) -> Result<()> {
    let exact = ModelArguments { engine: arguments.engine.with_exact_weights(), ..arguments.clone() };
    let Loaded { model: exact, .. } = load(&exact, None, Io::Plain)?;
    let inputs = gather(files, source, rounded.inputs())?;
    let options = arguments.engine.session_options();
    let mut sessions = [Session::new(exact, options)?, Session::new(Arc::clone(rounded), options)?];
    let mut changes = vec![Change::default(); rounded.outputs().len()];
    for batch in 0..inputs.batches {
        let mut results = Vec::new();
        for session in &mut sessions {
            let mut outputs = session.new_outputs()?;
            let mut places: Vec<Output<'_>> = sinew::run::outputs_of(&mut outputs);
            session.run(&inputs.batch(batch), &mut places)?;
            results.push(outputs);
        }
        for (index, change) in changes.iter_mut().enumerate() {
            let [exact, rounded] = [0, 1].map(|form| numbers(results[form][index].data()));
            let of_batch = Change::over(&exact, &rounded);
            change.absolute = change.absolute.max(of_batch.absolute);
            change.relative = change.relative.max(of_batch.relative);
            change.value = change.value.max(of_batch.value);
        }
    }
    let from = inputs.seed.map_or(String::new(), |seed| format!(" on random inputs of seed {seed}"));
    report.line(format!("what 16-bit weights change{from}:"));
    let mut all: Vec<Value> = Vec::new();
    for (port, Change { absolute, relative, value }) in rounded.outputs().iter().zip(changes) {
        report.line(format!(
            "output \"{}\": at most {absolute:.3e}, at most {relative:.3e} of an element; largest element {value:.3e}",
            port.name
        ));
        all.push(json!({
            "name": port.name,
            "largest_absolute": absolute,
            "largest_relative": relative,
            "largest_element": value,
        }));
    }
    report.set("changes", all);
    report.set("seed", inputs.seed);
    report.set("images", inputs.json());
    report.notices.extend(inputs.notices());
    Ok(())
}

fn numbers(data: &Data) -> Vec<f64> {
    match data {
        Data::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
        Data::I64(data) => data.iter().map(|&x| x as f64).collect(),
        Data::U8(data) => data.iter().map(|&x| f64::from(x)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_the_largest_of_both_kinds() {
        let change = Change::over(&[100.0, -0.5, 0.0, f64::NAN], &[101.0, -0.25, 0.0, f64::NAN]);
        assert_eq!(change, Change { absolute: 1.0, relative: 0.5, value: 100.0 });
        let change = Change::over(&[1.0], &[f64::NAN]);
        assert_eq!((change.absolute, change.relative), (f64::INFINITY, f64::INFINITY));
    }
}
