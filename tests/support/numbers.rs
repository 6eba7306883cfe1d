//! Numbers for weights and inputs that every machine makes alike.

use sinew::Tensor;

/// SplitMix64, as numbers in -1..1 that sums round.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        self.scaled(shape, 1.0)
    }

    pub fn scaled(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let values = (0..shape.iter().product()).map(|_| self.next() * scale).collect();
        Tensor::f32(shape, values).expect("as many numbers as the shape holds")
    }
}
