//! Reports say the same in every form, are whole at any width, and are kept as golden files.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use plimsoll::capacity::plan::{Input, Peak, Plan, PlanInputs};
use plimsoll::capacity::throughput::Throughput;
use plimsoll::clock::Nanos;
use plimsoll::record::level::Offered;
use plimsoll::record::metric::{CATALOGUE, metric};
use plimsoll::record::run::{Drift, HeadlineStatus, RunRecord};
use plimsoll::record::verdict::Outcome;
use plimsoll::report::paint::Paint;
use plimsoll::report::{BenchReport, Look, console, csv, json, markdown, plan};
use plimsoll::units::rate::{RecomputeMultiplier, VisibleRate};

use crate::small_run;

/// Compares with a file of the repository, or rewrites it under `PLIMSOLL_GOLDEN=write`.
pub(crate) fn assert_golden(path: &str, text: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("PLIMSOLL_GOLDEN").is_some_and(|mode| mode == "write") {
        std::fs::File::create(&path)
            .expect("the golden folder can be written")
            .write_all(text.as_bytes())
            .expect("the golden folder can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "`{}` is not what is made now; look at it, then rewrite it with PLIMSOLL_GOLDEN=write:\n{text}",
        path.display()
    );
}

fn report(run: &RunRecord) -> BenchReport<'_> {
    BenchReport::of(run, |inputs| inputs).expect("good inputs")
}

/// A plan with everything given.
fn given_plan() -> Plan {
    let inputs = PlanInputs::assumed(Throughput::measured(&small_run::confirmed()).expect("good inputs"));
    Plan::of(PlanInputs {
        average: Input::given(VisibleRate::new(40.0).expect("good inputs")),
        peak: Some(Peak::Planned { rate: VisibleRate::new(100.0).expect("good inputs"), window: Nanos::from_secs(60) }),
        recompute: Input::given(RecomputeMultiplier::new(1.3).expect("good inputs")),
        gpus_per_replica: 4.try_into().expect("good inputs"),
        ..inputs
    })
    .expect("good inputs")
}

#[test]
fn the_console_report_is_as_it_was() {
    let run = small_run::confirmed();
    assert_golden("tests/golden/bench.txt", &console::text(&report(&run), Look { width: 100, ..Look::PLAIN }));
}

#[test]
fn the_narrow_console_report_is_as_it_was() {
    let run = small_run::confirmed();
    assert_golden("tests/golden/bench-80.txt", &console::text(&report(&run), Look::PLAIN));
}

#[test]
fn the_markdown_report_is_as_it_was() {
    let run = small_run::confirmed();
    assert_golden("tests/golden/bench.md", &markdown::text(&report(&run)));
}

#[test]
fn the_csv_of_levels_is_as_it_was() {
    assert_golden("tests/golden/bench.csv", &csv::text(&small_run::confirmed().levels).unwrap());
}

#[test]
fn the_json_document_is_as_it_was() {
    let mut run = small_run::confirmed();
    run.levels.truncate(3);
    assert_golden("tests/golden/bench.json", &(serde_json::to_string_pretty(&json::document(&report(&run))).unwrap() + "\n"));
}

#[test]
fn a_plan_is_as_it_was_in_every_form() {
    let made = given_plan();
    assert_golden("tests/golden/plan.txt", &plan::text(&made, Look { width: 100, ..Look::PLAIN }));
    assert_golden("tests/golden/plan.md", &plan::markdown(&made));
    assert_golden("tests/golden/plan.json", &(serde_json::to_string_pretty(&plan::json(&made)).unwrap() + "\n"));
}

#[test]
fn metric_ids_are_unique_and_end_in_their_unit() {
    let ids = CATALOGUE.iter().map(|metric| metric.id).collect::<BTreeSet<_>>();
    assert_eq!(ids.len(), CATALOGUE.len());
    for each in CATALOGUE.iter().filter(|metric| metric.unit == "ms") {
        assert!(each.id.ends_with("_ms"), "{}", each.id);
    }
    assert!(metric("ttft_p99_ms").is_some() && metric("no such").is_none());
}

#[test]
fn the_json_document_has_what_the_contract_promises() {
    let run = small_run::confirmed();
    let document = serde_json::to_value(json::document(&report(&run))).unwrap();
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["throughput_per_gpu"], 10.0);
    assert_eq!(document["capacity"]["requirements"][0]["whole_gpus"], 1);
    let levels = document["levels"].as_array().unwrap();
    assert_eq!(levels.len(), run.levels.len());
    for (written, level) in levels.iter().zip(&run.levels) {
        assert_eq!(written["verdict"]["outcome"], level.verdict.outcome.name());
        assert_eq!(written["per_device"]["calls_per_s"].as_f64(), Some(level.per_device.calls_per_s));
        let met = matches!(level.offered, Offered::Open { .. }) && level.verdict.outcome == Outcome::Met;
        assert_eq!(written["throughput_per_gpu"].as_f64(), met.then_some(level.per_device.calls_per_s), "{:?}", level.offered);
        assert_eq!(written["metrics"]["ttft_p99_ms"].as_f64(), level.latency.ttft.adjusted.p99);
    }
    assert!(
        levels.iter().any(|level| level["throughput_per_gpu"].is_null()) && levels.iter().any(|level| level["throughput_per_gpu"].is_f64())
    );
    // What is written can be read back as the run it came from.
    let read = serde_json::from_value::<RunRecord>(document).unwrap();
    assert_eq!(read, run);
}

