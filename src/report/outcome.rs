//! How long outcomes take and how calls wait, in a plan: each figure with what it assumes.

use crate::capacity::outcome::OutcomeJudgement;
use crate::capacity::plan::Plan;
use crate::capacity::requirement::Requirement;
use crate::report::number::{grouped, percent, three};

/// A smaller share of calls that wait is none that anybody meets.
const NEGLIGIBLE: f64 = 1e-6;

/// Labels and what they say.
pub(super) fn beside(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    lines.extend(plan.outcome.as_ref().map(|outcome| ("outcomes", outcome_in_words(outcome))));
    if let Some(first) = plan.requirements.first() {
        lines.extend(waiting(first, plan));
        lines.extend(availability(first, plan));
    }
    lines
}

fn outcome_in_words(outcome: &OutcomeJudgement) -> String {
    let verdict = match outcome.met {
        Some(true) => "met",
        Some(false) => "BROKEN",
        None => "not judged",
    };
    let logged = match outcome.logged_ms {
        Some(ms) => format!("; {} ms in the log, of {} outcomes on the system that wrote it", grouped(ms), grouped(outcome.logged as f64)),
        None => "; no log tells how long outcomes took".to_owned(),
    };
    let predicted = match outcome.predicted {
        Some(predicted) => format!(
            "; predicted at the planned rate {} ms ({} ms if all calls of an outcome are slow together), mean {} ms: {} calls of an outcome {}, one after another without a pause, each as long as measured",
            grouped(predicted.independent_ms),
            grouped(predicted.together_ms),
            grouped(predicted.mean_ms),
            three(predicted.calls),
            if predicted.calls_of_log { "as the log has them" } else { "on average" },
        ),
        None => "; not predicted: no curve of a run has the latency of a call at the planned rate".to_owned(),
    };
    format!("{} is {verdict}{logged}{predicted}", outcome.objective)
}

fn waiting(first: &Requirement, plan: &Plan) -> Vec<(&'static str, String)> {
    let Some(waiting) = first.waiting else { return Vec::new() };
    let noun = plan.inputs.throughput.device_noun;
    let replicas =
        if first.fleet.replicas == 1 { "1 replica".to_owned() } else { format!("{} replicas", grouped(first.fleet.replicas as f64)) };
    let bursts = match (waiting.variations, waiting.bursty_ms) {
        ((Some(gaps), latencies), Some(ms)) => format!(
            "; {} ms with the log's bursts (Allen and Cunneen, variation {} of gaps and {} of latencies)",
            three(ms),
            three(gaps),
            three(latencies)
        ),
        _ => String::new(),
    };
    let places = grouped(waiting.places as f64);
    let law = "Erlang C: Poisson arrivals, a place is held as long as a call was measured to take";
    let says = match waiting.mean_ms {
        Some(ms) => format!(
            "{} on {replicas}: {} of calls wait for one of {places} places ({} taken), {} ms on average ({law}){bursts}",
            first.name,
            if waiting.waits < NEGLIGIBLE { "next to none".to_owned() } else { percent(waiting.waits) },
            three(waiting.taken),
            if waiting.waits < NEGLIGIBLE { "0".to_owned() } else { three(ms) }
        ),
        None => format!(
            "{} on {replicas}: {} places would be taken and there are {places}: calls wait without end ({law})",
            first.name,
            three(waiting.taken)
        ),
    };
    let mut lines = vec![("waiting", says)];
    if let Some(steady) = waiting.chain {
        lines.push((
            "chain",
            format!(
                "one {noun}'s share on a replica that slows down as it fills (costs fitted to the sweep; Poisson arrivals, exponential service, means): {} in service, wait {} ms, TTFT {} ms, {} ms a token",
                three(steady.in_service),
                three(steady.wait_ms),
                three(steady.ttft_ms),
                three(steady.itl_ms)
            ),
        ));
    }
    lines
}

fn availability(first: &Requirement, plan: &Plan) -> Option<(&'static str, String)> {
    let wanted = plan.inputs.fleet.availability?;
    let owned = match first.fleet.for_availability {
        Some(replicas) => format!("{} replicas", grouped(replicas as f64)),
        None => "no number of replicas".to_owned(),
    };
    let stand = first.fleet.stand.map_or(String::new(), |stand| {
        format!("; of the {} owned enough stand with probability {stand:.6}", grouped(first.fleet.replicas_with_spare as f64))
    });
    Some((
        "standing",
        format!(
            "{owned} for {} of {} to stand with probability {}, each standing with {} by itself (binomial; N + {} failure domains beside){stand}",
            grouped(first.fleet.replicas as f64),
            first.name,
            wanted.of_fleet,
            wanted.of_replica,
            plan.inputs.fleet.spare_domains
        ),
    ))
}
