//! `throughput_per_gpu` from the result of another tool: its best load level that meets the SLO by the percentiles it has.
//!
//! Weaker than a measured one in every way, and says so: each lack of the file becomes a finding of the plan. No percentile is
//! interpolated: an objective that the file has no percentile for is refused.

use std::num::NonZeroU32;

use crate::capacity::call_latency::CallLatency;
use crate::capacity::mix::TokenMix;
use crate::capacity::operating::{Measured, Operating};
use crate::capacity::throughput::{Basis, Provenance, Throughput};
use crate::record::finding::{Finding, Severity};
use crate::record::imported::{Imported, Load, Point, each_once};
use crate::record::slo::{Objective, Slo};
use crate::stats::early_stopping::{CONFIDENCE, requests_needed};
use crate::units::rate::CallRatePerGpu;

/// Why there is nothing to plan with in foreign results.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoImported {
    /// Nobody says how many GPUs were measured (exit 2).
    #[error("`{file}` does not say how many GPUs the deployment owns. Give them with `--gpus`")]
    GpusNotStated {
        /// Which.
        file: String,
    },
    /// An objective asks for a percentile that is not there (exit 65).
    #[error("cannot judge `{objective}`: {files} {known}. State the objective at a percentile that is there")]
    Percentile {
        /// Which.
        objective: String,
        /// The files that were read.
        files: String,
        /// What they have of that metric.
        known: String,
    },
    /// A level has no rate (exit 65).
    #[error("cannot plan from `{file}`: {why}. Measure it again")]
    NoRate {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// No level meets the SLO (exit 3).
    #[error("no load level of {files} meets `{slo}`: {nearest}. Relax the SLO, or measure at a lower load")]
    SloUnmet {
        /// The files that were read.
        files: String,
        /// The SLO.
        slo: String,
        /// The lowest load, and what it breaks.
        nearest: String,
    },
}

/// A level that can be judged.
struct Judged<'a> {
    result: &'a Imported,
    point: &'a Point,
    /// Calls/s per GPU.
    rate: CallRatePerGpu,
    /// The first objective it breaks, and how.
    broken: Option<String>,
}

impl Throughput {
    /// From the results of another tool, at an SLO. `gpus` is what the deployment owns, and goes before what files say.
    ///
    /// # Errors
    /// When GPUs or percentiles are not stated, or no level meets the SLO.
    pub fn imported(results: &[Imported], slo: &Slo, gpus: Option<NonZeroU32>) -> Result<Self, NoImported> {
        let files = results.iter().map(|result| format!("`{}`", result.file)).collect::<Vec<_>>().join(", ");
        let levels = results.iter().flat_map(|result| result.points.iter().map(move |point| (result, point)));
        let mut judged = Vec::new();
        for (result, point) in levels {
            if slo.objectives.iter().all(|objective| point.of(objective.metric).get(objective.percentile).is_some()) {
                judged.push(judge(result, point, slo, gpus)?);
            }
        }
        if judged.is_empty() {
            return Err(not_there(results, slo, files));
        }
        let best = judged.iter().filter(|level| level.broken.is_none()).max_by(|one, other| one.rate.get().total_cmp(&other.rate.get()));
        let Some(best) = best else {
            let lowest = judged.iter().min_by(|one, other| one.rate.get().total_cmp(&other.rate.get()));
            let nearest = lowest.map(|level| format!("at {}, {}", words(level.point.load), level.broken.clone().unwrap_or_default()));
            return Err(NoImported::SloUnmet { files, slo: slo.to_string(), nearest: nearest.unwrap_or_default() });
        };
        Ok(Self {
            planned: best.rate,
            basis: Basis::ImportedLevel,
            point: best.rate,
            ends: None,
            slo: Some(slo.to_string()),
            provenance: Provenance::Imported { tool: best.result.tool.to_owned(), file: best.result.file.clone() },
            labels: vec![format!("measured by {}, not by plimsoll", best.result.tool)],
            device_noun: "GPU",
            quick: false,
            run_complete: true,
            calls_in_flight: None,
            mix: best.mix(),
            operating: Operating { call: best.call(), measured: best.measured(), ..Operating::default() },
            doubts: doubts(best, &judged, slo, gpus),
        })
    }
}

impl Judged<'_> {
    fn mix(&self) -> Option<TokenMix> {
        Some(TokenMix { input: self.point.mean_input_tokens?, output: self.point.mean_output_tokens? })
    }

    fn call(&self) -> Option<CallLatency> {
        let e2e = &self.point.e2e_ms;
        let quantiles: Vec<(f64, f64)> = e2e.at.iter().map(|(percentile, value)| (percentile / 100.0, *value)).collect();
        let known = !quantiles.is_empty();
        Some(CallLatency { calls_per_s_per_gpu: self.rate.get(), mean_ms: e2e.mean?, quantiles }).filter(|_| known)
    }

    fn measured(&self) -> Measured {
        Measured { requests: self.point.completed, ..Measured::default() }
    }
}

