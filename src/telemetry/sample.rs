//! One look at a GPU: what a source reads at once.

use serde::{Deserialize, Serialize};

use crate::record::clocks::Limits;
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::{Activity, FaultCounters, GpuProcess, Link};

/// What changes within a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fast {
    /// Power as the driver averages it, watts.
    pub power_w: Reading<f64>,
    /// Power at an instant, watts.
    pub power_instant_w: Reading<f64>,
    /// SM clock, MHz.
    pub sm_clock_mhz: Reading<u32>,
    /// Memory clock, MHz.
    pub memory_clock_mhz: Reading<u32>,
    /// Why clocks are not at their highest: a bit each, as [`crate::record::clocks::ClockReason`] names them.
    pub reasons: Reading<u64>,
    /// Temperature of the chip, degrees Celsius.
    pub temperature_c: Reading<u32>,
    /// Temperature of the memory, degrees Celsius.
    pub memory_temperature_c: Reading<u32>,
    /// Share of the driver's own last sampling period in which some kernel ran, 0..=1.
    pub busy: Reading<f64>,
    /// Memory in use, bytes.
    pub memory_used_bytes: Reading<u64>,
}

impl Fast {
    /// Nothing, for one reason.
    #[must_use]
    pub fn none(missing: Missing) -> Self {
        Self {
            power_w: Reading::none(missing),
            power_instant_w: Reading::none(missing),
            sm_clock_mhz: Reading::none(missing),
            memory_clock_mhz: Reading::none(missing),
            reasons: Reading::none(missing),
            temperature_c: Reading::none(missing),
            memory_temperature_c: Reading::none(missing),
            busy: Reading::none(missing),
            memory_used_bytes: Reading::none(missing),
        }
    }

    /// Whether a reading says that the GPU no longer answers.
    #[must_use]
    pub fn says_lost(&self) -> bool {
        let words = [self.power_w.map(|_| ()), self.sm_clock_mhz.map(|_| ()), self.memory_used_bytes.map(|_| ())];
        words.contains(&Reading::none(Missing::GpuLost))
    }
}

/// What changes seldom, or takes long to read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Slow {
    /// What an operator may have set.
    pub limits: Limits,
    /// Counters of faults.
    pub faults: FaultCounters,
    /// The link to the host.
    pub link: Link,
    /// NVLinks that are up.
    pub nvlinks_up: Reading<u32>,
    /// Processes that compute on it.
    pub processes: Reading<Vec<GpuProcess>>,
    /// What the hardware counted since the look before.
    pub activity: Activity,
}

/// A fault that the driver reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct XidEvent {
    /// Place among the watched GPUs.
    pub gpu: usize,
    /// NVIDIA's number of it.
    pub code: u64,
}
