//! One inference call as traffic: a recipe for its prompt, the length of its answer, how it is sampled.
//!
//! A prompt is not a list of tokens but the recipe for one, so that a million requests cost nothing until a
//! target needs the ids; two prompts share a prefix exactly when their first segments are equal.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::rng;
use crate::workload::fit::{Caps, Size};

/// A run of pseudo-random tokens: equal segments give equal tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Segment {
    /// What the tokens are made from.
    pub seed: u64,
    /// How many tokens, 1 or more.
    pub tokens: u32,
}

/// A recipe for prompt tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Concatenated in order.
    pub segments: Vec<Segment>,
}

impl Prompt {
    /// A prompt of its own, shared with no other seed.
    #[must_use]
    pub fn unique(seed: u64, tokens: u32) -> Self {
        Self { segments: vec![Segment { seed, tokens }] }
    }

    /// Length in tokens.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.segments.iter().map(|segment| segment.tokens).sum()
    }

    /// Whether there is no token at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token ids, each in `0..vocab_size`.
    pub fn token_ids(&self, vocab_size: u32) -> impl Iterator<Item = u32> + '_ {
        let vocab_size = u64::from(vocab_size.max(1));
        self.segments.iter().flat_map(move |segment| {
            (0..u64::from(segment.tokens))
                .map(move |index| ((u128::from(rng::at(segment.seed, index)) * u128::from(vocab_size)) >> 64) as u32)
        })
    }
}

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the k likeliest ids; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest ids whose probabilities add up to this, in (0, 1].
    pub top_p: f32,
    /// Counter-based: token i of a request depends on this seed and i alone.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0 }
    }
}

/// One inference call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Unique within a level: 0, 1, 2 ... in order of submission.
    pub id: u64,
    /// What is asked.
    pub prompt: Prompt,
    /// How many tokens to generate, 1 or more; forced (`ignore_eos`) in every benchmark.
    pub output_tokens: u32,
    /// How they are chosen.
    pub sampling: Sampling,
    /// The conversation it belongs to, where the workload has several turns.
    pub session: Option<u64>,
}

/// What a source had to do to make its requests, so that nothing is changed silently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests made.
    pub made: u64,
    /// Prompt tokens of these.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Answer tokens asked for.
    #[serde(default)]
    pub output_tokens: u64,
    /// Of these, shortened to fit a cap or the context of the model.
    pub capped: u64,
    /// Of those, shortened because the context of the model is too small, whatever the caps.
    #[serde(default)]
    pub cut: u64,
    /// Sessions begun; 0 where the traffic has none.
    pub sessions: u64,
    /// Sessions that ended before their last turn because their history left no room in the context.
    pub sessions_cut: u64,
    /// Line of the trace that the first one comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_line: Option<u64>,
    /// Why the traffic ended before its end, such as a trace file that could not be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broke_off: Option<String>,
}

impl Tally {
    /// One more request was made of one that was asked for under these caps.
    pub(super) fn count(&mut self, asked: Size, caps: Caps, size: Size) {
        self.made += 1;
        self.prompt_tokens += u64::from(size.fixed) + u64::from(size.own);
        self.output_tokens += u64::from(size.output);
        self.capped += u64::from(size != asked);
        self.cut += u64::from(size != caps.over(asked));
    }
}

/// Makes requests in order. What a workload is, seen from the load side.
pub trait RequestSource {
    /// The next request that may be sent, or `None` when the traffic is exhausted (a trace ended).
    fn next_request(&mut self) -> Option<Request>;

    /// Tells that a request ended: the next turn of its session may now be sent.
    fn ended(&mut self, _id: u64) {}

    /// Tells the time, before [`Self::next_request`] and [`Self::ended`]: think times are counted on it. A source that is
    /// never told takes every think time as over.
    fn advance(&mut self, _now: Nanos) {}

    /// What was made so far, and what had to be shortened for it.
    fn tally(&self) -> Tally {
        Tally::default()
    }
}
