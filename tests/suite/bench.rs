//! `bench` through the program: every way it ends has its exit code, one document, and everything saved.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plimsoll::record::run::{RunRecord, RunStatus};
use plimsoll::store::lock::NodeLock;
use plimsoll::store::runs::{RunStore, is_intact, load};
use rustix::process::Signal;

use crate::support::{document, plimsoll, send, stderr, stdout, under, wait_for, with_file_limit};

/// A law that draws nothing and lets go at once: what a level shows is a function of what is asked.
const LAW: &str = r#"{"law": "servers", "count": 1, "service": {"distribution": "deterministic", "mean_s": 0.05}}"#;

/// What it ends decided with.
const SLO: &str = "e2e:p99<500ms";

/// A folder to keep runs in, with that law beside them.
fn place() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("law.json"), LAW).unwrap();
    data
}

/// The full method against that law: two hours of virtual time.
fn full<'a>(data: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    // Relative: it is run in `data`.
    arguments(data, &[&["--law", "law.json", "--slo", SLO, "--workload", "fixed:8:4"], more].concat())
}

fn full_bench(data: &Path, more: &[&str]) -> Command {
    let mut command = plimsoll();
    command.args(full(data, more)).current_dir(data);
    command
}

/// `bench` in virtual time, a document on standard output.
fn arguments<'a>(data: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["bench", "--target", "simulated", "--seed", "7", "--format", "json", "--data-dir", data.to_str().unwrap()];
    fixed.iter().chain(more).copied().collect()
}

fn bench(data: &Path, more: &[&str]) -> Command {
    let mut command = plimsoll();
    command.args(arguments(data, more));
    command
}

fn resume(data: &Path, more: &[&str]) -> Output {
    plimsoll().args(["bench", "--resume", "latest", "--format", "json", "--data-dir"]).arg(data).args(more).output().unwrap()
}

/// Where the only run of `data` is.
fn folder(data: &Path) -> PathBuf {
    RunStore::at(data).find("latest").expect("a run was begun")
}

fn saved(data: &Path) -> RunRecord {
    load(&folder(data)).expect("what was saved can be read")
}

