//! Plans: scenarios on the average, provenance, ranges, margins, refusals.

use plimsoll::capacity::plan::{Input, Peak, Plan, PlanError, PlanInputs};
use plimsoll::capacity::requirement::Requirement;
use plimsoll::capacity::scenario::{Lasts, Scenario};
use plimsoll::capacity::throughput::{Basis, NoCapacity, Provenance, Throughput};
use plimsoll::clock::Nanos;
use plimsoll::record::finding::Severity;
use plimsoll::record::run::{Drift, HeadlineStatus, RunRecord};
use plimsoll::stats::interval::Interval;
use plimsoll::units::rate::{CallRatePerGpu, RecomputeMultiplier, VisibleRate};
use plimsoll::units::share::Headroom;
use proptest::prelude::*;

use crate::small_run;

fn given(rate: f64) -> PlanInputs {
    PlanInputs::assumed(Throughput::given(CallRatePerGpu::new(rate).expect("a rate")))
}

fn visible(rate: f64) -> VisibleRate {
    VisibleRate::new(rate).expect("a rate")
}

fn has(plan: &Plan, code: &str) -> bool {
    plan.findings.iter().any(|finding| finding.code == code)
}

#[test]
fn the_four_scenarios_multiply_the_average_by_2_5_10_and_3() {
    let plan = Plan::of(PlanInputs { average: Input::given(visible(40.0)), ..given(8.0) }).unwrap();
    let rows = plan.requirements.iter().map(|row| (row.name.as_str(), row.peak.get(), row.lasts, row.exact.get(), row.whole_gpus));
    // 80 / 8 x 1.25 = 12.5 and so on.
    let by_hand = [
        ("Normal peak", 80.0, Lasts::Hours, 12.5, 13),
        ("Product launch", 200.0, Lasts::Days, 31.25, 32),
        ("Viral moment", 400.0, Lasts::Hours, 62.5, 63),
        ("Incident recovery", 120.0, Lasts::Hours, 18.75, 19),
    ];
    assert_eq!(rows.collect::<Vec<_>>(), by_hand);
}

#[test]
fn a_scenario_replaces_the_planned_peak_and_does_not_multiply_it() {
    let peak = Peak::Planned { rate: visible(100.0), window: Nanos::from_secs(60) };
    let with_peak = PlanInputs {
        peak: Some(peak),
        recompute: Input::given(RecomputeMultiplier::new(1.3).unwrap()),
        average: Input::given(visible(40.0)),
        ..given(8.0)
    };
    let plan = Plan::of(with_peak.clone()).unwrap();
    assert_eq!(plan.requirements[0].name, "Planned peak");
    assert_eq!(plan.requirements[0].exact.get(), 20.3125);
    let without_peak = Plan::of(PlanInputs { peak: None, ..with_peak }).unwrap();
    let needs = |requirements: &[Requirement]| requirements.iter().map(|row| (row.name.clone(), row.exact, row.fleet)).collect::<Vec<_>>();
    assert_eq!(needs(&plan.requirements[1..]), needs(&without_peak.requirements));
}

#[test]
fn own_scenarios_are_read_and_planned_for() {
    let friday = "Black Friday = 7x".parse::<Scenario>().unwrap();
    assert_eq!((friday.name.as_str(), friday.times_average.get()), ("Black Friday", 7.0));
    let plan = Plan::of(PlanInputs { scenarios: vec![friday], ..given(1.0) }).unwrap();
    assert_eq!(plan.requirements[0].exact.get(), 8.75);
    for text in ["7", "=7", "launch=", "launch=many", "launch=-2", "launch=NaN", "launch=1e9"] {
        let message = text.parse::<Scenario>().unwrap_err().to_string();
        assert!(message.contains(". "), "`{text}` is refused without a remedy: {message}");
    }
}

#[test]
fn a_peak_that_is_not_above_the_average_is_refused() {
    let peak = Peak::Planned { rate: visible(40.0), window: Nanos::from_secs(60) };
    let inputs = PlanInputs { peak: Some(peak), average: Input::given(visible(40.0)), ..given(8.0) };
    let refused = Plan::of(inputs.clone()).unwrap_err();
    assert_eq!(refused, PlanError::AverageAsPeak { peak: 40.0, average: 40.0 });
    assert!(refused.to_string().contains("--average-as-peak"));
    let on_purpose = Plan::of(PlanInputs { peak: Some(Peak::AverageOnPurpose), ..inputs }).unwrap();
    assert_eq!(on_purpose.requirements[0].peak, visible(40.0));
    assert_eq!(on_purpose.findings[0].code, "planned_for_average");
    assert_eq!(on_purpose.findings[0].severity, Severity::Serious);
}

#[test]
fn what_nobody_gave_is_marked_and_found() {
    let plan = Plan::of(given(8.0)).unwrap();
    assert_eq!(plan.inputs.recompute.provenance, Provenance::Assumed);
    assert_eq!(plan.inputs.headroom, Input { value: Headroom::TYPICAL, provenance: Provenance::Assumed });
    assert!(has(&plan, "recompute_assumed") && has(&plan, "throughput_given") && has(&plan, "average_not_given"));
    let recompute = Input::given(RecomputeMultiplier::new(0.8).unwrap());
    let plan = Plan::of(PlanInputs { recompute, headroom: Input::given(Headroom::new(0.05).unwrap()), ..given(8.0) }).unwrap();
    assert!(has(&plan, "recompute_below_one") && has(&plan, "headroom_unusual") && !has(&plan, "recompute_assumed"));
}

