//! The only first contact with NVIDIA's libraries: which are there, where, in which version, and what is missing.
//!
//! Libraries are opened at run time, so that the same program starts on a machine that has none of them; absence is
//! a value with a reason and a remedy. The bindings (`cudarc`) panic where a library or one symbol is missing:
//! nobody calls them who does not hold what [`probe`] found. Nothing is computed or measured here.

pub mod gpus;
pub mod library;
pub mod search;
pub mod symbols;

use std::fmt;
use std::sync::OnceLock;

use crate::nvidia::gpus::Gpu;
use crate::nvidia::library::Library;
use crate::nvidia::search::Search;

/// Something of NVIDIA's that is needed and not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Absence {
    /// What: `the CUDA driver`.
    pub what: String,
    /// Why it cannot be used.
    pub reason: String,
    /// Places that were looked in, in order.
    pub looked_for: Vec<String>,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Absence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} cannot be used: {}", self.what, self.reason)?;
        if !self.looked_for.is_empty() {
            write!(out, " (looked in {})", self.looked_for.join(", "))?;
        }
        write!(out, ". {}", self.remedy)
    }
}

/// Presence with its facts, or absence with its reason.
pub type Probe<T> = Result<T, Absence>;

/// A CUDA driver that answers.
#[derive(Clone, Debug)]
pub struct Driver {
    /// The library.
    pub library: Library,
    /// Highest CUDA version it supports, such as `12.8`.
    pub cuda_version: String,
    /// The GPUs this process may use, by ordinal; one or more.
    pub gpus: Vec<Gpu>,
}

/// Everything of NVIDIA's that this program can use.
#[derive(Clone, Debug)]
pub struct Libraries {
    /// libcuda: without it no GPU computes.
    pub driver: Probe<Driver>,
    /// NVRTC, which compiles kernels for the GPU at hand.
    pub nvrtc: Probe<Library>,
    /// cuBLASLt, for large matrix products; own kernels do without.
    pub cublaslt: Probe<Library>,
    /// NVML, for telemetry.
    pub nvml: Probe<Library>,
}

/// Looks for the libraries, opens them and asks who they are. The first call decides for the whole process, because
/// an opened library stays; later calls return what it found.
pub fn probe(search: &Search) -> &'static Libraries {
    static FOUND: OnceLock<Libraries> = OnceLock::new();
    FOUND.get_or_init(|| Libraries {
        driver: library::driver(search).and_then(gpus::enumerate),
        nvrtc: library::nvrtc(search),
        cublaslt: library::cublaslt(search),
        nvml: library::nvml(search),
    })
}
