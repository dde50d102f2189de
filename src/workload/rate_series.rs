//! A rate that changes with time: ramp, step and spike as multipliers, and the inverse of its integral.

use serde::{Deserialize, Serialize};

/// Multipliers of a base rate over time, straight lines within each segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSeries {
    /// In order, one or more.
    pub segments: Vec<RateSegment>,
    /// What comes after the last one.
    #[serde(default)]
    pub then: Then,
}

/// A stretch of time: a step where `from` equals `to`, else a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSegment {
    /// Length, seconds, above 0.
    pub seconds: f64,
    /// Multiplier at its beginning, 0 or more.
    pub from: f64,
    /// Multiplier at its end, 0 or more.
    pub to: f64,
}

/// What follows the last segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The last multiplier is kept.
    #[default]
    Hold,
    /// The segments begin again.
    Repeat,
}

impl RateSegment {
    /// Integral of the multiplier over the segment, seconds.
    fn area(&self) -> f64 {
        self.seconds * f64::midpoint(self.from, self.to)
    }

    /// Seconds into the segment at which its integral reaches `area`.
    fn time_of(&self, area: f64) -> f64 {
        // from t + slope t^2 / 2 = area, in the form that has no cancellation and no division by the slope.
        let slope = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * slope * area).max(0.0).sqrt();
        if self.from + root > 0.0 { (2.0 * area / (self.from + root)).min(self.seconds) } else { 0.0 }
    }
}

impl RateSeries {
    /// Mean multiplier over one pass of the segments. A series that repeats is divided by it, so that its mean rate is the asked one.
    #[must_use]
    pub fn mean_multiplier(&self) -> f64 {
        let seconds: f64 = self.segments.iter().map(|segment| segment.seconds).sum();
        self.segments.iter().map(RateSegment::area).sum::<f64>() / seconds
    }

    /// What is wrong with it, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let level = |value: f64| value >= 0.0 && value.is_finite();
        for (at, segment) in self.segments.iter().enumerate() {
            if !(segment.seconds > 0.0 && segment.seconds.is_finite()) {
                return Err(format!("has a segment {} that lasts `{}` seconds instead of more than 0", at + 1, segment.seconds));
            }
            if !level(segment.from) || !level(segment.to) {
                return Err(format!("has a segment {} with a multiplier below 0 or not finite", at + 1));
            }
        }
        if self.segments.iter().map(RateSegment::area).sum::<f64>() > 0.0 { Ok(()) } else { Err("has no arrivals at all".to_owned()) }
    }

    /// Why its mean rate is not the asked one, however long it goes on; `None` where it is.
    pub(super) fn off_rate(&self) -> Option<String> {
        let (mean, last) = (self.mean_multiplier(), self.segments.last()?.to);
        let is_one = |value: f64| (value - 1.0).abs() < 1e-9;
        let keeps = self.then == Then::Repeat || (is_one(mean) && is_one(last));
        (!keeps).then(|| format!("averages `{mean}` times the asked rate and then holds `{last}` times it, so no level would have the rate that it is named after"))
    }

    /// A walk along the series from its beginning.
    pub(super) fn inverse(&self) -> Inverse {
        let unit = if self.then == Then::Repeat { self.mean_multiplier() } else { 1.0 };
        Inverse { series: self.clone(), unit, segment: 0, began: 0.0, area_before: 0.0 }
    }
}

/// The inverse of the integral of the multiplier, asked with rising arguments.
#[derive(Debug)]
pub(super) struct Inverse {
    series: RateSeries,
    /// What counts as a multiplier of 1.
    unit: f64,
    segment: usize,
    began: f64,
    area_before: f64,
}

impl Inverse {
    /// The time, seconds, at which the integral reaches `area`; `None` if it never does.
    pub(super) fn time_of(&mut self, area: f64) -> Option<f64> {
        let area = area * self.unit;
        loop {
            let Some(segment) = self.series.segments.get(self.segment) else {
                // Held: the last multiplier goes on for ever.
                let last = self.series.segments.last()?.to;
                return (last > 0.0).then(|| self.began + (area - self.area_before) / last);
            };
            let inside = area - self.area_before;
            if inside < segment.area() {
                return Some(self.began + segment.time_of(inside));
            }
            self.area_before += segment.area();
            self.began += segment.seconds;
            self.segment += 1;
            if self.segment == self.series.segments.len() && self.series.then == Then::Repeat {
                self.segment = 0;
            }
        }
    }
}
