//! The load generator in virtual time: nothing is dropped, nothing is slowed, nothing is forgotten.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};

use plimsoll::clock::{Nanos, Virtual};
use plimsoll::load::arrivals::{Arrivals, OnCap, When};
use plimsoll::load::stop::{AfterRequests, AtTime, Live, Stop, Turn};
use plimsoll::load::{Driven, Manner, drive};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::record::target::TargetIdentity;
use plimsoll::target::null::Null;
use plimsoll::target::{Event, EventKind, Slot, Target};
use plimsoll::workload::request::{Prompt, Request, RequestSource, Sampling};
use proptest::prelude::*;

/// Numbered requests of one shape.
struct Numbered {
    next: u64,
    end: u64,
}

impl Numbered {
    fn forever() -> Self {
        Self { next: 0, end: u64::MAX }
    }
}

impl RequestSource for Numbered {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        (id < self.end).then(|| Request {
            id,
            prompt: Prompt::unique(id, 10),
            output_tokens: 8,
            sampling: Sampling::default(),
            session: None,
        })
    }
}

/// Answers each request after a fixed time, any number at once; deaf until `deaf_until`; may fail some.
struct Fixed {
    takes: Nanos,
    deaf_until: Nanos,
    fails_every: Option<u32>,
    now: Nanos,
    seen: u32,
    most_at_once: usize,
    running: BinaryHeap<Reverse<(Nanos, u32)>>,
    cancelled: HashSet<u32>,
    events: VecDeque<Event>,
}

impl Fixed {
    fn new(takes: Nanos) -> Self {
        Self {
            takes,
            deaf_until: Nanos::ZERO,
            fails_every: None,
            now: Nanos::ZERO,
            seen: 0,
            most_at_once: 0,
            running: BinaryHeap::new(),
            cancelled: HashSet::new(),
            events: VecDeque::new(),
        }
    }
}

impl Target for Fixed {
    fn identity(&self) -> TargetIdentity {
        Null::default().identity()
    }

    fn submit(&mut self, _request: Request, slot: Slot) {
        self.seen += 1;
        let end = self.now.max(self.deaf_until) + self.takes;
        self.running.push(Reverse((end, slot.0)));
        self.most_at_once = self.most_at_once.max(self.running.len());
    }

    fn cancel(&mut self, slot: Slot) {
        self.cancelled.insert(slot.0);
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        self.now = now;
        while let Some(Reverse((end, slot))) = self.running.peek().copied().filter(|Reverse((end, _))| *end <= now) {
            self.running.pop();
            let at = |kind| Event { slot: Slot(slot), at: end, kind };
            let fails = self.fails_every.is_some_and(|every| slot.is_multiple_of(every));
            self.cancelled.remove(&slot);
            if fails {
                self.events.push_back(at(EventKind::Failed(FailureKind::TargetError)));
            } else {
                self.events.push_back(at(EventKind::Tokens(8)));
                self.events.push_back(at(EventKind::Completed));
            }
        }
        self.running.peek().map(|Reverse((end, _))| *end)
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}

fn every(gap: Nanos) -> Box<dyn Iterator<Item = Nanos> + Send> {
    Box::new((0..).map(move |index| Nanos(gap.0 * index)))
}

fn open(gap: Nanos, cap: u32, on_cap: OnCap) -> When {
    When::Open { schedule: every(gap), cap, on_cap }
}

fn closed(concurrency: u32) -> When {
    When::Closed { concurrency, stagger: Nanos::from_millis(10), seed: 1 }
}

fn run(when: When, manner: Manner, stop: &mut dyn Stop, target: &mut dyn Target) -> Driven {
    let mut what = Numbered::forever();
    drive(Arrivals { when, what: &mut what }, manner, stop, target, &mut Virtual::start())
}

const MS: fn(u64) -> Nanos = Nanos::from_millis;

#[test]
fn a_slow_target_never_slows_the_schedule() {
    let mut target = Fixed::new(MS(500));
    let mut stop = AtTime { at: MS(2000), records: Vec::new() };
    run(open(MS(1), 10_000, OnCap::Wait), Manner::default(), &mut stop, &mut target);
    stop.records.sort_by_key(|record| record.id);
    for record in &stop.records {
        assert_eq!(record.intended, MS(record.id), "the schedule is absolute");
        assert_eq!(record.sent, Some(record.intended), "and kept");
    }
    assert_eq!(target.seen, 2000, "arrivals from 0 to 1999 ms, and none at the end");
}

#[test]
fn a_stall_shows_in_every_latency_that_was_due_in_it() {
    for cap in [4, 10_000] {
        let mut target = Fixed { deaf_until: MS(2000), ..Fixed::new(MS(1)) };
        let mut stop = AtTime { at: MS(4000), records: Vec::new() };
        run(open(MS(10), cap, OnCap::Wait), Manner::default(), &mut stop, &mut target);
        let stalled = stop.records.iter().filter(|record| record.intended < MS(2000)).collect::<Vec<_>>();
        assert!(stalled.len() >= 200, "with a cap of {cap}, {} arrivals were due in the stall", stalled.len());
        for record in stalled {
            let ttft = record.ttft().expect("all were answered");
            assert!(ttft >= MS(2000).since(record.intended), "cap {cap}: request {} hides the stall: {ttft:?}", record.id);
        }
    }
}

#[test]
fn at_the_cap_arrivals_wait_with_their_clock_running_or_are_recorded_as_refused() {
    let mut target = Fixed::new(MS(100));
    let mut stop = AtTime { at: MS(1000), records: Vec::new() };
    let driven = run(open(MS(10), 1, OnCap::Wait), Manner::default(), &mut stop, &mut target);
    assert!(driven.waited_at_cap > 50, "{driven:?}");
    let last = stop.records.iter().filter(|record| record.completed()).max_by_key(|record| record.id).expect("some completed");
    assert!(last.send_lag().expect("it was sent") > MS(500), "the wait counts as send lag: {last:?}");

    let mut target = Fixed::new(MS(100));
    let mut stop = AtTime { at: MS(1000), records: Vec::new() };
    run(open(MS(10), 1, OnCap::Refuse), Manner::default(), &mut stop, &mut target);
    let refused = stop.records.iter().filter(|record| record.ending == Ending::Refused).count();
    assert_eq!(refused + target.seen as usize, 100, "sent or refused, never dropped");
    assert!(refused > 80, "{refused}");
}

#[test]
fn a_request_that_is_never_answered_is_recorded_at_its_timeout() {
    let mut target = Fixed { deaf_until: MS(100_000), ..Fixed::new(MS(1)) };
    let mut stop = AfterRequests { count: 5, records: Vec::new() };
    let manner = Manner { timeout: MS(50), ..Manner::default() };
    let driven = run(open(MS(20), 100, OnCap::Wait), manner, &mut stop, &mut target);
    for record in &stop.records[..5] {
        assert_eq!(record.ending, Ending::TimedOut);
        assert_eq!(record.end, record.intended + MS(50));
    }
    assert!(driven.not_let_go > 0, "the target still holds them after the generator waited: {driven:?}");
}

#[test]
fn what_is_in_flight_at_the_end_is_recorded_as_cancelled() {
    let mut target = Fixed::new(MS(400));
    let mut stop = AtTime { at: MS(1000), records: Vec::new() };
    run(open(MS(100), 100, OnCap::Wait), Manner::default(), &mut stop, &mut target);
    let cancelled = stop.records.iter().filter(|record| record.ending == Ending::Cancelled).count();
    assert_eq!(cancelled, 3, "sent at 700, 800 and 900 ms");
    assert_eq!(stop.records.len(), target.seen as usize);
}

#[test]
fn a_trace_that_ends_ends_the_level_after_its_last_answer() {
    let mut target = Fixed::new(MS(30));
    let mut stop = AfterRequests { count: usize::MAX, records: Vec::new() };
    let schedule = Box::new((0..20).map(|index| MS(index * 5)));
    run(When::Open { schedule, cap: 100, on_cap: OnCap::Wait }, Manner::default(), &mut stop, &mut target);
    assert_eq!(stop.records.len(), 20);
    assert!(stop.records.iter().all(RequestRecord::completed));
}

/// Watches the number in flight.
#[derive(Default)]
struct Band {
    settled: bool,
    low: u32,
    high: u32,
    ended: usize,
}

impl Stop for Band {
    fn turn(&mut self, _now: Nanos, live: &Live) -> Turn {
        self.high = self.high.max(live.in_flight);
        if self.ended >= 2000 { Turn::Over } else { Turn::GoOn }
    }

