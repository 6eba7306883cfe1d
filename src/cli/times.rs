//! Times of repeated runs, and how they are told.

/// Nanoseconds of runs, sorted.
pub(super) struct Times(Vec<u64>);

impl Times {
    /// # Panics
    /// Where there are none.
    pub(super) fn new(mut nanoseconds: Vec<u64>) -> Self {
        assert!(!nanoseconds.is_empty(), "at least one run");
        nanoseconds.sort_unstable();
        Self(nanoseconds)
    }

    pub(super) fn runs(&self) -> usize {
        self.0.len()
    }

    pub(super) fn min(&self) -> u64 {
        self.0[0]
    }

    pub(super) fn median(&self) -> u64 {
        let upper = self.0[self.runs() / 2];
        let lower = self.0[(self.runs() - 1) / 2];
        lower + (upper - lower) / 2
    }

    /// The least time that 99 of 100 runs do not exceed.
    pub(super) fn p99(&self) -> u64 {
        self.0[(self.runs() * 99).div_ceil(100) - 1]
    }
}

/// Nanoseconds in a unit that suits them.
pub(super) fn time(nanoseconds: u64) -> String {
    let t = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{t} ns"),
        1_000..1_000_000 => format!("{:.2} µs", t / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} ms", t / 1e6),
        _ => format!("{:.3} s", t / 1e9),
    }
}

/// Bytes in a unit that suits them.
pub(super) fn bytes(count: u64) -> String {
    let b = count as f64;
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} KiB", b / 1024.0),
        10_000_000..10_000_000_000 => format!("{:.1} MiB", b / 1024.0 / 1024.0),
        _ => format!("{:.1} GiB", b / 1024.0 / 1024.0 / 1024.0),
    }
}

/// A count with its thousands apart: `116,874`.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Extents as on the command line: `1x3x224x224`.
pub(super) fn shape(extents: &[usize]) -> String {
    match extents {
        [] => "scalar".to_owned(),
        _ => extents.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_sorted_times() {
        let times = Times::new((1..=200).rev().collect());
        assert_eq!((times.min(), times.median(), times.p99()), (1, 100, 198));
        let times = Times::new(vec![7]);
        assert_eq!((times.min(), times.median(), times.p99()), (7, 7, 7));
        let times = Times::new(vec![9, 3, 5]);
        assert_eq!((times.min(), times.median(), times.p99()), (3, 5, 9));
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            (count(7), count(116_874), count(1_000_000)),
            ("7".into(), "116,874".into(), "1,000,000".into())
        );
        assert_eq!(
            (time(999), time(1_500), time(2_500_000)),
            ("999 ns".into(), "1.50 µs".into(), "2.500 ms".into())
        );
        assert_eq!(shape(&[1, 3, 4]), "1x3x4");
    }
}
