//! One request inside the engine: its tokens, how far its keys and values are computed, and its blocks.
//!
//! A sequence decides nothing; the scheduler moves it on.

use crate::device::step::FED_BACK;
use crate::engine::kv_blocks::{ContentHash, Refusal};
use crate::workload::request::Sampling;

/// Whether an end-of-sequence id ends a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfSequence {
    /// It does.
    Stop,
    /// It does once so many tokens are generated, its own among them; before, it is a token like any other.
    StopAfter(u32),
    /// It is a token like any other (`ignore_eos`): neither stopped at nor forbidden, so that lengths are forced.
    Ignore,
}

/// What the engine is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineRequest {
    /// The asker's name for it, given back in every event; unique among the requests in flight.
    pub key: u64,
    /// Token ids, 1 or more.
    pub prompt: Vec<u32>,
    /// Tokens to generate, 1 or more; fewer only where an end id stops it.
    pub max_new_tokens: u32,
    /// How they are chosen.
    pub sampling: Sampling,
    /// What an end id does.
    pub end_of_sequence: EndOfSequence,
}

/// A request in the scheduler's hands.
#[derive(Debug)]
pub struct Sequence {
    pub(super) key: u64,
    /// The prompt, then what was generated.
    pub(super) token_ids: Vec<u32>,
    /// Leading tokens that the host knows. Each later one is chosen in a step under way, and its id says in which row.
    pub(super) num_known_tokens: usize,
    pub(super) num_prompt_tokens: usize,
    /// Generated tokens at which it ends.
    pub(super) max_new_tokens: usize,
    pub(super) sampling: Sampling,
    pub(super) end_of_sequence: EndOfSequence,
    /// Leading tokens whose keys and values are in its blocks, once the steps under way have run.
    pub(super) num_computed_tokens: usize,
    /// Tokens computed in the step being prepared; 0 once it is launched.
    pub(super) num_scheduled_tokens: usize,
    /// Its blocks, in order of positions.
    pub(super) block_table: Vec<u32>,
    /// Content hash of each full block of tokens, as far as asked for; lengthened as tokens come.
    pub(super) block_hashes: Vec<ContentHash>,
    /// Leading blocks that other sequences can find by content.
    pub(super) num_published_blocks: usize,
    /// Why it did not fit when it was last asked.
    pub(super) refusal: Option<Refusal>,
    /// Whether it was scheduled before: a preempted sequence starts once.
    pub(super) started: bool,
}

impl Sequence {
    /// Takes a request that was checked.
    #[must_use]
    pub fn new(request: EngineRequest) -> Self {
        let num_prompt_tokens = request.prompt.len();
        let max_new_tokens = request.max_new_tokens as usize;
        let mut token_ids = request.prompt;
        token_ids.reserve_exact(max_new_tokens);
        Self {
            key: request.key,
            token_ids,
            num_known_tokens: num_prompt_tokens,
            num_prompt_tokens,
            max_new_tokens,
            sampling: request.sampling,
            end_of_sequence: request.end_of_sequence,
            num_computed_tokens: 0,
            num_scheduled_tokens: 0,
            block_table: Vec::new(),
            block_hashes: Vec::new(),
            num_published_blocks: 0,
            refusal: None,
            started: false,
        }
    }

    /// Its blocks, in order of positions; empty while it waits.
    #[must_use]
    pub fn block_table(&self) -> &[u32] {
        &self.block_table
    }

    /// The prompt, then what was generated; [`FED_BACK`] marks what is not known yet.
    #[must_use]
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Prompt and generated tokens so far, known or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Never: a prompt has a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }

    /// Tokens generated so far, known or not.
    #[must_use]
    pub fn num_completion_tokens(&self) -> usize {
        self.token_ids.len() - self.num_prompt_tokens
    }

    /// Tokens whose keys and values are still to be computed before the next one can be chosen.
    #[must_use]
    pub fn num_uncomputed_tokens(&self) -> usize {
        self.token_ids.len() - self.num_computed_tokens
    }

    /// Whether only the newest generated token is uncomputed: it decodes rather than prefills.
    #[must_use]
    pub fn is_decoding(&self) -> bool {
        self.num_computed_tokens + 1 == self.token_ids.len() && self.num_computed_tokens >= self.num_prompt_tokens
    }

    /// Whether every token it was asked for is generated, known or not.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.num_completion_tokens() == self.max_new_tokens
    }

    /// Whether the host knows all its tokens so far.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.num_known_tokens == self.token_ids.len()
    }

    /// Whether the token learned last ends it, should that be an end-of-sequence id.
    #[must_use]
    pub fn may_stop(&self) -> bool {
        match self.end_of_sequence {
            EndOfSequence::Stop => true,
            EndOfSequence::StopAfter(tokens) => self.num_known_tokens - self.num_prompt_tokens >= tokens as usize,
            EndOfSequence::Ignore => false,
        }
    }

    /// Whether the step being prepared computes its newest token, so that the next one will be chosen.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.num_scheduled_tokens > 0 && self.num_computed_tokens + self.num_scheduled_tokens == self.token_ids.len()
    }

    /// Notes that a step was launched that computes its next `tokens` tokens.
    pub fn advance(&mut self, tokens: usize) {
        self.num_computed_tokens += tokens;
        self.num_scheduled_tokens = 0;
    }

    /// Has one more token: the one that the step just launched chooses in `row`.
    pub fn append_fed_back(&mut self, row: u32) {
        self.token_ids.push(FED_BACK | row);
    }

    /// Takes the id of its first token that is not known.
    pub fn learn(&mut self, token: u32) {
        self.token_ids[self.num_known_tokens] = token;
        self.num_known_tokens += 1;
    }

    /// Blocks that hold its tokens so far.
    #[must_use]
    pub fn num_blocks(&self, block_size: usize) -> usize {
        self.token_ids.len().div_ceil(block_size)
    }
}
