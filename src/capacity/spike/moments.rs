//! A course in equal stretches of time: the picture of a spike, and when a fleet has recovered from it.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::record::slo::{Objective, Slo};
use crate::stats::histogram::Histogram;

use crate::capacity::spike::phases::Felt;

/// Stretches of a course: enough for a picture.
const MOMENTS: u64 = 240;
/// No stretch is shorter, seconds.
const SHORTEST_S: f64 = 1.0;

/// One stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When it begins, seconds of the course.
    pub at_s: f64,
    /// Calls that came, a second.
    pub offered_per_s: f64,
    /// Of those, the ones that met every objective, a second.
    pub good_per_s: f64,
    /// Calls that completed, a second, whenever they came.
    pub completed_per_s: f64,
    /// Calls that waited for a place, at its end; `None` where that cannot be seen.
    pub waiting: Option<u64>,
    /// Calls under way, at its end.
    pub in_flight: Option<u64>,
    /// Replicas that served, at its end.
    pub replicas: Option<u32>,
    /// 95th percentile of the time to first token of those that came, milliseconds; `None` where the rank falls on a failure.
    pub ttft_p95_ms: Option<f64>,
    /// Whether more calls missed an objective than it allows, and more than chance explains.
    pub broken: bool,
}

/// How a fleet came back from its last spike.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Recovery {
    /// Nothing was broken when the spike was over.
    AtOnce,
    /// The last broken stretch ended so long after the spike.
    After {
        /// Seconds.
        seconds: f64,
    },
    /// It was still broken when nobody looked any more.
    NotWithin {
        /// Seconds that it was watched after the spike.
        seconds: f64,
    },
}

/// Stretches while calls come.
#[derive(Clone, Debug)]
pub(super) struct Stretches {
    width: Nanos,
    stretches: Vec<Stretch>,
}

#[derive(Clone, Debug)]
struct Stretch {
    calls: u64,
    good: u64,
    completed: u64,
    misses: Vec<u64>,
    ttft: Histogram,
    full: Option<Full>,
}

/// How full a fleet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Calls that waited for a place; `None` where that cannot be seen.
    pub waiting: Option<u64>,
    /// Calls under way.
    pub in_flight: u64,
    /// Replicas that served.
    pub replicas: Option<u32>,
}

impl Stretches {
    pub(super) fn over(seconds: f64, slo: &Slo) -> Self {
        let width = (seconds / MOMENTS as f64).max(SHORTEST_S);
        let count = (seconds / width).ceil().max(1.0) as usize;
        let empty = Stretch { calls: 0, good: 0, completed: 0, misses: vec![0; slo.objectives.len()], ttft: Histogram::new(), full: None };
        Self { width: Nanos::from_secs_f64(width), stretches: vec![empty; count] }
    }

    pub(super) fn width(&self) -> Nanos {
        self.width
    }

    fn at(&mut self, at: Nanos) -> Option<&mut Stretch> {
        self.stretches.get_mut((at.0 / self.width.0) as usize)
    }

    pub(super) fn add(&mut self, arrived: Nanos, ended: Nanos, felt: Option<&Felt>, good: bool, slo: &Slo) {
        if let Some(stretch) = self.at(arrived) {
            stretch.calls += 1;
            stretch.good += u64::from(good);
            for (objective, misses) in slo.objectives.iter().zip(&mut stretch.misses) {
                *misses += u64::from(felt.is_none_or(|felt| felt.misses(objective)));
            }
            match felt {
                Some(felt) => stretch.ttft.record(felt.ttft as u64),
                None => stretch.ttft.record_infinite(),
            }
        }
        if felt.is_some()
            && let Some(stretch) = self.at(ended)
        {
            stretch.completed += 1;
        }
    }

    /// How full it was at a time; the last word of a stretch counts.
    pub(super) fn full(&mut self, at: Nanos, full: Full) {
        // What is told at its end belongs to it.
        if let Some(stretch) = self.at(Nanos(at.0.saturating_sub(1))) {
            stretch.full = Some(full);
        }
    }

    pub(super) fn moments(&self, slo: &Slo) -> Vec<Moment> {
        let seconds = self.width.as_secs_f64();
        let moment = |(index, stretch): (usize, &Stretch)| Moment {
            at_s: index as f64 * seconds,
            offered_per_s: stretch.calls as f64 / seconds,
            good_per_s: stretch.good as f64 / seconds,
            completed_per_s: stretch.completed as f64 / seconds,
            waiting: stretch.full.and_then(|full| full.waiting),
            in_flight: stretch.full.map(|full| full.in_flight),
            replicas: stretch.full.and_then(|full| full.replicas),
            ttft_p95_ms: stretch.ttft.quantile(0.95).map(|nanos| nanos as f64 / 1e6),
            broken: slo.objectives.iter().zip(&stretch.misses).any(|(objective, misses)| is_broken(stretch.calls, *misses, objective)),
        };
        self.stretches.iter().enumerate().map(moment).collect()
    }
}

/// More misses than are allowed, by more than two standard deviations of what chance makes of the allowed share.
fn is_broken(calls: u64, misses: u64, objective: &Objective) -> bool {
    let allowed = objective.allowed_miss_share() * calls as f64;
    misses as f64 > allowed + 2.0 * (allowed * (1.0 - objective.allowed_miss_share())).sqrt() + 1.0
}

/// How the stretches after `spikes_end` went.
pub(super) fn recovery(moments: &[Moment], width_s: f64, spikes_end_s: f64, seconds: f64) -> Recovery {
    // A stretch that reaches over the end is of the spike.
    let after = moments.iter().filter(|moment| moment.at_s >= spikes_end_s);
    match after.clone().rfind(|moment| moment.broken) {
        None => Recovery::AtOnce,
        Some(last) if last.at_s + 1.5 * width_s >= seconds => Recovery::NotWithin { seconds: seconds - spikes_end_s },
        Some(last) => Recovery::After { seconds: last.at_s + width_s - spikes_end_s },
    }
}
