//! From the records of a level's cohort to its latencies, counts and throughput.
//!
//! A request is kept as a few stamps, not as its chunks, so that a hundred thousand of them are a few megabytes;
//! gaps between chunks go into a histogram as each request ends.

use std::collections::BTreeMap;

use crate::clock::Nanos;
use crate::record::level::{Counts, Distribution, Latencies, Latency};
use crate::record::request::{Ending, RequestRecord, TokenCount};
use crate::record::server::TokenCounts;
use crate::record::slo::{Objective, Slo, SloMetric};
use crate::stats::histogram::Histogram;
use crate::stats::quantile;

/// One request of a level, as far as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    /// Unique within the level, from 0 in order of submission.
    pub id: u64,
    /// When it was due.
    pub intended: Nanos,
    /// When it was sent.
    pub sent: Option<Nanos>,
    /// When the engine took it.
    pub admitted: Option<Nanos>,
    /// When its first token came.
    pub first_token: Option<Nanos>,
    /// When its last token came.
    pub last_token: Option<Nanos>,
    /// When it ended.
    pub end: Nanos,
    /// Nanoseconds per output token after the first chunk, where defined.
    pub tpot_ns: Option<f64>,
    /// Prompt length.
    pub prompt_tokens: u32,
    /// Tokens received.
    pub output_tokens: u32,
    /// Tokens asked for.
    pub requested_tokens: u32,
    /// What is known of its tokens, where it came over a wire.
    pub token_count: Option<TokenCount>,
    /// Length of the prompt as it was made, tokens.
    pub made_tokens: u32,
    /// How it ended.
    pub ending: Ending,
}

impl Brief {
    /// What is kept of `record`.
    #[must_use]
    pub fn of(record: &RequestRecord) -> Self {
        Self {
            id: record.id,
            intended: record.intended,
            sent: record.sent,
            admitted: record.admitted,
            first_token: record.first_token,
            last_token: record.last_token,
            end: record.end,
            tpot_ns: record.tpot_ns(),
            prompt_tokens: record.prompt_tokens,
            output_tokens: record.output_tokens,
            requested_tokens: record.requested_tokens,
            token_count: record.token_count,
            made_tokens: record.made_tokens.unwrap_or(record.prompt_tokens),
            ending: record.ending,
        }
    }

    /// Whether all tokens arrived.
    #[must_use]
    pub fn completed(&self) -> bool {
        self.ending == Ending::Completed
    }

    /// End-to-end latency from the intended start, of a completed request.
    #[must_use]
    pub fn e2e(&self) -> Option<Nanos> {
        self.completed().then_some(self.last_token?.since(self.intended))
    }

    /// Whether the request missed `objective`; `None` where the metric is undefined for a request that completed.
    #[must_use]
    pub fn misses(&self, objective: &Objective) -> Option<bool> {
        if !self.completed() {
            return Some(true);
        }
        let limit = objective.limit.0 as f64;
        let value = match objective.metric {
            SloMetric::Ttft => self.first_token?.since(self.intended).0 as f64,
            SloMetric::E2e => self.last_token?.since(self.intended).0 as f64,
            SloMetric::Tpot => self.tpot_ns?,
        };
        Some(value >= limit)
    }

    /// Whether it met every objective; one that is undefined for it does not count against it.
    #[must_use]
    pub fn good(&self, slo: &Slo) -> bool {
        slo.objectives.iter().all(|objective| self.misses(objective) != Some(true))
    }
}

/// Gaps between the chunks of a cohort.
#[derive(Debug, Default)]
pub struct Gaps {
    plain: Histogram,
    per_token: Histogram,
}

impl Gaps {
    /// Adds the gaps of one request.
    pub fn add(&mut self, record: &RequestRecord) {
        for pair in record.chunks.windows(2) {
            let gap = pair[1].at.since(pair[0].at).0;
            self.plain.record(gap);
            for _ in 0..pair[1].tokens {
                self.per_token.record(gap / u64::from(pair[1].tokens));
            }
        }
    }
}

/// The latencies of a cohort, in milliseconds.
#[must_use]
pub fn latencies(cohort: &[Brief], gaps: &Gaps) -> Latencies {
    let since = |later: Option<Nanos>, earlier: Option<Nanos>| Some(later?.since(earlier?).0);
    Latencies {
        ttft: latency(cohort, |brief| since(brief.first_token, Some(brief.intended))),
        ttft_service: latency(cohort, |brief| since(brief.first_token, brief.sent)),
        tpot: latency(cohort, |brief| brief.tpot_ns.map(|nanos| nanos.round() as u64)),
        e2e: latency(cohort, |brief| since(brief.last_token, Some(brief.intended))),
        e2e_per_token: latency(cohort, |brief| since(brief.last_token, Some(brief.intended))?.checked_div(u64::from(brief.output_tokens))),
        itl: from_histogram(&gaps.plain),
        itl_per_token: from_histogram(&gaps.per_token),
        queue_delay: known(cohort, |brief| since(brief.admitted, Some(brief.intended))),
        send_lag: known(cohort, |brief| since(brief.sent, Some(brief.intended))),
    }
}

