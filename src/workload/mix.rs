//! What a planner wants to know of traffic: its token mix, as it is really made, caps and sessions included.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::rng;
use crate::stats::quantile::of_sorted;
use crate::workload::request::{Prompt, RequestSource};

/// Requests drawn for a mix: means of the presets are then known to about 1 %.
pub const MIX_REQUESTS: usize = 20_000;

/// The token mix of some traffic, measured on requests that were made for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    /// Requests it is measured on.
    pub requests: u64,
    /// Prompt lengths, shared prefix and history included.
    pub input_tokens: Lengths,
    /// Answer lengths.
    pub output_tokens: Lengths,
    /// Share of the prompt tokens that repeat the beginning of an earlier prompt: the most that an endless prefix cache could save.
    pub repeated_share: f64,
    /// Share of the requests that were shortened to fit caps or context.
    pub capped_share: f64,
    /// Share of the requests that were shortened because the context is too small.
    pub cut_share: f64,
}

/// A length distribution in a few numbers, tokens; quantiles by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u32,
    /// 95th percentile.
    pub p95: u32,
    /// 99th percentile.
    pub p99: u32,
    /// Longest.
    pub max: u32,
}

impl Lengths {
    fn of(mut tokens: Vec<u32>) -> Self {
        tokens.sort_unstable();
        let sum: u64 = tokens.iter().map(|tokens| u64::from(*tokens)).sum();
        let quantile = |q| of_sorted(&tokens, q).unwrap_or_default();
        Self {
            mean: sum as f64 / tokens.len().max(1) as f64,
            p50: quantile(0.5),
            p95: quantile(0.95),
            p99: quantile(0.99),
            max: quantile(1.0),
        }
    }
}

impl Mix {
    /// Of the next `count` requests of a source, or of all it has. Each ends at once, so sessions run through.
    pub fn of(source: &mut dyn RequestSource, count: usize) -> Self {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        let mut beginnings = HashSet::new();
        let (mut tokens, mut repeated) = (0_u64, 0_u64);
        while let Some(request) = (inputs.len() < count).then(|| source.next_request()).flatten() {
            inputs.push(request.prompt.len());
            outputs.push(request.output_tokens);
            tokens += u64::from(request.prompt.len());
            repeated += repeated_tokens(&request.prompt, &mut beginnings);
            source.ended(request.id);
        }
        let requests = inputs.len() as u64;
        Self {
            requests,
            input_tokens: Lengths::of(inputs),
            output_tokens: Lengths::of(outputs),
            repeated_share: repeated as f64 / tokens.max(1) as f64,
            capped_share: source.tally().capped as f64 / requests.max(1) as f64,
            cut_share: source.tally().cut as f64 / requests.max(1) as f64,
        }
    }
}

/// Tokens of the longest run of leading segments seen before; remembers all beginnings of this prompt.
fn repeated_tokens(prompt: &Prompt, beginnings: &mut HashSet<u64>) -> u64 {
    let (mut chain, mut repeated, mut known) = (0, 0, true);
    for segment in &prompt.segments {
        chain = rng::mix(chain ^ rng::at(segment.seed, u64::from(segment.tokens)));
        known &= !beginnings.insert(chain);
        repeated += if known { u64::from(segment.tokens) } else { 0 };
    }
    repeated
}
