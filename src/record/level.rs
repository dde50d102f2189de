//! One load level as it was measured and judged.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::record::finding::Finding;
use crate::record::server::TokenCounts;
use crate::record::server_window::ServerWindow;
use crate::record::slo::Objective;
use crate::record::target::TargetCounters;
use crate::record::telemetry::Telemetry;
use crate::record::verdict::{Outcome, Verdict};
use crate::stats::interval::Interval;
use crate::workload::request::Tally;

/// What a level was measured for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Purpose {
    /// One request at a time, first and last: the idle latencies, and proof that the machine did not drift.
    Reference {
        /// `first` or `last`.
        position: String,
    },
    /// A step of the closed-loop sweep under rising concurrency.
    Sweep,
    /// A probe of the open-loop search.
    Search,
    /// A level of a confirmation run.
    Confirmation {
        /// From 1.
        run: u32,
    },
    /// A point of the load-latency curve.
    Curve,
    /// One device of several at work alone, at its share of a step of the sweep: what the others cost it.
    Solo {
        /// Which.
        device: String,
    },
    /// Prompts of one length, one at a time: what a prefill takes by itself. For exports to planners.
    PlannerPrefill {
        /// Tokens of each prompt.
        prompt_tokens: u32,
        /// Tokens of each answer.
        output_tokens: u32,
    },
    /// Prompts and answers of one length each, so many in flight: what a decoded token takes at that context. For exports to planners.
    PlannerDecode {
        /// Tokens of each prompt.
        prompt_tokens: u32,
        /// Tokens of each answer.
        output_tokens: u32,
    },
}

impl Purpose {
    /// Tokens of every prompt and answer, where a level has lengths of its own instead of the workload's.
    #[must_use]
    pub const fn lengths(&self) -> Option<(u32, u32)> {
        match *self {
            Self::PlannerPrefill { prompt_tokens, output_tokens } | Self::PlannerDecode { prompt_tokens, output_tokens } => {
                Some((prompt_tokens, output_tokens))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference { position } => write!(out, "reference {position}"),
            Self::Sweep => write!(out, "sweep"),
            Self::Search => write!(out, "search"),
            Self::Confirmation { run } => write!(out, "confirmation {run}"),
            Self::Curve => write!(out, "curve"),
            Self::Solo { device } => write!(out, "{device} alone"),
            Self::PlannerPrefill { prompt_tokens, .. } => write!(out, "prefill of {prompt_tokens}"),
            Self::PlannerDecode { prompt_tokens, output_tokens } => write!(out, "decode of {prompt_tokens}+{output_tokens}"),
        }
    }
}

/// What was offered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "loop")]
pub enum Offered {
    /// This many requests in flight, always.
    Closed {
        /// 1 or more.
        concurrency: u32,
    },
    /// Arrivals by a schedule that a slow target never slows.
    Open {
        /// Over all devices of the target.
        calls_per_s: f64,
        /// Arrival process, such as `poisson`.
        process: String,
    },
}

/// A latency distribution in milliseconds. Quantiles are nearest rank; `None` where nothing was seen, or (in an
/// adjusted set) where the rank falls on a failure or timeout, which counts as infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Values in it.
    pub count: u64,
    /// Requests for which the metric is undefined, such as TPOT of a one-token answer.
    pub undefined: u64,
    /// Arithmetic mean of the finite values.
    pub mean: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 90th percentile.
    pub p90: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

/// A latency both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Failures and timeouts are infinite: what verdicts are made on.
    pub adjusted: Distribution,
    /// Completed requests only.
    pub raw: Distribution,
}

/// All latencies of a level's cohort, milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Time to first token from the intended start.
    pub ttft: Latency,
    /// Time to first token from the actual send.
    pub ttft_service: Latency,
    /// Time per output token after the first chunk, one value a request.
    pub tpot: Latency,
    /// End to end from the intended start.
    pub e2e: Latency,
    /// End to end over the number of output tokens, one value a request.
    #[serde(default)]
    pub e2e_per_token: Latency,
    /// Gaps between consecutive chunks: what a reader of the stream feels.
    pub itl: Distribution,
    /// The same gaps, each divided by the tokens it brought and counted once a token.
    pub itl_per_token: Distribution,
    /// Admission into the engine's batch from the intended start; in-process and simulated targets.
    pub queue_delay: Distribution,
    /// The generator's own delay.
    pub send_lag: Distribution,
}

/// How the cohort ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests whose intended start lies in the window.
    pub cohort: u64,
    /// Of those, completed.
    pub completed: u64,
    /// Of those, failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Of those, not finished within the request timeout.
    pub timed_out: u64,
    /// Of those, refused by the generator's own cap.
    pub refused: u64,
    /// Requests of the whole level, warm-up and tail included.
    pub whole_level: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Closed loop: completions inside the window per second. Open loop: realised arrivals per second.
    pub calls_per_s: f64,
    /// Completions inside the window per second.
    pub completions_per_s: f64,
    /// Tokens emitted inside the window per second.
    pub output_tokens_per_s: f64,
    /// Prompt tokens of requests whose first token fell inside the window, per second.
    pub prompt_tokens_per_s: f64,
    /// Closed loop only: 95 % interval of the mean of `calls_per_s` by batch means.
    pub interval: Option<Interval>,
    /// The same of `output_tokens_per_s`.
    #[serde(default)]
    pub tokens_interval: Option<Interval>,
    /// Tokens of the whole level, ramp and drain included, per second: shown beside the window's.
    pub whole_level_output_tokens_per_s: f64,
}

