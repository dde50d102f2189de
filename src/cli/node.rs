//! `plimsoll node`: what this machine is, and what `bench` would measure on it.

use serde::Serialize;

use crate::cli::defaults::{self, Defaults};
use crate::cli::device;
use crate::cli::exit::Exit;
use crate::cli::nvml_args::NvmlArgs;
use crate::cli::terminal::{Format, Terminal};
use crate::node;
use crate::node::telemetry;
use crate::record::SCHEMA_VERSION;
use crate::record::finding::Finding;
use crate::record::gpu::GpuRecord;
use crate::record::node::{GpuTelemetry, NodeRecord};
use crate::record::reading::Reading;

/// Arguments of `node`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll node\n  plimsoll node --format json")]
pub struct NodeArgs {
    #[command(flatten)]
    nvml: NvmlArgs,
}

#[derive(Serialize)]
struct NodeDocument<'a> {
    schema_version: u32,
    node: &'a NodeRecord,
    findings: &'a [Finding],
    /// What `bench` measures here when it is not told.
    bench_defaults: Defaults,
}

/// Prints the node.
///
/// # Errors
/// When it cannot be printed.
pub fn run(args: &NodeArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json])?;
    let node = node::describe(telemetry::record(&args.nvml.open()));
    let mut findings = node::findings::of(&node.telemetry);
    if !node.telemetry.gpus().is_empty() {
        // The generator, and the engine of one GPU.
        findings.extend(node::findings::of_cores(&node, 2));
    }
    findings.extend(node::findings::of_distance(&node, |_| true));
    match format {
        Format::Json => out.document(&NodeDocument {
            schema_version: SCHEMA_VERSION,
            node: &node,
            findings: &findings,
            bench_defaults: defaults::of(&node, gpu_bytes()),
        })?,
        _ => out.print(text_of(&node, &findings))?,
    }
    Ok(Exit::Good)
}

/// Memory of the GPU that `bench` would use.
fn gpu_bytes() -> Option<u64> {
    device::libraries(None).driver.as_ref().ok().and_then(|driver| driver.gpus.first()).map(|gpu| gpu.memory_bytes)
}

fn text_of(node: &NodeRecord, findings: &[Finding]) -> String {
    let quota = node.cpu_quota_cores.map_or(String::new(), |cores| format!(" (quota {cores})"));
    let Defaults { device, threads, model, quick_model } = defaults::of(node, gpu_bytes());
    let mut rows = vec![
        ("host", node.hostname.clone()),
        ("system", format!("{}, kernel {}", node.os, node.kernel)),
        ("processor", node.cpu_model.clone()),
        ("cores", format!("{}{quota}", node.cores)),
        ("instructions", node.cpu_features.join(" ")),
        ("memory", gib(node.memory_bytes)),
    ];
    match &node.telemetry {
        GpuTelemetry::Unavailable { why } => rows.push(("telemetry", format!("unavailable: {why}"))),
        GpuTelemetry::Available(inventory) => {
            let software = &inventory.software;
            let versions = format!("NVML {}, driver {}, CUDA {} (`{}`)", software.nvml, software.driver, software.cuda, software.library);
            rows.push(("telemetry", versions));
            rows.extend(inventory.gpus.iter().flat_map(rows_of));
        }
    }
    let threads = if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
    rows.push(("bench", format!("{model} on the {device} device with {threads} (`--quick`: {quick_model})")));
    let rows = rows.iter().map(|(label, value)| format!("{label:<13} {value}\n")).collect::<String>();
    // That there is no telemetry stands above already.
    let worth_saying = findings.iter().filter(|finding| finding.code != "telemetry_unavailable");
    rows + &worth_saying.map(|finding| format!("{:<13} {}: {}\n", "note", finding.evidence, finding.next_step)).collect::<String>()
}

/// One GPU in a few lines.
fn rows_of(gpu: &GpuRecord) -> Vec<(&'static str, String)> {
    let switch = |reading: Reading<bool>| reading.map(|on| if on { "on" } else { "off" });
    let of = |reading: Reading<(u32, u32)>| reading.map(|(now, most)| format!("{now} of {most}"));
    let limits = &gpu.limits;
    let range = gpu.power_range_w.map(|(least, most)| format!("{least:.0} to {most:.0}"));
    let memory = gpu.memory_bytes.map(gib);
    let mut rows = vec![
        ("gpu", format!("{}: {}, {memory}, compute capability {}", gpu.index, gpu.name, gpu.compute_capability)),
        ("", format!("{}, bus {}, NUMA node {}, VBIOS {}", gpu.uuid, gpu.pci_bus_id, gpu.numa_node, gpu.vbios)),
        ("", format!("power limit {} W (default {}, settable {range})", limits.power_w, gpu.power_default_w)),
        (
            "",
            format!(
                "SM clock at most {} MHz (application clock {}), memory {} MHz ({})",
                gpu.sm_clock_max_mhz, limits.sm_clock_mhz, gpu.memory_clock_max_mhz, limits.memory_clock_mhz
            ),
        ),
        (
            "",
            format!(
                "ECC {}, MIG {}, persistence {}, PCIe generation {}, lanes {}, NVLinks up {}",
                switch(gpu.ecc),
                switch(gpu.mig),
                switch(gpu.persistence),
                of(gpu.pcie_generation),
                of(gpu.pcie_width),
                of(gpu.nvlinks)
            ),
        ),
    ];
    let instance = |instance: &crate::record::gpu::MigInstance| format!("instance {}, {}", instance.name, instance.uuid);
    rows.extend(gpu.instances.iter().map(|one| ("", instance(one))));
    rows
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
