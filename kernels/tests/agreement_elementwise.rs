//! Binary operations and scale-and-add: every table against the definition, computed number by number. Sums,
//! products and quotients are exact, so the definition in f32 has one answer.

#[path = "support/blocks.rs"]
mod support;

use proptest::prelude::*;
use sinew_kernels::activation::Activation;
use sinew_kernels::elementwise::{Addend, BinaryArgs, BinaryOp, Operand, ScaleArgs};
use sinew_kernels::{Block, LANES};
use support::{Guarded, Numbers, assert_same, config, tables};

const OPS: [BinaryOp; 7] = [
    BinaryOp::Add,
    BinaryOp::Sub,
    BinaryOp::Mul,
    BinaryOp::Div,
    BinaryOp::Max,
    BinaryOp::Min,
    BinaryOp::PRelu,
];

const AFTER: [Activation; 5] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Clip { low: -0.5, high: 0.5 },
    Activation::HardSwish,
    Activation::Sigmoid,
];

fn reference(op: BinaryOp, a: f32, b: f32) -> f32 {
    let pick = |a: f32, b: f32, first: bool| match () {
        () if a.is_nan() || b.is_nan() => f32::NAN,
        () if a == 0.0 && b == 0.0 => 0.0,
        () => (if first { a } else { b }) + 0.0,
    };
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max => pick(a, b, a > b),
        BinaryOp::Min => pick(a, b, a < b),
        BinaryOp::PRelu => {
            if a > 0.0 {
                a
            } else {
                b * a
            }
        }
    }
}

/// The operands of one case: all kinds, over planes of `plane` pixels.
struct Data {
    map: Vec<Block>,
    channel: Vec<Block>,
    pixel: Vec<Block>,
    scalar: f32,
    out: Vec<Block>,
}

impl Data {
    fn new(numbers: &mut Numbers, blocks: usize, plane: usize, special: bool) -> Self {
        Self {
            map: numbers.blocks(blocks * plane, special),
            channel: numbers.blocks(blocks, special),
            pixel: numbers.blocks(plane, special),
            scalar: numbers.value(special),
            out: numbers.blocks(blocks * plane, special),
        }
    }

    fn operand(&self, kind: usize) -> Operand<'_> {
        match kind {
            0 => Operand::Map(&self.map),
            1 => Operand::Out,
            2 => Operand::Channel(&self.channel),
            3 => Operand::Pixel(&self.pixel),
            _ => Operand::Scalar(self.scalar),
        }
    }

    fn at(&self, kind: usize, plane: usize, (block, pixel, lane): (usize, usize, usize)) -> f32 {
        match kind {
            0 => self.map[block * plane + pixel][lane],
            1 => self.out[block * plane + pixel][lane],
            2 => self.channel[block][lane],
            3 => self.pixel[pixel][0],
            _ => self.scalar,
        }
    }
}

/// Blocks of `range` of each plane.
fn part(map: &[Block], plane: usize, range: &std::ops::Range<usize>) -> Vec<Block> {
    map.chunks(plane).flat_map(|plane| &plane[range.clone()]).copied().collect()
}

fn each(blocks: usize, range: &std::ops::Range<usize>, f: impl Fn(usize, usize, usize) -> f32) -> Vec<Block> {
    let pixels = (0..blocks).flat_map(|block| range.clone().map(move |pixel| (block, pixel)));
    pixels.map(|(block, pixel)| std::array::from_fn(|lane| f(block, pixel, lane))).collect()
}

fn fill(out: &mut Guarded, from: &[Block]) {
    out.with(|slices| {
        let mut from = from.iter();
        for block in slices.iter_mut().flat_map(|slice| slice.iter_mut()) {
            *block = *from.next().unwrap();
        }
    });
}

