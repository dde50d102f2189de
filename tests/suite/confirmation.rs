//! What a confirmation publishes: bounds that all runs together decided, and nothing between them.

use plimsoll::campaign::confirmation::{Confirmation, ConfirmationSpec, Confirmed, ConfirmedLevel, Next, Status};
use plimsoll::campaign::crossing::{Counted, LevelShares};
use plimsoll::campaign::headline;
use plimsoll::record::run::{Drift, HeadlineStatus};
use plimsoll::record::verdict::Outcome;
use plimsoll::stats::share::Block;

use crate::search_coverage::found;
use crate::small_run;

fn spec(found: f64, runs: u32, step: f64) -> ConfirmationSpec {
    ConfirmationSpec { found, runs, step, step_growth: 1.0, extensions_max: 3, allowed: vec![0.1], seed: 1 }
}

fn counted(misses: u64, requests: u64, clustering: f64) -> Counted {
    Counted { block: Block { misses, requests }, clustering, worth: clustering, freedom: 19 }
}

/// A level as a run of that outcome would report it.
fn level(run: u32, rate: f64, objectives: Vec<Counted>, outcome: Outcome) -> ConfirmedLevel {
    ConfirmedLevel { run, level: LevelShares { rate, objectives }, outcome: Some(outcome) }
}

/// Answers every wish until the end.
fn to_the_end(mut confirmation: Confirmation, mut answer: impl FnMut(u32, f64) -> ConfirmedLevel) -> Confirmed {
    for _ in 0..200 {
        match confirmation.next() {
            Next::Done(confirmed) => return confirmed,
            Next::Measure { run, rate, .. } => confirmation.report(answer(run, rate)),
        }
    }
    panic!("it never ends");
}

/// One run of five seconds at about 60 calls/s, with the verdicts that its shares have there.
const SEEN: [(u32, f64, u64, u64, Outcome); 8] = [
    (1, 54.72, 22, 274, Outcome::Undecided),
    (1, 60.8, 33, 304, Outcome::Undecided),
    (1, 66.88, 60, 335, Outcome::Broken),
    (1, 49.248, 15, 246, Outcome::Undecided),
    (2, 60.8, 12, 304, Outcome::Met),
    (2, 66.88, 38, 335, Outcome::Undecided),
    (2, 54.72, 16, 274, Outcome::Undecided),
    (2, 49.248, 8, 246, Outcome::Met),
];

#[test]
fn rates_that_no_verdict_decides_are_never_published_as_passed_and_failed() {
    let told = |more: u64| {
        let mut confirmation = Confirmation::new(spec(60.8, 2, 0.10));
        for (run, rate, misses, requests, outcome) in SEEN {
            confirmation.report(level(run, rate, vec![counted(misses + more, requests, 3.0)], outcome));
        }
        confirmation
    };
    // Both runs together decide the outermost rates; what lies between stays between.
    let Next::Done(confirmed) = told(0).next() else { panic!("{:?}", told(0).next()) };
    assert_eq!((confirmed.status, confirmed.pass, confirmed.fail), (Status::Confirmed, Some(49.248), Some(66.88)));
    // With a few misses more they do not.
    let confirmation = told(6);
    assert!(matches!(confirmation.next(), Next::Measure { .. }), "{:?}", confirmation.next());
    // All further levels say as little.
    let confirmed = to_the_end(confirmation, |run, rate| level(run, rate, vec![counted(22, 274, 3.0)], Outcome::Undecided));
    assert_eq!(confirmed.status, Status::Undecided);
    assert_eq!((confirmed.pass, confirmed.interval), (None, None));
    let headline = headline::of(&found(60.8), Some(&confirmed), &[], 1.0);
    assert_eq!((headline.status, headline.throughput_per_gpu, headline.bracket), (HeadlineStatus::Undecided, None, None));
    assert!(!headline.explanation.contains("passed at"), "{}", headline.explanation);
}

#[test]
fn an_estimate_between_undecided_rates_is_called_one() {
    let confirmed = to_the_end(Confirmation::new(spec(50.0, 2, 0.10)), |run, rate| {
        let misses = if rate < 51.0 { 26 } else { 34 };
        level(run, rate, vec![counted(misses, 300, 3.0)], Outcome::Undecided)
    });
    assert_eq!((confirmed.status, confirmed.pass, confirmed.fail), (Status::Undecided, None, None));
    let headline = headline::of(&found(50.0), Some(&confirmed), &[], 1.0);
    assert!(headline.explanation.contains("estimate between measured rates 50.000 and 55.000 calls/s, neither decided"), "{headline:?}");
}

