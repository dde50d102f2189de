//! `plimsoll plan`: what the capacity formula makes of a run, or of a rate given by hand.

use std::num::NonZeroU32;

use anyhow::Context;
use jiff::SignedDuration;

use crate::capacity::plan::{Input, Peak, Plan, PlanInputs};
use crate::capacity::scenario::{Scenario, ScenarioError};
use crate::capacity::throughput::Throughput;
use crate::cli::exit::Exit;
use crate::cli::terminal::{Format, Terminal};
use crate::clock::Nanos;
use crate::report::paint::Paint;
use crate::report::{self, Look};
use crate::store::runs::{RunStore, is_intact, load};
use crate::units::NotAQuantity;
use crate::units::rate::{CallRatePerGpu, RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// Arguments of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll plan --average-rps 40 --recompute 1.3\n  \
    plimsoll plan 01J9 --peak-rps 100 --peak-window 1m --gpus-per-replica 4\n  \
    plimsoll plan --throughput-per-gpu 8 --average-rps 40 --scenario 'Black Friday=7'")]
pub struct PlanArgs {
    /// An id, its first letters, `latest`, or a run folder
    #[arg(default_value = "latest", conflicts_with = "throughput_per_gpu")]
    run: String,
    /// Plan with this rate, inference calls/s per GPU within the SLO, instead of a run's
    #[arg(long, value_name = "RATE", value_parser = read_throughput)]
    throughput_per_gpu: Option<CallRatePerGpu>,
    #[command(flatten)]
    demand: DemandArgs,
}

/// What the hardware must carry: for every verb that plans.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Demand")]
pub struct DemandArgs {
    /// Average visible requests/s, which scenarios multiply [default: 1]
    #[arg(long, value_name = "RATE", value_parser = read_visible)]
    average_rps: Option<VisibleRate>,
    /// 99th percentile or planned peak, visible requests/s
    #[arg(long, value_name = "RATE", requires = "peak_window", value_parser = read_visible)]
    peak_rps: Option<VisibleRate>,
    /// Window that the peak is a rate over, such as 1m
    #[arg(long, value_name = "TIME", requires = "peak_rps", value_parser = read_window)]
    peak_window: Option<Nanos>,
    /// Plan for the average as if it were the peak, on purpose
    #[arg(long, requires = "average_rps", conflicts_with = "peak_rps")]
    average_as_peak: bool,
    /// Inference calls per successful output [default: 1, assumed]
    #[arg(long, value_name = "MULTIPLIER", value_parser = read_recompute)]
    recompute: Option<RecomputeMultiplier>,
    /// Share added to the need [default: 0.25]
    #[arg(long, value_name = "SHARE", value_parser = read_headroom)]
    headroom: Option<Headroom>,
    /// GPUs that one replica of the model spans
    #[arg(long, value_name = "COUNT", default_value = "1")]
    gpus_per_replica: NonZeroU32,
    /// One more peak, as a name and a multiple of the average; may be given several times
    #[arg(long = "scenario", value_name = "NAME=MULTIPLE", value_parser = read_scenario)]
    scenarios: Vec<Scenario>,
}

impl DemandArgs {
    /// The inputs of a plan with what was given in place of what is assumed.
    #[must_use]
    pub fn apply(&self, inputs: PlanInputs) -> PlanInputs {
        let peak = match (self.peak_rps, self.peak_window) {
            (Some(rate), Some(window)) => Some(Peak::Planned { rate, window }),
            _ => self.average_as_peak.then_some(Peak::AverageOnPurpose),
        };
        PlanInputs {
            average: self.average_rps.map_or(inputs.average, Input::given),
            peak,
            recompute: self.recompute.map_or(inputs.recompute, Input::given),
            headroom: self.headroom.map_or(inputs.headroom, Input::given),
            gpus_per_replica: self.gpus_per_replica,
            scenarios: inputs.scenarios.into_iter().chain(self.scenarios.iter().cloned()).collect(),
            throughput: inputs.throughput,
        }
    }
}

/// Prints the plan.
///
/// # Errors
/// When the run has no number to plan with, the inputs contradict each other, or the plan cannot be printed.
pub fn run(args: &PlanArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Markdown])?;
    let throughput = match args.throughput_per_gpu {
        Some(rate) => Throughput::given(rate),
        None => measured(&args.run, out)?,
    };
    let plan = Plan::of(args.demand.apply(PlanInputs::assumed(throughput)))?;
    match format {
        Format::Json => out.document(&report::plan::json(&plan))?,
        Format::Markdown => out.print(report::plan::markdown(&plan))?,
        _ => out.print(report::plan::text(&plan, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(Exit::Good)
}

fn measured(name: &str, out: &Terminal) -> anyhow::Result<Throughput> {
    let folder = RunStore::at(&out.data_dir()?).find(name).context("nothing to plan from: measure with `plimsoll bench` first")?;
    let run = load(&folder).with_context(|| format!("cannot plan from the run in `{}`", folder.display()))?;
    if is_intact(&folder)? == Some(false) {
        tracing::warn!("`{}` was changed after the run was finished: its digest does not fit", folder.display());
    }
    Ok(Throughput::measured(&run)?)
}

fn read_number<T>(text: &str, quantity: fn(f64) -> Result<T, NotAQuantity>) -> Result<T, String> {
    let number = text.parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 0.25 or 40"))?;
    quantity(number).map_err(|refused| refused.to_string())
}

fn read_visible(text: &str) -> Result<VisibleRate, String> {
    read_number(text, VisibleRate::new)
}

fn read_throughput(text: &str) -> Result<CallRatePerGpu, String> {
    read_number(text, CallRatePerGpu::new)
}

fn read_recompute(text: &str) -> Result<RecomputeMultiplier, String> {
    read_number(text, RecomputeMultiplier::new)
}

fn read_headroom(text: &str) -> Result<Headroom, String> {
    read_number(text, Headroom::new)
}

fn read_scenario(text: &str) -> Result<Scenario, ScenarioError> {
    text.parse()
}

fn read_window(text: &str) -> Result<Nanos, String> {
    let length = text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive);
    length
        .map(|length| Nanos::from_secs_f64(length.as_secs_f64()))
        .ok_or_else(|| format!("`{text}` is no length of time above 0. Write it like 1m or 30s"))
}
