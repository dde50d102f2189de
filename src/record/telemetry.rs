//! What telemetry saw over the window of a level: plain data, each reading a value or a reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::clocks::{ClockReason, LimitChange, Limits, ReasonShare};
use crate::record::reading::Reading;

/// Telemetry over the window of a level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Telemetry {
    /// There is none, and why.
    Unavailable {
        /// What was looked for and not found, or that no GPU was measured.
        why: String,
    },
    /// GPUs were watched.
    Measured(Box<WindowSummary>),
}

impl Telemetry {
    /// What was seen, where GPUs were watched.
    #[must_use]
    pub fn measured(&self) -> Option<&WindowSummary> {
        match self {
            Self::Measured(summary) => Some(summary),
            Self::Unavailable { .. } => None,
        }
    }
}

/// What was seen over one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WindowSummary {
    /// Each watched GPU, in the order in which they were asked for.
    pub gpus: Vec<GpuWindow>,
    /// This process and its machine.
    pub host: HostWindow,
    /// For how long no reading had come when the window ended, seconds, where that was 2 s or more: a call hangs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale_s: Option<f64>,
    /// Energy for each output token.
    pub energy_per_token: EnergyPerToken,
}

/// Joules of the watched GPUs for each output token that came while they were counted. GPU only: no host, no cooling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnergyPerToken {
    /// All of it.
    pub gross_j: Reading<f64>,
    /// Less what the idle GPUs would have used, where idle was measured.
    pub net_j: Reading<f64>,
}

/// What a GPU used with the model loaded and no request, after it had settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IdlePower {
    /// UUID.
    pub gpu: String,
    /// Mean, watts.
    pub watts: f64,
    /// Seconds it was measured for.
    pub seconds: f64,
}

/// How a reading was distributed over the samples of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Lowest.
    pub min: f64,
    /// 5th percentile.
    pub p05: f64,
    /// Median.
    pub median: f64,
    /// Highest.
    pub max: f64,
}

/// Energy by the GPU's own total counter, between two changes of it inside the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Energy {
    /// Joules between the two changes.
    pub joules: f64,
    /// Seconds between them.
    pub seconds: f64,
    /// When the first was seen, seconds after the window began.
    pub begin_s: f64,
    /// Joules by the trapezoid of the power readings over the same time: a cross-check only.
    pub by_power_j: Reading<f64>,
}

impl Energy {
    /// Mean power by the counter, watts.
    #[must_use]
    pub fn watts(&self) -> f64 {
        self.joules / self.seconds
    }

    /// How far the cross-check is off, as a share of the counter's joules; 0.05 is 5 %.
    #[must_use]
    pub fn disagreement(&self) -> Option<f64> {
        self.by_power_j.get().map(|joules| (joules / self.joules - 1.0).abs())
    }
}

/// Counters of faults since the driver was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultCounters {
    /// Corrected ECC errors.
    pub ecc_corrected: Reading<u64>,
    /// Uncorrected ECC errors.
    pub ecc_uncorrected: Reading<u64>,
    /// Rows remapped for corrected errors.
    pub remapped_corrected: Reading<u64>,
    /// Rows remapped for uncorrected errors.
    pub remapped_uncorrected: Reading<u64>,
    /// Packets that the PCIe link sent again.
    pub pcie_replays: Reading<u64>,
    /// Packets that the NVLinks sent again, all links together.
    pub nvlink_replays: Reading<u64>,
    /// Times that NVLinks had to be brought up again.
    pub nvlink_recoveries: Reading<u64>,
    /// Checksums that were wrong on NVLinks, of control and of data.
    pub nvlink_crc_errors: Reading<u64>,
}

/// Something with a value before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BeforeAfter<T> {
    /// At the end of the level before, or at the first reading since.
    pub before: T,
    /// At the last reading up to the window's end.
    pub after: T,
}

/// A process that computes on the GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuProcess {
    /// As the driver counts, which in a container is the host's.
    pub pid: u32,
    /// Its name, where it can be seen.
    pub name: Reading<String>,
    /// Memory of the GPU that it holds, bytes.
    pub memory_bytes: Reading<u64>,
    /// The MIG GPU instance that it runs on.
    pub gpu_instance: Option<u32>,
}

impl fmt::Display for GpuProcess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.value().map_or(String::new(), |name| format!(" ({name})"));
        let memory = self.memory_bytes.get().map_or(String::new(), |bytes| format!(", {:.1} GiB", bytes as f64 / f64::from(1 << 30)));
        write!(out, "process {}{name}{memory}", self.pid)
    }
}

