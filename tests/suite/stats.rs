//! Statistics against values published elsewhere.

use plimsoll::rng;
use plimsoll::stats::batch_means::batch_means;
use plimsoll::stats::early_stopping::{CONFIDENCE, requests_needed};
use plimsoll::stats::histogram::Histogram;
use plimsoll::stats::interval::student;
use plimsoll::stats::isotonic::non_decreasing;
use plimsoll::stats::share::{Block, clustering, effective_bounds};
use plimsoll::stats::special::{binomial_at_most, ln_gamma, student_quantile};
use plimsoll::stats::trend::trend;
use plimsoll::stats::{bootstrap, mser, quantile};
use proptest::prelude::*;

#[test]
fn mlperf_early_stopping_counts_are_reproduced() {
    for (allowed, counts) in [(0.01, [459, 662, 838, 1307, 2010]), (0.05, [90, 130, 165, 259, 398]), (0.10, [44, 64, 81, 127, 197])] {
        for (misses, needed) in [0, 1, 2, 5, 10].into_iter().zip(counts) {
            assert_eq!(requests_needed(misses, allowed, CONFIDENCE), needed, "{misses} misses, {allowed} allowed");
        }
    }
}

#[test]
fn student_and_gamma_agree_with_the_tables() {
    for (freedom, table) in [(1.0, 12.706), (2.0, 4.303), (4.0, 2.776), (10.0, 2.228), (30.0, 2.042), (65_535.0, 1.960)] {
        assert!((student_quantile(0.975, freedom) - table).abs() < 6e-4, "{freedom} degrees of freedom");
    }
    assert!((ln_gamma(10.0) - 362_880_f64.ln()).abs() < 1e-12);
    assert!((binomial_at_most(1, 3, 0.5) - 0.5).abs() < 1e-12);
}

#[test]
fn nearest_rank_takes_an_observed_value() {
    let values: Vec<u64> = (1..=100).collect();
    for (q, expected) in [(0.0, 1), (0.07, 7), (0.5, 50), (0.99, 99), (1.0, 100)] {
        assert_eq!(quantile::of_sorted(&values, q), Some(expected), "quantile {q}");
    }
    assert_eq!(quantile::of_sorted::<u64>(&[], 0.5), None);
}

proptest! {
    #[test]
    fn the_histogram_agrees_with_the_sorted_list_within_three_figures(mut values in prop::collection::vec(1_u64..10_000_000_000, 1..300), q in 0.0..1.0_f64) {
        let mut histogram = Histogram::new();
        values.iter().for_each(|value| histogram.record(*value));
        let exact = quantile::of_nanos(&mut values, q).expect("not empty") as f64;
        let shown = histogram.quantile(q).expect("not empty") as f64;
        prop_assert!((shown / exact - 1.0).abs() < 2e-3, "{shown} against {exact}");
    }

    #[test]
    fn pooled_sequences_never_fall_and_keep_their_weight(values in prop::collection::vec(0.0..1.0_f64, 1..30)) {
        let weights: Vec<f64> = (1..=values.len()).map(|index| index as f64).collect();
        let pooled = non_decreasing(&values, &weights);
        prop_assert!(pooled.windows(2).all(|pair| pair[0] <= pair[1] + 1e-12));
        let total = |values: &[f64]| values.iter().zip(&weights).map(|(value, weight)| value * weight).sum::<f64>();
        prop_assert!((total(&pooled) - total(&values)).abs() < 1e-9);
    }
}

#[test]
fn a_rank_that_falls_on_a_failure_has_no_value() {
    let mut histogram = Histogram::new();
    (1..=98).for_each(|value| histogram.record(value));
    histogram.record_infinite();
    histogram.record_infinite();
    assert_eq!(histogram.quantile(0.98), Some(98));
    assert_eq!(histogram.quantile(0.99), None);
}

#[test]
fn bounds_of_independent_misses_are_the_exact_binomial_ones() {
    // No misses in 300 requests: the upper 97.5 % bound is 1 - 0.025^(1/300).
    let blocks = vec![Block { misses: 0, requests: 15 }; 20];
    let bounds = effective_bounds(&blocks, 0.95).expect("there are requests");
    assert!((bounds.high - (1.0 - 0.025_f64.powf(1.0 / 300.0))).abs() < 1e-9);
    assert_eq!(bounds.low, 0.0);
}

#[test]
fn misses_in_one_cluster_count_as_about_one() {
    let mut blocks = vec![Block { misses: 0, requests: 500 }; 20];
    blocks[7].misses = 30;
    assert!((20.0..40.0).contains(&clustering(&blocks)));
    let clustered = effective_bounds(&blocks, 0.95).expect("there are requests");
    let drawn = bootstrap::share(&blocks, 0.95, 1000, &mut rng::stream(1, "test")).expect("there are requests");
    assert!(clustered.high > 0.01, "30 misses in one wave of 10,000 do not show a share under 1 %");
    assert!(clustered.high > drawn.high, "a bootstrap of one cluster is too sure of itself");
}

#[test]
fn warm_up_is_cut_where_it_ends() {
    let series: Vec<f64> =
        (0..200).map(|index| if index < 40 { f64::from(index) } else { 40.0 + rng::uniform_at(3, index as u64) }).collect();
    assert_eq!(mser::truncation(&series), Some(40));
    let growing: Vec<f64> = (0..200).map(f64::from).collect();
    assert_eq!(mser::truncation(&growing), None, "a ramp never settles");
}

/// A random walk has no trend, however much it wanders; least squares would find one nearly always.
#[test]
fn a_random_walk_is_seldom_called_a_trend() {
    let walk = |seed: u64, drift: f64| -> Vec<f64> {
        (0..400_u64)
            .scan(0.0, |at, step| {
                *at += rng::uniform_at(seed, step) - 0.5 + drift;
                Some(*at)
            })
            .collect()
    };
    let rising =
        |drift: f64| (0..1000).filter(|seed| trend(&walk(*seed, drift), 1.0, 0.95).expect("long enough").interval.low > 0.0).count();
    assert!((10..=45).contains(&rising(0.0)), "{} of 1000", rising(0.0));
    assert!(rising(0.1) > 990, "{} of 1000", rising(0.1));
}

#[test]
fn batch_means_cover_the_mean_of_a_correlated_series() {
    let covered = (0..400_u64).filter(|seed| {
        let series: Vec<f64> = (0..4000_u64)
            .scan(0.0, |at, step| {
                *at = 0.9 * *at + rng::uniform_at(*seed, step) - 0.5;
                Some(*at)
            })
            .collect();
        batch_means(&series, 10, 0.95).is_some_and(|means| means.interval.contains(0.0))
    });
    assert!(covered.count() >= 360);
    let plain = student(&[1.0, 2.0, 3.0], 0.95).expect("three values");
    assert!((plain.high - 4.484).abs() < 1e-3, "{plain:?}");
}
