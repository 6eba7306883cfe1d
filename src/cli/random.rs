//! Random inputs: the same on every machine, since they are made of integers and exact divisions.

use sinew::plan::Port;
use sinew::{DType, Data};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Elements for an input: f32 uniform in -1..1, integers uniform in 0..=255. One number of the generator each, its
    /// upper bits; inputs follow one another in the model's order.
    pub(super) fn fill(&mut self, port: &Port) -> Data {
        let numbers = (0..port.len()).map(|_| self.next());
        match port.dtype {
            // 24 bits are exact in f32, and so is the scale.
            DType::F32 => Data::F32(numbers.map(|x| (x >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()),
            DType::U8 => Data::U8(numbers.map(|x| (x >> 56) as u8).collect()),
            DType::I64 => Data::I64(numbers.map(|x| (x >> 56) as i64).collect()),
        }
    }
}
