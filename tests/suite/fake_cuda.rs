//! The host device that kernels are tested on sees the mistakes it is there for.
//!
//! Each case runs in a child process, since a fault ends its context as on hardware. The child drives the device through
//! cudarc, as the product does, and prints one line.

use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fs, ptr};

use cudarc::driver::sys::{CUstreamCaptureMode, culib};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{Ptx, sys as nvrtc};
use half::bf16;

use crate::support::{CHILD_FOLDER, child, fake_cuda, stderr, stdout};

const CASE: &str = "PLIMSOLL_TEST_CUDA_CASE";
const KERNELS: &str = "PLIMSOLL_TEST_CUDA_KERNELS";
const SEED: &str = "PLIMSOLL_TEST_CUDA_SEED";

/// What a child's line begins with.
const OUTCOME: &str = "outcome: ";

/// Kernels, and the device built from them.
struct Built {
    kernels: PathBuf,
    device: PathBuf,
}

/// The project's own kernels.
fn right() -> Option<Built> {
    Some(Built { kernels: fake_cuda::kernels(), device: fake_cuda::folder()? })
}

/// Norms without a barrier, products that wait for too few copies, and `mistakes.cu`.
fn wrong() -> Option<&'static Built> {
    static WRONG: OnceLock<Option<Built>> = OnceLock::new();
    let make = || {
        let kernels = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wrong-kernels-{}", std::process::id()));
        fs::create_dir_all(&kernels).unwrap();
        let mut planted = 0;
        for entry in fs::read_dir(fake_cuda::kernels()).unwrap() {
            let path = entry.unwrap().path();
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
            fs::write(kernels.join(name), text).unwrap();
        }
        assert_eq!(planted, 2, "both mistakes are planted");
        let mistakes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/cuda/mistakes/mistakes.cu");
        fs::copy(mistakes, kernels.join("mistakes.cu")).unwrap();
        let device = fake_cuda::built_from(&kernels)?;
        Some(Built { kernels, device })
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
        ("write_past_the_end", "CUDA_ERROR_ILLEGAL_ADDRESS", "allocation 1 of 256 bytes: its end was written over"),
        ("write_far_away", "CUDA_ERROR_ILLEGAL_ADDRESS", "thread (5,0,0): touches no memory"),
        ("index_never_written", "CUDA_ERROR_ILLEGAL_ADDRESS", "thread (3,0,0): touches no memory"),
        ("shared_past_the_end", "CUDA_ERROR_ILLEGAL_ADDRESS", "wrote past the end of values"),
        ("vector_misaligned", "CUDA_ERROR_MISALIGNED_ADDRESS", "thread ("),
    ] {
        for seed in 0..4 {
            let (line, said) = outcome(built, kernel, seed, &[]);
            assert!(line.starts_with(&format!("sync {error}")), "{kernel} with seed {seed}: {line}\n{said}");
            assert!(said.contains(text), "{kernel} with seed {seed}: {said}");
            assert!(text.starts_with("allocation") || said.contains(&format!("mistakes/{kernel} (f32), block (0,0,0)")), "{said}");
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
    let line = case(&std::env::var(CASE).unwrap()).unwrap_or_else(|error| name(error));
    println!("{OUTCOME}{line}");
}

fn name(error: DriverError) -> String {
    error.error_name().map_or_else(|_| format!("{error:?}"), |name| name.to_string_lossy().into_owned())
}

fn case(case: &str) -> Result<String, DriverError> {
    let context = CudaContext::new(0)?;
    // SAFETY: one stream alone is used, in order.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream()?;
    if let Ok(seed) = std::env::var(SEED) {
        // SAFETY: the device of the tests has this function, with this signature.
        unsafe { (culib().get::<unsafe extern "C" fn(u64)>(b"fake_cuda_set_seed").unwrap())(seed.parse().unwrap()) };
    }
    match case {
        "norm" => norm(&context, &stream),
        "tile" => tile(&context, &stream),
        "devices" => Ok(format!("{} devices, the first with id {}", CudaContext::device_count()?, context.uuid()?.bytes[15])),
        "three MiB" => {
            // SAFETY: never read.
            let _held = unsafe { stream.alloc::<u8>(3 << 20) }?;
            Ok(format!("fine, {} bytes free", context.mem_get_info()?.0))
        }
        "fresh memory" => {
            // SAFETY: any bits are an f32.
            nans(&stream.clone_dtoh(&unsafe { stream.alloc::<f32>(64) }?)?)
        }
        "graph" => graph(&context, &stream),
        "capture and wait" => capture(&stream, || stream.synchronize()),
        // SAFETY: never read.
        "capture and allocate" => capture(&stream, || unsafe { cudarc::driver::result::malloc_sync(256) }.map(drop)),
        "65 threads" => limits(&context, &stream, (1, 1, 1), 65, 0, 0),
        "no grid" => limits(&context, &stream, (1, 0, 1), 64, 0, 0),
        "grid z over 65535" => limits(&context, &stream, (1, 1, 65536), 64, 0, 0),
        "48 KiB shared" => limits(&context, &stream, (1, 1, 1), 64, 48 << 10, 0),
        "49 KiB shared" => limits(&context, &stream, (1, 1, 1), 64, 49 << 10, 0),
        "227 KiB shared, allowed" => limits(&context, &stream, (1, 1, 1), 64, 227 << 10, 227 << 10),
        "228 KiB shared, allowed" => limits(&context, &stream, (1, 1, 1), 64, 228 << 10, 228 << 10),
        kernel => mistake(&context, &stream, kernel),
    }
}

/// Loads a function of a program of the kernels in hand, through the compiler.
fn function(context: &Arc<CudaContext>, program: &str, element: &str, name: &str) -> Result<CudaFunction, DriverError> {
    let folder = PathBuf::from(std::env::var_os(KERNELS).unwrap());
    let text = |file: &str| CString::new(fs::read_to_string(folder.join(file)).unwrap()).unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".cuh"));
    let texts: Vec<_> = names.iter().map(|name| text(name)).collect();
    let names: Vec<_> = names.into_iter().map(|name| CString::new(name).unwrap()).collect();
    let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<*const c_char>>();
    let file = format!("{program}.cu");
    let (source, file) = (text(&file), CString::new(file.clone()).unwrap());
    let options =
        ["--gpu-architecture=sm_90a", "--std=c++17", "--fmad=true", &format!("-DELEMENT_{element}")].map(|one| CString::new(one).unwrap());
    let mut image = Vec::new();
    let mut handle = ptr::null_mut();
    // SAFETY: every pointer leads to a string that outlives the program, and the image is as long as the compiler says.
    unsafe {
        let count = i32::try_from(names.len()).unwrap();
        nvrtc::nvrtcCreateProgram(&mut handle, source.as_ptr(), file.as_ptr(), count, pointers(&texts).as_ptr(), pointers(&names).as_ptr())
            .result()
            .unwrap();
        nvrtc::nvrtcCompileProgram(handle, 4, pointers(&options).as_ptr()).result().unwrap();
        let mut bytes = 0;
        nvrtc::nvrtcGetCUBINSize(handle, &mut bytes).result().unwrap();
        image.resize(bytes, 0);
        nvrtc::nvrtcGetCUBIN(handle, image.as_mut_ptr().cast()).result().unwrap();
        nvrtc::nvrtcDestroyProgram(&mut handle).result().unwrap();
    }
    let module: Arc<CudaModule> = context.load_module(Ptx::from_binary(image))?;
    module.load_function(name)
}

