//! Confirmation of what a search found: fresh runs with new seeds around the found rate, and the headline from them.
//!
//! The highest pass of one bisection is biased upward: it is the best of several tries. So nothing of the search enters
//! the number; and every run that was made does, whether it pleased or not. A state machine like the search.

use serde::{Deserialize, Serialize};

use crate::campaign::crossing::{LevelShares, RunCrossing, crossing, crossing_of_each, pooled, same_rate};
use crate::campaign::decision::outcome_of_counts;
use crate::campaign::search::fails;
use crate::record::verdict::Outcome;
use crate::rng;
use crate::stats::interval::{Interval, student};
use crate::stats::special::student_quantile;

/// Confidence of the published interval.
const CONFIDENCE: f64 = 0.95;

/// The widest step down.
const STEP_MAX: f64 = 0.5;

/// What to confirm.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfirmationSpec {
    /// From the search, requests/s.
    pub found: f64,
    /// Fresh runs: 3 or more; 2 in quick mode; 1 gives a bracket only.
    pub runs: u32,
    /// Step between the levels of a run, such as 0.05.
    pub step: f64,
    /// Each further step to one side is so many times as wide as the one before, 1 or more.
    pub step_growth: f64,
    /// Rates added above or below the first three until a pass and a fail are decided.
    pub extensions_max: usize,
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
    /// A rate is decided to pass by all fresh runs together, and a higher one to fail; the estimate lies between.
    Confirmed,
    /// The same of one run: a bracket, no interval.
    BracketOnly,
    /// No rate near the found one is decided to pass with a higher one decided to fail.
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
    /// 95 % interval of it; `None` from one run, and without a pass and a fail.
    pub interval: Option<Interval>,
    /// Highest rate that all runs together are decided to pass at, at or under the estimate and under every decided fail.
    pub pass: Option<f64>,
    /// Lowest rate over the estimate that they are decided to fail at.
    pub fail: Option<f64>,
    /// The measured rates on both sides of the estimate, decided or not.
    pub measured: Option<(f64, f64)>,
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
        let (down, up) = (1.0 - self.spec.step, 1.0 + self.spec.step);
        let mut rates = vec![self.spec.found * down, self.spec.found, self.spec.found * up];
        let (mut below, mut above) = (self.spec.step, self.spec.step);
        for _ in 0..=self.spec.extensions_max {
            if let Some(next) = (1..=runs).find_map(|run| self.missing(run, &rates)) {
                return next;
            }
            // A rate that not all runs have measured yet says nothing, or the way would depend on who came first.
            let seen = self.only(&rates);
            let Some(likely) = seen.likely() else { break };
            // Only a decided pass below and a decided fail above bound the estimate: the side that lacks one goes on.
            match (seen.pass(likely), seen.fail(likely)) {
                (None, _) => {
                    below = (below * self.spec.step_growth).min(STEP_MAX);
                    rates.insert(0, rates[0] * (1.0 - below));
                }
                (Some(_), None) => {
                    above *= self.spec.step_growth;
                    rates.push(rates[rates.len() - 1] * (1.0 + above));
                }
                (Some(_), Some(_)) => {
                    return Next::Done(self.conclude(if runs == 1 { Status::BracketOnly } else { Status::Confirmed }));
                }
            }
        }
        Next::Done(self.conclude(Status::Undecided))
    }

    /// What is known if no more time is given: bounds, unless it happens to be over.
    #[must_use]
    pub fn out_of_budget(&self) -> Confirmed {
        match self.next() {
            Next::Done(confirmed) => confirmed,
            Next::Measure { .. } => self.conclude(Status::Undecided),
        }
    }

    /// The first of `rates` that run has no valid level of. Each run begins with another of them, so that a drift of the
    /// machine within a run falls on all rates alike.
    fn missing(&self, run: u32, rates: &[f64]) -> Option<Next> {
        let has = |rate: f64| self.of_run(run).any(|level| same_rate(level.rate, rate));
        let rate = (0..rates.len()).map(|index| rates[(index + run as usize - 1) % rates.len()]).find(|rate| !has(*rate))?;
        let seed = rng::derive(self.spec.seed, &format!("confirmation run {run} level {}", self.levels.len()));
        Some(Next::Measure { run, rate, seed })
    }

    /// What was measured at these rates.
    fn only(&self, rates: &[f64]) -> Self {
        let among = |level: &&ConfirmedLevel| rates.iter().any(|rate| same_rate(level.level.rate, *rate));
        Self { spec: self.spec.clone(), levels: self.levels.iter().filter(among).cloned().collect() }
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

    /// What all runs together say of each measured rate, lowest first: misses and requests summed.
    fn verdicts(&self) -> Vec<(f64, Outcome)> {
        let all: Vec<LevelShares> = self.valid().map(|level| level.level.clone()).collect();
        pooled(&all).iter().map(|level| (level.rate, self.verdict(level))).collect()
    }

    fn verdict(&self, all: &LevelShares) -> Outcome {
        if self.lost_at(all.rate) {
            return Outcome::Unstable;
        }
        let objectives: Vec<Outcome> =
            all.objectives.iter().zip(&self.spec.allowed).map(|(counted, allowed)| outcome_of_counts(counted, *allowed)).collect();
        let any = |outcome| objectives.contains(&outcome);
        // One run that fails by itself is enough doubt in a pass.
        let run_fails = self.valid().any(|level| same_rate(level.level.rate, all.rate) && level.outcome.is_some_and(fails));
        match () {
            () if any(Outcome::Broken) => Outcome::Broken,
            () if run_fails || any(Outcome::Undecided) || !any(Outcome::Met) => Outcome::Undecided,
            () => Outcome::Met,
        }
    }

    /// Lowest rate over `estimate` that is decided to fail.
    fn fail(&self, estimate: f64) -> Option<f64> {
        self.verdicts().into_iter().find(|(rate, outcome)| *rate > estimate && fails(*outcome)).map(|(rate, _)| rate)
    }

    /// Highest rate up to `estimate`, and under every rate that is decided to fail, that is decided to pass.
    fn pass(&self, estimate: f64) -> Option<f64> {
        let under = self.verdicts().into_iter().take_while(|(rate, outcome)| *rate <= estimate && !fails(*outcome));
        under.filter(|(_, outcome)| *outcome == Outcome::Met).last().map(|(rate, _)| rate)
    }

    /// The headline from every level of every run.
    fn conclude(&self, status: Status) -> Confirmed {
        let runs = self.levels.iter().map(|level| level.run).max().unwrap_or(0);
        let each: Vec<Vec<LevelShares>> = (1..=runs).map(|run| self.of_run(run).cloned().collect()).collect();
        let crossings = crossing_of_each(&each, &self.spec.allowed);
        let rate = self.likely().filter(|_| status != Status::Invalid);
        let (pass, fail) = (rate.and_then(|rate| self.pass(rate)), rate.and_then(|rate| self.fail(rate)));
        let interval = rate.zip(pass.zip(fail)).and_then(|(rate, bracket)| self.interval(&crossings, rate, bracket));
        let measured = rate.and_then(|rate| self.neighbours(rate));
        let crossings = crossings.iter().map(|crossing| crossing.rate).collect();
        Confirmed { status, rate, interval, pass, fail, measured, crossings, runs }
    }

    /// The interval over the runs, widened to the decided bounds, and cut one step outside them: the counts of all runs
    /// decide that what lies there passes or fails, however much a few runs scatter.
    fn interval(&self, crossings: &[RunCrossing], rate: f64, (pass, fail): (f64, f64)) -> Option<Interval> {
        let wide = interval(crossings)?.widened_to(rate).widened_to(pass).widened_to(fail);
        let (lowest, highest) = (pass * (1.0 - self.spec.step), fail * (1.0 + self.spec.step));
        Some(Interval { low: wide.low.max(lowest), high: wide.high.min(highest), ..wide })
    }

    /// The neighbouring measured rates around `rate`.
    fn neighbours(&self, rate: f64) -> Option<(f64, f64)> {
        let rates = || self.valid().map(|level| level.level.rate);
        let below = rates().filter(|measured| *measured <= rate).max_by(f64::total_cmp)?;
        let above = rates().filter(|measured| *measured > rate).min_by(f64::total_cmp)?;
        Some((below, above))
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
