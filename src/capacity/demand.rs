//! Demand found in a log, as inputs of a plan: average, peak, recompute multiplier, each with the log as its source.
//!
//! A log of calls holds retries and hidden work already. Its rates are put in as successful outputs, calls divided by the multiplier,
//! so that the formula's `peak x recompute` is the log's own rate of calls and nothing is multiplied twice.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::capacity::evidence::needed_for;
use crate::capacity::mix::TokenMix;
use crate::capacity::outcome::OutcomeInputs;
use crate::capacity::plan::{Input, Intervals, Peak, PlanInputs, Sessions};
use crate::capacity::scenario::Scenario;
use crate::capacity::throughput::Provenance;
use crate::clock::Nanos;
use crate::record::demand::{ConcurrencySource, Demand, Hour, Lengths, LogKind, WindowRates};
use crate::record::finding::{Finding, Severity};
use crate::units::NotAQuantity;
use crate::units::rate::{RecomputeMultiplier, VisibleRate};

/// The scenario that a log's hours of an incident describe.
const INCIDENT: &str = "Incident recovery";

/// Successful outputs from which an hour tells a multiplier of its own.
const REQUESTS_OF_AN_HOUR: u64 = 30;

/// Which peak of a log is planned for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeakOf {
    /// Which quantile of the windows.
    pub quantile: PeakQuantile,
    /// Which windows.
    pub window: PeakWindow,
}

/// A quantile of the rates of windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeakQuantile {
    /// 95th percentile.
    P95,
    /// 99th percentile.
    #[default]
    P99,
    /// Largest.
    Max,
}

/// The length of the windows of a peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeakWindow {
    /// A second.
    Second,
    /// A minute.
    #[default]
    Minute,
    /// An hour.
    Hour,
}

impl PeakWindow {
    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

impl fmt::Display for PeakOf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantile = match self.quantile {
            PeakQuantile::P95 => "p95",
            PeakQuantile::P99 => "p99",
            PeakQuantile::Max => "max",
        };
        let window = match self.window {
            PeakWindow::Second => "1s",
            PeakWindow::Minute => "1m",
            PeakWindow::Hour => "1h",
        };
        write!(out, "{quantile}:{window}")
    }
}

/// The text names no peak.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no peak of a log. Write a quantile and a window: p95, p99 or max of 1s, 1m or 1h, such as `p99:1m`")]
pub struct NoSuchPeak(String);

impl FromStr for PeakOf {
    type Err = NoSuchPeak;

    fn from_str(text: &str) -> Result<Self, NoSuchPeak> {
        let refuse = || NoSuchPeak(text.to_owned());
        let (quantile, window) = text.split_once(':').ok_or_else(refuse)?;
        let quantile = match quantile {
            "p95" => PeakQuantile::P95,
            "p99" => PeakQuantile::P99,
            "max" => PeakQuantile::Max,
            _ => return Err(refuse()),
        };
        let window = match window {
            "1s" => PeakWindow::Second,
            "1m" => PeakWindow::Minute,
            "1h" => PeakWindow::Hour,
            _ => return Err(refuse()),
        };
        Ok(Self { quantile, window })
    }
}

/// A demand that cannot be planned from.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoDemand {
    /// It holds no rates.
    #[error("the demand in `{0}` holds no rate: its log has no calls, or all at once. Give a longer log to `plimsoll demand`")]
    Empty(String),
    /// A rate is none.
    #[error("the demand in `{file}` cannot be planned from: {wrong}. Find it again with `plimsoll demand`")]
    Rate {
        /// File.
        file: String,
        /// What is wrong with it.
        wrong: NotAQuantity,
    },
}

