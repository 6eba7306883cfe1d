//! `sinew machine`: what this machine has and how fast it is, measured with the instructions that kernels use.
//!
//! Nothing here reaches a plan: plans assume the same cache sizes everywhere, so that results can be reproduced.

use std::fs;
use std::hint::black_box;
use std::num::NonZero;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use aligned_vec::AVec;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use sinew::Isa;
use sinew_kernels::isa;
use sinew_kernels::probe::ProbeKernel;
use sinew_kernels::{Block, LANES};

use super::table::Table;
use super::times::{bytes, count};
use super::{Report, Result, peak, progress};

#[derive(Args)]
pub(super) struct Arguments {
    /// Threads of the measurements with all threads [default: as many as the system offers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object and nothing else
    #[arg(long)]
    pub(super) json: bool,
}

/// How long each number is measured.
const TIME: Duration = Duration::from_millis(60);
/// What one look at the clock times at least.
const REPETITION: Duration = Duration::from_micros(200);

pub(super) fn run(arguments: &Arguments) -> Result<Report> {
    let offered = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.map_or(offered, usize::from);
    let caches = caches(Path::new("/sys/devices/system/cpu/cpu0/cache"));
    let levels = levels(&caches);
    let tables = isa::supported();
    let bar = progress::bar((2 * tables.len() + 4 * levels.len()) as u64, arguments.json);

    let mut report = Report::default();
    let cpu = cpu_name();
    report.line(format!("{}, {offered} threads offered", cpu.as_deref().unwrap_or("CPU of unknown name")));
    report.set("cpu", cpu);
    report.set("threads_offered", offered);
    report.set("threads", threads);
    tell_instruction_sets(threads, &bar, &mut report);
    tell_caches(&caches, &mut report);
    tell_bandwidth(tables[0].isa, &levels, threads, &bar, &mut report)?;
    bar.finish_and_clear();
    Ok(report)
}

// ---- instruction sets ----

fn tell_instruction_sets(threads: usize, bar: &ProgressBar, report: &mut Report) {
    let all = format!(">{threads} threads");
    let mut table = Table::new(&["instruction set", "available", ">GFLOP/s, 1 thread", &all]);
    let mut sets: Vec<Value> = Vec::new();
    let mut best = None;
    for set in Isa::ALL {
        let Some(probe) = isa::probe(set) else {
            let missing = missing(set);
            table.row([set.name().to_owned(), format!("no: lacks {missing}"), String::new(), String::new()]);
            sets.push(json!({ "name": set.name(), "available": false, "missing": missing }));
            continue;
        };
        let measure = |threads| {
            let gflops = peak::gflops(&probe, threads, TIME);
            bar.inc(1);
            gflops
        };
        let (one, all) = (measure(1), measure(threads));
        best.get_or_insert((set, one));
        table.row([set.name().to_owned(), "yes".to_owned(), format!("{one:.1}"), format!("{all:.1}")]);
        sets.push(json!({
            "name": set.name(),
            "available": true,
            "kernel": probe.name,
            "gflops": one,
            "gflops_all_threads": all,
        }));
    }
    report.line("");
    report.text.push_str(&table.render());
    report.line(
        "Multiply-adds in registers, f32, two operations each; scalar is what the compiler makes of it.",
    );
    if let Some((set, gflops)) = best {
        report.line(format!("Shares of the peak are of {gflops:.1} GFLOP/s a thread: {set}, one thread."));
        report.set("peak_isa", set.name());
        report.set("peak_gflops", gflops);
    }
    report.set("isas", sets);
}

/// The features that an instruction set needs and this CPU lacks.
fn missing(set: Isa) -> String {
    #[cfg(target_arch = "x86_64")]
    let needed: &[(&str, bool)] = match set {
        Isa::Avx512 => &[("avx512f", std::is_x86_feature_detected!("avx512f"))],
        Isa::Avx2 => {
            &[("avx2", std::is_x86_feature_detected!("avx2")), ("fma", std::is_x86_feature_detected!("fma"))]
        }
        _ => &[],
    };
    #[cfg(not(target_arch = "x86_64"))]
    let needed: &[(&str, bool)] = &[];
    let lacking: Vec<&str> = needed.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
    if lacking.is_empty() { set.required_features().to_owned() } else { lacking.join(" and ") }
}

fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    // Arm's kernels give numbers instead of a name.
    let arm = || Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?));
    field("model name").or_else(arm)
}

// ---- caches ----

struct Cache {
    level: u32,
    kind: String,
    bytes: usize,
    line: usize,
    shared_by: String,
}

/// The caches of one CPU as Linux tells them; none elsewhere.
fn caches(folder: &Path) -> Vec<Cache> {
    let cache = |index: usize| {
        let read = |name: &str| {
            let text = fs::read_to_string(folder.join(format!("index{index}")).join(name)).ok()?;
            Some(text.trim().to_owned())
        };
        Some(Cache {
            level: read("level")?.parse().ok()?,
            kind: read("type")?.to_lowercase(),
            bytes: size(&read("size")?)?,
            line: read("coherency_line_size")?.parse().ok()?,
            shared_by: read("shared_cpu_list").unwrap_or_default(),
        })
    };
    (0..).map_while(cache).collect()
}

