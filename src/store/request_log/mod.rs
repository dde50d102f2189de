//! Every request of a run as a line of JSON, compressed, written while the run goes on.
//!
//! Each level is one zstd frame, so a run that is resumed continues at the end of its last saved level, and a killed
//! one keeps every block that was flushed.

pub mod reader;
pub mod writer;

use serde::{Deserialize, Serialize};

use crate::record::request::RequestRecord;

/// Bytes a request takes in the log with no chunk, and what each chunk adds: upper figures, for estimates.
const BYTES_A_REQUEST: u64 = 160;
const BYTES_A_CHUNK: f64 = 12.0;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedRequest {
    /// Index of its level.
    pub level: u32,
    /// As it was measured.
    #[serde(flatten)]
    pub request: RequestRecord,
}

/// How much room to have before a run of so many requests is started, bytes.
#[must_use]
pub fn estimated_bytes(requests: u64, mean_chunks: f64) -> u64 {
    // A float-to-integer `as` saturates, and NaN becomes 0.
    requests.saturating_mul(BYTES_A_REQUEST.saturating_add((BYTES_A_CHUNK * mean_chunks).ceil() as u64))
}
