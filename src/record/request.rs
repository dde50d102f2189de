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
    /// The target answered with an error of its own: a 5xx, or an error inside the stream.
    TargetError,
    /// No connection: refused, unreachable, or its encryption failed.
    Unreachable,
    /// No connection in time.
    ConnectTimeout,
    /// No token in time.
    FirstTokenTimeout,
    /// The answer stalled between two tokens.
    TokenGapTimeout,
    /// The connection ended before the answer did.
    ConnectionLost,
    /// What came is not what the protocol says.
    Malformed,
    /// The answer ended properly and in the middle.
    Truncated,
    /// The answer carried no token.
    Empty,
    /// The generator's own machine had no descriptor or port left.
    ClientLimit,
}

/// What is known of the tokens of an answer that came over a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCount {
    /// Events of the stream that carried tokens.
    pub events: u32,
    /// Tokens of the answer by the server's usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_by_usage: Option<u32>,
    /// Tokens of the answer's text by a local tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_by_tokenizer: Option<u32>,
    /// Tokens of the prompt by the server's usage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_by_usage: Option<u32>,
    /// Of those, from the prefix cache.
    #[serde(default)]
    pub cached: u32,
    /// Whether the server says how many came from its cache.
    #[serde(default)]
    pub tells_cached: bool,
    /// Whether its usage ran along with the events.
    #[serde(default)]
    pub running: bool,
}

impl TokenCount {
    /// Tokens of the answer by who knows best: the server, else the local tokenizer; `None` where neither counted.
    #[must_use]
    pub fn output(&self) -> Option<u32> {
        self.output_by_usage.or(self.output_by_tokenizer)
    }

    /// Whether server and local tokenizer both counted, and not the same.
    #[must_use]
    pub fn tokenizer_disagrees(&self) -> bool {
        self.output_by_usage.zip(self.output_by_tokenizer).is_some_and(|(usage, tokenizer)| usage != tokenizer)
    }

    /// Whether the server counts other tokens than events came.
    #[must_use]
    pub fn disagrees(&self) -> bool {
        self.output_by_usage.is_some_and(|usage| usage != self.events)
    }
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
    /// Prompt length: as the server counts it where it says so, else as it was made.
    pub prompt_tokens: u32,
    /// Prompt length as it was made, where the server counts another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_tokens: Option<u32>,
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
    /// What is known of its tokens, where it came over a wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_count: Option<TokenCount>,
    /// How long the target wanted to be left alone when it refused it, where it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Nanos>,
    /// How it ended.
    pub ending: Ending,
}

impl RequestRecord {
    /// The server's count replaces what was counted on arrival, chunk by chunk in proportion.
    pub fn reckon(&mut self, count: TokenCount) {
        self.token_count = Some(count);
        self.cached_tokens = self.cached_tokens.max(count.cached);
        if let Some(prompt_tokens) = count.prompt_by_usage.filter(|tokens| *tokens != self.prompt_tokens) {
            self.made_tokens = Some(self.prompt_tokens);
            self.prompt_tokens = prompt_tokens;
        }
        let Some(tokens) = count.output().filter(|tokens| *tokens != self.output_tokens) else { return };
        let counted = u64::from(self.output_tokens.max(1));
        let (mut before, mut given) = (0_u64, 0_u64);
        for chunk in &mut self.chunks {
            before += u64::from(chunk.tokens);
            let upto = (before * u64::from(tokens) + counted / 2) / counted;
            chunk.tokens = (upto - given) as u32;
            given = upto;
        }
        self.output_tokens = tokens;
    }

    /// The same with every stamp counted from `begin`, which is no later than any of them.
    #[must_use]
    pub fn counted_from(mut self, begin: Nanos) -> Self {
        let since = |at: Nanos| at.since(begin);
        self.intended = since(self.intended);
        self.end = since(self.end);
        for stamp in [&mut self.sent, &mut self.admitted, &mut self.first_byte, &mut self.first_token, &mut self.last_token] {
            *stamp = stamp.map(since);
        }
        self.chunks.iter_mut().for_each(|chunk| chunk.at = since(chunk.at));
        self
    }

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
