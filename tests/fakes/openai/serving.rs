//! The loop: epoll, timers, and what becomes of each connection.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, accept_with, getsockname, listen as set_backlog, sockopt};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::answer::{Answer, Then};
use super::connection::{Connection, Flushed, Received};
use super::pages::Totals;
use super::truth::{Ended, Truth, Write, now};
use super::{Command, Script, Settings};

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
/// How long before a timer the loop spins instead of sleeping: above the error of waking up.
const SPIN: u64 = 60_000;
/// Writes of one connection before the others get their turn.
const WRITES_A_TURN: u32 = 64;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Opens the listening socket.
pub(crate) fn listen(settings: &Settings) -> io::Result<OwnedFd> {
    let listener = match &settings.path {
        Some(path) => OwnedFd::from(UnixListener::bind(path)?),
        None => OwnedFd::from(TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))?),
    };
    // Asked for again with a longer queue than the library's own.
    set_backlog(&listener, BACKLOG)?;
    rustix::io::ioctl_fionbio(&listener, true)?;
    Ok(listener)
}

/// Where it listens; `None` where that is no TCP.
pub(crate) fn address(listener: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(getsockname(listener).ok()?).ok()
}

/// Everything the loop knows.
pub(crate) struct Server {
    pub(super) settings: Settings,
    pub(super) script: Script,
    epoll: OwnedFd,
    listener: Option<OwnedFd>,
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    pub(super) connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    /// When something is due, of which connection, and the number of that timer.
    timers: BinaryHeap<Reverse<(u64, usize, u64)>>,
    timers_set: u64,
    pub(super) truth: Truth,
    pub(super) totals: Totals,
    pub(super) seen_prompts: HashSet<u64>,
    /// Room to work in.
    body: Vec<u8>,
    room: Vec<u8>,
}

