//! The pool of connections and the one place that waits for them.

mod limits;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::record::request::FailureKind;
use crate::record::target::{TargetCounters, TargetIdentity};
use crate::target::openai::Server;
use crate::target::openai::answer::Heard;
use crate::target::openai::ask::Writer;
use crate::target::openai::connection::{Connection, State};
use crate::target::openai::exchange::Failure;
use crate::target::openai::pool::Pool;
use crate::target::openai::reckoning::Tally;
use crate::target::{Event, EventKind, Slot, Target};
use crate::workload::request::Request;

/// Bytes read at once.
const READ: usize = 64 << 10;
/// Sockets looked at after one wait.
const AT_ONCE: usize = 256;
/// Stands for no connection where one is meant.
const NO_PLACE: u64 = u64::MAX;
/// How often time limits are looked at.
const LIMITS_EVERY: Nanos = Nanos::from_millis(20);
/// Between two looks at the sockets while the generator is busy.
const LOOK: Nanos = Nanos(20_000);

/// A server that is being driven. It lives on the thread that calls it.
pub struct OpenAi {
    server: Arc<Server>,
    writer: Writer,
    clock: Monotonic,
    epoll: OwnedFd,
    pool: Pool,
    events: VecDeque<Event>,
    ready: Vec<epoll::Event>,
    scratch: Vec<u8>,
    tally: Tally,
    looked: Nanos,
    limits_looked: Nanos,
    failures: BTreeMap<FailureKind, (u64, String)>,
    /// A request was sent again because its kept connection had been closed; told once.
    sent_again: bool,
    /// Nothing was heard of it since a connection could not be made.
    gone: bool,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OpenAi").field("server", &self.server.endpoint).field("connections", &self.pool.open()).finish_non_exhaustive()
    }
}

