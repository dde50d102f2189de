//! Whose fault a level is: the generator's own lateness counts, waiting at the cap does not.

use plimsoll::campaign::tally::{self, Brief, Gaps};
use plimsoll::campaign::validity::{Course, Measured, Tokens, judge};
use plimsoll::clock::Nanos;
use plimsoll::load::Driven;
use plimsoll::record::level::GeneratorAudit;
use plimsoll::record::verdict::Invalid;

use crate::support::records;

/// A thousand requests, one a millisecond, sent so late; judged with that audit and those tokens.
fn judged(lag: impl Fn(u64) -> Nanos, audit: GeneratorAudit, tokens: Tokens, open_loop: bool) -> Vec<Invalid> {
    let cohort: Vec<Brief> = (0..1000)
        .map(|id| {
            let mut record = records::request(id);
            record.sent = Some(record.intended + lag(id));
            Brief::of(&record)
        })
        .collect();
    let latency = tally::latencies(&cohort, &Gaps::default());
    judge(&Measured {
        cohort: &cohort,
        latency: &latency,
        audit: &audit,
        driven: &Driven::default(),
        course: Course::Settled,
        tokens,
        open_loop,
        natural_length: false,
        virtual_time: false,
    })
}

fn audit(waited_at_cap: u64) -> GeneratorAudit {
    GeneratorAudit { achieved_over_offered: 1.0, waited_at_cap, ..GeneratorAudit::default() }
}

#[test]
fn a_level_whose_requests_all_outlast_its_window_measured_nothing() {
    let empty = Measured {
        cohort: &[],
        latency: &tally::latencies(&[], &Gaps::default()),
        audit: &audit(0),
        driven: &Driven::default(),
        course: Course::Settled,
        tokens: EVEN,
        open_loop: false,
        natural_length: false,
        virtual_time: false,
    };
    assert_eq!(judge(&empty), vec![Invalid::NothingBegan]);
    let failing = judge(&Measured { course: Course::Failing, ..empty });
    assert_eq!(failing, vec![], "a dead target is a result");
}

const EVEN: Tokens = Tokens { by_target: 5000, received: 5000, in_flight: 10 };

#[test]
fn arrivals_that_waited_at_the_cap_excuse_themselves_and_no_others() {
    let waits = |id: u64| if id < 50 { Nanos::from_secs(3) } else { Nanos(1000) };
    assert_eq!(judged(waits, audit(50), EVEN, true), vec![]);
    assert!(matches!(judged(waits, audit(0), EVEN, true)[..], [Invalid::SendLag { .. }]), "nobody waited at a cap");
    let late = |id: u64| if id == 0 { Nanos::from_secs(3) } else { Nanos::from_millis(5) };
    assert!(matches!(judged(late, audit(1), EVEN, true)[..], [Invalid::SendLag { p99_ms, .. }] if p99_ms < 6.0));
    let behind = GeneratorAudit { achieved_over_offered: 0.9, ..audit(1) };
    assert!(matches!(judged(|_| Nanos::ZERO, behind, EVEN, true)[..], [Invalid::GeneratorBehind { .. }]));
    let held_back = GeneratorAudit { achieved_over_offered: 0.9, ..audit(100) };
    assert_eq!(judged(|_| Nanos::ZERO, held_back, EVEN, true), vec![]);
}

#[test]
fn a_busy_generator_spoils_closed_loop_levels_too() {
    let busy = GeneratorAudit { cpu_share: 0.9, ..audit(0) };
    for open_loop in [true, false] {
        assert!(matches!(judged(|_| Nanos::ZERO, busy, EVEN, open_loop)[..], [Invalid::GeneratorSaturated { .. }]));
    }
}

#[test]
fn token_counts_of_target_and_generator_must_agree() {
    let off = |by_target| judged(|_| Nanos::ZERO, audit(0), Tokens { by_target, ..EVEN }, true);
    assert_eq!(off(5060), vec![], "what is under way");
    assert_eq!(off(0), vec![], "a target that counts none");
    for by_target in [4000, 6000] {
        assert_eq!(off(by_target), vec![Invalid::TokenCounts { by_target, received: 5000 }]);
    }
}
