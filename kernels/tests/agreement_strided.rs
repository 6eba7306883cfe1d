//! Boxes of elements with any strides, and the index of the largest, against the definitions.

#[path = "support/blocks.rs"]
mod support;

use proptest::prelude::*;
use sinew_kernels::strided::{MAX_RANK, arg_max, copy};
use support::{Numbers, UNWRITTEN, config};

/// Every index of a box, outermost dimension first.
fn indices(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![vec![]], |indices, &extent| {
        let longer = |index: Vec<usize>| (0..extent).map(move |i| [index.clone(), vec![i]].concat());
        indices.into_iter().flat_map(longer).collect()
    })
}

fn offset(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(index, stride)| index * stride).sum()
}

fn needed(extents: &[usize], strides: &[usize]) -> usize {
    indices(extents).iter().map(|index| offset(index, strides) + 1).max().unwrap_or(0)
}

/// Strides of a row-major value in another order of its dimensions, with a gap after each row.
fn permuted(extents: &[usize], order: &[usize], gap: usize) -> Vec<usize> {
    let mut strides = vec![0; extents.len()];
    let mut step = 1;
    for &dimension in order {
        strides[dimension] = step;
        step = step * extents[dimension] + gap;
    }
    strides
}

fn shapes() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    proptest::collection::vec(0..5usize, 0..=5).prop_flat_map(|extents| {
        let order: Vec<usize> = (0..extents.len()).collect();
        (Just(extents), Just(order).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn copy_moves_every_element_of_the_box(
        shape in shapes(), broadcast in proptest::collection::vec(any::<bool>(), 5), gap in 0..2usize, seed: u64,
    ) {
        let (extents, order) = shape;
        let mut from_strides = permuted(&extents, &order, gap);
        for (stride, broadcast) in from_strides.iter_mut().zip(broadcast) {
            *stride *= usize::from(!broadcast);
        }
        let row_major: Vec<usize> = (0..extents.len()).rev().collect();
        let to_strides = permuted(&extents, &row_major, 1 - gap);
        let from = Numbers::new(seed).plain(needed(&extents, &from_strides), true);
        let mut to = vec![UNWRITTEN; needed(&extents, &to_strides)];
        let mut want = to.clone();
        for index in indices(&extents) {
            want[offset(&index, &to_strides)] = from[offset(&index, &from_strides)];
        }
        copy(&from, &mut to, &extents, &from_strides, &to_strides);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&to), bits(&want));
    }

    #[test]
    fn arg_max_is_the_first_of_the_largest(
        extents in (0..4usize, 1..6usize, prop_oneof![0..4usize, 60..70usize]), seed: u64, special: bool,
    ) {
        let (outer, axis, inner) = extents;
        let mut numbers = Numbers::new(seed);
        let few = [1.0, -0.0, 0.0, 2.0, f32::NAN];
        let mut draw = || if special { few[numbers.below(few.len())] } else { numbers.value(false) };
        let input: Vec<f32> = (0..outer * axis * inner).map(|_| draw()).collect();
        let mut out = vec![-1; outer * inner];
        arg_max(&input, [outer, axis, inner], &mut out);
        for (position, &got) in out.iter().enumerate() {
            let (o, i) = (position / inner, position % inner);
            let values: Vec<f32> = (0..axis).map(|a| input[(o * axis + a) * inner + i]).collect();
            let nan = values.iter().position(|x| x.is_nan());
            let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let want = nan.or(values.iter().position(|&x| x == largest)).unwrap();
            prop_assert_eq!(got, want as i64, "{:?}", values);
        }
    }
}

#[test]
fn pixels_of_blocks_are_enlarged() {
    let from: Vec<[f32; 16]> = (0..6).map(|pixel| [pixel as f32; 16]).collect();
    let mut to = vec![[0.0; 16]; 36];
    // 2 x 3 pixels, each 2 x 3 times.
    copy(&from, &mut to, &[2, 2, 3, 3], &[3, 0, 1, 0], &[18, 9, 3, 1]);
    for (pixel, block) in to.iter().enumerate() {
        assert_eq!(block[0], from[pixel / 9 / 2 * 3 + pixel % 9 / 3][0], "{pixel}");
    }
}

#[test]
#[should_panic(expected = "dimensions")]
fn more_dimensions_are_refused() {
    copy(&[0.0], &mut [0.0], &[1; MAX_RANK + 1], &[1; MAX_RANK + 1], &[1; MAX_RANK + 1]);
}
