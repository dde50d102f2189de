//! `plimsoll spike --live`: the plan's word, the simulation's, then the real target.

use crate::capacity::plan::Plan;
use crate::capacity::spike::course::Course;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::lengths::CallLengths;
use crate::capacity::spike::litmus::ExpectedPhase;
use crate::capacity::spike::live::{self, LiveLitmus, LiveVerdict};
use crate::capacity::spike::simulated;
use crate::cli::bench::{self, Course as Asking};
use crate::cli::exit::Exit;
use crate::cli::signals;
use crate::cli::spike::args::SpikeArgs;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::clock::wall_now;
use crate::curve::service_law::FittedLaw;
use crate::queueing::fleet::simulation::Fleet;
use crate::record::run::RunRecord;
use crate::record::slo::Slo;
use crate::report::paint::Paint;
use crate::report::{self, Look};
use crate::store::atomic;
use crate::store::runs::RunStore;

/// Folder of litmus tests beside the runs.
const FOLDER: &str = "spikes";

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
    let asking = Asking { id: &id, seed: args.seed, course: &course, slo: asked.slo };
    let created = wall_now().to_string();
    let (driven, identity) = bench::drive_course(&run.command, args.target.as_ref(), &asking, &interrupt, out)?;
    let invalid = driven.invalid();
    let verdict = match driven.trial.holds() {
        _ if !invalid.is_empty() => LiveVerdict::Invalid,
        true => LiveVerdict::Holds,
        false => LiveVerdict::Breaks,
    };
    let mut labels = plan.inputs.throughput.labels.clone();
    labels.extend(identity.labels.iter().filter(|label| !plan.inputs.throughput.labels.contains(label)).cloned());
    let mut litmus = LiveLitmus {
        id,
        run: run.id.clone(),
        created,
        target: format!("{} on {}", identity.model, identity.device),
        labels,
        slo: asked.slo.to_string(),
        planned_gpus,
        driven_gpus,
        average_calls_per_s_per_gpu: average_per_gpu,
        spike_s: args.course.spike_s(),
        expected,
        compared: live::compare(&driven.trial, &simulated),
        simulated,
        measured: driven.trial,
        audit: driven.audit,
        invalid,
        verdict,
        findings: Vec::new(),
    };
    litmus.findings = live::findings(&litmus);
    keep(&litmus, out)?;
    print(&litmus, format, out)?;
    Ok(match (driven.stopped, verdict) {
        (Some(signal), _) => signal.into(),
        (None, LiveVerdict::Holds) => Exit::Good,
        (None, LiveVerdict::Breaks) => Exit::GateFailed,
        (None, LiveVerdict::Invalid) => Exit::Invalid,
    })
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

fn keep(litmus: &LiveLitmus, out: &Terminal) -> anyhow::Result<()> {
    let folder = out.data_dir()?.join(FOLDER);
    atomic::create_folder(&folder)?;
    let file = folder.join(format!("{}.json", litmus.id));
    atomic::write(&file, &serde_json::to_vec_pretty(&report::spike::live::json(litmus))?)?;
    if out.progress() != Progress::Silent {
        terminal::note(format_args!("saved as `{}`", file.display()));
    }
    Ok(())
}

fn print(litmus: &LiveLitmus, format: Format, out: &mut Terminal) -> anyhow::Result<()> {
    match format {
        Format::Json => out.document(&report::spike::live::json(litmus)),
        Format::Markdown => out.print(report::spike::live::markdown(litmus)),
        Format::Csv => out.print(report::spike::live::csv(litmus)?),
        Format::Text => out.print(report::spike::live::text(litmus, Look { width: out.width(), paint: Paint::Colour })),
    }
}
