//! Inputs that find out where machines differ.

use crate::layers::Random;

/// Numbers in -1..1, and those among them that are treated differently by different machines.
pub fn hard_numbers(shape: &[usize], seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    let images = shape[0];
    let per_image = shape[1..].iter().product::<usize>();
    let mut numbers = Vec::with_capacity(images * per_image);
    for i in 0..images * per_image {
        let last = images > 1 && i / per_image == images - 1;
        let number = 2.0 * random.uniform() - 1.0;
        numbers.push(match i % 61 {
            0 => -0.0,
            7 => 0.0,
            13 => number * 1e-38,
            29 => -f32::from_bits(1),
            31 if last => f32::NAN,
            37 if last => f32::INFINITY,
            41 if last => f32::NEG_INFINITY,
            _ => number,
        });
    }
    numbers
}
