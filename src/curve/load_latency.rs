//! Latency over offered load (open loop), and the load another SLO would allow, read from it without a new run.
//!
//! Measured quantiles are made non-decreasing in load (isotonic regression, weighted by requests), then joined by
//! straight lines. Queueing latency is convex in load, so a straight line lies above it: the capacity read from it errs
//! low. Outside the measured range there is no answer.

use serde::Serialize;

use crate::record::level::{Distribution, LevelRecord, Offered, Purpose};
use crate::record::slo::{Objective, Slo, SloMetric};
use crate::record::verdict::Outcome;
use crate::stats::isotonic;

/// Loads closer than this, as a ratio, are one point.
const SAME_LOAD: f64 = 1e-6;

/// One quantile of one metric over load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadLatencyCurve {
    /// Calls/s per device, rising, and milliseconds, non-decreasing; infinite where the target did not hold the load.
    points: Vec<(f64, f64)>,
}

/// What a curve can say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "reading")]
pub enum Reading {
    /// Inside the measured range.
    Measured {
        /// Calls/s per device, or milliseconds.
        value: f64,
    },
    /// Below everything measured.
    NotMeasuredBelow {
        /// The lowest that was.
        lowest: f64,
    },
    /// Above everything measured.
    NotMeasuredAbove {
        /// The highest that was.
        highest: f64,
    },
    /// No valid level has this quantile.
    NothingMeasured,
}

impl LoadLatencyCurve {
    /// Through `(calls/s per device, milliseconds, requests)`, in any order; a latency may be infinite.
    #[must_use]
    pub fn through(points: impl IntoIterator<Item = (f64, f64, u64)>) -> Self {
        let mut points = points
            .into_iter()
            .filter(|(load, latency, requests)| load.is_finite() && !latency.is_nan() && *requests > 0)
            .collect::<Vec<_>>();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut merged = Vec::<(f64, f64, f64)>::new();
        for (load, latency, requests) in points {
            let requests = requests as f64;
            match merged.last_mut() {
                Some(last) if load <= last.0 * (1.0 + SAME_LOAD) => {
                    last.1 = (last.1 * last.2 + latency * requests) / (last.2 + requests);
                    last.2 += requests;
                }
                _ => merged.push((load, latency, requests)),
            }
        }
        // Means with an infinite member are no use to anybody: from the first load that was not held on, none was.
        let held = merged.iter().position(|point| point.1.is_infinite()).unwrap_or(merged.len());
        let (latencies, weights): (Vec<f64>, Vec<f64>) = merged[..held].iter().map(|point| (point.1, point.2)).unzip();
        let smooth = isotonic::non_decreasing(&latencies, &weights);
        let points = merged.iter().enumerate().map(|(index, point)| (point.0, smooth.get(index).copied().unwrap_or(f64::INFINITY)));
        Self { points: points.collect() }
    }

    /// Of a run: the valid curve and confirmation levels. Search levels are left out: which of them were measured
    /// depends on their own results. A percentile that levels do not record gives an empty curve.
    #[must_use]
    pub fn of(levels: &[LevelRecord], metric: SloMetric, percentile: f64) -> Self {
        Self::reading(levels, |level| Some(quantile(&distribution(level, metric), percentile)?.unwrap_or(f64::INFINITY)))
    }

    /// Of the same levels, the mean of the requests that ended well.
    #[must_use]
    pub fn of_means(levels: &[LevelRecord], metric: SloMetric) -> Self {
        Self::reading(levels, |level| distribution(level, metric).mean)
    }

    fn reading(levels: &[LevelRecord], read: impl Fn(&LevelRecord) -> Option<f64>) -> Self {
        let points = levels.iter().filter(|level| feeds(level)).filter_map(|level| {
            let Offered::Open { calls_per_s, .. } = level.offered else { return None };
            let latency = match level.verdict.outcome {
                Outcome::Unstable | Outcome::Oom | Outcome::Shedding => f64::INFINITY,
                _ => read(level)?,
            };
            Some((calls_per_s / f64::from(level.per_device.devices.max(1)), latency, level.counts.cohort))
        });
        Self::through(points)
    }

