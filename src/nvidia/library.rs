//! Opening one library: candidates in order, every symbol checked, and proof that the bindings will use the same copy.

use std::ffi::c_void;
use std::path::{Path, PathBuf};

use cudarc::{cublaslt, driver, nvrtc as nvrtc_bindings};
use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_NOW};

use crate::nvidia::search::{Origin, Place, Search};
use crate::nvidia::{Absence, Probe, symbols};

/// A library that is open, whole and asked for its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The file, or its bare name where the loader found it.
    pub path: PathBuf,
    /// Its version, such as `12.9`.
    pub version: String,
}

/// What is looked for.
struct Wanted {
    what: &'static str,
    names: &'static [&'static str],
    origin: Origin,
    symbols: &'static [&'static str],
    remedy: &'static str,
}

const DRIVER: Wanted = Wanted {
    what: "the CUDA driver",
    names: &["libcuda.so.1"],
    origin: Origin::Driver,
    symbols: symbols::DRIVER,
    remedy: "Install the NVIDIA driver; in a container, start it with the NVIDIA runtime (`--gpus all`). The CPU device needs none of it",
};
const NVRTC: Wanted = Wanted {
    what: "NVRTC",
    names: &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
    origin: Origin::Toolkit,
    symbols: symbols::NVRTC,
    remedy: "Install it (`pip install nvidia-cuda-nvrtc-cu12`, or a CUDA toolkit), or name its folder with `--cuda-libraries`",
};
const CUBLASLT: Wanted = Wanted {
    what: "cuBLASLt",
    names: &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
    origin: Origin::Toolkit,
    symbols: symbols::CUBLASLT,
    remedy: "Install it (`pip install nvidia-cublas-cu12`, or a CUDA toolkit), or name its folder with `--cuda-libraries`; without it plimsoll's own matrix products are used, which are slower",
};
const NVML: Wanted = Wanted {
    what: "NVML",
    names: &["libnvidia-ml.so.1"],
    origin: Origin::Driver,
    symbols: symbols::NVML,
    remedy: "It comes with the NVIDIA driver; in a container, allow the `utility` capability (`NVIDIA_DRIVER_CAPABILITIES=compute,utility`)",
};

/// Opens libcuda. Its version is asked for when it has been initialised.
pub(super) fn driver(search: &Search) -> Probe<Library> {
    let (opened, path) = open(search, &DRIVER)?;
    // SAFETY: the library is open, so that the bindings find one; they only look a symbol up.
    let bound = unsafe { driver::sys::is_culib_present() }.then(|| address(unsafe { driver::sys::culib() }, "cuInit"));
    same_copy(&DRIVER, &opened, bound.flatten(), "cuInit", &path)?;
    if !symbols::EVENT_ELAPSED_TIME.iter().any(|name| has(&opened, name)) {
        return Err(incomplete(&DRIVER, &path, symbols::EVENT_ELAPSED_TIME));
    }
    keep(opened);
    Ok(Library { path, version: String::new() })
}

/// Opens NVRTC and asks its version.
pub(super) fn nvrtc(search: &Search) -> Probe<Library> {
    let (opened, path) = open(search, &NVRTC)?;
    open_builtins(&path);
    // SAFETY: as for the driver.
    let bound =
        unsafe { nvrtc_bindings::sys::is_culib_present() }.then(|| address(unsafe { nvrtc_bindings::sys::culib() }, "nvrtcVersion"));
    same_copy(&NVRTC, &opened, bound.flatten(), "nvrtcVersion", &path)?;
    keep(opened);
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the symbol is there; both pointers are to integers that live through the call.
    unsafe { nvrtc_bindings::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    Ok(Library { path, version: format!("{major}.{minor}") })
}

/// Opens cuBLASLt and asks its version.
pub(super) fn cublaslt(search: &Search) -> Probe<Library> {
    let (opened, path) = open(search, &CUBLASLT)?;
    // SAFETY: as for the driver.
    let bound = unsafe { cublaslt::sys::is_culib_present() }.then(|| address(unsafe { cublaslt::sys::culib() }, "cublasLtGetVersion"));
    same_copy(&CUBLASLT, &opened, bound.flatten(), "cublasLtGetVersion", &path)?;
    keep(opened);
    // SAFETY: the symbol is there and takes nothing.
    let version = unsafe { cublaslt::sys::cublasLtGetVersion() };
    Ok(Library { path, version: format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100) })
}

