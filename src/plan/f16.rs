//! Weights as 16-bit floating point: rounded before planning, stored so in compiled models, widened at load.
//!
//! The network is the one with rounded weights, computed in f32. A file holds them as they were packed; where the plan
//! reads them transformed, the transform runs at load, the same as when planning. So storing changes no bit, and what
//! halves do not hold exactly (biases, a shortcut folded into weights, NaN) stays as it is.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use sinew_kernels::conv::winograd::{Winograd, WinogradTile};
use sinew_kernels::conv::{ConvGeometry, strassen};
use sinew_kernels::isa::{self, fp_state::FpState};
use sinew_kernels::{Block, LANES};

use super::weights::Weights;
use crate::error::{Error, Result};
use crate::graph::{Excite, Graph, Op, ValueId};
use crate::half;
use crate::tensor::Tensor;

/// The graph with the weights of its convolutions and dense layers rounded to halves, nearest even.
///
/// # Errors
/// Names the layer with a weight that is too large.
pub(super) fn rounded(graph: &Graph) -> Result<Graph> {
    let mut result = graph.clone();
    let mut seen: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    for (node, to) in graph.nodes.iter().zip(0..) {
        let layers = match &node.op {
            Op::Conv(_) | Op::ConvMaxMin { .. } | Op::Dense { .. } | Op::Excite(Excite::ScaledConv(_)) => 1,
            Op::Excite(Excite::Gate { layers, .. }) => layers.len(),
            _ => 0,
        };
        // Weights and bias of each layer follow the input.
        for at in (0..layers).map(|layer| 1 + 2 * layer) {
            let id = node.inputs[at];
            let Some(values) = graph.constant(id) else { continue };
            if seen[id.0].is_none() {
                if let Some(large) = values.iter().find(|x| x.abs() > half::MAX) {
                    let reason =
                        format!("a weight is {large}, the largest number in 16 bits is {}", half::MAX);
                    return Err(Error::Node { op: node.op.name().into(), node: node.name.clone(), reason });
                }
                let values = values.iter().map(|&x| half::to_f32(half::from_f32(x))).collect();
                let tensor = Tensor::f32(graph.shape(id).to_vec(), values)?;
                seen[id.0] = Some(result.add_constant(graph.value(id).name.clone(), tensor));
            }
            result.nodes[to].inputs[at] = seen[id.0].unwrap_or(id);
        }
    }
    result.remove_unused();
    Ok(result)
}

/// From the weights in a file to those that a step reads: the same bits on every instruction set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Transform {
    Winograd {
        tile: WinogradTile,
        /// Live channels of each input block.
        lanes: Vec<u8>,
    },
    Strassen {
        in_blocks: usize,
    },
}

impl Transform {
    /// How many blocks become how many, in the smallest piece that is transformed by itself; none where sizes make no sense.
    fn growth(&self) -> Option<[usize; 2]> {
        let sizes = match self {
            Transform::Winograd { tile, lanes } => {
                winograd(*tile)?;
                let fit = lanes.iter().all(|&live| usize::from(live) <= LANES);
                let channels: usize = lanes.iter().copied().map(usize::from).sum();
                [tile.kernel * tile.kernel, tile.weights()]
                    .map(|each| channels.checked_mul(each).filter(|_| fit))
            }
            Transform::Strassen { in_blocks } => {
                let known = strassen::supports(&ConvGeometry::ONE_PIXEL, *in_blocks, strassen::GROUP);
                [LANES, strassen::weights_per_block(1)]
                    .map(|each| in_blocks.checked_mul(each * strassen::GROUP).filter(|_| known))
            }
        };
        let [plain, packed] = sizes;
        Some([plain?, packed?]).filter(|sizes| !sizes.contains(&0))
    }

    /// Blocks after the transform of so many before.
    pub(super) fn packed_blocks(&self, plain: usize) -> Option<usize> {
        let [from, to] = self.growth()?;
        (plain / from).checked_mul(to).filter(|_| plain.is_multiple_of(from))
    }

    /// Blocks before the transform to so many.
    fn plain_blocks(&self, packed: usize) -> Option<usize> {
        let [from, to] = self.growth()?;
        (packed / to).checked_mul(from).filter(|_| packed.is_multiple_of(to))
    }

    pub(super) fn apply(&self, plain: &[Block], packed: &mut [Block]) {
        match self {
            Transform::Winograd { tile, lanes } => match winograd(*tile) {
                Some(kernel) => kernel.pack(lanes, plain, packed),
                None => unreachable!("only tiles that have kernels are chosen"),
            },
            Transform::Strassen { in_blocks } => strassen::pack(*in_blocks, plain, packed),
        }
    }
}

