//! What the hardware must carry: as every verb that plans is asked, and as a run keeps it.

use std::num::NonZeroU32;

use anyhow::Context;

use crate::capacity::plan::{Input, Peak, PlanInputs};
use crate::capacity::scenario::{Lasts, Scenario, ScenarioError};
use crate::cli::length_of_time;
use crate::cli::plan_file::{FileScenario, PlanFile};
use crate::clock::Nanos;
use crate::record::finding::{Finding, Severity};
use crate::record::run::DemandRecord;
use crate::units::NotAQuantity;
use crate::units::rate::{CallRatePerGpu, LoadMultiplier, RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// What the capacity formula is asked.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "What it means in hardware")]
pub struct PlanInputArgs {
    /// Average visible requests/s, which scenarios multiply [default: 1]
    #[arg(long, value_name = "RATE", value_parser = read_visible, allow_negative_numbers = true)]
    average_rps: Option<VisibleRate>,
    /// 99th percentile or planned peak, visible requests/s
    #[arg(long, value_name = "RATE", requires = "peak_window", value_parser = read_visible, allow_negative_numbers = true)]
    peak_rps: Option<VisibleRate>,
    /// Window that the peak is a rate over, such as 1m
    #[arg(long, value_name = "TIME", requires = "peak_rps", value_parser = read_window, allow_negative_numbers = true)]
    peak_window: Option<Nanos>,
    /// Plan for the average as if it were the peak, on purpose
    #[arg(long, requires = "average_rps", conflicts_with = "peak_rps")]
    average_as_peak: bool,
    /// Inference calls per successful output [default: 1, assumed]
    #[arg(long, value_name = "MULTIPLIER", value_parser = read_recompute, allow_negative_numbers = true)]
    recompute: Option<RecomputeMultiplier>,
    /// Share added to the need [default: 0.25, assumed]
    #[arg(long, value_name = "SHARE", value_parser = read_headroom, allow_negative_numbers = true)]
    headroom: Option<Headroom>,
    /// GPUs that one replica of the model spans [default: 1]
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    gpus_per_replica: Option<NonZeroU32>,
    /// One more peak, as a name and a multiple of the average; may be given several times
    #[arg(long = "scenario", value_name = "NAME=MULTIPLE", value_parser = read_scenario)]
    scenarios: Vec<Scenario>,
}

impl PlanInputArgs {
    /// As a run keeps it.
    #[must_use]
    pub fn record(&self) -> DemandRecord {
        DemandRecord {
            average_rps: self.average_rps.map(VisibleRate::get),
            peak_rps: self.peak_rps.map(VisibleRate::get),
            peak_window_s: self.peak_window.map(Nanos::as_secs_f64),
            average_as_peak: self.average_as_peak,
            recompute: self.recompute.map(RecomputeMultiplier::get),
            headroom: self.headroom.map(Headroom::get),
            gpus_per_replica: self.gpus_per_replica.map(NonZeroU32::get),
            scenarios: self.scenarios.iter().map(ToString::to_string).collect(),
        }
    }

    /// As a run kept it.
    ///
    /// # Errors
    /// When a quantity makes no sense.
    pub fn kept(record: &DemandRecord) -> anyhow::Result<Self> {
        let read = || {
            anyhow::Ok(Self {
                average_rps: record.average_rps.map(VisibleRate::new).transpose()?,
                peak_rps: record.peak_rps.map(VisibleRate::new).transpose()?,
                peak_window: record.peak_window_s.map(Nanos::from_secs_f64),
                average_as_peak: record.average_as_peak,
                recompute: record.recompute.map(RecomputeMultiplier::new).transpose()?,
                headroom: record.headroom.map(Headroom::new).transpose()?,
                gpus_per_replica: record.gpus_per_replica.and_then(NonZeroU32::new),
                scenarios: record.scenarios.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            })
        };
        read().context("cannot read what the run's plan was asked")
    }

    /// The inputs of a plan with what was given in place of what is assumed.
    #[must_use]
    pub fn apply(&self, inputs: PlanInputs) -> PlanInputs {
        let peak = match (self.peak_rps, self.peak_window) {
            (Some(rate), Some(window)) => Some(Peak::Planned { rate, window }),
            _ => self.average_as_peak.then_some(Peak::AverageOnPurpose),
        };
        PlanInputs {
            average: self.average_rps.map_or(inputs.average, Input::given),
            peak: peak.or(inputs.peak),
            recompute: self.recompute.map_or(inputs.recompute, Input::given),
            headroom: self.headroom.map_or(inputs.headroom, Input::given),
            gpus_per_replica: self.gpus_per_replica.unwrap_or(inputs.gpus_per_replica),
            scenarios: inputs.scenarios.into_iter().chain(self.scenarios.iter().cloned()).collect(),
            ..inputs
        }
    }

    /// The inputs with what a file of them gives in place of what is assumed.
    ///
    /// # Errors
    /// When a quantity makes no sense.
    pub(super) fn apply_file(file: &PlanFile, name: &str, inputs: PlanInputs) -> anyhow::Result<PlanInputs> {
        let from = || PlanFile::provenance(name);
        let window = Nanos::from_secs_f64(file.peak_window_s.unwrap_or(60.0));
        let peak = file.peak_rps.map(VisibleRate::new).transpose()?.map(|rate| Peak::Planned { rate, window });
        let unstated = (file.peak_rps.is_some() && file.peak_window_s.is_none()).then(|| window_unstated(name));
        let own = file.scenarios.iter().map(scenario_of).collect::<anyhow::Result<Vec<_>>>()?;
        let average = file.average_rps.map(VisibleRate::new).transpose()?;
        let recompute = file.recompute.map(RecomputeMultiplier::new).transpose()?;
        let headroom = file.headroom.map(Headroom::new).transpose()?;
        Ok(PlanInputs {
            average: average.map_or(inputs.average, |value| Input { value, provenance: from() }),
            peak: peak.or(inputs.peak),
            recompute: recompute.map_or(inputs.recompute, |value| Input { value, provenance: from() }),
            headroom: headroom.map_or(inputs.headroom, |value| Input { value, provenance: from() }),
            gpus_per_replica: file.gpus_per_replica.and_then(NonZeroU32::new).unwrap_or(inputs.gpus_per_replica),
            scenarios: inputs.scenarios.into_iter().chain(own).collect(),
            doubts: inputs.doubts.into_iter().chain(unstated).collect(),
            ..inputs
        })
    }
}

/// The same traffic has a far higher peak over a second than over a minute.
fn window_unstated(file: &str) -> Finding {
    Finding::new(
        "peak_window_not_stated",
        Severity::Warning,
        format!("`{file}` gives a peak and not the window that it is a rate over; a minute was taken"),
        "Give `peak_window_s` beside `peak_rps`: one trace's peak is 26 times its mean over a second and 3.8 times over a minute",
    )
}

fn scenario_of(scenario: &FileScenario) -> anyhow::Result<Scenario> {
    let lasts = match scenario.lasts.as_deref() {
        None => Lasts::NotStated,
        Some("hours") => Lasts::Hours,
        Some("days") => Lasts::Days,
        Some(other) => anyhow::bail!("a scenario lasts `hours` or `days`, not `{other}`"),
    };
    let times_average = LoadMultiplier::new(scenario.times_average)?;
    let recompute = scenario.recompute.map(RecomputeMultiplier::new).transpose()?;
    Ok(Scenario { name: scenario.name.clone(), times_average, lasts, recompute })
}

fn read_number<T>(text: &str, quantity: fn(f64) -> Result<T, NotAQuantity>) -> Result<T, String> {
    let number = text.parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 0.25 or 40"))?;
    quantity(number).map_err(|refused| refused.to_string())
}

fn read_visible(text: &str) -> Result<VisibleRate, String> {
    read_number(text, VisibleRate::new)
}

/// Inference calls/s per GPU.
pub(super) fn read_throughput(text: &str) -> Result<CallRatePerGpu, String> {
    read_number(text, CallRatePerGpu::new)
}

fn read_recompute(text: &str) -> Result<RecomputeMultiplier, String> {
    read_number(text, RecomputeMultiplier::new)
}

pub(in crate::cli) fn read_headroom(text: &str) -> Result<Headroom, String> {
    read_number(text, Headroom::new)
}

fn read_scenario(text: &str) -> Result<Scenario, ScenarioError> {
    text.parse()
}

fn read_window(text: &str) -> Result<Nanos, String> {
    length_of_time::read(text).map(|length| Nanos::from_secs_f64(length.as_secs_f64()))
}
