//! `plimsoll plan`: what the capacity formula makes of a run, of another tool's result, or of a rate given by hand.

use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::capacity::comparison::{Comparison, Refused};
use crate::capacity::plan::{Plan, PlanError, PlanInputs};
use crate::capacity::throughput::Throughput;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::plan_file::FleetArgs;
use crate::cli::plan_inputs::{PlanInputArgs, read_throughput};
use crate::cli::terminal::{Format, Terminal};
use crate::cli::{import, runs, transfer};
use crate::record::run::RunRecord;
use crate::record::slo::{Slo, SloError, SloSource};
use crate::report::paint::Paint;
use crate::report::{self, Look};
use crate::store::runs::RunStore;
use crate::units::rate::CallRatePerGpu;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll plan --average-rps 40 --recompute 1.3\n  \
    plimsoll plan 01J9 --peak-rps 100 --peak-window 1m --gpus-per-replica 4\n  \
    plimsoll plan latest --slo 'ttft:p99<1000ms'\n  \
    plimsoll plan --demand demand.json --gpus-per-node 8 --price-per-gpu-hour 2.5\n  \
    plimsoll plan 01J9 01JB --demand demand.json --price-per-gpu-hour H100=2.5 --price-per-gpu-hour L4=0.7\n  \
    plimsoll plan --demand demand.json --outcome-slo 'p95<8s' --availability 0.995 --availability-target 0.9999\n  \
    plimsoll plan benchmarks.json --slo 'ttft:p99<1000ms' --gpus 4\n  \
    plimsoll plan --throughput-per-gpu 8 --average-rps 40 --scenario 'Black Friday=7'")]
pub struct PlanArgs {
    /// An id, its first letters, `latest`, a run folder, or files that another tool wrote (see `import`); several runs are compared
    #[arg(default_value = "latest", conflicts_with = "throughput_per_gpu", value_name = "RUN|FILE")]
    runs: Vec<String>,
    /// Plan with this rate, inference calls/s per GPU within the SLO, instead of a run's
    #[arg(long, value_name = "RATE", value_parser = read_throughput)]
    throughput_per_gpu: Option<CallRatePerGpu>,
    /// Plan at another SLO than the run's, read from its load-latency curve without a new run; of files the SLO to judge them by
    #[arg(long, value_name = "SLO", conflicts_with = "throughput_per_gpu", value_parser = read_slo)]
    slo: Option<Slo>,
    /// GPUs that the deployment behind files of another tool owns [default: what they say]
    #[arg(long, value_name = "COUNT", conflicts_with = "throughput_per_gpu", allow_negative_numbers = true)]
    gpus: Option<NonZeroU32>,
    /// Take each file for a deployment of its own, and compare them, instead of for levels of one
    #[arg(long, conflicts_with = "throughput_per_gpu")]
    each: bool,
    /// Carry the built-in engine's rate over to a server: `latest`, or a file that `transfer` wrote
    #[arg(long, value_name = "FILE|latest", conflicts_with = "throughput_per_gpu")]
    transfer: Option<String>,
    #[command(flatten)]
    demand: PlanInputArgs,
    #[command(flatten)]
    fleet: FleetArgs,
}

