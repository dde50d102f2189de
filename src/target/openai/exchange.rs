//! What an answer says, whatever framed it on the wire: its events, its tokens, and what became of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::http::head::Head;
use crate::model::tokenizer::Tokenizer;
use crate::record::request::{FailureKind, TokenCount};
use crate::target::openai::delta::{self, Delta, Usage};
use crate::target::openai::reckoning::{Reckoning, TokensPerEvent};
use crate::target::openai::sse::EventStream;

/// Longest body of an answer that is no stream.
const BODY_AT_MOST: usize = 16 << 20;

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its class.
    pub kind: FailureKind,
    /// How long the server wants to be left alone, where it says so.
    pub retry_after: Option<Duration>,
    /// In the server's words, or ours.
    pub message: String,
}

impl Failure {
    /// One of `kind`.
    #[must_use]
    pub fn of(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, retry_after: None, message: message.into() }
    }

    /// There is no connection: whose fault it is.
    #[must_use]
    pub fn unreachable(error: &io::Error) -> Self {
        let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
        let is_own = error.raw_os_error().is_some_and(|code| own.iter().any(|errno| errno.raw_os_error() == code));
        Self::of(if is_own { FailureKind::ClientLimit } else { FailureKind::Unreachable }, error.to_string())
    }
}

/// An answer that is being received, without its framing.
#[derive(Debug, Default)]
pub struct Exchange {
    status: u16,
    event_stream: bool,
    retry_after: Option<Duration>,
    /// The body of an answer that is no stream.
    held: Vec<u8>,
    /// Counts the tokens of the text, which is kept for nobody else.
    tokenizer: Option<Arc<Tokenizer>>,
    text: String,
    events: EventStream,
    reckoning: Reckoning,
    usage: Option<Usage>,
    finished: bool,
    done: bool,
    failure: Option<Failure>,
}

impl Exchange {
    /// One whose text is counted by `tokenizer`, where there is one.
    #[must_use]
    pub fn counted_by(tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { tokenizer, ..Self::default() }
    }

    /// Another answer begins; memory is kept.
    pub fn reset(&mut self) {
        self.held.clear();
        self.text.clear();
        self.events.reset();
        (self.usage, self.failure) = (None, None);
        (self.finished, self.done) = (false, false);
        self.reckoning = Reckoning::default();
    }

    /// Its head came.
    pub fn begins(&mut self, head: &Head) {
        (self.status, self.event_stream, self.retry_after) = (head.status, head.event_stream, head.retry_after);
    }

    /// Takes a piece of its body; what its events say is put with what came together with it.
    ///
    /// # Errors
    /// When it has no end.
    pub fn take(&mut self, piece: &[u8], together: &mut Together, per_event: &TokensPerEvent) -> Result<(), String> {
        if self.done || together.done {
            // Its framing alone is still of interest.
            return Ok(());
        }
        if self.event_stream && self.is_good() {
            let Self { events, reckoning, tokenizer, text, .. } = self;
            let text = tokenizer.is_some().then_some(text);
            return events.feed(piece, &mut hearing(together, reckoning, per_event, text)).map_err(|error| error.to_string());
        }
        self.held.extend_from_slice(piece);
        if self.held.len() > BODY_AT_MOST { Err("the body has no end".to_owned()) } else { Ok(()) }
    }

    /// What came together is understood; returns the tokens that it brought.
    pub fn apply(&mut self, together: Together) -> u32 {
        self.finished |= together.finishes;
        self.done |= together.done;
        if let Some(failure) = together.failure {
            self.failure.get_or_insert(failure);
        }
        self.usage = together.usage.or(self.usage);
        together.brought
    }

    /// Whether `[DONE]` came: the request is over, though the body has perhaps not said its last.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The body is whole; returns the tokens that its end brought.
    pub fn conclude(&mut self, per_event: &TokensPerEvent) -> u32 {
        let mut tokens = 0;
        if !self.is_good() {
            let said = said_by(&self.held);
            let kind = match self.status {
                429 | 503 => FailureKind::Refused,
                500.. => FailureKind::TargetError,
                _ => FailureKind::Rejected,
            };
            self.failure = Some(Failure { retry_after: self.retry_after, ..Failure::of(kind, format!("{}: {said}", self.status)) });
        } else if self.done {
            // What came behind the end says nothing, not even that it was cut off.
        } else if self.event_stream {
            let mut together = Together::default();
            let text = self.tokenizer.is_some().then_some(&mut self.text);
            let cut = self.events.end(&mut hearing(&mut together, &mut self.reckoning, per_event, text));
            tokens = self.apply(together);
            if cut {
                self.failure.get_or_insert(Failure::of(FailureKind::Truncated, "the stream ended inside an event"));
            }
        } else {
            let mut together = Together::default();
            let held = std::mem::take(&mut self.held);
            let text = self.tokenizer.is_some().then_some(&mut self.text);
            hearing(&mut together, &mut self.reckoning, per_event, text)(&held);
            self.held = held;
            self.held.clear();
            tokens = self.apply(together);
            self.finished |= self.failure.is_none();
        }
        tokens + self.judge()
    }

