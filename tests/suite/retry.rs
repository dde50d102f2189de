//! What fails at once is not asked again at once: users of a closed loop wait, a schedule does not.

use std::collections::VecDeque;

use plimsoll::clock::{Nanos, Virtual};
use plimsoll::load::arrivals::{Arrivals, OnCap, When};
use plimsoll::load::stop::AtTime;
use plimsoll::load::{Manner, drive};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::record::target::TargetIdentity;
use plimsoll::target::simulated::Simulated;
use plimsoll::target::{Event, EventKind, Slot, Target};
use plimsoll::workload::request::Request;

use crate::openai_target::Alike;

/// Ends everything at once.
struct AtOnce {
    failure: Option<FailureKind>,
    retry_after: Option<Nanos>,
    submitted: Vec<Slot>,
    events: VecDeque<Event>,
}

impl Target for AtOnce {
    fn identity(&self) -> TargetIdentity {
        Simulated::identity_of("refusing")
    }

    fn submit(&mut self, _request: Request, slot: Slot) {
        self.submitted.push(slot);
    }

    fn cancel(&mut self, slot: Slot) {
        self.submitted.retain(|other| *other != slot);
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        for slot in self.submitted.drain(..) {
            let wait = self.retry_after.map(EventKind::RetryAfter);
            let end = self.failure.map_or(EventKind::Completed, EventKind::Failed);
            self.events.extend(wait.into_iter().chain([end]).map(|kind| Event { slot, at: now + Nanos::from_millis(1), kind }));
        }
        None
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}

/// Records of one second.
fn second(when: When, failure: Option<FailureKind>, retry_after: Option<Nanos>) -> Vec<RequestRecord> {
    let mut target = AtOnce { failure, retry_after, submitted: Vec::new(), events: VecDeque::new() };
    let mut stop = AtTime { at: Nanos::from_secs(1), ..AtTime::default() };
    let mut what = Alike { next: 0, prompt: 20, tokens: 8 };
    drive(Arrivals { when, what: &mut what }, Manner::default(), &mut stop, &mut target, &mut Virtual::start());
    stop.records.retain(|record| record.ending != Ending::Cancelled);
    stop.records
}

fn users(concurrency: u32) -> When {
    When::Closed { concurrency, stagger: Nanos::ZERO, seed: 0 }
}

#[test]
fn a_user_whose_request_failed_waits_a_tenth_of_a_second() {
    let records = second(users(2), Some(FailureKind::Unreachable), None);
    assert!((18..=20).contains(&records.len()), "{} requests of two users in a second", records.len());
    let mut sent: Vec<_> = records.iter().map(|record| record.sent.unwrap()).collect();
    sent.sort();
    assert!(sent.windows(3).all(|three| three[2].since(three[0]) >= Nanos::from_millis(100)), "{sent:?}");
}

#[test]
fn it_waits_as_long_as_it_was_told_and_five_seconds_at_most() {
    let told = |length| second(users(1), Some(FailureKind::Refused), Some(length)).len();
    assert_eq!(told(Nanos::from_millis(300)), 4, "at 0, 301, 602 and 903 ms");
    assert_eq!(
        told(Nanos::from_millis(1)),
        second(users(1), Some(FailureKind::Refused), None).len(),
        "never less than a tenth of a second"
    );
    let record = &second(users(1), Some(FailureKind::Refused), Some(Nanos::from_secs(60)))[0];
    assert_eq!(record.retry_after, Some(Nanos::from_secs(60)), "what it said is kept as it said it");
}

#[test]
fn a_schedule_waits_for_nobody() {
    let schedule = Box::new((0..100_u64).map(|index| Nanos::from_millis(index * 10)));
    let when = When::Open { schedule, cap: 64, on_cap: OnCap::Wait };
    let records = second(when, Some(FailureKind::Refused), Some(Nanos::from_secs(5)));
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| record.sent == Some(record.intended) && record.intended == Nanos::from_millis(record.id * 10)));
}
