//! Training entries of llm-d's latency predictor, a line of JSON a request: what its replica held when the request was sent, and what
//! became of it (`TrainingEntry` of `training/training_server.py`).
//!
//! | There | Ours |
//! | --- | --- |
//! | `num_request_running`, `num_request_waiting` | others in flight at the send, admitted or not; all running where the target does not say |
//! | `kv_cache_percentage` | tokens of the running ones / KV tokens, a share from 0 to 1 |
//! | `prefill_tokens_in_flight` | prompt tokens of those without a first token, its own included, as the endpoint picker counts |
//! | `decode_tokens_in_flight`, `num_tokens_generated` | 0, as the endpoint picker has them at dispatch |
//! | `actual_ttft_ms` | from the send |
//! | `actual_tpot_ms` | TPOT |

use jiff::Timestamp;
use serde_json::json;

use crate::clock::Nanos;
use crate::interchange::cohort::{is_in, wall_ns};
use crate::record::level::LevelRecord;
use crate::record::request::RequestRecord;

/// Adds a line for each completed request of the cohort, in order of sending; tells how many were added.
pub(super) fn append_lines(lines: &mut Vec<u8>, level: &LevelRecord, requests: &[RequestRecord], kv_tokens: u64) -> u64 {
    let mut sent: Vec<(Nanos, &RequestRecord)> = requests.iter().filter_map(|request| Some((request.sent?, request))).collect();
    sent.sort_by_key(|(at, request)| (*at, request.id));
    let says_admitted = sent.iter().any(|(_, request)| request.admitted.is_some());
    let mut in_flight: Vec<&RequestRecord> = Vec::new();
    let mut added = 0;
    for (at, request) in sent {
        in_flight.retain(|other| other.end > at);
        if let Some((ttft, tpot)) = figures(request).filter(|_| request.completed() && is_in(level, request)) {
            let runs = |other: &&&RequestRecord| !says_admitted || other.admitted.is_some_and(|admitted| admitted <= at);
            let running = in_flight.iter().filter(runs).count();
            let cached: f64 = in_flight.iter().filter(runs).map(|other| held(other, at)).sum();
            let prefilling = in_flight.iter().filter(|other| other.first_token.is_none_or(|first| first > at));
            let prefilling: u64 = prefilling.map(|other| u64::from(other.prompt_tokens)).sum();
            let entry = json!({
                // The sum of nothing is a negative 0.
                "kv_cache_percentage": (cached / kv_tokens as f64).clamp(0.0, 1.0).abs(),
                "input_token_length": request.prompt_tokens,
                "num_request_waiting": in_flight.len() - running,
                "num_request_running": running,
                "actual_ttft_ms": ttft,
                "actual_tpot_ms": tpot,
                "num_tokens_generated": 0,
                "prefix_cache_score": f64::from(request.cached_tokens) / f64::from(request.prompt_tokens.max(1)),
                "pod_type": "",
                "prefill_tokens_in_flight": prefilling + u64::from(request.prompt_tokens),
                "decode_tokens_in_flight": 0,
                "timestamp": stamp(level, at),
            });
            lines.extend(format!("{entry}\n").into_bytes());
            added += 1;
        }
        in_flight.push(request);
    }
    added
}

/// TTFT from the send and TPOT, milliseconds; older predictors take nothing that is 0.
fn figures(request: &RequestRecord) -> Option<(f64, f64)> {
    let (ttft, tpot) = (request.ttft_service()?.as_millis_f64(), request.tpot_ns()? / 1e6);
    (ttft > 0.0 && tpot > 0.0).then_some((ttft, tpot))
}

/// Tokens that a running request has in the cache: its prompt, and what it generated so far, evenly from its first token to its last.
fn held(request: &RequestRecord, at: Nanos) -> f64 {
    let generated = request.first_token.zip(request.last_token).filter(|(first, _)| *first <= at).map_or(0.0, |(first, last)| {
        let way = at.since(first).as_secs_f64() / last.since(first).as_secs_f64().max(f64::MIN_POSITIVE);
        way.min(1.0) * f64::from(request.output_tokens)
    });
    f64::from(request.prompt_tokens) + generated
}

fn stamp(level: &LevelRecord, at: Nanos) -> String {
    let nanos = wall_ns(level, at);
    Timestamp::from_nanosecond(i128::from(nanos)).map_or_else(|_| level.started.clone(), |stamp| stamp.to_string())
}