fn shape(grid: (u32, u32, u32), threads: u32, shared_mem_bytes: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: grid, block_dim: (threads, 1, 1), shared_mem_bytes }
}

/// Numbers in -1..1 that look random, the same each time.
fn numbers(count: usize, of: u32) -> impl Iterator<Item = f32> {
    (0..count as u32).map(move |at| (at.wrapping_mul(2_654_435_761).wrapping_add(of) >> 8) as f32 / (1 << 23) as f32 - 1.0)
}

/// The largest difference; NaN if one is.
fn largest(pairs: impl Iterator<Item = (f32, f32)>) -> String {
    pairs.fold(0.0_f32, |most, (is, should)| if (is - should).abs() <= most { most } else { (is - should).abs() }).to_string()
}

fn norm(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<String, DriverError> {
    let (rows, width) = (3_u32, 1024_usize);
    let x: Vec<_> = numbers(rows as usize * width, 1).collect();
    let weight: Vec<_> = numbers(width, 2).collect();
    let kernel = function(context, "norm", "F32", "rms_norm")?;
    let (x_device, weight_device) = (stream.clone_htod(&x)?, stream.clone_htod(&weight)?);
    let mut out = stream.alloc_zeros::<f32>(x.len())?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut out).arg(&x_device).arg(&weight_device).arg(&1024_i32).arg(&1e-6_f32);
    // SAFETY: the arguments are the kernel's, and as long as it takes them to be.
    unsafe { launch.launch(shape((rows, 1, 1), 256, 0)) }?;
    let out = stream.clone_dtoh(&out)?;
    let expected = x.chunks(width).flat_map(|row| {
        let scale = (row.iter().map(|x| x * x).sum::<f32>() / width as f32 + 1e-6).sqrt().recip();
        row.iter().zip(&weight).map(move |(x, weight)| x * scale * weight)
    });
    Ok(largest(out.into_iter().zip(expected)))
}

