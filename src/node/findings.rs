//! What a reader of any result from this node should know of its GPUs.

use crate::record::finding::{Finding, Severity};
use crate::record::gpu::GpuRecord;
use crate::record::node::{GpuTelemetry, NodeRecord};

/// How far under its default a power limit is one that somebody set, as a share.
const LOWERED: f64 = 0.99;

/// Findings about the GPUs, and about telemetry that is not there.
#[must_use]
pub fn of(telemetry: &GpuTelemetry) -> Vec<Finding> {
    match telemetry {
        GpuTelemetry::Unavailable { why } => vec![Finding::new(
            "telemetry_unavailable",
            Severity::Note,
            format!("no GPU telemetry: {why}"),
            "nothing to do on a node without a GPU; on one with a GPU install its driver",
        )],
        GpuTelemetry::Available(inventory) => inventory.gpus.iter().flat_map(of_gpu).collect(),
    }
}

/// A finding where `threads` are kept busy at once and this process may use fewer cores: by its affinity, or by the quota of its control
/// group, which takes all of them away for the rest of a period once it is spent.
#[must_use]
pub fn of_cores(node: &NodeRecord, threads: u32) -> Option<Finding> {
    let allowed = node.cpu_quota_cores.map_or(f64::from(node.cores), |quota| quota.min(f64::from(node.cores)));
    if allowed >= f64::from(threads) {
        return None;
    }
    let quota = node.cpu_quota_cores.map_or_else(|| "no CPU quota".to_owned(), |quota| format!("a CPU quota of {quota} cores"));
    Some(Finding::new(
        "cpu_quota",
        Severity::Warning,
        format!("{threads} threads are kept busy (generator and engines), with {quota} and {} cores by affinity", node.cores),
        "give the container or job more cores; where the generator came late by it, its levels are INVALID for that",
    ))
}

/// Findings of GPUs that hang on a NUMA node none of whose cores this process may run on: of those whose UUIDs `used` has.
#[must_use]
pub fn of_distance(node: &NodeRecord, used: impl Fn(&str) -> bool) -> Vec<Finding> {
    let own = node.numa_nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let is_remote = |gpu: &&GpuRecord| !own.is_empty() && gpu.numa_node.get().is_some_and(|place| !node.numa_nodes.contains(&place));
    let remote = node.telemetry.gpus().iter().filter(|gpu| used(&gpu.uuid)).filter(is_remote);
    let finding = |gpu: &GpuRecord| {
        let (index, name, place) = (gpu.index, &gpu.name, &gpu.numa_node);
        Finding::new(
            "numa_remote",
            Severity::Note,
            format!("GPU {index} ({name}) hangs on NUMA node {place}, and this process may run on the cores of node {own} only"),
            format!("start it on the GPU's node, such as `numactl --cpunodebind={place} plimsoll ...`: launches and copies cross sockets"),
        )
    };
    remote.map(finding).collect()
}

fn of_gpu(gpu: &GpuRecord) -> Vec<Finding> {
    let (index, name) = (gpu.index, &gpu.name);
    let mut findings = Vec::new();
    if gpu.persistence.get() == Some(false) {
        findings.push(Finding::new(
            "persistence_off",
            Severity::Note,
            format!("persistence mode of GPU {index} ({name}) is off: the driver starts it anew for each first user, which costs seconds outside any window"),
            "turn it on with `nvidia-smi -pm 1` or the service nvidia-persistenced",
        ));
    }
    if gpu.mig.get() == Some(true) {
        let instances = gpu.instances.iter().map(|instance| format!("{} ({})", instance.name, instance.uuid)).collect::<Vec<_>>();
        findings.push(Finding::new(
            "mig",
            Severity::Warning,
            format!("GPU {index} ({name}) is cut into {} instances: {}", instances.len(), instances.join(", ")),
            "read every number as one of an instance; never compare it with a whole GPU, or divide it by GPUs",
        ));
    }
    if let (Some(limit), Some(default)) = (gpu.limits.power_w.get(), gpu.power_default_w.get())
        && limit < LOWERED * default
    {
        findings.push(Finding::new(
            "power_limit_lowered",
            Severity::Note,
            format!("the power limit of GPU {index} ({name}) is {limit:.0} W; it comes with {default:.0} W"),
            "compare with runs at the same limit only",
        ));
    }
    findings
}
