//! Several runs under one demand: a row each, the cheapest first, with what keeps them from being compared.

use std::path::Path;
use std::process::Output;

use plimsoll::record::gpu::{GpuInventory, GpuRecord};
use plimsoll::record::node::GpuTelemetry;
use plimsoll::record::run::HeadlineStatus;
use plimsoll::stats::interval::Interval;
use serde_json::Value;

use crate::small_run;
use crate::support::records::save;
use crate::support::{document, run, stderr, stdout};

/// A run on GPUs of that name, `times` as fast as the small one.
fn on(data: &Path, id: &str, gpu: &str, times: f64) {
    let mut record = small_run::confirmed();
    id.clone_into(&mut record.id);
    "cuda:0".clone_into(&mut record.target.device);
    let gpus = vec![GpuRecord { name: gpu.to_owned(), ..GpuRecord::default() }];
    record.node.telemetry = GpuTelemetry::Available(GpuInventory { gpus, ..GpuInventory::default() });
    let headline = record.headline.as_mut().unwrap();
    headline.throughput_per_gpu = Some(10.0 * times);
    headline.interval = Some(Interval { low: 9.7 * times, high: 10.3 * times, confidence: 0.95 });
    save(data, &record);
}

const SLOW: &str = "01JDGSAAAA0000000000000000";
const FAST: &str = "01JDGSBBBB0000000000000000";
const DEMAND: [&str; 8] = ["--average-rps", "400", "--peak-rps", "1000", "--peak-window", "1m", "--gpus-per-node", "8"];

fn plan(data: &Path, arguments: &[&str]) -> Output {
    run(["plan", SLOW, FAST, "--data-dir", data.to_str().unwrap()].iter().chain(&DEMAND).chain(arguments))
}

