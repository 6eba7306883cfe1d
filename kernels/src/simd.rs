//! `trait Simd`: the vector operations that every algorithm of this crate is written in.
//!
//! A vector is one *block*: 16 channels, 64 bytes, on every instruction set. An algorithm is written once,
//! generic over a token `S: Simd`; holding the token proves that its instructions may run. All operations
//! give the same bits on every instruction set, but for the payload and sign of a NaN.
//!
//! A token may stand for a part of the lanes instead: its vectors hold these, its loads read and its stores write these.
//! Algorithms in which no lane sees another one can run for one part after the other, in fewer registers.

#![allow(unsafe_code, reason = "the trait's contract is `unsafe`; see its safety section")]

use crate::{Block, LANES};

/// The vector operations of one instruction set, on blocks of 16 lanes.
///
/// # Safety
/// The type must be constructible only where its instructions may run.
pub unsafe trait Simd: Copy {
    /// One block in registers: `__m512`, `[__m256; 2]`, `[float32x4_t; 4]` or `[f32; 16]`; or a part of one.
    type Vector: Copy;

    /// Whether to leave out what is written once more for common cases: so it is in the scalar path, which is to be
    /// small and plain.
    const PLAIN: bool = false;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::Vector;
    /// The block in memory.
    fn load(self, from: &Block) -> Self::Vector;
    /// 16 neighbours of a row, zero for those outside it.
    #[inline(always)]
    fn load_inside(self, row: &[f32], inside: Inside) -> Self::Vector {
        let row = inside.row(row);
        match row.get(inside.at..).and_then(|row| row.first_chunk()) {
            Some(block) => self.load(block),
            None => self.load(&inside.with_zeros(row)),
        }
    }

