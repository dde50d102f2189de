//! The machine a run was made on.

use serde::{Deserialize, Serialize};

/// A reading is a value or a reason: never a zero or a sentinel that stands for "unknown".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Telemetry {
    /// There is none, and why.
    Unavailable {
        /// What was looked for and not found.
        why: String,
    },
}

/// The fingerprint of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub cpu_quota_cores: Option<String>,
    /// Memory this process may use (control group limit included), bytes.
    pub memory_bytes: u64,
    /// Instruction sets that matter to the CPU device, such as `avx512f`.
    pub cpu_features: Vec<String>,
    /// GPU telemetry.
    pub telemetry: Telemetry,
}
