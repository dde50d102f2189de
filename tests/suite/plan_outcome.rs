//! Outcome latency against its own objective: as the log has it, and as calls one after another come to it.

use std::fs;
use std::path::Path;
use std::process::Output;

use plimsoll::capacity::call_latency::CallLatency;
use plimsoll::capacity::outcome::{OutcomeInputs, OutcomeJudgement, OutcomeObjective};
use plimsoll::record::demand::Lengths;
use serde_json::Value;

use crate::small_run;
use crate::support::records::save;
use crate::support::{document, run, stderr, stdout};

/// Requests of two calls: 400 ms, and from the second 1 on 500 ms more, so that an outcome takes 1.5 s. One in ten fails first and is
/// tried again: three calls, 2.5 s.
fn demand(folder: &Path) -> String {
    let mut text = "created_at,visible_request_id,latency_ms,input_tokens,output_tokens,status\n".to_owned();
    for at in 0..4000_u64 {
        for call in 0..4 {
            let Some(request) = at.checked_sub(call) else { continue };
            let tries = if request % 10 == 0 { 3 } else { 2 };
            if call < tries && request < 3990 {
                let latency = if call + 1 == tries { 500 } else { 400 };
                text += &format!(
                    "{},{},{latency},256,64,{}\n",
                    1_772_000_000 + at,
                    request,
                    if call + 2 == tries && tries == 3 { "failed" } else { "ok" }
                );
            }
        }
    }
    let (log, saved) = (folder.join("log.csv"), folder.join("demand.json"));
    fs::write(&log, text).unwrap();
    let saved = saved.to_str().unwrap().to_owned();
    let output = run(["demand", log.to_str().unwrap(), "--save", &saved]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    saved
}

fn plan(arguments: &[&str]) -> Output {
    run(["plan"].iter().chain(arguments))
}

fn codes(plan: &Value) -> Vec<&str> {
    plan["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn outcomes_of_a_log_are_judged_from_the_first_call_to_the_end_of_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let demand = demand(folder.path());
    let kept: Value = serde_json::from_str(&fs::read_to_string(&demand).unwrap()).unwrap();
    let outcomes = &kept["outcome_ms"];
    assert!((outcomes["p50"].as_f64().unwrap() / 1500.0 - 1.0).abs() < 0.01, "{outcomes}");
    assert!((outcomes["p95"].as_f64().unwrap() / 2500.0 - 1.0).abs() < 0.01, "{outcomes}");
    assert!((kept["calls_of_outcomes"]["mean"].as_f64().unwrap() - 2.1).abs() < 1e-3);
    let given = ["--throughput-per-gpu", "2", "--demand", &demand, "--format", "json", "--outcome-slo"];
    for (objective, code) in [("p95<3s", 0), ("p95<2s", 3), ("p50<2s", 0), ("p80<2s", 0)] {
        let output = plan(&[given.as_slice(), &[objective]].concat());
        assert_eq!(output.status.code(), Some(code), "{objective}: {}", stderr(&output));
        let plan = document(&output);
        assert_eq!(plan["outcome"]["met"], code == 0, "{objective}");
        assert_eq!(codes(&plan).contains(&"outcome_slo_broken"), code == 3, "{objective}");
    }
    let text = stdout(&plan(&["--throughput-per-gpu", "2", "--demand", &demand, "--outcome-slo", "p95<2s"]));
    assert!(text.contains("p95<2000ms is BROKEN") && text.contains("not predicted"), "{text}");
    let wrong = plan(&["--throughput-per-gpu", "2", "--outcome-slo", "p95"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

#[test]
fn outcomes_are_predicted_at_the_rate_that_is_planned_with() {
    let folder = tempfile::tempdir().unwrap();
    let demand = demand(folder.path());
    save(folder.path(), &small_run::confirmed());
    let data = folder.path().to_str().unwrap();
    let of = |objective: &str| plan(&["--data-dir", data, "--demand", &demand, "--outcome-slo", objective, "--format", "json"]);
    // A call takes 3.5 s on average, so that the log's 2.1 take 7.4 s, whatever the system that wrote the log did.
    let output = of("p95<8s");
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let predicted = &document(&output)["outcome"]["predicted"];
    assert!((predicted["mean_ms"].as_f64().unwrap() / (2.1 * 3505.92) - 1.0).abs() < 1e-3, "{predicted}");
    assert_eq!(predicted["calls_of_log"], true);
    assert_eq!(of("p95<8s").stdout, output.stdout, "the same plan says the same");
    assert_eq!(of("p95<60s").status.code(), Some(0));
    let none = plan(&["--throughput-per-gpu", "2", "--outcome-slo", "p95<8s", "--format", "json"]);
    assert_eq!(none.status.code(), Some(5), "nothing tells how long outcomes take");
    assert!(codes(&document(&none)).contains(&"outcome_not_judged"));
}

#[test]
fn a_sum_of_calls_has_the_quantile_that_it_has_on_paper() {
    // Latencies spread evenly from 0 to 100 ms: p95 of the sum of two is 200 - 100 sqrt(2 x 0.05), and of twice one 190.
    let call = CallLatency { calls_per_s_per_gpu: 1.0, mean_ms: 50.0, quantiles: vec![(1e-9, 0.0), (1.0, 100.0)] };
    let lengths = Lengths { count: 1000, mean: 2.0, p50: 2.0, p95: 2.0, p99: 2.0, max: 2.0, quantiles: vec![(0.0, 2.0), (1.0, 2.0)] };
    let objective: OutcomeObjective = "p95<180ms".parse().unwrap();
    let inputs = OutcomeInputs { objective: Some(objective), logged_ms: None, calls: Some(lengths) };
    let judged = OutcomeJudgement::of(&inputs, 1.0, Some(&call)).unwrap();
    let predicted = judged.predicted.unwrap();
    assert!((predicted.independent_ms - (200.0 - 100.0 * 0.1_f64.sqrt())).abs() < 1.0, "{predicted:?}");
    assert!((predicted.together_ms - 190.0).abs() < 1.0 && predicted.mean_ms == 100.0, "{predicted:?}");
    assert_eq!(judged.met, Some(true), "slow together it would be broken, which is a finding");
    // Without a log half of the outcomes have one call and half have two where the mean is 1.5.
    let judged = OutcomeJudgement::of(&OutcomeInputs { objective: Some(objective), ..OutcomeInputs::default() }, 1.5, Some(&call)).unwrap();
    let predicted = judged.predicted.unwrap();
    // P(sum > t) = 0.5 x (200 - t)^2 / 20000 for t above 100, which is 0.05 at t = 200 - 100 sqrt(0.2).
    assert!((predicted.independent_ms - (200.0 - 100.0 * 0.2_f64.sqrt())).abs() < 1.5, "{predicted:?}");
    assert!(!predicted.calls_of_log && predicted.mean_ms == 75.0);
}

#[test]
fn a_line_of_a_log_of_visible_requests_is_an_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let rows = (0..2000_u64).map(|at| format!("{},{}\n", 1_772_000_000 + at, if at % 10 == 0 { 900 } else { 100 }));
    let (log, saved) = (folder.path().join("log.csv"), folder.path().join("demand.json"));
    fs::write(&log, "created_at,latency_ms\n".to_owned() + &rows.collect::<String>()).unwrap();
    let saved = saved.to_str().unwrap();
    let output = run(["demand", log.to_str().unwrap(), "--log", "requests", "--save", saved]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for (objective, code) in [("p80<500ms", 0), ("p95<500ms", 3)] {
        let output = plan(&["--throughput-per-gpu", "2", "--recompute", "2", "--demand", saved, "--outcome-slo", objective]);
        assert_eq!(output.status.code(), Some(code), "{objective}: {}", stderr(&output));
    }
}
