//! The program on a GPU, from the command line, through the driver that runs kernels on the host.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use plimsoll::record::level::{LevelRecord, Offered, Purpose};
use plimsoll::record::verdict::{Outcome, Verdict};
use plimsoll::store::runs::{RunStore, load};
use rustix::process::Signal;

use crate::support::fake_cuda;
use crate::support::fake_nvml::FakeNvml;
use crate::support::{document, plimsoll, send, stderr, stdout};

const PROMPT: [&str; 8] = ["--prompt-ids", "1,2,3,4,5", "--max-new-tokens", "12", "--ignore-eos", "--arithmetic", "f32", "--format"];

fn checkpoint() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama-untied").to_str().unwrap().to_owned()
}

/// `generate` on the checkpoint, with the driver in `libraries` and a cache of its own.
fn generate(libraries: &Path, device: &str, alter: impl for<'a> FnOnce(&'a mut Command) -> &'a mut Command) -> Output {
    let cache = tempfile::tempdir().unwrap();
    let mut command = plimsoll();
    command.args(["generate", "--model", &checkpoint(), "--device", device]).args(PROMPT).arg("json");
    command.env("PLIMSOLL_CUDA_LIBRARIES", libraries).env("XDG_CACHE_HOME", cache.path()).env_remove("CUDA_VISIBLE_DEVICES");
    alter(&mut command);
    command.output().unwrap()
}

fn tokens(output: &Output) -> serde_json::Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_str::<serde_json::Value>(&stdout(output)).unwrap()["token_ids"].clone()
}

#[test]
fn a_gpu_gives_the_tokens_of_the_cpu_and_says_that_it_did() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let on_gpu = generate(&libraries, "cuda:0", |command| command);
    assert_eq!(tokens(&on_gpu), tokens(&generate(&libraries, "cpu", |command| command)));
    let said = stdout(&on_gpu);
    assert!(said.contains("plimsoll host device") && !said.contains("CPU device"), "{said}");
}

#[test]
fn kernels_are_compiled_once_and_a_damaged_cache_costs_time_only() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let cache = tempfile::tempdir().unwrap();
    let run = || generate(&libraries, "cuda", |command| command.env("XDG_CACHE_HOME", cache.path()));
    let first = tokens(&run());
    let folder = cache.path().join("plimsoll/kernels");
    let kept: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), plimsoll::device::cuda::program::PROGRAMS.len());
    kept.iter().for_each(|path| std::fs::write(path, "cut short").unwrap());
    assert_eq!(tokens(&run()), first);
    assert!(kept.iter().all(|path| std::fs::read(path).unwrap() != b"cut short"), "what did not load was compiled again");
}

#[test]
fn a_gpu_that_is_too_small_or_not_there_is_refused_before_anything_is_loaded() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let small = generate(&libraries, "cuda:0", |command| command.env("PLIMSOLL_FAKE_CUDA_MEMORY", "1048576"));
    assert_eq!(small.status.code(), Some(69), "{}", stderr(&small));
    assert!(stderr(&small).contains("bytes"), "{}", stderr(&small));
    let absent = generate(&libraries, "cuda:3", |command| command);
    assert_eq!(absent.status.code(), Some(69));
    assert!(stderr(&absent).contains("there is no `cuda:3`: this process may use 1 GPUs"), "{}", stderr(&absent));
    let hidden = generate(&libraries, "cuda:0", |command| command.env("CUDA_VISIBLE_DEVICES", ""));
    assert_eq!(hidden.status.code(), Some(69));
    assert!(stderr(&hidden).contains("CUDA_VISIBLE_DEVICES"), "{}", stderr(&hidden));
    let several = generate(&libraries, "cuda:all", |command| command.env("PLIMSOLL_FAKE_CUDA_DEVICES", "2"));
    assert_eq!(several.status.code(), Some(2), "{}", stderr(&several));
}

#[test]
fn without_a_compiler_the_embedded_kernels_are_tried_and_their_refusal_names_what_is_missing() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let driver_only = tempfile::tempdir().unwrap();
    for name in ["libcuda.so", "libcuda.so.1", "libplimsoll_host_cuda.so"] {
        std::fs::copy(libraries.join(name), driver_only.path().join(name)).unwrap();
    }
    // The driver of the tests takes no PTX: on a real one this would go on.
    let refused = generate(driver_only.path(), "cuda:0", |command| command.args(["-v"]));
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    let said = stderr(&refused) + &stdout(&refused);
    assert!(said.contains("NVRTC cannot be used") && said.contains("pip install"), "{said}");
    assert!(said.contains("the embedded kernels do not serve either"), "{said}");
}