/// `32K` or `8M` in bytes.
fn size(text: &str) -> Option<usize> {
    let (digits, factor) = match text.strip_suffix('K') {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

fn tell_caches(caches: &[Cache], report: &mut Report) {
    report.line("");
    if caches.is_empty() {
        report.line("The system tells nothing about caches: sizes that are common are measured.");
    } else {
        let mut table = Table::new(&["cache", ">size", ">line", "CPUs that share it"]);
        for cache in caches {
            let name = format!("L{} {}", cache.level, cache.kind);
            table.row([name, bytes(cache.bytes as u64), cache.line.to_string(), cache.shared_by.clone()]);
        }
        report.text.push_str(&table.render());
    }
    report.line("Plans never use these: they assume 32 KiB and 1 MiB everywhere.");
    let cache = |cache: &Cache| {
        let Cache { level, kind, bytes, line, shared_by } = cache;
        json!({ "level": level, "type": kind, "bytes": bytes, "line": line, "cpus": shared_by })
    };
    report.set("caches", caches.iter().map(cache).collect::<Value>());
}

// ---- bandwidth ----

/// A working set that one level of memory holds.
struct Level {
    name: String,
    bytes: usize,
    /// Whether all threads share the level, and so divide the working set.
    shared: bool,
}

/// Half of each cache, and four times the largest one for memory.
fn levels(caches: &[Cache]) -> Vec<Level> {
    let common = [(1, 32 << 10), (2, 1 << 20), (3, 8 << 20)];
    let mut levels = Vec::new();
    let mut largest = 0;
    for (level, common) in common {
        let told = caches.iter().find(|cache| cache.level == level && cache.kind != "instruction");
        // A CPU may have no third level.
        let bytes = match told {
            Some(cache) => cache.bytes,
            None if caches.is_empty() => common,
            None => continue,
        };
        largest = largest.max(bytes);
        levels.push(Level { name: format!("L{level}"), bytes: bytes / 2, shared: level == 3 });
    }
    let memory = (4 * largest).clamp(64 << 20, 1 << 30);
    levels.push(Level { name: "memory".into(), bytes: memory, shared: true });
    levels
}

fn tell_bandwidth(
    set: Isa,
    levels: &[Level],
    threads: usize,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<()> {
    let probe = peak::probe(set)?;
    let titles = [">threads", "level", ">working set", ">a thread's", ">read GB/s", ">copy GB/s"];
    let mut table = Table::new(&titles);
    let mut told: Vec<Value> = Vec::new();
    let counts = if threads == 1 { vec![1] } else { vec![1, threads] };
    for threads in counts {
        for Level { name, bytes: total, shared } in levels {
            let own = if *shared { total / threads } else { *total };
            let [read, copy] = [false, true].map(|copy| {
                let speed = bandwidth(&probe, threads, own, copy);
                bar.inc(1);
                speed
            });
            let all = own * threads;
            table.row([
                threads.to_string(),
                name.clone(),
                bytes(all as u64),
                bytes(own as u64),
                format!("{read:.1}"),
                format!("{copy:.1}"),
            ]);
            told.push(json!({
                "level": name,
                "threads": threads,
                "bytes_per_thread": own,
                "read_gb_per_s": read,
                "copy_gb_per_s": copy,
            }));
        }
    }
    report.line("");
    report.text.push_str(&table.render());
    report.line(format!(
        "With {set}; a copy counts what is read and what is written. 1 GB is {} bytes.",
        count(1_000_000_000)
    ));
    report.set("bandwidth", told);
    Ok(())
}

/// GB/s of all threads together, each on its own `bytes`: the sum of every thread's best repetition.
fn bandwidth(probe: &ProbeKernel, threads: usize, bytes: usize, copy: bool) -> f64 {
    let blocks = (bytes / size_of::<Block>()).max(2);
    let start = Barrier::new(threads);
    let run = || {
        // Written once, so that every page is there.
        let mut memory = AVec::<Block>::from_iter(64, std::iter::repeat_n([1.0; LANES], blocks));
        start.wait();
        let (from, to) = memory.split_at_mut(blocks / 2);
        let to = &mut to[..from.len()];
        let moved = 2 * size_of_val(from);
        let mut sum = [0.0; LANES];
        let mut once = || {
            if copy {
                (probe.copy_loop)(black_box(from), black_box(to));
            } else {
                (probe.read_loop)(black_box(from), &mut sum);
                (probe.read_loop)(black_box(to), &mut sum);
            }
        };
        moved as f64 / best(&mut once).as_secs_f64() / 1e9
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        own + others.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum::<f64>()
    })
}

/// The shortest time of one call, from repetitions within [`TIME`].
fn best(once: &mut impl FnMut()) -> Duration {
    let mut timed = |calls: u32| {
        let start = Instant::now();
        for _ in 0..calls {
            once();
        }
        start.elapsed()
    };
    let mut calls = 1;
    while timed(calls) < REPETITION {
        calls *= 2;
    }
    let end = Instant::now() + TIME;
    let mut best = timed(calls);
    while Instant::now() < end {
        best = best.min(timed(calls));
    }
    best / calls
}
