//! The rules of a closed-loop level: it is enough when its throughput is known well. It decides no SLO.

use serde::{Deserialize, Serialize};

use crate::campaign::judge::{Enough, Judge, Pulse, Settled, Window};
use crate::campaign::level::Judged;
use crate::campaign::series::Bin;
use crate::campaign::settle::{Load, Progress, Settle, Wave};
use crate::campaign::tally::Brief;
use crate::clock::Nanos;
use crate::record::verdict::Outcome;
use crate::stats::batch_means::{BatchMeans, batch_means};
use crate::stats::quantile;

/// Confidence of the published interval.
const CONFIDENCE: f64 = 0.95;
/// Batches are at least this many median E2E latencies long.
const BATCH_E2E: u64 = 2;
/// A window is at least this many median E2E latencies long.
const WINDOW_E2E: u64 = 3;

/// A reference level may take this many times the longest window.
const REFERENCE_TIMES: u64 = 10;

/// How long closed-loop levels are measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClosedWindows {
    /// Shortest window.
    pub min: Nanos,
    /// Longest window, unless three requests take longer.
    pub max: Nanos,
    /// Half width of the throughput's 95 % interval, relative to its mean, that is precise enough.
    pub precision: f64,
    /// Longest warm-up.
    pub warm_up_max: Nanos,
}

impl ClosedWindows {
    /// The published method.
    #[must_use]
    pub const fn full() -> Self {
        Self { min: Nanos::from_secs(10), max: Nanos::from_secs(60), precision: 0.015, warm_up_max: Nanos::from_secs(120) }
    }

    /// `--quick`.
    #[must_use]
    pub const fn quick() -> Self {
        Self { min: Nanos::from_millis(800), max: Nanos::from_millis(1200), precision: 0.03, warm_up_max: Nanos::from_secs(10) }
    }

    /// Windows multiplied by `factor`, above 0, for a `--budget`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |length: Nanos| Nanos::from_secs_f64(length.as_secs_f64() * factor);
        Self { min: scale(self.min), max: scale(self.max), ..self }
    }

    /// For the reference level, of which a change of `drift_limit` must be told from its own noise.
    #[must_use]
    pub fn for_reference(self, drift_limit: f64) -> Self {
        Self { precision: 0.5 * drift_limit, max: Nanos(self.max.0.saturating_mul(REFERENCE_TIMES)), ..self }
    }

    /// Width of the bins of a level's series.
    #[must_use]
    pub fn bin(&self) -> Nanos {
        Nanos(self.min.0 / 100)
    }
}

/// A closed-loop level under way.
#[derive(Debug)]
pub struct ClosedJudge {
    windows: ClosedWindows,
    concurrency: u32,
    warm_up: Option<Settle>,
    e2e: Vec<u64>,
    calls: Option<BatchMeans>,
    tokens: Option<BatchMeans>,
}

impl ClosedJudge {
    /// The rules for `concurrency` requests in flight.
    #[must_use]
    pub fn new(windows: ClosedWindows, concurrency: u32) -> Self {
        Self { windows, concurrency, warm_up: None, e2e: Vec::new(), calls: None, tokens: None }
    }

    /// What was decided.
    #[must_use]
    pub fn judged(&self) -> Judged {
        Judged {
            outcome: Some(Outcome::Measured),
            interval: self.calls.as_ref().map(|means| means.interval),
            tokens_interval: self.tokens.as_ref().map(|means| means.interval),
            ..Judged::default()
        }
    }
}

impl Judge for ClosedJudge {
    fn begins(&mut self, now: Nanos) {
        let load = Load::Closed { concurrency: u64::from(self.concurrency) };
        self.warm_up = Some(Settle::new(load, now, self.windows.warm_up_max));
    }

    fn warms_up(&mut self, ended: &Brief) {
        let latency = ended.e2e();
        self.e2e.extend(latency.map(|latency| latency.0));
        let wave = if ended.id < u64::from(self.concurrency) { Wave::Initial } else { Wave::Later };
        if let Some(warm_up) = &mut self.warm_up {
            warm_up.observe_end(latency, wave);
        }
    }

    fn settled(&mut self, now: Nanos, pulse: Pulse) -> Settled {
        let Some(warm_up) = &mut self.warm_up else { return Settled::NotYet };
        let Some(progress) = warm_up.catch_up(now, pulse.in_flight, pulse.tokens) else { return Settled::NotYet };
        let median = quantile::of_nanos(&mut self.e2e, 0.5).unwrap_or(0);
        let window = self.windows.min.max(Nanos(WINDOW_E2E * median));
        match progress {
            Progress::Warming => Settled::NotYet,
            Progress::Settled | Progress::Growing => Settled::Yes { window },
            Progress::NotSettled => Settled::GaveUp { window },
        }
    }

    fn enough(&mut self, window: &Window<'_>) -> Enough {
        let mut e2e: Vec<u64> = window.cohort.iter().filter_map(|brief| brief.e2e().map(|latency| latency.0)).collect();
        let median = quantile::of_nanos(&mut e2e, 0.5).unwrap_or(0);
        let width = window.series.width();
        let batch = (BATCH_E2E * median).div_ceil(width.0).max(1) as usize;
        let means = |of: fn(&Bin) -> u64| {
            let per_s: Vec<f64> = window.series.whole(window.to).iter().map(|bin| of(bin) as f64 / width.as_secs_f64()).collect();
            batch_means(&per_s, batch, CONFIDENCE)
        };
        (self.calls, self.tokens) = (means(|bin| bin.completions), means(|bin| bin.tokens));
        // Tokens are steadier than calls where lengths vary; saturation and drift are judged on them.
        let precise = self.tokens.as_ref().is_some_and(|means| means.relative_half_width() <= self.windows.precision);
        let length = window.to.since(window.from);
        let longest = self.windows.max.max(Nanos(WINDOW_E2E * median));
        if precise || length >= longest {
            return Enough::Yes;
        }
        Enough::Until(window.from + Nanos(length.0 + length.0 / 2).min(longest))
    }
}