fn names(document: &Value) -> Vec<&str> {
    document["rows"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[test]
fn several_runs_are_a_row_each_with_the_cheapest_first() {
    let data = tempfile::tempdir().unwrap();
    on(data.path(), SLOW, "NVIDIA L4", 0.25);
    on(data.path(), FAST, "NVIDIA H100 80GB HBM3", 1.0);
    let json = ["--format", "json"];
    let without = document(&plan(data.path(), &json));
    assert_eq!(names(&without), [FAST, SLOW], "by GPUs where there is no price");
    let by_price = |slow: &str, fast: &str| {
        let output = plan(data.path(), &[["--price-per-gpu-hour", slow, "--price-per-gpu-hour", fast].as_slice(), &json].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        document(&output)
    };
    assert_eq!(names(&by_price("L4=1", "h100=2.5")), [FAST, SLOW]);
    let cheap = by_price("L4=0.5", "H100=2.5");
    assert_eq!(names(&cheap), [SLOW, FAST], "four times the GPUs at a fifth of the price");
    // 1000 / (9.7 / 4) x 1.25 = 515.5 GPUs; with a node of 8 to spare 524, on 66 nodes.
    let row = &cheap["rows"][0];
    assert_eq!((&row["gpus"], &row["nodes"], &row["kind"]), (&528.into(), &66.into(), &"NVIDIA L4".into()));
    assert_eq!(row["cost_per_hour"], 264.0);
    let per_outcome = 264.0 / 3600.0 / 400.0;
    assert!((row["cost_per_outcome"].as_f64().unwrap() / per_outcome - 1.0).abs() < 1e-9);
    assert!((row["cost_per_million_tokens"].as_f64().unwrap() / (per_outcome / 64.0 * 1e6) - 1.0).abs() < 1e-9);
    assert_eq!(row["plan"]["requirements"][0]["fleet"]["gpus"], 528);
    let some = document(&plan(data.path(), &["--price-per-gpu-hour", "L4=0.5", "--format", "json"]));
    assert_eq!((names(&some)[0], some["findings"][0]["code"].as_str()), (SLOW, Some("price_unknown")));
    let text = stdout(&plan(data.path(), &["--price-per-gpu-hour", "2"]));
    assert!(text.starts_with("Plans") && text.contains("NVIDIA L4") && text.contains("synthetic weights"), "{text}");
    let markdown = stdout(&plan(data.path(), &["--format", "markdown"]));
    assert!(markdown.starts_with("# Plans for Planned peak") && markdown.contains(&format!("| {FAST} |")), "{markdown}");
}

#[test]
fn a_run_that_cannot_be_planned_with_is_listed_with_the_reason_and_ends_it_so() {
    let data = tempfile::tempdir().unwrap();
    on(data.path(), SLOW, "NVIDIA L4", 0.25);
    let mut unmet = small_run::confirmed();
    FAST.clone_into(&mut unmet.id);
    unmet.headline.as_mut().unwrap().status = HeadlineStatus::SloUnmetAtMinimum;
    save(data.path(), &unmet);
    let output = plan(data.path(), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let document = document(&output);
    assert_eq!(names(&document), [SLOW]);
    assert_eq!(document["refused"][0]["name"], FAST);
    let misused = plan(data.path(), &["--transfer", "latest"]);
    assert_eq!(misused.status.code(), Some(2), "{}", stderr(&misused));
}

#[test]
fn a_run_of_calls_of_other_lengths_is_one_row_that_is_not_planned() {
    let data = tempfile::tempdir().unwrap();
    on(data.path(), SLOW, "NVIDIA L4", 0.25);
    let mut long = small_run::confirmed();
    FAST.clone_into(&mut long.id);
    long.workload.mean_input_tokens = 4096.0;
    save(data.path(), &long);
    let rows = (0..3600_u64).map(|at| format!("{},256,64\n", 1_772_000_000 + at));
    let (log, demand) = (data.path().join("log.csv"), data.path().join("demand.json"));
    std::fs::write(&log, "created_at,input_tokens,output_tokens\n".to_owned() + &rows.collect::<String>()).unwrap();
    let demand = demand.to_str().unwrap();
    run(["demand", log.to_str().unwrap(), "--log", "requests", "--save", demand]);
    let folder = data.path().to_str().unwrap();
    let output = run(["plan", SLOW, FAST, "--data-dir", folder, "--demand", demand, "--format", "json"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let made = document(&output);
    assert_eq!((names(&made), made["refused"][0]["name"].as_str()), (vec![SLOW], Some(FAST)));
    let accepted = run(["plan", SLOW, FAST, "--data-dir", folder, "--demand", demand, "--accept-mix", "--format", "json"]);
    assert_eq!(accepted.status.code(), Some(0), "{}", stderr(&accepted));
}

#[test]
fn rows_at_different_objectives_or_of_different_calls_are_told_apart() {
    let data = tempfile::tempdir().unwrap();
    on(data.path(), SLOW, "NVIDIA L4", 0.25);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interchange/vllm-6.0qps.json");
    let arguments =
        ["plan", SLOW, file.to_str().unwrap(), "--gpus", "1", "--slo", "ttft:p99<1200ms", "--average-rps", "4", "--format", "json"];
    let output = run(arguments.iter().chain(&["--data-dir", data.path().to_str().unwrap()]));
    let made = document(&output);
    let codes = made["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(codes, ["workload_differs"], "{}", stderr(&output));
    assert_eq!(made["rows"].as_array().unwrap().len(), 2);
    let of_file = made["rows"].as_array().unwrap().iter().find(|row| row["name"] == file.to_str().unwrap()).unwrap();
    let mix = &of_file["plan"]["inputs"]["throughput"]["mix"];
    assert!(mix["input"].as_f64().unwrap() > 0.0 && mix["output"].as_f64().unwrap() > 0.0, "an imported level brings its lengths: {mix}");
    let both = [file.to_str().unwrap(), file.to_str().unwrap()];
    let each = run(["plan", "--each", "--gpus", "1", "--slo", "ttft:p99<1200ms", "--format", "json"].iter().chain(&both));
    assert_eq!(document(&each)["rows"].as_array().unwrap().len(), 2, "{}", stderr(&each));
}
