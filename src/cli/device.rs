//! Where the engine computes: what was asked for, what is there, and a model loaded on it.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, mpsc};
use std::thread;

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
    /// Where the engine computes: cpu, cuda:0, cuda:0,1, cuda:all [default: the first GPU, or the CPU where there is none]
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

/// What a device may be called.
const HOW_TO_NAME: &str = "give `cpu`, `cuda`, a GPU such as `cuda:0`, several such as `cuda:0,1`, or `cuda:all`";

/// A device by name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DeviceArg {
    Cpu,
    /// By ordinal; all of them where none is named.
    Cuda(Vec<u32>),
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(vec![0])),
            Some(("cuda", "all")) => Ok(Self::Cuda(Vec::new())),
            Some(("cuda", numbers)) => {
                let numbers: Result<Vec<u32>, _> = numbers.split(',').map(str::parse).collect();
                numbers.map(Self::Cuda).map_err(|_| HOW_TO_NAME.to_owned())
            }
            _ => Err(HOW_TO_NAME.to_owned()),
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
    /// GPUs, each with an engine of its own; one or more.
    Cuda(CudaSpec, Vec<gpus::Gpu>),
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
        let asked = self.device.clone().unwrap_or(if driver.is_ok() { DeviceArg::Cuda(vec![0]) } else { DeviceArg::Cpu });
        let DeviceArg::Cuda(ordinals) = asked else {
            let arithmetic = match arithmetic.unwrap_or(ArithmeticArg::F32) {
                ArithmeticArg::F32 => Arithmetic::F32,
                ArithmeticArg::Bf16 => Arithmetic::Bf16Dot,
            };
            return Ok(Device::Cpu(CpuSpec::new(threads, arithmetic)));
        };
        let there = driver.as_ref().map_err(|absence| anyhow::Error::new(absence.clone()));
        let there = &there.context("cannot compute on a GPU").exit_with(Exit::Unavailable)?.gpus;
        let gpus = named(&ordinals, there).exit_with(Exit::Unavailable)?;
        let element = match arithmetic.unwrap_or(ArithmeticArg::Bf16) {
            ArithmeticArg::F32 => Element::F32,
            ArithmeticArg::Bf16 => Element::Bf16,
        };
        let matmul = match self.matmul {
            MatmulArg::Best => MatmulChoice::Best,
            MatmulArg::Own => MatmulChoice::Own,
            MatmulArg::Library => MatmulChoice::Library,
        };
        let spec = CudaSpec { element, matmul, graphs: !self.no_graphs, cache: kernel_cache::open(), ..CudaSpec::new(0) };
        Ok(Device::Cuda(spec, gpus))
    }
}

impl Device {
    /// Whether it is the host's processor.
    pub(super) const fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu(_))
    }

    /// The only device that is meant, its ordinal in the specification.
    ///
    /// # Errors
    /// A usage error when several GPUs were named.
    pub(super) fn only(self) -> anyhow::Result<Self> {
        match self {
            Self::Cuda(spec, gpus) if gpus.len() == 1 => Ok(Self::Cuda(CudaSpec { ordinal: gpus[0].ordinal, ..spec }, gpus)),
            Self::Cuda(..) => {
                Err(anyhow::anyhow!("this verb works on one GPU at a time. Name one, such as `--device cuda:0`")).exit_with(Exit::Usage)
            }
            Self::Cpu(_) => Ok(self),
        }
    }

    /// Element type that a GPU computes with; `None` of a CPU.
    pub(super) const fn element(&self) -> Option<Element> {
        match self {
            Self::Cpu(_) => None,
            Self::Cuda(spec, _) => Some(spec.element),
        }
    }

    /// The first one alone, where there are several.
    pub(super) fn first(&self) -> Self {
        match self {
            Self::Cuda(spec, gpus) => {
                let gpus: Vec<_> = gpus.iter().take(1).cloned().collect();
                let ordinal = gpus.first().map_or(spec.ordinal, |gpu| gpu.ordinal);
                Self::Cuda(CudaSpec { ordinal, ..spec.clone() }, gpus)
            }
            Self::Cpu(spec) => Self::Cpu(*spec),
        }
    }

    /// The GPUs; none where it is the host's processor.
    pub(super) fn gpus(&self) -> &[gpus::Gpu] {
        match self {
            Self::Cpu(_) => &[],
            Self::Cuda(_, gpus) => gpus,
        }
    }

    /// Threads that are kept busy while it is measured: those of the engines, and the generator's.
    pub(super) fn busy_threads(&self) -> u32 {
        let engines = match self {
            Self::Cpu(spec) => spec.threads.get(),
            Self::Cuda(_, gpus) => gpus.len(),
        };
        u32::try_from(engines + 1).unwrap_or(u32::MAX)
    }

    /// Puts a model on each of the devices, on all of them at once; `open` opens its source anew for each. Progress is that of all together.
    ///
    /// # Errors
    /// When it does not fit, or a file or a device fails.
    pub(super) fn load(
        self,
        libraries: &Libraries,
        open: impl Fn() -> anyhow::Result<ModelSource> + Sync,
        wish: &ShapeWish,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> anyhow::Result<Vec<LoadedModel>> {
        match self {
            Self::Cpu(spec) => Ok(vec![LoadedModel::load(open()?, move || CpuDevice::open(spec), wish, progress)?]),
            Self::Cuda(spec, gpus) => {
                // One after the other: the first compiles the kernels, and the others find them in the cache.
                let open_gpu = |gpu: &gpus::Gpu| Gpu::open(libraries, &CudaSpec { ordinal: gpu.ordinal, ..spec.clone() });
                let gpus = gpus.iter().map(open_gpu).collect::<Result<Vec<_>, _>>().map_err(LoadError::from)?;
                load_side_by_side(gpus, &open, wish, progress)
            }
        }
    }
}

