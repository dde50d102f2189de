//! How long a call takes at the load that is planned with: its measured end-to-end latency, read from the load-latency curve.

use serde::Serialize;

use crate::curve::load_latency::{LoadLatencyCurve, Reading};
use crate::record::level::LevelRecord;
use crate::record::slo::SloMetric;

/// Percentiles that levels keep.
const KEPT: [f64; 4] = [50.0, 90.0, 95.0, 99.0];
/// Parts that a distribution is summed over.
const PARTS: u32 = 1000;

/// End-to-end latency of one call at one load, milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallLatency {
    /// At this many calls/s per device.
    pub calls_per_s_per_gpu: f64,
    /// Arithmetic mean.
    pub mean_ms: f64,
    /// Shares in (0, 1) and their values, both rising.
    pub quantiles: Vec<(f64, f64)>,
}

impl CallLatency {
    /// At `load` calls/s per device; `None` outside the loads that were measured.
    #[must_use]
    pub fn at_load(levels: &[LevelRecord], load: f64) -> Option<Self> {
        let read = |curve: LoadLatencyCurve| match curve.latency_at(load) {
            Reading::Measured { value } => Some(value),
            _ => None,
        };
        let mean_ms = read(LoadLatencyCurve::of_means(levels, SloMetric::E2e))?;
        let at = |percentile: f64| Some((percentile / 100.0, read(LoadLatencyCurve::of(levels, SloMetric::E2e, percentile))?));
        let mut quantiles: Vec<(f64, f64)> = KEPT.into_iter().filter_map(at).collect();
        // Each was made smooth over load by itself, and so may cross its neighbour.
        let mut largest = 0.0_f64;
        for (_, value) in &mut quantiles {
            largest = largest.max(*value);
            *value = largest;
        }
        (!quantiles.is_empty()).then_some(Self { calls_per_s_per_gpu: load, mean_ms, quantiles })
    }

    /// The value at a share in 0..1: straight lines between what is known. Below the lowest share that is known stands its value, and
    /// above the highest the last line goes on: too long rather than too short.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let known = &self.quantiles;
        let Some(above) = known.iter().position(|(at, _)| *at >= share) else {
            let [.., before, last] = known.as_slice() else { return known.last().map_or(self.mean_ms, |(_, value)| *value) };
            return last.1 + (last.1 - before.1) / (last.0 - before.0) * (share - last.0);
        };
        let high = known[above];
        match above.checked_sub(1).map(|below| known[below]) {
            Some(low) => low.1 + (high.1 - low.1) * (share - low.0) / (high.0 - low.0),
            None => high.1,
        }
    }

    /// Standard deviation over mean of [`Self::quantile`].
    #[must_use]
    pub fn variation(&self) -> f64 {
        let values = (0..PARTS).map(|part| self.quantile((f64::from(part) + 0.5) / f64::from(PARTS)));
        let (sum, squares) = values.fold((0.0, 0.0), |(sum, squares), value| (sum + value, squares + value * value));
        let mean = sum / f64::from(PARTS);
        (squares / f64::from(PARTS) - mean * mean).max(0.0).sqrt() / mean
    }
}
