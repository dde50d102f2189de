//! From a search and its confirmation to the number a planner takes, in the words a sceptical buyer needs.

use crate::campaign::confirmation::{Confirmed, Status};
use crate::campaign::search::{Found, Stop};
use crate::record::level::{LevelRecord, Purpose};
use crate::record::run::{Drift, Headline, HeadlineStatus};
use crate::stats::interval::Interval;

/// The headline of a finished search; everything per device.
#[must_use]
pub fn of(found: &Found, confirmed: Option<&Confirmed>, levels: &[LevelRecord], devices: f64) -> Headline {
    let per_gpu = |rate: f64| rate / devices;
    let Some(confirmed) = confirmed else { return unconfirmed(found, devices) };
    let status = match confirmed.status {
        Status::Confirmed => HeadlineStatus::Confirmed,
        Status::BracketOnly => HeadlineStatus::BracketOnly,
        Status::Undecided => HeadlineStatus::Undecided,
        Status::Invalid => HeadlineStatus::NoValidBound,
    };
    let usable = matches!(status, HeadlineStatus::Confirmed | HeadlineStatus::BracketOnly);
    let rate = confirmed.rate.filter(|_| usable);
    let at = rate.and_then(|rate| Around::rate(levels, rate));
    Headline {
        status,
        throughput_per_gpu: rate.map(per_gpu),
        interval: confirmed.interval.filter(|_| usable).map(|interval| Interval {
            low: per_gpu(interval.low),
            high: per_gpu(interval.high),
            confidence: interval.confidence,
        }),
        bracket: confirmed.pass.zip(confirmed.fail).map(|(pass, fail)| (per_gpu(pass), per_gpu(fail))),
        runs: confirmed.runs,
        goodput_per_gpu: at.as_ref().map(|at| per_gpu(at.goodput)),
        output_tokens_per_s_per_gpu: at.as_ref().map(|at| per_gpu(at.tokens)),
        calls_in_flight_per_gpu: at.as_ref().map(|at| per_gpu(at.in_flight)),
        labels: Vec::new(),
        explanation: explanation(found, confirmed),
    }
}

/// What there is to say when the budget was spent before there was a number: bounds that were found stay.
#[must_use]
pub fn out_of_budget(so_far: Option<Headline>) -> Headline {
    let so_far = so_far.unwrap_or_else(nothing);
    let known = if so_far.explanation.is_empty() { String::new() } else { format!("{}; ", so_far.explanation) };
    Headline {
        status: HeadlineStatus::OutOfBudget,
        throughput_per_gpu: None,
        interval: None,
        explanation: format!("{known}the budget was spent first. Go on with `plimsoll bench --resume ID --budget TIME`"),
        ..so_far
    }
}

/// A reference level that moved too far takes the number away: it belongs to no one state of the machine.
pub fn judge_drift(headline: &mut Headline, drift: &Drift) {
    if drift.exceeded() && headline.throughput_per_gpu.is_some() {
        headline.status = HeadlineStatus::Drift;
        headline.explanation = format!(
            "the reference level moved by {:+.1} % between start and end (limit {:.0} %), so the number {:.4} calls/s belongs to no one state of the machine. Run again on a quiet machine",
            drift.change() * 100.0,
            drift.limit * 100.0,
            headline.throughput_per_gpu.unwrap_or_default(),
        );
        headline.throughput_per_gpu = None;
        headline.interval = None;
    }
}

/// How a search ended, in words.
#[must_use]
pub fn in_words(found: &Found) -> String {
    let (pass, fail) = (rate_in_words(found.pass), rate_in_words(found.fail));
    let bounds = format!("highest decided pass {pass}, lowest decided fail {fail} after {} probes", found.probes);
    let gap = found.gap.map_or(String::new(), |(low, high)| format!("; {low:.3} to {high:.3} calls/s could not be decided"));
    let stop = match found.stop {
        Stop::Converged => "search converged",
        Stop::SloUnmetAtMinimum => "the SLO is broken at the lowest load that was tried",
        Stop::Undecided => "search undecided",
        Stop::Budget => "search out of budget",
        Stop::GeneratorCeiling => "the highest rate the generator is good for still passes",
    };
    format!("{stop}: {bounds}{gap}")
}

