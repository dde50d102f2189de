//! Where the engine computes: what was asked for, what is there, and a model loaded on it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::engine_args::ArithmeticArg;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::kernel_cache;
use crate::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use crate::device::cuda::CudaDevice;
use crate::device::cuda::gpu::{CudaSpec, Gpu};
use crate::device::cuda::matmul::MatmulChoice;
use crate::device::source::Element;
use crate::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use crate::engine::weights::{LoadError, LoadProgress};
use crate::nvidia::search::Search;
use crate::nvidia::{self, Libraries, gpus};

/// The device, and how it computes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Where the engine computes: cpu, cuda, cuda:N [default: the first GPU, or the CPU where there is none]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceArg>,
    /// Folder of NVIDIA's libraries, tried before every other place [env: PLIMSOLL_CUDA_LIBRARIES=]
    #[arg(long, value_name = "DIR")]
    cuda_libraries: Option<PathBuf>,
    /// Whose matrix products a GPU computes with
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    matmul: MatmulArg,
    /// Start a GPU's kernels one by one instead of replaying recorded steps
    #[arg(long)]
    no_graphs: bool,
}

/// A device by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceArg {
    Cpu,
    Cuda(u32),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) if number.parse::<u32>().is_ok() => Ok(Self::Cuda(number.parse().unwrap_or_default())),
            _ => Err("give `cpu`, `cuda` or `cuda:N`, such as `cuda:0`".to_owned()),
        }
    }
}

/// Whose matrix products, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum MatmulArg {
    /// The fastest for each shape, timed once.
    #[default]
    Best,
    /// plimsoll's own kernels.
    Own,
    /// cuBLASLt's.
    Library,
}

/// A device that was chosen and is there; nothing was computed on it yet.
#[derive(Clone, Debug)]
pub(super) enum Device {
    /// The host's processor.
    Cpu(CpuSpec),
    /// A GPU.
    Cuda(CudaSpec, gpus::Gpu),
}

/// What is there of NVIDIA's, in the places that this process's environment names.
pub(super) fn libraries(explicit: Option<PathBuf>) -> &'static Libraries {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    nvidia::probe(&Search {
        explicit: explicit.or_else(|| folder("PLIMSOLL_CUDA_LIBRARIES")),
        cuda_home: folder("CUDA_HOME").or_else(|| folder("CUDA_PATH")),
        virtual_env: folder("VIRTUAL_ENV"),
        conda_prefix: folder("CONDA_PREFIX"),
        home: folder("HOME"),
        ..Search::default()
    })
}

impl DeviceArgs {
    /// What is there of NVIDIA's.
    pub(super) fn libraries(&self) -> &'static Libraries {
        libraries(self.cuda_libraries.clone())
    }

    /// Chooses the device; the CPU computes with `threads`.
    ///
    /// # Errors
    /// When the one that was asked for is not there.
    pub(super) fn choose(&self, arithmetic: Option<ArithmeticArg>, threads: NonZeroUsize) -> anyhow::Result<Device> {
        let driver = &self.libraries().driver;
        let asked = self.device.unwrap_or(if driver.is_ok() { DeviceArg::Cuda(0) } else { DeviceArg::Cpu });
        let DeviceArg::Cuda(ordinal) = asked else {
            let arithmetic = match arithmetic.unwrap_or(ArithmeticArg::F32) {
                ArithmeticArg::F32 => Arithmetic::F32,
                ArithmeticArg::Bf16 => Arithmetic::Bf16Dot,
            };
            return Ok(Device::Cpu(CpuSpec::new(threads, arithmetic)));
        };
        let there = driver.as_ref().map_err(|absence| anyhow::Error::new(absence.clone()));
        let gpus = &there.with_context(|| format!("cannot compute on `cuda:{ordinal}`")).exit_with(Exit::Unavailable)?.gpus;
        let gpu = gpus.iter().find(|gpu| gpu.ordinal == ordinal);
        let gpu = gpu.with_context(|| {
            let count = gpus.len();
            format!("there is no `cuda:{ordinal}`: this process may use {count} GPUs, numbered from 0. Choose one of them, or check `CUDA_VISIBLE_DEVICES`")
        });
        let gpu = gpu.exit_with(Exit::Unavailable)?.clone();
        let element = match arithmetic.unwrap_or(ArithmeticArg::Bf16) {
            ArithmeticArg::F32 => Element::F32,
            ArithmeticArg::Bf16 => Element::Bf16,
        };
        let matmul = match self.matmul {
            MatmulArg::Best => MatmulChoice::Best,
            MatmulArg::Own => MatmulChoice::Own,
            MatmulArg::Library => MatmulChoice::Library,
        };
        let spec = CudaSpec { element, matmul, graphs: !self.no_graphs, cache: kernel_cache::open(), ..CudaSpec::new(ordinal) };
        Ok(Device::Cuda(spec, gpu))
    }
}

impl Device {
    /// Whether it is the host's processor.
    pub(super) const fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// The GPU, where it is one.
    pub(super) const fn gpu(&self) -> Option<&gpus::Gpu> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(_, gpu) => Some(gpu),
        }
    }

    /// Puts a model on the device.
    ///
    /// # Errors
    /// When it does not fit, or a file or the device fails.
    pub(super) fn load(
        self,
        libraries: &Libraries,
        source: ModelSource,
        wish: &ShapeWish,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<LoadedModel, LoadError> {
        match self {
            Self::Cpu(spec) => LoadedModel::load(source, move || CpuDevice::open(spec), wish, progress),
            Self::Cuda(spec, _) => {
                let gpu = Gpu::open(libraries, &spec)?;
                LoadedModel::load(source, move || CudaDevice::open(&gpu), wish, progress)
            }
        }
    }
}
