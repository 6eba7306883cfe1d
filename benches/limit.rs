//! What the machine can do at the moment of a bench: a figure by itself says little on a shared one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sinew::Isa;
use sinew_kernels::isa::probe;
use sinew_kernels::{Block, LANES};

/// How long the fastest run is looked for.
const TIME: Duration = Duration::from_millis(60);

/// The least time of one call, in seconds.
pub fn fastest(mut run: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), Duration::MAX);
    while start.elapsed() < TIME {
        let began = Instant::now();
        run();
        best = best.min(began.elapsed());
    }
    best.as_secs_f64()
}

/// Floating-point operations a second of a loop of multiply-adds.
pub fn flops(isa: Isa) -> f64 {
    const ROUNDS: usize = 20_000;
    let probe = probe(isa).expect("a supported instruction set");
    let mut state = vec![[1e-9; LANES]; 2 + probe.chains];
    probe.flops(ROUNDS) / fastest(|| (probe.fma_loop)(ROUNDS, black_box(&mut state)))
}

/// Bytes a second of a copy that reads half as many bytes and writes as many.
pub fn bytes(isa: Isa, bytes: usize) -> f64 {
    let probe = probe(isa).expect("a supported instruction set");
    let blocks = (bytes / 2).div_ceil(size_of::<Block>()).max(1);
    let from = vec![[1.0; LANES]; blocks];
    let mut to = from.clone();
    let seconds = fastest(|| (probe.copy_loop)(black_box(&from), black_box(&mut to)));
    (2 * blocks * size_of::<Block>()) as f64 / seconds
}