/// A fault that the driver reported.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Xid {
    /// NVIDIA's number of it.
    pub code: u64,
    /// Seconds after the window began; negative for one of the warm-up.
    pub at_s: f64,
}

/// The link to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// Generation: of a window the highest seen.
    pub generation: Reading<u32>,
    /// The highest that both ends have.
    pub generation_max: Reading<u32>,
    /// Lanes: of a window the most seen.
    pub width: Reading<u32>,
    /// Most lanes that both ends have.
    pub width_max: Reading<u32>,
    /// To the host, bytes/s: of a window the mean of its samples.
    pub sent_bytes_per_s: Reading<f64>,
    /// From the host, bytes/s: of a window the mean of its samples.
    pub received_bytes_per_s: Reading<f64>,
}

/// Counted by the hardware while it worked (Hopper and newer), mean shares of the window, 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Activity {
    /// Of the peak memory bandwidth.
    pub dram: Reading<f64>,
    /// Of the SMs.
    pub sm: Reading<f64>,
    /// Of the tensor cores.
    pub tensor: Reading<f64>,
}

/// One GPU over a window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuWindow {
    /// Of the GPU, or of the MIG instance that is watched.
    pub uuid: String,
    /// As a person names it.
    pub name: String,
    /// Share of the window that samples of every reading it has cover, 0..=1.
    pub coverage: f64,
    /// Longest time without one, seconds.
    pub longest_gap_s: f64,
    /// Samples in the window.
    pub samples: u64,
    /// Power as the driver averages it, watts.
    pub power_w: Reading<Spread>,
    /// Mean of the same.
    pub power_mean_w: Reading<f64>,
    /// Power at an instant, watts: for its shape, never for energy.
    pub power_instant_w: Reading<Spread>,
    /// Energy.
    pub energy: Reading<Energy>,
    /// SM clock, MHz.
    pub sm_clock_mhz: Reading<Spread>,
    /// SM clock over the samples in which neither the power cap nor idling explains a lower one, MHz.
    pub sm_clock_unexcused_mhz: Reading<Spread>,
    /// Highest SM clock that the GPU has, MHz.
    pub sm_clock_max_mhz: Reading<u32>,
    /// Memory clock, MHz.
    pub memory_clock_mhz: Reading<Spread>,
    /// Why clocks were not at their highest; only those that held at some time.
    pub clock_reasons: Reading<Vec<ReasonShare>>,
    /// Highest temperature of the chip, degrees Celsius.
    pub temperature_max_c: Reading<u32>,
    /// Highest temperature of the memory, degrees Celsius.
    pub memory_temperature_max_c: Reading<u32>,
    /// Mean share of the time in which some kernel ran, 0..=1: not how busy it was.
    pub busy: Reading<f64>,
    /// Most memory in use, bytes.
    pub memory_used_bytes: Reading<u64>,
    /// What the hardware counted.
    pub activity: Activity,
    /// What an operator may have set.
    pub limits: BeforeAfter<Limits>,
    /// Every change of them since the level before.
    pub limit_changes: Vec<LimitChange>,
    /// Counters of faults.
    pub faults: BeforeAfter<FaultCounters>,
    /// The link to the host.
    pub link: Link,
    /// NVLinks that were up, the fewest seen.
    pub nvlinks_up: Reading<u32>,
    /// Every process that was seen on it.
    pub processes: Reading<Vec<GpuProcess>>,
    /// Faults that the driver reported since the level before.
    pub xids: Vec<Xid>,
    /// Whether the GPU no longer answers.
    pub lost: bool,
}

impl GpuWindow {
    /// Share of the window that a reason held, 0..=1.
    #[must_use]
    pub fn share_of(&self, reason: ClockReason) -> Option<f64> {
        let reasons = self.clock_reasons.value()?;
        Some(reasons.iter().find(|held| held.reason == reason).map_or(0.0, |held| held.share))
    }
}

/// This process and its machine over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostWindow {
    /// Cores that this process kept busy, on average.
    pub own_cores: Reading<f64>,
    /// Share of the time in which something waited for a core, 0..=1.
    pub cpu_pressure: Reading<f64>,
    /// Share of the time in which something waited for memory, 0..=1.
    pub memory_pressure: Reading<f64>,
    /// Share of the machine's time that its hypervisor gave to others, 0..=1.
    pub stolen: Reading<f64>,
    /// Time for which the control group's CPU quota held this process back, seconds.
    pub throttled_s: Reading<f64>,
}
