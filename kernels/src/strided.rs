//! Copies of boxes of elements with any strides, and searches along one dimension: what is left where blocks do not
//! serve.
//!
//! A box has up to [`MAX_RANK`] dimensions, outermost first; each operand has a stride per dimension, in elements.
//! ```text
//! transpose    strides of the input in the order of the output's dimensions
//! slice        a start, and the step times the input's stride
//! pad          fill the output, then copy the input into the middle
//! enlarge      [height, factor, width, factor] with strides [width, 0, 1, 0] (nearest neighbour)
//! broadcast    stride 0
//! ```
//! Elements are f32 in plain values, or whole blocks: then these are operations on the pixels of blocked planes.
//! Simple loops without vectors of their own: memory decides.

/// Dimensions of a box.
pub const MAX_RANK: usize = 8;

/// Splits a box into its rows: calls `f` with the offset of each row's first element in each operand.
fn for_each_row<const N: usize>(extents: &[usize], strides: [&[usize]; N], mut f: impl FnMut([usize; N])) {
    assert!(extents.len() <= MAX_RANK, "at most {MAX_RANK} dimensions");
    for strides in strides {
        assert_eq!(strides.len(), extents.len(), "a stride for each dimension");
    }
    if extents.contains(&0) {
        return;
    }
    let outer = extents.len().saturating_sub(1);
    let mut index = [0; MAX_RANK];
    let mut offsets = [0; N];
    loop {
        f(offsets);
        // The next row: the last outer dimension that has not reached its end goes on, those behind it restart.
        let Some(dimension) = (0..outer).rev().find(|&d| index[d] + 1 < extents[d]) else {
            return;
        };
        index[dimension] += 1;
        for (offset, strides) in offsets.iter_mut().zip(strides) {
            *offset += strides[dimension];
            for d in dimension + 1..outer {
                *offset -= index[d] * strides[d];
            }
        }
        index[dimension + 1..outer].fill(0);
    }
}

/// Extent and strides of the innermost dimension; a box without dimensions is one element.
fn row<const N: usize>(extents: &[usize], strides: [&[usize]; N]) -> (usize, [usize; N]) {
    match extents.last() {
        Some(&extent) => (extent, strides.map(|strides| strides[strides.len() - 1])),
        None => (1, [1; N]),
    }
}

/// `to[i . to_strides] = from[i . from_strides]` for every index `i` of a box.
pub fn copy<T: Copy>(
    from: &[T],
    to: &mut [T],
    extents: &[usize],
    from_strides: &[usize],
    to_strides: &[usize],
) {
    let (length, [from_step, to_step]) = row(extents, [from_strides, to_strides]);
    for_each_row(extents, [from_strides, to_strides], |[from_at, to_at]| {
        let (from, to) = (&from[from_at..], &mut to[to_at..]);
        match (from_step, to_step) {
            (1, 1) => to[..length].copy_from_slice(&from[..length]),
            (0, 1) => to[..length].fill(from[0]),
            _ => {
                for i in 0..length {
                    to[i * to_step] = from[i * from_step];
                }
            }
        }
    });
}

/// For each of `extents[0]` outer and `extents[2]` inner positions of a row-major `[outer][axis][inner]` value: the
/// index of the largest of its `extents[1]` elements, the first of equals. NaN counts as larger than any number
/// (the first NaN wins); -0 and +0 are equal. `out` is `[outer][inner]`.
pub fn arg_max(input: &[f32], extents: [usize; 3], out: &mut [i64]) {
    let [outer, axis, inner] = extents;
    assert!(axis > 0, "an index of nothing");
    assert_eq!(input.len(), outer * axis * inner, "the input is not of these extents");
    assert_eq!(out.len(), outer * inner, "the output is not of these extents");
    if inner == 0 {
        return;
    }
    // Neighbouring positions together, so that memory is read in runs.
    const TOGETHER: usize = 64;
    for (input, out) in input.chunks_exact(axis * inner).zip(out.chunks_exact_mut(inner)) {
        for (chunk, out) in out.chunks_mut(TOGETHER).enumerate() {
            let mut largest = [0.0; TOGETHER];
            for (at, row) in input.chunks_exact(inner).enumerate() {
                let row = &row[chunk * TOGETHER..][..out.len()];
                for ((out, largest), &x) in out.iter_mut().zip(&mut largest).zip(row) {
                    if at == 0 || x > *largest || x.is_nan() && !largest.is_nan() {
                        (*out, *largest) = (at as i64, x);
                    }
                }
            }
        }
    }
}
