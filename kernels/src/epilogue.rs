//! What happens to a sum before it is stored: bias, residual and activation.

use crate::Block;
use crate::activation::Activation;

/// `after(before(sum + bias) + residual)`, applied while a tile is in registers where
/// [`Activation::in_registers`] holds, and to the rows just written elsewhere. The bits are the same.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// One block per output block; zeros where the layer has no bias.
    pub bias: &'a [Block],
    /// Applied before the residual is added. Use `after` where there is no residual.
    pub before: Activation,
    /// `[output block][pixel]`, laid out as the whole output planes.
    pub residual: Option<&'a [Block]>,
    /// Applied last.
    pub after: Activation,
}
