//! Arrival schedules: the asked rate, the stated burstiness, the same again for the same seed.

use plimsoll::clock::Nanos;
use plimsoll::workload::arrivals::ArrivalProcess;
use plimsoll::workload::rate_series::{RateSegment, RateSeries, Then};
use proptest::prelude::*;

fn gamma(burstiness: f64) -> ArrivalProcess {
    ArrivalProcess::Gamma { burstiness }
}

fn series(segments: &[(f64, f64, f64)], then: Then) -> ArrivalProcess {
    let segments = segments.iter().map(|(seconds, from, to)| RateSegment { seconds: *seconds, from: *from, to: *to }).collect();
    ArrivalProcess::Series(RateSeries { segments, then })
}

/// Mean and coefficient of variation of the first `count` gaps, seconds.
fn gaps(process: &ArrivalProcess, rate: f64, seed: u64, count: usize) -> (f64, f64) {
    let stamps: Vec<f64> = process.schedule(rate, seed).take(count + 1).map(Nanos::as_secs_f64).collect();
    let gaps: Vec<f64> = stamps.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / count as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count as f64;
    (mean, variance.sqrt() / mean)
}

/// Arrivals before `seconds`.
fn count_until(process: &ArrivalProcess, rate: f64, seed: u64, seconds: f64) -> usize {
    process.schedule(rate, seed).take_while(|at| at.as_secs_f64() < seconds).count()
}

#[test]
fn every_process_keeps_the_asked_rate_and_its_own_burstiness() {
    const SEEDS: u64 = 40;
    const GAPS: usize = 5_000;
    let cases = [
        (ArrivalProcess::Constant, 0.0),
        (ArrivalProcess::Poisson, 1.0),
        (gamma(0.25), 2.0),
        (gamma(1.0), 1.0),
        (gamma(4.0), 0.5),
        (series(&[(10.0, 1.0, 1.0)], Then::Hold), 1.0),
        (series(&[(10.0, 3.0, 3.0)], Then::Repeat), 1.0),
    ];
    for (process, cv) in cases {
        for rate in [0.5, 40.0, 100_000.0] {
            let each: Vec<(f64, f64)> = (0..SEEDS).map(|seed| gaps(&process, rate, seed, GAPS)).collect();
            let mean = each.iter().map(|(mean, _)| mean * rate).sum::<f64>() / SEEDS as f64;
            let found = each.iter().map(|(_, cv)| cv).sum::<f64>() / SEEDS as f64;
            // Four standard errors of the mean of SEEDS x GAPS gaps.
            let tolerance = 4.0 * cv / ((SEEDS * GAPS as u64) as f64).sqrt() + 1e-6;
            assert!((mean - 1.0).abs() < tolerance, "{process} at {rate}: mean gap {mean} of the asked one");
            assert!((found - cv).abs() < 0.02 * cv + 1e-4, "{process} at {rate}: coefficient of variation {found}, not {cv}");
        }
    }
}

