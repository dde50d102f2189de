//! One case on the host device, through cudarc, and the line it comes to.

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fs, ptr};

use cudarc::cublaslt::{result as lt, sys as lts};
use cudarc::driver::result::{malloc_sync, memcpy_htod_sync};
use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode, culib};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::{Ptx, sys as nvrtc};
use half::bf16;

use super::{KERNELS, SEED};

pub(super) fn run(named: &str) -> String {
    case(named).unwrap_or_else(name)
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
        "norm in four threads" => norms(&context),
        "tile" => tile(&context, &stream),
        "cublaslt" => products(&stream),
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
        "capture and allocate" => capture(&stream, || unsafe { malloc_sync(256) }.map(drop)),
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

fn norms(context: &Arc<CudaContext>) -> Result<String, DriverError> {
    let once = || norm(context, &context.new_stream()?);
    let results: Vec<_> = std::thread::scope(|threads| {
        let running: Vec<_> = (0..4).map(|_| threads.spawn(|| (0..20).map(|_| once()).collect::<Vec<_>>())).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let worst = results.into_iter().map(|result| result.map(|text| text.parse::<f32>().unwrap())).collect::<Result<Vec<_>, _>>()?;
    Ok(worst.into_iter().fold(0.0, |most: f32, one| if one <= most { most } else { one }).to_string())
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

/// Runs a kernel that takes 64 floats (or as many as `, of N` says), and waits.
fn mistake(context: &Arc<CudaContext>, stream: &Arc<CudaStream>, kernel: &str) -> Result<String, DriverError> {
    let (kernel, floats) = kernel.split_once(", of ").unwrap_or((kernel, "64"));
    let kernel = function(context, "mistakes", "F32", kernel)?;
    let mut out = stream.alloc_zeros::<f32>(floats.parse().unwrap())?;
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
    let flags = CUgraphInstantiate_flags(0);
    let then = stream.end_capture(flags).err().expect("a spoiled capture gives no graph");
    Ok(format!("{}, then {}", name(first), name(then)))
}

/// out[m][n] = x[m][k] w[n][k] + bias[n] + out: column-major, the rows of w are the columns of its transpose.
fn products(stream: &Arc<CudaStream>) -> Result<String, DriverError> {
    let (m, n, k) = (5_u64, 24_u64, 64_u64);
    let x: Vec<_> = numbers((m * k) as usize, 5).map(bf16::from_f32).collect();
    let weights: Vec<_> = numbers((n * k) as usize, 6).map(bf16::from_f32).collect();
    let bias: Vec<_> = numbers(n as usize, 7).collect();
    let expected: Vec<f32> = x
        .chunks(k as usize)
        .flat_map(|row| {
            let product = |weights: &[bf16]| row.iter().zip(weights).map(|(x, weight)| x.to_f32() * weight.to_f32()).sum::<f32>();
            weights.chunks(k as usize).zip(&bias).map(move |(weights, bias)| product(weights) + bias + 1.0)
        })
        .collect();
    let (x, weights, bias) = (stream.clone_htod(&x)?, stream.clone_htod(&weights)?, stream.clone_htod(&bias)?);
    let workspace = stream.alloc_zeros::<u8>(1 << 20)?;
    let out = stream.clone_htod(&vec![1.0_f32; expected.len()])?;
    let (x_at, weights_at, bias_at) = (x.device_ptr(stream).0, weights.device_ptr(stream).0, bias.device_ptr(stream).0);
    let (workspace_at, out_at) = (workspace.device_ptr(stream).0, out.device_ptr(stream).0);
    let mut right = 0;
    // SAFETY: layouts, types and addresses are those of the slices above, which outlive the work.
    unsafe {
        let handle = lt::create_handle().unwrap();
        let matmul = lt::create_matmul_desc(lts::cublasComputeType_t::CUBLAS_COMPUTE_32F, lts::cudaDataType::CUDA_R_32F).unwrap();
        let set = |attribute, value: *const c_void, bytes| lt::set_matmul_desc_attribute(matmul, attribute, value, bytes).unwrap();
        use lts::cublasLtMatmulDescAttributes_t as Attribute;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, ptr::from_ref(&1_i32).cast(), 4);
        let epilogue = lts::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, ptr::from_ref(&epilogue).cast(), 4);
        set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, ptr::from_ref(&bias_at).cast(), 8);
        let a = lt::create_matrix_layout(lts::cudaDataType::CUDA_R_16BF, k, n, k as i64).unwrap();
        let b = lt::create_matrix_layout(lts::cudaDataType::CUDA_R_16BF, k, m, k as i64).unwrap();
        let d = lt::create_matrix_layout(lts::cudaDataType::CUDA_R_32F, n, m, n as i64).unwrap();
        let preference = lt::create_matmul_pref().unwrap();
        let most = lts::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        lt::set_matmul_pref_attribute(preference, most, ptr::from_ref(&(1_usize << 20)).cast(), 8).unwrap();
        let mut plans: [lts::cublasLtMatmulHeuristicResult_t; 8] = std::mem::zeroed();
        let mut found = 0;
        lts::cublasLtMatmulAlgoGetHeuristic(handle, matmul, a, b, d, d, preference, 8, plans.as_mut_ptr(), &mut found).result().unwrap();
        for plan in &plans[..found as usize] {
            let multiply = || {
                let (one, out) = (ptr::from_ref(&1.0_f32).cast(), out_at as *mut c_void);
                let (workspace, of) = (workspace_at as *mut c_void, stream.cu_stream().cast());
                let (weights, x) = (weights_at as *const c_void, x_at as *const c_void);
                lt::matmul(handle, matmul, one, one, weights, a, x, b, out, d, out, d, &plan.algo, workspace, 1 << 20, of).unwrap();
            };
            let ones = vec![1.0_f32; expected.len()];
            let differs = || -> Result<f32, DriverError> {
                let pairs = stream.clone_dtoh(&out)?.into_iter().zip(expected.iter().copied());
                Ok(largest(pairs).parse().unwrap())
            };
            let start = || memcpy_htod_sync(out_at, &ones);
            start()?;
            multiply();
            let at_once = differs()?;
            start()?;
            stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
            multiply();
            let graph = stream.end_capture(CUgraphInstantiate_flags(0))?.expect("a product was captured");
            graph.launch()?;
            right += usize::from(at_once < 1e-4 && differs()? < 1e-4);
        }
        lt::destroy_matmul_pref(preference).unwrap();
        for layout in [a, b, d] {
            lt::destroy_matrix_layout(layout).unwrap();
        }
        lt::destroy_matmul_desc(matmul).unwrap();
        lt::destroy_handle(handle).unwrap();
    }
    Ok(format!("{right} plans, each right at once and in a graph"))
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
    let graph = stream.end_capture(CUgraphInstantiate_flags(0))?.expect("a launch was captured");
    count += 1;
    let _ = count;
    let written = |out: &CudaSlice<f32>| -> Result<usize, DriverError> {
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