/// How a cohort ended.
#[must_use]
pub fn counts(cohort: &[Brief], whole_level: u64) -> Counts {
    let mut counts = Counts { cohort: cohort.len() as u64, whole_level, ..Counts::default() };
    let mut failed = BTreeMap::new();
    for brief in cohort {
        match brief.ending {
            Ending::Completed => counts.completed += 1,
            Ending::Failed(kind) => {
                let name = serde_json::to_value(kind).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default();
                *failed.entry(name).or_insert(0) += 1;
            }
            Ending::TimedOut => counts.timed_out += 1,
            Ending::Refused => counts.refused += 1,
            Ending::Cancelled => *failed.entry("cancelled".to_owned()).or_insert(0) += 1,
        }
    }
    counts.failed = failed;
    counts
}

/// Share of completed requests whose answer is not as long as was asked.
#[must_use]
pub fn off_length_share(cohort: &[Brief]) -> f64 {
    let completed = cohort.iter().filter(|brief| brief.completed());
    let off = completed.clone().filter(|brief| brief.output_tokens != brief.requested_tokens).count();
    off as f64 / completed.count().max(1) as f64
}

/// How the tokens of a cohort were counted; `None` where no answer came over a wire.
#[must_use]
pub fn token_counts(cohort: &[Brief]) -> Option<TokenCounts> {
    let answers = || cohort.iter().filter_map(|brief| Some((brief, brief.token_count?)));
    answers().next()?;
    let mut counts = TokenCounts::default();
    for (brief, count) in answers() {
        counts.answers += 1;
        counts.with_usage += u64::from(count.output_by_usage.is_some());
        counts.disagreeing += u64::from(count.disagrees());
        counts.by_tokenizer += u64::from(count.output_by_usage.is_none() && count.output_by_tokenizer.is_some());
        counts.tokenizer_disagreeing += u64::from(count.tokenizer_disagrees());
        counts.events += u64::from(count.events);
        counts.tokens += u64::from(brief.output_tokens);
        counts.cached_tokens += u64::from(count.cached);
        let off = brief.prompt_tokens.abs_diff(brief.made_tokens);
        counts.prompts_off += u64::from(off > 2 && f64::from(off) > 0.01 * f64::from(brief.made_tokens));
    }
    Some(counts)
}

/// A latency both ways: failures as infinite, and completed requests alone.
fn latency(cohort: &[Brief], value: impl Fn(&Brief) -> Option<u64>) -> Latency {
    let mut values: Vec<u64> = cohort.iter().filter(|brief| brief.completed()).filter_map(&value).collect();
    values.sort_unstable();
    let completed = cohort.iter().filter(|brief| brief.completed()).count();
    let undefined = (completed - values.len()) as u64;
    let infinite = (cohort.len() - completed) as u64;
    Latency { adjusted: distribution(&values, infinite, undefined), raw: distribution(&values, 0, undefined) }
}

/// A distribution over the requests that have the value, however they ended.
fn known(cohort: &[Brief], value: impl Fn(&Brief) -> Option<u64>) -> Distribution {
    let mut values: Vec<u64> = cohort.iter().filter_map(&value).collect();
    values.sort_unstable();
    distribution(&values, 0, (cohort.len() - values.len()) as u64)
}

/// Nearest rank over `sorted` nanoseconds with `infinite` values above them.
fn distribution(sorted: &[u64], infinite: u64, undefined: u64) -> Distribution {
    let total = sorted.len() as u64 + infinite;
    let at = |share: f64| {
        let rank = quantile::nearest_rank(total, share) as usize;
        sorted.get(rank.checked_sub(1)?).map(|nanos| *nanos as f64 / 1e6)
    };
    let sum: f64 = sorted.iter().map(|nanos| *nanos as f64).sum();
    Distribution {
        count: total,
        undefined,
        mean: (!sorted.is_empty()).then(|| sum / sorted.len() as f64 / 1e6),
        p50: at(0.50),
        p90: at(0.90),
        p95: at(0.95),
        p99: at(0.99),
        max: at(1.0),
    }
}

fn from_histogram(histogram: &Histogram) -> Distribution {
    let at = |share: f64| histogram.quantile(share).map(|nanos| nanos as f64 / 1e6);
    Distribution {
        count: histogram.count(),
        undefined: 0,
        mean: histogram.mean().map(|nanos| nanos / 1e6),
        p50: at(0.50),
        p90: at(0.90),
        p95: at(0.95),
        p99: at(0.99),
        max: at(1.0),
    }
}