/// The inputs with what the log says in place of what is assumed.
///
/// # Errors
/// When the demand holds no rates.
pub fn apply(demand: &Demand, file: &str, peak: PeakOf, inputs: PlanInputs) -> Result<PlanInputs, NoDemand> {
    let empty = || NoDemand::Empty(file.to_owned());
    let rates = windows(demand, peak.window).ok_or_else(empty)?;
    let wrong = |wrong| NoDemand::Rate { file: file.to_owned(), wrong };
    let logged = || Provenance::Logged { file: file.to_owned() };
    let multiplier = demand.recompute.and_then(|found| found.multiplier());
    let recompute = match (demand.log, multiplier) {
        (LogKind::Calls, Some(multiplier)) => Some(RecomputeMultiplier::new(multiplier).map_err(wrong)?),
        // Whatever is hidden behind a visible request stands in the log of calls already.
        (LogKind::Calls, None) => Some(RecomputeMultiplier::ONE),
        (LogKind::VisibleRequests, _) => None,
    };
    let visible = |rps: f64| VisibleRate::new(rps / recompute.map_or(1.0, RecomputeMultiplier::get)).map_err(wrong);
    let average = visible(mean_rate(demand).ok_or_else(empty)?)?;
    let incident = demand.recompute.and_then(|found| found.incident_multiplier());
    let incident = incident.map(RecomputeMultiplier::new).transpose().map_err(wrong)?;
    let scenarios = inputs
        .scenarios
        .into_iter()
        .map(|scenario| Scenario { recompute: scenario.recompute.or(incident.filter(|_| scenario.name == INCIDENT)), ..scenario });
    let sessions = sessions(demand);
    let doubts = demand.findings.iter().filter(|finding| finding.severity > Severity::Note).map(of_the_log);
    let doubts = doubts.chain(few_windows(rates, peak));
    Ok(PlanInputs {
        average: Input { value: average, provenance: logged() },
        peak: Some(Peak::Logged {
            rate: visible(rate_of(rates, peak.quantile))?,
            of: peak,
            window: Nanos::from_secs(peak.window.seconds()),
        }),
        recompute: recompute.map_or(inputs.recompute, |value| Input { value, provenance: logged() }),
        scenarios: scenarios.collect(),
        log: Some(demand.log),
        calls_in_flight: inputs.calls_in_flight.or_else(|| {
            let calls = sessions.filter(|sessions| sessions.are_calls)?;
            Some(Input { value: calls.most, provenance: logged() })
        }),
        sessions,
        intervals: Intervals {
            peak: visible(rates.p95_rps).ok().zip(visible(rates.max_rps).ok()).map(|(low, high)| (low.get(), high.get())),
            recompute: recompute.and_then(|_| by_hour(demand)),
        },
        gap_cv: demand.gap_cv,
        prompt_p99: demand.input_tokens.as_ref().map(|lengths| lengths.p99),
        outcome: OutcomeInputs { logged_ms: outcomes(demand).cloned(), calls: demand.calls_of_outcomes.clone(), ..inputs.outcome },
        mix: mix(demand).map(|value| Input { value, provenance: logged() }).or(inputs.mix),
        doubts: inputs.doubts.into_iter().chain(doubts).collect(),
        ..inputs
    })
}

fn windows(demand: &Demand, window: PeakWindow) -> Option<&WindowRates> {
    demand.rates.iter().find(|rates| rates.window_s as u64 == window.seconds())
}

/// The mean rate that plans are made with, lines of the log/s, whichever peak they are for: hours that the log covers in part would
/// make it too low.
#[must_use]
pub fn mean_rate(demand: &Demand) -> Option<f64> {
    Some(windows(demand, PeakWindow::Minute)?.mean_rps)
}

/// A line of a log of visible requests is an outcome by itself.
fn outcomes(demand: &Demand) -> Option<&Lengths> {
    let of_lines = demand.latency_ms.as_ref().filter(|_| demand.log == LogKind::VisibleRequests);
    demand.outcome_ms.as_ref().or(of_lines)
}

/// What was going on at once. Sessions hold a call only some of the time; what the column is called tells them apart.
fn sessions(demand: &Demand) -> Option<Sessions> {
    let found = demand.concurrency.as_ref()?;
    let column = demand.columns.get("concurrent").map_or("", String::as_str);
    let are_calls = found.source == ConcurrencySource::Counted || !column.to_lowercase().contains("session");
    Some(Sessions { most: found.at_peak_minute.unwrap_or(found.max) as f64, are_calls })
}

/// The lowest and the highest multiplier of hours that have enough requests to tell one.
fn by_hour(demand: &Demand) -> Option<(f64, f64)> {
    let multipliers = demand.hours.iter().filter(|hour| hour.succeeded >= REQUESTS_OF_AN_HOUR).filter_map(Hour::multiplier);
    multipliers.fold(None, |ends: Option<(f64, f64)>, next| Some(ends.map_or((next, next), |(low, high)| (low.min(next), high.max(next)))))
}

/// A quantile of windows needs windows beyond it.
fn few_windows(rates: &WindowRates, peak: PeakOf) -> Option<Finding> {
    let quantile = match peak.quantile {
        PeakQuantile::P95 => 0.95,
        PeakQuantile::P99 => 0.99,
        PeakQuantile::Max => return None,
    };
    let needed = needed_for(quantile);
    (rates.windows < needed).then(|| {
        Finding::new(
            "peak_from_few_windows",
            Severity::Warning,
            format!("the peak {peak} comes from {} windows; {needed} leave ten beyond it", rates.windows),
            "Give a longer log, or plan for the largest window: `--peak-of max:1m`",
        )
    })
}

fn mix(demand: &Demand) -> Option<TokenMix> {
    Some(TokenMix { input: demand.input_tokens.as_ref()?.mean, output: demand.output_tokens.as_ref()?.mean })
}

fn rate_of(rates: &WindowRates, quantile: PeakQuantile) -> f64 {
    match quantile {
        PeakQuantile::P95 => rates.p95_rps,
        PeakQuantile::P99 => rates.p99_rps,
        PeakQuantile::Max => rates.max_rps,
    }
}

fn of_the_log(finding: &Finding) -> Finding {
    Finding { evidence: format!("in the log: {}", finding.evidence), ..finding.clone() }
}
