//! The loops that measure the machine do the work that they are timed for, on every instruction set.

use sinew_kernels::isa::{probe, supported};
use sinew_kernels::{Block, LANES};

fn blocks(count: usize) -> Vec<Block> {
    (0..count).map(|block| std::array::from_fn(|lane| 0.37 + (block * LANES + lane) as f32 * 0.113)).collect()
}

#[test]
fn every_chain_is_multiplied_and_added_in_every_round() {
    for probe in supported().iter().filter_map(|table| probe(table.isa)) {
        let before = blocks(2 + probe.chains);
        let mut state = before.clone();
        (probe.fma_loop)(5, &mut state);
        for (chain, (now, before)) in state.iter().zip(&before).enumerate() {
            for lane in 0..LANES {
                let mut want = before[lane];
                if chain >= 2 {
                    for _ in 0..5 {
                        want = state[0][lane].mul_add(state[1][lane], want);
                    }
                }
                assert_eq!(now[lane].to_bits(), want.to_bits(), "{} chain {chain} lane {lane}", probe.name);
            }
        }
        assert_eq!(probe.flops(5), (5 * probe.chains * LANES * 2) as f64);
    }
}

#[test]
fn every_block_is_read_and_copied() {
    for count in [0, 1, 3, 8, 29] {
        let from = blocks(count);
        for probe in supported().iter().filter_map(|table| probe(table.isa)) {
            let mut sum = [0.0; LANES];
            (probe.read_loop)(&from, &mut sum);
            for (lane, sum) in sum.into_iter().enumerate() {
                let want: f64 = from.iter().map(|block| f64::from(block[lane])).sum();
                let error = (f64::from(sum) - want).abs();
                assert!(error <= 1e-5 * want.abs(), "{}: {sum} is not {want}", probe.name);
            }
            let mut to = vec![[f32::NAN; LANES]; count];
            (probe.copy_loop)(&from, &mut to);
            assert_eq!(to, from, "{}", probe.name);
        }
    }
}
