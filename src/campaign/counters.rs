//! Whether somebody else's profiler kept the GPUs' hardware counters from a run: then activity is absent, never guessed.

use crate::record::finding::{Finding, Severity};
use crate::record::reading::{Missing, Reading};
use crate::record::run::RunRecord;

/// A finding where a level lacks activity because somebody holds the counters: where the driver says so, or where it gives no other
/// explanation and a profiler runs on the node.
#[must_use]
pub fn conflict(run: &RunRecord) -> Option<Finding> {
    let profilers = run.node.profilers.join(", ");
    let held = |missing: Missing| match missing {
        Missing::InUse => true,
        Missing::Failed | Missing::NoPermission => !profilers.is_empty(),
        _ => false,
    };
    let without = run.levels.iter().filter_map(|level| {
        let refused = level.telemetry.measured()?.gpus.iter().find_map(|gpu| match gpu.activity.dram {
            Reading::Missing { missing } if held(missing) => Some((&gpu.uuid, missing)),
            _ => None,
        })?;
        Some(refused)
    });
    let (levels, first) = without.fold((0, None), |(levels, first), refused| (levels + 1, first.or(Some(refused))));
    let (uuid, missing) = first?;
    let seen = if profilers.is_empty() { "no profiler is visible from here".to_owned() } else { format!("on this node runs {profilers}") };
    Some(Finding::new(
        "profiling_conflict",
        Severity::Warning,
        format!("the driver gave no hardware counters of {uuid} in {levels} levels ({missing}), so that their activity is absent; {seen}"),
        "stop what profiles the GPU (DCGM's can be paused: `dcgmi profile --pause`), or do without activity: nothing else is touched",
    ))
}