fn tile(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<String, DriverError> {
    let (rows, n, k) = (70_i32, 130_i32, 256_i32);
    let (tall, wide, deep) = (rows as usize, n as usize, k as usize);
    let x: Vec<_> = numbers(tall * deep, 3).map(bf16::from_f32).collect();
    let weights: Vec<_> = numbers(wide * deep, 4).map(bf16::from_f32).collect();
    let kernel = function(context, "matmul", "BF16", "tile_logits")?;
    let (x_device, weights_device) = (stream.clone_htod(&x)?, stream.clone_htod(&weights)?);
    let mut out = stream.alloc_zeros::<f32>(tall * wide)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut out).arg(&x_device).arg(&weights_device).arg(&0_u64).arg(&rows).arg(&n).arg(&k);
    // SAFETY: the arguments are the kernel's, and as long as it takes them to be.
    unsafe { launch.launch(shape((2, 1, 1), 256, 0)) }?;
    let out = stream.clone_dtoh(&out)?;
    let expected = x
        .chunks(deep)
        .flat_map(|row| weights.chunks(deep).map(|weights| row.iter().zip(weights).map(|(x, weight)| x.to_f32() * weight.to_f32()).sum()));
    Ok(largest(out.into_iter().zip(expected)))
}

fn nans(values: &[f32]) -> Result<String, DriverError> {
    Ok(format!("{} of {} are NaN", values.iter().filter(|value| value.is_nan()).count(), values.len()))
}

/// Runs a kernel that takes 64 floats, and waits.
fn mistake(context: &Arc<CudaContext>, stream: &Arc<CudaStream>, kernel: &str) -> Result<String, DriverError> {
    let kernel = function(context, "mistakes", "F32", kernel)?;
    let mut out = stream.alloc_zeros::<f32>(64)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut out);
    // SAFETY: none: the device reports what this kernel does wrong.
    unsafe { launch.launch(shape((1, 1, 1), 64, 0)) }?;
    match stream.synchronize() {
        Ok(()) => nans(&stream.clone_dtoh(&out)?),
        Err(error) => Ok(format!("sync {}", name(error))),
    }
}

fn limits(
    context: &Arc<CudaContext>,
    stream: &Arc<CudaStream>,
    grid: (u32, u32, u32),
    threads: u32,
    shared: u32,
    allowed: i32,
) -> Result<String, DriverError> {
    use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    let kernel = function(context, "mistakes", "F32", "dynamic")?;
    if allowed > 0
        && let Err(error) = kernel.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, allowed)
    {
        return Ok(format!("attribute {}", name(error)));
    }
    let mut out = stream.alloc_zeros::<f32>(64)?;
    let mut launch = stream.launch_builder(&kernel);
    let count = shared / 4;
    launch.arg(&mut out).arg(&count);
    // SAFETY: the kernel writes 64 floats and the shared memory it is given.
    match unsafe { launch.launch(shape(grid, threads, shared)) } {
        Ok(_) => stream.synchronize().map(|()| "fine".to_owned()),
        Err(error) => Ok(format!("launch {}", name(error))),
    }
}

fn capture(stream: &Arc<CudaStream>, forbidden: impl Fn() -> Result<(), DriverError>) -> Result<String, DriverError> {
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let first = forbidden().unwrap_err();
    let flags = cudarc::driver::sys::CUgraphInstantiate_flags(0);
    let then = stream.end_capture(flags).err().expect("a spoiled capture gives no graph");
    Ok(format!("{}, then {}", name(first), name(then)))
}

/// Captures a launch, changes the variable its argument came from, and replays.
fn graph(context: &Arc<CudaContext>, stream: &Arc<CudaStream>) -> Result<String, DriverError> {
    let kernel = function(context, "mistakes", "F32", "dynamic")?;
    let mut out = stream.alloc_zeros::<f32>(64)?;
    let mut count = 64_u32;
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut out).arg(&count);
    // SAFETY: the kernel writes 64 floats and the shared memory it is given.
    unsafe { launch.launch(shape((1, 1, 1), 64, 256)) }?;
    let graph = stream.end_capture(cudarc::driver::sys::CUgraphInstantiate_flags(0))?.expect("a launch was captured");
    count += 1;
    let _ = count;
    let written = |out: &cudarc::driver::CudaSlice<f32>| -> Result<usize, DriverError> {
        Ok(stream.clone_dtoh(out)?.iter().enumerate().filter(|&(at, &value)| value == at as f32).count())
    };
    let mut seen = Vec::new();
    let captured = written(&out)?;
    for _ in 0..2 {
        stream.memset_zeros(&mut out)?;
        graph.launch()?;
        seen.push(written(&out)?);
    }
    Ok(format!("{captured} {} {}, 2 replays", seen[0], seen[1]))
}
