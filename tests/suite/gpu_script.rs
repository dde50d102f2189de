//! `benchmarks/gpu.sh` runs from its pack alone, and what fails stops nothing that comes after.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::{fake_cuda, plimsoll, stdout};

#[test]
fn every_stage_leaves_its_file_and_a_failing_one_stops_none() {
    let Some(libraries) = fake_cuda::folder() else { return };
    let place = tempfile::tempdir().unwrap();
    let (pack, results) = (place.path().join("pack"), place.path().join("results"));
    fs::create_dir(&pack).unwrap();
    symlink(plimsoll().get_program(), pack.join("plimsoll")).unwrap();
    symlink(std::env::current_exe().unwrap(), pack.join("suite")).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("benchmarks/gpu.sh"), pack.join("gpu.sh")).unwrap();
    let output = Command::new("bash")
        .arg(pack.join("gpu.sh"))
        .env("OUT", &results)
        .env("PLIMSOLL_CUDA_LIBRARIES", libraries)
        .env("STAGES", "node doctor ceilings steps tests-ops")
        .env("DOCTOR", "--gpu 7")
        .env("CEILINGS", "--seconds 0.01")
        .env("STEPS", "--model llama-5m --arithmetic f32 --decode 1 --context 16 --prefill 16 --seconds 0.01")
        .env("TESTS_OPS", "cuda_ops::norms")
        .env_remove("CUDA_VISIBLE_DEVICES")
        .output()
        .unwrap();
    let said = stdout(&output);
    let last = said.lines().last().unwrap();
    for part in ["node=", "doctor=", "s/69 ", "ceilings=", "steps=", "tests-ops=", "failed=1 ", "total="] {
        assert!(last.contains(part), "{part} in {said}");
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    let files: Vec<_> = fs::read_dir(&results).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(files.len() <= 8 && files.contains(&"summary.txt".to_owned()), "{files:?}");
    let of = |name: &str| fs::read_to_string(results.join(name)).unwrap();
    assert!(of("ceilings.txt").contains("plimsoll host device") && of("steps.txt").contains("decode 1 x 16"));
    assert!(of("tests.txt").contains("on a real GPU: plimsoll host device") && of("tests.txt").contains("1 passed"), "{}", of("tests.txt"));
}