    fn arrived(&mut self, _intended: Nanos) {}

    fn ended(&mut self, record: RequestRecord) {
        self.settled |= record.id > 100;
        self.ended += 1;
        self.low += u32::from(record.completed());
    }
}

#[test]
fn closed_loop_holds_its_concurrency_and_never_exceeds_it() {
    let mut target = Fixed::new(MS(7));
    let mut stop = Band::default();
    let driven = run(closed(16), Manner::default(), &mut stop, &mut target);
    assert_eq!(stop.high.max(target.most_at_once as u32), 16);
    let seconds = driven.span.1.since(driven.span.0).as_secs_f64();
    let rate = driven.sent as f64 / seconds;
    assert!((rate / (16.0 / 0.007) - 1.0).abs() < 0.02, "16 users of 7 ms make 2285 calls/s, not {rate:.0}");
}

#[test]
fn the_first_wave_of_a_closed_loop_has_random_residual_lengths() {
    let mut stop = AfterRequests { count: 64, records: Vec::new() };
    run(closed(32), Manner::default(), &mut stop, &mut Fixed::new(MS(7)));
    let first: Vec<u32> = stop.records.iter().filter(|record| record.id < 32).map(|record| record.requested_tokens).collect();
    assert!(first.iter().any(|tokens| *tokens < 4) && first.iter().any(|tokens| *tokens > 4), "{first:?}");
    assert!(stop.records.iter().filter(|record| record.id >= 32).all(|record| record.requested_tokens == 8));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_arrival_ends_in_exactly_one_record(
        gap in 1_u64..40, takes in 1_u64..200, cap in 1_u32..20, refuse in any::<bool>(), fails in proptest::option::of(1_u32..5), timeout in 20_u64..500,
    ) {
        let mut target = Fixed { fails_every: fails, ..Fixed::new(MS(takes)) };
        let mut stop = AtTime { at: MS(1500), records: Vec::new() };
        let on_cap = if refuse { OnCap::Refuse } else { OnCap::Wait };
        let manner = Manner { timeout: MS(timeout), ..Manner::default() };
        let driven = run(open(MS(gap), cap, on_cap), manner, &mut stop, &mut target);
        let mut ids: Vec<u64> = stop.records.iter().map(|record| record.id).collect();
        ids.sort_unstable();
        prop_assert_eq!(&ids, &(0..ids.len() as u64).collect::<Vec<_>>());
        let sent = stop.records.iter().filter(|record| record.sent.is_some()).count() as u64;
        prop_assert_eq!(sent, driven.sent);
        prop_assert_eq!(driven.not_let_go, 0);
        for record in &stop.records {
            prop_assert!(record.sent.is_none_or(|sent| sent >= record.intended));
            prop_assert!(record.end >= record.intended);
            prop_assert_eq!(record.completed(), record.output_tokens == 8);
        }
    }
}