/// Prints the plan.
///
/// # Errors
/// When the run has no number to plan with, the inputs contradict each other, or the plan cannot be printed.
pub fn run(args: &PlanArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Markdown])?;
    if is_comparison(args) {
        return compare(args, format, out);
    }
    let throughput = match args.throughput_per_gpu {
        Some(rate) => Throughput::given(rate),
        None => of_runs(args, out)?,
    };
    let throughput = match &args.transfer {
        Some(name) => transfer::find(name, &out.data_dir()?)?.apply(throughput)?,
        None => throughput,
    };
    let plan = planned(&args.fleet, &args.demand, args.runs.first().map_or("", String::as_str), throughput)?;
    match format {
        Format::Json => out.document(&report::plan::json(&plan))?,
        Format::Markdown => out.print(report::plan::markdown(&plan))?,
        _ => out.print(report::plan::text(&plan, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(verdict(&plan))
}

/// An objective of outcomes is a gate.
fn verdict(plan: &Plan) -> Exit {
    match plan.outcome.as_ref().map(|outcome| outcome.met) {
        None | Some(Some(true)) => Exit::Good,
        Some(Some(false)) => Exit::GateFailed,
        Some(None) => Exit::Inconclusive,
    }
}

/// The plan for what one GPU sustains; `name` is what it came from.
///
/// # Errors
/// When inputs cannot be read, or contradict each other.
pub(super) fn planned(fleet: &FleetArgs, demand: &PlanInputArgs, name: &str, throughput: Throughput) -> anyhow::Result<Plan> {
    let file = fleet.file()?;
    let inputs = fleet.apply(file.as_ref().map(|(file, _)| file), name, PlanInputs::assumed(throughput))?;
    let inputs = match &file {
        Some((file, name)) => {
            PlanInputArgs::apply_file(file, name, inputs).with_context(|| format!("cannot plan with `{name}`")).exit_with(Exit::BadInput)?
        }
        None => inputs,
    };
    Ok(Plan::of(demand.apply(inputs))?)
}

/// Whether each name is a measurement of its own: runs, or files that are told to be.
fn is_comparison(args: &PlanArgs) -> bool {
    let is_file = |name: &String| Path::new(name).is_file();
    args.throughput_per_gpu.is_none() && args.runs.len() > 1 && (args.each || !args.runs.iter().all(is_file))
}

/// One row a measurement. Those that cannot be planned with are listed with the reason, and the first of them decides how it ends.
fn compare(args: &PlanArgs, format: Format, out: &mut Terminal) -> anyhow::Result<Exit> {
    if args.transfer.is_some() {
        return Err(anyhow!("`--transfer` carries one run over. Leave it out, or plan from one run")).exit_with(Exit::Usage);
    }
    let (mut plans, mut refused, mut exit) = (Vec::new(), Vec::new(), Exit::Good);
    for name in &args.runs {
        let throughput = if Path::new(name).is_file() {
            slo_of_files(args).and_then(|slo| imported(std::slice::from_ref(name), args.gpus, slo))
        } else {
            measured(name, args.slo.as_ref(), out)
        };
        let ended = match throughput.and_then(|throughput| planned(&args.fleet, &args.demand, name, throughput)) {
            Ok(plan) => {
                let ended = verdict(&plan);
                plans.push((name.clone(), plan));
                ended
            }
            Err(error) => {
                let ended = Exit::of(&error);
                // What is wrong with the command line is wrong with every row; calls of other lengths are so with this one.
                let of_this_row = matches!(error.downcast_ref(), Some(PlanError::Mix { .. }));
                if ended == Exit::Usage && !of_this_row {
                    return Err(error.context(format!("cannot plan from `{name}`")));
                }
                refused.push(Refused { name: name.clone(), why: format!("{error:#}") });
                ended
            }
        };
        exit = if exit == Exit::Good { ended } else { exit };
    }
    let comparison = Comparison::of(plans, refused);
    match format {
        Format::Json => out.document(&report::comparison::json(&comparison))?,
        Format::Markdown => out.print(report::comparison::markdown(&comparison))?,
        _ => out.print(report::comparison::text(&comparison, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(exit)
}

/// By what the names are: one run, or files of another tool.
fn of_runs(args: &PlanArgs, out: &Terminal) -> anyhow::Result<Throughput> {
    let are_files = args.runs.iter().all(|name| Path::new(name).is_file());
    match args.runs.as_slice() {
        _ if are_files => imported(&args.runs, args.gpus, slo_of_files(args)?),
        _ if args.gpus.is_some() => {
            Err(anyhow!("`--gpus` is for files of another tool: a run knows its devices. Leave it out")).exit_with(Exit::Usage)
        }
        [run] => measured(run, args.slo.as_ref(), out),
        _ => Err(anyhow!("a plan is made from runs, or from files of another tool that are there. Check the names")).exit_with(Exit::Usage),
    }
}

fn slo_of_files(args: &PlanArgs) -> anyhow::Result<&Slo> {
    let none = || anyhow!("a file of another tool has no SLO of its own. Give one to judge it by, such as `--slo 'ttft:p99<1000ms'`");
    args.slo.as_ref().ok_or_else(none).exit_with(Exit::Usage)
}

fn imported(files: &[String], gpus: Option<NonZeroU32>, slo: &Slo) -> anyhow::Result<Throughput> {
    let results = files.iter().map(|file| import::read(Path::new(file), None)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Throughput::imported(&results, slo, gpus)?)
}

fn measured(name: &str, slo: Option<&Slo>, out: &Terminal) -> anyhow::Result<Throughput> {
    let (_, run) = runs::read(&RunStore::at(&out.data_dir()?), name, "plan from")?;
    sustained(&run, slo)
}

/// What one GPU of a run sustains within its own SLO, or within another by its curve.
///
/// # Errors
/// When the run has no number to plan with.
pub(super) fn sustained(run: &RunRecord, slo: Option<&Slo>) -> anyhow::Result<Throughput> {
    Ok(match slo {
        Some(slo) => Throughput::measured_at(run, slo)?,
        None => Throughput::measured(run)?,
    })
}

pub(super) fn read_slo(text: &str) -> Result<Slo, SloError> {
    Slo::parse(text, SloSource::Flag)
}
