//! A server's rate over the built-in engine's: only of runs that are alike, and carried into a plan with its interval.

use std::process::Output;

use plimsoll::capacity::transfer::{NoTransfer, Transfer};
use plimsoll::record::run::RunRecord;
use plimsoll::store::runs::RunStore;

use crate::small_run::confirmed;
use crate::support::{plimsoll, stderr, stdout};

/// The same run with everything of a server, so many times as fast.
fn served(times: f64) -> RunRecord {
    let mut run = confirmed();
    run.id = "01M0000000000000000000SERV".to_owned();
    run.target.kind = "server".to_owned();
    let headline = run.headline.as_mut().unwrap();
    headline.throughput_per_gpu = headline.throughput_per_gpu.map(|rate| rate * times);
    headline.interval = headline.interval.map(|interval| plimsoll::stats::interval::Interval {
        low: interval.low * times,
        high: interval.high * times,
        ..interval
    });
    run
}

fn built_in() -> RunRecord {
    let mut run = confirmed();
    run.target.kind = "engine".to_owned();
    run
}

#[test]
fn the_ratio_is_of_the_rates_and_its_ends_are_of_theirs() {
    let transfer = Transfer::of(&built_in(), &served(1.5), false).unwrap();
    assert!((transfer.ratio - 1.5).abs() < 1e-9);
    assert!(transfer.ends.0 < 1.5 && transfer.ends.1 > 1.5, "{:?}", transfer.ends);
    let interval = confirmed().headline.unwrap().interval.unwrap();
    assert!((transfer.ends.0 - 1.5 * interval.low / interval.high).abs() < 1e-9);
}

#[test]
fn runs_that_differ_or_are_unknown_are_not_compared() {
    let refused = |server: &RunRecord| Transfer::of(&built_in(), server, false).unwrap_err();
    let mut other = served(1.0);
    other.workload.hash = "other".to_owned();
    assert!(matches!(refused(&other), NoTransfer::Differ { .. }));
    let mut unknown = served(1.0);
    unknown.target.precision = "unknown".to_owned();
    assert!(refused(&unknown).to_string().contains("--accept-unknown"));
    let accepted = Transfer::of(&built_in(), &unknown, true).unwrap();
    assert_eq!(accepted.unknown.len(), 1);
    assert!(matches!(Transfer::of(&served(1.0), &built_in(), false), Err(NoTransfer::Kind { .. })));
}

#[test]
fn a_plan_carries_the_ratio_with_both_runs_beside_it() {
    let data = tempfile::tempdir().unwrap();
    let store = RunStore::open(data.path()).unwrap();
    for run in [built_in(), served(0.5)] {
        let folder = store.create(&run).unwrap();
        for level in &run.levels {
            folder.save_level(level).unwrap();
        }
        folder.finish().unwrap();
    }
    let verb = |arguments: &[&str]| -> Output { plimsoll().args(arguments).arg("--data-dir").arg(data.path()).output().unwrap() };
    let made = verb(&["transfer", &built_in().id, "01M0000000000000000000SERV"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    assert!(stdout(&made).contains("0.500 times"), "{}", stdout(&made));
    let planned = |more: &[&str]| -> f64 {
        let output = verb(&[&["plan", &built_in().id, "--average-rps", "40", "--format", "json"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = stdout(&output);
        if !more.is_empty() {
            assert!(text.contains("measured ratio of 0.500"), "{text}");
        }
        let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
        plan.pointer("/throughput/planned").or_else(|| plan.pointer("/inputs/throughput/planned")).unwrap().as_f64().unwrap()
    };
    let (without, with) = (planned(&[]), planned(&["--transfer", "latest"]));
    assert!(with < 0.5 * without, "{with} of {without}");
    assert_eq!(verb(&["plan", &built_in().id, "--transfer", "nowhere.json"]).status.code(), Some(65));
}
