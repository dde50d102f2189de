//! The host device that kernels are tested on sees the mistakes it is there for.
//!
//! Each case runs in a child process, since a fault ends its context as on hardware. The child drives the device through
//! cudarc, as the product does, and prints one line.

mod cases;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::{CHILD_FOLDER, child, fake_cuda, stderr, stdout};

const CASE: &str = "PLIMSOLL_TEST_CUDA_CASE";
const KERNELS: &str = "PLIMSOLL_TEST_CUDA_KERNELS";
const SEED: &str = "PLIMSOLL_TEST_CUDA_SEED";

/// What a child's line begins with.
const OUTCOME: &str = "outcome: ";

/// A device, and kernels to compile on it.
struct Built {
    kernels: PathBuf,
    device: PathBuf,
}

impl Built {
    fn of(device: PathBuf) -> Built {
        Built { kernels: device.join("kernels"), device }
    }
}

/// The project's own kernels.
fn right() -> Option<Built> {
    fake_cuda::folder().map(Built::of)
}

/// Norms without a barrier, products that wait for too few copies, and `mistakes.cu`.
fn wrong() -> Option<&'static Built> {
    static WRONG: OnceLock<Option<Built>> = OnceLock::new();
    let make = || {
        let kernels = tempfile::tempdir().unwrap();
        let mut planted = 0;
        for entry in fs::read_dir(fake_cuda::kernels()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let text = match name {
                "vector.cuh" => text.replacen("    __syncthreads();\n", "", 1),
                "tile_mma.cuh" => text.replacen("copy_async_wait<STAGES - 2>", "copy_async_wait<STAGES - 1>", 1),
                "norm.cu" | "matmul.cu" => text,
                _ if name.ends_with(".cuh") => text,
                _ => continue,
            };
            planted += usize::from(text != fs::read_to_string(&path).unwrap());
            fs::write(kernels.path().join(name), text).unwrap();
        }
        assert_eq!(planted, 2, "both mistakes are planted");
        let mistakes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/cuda/mistakes/mistakes.cu");
        fs::copy(mistakes, kernels.path().join("mistakes.cu")).unwrap();
        fake_cuda::built_from(kernels.path()).map(Built::of)
    };
    WRONG.get_or_init(make).as_ref()
}

/// What a case came to, and what the device said of it on standard error.
fn outcome(built: &Built, case: &str, seed: u64, settings: &[(&str, &str)]) -> (String, String) {
    let output = child("fake_cuda::runs_one_case", &built.device)
        .env("LD_LIBRARY_PATH", &built.device)
        .env(CASE, case)
        .env(KERNELS, &built.kernels)
        .env(SEED, seed.to_string())
        .env_remove("CUDA_VISIBLE_DEVICES")
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let said = stdout(&output);
    let line = said.lines().find_map(|line| line.split(OUTCOME).nth(1)).unwrap_or_else(|| panic!("{case}: {said}\n{}", stderr(&output)));
    (line.to_owned(), stderr(&output))
}

fn deviation(built: &Built, case: &str, seed: u64) -> f32 {
    let (line, _) = outcome(built, case, seed, &[]);
    line.parse().unwrap_or_else(|_| panic!("{case} with seed {seed}: {line}"))
}

#[test]
fn right_kernels_give_right_results_in_every_order() {
    let Some(built) = right() else { return };
    for seed in 0..4 {
        assert!(deviation(&built, "norm", seed) < 1e-5);
        assert!(deviation(&built, "tile", seed) < 1e-2);
    }
}

#[test]
fn a_missing_barrier_shows_in_every_order() {
    let Some(built) = wrong() else { return };
    for seed in 0..4 {
        let off = deviation(built, "norm", seed);
        assert!(off.is_nan() || off > 1e-2, "seed {seed}: {off}");
    }
}

#[test]
fn a_wait_for_too_few_copies_shows_in_every_order() {
    let Some(built) = wrong() else { return };
    for seed in 0..4 {
        let off = deviation(built, "tile", seed);
        assert!(off.is_nan() || off > 1e-1, "seed {seed}: {off}");
    }
}

