//! Which requests an engine can serve at all: those it refuses are refused when they come, not when they fail.
//!
//! Pure; the engine asks it for each request.

use crate::engine::scheduler::EngineShape;
use crate::engine::sequence::EngineRequest;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Nothing to begin from.
    #[error("the prompt has no tokens. Give it one token or more")]
    EmptyPrompt,
    /// Nothing asked for.
    #[error("the request asks for `0` tokens. Ask for one or more")]
    NothingToGenerate,
    /// Longer than the model was made for.
    #[error(
        "a prompt of `{prompt}` tokens and an answer of `{output}` exceed the model's context of `{context}` tokens. Shorten one of them"
    )]
    ContextExceeded {
        /// Prompt tokens.
        prompt: usize,
        /// Tokens asked for.
        output: usize,
        /// What the model can hold.
        context: usize,
    },
    /// Longer than all the cache there is.
    #[error(
        "a prompt of `{prompt}` tokens and an answer of `{output}` need `{needed}` KV blocks where there are `{total}`. Shorten one of them, or give the engine more KV blocks"
    )]
    CacheExceeded {
        /// Prompt tokens.
        prompt: usize,
        /// Tokens asked for.
        output: usize,
        /// Blocks it would take at its longest.
        needed: usize,
        /// Blocks there are.
        total: usize,
    },
    /// No such token.
    #[error(
        "the prompt has the token id `{id}`, but the model's vocabulary ends at `{last}`. Encode the prompt with the model's own tokenizer"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// The highest there is.
        last: usize,
    },
    /// A sampling parameter out of its range.
    #[error("`{parameter}` is `{value}`, but {wanted}. Correct it, or leave it out for greedy decoding")]
    Sampling {
        /// Which parameter.
        parameter: &'static str,
        /// What was given.
        value: f32,
        /// What would do.
        wanted: &'static str,
    },
}

/// What bounds a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Ids there are.
    pub vocab_size: usize,
    /// Tokens of prompt and answer together.
    pub context: usize,
    /// The engine's shape.
    pub shape: EngineShape,
}

impl RequestLimits {
    /// Tokens of prompt and answer together that fit both the model and the cache.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.context.min(self.shape.num_kv_blocks as usize * self.shape.block_size + 1)
    }

    /// Whether `request` can be served.
    ///
    /// # Errors
    /// When it never could be, with the reason.
    pub fn check(&self, request: &EngineRequest) -> Result<(), RequestError> {
        let (prompt, output) = (request.prompt.len(), request.max_new_tokens as usize);
        if prompt == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        if output == 0 {
            return Err(RequestError::NothingToGenerate);
        }
        if prompt + output > self.context {
            return Err(RequestError::ContextExceeded { prompt, output, context: self.context });
        }
        // The last token generated is never computed itself.
        let (needed, total) = ((prompt + output - 1).div_ceil(self.shape.block_size), self.shape.num_kv_blocks as usize);
        if needed > total {
            return Err(RequestError::CacheExceeded { prompt, output, needed, total });
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(RequestError::UnknownToken { id: *id, last: self.vocab_size - 1 });
        }
        let sampling = request.sampling;
        if !(sampling.temperature >= 0.0 && sampling.temperature.is_finite()) {
            return Err(RequestError::Sampling { parameter: "temperature", value: sampling.temperature, wanted: "must be 0 or more" });
        }
        if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
            return Err(RequestError::Sampling { parameter: "top_p", value: sampling.top_p, wanted: "must be above 0 and at most 1" });
        }
        Ok(())
    }
}
