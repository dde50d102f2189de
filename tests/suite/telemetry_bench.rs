//! `bench` with GPUs under watch, end to end, against a library whose answers change while it runs.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use plimsoll::record::run::RunStatus;
use plimsoll::record::telemetry::Telemetry;
use plimsoll::record::verdict::Invalid;
use plimsoll::store::runs::{RunStore, load};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::fake_nvml::FakeNvml;
use crate::support::{document, plimsoll, send, stderr, stdout, wait_for};

/// The UUID of the fake library's first GPU.
const FIRST: &str = "GPU-000000a0-0000-0000-0000-000000000000";

/// A quick run of the engine on a tiny model, with the first GPU of `fake` under watch and a lock folder of its own.
fn bench(fake: &FakeNvml, data: &TempDir, more: &[&str]) -> Command {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/qwen3");
    let engine = ["--model", model, "--threads", "1", "--workload", "fixed:16:8", "--kv-blocks", "64"];
    watching(fake, data, &[&engine, more].concat())
}

/// The same of whatever `more` says.
fn watching(fake: &FakeNvml, data: &TempDir, more: &[&str]) -> Command {
    let mut command = plimsoll();
    command.args(["bench", "--quick", "--no-request-log", "--seed", "7", "--watch-gpus", "0"]);
    command.args(more).arg("--data-dir").arg(data.path()).arg("--nvml").arg(fake.library());
    command.env("PLIMSOLL_LOCK_DIR", data.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn data() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn folder(data: &TempDir) -> PathBuf {
    RunStore::at(data.path()).find("latest").expect("a run was begun")
}

fn level(data: &TempDir, index: u32) -> PathBuf {
    folder(data).join(format!("levels/{index:03}.json"))
}

/// Waits until the run of `child` has saved its first level.
#[track_caller]
fn first_level(data: &TempDir) {
    for _ in 0..3000 {
        if RunStore::at(data.path()).find("latest").is_ok() {
            return wait_for(&level(data, 0));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no run was begun");
}

fn ends(child: Child, within: Duration) -> Output {
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < within, "it took {:?}: {}", began.elapsed(), stderr(&output));
    output
}

fn no_run(data: &TempDir) -> bool {
    RunStore::at(data.path()).find("latest").is_err()
}

fn invalid_of(data: &TempDir) -> Vec<Vec<Invalid>> {
    load(&folder(data)).unwrap().levels.into_iter().map(|level| level.verdict.invalid).collect()
}

#[test]
fn each_level_says_what_the_gpu_did_in_every_form_of_the_report() {
    let (fake, data) = (FakeNvml::new("power 300000\nreasons 0x4\nsm_clock 1410\ngpm.return 19"), data());
    let child =
        bench(&fake, &data, &["--format", "json", "--save-samples", data.path().join("samples").to_str().unwrap()]).spawn().unwrap();
    first_level(&data);
    wait_for(&level(&data, 2));
    send(&child, Signal::TERM);
    let output = ends(child, Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    let json = document(&output);
    let level = &json["levels"][1];
    assert_eq!(level["telemetry"]["state"], "measured");
    assert_eq!(
        (level["telemetry"]["gpus"][0]["uuid"].as_str(), level["metrics"]["sm_clock_median_mhz"].as_f64()),
        (Some(FIRST), Some(1410.0))
    );
    assert_eq!(level["metrics"]["power_w_per_gpu"], 300.0);
    assert_eq!(level["telemetry"]["energy_per_token"]["gross_j"]["missing"], "window_too_short");
    assert!(!level["verdict"].to_string().contains("throttled"), "the power cap spoils nothing: {}", level["verdict"]);
    let codes = json["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect::<Vec<_>>();
    assert!(codes.contains(&"profiling_conflict") && level["metrics"]["dram_activity"].is_null(), "{codes:?}");
    assert!(codes.contains(&"power_capped") && !codes.contains(&"telemetry_unavailable"), "{codes:?}");
    assert_eq!(json["node"]["telemetry"]["gpus"][0]["uuid"], FIRST);
    let show = |format: &str| {
        stdout(&plimsoll().args(["runs", "show", "latest", "--format", format, "--data-dir"]).arg(data.path()).output().unwrap())
    };
    for format in ["text", "markdown"] {
        let text = show(format);
        for part in ["GPUs under load", "NVML 12.570.86.15, driver 570.86.15", "power cap 100 %", "1410"] {
            assert!(text.contains(part) || text.contains(&part.replace("1410", "1,410")), "`{part}` is not in:\n{text}");
        }
    }
    assert!(show("csv").lines().next().unwrap().contains("sm_clock_median_mhz,power_w_per_gpu,energy_per_output_token_j"));
    let samples = std::fs::read_to_string(data.path().join("samples")).unwrap();
    let lines = plimsoll::telemetry::replay::read(samples.as_bytes()).unwrap();
    assert!(lines.len() > 20, "{}", lines.len());
}

#[test]
fn without_telemetry_a_run_goes_on_and_says_so_everywhere_unless_it_is_required() {
    let data = data();
    let fake = FakeNvml::new("init.return 18");
    let refused = bench(&fake, &data, &["--require-telemetry"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("version mismatch") && stderr(&refused).contains("Reload the module"), "{}", stderr(&refused));
    assert!(no_run(&data), "it is refused before any load");
    let missing = plimsoll().args(["bench", "--target", "null", "--quick", "--require-telemetry", "--nvml", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(69), "{}", stderr(&missing));
    let hangs = FakeNvml::new("sm_clock.sleep_ms 60000");
    let refused = bench(&hangs, &data, &["--require-telemetry"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("a call to the driver hangs"), "{}", stderr(&refused));
    let simulated = watching(&FakeNvml::new(""), &data, &["--target", "simulated", "--require-telemetry"]).output().unwrap();
    assert_eq!(simulated.status.code(), Some(69), "{}", stderr(&simulated));
    let child = bench(&fake, &data, &["--format", "json"]).spawn().unwrap();
    first_level(&data);
    send(&child, Signal::TERM);
    let json = document(&ends(child, Duration::from_secs(10)));
    assert!(json["levels"][0]["telemetry"]["why"].as_str().unwrap().contains("version mismatch"));
    assert_eq!(json["findings"][0]["code"], "telemetry_unavailable");
}

#[test]
fn a_gpu_that_is_too_hot_gives_no_valid_run() {
    let (fake, data) = (FakeNvml::new("reasons 0x48"), data());
    let output = bench(&fake, &data, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let invalid = invalid_of(&data);
    assert!(invalid.iter().all(|reasons| reasons.iter().any(|reason| matches!(reason, Invalid::Throttled { .. }))), "{invalid:?}");
    assert!(stdout(&output).contains("thermal slowdown (hardware) 100.0 % of the window"), "{}", stdout(&output));
}

/// A run whose GPU goes as `script` says after the first level: ended in 5 s with 69, the first level kept.
fn fails(key: &str, value: &str, seen: impl Fn(&Invalid) -> bool) {
    let (fake, data) = (FakeNvml::new(""), data());
    let child = bench(&fake, &data, &["--format", "json"]).spawn().unwrap();
    first_level(&data);
    // The second one is under way.
    std::thread::sleep(Duration::from_millis(300));
    fake.set(key, value);
    let output = ends(child, Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let run = load(&folder(&data)).unwrap();
    assert_eq!(run.status, RunStatus::Aborted);
    assert!(!run.levels[0].verdict.invalid.iter().any(&seen), "{}", run.levels[0].verdict);
    let last = &run.levels.last().unwrap().verdict.invalid;
    assert!(run.levels.len() > 1 && last.contains(&Invalid::Interrupted) && last.iter().any(&seen), "{last:?}");
    let finding = run.findings.iter().find(|finding| finding.code == "gpu_failed").expect("it is told");
    assert!(finding.evidence.contains(FIRST) && stderr(&output).contains(&finding.evidence), "{}", stderr(&output));
    assert_eq!(document(&output)["status"], "aborted");
}

#[test]
fn a_gpu_that_is_lost_ends_the_run_at_once_and_what_was_measured_is_kept() {
    fails("0.return", "15", |reason| matches!(reason, Invalid::GpuLost { .. }));
}

#[test]
fn a_fault_after_which_nothing_is_worth_measuring_ends_the_run_likewise() {
    fails("0.xid", "79 1", |reason| matches!(reason, Invalid::XidReported { code: 79, .. }));
}

#[test]
fn a_driver_that_goes_away_under_a_run_ends_it_likewise() {
    fails("0.return", "1", |reason| matches!(reason, Invalid::GpuLost { .. }));
}

#[test]
fn a_call_that_hangs_spoils_levels_and_holds_up_neither_them_nor_the_end() {
    let (fake, data) = (FakeNvml::new(""), data());
    let child = bench(&fake, &data, &[]).spawn().unwrap();
    first_level(&data);
    fake.set("sm_clock.sleep_ms", 60_000);
    // Levels of two seconds or less: the third after it is wholly in silence.
    wait_for(&level(&data, 4));
    send(&child, Signal::TERM);
    let output = ends(child, Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    let invalid = invalid_of(&data);
    assert!(invalid[4].iter().any(|reason| matches!(reason, Invalid::TelemetryStale { silent_s } if *silent_s >= 2.0)), "{invalid:?}");
}

#[test]
fn a_stranger_on_the_gpu_is_refused_at_the_start_and_labels_a_run_that_accepts_him() {
    let (fake, data) = (FakeNvml::new("processes 4242:3221225472\nprocess_name.4242 python3"), data());
    let refused = bench(&fake, &data, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(75), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("process 4242 (python3), 3.0 GiB"), "{}", stderr(&refused));
    assert!(no_run(&data));
    let child = bench(&fake, &data, &["--allow-shared", "--format", "json"]).spawn().unwrap();
    first_level(&data);
    // Another one comes: he was not accepted.
    fake.set("processes", "4242:3221225472,77:1048576");
    wait_for(&level(&data, 2));
    send(&child, Signal::TERM);
    let json = document(&ends(child, Duration::from_secs(10)));
    assert!(json["labels"].as_array().unwrap().contains(&"GPU shared with process 4242 (python3), 3.0 GiB".into()), "{}", json["labels"]);
    let invalid = invalid_of(&data);
    let foreign = |reason: &Invalid| matches!(reason, Invalid::ForeignProcess { process, .. } if process.pid == 77);
    assert!(!invalid[0].iter().any(foreign), "what was measured before him stands: {invalid:?}");
    assert!(invalid[2].iter().any(foreign), "{invalid:?}");
}

#[test]
fn clocks_that_somebody_locks_between_levels_spoil_the_next_one_with_both_values() {
    let (fake, data) = (FakeNvml::new(""), data());
    let child = bench(&fake, &data, &[]).spawn().unwrap();
    first_level(&data);
    fake.add("application_sm_clock 1410\nsm_clock 1410");
    wait_for(&level(&data, 2));
    send(&child, Signal::TERM);
    drop(ends(child, Duration::from_secs(10)));
    let invalid = invalid_of(&data).into_iter().flatten().collect::<Vec<_>>();
    let changed = |reason: &Invalid| matches!(reason, Invalid::LimitChanged { change, .. } if (change.from, change.to) == (1980.0, 1410.0));
    assert_eq!(invalid.iter().filter(|reason| changed(reason)).count(), 1, "{invalid:?}");
    let dropped =
        |reason: &Invalid| matches!(reason, Invalid::ClockDrop { from_mhz, to_mhz, .. } if (*from_mhz, *to_mhz) == (1980.0, 1410.0));
    assert!(invalid.iter().any(dropped), "{invalid:?}");
}

#[test]
fn two_runs_never_share_a_gpu_unknowingly_and_a_killed_one_lets_go() {
    let (fake, data) = (FakeNvml::new("gpus 2"), data());
    // The null target takes no lock of the node.
    let mut first = watching(&fake, &data, &["--target", "null"]).spawn().unwrap();
    first_level(&data);
    let second = watching(&fake, &data, &["--target", "null"]).output().unwrap();
    assert_eq!(second.status.code(), Some(75), "{}", stderr(&second));
    let holder = format!("process {}", first.id());
    assert!(stderr(&second).contains(&holder) && stderr(&second).contains(FIRST), "{}", stderr(&second));
    first.kill().unwrap();
    first.wait().unwrap();
    // A hot GPU makes it a short run.
    fake.set("reasons", "0x40");
    let third = watching(&fake, &data, &["--target", "null"]).output().unwrap();
    assert_eq!(third.status.code(), Some(4), "{}", stderr(&third));
}

#[test]
fn a_gpu_is_named_in_any_way_and_an_unknown_one_is_refused() {
    let (fake, data) = (FakeNvml::new("gpus 2"), data());
    let watch = |gpus: &str, visible: Option<&str>| {
        let mut command = plimsoll();
        command.args(["bench", "--target", "null", "--quick", "--no-request-log", "--watch-gpus", gpus, "--data-dir"]);
        command.arg(data.path()).arg("--nvml").arg(fake.library()).env("PLIMSOLL_LOCK_DIR", data.path());
        visible.map(|visible| command.env("CUDA_VISIBLE_DEVICES", visible));
        command.stderr(Stdio::piped()).stdout(Stdio::piped());
        command
    };
    for (gpus, visible) in [("5", None), ("GPU-ff", None), ("0", Some("")), ("1", Some("1")), ("all", Some("-1"))] {
        let refused = watch(gpus, visible).output().unwrap();
        assert_eq!(refused.status.code(), Some(69), "{gpus} {visible:?}: {}", stderr(&refused));
    }
    let child = watch("all", Some("1,0")).spawn().unwrap();
    first_level(&data);
    send(&child, Signal::TERM);
    drop(ends(child, Duration::from_secs(10)));
    let run = load(&folder(&data)).unwrap();
    let Telemetry::Measured(summary) = &run.levels[0].telemetry else { panic!("{:?}", run.levels[0].telemetry) };
    let uuids = summary.gpus.iter().map(|gpu| &gpu.uuid[..12]).collect::<Vec<_>>();
    assert_eq!(uuids, ["GPU-000000a1", "GPU-000000a0"], "CUDA's order");
    assert!(Path::new(&data.path().join(format!("plimsoll-gpu-{FIRST}.lock"))).exists());
}
