//! What squeeze-and-excitation costs in whole networks: the passes on and off, interleaved in one process.
//!
//!     cargo bench --bench excite -- MODEL.onnx ...
//!
//! Each step's shortest time over all rounds, summed: on a machine that does other work, a step is short enough to be
//! left alone once in a while, a whole run is not. Outputs are compared first.

use std::sync::Arc;

use sinew::onnx::{ImportOptions, import, recover};
use sinew::run::outputs_of;
use sinew::{Input, Model, Options, Session, SessionOptions, Tensor};

const VARIANTS: [(&str, &[&str]); 3] = [
    ("all passes", &[]),
    ("without gate_first", &["gate_first"]),
    ("without both", &["gate_first", "fuse_squeeze_excite"]),
];
const ROUNDS: usize = 60;

struct Variant {
    name: String,
    session: Session<'static>,
    input: Vec<f32>,
    outputs: Vec<Tensor>,
    shortest: Vec<u64>,
}

fn variants(path: &str) -> Result<Vec<Variant>, Box<dyn std::error::Error>> {
    let mut graph = import(&std::fs::read(path)?, &ImportOptions::default())?.graph;
    recover(&mut graph, &[])?;
    let shape = graph.shape(graph.inputs[0]);
    let input: Vec<f32> =
        (0..shape.iter().product()).map(|i: usize| (i % 251) as f32 / 125.0 - 1.0).collect();
    let mut variants = Vec::new();
    for (what, disabled) in VARIANTS {
        let disabled_passes = disabled.iter().map(|&name| name.to_owned()).collect();
        let model = Model::new(graph.clone(), &Options { disabled_passes, ..Options::default() })?;
        let rewrites: usize = model
            .passes()
            .iter()
            .filter(|pass| VARIANTS[2].1.contains(&pass.name))
            .map(|pass| pass.rewrites)
            .sum();
        // Without a block in it, a network is one variant.
        if rewrites == 0
            && !variants.is_empty()
            && variants.iter().all(|v: &Variant| v.name.ends_with("no blocks"))
        {
            continue;
        }
        let what = if rewrites == 0 && disabled.is_empty() { "no blocks" } else { what };
        let mut session = Session::new(Arc::new(model), SessionOptions::default())?;
        session.set_profiling(true);
        let (outputs, steps) = (session.new_outputs()?, session.step_times().len());
        let name = format!("{path}: {what}");
        variants.push(Variant {
            name,
            session,
            input: input.clone(),
            outputs,
            shortest: vec![u64::MAX; steps],
        });
    }
    Ok(variants)
}

impl Variant {
    fn run(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.session.run(&[Input::F32(&self.input)], &mut outputs_of(&mut self.outputs))?;
        for (shortest, &now) in self.shortest.iter_mut().zip(self.session.step_times()) {
            *shortest = now.min(*shortest);
        }
        Ok(())
    }

    /// Milliseconds of the steps whose verb is among `ops`; of all where there are none.
    fn time(&self, ops: &[&str]) -> f64 {
        let steps = self.session.model().plan().steps.iter().zip(&self.shortest);
        let of = steps.filter(|(step, _)| ops.is_empty() || ops.contains(&step.op));
        of.map(|(_, &ns)| ns as f64 * 1e-6).sum()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let mut all = Vec::new();
    for path in &paths {
        all.push(variants(path)?);
    }
    for variants in &mut all {
        for variant in &mut *variants {
            variant.run()?;
        }
        let outputs: Vec<&[f32]> =
            variants.iter().filter_map(|variant| variant.outputs[0].as_f32()).collect();
        for other in &outputs {
            let scale = outputs[0].iter().fold(0f32, |most, x| most.max(x.abs()));
            let far = outputs[0].iter().zip(*other).any(|(a, b)| (a - b).abs() > 1e-4 * scale);
            assert!(!far, "the variants disagree");
        }
    }
    for _ in 0..ROUNDS {
        for variant in all.iter_mut().flatten() {
            variant.run()?;
        }
    }
    println!("{:>9}  {:>9}  {:>9}  ms: all steps, gates, passes over maps", "all", "gates", "maps");
    for variant in all.iter().flatten() {
        let (gates, maps) = (["gate"], ["scale", "multiply", "add", "global-average", "activation"]);
        println!(
            "{:9.3}  {:9.3}  {:9.3}  {}",
            variant.time(&[]),
            variant.time(&gates),
            variant.time(&maps),
            variant.name
        );
    }
    Ok(())
}
