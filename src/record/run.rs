//! One saved invocation of `bench`: what was measured on what, and the headline.

use serde::{Deserialize, Serialize};

use crate::record::ceilings::CeilingsRecord;
use crate::record::finding::Finding;
use crate::record::level::LevelRecord;
use crate::record::node::NodeRecord;
use crate::record::search::Found;
use crate::record::server::ServerRecord;
use crate::record::slo::Slo;
use crate::record::target::TargetIdentity;
use crate::record::telemetry::IdlePower;
use crate::stats::interval::Interval;
use crate::workload::mix::Mix;
use crate::workload::trace::survey::TraceFacts;

/// How far a run got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Being measured; seen in a folder of a process that is gone, it means the run was killed.
    Running,
    /// Went to its end.
    Complete,
    /// Stopped by a signal after saving.
    Interrupted,
    /// Its `--budget` was spent before everything was measured; it can be gone on with.
    OutOfBudget,
    /// Stopped by an error after saving.
    Aborted,
}

/// The traffic, as far as a planner needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// Preset or file name.
    pub name: String,
    /// Mean prompt length, tokens.
    pub mean_input_tokens: f64,
    /// Mean answer length, tokens.
    pub mean_output_tokens: f64,
    /// Arrival process of the open-loop levels.
    pub arrivals: String,
    /// Where its lengths come from; of a trace what it holds and what of it is not replayed.
    pub source: String,
    /// Its token mix within what the model allows, as drawn beforehand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mix: Option<Mix>,
    /// What the survey of a trace found; `None` where the traffic is drawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceFacts>,
    /// Changes made to fit the model, such as scaled or capped lengths.
    pub labels: Vec<String>,
    /// SHA-256 of the resolved workload, hexadecimal.
    pub hash: String,
}

/// How `throughput_per_gpu` came about, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadlineStatus {
    /// Found, and confirmed by fresh runs.
    Confirmed,
    /// Found by one search; not confirmed.
    BracketOnly,
    /// The SLO is broken at the lowest load that was tried.
    SloUnmetAtMinimum,
    /// Nothing could be decided; a bound may be given.
    Undecided,
    /// The budget ran out.
    OutOfBudget,
    /// No valid level bounds it.
    NoValidBound,
    /// The reference level moved too far between start and end.
    Drift,
    /// The run ended before the search.
    NotReached,
}

/// The number a planner takes, with everything needed to doubt it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Headline {
    /// How it came about.
    pub status: HeadlineStatus,
    /// Inference calls/s per device at the highest offered load that meets the SLO; `None` where there is none.
    pub throughput_per_gpu: Option<f64>,
    /// 95 % interval of it; `None` for `interval: bracket only (1 run)`.
    pub interval: Option<Interval>,
    /// Highest rate that passed and lowest that failed, calls/s per device.
    pub bracket: Option<(f64, f64)>,
    /// Confirmation runs behind it.
    pub runs: u32,
    /// Good calls/s per device at the confirmed rate.
    pub goodput_per_gpu: Option<f64>,
    /// Output tokens/s per device at the confirmed rate.
    pub output_tokens_per_s_per_gpu: Option<f64>,
    /// Mean calls in flight per device at the confirmed rate.
    pub calls_in_flight_per_gpu: Option<f64>,
    /// `quick: p90, indicative` and the like; shown wherever the number is.
    pub labels: Vec<String>,
    /// In words, how the search ended.
    pub explanation: String,
}

/// One token of one request that has the device to itself, at the workload's mean context: what a decode step must move and
/// compute, and what the device can.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodeNeed {
    /// Tokens of context.
    pub context: u64,
    /// Weights and cached tokens, read once, bytes.
    pub bytes: f64,
    /// Floating-point operations.
    pub flops: f64,
    /// The device's read bandwidth, bytes/s.
    pub read_bytes_per_s: f64,
    /// Its rate of matrix products in the model's arithmetic, operations/s.
    pub flop_per_s: f64,
}

impl DecodeNeed {
    /// Model bandwidth utilisation at `seconds` a token: the share of the read bandwidth.
    #[must_use]
    pub fn mbu(&self, seconds: f64) -> f64 {
        self.bytes / self.read_bytes_per_s / seconds
    }

    /// Model FLOP utilisation at `seconds` a token: the share of the matrix rate.
    #[must_use]
    pub fn mfu(&self, seconds: f64) -> f64 {
        self.flops / self.flop_per_s / seconds
    }
}

