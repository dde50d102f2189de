//! Several engines as one target: every request is served once, and no engine gets another share than it should.

use plimsoll::clock::{Clock, Nanos, Virtual};
use plimsoll::queueing::law::{ServiceLaw, ServiceTime};
use plimsoll::target::several::Several;
use plimsoll::target::simulated::Simulated;
use plimsoll::target::{EventKind, Slot, Spread, Target};
use plimsoll::workload::request::{Prompt, Request, Sampling};

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
