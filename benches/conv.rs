//! Every convolution algorithm that serves a layer, chosen or not, on every instruction set: the evidence for
//! `plan/choose.rs`. In blocked layout, so that no layout change is timed, or on the row-major map where a layer runs there;
//! GFLOP/s count the direct algorithm, and so does the share of a loop of multiply-adds, measured right after: Winograd's may
//! be above one.
//!
//! `cargo bench --bench conv -- 3x3` takes the layers with that in their name.

#[allow(dead_code, reason = "maps have another limit")]
mod limit;
mod shapes;

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shapes::{LAYERS, numbers};
use sinew::plan::{Family, Io, PlanOptions, Strassen, Winograd};
use sinew::{Input, Model, Options, Output, Session, SessionOptions};

fn layers(criterion: &mut Criterion) {
    for layer in LAYERS {
        let graph = layer.graph().expect("a listed layer is a graph");
        let (auto, off) = (Strassen::Auto, Strassen::Off);
        let tile = |output| (Some(Family::Winograd), Winograd::Tile(output), off);
        let variants = [
            ("chosen", (None, Winograd::Auto, auto)),
            ("direct", (Some(Family::Direct), Winograd::Off, off)),
            ("im2col", (Some(Family::Im2col), Winograd::Off, off)),
            ("strassen", (None, Winograd::Off, Strassen::On)),
            ("winograd2", tile(2)),
            ("winograd4", tile(4)),
            ("winograd6", tile(6)),
            ("row-major", (None, Winograd::Auto, auto)),
        ];
        let mut group = criterion.benchmark_group(layer.name());
        for (variant, (conv, winograd, strassen)) in variants {
            let io = if variant == "row-major" { Io::Plain } else { Io::Blocked };
            let plan = PlanOptions { conv, winograd, strassen, io, ..PlanOptions::default() };
            let options = Options { plan, ..Options::default() };
            let model = Arc::new(Model::new(graph.clone(), &options).expect("a listed layer is planned"));
            let steps = &model.plan().steps;
            let served = match variant {
                "chosen" => true,
                "strassen" | "row-major" => steps.iter().any(|step| step.algorithm == variant),
                _ => steps.iter().any(|step| step.why.starts_with("asked for")),
            };
            if !served {
                continue;
            }
            let macs: u64 = steps.iter().map(|step| step.macs).sum();
            group.throughput(Throughput::Elements(2 * macs));
            for table in sinew_kernels::isa::supported() {
                let options = SessionOptions { isa: Some(table.isa), ..SessionOptions::default() };
                let mut session =
                    Session::new(Arc::clone(&model), options).expect("a supported instruction set");
                let input = numbers(model.inputs()[0].len(), 1.0);
                let mut output = vec![0.0; model.outputs()[0].len()];
                session.load_inputs(&[Input::F32(&input)]).expect("the input's shape");
                let mut run = || session.run(&[Input::F32(&input)], &mut [Output::F32(&mut output)]);
                let mut timed = false;
                group.bench_function(format!("{variant}/{}", table.isa), |bencher| {
                    timed = true;
                    bencher.iter(&mut run);
                });
                if timed {
                    let fastest = limit::fastest(|| run().expect("it ran before"));
                    let speed = (2 * macs) as f64 / fastest;
                    let share = speed / limit::flops(table.isa);
                    println!("{:50} {:.1} GFLOP/s, {share:.2} of the peak\n", "", speed / 1e9);
                }
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_millis(400)).warm_up_time(std::time::Duration::from_millis(100));
    targets = layers
}
criterion_main!(benches);
