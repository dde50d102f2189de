//! `plimsoll node`: what this machine is, and what `bench` would measure on it.

use serde::Serialize;

use crate::cli::defaults::{self, Defaults};
use crate::cli::device;
use crate::cli::exit::Exit;
use crate::cli::terminal::{Format, Terminal};
use crate::node;
use crate::record::SCHEMA_VERSION;
use crate::record::node::{NodeRecord, Telemetry};

/// Arguments of `node`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll node\n  plimsoll node --format json")]
pub struct NodeArgs {}

#[derive(Serialize)]
struct NodeDocument<'a> {
    schema_version: u32,
    node: &'a NodeRecord,
    /// What `bench` measures here when it is not told.
    bench_defaults: Defaults,
}

/// Prints the node.
///
/// # Errors
/// When it cannot be printed.
pub fn run(_args: &NodeArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let node = node::describe();
    match out.format_among(&[Format::Text, Format::Json])? {
        Format::Json => {
            out.document(&NodeDocument { schema_version: SCHEMA_VERSION, node: &node, bench_defaults: defaults::of(&node, gpu_bytes()) })?
        }
        _ => out.print(text_of(&node))?,
    }
    Ok(Exit::Good)
}

/// Memory of the GPU that `bench` would use.
fn gpu_bytes() -> Option<u64> {
    device::libraries(None).driver.as_ref().ok().and_then(|driver| driver.gpus.first()).map(|gpu| gpu.memory_bytes)
}

fn text_of(node: &NodeRecord) -> String {
    let quota = node.cpu_quota_cores.map_or(String::new(), |cores| format!(" (quota {cores})"));
    let Telemetry::Unavailable { why } = &node.telemetry;
    let Defaults { device, threads, model, quick_model } = defaults::of(node, gpu_bytes());
    let rows = [
        ("host", node.hostname.clone()),
        ("system", format!("{}, kernel {}", node.os, node.kernel)),
        ("processor", node.cpu_model.clone()),
        ("cores", format!("{}{quota}", node.cores)),
        ("instructions", node.cpu_features.join(" ")),
        ("memory", format!("{:.1} GiB", node.memory_bytes as f64 / f64::from(1 << 30))),
        ("telemetry", format!("unavailable: {why}")),
        (
            "bench",
            format!(
                "{model} on the {device} device with {threads} thread{} (`--quick`: {quick_model})",
                if threads == 1 { "" } else { "s" }
            ),
        ),
    ];
    rows.iter().map(|(label, value)| format!("{label:<13} {value}\n")).collect()
}
