//! `--dcgm-url`: GPUs of another node, watched through its DCGM exporter.

use std::sync::Arc;

use crate::campaign::instruments::{Instruments, Ownership};
use crate::campaign::interrupt::Interrupt;
use crate::cli::exit::{Exit, ExitWith};
use crate::clock::Monotonic;
use crate::node::cores;
use crate::telemetry::dcgm::{Exported, Exporter};
use crate::telemetry::scrape::Page;

/// Watches the exporter's GPUs: those that are named, by number or UUID, or all. With labels that say so.
///
/// # Errors
/// When it does not answer, or does not know one.
pub(super) fn watch(
    page: Page,
    named: Option<&str>,
    clock: Monotonic,
    interrupt: &Interrupt,
) -> anyhow::Result<(Instruments, Vec<String>)> {
    let exporter = Exporter::open(page).exit_with(Exit::Unavailable)?;
    let gpus = exporter.gpus();
    let places = match named {
        None | Some("all") => (0..gpus.len()).collect(),
        Some(named) => named.split(',').map(|name| place(gpus, name.trim())).collect::<anyhow::Result<Vec<_>>>()?,
    };
    let mut hosts = places.iter().map(|place| gpus[*place].host.as_str()).collect::<Vec<_>>();
    hosts.sort_unstable();
    hosts.dedup();
    let mut labels = vec![format!("GPUs read from the DCGM exporter at {} ({})", exporter.url(), hosts.join(", "))];
    if places.iter().any(|place| gpus[*place].is_cut) {
        labels.push("MIG: readings of the exporter are of whole GPUs".to_owned());
    }
    let (source, names) = exporter.watch(&places, clock, cores::leave_generator_core);
    Ok((Instruments::watch(Arc::new(source), names, clock, Ownership::Watches, interrupt), labels))
}

fn place(gpus: &[Exported], name: &str) -> anyhow::Result<usize> {
    let fits = |gpu: &Exported| gpu.index == name || (name.starts_with("GPU-") && gpu.uuid.starts_with(name));
    let known = || gpus.iter().map(|gpu| format!("{} ({}, {})", gpu.index, gpu.uuid, gpu.name)).collect::<Vec<_>>().join(", ");
    let found = gpus.iter().position(fits).ok_or_else(|| anyhow::anyhow!("the exporter knows no GPU `{name}`; it has {}", known()));
    found.exit_with(Exit::Unavailable)
}
