//! What a reader of a demand should know: what was assumed, what is missing, what looks like burstiness and is chance.

use crate::capacity::request_log::columns::{Columns, Role};
use crate::record::demand::{Demand, LogToldBy};
use crate::record::finding::{Finding, Severity};

/// Fewer calls give no 99th percentile of anything.
const FEW: u64 = 1000;
/// A silence of so many windows of an hour is no night.
const SILENCE_H: u64 = 24;

/// Findings of a log with these columns, gravest first.
pub(super) fn of(demand: &Demand, columns: &Columns) -> Vec<Finding> {
    sorted([latency_unit(columns), no_recompute(demand, columns)].into_iter().flatten().chain(of_counts(demand)).collect())
}

/// Findings that need nothing but the counts, gravest first.
pub(super) fn of_counts(demand: &Demand) -> Vec<Finding> {
    let found = [kind(demand), few(demand), rejected(demand), chance(demand), slow_drift(demand), short(demand), silence(demand)];
    sorted(found.into_iter().flatten().collect())
}

/// Of what a warehouse returned: rates of windows without their order.
pub(super) fn own_spike_unknown() -> Finding {
    Finding::new(
        "own_spike_unknown",
        Severity::Note,
        "what the queries return does not tell what the log's busiest minute looked like",
        "For `plimsoll spike --times own` give `plimsoll demand` the log itself",
    )
}

fn sorted(mut found: Vec<Finding>) -> Vec<Finding> {
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

fn kind(demand: &Demand) -> Option<Finding> {
    (demand.log_told_by == LogToldBy::Assumed).then(|| {
        Finding::new(
            "log_kind_assumed",
            Severity::Warning,
            "nothing says whether a line is a visible request or an inference call; visible requests were assumed",
            "Say `--log requests` or `--log calls`, or name the column that says which visible request a call belongs to: `--column request=NAME`",
        )
    })
}

fn few(demand: &Demand) -> Option<Finding> {
    (demand.calls < FEW).then(|| {
        Finding::new(
            "few_calls",
            Severity::Warning,
            format!("{} calls: the 99th percentile of anything rests on {} of them", demand.calls, demand.calls / 100),
            "Give a longer log before planning from its peaks",
        )
    })
}

fn rejected(demand: &Demand) -> Option<Finding> {
    let lines: u64 = demand.rejected.values().sum();
    (lines > 0).then(|| {
        let reasons: Vec<String> = demand.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        Finding::new(
            "lines_rejected",
            Severity::Note,
            format!("{lines} lines are no call and were left out: {}", reasons.join(", ")),
            "Look at the first of them; calls that are missing here make the peak look lower than it was",
        )
    })
}

fn latency_unit(columns: &Columns) -> Option<Finding> {
    columns.latency_unit_assumed.then(|| {
        Finding::new(
            "latency_unit_assumed",
            Severity::Note,
            format!("the unit of `{}` is not in its name: milliseconds were assumed", columns.of(Role::Latency).unwrap_or_default()),
            "Say `--latency-unit s` if they are seconds",
        )
    })
}

fn no_recompute(demand: &Demand, columns: &Columns) -> Option<Finding> {
    (demand.recompute.is_none() && columns.of(Role::Request).is_none()).then(|| {
        Finding::new(
            "recompute_unknown",
            Severity::Warning,
            "the log has no ids of visible requests: retries and hidden calls behind what users see are not known",
            "Log an id of the visible request with every call, or give `--recompute` to the plan",
        )
    })
}

/// A low rate has a large peak factor by chance alone.
fn chance(demand: &Demand) -> Option<Finding> {
    let second = demand.rates.first().filter(|rates| rates.windows >= 60)?;
    (second.peak_over_mean > 3.0 && second.peak_over_mean < 1.5 * second.poisson_peak_over_mean).then(|| {
        Finding::new(
            "peak_by_chance",
            Severity::Note,
            format!(
                "the peak of a second is {:.1} times the mean, and Poisson arrivals at this rate would show {:.1} by chance",
                second.peak_over_mean, second.poisson_peak_over_mean
            ),
            "Do not take it for burstiness; plan from the minutes",
        )
    })
}

/// Bursts and a rate that drifts look alike in one number and not in two.
fn slow_drift(demand: &Demand) -> Option<Finding> {
    let [second, minute, ..] = demand.rates.as_slice() else { return None };
    (second.index_of_dispersion < 2.0 && minute.index_of_dispersion > 5.0).then(|| {
        Finding::new(
            "rate_drifts",
            Severity::Note,
            format!(
                "the index of dispersion is {:.1} over a second and {:.1} over a minute: the rate drifts, it does not burst",
                second.index_of_dispersion, minute.index_of_dispersion
            ),
            "Poisson arrivals at the peak minute's rate describe it well",
        )
    })
}

fn short(demand: &Demand) -> Option<Finding> {
    let hours = demand.rates.last().filter(|rates| rates.windows < 3)?;
    Some(Finding::new(
        "log_short",
        Severity::Warning,
        format!("the log covers {} windows of an hour: it holds no daily peak, and its hourly peak factor means nothing", hours.windows),
        "Give a week or more before planning; a day's peak is often twice its mean",
    ))
}

fn silence(demand: &Demand) -> Option<Finding> {
    let longest = demand.hours.windows(2).map(|pair| (pair[1].start_s - pair[0].start_s) as u64 / 3600).max()?;
    (longest > SILENCE_H).then(|| {
        Finding::new(
            "silence",
            Severity::Warning,
            format!("there is a silence of {} h in the log: averages over all of it are too low", longest - 1),
            "Check for lost logs or wrong stamps, and give the parts separately if so",
        )
    })
}
