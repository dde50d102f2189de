//! What is said of a run when its levels are there: status, headline with its labels, findings.

use crate::campaign::bench;
use crate::campaign::counters;
use crate::campaign::headline::unresolved;
use crate::campaign::interrupt::Signal;
use crate::campaign::measure::Halt;
use crate::campaign::plan::Plan;
use crate::campaign::server_findings;
use crate::node;
use crate::record::finding::{Finding, Severity};
use crate::record::level::{LevelRecord, Purpose};
use crate::record::run::{HeadlineStatus, RunRecord, RunStatus};
use crate::record::slo::SloSource;
use crate::workload::request::Tally;

/// Writes what a campaign came to into its run.
pub fn conclude(run: &mut RunRecord, result: bench::Result, plan: &Plan) {
    run.status = match result.halted {
        Some(Halt::Signal(Signal::GpuFailed)) => RunStatus::Aborted,
        Some(Halt::Signal(_)) => RunStatus::Interrupted,
        Some(Halt::Budget) => RunStatus::OutOfBudget,
        None => RunStatus::Complete,
    };
    run.labels.extend(result.pace.map(|pace| format!("windows x {pace:.2} for the budget")));
    run.slo = result.slo.or_else(|| run.slo.take());
    run.drift = result.drift;
    if !result.idle.is_empty() {
        run.idle = result.idle;
    }
    run.search = result.search;
    run.cold_start.first_request_ms = result.first_request_ms.or(run.cold_start.first_request_ms);
    run.headline = result.headline.map(|mut headline| {
        headline.labels.clone_from(&run.labels);
        headline
    });
    run.findings = findings(run, plan);
}

fn findings(run: &RunRecord, plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let watched = run.levels.first().and_then(|level| level.telemetry.measured());
    // GPUs of another node may be watched where this one has no telemetry.
    let of_node = node::findings::of(&run.node.telemetry);
    findings.extend(of_node.into_iter().filter(|finding| watched.is_none() || finding.code != "telemetry_unavailable"));
    findings
        .extend(node::findings::of_distance(&run.node, |uuid| watched.is_some_and(|seen| seen.gpus.iter().any(|gpu| gpu.uuid == uuid))));
    findings.extend(counters::conflict(run));
    findings.extend(of_levels(run));
    findings.extend(server_findings::of(run));
    if run.slo.as_ref().is_some_and(|slo| slo.source == SloSource::Default) {
        findings.push(Finding::new(
            "default_slo",
            Severity::Warning,
            "nobody stated an SLO, so the default one was used",
            "state what your users need, such as `--slo 'ttft:p99<1000ms,tpot:p95<50ms'`",
        ));
    }
    findings.extend(run.quick.then(|| quick(run, plan)));
    findings.extend(windows_cut(run));
    findings.extend(of_traffic(run));
    let invalid = run.levels.iter().filter(|level| !level.verdict.is_valid()).count();
    if invalid > 0 {
        findings.push(Finding::new(
            "invalid_levels",
            Severity::Warning,
            format!("{invalid} of {} levels are invalid and bound nothing", run.levels.len()),
            "see each level's reasons; on a shared machine stop what else runs and measure again",
        ));
    }
    if let Some(headline) = run.headline.as_ref().filter(|headline| headline.status == HeadlineStatus::Drift) {
        findings.push(Finding::new("drift", Severity::Serious, headline.explanation.clone(), "measure again on a quiet machine"));
    }
    if run.headline.as_ref().is_some_and(|headline| headline.throughput_per_gpu.is_some()) && run.drift.is_none() {
        findings.push(Finding::new(
            "drift_unchecked",
            Severity::Warning,
            "no valid pair of reference levels, first and last: nobody knows whether the machine stayed the same",
            "finish the run with `plimsoll bench --resume`, or measure again",
        ));
    }
    if run.status == RunStatus::OutOfBudget {
        findings.push(Finding::new(
            "out_of_budget",
            Severity::Warning,
            "the budget was spent before everything was measured",
            "go on with `plimsoll bench --resume ID --budget TIME`",
        ));
    }
    let unlogged: u64 = run.levels.iter().map(|level| level.unlogged_requests).sum();
    if unlogged > 0 {
        findings.push(Finding::new(
            "unlogged_requests",
            Severity::Note,
            format!("the request log could not keep up with {unlogged} requests; the levels count them all"),
            "keep runs on a faster disk, or leave the log out with `--no-request-log`",
        ));
    }
    if let Some(drift) = run.drift.filter(|drift| !drift.exceeded() && !drift.resolved()) {
        let severity = if run.quick { Severity::Warning } else { Severity::Serious };
        findings.push(Finding::new("drift_unresolved", severity, unresolved(&drift), "measure again on a quiet machine"));
    }
    let preempted: u64 = run.levels.iter().map(|level| level.target.preemptions).sum();
    if preempted > 0 {
        findings.push(Finding::new(
            "preemption",
            Severity::Note,
            format!("the engine preempted sequences {preempted} times: its KV cache was full"),
            "more KV blocks (`--kv-blocks`) or fewer sequences at once (`--max-num-seqs`) avoid computing them twice",
        ));
    }
    findings
}

