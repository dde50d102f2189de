//! Prompts as text, for servers that take no token ids: plain English words, most of which are one token in every vocabulary.
//!
//! A prompt of n tokens becomes as many words as the server was seen to count n tokens for. Equal segments give equal
//! words, so that prefixes are shared exactly where the workload shares them.

use crate::rng;
use crate::workload::request::Prompt;

/// Common words, each one token behind a space in the vocabularies of today.
const WORDS: [&str; 128] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he", "this", "are", "or",
    "his", "from", "at", "which", "but", "have", "an", "had", "they", "you", "were", "their", "one", "all", "we", "can", "her", "has",
    "there", "been", "if", "more", "when", "will", "would", "who", "so", "no", "out", "up", "into", "that", "than", "them", "other",
    "time", "some", "could", "these", "two", "may", "first", "then", "do", "any", "like", "my", "now", "over", "such", "our", "man", "me",
    "even", "most", "made", "after", "also", "well", "did", "many", "before", "must", "years", "back", "through", "much", "where", "your",
    "way", "down", "should", "because", "long", "each", "just", "state", "people", "those", "too", "how", "little", "good", "world",
    "make", "very", "year", "still", "see", "work", "life", "being", "house", "right", "between", "last", "same", "under", "never", "day",
    "old", "while", "great", "against", "place", "found", "used", "part",
];

/// How many tokens the server counts for words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WordRate {
    /// Tokens of an empty prompt: what a chat template adds.
    pub overhead: f64,
    /// Tokens a word.
    pub per_word: f64,
}

impl Default for WordRate {
    fn default() -> Self {
        Self { overhead: 0.0, per_word: 1.0 }
    }
}

impl WordRate {
    /// From what the server counted for two prompts of so many words, the second the longer one.
    #[must_use]
    pub fn from_counts(short: (u32, u32), long: (u32, u32)) -> Self {
        let words = f64::from(long.0) - f64::from(short.0);
        let tokens = f64::from(long.1) - f64::from(short.1);
        let per_word = if words > 0.0 && tokens > 0.0 { tokens / words } else { 1.0 };
        Self { overhead: (f64::from(short.1) - per_word * f64::from(short.0)).max(0.0), per_word }
    }

    /// Writes the words of `prompt` behind `into`.
    pub fn write(&self, prompt: &Prompt, into: &mut Vec<u8>) {
        // What the template adds belongs to no segment; it is taken off the last, which is the request's own.
        let last = prompt.segments.len().saturating_sub(1);
        for (index, segment) in prompt.segments.iter().enumerate() {
            let tokens = f64::from(segment.tokens) - if index == last { self.overhead } else { 0.0 };
            let words = (tokens / self.per_word).round().max(1.0) as u64;
            for word in 0..words {
                into.push(b' ');
                into.extend_from_slice(WORDS[(rng::at(segment.seed, word) >> 57) as usize].as_bytes());
            }
        }
    }
}
