//! What a log of requests says of demand, as plain data with a schema version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::record::finding::Finding;

/// Version of [`Demand`]; a reader refuses a newer one.
pub const DEMAND_SCHEMA_VERSION: u32 = 1;

/// Demand, found in a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// See [`DEMAND_SCHEMA_VERSION`].
    pub demand_schema_version: u32,
    /// Files it was found in, without their folders.
    pub sources: Vec<String>,
    /// Which column was taken for what.
    pub columns: BTreeMap<String, String>,
    /// What a line of the log is.
    pub log: LogKind,
    /// Who says so.
    pub log_told_by: LogToldBy,
    /// Lines that are calls.
    pub calls: u64,
    /// Of them, failed.
    pub failed: u64,
    /// Lines that are no call, by what is wrong with them.
    pub rejected: BTreeMap<String, u64>,
    /// The first few, in words.
    pub first_rejected: Vec<String>,
    /// Beginning of the first call, nanoseconds since 1970 UTC.
    pub first_ns: i64,
    /// Beginning of the last call, nanoseconds since 1970 UTC.
    pub last_ns: i64,
    /// Calls over that span, calls/s; `None` where all began at once.
    pub mean_rps: Option<f64>,
    /// Rates of the log's lines, in windows of a second, a minute and an hour.
    pub rates: Vec<WindowRates>,
    /// Rates of visible requests, where the log is one of calls and has their ids.
    pub visible_rates: Vec<WindowRates>,
    /// Coefficient of variation of the gaps between beginnings; 1 for Poisson.
    pub gap_cv: Option<f64>,
    /// Prompt tokens of calls that succeeded.
    pub input_tokens: Option<Lengths>,
    /// Answer tokens of calls that succeeded.
    pub output_tokens: Option<Lengths>,
    /// Prompt tokens of all calls; those that failed may tell none, or 0.
    pub all_input_tokens: Option<Lengths>,
    /// Answer tokens of all calls, 0 for those that failed.
    pub all_output_tokens: Option<Lengths>,
    /// Latency of calls that succeeded, milliseconds.
    pub latency_ms: Option<Lengths>,
    /// From a visible request's first call to the end of its last, of those that succeeded, milliseconds.
    pub outcome_ms: Option<Lengths>,
    /// Calls of a visible request, of those that succeeded, where the log has their ids.
    #[serde(default)]
    pub calls_of_outcomes: Option<Lengths>,
    /// How much was going on at once.
    pub concurrency: Option<Concurrency>,
    /// Hidden work, where the log has ids of visible requests.
    pub recompute: Option<Recompute>,
    /// Hours that had a call.
    pub hours: Vec<Hour>,
    /// What the log's own spike looked like; `None` of a log that is shorter than a minute, where a warehouse counted, and in a demand
    /// that was kept before this was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busiest: Option<BusiestStretch>,
    /// What a reader should know.
    pub findings: Vec<Finding>,
}

/// What a line of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// What a user sees: its peak is multiplied by the recompute multiplier.
    VisibleRequests,
    /// An inference call: retries and hidden work are in it already.
    Calls,
}

/// Who says what a line of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogToldBy {
    /// The person who asked.
    Flag,
    /// Ids of visible requests, which repeat or do not.
    Ids,
    /// Nobody: it was assumed.
    Assumed,
}

/// Rates in windows of one length, aligned to the clock and counted from the first to the last that has a call, empty ones included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowRates {
    /// Length of a window, seconds.
    pub window_s: f64,
    /// How many.
    pub windows: u64,
    /// Mean, calls/s.
    pub mean_rps: f64,
    /// Median, calls/s.
    pub p50_rps: f64,
    /// 95th percentile, calls/s.
    pub p95_rps: f64,
    /// 99th percentile, calls/s.
    pub p99_rps: f64,
    /// Largest, calls/s.
    pub max_rps: f64,
    /// Largest over mean: the peak factor, which says nothing without its window.
    pub peak_over_mean: f64,
    /// What that factor would be by chance alone, were arrivals Poisson at the mean rate.
    pub poisson_peak_over_mean: f64,
    /// Variance over mean of the counts: 1 for Poisson.
    pub index_of_dispersion: f64,
}

/// The time around a log's busiest minute, in slices that are aligned to the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusiestStretch {
    /// When the first slice began, seconds since 1970 UTC.
    pub start_s: i64,
    /// Length of a slice, seconds.
    pub slice_s: u32,
    /// Calls of each slice in order of time, empty ones included: up to a quarter of an hour before the busiest minute and after it,
    /// fewer at the log's ends.
    pub calls: Vec<u64>,
}

impl BusiestStretch {
    /// What a minute is, seconds.
    pub const MINUTE_S: u32 = 60;

