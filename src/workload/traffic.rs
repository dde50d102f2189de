//! Drawn or recorded, traffic is asked the same questions: which requests, when, and of what mix.

use crate::clock::Nanos;
use crate::rng;
use crate::workload::arrivals::Schedule;
use crate::workload::fit::Limits;
use crate::workload::mix::{MIX_REQUESTS, Mix};
use crate::workload::request::RequestSource;
use crate::workload::spec::{History, Sessions, Workload, WorkloadError};
use crate::workload::trace::format::TraceFormat;
use crate::workload::trace::survey::{Trace, TraceError};

/// What a campaign sends.
#[derive(Clone, Debug)]
pub enum Traffic {
    /// Drawn from a workload.
    Drawn(Workload),
    /// Replayed from a trace.
    Recorded(Trace),
}

/// Why there is no traffic.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// From the workload.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// From the trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

impl Traffic {
    /// Its name in every output.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Drawn(workload) => &workload.name,
            Self::Recorded(trace) => &trace.facts().name,
        }
    }

    /// Objectives stated with it, in the notation of `--slo`.
    #[must_use]
    pub fn slo(&self) -> Option<&str> {
        match self {
            Self::Drawn(workload) => workload.slo.as_deref(),
            Self::Recorded(_) => None,
        }
    }

    /// The requests of the level of this seed; those of a trace belong to the arrivals that [`Self::schedule`] makes of the same seed.
    pub fn source(&self, seed: u64, limits: Limits) -> Result<Box<dyn RequestSource + Send>, TrafficError> {
        match self {
            Self::Drawn(workload) => Ok(workload.source(rng::derive(seed, "requests"), limits)?),
            Self::Recorded(trace) => Ok(trace.source(rng::derive(seed, "requests"), trace.start(seed), limits)?),
        }
    }

    /// The arrivals of the open-loop level of this seed at `rate` calls/s. A trace has one order of arrivals; the seed says where it
    /// starts, and its rate is held over every `steady`.
    pub fn schedule(&self, rate: f64, seed: u64, steady: Nanos) -> Result<Schedule, TrafficError> {
        match self {
            Self::Drawn(workload) => Ok(workload.arrivals.schedule(rate, rng::derive(seed, "arrivals"))),
            Self::Recorded(trace) => Ok(trace.steady_schedule(rate, trace.start(seed), steady)?),
        }
    }

    /// How its arrivals come about at `rate` calls/s, in words for the report.
    #[must_use]
    pub fn arrivals_note(&self, rate: f64) -> String {
        match self {
            Self::Drawn(workload) => workload.arrivals.to_string(),
            Self::Recorded(trace) => trace.rate_note(rate),
        }
    }

    /// Whether prompts begin alike by intention: then a prefix cache that finds something is no fault.
    #[must_use]
    pub fn shares_prefixes(&self) -> bool {
        match self {
            Self::Drawn(workload) => {
                let carried = |sessions: &Sessions| sessions.history == History::Carried;
                workload.shared_prefix.is_some() || workload.sessions.as_ref().is_some_and(carried)
            }
            Self::Recorded(trace) => trace.facts().format == TraceFormat::Mooncake,
        }
    }

    /// Its token mix under these limits.
    pub fn mix(&self, limits: Limits) -> Result<Mix, TrafficError> {
        Ok(Mix::of(&mut *self.source(0, limits)?, MIX_REQUESTS))
    }
}
