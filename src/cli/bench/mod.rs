//! `plimsoll bench`: measures, judges, saves, and says what it means in hardware.

pub mod args;
mod choose;
mod command;
mod exported;
mod law;
mod run;
mod served;
pub mod server;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;

use crate::campaign::instruments::GPU_FAILED;
use crate::campaign::interrupt::Interrupt;
use crate::campaign::litmus::Driven;
use crate::campaign::measure::Halt;
use crate::campaign::progress::{Progress as Told, Watcher};
use crate::capacity::spike;
use crate::cli::bench::args::{BenchArgs, TargetKind};
use crate::cli::bench::run::{Host, Place, Prepared, Subject, measure};
use crate::cli::bench::watch::Measured;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::progress::Drawn;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::cli::{report, signals};
use crate::clock::Monotonic;
use crate::node;
use crate::node::telemetry;
use crate::record::run::{HeadlineStatus, RunRecord, RunStatus};
use crate::record::slo::Slo;
use crate::record::target::TargetIdentity;
use crate::rng;
use crate::store::lock::NodeLock;
use crate::store::request_log::writer::RequestLog;
use crate::store::runs::{RunStore, load};
use crate::telemetry::select::GpuIdentity;

/// Measures a target, saves the run and prints its report.
///
/// # Errors
/// When the target or its traffic cannot be made, or the run cannot be saved.
pub fn run(args: &BenchArgs, arguments: &[OsString], out: &mut Terminal) -> anyhow::Result<Exit> {
    out.format_among(&[Format::Text, Format::Json, Format::Markdown, Format::Csv])?;
    let command = command::kept(arguments, args)?;
    let data_dir = out.data_dir()?;
    let store = RunStore::open(&data_dir)?;
    let (args, resumed) = resolve(args, &command, &store)?;
    let interrupt = signals::watch()?;
    let id = resumed.as_ref().map_or_else(RunStore::new_id, |(_, saved)| saved.id.clone());
    let (_lock, prepared) = prepare(args, &id, &interrupt, out)?;
    let (run, halted) = measure(prepared, Place { store: &store, id: &id, command }, resumed, &interrupt)?;
    for failure in run.findings.iter().filter(|finding| finding.code == GPU_FAILED) {
        tracing::error!("{}: {}", failure.evidence, failure.next_step);
    }
    if out.progress() != Progress::Silent {
        terminal::note(format_args!("saved as run {id} in `{}`", store.folder().join(&id).display()));
        if run.status != RunStatus::Complete {
            terminal::note(format_args!("go on with it: {}", command::resuming(&id, &data_dir, run.status)));
        }
    }
    report::print(&run, out)?;
    Ok(exit(&run, halted))
}

/// A target that is ready to be driven through a course; nobody else measures on the node until it was.
pub(super) struct Ready {
    _lock: Option<NodeLock>,
    prepared: Prepared,
}

/// Makes the target of a saved command line ready; `target` is asked in its place where one is given.
///
/// # Errors
/// When the command line cannot be read, or the target or its traffic cannot be made.
pub(super) fn ready(
    command: &[String],
    target: Option<&TargetKind>,
    id: &str,
    interrupt: &Interrupt,
    out: &Terminal,
) -> anyhow::Result<Ready> {
    let mut args =
        super::bench_args_of(command).context("cannot read the command line that the run was made with").exit_with(Exit::BadInput)?;
    if let Some(target) = target {
        args.target.target = target.clone();
    }
    let (lock, prepared) = prepare(args, id, interrupt, out)?;
    Ok(Ready { _lock: lock, prepared })
}

impl Ready {
    /// What it is.
    pub(super) fn identity(&self) -> TargetIdentity {
        self.prepared.identity()
    }

    /// Drives it through a course.
    ///
    /// # Errors
    /// When it cannot be begun, or hangs.
    pub(super) fn drive(self, asked: &Course<'_>, log: &mut RequestLog, interrupt: &Interrupt) -> anyhow::Result<Driven> {
        self.prepared.drive(asked, log, interrupt)
    }
}

/// What is to be driven, and when.
pub(super) struct Course<'a> {
    /// Of arrivals and prompts.
    pub(super) seed: u64,
    pub(super) course: &'a spike::course::Course,
    pub(super) slo: &'a Slo,
}

