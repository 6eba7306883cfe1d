//! 16-bit floating point (binary16) from f32 and back: exact, the same under any rounding mode and flush setting.

/// The largest number.
pub(crate) const MAX: f32 = 65504.0;

/// The same number; NaN keeps its sign and the upper bits of its payload.
pub(crate) fn to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        // Zero and subnormals: whole multiples of 2^-24, exact and normal in f32.
        0 => (fraction as f32 * f32::from_bits((127 - 24) << 23)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 127 - 15) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The nearest number, of two equally near the even one; from 65520 on it is infinity.
pub(crate) fn from_f32(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let exponent = magnitude >> 23;
    // Half a unit and the last bit that stays decide; a carry goes on into the exponent, as it should.
    let round = |bits: u32, shift: u32| (bits + (1 << (shift - 1)) - 1 + (bits >> shift & 1)) >> shift;
    let half = match exponent {
        255 if magnitude > 0x7f80_0000 => 0x7e00,
        // Normal numbers, from 2^-14 on.
        113.. => round(magnitude - (112 << 23), 13).min(0x7c00),
        // Multiples of 2^-24: a fraction of f32 with its leading one is one of 2^(exponent - 150).
        102.. => round(magnitude & 0x007f_ffff | 0x0080_0000, 126 - exponent),
        _ => 0,
    };
    sign | half as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, in f64.
    fn value(bits: u16) -> f64 {
        let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
        };
        if bits & 0x8000 == 0 { magnitude } else { -magnitude }
    }

    #[test]
    fn every_half_is_itself_in_f32_and_back() {
        for bits in 0..=u16::MAX {
            let wide = to_f32(bits);
            if value(bits).is_nan() {
                assert!(wide.is_nan() && to_f32(from_f32(wide)).is_nan(), "{bits:#x}");
            } else {
                assert_eq!(f64::from(wide).to_bits(), value(bits).to_bits(), "{bits:#x}");
                assert_eq!(from_f32(wide), bits, "{bits:#x}");
            }
        }
    }

    /// Around every half and every middle between two, and the limit to infinity.
    #[test]
    fn the_nearest_is_taken_and_the_even_one_of_two() {
        for bits in 0..0x7c00u16 {
            let (low, high) = (value(bits), if bits == 0x7bff { 65536.0 } else { value(bits + 1) });
            let middle = ((low + high) / 2.0) as f32;
            assert_eq!(f64::from(middle), (low + high) / 2.0, "a middle is a number of f32");
            let even = if bits % 2 == 0 { bits } else { bits + 1 };
            for (x, want) in [
                (middle, even),
                (middle.next_down(), bits),
                (middle.next_up(), bits + 1),
                ((high as f32).next_down(), bits + 1),
            ] {
                assert_eq!(from_f32(x), want, "{x:e}");
                assert_eq!(from_f32(-x), want | 0x8000, "-{x:e}");
            }
        }
        for (x, want) in
            [(f32::from_bits(1), 0), (f32::MIN_POSITIVE, 0), (f32::MAX, 0x7c00), (f32::INFINITY, 0x7c00)]
        {
            assert_eq!(from_f32(x), want, "{x:e}");
        }
        assert_eq!(from_f32(MAX), 0x7bff);
    }
}
