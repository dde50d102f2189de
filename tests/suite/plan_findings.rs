//! Anti-patterns and weak evidence of a plan: each is found, and none where there is none.

use std::fs;
use std::path::Path;

use plimsoll::capacity::evidence::needed_for;
use plimsoll::capacity::fleet::FleetInputs;
use plimsoll::capacity::plan::{Input, Peak, Plan, PlanInputs};
use plimsoll::capacity::throughput::Throughput;
use plimsoll::clock::Nanos;
use plimsoll::record::finding::Severity;
use plimsoll::record::run::RunRecord;
use plimsoll::units::rate::{CallRatePerGpu, RecomputeMultiplier, VisibleRate};
use plimsoll::workload::mix::{Lengths, Mix};
use serde_json::Value;

use crate::small_run;
use crate::support::{document, run, stderr};

fn visible(rate: f64) -> VisibleRate {
    VisibleRate::new(rate).expect("a rate")
}

/// Nothing to find fault with, but for what the small run is.
fn careful(run: &RunRecord) -> PlanInputs {
    PlanInputs {
        average: Input::given(visible(40.0)),
        peak: Some(Peak::Planned { rate: visible(100.0), window: Nanos::from_secs(60) }),
        recompute: Input::given(RecomputeMultiplier::new(1.3).unwrap()),
        ..PlanInputs::assumed(Throughput::measured(run).unwrap())
    }
}

fn codes(inputs: PlanInputs) -> Vec<String> {
    Plan::of(inputs).unwrap().findings.into_iter().map(|finding| finding.code).collect()
}

/// The small run with a thousand requests in every level.
fn many_requests() -> RunRecord {
    let mut run = small_run::confirmed();
    run.levels.iter_mut().for_each(|level| level.counts.cohort = 1000);
    run
}

#[test]
fn a_careful_plan_has_no_anti_pattern() {
    assert_eq!(codes(careful(&many_requests())), ["no_gpu_measured", "measurement_labels"]);
}

#[test]
fn every_anti_pattern_of_the_capacity_model_is_found_with_a_remedy() {
    let run = many_requests();
    let spare = |spare_domains| FleetInputs { spare_domains, ..FleetInputs::default() };
    let average = PlanInputs { peak: Some(Peak::AverageOnPurpose), ..careful(&run) };
    let assumed = PlanInputs { recompute: PlanInputs::assumed(Throughput::measured(&run).unwrap()).recompute, ..careful(&run) };
    let single = PlanInputs { fleet: spare(0), ..careful(&run) };
    let typed = PlanInputs { throughput: Throughput::given(CallRatePerGpu::new(8.0).unwrap()), ..careful(&run) };
    for (inputs, code) in [(average, "planned_for_average"), (assumed, "recompute_assumed"), (single, "no_spare"), (typed, "no_slo")] {
        let plan = Plan::of(inputs).unwrap();
        let found = plan.findings.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("{code}: {:?}", plan.findings));
        assert!(found.severity >= Severity::Warning && !found.next_step.is_empty(), "{found:?}");
    }
    let one = PlanInputs {
        peak: Some(Peak::Planned { rate: visible(2.0), window: Nanos::from_secs(60) }),
        average: Input::given(visible(1.0)),
        fleet: spare(0),
        ..careful(&run)
    };
    let plan = Plan::of(one).unwrap();
    assert!(
        plan.findings.iter().any(|finding| finding.code == "no_spare" && finding.evidence.contains("one replica")),
        "{:?}",
        plan.findings
    );
}

#[test]
fn a_percentile_from_too_few_requests_is_found() {
    assert_eq!([0.5, 0.9, 0.99, 0.999].map(needed_for), [20, 100, 1000, 10_000]);
    assert!(codes(careful(&small_run::confirmed())).contains(&"few_requests".to_owned()), "at most 660 requests a level");
    assert!(!codes(careful(&many_requests())).contains(&"few_requests".to_owned()));
}

#[test]
fn an_answer_beyond_what_was_measured_is_found() {
    let mut run = many_requests();
    let beyond = |inputs: PlanInputs| {
        let plan = Plan::of(inputs).unwrap();
        plan.findings.into_iter().filter(|finding| finding.code == "beyond_measured").map(|finding| finding.evidence).collect::<Vec<_>>()
    };
    assert_eq!(beyond(careful(&run)), Vec::<String>::new());
    // 18 GPUs carry the peak; nothing beyond 128 in flight on one was measured.
    let held = beyond(PlanInputs {
        calls_in_flight: Some(Input::given(1e6)),
        throughput: Throughput { calls_in_flight: None, ..Throughput::measured(&run).unwrap() },
        kv_tokens_per_gpu: None,
        ..careful(&run)
    });
    assert!(held.len() == 1 && held[0].contains("in flight") && held[0].contains("128"), "{held:?}");
    let lengths = Lengths { mean: 256.0, p50: 250, p95: 500, p99: 700, max: 800 };
    let mix = Mix { requests: 1000, input_tokens: lengths, output_tokens: lengths, repeated_share: 0.0, capped_share: 0.0, cut_share: 0.0 };
    run.workload.mix = Some(mix);
    let prompts = |prompt_p99| beyond(PlanInputs { prompt_p99: Some(prompt_p99), ..careful(&run) });
    assert_eq!(prompts(800.0), Vec::<String>::new());
    assert!(prompts(4000.0)[0].contains("4000 tokens"), "{:?}", prompts(4000.0));
}

