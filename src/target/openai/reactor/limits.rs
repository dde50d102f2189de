//! How long each part of a request may take, and whose fault it is that there is no connection.

use std::io;

use rustix::io::Errno;

use crate::clock::Nanos;
use crate::record::request::FailureKind;
use crate::target::openai::answer::Failure;
use crate::target::openai::connection::State;
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

/// Why there is no connection: whose fault it is.
pub(super) fn unreachable(error: &io::Error) -> Failure {
    let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
    let is_own = error.raw_os_error().is_some_and(|code| own.iter().any(|errno| errno.raw_os_error() == code));
    Failure::of(if is_own { FailureKind::ClientLimit } else { FailureKind::Unreachable }, error.to_string())
}
