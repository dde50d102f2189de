//! A request as one flat row: what JSON lines and Parquet have in common. Stamps are nanoseconds on the run's own monotonic
//! clock, lengths of time are milliseconds; units stand at the ends of names.
//!
//! Chunks are in Parquet and in the run's own log; a line of JSON would be ten times as long with them.

use serde::Serialize;

use crate::clock::Nanos;
use crate::interchange::cohort::{is_in, why};
use crate::interchange::error::ExportError;
use crate::record::level::LevelRecord;
use crate::record::request::{Ending, RequestRecord};

/// One request.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) level: u32,
    pub(super) purpose: String,
    pub(super) id: u64,
    /// Whether it counts: its intended start lies in the window.
    pub(super) in_cohort: bool,
    pub(super) intended_ns: u64,
    pub(super) sent_ns: Option<u64>,
    pub(super) admitted_ns: Option<u64>,
    pub(super) first_byte_ns: Option<u64>,
    pub(super) first_token_ns: Option<u64>,
    pub(super) last_token_ns: Option<u64>,
    pub(super) end_ns: u64,
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) requested_tokens: u32,
    pub(super) output_tokens: u32,
    pub(super) preemptions: u32,
    /// `completed`, `failed`, `timed_out`, `refused` or `cancelled`.
    pub(super) ending: &'static str,
    /// Of a failure, its kind.
    pub(super) failure: Option<String>,
    pub(super) ttft_ms: Option<f64>,
    pub(super) tpot_ms: Option<f64>,
    pub(super) e2e_ms: Option<f64>,
}

impl Row {
    pub(super) fn of(level: &LevelRecord, request: &RequestRecord) -> Self {
        let nanos = |stamp: Option<Nanos>| stamp.map(|stamp| stamp.0);
        let millis = |length: Option<Nanos>| length.map(Nanos::as_millis_f64);
        Self {
            level: level.index,
            purpose: level.purpose.to_string(),
            id: request.id,
            in_cohort: is_in(level, request),
            intended_ns: request.intended.0,
            sent_ns: nanos(request.sent),
            admitted_ns: nanos(request.admitted),
            first_byte_ns: nanos(request.first_byte),
            first_token_ns: nanos(request.first_token),
            last_token_ns: nanos(request.last_token),
            end_ns: request.end.0,
            prompt_tokens: request.prompt_tokens,
            cached_tokens: request.cached_tokens,
            requested_tokens: request.requested_tokens,
            output_tokens: request.output_tokens,
            preemptions: request.preemptions,
            ending: match request.ending {
                Ending::Completed => "completed",
                Ending::Failed(_) => "failed",
                Ending::TimedOut => "timed_out",
                Ending::Refused => "refused",
                Ending::Cancelled => "cancelled",
            },
            failure: matches!(request.ending, Ending::Failed(_)).then(|| why(request)),
            ttft_ms: millis(request.ttft()),
            tpot_ms: request.tpot_ns().map(|nanos| nanos / 1e6),
            e2e_ms: millis(request.e2e()),
        }
    }
}

/// Adds a line for each request, in the order of the log.
///
/// # Errors
/// When memory cannot be written.
pub(super) fn append_lines(lines: &mut Vec<u8>, level: &LevelRecord, requests: &[RequestRecord]) -> Result<(), ExportError> {
    for request in requests {
        let written = serde_json::to_writer(&mut *lines, &Row::of(level, request));
        written.map_err(|why| ExportError::Encode { format: "jsonl", why: why.to_string() })?;
        lines.push(b'\n');
    }
    Ok(())
}