/// The folder of the run, when it has saved its level `index`.
fn wait_for_level(data: &Path, index: u32) -> PathBuf {
    for _ in 0..2000 {
        if let Ok(folder) = RunStore::at(data).find("latest") {
            wait_for(&folder.join(format!("levels/{index:03}.json")));
            return folder;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("no run was begun");
}

#[test]
fn a_run_ends_with_one_document_a_saved_folder_and_0() {
    let data = tempfile::tempdir().unwrap();
    let output = bench(data.path(), &["--quick"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document = document(&output);
    assert!(document["throughput_per_gpu"].as_f64().is_some_and(|rate| rate > 0.0), "{}", document["headline"]);
    assert_eq!(document["status"], "complete");
    let run = saved(data.path());
    assert_eq!((run.status, is_intact(&folder(data.path())).unwrap()), (RunStatus::Complete, Some(true)));
    assert_eq!(document["levels"].as_array().unwrap().len(), run.levels.len());
    assert!(stderr(&output).contains(&format!("saved as run {}", run.id)), "{}", stderr(&output));
    assert!(run.cold_start.first_request_ms.is_some_and(|millis| millis > 0.0));
    let again = resume(data.path(), &[]);
    assert_eq!(again.status.code(), Some(2), "there is nothing to resume");
}

#[test]
fn each_way_a_run_can_end_has_its_exit_code_and_its_document() {
    let ends: [(&[&str], i32); 4] = [
        (&["--quick", "--slo", "e2e:p90<1ms"], 3),
        (&["--quick", "--on-cap", "refuse", "--in-flight-cap", "1"], 4),
        (&["--budget", "1s"], 5),
        (&["--quick", "--law", "/dev/zero/law"], 65),
    ];
    for (more, code) in ends {
        let data = tempfile::tempdir().unwrap();
        let output = bench(data.path(), more).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
        let document = document(&output);
        assert_eq!(document["schema_version"], 1, "{more:?}");
        if code == 65 {
            assert_eq!(document["error"]["kind"], "bad_input");
        } else {
            assert_eq!(document["throughput_per_gpu"], serde_json::Value::Null, "{more:?}");
            assert_eq!(saved(data.path()).levels.len(), document["levels"].as_array().unwrap().len(), "{more:?}");
        }
    }
}

#[test]
fn a_stopped_run_saves_and_prints_what_it_has_and_is_gone_on_with_to_the_same_number() {
    let whole = place();
    let uninterrupted = document(&full_bench(whole.path(), &[]).output().unwrap());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let data = place();
        let running = full_bench(data.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let folder = wait_for_level(data.path(), 2);
        send(&running, signal);
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        let printed = document(&output);
        assert_eq!(printed["status"], "interrupted");
        let run = load(&folder).unwrap();
        assert_eq!(run.status, RunStatus::Interrupted);
        assert!(run.slo.is_some() && run.levels.len() >= 3 && printed["levels"].as_array().unwrap().len() == run.levels.len());
        // The command that goes on with it is printed, and works as it stands.
        let said = stderr(&output);
        let command = said.lines().find_map(|line| line.split_once("go on with it: plimsoll ")).expect(&said).1.to_owned();
        let script = format!("exec \"$0\" {command} --format json");
        let resumed = Command::new("bash").args(["-c", &script]).arg(plimsoll().get_program()).output().unwrap();
        assert_eq!(resumed.status.code(), Some(0), "{}", stderr(&resumed));
        let resumed = document(&resumed);
        assert_eq!(resumed["headline"], uninterrupted["headline"]);
        let finished = load(&folder).unwrap();
        assert_eq!(finished.levels[..2], run.levels[..2]);
        assert_eq!((finished.status, finished.command), (RunStatus::Complete, run.command));
    }
}

#[test]
fn a_killed_run_knows_what_it_had_learned_and_is_gone_on_with() {
    let data = tempfile::tempdir().unwrap();
    let mut running =
        bench(data.path(), &["--confirmations", "20", "--quick"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_level(data.path(), 2);
    running.kill().unwrap();
    running.wait().unwrap();
    let run = saved(data.path());
    assert_eq!(run.status, RunStatus::Aborted);
    assert!(run.slo.is_some_and(|slo| !slo.objectives.is_empty()), "relative to the reference, which was measured");
    assert!(run.cold_start.first_request_ms.is_some());
    assert_eq!(resume(data.path(), &[]).status.code(), Some(0));
    let finished = saved(data.path());
    assert_eq!((finished.status, finished.cold_start), (RunStatus::Complete, run.cold_start));
    assert_eq!(finished.levels[..run.levels.len()], run.levels);
}

#[test]
fn a_run_out_of_budget_is_gone_on_with_by_giving_it_more() {
    let data = place();
    let output = full_bench(data.path(), &["--budget", "100s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    assert_eq!(document(&output)["status"], "out_of_budget");
    assert!(stderr(&output).contains("--budget TIME"), "{}", stderr(&output));
    let first = saved(data.path());
    let output = resume(data.path(), &["--budget", "20h"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let run = saved(data.path());
    assert_eq!((run.status, &run.levels[..2]), (RunStatus::Complete, &first.levels[..2]));
}

#[test]
fn a_run_is_not_gone_on_with_under_another_plan() {
    let data = place();
    let output = full_bench(data.path(), &["--budget", "30s"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    let before = saved(data.path());
    assert!(before.command.contains(&data.path().join("law.json").to_str().unwrap().to_owned()), "{:?}", before.command);
    fs::write(data.path().join("law.json"), LAW.replace("0.05", "0.04")).unwrap();
    let refused = resume(data.path(), &[]);
    assert_eq!(refused.status.code(), Some(65), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("cannot be resumed"), "{}", stderr(&refused));
    assert_eq!(saved(data.path()), before, "it is left as it was");
    fs::write(data.path().join("law.json"), LAW).unwrap();
    assert_eq!(resume(data.path(), &["--budget", "60s"]).status.code(), Some(5));
}

#[test]
fn every_flag_that_a_run_has_decided_is_refused_beside_resume() {
    let command = plimsoll::cli::command();
    let bench = command.find_subcommand("bench").unwrap();
    // Where NVML is belongs to the machine, not to the run.
    let decided = |argument: &&clap::Arg| argument.get_long().is_some_and(|flag| !["resume", "budget", "nvml", "help"].contains(&flag));
    for argument in bench.get_arguments().filter(decided) {
        let flag = argument.get_long().unwrap();
        let values = argument.get_possible_values();
        let any = match flag {
            "trace-format" => "plain",
            "device" => "cpu",
            "target" => "null",
            "scenario" => "Black Friday=7",
            "metrics-url" | "dcgm-url" => "http://127.0.0.1:1",
            "header" => "a: b",
            "extra-body" => "{}",
            "vocab-size" => "2",
            _ => "1",
        };
        let value = argument.get_action().takes_values().then(|| values.first().map_or(any, |value| value.get_name()));
        let mut arguments = vec!["bench".to_owned(), "--resume".to_owned(), "latest".to_owned(), format!("--{flag}")];
        arguments.extend(value.map(str::to_owned));
        let output = plimsoll().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "--{flag}");
        assert!(stderr(&output).contains("cannot be used with"), "--{flag}: {}", stderr(&output));
    }
}

#[test]
fn a_disk_that_fills_up_during_a_run_ends_it_with_74_and_keeps_what_was_saved() {
    let data = place();
    // Levels and the run fit; the request log outgrows the limit after some of them.
    let law = data.path().join("law.json");
    let output = with_file_limit(4096, arguments(data.path(), &["--law", law.to_str().unwrap(), "--slo", SLO, "--workload", "fixed:8:4"]));
    assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
    assert_eq!(document(&output)["error"]["kind"], "cannot_write");
    let run = saved(data.path());
    assert_eq!(run.status, RunStatus::Aborted);
    assert!(!run.levels.is_empty() && run.levels.iter().enumerate().all(|(index, level)| level.index as usize == index));
    let output = resume(data.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "there is room again: {}", stderr(&output));
    assert_eq!(saved(data.path()).levels[..run.levels.len()], run.levels);
}

#[test]
fn a_reader_that_goes_away_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut running = bench(data.path(), &["--quick"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(running.stdout.take());
    assert_eq!(running.wait().unwrap().code(), Some(0));
    assert_eq!(saved(data.path()).status, RunStatus::Complete);
}

#[test]
fn a_closed_standard_error_ends_nothing() {
    for detail in [&["--quick"][..], &["--quick", "-vvv"]] {
        let data = tempfile::tempdir().unwrap();
        let mut running = bench(data.path(), detail).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(running.stderr.take());
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(document(&output)["status"], "complete");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_said_before_load_is_sent() {
    for data in ["/proc/nowhere", "/dev/null/runs"] {
        let output = bench(Path::new(data), &["--quick"]).output().unwrap();
        assert_eq!(output.status.code(), Some(73), "{}", stderr(&output));
        assert_eq!(document(&output)["error"]["kind"], "cannot_create");
        assert!(!stderr(&output).contains("in flight"), "{}", stderr(&output));
    }
}

#[test]
fn a_second_run_on_the_node_is_told_to_wait_wherever_it_would_be_kept() {
    let (node, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let _measuring = NodeLock::take(node.path()).unwrap();
    let mut command = plimsoll();
    command.args(["bench", "--quick", "--format", "json", "--data-dir"]).arg(data.path()).env("PLIMSOLL_LOCK_DIR", node.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    assert_eq!(document(&output)["error"]["kind"], "busy");
    // What takes no device needs no lock.
    let output = bench(data.path(), &["--quick"]).env("PLIMSOLL_LOCK_DIR", node.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_stop_while_the_model_is_loaded_is_heard_at_once() {
    let (node, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = plimsoll();
    command.args(["bench", "--model", "llama-124m", "--format", "json", "--data-dir"]).arg(data.path());
    command.env("PLIMSOLL_LOCK_DIR", node.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = command.spawn().unwrap();
    wait_for(&node.path().join("plimsoll-measuring.lock"));
    send(&running, Signal::TERM);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert_eq!(document(&output)["error"]["kind"], "terminated");
    assert!(RunStore::at(data.path()).list().unwrap().is_empty(), "nothing was begun");
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let data = place();
    let mut command = under("trap '' HUP", full(data.path(), &[]));
    let running = command.current_dir(data.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_level(data.path(), 1);
    send(&running, Signal::HUP);
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(saved(data.path()).status, RunStatus::Complete);
}

#[test]
fn an_argument_that_no_record_can_hold_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let output = bench(data.path(), &["--quick"]).arg("--label").arg(OsStr::from_bytes(b"caf\xe9")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stdout(&output).starts_with('{'), "{}", stdout(&output));
}
