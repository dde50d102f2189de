//! Known capacities are found: coverage, bias, false passes.

use crate::virtual_level::{Arrivals, Level, Metric, Objective, Scene, confirm, parallel, search};
use plimsoll::campaign::confirmation::Status;
use plimsoll::campaign::windows::Windows;
use plimsoll::clock::Nanos;
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::law::{BatchingLaw, ServiceLaw, ServiceTime};
use plimsoll::queueing::truth;
use plimsoll::record::search::{Found, Stop};
use plimsoll::rng;
use plimsoll::stats::quantile;

/// A search that converged there.
pub(crate) fn found(rate: f64) -> Found {
    Found { stop: Stop::Converged, rate: Some(rate), pass: Some(rate), fail: Some(1.05 * rate), gap: None, probes: 6, valid: 6 }
}

/// Long simulations of the cases that theory has no formula for: see `long_runs_say_so`.
const TRUTHS: [f64; 3] = [36.846, 36.592, 26.023];

struct Case {
    scene: Scene,
    truth: f64,
}

fn cases() -> Vec<Case> {
    let mean_s = 0.02;
    // A third of the published confirmation: the promise must hold for a small budget too.
    let windows = Windows { confirmation: Nanos::from_secs(200), ..Windows::full() };
    let one = |limit_s, allowed| vec![Objective { metric: Metric::E2e, limit_s, allowed }];
    let exponential = ServiceTime::Exponential { mean_s };
    let mut cases = Vec::new();
    for (name, limit, allowed) in [("M/M/1 p99", 20.0, 0.01), ("M/M/1 p90", 10.0, 0.10), ("M/M/1 p99 tight", 8.0, 0.01)] {
        let load = truth::highest_load(allowed, |load| truth::mm1_sojourn_over(load, limit));
        cases.push(Case {
            scene: Scene {
                name,
                law: ServiceLaw::Servers { count: 1, service: exponential },
                arrivals: Arrivals::Poisson,
                objectives: one(limit * mean_s, allowed),
                tokens: None,
                windows,
                start: 0.4 / mean_s,
            },
            truth: load / mean_s,
        });
    }
    cases.push(Case {
        scene: Scene {
            name: "M/M/4 p95",
            law: ServiceLaw::Servers { count: 4, service: ServiceTime::Exponential { mean_s: 4.0 * mean_s } },
            arrivals: Arrivals::Poisson,
            objectives: one(8.0 * 4.0 * mean_s, 0.05),
            tokens: None,
            windows,
            start: 0.4 / mean_s,
        },
        truth: truth::highest_load(0.05, |load| truth::mmc_sojourn_over(4, load, 8.0)) / mean_s,
    });
    cases.push(Case {
        scene: Scene {
            name: "M/D/1 p99",
            law: ServiceLaw::Servers { count: 1, service: ServiceTime::Deterministic { mean_s } },
            arrivals: Arrivals::Poisson,
            objectives: one(11.0 * mean_s, 0.01),
            tokens: None,
            windows,
            start: 0.4 / mean_s,
        },
        truth: truth::highest_load(0.01, |load| truth::md1_wait_over(load, 10.0)) / mean_s,
    });
    let batching = BatchingLaw {
        step_s: 0.008,
        per_sequence_s: 0.0004,
        per_prefill_token_s: 0.00004,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 32,
        chunk_tokens: 512,
        kv_tokens: 20_000,
    };
    for (name, arrivals, law, objectives, tokens, truth, start) in [
        (
            "bursty/M/1 p99",
            Arrivals::Gamma(0.5),
            ServiceLaw::Servers { count: 1, service: exponential },
            one(25.0 * mean_s, 0.01),
            None,
            TRUTHS[0],
            0.4 / mean_s,
        ),
        (
            "D/M/2 p95",
            Arrivals::Constant,
            ServiceLaw::Servers { count: 2, service: ServiceTime::Exponential { mean_s: 2.0 * mean_s } },
            one(8.0 * mean_s, 0.05),
            None,
            TRUTHS[1],
            0.4 / mean_s,
        ),
        (
            "batching p95",
            Arrivals::Poisson,
            ServiceLaw::Batching(batching),
            vec![
                Objective { metric: Metric::Ttft, limit_s: 0.3, allowed: 0.05 },
                Objective { metric: Metric::Tpot, limit_s: 0.025, allowed: 0.05 },
            ],
            Some((200.0, 32.0)),
            TRUTHS[2],
            15.0,
        ),
    ] {
        cases.push(Case { scene: Scene { name, law, arrivals, objectives, tokens, windows, start }, truth });
    }
    cases
}

