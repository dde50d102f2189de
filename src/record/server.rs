//! What is known of a server that was measured over its API: what it said, what it was seen to do, what its process tells.
//!
//! What is not known is absent, and an absent fact compares with nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the tokens of an answer are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// By the running usage in every event: exact at every moment.
    RunningUsage,
    /// By the usage at the end of an answer: exact for the answer, shared out among its events.
    FinalUsage,
    /// By a local tokenizer over the text.
    Tokenizer,
    /// One an event, for want of anything better.
    Events,
}

impl TokenSource {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::RunningUsage => "the server's running usage",
            Self::FinalUsage => "the server's usage at the end of each answer",
            Self::Tokenizer => "the local tokenizer",
            Self::Events => "one an event: the server gives no usage",
        }
    }
}

/// Whether a server answers a repeated prompt from its prefix cache, by the repeat probe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepeatProbe {
    /// Tokens of the prompt that was sent twice.
    pub prompt_tokens: u32,
    /// Of the second, those that the server says it took from its cache; `None` where it does not say.
    pub cached_tokens: Option<u32>,
    /// Time to first token the first time, milliseconds.
    pub first_ms: f64,
    /// And the second time.
    pub second_ms: f64,
}

impl RepeatProbe {
    /// Whether it caches, as far as the server says so itself; times alone prove little.
    #[must_use]
    pub fn caches(&self) -> Option<bool> {
        self.cached_tokens.map(|cached| f64::from(cached) > 0.5 * f64::from(self.prompt_tokens))
    }
}

/// A server, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerRecord {
    /// Where it is, as it was named.
    pub url: String,
    /// What was spoken with it: `HTTP/1.1` or `HTTP/2`; `None` in runs that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Such as `vLLM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The path that requests went to.
    pub api: String,
    /// How prompts were written: `token ids` or `words (1.02 tokens each)`.
    pub prompts: String,
    /// How tokens were counted.
    pub token_source: TokenSource,
    /// Tokens an event carried in the first answer.
    pub tokens_per_event: f64,
    /// Whether answers were forced to their length and the first one was exactly that long; `None` where nothing forces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_forced: Option<bool>,
    /// Whether it caches prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_probe: Option<RepeatProbe>,
    /// The path that empties its prefix cache, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_reset: Option<String>,
    /// Longest prompt plus answer, tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_context: Option<u32>,
    /// Its process, where it runs on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ServerProcess>,
    /// Where its counters are read, where it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
}

/// A server's process on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerProcess {
    /// Of the process that listens.
    pub pid: u32,
    /// Its command line, secrets left out.
    pub command: Vec<String>,
    /// What the command line says of precision, parallelism and limits, by flag without dashes.
    pub settings: BTreeMap<String, String>,
}

/// How the tokens of a level were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCounts {
    /// Answers of the cohort that carried tokens.
    pub answers: u64,
    /// Of those, with a usage.
    pub with_usage: u64,
    /// Of those, where the usage is not the number of events: several tokens an event, or tokens without one.
    pub disagreeing: u64,
    /// Of those, counted by the local tokenizer for want of a usage.
    #[serde(default)]
    pub by_tokenizer: u64,
    /// Of those with a usage, where a local tokenizer counts otherwise.
    #[serde(default)]
    pub tokenizer_disagreeing: u64,
    /// Events that carried tokens.
    pub events: u64,
    /// Tokens, by usage where there is one.
    pub tokens: u64,
    /// Prompts that the server counts otherwise than they were made, by more than 1 % and two tokens.
    pub prompts_off: u64,
    /// Prompt tokens from the server's prefix cache.
    pub cached_tokens: u64,
}
