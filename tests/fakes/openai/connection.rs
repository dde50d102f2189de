//! One client's connection: bytes read and not understood yet, bytes written and not taken yet, the answer under way.

use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};

use super::answer::{Answer, Then};

/// A connection.
pub(crate) struct Connection {
    pub(crate) socket: OwnedFd,
    /// Number, in order of accepting.
    pub(crate) number: u64,
    pub(crate) accepted_at: u64,
    /// Bytes read; whole requests are taken from the front.
    pub(crate) input: Vec<u8>,
    /// Bytes to write, the first `written` of which are gone.
    pub(crate) output: Vec<u8>,
    written: usize,
    /// Which cut is next.
    cut: usize,
    /// The system is to tell when there is room.
    pub(crate) waits_for_room: bool,
    pub(crate) answer: Option<Answer>,
    /// What follows when everything is written.
    pub(crate) then: Then,
    /// Number of its timer; timers of other numbers are void.
    pub(crate) timer: u64,
}

/// How writing went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// All is written.
    All,
    /// The socket has no room.
    Blocked,
    /// The next piece is due so many nanoseconds from now.
    Later(u64),
    /// The client is gone.
    Gone,
}

/// How reading went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Bytes came, or none are there.
    Some,
    /// The client is gone.
    Gone,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd, number: u64, accepted_at: u64) -> Self {
        Self {
            socket,
            number,
            accepted_at,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            cut: 0,
            waits_for_room: false,
            answer: None,
            then: Then::More,
            timer: 0,
        }
    }

    /// Takes what came.
    pub(crate) fn receive(&mut self, room: &mut [u8]) -> Received {
        loop {
            match recv(&self.socket, &mut *room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Received::Gone,
                Ok((_, length)) => {
                    self.input.extend_from_slice(&room[..length]);
                    if length < room.len() {
                        return Received::Some;
                    }
                }
                Err(Errno::AGAIN) => return Received::Some,
                Err(Errno::INTR) => {}
                Err(_) => return Received::Gone,
            }
        }
    }

    /// Writes what there is, in pieces where the answer is cut.
    pub(crate) fn flush(&mut self) -> Flushed {
        while self.written < self.output.len() {
            let (cuts, between) = self.answer.as_ref().map_or((&[][..], 0), Answer::cuts);
            let left = &self.output[self.written..];
            let piece = if cuts.is_empty() { left.len() } else { cuts[self.cut % cuts.len()].clamp(1, left.len()) };
            match send(&self.socket, &left[..piece], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => {
                    self.written += length;
                    self.cut += 1;
                    if between > 0 && self.written < self.output.len() {
                        return Flushed::Later(between);
                    }
                }
                Err(Errno::AGAIN) => return Flushed::Blocked,
                Err(Errno::INTR) => {}
                Err(_) => return Flushed::Gone,
            }
        }
        self.output.clear();
        self.written = 0;
        Flushed::All
    }

    /// The connection is to be reset when it is dropped, rather than closed.
    pub(crate) fn reset_when_dropped(&self) {
        // Of a client that is gone already there is nothing to reset.
        let _ = sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}
