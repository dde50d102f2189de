//! How far an answer is: its text, its counts, and whether it is over.

use crate::model::tokenizer::Tokenizer;
use crate::serve::detokenizer::Detokenizer;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// It has all tokens that were asked for.
    Length,
    /// An end id or a text that was to stop it.
    Stop,
}

impl Finish {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Stop => "stop",
        }
    }
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Progress {
    detokenizer: Detokenizer,
    stops: Stops,
    /// Tokens so far.
    pub(super) tokens: u32,
    /// Why it is over, if it is.
    pub(super) finish: Option<Finish>,
}

impl Progress {
    pub(super) fn new(detokenizer: Detokenizer, stops: Stops) -> Self {
        Self { detokenizer, stops, tokens: 0, finish: None }
    }

    /// Takes a token, of which `is_last` and `is_end` say that the engine ended with it, and that it is an end id. The text to
    /// give out; `None` while a character or a text that would stop the answer is not whole.
    pub(super) fn take(&mut self, id: u32, (is_last, is_end): (bool, bool), tokenizer: Option<&Tokenizer>) -> Option<String> {
        self.tokens += 1;
        let mut text = self.detokenizer.push(id, tokenizer);
        if is_last {
            self.finish = Some(if is_end { Finish::Stop } else { Finish::Length });
            *text.get_or_insert_default() += &self.detokenizer.rest(tokenizer);
        }
        let text = text?;
        if self.stops.texts.is_empty() {
            return Some(text);
        }
        let (text, is_stopped) = self.stops.push(&text, is_last);
        if is_stopped {
            self.finish = Some(Finish::Stop);
        }
        (!text.is_empty() || self.finish.is_some()).then_some(text)
    }
}

/// Texts that end an answer, looked for across tokens.
#[derive(Debug, Default)]
pub(super) struct Stops {
    texts: Vec<String>,
    /// Text that may be the beginning of one of them.
    held: String,
}

impl Stops {
    pub(super) fn new(texts: Vec<String>) -> Self {
        Self { texts, held: String::new() }
    }

    /// Takes text; what can be given out of it, and whether the answer ends there.
    fn push(&mut self, text: &str, is_last: bool) -> (String, bool) {
        self.held += text;
        if let Some(at) = self.texts.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let begins = |from: &usize| self.texts.iter().any(|stop| stop.starts_with(&self.held[*from..]));
        let from = if is_last { None } else { self.held.char_indices().map(|(at, _)| at).find(begins) };
        let rest = self.held.split_off(from.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_found_across_pieces_and_what_is_none_is_given_out() {
        let mut stops = Stops::new(vec!["END".to_owned(), "é!".to_owned()]);
        assert_eq!(stops.push("a E", false), ("a ".to_owned(), false));
        assert_eq!(stops.push("Nx", false), ("ENx".to_owned(), false));
        assert_eq!(stops.push("y é", false), ("y ".to_owned(), false));
        assert_eq!(stops.push("! z", false), (String::new(), true));
        assert_eq!(Stops::new(vec!["END".to_owned()]).push("EN", true), ("EN".to_owned(), false));
    }

    #[test]
    fn without_a_tokenizer_each_token_has_a_placeholder() {
        let mut progress = Progress::new(Detokenizer::new(), Stops::default());
        assert_eq!(progress.take(7, (false, false), None).as_deref(), Some(" t7"));
        assert_eq!(progress.take(8, (true, false), None).as_deref(), Some(" t8"));
        assert_eq!((progress.tokens, progress.finish), (2, Some(Finish::Length)));
    }
}