    /// Stores all lanes of the vector.
    fn store(self, to: &mut Block, v: Self::Vector);
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a / b`, correctly rounded.
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The correctly rounded square root.
    fn sqrt(self, a: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// `a` with the sign bit flipped.
    fn neg(self, a: Self::Vector) -> Self::Vector;
    /// `a` with the sign bit cleared.
    fn abs(self, a: Self::Vector) -> Self::Vector;
    /// The larger one; NaN where either is NaN. Which zero comes out of two zeros is not defined: add +0.0
    /// to a final result, as [`Simd::relu`] and the pools do.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller one; NaN and zeros as in [`Simd::max`].
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The largest one; NaN and zeros as in [`Simd::max`].
    #[inline(always)]
    fn max3(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.max(self.max(a, b), c)
    }
    /// The smallest one; NaN and zeros as in [`Simd::max`].
    #[inline(always)]
    fn min3(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.min(self.min(a, b), c)
    }
    /// `a` where it is above zero or NaN, +0.0 elsewhere.
    fn relu(self, a: Self::Vector) -> Self::Vector;
    /// `low` where `a < low`, then `high` where that is above `high`; a NaN stays, a zero keeps its sign.
    fn clamp(self, a: Self::Vector, low: Self::Vector, high: Self::Vector) -> Self::Vector;
    /// Per lane: `yes` where `a > b`, `no` elsewhere (also where either is NaN).
    fn select_gt(self, a: Self::Vector, b: Self::Vector, yes: Self::Vector, no: Self::Vector)
    -> Self::Vector;
    /// The magnitude of `a` with the sign of `b`.
    fn copysign(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Rounds to the nearest integer, ties to even.
    fn round(self, a: Self::Vector) -> Self::Vector;
    /// 2 to the power `n`, for integral `n` in -126..=127; other values give an unspecified finite number.
    fn exp2_int(self, n: Self::Vector) -> Self::Vector;
    /// `a * 2^n`, rounded once, for `a` in 0.5..2.0 and integral `n` in -200..=200; a NaN in `a` stays.
    fn scale_exp2(self, a: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// The exponent field of a positive normal number, unbiased, as a float: `floor(log2(a))`.
    fn exponent(self, a: Self::Vector) -> Self::Vector;
    /// A positive normal number scaled into 1.0..2.0 by a power of two.
    fn mantissa(self, a: Self::Vector) -> Self::Vector;
    /// The canonical NaN (bits 7fc00000) wherever `a` is NaN, `a` elsewhere.
    fn canonical_nan(self, a: Self::Vector) -> Self::Vector;
    /// `to[j][i] = from[i][j]`.
    fn transpose(self, from: [&Block; LANES], to: &mut [Block; LANES]);
    /// The lanes with even and with odd numbers, those of `a` before those of `b`.
    fn unzip(self, a: Self::Vector, b: Self::Vector) -> [Self::Vector; 2];
    /// The last lane of `before`, then all lanes of `v` but the last.
    fn shift_in(self, before: Self::Vector, v: Self::Vector) -> Self::Vector;
    /// Lane `lane` of every group of `G` lanes, in all lanes of its group: `from[l / G * G + lane]` in lane `l`.
    #[inline(always)]
    fn spread<const G: usize>(self, from: &Block, lane: usize) -> Self::Vector {
        if G == LANES {
            return self.splat(from[lane]);
        }
        let mut to = [0.0; LANES];
        for (l, to) in to.iter_mut().enumerate() {
            *to = from[(l / G * G + lane) % LANES];
        }
        self.load(&to)
    }
    /// Asks for the block's cache line to be brought near.
    fn prefetch(self, at: &Block);
}

/// Writes the operations of one instruction set: each body may use that set's intrinsics.
macro_rules! simd_ops {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        #[allow(unused_unsafe, reason = "the scalar set's operations are safe")]
        fn $name(self, $($arg: $ty),*) $(-> $ret)? {
            // SAFETY: holding `self` proves the features; pointers come from whole blocks.
            unsafe { $body }
        }
    )*};
}
pub(crate) use simd_ops;

/// Writes the operations that are those of the token within.
macro_rules! same_ops {
    ($($name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) $(-> $ret)? {
            self.0.$name($($arg),*)
        }
    )*};
}

/// The operations of `S`, for code that is to be small as in the scalar path.
#[derive(Clone, Copy)]
pub(crate) struct Plain<S>(pub(crate) S);

// SAFETY: the type holds a token.
unsafe impl<S: Simd> Simd for Plain<S> {
    type Vector = S::Vector;
    const PLAIN: bool = true;
    same_ops! {
        splat(x: f32) -> S::Vector;
        load(from: &Block) -> S::Vector;
        store(to: &mut Block, v: S::Vector);
        add(a: S::Vector, b: S::Vector) -> S::Vector;
        sub(a: S::Vector, b: S::Vector) -> S::Vector;
        mul(a: S::Vector, b: S::Vector) -> S::Vector;
        div(a: S::Vector, b: S::Vector) -> S::Vector;
        sqrt(a: S::Vector) -> S::Vector;
        mul_add(a: S::Vector, b: S::Vector, c: S::Vector) -> S::Vector;
        neg(a: S::Vector) -> S::Vector;
        abs(a: S::Vector) -> S::Vector;
        max(a: S::Vector, b: S::Vector) -> S::Vector;
        min(a: S::Vector, b: S::Vector) -> S::Vector;
        relu(a: S::Vector) -> S::Vector;
        clamp(a: S::Vector, low: S::Vector, high: S::Vector) -> S::Vector;
        select_gt(a: S::Vector, b: S::Vector, yes: S::Vector, no: S::Vector) -> S::Vector;
        copysign(a: S::Vector, b: S::Vector) -> S::Vector;
        round(a: S::Vector) -> S::Vector;
        exp2_int(n: S::Vector) -> S::Vector;
        scale_exp2(a: S::Vector, n: S::Vector) -> S::Vector;
        exponent(a: S::Vector) -> S::Vector;
        mantissa(a: S::Vector) -> S::Vector;
        canonical_nan(a: S::Vector) -> S::Vector;
        transpose(from: [&Block; LANES], to: &mut [Block; LANES]);
        unzip(a: S::Vector, b: S::Vector) -> [S::Vector; 2];
        shift_in(before: S::Vector, v: S::Vector) -> S::Vector;
        prefetch(at: &Block);
    }
}

/// Writes the operations that go register by register: each body is for one register of the vector, whose registers are
/// listed.
macro_rules! by_register {
    ($registers:tt; $($name:ident $args:tt = $body:expr;)*) => {$(
        by_register!(@one $registers $name $args $args $body);
    )*};
    (@one [$($i:literal)*] $name:ident ($($arg:ident),*) $args:tt $body:expr) => {
        #[inline(always)]
        fn $name(self, $($arg: Self::Vector),*) -> Self::Vector {
            // SAFETY: holding `self` proves the features.
            unsafe { [$(by_register!(@at $i $args $body)),*] }
        }
    };
    (@at $i:literal ($($arg:ident),*) $body:expr) => {{
        $(let $arg = $arg[$i];)*
        $body
    }};
}
#[allow(unused_imports, reason = "used by each instruction set with several registers to a block")]
pub(crate) use by_register;

/// 16 neighbours of a row, not all of which need be elements: known before a loop over rows of one length.
#[derive(Clone, Copy, Debug)]
pub struct Inside {
    len: usize,
    at: usize,
    lanes: u16,
}

impl Inside {
    /// Elements `at` to `at + 15` of rows of `len`; `at` may have wrapped to below zero.
    #[inline(always)]
    pub(crate) fn of(len: usize, at: usize) -> Self {
        let before = if at > usize::MAX - LANES { at.wrapping_neg() } else { 0 };
        let end = if before > 0 { before.saturating_add(len) } else { len.saturating_sub(at) };
        Self { len, at, lanes: ((u32::MAX << before) & !(u32::MAX << end.min(LANES))) as u16 }
    }

    /// A row of that length.
    #[inline(always)]
    fn row(self, row: &[f32]) -> &[f32] {
        assert!(row.len() == self.len, "a row of another length");
        row
    }

    /// What [`Simd::load_inside`] loads.
    #[inline(never)]
    fn with_zeros(self, row: &[f32]) -> Block {
        let mut block = [0.0; LANES];
        if self.lanes > 0 {
            let lanes = self.lanes.trailing_zeros() as usize..LANES - self.lanes.leading_zeros() as usize;
            let from = self.at.wrapping_add(lanes.start);
            block[lanes.clone()].copy_from_slice(&row[from..from + lanes.len()]);
        }
        block
    }

    /// Where lane 0 would be, and the lanes that are elements of the row.
    #[allow(dead_code, reason = "for instruction sets that load some lanes")]
    #[inline(always)]
    pub(crate) fn lanes(self, row: &[f32]) -> (*const f32, u16) {
        (self.row(row).as_ptr().wrapping_add(self.at), self.lanes)
    }
}

/// Asks for `len` elements of each of some rows that are `stride` apart; what lies behind `from` is left out. A function of its own, so
/// that it takes no registers from the code that asks.
#[inline(never)]
pub(crate) fn ask<S: Simd>(simd: S, from: &[f32], stride: usize, rows: usize, len: usize) {
    for row in from.chunks(stride.max(1)).take(rows) {
        for line in row.as_chunks().0.iter().take(len.div_ceil(LANES)) {
            simd.prefetch(line);
        }
    }
}

/// Repeats a block for each `i` below a constant of at most 16 (or 4), as straight code: the optimizer leaves
/// wide tiles as loops, with their sums in memory. Arrays of sums are to be indexed in here only.
///
/// `i < n of N` is for arrays with room for `N` of which `n` are used: the same number where the instruction set `S` has
/// code for each size, and then straight code too; a loop where it is [`Simd::PLAIN`] and has one code for all.
macro_rules! unroll {
    ($i:ident < $n:ident of $room:ident, $body:block) => {
        if S::PLAIN {
            for $i in 0..$n {
                $body
            }
        } else {
            unroll!(@ $i, $room, $body, 0 1 2 3 4 5 6 7);
            const { assert!($room <= 8) };
        }
    };
    ($i:ident < $n:ident <= 16, $body:block) => {
        unroll!(@ $i, $n, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        const { assert!($n <= 16) };
    };
    ($i:ident < $n:ident <= 4, $body:block) => {
        unroll!(@ $i, $n, $body, 0 1 2 3);
        const { assert!($n <= 4) };
    };
    ($i:ident < 32, $body:block) => {
        unroll!(@ $i, 32, $body,
            0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    };
    (@ $i:ident, $n:expr, $body:block, $($value:literal)*) => {$(
        if $value < $n {
            let $i = $value;
            $body
        }
    )*};
}
pub(crate) use unroll;
