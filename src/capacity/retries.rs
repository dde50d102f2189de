//! What clients that try again do to a fleet that is too small: they offer it more than the traffic there is.
//!
//! Where a share `p` of tries fails and each call is tried up to `m` times, a call is tried `(1 - p^m) / (1 - p)` times. In overload `p` itself
//! follows from the load: `p = max(0, 1 - C / (lambda (1 - p^m) / (1 - p)))`. Refusals are taken to cost the fleet nothing, which is the best case.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::units::rate::{CallRate, CallRatePerGpu};

/// Tries of a call, the first included, where nobody says otherwise.
pub const USUAL_ATTEMPTS: NonZeroU32 = NonZeroU32::new(4).expect("4 is not 0");
/// Halvings of an interval of length 1: far below any rate that is printed.
const HALVINGS: u32 = 60;

/// A fleet in overload, with clients that try again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overload {
    /// Share of tries that fail, 0..=1.
    pub failing: f64,
    /// Tries/s that reach the fleet.
    pub offered: f64,
    /// Tries per call.
    pub amplification: f64,
    /// Share of calls that are never answered, 0..=1.
    pub lost: f64,
}

impl Overload {
    /// Calls at this rate to a fleet that serves `capacity` calls/s, each tried up to `attempts` times.
    #[must_use]
    pub fn steady(calls: f64, capacity: f64, attempts: NonZeroU32) -> Self {
        let tries = |failing: f64| (0..attempts.get()).map(|tried| failing.powi(tried as i32)).sum::<f64>();
        // What fails more is tried more: one crossing, found by halving.
        let (mut low, mut high) = (0.0_f64, 1.0_f64);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            if 1.0 - capacity / (calls * tries(middle)) > middle { low = middle } else { high = middle }
        }
        let failing = if calls <= capacity { 0.0 } else { low };
        let amplification = tries(failing);
        Self { failing, offered: calls * amplification, amplification, lost: failing.powi(attempts.get() as i32) }
    }

    /// Calls at this rate to `gpus` GPUs.
    #[must_use]
    pub fn of(calls: CallRate, gpus: u64, throughput: CallRatePerGpu, attempts: NonZeroU32) -> Self {
        Self::steady(calls.get(), throughput.get() * gpus as f64, attempts)
    }
}
