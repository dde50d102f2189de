//! What `bench` measures where nothing was asked for: a model that this node runs in reasonable time, on the device it has.
//!
//! `plimsoll node` shows the choice, `bench` makes it.

use serde::Serialize;

use crate::record::node::NodeRecord;

/// Preset that is measured on a CPU.
pub const MODEL: &str = "llama-124m";
/// Preset that `--quick` measures on a CPU.
pub const QUICK_MODEL: &str = "llama-5m";

/// Preset that is measured on a GPU with [`LARGE_GPU`] bytes or more, and on a smaller one or by `--quick`.
pub const GPU_MODEL: &str = "llama-3.1-8b";
/// See [`GPU_MODEL`].
pub const SMALL_GPU_MODEL: &str = "llama-3.2-1b";
/// Memory from which a GPU has room for the larger model and a cache that does not bound it.
pub const LARGE_GPU: u64 = 40_000_000_000;

/// A node's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defaults {
    /// `cuda:0` or `cpu`.
    pub device: &'static str,
    /// Threads of the CPU device: one core is left to the generator where there are two or more.
    pub threads: u32,
    /// Preset that is measured.
    pub model: &'static str,
    /// Preset that `--quick` measures.
    pub quick_model: &'static str,
}

/// What fits `node` and the GPU of `gpu_bytes` that would be used; `None` where there is none.
#[must_use]
pub fn of(node: &NodeRecord, gpu_bytes: Option<u64>) -> Defaults {
    let threads = node.busy_cores().saturating_sub(1).max(1);
    match gpu_bytes {
        None => Defaults { device: "cpu", threads, model: MODEL, quick_model: QUICK_MODEL },
        Some(bytes) => {
            let model = if bytes >= LARGE_GPU { GPU_MODEL } else { SMALL_GPU_MODEL };
            Defaults { device: "cuda:0", threads, model, quick_model: SMALL_GPU_MODEL }
        }
    }
}
