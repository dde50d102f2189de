//! What is known against a litmus test, or follows from it: findings with their next step.

use crate::capacity::plan::Plan;
use crate::capacity::spike::expected::Expected;
use crate::capacity::spike::litmus::{Litmus, LitmusVerdict};
use crate::capacity::spike::moments::Recovery;
use crate::capacity::spike::own;
use crate::record::finding::{Finding, Severity};

/// A law that is off by more than this share is no proof.
const LAW_OFF: f64 = 0.15;

/// All of them.
#[must_use]
pub fn of(litmus: &Litmus, plan: &Plan) -> Vec<Finding> {
    let found = [law(litmus), tail(litmus), assumed(litmus), recovery(litmus), retries(litmus), disagreement(litmus), undersized(litmus)];
    let mut findings: Vec<Finding> = found.into_iter().flatten().chain(own::shorter(&litmus.trial.course, litmus.spike_s)).collect();
    findings.extend(plan.findings.iter().filter(|finding| finding.severity > Severity::Note).cloned());
    findings
}

fn law(litmus: &Litmus) -> Option<Finding> {
    let off = litmus.slower_by - 1.0;
    (off > LAW_OFF).then(|| {
        Finding::new(
            "service_law_off",
            Severity::Warning,
            format!("the service law is off by up to {:.0} % of the measured time per token", off * 100.0),
            "trust the answers of the slower law, or measure again on a quiet machine and without `--quick`",
        )
    })
}

fn tail(litmus: &Litmus) -> Option<Finding> {
    let pairs = litmus.checked.iter().filter_map(|level| Some((level, level.ttft_p95?)));
    let (level, worst) = pairs.max_by(|(_, one), (_, other)| one.off().abs().total_cmp(&other.off().abs()))?;
    (worst.off().abs() > 2.0 * LAW_OFF).then(|| {
        Finding::new(
            "simulated_tail_off",
            Severity::Warning,
            format!(
                "at {:.3} calls/s the simulated p95 of the time to first token is {:.1} ms, the measured one {:.1} ms on {} requests",
                level.calls_per_s, worst.simulated, worst.measured, level.requests
            ),
            "drive the course against the target itself: `plimsoll spike --live`",
        )
    })
}

fn assumed(litmus: &Litmus) -> Option<Finding> {
    let assumed = &litmus.service.assumed;
    (!assumed.is_empty()).then(|| {
        Finding::new(
            "batch_limits_assumed",
            Severity::Note,
            format!("the target does not say what bounds its batches; assumed: {}", assumed.join("; ")),
            "measure a server whose command line can be seen, or the built-in engine",
        )
    })
}

fn recovery(litmus: &Litmus) -> Option<Finding> {
    match litmus.slower.recovery? {
        Recovery::AtOnce => None,
        Recovery::After { seconds } => Some(Finding::new(
            "slow_recovery",
            Severity::Note,
            format!("after the last spike the SLO stays broken for {seconds:.0} s"),
            "bound the queue (`--queue`), so that calls which cannot be in time are refused instead of delaying others",
        )),
        Recovery::NotWithin { seconds } => Some(Finding::new(
            "no_recovery",
            Severity::Serious,
            format!("{seconds:.0} s after the last spike the SLO is still broken"),
            "bound the queue (`--queue`), or give the fleet more replicas",
        )),
    }
}

fn retries(litmus: &Litmus) -> Option<Finding> {
    let [free, within] = litmus.retries.as_slice() else { return None };
    let stays_down = matches!(free.recovery, Some(Recovery::NotWithin { .. }));
    let budget_helps = !matches!(within.recovery, Some(Recovery::NotWithin { .. }));
    stays_down.then(|| {
        Finding::new(
            "retry_storm",
            Severity::Serious,
            format!(
                "with clients that try {} times the fleet does not recover: up to {:.1} tries come for each call",
                free.clients.attempts, free.tries_per_call
            ),
            if budget_helps {
                "give clients a retry budget: with one of a tenth it recovers"
            } else {
                "bound the queue, give clients a retry budget, and the fleet more replicas: with a budget alone it does not recover either"
            },
        )
    })
}

/// The plan and the simulation contradict each other.
fn disagreement(litmus: &Litmus) -> Option<Finding> {
    let against = litmus.expected.iter().zip(&litmus.trial.phases).zip(&litmus.slower.phases).find(|((expected, fitted), slower)| {
        match expected.expected {
            Expected::Holds => !fitted.holds(),
            Expected::Breaks => slower.holds(),
            Expected::Open => false,
        }
    });
    let ((expected, fitted), _) = against?;
    Some(Finding::new(
        "plan_and_simulation_disagree",
        Severity::Warning,
        format!(
            "the plan says that {} ({:.3} calls/s) {}, and simulated it {}",
            expected.phase,
            expected.judged_calls_per_s(),
            expected.expected.word(),
            if fitted.holds() { "holds" } else { "breaks" }
        ),
        "a queue left by the phase before, unequal lengths or the law's error may explain it: look at the picture, and drive it live",
    ))
}

fn undersized(litmus: &Litmus) -> Option<Finding> {
    let short =
        litmus.scenarios.iter().find(|scenario| scenario.needed.fitted.is_none_or(|needed| u64::from(needed) > scenario.planned))?;
    let needed = short.needed.fitted.map_or_else(|| "no number of replicas is enough".to_owned(), |needed| format!("{needed} are needed"));
    Some(Finding::new(
        "plan_too_small",
        if litmus.verdict == LitmusVerdict::Breaks { Severity::Serious } else { Severity::Warning },
        format!("for {} the plan has {} replicas, and simulated {needed}", short.name, short.planned),
        "plan with a larger headroom, or route by load: a fleet of few replicas needs more than its share of a large one",
    ))
}
