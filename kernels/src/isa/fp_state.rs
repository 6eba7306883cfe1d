//! The floating-point state that results depend on: round to nearest, no flushing of denormal numbers.
//!
//! A host built with fast-math sets flush-to-zero for its threads; a run must give the same bits there and
//! hand the host's state back.

/// Sets round-to-nearest without flushing on this thread while it lives, then restores what was there.
#[derive(Debug)]
pub struct FpState {
    saved: u64,
    changed: bool,
}

impl FpState {
    /// Saves this thread's state and sets the one that kernels are specified for.
    #[must_use = "the caller's state comes back when this is dropped"]
    pub fn set_default() -> Self {
        let saved = read();
        let wanted = saved & !CONTROL | DEFAULT;
        let changed = wanted != saved;
        if changed {
            write(wanted);
        }
        Self { saved, changed }
    }
}

impl Drop for FpState {
    fn drop(&mut self) {
        if self.changed {
            write(self.saved);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod register {
    /// Rounding control, flush-to-zero, denormals-are-zero, and the exception masks.
    pub(super) const CONTROL: u64 = 0b1111_1111_1100_0000;
    /// All exceptions masked.
    pub(super) const DEFAULT: u64 = 0b0001_1111_1000_0000;

    pub(super) fn read() -> u64 {
        let mut mxcsr = 0u32;
        // SAFETY: stores the control register into a local.
        unsafe {
            core::arch::asm!("stmxcsr [{at}]", at = in(reg) &mut mxcsr, options(nostack, preserves_flags))
        };
        u64::from(mxcsr)
    }

    pub(super) fn write(value: u64) {
        let mxcsr = value as u32;
        // SAFETY: only bits that the register has, since they came from it or are its documented control bits.
        unsafe { core::arch::asm!("ldmxcsr [{at}]", at = in(reg) &mxcsr, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
mod register {
    /// Rounding mode, flush-to-zero, default NaN, the alternative half format and FEAT_AFP's bits.
    pub(super) const CONTROL: u64 = 0b0000_0111_1111_1000_1001_1111_0000_0111;
    pub(super) const DEFAULT: u64 = 0;

    pub(super) fn read() -> u64 {
        let value: u64;
        // SAFETY: reads the control register.
        unsafe {
            core::arch::asm!("mrs {value}, fpcr", value = out(reg) value, options(nomem, nostack, preserves_flags))
        };
        value
    }

    pub(super) fn write(value: u64) {
        // SAFETY: only bits that the register has, since they came from it or are its documented control bits.
        unsafe {
            core::arch::asm!("msr fpcr, {value}", value = in(reg) value, options(nomem, nostack, preserves_flags))
        };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod register {
    pub(super) const CONTROL: u64 = 0;
    pub(super) const DEFAULT: u64 = 0;

    pub(super) fn read() -> u64 {
        0
    }

    pub(super) fn write(_value: u64) {}
}

use register::{CONTROL, DEFAULT, read, write};
