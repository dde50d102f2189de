//! The course of a litmus test: the average, spikes of several times that or in the shape of one that really happened, and back.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::workload::arrivals::{ArrivalProcess, Schedule};
use crate::workload::rate_series::{RateSegment, RateSeries, Then};

/// A fleet must carry the busiest minute of a phase, whatever its mean.
const MINUTE_S: f64 = 60.0;

/// A stretch of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Such as `5x`.
    pub name: String,
    /// Multiple of the average, above 0; of a phase with a shape the mean of it.
    pub times: f64,
    /// Length, seconds, above 0.
    pub seconds: f64,
    /// Multiples of the average in equal slices of it, each 0 or more; empty where its load is steady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<f64>,
}

impl Phase {
    /// Of steady load.
    #[must_use]
    pub fn steady(name: impl Into<String>, times: f64, seconds: f64) -> Self {
        Self { name: name.into(), times, seconds, shape: Vec::new() }
    }

    /// A steady spike, such as `5x`.
    #[must_use]
    pub fn spike(times: f64, seconds: f64) -> Self {
        Self::steady(format!("{times}x"), times, seconds)
    }

    /// Of so many multiples of the average one after another, each for `slice_s` seconds; one or more, and not all of them 0.
    #[must_use]
    pub fn shaped(name: impl Into<String>, shape: Vec<f64>, slice_s: f64) -> Self {
        let times = shape.iter().sum::<f64>() / (shape.len() as f64).max(1.0);
        Self { name: name.into(), times, seconds: slice_s * shape.len() as f64, shape }
    }

    /// The multiple of its busiest minute, or of all of it where it is shorter: what must be carried for it to be carried.
    #[must_use]
    pub fn peak_times(&self) -> f64 {
        let a_minute = (MINUTE_S * self.shape.len() as f64 / self.seconds).round() as usize;
        let slices = a_minute.clamp(1, self.shape.len().max(1));
        let means = self.shape.windows(slices).map(|window| window.iter().sum::<f64>() / slices as f64);
        means.fold(None, |most: Option<f64>, mean| Some(most.map_or(mean, |most| most.max(mean)))).unwrap_or(self.times)
    }

    /// The same with `factor` times the load.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let shape = self.shape.iter().map(|times| times * factor).collect();
        Self { times: self.times * factor, shape, ..self.clone() }
    }

    /// No longer than `seconds`: of one with a shape the busiest part, in whole slices.
    #[must_use]
    pub fn shortened(&self, seconds: f64) -> Self {
        if seconds >= self.seconds {
            return self.clone();
        }
        if self.shape.is_empty() {
            return Self { seconds, ..self.clone() };
        }
        let slice_s = self.seconds / self.shape.len() as f64;
        let slices = ((seconds / slice_s).ceil() as usize).clamp(1, self.shape.len());
        let load = |window: &&[f64]| window.iter().sum::<f64>();
        let busiest = self.shape.windows(slices).max_by(|one, other| load(one).total_cmp(&load(other)));
        Self::shaped(self.name.clone(), busiest.unwrap_or(&self.shape).to_vec(), slice_s)
    }

    /// As a rate that changes with time.
    fn segments(&self) -> Vec<RateSegment> {
        let steady = |seconds: f64, times: f64| RateSegment { seconds, from: times, to: times };
        match self.shape.len() {
            0 => vec![steady(self.seconds, self.times)],
            slices => self.shape.iter().map(|times| steady(self.seconds / slices as f64, *times)).collect(),
        }
    }
}

/// Phases one after another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// Inference calls/s at 1x.
    pub average: f64,
    /// One or more.
    pub phases: Vec<Phase>,
}

/// How long the average lasts around the spikes, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// The average before the first spike.
    pub before: f64,
    /// The average after the last one.
    pub after: f64,
}

impl Course {
    /// The average, each spike in turn, and the average again.
    #[must_use]
    pub fn litmus(average: f64, spikes: impl IntoIterator<Item = Phase>, lengths: Lengths) -> Self {
        let before = std::iter::once(Phase::steady("average", 1.0, lengths.before));
        let after = std::iter::once(Phase::steady("back", 1.0, lengths.after));
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
        let last = self.phases.iter().rposition(|phase| phase.peak_times() > 1.0)?;
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
        let series = RateSeries { segments: self.phases.iter().flat_map(Phase::segments).collect(), then: Then::Hold };
        let until = Nanos::from_secs_f64(self.seconds());
        Box::new(ArrivalProcess::Series(series).schedule(self.average, seed).take_while(move |at| *at < until))
    }
}
