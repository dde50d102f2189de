//! What machine this is: the fingerprint that every run carries.
//!
//! It reads what the kernel and the GPUs' driver say and interprets control-group limits; it measures nothing.
//! What cannot be read is said to be unknown, never guessed.

mod command;
pub mod cores;
pub mod findings;
pub mod listener;
pub mod processor;
pub mod surroundings;
pub mod telemetry;

use std::fs;
use std::path::Path;

use crate::device::control_group;
use crate::record::node::{GpuTelemetry, NodeRecord};
use crate::record::reading::Missing;

/// What stands where the system does not say.
const UNKNOWN: &str = "unknown";

/// The node this process runs on, with what its driver says of its GPUs.
#[must_use]
pub fn describe(gpus: GpuTelemetry) -> NodeRecord {
    describe_under(Path::new("/"), gpus)
}

/// Cores that this process can keep busy; 1 or more.
#[must_use]
pub fn busy_cores() -> u32 {
    describe(GpuTelemetry::Unavailable { why: "not asked".to_owned() }).busy_cores()
}

/// As [`describe`], with the system's files under another root: tests bring their own.
#[must_use]
pub fn describe_under(root: &Path, mut gpus: GpuTelemetry) -> NodeRecord {
    if let GpuTelemetry::Available(inventory) = &mut gpus {
        for gpu in &mut inventory.gpus {
            gpu.numa_node = numa_node(root, &gpu.pci_bus_id).ok_or(Missing::NotSupported).into();
        }
    }
    let uname = rustix::system::uname();
    let cpuinfo = read(root, "proc/cpuinfo").unwrap_or_default();
    let limits = control_group::limits_under(root);
    let installed = read(root, "proc/meminfo").and_then(|meminfo| installed_bytes(&meminfo));
    let memory_bytes = [installed, limits.memory_bytes].into_iter().flatten().min().unwrap_or(0);
    NodeRecord {
        hostname: uname.nodename().to_string_lossy().into_owned(),
        os: os_name(root),
        kernel: uname.release().to_string_lossy().into_owned(),
        cpu_model: processor::model(&cpuinfo).unwrap_or(UNKNOWN).to_owned(),
        cores: processor::usable_cores(),
        cpu_quota_cores: limits.cpu_cores.map(|cores| (cores * 100.0).round() / 100.0),
        memory_bytes,
        cpu_features: processor::features(&cpuinfo),
        numa_nodes: surroundings::numa_nodes(root),
        profilers: surroundings::profilers(root),
        telemetry: gpus,
    }
}

/// NUMA node of a device on the bus; NVML writes the domain in eight digits, the kernel in four. -1 stands for "none" there.
fn numa_node(root: &Path, pci_bus_id: &str) -> Option<u32> {
    let (domain, place) = pci_bus_id.split_once(':')?;
    let domain = domain.get(domain.len().saturating_sub(4)..)?;
    let path = format!("sys/bus/pci/devices/{domain}:{place}/numa_node").to_ascii_lowercase();
    read(root, &path)?.trim().parse().ok()
}

fn os_name(root: &Path) -> String {
    let release = read(root, "etc/os-release").or_else(|| read(root, "usr/lib/os-release")).unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    pretty.map_or(UNKNOWN, |name| name.trim().trim_matches('"')).to_owned()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn installed_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn read(root: &Path, path: &str) -> Option<String> {
    fs::read_to_string(root.join(path)).ok()
}
