//! What another tool measured, as plain data with its provenance and what it lacks: read by `interchange`, judged by
//! `capacity`, shown by `report`.
//!
//! Latencies stand under our names for what they mean, whatever the file called them.

use std::fmt;

use serde::Serialize;

use crate::record::finding::{Finding, Severity};
use crate::record::slo::SloMetric;

/// One file of another tool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Imported {
    /// Name of the tool or format, such as `vLLM bench serve`.
    pub tool: &'static str,
    /// Version of the tool, where the file says it.
    pub version: Option<String>,
    /// The file, as it was named.
    pub file: String,
    /// Model, where the file says it.
    pub model: Option<String>,
    /// What a reader must know it does not say, or measures otherwise.
    pub lacks: Vec<Lack>,
    /// One a load level, in the file's order; at least one.
    pub points: Vec<Point>,
}

/// What kept a point under load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "loop")]
pub enum Load {
    /// This many requests in flight: a slow answer delays the next request.
    Closed {
        /// 1 or more.
        concurrency: u32,
    },
    /// Arrivals by a schedule.
    Open {
        /// Offered, over all GPUs.
        calls_per_s: f64,
    },
    /// The file does not say.
    NotStated,
}

/// One load level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// What was offered.
    pub load: Load,
    /// Calls completed per second, over all GPUs.
    pub calls_per_s: f64,
    /// Output tokens per second, over all GPUs.
    pub output_tokens_per_s: Option<f64>,
    /// Time to first token.
    pub ttft_ms: Quantiles,
    /// Time per output token after the first, one value a request.
    pub tpot_ms: Quantiles,
    /// Gaps between chunks, one value a gap.
    pub itl_ms: Quantiles,
    /// End to end.
    pub e2e_ms: Quantiles,
    /// Calls that completed.
    pub completed: Option<u64>,
    /// Calls that did not: errors and timeouts.
    pub failed: Option<u64>,
    /// GPUs that the deployment owns.
    pub gpus: Option<u32>,
    /// Mean prompt length, tokens.
    pub mean_input_tokens: Option<f64>,
    /// Mean answer length, tokens.
    pub mean_output_tokens: Option<f64>,
}

impl Point {
    /// The distribution that an objective limits.
    #[must_use]
    pub fn of(&self, metric: SloMetric) -> &Quantiles {
        match metric {
            SloMetric::Ttft => &self.ttft_ms,
            SloMetric::Tpot => &self.tpot_ms,
            SloMetric::E2e => &self.e2e_ms,
        }
    }

    /// Share of the calls that failed, 0..=1; `None` where failures were not counted.
    #[must_use]
    pub fn failed_share(&self) -> Option<f64> {
        let (completed, failed) = (self.completed?, self.failed?);
        let all = completed.saturating_add(failed);
        (all > 0).then(|| failed as f64 / all as f64)
    }
}

/// What is known of a distribution, milliseconds. Of the calls that completed, as every one of these formats has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Percentile in (0, 100) and its value, by rising percentile.
    pub at: Vec<(f64, f64)>,
}

impl Quantiles {
    /// The value at a percentile, where the file has exactly that one.
    #[must_use]
    pub fn get(&self, percentile: f64) -> Option<f64> {
        self.at.iter().find(|(known, _)| (known - percentile).abs() < 1e-9).map(|(_, value)| *value)
    }

    /// The percentiles that are known, such as `p50, p99`.
    #[must_use]
    pub fn names(&self) -> String {
        self.at.iter().map(|(percentile, _)| format!("p{percentile}")).collect::<Vec<_>>().join(", ")
    }
}

