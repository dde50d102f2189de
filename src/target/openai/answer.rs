//! One answer as it comes off the wire: head, framing, events; and what became of it.

use std::time::Duration;

use crate::http::body::Body;
use crate::http::head::Head;
use crate::record::request::{FailureKind, TokenCount};
use crate::target::openai::delta::{Delta, Usage};
use crate::target::openai::reckoning::{Reckoning, TokensPerEvent};
use crate::target::openai::sse::EventStream;

/// Longest body of an answer that is no stream.
const BODY_AT_MOST: usize = 16 << 20;

/// An answer that is being received.
#[derive(Debug, Default)]
pub struct Answer {
    /// A head whose end has not come, or the body of an answer that is no stream.
    held: Vec<u8>,
    head: Option<Head>,
    body: Option<Body>,
    events: EventStream,
    reckoning: Reckoning,
    usage: Option<Usage>,
    finished: bool,
    done: bool,
    failure: Option<Failure>,
}

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
}

/// What some bytes brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Tokens that they carried.
    pub tokens: u32,
    /// Whether the answer ended with them, so that the request is over.
    pub ended: bool,
    /// Whether the connection may carry another request: everything of this answer was read.
    pub reusable: bool,
}

impl Answer {
    /// Another answer begins; memory is kept.
    pub fn reset(&mut self) {
        self.held.clear();
        self.events.reset();
        (self.head, self.body, self.usage, self.failure) = (None, None, None, None);
        (self.finished, self.done) = (false, false);
        self.reckoning = Reckoning::default();
    }

    /// Whether its head came.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// What is known of its tokens.
    #[must_use]
    pub fn token_count(&self) -> TokenCount {
        TokenCount {
            events: self.reckoning.events,
            output_by_usage: self.usage.map(|usage| usage.output),
            prompt_by_usage: self.usage.map(|usage| usage.prompt).filter(|prompt| *prompt > 0),
            cached: self.usage.and_then(|usage| usage.cached).unwrap_or(0),
            tells_cached: self.usage.is_some_and(|usage| usage.cached.is_some()),
            running: self.reckoning.running,
        }
    }

    /// What went wrong, once it ended; `None` where all is well.
    #[must_use]
    pub fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Takes what was read.
    pub fn feed(&mut self, mut bytes: &[u8], per_event: &TokensPerEvent) -> Heard {
        if self.head.is_none() {
            self.held.extend_from_slice(bytes);
            let held = std::mem::take(&mut self.held);
            let read = Head::read(&held);
            let heard = match read {
                Ok(None) => {
                    self.held = held;
                    return Heard::default();
                }
                Err(error) => self.fail(FailureKind::Malformed, error.to_string()),
                Ok(Some((head, length))) => {
                    self.body = Some(Body::framed(head.framing));
                    self.head = Some(head);
                    self.feed_body(&held[length..], per_event)
                }
            };
            // Its memory is kept, unless the body went into a buffer of its own.
            if self.held.is_empty() {
                self.held = held;
                self.held.clear();
            }
            return heard;
        }
        self.feed_body(std::mem::take(&mut bytes), per_event)
    }

    /// The connection ended.
    pub fn connection_ended(&mut self) -> Heard {
        let ended_by_it = self.body.as_ref().is_some_and(Body::ends_with_connection);
        if ended_by_it {
            let heard = self.conclude(&TokensPerEvent::default());
            return Heard { reusable: false, ..heard };
        }
        let what = if self.head.is_some() { "closed in the middle of the answer" } else { "closed without an answer" };
        self.fail(FailureKind::ConnectionLost, what)
    }

    fn fail(&mut self, kind: FailureKind, message: impl Into<String>) -> Heard {
        self.failure.get_or_insert(Failure::of(kind, message));
        Heard { tokens: 0, ended: true, reusable: false }
    }