    /// Slices of so many seconds: whole ones, one or more, as many as there are at most.
    #[must_use]
    pub fn slices_of(&self, seconds: f64) -> usize {
        // A float-to-integer `as` saturates.
        ((seconds / f64::from(self.slice_s)).ceil() as usize).clamp(1, self.calls.len().max(1))
    }

    /// Where the busiest stretch of so many slices begins, the first of several; 0 where there are no more.
    #[must_use]
    pub fn busiest(&self, slices: usize) -> usize {
        let mut most = (0, 0);
        for (at, window) in self.calls.windows(slices.max(1)).enumerate() {
            let calls: u64 = window.iter().sum();
            if calls > most.1 {
                most = (at, calls);
            }
        }
        most.0
    }
}

/// A distribution; quantiles lie between values as `PERCENTILE_CONT` has them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lengths {
    /// Values.
    pub count: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// Shares and values, rising: for a workload that has these lengths, or an objective of outcomes; empty where it is of no use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<(f64, f64)>,
}

/// How much was going on at once, as calls met it when they began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concurrency {
    /// Who counted it.
    pub source: ConcurrencySource,
    /// Median over calls.
    pub p50: f64,
    /// 95th percentile over calls.
    pub p95: f64,
    /// 99th percentile over calls.
    pub p99: f64,
    /// Largest.
    pub max: u64,
    /// Largest within the busiest minute: sessions at peak. `None` where a warehouse counted.
    pub at_peak_minute: Option<u64>,
    /// Latency by it.
    pub buckets: Vec<LoadBucket>,
}

/// Who counted what was going on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencySource {
    /// A column of the log.
    Column,
    /// Counted from beginnings and latencies: calls in flight.
    Counted,
}

/// Calls that began within a range of concurrency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadBucket {
    /// From.
    pub from: u32,
    /// To, without it; `None` where there is no end.
    pub to: Option<u32>,
    /// Calls that succeeded.
    pub calls: u64,
    /// 95th percentile of their latency, milliseconds; `None` of none.
    pub p95_ms: Option<f64>,
}

/// Hidden work per visible output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recompute {
    /// Calls that have the id of a visible request.
    pub calls: u64,
    /// Visible requests.
    pub requests: u64,
    /// Of them, those whose last call succeeded.
    pub succeeded: u64,
    /// Calls of requests that began in hours of an incident, and their successes; 0 without one.
    pub incident_calls: u64,
    /// Successes of them.
    pub incident_succeeded: u64,
}

impl Recompute {
    /// Calls over successful outputs: the capacity model's multiplier; `None` where nothing succeeded.
    #[must_use]
    pub fn multiplier(&self) -> Option<f64> {
        ratio(self.calls, self.succeeded)
    }

    /// Calls over visible requests, successful or not.
    #[must_use]
    pub fn calls_per_request(&self) -> Option<f64> {
        ratio(self.calls, self.requests)
    }

    /// The multiplier of requests that began in hours of an incident.
    #[must_use]
    pub fn incident_multiplier(&self) -> Option<f64> {
        ratio(self.incident_calls, self.incident_succeeded)
    }
}

fn ratio(of: u64, over: u64) -> Option<f64> {
    (over > 0).then(|| of as f64 / over as f64)
}

/// An hour that had a call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hour {
    /// When it began, seconds since 1970 UTC.
    pub start_s: i64,
    /// Calls that began in it.
    pub calls: u64,
    /// Of them, failed.
    pub failed: u64,
    /// Calls per minute.
    pub rpm: MinuteReadings,
    /// Calls of the visible requests that began in it.
    pub calls_of_requests: u64,
    /// Visible requests that began in it.
    pub requests: u64,
    /// Of them, successful.
    pub succeeded: u64,
    /// Whether far more calls failed than usually do.
    pub incident: bool,
}

impl Hour {
    /// Share of its calls that failed, 0..=1.
    #[must_use]
    pub fn failed_share(&self) -> f64 {
        self.failed as f64 / self.calls.max(1) as f64
    }

    /// Calls over successful outputs of the requests that began in it.
    #[must_use]
    pub fn multiplier(&self) -> Option<f64> {
        ratio(self.calls_of_requests, self.succeeded)
    }
}

/// Calls per minute within an hour, in the three ways in which its 95th percentile can be read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MinuteReadings {
    /// 95th percentile of all minutes, empty ones included: the one that is meant.
    pub p95: f64,
    /// 95th percentile of the minutes that had a call.
    pub p95_of_occupied: f64,
    /// 95th percentile over calls, each with its minute's count: what the query gives where the count stands on every row.
    /// `None` where a warehouse counted.
    pub p95_of_rows: Option<f64>,
    /// The largest.
    pub peak: u64,
}
