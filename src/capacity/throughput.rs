//! `throughput_per_gpu` as a plan takes it: from a measured run, another tool's result (`capacity::imported`), or typed by hand, and it
//! says which.
//!
//! A plan divides by the lower end of the measured interval. Without an SLO, a confirmed or at least bracketed rate
//! and a machine that held still, there is no number to plan with: the refusal says why and what to run.

use serde::Serialize;

use crate::capacity::call_latency::CallLatency;
use crate::capacity::mix::TokenMix;
use crate::capacity::operating::Operating;
use crate::curve::load_latency::{Reading, capacity_at};
use crate::record::finding::Finding;
use crate::record::run::{Headline, HeadlineStatus, RunRecord, RunStatus};
use crate::record::slo::Slo;
use crate::units::NotAQuantity;
use crate::units::rate::CallRatePerGpu;

/// Where an input of a plan comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Provenance {
    /// Measured by that run.
    Measured {
        /// Its id.
        run: String,
    },
    /// Read from the result of another tool.
    Imported {
        /// Which.
        tool: String,
        /// As it was named.
        file: String,
    },
    /// Found in a log of requests.
    Logged {
        /// Where the demand was kept.
        file: String,
    },
    /// Given in a file of plan inputs.
    File {
        /// Which.
        file: String,
    },
    /// Given by the person who plans.
    Given,
    /// Nobody knows it: a guess that the plan depends on.
    Assumed,
    /// The capacity model's usual choice.
    Default,
}

/// Which number of a measurement the plan divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The lower end of the 95 % interval over confirmation runs.
    LowerEnd,
    /// The highest rate that passed in a single run.
    PassingEnd,
    /// Read from the load-latency curve at another SLO than the one that was searched for, and as far below as the lower end is.
    FromCurve,
    /// The best load level of another tool's result that meets the SLO.
    ImportedLevel,
    /// The number as given.
    AsGiven,
}

/// What one GPU sustains at the SLO.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// What the formula divides by.
    pub planned: CallRatePerGpu,
    /// Which number that is.
    pub basis: Basis,
    /// The published figure.
    pub point: CallRatePerGpu,
    /// Both ends of the interval, or of the bracket of a single run; `None` where it was given.
    pub ends: Option<(CallRatePerGpu, CallRatePerGpu)>,
    /// The objectives it holds at; `None` where it was given.
    pub slo: Option<String>,
    /// Measured, or given.
    pub provenance: Provenance,
    /// What must stand beside every number made of it.
    pub labels: Vec<String>,
    /// What is counted: `GPU`, or `device` where no GPU was measured.
    pub device_noun: &'static str,
    /// Whether windows were short and quantiles low (`--quick`): indicative.
    pub quick: bool,
    /// Whether the run went to its end.
    pub run_complete: bool,
    /// Mean calls in flight on one GPU at the published rate; `None` where that was not measured.
    pub calls_in_flight: Option<f64>,
    /// Mean tokens of the calls that it was measured with.
    pub mix: Option<TokenMix>,
    /// What else is known of one GPU at that rate.
    pub operating: Operating,
    /// What is known against an imported number; a plan has them among its findings.
    #[serde(skip)]
    pub doubts: Vec<Finding>,
}

