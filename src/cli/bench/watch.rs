//! Which GPUs `bench` watches, whose they are, and what stands in the way.

use std::path::Path;
use std::sync::Arc;

use crate::campaign::instruments::{GpuBusy, Instruments, Ownership};
use crate::campaign::interrupt::Interrupt;
use crate::cli::bench::args::WatchArgs;
use crate::cli::bench::exported;
use crate::cli::bench::served::ServerGpus;
use crate::cli::exit::{Exit, ExitWith};
use crate::clock::Monotonic;
use crate::node::telemetry::NoTelemetry;
use crate::record::finding::Finding;
use crate::record::gpu::GpuRecord;
use crate::store::lock::{GpuLock, LockError};
use crate::telemetry::nvml::Library;
use crate::telemetry::scrape::Page;
use crate::telemetry::select::{GpuIdentity, Selected, UnknownGpu, select};
use crate::telemetry::visible::{DeviceOrder, visible};

/// The GPUs under watch, held for this run.
pub(super) struct Watched {
    pub(super) instruments: Instruments,
    /// What stands beside every number because of them.
    pub(super) labels: Vec<String>,
    /// What a reader should know of whose they are.
    pub(super) findings: Vec<Finding>,
    _locks: Vec<GpuLock>,
}

/// Whose GPUs are measured.
pub(super) enum Measured {
    /// The built-in engine's, as CUDA names them; none where it computes on the CPU, or nothing does.
    Own(Vec<GpuIdentity>),
    /// A server's.
    Served(ServerGpus),
}

/// Begins to watch the GPUs that are measured and those that were asked for besides; where there is an exporter, its GPUs alone. Without
/// a clock time is simulated, and there is nothing to see.
///
/// # Errors
/// When telemetry is required and not to be had, a GPU is not there, or somebody else is on it.
pub(super) fn begin(
    args: &WatchArgs,
    measured: &Measured,
    exporter: Option<Page>,
    library: &Result<Library, NoTelemetry>,
    clock: Option<Monotonic>,
    lock_folder: &Path,
    interrupt: &Interrupt,
) -> anyhow::Result<Watched> {
    let findings: Vec<_> = measured.served().and_then(ServerGpus::contradiction).into_iter().collect();
    let nothing =
        |why: String| Watched { instruments: Instruments::none(why), labels: Vec::new(), findings: findings.clone(), _locks: Vec::new() };
    let required = "cannot measure without telemetry (`--require-telemetry`)";
    // What is not to be had is fatal only where it was required.
    let without = |why: anyhow::Error| {
        if args.require_telemetry { Err(why.context(required)).exit_with(Exit::Unavailable) } else { Ok(nothing(why.to_string())) }
    };
    let Some(clock) = clock else { return without(anyhow::anyhow!("time is simulated")) };
    if let Some(page) = exporter {
        let (instruments, labels) = exported::watch(page, args.watch_gpus.as_deref(), clock, interrupt)?;
        return Ok(Watched { instruments, labels, findings, _locks: Vec::new() });
    }
    let library = match library {
        Ok(library) => library,
        Err(none) => return without(none.clone().into()),
    };
    let gpus = &library.inventory().gpus;
    let mut selected = match measured {
        Measured::Own(own) => match select(own, gpus) {
            Ok(selected) => selected,
            Err(unknown) => return without(unknown.into()),
        },
        Measured::Served(served) => served.found.clone(),
    };
    for gpu in args.watch_gpus.as_deref().map_or(Ok(Vec::new()), |wanted| asked_for(wanted, gpus))? {
        if !selected.contains(&gpu) {
            selected.push(gpu);
        }
    }
    if selected.is_empty() {
        return without(anyhow::anyhow!("no GPU is measured (`--watch-gpus` watches some all the same)"));
    }
    let mut labels = Vec::new();
    let mut locks = Vec::new();
    for gpu in &selected {
        match GpuLock::take(lock_folder, gpu.uuid(gpus)) {
            Ok(lock) => locks.push(lock),
            Err(LockError::GpuHeld { holder, .. }) if args.allow_shared => labels.push(format!("GPU shared with another run ({holder})")),
            Err(error) => return Err(error.into()),
        }
        labels.extend(
            gpu.instance
                .map(|instance| format!("MIG instance {}: every number is of the instance", gpus[gpu.gpu].instances[instance].name)),
        );
    }
    let (source, names) = library.watch(&selected);
    let ownership = match measured {
        Measured::Own(own) if !own.is_empty() => Ownership::Computes,
        Measured::Served(ServerGpus { pid: Some(pid), .. }) => Ownership::Serves { pid: *pid },
        Measured::Own(_) | Measured::Served(_) => Ownership::Watches,
    };
    let instruments = Instruments::watch(Arc::new(source), names, clock, ownership, interrupt);
    if instruments.hangs() && args.require_telemetry {
        return without(anyhow::anyhow!("a call to the driver hangs. See `dmesg` for XIDs, and reboot"));
    }
    let served = measured.served();
    let strangers = instruments.present().iter().filter(|process| served.is_none_or(|served| !served.owns(process))).cloned();
    let strangers: Vec<_> = strangers.collect();
    if served.is_some_and(ServerGpus::takes_all) {
        let taken = strangers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        labels.extend((!strangers.is_empty()).then(|| format!("taken for the server's by `--gpus` and `--watch-gpus`: {taken}")));
        return Ok(Watched { instruments, labels, findings, _locks: locks });
    }
    if !strangers.is_empty() && !args.allow_shared {
        let busy = anyhow::Error::from(GpuBusy::of(&strangers));
        let unknown = served.is_some_and(|served| served.is_local && served.found.is_empty());
        return Err(if unknown {
            busy.context("nothing tells that these are the server's own processes (`--gpus N` takes them for it)")
        } else {
            busy
        });
    }
    labels.extend(strangers.iter().map(|process| format!("GPU shared with {process}")));
    Ok(Watched { instruments, labels, findings, _locks: locks })
}

impl Measured {
    fn served(&self) -> Option<&ServerGpus> {
        match self {
            Self::Served(served) => Some(served),
            Self::Own(_) => None,
        }
    }
}

/// `all`, or a list of places in CUDA's order and of UUIDs or their beginnings.
fn asked_for(wanted: &str, gpus: &[GpuRecord]) -> anyhow::Result<Vec<Selected>> {
    let (variable, order) = cuda_environment();
    let seen = || visible(variable.as_deref(), order, gpus);
    if wanted == "all" {
        let all = seen()?;
        let nothing = || UnknownGpu::new("all that CUDA_VISIBLE_DEVICES leaves visible", gpus);
        return if all.is_empty() { Err(nothing().into()) } else { Ok(all) };
    }
    let find = |entry: &str| -> anyhow::Result<Selected> {
        let found = match entry.parse::<usize>() {
            Ok(index) => seen()?.get(index).copied(),
            Err(_) => visible(Some(entry), DeviceOrder::PciBusId, gpus)?.first().copied(),
        };
        Ok(found.ok_or_else(|| UnknownGpu::new(entry, gpus))?)
    };
    wanted.split(',').map(str::trim).map(find).collect()
}

fn cuda_environment() -> (Option<String>, DeviceOrder) {
    let text = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let by_bus = text("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID");
    (text("CUDA_VISIBLE_DEVICES"), if by_bus { DeviceOrder::PciBusId } else { DeviceOrder::FastestFirst })
}
