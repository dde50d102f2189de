//! MLPerf's early-stopping counts: how many requests a number of misses needs before a percentile may be claimed.
//!
//! Source: MLCommons LoadGen, `early_stopping.cc`, tolerance 0. The counts assume independent misses; they are a
//! necessary minimum here, never the whole decision.

use crate::stats::special::binomial_at_most;

/// LoadGen's confidence.
pub const CONFIDENCE: f64 = 0.99;

/// The smallest number of requests with which `misses` misses still show, at that confidence, that the share of misses
/// is under `allowed` in (0, 1): the chance of so few misses at exactly the allowed share is at most `1 - confidence`.
#[must_use]
pub fn requests_needed(misses: u64, allowed: f64, confidence: f64) -> u64 {
    let enough = |requests: u64| binomial_at_most(misses, requests, allowed) <= 1.0 - confidence;
    let mut high = misses + 1;
    while !enough(high) {
        high *= 2;
    }
    let mut low = high / 2;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}