proptest! {
    #![proptest_config(config(96))]

    #[test]
    fn binary_matches_its_definition(
        op in 0..OPS.len(), kinds in (0..5usize, 0..5usize), after in 0..AFTER.len(), blocks in 1..4usize,
        plane in prop_oneof![1..8usize, 60..70usize, 120..200usize], cut in (0.0..1.0f64, 0.0..1.0f64),
        seed: u64, special: bool,
    ) {
        let (op, after) = (OPS[op], AFTER[after]);
        let data = Data::new(&mut Numbers::new(seed), blocks, plane, special);
        let ends = [cut.0, cut.1].map(|cut| (cut * (plane + 1) as f64) as usize);
        let range = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let want = each(blocks, &range, |block, pixel, lane| {
            let at = (block, pixel, lane);
            after.eval(reference(op, data.at(kinds.0, plane, at), data.at(kinds.1, plane, at)))
        });
        for table in tables() {
            let mut out = Guarded::new(blocks, range.len());
            if kinds.0 == 1 || kinds.1 == 1 {
                fill(&mut out, &part(&data.out, plane, &range));
            }
            let args = BinaryArgs {
                op, left: data.operand(kinds.0), right: data.operand(kinds.1), plane, after,
            };
            out.with(|out| (table.binary.run)(&args, range.clone(), out));
            assert_same(table.binary.name, &out.take(table.binary.name), &want, &vec![16; blocks], range.len());
        }
    }

    #[test]
    fn scale_matches_its_definition(
        in_place: bool, addend in 0..5usize, after in 0..AFTER.len(), blocks in 1..4usize,
        plane in prop_oneof![1..8usize, 60..70usize, 120..200usize], cut in (0.0..1.0f64, 0.0..1.0f64),
        seed: u64, special: bool,
    ) {
        let after = AFTER[after];
        let mut numbers = Numbers::new(seed);
        let data = Data::new(&mut numbers, blocks, plane, special);
        let shift = numbers.blocks(blocks, special);
        let residual = numbers.blocks(blocks * plane, special);
        let gates = numbers.blocks(plane, special);
        let ends = [cut.0, cut.1].map(|cut| (cut * (plane + 1) as f64) as usize);
        let range = ends[0].min(ends[1])..ends[0].max(ends[1]);
        let want = each(blocks, &range, |block, pixel, lane| {
            let x = if in_place { &data.out } else { &data.map }[block * plane + pixel][lane];
            let scale = data.channel[block][lane];
            after.eval(match addend {
                0 => x * scale,
                1 => x.mul_add(scale, shift[block][lane]),
                2 => x.mul_add(scale, residual[block * plane + pixel][lane]),
                3 => reference(BinaryOp::Add, x * scale, x * gates[pixel][0]),
                _ => reference(BinaryOp::Max, x * scale, x * gates[pixel][0]),
            })
        });
        for table in tables() {
            let mut out = Guarded::new(blocks, range.len());
            if in_place {
                fill(&mut out, &part(&data.out, plane, &range));
            }
            let args = ScaleArgs {
                input: (!in_place).then_some(&data.map),
                scale: &data.channel,
                addend: match addend {
                    0 => Addend::Nothing,
                    1 => Addend::Channel(&shift),
                    2 => Addend::Map(&residual),
                    _ => Addend::Pixel { gates: &gates, larger: addend == 4 },
                },
                plane,
                after,
            };
            out.with(|out| (table.scale.run)(&args, range.clone(), out));
            assert_same(table.scale.name, &out.take(table.scale.name), &want, &vec![16; blocks], range.len());
        }
    }
}

#[test]
fn maxmin_is_relu_of_both_signs() {
    let input = Numbers::new(1).blocks(37, true);
    let relu = |x: f32| if x > 0.0 || x.is_nan() { x } else { 0.0 };
    let want: Vec<Block> = [1.0, -1.0]
        .iter()
        .flat_map(|sign| input.iter().map(move |block| block.map(|x| relu(sign * x))))
        .collect();
    for table in tables() {
        let mut out = Guarded::new(2, input.len());
        out.with(|out| {
            let [positive, negative] = out else { unreachable!() };
            (table.maxmin.run)(&input, positive, negative);
        });
        assert_same(table.maxmin.name, &out.take(table.maxmin.name), &want, &[16; 2], input.len());
    }
}

#[test]
fn an_operand_that_is_short_is_refused() {
    let map = vec![[0.0; LANES]; 5];
    let args = BinaryArgs {
        op: BinaryOp::Add,
        left: Operand::Map(&map),
        right: Operand::Scalar(1.0),
        plane: 6,
        after: Activation::Identity,
    };
    for table in tables() {
        let mut out = vec![[0.0; LANES]; 5];
        let run = std::panic::AssertUnwindSafe(|| (table.binary.run)(&args, 0..5, &mut [&mut out]));
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