/// The reference level, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Output tokens/s at the start.
    pub first: f64,
    /// Output tokens/s at the end.
    pub last: f64,
    /// Largest accepted |last / first - 1|.
    pub limit: f64,
    /// What the two levels' own 95 % intervals explain of it: a change within is no drift that was seen. `None` where a
    /// level has no interval.
    #[serde(default)]
    pub noise: Option<f64>,
}

impl Drift {
    /// More noise than this many limits, and the two levels cannot tell whether the machine held still.
    const NOISE_MAX: f64 = 2.0;

    /// `last / first - 1`.
    #[must_use]
    pub fn change(&self) -> f64 {
        self.last / self.first - 1.0
    }

    /// The change that is accepted: the limit, or the noise where that is more, up to twice the limit.
    #[must_use]
    pub fn accepted(&self) -> f64 {
        self.limit.max(self.noise.unwrap_or(0.0).min(Self::NOISE_MAX * self.limit))
    }

    /// Whether the machine moved too far.
    #[must_use]
    pub fn exceeded(&self) -> bool {
        self.change().abs() > self.accepted()
    }

    /// Whether the two levels can tell that the machine held still.
    #[must_use]
    pub fn resolved(&self) -> bool {
        self.change().is_finite() && self.noise.is_some_and(|noise| noise <= Self::NOISE_MAX * self.limit)
    }
}

/// What the capacity formula was asked; what nobody gave is assumed when a plan is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DemandRecord {
    /// Average visible requests/s.
    pub average_rps: Option<f64>,
    /// Planned peak, visible requests/s.
    pub peak_rps: Option<f64>,
    /// Over how many seconds that peak is a rate.
    pub peak_window_s: Option<f64>,
    /// Whether the average is planned for as if it were the peak.
    pub average_as_peak: bool,
    /// Inference calls per successful output.
    pub recompute: Option<f64>,
    /// Share added to the need.
    pub headroom: Option<f64>,
    /// GPUs that one replica of the model spans.
    pub gpus_per_replica: Option<u32>,
    /// Further scenarios, each as `NAME=MULTIPLE`.
    pub scenarios: Vec<String>,
}

/// What happened once, before the first level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ColdStart {
    /// Loading or making the weights, seconds.
    pub load_s: f64,
    /// Time to first token of the very first request, milliseconds.
    pub first_request_ms: Option<f64>,
}

/// One saved invocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// See [`crate::record::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// ULID: also the name of the folder.
    pub id: String,
    /// Version of plimsoll.
    pub version: String,
    /// When it began (UTC, RFC 3339).
    pub created: String,
    /// How far it got.
    pub status: RunStatus,
    /// The command line.
    pub command: Vec<String>,
    /// Everything a reader must know beside every number: synthetic weights, CPU device, simulated target, quick.
    pub labels: Vec<String>,
    /// Where.
    pub node: NodeRecord,
    /// On what.
    pub target: TargetIdentity,
    /// With which traffic.
    pub workload: WorkloadRecord,
    /// Against which objectives; `None` until the idle reference that they are relative to was measured.
    pub slo: Option<Slo>,
    /// Seed of everything random.
    #[serde(with = "crate::record::seed")]
    pub seed: u64,
    /// What the capacity formula was asked when it was measured.
    #[serde(default)]
    pub demand: DemandRecord,
    /// Short windows and p90.
    pub quick: bool,
    /// Hash of every choice that decides which levels are measured: a run is resumed only under the same plan.
    pub plan_hash: String,
    /// Once, before the first level.
    pub cold_start: ColdStart,
    /// What the generator itself can do, calls/s: against the null target, or over HTTP against a server that answers at
    /// once where a server is measured. `None` in virtual time and over HTTP/2.
    #[serde(default)]
    pub generator_ceiling: Option<f64>,
    /// What is known of the server, where the target is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerRecord>,
    /// What the first device can do at most, measured before the model was loaded, where the target is the built-in engine.
    #[serde(default)]
    pub ceilings: Option<CeilingsRecord>,
    /// What one token of one request alone takes at least of it.
    #[serde(default)]
    pub decode_need: Option<DecodeNeed>,
    /// What the watched GPUs used while idle; empty where that was not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<IdlePower>,
    /// Reference first and last; `None` until both were measured.
    pub drift: Option<Drift>,
    /// What the search found; `None` before its end.
    #[serde(default)]
    pub search: Option<Found>,
    /// The number.
    pub headline: Option<Headline>,
    /// What a reader should know.
    pub findings: Vec<Finding>,
    /// Filled when a run is printed or read back; each level has a file of its own in the folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<LevelRecord>,
}