impl OpenAi {
    /// A client of `server` without a connection yet; its stamps come from `clock`, whose origin the generator shares.
    ///
    /// # Errors
    /// When the system gives no descriptor to wait with.
    pub fn new(server: Arc<Server>, clock: Monotonic) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // The kernel otherwise wakes a waiting thread up to 50 us late, to wake several at once.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let (endpoint, manner) = (&server.endpoint, server.manner.clone());
        let path = endpoint.path(manner.api.path());
        Ok(Self {
            writer: Writer::new(manner, &endpoint.authority(), &path, &server.headers, &server.tag),
            clock,
            epoll,
            pool: Pool::default(),
            events: VecDeque::new(),
            ready: Vec::with_capacity(AT_ONCE),
            scratch: vec![0; READ],
            tally: Tally::expecting(server.tokens_per_event),
            looked: Nanos::ZERO,
            limits_looked: Nanos::ZERO,
            failures: BTreeMap::new(),
            sent_again: false,
            gone: false,
            server,
        })
    }

    /// What went wrong so far, by class: how often, and the first of it in words.
    #[must_use]
    pub fn failures(&self) -> &BTreeMap<FailureKind, (u64, String)> {
        &self.failures
    }

    /// From now on what comes in at `bell` ends a wait, as what comes in at a socket does.
    pub(super) fn wake_by(&self, bell: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, bell, epoll::EventData::new_u64(NO_PLACE), epoll::EventFlags::IN)?)
    }

    fn tell(&mut self, slot: Slot, at: Nanos, kind: EventKind) {
        self.events.push_back(Event { slot, at, kind });
    }

    /// Looks at the sockets, after waiting no longer than `at_most` for one.
    fn look(&mut self, at_most: Duration) {
        let timeout = Timespec { tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX), tv_nsec: at_most.subsec_nanos().into() };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        if let Err(error) = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut ready), Some(&timeout))
            && error != Errno::INTR
        {
            tracing::error!("cannot wait for sockets: {error}");
        }
        for event in &ready {
            let (index, flags) = (event.data.u64() as usize, event.flags);
            self.attend(index, flags);
        }
        self.ready = ready;
        let now = self.clock.now();
        self.looked = now;
        if now.since(self.limits_looked) >= LIMITS_EVERY {
            self.limits_looked = now;
            self.enforce_limits(now);
        }
    }

    /// Something happened on a connection.
    fn attend(&mut self, index: usize, flags: epoll::EventFlags) {
        let Some(mut connection) = self.pool.take(index) else { return };
        if connection.state == State::Connecting {
            if let Err(error) = connection.stream.connected() {
                return self.fail(index, connection, Failure::unreachable(&error));
            }
            if !flags.contains(epoll::EventFlags::OUT) {
                return self.keep(index, connection);
            }
            self.gone = false;
            connection.state = State::Busy;
            connection.since = self.clock.now();
        }
        if flags.contains(epoll::EventFlags::OUT)
            && let Err(error) = connection.send()
        {
            return self.lose(index, connection, &error);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return self.hear(index, connection);
        }
        self.keep(index, connection);
    }

    /// Reads until the socket is empty or the answer over.
    fn hear(&mut self, index: usize, mut connection: Box<Connection>) {
        loop {
            let length = match connection.stream.read(&mut self.scratch) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return self.keep(index, connection),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.lose(index, connection, &error),
            };
            let at = self.clock.now();
            if connection.state == State::Idle || (length == 0 && !connection.has_byte) {
                // Closed between two requests, or just as one was sent.
                return self.lose(index, connection, &ErrorKind::UnexpectedEof.into());
            }
            let heard = match length {
                0 => connection.answer.connection_ended(&self.tally.per_event),
                _ => connection.answer.feed(&self.scratch[..length], &self.tally.per_event),
            };
            if connection.state == State::Draining {
                if heard.reusable {
                    self.rest(index, connection);
                    return;
                }
                if length == 0 {
                    return self.drop_connection(index, connection);
                }
                continue;
            }
            if !std::mem::replace(&mut connection.has_byte, true) {
                self.tell(connection.slot, at, EventKind::FirstByte);
            }
            if heard.tokens > 0 {
                (connection.since, connection.has_tokens) = (at, true);
                self.tally.counters.decode_tokens += u64::from(heard.tokens);
                self.tell(connection.slot, at, EventKind::Tokens(heard.tokens));
            }
            if heard.ended {
                return self.end(index, connection, at, &heard, length == 0);
            }
            if length < self.scratch.len() && !self.server.endpoint.tls {
                return self.keep(index, connection);
            }
        }
    }

    /// The request is over.
    fn end(&mut self, index: usize, mut connection: Box<Connection>, at: Nanos, heard: &Heard, closed: bool) {
        let (slot, count) = (connection.slot, connection.answer.token_count());
        self.tally.ended(&count, connection.answer.counted());
        if count.events > 0 {
            self.tell(slot, at, EventKind::Reckoned(count));
        }
        let failure = connection.answer.failure();
        let kind = failure.as_ref().map_or(EventKind::Completed, |failure| EventKind::Failed(failure.kind));
        let broken = failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::Malformed);
        if let Some(failure) = failure {
            if let Some(length) = failure.retry_after {
                self.tell(slot, at, EventKind::RetryAfter(Nanos::from_secs_f64(length.as_secs_f64())));
            }
            self.note(failure);
        }
        self.tell(slot, at, kind);
        self.pool.release(slot);
        connection.answers += 1;
        if heard.reusable {
            self.rest(index, connection);
        } else if closed || broken {
            self.drop_connection(index, connection);
        } else {
            connection.state = State::Draining;
            connection.since = at;
            // The rest may have been read off the socket already, and wait in the library.
            if self.server.endpoint.tls { self.hear(index, connection) } else { self.keep(index, connection) }
        }
    }

    /// The connection is free.
    fn rest(&mut self, index: usize, mut connection: Box<Connection>) {
        connection.state = State::Idle;
        self.pool.rest(index);
        self.keep(index, connection);
    }

    /// The connection broke.
    fn lose(&mut self, index: usize, connection: Box<Connection>, error: &io::Error) {
        match connection.state {
            State::Idle => {
                self.pool.forget_idle(index);
                self.drop_connection(index, connection);
            }
            State::Draining => self.drop_connection(index, connection),
            State::Connecting => self.fail(index, connection, Failure::unreachable(error)),
            State::Busy if connection.stream.is_handshaking() => self.fail(index, connection, Failure::unreachable(error)),
            State::Busy if connection.answers > 0 && !connection.has_byte => self.send_again(index, connection),
            State::Busy => {
                let kind = if error.kind() == ErrorKind::InvalidData { FailureKind::Malformed } else { FailureKind::ConnectionLost };
                self.fail(index, connection, Failure::of(kind, error.to_string()));
            }
        }
    }

    /// A kept connection was closed before it carried anything of this request: a fresh one carries it.
    fn send_again(&mut self, index: usize, connection: Box<Connection>) {
        let slot = connection.slot;
        match self.connect(slot) {
            Ok(mut fresh) => {
                if !std::mem::replace(&mut self.sent_again, true) {
                    tracing::info!(
                        "the server closes kept connections: a request that met a closed one is sent on a fresh one, its clock running"
                    );
                }
                (fresh.request, fresh.since) = (connection.request.clone(), connection.since);
                self.drop_connection(index, connection);
                self.place(slot, fresh);
            }
            Err(error) => self.fail(index, connection, Failure::unreachable(&error)),
        }
    }

    /// The request failed, and its connection is of no use any more.
    fn fail(&mut self, index: usize, connection: Box<Connection>, failure: Failure) {
        let (slot, at, kind) = (connection.slot, self.clock.now(), failure.kind);
        self.gone |= matches!(kind, FailureKind::Unreachable | FailureKind::ConnectTimeout);
        let count = connection.answer.token_count();
        if count.events > 0 {
            self.tell(slot, at, EventKind::Reckoned(count));
        }
        self.note(failure);
        self.tell(slot, at, EventKind::Failed(kind));
        self.pool.release(slot);
        self.drop_connection(index, connection);
    }

    fn note(&mut self, failure: Failure) {
        let noted = self.failures.entry(failure.kind).or_insert_with(|| {
            tracing::debug!("first failure of its kind ({:?}): {}", failure.kind, failure.message);
            (0, failure.message)
        });
        noted.0 += 1;
    }

    fn keep(&mut self, index: usize, mut connection: Box<Connection>) {
        if let Err(error) = connection.watch(&self.epoll, index) {
            return self.lose(index, connection, &error);
        }
        self.pool.put(index, connection);
    }

    /// Closes it; the kernel forgets to watch what is closed.
    fn drop_connection(&mut self, index: usize, connection: Box<Connection>) {
        drop(connection);
        self.pool.vacate(index);
    }

    fn connect(&mut self, slot: Slot) -> io::Result<Box<Connection>> {
        Ok(Box::new(Connection::begin(&self.server, slot, self.clock.now())?))
    }

    /// Gives a connection that is being made its place.
    fn place(&mut self, slot: Slot, connection: Box<Connection>) {
        let index = self.pool.place();
        self.pool.own(slot, index);
        self.keep(index, connection);
    }
}

