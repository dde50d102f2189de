//! Confirmation of what a search found: fresh runs with new seeds around the found rate, and the headline from them.
//!
//! The highest pass of one bisection is biased upward: it is the best of several tries. So nothing of the search enters
//! the number; and every run that was made does, whether it pleased or not. A state machine like the search.

use serde::{Deserialize, Serialize};

use crate::campaign::crossing::{LevelShares, RunCrossing, crossing, crossing_of_each, pooled, same_rate};
use crate::record::verdict::Outcome;
use crate::rng;
use crate::stats::interval::{Interval, student};
use crate::stats::special::student_quantile;

/// Confidence of the published interval.
const CONFIDENCE: f64 = 0.95;
/// Levels added above or below the first three while the crossing lies outside them.
const EXTENSIONS_MAX: usize = 6;

/// What to confirm.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfirmationSpec {
    /// From the search, requests/s.
    pub found: f64,
    /// Fresh runs: 3 or more; 2 in quick mode; 1 gives a bracket only.
    pub runs: u32,
    /// Step between the levels of a run, such as 0.05.
    pub tolerance: f64,
    /// Allowed share of misses of each objective.
    pub allowed: Vec<f64>,
    /// Seed of the levels' seeds; no level shares one with the search.
    pub seed: u64,
}

/// One level of a run, measured over the whole confirmation window.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfirmedLevel {
    /// The run it belongs to, from 1.
    pub run: u32,
    /// Offered load, misses and requests.
    pub level: LevelShares,
    /// `None`: invalid; it is measured again, and the invalid one enters nothing.
    pub outcome: Option<Outcome>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Measure this level; a run number not seen before is a fresh process or engine.
    Measure {
        /// From 1.
        run: u32,
        /// Requests/s.
        rate: f64,
        /// Of arrivals and prompts.
        seed: u64,
    },
    /// Confirmation is over.
    Done(Confirmed),
}

/// How a confirmation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A rate passed in fresh runs, and a higher one did not.
    Confirmed,
    /// One run: a bracket, no interval.
    BracketOnly,
    /// No rate near the found one passes with a higher one failing.
    Undecided,
    /// Levels stayed invalid.
    Invalid,
}

/// The headline and what it rests on. All rates are of the whole target, requests/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmed {
    /// How it ended.
    pub status: Status,
    /// Highest offered load that meets the SLO.
    pub rate: Option<f64>,
    /// 95 % interval of it; `None` from one run.
    pub interval: Option<Interval>,
    /// Highest measured rate that meets the SLO by all runs taken together, and the next measured rate, which does not.
    pub bracket: Option<(f64, f64)>,
    /// Where each run's own shares cross the allowed one.
    pub crossings: Vec<f64>,
    /// Runs.
    pub runs: u32,
}

/// A confirmation under way.
#[derive(Clone, Debug)]
pub struct Confirmation {
    spec: ConfirmationSpec,
    levels: Vec<ConfirmedLevel>,
}

impl Confirmation {
    /// A confirmation that has measured nothing yet.
    #[must_use]
    pub fn new(spec: ConfirmationSpec) -> Self {
        Self { spec, levels: Vec::new() }
    }

    /// Tells what the last level showed.
    pub fn report(&mut self, level: ConfirmedLevel) {
        self.levels.push(level);
    }

    /// What to do next; the same answer until the next report.
    #[must_use]
    pub fn next(&self) -> Next {
        let runs = self.spec.runs.max(1);
        if self.levels.iter().filter(|level| level.outcome.is_none()).count() > runs as usize {
            return Next::Done(self.conclude(Status::Invalid));
        }
        let (down, up) = (1.0 - self.spec.tolerance, 1.0 + self.spec.tolerance);
        let mut rates = vec![self.spec.found * down, self.spec.found, self.spec.found * up];
        for _ in 0..=EXTENSIONS_MAX {
            if let Some(next) = (1..=runs).find_map(|run| self.missing(run, &rates)) {
                return next;
            }
            let Some(likely) = self.likely() else { break };
            // The confirmed rate has a level under it, which passes too, and one over it, which does not.
            if likely < rates[1] {
                rates.insert(0, rates[0] * down);
            } else if likely >= rates[rates.len() - 1] {
                rates.push(rates[rates.len() - 1] * up);
            } else {
                return Next::Done(self.conclude(if runs == 1 { Status::BracketOnly } else { Status::Confirmed }));
            }
        }
        Next::Done(self.conclude(Status::Undecided))
    }

