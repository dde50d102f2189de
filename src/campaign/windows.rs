//! How long things are measured, in one place: the full method, and the quick one.
//!
//! Every length that is a constant of the method is here; the rules that use them are in the files beside.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::stats::early_stopping::{CONFIDENCE, requests_needed};

/// Sizes of windows, blocks and confirmations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    /// Shortest open-loop window.
    pub window_min: Nanos,
    /// Longest window that an undecided search level is extended to.
    pub window_max: Nanos,
    /// Shortest block of time that misses are counted over.
    pub block_min: Nanos,
    /// Blocks a pass needs.
    pub blocks_min: usize,
    /// Longest warm-up.
    pub warm_up_max: Nanos,
    /// Shortest window of a confirmation level.
    pub confirmation: Nanos,
    /// Shortest window of a level of the load-latency curve.
    pub curve: Nanos,
    /// Longest window of a quick run's confirmation, whatever its decision would need; its search ends at the longest
    /// window of a search level. `None`: as long as a decision needs.
    pub cut: Option<Nanos>,
    /// Confirmation runs, 2 or more for an interval.
    pub confirmation_runs: u32,
    /// Width of the search's final bracket, relative.
    pub tolerance: f64,
    /// Step between the rates of a confirmation run, relative: what its windows can tell apart.
    pub confirmation_step: f64,
    /// Each further step to one side is so many times as wide as the one before: few rates must do for a quick run.
    pub step_growth: f64,
    /// Rates a confirmation adds until a pass and a fail are decided.
    pub extensions_max: usize,
}

impl Windows {
    /// The published method: decisions from 200 s up, confirmations of 600 s.
    #[must_use]
    pub const fn full() -> Self {
        Self {
            window_min: Nanos::from_secs(60),
            window_max: Nanos::from_secs(600),
            block_min: Nanos::from_secs(10),
            blocks_min: 20,
            warm_up_max: Nanos::from_secs(120),
            confirmation: Nanos::from_secs(600),
            curve: Nanos::from_secs(600),
            cut: None,
            confirmation_runs: 3,
            tolerance: 0.05,
            confirmation_step: 0.05,
            step_growth: 1.0,
            extensions_max: 8,
        }
    }

    /// `--quick`: indicative, for a target that answers in tens of milliseconds.
    #[must_use]
    pub const fn quick() -> Self {
        Self {
            window_min: Nanos::from_secs(3),
            window_max: Nanos::from_secs(4),
            block_min: Nanos::from_millis(150),
            blocks_min: 10,
            warm_up_max: Nanos::from_secs(10),
            confirmation: Nanos::from_secs(6),
            curve: Nanos::from_secs(3),
            cut: Some(Nanos::from_secs(10)),
            confirmation_runs: 2,
            tolerance: 0.45,
            confirmation_step: 0.30,
            step_growth: 1.5,
            extensions_max: 3,
        }
    }

    /// All lengths of time multiplied by `factor`, above 0, for a `--budget`; the longest warm-up stays: settling takes
    /// what it takes.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scale = |length: Nanos| Nanos::from_secs_f64(length.as_secs_f64() * factor);
        Self {
            window_min: scale(self.window_min),
            window_max: scale(self.window_max),
            block_min: scale(self.block_min),
            confirmation: scale(self.confirmation),
            curve: scale(self.curve),
            // A budget cuts what decisions need, and the run says so.
            cut: self.cut.or((factor < 1.0).then_some(self.confirmation)).map(scale),
            ..self
        }
    }

    /// Over how long the rate of recorded arrivals is held: a window, which begins anywhere, sees the offered rate within a
    /// few percent.
    #[must_use]
    pub fn steady(&self) -> Nanos {
        Nanos(self.window_min.0 / 4)
    }

    /// The shortest block for requests that take `e2e_p95`: a request and the ones it delays fall into one block.
    #[must_use]
    pub fn block(&self, e2e_p95: Nanos) -> Nanos {
        self.block_min.max(Nanos(e2e_p95.0.saturating_mul(2)))
    }

    /// What a level needs to be decided at all: long enough for an overload of `tolerance` to reach the TTFT limit twice,
    /// for the blocks a pass needs, for three of the slowest requests, and for the first declared number of requests.
    #[must_use]
    pub fn needed(&self, level: &LevelShape) -> Nanos {
        let limit = level.ttft_limit.map_or(Nanos::ZERO, |limit| Nanos::from_secs_f64(2.0 * limit.as_secs_f64() / self.tolerance));
        // Two more than needed: the p95 of the window itself may turn out a little longer.
        let blocks = Nanos(self.block(level.e2e_p95).0.saturating_mul(self.blocks_min as u64 + 2));
        // A tenth more than the declared size, so that a Poisson count seldom falls short of it.
        let requests = Nanos::from_secs_f64(1.1 * declared_size(level.allowed_min) as f64 / level.rate.max(f64::MIN_POSITIVE));
        self.follows(level.e2e_p95).max(limit).max(blocks).max(requests)
    }

    /// The shortest window in which requests so slow are seen at all: three times the slowest.
    #[must_use]
    pub fn follows(&self, e2e_p95: Nanos) -> Nanos {
        self.window_min.max(Nanos(e2e_p95.0.saturating_mul(3)))
    }

    /// The first look of an open-loop level: all that it needs. Only later looks end at the longest window; a quick run
    /// cuts this one too, unless a single request takes as long.
    #[must_use]
    pub fn first_look(&self, level: &LevelShape) -> Nanos {
        let longest = self.cut.map_or(Nanos::MAX, |_| self.window_max.max(self.follows(level.e2e_p95)));
        self.needed(level).min(longest)
    }

    /// The window of a confirmation level, likewise.
    #[must_use]
    pub fn to_confirm(&self, level: &LevelShape) -> Nanos {
        let longest = self.cut.map_or(Nanos::MAX, |cut| cut.max(self.follows(level.e2e_p95)));
        self.confirmation.max(self.needed(level)).min(longest)
    }
}

/// What is known of an open-loop level before its window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelShape {
    /// Offered load, requests/s.
    pub rate: f64,
    /// From warm-up, or from the level before.
    pub e2e_p95: Nanos,
    /// Where the SLO limits TTFT.
    pub ttft_limit: Option<Nanos>,
    /// The smallest allowed share of misses among the objectives: 0.01 for p99.
    pub allowed_min: f64,
}

/// The smallest number of requests at which an objective may pass: MLPerf's count for no miss (459 for p99, 90 for p95,
/// 44 for p90). Later looks come at doubled windows.
#[must_use]
pub fn declared_size(allowed: f64) -> u64 {
    requests_needed(0, allowed, CONFIDENCE)
}