impl Server {
    pub(crate) fn new(
        settings: Settings,
        script: Script,
        listener: OwnedFd,
        inbox: Receiver<Command>,
        wake: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self {
            settings,
            script,
            epoll,
            listener: Some(listener),
            inbox,
            wake,
            connections: Vec::new(),
            vacant: Vec::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
            truth: Truth::default(),
            totals: Totals::default(),
            seen_prompts: HashSet::new(),
            body: Vec::new(),
            room: vec![0; 64 << 10],
        })
    }

    /// Until it is told to stop.
    pub(crate) fn run(mut self) {
        if let Some(cpu) = self.settings.cpu {
            let mut only = CpuSet::new();
            only.set(cpu);
            // A CPU that is not there leaves the server where it is.
            let _ = sched_setaffinity(None, &only);
        }
        let mut events = Vec::with_capacity(1024);
        loop {
            self.sleep();
            events.clear();
            // Errors are interruptions: the next turn sees what there was.
            let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()));
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    WAKE => {
                        if !self.obey() {
                            return;
                        }
                    }
                    index => self.ready(usize::try_from(index).expect("made from an index"), event.flags),
                }
            }
            self.run_timers();
        }
    }

    /// Until something comes or the next timer is nearly due.
    fn sleep(&self) {
        let timeout = self.timers.peek().map(|Reverse((due, ..))| due.saturating_sub(now()));
        if timeout.is_some_and(|left| left <= SPIN) {
            return;
        }
        let timeout =
            timeout.map(|left| Timespec { tv_sec: ((left - SPIN) / 1_000_000_000) as i64, tv_nsec: ((left - SPIN) % 1_000_000_000) as _ });
        // epoll waits in milliseconds, poll in nanoseconds.
        let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], timeout.as_ref());
    }

    fn run_timers(&mut self) {
        let now = now();
        while let Some(&Reverse((due, index, number))) = self.timers.peek() {
            if due > now {
                return;
            }
            self.timers.pop();
            if self.connections[index].as_ref().is_some_and(|connection| connection.timer == number) {
                self.go_on(index);
            }
        }
    }

    fn set_timer(&mut self, index: usize, due: u64) {
        self.timers_set += 1;
        if let Some(connection) = &mut self.connections[index] {
            connection.timer = self.timers_set;
            self.timers.push(Reverse((due, index, self.timers_set)));
        }
    }

    fn accept(&mut self) {
        while let Some(socket) =
            self.listener.as_ref().and_then(|listener| accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC).ok())
        {
            // A socket in the file system has no such option, and no need.
            let _ = sockopt::set_tcp_nodelay(&socket, true);
            let index = self.vacant.pop().unwrap_or(self.connections.len());
            if epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN | EventFlags::RDHUP).is_err() {
                continue;
            }
            let connection = Some(Connection::new(socket, self.truth.connections, now()));
            self.truth.connections += 1;
            if index == self.connections.len() { self.connections.push(connection) } else { self.connections[index] = connection }
        }
    }

    /// The system has news of a connection.
    fn ready(&mut self, index: usize, flags: EventFlags) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let received = connection.receive(&mut self.room);
            if received == Received::Gone {
                return self.close(index, Ended::ClientGone);
            }
        }
        if connection.waits_for_room || connection.answer.is_none() {
            self.go_on(index);
        }
    }

    /// As far as it goes: writes what is due, takes the next request.
    fn go_on(&mut self, index: usize) {
        for _ in 0..WRITES_A_TURN {
            let Some(connection) = self.connections[index].as_mut() else { return };
            match connection.flush() {
                Flushed::All => self.wait_for_room(index, false),
                Flushed::Blocked => return self.wait_for_room(index, true),
                Flushed::Later(nanos) => return self.set_timer(index, now() + nanos),
                Flushed::Gone => return self.close(index, Ended::ClientGone),
            }
            let Some(connection) = self.connections[index].as_mut() else { return };
            match std::mem::replace(&mut connection.then, Then::More) {
                Then::More => {}
                Then::Whole { keeps } => {
                    connection.answer = None;
                    if !keeps {
                        return self.close(index, Ended::Closed);
                    }
                }
                Then::Close => return self.close(index, Ended::Closed),
                Then::Reset => {
                    connection.reset_when_dropped();
                    return self.close(index, Ended::Reset);
                }
                Then::Stall => {
                    connection.then = Then::Stall;
                    return;
                }
            }
            let Some(due) = connection.answer.as_ref().map(Answer::due) else {
                if self.take_request(index) {
                    continue;
                }
                return;
            };
            let Some(due) = due else { return };
            let now = now();
            if due > now {
                return self.set_timer(index, due);
            }
            self.fill(index, due, now);
        }
        self.set_timer(index, now());
    }

    /// Makes the bytes that are due, and records them.
    fn fill(&mut self, index: usize, due: u64, now: u64) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        let Some(answer) = connection.answer.as_mut() else { return };
        let (tokens, then) = answer.fill(now, &mut connection.output, &mut self.body);
        connection.then = then;
        let record = &mut self.truth.requests[answer.record];
        if record.head_at == 0 {
            record.head_at = now;
        }
        if tokens > 0 {
            record.writes.push(Write { at: now, tokens, late: u32::try_from(now - due).unwrap_or(u32::MAX) });
            self.totals.generation_tokens += u64::from(tokens);
        }
        if let Then::Whole { .. } = then {
            (record.ended, record.end_at) = (Ended::Whole, now);
            self.totals.running -= 1;
        }
    }

    fn wait_for_room(&mut self, index: usize, waits: bool) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        if connection.waits_for_room != waits {
            connection.waits_for_room = waits;
            let room = if waits { EventFlags::OUT } else { EventFlags::empty() };
            let flags = EventFlags::IN | EventFlags::RDHUP | room;
            let _ = epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(index as u64), flags);
        }
    }

    pub(super) fn close(&mut self, index: usize, ended: Ended) {
        let Some(connection) = self.connections[index].take() else { return };
        self.vacant.push(index);
        if let Some(record) =
            connection.answer.map(|answer| &mut self.truth.requests[answer.record]).filter(|record| record.ended == Ended::Open)
        {
            (record.ended, record.end_at) = (ended, now());
            self.totals.running -= 1;
        }
    }

    /// Does what it is told; whether it goes on.
    fn obey(&mut self) -> bool {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(command) = self.inbox.try_recv() {
            let done = match command {
                Command::Truth(to) => {
                    let _ = to.send(self.truth.clone());
                    continue;
                }
                Command::Stop => return false,
                Command::Resume => continue,
                Command::Pause(done) => {
                    let _ = done.send(());
                    match self.stand_still() {
                        Ok(true) => continue,
                        _ => return false,
                    }
                }
                Command::Refuse(done) => {
                    self.listener = None;
                    done
                }
                Command::Crash(done) => {
                    self.listener = None;
                    (0..self.connections.len()).for_each(|index| self.close(index, Ended::Closed));
                    done
                }
                Command::Listen(done) => {
                    self.listen_again().expect("the port is still free");
                    done
                }
            };
            let _ = done.send(());
        }
        true
    }

    /// Until it may go on; whether it shall.
    fn stand_still(&self) -> Result<bool, RecvError> {
        loop {
            match self.inbox.recv()? {
                Command::Resume => return Ok(true),
                Command::Stop => return Ok(false),
                Command::Truth(to) => drop(to.send(self.truth.clone())),
                Command::Pause(done) | Command::Refuse(done) | Command::Crash(done) | Command::Listen(done) => drop(done.send(())),
            }
        }
    }

    fn listen_again(&mut self) -> io::Result<()> {
        if let Some(path) = &self.settings.path {
            let _ = std::fs::remove_file(path);
        }
        let listener = listen(&self.settings)?;
        epoll::add(&self.epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        self.listener = Some(listener);
        Ok(())
    }
}