    fn feed_body(&mut self, mut bytes: &[u8], per_event: &TokensPerEvent) -> Heard {
        let (Some(head), Some(mut body)) = (&self.head, self.body.take()) else { return Heard::default() };
        let streams = head.event_stream && (200..300).contains(&head.status);
        let mut read = Read::default();
        let broken = loop {
            match body.next(&mut bytes) {
                Ok(Some(piece)) if streams => {
                    if let Err(error) = self.events.feed(piece, &mut |data| read.take(data)) {
                        break Some(error.to_string());
                    }
                }
                Ok(Some(piece)) => self.held.extend_from_slice(piece),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        let whole = body.is_done();
        self.body = Some(body);
        let tokens = self.apply(read, per_event);
        if let Some(problem) = broken.or_else(|| (self.held.len() > BODY_AT_MOST).then(|| "the body has no end".to_owned())) {
            return Heard { tokens, ..self.fail(FailureKind::Malformed, problem) };
        }
        if whole {
            let heard = self.conclude(per_event);
            // What came behind the answer belongs to nothing.
            return Heard { tokens: tokens + heard.tokens, reusable: heard.reusable && bytes.is_empty(), ended: true };
        }
        if self.done && self.failure.is_none() {
            self.failure = self.incomplete();
        }
        // After `[DONE]` the request is over, though the connection has not said its last.
        Heard { tokens, ended: self.done, reusable: false }
    }

    /// What events said; returns the tokens that they brought.
    fn apply(&mut self, read: Read, per_event: &TokensPerEvent) -> u32 {
        self.finished |= read.finishes;
        self.done |= read.done;
        if let Some(failure) = read.failure {
            self.failure.get_or_insert(failure);
        }
        if read.events == 0 {
            self.usage = read.usage.or(self.usage);
            return 0;
        }
        // A usage beside tokens is a running count; one that stands alone at the end is no help for those before it.
        let brought = self.reckoning.take(read.events, read.running, per_event);
        self.usage = read.usage.or(self.usage);
        brought
    }

    /// The body is whole.
    fn conclude(&mut self, per_event: &TokensPerEvent) -> Heard {
        let Some(head) = self.head.clone() else { return self.fail(FailureKind::ConnectionLost, "closed without an answer") };
        let mut tokens = 0;
        if !(200..300).contains(&head.status) {
            let said = said_by(&self.held);
            let kind = match head.status {
                429 | 503 => FailureKind::Refused,
                500.. => FailureKind::TargetError,
                _ => FailureKind::Rejected,
            };
            self.failure = Some(Failure { retry_after: head.retry_after, ..Failure::of(kind, format!("{}: {said}", head.status)) });
        } else if head.event_stream {
            let mut read = Read::default();
            let cut = self.events.end(&mut |data| read.take(data));
            tokens = self.apply(read, per_event);
            if cut {
                self.failure.get_or_insert(Failure::of(FailureKind::Truncated, "the stream ended inside an event"));
            }
        } else {
            let mut read = Read::default();
            let held = std::mem::take(&mut self.held);
            read.take(&held);
            self.held = held;
            self.held.clear();
            tokens = self.apply(read, per_event);
            self.finished |= self.failure.is_none();
        }
        tokens += self.without_text();
        if self.failure.is_none() {
            self.failure = self.incomplete();
        }
        Heard { tokens, ended: true, reusable: head.keep_alive }
    }

    /// Tokens of an answer that had no text to send, such as parts of a character: they came with its end.
    fn without_text(&mut self) -> u32 {
        let told = self.usage.map_or(0, |usage| usage.output);
        if self.reckoning.events > 0 || told == 0 || self.failure.is_some() {
            return 0;
        }
        self.reckoning.take(1, Some(told), &TokensPerEvent::default())
    }

    /// What a whole answer without an error of its own lacks.
    fn incomplete(&self) -> Option<Failure> {
        if self.reckoning.events == 0 {
            return Some(Failure::of(FailureKind::Empty, "the stream carried no token"));
        }
        let ends = self.finished || self.done || self.usage.is_some();
        (!ends).then(|| Failure::of(FailureKind::Truncated, "the stream ended without a reason to finish, `[DONE]` or usage"))
    }

    /// Tokens counted so far.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.reckoning.counted
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

/// What the events of one read say together: they came together.
#[derive(Debug, Default)]
struct Read {
    events: u32,
    finishes: bool,
    done: bool,
    usage: Option<Usage>,
    /// The server's count of tokens at the last event that carried some.
    running: Option<u32>,
    failure: Option<Failure>,
}

impl Read {
    fn take(&mut self, data: &[u8]) {
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
                self.events += u32::from(delta.bears_tokens);
                // A usage in the event that ends the answer counts it whole, and so do those before.
                if delta.bears_tokens {
                    self.running = delta.usage.map(|usage| usage.output);
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
