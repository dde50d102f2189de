//! The ring between target and generator.

use plimsoll::clock::Nanos;
use plimsoll::target::sink::ring;
use plimsoll::target::{Event, EventKind, Slot};

fn event(number: u64) -> Event {
    Event { slot: Slot(number as u32 % 7), at: Nanos(number), kind: EventKind::Tokens(number as u32) }
}

#[test]
fn events_arrive_once_and_in_order_across_threads() {
    let (mut sink, mut events) = ring(64);
    let count = 200_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut number = 0;
            while number < count {
                sink.report(event(number));
                number += 1;
                if number % 32 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut seen = 0;
        let mut last = None;
        while seen + events.lost() < count {
            let Some(event) = events.take() else {
                std::hint::spin_loop();
                continue;
            };
            assert!(last < Some(event.at), "{:?} after {last:?}", event.at);
            assert_eq!(event.kind, EventKind::Tokens(event.at.0 as u32), "an event is never torn");
            last = Some(event.at);
            seen += 1;
        }
        assert_eq!(seen + events.lost(), count, "each event was seen or counted as lost");
    });
}

#[test]
fn a_full_ring_counts_what_it_loses_and_never_blocks() {
    let (mut sink, mut events) = ring(8);
    for number in 0..11 {
        sink.report(event(number));
    }
    assert_eq!(events.lost(), 3);
    assert!(events.waiting());
    let kept: Vec<u64> = std::iter::from_fn(|| events.take()).map(|event| event.at.0).collect();
    assert_eq!(kept, (0..8).collect::<Vec<_>>());
    assert!(!events.waiting());
    sink.report(event(99));
    assert_eq!(events.take().map(|event| event.at.0), Some(99), "there is room again");
}

#[test]
fn the_end_of_a_request_wakes_a_sleeping_generator() {
    let (mut sink, events) = ring(8);
    events.wake_this_thread();
    std::thread::scope(|scope| {
        scope.spawn(move || sink.report(Event { kind: EventKind::Completed, ..event(1) }));
        while !events.waiting() {
            std::thread::park();
        }
    });
}
