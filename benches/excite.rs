//! What squeeze-and-excitation costs in whole networks: the passes on and off, interleaved in one process.
//!
//!     cargo bench --bench excite -- MODEL.onnx ...
//!
//! Each step's shortest time over all rounds, summed: on a machine that does other work, a step is short enough to be
//! left alone once in a while, a whole run is not. Outputs are compared first.

use std::sync::Arc;

use sinew::onnx::{ImportOptions, import};
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
    let graph = import(&std::fs::read(path)?, &ImportOptions::default())?.graph;
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
        let of = steps.filter(|(step, _)| ops.is_empty() || ops.contains(&&*step.op));
        of.map(|(_, &ns)| ns as f64 * 1e-6).sum()
    }
}

/// Gate first against squeeze and rescale, block by block: from the convolution in front of the linear 1x1 one to the
/// scaled map. The blocks of one size of map are added up.
fn compare_blocks([first, rescale]: [&Variant; 2]) {
    let [a, b] = [first, rescale].map(|variant| &variant.session.model().plan().steps);
    let mut sizes: Vec<(Vec<usize>, [f64; 2])> = Vec::new();
    for (at, step) in a.iter().enumerate().filter(|(_, step)| step.op == "ScaledConv") {
        // Conv, gate, bias times gate, ScaledConv; and Conv, Conv, gate, scale.
        let from = b.iter().position(|other| other.name == step.name && other.op == "Conv");
        let to = from.and_then(|from| Some(from + b[from..].iter().position(|step| step.op == "scale")?));
        let (Some(from), Some(to)) = (from, to) else { continue };
        let sum = |variant: &Variant, steps: std::ops::RangeInclusive<usize>| {
            variant.shortest[steps].iter().sum::<u64>() as f64 * 1e-6
        };
        let times = [sum(first, at - 3..=at), sum(rescale, from - 1..=to)];
        let shape = step.output_shape();
        match sizes.iter_mut().find(|(size, _)| *size == shape) {
            Some((_, sums)) => sums.iter_mut().zip(times).for_each(|(sum, time)| *sum += time),
            None => sizes.push((shape, times)),
        }
    }
    for (shape, [first, rescale]) in sizes {
        println!(
            "  {shape:?}: gate first {first:.3} ms, rescale {rescale:.3} ms, ratio {:.3}",
            rescale / first
        );
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
    for variants in &all {
        if let [first, rescale, ..] = &variants[..] {
            println!("{}", first.name);
            compare_blocks([first, rescale]);
        }
    }
    Ok(())
}
