//! The proof of a service law: what it makes of open-loop levels that it was not fitted to, beside what they measured.
//!
//! Where the run kept its requests, the very same calls come at the very same times, so that what differs is the law and not the luck.

use serde::{Deserialize, Serialize};

use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::simulated::FOLLOWED;
use crate::clock::Nanos;
use crate::curve::service_law::{FittedLaw, LevelCalls};
use crate::queueing::fleet::calls::{Arrival, Ended, Ending};
use crate::queueing::fleet::simulation::{Fleet, Witness, simulate};
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;
use crate::record::verdict::Outcome;
use crate::rng;
use crate::stats::quantile;
use crate::workload::arrivals::ArrivalProcess;

/// Calls that a level is simulated with whose own are not known: its percentiles are then known to a percent or so.
const CALLS: u64 = 30_000;
/// Requests from which on a level tells how fast the law is.
const TELLING: u64 = 30;
/// Calls of a level that its speed is found from at most.
const SPEED_CALLS: usize = 20_000;
/// The law is at most so many times as fast, or as slow, as what was measured, found in so many halvings.
const SPEED_MOST: f64 = 4.0;
const SPEED_HALVINGS: u32 = 9;

/// A latency both ways, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Whether these very calls were simulated, not others like them.
    pub same_calls: bool,
    /// 95th percentile of the time to first token.
    pub ttft_p95: Option<Pair>,
    /// 95th percentile of the time per output token.
    pub tpot_p95: Option<Pair>,
    /// Mean time per output token.
    pub tpot_mean: Option<Pair>,
    /// How many times as long as by the law a step took: a law so much slower has the measured mean time per output token. Near capacity latencies are
    /// off by many times as much. `None` where its own calls are not known, or are too few.
    pub step_factor: Option<f64>,
}

impl CheckedLevel {
    /// How far the law's speed is off, as a share.
    fn speed_off(&self) -> Option<f64> {
        let off = self.step_factor.map(|factor| factor - 1.0).or_else(|| self.tpot_mean.map(|pair| pair.off()));
        off.filter(|_| self.requests >= TELLING).map(f64::abs)
    }
}

/// Each valid open-loop level of `run` that its target held, simulated with as many replicas as it had.
#[must_use]
pub fn levels(run: &RunRecord, fitted: &FittedLaw, replicas: u32, lengths: &CallLengths, calls: &LevelCalls) -> Vec<CheckedLevel> {
    let fleet = Fleet { overhead: fitted.overhead, ..Fleet::fixed(fitted.law, replicas) };
    run.levels.iter().filter(|level| is_held(level)).filter_map(|level| of(level, &fleet, lengths, calls.get(&level.index))).collect()
}

fn is_held(level: &LevelRecord) -> bool {
    let usual = matches!(level.purpose, Purpose::Curve | Purpose::Confirmation { .. });
    usual && level.verdict.is_valid() && matches!(level.verdict.outcome, Outcome::Met | Outcome::Broken | Outcome::Undecided)
}

fn of(level: &LevelRecord, fleet: &Fleet, lengths: &CallLengths, own: Option<&Vec<Arrival>>) -> Option<CheckedLevel> {
    let Offered::Open { calls_per_s, .. } = level.offered else { return None };
    let own = own.filter(|calls| !calls.is_empty());
    let mut cohort = match own {
        Some(calls) => Cohort::of(fleet, calls, level.window, level.seed),
        None => {
            let calls = others_like_them(calls_per_s, lengths, level.seed);
            // A tenth of them goes by while it settles.
            let settled = Nanos::from_secs_f64(0.1 * CALLS as f64 / calls_per_s);
            Cohort::of(fleet, &calls, (settled, Nanos::MAX), level.seed)
        }
    };
    let latency = &level.latency;
    Some(CheckedLevel {
        index: level.index,
        calls_per_s,
        requests: level.counts.cohort,
        same_calls: own.is_some(),
        step_factor: own.filter(|_| level.counts.cohort >= TELLING).and_then(|calls| step_factor(level, fleet, calls)),
        tpot_mean: Pair::of(latency.tpot.raw.mean, cohort.tpot_mean()),
        ttft_p95: Pair::of(latency.ttft.adjusted.p95, p95(&mut cohort.ttft_ms)),
        tpot_p95: Pair::of(latency.tpot.adjusted.p95, p95(&mut cohort.tpot_ms)),
    })
}

/// By halving, as calls that take longer also wait longer.
fn step_factor(level: &LevelRecord, fleet: &Fleet, calls: &[Arrival]) -> Option<f64> {
    let measured = level.latency.tpot.raw.mean.filter(|tpot_ms| *tpot_ms > 0.0)?;
    let mean = |factor: f64| {
        let slower = Fleet { law: fleet.law.slower(factor), ..*fleet };
        Cohort::of(&slower, &calls[..calls.len().min(SPEED_CALLS)], level.window, level.seed).tpot_mean()
    };
    let (mut fast, mut slow) = (1.0 / SPEED_MOST, SPEED_MOST);
    for _ in 0..SPEED_HALVINGS {
        let middle = (fast * slow).sqrt();
        if mean(middle)? < measured { fast = middle } else { slow = middle }
    }
    Some((fast * slow).sqrt())
}

/// Calls at that rate, of such lengths.
fn others_like_them(calls_per_s: f64, lengths: &CallLengths, seed: u64) -> Vec<Arrival> {
    let drawn = rng::derive(seed, "lengths");
    let schedule = ArrivalProcess::Poisson.schedule(calls_per_s, rng::derive(seed, "arrivals"));
    let call = |(at, k)| {
        let (prompt, tokens) = lengths.of_call(drawn, k);
        Arrival { at, prompt, tokens }
    };
    schedule.zip(0..CALLS).map(call).collect()
}

fn p95(values: &mut [f64]) -> Option<f64> {
    quantile::of_floats(values, 0.95)
}

/// Latencies of the calls that came in a window, milliseconds.
#[derive(Debug, Default)]
struct Cohort {
    window: (Nanos, Nanos),
    ttft_ms: Vec<f64>,
    tpot_ms: Vec<f64>,
}

impl Cohort {
    /// Of `calls`, gone through by `fleet`, those that came in `window`.
    fn of(fleet: &Fleet, calls: &[Arrival], window: (Nanos, Nanos), seed: u64) -> Self {
        let mut cohort = Self { window, ..Self::default() };
        let until = calls.last().map_or(Nanos::ZERO, |last| last.at) + FOLLOWED;
        simulate(fleet, calls.iter().copied(), FOLLOWED, until, rng::derive(seed, "fleet"), &mut cohort);
        cohort
    }

    fn tpot_mean(&self) -> Option<f64> {
        let count = self.tpot_ms.len();
        (count > 0).then(|| self.tpot_ms.iter().sum::<f64>() / count as f64)
    }
}

impl Witness for Cohort {
    fn ended(&mut self, ended: &Ended) {
        if ended.ending == Ending::Completed && self.window.0 <= ended.arrived && ended.arrived < self.window.1 {
            self.ttft_ms.extend(ended.ttft().map(|ttft| ttft.as_secs_f64() * 1e3));
            self.tpot_ms.extend(ended.tpot_ns().map(|tpot_ns| tpot_ns / 1e6));
        }
    }
}

/// How far the law's speed is off at levels that it was not fitted to: the most, as a share, at levels with so many requests that it
/// is theirs and not chance.
#[must_use]
pub fn speed_error(checked: &[CheckedLevel]) -> f64 {
    checked.iter().filter_map(CheckedLevel::speed_off).fold(0.0, f64::max)
}
