//! Several engines as one target: every request is served once, and no engine gets another share than it should.

use plimsoll::campaign::interrupt::Interrupt;
use plimsoll::campaign::journal::Journal;
use plimsoll::campaign::plan::Plan;
use plimsoll::campaign::progress::Silent;
use plimsoll::campaign::targets::Targets;
use plimsoll::clock::{Clock, Nanos, Virtual};
use plimsoll::curve::scaling;
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::law::{BatchingLaw, ServiceLaw, ServiceTime};
use plimsoll::record::level::{Offered, Purpose};
use plimsoll::record::target::{TargetCounters, TargetIdentity};
use plimsoll::target::several::{self, Several};
use plimsoll::target::simulated::Simulated;
use plimsoll::target::{Event, EventKind, Slot, Spread, Target};
use plimsoll::workload::request::{Prompt, Request, Sampling};

use crate::campaign;

fn request(id: u64, tokens: u32) -> Request {
    Request { id, prompt: Prompt::unique(id, 8), output_tokens: tokens, sampling: Sampling::default(), session: None }
}

fn three() -> Several {
    let law = || ServiceLaw::Servers { count: 1, service: ServiceTime::Exponential { mean_s: 0.1 } };
    let target = |seed| Box::new(Simulated::new("mm1", law(), seed)) as Box<dyn Target>;
    Several::new(vec![target(1), target(2), target(3)], 7)
}

/// Lets it live to its next events, and returns how many requests ended.
fn live(target: &mut Several, clock: &mut Virtual) -> Vec<Slot> {
    let mut ended = Vec::new();
    let mut last = Nanos::ZERO;
    loop {
        while let Some(event) = target.next_event() {
            assert!(event.at >= last, "events come in the order of their stamps");
            last = event.at;
            if event.kind == EventKind::Completed {
                ended.push(event.slot);
            }
        }
        if !ended.is_empty() {
            return ended;
        }
        let Some(next) = target.advance(clock.now()) else { return ended };
        clock.wait(next, &mut || false);
        target.advance(clock.now());
    }
}

#[test]
fn in_closed_loop_every_engine_keeps_its_equal_share_in_flight() {
    let (mut target, mut clock) = (three(), Virtual::start());
    target.spread(Spread::Even);
    (0..12).for_each(|slot| target.submit(request(slot, 1), Slot(slot as u32)));
    let mut served = 12;
    while served < 600 {
        for slot in live(&mut target, &mut clock) {
            target.submit(request(served, 1), slot);
            served += 1;
        }
    }
    let by_engine: Vec<u64> = target.counters_by_device().iter().map(|counters| counters.decode_tokens).collect();
    assert_eq!(by_engine.iter().sum::<u64>(), target.counters().decode_tokens);
    assert!(by_engine.iter().all(|tokens| *tokens > 0), "{by_engine:?}");
}

#[test]
fn in_open_loop_every_engine_gets_arrivals_of_its_own() {
    let (mut target, mut clock) = (three(), Virtual::start());
    let mut free: Vec<u32> = (0..3000).collect();
    for id in 0..3000 {
        target.submit(request(id, 1), Slot(free.pop().unwrap()));
    }
    let mut ended = 0;
    while ended < 3000 {
        ended += live(&mut target, &mut clock).len();
    }
    let by_engine: Vec<u64> = target.counters_by_device().iter().map(|counters| counters.decode_tokens).collect();
    // Binomial: 1000 each, deviation 26.
    assert!(by_engine.iter().all(|tokens| tokens.abs_diff(1000) < 110), "{by_engine:?}");
    assert!(by_engine.iter().any(|tokens| *tokens != 1000), "a router that evens out is not what is measured");
}

#[test]
fn one_engine_can_be_had_alone() {
    let (mut target, mut clock) = (three(), Virtual::start());
    target.spread(Spread::Only(1));
    (0..50).for_each(|slot| target.submit(request(slot, 1), Slot(slot as u32)));
    let mut ended = 0;
    while ended < 50 {
        ended += live(&mut target, &mut clock).len();
    }
    let by_engine: Vec<u64> = target.counters_by_device().iter().map(|counters| counters.decode_tokens).collect();
    assert_eq!(by_engine, [0, 50, 0]);
}

