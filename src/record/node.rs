//! The machine a run was made on.

use serde::{Deserialize, Serialize};

use crate::record::gpu::{GpuInventory, GpuRecord};

/// What the node's driver says of its GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum GpuTelemetry {
    /// Nothing, and why.
    Unavailable {
        /// What was looked for and not found, or what failed.
        why: String,
    },
    /// These GPUs.
    Available(GpuInventory),
}

impl GpuTelemetry {
    /// The GPUs that there are; none where the driver says nothing.
    #[must_use]
    pub fn gpus(&self) -> &[GpuRecord] {
        match self {
            Self::Available(inventory) => &inventory.gpus,
            Self::Unavailable { .. } => &[],
        }
    }
}

/// The fingerprint of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Host name.
    pub hostname: String,
    /// Operating system, as its release file names it.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu_model: String,
    /// Logical cores this process may use.
    pub cores: u32,
    /// CPU quota of the control group, in cores, where there is one.
    pub cpu_quota_cores: Option<f64>,
    /// Memory this process may use (control group limit included), bytes.
    pub memory_bytes: u64,
    /// Instruction sets that matter to the CPU device, such as `avx512f`.
    pub cpu_features: Vec<String>,
    /// NUMA nodes of the cores that this process may run on; empty where the kernel does not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numa_nodes: Vec<u32>,
    /// Programs that may hold the GPUs' hardware counters and ran when this was written, as far as this process sees others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profilers: Vec<String>,
    /// GPU telemetry.
    pub telemetry: GpuTelemetry,
}

impl NodeRecord {
    /// Cores that this process can keep busy: those it may run on, within the quota of its control group; 1 or more.
    #[must_use]
    pub fn busy_cores(&self) -> u32 {
        let quota = self.cpu_quota_cores.map_or(u32::MAX, |cores| cores.ceil() as u32);
        self.cores.min(quota).max(1)
    }
}
