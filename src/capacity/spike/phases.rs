//! What became of the calls of one phase.

use serde::{Deserialize, Serialize};

use crate::record::slo::{Objective, Slo, SloMetric};
use crate::stats::histogram::Histogram;

/// What a call was like for its client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Felt {
    /// Nanoseconds to the first token.
    pub ttft: f64,
    /// Nanoseconds a token after it; `None` for an answer of one token.
    pub tpot: Option<f64>,
    /// Nanoseconds to the last token.
    pub e2e: f64,
}

impl Felt {
    /// Whether the call missed `objective`; one that is not defined for it is not missed.
    #[must_use]
    pub fn misses(&self, objective: &Objective) -> bool {
        let limit = objective.limit.0 as f64;
        match objective.metric {
            SloMetric::Ttft => self.ttft >= limit,
            SloMetric::Tpot => self.tpot.is_some_and(|tpot| tpot >= limit),
            SloMetric::E2e => self.e2e >= limit,
        }
    }
}

/// A latency in a few numbers, milliseconds, calls that failed counting as infinite; `None` where the rank falls on one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

impl Quantiles {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let at = |share| histogram.quantile(share).map(|nanos| nanos as f64 / 1e6);
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }
}

/// One objective over the calls of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveHeld {
    /// Which.
    pub objective: Objective,
    /// Share of the calls that missed it, failed ones included.
    pub miss_share: f64,
    /// Whether no more missed it than it allows.
    pub holds: bool,
}

/// A phase, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseHeld {
    /// As the course calls it.
    pub name: String,
    /// Multiple of the average.
    pub times: f64,
    /// From and to, seconds of the course: calls that came in between.
    pub span_s: (f64, f64),
    /// Calls that came.
    pub calls: u64,
    /// Of those, completed.
    pub completed: u64,
    /// Refused, given up, lost or unfinished.
    pub failed: u64,
    /// Tries for each call, 1 or more.
    pub tries_per_call: f64,
    /// Calls a second that met every objective.
    pub goodput_calls_per_s: f64,
    /// Each objective.
    pub objectives: Vec<ObjectiveHeld>,
    /// Time to first token.
    pub ttft_ms: Quantiles,
    /// Time per output token.
    pub tpot_ms: Quantiles,
    /// End to end.
    pub e2e_ms: Quantiles,
}

impl PhaseHeld {
    /// Whether every objective holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.objectives.iter().all(|objective| objective.holds)
    }
}

/// A phase while calls come.
#[derive(Clone, Debug)]
pub(super) struct PhaseTally {
    calls: u64,
    completed: u64,
    tries: u64,
    good: u64,
    misses: Vec<u64>,
    ttft: Histogram,
    tpot: Histogram,
    e2e: Histogram,
}

impl PhaseTally {
    pub(super) fn new(slo: &Slo) -> Self {
        let histogram = Histogram::new;
        Self {
            calls: 0,
            completed: 0,
            tries: 0,
            good: 0,
            misses: vec![0; slo.objectives.len()],
            ttft: histogram(),
            tpot: histogram(),
            e2e: histogram(),
        }
    }

    /// One call, after so many tries; `None`: it failed. Whether it met every objective.
    pub(super) fn add(&mut self, felt: Option<&Felt>, tries: u32, slo: &Slo) -> bool {
        self.calls += 1;
        self.tries += u64::from(tries);
        let mut good = true;
        for (objective, misses) in slo.objectives.iter().zip(&mut self.misses) {
            let missed = felt.is_none_or(|felt| felt.misses(objective));
            *misses += u64::from(missed);
            good &= !missed;
        }
        match felt {
            Some(felt) => {
                self.completed += 1;
                self.ttft.record(felt.ttft as u64);
                self.e2e.record(felt.e2e as u64);
                if let Some(tpot) = felt.tpot {
                    self.tpot.record(tpot as u64);
                }
            }
            None => [&mut self.ttft, &mut self.tpot, &mut self.e2e].into_iter().for_each(Histogram::record_infinite),
        }
        self.good += u64::from(good);
        good
    }

    pub(super) fn held(&self, name: &str, times: f64, span_s: (f64, f64), slo: &Slo) -> PhaseHeld {
        let share = |misses: u64| misses as f64 / (self.calls as f64).max(1.0);
        let objective = |(objective, misses): (&Objective, &u64)| ObjectiveHeld {
            objective: *objective,
            miss_share: share(*misses),
            holds: share(*misses) <= objective.allowed_miss_share() + 1e-12,
        };
        PhaseHeld {
            name: name.to_owned(),
            times,
            span_s,
            calls: self.calls,
            completed: self.completed,
            failed: self.calls - self.completed,
            tries_per_call: self.tries as f64 / (self.calls as f64).max(1.0),
            goodput_calls_per_s: self.good as f64 / (span_s.1 - span_s.0).max(f64::MIN_POSITIVE),
            objectives: slo.objectives.iter().zip(&self.misses).map(objective).collect(),
            ttft_ms: Quantiles::of(&self.ttft),
            tpot_ms: Quantiles::of(&self.tpot),
            e2e_ms: Quantiles::of(&self.e2e),
        }
    }
}
