//! A workload as a file: what is asked, how long the answers are, how requests hang together, how they arrive.
//!
//! Workload files are TOML. An unknown key is an error, because a misspelt key would silently measure something else.

use serde::{Deserialize, Serialize};

use crate::workload::arrivals::{ArrivalError, ArrivalProcess};
use crate::workload::fit::{Caps, Limits};
use crate::workload::lengths::{Distribution, scaled};
use crate::workload::request::RequestSource;
use crate::workload::sessions::WorkloadRequests;

/// Traffic of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// What it is called in every output.
    pub name: String,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where its lengths come from: a citation, or the statement that they are ours.
    #[serde(rename = "source")]
    pub citation: String,
    /// What its lengths were already multiplied by; 1 as published.
    #[serde(default = "unscaled", skip_serializing_if = "is_unscaled")]
    pub scale: f64,
    /// Objectives in the notation of `--slo`; judged elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<String>,
    /// Prompt tokens of a request's own, 1 or more: shared prefix and history come on top.
    pub input: Distribution,
    /// Answer tokens, 1 or more.
    pub output: Distribution,
    /// How requests arrive in open loop.
    #[serde(default)]
    pub arrivals: ArrivalProcess,
    /// How tokens are chosen.
    #[serde(default)]
    pub sampling: SamplingRule,
    /// Limits on what is drawn.
    #[serde(default)]
    pub caps: Caps,
    /// Prompt beginnings that several requests have in common; without it every prompt is unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_prefix: Option<SharedPrefix>,
    /// Conversations of several requests; without it each request stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Sessions>,
}

/// How tokens are chosen; the seed of each request comes from the seed of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingRule {
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k likeliest ids; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest ids up to this probability, in (0, 1].
    pub top_p: f32,
}

impl Default for SamplingRule {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0 }
    }
}

/// Beginnings that requests share, such as system prompts. They are the same for every seed: a cache keeps them warm, as in production.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPrefix {
    /// Length of each, 1 or more.
    pub tokens: u32,
    /// Share of the requests (of the sessions, where there are any) that begin with one, in (0, 1].
    #[serde(default = "all")]
    pub share: f64,
    /// How many different ones, equally likely, 1 or more.
    #[serde(default = "one")]
    pub distinct: u32,
}

/// Conversations: a turn is sent after the one before it has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Requests of a session, 1 or more.
    pub turns: Distribution,
    /// Milliseconds from the end of a turn to the earliest start of the next.
    #[serde(default = "at_once")]
    pub think_ms: Distribution,
    /// Whether a turn repeats what was said before.
    #[serde(default)]
    pub history: History,
}

/// What a turn takes over from the turns before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// All earlier prompts and answers stand in front of the new prompt: a shared prefix of the session.
    #[default]
    Carried,
    /// Nothing: the target keeps no conversation.
    Dropped,
}

/// Why there is no such workload, or no traffic from it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// The file is not a workload.
    #[error("cannot read the workload `{file}`, line {line}: {problem}. {remedy}")]
    Parse {
        /// As given.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// A value makes no sense.
    #[error("the workload `{name}` is not possible: in `{part}` {problem}. Change it in the workload file")]
    Impossible {
        /// Name of the workload.
        name: String,
        /// Which table or key.
        part: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The arrival process makes no sense.
    #[error("the workload `{name}` has no arrivals: {source}")]
    Arrivals {
        /// Name of the workload.
        name: String,
        /// Why.
        source: ArrivalError,
    },
    /// No preset of that name.
    #[error("there is no workload `{name}`. Take one of {known}, `fixed:IN:OUT`, or the path of a workload file (TOML)")]
    Unknown {
        /// As given.
        name: String,
        /// Those there are.
        known: String,
    },
    /// The model is too small for it.
    #[error(
        "the workload `{name}` does not fit: {problem}. Take a model with a longer context, or multiply all lengths with `--length-scale`, such as 0.25"
    )]
    TooLong {
        /// Name of the workload.
        name: String,
        /// What does not fit.
        problem: String,
    },
}

impl Workload {
    /// A request source for one level: the same for the same seed, and with no prompt in common with another seed
    /// (shared prefixes aside).
    pub fn source(&self, seed: u64, limits: Limits) -> Result<Box<dyn RequestSource + Send>, WorkloadError> {
        Ok(Box::new(WorkloadRequests::new(self, seed, limits)?))
    }

    /// The same traffic with all lengths multiplied by `factor` (above 0), which its name then says.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let times = |tokens: u32| scaled(tokens, factor);
        Self {
            name: format!("{} x{factor}", self.name),
            scale: self.scale * factor,
            input: self.input.scaled(factor),
            output: self.output.scaled(factor),
            caps: Caps { prompt_tokens: self.caps.prompt_tokens.map(times), output_tokens: self.caps.output_tokens.map(times) },
            shared_prefix: self.shared_prefix.map(|prefix| SharedPrefix { tokens: times(prefix.tokens), ..prefix }),
            ..self.clone()
        }
    }

    /// Whether its levels have the rate that they are named after; see [`ArrivalProcess::keeps_rate`].
    pub fn keeps_rate(&self) -> Result<(), WorkloadError> {
        self.arrivals.keeps_rate().map_err(|source| WorkloadError::Arrivals { name: self.name.clone(), source })
    }

    /// Whether every value makes sense.
    pub fn check(&self) -> Result<(), WorkloadError> {
        let impossible = |part, problem| WorkloadError::Impossible { name: self.name.clone(), part, problem };
        let check = |part, distribution: &Distribution, least| distribution.check(least).map_err(|problem| impossible(part, problem));
        let refuse = |part, problem: &str| Err(impossible(part, problem.to_owned()));
        check("input", &self.input, 1)?;
        check("output", &self.output, 1)?;
        if let Some(sessions) = &self.sessions {
            check("sessions.turns", &sessions.turns, 1)?;
            check("sessions.think_ms", &sessions.think_ms, 0)?;
        }
        self.arrivals.check().map_err(|source| WorkloadError::Arrivals { name: self.name.clone(), source })?;
        let SamplingRule { temperature, top_p, .. } = self.sampling;
        match self.shared_prefix {
            Some(prefix) if prefix.tokens == 0 || prefix.distinct == 0 => {
                refuse("shared_prefix", "`tokens` and `distinct` must be 1 or more")
            }
            Some(prefix) if !(prefix.share > 0.0 && prefix.share <= 1.0) => {
                refuse("shared_prefix", "`share` must be above 0 and at most 1")
            }
            _ if !(temperature >= 0.0 && temperature.is_finite()) => refuse("sampling", "`temperature` must be 0 or more"),
            _ if !(top_p > 0.0 && top_p <= 1.0) => refuse("sampling", "`top_p` must be above 0 and at most 1"),
            _ if !(self.scale > 0.0 && self.scale.is_finite()) => refuse("scale", "the factor must be above 0"),
            _ if self.caps.prompt_tokens == Some(0) || self.caps.output_tokens == Some(0) => refuse("caps", "a cap must be 1 or more"),
            _ if self.name.trim().is_empty() => refuse("name", "there is no name"),
            _ => Ok(()),
        }
    }
}

fn unscaled() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_unscaled(scale: &f64) -> bool {
    *scale == 1.0
}

fn all() -> f64 {
    1.0
}

fn one() -> u32 {
    1
}

fn at_once() -> Distribution {
    Distribution::Fixed(0)
}
