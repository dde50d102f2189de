//! The course of a litmus test: the average, spikes of several times that, and back.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::workload::arrivals::{ArrivalProcess, Schedule};
use crate::workload::rate_series::{RateSegment, RateSeries, Then};

/// A stretch of steady load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Such as `5x`.
    pub name: String,
    /// Multiple of the average, above 0.
    pub times: f64,
    /// Length, seconds, above 0.
    pub seconds: f64,
}

/// Phases one after another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Inference calls/s at 1x.
    pub average: f64,
    /// One or more.
    pub phases: Vec<Phase>,
}

/// How long each kind of phase lasts, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// The average before the first spike.
    pub before: f64,
    /// Each spike.
    pub spike: f64,
    /// The average after the last one.
    pub after: f64,
}

impl Default for Lengths {
    /// Method section 7: each spike 5 minutes, then back for 10.
    fn default() -> Self {
        Self { before: 120.0, spike: 300.0, after: 600.0 }
    }
}

impl Course {
    /// The average, each multiple in turn, and the average again.
    #[must_use]
    pub fn litmus(average: f64, times: &[f64], lengths: Lengths) -> Self {
        let phase = |name: String, times, seconds| Phase { name, times, seconds };
        let spikes = times.iter().map(|times| phase(format!("{times}x"), *times, lengths.spike));
        let before = std::iter::once(phase("average".to_owned(), 1.0, lengths.before));
        let after = std::iter::once(phase("back".to_owned(), 1.0, lengths.after));
        Self { average, phases: before.chain(spikes).chain(after).collect() }
    }

    /// All phases together, seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// Where a phase begins and ends.
    #[must_use]
    pub fn span(&self, index: usize) -> (Nanos, Nanos) {
        let until = |count: usize| Nanos::from_secs_f64(self.phases[..count].iter().map(|phase| phase.seconds).sum());
        (until(index), until(index + 1))
    }

    /// The phase of a time; the last one for what comes after all of them.
    #[must_use]
    pub fn phase_at(&self, at: Nanos) -> usize {
        let found = (0..self.phases.len()).find(|index| at < self.span(*index).1);
        found.unwrap_or(self.phases.len().saturating_sub(1))
    }

    /// Where the last phase above the average ends: what comes after must recover. `None` where there is none.
    #[must_use]
    pub fn spikes_end(&self) -> Option<Nanos> {
        let last = self.phases.iter().rposition(|phase| phase.times > 1.0)?;
        Some(self.span(last).1)
    }

    /// Calls expected, all phases.
    #[must_use]
    pub fn calls(&self) -> f64 {
        self.average * self.phases.iter().map(|phase| phase.times * phase.seconds).sum::<f64>()
    }

    /// Random arrivals at its rates, the same for the same seed; they end with it.
    #[must_use]
    pub fn schedule(&self, seed: u64) -> Schedule {
        let segment = |phase: &Phase| RateSegment { seconds: phase.seconds, from: phase.times, to: phase.times };
        let series = RateSeries { segments: self.phases.iter().map(segment).collect(), then: Then::Hold };
        let until = Nanos::from_secs_f64(self.seconds());
        Box::new(ArrivalProcess::Series(series).schedule(self.average, seed).take_while(move |at| *at < until))
    }
}
