//! `plimsoll doctor`: what is there, what is wrong, what could not be found out, each with a next step.

use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use plimsoll::device::source::Element;
use plimsoll::doctor::cases::cases;
use plimsoll::doctor::comparison::{compare, specification};
use serde_json::Value;

use crate::support::fake_nvml::FakeNvml;
use crate::support::{document, fake_cuda, plimsoll, stderr, stdout};

/// The program on a machine without a GPU, or on one whose kernels run on the host.
fn examined(libraries: Option<&std::path::Path>, arguments: &[&str]) -> std::process::Output {
    let mut command = plimsoll();
    command.arg("doctor").args(arguments);
    match libraries {
        Some(folder) => command.env("PLIMSOLL_CUDA_LIBRARIES", folder).env_remove("CUDA_VISIBLE_DEVICES"),
        None => command.env("CUDA_VISIBLE_DEVICES", "").env_remove("PLIMSOLL_CUDA_LIBRARIES"),
    };
    command.output().unwrap()
}

fn checks<'a>(document: &'a Value, section: &str) -> Vec<&'a Value> {
    document["checks"].as_array().unwrap().iter().filter(|check| check["section"] == section).collect()
}

#[test]
fn without_a_gpu_nothing_fails_and_what_waits_for_one_is_counted() {
    let output = examined(None, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let document = document(&output);
    assert_eq!(document["failed"], 0, "{document}");
    let waiting = document["waiting_for_gpu"].as_u64().unwrap();
    let all = document["checks"].as_array().unwrap();
    assert_eq!(all.iter().filter(|check| check["waits_for_gpu"] == true).count() as u64, waiting);
    assert!(waiting >= 20, "{document}");
    let names: std::collections::BTreeSet<_> = all.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), all.len(), "a check is done once: {document}");
    // Whatever is absent comes with what to do.
    for check in all.iter().filter(|check| check["result"] != "ok") {
        assert!(!check["next_step"].as_str().unwrap().is_empty() && !check["evidence"].as_str().unwrap().is_empty(), "{check}");
    }
    let text = stdout(&examined(None, &[]));
    assert!(text.contains(&format!("{waiting} of them because there is no GPU")), "{text}");
    assert_eq!(examined(None, &["--require-gpu"]).status.code(), Some(69));
}

#[test]
fn on_a_gpu_every_kernel_and_whole_steps_are_compared_with_the_cpu_device() {
    let Some(folder) = fake_cuda::folder() else { return };
    let output = examined(Some(&folder), &["--quick", "--format", "json"]);
    let document = document(&output);
    assert_eq!(output.status.code(), Some(0), "{document:#}");
    for section in ["gpus", "kernels", "model"] {
        for check in checks(&document, section) {
            assert_eq!(check["result"], "ok", "{check}");
        }
    }
    let names: Vec<_> = checks(&document, "kernels").iter().map(|check| check["name"].as_str().unwrap().to_owned()).collect();
    for element in ["f32", "bf16"] {
        for kernel in ["norms", "matrix products", "matrix products by cuBLASLt", "rotation and attention", "choice of tokens"] {
            assert!(names.contains(&format!("{element} {kernel}")), "{element} {kernel} in {names:?}");
        }
    }
    assert_eq!(checks(&document, "model").len(), 2);
    let there_is_no_such = examined(Some(&folder), &["--gpu", "7", "--format", "json"]);
    assert_eq!(there_is_no_such.status.code(), Some(3), "{}", stdout(&there_is_no_such));
}

#[test]
fn readings_that_a_driver_does_not_give_are_named_with_their_reason() {
    let read = |fake: &FakeNvml| {
        let mut command = plimsoll();
        command.args(["doctor", "--quick", "--format", "json"]).env("PLIMSOLL_NVML", fake.library()).env("CUDA_VISIBLE_DEVICES", "");
        let document = document(&command.output().unwrap());
        checks(&document, "telemetry")
            .last()
            .map(|check| (check["result"].clone(), check["evidence"].as_str().unwrap().to_owned()))
            .unwrap()
    };
    let fake = FakeNvml::new("");
    let (result, evidence) = read(&fake);
    assert!(result == "ok" && evidence.contains(" there"), "{evidence}");
    fake.set("power.return", 3);
    let (result, evidence) = read(&fake);
    assert!(result == "warning" && evidence.contains("power_w (not supported)"), "{evidence}");
    let refused = FakeNvml::new("init.return 18");
    let (result, evidence) = read(&refused);
    assert!(result == "could_not_run" && evidence.contains("version mismatch"), "{evidence}");
}

#[test]
fn a_device_that_computes_something_else_is_seen() {
    let cpu = || CpuDevice::open(CpuSpec::new(std::num::NonZeroUsize::MIN, Arithmetic::F32)).unwrap();
    for case in cases(true) {
        let mut wanted = specification(&case, Element::F32).unwrap();
        assert!(compare(&case, &mut cpu(), Element::F32, &wanted).unwrap().agrees(), "{case:?}");
        // One number a little off, and one that is none.
        let largest = (0..wanted.len()).max_by(|one, other| wanted[*one].abs().total_cmp(&wanted[*other].abs())).unwrap();
        let right = wanted[largest];
        for wrong in [right * 1.001 + 1.0, f32::NAN] {
            wanted[largest] = wrong;
            assert!(!compare(&case, &mut cpu(), Element::F32, &wanted).unwrap().agrees(), "{case:?}");
        }
    }
}
