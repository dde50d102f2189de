//! Ids to text one by one, never with half a character.

use crate::model::tokenizer::{SpecialTokens, Tokenizer};

/// What a decoder puts where bytes are no whole character.
const REPLACEMENT: char = '\u{fffd}';
/// Most ids a character of four bytes can be spread over: what is no character by then will not become one.
const HELD_AT_MOST: usize = 4;

/// The ids since the last text that was given out, and those it was of.
#[derive(Clone, Debug, Default)]
pub(super) struct Detokenizer {
    ids: Vec<u32>,
    /// Leading ids whose text was given out: decoded again with the others, because some decoders treat a beginning apart.
    given: usize,
    before: String,
}

impl Detokenizer {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// The text that `id` completes; `None` while a character is not whole. Without a tokenizer it is a placeholder.
    pub(super) fn push(&mut self, id: u32, tokenizer: Option<&Tokenizer>) -> Option<String> {
        let Some(tokenizer) = tokenizer else { return Some(format!(" t{id}")) };
        self.ids.push(id);
        let whole = decode(&self.ids, tokenizer);
        if whole.ends_with(REPLACEMENT) && self.ids.len() - self.given < HELD_AT_MOST {
            return None;
        }
        let text = whole.get(self.before.len()..).unwrap_or_default().to_owned();
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        self.before = decode(&self.ids, tokenizer);
        Some(text)
    }

    /// What was held back.
    pub(super) fn rest(&mut self, tokenizer: Option<&Tokenizer>) -> String {
        let Some(tokenizer) = tokenizer.filter(|_| self.ids.len() > self.given) else { return String::new() };
        let whole = decode(&self.ids, tokenizer);
        self.given = self.ids.len();
        whole.get(self.before.len()..).unwrap_or_default().to_owned()
    }
}

fn decode(ids: &[u32], tokenizer: &Tokenizer) -> String {
    // Ids come from the model; one that the tokenizer does not have has no text.
    tokenizer.decode(ids, SpecialTokens::Skip).unwrap_or_default()
}
