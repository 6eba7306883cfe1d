//! x
pub mod borrow;
pub mod parallel;
