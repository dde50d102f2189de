//! Outcome latency, from the first call of a visible request to the end of its last, retries included, judged against an objective of its own.
//!
//! Judged twice: as the log has it, which is what users of the system that wrote it had, and as predicted at the rate that is planned
//! with. The prediction lets the calls of an outcome follow one another without a pause, each with the measured latency of a call.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::capacity::call_latency::CallLatency;
use crate::clock::Nanos;
use crate::record::demand::Lengths;
use crate::record::slo::Objective;
use crate::rng;
use crate::stats::quantile::of_sorted;

/// Outcomes that are drawn.
const DRAWS: u64 = 40_000;
/// A draw of more calls is cut: no outcome is worth waiting for so long.
const MOST_CALLS: u32 = 1000;
/// Seed of the draws: the same plan says the same.
const SEED: u64 = 0x6f75_7463_6f6d_6501;

/// At least `percentile` percent of outcomes stay under `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OutcomeObjective {
    /// In (0, 100).
    pub percentile: f64,
    /// An outcome at or over it is a miss.
    #[serde(rename = "limit_ns")]
    pub limit: Nanos,
}

/// The text is no objective of outcomes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read `{text}` as an objective of outcomes: {wrong}. Write a percentile and a limit, such as 'p95<8s', in quotes on a command line"
)]
pub struct OutcomeObjectiveError {
    text: String,
    wrong: String,
}

impl FromStr for OutcomeObjective {
    type Err = OutcomeObjectiveError;

    fn from_str(text: &str) -> Result<Self, OutcomeObjectiveError> {
        // End-to-end latency of a call is judged in the same words.
        let Objective { percentile, limit, .. } = format!("e2e:{text}")
            .parse()
            .map_err(|wrong: String| OutcomeObjectiveError { text: text.to_owned(), wrong: wrong.replace("e2e:", "") })?;
        Ok(Self { percentile, limit })
    }
}

impl fmt::Display for OutcomeObjective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "p{}<{}ms", self.percentile, (self.limit.as_millis_f64() * 1000.0).round() / 1000.0)
    }
}

/// What a plan knows of outcomes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OutcomeInputs {
    /// The objective; outcomes are not judged without one.
    pub objective: Option<OutcomeObjective>,
    /// Outcome latency in the log, milliseconds.
    pub logged_ms: Option<Lengths>,
    /// Calls of an outcome in the log.
    pub calls: Option<Lengths>,
}

/// An objective of outcomes, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutcomeJudgement {
    /// Which.
    pub objective: OutcomeObjective,
    /// In the log, at the objective's percentile, milliseconds; `None` where the log does not tell.
    pub logged_ms: Option<f64>,
    /// Outcomes behind that.
    pub logged: u64,
    /// At the planned rate; `None` where the latency of a call was not measured there.
    pub predicted: Option<Predicted>,
    /// Whether the objective is met; `None` where neither is known.
    pub met: Option<bool>,
}

/// Outcome latency as calls one after another come to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Predicted {
    /// Mean calls of an outcome.
    pub calls: f64,
    /// Whether calls are drawn as the log has them; else each outcome has the whole number below or above the mean.
    pub calls_of_log: bool,
    /// Mean, milliseconds: calls times the mean latency of a call.
    pub mean_ms: f64,
    /// At the objective's percentile, where each call is slow or quick by itself.
    pub independent_ms: f64,
    /// The same where all calls of an outcome are slow or quick together.
    pub together_ms: f64,
}

impl OutcomeJudgement {
    /// Of what is known; `recompute` is the mean of calls where the log has no distribution of them. `None` without an objective.
    #[must_use]
    pub fn of(inputs: &OutcomeInputs, recompute: f64, call: Option<&CallLatency>) -> Option<Self> {
        let objective = inputs.objective?;
        let share = objective.percentile / 100.0;
        let logged_ms = inputs.logged_ms.as_ref().and_then(|logged| quantile_of(logged, share));
        let predicted = call.map(|call| predict(inputs.calls.as_ref(), recompute, call, share));
        let limit = objective.limit.as_millis_f64();
        let under = [logged_ms, predicted.map(|predicted| predicted.independent_ms)].into_iter().flatten().map(|ms| ms < limit);
        let met = under.reduce(|one, other| one && other);
        Some(Self { objective, logged_ms, logged: inputs.logged_ms.as_ref().map_or(0, |logged| logged.count), predicted, met })
    }
}

/// At a share that is kept, or between two that are.
fn quantile_of(lengths: &Lengths, share: f64) -> Option<f64> {
    let named = [(0.50, lengths.p50), (0.95, lengths.p95), (0.99, lengths.p99), (1.0, lengths.max)];
    let mut known: Vec<(f64, f64)> = lengths.quantiles.iter().copied().chain(named).collect();
    known.sort_by(|one, other| one.0.total_cmp(&other.0));
    let above = known.iter().position(|(at, _)| *at >= share - 1e-9)?;
    let high = known[above];
    if high.0 <= share + 1e-9 {
        return Some(high.1);
    }
    let low = known[above.checked_sub(1)?];
    Some(low.1 + (high.1 - low.1) * (share - low.0) / (high.0 - low.0))
}

fn predict(calls: Option<&Lengths>, recompute: f64, call: &CallLatency, share: f64) -> Predicted {
    let of_log = calls.filter(|calls| !calls.quantiles.is_empty());
    let count = |at: f64| -> u32 {
        let count = match of_log {
            // Never fewer than the log has at the next share that is kept.
            Some(calls) => calls.quantiles.iter().find(|(kept, _)| *kept >= at).map_or(calls.max, |(_, count)| count.ceil()),
            None => recompute.floor() + f64::from(u8::from(at < recompute.fract())),
        };
        count.clamp(1.0, f64::from(MOST_CALLS)) as u32
    };
    let (mut independent, mut together) = (Vec::new(), Vec::new());
    let (numbers, latencies) = (rng::derive(SEED, "calls"), rng::derive(SEED, "latencies"));
    for draw in 0..DRAWS {
        let count = count(rng::uniform_at(numbers, draw));
        let latency = |of: u32| call.quantile(rng::uniform_at(latencies, draw * u64::from(MOST_CALLS) + u64::from(of)));
        together.push(f64::from(count) * latency(0));
        independent.push((0..count).map(latency).sum::<f64>());
    }
    let at_share = |mut drawn: Vec<f64>| {
        drawn.sort_by(f64::total_cmp);
        of_sorted(&drawn, share).unwrap_or(f64::INFINITY)
    };
    let mean_calls = of_log.map_or(recompute.max(1.0), |calls| calls.mean);
    Predicted {
        calls: mean_calls,
        calls_of_log: of_log.is_some(),
        mean_ms: mean_calls * call.mean_ms,
        independent_ms: at_share(independent),
        together_ms: at_share(together),
    }
}