#[test]
fn poisson_counts_scatter_as_their_mean() {
    // Index of dispersion of counts in windows of one second: variance over mean, 1 for Poisson.
    let mut counts = vec![0_u32; 20_000];
    for at in ArrivalProcess::Poisson.schedule(7.0, 3).take_while(|at| at.as_secs_f64() < 20_000.0) {
        counts[at.as_secs_f64() as usize] += 1;
    }
    let mean = counts.iter().map(|count| f64::from(*count)).sum::<f64>() / counts.len() as f64;
    let variance = counts.iter().map(|count| (f64::from(*count) - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    assert!((mean - 7.0).abs() < 0.08, "mean {mean}");
    assert!((variance / mean - 1.0).abs() < 0.04, "dispersion {}", variance / mean);
}

#[test]
fn a_constant_schedule_does_not_drift() {
    let at = ArrivalProcess::Constant.schedule(3.0, 0).nth(3_000_000).expect("a schedule is endless");
    assert_eq!(at, Nanos::from_secs(1_000_000));
}

#[test]
fn a_schedule_is_a_function_of_its_seed() {
    for process in [ArrivalProcess::Poisson, gamma(0.5), series(&[(1.0, 0.0, 2.0)], Then::Repeat)] {
        let take = |seed| process.schedule(10.0, seed).take(500).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }
}

#[test]
fn schedules_of_neighbouring_seeds_are_not_correlated() {
    let gaps = |seed| {
        let stamps: Vec<f64> = ArrivalProcess::Poisson.schedule(1.0, seed).take(20_001).map(Nanos::as_secs_f64).collect();
        stamps.windows(2).map(|pair| pair[1] - pair[0] - 1.0).collect::<Vec<f64>>()
    };
    for seed in 0..10 {
        let correlation = gaps(seed).iter().zip(gaps(seed + 1)).map(|(one, other)| one * other).sum::<f64>() / 20_000.0;
        assert!(correlation.abs() < 0.035, "seeds {seed} and {}: {correlation}", seed + 1);
    }
}

#[test]
fn a_step_a_ramp_and_a_spike_have_the_arrivals_of_their_areas() {
    let spike = series(&[(10.0, 1.0, 1.0), (5.0, 10.0, 10.0), (10.0, 1.0, 1.0)], Then::Hold);
    let ramp = series(&[(20.0, 0.0, 2.0)], Then::Repeat);
    let fall = series(&[(10.0, 4.0, 0.0)], Then::Hold);
    for (process, until, area) in [
        (&spike, 10.0, 10.0),
        (&spike, 15.0, 60.0),
        (&spike, 25.0, 70.0),
        (&spike, 100.0, 145.0),
        (&ramp, 10.0, 5.0),
        (&ramp, 20.0, 20.0),
        (&ramp, 50.0, 45.0),
        (&fall, 5.0, 15.0),
        (&fall, 1_000.0, 20.0),
    ] {
        let (rate, seeds) = (50.0, 40_u64);
        let mean = (0..seeds).map(|seed| count_until(process, rate, seed, until) as f64).sum::<f64>() / seeds as f64;
        let expected = rate * area;
        let tolerance = 4.0 * (expected / seeds as f64).sqrt();
        assert!((mean - expected).abs() < tolerance, "{process} until {until} s: {mean} arrivals, not {expected}");
    }
}

#[test]
fn a_series_that_repeats_has_the_asked_rate_over_whole_periods() {
    let segments = [(10.0, 1.0, 1.0), (5.0, 10.0, 10.0), (10.0, 1.0, 1.0)];
    let spike = series(&segments, Then::Repeat);
    let (rate, seeds) = (50.0, 40_u64);
    // A tenth of a period: 2.5 s at 1 of a mean of 2.8.
    for (until, expected) in [(25.0, 1250.0), (250.0, 12_500.0), (2.5, 2.5 / 2.8 * 50.0)] {
        let mean = (0..seeds).map(|seed| count_until(&spike, rate, seed, until) as f64).sum::<f64>() / seeds as f64;
        let tolerance = 4.0 * (expected / seeds as f64).sqrt();
        assert!((mean - expected).abs() < tolerance, "until {until} s: {mean} arrivals, not {expected}");
    }
    assert_eq!(spike.keeps_rate(), Ok(()));
    let held = series(&segments, Then::Hold).keeps_rate().expect_err("2.8 times the asked rate").to_string();
    assert!(held.contains("averages `2.8` times the asked rate") && held.contains("then = \"repeat\""), "{held}");
    assert!(series(&[(10.0, 0.0, 2.0)], Then::Hold).keeps_rate().is_err(), "it holds twice the asked rate");
    assert_eq!(series(&[(10.0, 0.0, 2.0), (5.0, 1.0, 1.0)], Then::Hold).keeps_rate(), Ok(()));
}

#[test]
fn a_rate_or_process_that_makes_no_sense_has_no_arrivals() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(ArrivalProcess::Poisson.schedule(rate, 0).next(), None);
    }
    assert_eq!(gamma(0.0).schedule(1.0, 0).next(), None);
    assert_eq!(series(&[], Then::Repeat).schedule(1.0, 0).next(), None);
    assert_eq!(series(&[(5.0, 0.0, 0.0)], Then::Repeat).schedule(1.0, 0).next(), None);
}

#[test]
fn a_process_is_named_on_the_command_line() {
    assert_eq!("poisson".parse(), Ok(ArrivalProcess::Poisson));
    assert_eq!("constant".parse(), Ok(ArrivalProcess::Constant));
    assert_eq!("gamma:0.25".parse(), Ok(gamma(0.25)));
    let refused = |text: &str| text.parse::<ArrivalProcess>().expect_err("it should be refused").to_string();
    assert_eq!(refused("gamma:-1"), "the burstiness `-1` is not a number above 0. Take 1 for Poisson, less for burstier traffic");
    assert!(refused("uniform").starts_with("`uniform` is no arrival process. Take `constant`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn offsets_never_go_back(
        seed: u64,
        rate in 0.01_f64..1e6,
        burstiness in 0.05_f64..20.0,
        levels in prop::collection::vec((0.1_f64..30.0, 0.0_f64..5.0, 0.1_f64..5.0), 1..5),
    ) {
        for process in [ArrivalProcess::Constant, ArrivalProcess::Poisson, gamma(burstiness), series(&levels, Then::Repeat), series(&levels, Then::Hold)] {
            let stamps: Vec<Nanos> = process.schedule(rate, seed).take(300).collect();
            prop_assert_eq!(stamps.len(), 300);
            prop_assert!(stamps.is_sorted(), "{}", process);
        }
    }
}
