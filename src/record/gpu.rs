//! What GPUs a node has: the part of its fingerprint that the driver tells.

use serde::{Deserialize, Serialize};

use crate::record::clocks::Limits;
use crate::record::reading::Reading;

/// GPUs and the software that drives them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuInventory {
    /// Versions.
    pub software: GpuSoftware,
    /// In the driver's order, which is that of their places on the bus.
    pub gpus: Vec<GpuRecord>,
}

/// Versions of the driver and its libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuSoftware {
    /// Of the driver.
    pub driver: Reading<String>,
    /// Of NVML.
    pub nvml: Reading<String>,
    /// The latest CUDA that the driver runs, such as `12.8`.
    pub cuda: Reading<String>,
    /// Where NVML was found.
    pub library: String,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuRecord {
    /// Position in the driver's order; no name of a GPU: use `uuid`.
    pub index: u32,
    /// As NVIDIA calls it.
    pub name: String,
    /// `GPU-...`, the same on every boot.
    pub uuid: String,
    /// `00000000:1B:00.0`.
    pub pci_bus_id: String,
    /// Version of its firmware.
    pub vbios: Reading<String>,
    /// Compute capability, such as `9.0`.
    pub compute_capability: Reading<String>,
    /// Memory, bytes.
    pub memory_bytes: Reading<u64>,
    /// Highest clock of the SMs, MHz.
    pub sm_clock_max_mhz: Reading<u32>,
    /// Highest clock of the memory, MHz.
    pub memory_clock_max_mhz: Reading<u32>,
    /// What an operator may have set, as it was when the node was described.
    pub limits: Limits,
    /// Power limit that it is delivered with, watts.
    pub power_default_w: Reading<f64>,
    /// Lowest and highest power limit that can be set, watts.
    pub power_range_w: Reading<(f64, f64)>,
    /// Whether errors of its memory are corrected.
    pub ecc: Reading<bool>,
    /// Whether it is cut into instances.
    pub mig: Reading<bool>,
    /// Its instances.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<MigInstance>,
    /// Whether the driver keeps it initialised while nobody uses it.
    pub persistence: Reading<bool>,
    /// PCIe generation: now, which is lower when idle, and the highest.
    pub pcie_generation: Reading<(u32, u32)>,
    /// PCIe lanes: now and the most.
    pub pcie_width: Reading<(u32, u32)>,
    /// NVLinks: those that are up, and those that it has.
    pub nvlinks: Reading<(u32, u32)>,
    /// NUMA node that it hangs on.
    pub numa_node: Reading<u32>,
}

/// A part of a GPU that behaves as a GPU of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MigInstance {
    /// `MIG-...`.
    pub uuid: String,
    /// With its profile, such as `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
    pub name: String,
    /// Number of its GPU instance.
    pub gpu_instance: Reading<u32>,
    /// Number of its compute instance.
    pub compute_instance: Reading<u32>,
    /// Memory, bytes.
    pub memory_bytes: Reading<u64>,
}
