//! A level that misses too often does not pass, and one that cannot keep up is found unstable.

use plimsoll::campaign::windows::Windows;
use plimsoll::clock::Nanos;
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::law::{BatchingLaw, ServiceLaw, ServiceTime};
use plimsoll::record::verdict::Outcome;
use plimsoll::rng;

use crate::virtual_level::{Arrivals, Level, Metric, Objective, Scene, parallel, probe};

const MEAN_S: f64 = 0.02;

fn queue(service: ServiceTime, limit_s: f64, allowed: f64) -> Scene {
    Scene {
        name: "one server",
        law: ServiceLaw::Servers { count: 1, service },
        arrivals: Arrivals::Poisson,
        objectives: vec![Objective { metric: Metric::E2e, limit_s, allowed }],
        tokens: None,
        windows: Windows::full(),
        start: 1.0,
    }
}

fn passes(scene: &Scene, rate: f64, seed: u64) -> bool {
    probe(scene, rate, seed).0.outcome == Outcome::Met
}

/// In M/M/1 the sojourn is exponential with rate 1 - load, so for any load the limit can be chosen that a wanted share
/// misses.
#[test]
fn of_levels_that_miss_more_than_allowed_at_most_one_in_twenty_passes() {
    for allowed in [0.01, 0.1] {
        for times in [1.5_f64, 2.0, 3.0] {
            let passed = parallel(500, |index| {
                let load = [0.85, 0.90, 0.95, 0.98][index as usize % 4];
                let limit_s = -(times * allowed).ln() / (1.0 - load) * MEAN_S;
                let scene = queue(ServiceTime::Exponential { mean_s: MEAN_S }, limit_s, allowed);
                passes(&scene, load / MEAN_S, rng::at(11, index))
            });
            println!("by load {:?}", [0, 1, 2, 3].map(|load| passed.iter().skip(load).step_by(4).filter(|passed| **passed).count()));
            let passed = passed.into_iter().filter(|passed| *passed).count();
            println!("allowed {allowed}, true share {times} times that: {passed} of 500 passed");
            assert!(passed <= 25, "{passed} of 500 levels with {times} times the allowed misses passed at {allowed}");
        }
    }
}

#[test]
fn levels_a_little_past_stability_do_not_pass() {
    let passed = parallel(500, |index| {
        let load = [1.0, 1.02, 1.05][index as usize % 3];
        passes(&queue(ServiceTime::Exponential { mean_s: MEAN_S }, 40.0 * MEAN_S, 0.01), load / MEAN_S, rng::at(12, index))
    });
    let passed = passed.into_iter().filter(|passed| *passed).count();
    println!("loads 1.00 to 1.05 of the stability limit: {passed} of 500 passed");
    assert!(passed <= 25, "{passed} of 500");
}

/// With a limit that nothing reaches, only the number in flight can tell.
#[test]
fn levels_two_to_five_percent_past_stability_are_found_unstable() {
    let far = 1e3;
    let mean_s = 0.005;
    let batching = BatchingLaw {
        step_s: 0.002,
        per_sequence_s: 0.0005,
        per_prefill_token_s: 0.0,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 8,
        chunk_tokens: 512,
        kv_tokens: 1 << 40,
    };
    for (name, service, past) in [
        ("M/M/1 2 %", ServiceTime::Exponential { mean_s }, 1.02),
        ("M/D/1 2 %", ServiceTime::Deterministic { mean_s }, 1.02),
        ("M/M/1 5 %", ServiceTime::Exponential { mean_s }, 1.05),
    ] {
        let scene = queue(service, far, 0.01);
        let unstable = parallel(60, |index| probe(&scene, past / mean_s, rng::at(13, index)).0.outcome == Outcome::Unstable);
        let unstable = unstable.into_iter().filter(|unstable| *unstable).count();
        println!("{name} past stability: {unstable} of 60 unstable");
        assert!(unstable >= 55, "{name}: {unstable} of 60");
    }
    let scene =
        Scene { law: ServiceLaw::Batching(batching), tokens: Some((8.0, 16.0)), ..queue(ServiceTime::Deterministic { mean_s }, far, 0.01) };
    // Its stability limit: what it completes when far too much is offered.
    let mut flooded = Level::new(&scene, 1000.0, 1);
    flooded.begin_at(Nanos::from_secs(20));
    let limit = flooded.window_only(Nanos::from_secs(400)).completions as f64 / 400.0;
    let unstable = parallel(40, |index| probe(&scene, 1.05 * limit, rng::at(14, index)).0.outcome == Outcome::Unstable);
    let unstable = unstable.into_iter().filter(|unstable| *unstable).count();
    println!("batching 5 % past its {limit:.1} requests/s: {unstable} of 40 unstable");
    assert!(unstable >= 38, "batching: {unstable} of 40");
}

#[test]
fn a_level_well_under_its_capacity_passes() {
    // Load 0.5, a limit that one in ten thousand misses.
    let scene = queue(ServiceTime::Exponential { mean_s: MEAN_S }, 18.4 * MEAN_S, 0.01);
    let passed = parallel(100, |index| passes(&scene, 0.5 / MEAN_S, rng::at(15, index))).into_iter().filter(|passed| *passed).count();
    assert!(passed >= 98, "{passed} of 100");
}
