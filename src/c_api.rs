//! The C interface: one header, `c_api/sinew.h`, which cbindgen makes of these files.
//!
//! Every function checks its pointers, catches panics and returns a status with a fixed number. There is no global state
//! but the table of instruction sets, and nothing runs before `main`.

#![allow(unsafe_code, reason = "pointers of C programs at the boundary")]

mod handle;
mod image;
mod model;
mod options;
mod ports;
mod session;
mod status;

use std::ffi::c_char;

use sinew_kernels::isa::{self, Isa};

use status::Status;

/// Major * 10000 + minor * 100 + patch of the header. A library of another major version has another interface.
pub const SINEW_VERSION: u32 = 100;

/// The best instruction set that the CPU has, or the one that the environment variable `SINEW_ISA` names.
pub const SINEW_ISA_AUTO: i32 = 0;
/// No vector instructions of the library's own choosing: runs everywhere.
pub const SINEW_ISA_SCALAR: i32 = 1;
/// AVX2 and FMA.
pub const SINEW_ISA_AVX2: i32 = 2;
/// AVX-512F.
pub const SINEW_ISA_AVX512: i32 = 3;
/// NEON, which every AArch64 CPU has.
pub const SINEW_ISA_NEON: i32 = 4;

/// Alignment in bytes of an arena and of a compiled model that is used in place.
pub const SINEW_ALIGNMENT: usize = 64;

const _: () = assert!(SINEW_ALIGNMENT == crate::run::arena::ALIGN);

/// `None` for the best there is.
fn isa_of(number: i32) -> Result<Option<Isa>, Status> {
    match number {
        SINEW_ISA_AUTO => Ok(None),
        SINEW_ISA_SCALAR => Ok(Some(Isa::Scalar)),
        SINEW_ISA_AVX2 => Ok(Some(Isa::Avx2)),
        SINEW_ISA_AVX512 => Ok(Some(Isa::Avx512)),
        SINEW_ISA_NEON => Ok(Some(Isa::Neon)),
        _ => Err(Status::BadArgument),
    }
}

fn number_of(isa: Isa) -> i32 {
    match isa {
        Isa::Scalar => SINEW_ISA_SCALAR,
        Isa::Avx2 => SINEW_ISA_AVX2,
        Isa::Avx512 => SINEW_ISA_AVX512,
        Isa::Neon => SINEW_ISA_NEON,
    }
}

/// The version of the library, as `SINEW_VERSION` is that of the header.
#[unsafe(no_mangle)]
pub extern "C" fn sinew_version() -> u32 {
    SINEW_VERSION
}

/// Whether this CPU can run an instruction set: 1 or 0.
#[unsafe(no_mangle)]
pub extern "C" fn sinew_isa_available(isa: i32) -> i32 {
    match isa_of(isa) {
        Ok(Some(isa)) => i32::from(isa::table(isa).is_some()),
        Ok(None) => 1,
        Err(_) => 0,
    }
}

/// The name of an instruction set, as `SINEW_ISA` takes it; "unknown" for a number that is none. Stays for ever.
#[unsafe(no_mangle)]
pub extern "C" fn sinew_isa_name(isa: i32) -> *const c_char {
    let name = match isa_of(isa) {
        Ok(None) => c"auto",
        Ok(Some(Isa::Scalar)) => c"scalar",
        Ok(Some(Isa::Avx2)) => c"avx2",
        Ok(Some(Isa::Avx512)) => c"avx512",
        Ok(Some(Isa::Neon)) => c"neon",
        Err(_) => c"unknown",
    };
    name.as_ptr()
}
