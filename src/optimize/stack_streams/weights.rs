//! The one convolution that streams are: the weights of all terms, added up in f64 and rounded once.

use super::stream::{Stream, Term, TermKind};
use crate::graph::{Graph, ValueId};
use crate::optimize::batch_norm_affine;
use crate::tensor::Tensor;

/// Weights, bias and shortcut of the sum.
pub(super) struct Summed {
    pub(super) weights: Tensor,
    pub(super) bias: Tensor,
    /// The identity's factor per output channel, and the value that it multiplies: none for the streams side by side.
    pub(super) residual: Option<(Option<ValueId>, Tensor)>,
}

/// The sources that a stream reads with a weight that is not zero; the first one where there is none.
pub(super) fn live_sources(graph: &Graph, stream: &Stream) -> Vec<ValueId> {
    let is_zero = |term: &Term| match term.kind {
        TermKind::Conv { weights, .. } => {
            graph.constant(weights).is_some_and(|weights| weights.iter().all(|&w| w == 0.0))
        }
        TermKind::Identity | TermKind::Average => false,
    };
    let reads = |&&source: &&ValueId| stream.terms.iter().any(|term| term.source == source && !is_zero(term));
    let live: Vec<ValueId> = stream.sources.iter().filter(reads).copied().collect();
    if live.is_empty() { stream.sources[..1].to_vec() } else { live }
}

/// Adds up the terms of streams over sources side by side.
pub(super) fn sum(graph: &Graph, streams: &[&Stream], sources: &[ValueId]) -> Option<Summed> {
    let channels = |id: ValueId| graph.shape(id)[1];
    let inputs: usize = sources.iter().map(|&source| channels(source)).sum();
    let outputs: usize = streams.iter().map(|stream| channels(stream.end)).sum();
    let [height, width] = streams[0].window.kernel;
    let taps = height * width;
    let centre = height / 2 * width + width / 2;
    let mut weights = vec![0.0; outputs * inputs * taps];
    let mut bias = vec![0.0; outputs];
    let mut shortcut = vec![0.0; outputs];
    // A single stream may have one of two sources as its residual; two streams have both, in their own order.
    let alone = match streams {
        [stream] => sources.iter().copied().find(|&id| graph.shape(id) == graph.shape(stream.end)),
        _ => None,
    };
    let side_by_side = streams.len() > 1 && inputs == outputs && streams[0].window.stride == [1, 1];
    let mut first = 0;
    for stream in streams {
        let own = channels(stream.end);
        for term in &stream.terms {
            let (scale, shift) = affine(graph, term.norm.as_ref(), own)?;
            for (bias, shift) in bias[first..].iter_mut().zip(shift) {
                *bias += shift;
            }
            if let TermKind::Conv { bias: id, .. } = term.kind {
                for (bias, (b, s)) in bias[first..].iter_mut().zip(graph.constant(id)?.iter().zip(&scale)) {
                    *bias += s * f64::from(*b);
                }
            }
            let Some(position) = sources.iter().position(|&source| source == term.source) else {
                continue; // its weights are zero
            };
            let before: usize = sources[..position].iter().map(|&source| channels(source)).sum();
            let at = |o: usize, i: usize| ((first + o) * inputs + before + i) * taps;
            match term.kind {
                TermKind::Conv { weights: id, .. } => {
                    let values = graph.constant(id)?;
                    let read = channels(term.source);
                    let own_taps = values.len() / (own * read);
                    let start = if own_taps == taps { 0 } else { centre };
                    for (index, value) in values.iter().enumerate() {
                        let (o, i, tap) =
                            (index / own_taps / read, index / own_taps % read, index % own_taps);
                        weights[at(o, i) + start + tap] += scale[o] * f64::from(*value);
                    }
                }
                TermKind::Identity => {
                    // a layer that lost its stride is what it was with it
                    let strides = |id| graph.equivalent_strides.get(&id);
                    let stays = stream.window.stride == [1, 1]
                        && strides(term.source) == strides(stream.end)
                        && channels(term.source) == own
                        && (alone == Some(term.source) || side_by_side && before == first);
                    for c in 0..channels(term.source) {
                        let place =
                            if stays { &mut shortcut[first + c] } else { &mut weights[at(c, c) + centre] };
                        *place += scale[c];
                    }
                }
                TermKind::Average => {
                    for c in 0..channels(term.source) {
                        for tap in [centre, centre + 1, centre + width, centre + width + 1] {
                            weights[at(c, c) + tap] += scale[c] / 4.0;
                        }
                    }
                }
            }
        }
        // Last, over shortcut and all.
        let (scale, shift) = affine(graph, stream.norm.as_ref(), own)?;
        for o in 0..own {
            let row = (first + o) * inputs * taps;
            weights[row..row + inputs * taps].iter_mut().for_each(|w| *w *= scale[o]);
            bias[first + o] = bias[first + o] * scale[o] + shift[o];
            shortcut[first + o] *= scale[o];
        }
        first += own;
    }
    let rounded = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let residual = match shortcut.iter().any(|&s| s != 0.0) {
        true => Some((alone, Tensor::f32([outputs], rounded(shortcut)).ok()?)),
        false => None,
    };
    Some(Summed {
        weights: Tensor::f32([outputs, inputs, height, width], rounded(weights)).ok()?,
        bias: Tensor::f32([outputs], rounded(bias)).ok()?,
        residual,
    })
}

/// Scale and shift of a normalization, or of none.
fn affine(
    graph: &Graph,
    norm: Option<&(Vec<ValueId>, f32)>,
    channels: usize,
) -> Option<(Vec<f64>, Vec<f64>)> {
    match norm {
        Some((inputs, epsilon)) => batch_norm_affine(graph, inputs, *epsilon),
        None => Some((vec![1.0; channels], vec![0.0; channels])),
    }
}
