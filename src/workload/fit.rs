//! Making a request fit: the caps of a workload and the context of a model, by one rule, counted and never silent.

use serde::{Deserialize, Serialize};

/// What the model allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most tokens of prompt and answer together, 2 or more.
    pub max_context: u32,
    /// Distinct token ids, 2 or more: with fewer no two prompts could differ.
    pub vocab_size: u32,
}

/// Most tokens that a workload asks for, whatever it draws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// Of a whole prompt, shared prefix and history included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u32>,
    /// Of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u32>,
}

/// The lengths of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Tokens that must stand as they are: shared prefix and history.
    pub fixed: u32,
    /// Prompt tokens of its own.
    pub own: u32,
    /// Answer.
    pub output: u32,
}

impl Caps {
    /// A request as it is asked for under these caps, before the context has its say.
    pub(super) fn over(self, size: Size) -> Size {
        let own = self.prompt_tokens.map_or(size.own, |cap| size.own.min(cap.saturating_sub(size.fixed)));
        Size { own, output: size.output.min(self.output_tokens.unwrap_or(u32::MAX)), ..size }
    }
}

/// The largest request within caps and context; `None` where the fixed part leaves no room for one token of its own and one of answer.
///
/// Of a request that is too long, prompt and answer each keep what they ask for up to half of the context; the longer one gives way.
pub(super) fn fit(size: Size, caps: Caps, limits: Limits) -> Option<Size> {
    let context = limits.max_context;
    let prompt_cap = caps.prompt_tokens.unwrap_or(u32::MAX).min(context.checked_sub(1)?);
    let room = prompt_cap.checked_sub(size.fixed).filter(|room| *room > 0)?;
    let own = size.own.min(room);
    let output = size.output.min(caps.output_tokens.unwrap_or(u32::MAX));
    let output = output.min((context - size.fixed - own).max(context / 2)).min(context - size.fixed - 1);
    Some(Size { fixed: size.fixed, own: own.min(context - output - size.fixed), output })
}
