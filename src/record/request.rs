//! One request as it was measured: seven stamps, every chunk, and how it ended.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

/// Tokens that arrived together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// When.
    pub at: Nanos,
    /// How many tokens, 1 or more.
    pub tokens: u32,
}

/// Why a request did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The request's own limit (context, vocabulary) makes it impossible.
    Rejected,
    /// The target ran out of memory for it.
    OutOfMemory,
    /// The target refused it because it has too much to do (429, 503, a full queue).
    Refused,
    /// The target is gone.
    TargetGone,
    /// The target answered with an error of its own.
    TargetError,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "why")]
pub enum Ending {
    /// All tokens arrived.
    Completed,
    /// The target failed it.
    Failed(FailureKind),
    /// Not finished within the request timeout.
    TimedOut,
    /// Refused by the generator itself at its in-flight cap (`--on-cap refuse`).
    Refused,
    /// Still in flight when the level was over; only outside the cohort, or when the run was interrupted.
    Cancelled,
}

/// One request as it was measured. All stamps are on the process's monotonic clock; whether it belongs to the level's
/// cohort is told by its `intended` and the level's window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Unique within the level.
    pub id: u64,
    /// When the arrival schedule says it starts (open loop); equals `sent` in closed loop.
    pub intended: Nanos,
    /// When the target was given it; `None` if it never was.
    pub sent: Option<Nanos>,
    /// When the engine first scheduled it (in-process and simulated targets).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Nanos>,
    /// First byte of the response head (HTTP targets).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Nanos>,
    /// First event that carried a token.
    pub first_token: Option<Nanos>,
    /// Last event that carried a token.
    pub last_token: Option<Nanos>,
    /// Stream closed, failed or given up.
    pub end: Nanos,
    /// Prompt length.
    pub prompt_tokens: u32,
    /// Prompt tokens the target took from its prefix cache, where it says so.
    #[serde(default)]
    pub cached_tokens: u32,
    /// Tokens asked for.
    pub requested_tokens: u32,
    /// Tokens received.
    pub output_tokens: u32,
    /// Times the target preempted it, where it says so.
    #[serde(default)]
    pub preemptions: u32,
    /// Every chunk with its stamp; empty where the run keeps no chunks.
    #[serde(default)]
    pub chunks: Vec<Chunk>,
    /// How it ended.
    pub ending: Ending,
}

impl RequestRecord {
    /// Whether all tokens arrived.
    #[must_use]
    pub fn completed(&self) -> bool {
        self.ending == Ending::Completed
    }

    /// Time to first token from the intended start: a stall of generator or target cannot hide.
    #[must_use]
    pub fn ttft(&self) -> Option<Nanos> {
        Some(self.first_token?.since(self.intended))
    }

    /// Time to first token from the actual send.
    #[must_use]
    pub fn ttft_service(&self) -> Option<Nanos> {
        Some(self.first_token?.since(self.sent?))
    }

    /// End-to-end latency from the intended start to the last token.
    #[must_use]
    pub fn e2e(&self) -> Option<Nanos> {
        Some(self.last_token?.since(self.intended))
    }

    /// The generator's own delay.
    #[must_use]
    pub fn send_lag(&self) -> Option<Nanos> {
        Some(self.sent?.since(self.intended))
    }

    /// Time from the intended start to admission into the engine's batch.
    #[must_use]
    pub fn queue_delay(&self) -> Option<Nanos> {
        Some(self.admitted?.since(self.intended))
    }

    /// Tokens of the first chunk; 1 where chunks were not kept.
    #[must_use]
    pub fn first_chunk_tokens(&self) -> u32 {
        self.chunks.first().map_or(1, |chunk| chunk.tokens)
    }

    /// Time per output token after the first chunk, nanoseconds; undefined, not 0, when no token followed it.
    #[must_use]
    pub fn tpot_ns(&self) -> Option<f64> {
        let later = self.output_tokens.checked_sub(self.first_chunk_tokens()).filter(|later| *later > 0)?;
        Some(self.last_token?.since(self.first_token?).0 as f64 / f64::from(later))
    }
}