/// What a number of searches on one case came to.
struct Row {
    headlines: usize,
    covered: usize,
    /// Relative to the truth.
    median_error: f64,
    line: String,
}

fn searches(case: &Case, count: u64, seed: u64) -> Row {
    let results = parallel(count, |index| {
        // Every search starts elsewhere, so that no grid of rates favours the truth.
        let mut scene = case.scene.clone();
        scene.start *= 1.0 + rng::uniform_at(seed, index);
        let found = search(&scene, rng::at(seed, index));
        let confirmed = found.rate.map(|rate| confirm(&scene, rate, rng::at(seed, index)));
        (found.probes, confirmed)
    });
    let (mut errors, mut widths, mut covered) = (Vec::new(), Vec::new(), 0);
    for confirmed in results.iter().filter_map(|(_, confirmed)| confirmed.as_ref()) {
        let (Some(rate), Some(interval), Status::Confirmed) = (confirmed.rate, confirmed.interval, confirmed.status) else { continue };
        errors.push(rate / case.truth - 1.0);
        widths.push((interval.high - interval.low) / rate);
        covered += usize::from(interval.contains(case.truth));
    }
    let headlines = errors.len();
    let median = |values: &mut [f64]| quantile::of_floats(values, 0.5).unwrap_or(f64::NAN);
    let (median_error, width) = (median(&mut errors), median(&mut widths));
    let probes = results.iter().map(|(probes, _)| *probes as f64).sum::<f64>() / count as f64;
    let line = format!(
        "| {} | {:.3} | {count} | {headlines} | {:.1} % | {:+.2} % | {:.1} % | {probes:.1} |",
        case.scene.name,
        case.truth,
        100.0 * covered as f64 / headlines as f64,
        100.0 * median_error,
        100.0 * width
    );
    Row { headlines, covered, median_error, line }
}

/// `PLIMSOLL_TEST_SEARCHES` sets the number of searches a case; the record was made with 1000.
#[test]
fn a_thousand_searches_cover_the_known_capacity() {
    #[expect(clippy::disallowed_methods, reason = "tests read their own switches")]
    let each = std::env::var("PLIMSOLL_TEST_SEARCHES").ok().and_then(|count| count.parse().ok()).unwrap_or(125);
    println!("| case | truth, calls/s | searches | headlines | covered | median error | median width | probes |");
    let (mut headlines, mut covered) = (0, 0);
    for case in cases() {
        let row = searches(&case, each, 7);
        println!("{}", row.line);
        headlines += row.headlines;
        covered += row.covered;
        assert!(row.median_error.abs() < 0.01, "biased: {}", row.line);
        assert!(row.covered as f64 >= 0.90 * row.headlines as f64, "too short an interval: {}", row.line);
        assert!(row.headlines as f64 >= 0.90 * each as f64, "too often without a headline: {}", row.line);
    }
    let share = covered as f64 / headlines as f64;
    println!("{covered} of {headlines} intervals hold the truth: {:.1} %", 100.0 * share);
    assert!(share >= 0.93, "{covered} of {headlines} intervals hold the truth");
}

/// Prints the truths of [`TRUTHS`]: bisection over runs of two million requests, all with the same random numbers.
#[test]
#[ignore = "minutes; its answers are in TRUTHS"]
fn long_runs_say_so() {
    for case in cases().into_iter().filter(|case| TRUTHS.contains(&case.truth)) {
        let (mut low, mut high) = (case.scene.start * 0.5, case.scene.start * 2.5);
        for _ in 0..11 {
            let rate = 0.5 * (low + high);
            let (mut misses, mut requests) = (vec![0_usize; 2], 0_usize);
            for seed in 0..4 {
                let mut level = Level::new(&case.scene, rate, rng::at(1, seed));
                level.begin_at(Nanos::from_secs_f64(20_000.0 / rate));
                let cohort = level.window(Nanos::from_secs_f64(500_000.0 / rate));
                requests += cohort.arrivals as usize;
                for (sum, objective) in misses.iter_mut().zip(&cohort.objectives) {
                    *sum += objective.requests.iter().filter(|(_, missed)| *missed).count();
                }
            }
            let met = case.scene.objectives.iter().zip(&misses).all(|(one, misses)| *misses as f64 <= one.allowed * requests as f64);
            println!("{} {rate} {misses:?} {requests}", case.scene.name);
            if met { low = rate } else { high = rate }
        }
        println!("TRUTH {} {}", case.scene.name, 0.5 * (low + high));
    }
}
