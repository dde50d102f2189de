//! The open-loop search for the highest rate that meets the SLO: bracket by doubling, then bisect.
//!
//! A state machine that is a function of the outcomes it was told: a run is resumed by telling them again. It measures
//! nothing. Only decided levels are bounds; what is undecided or invalid makes the next probe move away.

use serde::{Deserialize, Serialize};

use crate::campaign::crossing::{LevelShares, Side, crossing};
use crate::record::verdict::Outcome;
use crate::rng;

/// Times a rate is measured again after invalid levels before the search moves away from it.
const RETRIES: usize = 2;
/// Width of the bracket, in tolerances, up to which a gap of undecided levels is still an end.
const GAP_MAX: f64 = 4.0;

/// What to search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchSpec {
    /// First probe, requests/s: half the closed-loop plateau is a good one.
    pub start: f64,
    /// Lowest rate worth anything.
    pub minimum: f64,
    /// Highest rate the generator is good for.
    pub maximum: f64,
    /// Relative width of the bracket at the end, such as 0.05.
    pub tolerance: f64,
    /// Most probes.
    pub probes_max: usize,
    /// Allowed share of misses of each objective.
    pub allowed: Vec<f64>,
    /// Seed of the probes' seeds.
    pub seed: u64,
}

/// One probe, measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Probed {
    /// Offered load, misses and requests.
    pub level: LevelShares,
    /// `None`: the measurement is invalid, and no bound whatever it shows.
    pub outcome: Option<Outcome>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Measure this level.
    Probe {
        /// Requests/s.
        rate: f64,
        /// Of arrivals and prompts; no two probes share one.
        seed: u64,
    },
    /// The search is over.
    Done(Found),
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The bracket is as narrow as asked for, but for a gap of undecided levels in it (see `gap`).
    Converged,
    /// The lowest rate worth anything breaks the SLO.
    SloUnmetAtMinimum,
    /// No bracket of decided levels, or one too wide.
    Undecided,
    /// Out of probes or time.
    Budget,
    /// The highest rate the generator is good for still passes.
    GeneratorCeiling,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Why it ended.
    pub stop: Stop,
    /// Where confirmation starts: a rate that should pass, with 5 % more that should not. `None` without a pass.
    pub rate: Option<f64>,
    /// Highest decided pass under the lowest decided fail.
    pub pass: Option<f64>,
    /// Lowest decided fail.
    pub fail: Option<f64>,
    /// Lowest and highest rate between them that could not be decided.
    pub gap: Option<(f64, f64)>,
    /// Levels measured.
    pub probes: usize,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    spec: SearchSpec,
    probed: Vec<Probed>,
}

impl Search {
    /// A search that has measured nothing yet.
    #[must_use]
    pub fn new(spec: SearchSpec) -> Self {
        Self { spec, probed: Vec::new() }
    }

    /// Tells what the last probe showed.
    pub fn report(&mut self, probed: Probed) {
        self.probed.push(probed);
    }

    /// What to do next; the same answer until the next report.
    #[must_use]
    pub fn next(&self) -> Step {
        let wanted = self.wanted();
        match wanted {
            Ok(rate) if self.probed.len() < self.spec.probes_max => {
                Step::Probe { rate, seed: rng::derive(self.spec.seed, &format!("search probe {}", self.probed.len())) }
            }
            Ok(_) => Step::Done(self.found(Stop::Budget)),
            Err(stop) => Step::Done(self.found(stop)),
        }
    }

    /// What is known if no more time is given.
    #[must_use]
    pub fn out_of_budget(&self) -> Found {
        match self.next() {
            Step::Done(found) => found,
            Step::Probe { .. } => self.found(Stop::Budget),
        }
    }

