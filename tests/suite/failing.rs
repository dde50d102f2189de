//! A target that fails is an outcome, told at once; the next level gets a fresh one.

use std::collections::VecDeque;

use plimsoll::campaign::interrupt::Interrupt;
use plimsoll::campaign::journal::Journal;
use plimsoll::campaign::plan::Plan;
use plimsoll::campaign::progress::Silent;
use plimsoll::campaign::targets::Targets;
use plimsoll::clock::Nanos;
use plimsoll::record::level::Purpose;
use plimsoll::record::request::FailureKind;
use plimsoll::record::run::HeadlineStatus;
use plimsoll::record::target::TargetIdentity;
use plimsoll::record::verdict::Outcome;
use plimsoll::target::simulated::Simulated;
use plimsoll::target::{Event, EventKind, Slot, Target};
use plimsoll::workload::request::Request;

use crate::campaign::{Ran, campaign_on, slo};

const ANSWER: Nanos = Nanos::from_millis(20);
const TOGETHER: usize = 4;

/// Serves four at once, 20 ms each, as `Fault` allows.
struct Faulty {
    fault: Fault,
    now: Nanos,
    waiting: VecDeque<Slot>,
    served: VecDeque<(Nanos, Slot)>,
    events: VecDeque<Event>,
    submitted: u64,
    dead: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Everything after so many requests fails, at once.
    DiesAfter(u64, FailureKind),
    /// One in so many fails, at once.
    OneIn(u64),
    /// Nothing is ever answered.
    Deaf,
}

impl Faulty {
    fn serve(&mut self, now: Nanos) {
        while self.served.len() < TOGETHER
            && let Some(slot) = self.waiting.pop_front()
        {
            self.served.push_back((now + ANSWER, slot));
        }
    }
}

impl Target for Faulty {
    fn identity(&self) -> TargetIdentity {
        Simulated::identity_of("faulty")
    }

    fn submit(&mut self, _request: Request, slot: Slot) {
        self.submitted += 1;
        let failure = match self.fault {
            Fault::DiesAfter(count, kind) if self.submitted > count => {
                self.dead = true;
                Some(kind)
            }
            Fault::OneIn(count) if self.submitted.is_multiple_of(count) => Some(FailureKind::TargetError),
            _ => None,
        };
        match failure {
            None if matches!(self.fault, Fault::Deaf) => {}
            Some(kind) => self.events.push_back(Event { slot, at: self.now, kind: EventKind::Failed(kind) }),
            None => self.waiting.push_back(slot),
        }
    }

    fn cancel(&mut self, slot: Slot) {
        self.waiting.retain(|other| *other != slot);
        self.served.retain(|(_, other)| *other != slot);
        self.events.push_back(Event { slot, at: self.now, kind: EventKind::Failed(FailureKind::TargetError) });
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        self.serve(self.now);
        while let Some((at, slot)) = self.served.front().copied().filter(|(at, _)| *at <= now) {
            self.served.pop_front();
            for kind in [EventKind::Started { cached_tokens: 0 }, EventKind::Tokens(4), EventKind::Completed] {
                self.events.push_back(Event { slot, at, kind });
            }
            self.serve(at);
        }
        self.now = now;
        self.serve(now);
        self.served.front().map(|(at, _)| *at)
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn is_alive(&self) -> bool {
        !self.dead
    }
}

/// Targets with the faults of the list; when it is empty, its last one for ever.
struct Faults(Vec<Fault>);

impl Targets for Faults {
    fn identity(&self) -> TargetIdentity {
        Simulated::identity_of("faulty")
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        let fault = if self.0.len() > 1 { self.0.remove(0) } else { self.0[0] };
        Ok(Box::new(Faulty {
            fault,
            now: Nanos::ZERO,
            waiting: VecDeque::new(),
            served: VecDeque::new(),
            events: VecDeque::new(),
            submitted: 0,
            dead: false,
        }))
    }

