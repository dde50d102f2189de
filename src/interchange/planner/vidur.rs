//! A level's arrivals as a trace of Vidur: `arrived_at` in seconds from the first, tokens of prompt and answer
//! (`vidur/request_generator/trace_replay_request_generator.py`).
//!
//! Only an open loop has arrivals of its own: in a closed one they are what the target made of them. Answers are as they were asked for,
//! also of requests that failed: a trace is demand.

use crate::interchange::cohort::is_in;
use crate::record::level::LevelRecord;
use crate::record::request::RequestRecord;

/// The trace of one level: its cohort, in order of arrival.
pub(super) fn trace(level: &LevelRecord, requests: &[RequestRecord]) -> Vec<u8> {
    let mut cohort: Vec<&RequestRecord> = requests.iter().filter(|request| is_in(level, request)).collect();
    cohort.sort_by_key(|request| (request.intended, request.id));
    let first = cohort.first().map(|request| request.intended).unwrap_or_default();
    let mut text = "arrived_at,num_prefill_tokens,num_decode_tokens\n".to_owned();
    for request in cohort {
        let prompt = request.made_tokens.unwrap_or(request.prompt_tokens);
        let arrived = request.intended.since(first).as_secs_f64();
        text.push_str(&format!("{arrived},{prompt},{}\n", request.requested_tokens));
    }
    text.into_bytes()
}