/// An hour of calls of 40 s each, one a second: 40 in flight; with the column of sessions twice as many.
fn demand(folder: &Path, sessions: bool) -> String {
    let head = if sessions { ",concurrent_sessions" } else { "" };
    let mut text = format!("created_at,visible_request_id,latency_ms,input_tokens,output_tokens,status{head}\n");
    for at in 0..3600_u64 {
        let last = if sessions { ",80" } else { "" };
        text += &format!("{},{at},40000,256,64,ok{last}\n", 1_772_000_000 + at);
    }
    let (log, saved) = (folder.join("log.csv"), folder.join("demand.json"));
    fs::write(&log, text).unwrap();
    let output = run(["demand", log.to_str().unwrap(), "--log", "calls", "--save", saved.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    saved.to_str().unwrap().to_owned()
}

fn planned(arguments: &[&str]) -> Value {
    let output = run(["plan", "--throughput-per-gpu", "2", "--format", "json"].iter().chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    document(&output)
}

fn has(plan: &Value, code: &str) -> bool {
    plan["findings"].as_array().unwrap().iter().any(|finding| finding["code"] == code)
}

#[test]
fn peak_concurrent_sessions_come_into_the_plan_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let counted = planned(&["--demand", &demand(folder.path(), false)]);
    assert_eq!(counted["inputs"]["sessions"]["most"], 40.0);
    assert_eq!(
        (&counted["inputs"]["calls_in_flight"]["value"], &counted["inputs"]["calls_in_flight"]["provenance"]["from"]),
        (&40.0.into(), &"logged".into())
    );
    let sessions = planned(&["--demand", &demand(folder.path(), true)]);
    assert_eq!((&sessions["inputs"]["sessions"]["most"], &sessions["inputs"]["sessions"]["are_calls"]), (&80.0.into(), &false.into()));
    assert_eq!(sessions["inputs"]["calls_in_flight"], Value::Null, "a session waits for its user most of the time");
    let stated = planned(&["--demand", &demand(folder.path(), false), "--peak-in-flight", "7"]);
    assert_eq!(stated["inputs"]["calls_in_flight"]["value"], 7.0, "what is given goes before the log");
}

#[test]
fn a_peak_from_few_windows_and_a_window_that_nobody_stated_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let demand = demand(folder.path(), false);
    assert!(has(&planned(&["--demand", &demand]), "peak_from_few_windows"), "sixty minutes have no 99th percentile");
    assert!(!has(&planned(&["--demand", &demand, "--peak-of", "max:1m"]), "peak_from_few_windows"));
    assert!(!has(&planned(&["--demand", &demand, "--peak-of", "p99:1s"]), "peak_from_few_windows"), "3600 seconds have one");
    let file = folder.path().join("plan.toml");
    fs::write(&file, "average_rps = 40\npeak_rps = 100\n").unwrap();
    assert!(has(&planned(&["--inputs", file.to_str().unwrap()]), "peak_window_not_stated"));
    fs::write(&file, "average_rps = 40\npeak_rps = 100\npeak_window_s = 1\n").unwrap();
    assert!(!has(&planned(&["--inputs", file.to_str().unwrap()]), "peak_window_not_stated"));
}

#[test]
fn a_demand_of_an_older_form_is_read_and_a_newer_one_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = demand(folder.path(), false);
    let mut kept: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let now = planned(&["--demand", &path]);
    let fields = kept.as_object_mut().unwrap();
    fields.remove("calls_of_outcomes");
    for lengths in ["outcome_ms", "latency_ms"] {
        fields.get_mut(lengths).and_then(Value::as_object_mut).map(|lengths| lengths.remove("quantiles"));
    }
    fs::write(&path, kept.to_string()).unwrap();
    assert_eq!(planned(&["--demand", &path])["requirements"], now["requirements"], "what was not kept then is not needed");
    kept["demand_schema_version"] = 2.into();
    let newer = kept.to_string();
    fs::write(&path, &newer).unwrap();
    let output = run(["plan", "--throughput-per-gpu", "2", "--demand", &path]);
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn figures_of_an_input_file_are_checked_like_flags() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plan.toml");
    for line in [
        "kv_tokens_per_gpu = -1",
        "availability = 1.5\navailability_target = 0.9",
        "availability = 0.9",
        "outcome_slo = \"soon\"",
        "[prices]\nH100 = 0",
    ] {
        fs::write(&file, line).unwrap();
        let output = run(["plan", "--throughput-per-gpu", "2", "--inputs", file.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(65), "{line}: {}", stderr(&output));
    }
    fs::write(&file, "availability = 0.99\navailability_target = 0.999\nkv_tokens_per_gpu = 1000\n[prices]\nplan = 2\n").unwrap();
    let made = planned(&["--inputs", file.to_str().unwrap()]);
    assert_eq!(
        (&made["inputs"]["kv_tokens_per_gpu"]["value"], &made["inputs"]["fleet"]["availability"]["of_replica"]),
        (&1000.0.into(), &0.99.into())
    );
}