/// Misses that rise as they do near a queue's capacity, with 10 % at 100 calls/s.
fn queue(rate: f64) -> u64 {
    let logit = (0.1_f64 / 0.9).ln() + 8.0 * (rate / 100.0).ln();
    (2000.0 / (1.0 + (-logit).exp())).round() as u64
}

#[test]
fn the_bracket_is_a_decided_pass_and_a_decided_fail_and_the_interval_holds_both() {
    let confirmed = to_the_end(Confirmation::new(spec(96.0, 3, 0.05)), |run, rate| {
        level(run, rate, vec![counted(queue(rate), 2000, 6.0)], Outcome::Undecided)
    });
    assert_eq!(confirmed.status, Status::Confirmed, "{confirmed:?}");
    let (Some(rate), Some(interval), Some(pass), Some(fail)) = (confirmed.rate, confirmed.interval, confirmed.pass, confirmed.fail) else {
        panic!("{confirmed:?}");
    };
    assert!((rate / 100.0 - 1.0).abs() < 0.01, "{rate}");
    assert!(pass < 97.0 && fail > 104.0, "what 6,000 requests in clusters of 6 can tell apart: {pass} {fail}");
    assert!(interval.low <= pass && interval.high >= fail, "{interval:?}");
    assert!(interval.low >= pass * 0.95 && interval.high <= fail * 1.05, "{interval:?}");
}

#[test]
fn one_run_that_fails_by_itself_leaves_no_pass_at_its_rate() {
    let confirmed = to_the_end(Confirmation::new(spec(96.0, 3, 0.05)), |run, rate| {
        let outcome = if run == 2 && rate > 80.0 && rate < 97.0 { Outcome::Broken } else { Outcome::Undecided };
        level(run, rate, vec![counted(queue(rate), 2000, 6.0)], outcome)
    });
    assert!(confirmed.pass.is_none_or(|pass| pass <= 80.0), "{confirmed:?}");
}

#[test]
fn a_rate_that_most_runs_cannot_keep_up_with_is_a_fail() {
    let confirmed = to_the_end(Confirmation::new(spec(96.0, 3, 0.05)), |run, rate| {
        let outcome = if rate > 100.0 { Outcome::Unstable } else { Outcome::Met };
        level(run, rate, vec![counted(20, 2000, 3.0)], outcome)
    });
    assert_eq!((confirmed.status, confirmed.pass, confirmed.fail), (Status::Confirmed, Some(96.0), Some(96.0 * 1.05)));
}

#[test]
fn a_curve_without_a_slope_ends_undecided_and_can_be_written_down() {
    for misses in [0, 150, 200, 250, 2000] {
        let confirmed = to_the_end(Confirmation::new(spec(96.0, 3, 0.05)), |run, rate| {
            level(run, rate, vec![counted(misses + u64::from(run == 2 && rate > 100.0), 2000, 6.0)], Outcome::Undecided)
        });
        assert_eq!(confirmed.status, Status::Undecided, "{misses}: {confirmed:?}");
        let text = serde_json::to_string(&confirmed).expect("plain data");
        assert_eq!(serde_json::from_str::<Confirmed>(&text).expect("what was written"), confirmed, "{text}");
    }
}

#[test]
fn an_objective_that_no_request_defines_takes_no_part() {
    let alone = to_the_end(Confirmation::new(spec(96.0, 3, 0.05)), |run, rate| {
        level(run, rate, vec![counted(queue(rate), 2000, 6.0)], Outcome::Undecided)
    });
    let two = ConfirmationSpec { allowed: vec![0.1, 0.01], ..spec(96.0, 3, 0.05) };
    let beside = to_the_end(Confirmation::new(two), |run, rate| {
        level(run, rate, vec![counted(queue(rate), 2000, 6.0), counted(0, 0, 1.0)], Outcome::Undecided)
    });
    assert_eq!(alone, beside);
}

#[test]
fn a_full_run_publishes_no_number_when_its_references_cannot_tell_a_drift() {
    let number = small_run::confirmed().headline.expect("it is confirmed");
    let judged = |drift: Option<Drift>, quick: bool| {
        let mut headline = number.clone();
        headline::judge_drift(&mut headline, drift.as_ref(), quick);
        (headline.status, headline.throughput_per_gpu.is_some())
    };
    let noisy = Some(Drift { first: 100.0, last: 100.5, limit: 0.02, noise: None });
    assert_eq!(judged(noisy, false), (HeadlineStatus::Undecided, false));
    assert_eq!(judged(noisy, true), (HeadlineStatus::Confirmed, true), "a quick run says so in a finding");
    let moved = Some(Drift { first: 100.0, last: 90.0, limit: 0.02, noise: Some(0.01) });
    assert_eq!(judged(moved, true), (HeadlineStatus::Drift, false));
    assert_eq!(judged(None, false), (HeadlineStatus::NoValidBound, false));
}