#[test]
fn mistakes_end_the_launch_with_the_thread_that_made_them() {
    let Some(built) = wrong() else { return };
    for (kernel, error, text) in [
        ("barrier_of_some", "CUDA_ERROR_LAUNCH_FAILED", "barrier"),
        ("barriers_apart", "CUDA_ERROR_LAUNCH_FAILED", "divergence"),
        ("shuffle_of_some", "CUDA_ERROR_LAUNCH_FAILED", "__shfl_xor_sync"),
        ("write_past_the_end", "CUDA_ERROR_ILLEGAL_ADDRESS", "thread (63,0,0): touches no memory"),
        ("write_before_the_beginning", "CUDA_ERROR_ILLEGAL_ADDRESS", "allocation 1 of 256 bytes: its beginning was written over"),
        ("ones, of 60", "CUDA_ERROR_ILLEGAL_ADDRESS", "allocation 1 of 240 bytes: its end was written over"),
        ("write_far_away", "CUDA_ERROR_ILLEGAL_ADDRESS", "thread (5,0,0): touches no memory"),
        ("index_never_written", "CUDA_ERROR_ILLEGAL_ADDRESS", "thread (3,0,0): touches no memory"),
        ("shared_past_the_end", "CUDA_ERROR_ILLEGAL_ADDRESS", "thread (63,0,0): mistakes.cu:48: index 64 is out of the array's bounds"),
        ("shared_past_the_end_by_pointer", "CUDA_ERROR_ILLEGAL_ADDRESS", "wrote past the end of values"),
        ("vector_misaligned", "CUDA_ERROR_MISALIGNED_ADDRESS", "is not a multiple of 16"),
        ("divisor_of_zero", "CUDA_ERROR_LAUNCH_FAILED", "thread (0,0,0): mistakes.cu"),
    ] {
        for seed in 0..4 {
            let (line, said) = outcome(built, kernel, seed, &[]);
            assert!(line.starts_with(&format!("sync {error}")), "{kernel} with seed {seed}: {line}\n{said}");
            assert!(said.contains(text), "{kernel} with seed {seed}: {said}");
            assert!(said.contains(": allocation 1") || said.contains(&format!("mistakes/{kernel} (f32), block (0,0,0)")), "{said}");
        }
    }
}

#[test]
fn memory_that_was_never_written_is_no_number() {
    let Some(built) = wrong() else { return };
    assert_eq!(outcome(built, "shared_never_written", 0, &[]).0, "1 of 64 are NaN");
    assert_eq!(outcome(built, "fresh memory", 0, &[]).0, "64 of 64 are NaN");
}

#[test]
fn launches_over_the_limits_are_refused() {
    let Some(built) = wrong() else { return };
    for (case, expected) in [
        ("65 threads", "launch CUDA_ERROR_INVALID_VALUE"),
        ("no grid", "launch CUDA_ERROR_INVALID_VALUE"),
        ("grid z over 65535", "launch CUDA_ERROR_INVALID_VALUE"),
        ("48 KiB shared", "fine"),
        ("49 KiB shared", "launch CUDA_ERROR_INVALID_VALUE"),
        ("227 KiB shared, allowed", "fine"),
        ("228 KiB shared, allowed", "attribute CUDA_ERROR_INVALID_VALUE"),
    ] {
        assert_eq!(outcome(built, case, 0, &[]).0, expected, "{case}");
    }
}

#[test]
fn memory_runs_out_and_devices_hide_as_on_a_real_machine() {
    let Some(built) = right() else { return };
    let of = |case: &str, settings: &[(&str, &str)]| outcome(&built, case, 0, settings).0;
    assert_eq!(of("three MiB", &[("PLIMSOLL_FAKE_CUDA_MEMORY", "4194304")]), "fine, 1048576 bytes free");
    assert_eq!(of("three MiB", &[("PLIMSOLL_FAKE_CUDA_MEMORY", "2097152")]), "CUDA_ERROR_OUT_OF_MEMORY");
    let three = ("PLIMSOLL_FAKE_CUDA_DEVICES", "3");
    assert_eq!(of("devices", &[three]), "3 devices, the first with id 0");
    assert_eq!(of("devices", &[three, ("CUDA_VISIBLE_DEVICES", "2,1,7,0")]), "2 devices, the first with id 2");
    let uuid = "GPU-fa4eda7a-0000-4000-8000-000000000001";
    assert_eq!(of("devices", &[three, ("CUDA_VISIBLE_DEVICES", uuid)]), "1 devices, the first with id 1");
    assert_eq!(of("devices", &[three, ("CUDA_VISIBLE_DEVICES", "")]), "CUDA_ERROR_NO_DEVICE");
}

#[test]
fn a_graph_replays_values_and_a_capture_forbids_waiting() {
    let Some(built) = wrong() else { return };
    assert_eq!(outcome(built, "graph", 0, &[]).0, "1 64 64, 2 replays");
    assert_eq!(
        outcome(built, "capture and wait", 0, &[]).0,
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, then CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    );
    assert_eq!(
        outcome(built, "capture and allocate", 0, &[]).0,
        "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, then CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    );
}

#[test]
fn several_threads_launch_at_once() {
    let Some(built) = right() else { return };
    assert!(deviation(&built, "norm in four threads", 0) < 1e-5);
}

#[test]
fn products_of_the_library_agree_with_plain_ones() {
    let Some(built) = right() else { return };
    assert_eq!(outcome(&built, "cublaslt", 0, &[]).0, "3 plans, each right at once and in a graph");
}

#[test]
fn an_image_of_another_source_is_refused() {
    let (Some(right), Some(wrong)) = (right(), wrong()) else { return };
    let crossed = Built { kernels: wrong.kernels.clone(), device: right.device };
    let (line, said) = outcome(&crossed, "norm", 0, &[]);
    assert!(line.contains("CUDA_ERROR_INVALID_IMAGE"), "{line}");
    assert!(said.contains("vector.cuh that this library was not built from"), "{said}");
}

#[test]
#[ignore = "the child process of the tests above"]
fn runs_one_case() {
    if std::env::var_os(CHILD_FOLDER).is_none() {
        return println!("skipped: no parent gave this a case");
    }
    println!("{OUTCOME}{}", cases::run(&std::env::var(CASE).unwrap()));
}