#[test]
fn a_run_without_levels_still_has_a_list_of_them() {
    let mut run = small_run::confirmed();
    run.levels.clear();
    run.headline = None;
    let report = report(&run);
    let document = serde_json::to_value(json::document(&report)).unwrap();
    assert_eq!(document["levels"], serde_json::json!([]));
    assert!(document["throughput_per_gpu"].is_null());
    assert!(document["capacity"]["refused"].as_str().unwrap().contains(&run.id));
    assert!(console::text(&report, Look::PLAIN).contains("no throughput_per_gpu"));
    assert!(markdown::text(&report).contains("Not planned: "));
}

#[test]
fn the_plateau_is_named_beside_the_number_and_never_as_it() {
    let run = small_run::confirmed();
    for text in [console::text(&report(&run), Look::PLAIN), markdown::text(&report(&run))] {
        assert!(text.contains("throughput_per_gpu = 10.0 calls/s per device"), "{text}");
        assert!(text.contains("The closed-loop plateau is 16.0 calls/s per device, 1.60 times as much"), "{text}");
        assert!(!text.contains("throughput_per_gpu = 16"));
        assert!(!text.contains("/GPU") && !text.contains("per GPU,"), "a CPU run speaks of devices:\n{text}");
    }
}

#[test]
fn labels_and_doubts_stand_beside_the_number_in_every_form() {
    let run = small_run::confirmed();
    let report = report(&run);
    let document = serde_json::to_string(&json::document(&report)).unwrap();
    for text in [console::text(&report, Look::PLAIN), markdown::text(&report), document] {
        for said in ["synthetic weights", "CPU device: no GPU measurement", "no_gpu_measured", "recompute_assumed", "synthetic_weights"] {
            assert!(text.contains(said), "`{said}` is not in\n{text}");
        }
    }
}

#[test]
fn a_drifted_run_shows_its_number_as_not_usable() {
    let mut run = small_run::confirmed();
    run.drift = Some(Drift { first: 100.0, last: 95.0, limit: 0.02, noise: Some(0.01) });
    let text = console::text(&report(&run), Look::PLAIN);
    assert!(text.contains("NOT USABLE: throughput_per_gpu = 10.0"), "{text}");
    assert!(text.contains("not planned"), "{text}");
    let mut single = small_run::confirmed();
    let headline = single.headline.as_mut().unwrap();
    (headline.status, headline.interval, headline.runs) = (HeadlineStatus::BracketOnly, None, 1);
    let text = console::text(&report(&single), Look::PLAIN);
    assert!(text.contains("interval: bracket only (1 run); passed at 10.0, failed at 10.5"), "{text}");
}

#[test]
fn a_reference_level_that_is_too_noisy_is_not_said_to_have_held_still() {
    let drift = |last: f64, noise: Option<f64>| Drift { first: 100.0, last, limit: 0.02, noise };
    let said = |drift: Drift| {
        let mut run = small_run::confirmed();
        run.drift = Some(drift);
        console::text(&report(&run), Look { width: 200, ..Look::PLAIN })
    };
    assert!(said(drift(97.0, Some(0.035))).contains("-3.00 % (limit 3.50 %), held still"), "the limit that is applied is printed");
    for noise in [None, Some(0.5), Some(f64::NAN)] {
        assert!(!drift(100.5, noise).resolved());
        assert!(said(drift(100.5, noise)).contains("too noisy to tell"));
        assert!(drift(95.0, noise).exceeded(), "noise excuses twice the limit at most");
    }
    assert!(!drift(f64::NAN, Some(0.01)).resolved());
}

#[test]
fn no_number_is_cut_at_any_width() {
    let run = small_run::confirmed();
    let numbers = |text: &str| {
        let parts = text.split(|letter: char| !(letter.is_ascii_digit() || letter == '.')).filter(|part| part.len() > 2);
        parts.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let wide = numbers(&console::text(&report(&run), Look { width: 200, ..Look::PLAIN }));
    for width in [1, 20, 40, 60, 80, 100] {
        let text = console::text(&report(&run), Look { width, ..Look::PLAIN });
        assert_eq!(numbers(&text), wide, "at {width} columns");
    }
}

#[test]
fn colour_changes_no_character_that_is_read() {
    let run = small_run::confirmed();
    let coloured = console::text(&report(&run), Look { paint: Paint::Colour, ..Look::PLAIN });
    assert!(coloured.contains('\u{1b}'));
    let stripped = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(stripped, console::text(&report(&run), Look::PLAIN));
}

#[test]
fn a_quantile_that_falls_on_a_failure_is_infinite_and_not_missing() {
    let mut run = small_run::confirmed();
    let level = run.levels.last_mut().unwrap();
    level.purpose = plimsoll::record::level::Purpose::Sweep;
    level.offered = plimsoll::record::level::Offered::Closed { concurrency: 256 };
    level.latency.ttft.adjusted.p99 = None;
    let text = console::text(&report(&run), Look::PLAIN);
    let row = text.lines().find(|line| line.trim_start().starts_with("256 ")).unwrap();
    assert!(row.contains("inf†"), "{row}");
}
