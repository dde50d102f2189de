//! Rates: what users see, what the engine is asked, what one GPU sustains.

use std::ops::{Div, Mul};

use serde::Serialize;

use crate::units::gpus::Gpus;
use crate::units::{NotAQuantity, within};

/// Rates below one in eleven days or above a thousand million a second are typing errors.
const SMALLEST_RATE: f64 = 1e-6;
const LARGEST_RATE: f64 = 1e9;

/// Visible requests per second: what users ask for, before retries, chains and agents multiply it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct VisibleRate(f64);

impl VisibleRate {
    /// From visible requests per second, 1e-6 to 1e9.
    ///
    /// # Errors
    /// When it is no such rate.
    pub fn new(per_second: f64) -> Result<Self, NotAQuantity> {
        within("a rate of visible requests per second", per_second, SMALLEST_RATE, LARGEST_RATE).map(Self)
    }

    /// Visible requests per second.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Inference calls per second, retries and hidden calls included. Only a recompute multiplier leads here.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CallRate(f64);

impl CallRate {
    /// Inference calls per second.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

/// Inference calls per second that one GPU sustains: `throughput_per_gpu`.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct CallRatePerGpu(f64);

impl CallRatePerGpu {
    /// From inference calls per second per GPU, 1e-6 to 1e9.
    ///
    /// # Errors
    /// When it is no such rate.
    pub fn new(per_second: f64) -> Result<Self, NotAQuantity> {
        within("a rate of inference calls per second per GPU", per_second, SMALLEST_RATE, LARGEST_RATE).map(Self)
    }

    /// Inference calls per second per GPU.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// The same for calls that cost more: `share` in (0, 1], or above 1 for calls that cost less.
    #[must_use]
    pub(crate) fn times(self, share: f64) -> Self {
        Self(self.0 * share)
    }

    /// A tenth more.
    #[must_use]
    pub fn and_a_tenth(self) -> Self {
        Self(self.0 * 1.1)
    }
}

/// Inference calls per successful output: the hidden work factor. Below 1 only where answers are cached.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct RecomputeMultiplier(f64);

impl RecomputeMultiplier {
    /// Each visible request is one call: an assumption, hardly ever a measurement.
    pub const ONE: Self = Self(1.0);

    /// From calls per successful output, 0.001 to 1000.
    ///
    /// # Errors
    /// When it is no such multiplier.
    pub fn new(calls_per_output: f64) -> Result<Self, NotAQuantity> {
        within("a recompute multiplier", calls_per_output, 1e-3, 1e3).map(Self)
    }

    /// Calls per successful output.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// A tenth more.
    #[must_use]
    pub fn and_a_tenth(self) -> Self {
        Self(self.0 * 1.1)
    }
}

/// How many times the average visible rate a scenario brings.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct LoadMultiplier(f64);

impl LoadMultiplier {
    /// A tenth more than it was.
    pub const AND_A_TENTH: Self = Self(1.1);

    /// From a multiple of the average, 0.001 to 1000.
    ///
    /// # Errors
    /// When it is no such multiple.
    pub fn new(times_average: f64) -> Result<Self, NotAQuantity> {
        within("a multiple of the average load", times_average, 1e-3, 1e3).map(Self)
    }

    /// A multiple known when this was written.
    pub(crate) const fn times(average: u16) -> Self {
        assert!(average > 0, "no load is no scenario");
        Self(average as f64)
    }

    /// Times the average.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Mul<LoadMultiplier> for VisibleRate {
    type Output = Self;
    fn mul(self, times: LoadMultiplier) -> Self {
        Self(self.0 * times.0)
    }
}

impl Mul<RecomputeMultiplier> for VisibleRate {
    type Output = CallRate;
    fn mul(self, calls_per_output: RecomputeMultiplier) -> CallRate {
        CallRate(self.0 * calls_per_output.0)
    }
}

impl Div<CallRatePerGpu> for CallRate {
    type Output = Gpus;
    fn div(self, one_gpu: CallRatePerGpu) -> Gpus {
        Gpus::from_quotient(self.0 / one_gpu.0)
    }
}