/// What a foreign result does not say, or measures otherwise than plimsoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lack {
    /// Calls that failed are not counted.
    FailuresNotCounted,
    /// Latencies run from the send: what a request waited in the client is not in them.
    FromTheSend,
    /// TTFT runs from the send; end to end from the intended start.
    TtftFromTheSend,
    /// No request was judged against objectives.
    NoSloVerdict,
    /// GPUs are not stated.
    GpusNotStated,
    /// One measurement without an interval.
    NoInterval,
    /// Nothing says whether client or machine spoiled the measurement.
    NoValidity,
    /// Rates are over the whole run, ramp and drain included.
    RampIncluded,
    /// Arrivals waited at a cap on requests in flight.
    ArrivalsCapped,
    /// Calls/s were not stated: output tokens/s over the nominal answer length.
    CallsDerived,
    /// Gaps between chunks are not in the file.
    NoChunkGaps,
    /// No latency of a single call is in the file, or no first token.
    NoTtft,
    /// The load is not stated.
    LoadNotStated,
}

impl Lack {
    /// Stable name in `snake_case`, for scripts.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::FailuresNotCounted => "failures_not_counted",
            Self::FromTheSend => "from_the_send",
            Self::TtftFromTheSend => "ttft_from_the_send",
            Self::NoSloVerdict => "no_slo_verdict",
            Self::GpusNotStated => "gpus_not_stated",
            Self::NoInterval => "no_interval",
            Self::NoValidity => "no_validity",
            Self::RampIncluded => "ramp_included",
            Self::ArrivalsCapped => "arrivals_capped",
            Self::CallsDerived => "calls_derived",
            Self::NoChunkGaps => "no_chunk_gaps",
            Self::NoTtft => "no_ttft",
            Self::LoadNotStated => "load_not_stated",
        }
    }

    const fn next_step(self) -> &'static str {
        match self {
            Self::FailuresNotCounted => "Look for failed requests in the tool's own log: each is a miss",
            Self::FromTheSend | Self::TtftFromTheSend | Self::ArrivalsCapped => {
                "Expect more latency under arrivals that do not wait; `plimsoll bench` measures from the intended start"
            }
            Self::NoSloVerdict => "Judge it by its percentiles with `plimsoll plan FILE --slo SLO`",
            Self::GpusNotStated => "Give the GPUs that the deployment owns with `--gpus`",
            Self::NoInterval => "Repeat the measurement, and plan with the lowest of three",
            Self::NoValidity => "Check that neither the client nor heat, power or another process was the limit",
            Self::RampIncluded => "Measure for longer, or with more requests: ramp and drain lower the rate of short runs",
            Self::CallsDerived => "Give the tool's own result beside it, which counts calls",
            Self::NoChunkGaps => "Judge the flow of tokens by TPOT",
            Self::NoTtft => "Measure with streaming answers",
            Self::LoadNotStated => "Look up the load in the command line of the measurement",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::NoSloVerdict | Self::GpusNotStated | Self::NoChunkGaps | Self::RampIncluded => Severity::Note,
            _ => Severity::Warning,
        }
    }

    /// As a finding of a plan that stands on it.
    #[must_use]
    pub fn finding(self) -> Finding {
        Finding::new(&format!("imported_{}", self.code()), self.severity(), format!("the imported result: {self}"), self.next_step())
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::FailuresNotCounted => "no failures counted",
            Self::FromTheSend => "latencies from the send, not the intended start",
            Self::TtftFromTheSend => "TTFT from the send, not the intended start",
            Self::NoSloVerdict => "no SLO verdict",
            Self::GpusNotStated => "GPUs not stated",
            Self::NoInterval => "no interval",
            Self::NoValidity => "no check of client and machine",
            Self::RampIncluded => "rates over the whole run, ramp and drain included",
            Self::ArrivalsCapped => "arrivals waited at a cap on requests in flight",
            Self::CallsDerived => "calls/s from output tokens/s over the nominal answer length",
            Self::NoChunkGaps => "no gaps between chunks",
            Self::NoTtft => "no time to first token",
            Self::LoadNotStated => "load not stated",
        })
    }
}

/// Lacks in one order, each once.
#[must_use]
pub fn each_once(mut lacks: Vec<Lack>) -> Vec<Lack> {
    lacks.sort_unstable();
    lacks.dedup();
    lacks
}
