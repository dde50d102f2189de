//! The capacity formula, word for word:
//!
//! ```text
//! required_capacity =
//!   (peak_requests_per_second × recompute_multiplier)
//!   / throughput_per_gpu
//!   × (1 + headroom_buffer)
//! ```
//!
//! - `peak_requests_per_second` = your 99th percentile or planned peak
//! - `recompute_multiplier` = hidden work factor
//! - `throughput_per_gpu` = benchmarked for your model/hardware
//! - `headroom_buffer` = typically 20-30%
//!
//! Each input is a type whose constructor refuses nonsense, so the formula cannot fail. It does not round: whole GPUs
//! and whole replicas are separate acts of [`Gpus`].

use crate::units::gpus::Gpus;
use crate::units::rate::{CallRatePerGpu, RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// GPUs, fractional, that carry a peak of visible requests.
///
/// ```
/// use std::num::NonZeroU32;
/// use plimsoll::capacity::formula::required_capacity;
/// use plimsoll::units::rate::{CallRatePerGpu, RecomputeMultiplier, VisibleRate};
/// use plimsoll::units::share::Headroom;
///
/// let peak = VisibleRate::new(100.0)?;
/// let recompute = RecomputeMultiplier::new(1.3)?;
/// let throughput_per_gpu = CallRatePerGpu::new(8.0)?;
/// let gpus = required_capacity(peak, recompute, throughput_per_gpu, Headroom::new(0.25)?);
/// assert_eq!(gpus.get(), 20.3125);
/// assert_eq!(gpus.whole_gpus(), 21);
/// assert_eq!(gpus.in_groups_of(NonZeroU32::new(4).unwrap()).gpus, 24);
/// # Ok::<(), plimsoll::units::NotAQuantity>(())
/// ```
///
/// Forgetting the recompute multiplier does not compile: visible requests cannot be divided by calls per GPU.
///
/// ```compile_fail,E0369
/// use plimsoll::units::rate::{CallRatePerGpu, VisibleRate};
///
/// let peak = VisibleRate::new(100.0)?;
/// let throughput_per_gpu = CallRatePerGpu::new(8.0)?;
/// let gpus = peak / throughput_per_gpu;
/// # Ok::<(), plimsoll::units::NotAQuantity>(())
/// ```
#[must_use]
pub fn required_capacity(
    peak: VisibleRate,
    recompute: RecomputeMultiplier,
    throughput_per_gpu: CallRatePerGpu,
    headroom: Headroom,
) -> Gpus {
    (peak * recompute / throughput_per_gpu).with_headroom(headroom)
}