/// Unwinds a thread that loads what nobody waits for any more: its loader has no other way to be told.
struct Stopped;

/// Loads on every GPU, each on a thread of its own. Where one fails, or `progress` unwinds, the others are stopped at their next tensor.
fn load_side_by_side(
    gpus: Vec<Arc<Gpu>>,
    open: &(impl Fn() -> anyhow::Result<ModelSource> + Sync),
    wish: &ShapeWish,
    progress: &mut dyn FnMut(LoadProgress),
) -> anyhow::Result<Vec<LoadedModel>> {
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let mut done = vec![0; gpus.len()];
        let load = |(place, gpu): (usize, Arc<Gpu>)| {
            let tell = tell.clone();
            scope.spawn(move || {
                let mut progress = |at: LoadProgress| {
                    if tell.send(Some((place, at))).is_err() {
                        resume_unwind(Box::new(Stopped));
                    }
                };
                let loaded = open().and_then(|source| Ok(LoadedModel::load(source, move || CudaDevice::open(&gpu), wish, &mut progress)?));
                if loaded.is_err() {
                    let _ = tell.send(None);
                }
                loaded
            })
        };
        let loads = gpus.into_iter().enumerate().map(load).collect::<Vec<_>>();
        drop(tell);
        // Ends when all have loaded, or with the first failure.
        while let Ok(Some((place, at))) = told.recv() {
            done[place] = at.done;
            progress(LoadProgress { done: done.iter().sum(), total: at.total * done.len() as u64 });
        }
        drop(told);
        let ended = loads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>();
        let ended = ended.into_iter().filter_map(|load| match load {
            Ok(loaded) => Some(loaded),
            Err(stopped) if stopped.is::<Stopped>() => None,
            Err(panic) => resume_unwind(panic),
        });
        ended.collect()
    })
}

/// The GPUs of these ordinals, each once; all of them where none is named.
fn named(ordinals: &[u32], there: &[gpus::Gpu]) -> anyhow::Result<Vec<gpus::Gpu>> {
    if ordinals.is_empty() {
        return Ok(there.to_vec());
    }
    let find = |ordinal: &u32| {
        let absent = || {
            let count = there.len();
            format!(
                "there is no `cuda:{ordinal}`: this process may use {count} GPUs, numbered from 0. Choose one of them, or check `CUDA_VISIBLE_DEVICES`"
            )
        };
        there.iter().find(|gpu| gpu.ordinal == *ordinal).cloned().with_context(absent)
    };
    let mut found = ordinals.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
    found.sort_by_key(|gpu| gpu.ordinal);
    found.dedup_by_key(|gpu| gpu.ordinal);
    Ok(found)
}
