//! The open-loop search for the highest rate that meets the SLO: bracket by doubling, then bisect.
//!
//! A state machine that is a function of the outcomes it was told: a run is resumed by telling them again. It measures
//! nothing. Only decided levels are bounds; what is undecided or invalid makes the next probe move away.

use crate::campaign::crossing::{LevelShares, Side, crossing};
use crate::record::search::{Found, Stop};
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
    /// `None`: the measurement is invalid, and no bound whatever it shows. Only a decided one is reported as a bound.
    pub outcome: Option<Outcome>,
    /// What the search takes it for on its way: the outcome, or with short windows the likelier one.
    pub likely: Option<Outcome>,
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
            Ok(_) => Step::Done(self.found(Stop::Probes)),
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
        match self.likely_bounds() {
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
            (pass, None) => {
                let highest = self.rates().fold(0.0, f64::max);
                if highest < self.spec.maximum {
                    Ok((2.0 * highest).min(self.spec.maximum))
                } else if pass == Some(highest) {
                    Err(Stop::GeneratorCeiling)
                } else {
                    Err(Stop::Undecided)
                }
            }
            (None, Some(fail)) => {
                let lowest = self.rates().fold(f64::INFINITY, f64::min);
                if lowest > self.spec.minimum {
                    Ok((0.5 * lowest).max(self.spec.minimum))
                } else if fail <= lowest && self.decided().1.is_some_and(|decided| decided <= lowest) {
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

    /// Highest pass under the lowest fail, and that fail: where levels contradict each other, the lower one is believed.
    fn bounds(&self, outcome: fn(&Probed) -> Option<Outcome>) -> (Option<f64>, Option<f64>) {
        let failed = self.probed.iter().filter(|probed| outcome(probed).is_some_and(fails));
        let fail = failed.map(|probed| probed.level.rate).min_by(f64::total_cmp);
        let under = |probed: &&Probed| outcome(probed) == Some(Outcome::Met) && fail.is_none_or(|fail| probed.level.rate < fail);
        let pass = self.probed.iter().filter(under).map(|probed| probed.level.rate).max_by(f64::total_cmp);
        (pass, fail)
    }

    /// The bounds that levels decided.
    fn decided(&self) -> (Option<f64>, Option<f64>) {
        self.bounds(|probed| probed.outcome)
    }

    /// The bounds that the search goes by.
    fn likely_bounds(&self) -> (Option<f64>, Option<f64>) {
        self.bounds(|probed| probed.likely)
    }

    /// Lowest and highest undecided (or for ever invalid) rate in the bracket.
    fn gap(&self) -> Option<(f64, f64)> {
        let (Some(pass), Some(fail)) = self.likely_bounds() else { return None };
        let open = |probed: &&Probed| {
            probed.likely.is_none_or(|outcome| outcome != Outcome::Met && !fails(outcome))
                && probed.level.rate > pass
                && probed.level.rate < fail
        };
        let rates = self.probed.iter().filter(open).map(|probed| probed.level.rate);
        rates.fold(None, |gap, rate| Some(gap.map_or((rate, rate), |(low, high): (f64, f64)| (low.min(rate), high.max(rate)))))
    }

    fn found(&self, stop: Stop) -> Found {
        let (below, above) = self.likely_bounds();
        let (pass, fail) = self.decided();
        Found {
            stop,
            rate: below.map(|pass| self.likely(pass, above)),
            pass,
            fail,
            gap: self.gap(),
            probes: self.probed.len(),
            valid: self.probed.iter().filter(|probed| probed.outcome.is_some()).count(),
        }
    }

    /// The likely crossing, inside the bracket: confirmation measures as far below it as above.
    fn likely(&self, pass: f64, fail: Option<f64>) -> f64 {
        let Some(fail) = fail else { return pass };
        let valid: Vec<LevelShares> = self
            .probed
            .iter()
            .filter(|probed| probed.outcome.is_some() && (pass..=fail).contains(&probed.level.rate))
            .map(|probed| probed.level.clone())
            .collect();
        match crossing(&valid, &self.spec.allowed) {
            Some(crossing) if crossing.side == Side::Inside => crossing.rate.clamp(pass, fail),
            _ => (pass * fail).sqrt(),
        }
    }
}

/// Outcomes that are upper bounds.
#[must_use]
pub fn fails(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Broken | Outcome::Unstable | Outcome::Oom | Outcome::Shedding)
}
