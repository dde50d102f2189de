//! One GPU made ready once: context and kernels, shared by every engine on it.

use std::sync::Arc;

use crate::device::cuda::driver::{Context, Function};
use crate::device::cuda::kernels::Kernels;
use crate::device::cuda::matmul::MatmulChoice;
use crate::device::cuda::program::{KernelCache, Modules, Sources};
use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::device::{DeviceIdentity, DeviceKind};
use crate::nvidia::Libraries;
use crate::nvidia::gpus::Gpu as GpuFacts;

/// How a GPU computes.
#[derive(Clone, Debug)]
pub struct CudaSpec {
    /// Which GPU, by the driver's ordinal.
    pub ordinal: u32,
    /// Element type of weights, activations and cache: bf16 for speed, f32 for proof.
    pub element: Element,
    /// Which matrix products may be used.
    pub matmul: MatmulChoice,
    /// Whether steps that decode only are recorded and replayed.
    pub graphs: bool,
    /// Compiled kernels of earlier runs.
    pub cache: Option<Arc<dyn KernelCache>>,
}

impl CudaSpec {
    /// bf16 with everything that makes it fast, and no cache.
    #[must_use]
    pub const fn new(ordinal: u32) -> Self {
        Self { ordinal, element: Element::Bf16, matmul: MatmulChoice::Best, graphs: true, cache: None }
    }
}

/// A GPU with its kernels loaded.
#[derive(Debug)]
pub struct Gpu {
    pub(super) context: Arc<Context>,
    pub(super) kernels: Kernels,
    pub(super) spec: CudaSpec,
    pub(super) identity: DeviceIdentity,
    pub(super) facts: GpuFacts,
    /// Whether cuBLASLt is there.
    pub(super) library: bool,
    /// Holds the kernels' code; dropped last.
    modules: Modules,
}

/// Lowest compute capability that the kernels run on.
const LOWEST: (u32, u32) = (8, 0);

impl Gpu {
    /// Makes the GPU ready: compiles or loads every kernel.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, no compiler for its kernels, or the driver fails.
    pub fn open(libraries: &Libraries, spec: &CudaSpec) -> Result<Arc<Self>, DeviceError> {
        let driver = libraries.driver.as_ref().map_err(|absence| DeviceError::Absent { absence: absence.clone() })?;
        let facts = driver.gpus.iter().find(|gpu| gpu.ordinal == spec.ordinal).ok_or_else(|| DeviceError::Unsupported {
            what: format!("the device `cuda:{}`", spec.ordinal),
            reason: format!("this process may use `{}` GPUs, numbered from 0", driver.gpus.len()),
            remedy: "Choose one of them (`plimsoll node` lists them), or check `CUDA_VISIBLE_DEVICES`".to_owned(),
        })?;
        check(spec, facts)?;
        let context = Context::open(spec.ordinal)?;
        let sources = Sources { gpu: facts, nvrtc: &libraries.nvrtc, cache: spec.cache.as_deref() };
        let modules = sources.load(&context, spec.element)?;
        let kernels = Kernels::find(&modules)?;
        for (kernel, bytes) in Kernels::spills(&modules)? {
            tracing::warn!("the kernel `{kernel}` spills {bytes} bytes a thread: it is slower than it should be. Please report it");
        }
        let identity = DeviceIdentity {
            kind: DeviceKind::Cuda,
            ordinal: spec.ordinal,
            name: facts.name.clone(),
            threads: 0,
            arithmetic: spec.element.name().to_owned(),
            elements: vec![Element::F32, Element::F16, Element::Bf16],
            instructions: modules.architecture.clone(),
        };
        let library = libraries.cublaslt.is_ok();
        if !library && spec.matmul == MatmulChoice::Library {
            let absence = libraries.cublaslt.as_ref().expect_err("it is not there").clone();
            return Err(DeviceError::Absent { absence });
        }
        Ok(Arc::new(Self { context, kernels, spec: spec.clone(), identity, facts: facts.clone(), library, modules }))
    }

    /// A kernel that no step uses.
    pub(super) fn kernel(&self, program: &str, name: &str) -> Result<Function, DeviceError> {
        self.modules.function(program, name)
    }

    /// How many kernels a step may use, and those that spill registers to memory, with the bytes a thread spills.
    ///
    /// # Errors
    /// When the driver does not say.
    pub fn spills(&self) -> Result<(usize, Vec<(String, u32)>), DeviceError> {
        Ok((self.modules.found().len(), Kernels::spills(&self.modules)?))
    }

    /// The GPU as the driver describes it.
    #[must_use]
    pub const fn facts(&self) -> &GpuFacts {
        &self.facts
    }

    /// Who computes.
    #[must_use]
    pub const fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }
}

fn check(spec: &CudaSpec, facts: &GpuFacts) -> Result<(), DeviceError> {
    let (major, minor) = facts.compute_capability;
    if facts.compute_capability < LOWEST {
        return Err(DeviceError::Unsupported {
            what: format!("computing on `{}`", facts.name),
            reason: format!("its compute capability is {major}.{minor}, and the kernels need {}.{} (Ampere) or newer", LOWEST.0, LOWEST.1),
            remedy: "Choose another GPU, or the CPU device (`--device cpu`)".to_owned(),
        });
    }
    if spec.element == Element::F16 {
        return Err(DeviceError::Unsupported {
            what: "the arithmetic `f16`".to_owned(),
            reason: "the kernels are made for bf16 and f32".to_owned(),
            remedy: "Choose the arithmetic `bf16`".to_owned(),
        });
    }
    Ok(())
}
