//! Disjoint views of one buffer: what a step reads and what it writes.

use std::ops::Range;

/// Shared views of `reads` and exclusive views of `writes`. Reads may overlap each other, writes may overlap nothing.
///
/// # Panics
/// Where a range lies outside the buffer or overlaps a write: a bug in the plan.
pub fn views<T, const R: usize, const W: usize>(
    buffer: &mut [T],
    reads: [Range<usize>; R],
    writes: [Range<usize>; W],
) -> ([&[T]; R], [&mut [T]; W]) {
    let mut order: [usize; W] = std::array::from_fn(|i| i);
    order.sort_unstable_by_key(|&i| (writes[i].start, writes[i].end));
    let mut written: [&mut [T]; W] = std::array::from_fn(|_| &mut [][..]);
    let mut gaps: [(usize, &[T]); W] = [(0, &[]); W];
    let (mut rest, mut base) = (buffer, 0);
    for (gap, &i) in gaps.iter_mut().zip(&order) {
        let (before, tail) = rest.split_at_mut(writes[i].start - base);
        let (write, tail) = tail.split_at_mut(writes[i].len());
        *gap = (base, before);
        written[i] = write;
        rest = tail;
        base = writes[i].end;
    }
    let rest: &[T] = rest;
    let read = reads.map(|range| {
        let inside = |&(base, gap): &(usize, &'_ [T])| range.start >= base && range.end <= base + gap.len();
        let found = gaps.into_iter().chain([(base, rest)]).find(inside);
        let Some((base, gap)) = found else { panic!("a read of a range that is written: {range:?}") };
        &gap[range.start - base..range.end - base]
    });
    (read, written)
}

#[cfg(test)]
mod tests {
    use super::views;

    #[test]
    fn reads_may_share_and_writes_are_apart() {
        let mut buffer: Vec<u32> = (0..20).collect();
        let ([a, b, c], [x, y]) = views(&mut buffer, [0..4, 2..4, 18..20], [10..12, 4..6]);
        assert_eq!((a, b, c), (&[0, 1, 2, 3][..], &[2, 3][..], &[18, 19][..]));
        x.fill(100);
        y.fill(200);
        assert_eq!(buffer[4..6], [200, 200]);
        assert_eq!(buffer[10..12], [100, 100]);
    }

    #[test]
    #[should_panic(expected = "range")]
    fn a_read_of_what_is_written_is_a_bug() {
        let mut buffer = [0; 8];
        let (read, written) = (3..5, 4..6);
        let _ = views(
            &mut buffer,
            std::array::from_fn::<_, 1, _>(|_| read.clone()),
            std::array::from_fn::<_, 1, _>(|_| written.clone()),
        );
    }
}
