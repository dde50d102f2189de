//! Curves through levels: knees of known laws, capacity at another SLO, and no answer outside what was measured.

use plimsoll::curve::load_latency::{LoadLatencyCurve, Reading, capacity_at};
use plimsoll::curve::saturation::{GAIN, Saturation, has_flattened, knee};
use plimsoll::record::level::Purpose;
use plimsoll::record::slo::{Slo, SloMetric, SloSource};
use plimsoll::record::verdict::{Invalid, Outcome};
use proptest::prelude::*;

use crate::small_run;

const DOUBLINGS: [u32; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

fn line(law: impl Fn(f64) -> f64) -> Vec<(u32, f64)> {
    DOUBLINGS.iter().map(|concurrency| (*concurrency, law(f64::from(*concurrency)))).collect()
}

#[test]
fn a_target_of_sixteen_servers_has_its_knee_at_sixteen() {
    // X(c) = min(c, 16) / R: within 3 % of the plateau at 16 / 1.03.
    let line = line(|concurrency| concurrency.min(16.0) * 2.0);
    assert!(has_flattened(&line));
    assert!((knee(&line).unwrap() - 16.0 / (1.0 + GAIN)).abs() < 1e-9);
}

#[test]
fn a_batch_law_has_its_knee_where_the_law_says() {
    // X(c) = c / (a + b c): within 3 % of X(1024) where c / (a + b c) = X(1024) / 1.03; the levels bracket it.
    let (a, b) = (0.020, 0.002);
    let law = |concurrency: f64| concurrency / (a + b * concurrency);
    let near = law(1024.0) / (1.0 + GAIN);
    let truth = a * near / (1.0 - b * near);
    let knee = knee(&line(law)).unwrap();
    assert!((knee / truth - 1.0).abs() < 0.12, "{knee} against {truth}");
}

#[test]
fn a_target_that_is_still_gaining_has_no_plateau() {
    assert!(!has_flattened(&line(|concurrency| concurrency)));
    assert!(!has_flattened(&line(|concurrency| concurrency.min(1024.0))));
    assert!(!has_flattened(&[(1, 5.0), (2, 5.0)]), "one doubling says nothing yet");
    assert!(!has_flattened(&[]));
    assert_eq!(knee(&[]), None);
}

#[test]
fn throughput_that_falls_past_its_peak_is_a_plateau_at_the_peak() {
    let line = line(|concurrency| concurrency.min(32.0) - (concurrency - 32.0).max(0.0) * 0.01);
    assert!(has_flattened(&line));
    assert!(knee(&line).unwrap() <= 32.0);
}

#[test]
fn only_valid_sweep_levels_feed_the_load_line() {
    let mut run = small_run::confirmed();
    let before = Saturation::of(&run.levels).unwrap();
    assert!(before.plateau.is_some());
    for point in &before.points {
        assert!(point.littles_law_residual.unwrap().abs() < 0.01, "{point:?}");
    }
    let mut wild = run.levels.iter().find(|level| level.purpose == Purpose::Sweep).unwrap().clone();
    wild.per_device.output_tokens_per_s *= 1000.0;
    wild.verdict.invalid.push(Invalid::Interrupted);
    run.levels.push(wild);
    assert_eq!(Saturation::of(&run.levels).unwrap(), before);
    run.levels.retain(|level| level.purpose != Purpose::Sweep);
    assert_eq!(Saturation::of(&run.levels), None);
}

#[test]
fn capacity_at_another_slo_is_read_inside_the_measured_range_only() {
    let curve = LoadLatencyCurve::through([(1.0, 100.0, 500), (2.0, 200.0, 500), (3.0, 600.0, 500)]);
    assert_eq!(curve.load_under(150.0), Reading::Measured { value: 1.5 });
    assert_eq!(curve.load_under(400.0), Reading::Measured { value: 2.5 });
    assert_eq!(curve.load_under(600.0), Reading::Measured { value: 3.0 });
    assert_eq!(curve.load_under(601.0), Reading::NotMeasuredAbove { highest: 3.0 });
    assert_eq!(curve.load_under(100.0), Reading::NotMeasuredBelow { lowest: 1.0 });
    assert_eq!(curve.latency_at(2.5), Reading::Measured { value: 400.0 });
    assert_eq!(curve.latency_at(1.0), Reading::Measured { value: 100.0 });
    assert_eq!(curve.latency_at(0.9), Reading::NotMeasuredBelow { lowest: 1.0 });
    assert_eq!(curve.latency_at(3.1), Reading::NotMeasuredAbove { highest: 3.0 });
    assert_eq!(LoadLatencyCurve::through([]).load_under(1.0), Reading::NothingMeasured);
}

#[test]
fn between_a_load_that_was_held_and_one_that_was_not_the_held_one_is_the_answer() {
    let curve = LoadLatencyCurve::through([(1.0, 100.0, 500), (2.0, 200.0, 500), (3.0, f64::INFINITY, 500), (4.0, 10.0, 500)]);
    assert_eq!(curve.load_under(1e9), Reading::Measured { value: 2.0 });
    assert_eq!(curve.latency_at(2.5), Reading::NotMeasuredAbove { highest: 2.0 });
    assert_eq!(curve.latency_at(4.0), Reading::NotMeasuredAbove { highest: 2.0 });
}

#[test]
fn the_tightest_objective_of_an_slo_binds() {
    let run = small_run::confirmed();
    let read = |text: &str| capacity_at(&run.levels, &Slo::parse(text, SloSource::Flag).unwrap());
    let (Reading::Measured { value: ttft }, Reading::Measured { value: tpot }) = (read("ttft:p99<600ms"), read("tpot:p99<60ms")) else {
        panic!("{:?} {:?}", read("ttft:p99<600ms"), read("tpot:p99<60ms"));
    };
    assert_eq!(read("ttft:p99<600ms,tpot:p99<60ms"), Reading::Measured { value: ttft.min(tpot) });
    assert!(matches!(read("ttft:p99<1us"), Reading::NotMeasuredBelow { .. }));
    assert_eq!(read("ttft:p98<600ms"), Reading::NothingMeasured, "levels record no p98");
}

#[test]
fn search_levels_and_invalid_levels_feed_no_curve() {
    let mut run = small_run::confirmed();
    let before = LoadLatencyCurve::of(&run.levels, SloMetric::Ttft, 99.0);
    let mut level = run.levels.iter().find(|level| level.purpose == Purpose::Curve).unwrap().clone();
    level.latency.ttft.adjusted.p99 = Some(1.0);
    level.purpose = Purpose::Search;
    run.levels.push(level.clone());
    level.purpose = Purpose::Curve;
    level.verdict.invalid.push(Invalid::Interrupted);
    run.levels.push(level.clone());
    assert_eq!(LoadLatencyCurve::of(&run.levels, SloMetric::Ttft, 99.0), before);
    level.verdict.invalid.clear();
    level.verdict.outcome = Outcome::Unstable;
    run.levels.push(level);
    assert_ne!(LoadLatencyCurve::of(&run.levels, SloMetric::Ttft, 99.0), before, "a load that was not held bounds the curve");
}

proptest! {
    #[test]
    fn a_looser_slo_never_allows_less_load(
        points in prop::collection::vec((0.1..100.0_f64, 1.0..1e4_f64, 1_u64..5000), 1..12),
        limit in 1.0..1e4_f64,
        looser in 1.0..10.0_f64,
    ) {
        let curve = LoadLatencyCurve::through(points);
        let (tight, loose) = (curve.load_under(limit), curve.load_under(limit * looser));
        match (tight, loose) {
            (Reading::Measured { value: tight }, Reading::Measured { value: loose }) => prop_assert!(loose >= tight),
            (Reading::Measured { value: tight }, Reading::NotMeasuredAbove { highest }) => prop_assert!(highest >= tight),
            (Reading::Measured { .. }, other) => prop_assert!(false, "{:?}", other),
            (Reading::NotMeasuredAbove { .. }, loose) => prop_assert_eq!(loose, tight),
            _ => {}
        }
    }

    #[test]
    fn latency_read_at_the_load_read_from_a_limit_is_the_limit(limit in 101.0..5000.0_f64) {
        let curve = LoadLatencyCurve::through((1..=10).map(|load| (f64::from(load), 100.0 / (1.0 - f64::from(load) / 10.2), 1000)));
        if let Reading::Measured { value: load } = curve.load_under(limit) {
            let Reading::Measured { value: latency } = curve.latency_at(load) else { panic!("inside the range at {load}") };
            prop_assert!((latency / limit - 1.0).abs() < 1e-9);
        }
    }
}
