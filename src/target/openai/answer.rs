//! One answer as it comes off a connection of HTTP/1.1: head and framing around an [`Exchange`].

use std::sync::Arc;

use crate::http::body::Body;
use crate::http::head::Head;
use crate::model::tokenizer::Tokenizer;
use crate::record::request::{FailureKind, TokenCount};
use crate::target::openai::exchange::{Exchange, Failure, Together};
use crate::target::openai::reckoning::TokensPerEvent;

/// An answer that is being received.
#[derive(Debug, Default)]
pub struct Answer {
    /// A head whose end has not come.
    held: Vec<u8>,
    head: Option<Head>,
    body: Option<Body>,
    exchange: Exchange,
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
    /// One whose text is counted by `tokenizer`, where there is one.
    #[must_use]
    pub fn counted_by(tokenizer: Option<Arc<Tokenizer>>) -> Self {
        Self { exchange: Exchange::counted_by(tokenizer), ..Self::default() }
    }

    /// Another answer begins; memory is kept.
    pub fn reset(&mut self) {
        self.held.clear();
        (self.head, self.body) = (None, None);
        self.exchange.reset();
    }

    /// What is known of its tokens.
    #[must_use]
    pub fn token_count(&self) -> TokenCount {
        self.exchange.token_count()
    }

    /// What went wrong, once it ended; `None` where all is well.
    #[must_use]
    pub fn failure(&mut self) -> Option<Failure> {
        self.exchange.failure()
    }

    /// Tokens counted so far.
    #[must_use]
    pub fn counted(&self) -> u32 {
        self.exchange.counted()
    }

    /// Takes what was read.
    pub fn feed(&mut self, bytes: &[u8], per_event: &TokensPerEvent) -> Heard {
        if self.head.is_some() {
            return self.feed_body(bytes, per_event);
        }
        self.held.extend_from_slice(bytes);
        let mut held = std::mem::take(&mut self.held);
        let heard = match Head::read(&held) {
            Ok(None) => {
                self.held = held;
                return Heard::default();
            }
            Err(error) => self.fail(FailureKind::Malformed, error.to_string()),
            Ok(Some((head, length))) => {
                self.body = Some(Body::framed(head.framing));
                self.exchange.begins(&head);
                self.head = Some(head);
                self.feed_body(&held[length..], per_event)
            }
        };
        // Its memory is kept.
        held.clear();
        self.held = held;
        heard
    }

    /// The connection ended.
    pub fn connection_ended(&mut self, per_event: &TokensPerEvent) -> Heard {
        if self.body.as_ref().is_some_and(Body::ends_with_connection) {
            return Heard { tokens: self.exchange.conclude(per_event), ended: true, reusable: false };
        }
        let what = if self.head.is_some() { "closed in the middle of the answer" } else { "closed without an answer" };
        self.fail(FailureKind::ConnectionLost, what)
    }

    fn fail(&mut self, kind: FailureKind, message: impl Into<String>) -> Heard {
        self.exchange.fail(kind, message);
        Heard { tokens: 0, ended: true, reusable: false }
    }

    fn feed_body(&mut self, mut bytes: &[u8], per_event: &TokensPerEvent) -> Heard {
        let Some(body) = &mut self.body else { return Heard::default() };
        let mut together = Together::default();
        let broken = loop {
            match body.next(&mut bytes) {
                Ok(Some(piece)) => {
                    if let Err(problem) = self.exchange.take(piece, &mut together, per_event) {
                        break Some(problem);
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        let whole = body.is_done();
        let tokens = self.exchange.apply(together);
        // Behind `[DONE]` broken chunks spoil the connection, not the answer.
        if let Some(problem) = broken.filter(|_| !self.exchange.is_done()) {
            return Heard { tokens, ..self.fail(FailureKind::Malformed, problem) };
        }
        if whole {
            let tokens = tokens + self.exchange.conclude(per_event);
            // What came behind the answer belongs to nothing.
            let reusable = self.head.as_ref().is_some_and(|head| head.keep_alive) && bytes.is_empty();
            return Heard { tokens, ended: true, reusable };
        }
        // After `[DONE]` the request is over, though the connection has not said its last.
        let ended = self.exchange.is_done();
        let tokens = if ended { tokens + self.exchange.judge() } else { tokens };
        Heard { tokens, ended, reusable: false }
    }
}
