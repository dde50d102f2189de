//! What `bench` sends, as asked on its command line: traces, caps, bad workload files. Virtual time or refusals only.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tempfile::TempDir;

use crate::support::{document, plimsoll, run, stderr, stdout};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A file of this text in the folder.
fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a temporary folder can be written");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn fixture(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces").join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// `bench --quick` against the simulated target, in virtual time.
fn simulated(folder: &TempDir, arguments: &[&str]) -> Output {
    let data = folder.path().to_str().expect("a path in UTF-8");
    run(["bench", "--quick", "--target", "simulated", "--seed", "3", "--data-dir", data].iter().chain(arguments))
}

/// The message of a refusal with that exit code.
#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
    stderr(output)
}

const WORKLOAD: &str = "name = \"w\"\nsource = \"a test\"\ninput = { fixed = 100 }\noutput = { fixed = 4 }\n";

#[test]
fn a_trace_is_replayed_with_speed_caps_and_order_as_asked_and_the_report_says_what_it_was() {
    let folder = folder();
    // 300 calls at 10 calls/s, two of them swapped, one without an answer, one line that is no call.
    let mut rows = (0..300).map(|at| format!("{:.1},{},{}", f64::from(at) / 10.0, 100 + at, 10 + at % 50)).collect::<Vec<_>>();
    rows.swap(10, 11);
    rows[20] = "2.0,50,0".to_owned();
    rows[30] = "3.0,0,7".to_owned();
    let trace = file(&folder, "trace.csv", &format!("arrival_s,input_tokens,output_tokens\n{}\n", rows.join("\n")));
    let unsorted = refused(&simulated(&folder, &["--trace", &trace]), 65);
    assert!(unsorted.contains("hold more rows with `--trace-reorder`"), "{unsorted}");
    let asked = ["--trace", &trace, "--trace-reorder", "1", "--trace-speed", "2", "--trace-format", "plain"];
    let output =
        simulated(&folder, &[&asked[..], &["--max-prompt-tokens", "150", "--max-output-tokens", "20", "--format", "json"]].concat());
    let document = document(&output);
    let levels = document["levels"].as_array().expect("levels were measured");
    let first = levels.iter().find(|level| level["purpose"]["kind"] == "search").expect("a search was made");
    // 298 calls in 29.9 s, twice as fast.
    let rate = first["offered"]["calls_per_s"].as_f64().expect("an open level has a rate");
    assert!((rate - 2.0 * 297.0 / 29.9).abs() < 1e-9, "{rate}");
    assert!(first["offered"]["process"].as_str().is_some_and(|process| process.contains("2.0000 times as fast as recorded")), "{first}");
    let lines = levels.iter().map(|level| level["traffic"]["from_line"].as_u64()).collect::<std::collections::BTreeSet<_>>();
    assert!(lines.len() > levels.len() / 2, "levels enter the trace at {lines:?}");
    for level in levels {
        let traffic = &level["traffic"];
        let (made, tokens) = (traffic["made"].as_u64().unwrap(), traffic["prompt_tokens"].as_u64().unwrap());
        assert!(tokens <= 150 * made && traffic["capped"].as_u64().unwrap() > 0 && traffic["cut"] == 0, "{traffic}");
    }
    let codes = document["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect::<Vec<_>>();
    for code in ["trace_rows_rejected", "trace_calls_failed", "shortened"] {
        assert!(codes.contains(&code), "{code} is missing in {codes:?}");
    }
    assert_eq!(document["workload"]["trace"]["failed"], 1);
    let text = stdout(&run(["runs", "show", "--data-dir", folder.path().to_str().unwrap()]));
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("299 calls in 30 s") && flat.contains("1 lines rejected: zero-length prompt"), "{text}");
    assert!(flat.contains("arrivals: the trace's own gaps, stretched to the offered rate"), "{text}");
}