fn judge<'a>(result: &'a Imported, point: &'a Point, slo: &Slo, gpus: Option<NonZeroU32>) -> Result<Judged<'a>, NoImported> {
    let owned = gpus.or_else(|| NonZeroU32::new(point.gpus?));
    let owned = owned.ok_or_else(|| NoImported::GpusNotStated { file: result.file.clone() })?;
    let per_gpu = point.calls_per_s / f64::from(owned.get());
    let rate = CallRatePerGpu::new(per_gpu).map_err(|wrong| NoImported::NoRate { file: result.file.clone(), why: wrong.to_string() })?;
    let broken = slo.objectives.iter().find_map(|objective| breaks(point, objective));
    Ok(Judged { result, point, rate, broken })
}

/// How a level breaks an objective. The percentiles are of calls that completed, and each one that failed is a miss: more of
/// them than misses are allowed break it whatever the others did.
fn breaks(point: &Point, objective: &Objective) -> Option<String> {
    let value = point.of(objective.metric).get(objective.percentile)?;
    if value >= objective.limit.as_millis_f64() {
        return Some(format!("`{objective}` is broken by {value:.3} ms"));
    }
    let failed = point.failed_share().filter(|share| *share > objective.allowed_miss_share())?;
    Some(format!("`{objective}` is broken by {:.2} % of the calls, which failed", failed * 100.0))
}

/// The first objective that no level has the percentile of, or all of them together.
fn not_there(results: &[Imported], slo: &Slo, files: String) -> NoImported {
    let points = || results.iter().flat_map(|result| &result.points);
    let absent = |objective: &&Objective| points().all(|point| point.of(objective.metric).get(objective.percentile).is_none());
    let objective = slo.objectives.iter().find(absent).or(slo.objectives.first());
    let Some(objective) = objective else {
        return NoImported::Percentile { objective: slo.to_string(), files, known: "have no percentile for it".to_owned() };
    };
    let known = points().map(|point| point.of(objective.metric)).max_by_key(|quantiles| quantiles.at.len());
    let names = known.map(crate::record::imported::Quantiles::names).filter(|names| !names.is_empty());
    let verb = if results.len() == 1 { "has" } else { "have" };
    let known = match names {
        Some(names) => format!("{verb} {names} of {}", objective.metric.name()),
        None => format!("{verb} no {}", objective.metric.name()),
    };
    NoImported::Percentile { objective: objective.to_string(), files, known }
}

fn words(load: Load) -> String {
    match load {
        Load::Closed { concurrency } => format!("{concurrency} in flight"),
        Load::Open { calls_per_s } => format!("{calls_per_s} calls/s"),
        Load::NotStated => "a load that is not stated".to_owned(),
    }
}

/// What a reader of the plan must know of the level it stands on.
fn doubts(best: &Judged<'_>, judged: &[Judged<'_>], slo: &Slo, gpus: Option<NonZeroU32>) -> Vec<Finding> {
    let lacks = each_once(best.result.lacks.clone());
    // GPUs that were given are no longer lacking.
    let mut found =
        lacks.iter().filter(|lack| !(lack.code() == "gpus_not_stated" && gpus.is_some())).map(|lack| lack.finding()).collect::<Vec<_>>();
    if let Load::Closed { concurrency } = best.point.load {
        found.push(Finding::new(
            "imported_closed_loop",
            Severity::Serious,
            format!(
                "throughput_per_gpu was reached with {concurrency} requests in flight, always: a slow answer held the next request back, as users do not"
            ),
            "Measure under arrivals by a schedule: `plimsoll bench`, or the other tool's request rate",
        ));
    }
    if judged.iter().all(|level| level.rate.get() <= best.rate.get()) {
        found.push(Finding::new(
            "imported_bound_unknown",
            Severity::Note,
            "no higher load was measured: capacity at this SLO may be higher",
            "Measure at higher loads, until the SLO is broken",
        ));
    }
    let completed = best.point.completed.unwrap_or(0);
    let needed = slo.objectives.iter().map(|objective| requests_needed(0, objective.allowed_miss_share(), CONFIDENCE)).max().unwrap_or(0);
    if completed > 0 && completed < needed {
        found.push(Finding::new(
            "imported_few_requests",
            Severity::Warning,
            format!("{completed} requests stand behind it, and this SLO needs {needed} without a miss to be claimed"),
            "Measure with more requests at this load",
        ));
    }
    if let (Some(given), Some(stated)) = (gpus, best.point.gpus)
        && given.get() != stated
    {
        found.push(Finding::new(
            "imported_gpus_overridden",
            Severity::Warning,
            format!("the file says {stated} GPUs, and the plan divides by the {given} that were given"),
            "Leave out `--gpus` unless the file is wrong",
        ));
    }
    found
}