    /// The first of `rates` that run has no valid level of. Each run begins with another of them, so that a drift of the
    /// machine within a run falls on all rates alike.
    fn missing(&self, run: u32, rates: &[f64]) -> Option<Next> {
        let has = |rate: f64| self.of_run(run).any(|level| same_rate(level.rate, rate));
        let rate = (0..rates.len()).map(|index| rates[(index + run as usize - 1) % rates.len()]).find(|rate| !has(*rate))?;
        let seed = rng::derive(self.spec.seed, &format!("confirmation run {run} level {}", self.levels.len()));
        Some(Next::Measure { run, rate, seed })
    }

    /// The valid levels of a run.
    fn of_run(&self, run: u32) -> impl Iterator<Item = &LevelShares> + '_ {
        self.levels.iter().filter(move |level| level.run == run && level.outcome.is_some()).map(|level| &level.level)
    }

    /// The valid levels of all runs.
    fn valid(&self) -> impl Iterator<Item = &ConfirmedLevel> + '_ {
        self.levels.iter().filter(|level| level.outcome.is_some())
    }

    /// Where all runs together cross what is allowed; never above the lowest rate that most runs could not keep up with.
    fn likely(&self) -> Option<f64> {
        let all: Vec<LevelShares> = self.valid().map(|level| level.level.clone()).collect();
        let crossing = crossing(&all, &self.spec.allowed)?.rate;
        let lost = pooled(&all).into_iter().map(|level| level.rate).find(|rate| self.lost_at(*rate));
        Some(lost.map_or(crossing, |lost| crossing.min(lost * (1.0 - 1e-6))))
    }

    /// Whether most runs did not keep up at `rate`.
    fn lost_at(&self, rate: f64) -> bool {
        let lost = |outcome| matches!(outcome, Some(Outcome::Unstable | Outcome::Oom | Outcome::Shedding));
        let at: Vec<bool> = self.valid().filter(|level| same_rate(level.level.rate, rate)).map(|level| lost(level.outcome)).collect();
        2 * at.iter().filter(|lost| **lost).count() > at.len()
    }

    /// The headline from every level of every run.
    fn conclude(&self, status: Status) -> Confirmed {
        let runs = self.levels.iter().map(|level| level.run).max().unwrap_or(0);
        let each: Vec<Vec<LevelShares>> = (1..=runs).map(|run| self.of_run(run).cloned().collect()).collect();
        let crossings = crossing_of_each(&each, &self.spec.allowed);
        let rate = self.likely().filter(|_| status != Status::Invalid);
        let bracket = rate.and_then(|rate| self.bracket(rate));
        let interval = interval(&crossings).filter(|_| rate.is_some()).map(|interval| {
            let ends = bracket.into_iter().flat_map(|(pass, fail)| [pass, fail]).chain(rate);
            ends.fold(interval, Interval::widened_to)
        });
        let crossings = crossings.iter().map(|crossing| crossing.rate).collect();
        Confirmed { status, rate, interval, bracket, crossings, runs }
    }

    /// The neighbouring measured rates around `rate`.
    fn bracket(&self, rate: f64) -> Option<(f64, f64)> {
        let rates = || self.valid().map(|level| level.level.rate);
        let pass = rates().filter(|measured| *measured <= rate).max_by(f64::total_cmp)?;
        let fail = rates().filter(|measured| *measured > rate).min_by(f64::total_cmp)?;
        Some((pass, fail))
    }
}

/// Student's interval over the runs, of the logarithms, because rates are compared as ratios. Few runs agree by luck now
/// and then, so it is no shorter than the interval that the counts behind the runs imply by themselves.
fn interval(runs: &[RunCrossing]) -> Option<Interval> {
    let logarithms: Vec<f64> = runs.iter().map(|run| run.rate.ln()).collect();
    let over_runs = student(&logarithms, CONFIDENCE)?;
    let middle = 0.5 * (over_runs.low + over_runs.high);
    let implied = runs.iter().map(|run| run.noise * run.noise).sum::<f64>().sqrt() / runs.len() as f64;
    let half = (over_runs.high - middle).max(student_quantile(0.5 + CONFIDENCE / 2.0, f64::from(u16::MAX)) * implied);
    Some(Interval { low: (middle - half).exp(), high: (middle + half).exp(), confidence: CONFIDENCE })
}
