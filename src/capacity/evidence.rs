//! What a plan rests on, as findings: percentiles of too few, answers beyond what was measured, things that nobody knows.

use crate::capacity::outcome::OutcomeJudgement;
use crate::capacity::plan::PlanInputs;
use crate::capacity::requirement::{Requirement, Resource};
use crate::capacity::throughput::Provenance;
use crate::record::finding::{Finding, Severity};
use crate::record::slo::{Slo, SloSource};

/// A quantile `q` of fewer than this many over `1 - q` values moves with the next few.
const BEYOND_A_QUANTILE: f64 = 10.0;

/// Values that a quantile needs to hold still: a thousand for the 99th percentile.
#[must_use]
pub fn needed_for(quantile: f64) -> u64 {
    (BEYOND_A_QUANTILE / (1.0 - quantile) - 1e-6).ceil() as u64
}

/// Of a plan's inputs and answers.
pub(super) fn findings(inputs: &PlanInputs, requirements: &[Requirement], outcome: Option<&OutcomeJudgement>) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(few_requests(inputs));
    if let Some(first) = requirements.first() {
        found.extend(beyond_measured(inputs, first));
        found.extend(on_one_replica(inputs, first));
        found.extend(in_flight_of_another_system(inputs, first));
        found.extend(kv_unknown(inputs, first));
    }
    found.extend(outcome.and_then(|outcome| of_outcomes(outcome, inputs)));
    found
}

/// A percentile is claimed from requests beyond it.
fn few_requests(inputs: &PlanInputs) -> Option<Finding> {
    let throughput = &inputs.throughput;
    let requests = throughput.operating.measured.requests.filter(|requests| *requests > 0)?;
    let known = throughput.doubts.iter().any(|doubt| doubt.code == "imported_few_requests");
    let slo = Slo::parse(throughput.slo.as_deref()?, SloSource::Default).ok()?;
    let percentile = slo.objectives.iter().map(|objective| objective.percentile).fold(0.0, f64::max);
    let needed = needed_for(percentile / 100.0);
    (requests < needed && !known).then(|| {
        Finding::new(
            "few_requests",
            Severity::Warning,
            format!("the SLO is judged at p{percentile} from at most {requests} requests a level; {needed} leave ten beyond it"),
            "Measure longer: `plimsoll bench` without `--quick`, or with a larger `--budget`",
        )
    })
}

/// The answer stands outside what was tried.
fn beyond_measured(inputs: &PlanInputs, first: &Requirement) -> Vec<Finding> {
    let measured = &inputs.throughput.operating.measured;
    let noun = inputs.throughput.device_noun;
    let mut found = Vec::new();
    let mut beyond = |what: String, measured: String| {
        found.push(Finding::new(
            "beyond_measured",
            Severity::Warning,
            format!("{what}, and nothing beyond {measured} was measured"),
            "Measure there before you rely on it: a workload with the log's lengths, or a higher load",
        ));
    };
    let gpus = first.fleet.gpus as f64;
    if let Some(most) = measured.calls_per_s_per_gpu.filter(|most| first.calls.get() / gpus > *most * 1.001) {
        beyond(format!("{} brings {:.3} calls/s to each {noun}", first.name, first.calls.get() / gpus), format!("{most:.3}"));
    }
    if let (Some(in_flight), Some(most)) = (first.calls_in_flight, measured.in_flight_per_gpu)
        && in_flight / gpus > most * 1.001
    {
        beyond(format!("{} has {:.1} calls in flight on each {noun}", first.name, in_flight / gpus), format!("{most:.1}"));
    }
    let mean = inputs.mix.as_ref().map(|mix| mix.value.input);
    if let (Some(prompt), Some(longest)) = (inputs.prompt_p99.or(mean), measured.prompt_tokens)
        && prompt > longest
    {
        let which = if inputs.prompt_p99.is_some() { "one prompt in a hundred has" } else { "prompts have on average" };
        beyond(format!("{which} {prompt:.0} tokens or more"), format!("{longest:.0} tokens"));
    }
    found
}

