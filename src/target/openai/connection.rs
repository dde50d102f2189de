//! One connection of the pool: what it is doing, what is left to send, what is left to hear.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use rustix::event::epoll;

use crate::clock::Nanos;
use crate::http::stream::Stream;
use crate::target::Slot;
use crate::target::openai::Server;
use crate::target::openai::answer::Answer;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Being made, for a request that waits.
    Connecting,
    /// Sending a request or hearing its answer.
    Busy,
    /// The request is over; the rest of its answer is still to come.
    Draining,
    /// Free.
    Idle,
}

/// A connection of the pool.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) state: State,
    /// Whose request it carries.
    pub(super) slot: Slot,
    pub(super) answer: Answer,
    /// The request, kept until its answer begins.
    pub(super) request: Vec<u8>,
    pub(super) sent: usize,
    /// Since when it is connecting, waiting for the first token, or for the next one.
    pub(super) since: Nanos,
    pub(super) has_tokens: bool,
    pub(super) has_byte: bool,
    /// Answers it has carried: one that was kept may have been closed meanwhile.
    pub(super) answers: u32,
    /// What the kernel was told to watch for.
    interest: epoll::EventFlags,
}

impl Connection {
    /// Begins to connect.
    pub(super) fn begin(server: &Server, slot: Slot, now: Nanos) -> io::Result<Self> {
        let tls = server.tls.as_ref().filter(|_| server.endpoint.tls).map(|config| (config, server.endpoint.host.as_str()));
        Ok(Self {
            stream: Stream::begin(&server.address, tls)?,
            state: State::Connecting,
            slot,
            answer: Answer::counted_by(server.tokenizer.clone()),
            request: Vec::new(),
            sent: 0,
            since: now,
            has_tokens: false,
            has_byte: false,
            answers: 0,
            interest: epoll::EventFlags::empty(),
        })
    }

    /// Another request is to be sent on it.
    pub(super) fn take_up(&mut self, slot: Slot, now: Nanos) {
        self.slot = slot;
        self.since = now;
        self.answer.reset();
        self.request.clear();
        (self.sent, self.has_tokens, self.has_byte) = (0, false, false);
    }

    /// Sends what the socket takes.
    pub(super) fn send(&mut self) -> io::Result<()> {
        while self.sent < self.request.len() {
            match self.stream.write(&self.request[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => self.sent += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.stream.wants_write() { self.stream.flush() } else { Ok(()) }
    }

    /// Tells the kernel what it waits for, where that changed.
    pub(super) fn watch(&mut self, epoll: impl AsFd, index: usize) -> io::Result<()> {
        let sends = self.state == State::Connecting || self.sent < self.request.len() || self.stream.wants_write();
        let wanted = if sends { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        if wanted != self.interest {
            let data = epoll::EventData::new_u64(index as u64);
            if self.interest.is_empty() {
                epoll::add(epoll, &self.stream, data, wanted)?;
            } else {
                epoll::modify(epoll, &self.stream, data, wanted)?;
            }
            self.interest = wanted;
        }
        Ok(())
    }
}