    /// Tokens of an answer that had no text to send, such as parts of a character: they came with its end.
    fn without_text(&mut self) -> u32 {
        let told = self.usage.map_or(0, |usage| usage.output);
        if self.reckoning.events > 0 || told == 0 || self.failure.is_some() {
            return 0;
        }
        self.reckoning.take(1, Some(told), &TokensPerEvent::default())
    }

    /// It is over: what it lacks, where it had no failure of its own. Returns the tokens that only its end tells of.
    #[must_use]
    pub fn judge(&mut self) -> u32 {
        let tokens = self.without_text();
        if self.failure.is_some() {
            return tokens;
        }
        // `[DONE]` is no reason: llama-cpp-python ends a stream with it when another request breaks in, whatever had come.
        let ends = self.finished || self.usage.is_some();
        if self.reckoning.events == 0 {
            self.failure = Some(Failure::of(FailureKind::Empty, "the stream carried no token"));
        } else if !ends {
            let what = "the stream ended without a reason to finish or usage";
            self.failure = Some(Failure::of(FailureKind::Truncated, what));
        }
        tokens
    }

    /// It failed, unless it had failed before.
    pub fn fail(&mut self, kind: FailureKind, message: impl Into<String>) {
        self.failure.get_or_insert(Failure::of(kind, message));
    }

    /// What went wrong, once it ended; `None` where all is well.
    #[must_use]
    pub fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// What is known of its tokens.
    #[must_use]
    pub fn token_count(&self) -> TokenCount {
        TokenCount {
            events: self.reckoning.events,
            output_by_usage: self.usage.map(|usage| usage.output),
            output_by_tokenizer: self
                .tokenizer
                .as_ref()
                .filter(|_| !self.text.is_empty())
                .and_then(|tokenizer| tokenizer.count(&self.text)),
            prompt_by_usage: self.usage.map(|usage| usage.prompt).filter(|prompt| *prompt > 0),
            cached: self.usage.and_then(|usage| usage.cached).unwrap_or(0),
            tells_cached: self.usage.is_some_and(|usage| usage.cached.is_some()),
            running: self.reckoning.running,
        }
    }

    /// Tokens counted so far.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.reckoning.counted
    }

    fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Puts each event with those that came together with it; its text behind `text`, where somebody counts it. What comes behind
/// the end is passed over: whether it came along in the same read is chance.
fn hearing(
    together: &mut Together,
    reckoning: &mut Reckoning,
    per_event: &TokensPerEvent,
    mut text: Option<&mut String>,
) -> impl FnMut(&[u8]) {
    move |data| {
        if together.done {
            return;
        }
        together.take(data, reckoning, per_event);
        if let Some(text) = &mut text {
            delta::append_text(data, text);
        }
    }
}

/// An error body in few words.
fn said_by(body: &[u8]) -> String {
    let error = Delta::read(body).ok().and_then(|delta| delta.error);
    error.unwrap_or_else(|| {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

/// What the events of one read say: they came together.
#[derive(Debug, Default)]
pub struct Together {
    /// Tokens that they carried.
    brought: u32,
    finishes: bool,
    done: bool,
    usage: Option<Usage>,
    failure: Option<Failure>,
}

impl Together {
    fn take(&mut self, data: &[u8], reckoning: &mut Reckoning, per_event: &TokensPerEvent) {
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        if data.is_empty() {
            return;
        }
        match Delta::read(data) {
            Ok(delta) => {
                self.finishes |= delta.finishes;
                // A usage beside tokens is a running count; one that stands alone at the end is no help for those before it. Event by
                // event, so that the sum does not depend on how many came in one read.
                if delta.bears_tokens {
                    self.brought += reckoning.take(1, delta.usage.map(|usage| usage.output), per_event);
                }
                self.usage = delta.usage.or(self.usage);
                if let Some(error) = delta.error {
                    self.failure.get_or_insert(Failure::of(FailureKind::TargetError, error));
                }
            }
            Err(error) => {
                self.failure.get_or_insert(Failure::of(FailureKind::Malformed, error.to_string()));
            }
        }
    }
}