    /// Milliseconds at a load.
    #[must_use]
    pub fn latency_at(&self, load: f64) -> Reading {
        let Some(first) = self.points.first() else { return Reading::NothingMeasured };
        let held = || self.points.iter().filter(|point| point.1.is_finite());
        let Some(last) = held().next_back() else { return Reading::NotMeasuredBelow { lowest: first.0 } };
        if load < first.0 {
            return Reading::NotMeasuredBelow { lowest: first.0 };
        }
        let (Some(low), high) = (held().rfind(|point| point.0 <= load), held().find(|point| point.0 >= load)) else {
            return Reading::NotMeasuredBelow { lowest: first.0 };
        };
        match high {
            None => Reading::NotMeasuredAbove { highest: last.0 },
            Some(high) if high.0 > low.0 => Reading::Measured { value: low.1 + (high.1 - low.1) * (load - low.0) / (high.0 - low.0) },
            Some(high) => Reading::Measured { value: high.1 },
        }
    }

    /// The highest load, calls/s per device, at which latency stays under `limit_ms`. Where the limit is crossed between
    /// a load that was held and one that was not, it is the one that was held.
    #[must_use]
    pub fn load_under(&self, limit_ms: f64) -> Reading {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else { return Reading::NothingMeasured };
        if first.1 >= limit_ms {
            return Reading::NotMeasuredBelow { lowest: first.0 };
        }
        let Some(at) = self.points.iter().position(|point| point.1 >= limit_ms) else {
            return Reading::NotMeasuredAbove { highest: last.0 };
        };
        let (low, high) = (self.points[at - 1], self.points[at]);
        let share = if high.1.is_finite() { (limit_ms - low.1) / (high.1 - low.1) } else { 0.0 };
        Reading::Measured { value: low.0 + share * (high.0 - low.0) }
    }
}

/// The highest load, calls/s per device, that meets every objective of `slo`: the lowest over its objectives.
#[must_use]
pub fn capacity_at(levels: &[LevelRecord], slo: &Slo) -> Reading {
    let read = |objective: &Objective| {
        LoadLatencyCurve::of(levels, objective.metric, objective.percentile).load_under(objective.limit.as_millis_f64())
    };
    slo.objectives.iter().map(read).reduce(tighter).unwrap_or(Reading::NothingMeasured)
}

/// The reading that binds when both limits must hold.
fn tighter(one: Reading, other: Reading) -> Reading {
    use Reading::{Measured, NotMeasuredAbove, NotMeasuredBelow, NothingMeasured};
    match (one, other) {
        (NothingMeasured, _) | (_, NothingMeasured) => NothingMeasured,
        (NotMeasuredBelow { lowest }, _) | (_, NotMeasuredBelow { lowest }) => NotMeasuredBelow { lowest },
        (Measured { value: one }, Measured { value: other }) => Measured { value: one.min(other) },
        (Measured { value }, NotMeasuredAbove { .. }) | (NotMeasuredAbove { .. }, Measured { value }) => Measured { value },
        (NotMeasuredAbove { highest: one }, NotMeasuredAbove { highest: other }) => NotMeasuredAbove { highest: one.min(other) },
    }
}

fn feeds(level: &LevelRecord) -> bool {
    level.verdict.is_valid() && matches!(level.purpose, Purpose::Curve | Purpose::Confirmation { .. })
}

fn distribution(level: &LevelRecord, metric: SloMetric) -> Distribution {
    match metric {
        SloMetric::Ttft => level.latency.ttft.adjusted,
        SloMetric::Tpot => level.latency.tpot.adjusted,
        SloMetric::E2e => level.latency.e2e.adjusted,
    }
}

/// The recorded quantile; the outer `None` where levels do not record this percentile or nothing was seen, the inner one
/// where it falls on a failure.
fn quantile(distribution: &Distribution, percentile: f64) -> Option<Option<f64>> {
    let recorded = [(50.0, distribution.p50), (90.0, distribution.p90), (95.0, distribution.p95), (99.0, distribution.p99)];
    let (_, value) = recorded.into_iter().find(|(at, _)| (at - percentile).abs() < 1e-9)?;
    (distribution.count > 0).then_some(value)
}
