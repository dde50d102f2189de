//! The search by itself: what it goes by, what it reports, and how long windows must be for it.

use plimsoll::campaign::crossing::{Counted, LevelShares};
use plimsoll::campaign::headline;
use plimsoll::campaign::search::{Probed, Search, SearchSpec, Step};
use plimsoll::campaign::windows::{LevelShape, Windows};
use plimsoll::clock::Nanos;
use plimsoll::record::run::HeadlineStatus;
use plimsoll::record::search::{Found, Stop};
use plimsoll::record::verdict::Outcome;
use plimsoll::stats::share::Block;

/// Ends a search whose probes show `outcome` and are taken for `likely`.
fn search(outcome: impl Fn(f64) -> Option<Outcome>, likely: impl Fn(f64) -> Option<Outcome>) -> Found {
    let spec = SearchSpec { start: 32.0, minimum: 1.0, maximum: 1e9, tolerance: 0.05, probes_max: 24, allowed: vec![0.1], seed: 1 };
    let mut search = Search::new(spec);
    loop {
        match search.next() {
            Step::Done(found) => return found,
            Step::Probe { rate, .. } => {
                let counted = Counted { block: Block { misses: 1, requests: 10 }, clustering: 1.0, worth: 1.0, freedom: 9 };
                let level = LevelShares { rate, objectives: vec![counted] };
                search.report(Probed { level, outcome: outcome(rate), likely: likely(rate) });
            }
        }
    }
}

fn queue(rate: f64) -> Option<Outcome> {
    Some(if rate < 50.0 { Outcome::Met } else { Outcome::Broken })
}

#[test]
fn what_a_search_only_guessed_is_its_way_and_not_its_bound() {
    let found = search(|_| Some(Outcome::Undecided), queue);
    assert_eq!((found.stop, found.pass, found.fail), (Stop::Converged, None, None));
    assert!(found.rate.is_some_and(|rate| (rate / 50.0 - 1.0).abs() < 0.05), "{found:?}");
    let words = headline::in_words(&found);
    assert!(words.contains("no decided pass and no decided fail"), "{words}");
    let decided = search(queue, queue);
    assert!(decided.pass.is_some_and(|pass| pass < 50.0) && decided.fail.is_some_and(|fail| fail >= 50.0), "{decided:?}");
}

#[test]
fn only_a_decided_fail_says_that_the_slo_is_broken_at_the_lowest_load() {
    let broken = |_| Some(Outcome::Broken);
    assert_eq!(search(broken, broken).stop, Stop::SloUnmetAtMinimum);
    let guessed = search(|_| Some(Outcome::Undecided), broken);
    assert_eq!(guessed.stop, Stop::Undecided);
    assert_eq!(headline::of(&guessed, None, &[], 1.0).status, HeadlineStatus::Undecided);
}

#[test]
fn a_search_without_one_valid_level_has_no_valid_bound() {
    let found = search(|_| None, |_| None);
    assert_eq!((found.stop, found.valid), (Stop::Probes, 0));
    let headline = headline::of(&found, None, &[], 1.0);
    assert_eq!(headline.status, HeadlineStatus::NoValidBound);
    assert!(headline.explanation.contains("out of probes"), "{}", headline.explanation);
}

#[test]
fn no_window_is_shorter_than_its_decision_needs() {
    let shape = LevelShape { rate: 10.0, e2e_p95: Nanos::from_secs(2), ttft_limit: Some(Nanos::from_secs(30)), allowed_min: 0.01 };
    let full = Windows::full();
    // An overload of 5 % takes 1,200 s to reach twice a limit of 30 s.
    assert!(full.first_look(&shape) >= Nanos::from_secs(1200), "{:?}", full.first_look(&shape));
    assert_eq!(full.to_confirm(&shape), full.first_look(&shape), "a confirmation needs as much");
    let slow = LevelShape { e2e_p95: Nanos::from_secs(60), ttft_limit: None, ..shape };
    assert!(full.to_confirm(&slow) >= Nanos::from_secs(2400), "20 blocks of two slow requests");
    let quick = Windows::quick();
    assert!(quick.needed(&shape) > quick.to_confirm(&shape), "a quick run says that it cut this one");
}
