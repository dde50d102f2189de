//! `plimsoll ceilings` and `plimsoll steps`: denominators that are measured, and steps beside them.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{document, fake_cuda, plimsoll, stderr, stdout};

/// The verb with a node's lock of its own: tests measure at once, for what they measure does not matter.
fn run(arguments: &[&str], libraries: Option<&Path>) -> Output {
    let lock = tempfile::tempdir().unwrap();
    let mut command = plimsoll();
    command.args(arguments).env("PLIMSOLL_LOCK_DIR", lock.path()).env_remove("CUDA_VISIBLE_DEVICES");
    let output = command.envs(libraries.map(|folder| ("PLIMSOLL_CUDA_LIBRARIES", folder))).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

/// The same on kernels that run on this host.
fn on_gpu(arguments: &[&str]) -> Option<Output> {
    Some(run(arguments, Some(&fake_cuda::folder()?)))
}

fn kinds(document: &Value) -> Vec<String> {
    let of = |ceiling: &Value| {
        let element = ceiling["element"].as_str().map_or(String::new(), |element| format!(" {element}"));
        format!("{}{element}", ceiling["kind"].as_str().unwrap())
    };
    document["ceilings"].as_array().unwrap().iter().map(of).collect()
}

/// Every value is a number above 0, measured several times.
fn check(document: &Value) {
    for ceiling in document["ceilings"].as_array().unwrap() {
        let (best, median) = (ceiling["best"].as_f64().unwrap(), ceiling["median"].as_f64().unwrap());
        assert!(best > 0.0 && median > 0.0 && ceiling["spread"].as_f64().unwrap() >= 0.0, "{ceiling}");
        assert!(ceiling["repeats"].as_u64().unwrap() >= 5, "{ceiling}");
        assert_eq!(best <= median, ceiling["unit"] == "seconds" || best == median, "the best is the best: {ceiling}");
    }
}

#[test]
fn a_gpu_has_a_ceiling_of_everything_that_a_share_is_stated_of() {
    let Some(output) = on_gpu(&["ceilings", "--seconds", "0.02", "--format", "json"]) else { return };
    let document = document(&output);
    check(&document);
    let kinds = kinds(&document);
    for wanted in ["memory_read", "memory_copy", "memory_triad", "cache_read", "matrix_units bf16", "host_to_device", "device_to_host"] {
        assert_eq!(kinds.iter().filter(|kind| *kind == wanted).count(), 1, "{wanted} in {kinds:?}");
    }
    for twice in ["matrix_product bf16", "matrix_product f32"] {
        assert_eq!(kinds.iter().filter(|kind| *kind == twice).count(), 2, "own and the library's {twice} in {kinds:?}");
    }
    for once in ["matrix_product tf32", "matrix_product fp8"] {
        assert_eq!(kinds.iter().filter(|kind| *kind == once).count(), 1, "the library's {once} in {kinds:?}");
    }
    assert!(kinds.ends_with(&["launch".to_owned(), "graph_replay".to_owned(), "graph_node".to_owned()]), "{kinds:?}");
    // A device that is no GPU is called what it is, and its small sizes are said.
    assert_eq!(document["device"], "plimsoll host device");
    assert!(document["notes"].as_array().unwrap().iter().any(|note| note["kind"] == "matrix_product"), "{document}");
    let said = stderr(&output);
    assert!(said.starts_with("about ") && said.contains("s of measuring"), "{said}");
}

#[test]
fn a_type_that_the_gpu_does_not_multiply_has_a_reason_and_no_number() {
    let Some(folder) = fake_cuda::folder() else { return };
    for (capability, has_fp8) in [("8.0", false), ("8.9", true)] {
        let lock = tempfile::tempdir().unwrap();
        let mut command = plimsoll();
        command.args(["ceilings", "--seconds", "0.01", "--format", "json"]).env("PLIMSOLL_LOCK_DIR", lock.path());
        command.env("PLIMSOLL_CUDA_LIBRARIES", &folder).env("PLIMSOLL_FAKE_CUDA_CAPABILITY", capability);
        let document = document(&command.env_remove("CUDA_VISIBLE_DEVICES").output().unwrap());
        assert_eq!(kinds(&document).iter().any(|kind| kind == "matrix_product fp8"), has_fp8, "{capability}: {document}");
        let why = "fp8: the GPU's compute capability is 8.0, and matrix units know it from 8.9 on";
        assert_eq!(document["notes"].to_string().contains(why), !has_fp8, "{capability}: {document}");
    }
    let Some(output) = on_gpu(&["ceilings", "--seconds", "0.01", "--matmul", "own", "--format", "text"]) else { return };
    let text = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("tf32: only cuBLASLt multiplies it") && text.contains("fp8: only cuBLASLt"), "{text}");
}