    /// The next rate, or why there is none.
    fn wanted(&self) -> Result<f64, Stop> {
        let Some(last) = self.probed.last() else { return Ok(self.spec.start.clamp(self.spec.minimum, self.spec.maximum)) };
        let same = self.probed.iter().rev().take_while(|probed| probed.outcome.is_none() && probed.level.rate == last.level.rate).count();
        if (1..=RETRIES).contains(&same) {
            return Ok(last.level.rate);
        }
        let narrow = 1.0 + self.spec.tolerance;
        match (self.pass(), self.fail()) {
            (Some(pass), Some(fail)) => {
                let (lowest, highest) = self.gap().unwrap_or((fail, pass));
                // Without a gap both sides are the bracket itself.
                if lowest / pass > narrow {
                    Ok((pass * lowest).sqrt())
                } else if fail / highest > narrow {
                    Ok((highest * fail).sqrt())
                } else if fail / pass <= 1.0 + GAP_MAX * self.spec.tolerance {
                    Err(Stop::Converged)
                } else {
                    Err(Stop::Undecided)
                }
            }
            (_, None) => {
                let highest = self.rates().fold(0.0, f64::max);
                if highest < self.spec.maximum {
                    Ok((2.0 * highest).min(self.spec.maximum))
                } else if self.pass() == Some(highest) {
                    Err(Stop::GeneratorCeiling)
                } else {
                    Err(Stop::Undecided)
                }
            }
            (None, Some(fail)) => {
                let lowest = self.rates().fold(f64::INFINITY, f64::min);
                if lowest > self.spec.minimum {
                    Ok((0.5 * lowest).max(self.spec.minimum))
                } else if fail <= lowest {
                    Err(Stop::SloUnmetAtMinimum)
                } else {
                    Err(Stop::Undecided)
                }
            }
        }
    }

    fn rates(&self) -> impl Iterator<Item = f64> + '_ {
        self.probed.iter().map(|probed| probed.level.rate)
    }

    /// Lowest decided fail.
    fn fail(&self) -> Option<f64> {
        let fails = self.probed.iter().filter(|probed| probed.outcome.is_some_and(fails));
        fails.map(|probed| probed.level.rate).min_by(f64::total_cmp)
    }

    /// Highest decided pass under the lowest decided fail: where levels contradict each other, the lower one is believed.
    fn pass(&self) -> Option<f64> {
        let fail = self.fail().unwrap_or(f64::INFINITY);
        let passes = self.probed.iter().filter(|probed| probed.outcome == Some(Outcome::Met) && probed.level.rate < fail);
        passes.map(|probed| probed.level.rate).max_by(f64::total_cmp)
    }

    /// Lowest and highest undecided (or for ever invalid) rate in the bracket.
    fn gap(&self) -> Option<(f64, f64)> {
        let (pass, fail) = (self.pass()?, self.fail()?);
        let open = |probed: &&Probed| {
            probed.outcome.is_none_or(|outcome| outcome != Outcome::Met && !fails(outcome))
                && probed.level.rate > pass
                && probed.level.rate < fail
        };
        let rates = self.probed.iter().filter(open).map(|probed| probed.level.rate);
        rates.fold(None, |gap, rate| Some(gap.map_or((rate, rate), |(low, high): (f64, f64)| (low.min(rate), high.max(rate)))))
    }

    fn found(&self, stop: Stop) -> Found {
        let (pass, fail) = (self.pass(), self.fail());
        Found { stop, rate: pass.map(|pass| self.likely(pass, fail)), pass, fail, gap: self.gap(), probes: self.probed.len() }
    }

    /// A rate whose next 5 % hold the likely crossing in their middle, inside the bracket.
    fn likely(&self, pass: f64, fail: Option<f64>) -> f64 {
        let Some(fail) = fail else { return pass };
        let valid: Vec<LevelShares> = self
            .probed
            .iter()
            .filter(|probed| probed.outcome.is_some() && (pass..=fail).contains(&probed.level.rate))
            .map(|probed| probed.level.clone())
            .collect();
        let narrow = 1.0 + self.spec.tolerance;
        match crossing(&valid, &self.spec.allowed) {
            Some(crossing) if crossing.side == Side::Inside => (crossing.rate / narrow.sqrt()).clamp(pass, (fail / narrow).max(pass)),
            _ => pass,
        }
    }
}

/// Outcomes that are upper bounds.
#[must_use]
pub fn fails(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Broken | Outcome::Unstable | Outcome::Oom | Outcome::Shedding)
}
