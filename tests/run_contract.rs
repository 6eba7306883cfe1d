//! What `Session::run` promises: no allocation from the first run on, exact memory, the caller's floating-point state,
//! clear refusals.

#![allow(unsafe_code, reason = "a counting allocator and the control register")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use sinew::graph::{Conv, Graph, Op, Pads};
use sinew::{DType, Error, Input, Model, Options, Output, Session, SessionOptions, Tensor};
use sinew_kernels::activation::Activation;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what this thread allocates.
struct Counting;

// SAFETY: all work is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Two convolutions with a residual, and a dense layer.
fn model() -> Arc<Model> {
    let mut graph = Graph { name: "small".into(), ..Graph::default() };
    let x = graph.add_value("image", vec![1, 20, 9, 9], DType::F32);
    graph.inputs.push(x);
    let conv = |graph: &mut Graph, x, name: &str| {
        let weights = (0..20 * 20 * 9).map(|i| ((i * 37 % 101) as f32 - 50.0) / 300.0).collect();
        let weights = graph.add_constant("w", Tensor::f32([20, 20, 3, 3], weights).expect("a full tensor"));
        let bias = graph.add_constant("b", Tensor::f32([20], vec![0.1; 20]).expect("a full tensor"));
        let op = Op::Conv(Conv {
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            pads: Pads { top: 1, left: 1, bottom: 1, right: 1 },
            groups: 1,
            before: Activation::Identity,
            residual: false,
            after: Activation::Relu,
        });
        graph.add_node(name, op, vec![x, weights, bias]).expect("operands that fit")
    };
    let a = conv(&mut graph, x, "a");
    let b = conv(&mut graph, a, "b");
    let sum =
        graph.add_node("sum", Op::Binary(sinew::graph::BinaryOp::Add), vec![b, a]).expect("equal shapes");
    graph.outputs.push(sum);
    Arc::new(Model::new(graph, &Options::default()).expect("a checked graph"))
}

fn image() -> Vec<f32> {
    (0..20 * 81).map(|i| ((i * 29 % 97) as f32 - 48.0) / 31.0).collect()
}

#[test]
fn a_run_allocates_nothing() {
    let mut session = Session::new(model(), SessionOptions::default()).expect("a session");
    let (image, mut out) = (image(), vec![0.0; 20 * 81]);
    for run in 0..3 {
        let before = ALLOCATIONS.with(Cell::get);
        session.run(&[Input::F32(&image)], &mut [Output::F32(&mut out)]).expect("inputs that fit");
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "run {run} allocated or freed");
    }
}

#[test]
fn the_arena_is_exact() {
    let model = model();
    let needed = model.plan().arena_bytes();
    let mut memory = vec![0u8; needed + 64];
    let start = memory.as_ptr().align_offset(64);
    let (image, mut lent, mut own) = (image(), vec![0.0; 20 * 81], vec![0.0; 20 * 81]);
    {
        let arena = &mut memory[start..start + needed];
        arena.fill(0xff); // a caller's memory may hold anything
        let mut session = Session::with_arena(Arc::clone(&model), SessionOptions::default(), arena)
            .expect("exactly enough");
        session.run(&[Input::F32(&image)], &mut [Output::F32(&mut lent)]).expect("inputs that fit");
    }
    let mut session = Session::new(Arc::clone(&model), SessionOptions::default()).expect("a session");
    session.run(&[Input::F32(&image)], &mut [Output::F32(&mut own)]).expect("inputs that fit");
    assert_eq!(lent, own);

    let short = &mut memory[start..start + needed - 1];
    match Session::with_arena(Arc::clone(&model), SessionOptions::default(), short) {
        Err(Error::ArenaTooSmall { found, needed: said }) => assert_eq!((found, said), (needed - 1, needed)),
        other => panic!("one byte less was accepted: {other:?}"),
    }
    let askew = &mut memory[start + 4..start + 4 + needed.min(60)];
    assert!(Session::with_arena(model, SessionOptions::default(), askew).is_err());
}

#[test]
fn misfits_are_refused() {
    let mut session = Session::new(model(), SessionOptions::default()).expect("a session");
    let (image, mut out) = (image(), vec![0.0; 20 * 81]);
    let message = |result: sinew::Result<()>| result.expect_err("a misfit").to_string();
    assert!(message(session.run(&[], &mut [Output::F32(&mut out)])).contains("inputs"));
    let short = message(session.run(&[Input::F32(&image[1..])], &mut [Output::F32(&mut out)]));
    assert!(short.contains("\"image\"") && short.contains("1620"), "{short}");
    let bytes = message(session.run(&[Input::U8(&[0; 1620])], &mut [Output::F32(&mut out)]));
    assert!(bytes.contains("u8"), "{bytes}");
    assert!(message(session.run(&[Input::F32(&image)], &mut [Output::F32(&mut out[1..])])).contains("1619"));
}

/// Flush-to-zero and another rounding mode, as a host built with fast-math sets them.
#[cfg(target_arch = "x86_64")]
mod state {
    use std::arch::asm;

    pub const FLUSHING: u32 = 0xffc0; // flush-to-zero, denormals-are-zero, round toward zero, exceptions masked

    pub fn set(mxcsr: u32) {
        // SAFETY: a valid value of the control register.
        unsafe { asm!("ldmxcsr [{at}]", at = in(reg) &mxcsr, options(nostack)) };
    }

    pub fn get() -> u32 {
        let mut mxcsr = 0u32;
        // SAFETY: stores the control register into a local.
        unsafe { asm!("stmxcsr [{at}]", at = in(reg) &mut mxcsr, options(nostack)) };
        mxcsr & 0xffc0
    }
}

#[cfg(target_arch = "aarch64")]
mod state {
    use std::arch::asm;

    pub const FLUSHING: u64 = 1 << 24 | 0b11 << 22; // flush-to-zero, round toward zero

    pub fn set(fpcr: u64) {
        // SAFETY: a valid value of the control register.
        unsafe { asm!("msr fpcr, {fpcr}", fpcr = in(reg) fpcr, options(nomem, nostack)) };
    }

    pub fn get() -> u64 {
        let fpcr: u64;
        // SAFETY: reads the control register.
        unsafe { asm!("mrs {fpcr}, fpcr", fpcr = out(reg) fpcr, options(nomem, nostack)) };
        fpcr
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[test]
fn a_flushing_caller_gets_the_same_bits_and_its_state_back() {
    let mut session = Session::new(model(), SessionOptions::default()).expect("a session");
    // Products of denormal size: flushing would lose them.
    let tiny: Vec<f32> = image().iter().map(|x| x * 1e-38).collect();
    let (mut want, mut got) = (vec![0.0; 20 * 81], vec![0.0; 20 * 81]);
    session.run(&[Input::F32(&tiny)], &mut [Output::F32(&mut want)]).expect("inputs that fit");
    let before = state::get();
    state::set(state::FLUSHING);
    let result = session.run(&[Input::F32(&tiny)], &mut [Output::F32(&mut got)]);
    let after = state::get();
    state::set(before);
    result.expect("inputs that fit");
    assert_eq!(after, state::FLUSHING, "the caller's state came back changed");
    let bits = |data: &[f32]| data.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&want), bits(&got));
}
