//! From a search and its confirmation to the number a planner takes, in the words a sceptical buyer needs.

use std::collections::BTreeMap;

use crate::campaign::confirmation::{Confirmed, Status};
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::{Drift, Headline, HeadlineStatus};
use crate::record::search::{Found, Stop};
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

/// What there is to say when no valid reference could be measured.
#[must_use]
pub fn no_reference(reference: &LevelRecord) -> Headline {
    let explanation = format!("the reference level stayed invalid ({}), so nothing can be compared with it", reference.verdict);
    Headline { status: HeadlineStatus::NoValidBound, explanation, ..nothing() }
}

/// What there is to say when one request alone misses too often.
#[must_use]
pub fn unmet_when_idle(broken: &str) -> Headline {
    let explanation = format!("the SLO is broken by one request alone, so no load meets it: {broken}");
    Headline { status: HeadlineStatus::SloUnmetAtMinimum, explanation, ..nothing() }
}

/// A reference level that moved too far takes the number away: it belongs to no one state of the machine. So does one
/// that cannot tell, but in a quick run, which is indicative anyway and gets a finding.
pub fn judge_drift(headline: &mut Headline, drift: Option<&Drift>, quick: bool) {
    let Some(number) = headline.throughput_per_gpu else { return };
    let (status, why) = match drift {
        None => (HeadlineStatus::NoValidBound, "no valid reference level was measured at the end".to_owned()),
        Some(drift) if drift.exceeded() => {
            let (change, accepted) = (drift.change() * 100.0, drift.accepted() * 100.0);
            let why = format!("the reference level moved by {change:+.1} % between start and end (limit {accepted:.1} %)");
            (HeadlineStatus::Drift, why)
        }
        Some(drift) if !drift.resolved() && !quick => (HeadlineStatus::Undecided, unresolved(drift)),
        Some(_) => return,
    };
    headline.status = status;
    headline.explanation =
        format!("{why}, so the number {number:.4} calls/s belongs to no one known state of the machine. Run again on a quiet machine");
    headline.throughput_per_gpu = None;
    headline.interval = None;
}

/// Why the reference levels do not tell whether the machine held still.
#[must_use]
pub fn unresolved(drift: &Drift) -> String {
    let noise = drift.noise.map_or("an unknown amount".to_owned(), |noise| format!("{:.1} %", noise * 100.0));
    format!("the two reference levels are known to {noise} only, which cannot show a change of {:.1} %", drift.limit * 100.0)
}

/// How a search ended, in words.
#[must_use]
pub fn in_words(found: &Found) -> String {
    let invalid = match found.probes - found.valid {
        0 => String::new(),
        invalid => format!(", {invalid} of them invalid"),
    };
    let bounds = format!("{} after {} probes{invalid}", bounds_in_words(found.pass, found.fail), found.probes);
    let gap = found.gap.map_or(String::new(), |(low, high)| format!("; {low:.3} to {high:.3} calls/s could not be decided"));
    let stop = match found.stop {
        Stop::Converged => "search converged",
        Stop::SloUnmetAtMinimum => "the SLO is broken at the lowest load that was tried",
        Stop::Undecided => "search undecided",
        Stop::Probes => "search out of probes",
        Stop::Budget => "search out of budget",
        Stop::GeneratorCeiling => "the highest rate the generator is good for still passes",
    };
    format!("{stop}: {bounds}{gap}")
}

fn unconfirmed(found: &Found, devices: f64) -> Headline {
    let status = match found.stop {
        Stop::SloUnmetAtMinimum => HeadlineStatus::SloUnmetAtMinimum,
        Stop::Budget if found.probes > 0 && found.valid == 0 => HeadlineStatus::NoValidBound,
        Stop::Budget => HeadlineStatus::OutOfBudget,
        _ if found.valid == 0 => HeadlineStatus::NoValidBound,
        Stop::Converged | Stop::Undecided | Stop::Probes | Stop::GeneratorCeiling => HeadlineStatus::Undecided,
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
        (pass, fail, _) => bounds_in_words(pass, fail),
    };
    format!("not confirmed: {} fresh runs together decided no rate that passes with a higher one that fails; {estimate}", confirmed.runs)
}

/// The decided bounds, or that there are none.
fn bounds_in_words(pass: Option<f64>, fail: Option<f64>) -> String {
    match (pass, fail) {
        (Some(pass), Some(fail)) => format!("highest decided pass {pass:.3} calls/s, lowest decided fail {fail:.3} calls/s"),
        (Some(pass), None) => format!("highest decided pass {pass:.3} calls/s, no decided fail"),
        (None, Some(fail)) => format!("no decided pass, lowest decided fail {fail:.3} calls/s"),
        (None, None) => "no decided pass and no decided fail".to_owned(),
    }
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

/// What else held at about the confirmed rate: means over one confirmation level of each run, offered the nearest rate.
struct Around {
    goodput: f64,
    tokens: f64,
    in_flight: f64,
}

impl Around {
    fn rate(levels: &[LevelRecord], rate: f64) -> Option<Self> {
        let offered = |level: &LevelRecord| match (&level.purpose, &level.offered) {
            (Purpose::Confirmation { run }, Offered::Open { calls_per_s, .. }) if level.verdict.is_valid() => Some((*run, *calls_per_s)),
            _ => None,
        };
        let mut near: BTreeMap<u32, (f64, &LevelRecord)> = BTreeMap::new();
        for level in levels {
            let Some((run, calls_per_s)) = offered(level) else { continue };
            let distance = (calls_per_s / rate).ln().abs();
            if near.get(&run).is_none_or(|(nearest, _)| distance < *nearest) {
                near.insert(run, (distance, level));
            }
        }
        let mean = |value: fn(&LevelRecord) -> f64| near.values().map(|(_, level)| value(level)).sum::<f64>() / near.len() as f64;
        (!near.is_empty()).then(|| Self {
            goodput: mean(|level| level.slo.goodput_calls_per_s),
            tokens: mean(|level| level.throughput.output_tokens_per_s),
            in_flight: mean(|level| level.in_flight.mean),
        })
    }
}