#[test]
fn products_and_recordings_that_are_not_wanted_are_left_out() {
    let Some(output) = on_gpu(&["ceilings", "--seconds", "0.01", "--matmul", "own", "--no-graphs", "--format", "csv"]) else { return };
    let text = stdout(&output);
    assert!(text.starts_with("ceiling,element,by,size,unit,best,median,repeats,spread\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("matrix product")).count(), 2, "{text}");
    assert!(!text.contains("cublaslt") && !text.contains("graph"), "{text}");
}

#[test]
fn a_cpu_has_ceilings_that_are_labelled_as_its_own() {
    let document = document(&run(&["ceilings", "--device", "cpu", "--threads", "1", "--format", "json"], None));
    check(&document);
    assert!(kinds(&document).starts_with(&["memory_read", "memory_copy", "memory_triad", "matrix_product f32"].map(str::to_owned)));
    assert!(document["labels"].as_array().unwrap().iter().any(|label| label == "CPU device: no GPU measurement"), "{document}");
}

/// Steps beside their floor, whatever computes them.
fn check_steps(document: &Value, names: &[(&str, u64)]) {
    let steps = document["steps"].as_array().unwrap();
    let found = steps.iter().map(|step| (step["kind"].as_str().unwrap(), step["batch"].as_u64().or(step["tokens"].as_u64()).unwrap()));
    assert_eq!(found.collect::<Vec<_>>(), names, "{document}");
    for step in steps {
        let of = |name: &str| step[name].as_f64().unwrap();
        assert!(of("median_s") > 0.0 && of("bytes") > 0.0 && of("flops") > 0.0 && of("floor_s") > 0.0, "{step}");
        let ratio = of("floor_s") / of("median_s");
        assert!((ratio - of("mbu").max(of("mfu"))).abs() < 1e-9, "{step}");
    }
}

#[test]
fn steps_stand_beside_the_least_that_the_machine_could_take_on_every_device() {
    let shape = ["steps", "--model", "llama-5m", "--context", "40", "--seconds", "0.01", "--format", "json"];
    let cpu = [&shape[..], &["--device", "cpu", "--threads", "1", "--decode", "1,3", "--prefill", "33"]].concat();
    let names = [("decode", 1), ("decode", 3), ("prefill", 33)];
    check_steps(&document(&run(&cpu, None)), &names);
    let gpu = [&shape[..], &["--arithmetic", "f32", "--decode", "1,3", "--prefill", "33"]].concat();
    let Some(output) = on_gpu(&gpu) else { return };
    let document = document(&output);
    check_steps(&document, &names);
    assert_eq!(document["device"], "plimsoll host device");
    assert!(document["labels"].as_array().unwrap().iter().any(|label| label == "synthetic weights"));
}

#[test]
fn a_step_that_has_no_room_is_left_out_with_its_reason_and_the_others_are_timed() {
    let too_long = ["steps", "--model", "llama-5m", "--device", "cpu", "--threads", "1", "--seconds", "0.01", "--format", "json"];
    let document = document(&run(&[&too_long[..], &["--decode", "", "--prefill", "16,9000"]].concat(), None));
    check_steps(&document, &[("prefill", 16)]);
    assert!(document["skipped"][0]["why"].as_str().unwrap().contains("context ends at 8192"), "{document}");
}

#[test]
fn a_cache_that_does_not_fit_is_made_as_large_as_it_can_be() {
    let Some(folder) = fake_cuda::folder() else { return };
    let lock = tempfile::tempdir().unwrap();
    let steps = "steps --model llama-5m --arithmetic f32 --context 512 --decode 1,512 --prefill 16 --seconds 0.01 --format json";
    let mut command = plimsoll();
    command.args(steps.split(' ')).env("PLIMSOLL_LOCK_DIR", lock.path()).env("PLIMSOLL_CUDA_LIBRARIES", folder);
    let output = command.env("PLIMSOLL_FAKE_CUDA_MEMORY", "300000000").env_remove("CUDA_VISIBLE_DEVICES").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document = document(&output);
    check_steps(&document, &[("decode", 1), ("prefill", 16)]);
    assert!(document["skipped"][0]["why"].as_str().unwrap().contains("it needs 16384 KV blocks"), "{document}");
}
