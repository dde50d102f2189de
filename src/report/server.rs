//! What is known of a server that was measured, in words.

use crate::record::run::RunRecord;
use crate::record::server::ServerRecord;
use crate::report::number::three;

/// Rows of the header: who it is and how it was asked. Empty where the target is no server.
pub(super) fn rows(run: &RunRecord) -> Vec<(&'static str, String)> {
    let Some(server) = &run.server else { return Vec::new() };
    let mut rows = vec![("server", who(server)), ("asked", how(server))];
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
    let over = server.protocol.as_deref().map_or(String::new(), |protocol| format!(" over {protocol}"));
    format!("{}{over} with {}; {forced}; {caches}{reset}", server.api, server.prompts)
}