/// Finds NVML. It is opened again, by its path, by whoever reads counters.
///
/// # Errors
/// When it is in none of the places, with all of them, or lacks what makes it NVML.
pub fn nvml(search: &Search) -> Probe<Library> {
    let (_, path) = open(search, &NVML)?;
    Ok(Library { path, version: String::new() })
}

/// Opens the first candidate that can be opened, and checks its symbols.
fn open(search: &Search, wanted: &Wanted) -> Probe<(Opened, PathBuf)> {
    let (mut looked_for, mut refusals) = (Vec::new(), Vec::new());
    for place in search.places(wanted.origin) {
        looked_for.push(match &place {
            Place::Loader => "the loader's path".to_owned(),
            Place::Folder(folder) => folder.display().to_string(),
        });
        for name in wanted.names {
            let path = match &place {
                Place::Loader => PathBuf::from(name),
                Place::Folder(folder) => folder.join(name),
            };
            if matches!(place, Place::Folder(_)) && !path.exists() {
                continue;
            }
            // SAFETY: opening runs the library's initialisers; these are NVIDIA's own libraries, or what the user named as such.
            match unsafe { Opened::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(opened) => {
                    let missing: Vec<_> = wanted.symbols.iter().copied().filter(|name| !has(&opened, name)).collect();
                    return if missing.is_empty() { Ok((opened, path)) } else { Err(incomplete(wanted, &path, &missing)) };
                }
                Err(error) if matches!(place, Place::Folder(_)) => refusals.push(error.to_string()),
                Err(_) => {}
            }
        }
    }
    let reason = refusals.pop().unwrap_or_else(|| format!("`{}` was not found", wanted.names.join("` or `")));
    Err(Absence { what: wanted.what.to_owned(), reason, looked_for, remedy: wanted.remedy.to_owned() })
}

/// Whether a library has a symbol.
fn has(opened: &Opened, name: &str) -> bool {
    address(opened, name).is_some()
}

/// A library in which symbols are looked up: ours, and the bindings' own.
trait Symbols {
    fn find(&self, name: &str) -> Option<*const c_void>;
}

impl Symbols for Opened {
    fn find(&self, name: &str) -> Option<*const c_void> {
        // SAFETY: the address is compared and never called.
        unsafe { self.get::<*const c_void>(name.as_bytes()) }.ok().map(|symbol| symbol.as_raw_ptr().cast_const())
    }
}

impl Symbols for libloading::Library {
    fn find(&self, name: &str) -> Option<*const c_void> {
        // SAFETY: the address is compared and never called.
        let symbol = unsafe { self.get::<*const c_void>(name.as_bytes()) }.ok()?;
        // SAFETY: the raw symbol lives no longer than this function, the library for the whole process.
        Some(unsafe { symbol.into_raw() }.as_raw_ptr().cast_const())
    }
}

fn address(library: &impl Symbols, name: &str) -> Option<*const c_void> {
    library.find(name)
}

/// The bindings look libraries up by name: should the loader answer with another copy than the one that was checked,
/// nothing that was checked would hold.
fn same_copy(wanted: &Wanted, opened: &Opened, bound: Option<*const c_void>, symbol: &str, path: &Path) -> Probe<()> {
    if bound.is_some() && bound == address(opened, symbol) {
        return Ok(());
    }
    Err(Absence {
        what: wanted.what.to_owned(),
        reason: format!("the loader finds another copy of it than `{}`", path.display()),
        looked_for: Vec::new(),
        remedy: "Put the folder of the copy that is meant first in LD_LIBRARY_PATH".to_owned(),
    })
}

fn incomplete(wanted: &Wanted, path: &Path, missing: &[&str]) -> Absence {
    Absence {
        what: wanted.what.to_owned(),
        reason: format!("`{}` lacks `{}`", path.display(), missing.join("`, `")),
        looked_for: Vec::new(),
        remedy: "It is older than what plimsoll needs (CUDA 12.0): update it".to_owned(),
    }
}

/// NVRTC 13 looks its built-in functions up by name only, and not beside itself.
fn open_builtins(nvrtc: &Path) {
    let Some(folder) = nvrtc.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().starts_with("libnvrtc-builtins.so") {
            // SAFETY: as in `open`; a failure shows when the first kernel is compiled.
            if let Ok(builtins) = unsafe { Opened::open(Some(entry.path()), RTLD_NOW | RTLD_GLOBAL) } {
                keep(builtins);
            }
        }
    }
}

/// Keeps a library open for the life of the process, as the bindings rely on.
fn keep(opened: Opened) {
    std::mem::forget(opened);
}
