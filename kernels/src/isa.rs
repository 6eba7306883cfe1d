//! The instruction sets: detection, and one table of kernels for each.
//!
//! Named entry points carry the target features; everything below them is generic and always inlined, so that
//! it is compiled with those features. Inside a function with the same features an entry point coerces to a
//! safe `fn` pointer: calls through a table need no `unsafe`.

#![allow(unsafe_code, reason = "one call per instruction set, right after its detection; FP state")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod fp_state;
#[cfg(target_arch = "aarch64")]
mod neon;
pub(crate) mod scalar;

use core::fmt;
use core::str::FromStr;

use crate::channels::{LrnFn, SoftmaxFn};
use crate::conv::ConvFn;
use crate::conv::few_outputs::FewOutputsFn;
use crate::conv::grouped::GroupedFn;
use crate::conv::im2col::Im2colFn;
use crate::conv::plain_image::PlainConvFn;
use crate::conv::strassen::StrassenFn;
use crate::conv::winograd::Winograd;
use crate::depthwise::DepthwiseFn;
use crate::elementwise::{ActivateFn, ActivateInPlaceFn, BinaryFn, MaxMinFn, ScaleFn};
use crate::layout::{PackFn, UnpackFn};
use crate::plain::depthwise::PlainDepthwiseFn;
use crate::plain::pool::PlainPoolFn;
use crate::plain::{PlainGlobalFn, PlainScaleFn};
use crate::pool::{GlobalPoolFn, PoolFn};
#[cfg(feature = "std")]
use crate::probe::ProbeKernel;

/// An instruction set that has kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// AVX-512F.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// NEON, which every aarch64 CPU has.
    Neon,
    /// No vector instructions of our own choosing; defines the bits of all others.
    Scalar,
}

impl Isa {
    /// All of them, best first.
    pub const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Scalar];

    /// The name used on the command line, in `SINEW_ISA` and in kernel names.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Scalar => "scalar",
        }
    }

    /// The CPU features that must be there.
    pub fn required_features(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512f",
            Isa::Avx2 => "avx2 and fma",
            Isa::Neon => "neon (an aarch64 CPU)",
            Isa::Scalar => "nothing",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name).ok_or(UnknownIsa)
    }
}

/// A name that is no instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownIsa;

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown instruction set; expected avx512, avx2, neon or scalar")
    }
}

impl core::error::Error for UnknownIsa {}

/// The kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The instruction set.
    pub isa: Isa,
    /// Convolution from blocked input.
    pub direct: Kernel<ConvFn>,
    /// The same over gathered windows.
    pub im2col: Kernel<Im2colFn>,
    /// 1x1 convolution with an eighth less of products.
    pub strassen: Kernel<StrassenFn>,
    /// Convolution from a plain image.
    pub plain_image: Kernel<PlainConvFn>,
    /// Convolution with groups that are no whole blocks.
    pub grouped: Kernel<GroupedFn>,
    /// 1x1 convolution to a few channels.
    pub few_outputs: Kernel<FewOutputsFn>,
    /// Convolution of each channel by itself.
    pub depthwise: Kernel<DepthwiseFn>,
    /// A function of one map.
    pub activate: Kernel<ActivateFn>,
    /// A function of one map, in place.
    pub activate_in_place: Kernel<ActivateInPlaceFn>,
    /// A function of two operands.
    pub binary: Kernel<BinaryFn>,
    /// Scale and add: gates, batch normalization.
    pub scale: Kernel<ScaleFn>,
    /// `relu(x)` and `relu(-x)` in one pass.
    pub maxmin: Kernel<MaxMinFn>,
    /// Plain to blocks.
    pub pack: Kernel<PackFn>,
    /// Blocks to plain.
    pub unpack: Kernel<UnpackFn>,
    /// Winograd convolution, one entry per tile.
    pub winograd: [Winograd; 6],
    /// Softmax over channels.
    pub softmax: Kernel<SoftmaxFn>,
    /// Local response normalization.
    pub lrn: Kernel<LrnFn>,
    /// Largest or mean of windows.
    pub pool: Kernel<PoolFn>,
    /// MaxMin and the max pool behind it: the first half of the output slices for `relu(x)`, the second for
    /// `relu(-x)`.
    pub maxmin_pool: Kernel<PoolFn>,
    /// Largest or mean of a plane.
    pub global_pool: Kernel<GlobalPoolFn>,
    /// Convolution of each row-major plane by itself.
    pub plain_depthwise: Kernel<PlainDepthwiseFn>,
    /// Largest or mean of windows of row-major planes.
    pub plain_pool: Kernel<PlainPoolFn>,
    /// Largest or mean of row-major planes.
    pub plain_global_pool: Kernel<PlainGlobalFn>,
    /// Scale and add on row-major planes.
    pub plain_scale: Kernel<PlainScaleFn>,
}

