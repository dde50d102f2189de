//! `plimsoll plan`: from a run of the store or a rate given by hand, with the exit code of each refusal.

use std::path::Path;
use std::process::Output;

use plimsoll::record::run::{DemandRecord, HeadlineStatus};

use crate::small_run;
use crate::support::records::save;
use crate::support::{document, run, stderr, stdout};

/// Plans from the latest run of that folder.
fn plan(data: &Path, arguments: &[&str]) -> Output {
    run(["plan", "--data-dir", data.to_str().expect("a path in UTF-8")].iter().chain(arguments))
}

#[test]
fn the_formula_of_the_capacity_model_comes_out_of_the_command_line() {
    let arguments = ["plan", "--throughput-per-gpu", "8", "--peak-rps", "100", "--peak-window", "1m", "--recompute", "1.3"];
    let output = run(arguments.iter().chain(&["--headroom", "0.25", "--gpus-per-replica", "4", "--format", "json"]));
    let plan = document(&output);
    assert_eq!(output.status.code(), Some(0));
    let row = &plan["requirements"][0];
    assert_eq!(row["exact"], 20.3125);
    assert_eq!(row["whole_gpus"], 21);
    assert_eq!(row["groups"]["gpus"], 24);
    assert_eq!(plan["inputs"]["throughput"]["provenance"]["from"], "given");
    assert_eq!(plan["inputs"]["peak"]["window_ns"], 60_000_000_000_u64);
    let multiples = plan["requirements"].as_array().unwrap().iter().map(|row| row["times_average"].as_f64());
    assert_eq!(multiples.collect::<Vec<_>>(), [None, Some(2.0), Some(5.0), Some(10.0), Some(3.0)]);
}

#[test]
fn a_run_of_the_store_is_planned_from_by_name_prefix_and_path() {
    let data = tempfile::tempdir().unwrap();
    let record = small_run::confirmed();
    save(data.path(), &record);
    let path = data.path().join("runs").join(&record.id);
    for name in [None, Some("latest"), Some(&record.id[..6]), path.to_str()] {
        let output = plan(data.path(), &name.into_iter().chain(["--average-rps", "40"]).collect::<Vec<_>>());
        let text = stdout(&output);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(text.contains("measured, lower end of 9.70–10.3") && text.contains(&format!("run {}", record.id)), "{text}");
        assert!(!text.contains('\u{1b}'), "no colour into a pipe");
    }
    let text = stdout(&plan(data.path(), &["--format", "markdown", "--scenario", "Black Friday=7"]));
    assert!(text.starts_with("# Capacity plan") && text.contains("| Black Friday | 7x |"), "{text}");
}

#[test]
fn a_run_that_cannot_be_planned_with_ends_with_the_code_of_its_kind() {
    let kinds = [
        (HeadlineStatus::SloUnmetAtMinimum, 3),
        (HeadlineStatus::Drift, 4),
        (HeadlineStatus::NoValidBound, 4),
        (HeadlineStatus::Undecided, 5),
        (HeadlineStatus::OutOfBudget, 5),
    ];
    for (status, code) in kinds {
        let data = tempfile::tempdir().unwrap();
        let mut record = small_run::confirmed();
        record.headline.as_mut().unwrap().status = status;
        save(data.path(), &record);
        let output = plan(data.path(), &["--format", "json"]);
        assert_eq!(output.status.code(), Some(code), "{status:?}");
        assert_eq!(document(&output)["error"]["exit_code"], code);
        assert!(stderr(&output).contains(&record.id), "{}", stderr(&output));
    }
}

#[test]
fn without_any_run_it_says_what_to_run() {
    let data = tempfile::tempdir().unwrap();
    let output = plan(data.path(), &[]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("plimsoll bench"), "{}", stderr(&output));
}

