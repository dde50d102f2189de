//! The capacity model's four anti-patterns, found in the inputs of a plan, each with its evidence and a remedy.
//!
//! | Anti-pattern | Why it fails |
//! |---|---|
//! | Planning for average | Peaks break you |
//! | Ignoring recompute | Actual load is higher than visible |
//! | Single-point provisioning | No room for variance |
//! | Ignoring latency constraints | Capacity without SLOs is meaningless |
//!
//! A finding never changes the answer; what makes an answer impossible is refused where the input is made.

use crate::capacity::evidence;
use crate::capacity::mix::MixDifference;
use crate::capacity::outcome::OutcomeJudgement;
use crate::capacity::plan::{Peak, PlanInputs};
use crate::capacity::requirement::Requirement;
use crate::capacity::throughput::{Basis, Provenance, Throughput};
use crate::record::demand::LogKind;
use crate::record::finding::{Finding, Severity};

/// What the capacity model calls typical.
const TYPICAL_HEADROOM: std::ops::RangeInclusive<f64> = 0.2..=0.3;

/// Everything a reader should know of these inputs, gravest first.
#[must_use]
pub fn findings(
    inputs: &PlanInputs,
    mix: Option<&MixDifference>,
    requirements: &[Requirement],
    outcome: Option<&OutcomeJudgement>,
) -> Vec<Finding> {
    let mut found = planning_for_average(inputs);
    found.extend(ignoring_recompute(inputs));
    found.extend(single_point_provisioning(inputs));
    found.extend(ignoring_latency(&inputs.throughput));
    found.extend(another_machine(&inputs.throughput));
    found.extend(log_counted_twice(inputs));
    found.extend(another_mix(inputs, mix));
    found.extend(evidence::findings(inputs, requirements, outcome));
    found.extend(inputs.throughput.doubts.iter().cloned());
    found.extend(inputs.doubts.iter().cloned());
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// Peaks break you.
fn planning_for_average(inputs: &PlanInputs) -> Vec<Finding> {
    let mut found = Vec::new();
    if inputs.peak == Some(Peak::AverageOnPurpose) {
        found.push(Finding::new(
            "planned_for_average",
            Severity::Serious,
            "the average is planned for as if it were the peak; peaks of 2 to 10 times the average break such a fleet",
            "Give the measured or planned peak and its window: `--peak-rps 40 --peak-window 1m`",
        ));
    }
    if inputs.average.provenance == Provenance::Default {
        found.push(Finding::new(
            "average_not_given",
            Severity::Note,
            "the average load is not known: the answer is for 1 visible request/s",
            "Give your own average with `--average-rps`",
        ));
    }
    found
}

/// Actual load is higher than visible.
fn ignoring_recompute(inputs: &PlanInputs) -> Vec<Finding> {
    let recompute = inputs.recompute.value.get();
    if inputs.recompute.provenance == Provenance::Assumed {
        return vec![Finding::new(
            "recompute_assumed",
            Severity::Warning,
            format!("the recompute multiplier was assumed to be {recompute}: one inference call for each visible request"),
            "Divide total inference calls by successful outputs in your logs, and give it with `--recompute`",
        )];
    }
    if recompute < 1.0 {
        return vec![Finding::new(
            "recompute_below_one",
            Severity::Note,
            format!("a recompute multiplier of {recompute} says that cached answers save calls"),
            "Plan with 1 or more if the cache can be cold when the peak comes",
        )];
    }
    Vec::new()
}

/// A log of calls holds retries and hidden work already.
fn log_counted_twice(inputs: &PlanInputs) -> Option<Finding> {
    let multiplied = inputs.recompute.value.get();
    (inputs.log == Some(LogKind::Calls) && inputs.recompute.provenance == Provenance::Given && multiplied > 1.0).then(|| {
        Finding::new(
            "log_counted_twice",
            Severity::Serious,
            format!("the log is one of calls, and its rates are multiplied by a recompute multiplier of {multiplied} that was given"),
            "Leave `--recompute` out, or say `--log requests` to `plimsoll demand` if the log is one of visible requests",
        )
    })
}

/// A rate holds for calls of the lengths that it was measured with.
fn another_mix(inputs: &PlanInputs, mix: Option<&MixDifference>) -> Option<Finding> {
    if let Some(mix) = mix {
        let (measured, asked) = (mix.measured, mix.asked);
        let severity = if mix.is_refused() { Severity::Serious } else { Severity::Warning };
        return Some(Finding::new(
            "token_mix_differs",
            severity,
            format!(
                "measured with {:.0} prompt and {:.0} answer tokens, asked for {:.0} and {:.0}: the rate is taken times {:.3}, {}",
                measured.input,
                measured.output,
                asked.input,
                asked.output,
                mix.factor(),
                match mix.by_cost {
                    Some(cost) => format!("by the measured cost of tokens ({cost:.3}; never above 1), at worst times {:.3}", mix.low_end()),
                    None => "the safe end of what that can mean".to_owned(),
                }
            ),
            "Measure with the log's own lengths: `plimsoll demand LOG --workload-out FILE`, then `plimsoll bench --workload FILE`",
        ));
    }
    (inputs.log.is_some() && inputs.mix.is_none()).then(|| {
        Finding::new(
            "token_mix_unknown",
            Severity::Warning,
            "the log does not tell how long prompts and answers are: nobody knows whether the measured rate holds for them",
            "Log the tokens of prompts and answers, and find the demand again",
        )
    })
}

/// No room for variance.
fn single_point_provisioning(inputs: &PlanInputs) -> Vec<Finding> {
    let mut found = Vec::new();
    let headroom = inputs.headroom.value.get();
    if !TYPICAL_HEADROOM.contains(&headroom) {
        let (severity, consequence) = if headroom < *TYPICAL_HEADROOM.start() {
            (Severity::Warning, "leaves little room for variance")
        } else {
            (Severity::Note, "is a margin on top of the peak and of the interval's lower end")
        };
        found.push(Finding::new(
            "headroom_unusual",
            severity,
            format!("a headroom of {headroom} {consequence}; typical is 0.20 to 0.30"),
            "Check it against the answers without each margin",
        ));
    }
    if inputs.throughput.basis == Basis::PassingEnd {
        found.push(Finding::new(
            "bracket_only",
            Severity::Warning,
            "throughput_per_gpu comes from a single search: the plan takes the highest rate that passed, and knows no run-to-run spread",
            "Run `plimsoll bench` with enough `--budget` for its confirmation runs",
        ));
    }
    found
}

/// Capacity without SLOs is meaningless.
fn ignoring_latency(throughput: &Throughput) -> Vec<Finding> {
    let mut found = Vec::new();
    if throughput.provenance == Provenance::Given {
        found.push(Finding::new(
            "throughput_given",
            Severity::Warning,
            format!("throughput_per_gpu of {} calls/s was given, with no SLO and no interval behind it", throughput.planned.get()),
            "Measure it with `plimsoll bench`; a closed-loop plateau or a tokens/s figure is not this number",
        ));
        found.push(Finding::new(
            "no_slo",
            Severity::Warning,
            "no latency objective stands behind the rate: capacity without an SLO is meaningless, and a plateau reached with none is no capacity",
            "Plan from a run, whose rate holds within its SLO, or give the highest rate that met yours",
        ));
    }
    if throughput.basis == Basis::FromCurve {
        found.push(Finding::new(
            "slo_read_from_curve",
            Severity::Warning,
            format!(
                "throughput_per_gpu at {} was read between measured loads, not confirmed at this SLO",
                throughput.slo.as_deref().unwrap_or("this SLO")
            ),
            "Run `plimsoll bench` with this `--slo` before buying",
        ));
    }
    if throughput.quick {
        found.push(Finding::new(
            "quick",
            Severity::Warning,
            "throughput_per_gpu comes from a `--quick` run: short windows, SLO at p90, indicative only",
            "Run `plimsoll bench` without `--quick` before buying",
        ));
    }
    found
}

/// The number was made on something else than what will be bought.
fn another_machine(throughput: &Throughput) -> Vec<Finding> {
    let mut found = Vec::new();
    if throughput.device_noun != "GPU" {
        found.push(Finding::new(
            "no_gpu_measured",
            Severity::Warning,
            "no GPU was measured: the answers count devices of the kind that was",
            "Run `plimsoll bench` on the GPU you will use",
        ));
    }
    if !throughput.run_complete {
        found.push(Finding::new(
            "run_not_complete",
            Severity::Warning,
            "the run that measured throughput_per_gpu did not go to its end",
            "Finish it with `plimsoll bench --resume`",
        ));
    }
    if !throughput.labels.is_empty() {
        found.push(Finding::new(
            "measurement_labels",
            Severity::Note,
            format!("the measurement is labelled: {}", throughput.labels.join("; ")),
            "Carry the labels wherever the number goes",
        ));
    }
    found
}
