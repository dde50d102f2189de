//! What is known of a server that was measured, in words.

use crate::record::run::RunRecord;
use crate::record::server::{ServerRecord, TokenCounts};
use crate::report::number::{percent, three};

/// Rows of the header: who it is and how it was asked. Empty where the target is no server.
pub(super) fn rows(run: &RunRecord) -> Vec<(&'static str, String)> {
    let Some(server) = &run.server else { return Vec::new() };
    let mut rows = vec![("server", who(server)), ("asked", how(server))];
    rows.extend(counted(run).map(|counted| ("tokens", counted)));
    if let Some(process) = &server.process {
        let settings = process.settings.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
        rows.push((
            "process",
            if settings.is_empty() { format!("pid {}", process.pid) } else { format!("pid {}: {settings}", process.pid) },
        ));
    }
    rows
}

fn who(server: &ServerRecord) -> String {
    let name = server.name.as_deref().unwrap_or("unknown server");
    let version = server.version.as_deref().map_or(String::new(), |version| format!(" {version}"));
    format!("{name}{version} at {}", server.url)
}

fn how(server: &ServerRecord) -> String {
    let forced = match server.length_forced {
        Some(true) => "answers forced to their length",
        Some(false) => "answers NOT as long as asked",
        None => "answers end by themselves",
    };
    let caches = match server.repeat_probe {
        None => "whether it caches prefixes is unknown".to_owned(),
        Some(probe) => {
            let times = format!("{} ms, then {} ms", three(probe.first_ms), three(probe.second_ms));
            match (probe.caches(), probe.cached_tokens) {
                (Some(true), Some(cached)) => {
                    format!("caches prefixes: {cached} of {} tokens of a repeated prompt ({times})", probe.prompt_tokens)
                }
                (Some(_), _) => format!("caches no prefix ({times})"),
                (None, _) => format!("does not say whether it caches prefixes; a repeated prompt took {times}"),
            }
        }
    };
    let reset = server.cache_reset.as_deref().map_or(String::new(), |path| format!(", emptied by {path} before each fresh start"));
    format!("{} with {}; {forced}; {caches}{reset}", server.api, server.prompts)
}

/// How tokens were counted, and how often two counts disagree.
fn counted(run: &RunRecord) -> Option<String> {
    let server = run.server.as_ref()?;
    let sum = run.levels.iter().filter_map(|level| level.token_counts).reduce(|one, other| TokenCounts {
        answers: one.answers + other.answers,
        with_usage: one.with_usage + other.with_usage,
        disagreeing: one.disagreeing + other.disagreeing,
        events: one.events + other.events,
        tokens: one.tokens + other.tokens,
        prompts_off: one.prompts_off + other.prompts_off,
        cached_tokens: one.cached_tokens + other.cached_tokens,
    });
    let source = server.token_source.words();
    let Some(sum) = sum else { return Some(format!("counted by {source}")) };
    let per_event = sum.tokens as f64 / (sum.events as f64).max(1.0);
    let disagreeing = if sum.with_usage == 0 {
        "no usage to compare with".to_owned()
    } else {
        let share = percent(sum.disagreeing as f64 / sum.with_usage as f64);
        format!("usage and number of events differ in {} of {} answers ({share})", sum.disagreeing, sum.with_usage)
    };
    let prompts = if sum.prompts_off > 0 { format!("; {} prompts counted otherwise than made", sum.prompts_off) } else { String::new() };
    Some(format!("counted by {source}; {} tokens an event; {disagreeing}{prompts}", three(per_event)))
}