#[test]
fn a_misspelt_run_is_answered_with_the_nearest() {
    let data = tempfile::tempdir().unwrap();
    let record = small_run::confirmed();
    save(data.path(), &record);
    let output = plan(data.path(), &["01JDGSMA11RVNX"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("there is no run `01JDGSMA11RVNX`") && stderr(&output).contains(&record.id), "{}", stderr(&output));
    assert!(!stderr(&output).contains("measure with"), "{}", stderr(&output));
}

#[test]
fn capacity_at_another_slo_is_read_from_the_curve_of_the_run_and_never_beyond_it() {
    let data = tempfile::tempdir().unwrap();
    save(data.path(), &small_run::confirmed());
    // TTFT p99 of the run is 320 ms / (1 - load / 12): 640 ms at a load of 6, between measured loads of 5 and 7.
    let at = |slo: &str| plan(data.path(), &["--slo", slo, "--format", "json"]);
    let document = document(&at("ttft:p99<640ms"));
    let throughput = &document["inputs"]["throughput"];
    let point = throughput["point"].as_f64().unwrap();
    assert!((5.7..=6.0).contains(&point), "a straight line over a convex curve errs low: {point}");
    // The run's own spread, 9.7 to 10.3 around 10, in proportion.
    assert!((throughput["planned"].as_f64().unwrap() / point - 0.97).abs() < 1e-9, "{throughput}");
    assert_eq!((&throughput["basis"], &throughput["slo"]), (&"from_curve".into(), &"ttft:p99<640ms".into()));
    assert!(document["findings"].as_array().unwrap().iter().any(|finding| finding["code"] == "slo_read_from_curve"));
    for (slo, why) in
        [("ttft:p99<10ms", "below the lowest load"), ("ttft:p99<1h", "is no length of time"), ("ttft:p98<640ms", "p50, p90, p95 and p99")]
    {
        let output = at(slo);
        assert!(stderr(&output).contains(why), "{slo}: {}", stderr(&output));
        assert_eq!(output.status.code(), Some(if slo.ends_with('h') { 2 } else { 5 }), "{slo}");
    }
    let far = at("ttft:p99<900s");
    assert!(stderr(&far).contains("not measured") && far.status.code() == Some(5), "{}", stderr(&far));
}

#[test]
fn a_run_is_shown_with_the_demand_that_it_was_measured_for() {
    let data = tempfile::tempdir().unwrap();
    let mut record = small_run::confirmed();
    record.demand = DemandRecord {
        average_rps: Some(40.0),
        peak_rps: Some(100.0),
        peak_window_s: Some(60.0),
        recompute: Some(1.3),
        scenarios: vec!["Black Friday=7".to_owned()],
        ..DemandRecord::default()
    };
    save(data.path(), &record);
    let folder = data.path().to_str().unwrap();
    let shown = document(&run(["runs", "show", "--format", "json", "--data-dir", folder]));
    let inputs = &shown["capacity"]["inputs"];
    assert_eq!((&inputs["average"]["value"], &inputs["recompute"]["value"]), (&40.0.into(), &1.3.into()));
    let names = shown["capacity"]["requirements"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert!(names.first() == Some(&"Planned peak") && names.last() == Some(&"Black Friday"), "{names:?}");
}

#[test]
fn what_bench_was_asked_is_kept_with_the_run() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let asked = ["bench", "--quick", "--target", "simulated", "--law", "mm1", "--slo", "ttft:p90<400ms", "--seed", "18446744073709551615"];
    run(asked.iter().chain(&["--data-dir", folder, "--average-rps", "40", "--scenario", "Black Friday=7x"]));
    let shown = document(&run(["runs", "show", "--format", "json", "--data-dir", folder]));
    assert_eq!((&shown["demand"]["average_rps"], &shown["demand"]["scenarios"][0]), (&40.0.into(), &"Black Friday=7".into()));
    assert_eq!(shown["seed"], "18446744073709551615", "no digit is lost to readers that keep numbers as floats");
}

#[test]
fn inputs_that_make_no_sense_are_usage_errors() {
    let rate = ["--throughput-per-gpu", "8"];
    let wrong: [&[&str]; 10] = [
        &["--average-rps", "-1"],
        &["--average-rps", "NaN"],
        &["--headroom", "25"],
        &["--recompute", "0"],
        &["--gpus-per-replica", "0"],
        &["--scenario", "launch"],
        &["--peak-rps", "100"],
        &["--peak-rps", "100", "--peak-window", "0s"],
        &["--average-rps", "40", "--peak-rps", "40", "--peak-window", "1m"],
        &["latest"],
    ];
    for arguments in wrong {
        let output = run(["plan"].iter().chain(&rate).chain(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
