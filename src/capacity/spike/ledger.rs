//! Takes what became of each call of a course, and judges it.

use serde::{Deserialize, Serialize};

use crate::capacity::spike::course::Course;
use crate::capacity::spike::moments::{Full, Moment, Recovery, Stretches, recovery};
use crate::capacity::spike::phases::{Felt, PhaseHeld, PhaseTally};
use crate::clock::Nanos;
use crate::record::slo::Slo;

/// A course that was gone through, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What was gone through.
    pub course: Course,
    /// Each phase.
    pub phases: Vec<PhaseHeld>,
    /// The course in equal stretches.
    pub moments: Vec<Moment>,
    /// Length of a stretch, seconds.
    pub moment_s: f64,
    /// How it came back from the last spike; `None` where no phase is above the average, or it was cut.
    pub recovery: Option<Recovery>,
}

impl Trial {
    /// Whether every phase held its SLO.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.phases.iter().all(PhaseHeld::holds)
    }

    /// The phase that is called so.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<&PhaseHeld> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

/// Calls of a course as they end. Times are from its beginning.
#[derive(Clone, Debug)]
pub struct Ledger<'a> {
    course: &'a Course,
    slo: &'a Slo,
    ends: Vec<Nanos>,
    phases: Vec<PhaseTally>,
    stretches: Stretches,
}

impl<'a> Ledger<'a> {
    /// Nothing came yet.
    #[must_use]
    pub fn new(course: &'a Course, slo: &'a Slo) -> Self {
        let ends = (0..course.phases.len()).map(|index| course.span(index).1).collect();
        let phases = vec![PhaseTally::new(slo); course.phases.len()];
        Self { course, slo, ends, phases, stretches: Stretches::over(course.seconds(), slo) }
    }

    /// How often somebody should say how full it is.
    #[must_use]
    pub fn every(&self) -> Nanos {
        self.stretches.width()
    }

    /// A call that came at `arrived` was over at `ended` after so many tries; `None`: it failed.
    pub fn ended(&mut self, arrived: Nanos, ended: Nanos, tries: u32, felt: Option<&Felt>) {
        let phase = self.ends.iter().position(|end| arrived < *end).unwrap_or(self.ends.len().saturating_sub(1));
        let good = self.phases[phase].add(felt, tries, self.slo);
        self.stretches.add(arrived, ended, felt, good, self.slo);
    }

    /// How full it is.
    pub fn full(&mut self, at: Nanos, full: Full) {
        self.stretches.full(at, full);
    }

    /// The verdict.
    #[must_use]
    pub fn judged(&self) -> Trial {
        let end = Nanos::from_secs_f64(self.course.seconds());
        let trial = self.judged_until(end);
        let back = |from: Nanos| recovery(&trial.moments, trial.moment_s, from.as_secs_f64(), self.course.seconds());
        Trial { recovery: self.course.spikes_end().map(back), ..trial }
    }

    /// The verdict of what came until `until`, where the course was cut: phases end there. Whether it came back cannot be told, because
    /// calls that take long are the ones that are missing.
    #[must_use]
    pub fn judged_until(&self, until: Nanos) -> Trial {
        let phases = self.course.phases.iter().zip(&self.phases).enumerate().map(|(index, (phase, tally))| {
            let (from, to) = self.course.span(index);
            let (from, to) = (from.min(until), to.min(until));
            tally.held(&phase.name, phase.times, (from.as_secs_f64(), to.as_secs_f64()), self.slo)
        });
        Trial {
            course: self.course.clone(),
            phases: phases.collect(),
            moments: self.stretches.moments(self.slo),
            moment_s: self.stretches.width().as_secs_f64(),
            recovery: None,
        }
    }
}
