//! How long each part of a request may take.

use crate::clock::Nanos;
use crate::record::request::FailureKind;
use crate::target::openai::connection::State;
use crate::target::openai::exchange::Failure;
use crate::target::openai::reactor::OpenAi;

/// How long the rest of an answer may take after its end.
const DRAIN: Nanos = Nanos::from_secs(5);

impl OpenAi {
    /// Ends what takes too long at `now`.
    pub(super) fn enforce_limits(&mut self, now: Nanos) {
        let limits = self.server.limits;
        for index in 0..self.pool.places() {
            let Some(connection) = self.pool.at(index) else { continue };
            let (limit, kind) = match connection.state {
                State::Connecting => (limits.connect, FailureKind::ConnectTimeout),
                State::Busy if connection.stream.is_handshaking() => (limits.connect, FailureKind::ConnectTimeout),
                State::Busy if connection.has_tokens => (limits.token_gap, FailureKind::TokenGapTimeout),
                State::Busy => (limits.first_token, FailureKind::FirstTokenTimeout),
                State::Draining => (DRAIN, FailureKind::ConnectionLost),
                State::Idle => continue,
            };
            if now.since(connection.since) < limit {
                continue;
            }
            let Some(connection) = self.pool.take(index) else { continue };
            match connection.state {
                State::Draining => self.drop_connection(index, connection),
                _ => self.fail(index, connection, Failure::of(kind, format!("nothing came for {:.1} s", limit.as_secs_f64()))),
            }
        }
    }
}
