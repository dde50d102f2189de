//! The kernels' sources, embedded, and how they become loaded modules: from a cache of earlier compilations, or by NVRTC
//! for the very architecture at hand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::device::cuda::compiler;
use crate::device::cuda::driver::{Context, Function, Module};
use crate::device::cuda::ptx;
use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::nvidia::gpus::Gpu;
use crate::nvidia::library::Library;
use crate::nvidia::{Absence, Probe};

/// One file of `kernels/`: one translation unit, one module.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The file's stem.
    pub name: &'static str,
    /// Its text.
    pub source: &'static str,
    /// Its PTX in bf16 and in f32, compressed by zstd (see [`ptx`]).
    pub ptx: [&'static [u8]; 2],
}

macro_rules! programs {
    ($($name:literal),+ $(,)?) => {
        /// Every program.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: $name,
            source: include_str!(concat!("../../../kernels/", $name, ".cu")),
            ptx: [
                include_bytes!(concat!("../../../kernels/ptx/", $name, ".bf16.ptx.zst")),
                include_bytes!(concat!("../../../kernels/ptx/", $name, ".f32.ptx.zst")),
            ],
        }),+];
    };
}

programs![
    "activation",
    "attention_decode",
    "attention_prefill",
    "ceilings",
    "embed",
    "gather",
    "matmul",
    "norm",
    "rope_kv",
    "sample",
    "weights",
];

macro_rules! headers {
    ($($name:literal),+ $(,)?) => {
        /// Headers by the name they are included by; there are no others, and no folder is searched.
        pub const HEADERS: &[(&str, &str)] =
            &[$((concat!($name, ".cuh"), include_str!(concat!("../../../kernels/", $name, ".cuh")))),+];
    };
}

headers![
    "compat",
    "decode_mma",
    "decode_scalar",
    "matmul_scalar",
    "paged",
    "prefill_mma",
    "prefill_scalar",
    "random",
    "skinny_mma",
    "tile_mma",
    "vector",
    "words",
];

/// Keeps compiled kernels between runs. The device opens no file itself.
pub trait KernelCache: Send + Sync + std::fmt::Debug {
    /// What was kept under `key`.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps `image` under `key`; a failure costs time later and nothing else.
    fn keep(&self, key: &str, image: &[u8]);
}

/// Where compiled kernels come from.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) nvrtc: &'a Probe<Library>,
    pub(super) cache: Option<&'a dyn KernelCache>,
}

/// Options of NVRTC for an element type on an architecture.
#[must_use]
pub fn options(element: Element, architecture: &str) -> Vec<String> {
    let element = if element == Element::F32 { "-DELEMENT_F32" } else { "-DELEMENT_BF16" };
    vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned(), element.to_owned()]
}

impl Sources<'_> {
    /// Loads every program for `element`: compiled for this GPU, or where there is no compiler, or it refuses the GPU, from
    /// the embedded PTX.
    pub(super) fn load(&self, context: &Arc<Context>, element: Element) -> Result<Modules, DeviceError> {
        let compiled = match self.nvrtc {
            Ok(_) => self.compiled(context, element),
            Err(absence) => Err(DeviceError::Absent { absence: absence.clone() }),
        };
        let failure = match compiled {
            Ok(modules) => return Ok(modules),
            Err(failure) => failure,
        };
        let embedded = Self::embedded(context, element);
        match &embedded {
            Ok(_) => tracing::warn!(
                "kernels are the embedded ones for {}, which may be slower than those for this GPU: {failure}",
                ptx::ARCHITECTURE
            ),
            Err(error) => tracing::warn!("the embedded kernels do not serve either: {error}"),
        }
        // What stands in the way of the better ones is what there is to mend.
        embedded.map_err(|_| failure)
    }

    fn compiled(&self, context: &Arc<Context>, element: Element) -> Result<Modules, DeviceError> {
        let architecture = self.architecture();
        let options = options(element, &architecture);
        let load = |program: &'static Program| Ok((program.name, self.module(context, program, &options)?));
        Ok(Modules { loaded: PROGRAMS.iter().map(load).collect::<Result<_, DeviceError>>()?, found: Mutex::default(), architecture })
    }

    fn embedded(context: &Arc<Context>, element: Element) -> Result<Modules, DeviceError> {
        let load = |program: &'static Program| {
            let image = ptx::of(program, element).unwrap_or_default();
            Ok((program.name, Module::load(context, &image, program.name)?))
        };
        let architecture = format!("{} (embedded PTX)", ptx::ARCHITECTURE);
        Ok(Modules { loaded: PROGRAMS.iter().map(load).collect::<Result<_, DeviceError>>()?, found: Mutex::default(), architecture })
    }

    /// The GPU's own architecture, or where this NVRTC does not know it yet, the newest virtual one below it, from which
    /// the driver compiles.
    fn architecture(&self) -> String {
        let (major, minor) = self.gpu.compute_capability;
        let own = 10 * major + minor;
        let known = if self.nvrtc.is_ok() { compiler::architectures() } else { Vec::new() };
        match known.iter().rev().find(|known| **known <= own) {
            Some(below) if *below < own => format!("compute_{below}"),
            _ => self.gpu.architecture(),
        }
    }

    /// A kept image that does not load (cut short, or of another driver's making) is compiled again.
    fn module(&self, context: &Arc<Context>, program: &Program, options: &[String]) -> Result<Module, DeviceError> {
        let version = self.nvrtc.as_ref().map_or("none", |library| library.version.as_str());
        let key = key(program, options, version);
        let kept = self.cache.and_then(|cache| cache.load(&key));
        if let Some(module) = kept.and_then(|image| Module::load(context, &image, program.name).ok()) {
            return Ok(module);
        }
        self.nvrtc.as_ref().map_err(no_compiler)?;
        let image = compiler::compile(program, options)?;
        let module = Module::load(context, &image, program.name)?;
        if let Some(cache) = self.cache {
            cache.keep(&key, &image);
        }
        Ok(module)
    }
}

fn no_compiler(absence: &Absence) -> DeviceError {
    DeviceError::Absent { absence: absence.clone() }
}

/// Names a compilation by everything that it depends on.
fn key(program: &Program, options: &[String], compiler: &str) -> String {
    let mut digest = Sha256::new();
    let headers = HEADERS.iter().flat_map(|(name, source)| [*name, *source]);
    let parts = [program.name, program.source, compiler].into_iter().chain(headers).chain(options.iter().map(String::as_str));
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let hex: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hex}", program.name)
}

/// Programs that are loaded on a GPU.
#[derive(Debug)]
pub(super) struct Modules {
    loaded: HashMap<&'static str, Module>,
    /// Kernels that were asked for.
    found: Mutex<Vec<(String, Function)>>,
    /// What they were compiled for.
    pub(super) architecture: String,
}

impl Modules {
    /// The kernel `name` of `program`.
    pub(super) fn function(&self, program: &str, name: &str) -> Result<Function, DeviceError> {
        let module = self.loaded.get(program).expect("every program is loaded");
        let function = module.function(name)?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.iter().all(|(known, _)| known != name) {
            found.push((name.to_owned(), function));
        }
        Ok(function)
    }

    /// Kernels that were asked for, by name.
    pub(super) fn found(&self) -> Vec<(String, Function)> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
