//! Choice of the next token from one row of logits.
//!
//! A choice is a function of logits, sampling and counter alone: no state is kept between steps. Ties go to the
//! lowest id everywhere. A NaN is never chosen; from a row of nothing else there is no choice.

use std::cmp::Ordering;

use crate::device::step::Sampling;
use crate::rng;

/// Lanes of the search for the maximum.
const LANES: usize = 16;
/// Candidates that the search for `top_p` sorts at first; it takes eight times as many until they suffice.
const FIRST_SORTED: usize = 64;

/// Stands for the id of a row that holds no number.
pub(super) const NONE: u32 = u32::MAX;

/// The chosen id, or [`NONE`]. `candidates` is scratch memory.
pub(super) fn choose(logits: &[f32], sampling: &Sampling, candidates: &mut Vec<(f32, u32)>) -> u32 {
    let highest = highest(logits);
    if sampling.temperature <= 0.0 || !highest.is_finite() {
        return logits.iter().position(|logit| *logit == highest).map_or(NONE, |id| id as u32);
    }
    let uniform = rng::uniform_at(sampling.seed, sampling.position);
    let weight = |logit: f32| (f64::from(logit - highest) / f64::from(sampling.temperature)).exp();
    let keep = if sampling.top_k == 0 { logits.len() } else { (sampling.top_k as usize).min(logits.len()) };
    if keep == logits.len() && sampling.top_p >= 1.0 {
        return draw(logits.iter().enumerate().map(|(id, logit)| (id as u32, weight(*logit))), uniform);
    }
    candidates.clear();
    candidates.extend(logits.iter().enumerate().filter(|(_, logit)| !logit.is_nan()).map(|(id, logit)| (*logit, id as u32)));
    let keep = keep.min(candidates.len());
    if keep < candidates.len() {
        candidates.select_nth_unstable_by(keep - 1, descending);
        candidates.truncate(keep);
    }
    if sampling.top_p < 1.0 {
        let needed = nucleus(candidates, f64::from(sampling.top_p), weight);
        candidates.truncate(needed);
    }
    candidates.sort_unstable_by_key(|(_, id)| *id);
    draw(candidates.iter().map(|(logit, id)| (*id, weight(*logit))), uniform)
}

/// The highest logit, NaN left out; minus infinity where there is none.
fn highest(logits: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = logits.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    lanes.iter().chain(chunks.remainder()).fold(f32::NEG_INFINITY, |highest, logit| highest.max(*logit))
}

/// Higher logits first, then lower ids.
fn descending(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Sorts the highest candidates to the front, as many as needed, and returns how many of them reach `top_p` of the
/// total weight: at least one.
fn nucleus(candidates: &mut [(f32, u32)], top_p: f64, weight: impl Fn(f32) -> f64) -> usize {
    let total: f64 = candidates.iter().map(|(logit, _)| weight(*logit)).sum();
    let (mut sorted, mut reached) = (0, 0.0);
    while sorted < candidates.len() {
        let size = (sorted.max(FIRST_SORTED / 8) * 8).min(candidates.len());
        let rest = &mut candidates[sorted..];
        let piece = size - sorted;
        if piece < rest.len() {
            rest.select_nth_unstable_by(piece - 1, descending);
        }
        rest[..piece].sort_unstable_by(descending);
        for (index, (logit, _)) in rest[..piece].iter().enumerate() {
            reached += weight(*logit);
            if reached >= top_p * total {
                return sorted + index + 1;
            }
        }
        sorted = size;
    }
    candidates.len()
}

/// The first id at which the running share of the weights exceeds `uniform`.
fn draw(weights: impl Iterator<Item = (u32, f64)> + Clone, uniform: f64) -> u32 {
    let usable = |weight: &f64| *weight > 0.0;
    let total: f64 = weights.clone().map(|(_, weight)| weight).filter(usable).sum();
    let (mut left, mut last) = (uniform * total, 0);
    for (id, weight) in weights.filter(|(_, weight)| usable(weight)) {
        if left < weight {
            return id;
        }
        left -= weight;
        last = id;
    }
    // Rounding used up the last weight: its id it is.
    last
}
