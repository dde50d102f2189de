//! `bench --for-planner` from the command line to the files of every form, on a service law whose costs are known.

use std::path::Path;
use std::process::Output;

use plimsoll::interchange::planner::form::Form;
use plimsoll::record::level::{LevelRecord, Offered, Purpose};
use plimsoll::store::runs::{RunStore, load};
use serde_json::Value;

use crate::support::planner_run::near;
use crate::support::{document, run, stderr, stdout};

/// What a step of this law takes, in seconds: fixed, for each sequence, for each prompt token.
const LAW: &str = r#"{"law": "batching", "step_s": 0.008, "per_sequence_s": 0.0004, "per_prefill_token_s": 0.00002, "max_batch": 32,
    "chunk_tokens": 512, "kv_tokens": 20000}"#;

fn measure(data: &Path, more: &[&str]) -> Output {
    let law = data.join("law.json");
    std::fs::write(&law, LAW).unwrap();
    let (law, data) = (law.to_str().unwrap(), data.to_str().unwrap());
    let fixed = ["bench", "--for-planner", "--target", "simulated", "--law", law, "--slo", "ttft:p90<400ms,tpot:p90<60ms", "--seed", "3"];
    run(fixed.iter().chain(&["--workload", "fixed:200:24", "--data-dir", data]).chain(more))
}

fn levels(data: &Path) -> Vec<LevelRecord> {
    load(&RunStore::at(data).find("latest").unwrap()).unwrap().levels
}

#[test]
fn levels_for_planners_find_the_costs_of_a_known_law_and_every_form_is_made_of_them() {
    let data = tempfile::tempdir().unwrap();
    let output = measure(data.path(), &["--quick"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("For planners"), "{}", stdout(&output));
    let levels = levels(data.path());
    let prefill = levels.iter().filter(|level| matches!(level.purpose, Purpose::PlannerPrefill { .. })).count();
    let decode: Vec<_> = levels.iter().filter(|level| matches!(level.purpose, Purpose::PlannerDecode { .. })).collect();
    assert_eq!((prefill, decode.len()), (5, 9));
    for level in decode {
        assert!(level.verdict.is_valid() && level.target.preemptions == 0, "{}", level.verdict);
        let (prompt, output) = level.purpose.lengths().unwrap();
        assert_eq!(level.traffic.prompt_tokens, level.traffic.made * u64::from(prompt));
        assert_eq!(level.traffic.output_tokens, level.traffic.made * u64::from(output));
    }
    let out = data.path().join("out");
    for form in Form::ALL {
        let told = ["export", "latest", "--as", form.name(), "--out", out.to_str().unwrap(), "--format", "json", "--data-dir"];
        let exported = run(told.iter().chain(&[data.path().to_str().unwrap()]));
        assert_eq!(exported.status.code(), Some(0), "{}: {}", form.name(), stderr(&exported));
        let said = document(&exported);
        assert_eq!(said["format"], form.name());
        let beside = said["files"].as_array().unwrap().last().unwrap()["path"].as_str().unwrap().to_owned();
        let beside: Value = serde_json::from_slice(&std::fs::read(beside).unwrap()).unwrap();
        let labels = beside["labels"].as_array().unwrap();
        assert!(labels.iter().any(|label| label.as_str().unwrap().contains("simulated target")), "{beside}");
        if form == Form::Dynamo {
            let fit = &beside["details"]["fit"];
            near(fit["prefill_s"]["fixed"].as_f64().unwrap(), 0.008, 0.01);
            near(fit["prefill_s"]["prompt_token"].as_f64().unwrap(), 0.00002, 0.01);
            near(fit["decode_s"]["fixed"].as_f64().unwrap(), 0.008, 0.02);
            near(fit["decode_s"]["sequence"].as_f64().unwrap(), 0.0004, 0.05);
            assert_eq!(beside["details"]["kv_tokens"], 20_000, "the law says how much its cache holds");
            let warnings = beside["warnings"].to_string();
            assert!(warnings.contains("ITL does not rise with tokens of the KV cache"), "this law has no such cost: {warnings}");
        }
    }
    let again = run(["export", "latest", "--as", "keda", "--out", out.to_str().unwrap(), "--data-dir", data.path().to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(73), "nothing is written over");
}

#[test]
fn a_run_without_such_levels_is_refused_with_the_remedy_and_exit_65() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    run([
        "bench",
        "--quick",
        "--target",
        "simulated",
        "--law",
        "mm1",
        "--slo",
        "ttft:p90<1ms",
        "--seed",
        "1",
        "--no-request-log",
        "--data-dir",
        folder,
    ]);
    for (form, remedy) in [("dynamo", "bench --for-planner"), ("keda", "the rate at the SLO"), ("vidur", "--no-request-log")] {
        let output = run(["export", "latest", "--as", form, "--out", folder, "--data-dir", folder]);
        assert_eq!(output.status.code(), Some(65), "{form}: {}", stderr(&output));
        assert!(stderr(&output).contains(remedy), "{form}: {}", stderr(&output));
    }
    let both = run(["bench", "--for-planner", "--natural-length", "--target", "http://127.0.0.1:9"]);
    assert_eq!(both.status.code(), Some(2), "answers that end as they like have no length");
}

#[test]
fn a_run_that_ended_among_its_planner_levels_is_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    measure(data.path(), &["--quick"]);
    let whole = levels(data.path());
    let folder = RunStore::at(data.path()).find("latest").unwrap();
    let kept = whole.iter().position(|level| matches!(level.purpose, Purpose::PlannerDecode { .. })).unwrap() + 2;
    for level in &whole[kept..] {
        std::fs::remove_file(folder.join(format!("levels/{:03}.json", level.index))).unwrap();
    }
    std::fs::remove_file(folder.join("digest")).unwrap();
    let told = std::fs::read_to_string(folder.join("run.json")).unwrap();
    std::fs::write(folder.join("run.json"), told.replace("\"status\": \"complete\"", "\"status\": \"running\"")).unwrap();
    let resumed = run(["bench", "--resume", "latest", "--data-dir", data.path().to_str().unwrap()]);
    assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
    let again = levels(data.path());
    let load = |level: &LevelRecord| (level.index, level.purpose.clone(), matches!(level.offered, Offered::Closed { .. }), level.seed);
    assert_eq!(again.iter().map(load).collect::<Vec<_>>(), whole.iter().map(load).collect::<Vec<_>>());
    assert!(again[..kept] == whole[..kept], "what was saved is what it was");
}
