//! The share of misses in clustered data: counts over blocks of time, and exact bounds at the effective sample size.
//!
//! A bootstrap of few clusters is too sure of itself (a window without a cluster resamples to no misses at all). The
//! bounds of Korn and Graubard do not: the blocks' variance says how many independent requests the cohort is worth,
//! and the exact binomial bounds of Clopper and Pearson are taken at that number.
//! Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
//! estimated from survey data", Survey Methodology 24 (1998).

use serde::{Deserialize, Serialize};

use crate::stats::interval::Interval;
use crate::stats::special::{beta_quantile, student_quantile};

/// One block of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Requests intended to start in it that missed.
    pub misses: u64,
    /// Requests intended to start in it.
    pub requests: u64,
}

/// All blocks as one.
#[must_use]
pub fn total(blocks: &[Block]) -> Block {
    blocks.iter().fold(Block::default(), |sum, block| Block { misses: sum.misses + block.misses, requests: sum.requests + block.requests })
}

/// Neighbouring blocks joined two by two; an odd one is left out at the front.
#[must_use]
pub fn joined(blocks: &[Block]) -> Vec<Block> {
    blocks[blocks.len() % 2..].chunks_exact(2).map(total).collect()
}

/// How many times more the share of misses scatters than with independent requests, 1 or more.
#[must_use]
pub fn clustering(blocks: &[Block]) -> f64 {
    let all = total(blocks);
    let (misses, requests, count) = (all.misses as f64, all.requests as f64, blocks.len() as f64);
    if all.misses == 0 || all.misses == all.requests || count < 2.0 {
        return 1.0;
    }
    let share = misses / requests;
    // Linearised variance of a ratio (Cochran, "Sampling Techniques", section 6.4).
    let squares: f64 = blocks.iter().map(|block| (block.misses as f64 - share * block.requests as f64).powi(2)).sum();
    let variance = squares * count / (count - 1.0) / (requests * requests);
    (variance / (share * (1.0 - share) / requests)).max(1.0)
}

/// Clopper-Pearson bounds at the effective sample size; `None` without a request or with fewer than two blocks.
#[must_use]
pub fn effective_bounds(blocks: &[Block], confidence: f64) -> Option<Interval> {
    bounds_at(total(blocks), clustering(blocks), (blocks.len() as u64).saturating_sub(1), confidence)
}

/// The same where the clustering is known already, with that many degrees of freedom: blocks less one for each level
/// that they come from. `None` without a request or a degree of freedom.
#[must_use]
pub fn bounds_at(all: Block, clustering: f64, freedom: u64, confidence: f64) -> Option<Interval> {
    if all.requests == 0 || freedom == 0 {
        return None;
    }
    let tail = (1.0 - confidence) / 2.0;
    // The variance is itself estimated, from the blocks: Student's t against the normal's.
    let surer = |freedom: f64| student_quantile(1.0 - tail, freedom);
    let unsure = if clustering > 1.0 { (surer(freedom as f64) / surer(all.requests as f64)).powi(2) } else { 1.0 };
    let requests = all.requests as f64 / (clustering * unsure);
    let misses = all.misses as f64 / (clustering * unsure);
    let low = if all.misses == 0 { 0.0 } else { beta_quantile(misses, requests - misses + 1.0, tail) };
    let high = if all.misses == all.requests { 1.0 } else { beta_quantile(misses + 1.0, requests - misses, 1.0 - tail) };
    Some(Interval { low, high, confidence })
}
