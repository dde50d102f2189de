//! NVIDIA's management library as a source. Only calls that read.
//!
//! The library is opened once and never unloaded: a call that hangs in it may outlive the run. Opening happens on a thread of its
//! own, because it may hang too.

mod identity;
mod nvlink;
pub mod read;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use crate::record::gpu::GpuInventory;
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::GpuProcess;
use crate::telemetry::nvml::read::NvmlSource;
use crate::telemetry::select::Selected;
use crate::telemetry::window::Named;

/// How long opening the library and describing its GPUs may take: a driver without persistence mode starts every GPU first.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a look at who computes may take.
const LOOK: Duration = Duration::from_secs(3);
/// Where the kernel's part of the driver says its version.
const MODULE: &str = "/proc/driver/nvidia/version";

/// Why there is no telemetry though there is a library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The library is of another version than the kernel's module: it was upgraded, the module was not loaded anew.
    #[error(
        "driver/library version mismatch: `{}` is {by_library}, the loaded kernel module is {by_module}. Reload the module (`rmmod nvidia_uvm nvidia && modprobe nvidia`) or reboot",
        path.display()
    )]
    VersionMismatch {
        /// The library.
        path: PathBuf,
        /// Its version.
        by_library: String,
        /// The module's.
        by_module: String,
    },
    /// The kernel has no NVIDIA driver.
    #[error("`{}` is there, but the NVIDIA driver is not loaded. Load it (`modprobe nvidia`), or give this container its GPUs", path.display())]
    DriverNotLoaded {
        /// The library.
        path: PathBuf,
    },
    /// There is no GPU that this process may use.
    #[error("`{}` is there, but it knows no GPU", path.display())]
    NoGpu {
        /// The library.
        path: PathBuf,
    },
    /// It does not answer.
    #[error("`{}` did not answer within {patience:?}: the driver hangs. See `dmesg` for XIDs, and reboot", path.display())]
    Hangs {
        /// The library.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// Anything else.
    #[error("cannot use `{}`: {wrong}. See `nvidia-smi`, which uses the same library", path.display())]
    Failed {
        /// The library.
        path: PathBuf,
        /// What it said.
        wrong: String,
    },
}

/// The opened library and the GPUs that it knows.
#[derive(Debug)]
pub struct Library {
    nvml: &'static Nvml,
    inventory: GpuInventory,
}

/// Opens the library and describes its GPUs.
///
/// # Errors
/// When there is no telemetry to be had from it, and what to do.
pub fn open(library: &Path) -> Result<Library, OpenError> {
    open_within(library, PATIENCE)
}

/// As [`open`], with another patience.
///
/// # Errors
/// As [`open`].
pub fn open_within(library: &Path, patience: Duration) -> Result<Library, OpenError> {
    let path = library.to_owned();
    let (answer, answered) = mpsc::channel();
    let opening = {
        let path = path.clone();
        move || {
            // Nobody may be waiting any more.
            drop(answer.send(initialised(path)));
        }
    };
    let started = thread::Builder::new().name("telemetry-open".to_owned()).spawn(opening);
    if let Err(error) = started {
        return Err(OpenError::Failed { path, wrong: format!("no thread to open it on: {error}") });
    }
    answered.recv_timeout(patience).unwrap_or(Err(OpenError::Hangs { path, patience }))
}

impl Library {
    /// The GPUs that it knows, and versions.
    #[must_use]
    pub fn inventory(&self) -> &GpuInventory {
        &self.inventory
    }

    /// A source of these GPUs' readings, and what they are called.
    #[must_use]
    pub fn watch(&self, selected: &[Selected]) -> (NvmlSource, Vec<Named>) {
        let gpus = &self.inventory.gpus;
        let named = |selected: &Selected| {
            let gpu = &gpus[selected.gpu];
            let name = selected.instance.map_or(&gpu.name, |instance| &gpu.instances[instance].name);
            Named { uuid: selected.uuid(gpus).to_owned(), name: name.clone(), sm_clock_max_mhz: gpu.sm_clock_max_mhz }
        };
        (NvmlSource::of(self.nvml, gpus, selected), selected.iter().map(named).collect())
    }

