//! Whether this machine can be measured, and whether its GPU computes what the CPU device does: checks with a next step each.
//!
//! The CPU device is the specification. Nothing is timed or judged here, and nothing is written; a check that cannot run says so
//! and is no failure.

pub mod cases;
pub mod comparison;
mod gpu;
mod growth;
mod machine;
mod telemetry;
mod whole;

use std::path::PathBuf;

use crate::device::cuda::gpu::CudaSpec;
use crate::nvidia::Libraries;
use crate::record::diagnosis::{Check, Diagnosis};
use crate::telemetry::nvml::Library;

/// What is examined.
#[derive(Debug)]
pub struct Examination<'a> {
    /// What was found of NVIDIA's.
    pub libraries: &'a Libraries,
    /// NVML, opened; or why there are no readings.
    pub telemetry: Result<&'a Library, String>,
    /// Which GPU, and where its compiled kernels are kept.
    pub spec: CudaSpec,
    /// `CUDA_VISIBLE_DEVICES`, where it is set.
    pub visible_devices: Option<String>,
    /// Folders that must be writable, with what they are for.
    pub folders: Vec<(&'static str, PathBuf)>,
    /// Small shapes only.
    pub small: bool,
}

/// What hears of each check as it is done.
pub type Told<'a> = &'a mut dyn FnMut(&Check);

impl Examination<'_> {
    /// Runs every check.
    pub fn run(&self, told: Told<'_>) -> Diagnosis {
        let mut diagnosis = Diagnosis::default();
        let mut keep = |check: Check| {
            told(&check);
            diagnosis.checks.push(check);
        };
        machine::libraries(self, &mut keep);
        machine::gpus(self, &mut keep);
        machine::permissions(self, &mut keep);
        telemetry::examine(self, &mut keep);
        gpu::examine(self, &mut keep);
        diagnosis
    }

    /// Whether there is a GPU to compute on.
    fn has_gpu(&self) -> bool {
        self.libraries.driver.as_ref().is_ok_and(|driver| driver.gpus.iter().any(|gpu| gpu.ordinal == self.spec.ordinal))
    }
}
