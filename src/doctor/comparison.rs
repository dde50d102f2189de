//! Two devices, one case: how far their answers lie apart, and how far they may.
//!
//! Both get the same numbers, which the element type holds exactly, so that what is left is the rounding of results.

use std::num::NonZeroUsize;

use crate::device::Ops;
use crate::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::device::step::StepLimits;
use crate::doctor::cases::Case;
use crate::node::processor::usable_cores;

/// What steps of the cases hold at most.
pub const LIMITS: StepLimits = StepLimits { max_tokens: 4096, max_sequences: 256, max_block_table_entries: 65_536 };

/// How far two answers lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deviation {
    /// Largest difference, as a share of the largest number of the reference; infinite where lengths differ or a number is none.
    pub most: f64,
    /// What it may be; 0 where answers must be equal.
    pub allowed: f64,
}

impl Deviation {
    /// Whether the answers agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.most <= self.allowed
    }
}

/// The answer of the CPU device in f32, which is the specification.
///
/// # Errors
/// Out of memory.
pub fn specification(case: &Case, element: Element) -> Result<Vec<f32>, DeviceError> {
    let threads = NonZeroUsize::new(usable_cores() as usize).unwrap_or(NonZeroUsize::MIN);
    let mut cpu = CpuDevice::open(CpuSpec::new(threads, Arithmetic::F32))?;
    case.compute(&mut cpu, element)
}

/// Computes `case` on `device`, which was prepared with [`LIMITS`], and compares.
///
/// # Errors
/// The device's own failure.
pub fn compare<D: Ops>(case: &Case, device: &mut D, element: Element, wanted: &[f32]) -> Result<Deviation, DeviceError> {
    let ours = case.compute(device, element)?;
    Ok(Deviation { most: distance(&ours, wanted), allowed: case.allowed(element) })
}

/// Largest difference as a share of the largest wanted number.
fn distance(ours: &[f32], wanted: &[f32]) -> f64 {
    if ours.len() != wanted.len() {
        return f64::INFINITY;
    }
    let scale = wanted.iter().fold(1e-3_f32, |most, value| most.max(value.abs()));
    let difference = |(ours, wanted): (&f32, &f32)| {
        let difference = f64::from((ours - wanted).abs() / scale);
        if difference.is_nan() { f64::INFINITY } else { difference }
    };
    ours.iter().zip(wanted).map(difference).fold(0.0, f64::max)
}