impl Target for OpenAi {
    fn identity(&self) -> TargetIdentity {
        self.server.identity.clone()
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        if let Some(index) = self.pool.wake() {
            let Some(mut connection) = self.pool.take(index) else { return };
            connection.take_up(slot, self.clock.now());
            self.writer.write(&request, &mut connection.request);
            connection.state = State::Busy;
            self.pool.own(slot, index);
            match connection.send() {
                Ok(()) => self.keep(index, connection),
                Err(error) => self.lose(index, connection, &error),
            }
            return;
        }
        match self.connect(slot) {
            Ok(mut connection) => {
                self.writer.write(&request, &mut connection.request);
                self.place(slot, connection);
            }
            Err(error) => {
                let failure = Failure::unreachable(&error);
                self.gone |= failure.kind == FailureKind::Unreachable;
                self.tell(slot, self.clock.now(), EventKind::Failed(failure.kind));
                self.note(failure);
            }
        }
    }

    fn cancel(&mut self, slot: Slot) {
        let Some(index) = self.pool.owner(slot) else { return };
        let Some(connection) = self.pool.take(index) else { return };
        // Closing is how a server is told.
        self.tell(slot, self.clock.now(), EventKind::Failed(FailureKind::TargetError));
        self.pool.release(slot);
        self.drop_connection(index, connection);
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        if now.since(self.looked) >= LOOK {
            self.look(Duration::ZERO);
        }
        Some(self.limits_looked + LIMITS_EVERY)
    }

    fn doze(&mut self, at_most: Duration) {
        self.look(if self.events.is_empty() { at_most } else { Duration::ZERO });
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn is_alive(&self) -> bool {
        !self.gone
    }

    fn said(&self, kind: FailureKind) -> Option<String> {
        self.failures.get(&kind).map(|(_, said)| said.clone())
    }

    fn counters(&self) -> TargetCounters {
        self.tally.counters
    }
}