fn unconfirmed(found: &Found, devices: f64) -> Headline {
    let status = match found.stop {
        Stop::SloUnmetAtMinimum => HeadlineStatus::SloUnmetAtMinimum,
        Stop::Undecided | Stop::Budget if found.probes > 0 && found.pass.is_none() && found.fail.is_none() => HeadlineStatus::NoValidBound,
        Stop::Budget => HeadlineStatus::OutOfBudget,
        Stop::Converged | Stop::Undecided | Stop::GeneratorCeiling => HeadlineStatus::Undecided,
    };
    let bracket = found.pass.zip(found.fail).map(|(pass, fail)| (pass / devices, fail / devices));
    Headline { status, bracket, explanation: in_words(found), ..nothing() }
}

fn explanation(found: &Found, confirmed: &Confirmed) -> String {
    let confirmation = match confirmed.status {
        Status::Confirmed => format!("confirmed by {} fresh runs", confirmed.runs),
        Status::BracketOnly => "interval: bracket only (1 run)".to_owned(),
        Status::Undecided => undecided(confirmed),
        Status::Invalid => "not confirmed: its levels stayed invalid".to_owned(),
    };
    format!("{}; {confirmation}", in_words(found))
}

/// What fresh runs came to that decided no pass with a fail above it.
fn undecided(confirmed: &Confirmed) -> String {
    let estimate = match (confirmed.pass, confirmed.fail, confirmed.measured) {
        (None, None, Some((below, above))) => {
            format!("estimate between measured rates {below:.3} and {above:.3} calls/s, neither decided")
        }
        (pass, fail, _) => format!("highest decided pass {}, lowest decided fail {}", rate_in_words(pass), rate_in_words(fail)),
    };
    format!("not confirmed: {} fresh runs together decided no rate that passes with a higher one that fails; {estimate}", confirmed.runs)
}

fn rate_in_words(rate: Option<f64>) -> String {
    rate.map_or("none".to_owned(), |rate| format!("{rate:.3} calls/s"))
}

fn nothing() -> Headline {
    Headline {
        status: HeadlineStatus::NotReached,
        throughput_per_gpu: None,
        interval: None,
        bracket: None,
        runs: 0,
        goodput_per_gpu: None,
        output_tokens_per_s_per_gpu: None,
        calls_in_flight_per_gpu: None,
        labels: Vec::new(),
        explanation: String::new(),
    }
}

/// What else held at about the confirmed rate: means over the confirmation levels nearest to it.
struct Around {
    goodput: f64,
    tokens: f64,
    in_flight: f64,
}

impl Around {
    fn rate(levels: &[LevelRecord], rate: f64) -> Option<Self> {
        let distance = |level: &LevelRecord| (level.throughput.calls_per_s / rate).ln().abs();
        let confirmed = |level: &&LevelRecord| matches!(level.purpose, Purpose::Confirmation { .. }) && level.verdict.is_valid();
        let mut near: Vec<&LevelRecord> = levels.iter().filter(confirmed).collect();
        near.sort_by(|one, other| distance(one).total_cmp(&distance(other)));
        let runs: usize = near
            .iter()
            .map(|level| level.purpose.clone())
            .fold(Vec::new(), |mut seen, purpose| {
                if !seen.contains(&purpose) {
                    seen.push(purpose);
                }
                seen
            })
            .len();
        near.truncate(runs);
        let mean = |value: fn(&LevelRecord) -> f64| near.iter().map(|level| value(level)).sum::<f64>() / near.len() as f64;
        (!near.is_empty()).then(|| Self {
            goodput: mean(|level| level.slo.goodput_calls_per_s),
            tokens: mean(|level| level.throughput.output_tokens_per_s),
            in_flight: mean(|level| level.in_flight.mean),
        })
    }
}