#[test]
fn standard_input_as_a_trace_is_refused_before_anything_is_read_from_it() {
    let folder = folder();
    let data = folder.path().to_str().unwrap();
    let mut child = plimsoll()
        .args(["bench", "--trace", "-", "--data-dir", data])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nothing is ever written, and the pipe stays open: only who does not read comes to an end.
    let held = child.stdin.take();
    let status = child.wait().unwrap();
    drop(held);
    assert_eq!(status.code(), Some(65));
}

#[test]
fn bad_workload_files_are_bad_input_and_named() {
    let folder = folder();
    for (text, part) in [
        (format!("{WORKLOAD}slo = \"ttft:p99>2s\"\n"), "`slo`"),
        (
            format!(
                "{WORKLOAD}[arrivals.series]\nsegments = [{{ seconds = 5, from = 1, to = 1 }}, {{ seconds = 5, from = 10, to = 10 }}]\n"
            ),
            "averages `5.5` times the asked rate",
        ),
        (format!("{WORKLOAD}slow = 1\n"), "line 5"),
    ] {
        let name = file(&folder, "w.toml", &text);
        let message = refused(&simulated(&folder, &["--workload", &name]), 65);
        assert!(message.contains(part), "{message}");
        assert!(message.contains("w.toml") || message.contains("workload `w`"), "{message}");
    }
}

#[test]
fn a_workload_file_with_a_mark_and_windows_line_ends_is_the_same_workload() {
    let folder = folder();
    let digest = |text: &str| {
        let name = file(&folder, "w.toml", text);
        let document = document(&simulated(&folder, &["--workload", &name, "--format", "json"]));
        document["workload"]["hash"].as_str().expect("a digest").to_owned()
    };
    assert_eq!(digest(&format!("\u{feff}{}", WORKLOAD.replace('\n', "\r\n"))), digest(WORKLOAD));
}

#[test]
fn a_length_scale_that_is_none_is_a_usage_error_for_workloads_and_traces_alike() {
    let trace = fixture("plain.csv");
    for arguments in [
        &["--length-scale=-1"][..],
        &["--length-scale", "0"],
        &["--length-scale", "NaN", "--trace", &trace],
        &["--length-scale", "-1", "--trace", &trace],
    ] {
        let message = refused(&simulated(&folder(), arguments), 2);
        assert!(message.contains("--length-scale"), "{message}");
    }
}

#[test]
fn traffic_that_a_model_could_only_take_cut_to_pieces_is_refused_before_it_is_loaded() {
    let folder = folder();
    let name = file(&folder, "long.toml", &WORKLOAD.replace("fixed = 100", "fixed = 100000"));
    let data = folder.path().to_str().unwrap();
    let message = refused(&run(["bench", "--model", "llama-5m", "--workload", &name, "--data-dir", data]), 65);
    assert!(message.contains("100 % of the requests of `w`") && message.contains("`--length-scale`"), "{message}");
}

#[test]
fn a_service_law_that_makes_no_sense_is_bad_input_with_an_example() {
    let folder = folder();
    let service = r#""service": {"distribution": "exponential", "mean_s": 0.05}"#;
    for (law, wrong) in [
        (format!(r#"{{"law": "servers", "count": 0, {service}}}"#), "`count` is `0`"),
        (format!(r#"{{"law": "servers", "count": 1, {}}}"#, service.replace("0.05", "-1")), "`mean_s` is `-1`"),
        (format!(r#"{{"law": "servers", "count": 1, "speed": 2, {service}}}"#), "unknown field `speed`"),
        ("{".to_owned(), "EOF"),
    ] {
        let name = file(&folder, "law.json", &law);
        let message = refused(&simulated(&folder, &["--law", &name]), 65);
        assert!(message.contains(wrong) && message.contains("Write it like"), "{message}");
    }
    let name = file(&folder, "law.json", &format!(r#"{{"law": "servers", "count": 2, {service}}}"#));
    let output = simulated(&folder, &["--law", &name, "--format", "json"]);
    assert!(document(&output)["levels"].as_array().is_some_and(|levels| levels.len() > 5), "{}", stderr(&output));
}