    fn most_in_flight(&self) -> u32 {
        64
    }
}

fn measured(faults: Vec<Fault>) -> Ran {
    let plan = Plan { slo: Some(slo("e2e:p90<100ms")), ..Plan::quick(3) };
    campaign_on(4, &mut Faults(faults), &plan, &mut Journal::none(), &mut Silent, &Interrupt::default())
}

#[test]
fn a_target_that_fails_everything_is_an_outcome_within_a_moment_and_a_few_hundred_requests() {
    for (kind, outcome) in [(FailureKind::OutOfMemory, Outcome::Oom), (FailureKind::TargetGone, Outcome::Broken)] {
        let ran = measured(vec![Fault::DiesAfter(0, kind)]);
        for level in &ran.levels {
            assert!(level.verdict.is_valid() && level.verdict.outcome == outcome, "{:?}: {}", level.offered, level.verdict);
            assert!((1..=200).contains(&level.counts.whole_level), "{:?}", level.counts);
            assert_eq!(level.counts.completed, 0);
        }
        assert_eq!(ran.levels.iter().filter(|level| level.purpose == Purpose::Sweep).count(), 1, "errors end the sweep");
        assert_eq!(ran.result.headline.unwrap().status, HeadlineStatus::SloUnmetAtMinimum);
    }
}

#[test]
fn a_target_that_died_is_replaced_and_only_the_level_it_died_in_shows_it() {
    // The reference and some levels of the sweep go well before the first target runs out of memory.
    let ran = measured(vec![Fault::DiesAfter(400, FailureKind::OutOfMemory), Fault::OneIn(u64::MAX)]);
    let died = ran.levels.iter().filter(|level| level.verdict.outcome == Outcome::Oom).collect::<Vec<_>>();
    assert_eq!(died.len(), 1, "{:?}", ran.levels.iter().map(|level| level.verdict.to_string()).collect::<Vec<_>>());
    assert!(died[0].verdict.is_valid() && died[0].counts.failed.contains_key("out_of_memory"), "{:?}", died[0].counts);
    for level in ran.levels.iter().filter(|level| level.index > died[0].index) {
        assert_eq!(level.counts.completed, level.counts.cohort, "{:?}", level.offered);
    }
    assert!(ran.result.headline.unwrap().throughput_per_gpu.is_some());
}

#[test]
fn a_few_errors_do_not_keep_a_level_from_settling_and_end_the_sweep_at_one_percent() {
    let ran = measured(vec![Fault::OneIn(20)]);
    let sweep = ran.levels.iter().filter(|level| level.purpose == Purpose::Sweep).collect::<Vec<_>>();
    assert_eq!(sweep.len(), 1, "5 % errors end it at once");
    assert!(sweep[0].verdict.is_valid(), "{}", sweep[0].verdict);
    assert!(sweep[0].counts.failed.contains_key("target_error"), "{:?}", sweep[0].counts);
}

#[test]
fn a_target_that_answers_nothing_in_time_is_broken_and_not_waited_for_a_hundred_times() {
    let plan = Plan { slo: Some(slo("e2e:p90<100ms")), timeout: Nanos::from_secs(2), ..Plan::quick(3) };
    let ran = campaign_on(4, &mut Faults(vec![Fault::Deaf]), &plan, &mut Journal::none(), &mut Silent, &Interrupt::default());
    for level in &ran.levels {
        assert!(level.verdict.is_valid() && level.verdict.outcome == Outcome::Broken, "{:?}: {}", level.offered, level.verdict);
        assert_eq!((level.counts.completed, level.counts.cohort), (0, level.counts.timed_out), "{:?}", level.counts);
        assert!(level.counts.whole_level < 100, "{:?}", level.counts);
    }
    assert_eq!(ran.levels.iter().filter(|level| level.purpose == Purpose::Sweep).count(), 1, "errors end the sweep");
}
