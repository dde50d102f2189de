//! The proof of a service law: what it makes of open-loop levels that it was not fitted to, beside what they measured.

use serde::Serialize;

use crate::capacity::spike::course::{Course, Phase};
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::simulated;
use crate::curve::service_law::FittedLaw;
use crate::queueing::fleet::simulation::Fleet;
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;
use crate::record::slo::Slo;
use crate::record::verdict::Outcome;

/// Calls that a level is simulated with: its percentiles are then known to a percent or so.
const CALLS: f64 = 30_000.0;
/// Of that, while it settles.
const SETTLES: f64 = 0.1;

/// A latency both ways, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// As it was measured.
    pub measured: f64,
    /// As it was simulated.
    pub simulated: f64,
}

impl Pair {
    fn of(measured: Option<f64>, simulated: Option<f64>) -> Option<Self> {
        Some(Self { measured: measured.filter(|value| *value > 0.0)?, simulated: simulated? })
    }

    /// How far the simulation is off, as a share of the measured value.
    #[must_use]
    pub fn off(&self) -> f64 {
        self.simulated / self.measured - 1.0
    }
}

/// A level that the law was not fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CheckedLevel {
    /// Order of measurement.
    pub index: u32,
    /// Offered calls/s, all replicas.
    pub calls_per_s: f64,
    /// Requests that it was measured on.
    pub requests: u64,
    /// 95th percentile of the time to first token.
    pub ttft_p95: Option<Pair>,
    /// 95th percentile of the time per output token.
    pub tpot_p95: Option<Pair>,
}

/// Each valid open-loop level of `run` that its target held, simulated with as many replicas as it had.
#[must_use]
pub fn levels(run: &RunRecord, fitted: &FittedLaw, replicas: u32, slo: &Slo, lengths: &CallLengths) -> Vec<CheckedLevel> {
    let fleet = Fleet { overhead: fitted.overhead, ..Fleet::fixed(fitted.law, replicas) };
    run.levels.iter().filter(|level| is_held(level)).filter_map(|level| of(level, &fleet, slo, lengths)).collect()
}

fn is_held(level: &LevelRecord) -> bool {
    let usual = matches!(level.purpose, Purpose::Curve | Purpose::Confirmation { .. });
    usual && level.verdict.is_valid() && matches!(level.verdict.outcome, Outcome::Met | Outcome::Broken | Outcome::Undecided)
}

fn of(level: &LevelRecord, fleet: &Fleet, slo: &Slo, lengths: &CallLengths) -> Option<CheckedLevel> {
    let Offered::Open { calls_per_s, .. } = level.offered else { return None };
    let phase = |name: &str, share: f64| Phase { name: name.to_owned(), times: 1.0, seconds: CALLS * share / calls_per_s };
    let course = Course { average: calls_per_s, phases: vec![phase("settles", SETTLES), phase("level", 1.0 - SETTLES)] };
    let trial = simulated::trial(fleet, &course, slo, lengths, level.seed);
    let held = trial.phases.last()?;
    Some(CheckedLevel {
        index: level.index,
        calls_per_s,
        requests: level.counts.cohort,
        ttft_p95: Pair::of(level.latency.ttft.adjusted.p95, held.ttft_ms.p95),
        tpot_p95: Pair::of(level.latency.tpot.adjusted.p95, held.tpot_ms.p95),
    })
}

/// How far the law's speed is off at levels that it was not fitted to: the largest share by which time per token is.
#[must_use]
pub fn speed_error(checked: &[CheckedLevel]) -> f64 {
    checked.iter().filter_map(|level| level.tpot_p95).map(|pair| pair.off().abs()).fold(0.0, f64::max)
}