/// The same per device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PerDevice {
    /// Devices the target owns.
    pub devices: u32,
    /// Inference calls per second per device *at this level*, whether or not an SLO holds: not `throughput_per_gpu`.
    pub calls_per_s: f64,
    /// Output tokens per second per device.
    pub output_tokens_per_s: f64,
}

/// What one device of several did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceShare {
    /// Such as `cuda:1`.
    pub device: String,
    /// Its part of the window's output tokens per second, by its share of the tokens of the whole level.
    pub output_tokens_per_s: f64,
    /// Sequences of it that lost their blocks.
    pub preemptions: u64,
}

/// One objective, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveJudgement {
    /// Which.
    pub objective: Objective,
    /// Requests judged: the cohort, less those for which the metric is undefined.
    pub requests: u64,
    /// Over the limit, failed or timed out.
    pub misses: u64,
    /// `misses / requests`.
    pub miss_share: f64,
    /// How many times more the miss share scatters between blocks of time than with independent requests, 1 or more.
    #[serde(default = "unclustered")]
    pub clustering: f64,
    /// Requests that come and go with one wave of load, by the number in flight; the clustering at least.
    #[serde(default = "unclustered")]
    pub worth: f64,
    /// Blocks of time that the misses were counted over; 0 where no decision was due.
    #[serde(default)]
    pub blocks: u64,
    /// 95 % block-bootstrap bounds of the miss share, where a decision was due.
    pub bounds: Option<Interval>,
    /// What can be said.
    pub outcome: Outcome,
}

fn unclustered() -> f64 {
    1.0
}

/// All objectives of a level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SloJudgement {
    /// In the order of the SLO.
    pub objectives: Vec<ObjectiveJudgement>,
    /// Share of the cohort that met every objective, 0..=1.
    pub joint_attainment: f64,
    /// Good requests of the cohort per second, all devices.
    pub goodput_calls_per_s: f64,
    /// Why nothing could be decided, in words; empty where it could.
    pub undecided: String,
    /// The window that a decision needs by its objectives, seconds, where a quick run cut it.
    #[serde(default)]
    pub needed_s: Option<f64>,
}

/// Requests sent and not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InFlight {
    /// Time-weighted mean over the window.
    pub mean: f64,
    /// Most at once in the window.
    pub max: u64,
    /// Slope over the window, requests per second, with its 95 % interval.
    pub slope: Option<Interval>,
}

/// How much of this level was the generator's doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratorAudit {
    /// CPU of the generator's thread less its spinning, share of one core.
    pub cpu_share: f64,
    /// Requests sent in the window / requests scheduled in it; 1 in closed loop.
    pub achieved_over_offered: f64,
    /// Events lost in the ring.
    pub events_lost: u64,
    /// Longest time between two turns of the generator's loop, milliseconds.
    pub longest_gap_ms: f64,
    /// Arrivals that waited at the in-flight cap.
    pub waited_at_cap: u64,
    /// Share of the window in which its thread was ready to run and had no core.
    #[serde(default)]
    pub starved_share: f64,
    /// Share of its own ceiling (against the null target, or over HTTP) that the generator used, where the ceiling was measured.
    pub ceiling_share: Option<f64>,
}

/// One load level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelRecord {
    /// See [`crate::record::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Order of measurement, from 0.
    pub index: u32,
    /// What for.
    pub purpose: Purpose,
    /// What was offered.
    pub offered: Offered,
    /// Seed of arrivals and prompts of this level.
    #[serde(with = "crate::record::seed")]
    pub seed: u64,
    /// When it began (UTC, RFC 3339), for people.
    pub started: String,
    /// Warm-up, seconds.
    pub warm_up_s: f64,
    /// Window, seconds.
    pub window_s: f64,
    /// The window on the clock of the request log: the cohort is every request with `from <= intended < to`.
    pub window: (Nanos, Nanos),
    /// Following the cohort to its end, seconds.
    pub tail_s: f64,
    /// How the cohort ended.
    pub counts: Counts,
    /// What was asked over the whole level, warm-up and tail included: its realised token mix, and what had to be shortened.
    #[serde(default)]
    pub traffic: Tally,
    /// What came out.
    pub throughput: Throughput,
    /// The same per device.
    pub per_device: PerDevice,
    /// Each device by itself, where the target has several.
    #[serde(default)]
    pub by_device: Vec<DeviceShare>,
    /// Requests in flight.
    pub in_flight: InFlight,
    /// Latencies of the cohort.
    pub latency: Latencies,
    /// Objectives.
    pub slo: SloJudgement,
    /// The generator, audited.
    pub generator: GeneratorAudit,
    /// The target's own counters over the whole level, warm-up and tail included; peaks since the target was made.
    pub target: TargetCounters,
    /// GPU telemetry over the window.
    pub telemetry: Telemetry,
    /// What the server's own counters said over the window, where they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerWindow>,
    /// How the tokens of the cohort were counted, where answers came over a wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_counts: Option<TokenCounts>,
    /// What a reader should know of the GPUs and the server in this level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Model bandwidth utilisation of one request alone, 0 or more: the bytes that a token needs at least over the median TPOT, as a
    /// share of the measured read bandwidth. `None` at any other load, and where ceilings were not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mbu: Option<f64>,
    /// Valid? And what did the system do?
    pub verdict: Verdict,
    /// Length of the run's request log after this level, bytes; 0 where none is kept.
    #[serde(default)]
    pub request_log_bytes: u64,
    /// Requests that are counted here and are not in the log, because it could not keep up.
    #[serde(default)]
    pub unlogged_requests: u64,
}