    /// Every GPU, or each instance of one that is cut into some, with the processes that compute on it now; those that do not say are
    /// left out. `None` where the driver does not answer in time.
    #[must_use]
    pub fn computing(&self) -> Option<Vec<(Selected, Vec<GpuProcess>)>> {
        let gpus = self.inventory.gpus.iter().enumerate();
        let parts = gpus.flat_map(|(gpu, known)| {
            let instances = (0..known.instances.len()).map(move |instance| Selected { gpu, instance: Some(instance) });
            if known.instances.is_empty() { vec![Selected::whole(gpu)] } else { instances.collect() }
        });
        let parts = parts.collect::<Vec<_>>();
        let (source, _) = self.watch(&parts);
        let (answer, answered) = mpsc::channel();
        let looking = move || {
            let seen = parts.into_iter().enumerate().filter_map(|(place, part)| Some((part, source.processes(place).ok().ok()?)));
            // Nobody may be waiting any more.
            drop(answer.send(seen.collect()));
        };
        thread::Builder::new().name("telemetry-look".to_owned()).spawn(looking).ok()?;
        answered.recv_timeout(LOOK).ok()
    }
}

fn initialised(path: PathBuf) -> Result<Library, OpenError> {
    let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|error| refused(&path, &error))?;
    let nvml: &'static Nvml = Box::leak(Box::new(nvml));
    let inventory = identity::inventory(nvml, &path);
    if inventory.gpus.is_empty() { Err(OpenError::NoGpu { path }) } else { Ok(Library { nvml, inventory }) }
}

fn refused(path: &Path, error: &NvmlError) -> OpenError {
    let path = path.to_owned();
    match error {
        NvmlError::LibRmVersionMismatch => {
            let by_library = version_of_file(&path).unwrap_or_else(|| "of an unknown version".to_owned());
            let by_module = fs::read_to_string(MODULE).ok().and_then(|text| version_of_module(&text));
            OpenError::VersionMismatch { path, by_library, by_module: by_module.unwrap_or_else(|| "of another version".to_owned()) }
        }
        NvmlError::DriverNotLoaded => OpenError::DriverNotLoaded { path },
        other => OpenError::Failed { path, wrong: other.to_string() },
    }
}

/// `libnvidia-ml.so.1` is a link to a file with the version in its name.
fn version_of_file(path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let version = real.file_name()?.to_str()?.strip_prefix("libnvidia-ml.so.")?;
    version.contains('.').then(|| version.to_owned())
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  ...`: the first word that is a version.
fn version_of_module(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version"))?;
    let is_version = |word: &&str| word.contains('.') && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// A call's result as a reading.
fn reading<T>(result: Result<T, NvmlError>) -> Reading<T> {
    result.map_err(|error| why(&error)).into()
}

/// Why a call gave no value. What a driver says when it went away under the process means the same as a lost GPU.
fn why(error: &NvmlError) -> Missing {
    match error {
        NvmlError::NotSupported | NvmlError::InvalidArg => Missing::NotSupported,
        NvmlError::NoPermission | NvmlError::OperatingSystem => Missing::NoPermission,
        NvmlError::InUse => Missing::InUse,
        NvmlError::GpuLost | NvmlError::ResetRequired | NvmlError::Uninitialized | NvmlError::DriverNotLoaded => Missing::GpuLost,
        NvmlError::FailedToLoadSymbol(_) | NvmlError::FunctionNotFound => Missing::NoCall,
        _ => Missing::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_version_is_read_from_its_own_words() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.3.0\n";
        assert_eq!(version_of_module(closed).as_deref(), Some("550.54.15"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs)\n";
        assert_eq!(version_of_module(open).as_deref(), Some("570.86.15"));
        assert_eq!(version_of_module("nothing"), None);
    }
}
