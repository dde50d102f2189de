//! What a reader of any result from this node should know of its GPUs.

use crate::record::finding::{Finding, Severity};
use crate::record::gpu::GpuRecord;
use crate::record::node::GpuTelemetry;

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
