//! What a simulated fleet stands: the largest spike within the SLO, and the smallest fleet for a load.

use serde::Serialize;

use crate::capacity::spike::course::{Course, Phase};
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::simulated;
use crate::queueing::fleet::simulation::Fleet;
use crate::record::slo::Slo;

/// Calls of one trial at most; its spike is shortened for them, down to [`SHORTEST_S`].
const CALLS_MAX: f64 = 300_000.0;
/// Seconds of a spike at least.
const SHORTEST_S: f64 = 30.0;
/// Seconds of the average before it.
const BEFORE_S: f64 = 30.0;
/// The bracket of a multiple is narrowed to this share.
const NARROW: f64 = 0.02;
/// Multiples beyond this are not looked for.
const MOST: f64 = 1000.0;

/// A fleet and its traffic.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who serves.
    pub fleet: Fleet,
    /// Inference calls/s on average.
    pub average: f64,
    /// What must hold.
    pub slo: &'a Slo,
    /// How long calls are.
    pub lengths: &'a CallLengths,
    /// Of everything random.
    pub seed: u64,
}

/// The same question under the fitted law, and under one that is slower by what the fit is off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Both<T> {
    /// Under the fitted law.
    pub fitted: T,
    /// Under the slower one.
    pub slower: T,
}

/// Seconds that a spike of `calls_per_s` is tried for where it shall last `seconds`: a large fleet shows in fewer what it stands.
#[must_use]
pub fn tried_s(calls_per_s: f64, seconds: f64) -> f64 {
    seconds.min((CALLS_MAX / calls_per_s).max(SHORTEST_S))
}

impl<'a> Subject<'a> {
    /// The same fleet with each cost of a step `factor` times as much.
    #[must_use]
    pub fn slower(&self, factor: f64) -> Self {
        Self { fleet: Fleet { law: self.fleet.law.slower(factor), ..self.fleet }, ..*self }
    }

    /// Whether so many replicas hold the SLO while `calls_per_s` come for `seconds`.
    #[must_use]
    pub fn stands_load(&self, replicas: u32, calls_per_s: f64, seconds: f64) -> bool {
        self.stands(replicas, &Phase::steady("spike", calls_per_s / self.average, seconds))
    }

    /// Whether so many replicas hold the SLO through a spike, after a while of the average or of its mean, whichever is less.
    fn stands(&self, replicas: u32, spike: &Phase) -> bool {
        let spike = spike.shortened(tried_s(self.average * spike.times, spike.seconds));
        let before = Phase::steady("before", spike.times.min(1.0), BEFORE_S);
        let course = Course { average: self.average, phases: vec![before, spike] };
        let fleet = Fleet { replicas, ..self.fleet };
        simulated::trial(&fleet, &course, self.slo, self.lengths, self.seed).phases[1].holds()
    }

    /// The largest multiple of the average whose spike of `seconds` is within the SLO, to 2 %; `None`: the average itself is not.
    #[must_use]
    pub fn largest_multiple(&self, seconds: f64) -> Option<f64> {
        self.largest_factor(&Phase::spike(1.0, seconds))
    }

    /// How many times `spike` may come and be within the SLO, to 2 %; `None`: not even once.
    #[must_use]
    pub fn largest_factor(&self, spike: &Phase) -> Option<f64> {
        let stands = |factor: f64| self.stands(self.fleet.replicas, &spike.scaled(factor));
        if !stands(1.0) {
            return None;
        }
        let (mut holds, mut breaks) = (1.0, 2.0);
        while stands(breaks) {
            (holds, breaks) = (breaks, breaks * 2.0);
            if holds >= MOST {
                return Some(holds);
            }
        }
        while breaks / holds > 1.0 + NARROW {
            let middle = (holds * breaks).sqrt();
            if stands(middle) {
                holds = middle;
            } else {
                breaks = middle;
            }
        }
        Some(holds)
    }

    /// The fewest replicas that hold the SLO at `calls_per_s` for `seconds`, looked for from `guess` on; `None`: no number does, because
    /// a call alone is too slow.
    #[must_use]
    pub fn smallest_fleet(&self, calls_per_s: f64, seconds: f64, guess: u32) -> Option<u32> {
        let holds = |replicas: u32| self.stands_load(replicas, calls_per_s, seconds);
        let guess = guess.max(1);
        let (mut too_few, mut enough) = if holds(guess) { (0, guess) } else { (guess, 0) };
        // Out from the guess in growing strides until it is between two.
        let mut stride = 1;
        while enough == 0 {
            let next = too_few.saturating_add(stride);
            if holds(next) {
                enough = next;
            } else {
                // So many that hardly two calls meet, and still too slow.
                if f64::from(next) > 100.0 * calls_per_s.max(1.0) + 1000.0 {
                    return None;
                }
                too_few = next;
            }
            stride *= 2;
        }
        let mut stride = 1;
        while too_few == 0 && enough > 1 {
            let next = enough.saturating_sub(stride).max(1);
            if holds(next) {
                enough = next;
            } else {
                too_few = next;
            }
            stride *= 2;
        }
        while enough - too_few > 1 {
            let middle = too_few + (enough - too_few) / 2;
            if holds(middle) {
                enough = middle;
            } else {
                too_few = middle;
            }
        }
        Some(enough)
    }
}
