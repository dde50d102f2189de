//! Two axes of every level: is the measurement valid, and what did the system do.
//!
//! Errors, timeouts, preemption and out-of-memory are outcomes of the system under test; only what spoils the
//! measurement itself makes a level invalid.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a measurement cannot be trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Invalid {
    /// Requests left later than the schedule says: send lag p99 above max(1 ms, 1 % of TTFT p50).
    SendLag {
        /// p99, milliseconds.
        p99_ms: f64,
        /// What was allowed, milliseconds.
        limit_ms: f64,
    },
    /// The generator used more than 80 % of its core, not counting spinning.
    GeneratorBusy {
        /// Share of one core, 0..=1.
        cpu_share: f64,
    },
    /// Fewer requests were sent than scheduled, by the generator's own fault.
    GeneratorBehind {
        /// Sent / scheduled, 0..=1.
        achieved_over_offered: f64,
    },
    /// Arrivals were refused at the generator's own in-flight cap.
    GeneratorCapped {
        /// How many.
        refused: u64,
    },
    /// The target refused requests that it could never serve, such as ones longer than its cache: traffic that does not
    /// fit the target measures neither.
    Misfit {
        /// How many.
        rejected: u64,
    },
    /// The event ring overflowed, so stamps are missing.
    EventsLost {
        /// How many.
        events: u64,
    },
    /// Warm-up did not settle within its limit.
    NotSettled {
        /// Seconds waited.
        waited_s: f64,
    },
    /// Outputs were off their asked length by more than 1 %.
    OutputLength {
        /// Share of completed requests that were off, 0..=1.
        share: f64,
    },
    /// The run was interrupted inside this level.
    Interrupted,
    /// The process was paused (suspended, stopped) inside the window.
    Paused {
        /// Longest gap of the generator's loop, milliseconds.
        gap_ms: f64,
    },
    /// The trace or request source ended before the window did.
    TrafficExhausted,
}

impl fmt::Display for Invalid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SendLag { p99_ms, limit_ms } => write!(out, "send lag p99 {p99_ms:.2} ms (limit {limit_ms:.2} ms)"),
            Self::GeneratorBusy { cpu_share } => write!(out, "generator busy {:.0} % of its core", cpu_share * 100.0),
            Self::GeneratorBehind { achieved_over_offered } => {
                write!(out, "generator sent {:.1} % of its schedule", achieved_over_offered * 100.0)
            }
            Self::GeneratorCapped { refused } => write!(out, "generator refused {refused} arrivals at its cap"),
            Self::Misfit { rejected } => write!(out, "{rejected} requests exceed what the target can ever serve"),
            Self::EventsLost { events } => write!(out, "{events} events lost"),
            Self::NotSettled { waited_s } => write!(out, "not settled after {waited_s:.0} s"),
            Self::OutputLength { share } => write!(out, "{:.1} % of outputs off their length", share * 100.0),
            Self::Interrupted => write!(out, "interrupted"),
            Self::Paused { gap_ms } => write!(out, "process paused for {gap_ms:.0} ms"),
            Self::TrafficExhausted => write!(out, "traffic ended before the window"),
        }
    }
}

/// What the system did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every objective is met, decided.
    Met,
    /// An objective is broken, decided.
    Broken,
    /// In-flight grows without end, or completions fall behind arrivals: counts as broken.
    Unstable,
    /// The target ran out of memory.
    Oom,
    /// The target refuses load.
    Shedding,
    /// Neither met nor broken can be said from this window.
    Undecided,
    /// A closed-loop level: throughput and latency are shown, an SLO is not decided on it.
    Measured,
    /// Of an objective: no request has a value that it limits, such as TPOT of one-token answers. The level is judged on
    /// the other objectives.
    Undefined,
}

impl Outcome {
    /// One word for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Broken => "broken",
            Self::Unstable => "unstable",
            Self::Oom => "oom",
            Self::Shedding => "shedding",
            Self::Undecided => "undecided",
            Self::Measured => "measured",
            Self::Undefined => "undefined",
        }
    }
}

/// The verdict on one level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Empty: valid.
    pub invalid: Vec<Invalid>,
    /// What the system did; to be believed only when valid.
    pub outcome: Outcome,
}

impl Verdict {
    /// Whether the measurement can be trusted.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_valid() {
            return write!(out, "valid, {}", self.outcome.name());
        }
        write!(out, "INVALID: ")?;
        for (index, reason) in self.invalid.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(out, "{separator}{reason}")?;
        }
        Ok(())
    }
}