#[test]
fn together_they_are_one_node_with_as_many_devices() {
    let identity = three().identity();
    assert_eq!(identity.devices, 3);
    assert_eq!(identity.device, "virtual,virtual,virtual");
}

/// Two devices under one law each, of which together one is slowed down: what shared power does.
struct TwoDevices;

impl Targets for TwoDevices {
    fn identity(&self) -> TargetIdentity {
        let one = |device: &str| TargetIdentity { device: device.to_owned(), ..Simulated::identity_of("batching") };
        several::identity_of(&[one("sim:0"), one("sim:1")])
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        let law = ServiceLaw::Batching(BatchingLaw {
            step_s: 0.01,
            per_sequence_s: 0.001,
            per_prefill_token_s: 0.0001,
            per_kv_token_s: 0.0,
            per_token_s: TokenPrices::default(),
            max_batch: 8,
            chunk_tokens: 512,
            kv_tokens: 100_000,
        });
        let target = |name: &str, seed| {
            let identity = TargetIdentity { device: name.to_owned(), ..Simulated::identity_of("batching") };
            Box::new(Named { identity, inner: Simulated::new("batching", law.clone(), seed) }) as Box<dyn Target>
        };
        Ok(Box::new(Several::new(vec![target("sim:0", 1), target("sim:1", 2)], 5)))
    }

    fn most_in_flight(&self) -> u32 {
        64
    }
}

/// A simulated target under a name of its own.
struct Named {
    identity: TargetIdentity,
    inner: Simulated,
}

impl Target for Named {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }
    fn submit(&mut self, request: Request, slot: Slot) {
        self.inner.submit(request, slot);
    }
    fn cancel(&mut self, slot: Slot) {
        self.inner.cancel(slot);
    }
    fn next_event(&mut self) -> Option<Event> {
        self.inner.next_event()
    }
    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        self.inner.advance(now)
    }
    fn has_events(&self) -> bool {
        self.inner.has_events()
    }
    fn counters(&self) -> TargetCounters {
        self.inner.counters()
    }
}

#[test]
fn a_node_with_two_devices_is_measured_with_both_at_work_and_one_alone() {
    let plan = Plan { slo: Some(campaign::slo("ttft:p90<200ms,tpot:p90<30ms")), ..Plan::full(41) };
    let ran = campaign::campaign_on(16, &mut TwoDevices, &plan, &mut Journal::none(), &mut Silent, &Interrupt::default());
    let levels = &ran.levels;
    let sweep: Vec<_> = levels.iter().filter(|level| level.purpose == Purpose::Sweep).collect();
    assert!(sweep.len() > 3);
    for level in &sweep {
        let Offered::Closed { concurrency } = level.offered else { panic!("a sweep is in closed loop") };
        assert!(concurrency.is_multiple_of(2), "each device has the same: {concurrency}");
        let names: Vec<_> = level.by_device.iter().map(|share| share.device.as_str()).collect();
        assert_eq!(names, ["sim:0", "sim:1"]);
        let sum: f64 = level.by_device.iter().map(|share| share.output_tokens_per_s).sum();
        assert!((sum - level.throughput.output_tokens_per_s).abs() < 1e-6 * sum);
    }
    let scaling = scaling::of(levels).expect("one device was measured alone");
    assert_eq!(scaling.device, "sim:0");
    assert!((scaling.ratio - 1.0).abs() < 0.05, "simulated devices cost each other nothing: {scaling:?}");
    let headline = ran.result.headline.expect("a number");
    let rate = headline.throughput_per_gpu.expect("a number");
    let alone = levels.iter().find(|level| matches!(level.purpose, Purpose::Solo { .. })).unwrap();
    assert_eq!(alone.per_device.devices, 1);
    assert!(rate < 1.1 * alone.throughput.calls_per_s, "the number is of one device: {rate}");
}
