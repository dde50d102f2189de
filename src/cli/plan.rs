//! `plimsoll plan`: what the capacity formula makes of a run, of another tool's result, or of a rate given by hand.

use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Context, anyhow};

use crate::capacity::plan::{Plan, PlanInputs};
use crate::capacity::throughput::Throughput;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::plan_file::FleetArgs;
use crate::cli::plan_inputs::{PlanInputArgs, read_throughput};
use crate::cli::terminal::{Format, Terminal};
use crate::cli::{import, runs, transfer};
use crate::record::slo::{Slo, SloError, SloSource};
use crate::report::paint::Paint;
use crate::report::{self, Look};
use crate::store::runs::{RunStore, is_intact, load};
use crate::units::rate::CallRatePerGpu;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll plan --average-rps 40 --recompute 1.3\n  \
    plimsoll plan 01J9 --peak-rps 100 --peak-window 1m --gpus-per-replica 4\n  \
    plimsoll plan latest --slo 'ttft:p99<1000ms'\n  \
    plimsoll plan --demand demand.json --gpus-per-node 8 --price-per-gpu-hour 2.5\n  \
    plimsoll plan benchmarks.json --slo 'ttft:p99<1000ms' --gpus 4\n  \
    plimsoll plan --throughput-per-gpu 8 --average-rps 40 --scenario 'Black Friday=7'")]
pub struct PlanArgs {
    /// An id, its first letters, `latest`, a run folder, or files that another tool wrote (see `import`)
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
    Ok(Exit::Good)
}

/// The plan for what one GPU sustains; `name` is what it came from.
///
/// # Errors
/// When inputs cannot be read, or contradict each other.
pub(super) fn planned(fleet: &FleetArgs, demand: &PlanInputArgs, _name: &str, throughput: Throughput) -> anyhow::Result<Plan> {
    let file = fleet.file()?;
    let inputs = fleet.apply(file.as_ref().map(|(file, _)| file), PlanInputs::assumed(throughput))?;
    let inputs = match &file {
        Some((file, name)) => {
            PlanInputArgs::apply_file(file, name, inputs).with_context(|| format!("cannot plan with `{name}`")).exit_with(Exit::BadInput)?
        }
        None => inputs,
    };
    Ok(Plan::of(demand.apply(inputs))?)
}

/// By what the names are: one run, or files of another tool.
fn of_runs(args: &PlanArgs, out: &Terminal) -> anyhow::Result<Throughput> {
    let are_files = args.runs.iter().all(|name| Path::new(name).is_file());
    let refuse = |why: &str| Err(anyhow!("{why}")).exit_with(Exit::Usage);
    match (args.runs.as_slice(), &args.slo) {
        (_, Some(slo)) if are_files => imported(args, slo),
        (_, None) if are_files => {
            refuse("a file of another tool has no SLO of its own. Give one to judge it by, such as `--slo 'ttft:p99<1000ms'`")
        }
        ([_], _) if args.gpus.is_some() => refuse("`--gpus` is for files of another tool: a run knows its devices. Leave it out"),
        ([run], slo) => measured(run, slo.as_ref(), out),
        _ => refuse("a plan is made from one run, or from files of another tool that are there. Check the names"),
    }
}

fn imported(args: &PlanArgs, slo: &Slo) -> anyhow::Result<Throughput> {
    let results = args.runs.iter().map(|file| import::read(Path::new(file), None)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Throughput::imported(&results, slo, args.gpus)?)
}

fn measured(name: &str, slo: Option<&Slo>, out: &Terminal) -> anyhow::Result<Throughput> {
    let folder = runs::find(&RunStore::at(&out.data_dir()?), name)?;
    let run = load(&folder).with_context(|| format!("cannot plan from the run in `{}`", folder.display()))?;
    if is_intact(&folder)? == Some(false) {
        tracing::warn!("`{}` was changed after the run was finished: its digest does not fit", folder.display());
    }
    Ok(match slo {
        Some(slo) => Throughput::measured_at(&run, slo)?,
        None => Throughput::measured(&run)?,
    })
}

fn read_slo(text: &str) -> Result<Slo, SloError> {
    Slo::parse(text, SloSource::Flag)
}
