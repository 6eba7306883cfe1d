//! What the agreement tests share: the tables under test, inputs, guarded outputs, comparison of bits.

#![allow(dead_code, reason = "each test file uses a part of it")]

use proptest::test_runner::{Config, FileFailurePersistence};
use sinew_kernels::isa::{self, Isa, Kernels};
use sinew_kernels::{Block, LANES};

/// Every table that this CPU runs; fails where one named in `REQUIRE_ISA` (a comma list) is not among them.
pub fn tables() -> &'static [Kernels] {
    let tables = isa::supported();
    for name in std::env::var("REQUIRE_ISA").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        let isa: Isa = name.trim().parse().expect("REQUIRE_ISA");
        assert!(tables.iter().any(|table| table.isa == isa), "this CPU has no {isa}");
    }
    tables
}

/// As many cases as `PROPTEST_CASES` says, `cases` without it.
pub fn config(cases: u32) -> Config {
    let config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { Config { cases, ..config } }
}

/// A stream of numbers that depends on its seed only.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// Between -1 and 1, with all 24 bits of the mantissa in use.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// As [`Numbers::unit`], over some orders of magnitude; where `special` is set, one in eight is NaN, an
    /// infinity, a zero of either sign, a denormal or huge.
    pub fn value(&mut self, special: bool) -> f32 {
        const SPECIAL: [f32; 8] =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-41, -3e-45, f32::MAX];
        if special && self.bits().is_multiple_of(8) {
            return SPECIAL[self.below(SPECIAL.len())];
        }
        let scale = [0.03, 1.0, 1.0, 5.0][self.below(4)];
        self.unit() * scale
    }

    pub fn blocks(&mut self, len: usize, special: bool) -> Vec<Block> {
        (0..len).map(|_| std::array::from_fn(|_| self.value(special))).collect()
    }

    pub fn plain(&mut self, len: usize, special: bool) -> Vec<f32> {
        (0..len).map(|_| self.value(special)).collect()
    }
}

/// Equal, or both NaN.
pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// What outputs hold before: a NaN that no kernel makes.
pub const UNWRITTEN: f32 = f32::from_bits(0x7fc0_dead);
const GUARD: usize = 2;

/// Output slices, each with guard blocks before and after.
pub struct Guarded {
    data: Vec<Block>,
    len: usize,
}

impl Guarded {
    pub fn new(slices: usize, len: usize) -> Self {
        Self { data: vec![[UNWRITTEN; LANES]; slices * (len + GUARD) + GUARD], len }
    }

    /// Runs `f` on the slices.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut [&mut [Block]]) -> R) -> R {
        let mut slices: Vec<&mut [Block]> =
            self.data[GUARD..].chunks_mut(self.len + GUARD).map(|slice| &mut slice[..self.len]).collect();
        f(&mut slices)
    }

    /// What the slices hold, one after the other; fails where a guard was overwritten.
    pub fn take(mut self, name: &str) -> Vec<Block> {
        let len = self.len;
        let intact = |guard: &[Block]| guard.iter().flatten().all(|x| x.to_bits() == UNWRITTEN.to_bits());
        assert!(intact(&self.data[..GUARD]), "{name} wrote before its output");
        for slice in self.data[GUARD..].chunks(len + GUARD) {
            assert!(intact(&slice[len..]), "{name} wrote behind its output");
        }
        self.with(|slices| slices.concat())
    }
}

/// Fails unless every live lane is the same; `lanes[block]` of each block's `len` pixels are live.
pub fn assert_same(name: &str, got: &[Block], want: &[Block], lanes: &[u8], len: usize) {
    assert_eq!(got.len(), want.len());
    assert_eq!(got.len(), lanes.len() * len);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        for lane in 0..usize::from(lanes[i / len.max(1)]) {
            assert!(
                same(got[lane], want[lane]),
                "{name}: block {}, pixel {}, lane {lane}: {:e} ({:08x}) is not {:e} ({:08x})",
                i / len,
                i % len,
                got[lane],
                got[lane].to_bits(),
                want[lane],
                want[lane].to_bits()
            );
        }
    }
}
