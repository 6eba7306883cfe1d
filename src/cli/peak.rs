//! The peak of fused multiply-adds: a loop in registers, so that a share of it means something on a machine whose clock
//! changes and that others use as well.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use sinew::{Error, Isa};
use sinew_kernels::isa;
use sinew_kernels::probe::ProbeKernel;
use sinew_kernels::{Block, LANES};

use super::Result;

/// One repetition takes about so long: shorter than what disturbs it, much longer than a look at the clock.
const REPETITION: Duration = Duration::from_micros(200);

/// The loops of an instruction set that this CPU has.
pub(super) fn probe(isa: Isa) -> Result<ProbeKernel> {
    let missing = isa.required_features();
    isa::probe(isa).ok_or_else(|| Error::IsaUnavailable { isa: isa.name(), missing }.into())
}

/// GFLOP/s of one thread: the best repetition within `time`.
fn one_thread(probe: &ProbeKernel, time: Duration) -> f64 {
    // Factor, addend, and chains that stay normal numbers.
    let mut state: Vec<Block> = vec![[0.999; LANES], [0.001; LANES]];
    state.resize(2 + probe.chains, [1.0; LANES]);
    let mut timed = |rounds: usize| {
        let start = Instant::now();
        (probe.fma_loop)(rounds, black_box(&mut state));
        start.elapsed()
    };
    let mut rounds = 64;
    while timed(rounds) < REPETITION {
        rounds *= 2;
    }
    let end = Instant::now() + time;
    let mut best = timed(rounds);
    while Instant::now() < end {
        best = best.min(timed(rounds));
    }
    probe.flops(rounds) / best.as_secs_f64() / 1e9
}

/// GFLOP/s of so many threads at the same time.
pub(super) fn gflops(probe: &ProbeKernel, threads: usize, time: Duration) -> f64 {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = || {
            start.wait();
            one_thread(probe, time)
        };
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        own + others.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum::<f64>()
    })
}
