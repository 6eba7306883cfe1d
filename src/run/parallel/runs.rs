//! Row-major outputs in parts: each a run of units that lie one after the other.

use std::ops::Range;

use super::{Along, Cut, Divide, split};

/// Calls `compute` for runs of the units `0..count` of a row-major output. Unit `i` begins at element `start(i)`; what lies
/// before the second one belongs to the first. `compute` gets the units and their elements.
pub fn for_each_run(
    cut: Cut,
    out: &mut [f32],
    count: usize,
    start: &(dyn Fn(usize) -> usize + Sync),
    compute: &(dyn Fn(Range<usize>, &mut [f32]) + Sync),
) {
    let (Along::Blocks { unit } | Along::Pixels { unit }) = cut.along;
    let whole = Run { out, units: 0..count, start };
    split(cut.parts, unit, whole, &mut [], &|run, _| compute(run.units, run.out));
}

/// Some units, with their elements.
struct Run<'a> {
    out: &'a mut [f32],
    units: Range<usize>,
    start: &'a (dyn Fn(usize) -> usize + Sync),
}

impl Divide for Run<'_> {
    fn len(&self) -> usize {
        self.units.len()
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let Self { out, units, start } = self;
        let middle = units.start + at;
        let before = if units.start == 0 { 0 } else { start(units.start) };
        let (first, rest) = out.split_at_mut(start(middle) - before);
        (
            Self { out: first, units: units.start..middle, start },
            Self { out: rest, units: middle..units.end, start },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_output_once() {
        for parts in 1..=5 {
            for (count, unit, size, skip) in [(1, 1, 7, 0), (5, 1, 3, 2), (64, 16, 1, 0), (3, 2, 10, 4)] {
                let mut out = vec![-1.0; skip + count * size];
                let start = |i: usize| skip + i * size;
                let cut = Cut { parts, along: Along::Blocks { unit } };
                for_each_run(cut, &mut out, count, &start, &|units, out| {
                    let first = if units.start == 0 { 0 } else { start(units.start) };
                    assert_eq!(out.len(), start(units.end) - first);
                    for (i, x) in out.iter_mut().enumerate() {
                        assert_eq!(*x, -1.0);
                        *x = (first + i) as f32;
                    }
                });
                assert!(out.iter().enumerate().all(|(i, &x)| x == i as f32), "{parts} parts, {count} units");
            }
        }
    }
}
