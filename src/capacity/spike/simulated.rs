//! A course against a simulated fleet.

use crate::capacity::spike::course::Course;
use crate::capacity::spike::ledger::{Ledger, Trial};
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::moments::Full;
use crate::capacity::spike::phases::Felt;
use crate::clock::Nanos;
use crate::queueing::fleet::calls::{Arrival, Ended};
use crate::queueing::fleet::simulation::{Fleet, State, Witness, simulate};
use crate::record::slo::Slo;
use crate::rng;

/// How long the calls of a course are followed after its end: one that takes longer failed.
pub(super) const FOLLOWED: Nanos = Nanos::from_secs(600);

/// What becomes of `course` with so many replicas, calls of such lengths, and this seed.
#[must_use]
pub fn trial(fleet: &Fleet, course: &Course, slo: &Slo, lengths: &CallLengths, seed: u64) -> Trial {
    let mut watch = Watch { ledger: Ledger::new(course, slo) };
    let every = watch.ledger.every();
    let drawn = rng::derive(seed, "lengths");
    let arrivals = course.schedule(rng::derive(seed, "arrivals")).zip(0..).map(|(at, k)| {
        let (prompt, tokens) = lengths.of_call(drawn, k);
        Arrival { at, prompt, tokens }
    });
    let until = Nanos::from_secs_f64(course.seconds()) + FOLLOWED;
    simulate(fleet, arrivals, every, until, rng::derive(seed, "fleet"), &mut watch);
    watch.ledger.judged()
}

struct Watch<'a> {
    ledger: Ledger<'a>,
}

impl Witness for Watch<'_> {
    fn ended(&mut self, ended: &Ended) {
        let nanos = |at: Nanos| at.0 as f64;
        let felt = ended.e2e().zip(ended.ttft()).map(|(e2e, ttft)| Felt { ttft: nanos(ttft), tpot: ended.tpot_ns(), e2e: nanos(e2e) });
        self.ledger.ended(ended.arrived, ended.ended, ended.attempts, felt.as_ref());
    }

    fn looked(&mut self, state: &State) {
        let full = Full { waiting: Some(state.waiting), in_flight: state.waiting + state.running, replicas: Some(state.ready) };
        self.ledger.full(state.at, full);
    }
}
