//! `plimsoll plan`: what the capacity formula makes of a run, or of a rate given by hand.

use anyhow::Context;

use crate::capacity::plan::{Plan, PlanInputs};
use crate::capacity::throughput::Throughput;
use crate::cli::demand::{DemandArgs, read_throughput};
use crate::cli::exit::Exit;
use crate::cli::runs;
use crate::cli::terminal::{Format, Terminal};
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
    plimsoll plan --throughput-per-gpu 8 --average-rps 40 --scenario 'Black Friday=7'")]
pub struct PlanArgs {
    /// An id, its first letters, `latest`, or a run folder
    #[arg(default_value = "latest", conflicts_with = "throughput_per_gpu")]
    run: String,
    /// Plan with this rate, inference calls/s per GPU within the SLO, instead of a run's
    #[arg(long, value_name = "RATE", value_parser = read_throughput)]
    throughput_per_gpu: Option<CallRatePerGpu>,
    /// Plan at another SLO than the run's, read from its load-latency curve without a new run
    #[arg(long, value_name = "SLO", conflicts_with = "throughput_per_gpu", value_parser = read_slo)]
    slo: Option<Slo>,
    #[command(flatten)]
    demand: DemandArgs,
}

/// Prints the plan.
///
/// # Errors
/// When the run has no number to plan with, the inputs contradict each other, or the plan cannot be printed.
pub fn run(args: &PlanArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Markdown])?;
    let throughput = match args.throughput_per_gpu {
        Some(rate) => Throughput::given(rate),
        None => measured(&args.run, args.slo.as_ref(), out)?,
    };
    let plan = Plan::of(args.demand.apply(PlanInputs::assumed(throughput)))?;
    match format {
        Format::Json => out.document(&report::plan::json(&plan))?,
        Format::Markdown => out.print(report::plan::markdown(&plan))?,
        _ => out.print(report::plan::text(&plan, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(Exit::Good)
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
