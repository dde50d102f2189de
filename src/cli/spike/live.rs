//! `plimsoll spike --live`: the plan's word, the simulation's, then the real target.

use anyhow::Context;

use crate::capacity::plan::Plan;
use crate::capacity::spike::course::Course;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::litmus::ExpectedPhase;
use crate::capacity::spike::live::{Begun, LiveLitmus, LiveVerdict};
use crate::capacity::spike::simulated;
use crate::cli::bench::{self, Course as Asking};
use crate::cli::exit::Exit;
use crate::cli::signals;
use crate::cli::spike::args::SpikeArgs;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::clock::wall_now;
use crate::curve::service_law::FittedLaw;
use crate::queueing::fleet::simulation::Fleet;
use crate::record::SCHEMA_VERSION;
use crate::record::run::RunRecord;
use crate::record::slo::Slo;
use crate::report::paint::Paint;
use crate::report::{self, Look};
use crate::store::atomic::require_space;
use crate::store::request_log::estimated_bytes;
use crate::store::request_log::writer::RequestLog;
use crate::store::runs::{RunStore, StoreError};
use crate::store::spikes::SpikeStore;

/// What is to be proven.
pub(super) struct Asked<'a> {
    pub(super) plan: &'a Plan,
    pub(super) slo: &'a Slo,
    pub(super) service: &'a FittedLaw,
    pub(super) measured_replicas: u32,
    /// Of the plan.
    pub(super) replicas: u32,
    /// At the load of the whole plan.
    pub(super) course: &'a Course,
}

/// Drives the target, keeps what happened, and prints it beside what was simulated.
///
/// # Errors
/// When the target cannot be driven, or the result not be saved or printed.
pub(super) fn run(
    args: &SpikeArgs,
    asked: &Asked<'_>,
    run: &RunRecord,
    lengths: CallLengths,
    format: Format,
    out: &mut Terminal,
) -> anyhow::Result<Exit> {
    let plan = asked.plan;
    let gpus_per_replica = plan.inputs.gpus_per_replica.get();
    let planned_gpus = u64::from(asked.replicas) * u64::from(gpus_per_replica);
    let driven_gpus = args.target_gpus.map_or(run.target.devices, std::num::NonZeroU32::get);
    let average_per_gpu = asked.course.average / planned_gpus as f64;
    let course = Course { average: average_per_gpu * f64::from(driven_gpus), ..asked.course.clone() };
    let expected = ExpectedPhase::of_course(&plan.inputs.throughput, &course, u64::from(driven_gpus));
    let replicas = if args.target_gpus.is_some() { (driven_gpus / gpus_per_replica).max(1) } else { asked.measured_replicas };
    let fleet = Fleet { overhead: asked.service.overhead, ..Fleet::fixed(asked.service.law, replicas) };
    // The same arrivals as will be driven: what differs then is the law, not the luck.
    let simulated = simulated::trial(&fleet, &course, asked.slo, &lengths, args.seed);
    foretell(&expected, &simulated, &course, out);
    let id = RunStore::new_id();
    let interrupt = signals::watch()?;
    let ready = bench::ready(&run.command, args.target.as_ref(), &id, &interrupt, out)?;
    let identity = ready.identity();
    let mut labels = plan.inputs.throughput.labels.clone();
    labels.extend(identity.labels.iter().filter(|label| !plan.inputs.throughput.labels.contains(label)).cloned());
    let begun = Begun {
        schema_version: SCHEMA_VERSION,
        id,
        run: run.id.clone(),
        created: wall_now().to_string(),
        target: format!("{} on {}", identity.model, identity.device),
        labels,
        limits: asked.slo.clone(),
        planned_gpus,
        driven_gpus,
        average_calls_per_s_per_gpu: average_per_gpu,
        spike_s: args.course.spike_s(),
        expected,
        simulated,
    };
    let folder = SpikeStore::at(&out.data_dir()?).create(&begun)?;
    // A float-to-integer `as` saturates. Chunks are not kept.
    require_space(folder.path(), estimated_bytes(course.calls() as u64, 0.0))?;
    let mut log = RequestLog::open(&folder.request_log(), 0)?;
    if out.progress() != Progress::Silent {
        terminal::note(format_args!("kept in `{}` as it goes", folder.path().display()));
    }
    let asking = Asking { seed: args.seed, course: &course, slo: asked.slo };
    let mut driven = ready.drive(&asking, &mut log, &interrupt)?;
    drop(log);
    let stopped = driven.stopped;
    let logged = std::mem::replace(&mut driven.logged, Ok(()));
    let litmus = driven.beside(begun);
    // What was measured is printed whatever happens to the folder.
    let saved = folder.finish(&litmus);
    print(&litmus, format, out)?;
    logged.map_err(StoreError::from).and(saved).context("not all of the litmus test could be kept")?;
    Ok(stopped.map_or_else(|| exit(litmus.verdict), Exit::from))
}

/// What a verdict ends with.
pub(super) fn exit(verdict: LiveVerdict) -> Exit {
    match verdict {
        LiveVerdict::Holds => Exit::Good,
        LiveVerdict::Breaks => Exit::GateFailed,
        LiveVerdict::Invalid => Exit::Invalid,
    }
}

/// What the plan and the simulation say, before anybody knows.
fn foretell(expected: &[ExpectedPhase], simulated: &Trial, course: &Course, out: &Terminal) {
    if out.progress() == Progress::Silent {
        return;
    }
    for (phase, held) in expected.iter().zip(&simulated.phases) {
        let simulated = if held.holds() { "holds" } else { "breaks" };
        terminal::note(format_args!(
            "{:<8} {:>10.3} calls/s: the plan says {}, simulated it {simulated}",
            phase.phase,
            phase.judged_calls_per_s(),
            phase.expected.word()
        ));
    }
    terminal::note(format_args!("about {:.0} min of driving", (course.seconds() / 60.0).ceil()));
}

/// In the asked form.
pub(super) fn print(litmus: &LiveLitmus, format: Format, out: &mut Terminal) -> anyhow::Result<()> {
    match format {
        Format::Json => out.document(litmus),
        Format::Markdown => out.print(report::spike::live::markdown(litmus)),
        Format::Csv => out.print(report::spike::live::csv(litmus)?),
        Format::Text => out.print(report::spike::live::text(litmus, Look { width: out.width(), paint: Paint::Colour })),
    }
}