/// What the GPUs said in the levels: each kind once, at its gravest, with the number of levels.
fn of_levels(run: &RunRecord) -> Vec<Finding> {
    let mut kinds = Vec::<(Finding, usize)>::new();
    for finding in run.levels.iter().flat_map(|level| &level.findings) {
        match kinds.iter_mut().find(|(known, _)| known.code == finding.code) {
            Some((known, levels)) => {
                *levels += 1;
                if finding.severity > known.severity {
                    known.clone_from(finding);
                }
            }
            None => kinds.push((finding.clone(), 1)),
        }
    }
    let told = |(finding, levels): (Finding, usize)| match levels {
        1 => finding,
        _ => Finding { evidence: format!("{} (and {} times more)", finding.evidence, levels - 1), ..finding },
    };
    kinds.into_iter().map(told).collect()
}

/// What of the traffic is not as it was asked for, or recorded.
fn of_traffic(run: &RunRecord) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(trace) = &run.workload.trace {
        let rejected = trace.rejected.values().sum::<u64>();
        if rejected > 0 {
            let reasons = trace.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ");
            findings.push(Finding::new(
                "trace_rows_rejected",
                Severity::Warning,
                format!("{rejected} lines of `{}` are no call and were left out: {reasons}", trace.name),
                "mend these lines, or remove them if the calls are not wanted",
            ));
        }
        if trace.failed > 0 {
            findings.push(Finding::new(
                "trace_calls_failed",
                Severity::Note,
                format!(
                    "{} of {} calls of `{}` had no answer: they count in its rate and are not replayed",
                    trace.failed, trace.rows, trace.name
                ),
                "nothing to do, unless the failures are what you plan for: retries belong into `--recompute`",
            ));
        }
    }
    let sum = |count: fn(&Tally) -> u64| run.levels.iter().map(|level| count(&level.traffic)).sum::<u64>();
    let (made, capped, cut) = (sum(|tally| tally.made), sum(|tally| tally.capped), sum(|tally| tally.cut));
    if capped > 0 {
        let share = |count: u64| 100.0 * count as f64 / made as f64;
        let (severity, why, next_step) = if cut > 0 {
            let why = format!("{:.1} % because the context of {} tokens is too small", share(cut), run.target.max_context);
            (Severity::Warning, why, "multiply all lengths with `--length-scale`, such as 0.25, or measure a model with a longer context")
        } else {
            (Severity::Note, "as asked".to_owned(), "nothing to do: the caps were given")
        };
        findings.push(Finding::new(
            "shortened",
            severity,
            format!("{:.1} % of the requests were shortened, {why}", share(capped)),
            next_step,
        ));
    }
    let (sessions, sessions_cut) = (sum(|tally| tally.sessions), sum(|tally| tally.sessions_cut));
    if sessions_cut > 0 {
        findings.push(Finding::new(
            "sessions_cut",
            Severity::Warning,
            format!("{sessions_cut} of {sessions} sessions ended before their last turn: their history left no room in the context"),
            "multiply all lengths with `--length-scale`, such as 0.25, or measure a model with a longer context",
        ));
    }
    if let Some(why) = run.levels.iter().find_map(|level| level.traffic.broke_off.as_deref()) {
        findings.push(Finding::new(
            "traffic_broke_off",
            Severity::Serious,
            format!("the traffic of a level ended early: {why}"),
            "leave the trace file as it is while it is replayed, and measure again",
        ));
    }
    findings
}

fn quick(run: &RunRecord, plan: &Plan) -> Finding {
    let relative = run.slo.as_ref().is_some_and(|slo| slo.source == SloSource::IdleReference);
    let relative = if relative { " relative to the idle latencies" } else { "" };
    let runs = plan.windows.confirmation_runs;
    let runs = if runs == 1 { "one confirmation run".to_owned() } else { format!("{runs} confirmation runs") };
    let evidence = format!("short windows, objectives at {}{relative}, {runs}", plan.percentiles());
    Finding::new("quick", Severity::Warning, evidence, "run without `--quick` before you buy anything")
}

/// Confirmation windows of a quick run that the objectives do not fit into.
fn windows_cut(run: &RunRecord) -> Option<Finding> {
    let confirmed = |level: &&LevelRecord| matches!(level.purpose, Purpose::Confirmation { .. });
    let cut = run.levels.iter().filter(confirmed).filter_map(|level| Some((level.slo.needed_s?, level.window_s)));
    let (needed_s, window_s) = cut.max_by(|one, other| one.0.total_cmp(&other.0))?;
    Some(Finding::new(
        "windows_cut",
        Severity::Warning,
        format!("a level of this SLO and load needs a window of {needed_s:.0} s to be decided; it was cut to {window_s:.0} s"),
        "run without `--quick`, or state limits that show in seconds",
    ))
}
