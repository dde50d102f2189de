//! Nothing of a litmus test that is driven is lost: killed, interrupted, or on a full disk, what was driven can be judged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use plimsoll::store::request_log::reader::Requests;
use rustix::process::Signal;
use serde_json::Value;

use crate::spike::measured;
use crate::support::{document, plimsoll, run, send, stderr, stdout, with_file_limit};

/// Of three minutes, against a target that answers at once: 50 calls/s, twice that, and 50 again.
fn arguments(data: &Path, target: &[&str]) -> Vec<String> {
    let run = fs::read_dir(measured().join("runs")).unwrap().flatten().next().expect("it was measured").path();
    let folders = ["--data-dir", data.to_str().unwrap(), "--run", run.to_str().unwrap()];
    let load = ["--average-rps", "50", "--recompute", "1", "--replicas", "1", "--times", "2"];
    let course = ["--before-for", "60s", "--spike-for", "60s", "--after-for", "60s"];
    let all = [&["spike", "--live", "--format", "json"], target, &folders, &load, &course].concat();
    all.into_iter().map(str::to_owned).collect()
}

const AT_ONCE: [&str; 4] = ["--target", "null", "--target-gpus", "1"];

fn driving(data: &Path) -> Child {
    plimsoll().args(arguments(data, &AT_ONCE)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The folder of the one that is driven, once some of its calls are on disk.
#[track_caller]
fn wait_for_calls(data: &Path) -> PathBuf {
    for _ in 0..6000 {
        let folders = fs::read_dir(data.join("spikes")).into_iter().flatten().flatten().map(|entry| entry.path());
        let has_calls = |folder: &PathBuf| fs::metadata(folder.join("requests.jsonl.zst")).is_ok_and(|log| log.len() > 0);
        if let Some(folder) = folders.into_iter().find(has_calls) {
            return folder;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no call was logged in `{}`", data.display());
}

fn judged(data: &Path, more: &[&str]) -> Output {
    run(["spike", "--data-dir", data.to_str().unwrap(), "--judge"].iter().chain(more))
}

fn phase(document: &Value, index: usize) -> (u64, f64) {
    let phase = &document["measured"]["phases"][index];
    (phase["calls"].as_u64().unwrap(), phase["span_s"][1].as_f64().unwrap())
}

#[test]
fn a_litmus_test_that_is_killed_is_judged_by_what_was_driven() {
    let data = tempfile::tempdir().unwrap();
    let mut running = driving(data.path());
    let folder = wait_for_calls(data.path());
    let early = judged(data.path(), &["--format", "json"]);
    assert_eq!(early.status.code(), Some(75), "it is still driven: {}", stderr(&early));
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(!folder.join("spike.json").exists());

    let id = folder.file_name().unwrap().to_str().unwrap();
    for name in ["latest", &id[..20], folder.to_str().unwrap()] {
        let judged = judged(data.path(), &[name, "--format", "json"]);
        assert_eq!(judged.status.code(), Some(4), "{}", stderr(&judged));
        let judged = document(&judged);
        assert_eq!((judged["verdict"].as_str(), judged["invalid"][0].as_str()), (Some("invalid"), Some("it was stopped before its end")));
        let ((calls, until_s), (after, _)) = (phase(&judged, 0), phase(&judged, 2));
        let due = 50.0 * until_s;
        assert!(until_s > 1.0 && until_s < 60.0 && after == 0, "stopped in the first phase, at {until_s} s");
        assert!((calls as f64 - due).abs() < 5.0 * due.sqrt() + 1.0, "{calls} calls in {until_s} s of 50 a second");
        assert_eq!(Requests::open(&folder.join("requests.jsonl.zst")).unwrap().count() as u64, calls);
        assert_eq!(judged["compared"].as_array().unwrap().len(), 1, "nothing stands beside phases that were not driven");
        assert!(judged["expected"].as_array().is_some_and(|phases| phases.len() == 3) && judged["audit"]["cpu_share"].is_null());
        assert!(judged["measured"]["recovery"].is_null());
    }
    let text = stdout(&judged(data.path(), &["latest"]));
    for word in ["invalid: it was stopped before its end", "no calls", "stopped before it could be told"] {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
    assert_eq!(judged(data.path(), &["01NOSUCHTEST"]).status.code(), Some(65));
    assert_eq!(judged(data.path(), &["latest", "--times", "3"]).status.code(), Some(2), "it is judged as it was asked");
}

#[test]
fn a_litmus_test_that_is_interrupted_is_saved_and_printed() {
    let data = tempfile::tempdir().unwrap();
    let running = driving(data.path());
    let folder = wait_for_calls(data.path());
    send(&running, Signal::INT);
    let ended = running.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    let printed = document(&ended);
    assert_eq!(printed["invalid"][0], "it was stopped before its end");
    let ((calls, until_s), (after, _)) = (phase(&printed, 0), phase(&printed, 2));
    assert!(calls > 50 && until_s < 60.0 && after == 0, "{calls} calls in {until_s} s");
    let saved: Value = serde_json::from_slice(&fs::read(folder.join("spike.json")).unwrap()).unwrap();
    assert_eq!(saved, printed);
    let shown = judged(data.path(), &["latest", "--format", "json"]);
    assert_eq!((shown.status.code(), document(&shown)), (Some(4), printed));
}

#[test]
fn a_litmus_test_on_a_disk_that_fills_up_is_printed_and_ends_with_74() {
    let data = tempfile::tempdir().unwrap();
    // What is known before fits; the result, which is twice as long, does not.
    let full = with_file_limit(64, arguments(data.path(), &[]));
    assert_eq!(full.status.code(), Some(74), "{}", stderr(&full));
    let printed = document(&full);
    assert!(phase(&printed, 2).0 > 1000 && printed["invalid"].as_array().unwrap().is_empty(), "all of it was driven");
    assert!(stderr(&full).contains("ulimit -f"), "what to do is said: {}", stderr(&full));
    let again = judged(data.path(), &["latest", "--format", "json"]);
    assert_eq!(again.status.code(), Some(4), "what is there can be judged: {}", stderr(&again));
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_a_call_is_sent() {
    let refused = run(arguments(Path::new("/proc/nowhere"), &AT_ONCE));
    assert_eq!(refused.status.code(), Some(73), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("/proc/nowhere"), "{}", stderr(&refused));
}