/// There is nothing to plan with. Each kind ends the process with a code of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCapacity {
    /// The SLO does not hold at any load (exit 3).
    #[error("run `{run}` has no capacity: {why}. {remedy}")]
    SloUnmet {
        /// Run id.
        run: String,
        /// What happened.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The measurement cannot be trusted (exit 4).
    #[error("run `{run}` cannot be planned with: {why}. {remedy}")]
    Invalid {
        /// Run id.
        run: String,
        /// What happened.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Nothing was decided (exit 5).
    #[error("run `{run}` has no `throughput_per_gpu`: {why}. {remedy}")]
    Undecided {
        /// Run id.
        run: String,
        /// What happened.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
}

const RUN_LONGER: &str = "Run `plimsoll bench` again on a quiet machine, without `--quick` or with a larger `--budget`";
const RUN_AGAIN: &str = "Run `plimsoll bench` again, on a machine that does nothing else";

impl Throughput {
    /// Typed by hand.
    #[must_use]
    pub fn given(rate: CallRatePerGpu) -> Self {
        Self {
            planned: rate,
            basis: Basis::AsGiven,
            point: rate,
            ends: None,
            slo: None,
            provenance: Provenance::Given,
            labels: Vec::new(),
            device_noun: "GPU",
            quick: false,
            run_complete: true,
            calls_in_flight: None,
            mix: None,
            operating: Operating::default(),
            doubts: Vec::new(),
        }
    }

    /// From a measured run.
    ///
    /// # Errors
    /// When the run has no number to plan with.
    pub fn measured(run: &RunRecord) -> Result<Self, NoCapacity> {
        let headline = usable_headline(run)?;
        let invalid = |why: String| NoCapacity::Invalid { run: run.id.clone(), why, remedy: RUN_AGAIN };
        let rate = |per_second: f64| CallRatePerGpu::new(per_second).map_err(|wrong: NotAQuantity| invalid(wrong.to_string()));
        let point = headline.throughput_per_gpu.ok_or_else(|| invalid("its headline says confirmed and has no number".to_owned()))?;
        let (basis, low, high) = match (headline.interval, headline.bracket) {
            (Some(interval), _) => (Basis::LowerEnd, interval.low, interval.high),
            (None, Some((passed, failed))) => (Basis::PassingEnd, passed, failed),
            (None, None) => (Basis::PassingEnd, point, point),
        };
        if low > high {
            return Err(invalid(format!("its interval runs from `{low}` down to `{high}`")));
        }
        let slo = run.slo.as_ref().ok_or_else(|| invalid("it names no SLO, and without one there is no capacity".to_owned()))?;
        // `rate` refuses a lower end at or under 0: the runs then disagree too much to plan with.
        Ok(Self {
            planned: rate(low)?,
            basis,
            point: rate(point)?,
            ends: Some((rate(low)?, rate(high)?)),
            slo: Some(slo.to_string()),
            provenance: Provenance::Measured { run: run.id.clone() },
            labels: labels_of(run, headline),
            device_noun: run.target.device_noun(),
            quick: run.quick,
            run_complete: run.status == RunStatus::Complete,
            calls_in_flight: headline.calls_in_flight_per_gpu,
            mix: Some(TokenMix { input: run.workload.mean_input_tokens, output: run.workload.mean_output_tokens }),
            operating: Operating::of(run, low, headline.calls_in_flight_per_gpu),
            doubts: Vec::new(),
        })
    }
}

impl Throughput {
    /// From the load-latency curve of a measured run, at another SLO: without a new run, and only inside what was measured.
    ///
    /// The spread is that of the measured rate, carried over in proportion.
    ///
    /// # Errors
    /// When the run cannot be planned with, or its curve does not reach this SLO.
    pub fn measured_at(run: &RunRecord, slo: &Slo) -> Result<Self, NoCapacity> {
        let measured = Self::measured(run)?;
        let not_measured = |why: String| NoCapacity::Undecided {
            run: run.id.clone(),
            why: format!("at `{slo}` it is not measured: {why}"),
            remedy: "Run `plimsoll bench` with this `--slo`",
        };
        let value = match capacity_at(&run.levels, slo) {
            Reading::Measured { value } => value,
            Reading::NotMeasuredBelow { lowest } => {
                return Err(not_measured(format!("it lies below the lowest load of the curve, {lowest:.3} calls/s")));
            }
            Reading::NotMeasuredAbove { highest } => {
                return Err(not_measured(format!("it lies above the highest load of the curve, {highest:.3} calls/s")));
            }
            Reading::NothingMeasured => {
                return Err(not_measured("levels keep p50, p90, p95 and p99 of what valid levels of the curve measured".to_owned()));
            }
        };
        let rate = |per_second: f64| CallRatePerGpu::new(per_second).map_err(|wrong| not_measured(wrong.to_string()));
        let in_proportion = |end: CallRatePerGpu| rate(value * end.get() / measured.point.get());
        let ends = match measured.ends {
            Some((low, high)) => Some((in_proportion(low)?, in_proportion(high)?)),
            None => None,
        };
        let planned = in_proportion(measured.planned)?;
        Ok(Self {
            planned,
            basis: Basis::FromCurve,
            point: rate(value)?,
            ends,
            slo: Some(slo.to_string()),
            // Those of another rate.
            calls_in_flight: None,
            operating: Operating { call: CallLatency::at_load(&run.levels, planned.get()), ..measured.operating },
            ..measured
        })
    }
}

/// The headline, if the method allows planning with it.
fn usable_headline(run: &RunRecord) -> Result<&Headline, NoCapacity> {
    let id = || run.id.clone();
    let Some(headline) = &run.headline else {
        let why = "it ended before the search for the highest load within the SLO".to_owned();
        return Err(NoCapacity::Undecided { run: id(), why, remedy: "Finish it with `plimsoll bench --resume`, or run `plimsoll bench`" });
    };
    if let Some(drift) = run.drift.filter(|drift| drift.exceeded() || !drift.change().is_finite()) {
        let (change, limit) = (drift.change() * 100.0, drift.accepted() * 100.0);
        let why = format!("the reference level moved by {change:+.1} % between start and end (limit {limit:.1} %)");
        return Err(NoCapacity::Invalid { run: id(), why, remedy: RUN_AGAIN });
    }
    let explained = |otherwise: &str| {
        let said = headline.explanation.trim().trim_end_matches('.');
        if said.is_empty() { otherwise.to_owned() } else { said.to_owned() }
    };
    match headline.status {
        HeadlineStatus::Confirmed | HeadlineStatus::BracketOnly => Ok(headline),
        HeadlineStatus::SloUnmetAtMinimum => Err(NoCapacity::SloUnmet {
            run: id(),
            why: explained("the SLO is broken at the lowest load that was tried"),
            remedy: "Relax the SLO, or measure a smaller model or a faster device",
        }),
        HeadlineStatus::NoValidBound => {
            Err(NoCapacity::Invalid { run: id(), why: explained("no valid level bounds the rate"), remedy: RUN_AGAIN })
        }
        HeadlineStatus::Drift => Err(NoCapacity::Invalid { run: id(), why: explained("the reference level drifted"), remedy: RUN_AGAIN }),
        HeadlineStatus::Undecided => {
            Err(NoCapacity::Undecided { run: id(), why: explained("no level could be decided"), remedy: RUN_LONGER })
        }
        HeadlineStatus::OutOfBudget => {
            Err(NoCapacity::Undecided { run: id(), why: explained("the budget ran out before the search ended"), remedy: RUN_LONGER })
        }
        HeadlineStatus::NotReached => Err(NoCapacity::Undecided {
            run: id(),
            why: explained("it ended before the search"),
            remedy: "Finish it with `plimsoll bench --resume`, or run `plimsoll bench`",
        }),
    }
}

/// All labels that the number carries, each once, in order of appearance.
fn labels_of(run: &RunRecord, headline: &Headline) -> Vec<String> {
    let mut labels = Vec::<String>::new();
    for label in run.labels.iter().chain(&run.target.labels).chain(&run.workload.labels).chain(&headline.labels) {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels
}