fn winograd(tile: WinogradTile) -> Option<&'static Winograd> {
    isa::supported()[0].winograd.iter().find(|kernel| kernel.tile == tile)
}

/// A layer's weights as halves.
#[derive(Clone, Debug)]
pub(crate) struct Halves {
    /// Where the plan has them, in blocks.
    packed: Range<usize>,
    transform: Option<Transform>,
    numbers: Vec<u16>,
}

impl Halves {
    /// The weights that lie at `packed`, before their transform; none where halves do not hold them exactly.
    pub(super) fn of(packed: Range<usize>, transform: Option<Transform>, plain: &[Block]) -> Option<Self> {
        let exact = |&x: &f32| Some(half::from_f32(x)).filter(|&h| half::to_f32(h).to_bits() == x.to_bits());
        let numbers = plain.as_flattened().iter().map(exact).collect::<Option<Vec<u16>>>()?;
        Some(Self { packed, transform, numbers })
    }
}

/// How a stretch of the weights stands in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Form {
    /// Blocks as steps read them.
    F32,
    /// The same as halves.
    F16,
    /// As halves before their transform.
    Transformed(Transform),
}

/// A stretch of the weights: its blocks in the plan, and how they stand in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stretch {
    blocks: usize,
    form: Form,
}

impl Stretch {
    /// Blocks before any transform; none where sizes make no sense.
    fn plain_blocks(&self) -> Option<usize> {
        match &self.form {
            Form::Transformed(transform) => transform.plain_blocks(self.blocks),
            _ => Some(self.blocks),
        }
    }

    /// Bytes in a file.
    fn bytes(&self) -> Option<usize> {
        let number = if self.form == Form::F32 { size_of::<f32>() } else { size_of::<u16>() };
        self.plain_blocks()?.checked_mul(LANES * number)
    }

    /// From a file's bytes to what steps read.
    fn read(&self, bytes: &[u8], to: &mut [Block]) {
        match &self.form {
            Form::F32 => bytemuck::cast_slice_mut(to).copy_from_slice(bytes),
            Form::F16 => widen(bytes, to),
            Form::Transformed(transform) => {
                let mut plain = vec![[0.0; LANES]; bytes.len() / (LANES * size_of::<u16>())];
                widen(bytes, &mut plain);
                transform.apply(&plain, to);
            }
        }
    }
}

fn widen(bytes: &[u8], to: &mut [Block]) {
    for (to, from) in to.as_flattened_mut().iter_mut().zip(bytes.as_chunks::<2>().0) {
        *to = half::to_f32(u16::from_le_bytes(*from));
    }
}

/// The weights as a file holds them: stretches and bytes. Without halves there are no stretches: all is used in place.
pub(super) fn encode<'w>(weights: &'w [Block], halves: &[Halves]) -> (Vec<Stretch>, Cow<'w, [u8]>) {
    let as_they_are: &[u8] = bytemuck::cast_slice(weights);
    if halves.is_empty() {
        return (Vec::new(), Cow::Borrowed(as_they_are));
    }
    let (mut stretches, mut bytes, mut end) = (Vec::new(), Vec::new(), 0);
    let between = |range: Range<usize>, stretches: &mut Vec<Stretch>, bytes: &mut Vec<u8>| {
        if !range.is_empty() {
            stretches.push(Stretch { blocks: range.len(), form: Form::F32 });
            bytes.extend(bytemuck::cast_slice::<_, u8>(&weights[range]));
        }
    };
    // Layers are packed one after the other.
    for Halves { packed, transform, numbers } in halves {
        between(end..packed.start, &mut stretches, &mut bytes);
        let form = transform.clone().map_or(Form::F16, Form::Transformed);
        stretches.push(Stretch { blocks: packed.len(), form });
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        end = packed.end;
    }
    between(end..weights.len(), &mut stretches, &mut bytes);
    (stretches, Cow::Owned(bytes))
}

/// The weights of a file with stretches, in memory of their own; none where they do not fit the bytes.
pub(super) fn decode(stretches: &[Stretch], bytes: &[u8]) -> Option<Weights> {
    let sizes: Vec<usize> = stretches.iter().map(Stretch::bytes).collect::<Option<_>>()?;
    let stored = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size))?;
    // So the weights are at most some 14 times the file: no more is allocated for a forged one.
    if stored != bytes.len() {
        return None;
    }
    let blocks = stretches.iter().map(|stretch| stretch.blocks).sum();
    let _state = FpState::set_default();
    Some(Weights::made(blocks, |mut rest| {
        let mut bytes = bytes;
        for (stretch, size) in stretches.iter().zip(sizes) {
            let (from, after) = bytes.split_at(size);
            let (to, left) = rest.split_at_mut(stretch.blocks);
            stretch.read(from, to);
            (bytes, rest) = (after, left);
        }
    }))
}