/// A function without tile sizes, and its name.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<F> {
    /// `<operation>_<isa>`.
    pub name: &'static str,
    /// The entry point.
    pub run: F,
}

/// A [`Kernel`] of the entry point's own name.
macro_rules! kernel {
    ($run:ident) => {
        crate::isa::Kernel { name: stringify!($run), run: $run }
    };
}
#[allow(unused_imports, reason = "used by each instruction set")]
pub(crate) use kernel;

/// Names the entry points of one instruction set: each calls a generic algorithm with that set's token.
///
/// One line a kernel, so that an instruction set stays one page; written by hand each would be four lines in
/// five tables. The features stand in brackets; `name[M, N](..)` is generic over `const M: usize, const N: usize`.
macro_rules! entry_points {
    (
        @one [$($features:tt)*] $token:expr;
        $name:ident [$($size:ident),*] ($($arg:ident: $ty:ty),* $(,)?) = $algorithm:expr
    ) => {
        $($features)*
        pub(super) fn $name<$(const $size: usize),*>($($arg: $ty),*) {
            $algorithm($token, $($arg),*)
        }
    };
    ($features:tt $token:expr; $($name:ident $([$($size:ident),*])? ($($args:tt)*) = $algorithm:expr;)*) => {$(
        entry_points!(@one $features $token; $name [$($($size),*)?] ($($args)*) = $algorithm);
    )*};
}
pub(crate) use entry_points;

/// Every table this CPU can run, best first; scalar is always last.
#[cfg(feature = "std")]
pub fn supported() -> &'static [Kernels] {
    use std::sync::OnceLock;
    use std::vec::Vec;
    static TABLES: OnceLock<Vec<Kernels>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut tables = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx512f") {
                // SAFETY: avx512f was just detected.
                tables.push(unsafe { avx512::kernels() });
            }
            if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
                // SAFETY: avx2 and fma were just detected.
                tables.push(unsafe { avx2::kernels() });
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("neon") {
            // SAFETY: neon was just detected.
            tables.push(unsafe { neon::kernels() });
        }
        tables.push(scalar_table());
        tables
    })
}

/// The scalar table: with the hardware's fused multiply-add where the CPU has one.
#[cfg(feature = "std")]
fn scalar_table() -> Kernels {
    #[cfg(all(target_arch = "x86_64", feature = "scalar-fma"))]
    if std::is_x86_feature_detected!("fma") {
        // SAFETY: fma was just detected.
        return unsafe { scalar::fused::kernels() };
    }
    scalar::portable::kernels()
}

/// The table of one instruction set, if this CPU can run it.
#[cfg(feature = "std")]
pub fn table(isa: Isa) -> Option<&'static Kernels> {
    supported().iter().find(|table| table.isa == isa)
}

/// What measures the machine with one instruction set, if this CPU can run it: beside the tables, so that it is in no program
/// that does not ask for it.
#[cfg(feature = "std")]
pub fn probe(isa: Isa) -> Option<ProbeKernel> {
    table(isa)?;
    match isa {
        // SAFETY: its table is there, so its features were detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => Some(unsafe { avx512::probe() }),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Some(unsafe { avx2::probe() }),
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => Some(unsafe { neon::probe() }),
        // SAFETY: fma was just detected.
        #[cfg(all(target_arch = "x86_64", feature = "scalar-fma"))]
        Isa::Scalar if std::is_x86_feature_detected!("fma") => Some(unsafe { scalar::fused::probe() }),
        Isa::Scalar => Some(scalar::portable::probe()),
        #[allow(unreachable_patterns, reason = "each architecture lacks the others' sets")]
        _ => None,
    }
}

/// The table of the features that the program was compiled for: for targets without detection.
pub fn compiled() -> Kernels {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx512f"))]
    // SAFETY: the whole program requires avx512f.
    return unsafe { avx512::kernels() };
    #[cfg(all(
        target_arch = "x86_64",
        target_feature = "avx2",
        target_feature = "fma",
        not(target_feature = "avx512f")
    ))]
    // SAFETY: the whole program requires avx2 and fma.
    return unsafe { avx2::kernels() };
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    // SAFETY: the whole program requires neon.
    return unsafe { neon::kernels() };
    #[allow(unreachable_code, reason = "reached where no set above is compiled in")]
    scalar::portable::kernels()
}
