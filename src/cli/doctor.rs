//! `plimsoll doctor`: whether this machine can be measured, and whether its GPU computes what it should.

use std::path::PathBuf;

use serde::Serialize;

use crate::cli::bench::lock_folder;
use crate::cli::exit::Exit;
use crate::cli::nvml_args::NvmlArgs;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::cli::{device, kernel_cache};
use crate::device::cuda::gpu::CudaSpec;
use crate::doctor::Examination;
use crate::record::SCHEMA_VERSION;
use crate::record::diagnosis::{CheckResult, Diagnosis};
use crate::report::paint::Paint;
use crate::report::{Look, diagnosis};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  plimsoll doctor\n  plimsoll doctor --require-gpu --format json | jq '.checks[] | select(.result != \"ok\")'"
)]
pub struct DoctorArgs {
    /// Number of the GPU to examine, as in cuda:N
    #[arg(long, value_name = "N", default_value_t = 0)]
    gpu: u32,
    /// End with exit code 69 where there is no GPU
    #[arg(long)]
    require_gpu: bool,
    /// Compare small shapes only
    #[arg(long)]
    quick: bool,
    /// Folder of NVIDIA's libraries, tried before every other place [env: PLIMSOLL_CUDA_LIBRARIES=]
    #[arg(long, value_name = "DIR")]
    cuda_libraries: Option<PathBuf>,
    #[command(flatten)]
    nvml: NvmlArgs,
}

#[derive(Serialize)]
struct DoctorDocument<'a> {
    schema_version: u32,
    ok: usize,
    warnings: usize,
    failed: usize,
    could_not_run: usize,
    /// Those of them that wait for a GPU.
    waiting_for_gpu: usize,
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
}

/// Examines and prints.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: &DoctorArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json])?;
    let libraries = device::libraries(args.cuda_libraries.clone());
    let mut folders = vec![("the node's lock", lock_folder())];
    folders.extend(out.data_dir().ok().map(|folder| ("runs", folder)));
    folders.extend(kernel_cache::folder().map(|folder| ("compiled kernels", folder)));
    let nvml = args.nvml.open();
    let examination = Examination {
        libraries,
        telemetry: nvml.as_ref().map_err(ToString::to_string),
        spec: CudaSpec { cache: kernel_cache::open(), ..CudaSpec::new(args.gpu) },
        visible_devices: std::env::var_os("CUDA_VISIBLE_DEVICES").map(|value| value.to_string_lossy().into_owned()),
        folders,
        small: args.quick,
    };
    let quiet = out.progress() == Progress::Silent || format == Format::Text;
    let found = examination.run(&mut |check| {
        if !quiet {
            terminal::note(format_args!("{}: {}: {}", check.section, check.name, check.result.label()));
        }
    });
    match format {
        Format::Json => out.document(&DoctorDocument {
            schema_version: SCHEMA_VERSION,
            ok: found.count(CheckResult::Ok),
            warnings: found.count(CheckResult::Warning),
            failed: found.count(CheckResult::Failed),
            could_not_run: found.count(CheckResult::CouldNotRun),
            waiting_for_gpu: found.waiting(),
            diagnosis: &found,
        })?,
        _ => out.print(diagnosis::text(&found, Look { width: out.width(), paint: Paint::Colour }).trim_start())?,
    }
    let has_gpu = libraries.driver.as_ref().is_ok_and(|driver| driver.gpus.iter().any(|gpu| gpu.ordinal == args.gpu));
    Ok(match (found.count(CheckResult::Failed), args.require_gpu && !has_gpu) {
        (_, true) => Exit::Unavailable,
        (0, false) => Exit::Good,
        (_, false) => Exit::GateFailed,
    })
}