#[test]
fn a_compiler_that_refuses_a_kernel_is_quoted_with_the_architecture_and_nothing_slower_is_taken_silently() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let log = "vector.cuh(7): error: identifier is undefined";
    let refused = generate(&libraries, "cuda:0", |command| command.env("PLIMSOLL_FAKE_NVRTC_REFUSES", log));
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    let said = stderr(&refused) + &stdout(&refused);
    assert!(said.contains("--gpu-architecture=sm_90") && said.contains(log), "{said}");
    assert!(said.contains("the embedded kernels do not serve either"), "{said}");
}

#[test]
fn every_level_on_a_gpu_is_joined_to_what_that_very_gpu_did() {
    let Some(libraries) = fake_cuda::folder() else { return };
    // The other one stands first in the library's order: GPUs are joined by UUID, never by position.
    let nvml = FakeNvml::new("gpus 2\n1.uuid GPU-fa4eda7a-0000-4000-8000-000000000000\ngpm_dram 61");
    let (data, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = plimsoll();
    command.args(["bench", "--quick", "--no-request-log", "--model", &checkpoint(), "--device", "cuda:0", "--format", "json"]);
    command.args(["--workload", "fixed:8:4", "--max-concurrency", "2", "--budget", "8s", "--kv-blocks", "64", "--max-num-seqs", "4"]);
    command.arg("--data-dir").arg(data.path()).arg("--nvml").arg(nvml.library()).env("PLIMSOLL_LOCK_DIR", data.path());
    command.env("PLIMSOLL_CUDA_LIBRARIES", &libraries).env("XDG_CACHE_HOME", cache.path()).env_remove("CUDA_VISIBLE_DEVICES");
    let document = document(&command.output().unwrap());
    assert_eq!(document["target"]["device"], "cuda:0");
    let levels = document["levels"].as_array().unwrap();
    assert!(!levels.is_empty());
    for level in levels {
        let gpus = level["telemetry"]["gpus"].as_array().unwrap_or_else(|| panic!("{}", level["telemetry"]));
        let uuids: Vec<_> = gpus.iter().map(|gpu| gpu["uuid"].as_str().unwrap()).collect();
        assert_eq!(uuids, ["GPU-fa4eda7a-0000-4000-8000-000000000000"]);
    }
    let labels = document["labels"].to_string();
    assert!(!labels.contains("CPU device"), "{labels}");
    // Also a quick run knows what the GPU can do, and has what one request takes of it beside what the GPU counted.
    assert!(document["decode_need"]["read_bytes_per_s"].as_f64().unwrap() > 0.0, "{}", document["decode_need"]);
    let metrics = &levels[0]["metrics"];
    assert_eq!(levels[0]["purpose"]["kind"], "reference");
    assert!(metrics["mbu"].as_f64().unwrap() > 0.0 && metrics["dram_activity"] == 0.61, "{metrics}");
    assert!(levels.iter().all(|level| level["purpose"]["kind"] == "reference" || level["metrics"]["mbu"].is_null()));
    let show = |format: &str| {
        let shown = plimsoll().args(["runs", "show", "latest", "--format", format, "--data-dir"]).arg(data.path()).output().unwrap();
        stdout(&shown).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for format in ["text", "markdown"] {
        assert!(show(format).contains("61.0 % DRAM activity over the same window, beside"), "{}", show(format));
    }
    assert!(show("csv").contains(",mbu,dram_activity,"), "{}", show("csv"));
    let codes = document["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap());
    assert!(codes.clone().any(|code| code == "bandwidth_disagrees"), "kernels that run on a host read far less than the script says");
}

#[test]
fn a_level_that_runs_out_of_the_gpus_memory_is_oom_and_bounds_what_is_tried_next_with_the_earlier_ones_kept() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let (data, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = plimsoll();
    command.args(["bench", "--quick", "--no-request-log", "--model", &checkpoint(), "--device", "cuda:0", "--seed", "3"]);
    command.args(["--workload", "fixed:8:16", "--budget", "10m", "--kv-blocks", "256", "--max-num-seqs", "16"]);
    command.arg("--data-dir").arg(data.path()).env("PLIMSOLL_LOCK_DIR", data.path()).env("PLIMSOLL_CUDA_LIBRARIES", &libraries);
    // Recordings of steps of 1 and 2 sequences have room; that of 4 has not.
    command.env("PLIMSOLL_FAKE_CUDA_GRAPHS", "2").env("XDG_CACHE_HOME", cache.path()).env_remove("CUDA_VISIBLE_DEVICES");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let levels = || {
        let folder = RunStore::at(data.path()).find("latest").ok();
        folder.and_then(|folder| load(&folder).ok()).map_or(Vec::new(), |run| run.levels)
    };
    // A lower rate is tried until two requests in flight are enough for it: there the engine serves again.
    let served = |level: &LevelRecord| level.purpose == Purpose::Search && level.verdict.outcome != Outcome::Oom;
    let began = Instant::now();
    while !levels().iter().any(served) && began.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(100));
    }
    send(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert!(stderr(&output).contains("CUDA_ERROR_OUT_OF_MEMORY") && stderr(&output).contains("fewer KV blocks"), "{}", stderr(&output));
    let levels = levels();
    let swept = levels.iter().filter(|level| level.purpose == Purpose::Sweep);
    let swept = swept.map(|level| (level.offered.clone(), level.verdict.clone())).collect::<Vec<_>>();
    let valid = |concurrency, outcome| (Offered::Closed { concurrency }, Verdict { invalid: vec![], outcome });
    assert_eq!(swept, [valid(1, Outcome::Measured), valid(2, Outcome::Measured), valid(4, Outcome::Oom)], "{}", stderr(&output));
    let rate = |level: &&LevelRecord| match level.offered {
        Offered::Open { calls_per_s, .. } => calls_per_s,
        Offered::Closed { .. } => f64::NAN,
    };
    let again = levels.iter().find(|level| served(level)).expect("a fresh engine serves");
    assert!(again.counts.completed > 0 && again.counts.failed.is_empty(), "{:?}", again.counts);
    let failed = levels.iter().filter(|level| level.purpose == Purpose::Search && level.verdict.outcome == Outcome::Oom);
    assert!(failed.map(|level| rate(&level)).all(|failed| failed > rate(&again)), "{}", stderr(&output));
}

#[test]
fn weights_go_to_all_gpus_at_once_and_what_stops_one_stops_all_and_is_said_once() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let (data, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bench = |kv_blocks: &str| {
        let mut command = plimsoll();
        command.args(["bench", "--quick", "--no-request-log", "--model", &checkpoint(), "--device", "cuda:all", "--format", "json"]);
        command.args([
            "--workload",
            "fixed:8:4",
            "--max-concurrency",
            "2",
            "--budget",
            "15s",
            "--kv-blocks",
            kv_blocks,
            "--max-num-seqs",
            "4",
        ]);
        command.arg("--data-dir").arg(data.path()).env("PLIMSOLL_LOCK_DIR", data.path()).env("PLIMSOLL_CUDA_LIBRARIES", &libraries);
        command.env("PLIMSOLL_FAKE_CUDA_DEVICES", "3").env("XDG_CACHE_HOME", cache.path());
        command.env_remove("CUDA_VISIBLE_DEVICES").output().unwrap()
    };
    let output = bench("64");
    let document = document(&output);
    assert_eq!((document["target"]["device"].as_str(), document["target"]["devices"].as_u64()), (Some("cuda:0,cuda:1,cuda:2"), Some(3)));
    let sweep = document["levels"].as_array().unwrap().iter().find(|level| level["purpose"]["kind"] == "sweep").expect("there was time");
    assert_eq!(sweep["by_device"].as_array().map(Vec::len), Some(3), "{sweep}");
    let said = stderr(&output);
    let places = ["cuda:0", "cuda:1", "cuda:2"].map(|gpu| said.find(&format!("the KV cache on {gpu} has")).expect("each is told"));
    assert!(places.is_sorted(), "in the order of the GPUs: {said}");
    let small = bench("100000000");
    assert_eq!(small.status.code(), Some(69), "{}", stderr(&small));
    assert_eq!(stderr(&small).matches("bytes are free").count(), 1, "{}", stderr(&small));
}
