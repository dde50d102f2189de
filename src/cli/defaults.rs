//! What `bench` measures where nothing was asked for: a model that this node runs in reasonable time, on the device it has.
//!
//! `plimsoll node` shows the choice, `bench` makes it.

use serde::Serialize;

use crate::record::node::NodeRecord;

/// Preset that is measured on a CPU.
pub const MODEL: &str = "llama-124m";
/// Preset that `--quick` measures on a CPU.
pub const QUICK_MODEL: &str = "llama-5m";

/// A node's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defaults {
    /// `cpu`: the one device there is so far.
    pub device: &'static str,
    /// Threads of the CPU device: one core is left to the generator where there are two or more.
    pub threads: u32,
    /// Preset that is measured.
    pub model: &'static str,
    /// Preset that `--quick` measures.
    pub quick_model: &'static str,
}

/// What fits `node`.
#[must_use]
pub fn of(node: &NodeRecord) -> Defaults {
    Defaults { device: "cpu", threads: node.busy_cores().saturating_sub(1).max(1), model: MODEL, quick_model: QUICK_MODEL }
}