/// Makes target, traffic and clock ready; while the lock is held nobody else measures on the node.
fn prepare(args: BenchArgs, id: &str, interrupt: &Interrupt, out: &Terminal) -> anyhow::Result<(Option<NodeLock>, Prepared)> {
    // Before anything is built: two measurements on one node spoil each other. In virtual time there is nothing to spoil.
    let loads_node = match &args.target.target {
        TargetKind::Engine => true,
        TargetKind::Server(endpoint) => endpoint.is_local(),
        TargetKind::Null | TargetKind::Simulated => false,
    };
    let lock = loads_node.then(|| NodeLock::take(&lock_folder())).transpose()?;
    let library = args.watch.nvml.open();
    let clock = Monotonic::start();
    let seen_by = (args.target.target != TargetKind::Simulated).then_some(clock);
    let node = node::describe(telemetry::record(&library));
    let device = choose::device(&args, &node)?;
    let mut drawn = Drawn::new(out.progress());
    let seed = args.method.seed.unwrap_or_else(|| rng::derive(0, id));
    let server = match &args.target.target {
        TargetKind::Server(endpoint) => {
            server::allow_connections(u64::from(args.method.in_flight_cap.max(args.method.max_concurrency.unwrap_or(0))))?;
            Some(served::reach(&args, endpoint, seed, &library, interrupt, &mut |text| drawn.tell(Told::Note(text)))?)
        }
        _ => None,
    };
    let measured = match &server {
        Some(server) => Measured::Served(server.gpus.clone()),
        None => {
            let own = device.iter().flat_map(|device| device.gpus());
            Measured::Own(own.map(|gpu| GpuIdentity { uuid: gpu.uuid.clone(), pci_bus_id: gpu.bus_id.clone() }).collect())
        }
    };
    let exporter = args.watch.dcgm_url.as_ref().map(|url| served::page_at(&args.server, url, None)).transpose()?;
    let watched = watch::begin(&args.watch, &measured, exporter, &library, seen_by, &lock_folder(), interrupt)?;
    let host = Host { node, clock, watched };
    let subject = Subject { device, server };
    Ok((lock, Prepared::new(args, subject, host, seed, drawn, interrupt)?))
}

/// Where all users of the node look for its lock.
pub(super) fn lock_folder() -> PathBuf {
    std::env::var_os("PLIMSOLL_LOCK_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// With `--resume` the saved command line counts; only a `--budget` may be given anew.
fn resolve(asked: &BenchArgs, command: &[String], store: &RunStore) -> anyhow::Result<(BenchArgs, Option<(PathBuf, RunRecord)>)> {
    // A new run is made from what its record keeps, as a resumed one is.
    let Some(name) = &asked.resume else { return Ok((super::bench_args_of(command)?, None)) };
    let folder = store.find(name)?;
    let saved = load(&folder)?;
    if saved.status == RunStatus::Complete {
        return Err(anyhow::anyhow!(
            "run {} is complete: there is nothing to resume. See it with `plimsoll runs show {}`",
            saved.id,
            saved.id
        ))
        .exit_with(Exit::Usage);
    }
    let mut args = super::bench_args_of(&saved.command)
        .with_context(|| format!("cannot read the command line that run {} was made with", saved.id))
        .exit_with(Exit::BadInput)?;
    args.method.seed = Some(saved.seed);
    // More time for a run that had too little.
    args.budget = asked.budget.or(args.budget);
    args.watch.nvml.nvml = asked.watch.nvml.nvml.clone().or(args.watch.nvml.nvml);
    Ok((args, Some((folder, saved))))
}

fn exit(run: &RunRecord, halted: Option<Halt>) -> Exit {
    if let Some(Halt::Signal(signal)) = halted {
        return signal.into();
    }
    match run.headline.as_ref().map(|headline| headline.status) {
        Some(HeadlineStatus::Confirmed | HeadlineStatus::BracketOnly) => Exit::Good,
        Some(HeadlineStatus::SloUnmetAtMinimum) => Exit::GateFailed,
        Some(HeadlineStatus::NoValidBound | HeadlineStatus::Drift) => Exit::Invalid,
        Some(HeadlineStatus::Undecided | HeadlineStatus::OutOfBudget | HeadlineStatus::NotReached) | None => Exit::Inconclusive,
    }
}