/// No room for a loss.
fn on_one_replica(inputs: &PlanInputs, first: &Requirement) -> Option<Finding> {
    let single = first.fleet.replicas_with_spare == 1;
    (single || inputs.fleet.spare_domains == 0).then(|| {
        let what = if single {
            format!("the fleet of {} is one replica: when it is lost, nothing answers", first.name)
        } else {
            "no failure domain is spare: the first loss at the peak breaks the SLO".to_owned()
        };
        Finding::new(
            "no_spare",
            Severity::Warning,
            what,
            "Give a spare failure domain: `--spare-domains 1`, with `--gpus-per-node` or `--gpus-per-domain`",
        )
    })
}

/// A log's calls in flight are as long as its system was slow.
fn in_flight_of_another_system(inputs: &PlanInputs, first: &Requirement) -> Option<Finding> {
    let stated = inputs.calls_in_flight.as_ref().filter(|stated| matches!(stated.provenance, Provenance::Logged { .. }))?;
    if first.binding == Resource::Rate {
        return None;
    }
    let by_little = inputs.throughput.operating.call.as_ref().map(|call| first.calls.get() * call.mean_ms / 1000.0);
    let beside = by_little.map_or_else(String::new, |calls| format!("; at the measured latency they would be {calls:.1}"));
    Some(Finding::new(
        "in_flight_of_another_system",
        Severity::Warning,
        format!(
            "what binds are the log's {:.0} calls in flight, which the system that wrote it held for as long as it took{beside}",
            stated.value
        ),
        "Give the calls in flight that you expect with `--peak-in-flight`, if the new system is quicker",
    ))
}

/// What cannot be judged is said.
fn kv_unknown(inputs: &PlanInputs, first: &Requirement) -> Option<Finding> {
    let unknown = if inputs.kv_tokens_per_gpu.is_none() {
        "how many tokens the KV cache of a GPU holds is not known"
    } else if first.resident_kv_tokens.is_none() {
        "how many calls are in flight at the peak is not known, or how long they are"
    } else {
        return None;
    };
    Some(Finding::new(
        "kv_not_judged",
        Severity::Note,
        format!("{unknown}: the plan does not say whether the KV cache suffices"),
        "Give `--kv-tokens-per-gpu`, which servers print when they start, and `--peak-in-flight`, or plan from a run",
    ))
}

fn of_outcomes(outcome: &OutcomeJudgement, inputs: &PlanInputs) -> Option<Finding> {
    let (objective, limit) = (outcome.objective, outcome.objective.limit.as_millis_f64());
    let needed = needed_for(objective.percentile / 100.0);
    let together = outcome.predicted.map(|predicted| predicted.together_ms).filter(|ms| *ms >= limit);
    match (outcome.met, together) {
        (None, _) => Some(Finding::new(
            "outcome_not_judged",
            Severity::Serious,
            format!("outcomes under `{objective}` cannot be judged: neither a log nor a run says how long they take"),
            "Plan from a run that measured a load-latency curve, or from a demand with ids of visible requests and latencies",
        )),
        (Some(false), _) => Some(Finding::new(
            "outcome_slo_broken",
            Severity::Serious,
            format!(
                "outcomes break `{objective}`: {}",
                [
                    outcome.logged_ms.map(|ms| format!("{ms:.0} ms in the log")),
                    outcome.predicted.map(|predicted| format!("{:.0} ms predicted", predicted.independent_ms)),
                ]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", ")
            ),
            "Plan at a tighter SLO of a call, or make fewer calls an outcome: more GPUs alone shorten none",
        )),
        (Some(true), Some(ms)) => Some(Finding::new(
            "outcome_slo_near",
            Severity::Warning,
            format!(
                "outcomes meet `{objective}` where calls are slow each by itself, and take {ms:.0} ms where all calls of one are slow together"
            ),
            "Measure whole outcomes: a workload with sessions",
        )),
        (Some(true), None)
            if outcome.predicted.is_none() && inputs.outcome.logged_ms.as_ref().is_some_and(|logged| logged.count < needed) =>
        {
            Some(Finding::new(
                "outcome_from_few",
                Severity::Warning,
                format!("p{} of outcomes comes from {} of them; {needed} leave ten beyond it", objective.percentile, outcome.logged),
                "Give a longer log",
            ))
        }
        (Some(true), None) => None,
    }
}
