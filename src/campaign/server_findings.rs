//! What a reader should know of a server that was measured: whether its answers were what was asked for, and what failed.

use std::collections::BTreeMap;

use crate::record::finding::{Finding, Severity};
use crate::record::run::RunRecord;
use crate::record::server::TokenSource;

/// Of answers whose usage is not their number of events, from which share on it is worth saying.
const DISAGREEING: f64 = 0.01;

/// Findings of a run against a server; none against anything else.
pub(super) fn of(run: &RunRecord) -> Vec<Finding> {
    let Some(server) = &run.server else { return Vec::new() };
    let mut findings = Vec::new();
    if server.length_forced == Some(false) {
        findings.push(Finding::new(
            "short_output",
            Severity::Serious,
            "the server took `ignore_eos` and `min_tokens` and ended answers at other lengths all the same",
            "calls/s of shorter answers are no calls/s of the workload: measure with `--natural-length`, and plan with the realised lengths",
        ));
    }
    if server.token_source == TokenSource::Events {
        findings.push(Finding::new(
            "tokens_by_events",
            Severity::Warning,
            "the server gives no usage, so every event counts as one token; servers that send several at once are undercounted",
            "give the model's tokenizer.json (`--tokenizer`), or ask the server's operator for `stream_options.include_usage`",
        ));
    }
    let counts = run.levels.iter().filter_map(|level| level.token_counts);
    let (with_usage, disagreeing, off) =
        counts.fold((0, 0, 0), |sum, level| (sum.0 + level.with_usage, sum.1 + level.disagreeing, sum.2 + level.prompts_off));
    if disagreeing as f64 > DISAGREEING * with_usage as f64 {
        findings.push(Finding::new(
            "usage_is_not_events",
            Severity::Note,
            format!("in {disagreeing} of {with_usage} answers the server counted other tokens than events came: it sends several at once, or some without text"),
            "nothing to do: tokens are the server's count, shared out among the events; gaps between events are not gaps between tokens",
        ));
    }
    if off > 0 {
        findings.push(Finding::new(
            "prompts_off",
            Severity::Note,
            format!("the server counted {off} prompts otherwise than they were made, by more than 1 %: a chat template, or words that are several tokens"),
            "prompt tokens are the server's count; prompts as ids (`--prompts ids`) are exact where the server takes them",
        ));
    }
    if let Some(probe) = server.repeat_probe.filter(|probe| probe.caches() == Some(true)) {
        findings.push(Finding::new(
            "prefix_cache",
            Severity::Note,
            format!(
                "the server took {} of {} tokens of a repeated prompt from its cache",
                probe.cached_tokens.unwrap_or(0),
                probe.prompt_tokens
            ),
            "nothing to do: prompts are new in every level and share only what the workload says they share",
        ));
    }
    findings.extend(failed(run));
    findings
}

/// Failed requests by class over all levels.
fn failed(run: &RunRecord) -> Option<Finding> {
    let mut classes = BTreeMap::<&str, u64>::new();
    let mut requests = 0;
    for level in &run.levels {
        requests += level.counts.cohort;
        for (class, count) in &level.counts.failed {
            *classes.entry(class).or_default() += count;
        }
        if level.counts.timed_out > 0 {
            *classes.entry("timed_out").or_default() += level.counts.timed_out;
        }
    }
    let failed: u64 = classes.values().sum();
    let words = classes.iter().map(|(class, count)| format!("{count} {}", class.replace('_', " "))).collect::<Vec<_>>().join(", ");
    (failed > 0).then(|| {
        Finding::new(
            "requests_failed",
            if failed * 100 > requests { Severity::Warning } else { Severity::Note },
            format!("{failed} of {requests} requests failed: {words}"),
            "failures count as broken objectives; see each level's counts, and the server's own log",
        )
    })
}