#[test]
fn a_plan_divides_by_the_lower_end_and_shows_both() {
    let run = small_run::confirmed();
    let throughput = Throughput::measured(&run).unwrap();
    let interval = run.headline.as_ref().unwrap().interval.unwrap();
    assert_eq!((throughput.basis, throughput.planned.get()), (Basis::LowerEnd, interval.low));
    assert_eq!(throughput.provenance, Provenance::Measured { run: run.id.clone() });
    let plan = Plan::of(PlanInputs::assumed(throughput)).unwrap();
    assert!(has(&plan, "no_gpu_measured") && has(&plan, "measurement_labels"));
    for row in &plan.requirements {
        let (few, many) = row.range.unwrap();
        assert!(few <= many && row.exact == many);
        let [headroom, lower_end] = &row.margins[..] else { panic!("two margins, not {:?}", row.margins) };
        assert!((headroom.without.get() * headroom.factor / row.exact.get() - 1.0).abs() < 1e-12);
        assert!((lower_end.without.get() * lower_end.factor / row.exact.get() - 1.0).abs() < 1e-12);
        assert!((row.bare.get() * headroom.factor * lower_end.factor / row.exact.get() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_single_search_is_planned_with_at_its_passing_end() {
    let mut run = small_run::confirmed();
    let headline = run.headline.as_mut().unwrap();
    headline.status = HeadlineStatus::BracketOnly;
    headline.interval = None;
    headline.bracket = Some((9.0, 9.5));
    let throughput = Throughput::measured(&run).unwrap();
    assert_eq!((throughput.basis, throughput.planned.get()), (Basis::PassingEnd, 9.0));
    assert!(has(&Plan::of(PlanInputs::assumed(throughput)).unwrap(), "bracket_only"));
}

/// Changes a good run, and tells how it is refused.
fn refusal(change: impl FnOnce(&mut RunRecord)) -> NoCapacity {
    let mut run = small_run::confirmed();
    change(&mut run);
    let refused = Throughput::measured(&run).expect_err("the change spoils the run");
    assert!(refused.to_string().contains(&run.id) && refused.to_string().contains(". "), "{refused}");
    refused
}

#[test]
fn a_run_without_a_usable_headline_is_refused_by_kind() {
    let ended = |status| refusal(|run| run.headline.as_mut().unwrap().status = status);
    assert!(matches!(ended(HeadlineStatus::SloUnmetAtMinimum), NoCapacity::SloUnmet { .. }));
    assert!(matches!(ended(HeadlineStatus::Drift), NoCapacity::Invalid { .. }));
    assert!(matches!(ended(HeadlineStatus::NoValidBound), NoCapacity::Invalid { .. }));
    for status in [HeadlineStatus::Undecided, HeadlineStatus::OutOfBudget, HeadlineStatus::NotReached] {
        assert!(matches!(ended(status), NoCapacity::Undecided { .. }), "{status:?}");
    }
    assert!(matches!(refusal(|run| run.headline = None), NoCapacity::Undecided { .. }));
    assert!(matches!(refusal(|run| run.slo = None), NoCapacity::Invalid { .. }));
    let drifted = refusal(|run| run.drift = Some(Drift { first: 100.0, last: 90.0, limit: 0.02, noise: Some(0.01) }));
    assert!(matches!(&drifted, NoCapacity::Invalid { .. }) && drifted.to_string().contains("-10.0 %"), "{drifted}");
    for low in [0.0, -1.0, f64::NAN] {
        let interval = Interval { low, high: 9.0, confidence: 0.95 };
        let refused = refusal(|run| run.headline.as_mut().unwrap().interval = Some(interval));
        assert!(matches!(refused, NoCapacity::Invalid { .. }), "{low}");
    }
}

proptest! {
    #[test]
    fn ranges_and_sensitivities_point_the_right_way(low in 0.1..10.0_f64, width in 0.0..5.0_f64, average in 0.01..1e4_f64, headroom in 0.0..1.0_f64) {
        let mut run = small_run::confirmed();
        let headline = run.headline.as_mut().unwrap();
        headline.interval = Some(Interval { low, high: low + width, confidence: 0.95 });
        headline.throughput_per_gpu = Some(low + width / 2.0);
        let inputs = PlanInputs {
            average: Input::given(visible(average)),
            headroom: Input::given(Headroom::new(headroom).unwrap()),
            ..PlanInputs::assumed(Throughput::measured(&run).unwrap())
        };
        for row in Plan::of(inputs).unwrap().requirements {
            let (few, many) = row.range.unwrap();
            prop_assert!(few <= many);
            prop_assert!(row.bare <= row.exact);
            prop_assert!(row.groups.gpus >= row.whole_gpus);
            let gpus = |input| row.sensitivity.iter().find(|change| change.input == input).unwrap().gpus;
            prop_assert!((gpus("peak") / row.exact.get() - 0.1).abs() < 1e-9);
            prop_assert!((gpus("recompute") / row.exact.get() - 0.1).abs() < 1e-9);
            prop_assert!((gpus("throughput_per_gpu") / row.exact.get() + 1.0 / 11.0).abs() < 1e-9);
            prop_assert!(gpus("headroom") >= 0.0);
        }
    }
}
