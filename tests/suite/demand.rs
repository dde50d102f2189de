//! `plimsoll demand` on real and made logs: published figures, every form, bad lines, and what a reader is told.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use plimsoll::record::demand::{Demand, Lengths, LogKind, LogToldBy};

use crate::support::{plimsoll, real, run, stderr, stdout};

fn demand(arguments: &[&str]) -> Demand {
    let output = run(["demand", "--format", "json"].iter().chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn is_near(found: f64, stated: f64) -> bool {
    // As stated with its digits: half of the last one away at most, and what double rounding adds.
    let digits = stated.to_string().split_once('.').map_or(0, |(_, digits)| digits.len() as i32);
    (found - stated).abs() <= 0.51 * 10_f64.powi(-digits)
}

fn are(lengths: Option<&Lengths>, stated: [f64; 4]) -> bool {
    let lengths = lengths.expect("the log tells them");
    [lengths.mean, lengths.p50, lengths.p95, lengths.p99].into_iter().zip(stated).all(|(found, stated)| (found - stated).abs() <= 0.51)
}

/// Name, calls, failed, span, mean, prompts, answers, CV of gaps.
type Lines = (&'static str, u64, u64, f64, f64, [f64; 4], [f64; 4], f64);

#[test]
fn the_worked_figures_of_published_logs_come_out() {
    const LINES: [Lines; 6] = [
        ("azure_llm_2023_code.csv.gz", 8_819, 0, 3_436.0, 2.5667, [2048.0, 1469.0, 7303.0, 7436.0], [28.0, 13.0, 90.0, 251.0], 13.15),
        ("azure_llm_2023_conv.csv.gz", 19_366, 0, 3_502.0, 5.5304, [1155.0, 1020.0, 4083.0, 4142.0], [211.0, 129.0, 451.0, 601.0], 1.09),
        ("burstgpt_1_head400.csv", 400, 17, 37_269.0, 0.0107, [520.0, 314.0, 1637.0, 1958.0], [277.0, 230.0, 814.0, 1421.0], 4.56),
        (
            "mooncake_conversation.jsonl.gz",
            12_031,
            0,
            3_537.0,
            3.4015,
            [12_035.0, 6909.0, 39_550.0, 85_400.0],
            [343.0, 350.0, 698.0, 1118.0],
            3.03,
        ),
        (
            "mooncake_synthetic.jsonl.gz",
            3_993,
            0,
            1_022.0,
            3.907,
            [15_325.0, 11_587.0, 48_905.0, 66_456.0],
            [149.0, 69.0, 519.0, 768.0],
            1.01,
        ),
        (
            "synthetic_request_log.csv.gz",
            82_444,
            2801,
            259_196.0,
            0.3181,
            [1160.0, 1021.0, 4082.0, 4141.0],
            [204.0, 123.0, 449.0, 598.0],
            1.93,
        ),
    ];
    for (name, calls, failed, span_s, mean_rps, prompts, answers, cv) in LINES {
        let Some(path) = real(name) else { continue };
        let demand = demand(&[path.to_str().unwrap()]);
        assert_eq!((demand.calls, demand.failed, demand.rejected.len()), (calls, failed, 0), "{name}");
        assert!(is_near((demand.last_ns - demand.first_ns) as f64 / 1e9, span_s), "{name}");
        assert!(is_near(demand.mean_rps.unwrap(), mean_rps), "{name}: {:?}", demand.mean_rps);
        assert!(are(demand.all_input_tokens.as_ref(), prompts), "{name}: {:?}", demand.all_input_tokens);
        assert!(are(demand.all_output_tokens.as_ref(), answers), "{name}: {:?}", demand.all_output_tokens);
        assert!(is_near(demand.gap_cv.unwrap(), cv), "{name}: {:?}", demand.gap_cv);
    }
}

/// Name; requests per minute: mean, p95, p99, max; peak over mean at 1 s, 1 min, 1 h; dispersion at 1 s, 1 min.
type Rates = (&'static str, [f64; 4], [f64; 3], [f64; 2]);

#[test]
fn the_worked_rates_of_published_logs_come_out() {
    const RATES: [Rates; 6] = [
        ("azure_llm_2023_code.csv.gz", [152.05, 464.1, 554.2, 585.0], [26.11, 3.85, 1.75], [13.2, 158.39]),
        ("azure_llm_2023_conv.csv.gz", [322.77, 467.6, 494.3, 502.0], [3.44, 1.56, 1.61], [1.33, 26.01]),
        ("burstgpt_1_head400.csv", [0.64, 4.0, 6.0, 8.0], [186.35, 12.44, 4.43], [1.01, 2.77]),
        ("mooncake_conversation.jsonl.gz", [203.92, 238.2, 247.0, 247.0], [8.23, 1.21, 1.0], [7.89, 2.85]),
        ("mooncake_synthetic.jsonl.gz", [221.83, 261.1, 270.6, 273.0], [3.33, 1.23, 1.0], [1.09, 12.98]),
        ("synthetic_request_log.csv.gz", [19.08, 49.0, 92.0, 497.0], [44.01, 26.05, 6.82], [1.5, 31.38]),
    ];
    for (name, minutes, peaks, dispersion) in RATES {
        let Some(path) = real(name) else { continue };
        let demand = demand(&[path.to_str().unwrap()]);
        let [second, minute, hour] = demand.rates[..] else { panic!("three windows") };
        let found = [minute.mean_rps, minute.p95_rps, minute.p99_rps, minute.max_rps].map(|rps| rps * 60.0);
        assert!(found.into_iter().zip(minutes).all(|(found, stated)| is_near(found, stated)), "{name}: {found:?}");
        let found = [second, minute, hour].map(|rates| rates.peak_over_mean);
        assert!(found.into_iter().zip(peaks).all(|(found, stated)| is_near(found, stated)), "{name}: {found:?}");
        let found = [second.index_of_dispersion, minute.index_of_dispersion];
        assert!(found.into_iter().zip(dispersion).all(|(found, stated)| is_near(found, stated)), "{name}: {found:?}");
    }
}

#[test]
fn an_hours_95th_percentile_has_three_readings_under_their_names() {
    let Some(path) = real("azure_llm_2023_code.csv.gz") else { return };
    let demand = demand(&[path.to_str().unwrap()]);
    let rpm = demand.hours[0].rpm;
    assert_eq!((rpm.p95_of_rows.unwrap(), rpm.p95_of_occupied, rpm.peak), (585.0, 489.75, 585));
    assert!(is_near(rpm.p95, 474.6), "{rpm:?}");
}

#[test]
fn hidden_work_is_told_apart_by_hour_and_in_incidents() {
    let Some(path) = real("synthetic_request_log.csv.gz") else { return };
    let demand = demand(&[path.to_str().unwrap()]);
    assert_eq!((demand.log, demand.log_told_by), (LogKind::Calls, LogToldBy::Ids));
    let recompute = demand.recompute.unwrap();
    assert_eq!((recompute.calls, recompute.requests, recompute.succeeded), (82_444, 60_017, 59_948));
    assert_eq!((recompute.incident_calls, recompute.incident_succeeded), (9_177, 5_331));
    assert!(is_near(recompute.multiplier().unwrap(), 1.375_258_557) && is_near(recompute.calls_per_request().unwrap(), 1.373_677_458));
    assert_eq!(demand.hours.iter().filter(|hour| hour.incident).count(), 2);
    let concurrency = demand.concurrency.unwrap();
    assert_eq!(concurrency.max, 1_543);
    let buckets: Vec<_> = concurrency.buckets.iter().map(|bucket| (bucket.from, bucket.calls)).collect();
    assert_eq!(buckets, [(0, 18_176), (100, 55_999), (500, 5_468)]);
    for (bucket, p95) in concurrency.buckets.iter().zip([8_040.25, 9_944.71, 27_188.805]) {
        assert!((bucket.p95_ms.unwrap() / p95 - 1.0).abs() < 0.001, "{bucket:?}");
    }
    let visible = demand.visible_rates[1];
    assert!(visible.mean_rps < demand.rates[1].mean_rps);
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn piped(text: &str, arguments: &[&str]) -> Output {
    let mut child = plimsoll();
    child.args(["demand", "-"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Calls of a minute in three files: comma and gzip are the table's business; here they only have to mean the same.
#[test]
fn a_log_says_the_same_in_any_order_over_several_files_and_through_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let line = |second: u32| format!("2026-03-02T00:{:02}:{:02}.5Z,{},{},ok,120\n", second / 60, second % 60, second / 2, 10 + second % 7);
    let head = "created_at,visible_request_id,input_tokens,status,latency_ms\n";
    let all = |seconds: &mut dyn Iterator<Item = u32>| head.to_owned() + &seconds.map(line).collect::<String>();
    let whole = demand(&[&written(folder.path(), "whole.csv", &all(&mut (0..600)))]);
    let bare = |demand: Demand| Demand { sources: Vec::new(), ..demand };
    written(folder.path(), "part-1.csv", &all(&mut (300..600)));
    written(folder.path(), "part-2.csv", &all(&mut (0..300)));
    let parts = folder.path().join("part-*.csv");
    assert_eq!(bare(demand(&[parts.to_str().unwrap()])), bare(whole.clone()));
    let backwards = written(folder.path(), "back.csv", &all(&mut (0..600).rev()));
    assert_eq!(bare(demand(&[&backwards])), bare(whole.clone()));
    let output = piped(&all(&mut (0..600).rev()), &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(bare(serde_json::from_slice(&output.stdout).unwrap()), bare(whole.clone()));
    assert_eq!((whole.calls, whole.recompute.unwrap().requests, whole.log), (600, 300, LogKind::Calls));
}

#[test]
fn time_zones_byte_order_marks_quoted_newlines_and_calls_that_stand_twice_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\u{feff}call_id,created_at,note,status\r\n\
        1,2026-03-02T00:00:00Z,\"two\nlines\",ok\r\n\
        2,2026-03-02T01:00:01+01:00,plain,ok\r\n\
        2,2026-03-02T00:00:01Z,again,ok\r\n\
        3,2026-03-01 19:00:02-05:00,,failed\r\n\
        4,when?,,ok\r\n";
    let path = written(folder.path(), "odd.csv", text);
    let demand = demand(&[&path, "--max-rejected", "0.5"]);
    assert_eq!((demand.calls, demand.failed), (3, 1));
    assert_eq!(demand.last_ns - demand.first_ns, 2_000_000_000);
    assert_eq!(demand.rejected.values().copied().collect::<Vec<_>>(), [1, 1], "{:?}", demand.rejected);
    assert!(demand.first_rejected[0].contains("line 7"), "{:?}", demand.first_rejected);
}

#[test]
fn a_log_of_which_too_much_is_no_call_is_refused_with_reasons_and_line_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "created_at,latency_ms\n".to_owned();
    for second in 0..300 {
        text += &if second % 20 == 0 { "soon,1\n".to_owned() } else { format!("{second},-{}\n", u32::from(second % 30 == 7)) };
    }
    let path = written(folder.path(), "bad.csv", &text.replace(",-0", ",5"));
    let output = run(["demand", &path]);
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    let says = stderr(&output);
    for part in ["25 of 300 lines", "15 time", "10 latency negative", "line 2 of", "--max-rejected"] {
        assert!(says.contains(part), "{part}: {says}");
    }
    assert_eq!(demand(&[&path, "--max-rejected", "0.1"]).calls, 275);
}

#[test]
fn few_calls_and_calls_all_at_once_have_defined_answers() {
    let folder = tempfile::tempdir().unwrap();
    let at =
        |stamps: &[&str]| "created_at,latency_ms\n".to_owned() + &stamps.iter().map(|stamp| format!("{stamp},10\n")).collect::<String>();
    let none = demand(&[&written(folder.path(), "none.csv", &at(&[]))]);
    assert_eq!((none.calls, none.mean_rps, none.rates.len(), none.gap_cv), (0, None, 0, None));
    let one = demand(&[&written(folder.path(), "one.csv", &at(&["5"]))]);
    assert_eq!((one.calls, one.mean_rps, one.gap_cv, one.rates[0].max_rps), (1, None, None, 1.0));
    let at_once = demand(&[&written(folder.path(), "at-once.csv", &at(&["7"; 50]))]);
    assert_eq!((at_once.mean_rps, at_once.gap_cv, at_once.rates[0].max_rps), (None, None, 50.0));
    assert_eq!(at_once.concurrency.unwrap().max, 50);
    let apart = demand(&[&written(folder.path(), "apart.csv", &at(&["0", "0", "600"]))]);
    assert_eq!(apart.rates[1].windows, 11, "minutes without a call count");
    assert_eq!(apart.hours[0].rpm.p95, 1.5, "between the two fullest of eleven minutes");
    for (file, format) in [("none.csv", "text"), ("one.csv", "markdown"), ("at-once.csv", "csv"), ("none.csv", "json")] {
        let output = run(["demand", folder.path().join(file).to_str().unwrap(), "--format", format]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let words = stdout(&output);
        assert!(!words.split(|letter: char| !letter.is_alphanumeric()).any(|word| ["NaN", "inf"].contains(&word)), "{words}");
    }
}

#[test]
fn columns_are_guessed_or_told_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(
        folder.path(),
        "own.jsonl",
        "{\"when\": 5, \"took_s\": 2.5, \"code\": 200}\n{\"when\": 6, \"took_s\": 1.5, \"code\": 503}\n",
    );
    let output = run(["demand", &path]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("--column time=NAME"), "{}", stderr(&output));
    let told = ["--column", "time=when", "--column", "latency=took_s", "--column", "status=code", "--log", "requests"];
    let demand = demand(&[&[path.as_str()], &told[..]].concat());
    assert_eq!((demand.calls, demand.failed, demand.log_told_by), (2, 1, LogToldBy::Flag));
    assert!((demand.latency_ms.unwrap().max / 2500.0 - 1.0).abs() < 0.001, "within three figures");
    let output = run(["demand", &path, "--column", "time=then"]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("`when`"), "{}", stderr(&output));
    assert_eq!(run(["demand", &path, "--column", "moment=when"]).status.code(), Some(2));
}

#[test]
fn what_a_log_cannot_tell_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "bare.csv", "created_at,latency\n2026-03-02T00:00:00Z,1\n2026-03-05T00:00:00Z,2\n");
    let found = demand(&[&path]);
    let codes: Vec<&str> = found.findings.iter().map(|finding| finding.code.as_str()).collect();
    for code in ["log_kind_assumed", "recompute_unknown", "few_calls", "latency_unit_assumed", "silence"] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
}

#[test]
fn a_workload_with_the_lengths_of_a_log_is_one_that_bench_reads() {
    let Some(path) = real("azure_llm_2023_code.csv.gz") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("from-log.toml");
    let output = run(["demand", path.to_str().unwrap(), "--workload-out", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let workload = plimsoll::workload::spec::Workload::parse(&fs::read_to_string(&file).unwrap(), "from-log.toml").unwrap();
    let mean = |distribution: &plimsoll::workload::lengths::Distribution| {
        (0..10_000).map(|k| f64::from(distribution.draw(3, k))).sum::<f64>() / 10_000.0
    };
    assert!((mean(&workload.input) / 2048.0 - 1.0).abs() < 0.1, "{}", mean(&workload.input));
    assert!((mean(&workload.output) / 28.0 - 1.0).abs() < 0.25, "{}", mean(&workload.output));
}

#[test]
fn nested_columns_are_guessed_by_their_path_and_a_plain_one_is_not_taken_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let nested = written(folder.path(), "nested.jsonl", "{\"ts\": 5, \"usage\": {\"prompt_tokens\": 7}}\n");
    assert_eq!(demand(&[&nested]).columns["input_tokens"], "usage.prompt_tokens");
    let plain = written(folder.path(), "plain.csv", "ts,usage\n5,9\n");
    assert!(!demand(&[&plain]).columns.contains_key("input_tokens"));
}
