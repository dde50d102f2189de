//! One server asked by several threads: together they are one client, and the server stays one server.
//!
//! Each request goes to the thread with the fewest in flight. Which thread carries it changes nothing that is measured: what
//! the threads share out is the work of reading, never the load.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::clock::{Monotonic, Nanos, ThreadUse};
use crate::record::target::{TargetCounters, TargetIdentity};
use crate::target::openai::Server;
use crate::target::openai::apart::{Apart, Closed, Inbox, Message, Reporter};
use crate::target::openai::reactor::OpenAi;
use crate::target::{Event, EventKind, Slot, Target};
use crate::workload::request::Request;

/// How long a client's thread waits at most before it looks at its time limits.
const LOOK: Nanos = Nanos::from_millis(20);

/// Threads that ask one server.
#[derive(Debug)]
pub struct Clients {
    threads: Vec<Client>,
    /// Whose each slot is, by the slot's number.
    owners: Vec<usize>,
}

/// One of them.
#[derive(Debug)]
struct Client {
    apart: Apart,
    /// Its next event, taken to be compared with the others'.
    next: VecDeque<Event>,
    in_flight: u32,
}

impl Clients {
    /// `count` threads, 1 or more, that ask `server` over HTTP/1.1; their stamps come from `clock`.
    ///
    /// # Errors
    /// When the system gives no threads or descriptors.
    pub fn start(server: &Arc<Server>, count: usize, clock: Monotonic) -> io::Result<Self> {
        let thread = |place: usize| {
            let asked = Arc::clone(server);
            Apart::start(server.identity.clone(), place, clock, move |inbox, reporter| serve(asked, clock, inbox, reporter))
        };
        Ok(Self::of((0..count.max(1)).map(thread).collect::<io::Result<_>>()?))
    }

    /// These threads together.
    pub(super) fn of(threads: Vec<Apart>) -> Self {
        let client = |apart| Client { apart, next: VecDeque::with_capacity(1), in_flight: 0 };
        Self { threads: threads.into_iter().map(client).collect(), owners: Vec::new() }
    }
}

/// What lives on a thread: the same client that otherwise lives on the generator's.
fn serve(server: Arc<Server>, clock: Monotonic, inbox: &Inbox, reporter: &Reporter) -> io::Result<()> {
    let mut client = OpenAi::new(server, clock)?;
    client.wake_by(inbox)?;
    loop {
        inbox.silence();
        loop {
            match inbox.take() {
                Ok(Some(Message::Submit(request, slot))) => {
                    reporter.opens(slot);
                    client.submit(request, slot);
                }
                Ok(Some(Message::Cancel(slot))) => client.cancel(slot),
                Ok(None) => break,
                Err(Closed) => return Ok(()),
            }
        }
        while let Some(event) = client.next_event() {
            reporter.report(event);
        }
        client.doze(std::time::Duration::from_nanos(LOOK.0));
        while let Some(event) = client.next_event() {
            reporter.report(event);
        }
        reporter.keep(client.counters(), !client.is_alive());
    }
}

impl Target for Clients {
    fn identity(&self) -> TargetIdentity {
        self.threads.first().map_or_else(TargetIdentity::unknown, |client| client.apart.identity())
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        let chosen = (0..self.threads.len()).min_by_key(|thread| self.threads[*thread].in_flight).unwrap_or(0);
        let place = slot.0 as usize;
        if place >= self.owners.len() {
            self.owners.resize(place + 1, 0);
        }
        self.owners[place] = chosen;
        self.threads[chosen].in_flight += 1;
        self.threads[chosen].apart.submit(request, slot);
    }

    fn cancel(&mut self, slot: Slot) {
        if let Some(owner) = self.owners.get(slot.0 as usize) {
            self.threads[*owner].apart.cancel(slot);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        for client in &mut self.threads {
            if client.next.is_empty() {
                client.next.extend(client.apart.next_event());
            }
        }
        let earliest = self.threads.iter_mut().filter(|client| !client.next.is_empty()).min_by_key(|client| client.next[0].at)?;
        let event = earliest.next.pop_front()?;
        if matches!(event.kind, EventKind::Completed | EventKind::Failed(_)) {
            earliest.in_flight = earliest.in_flight.saturating_sub(1);
        }
        Some(event)
    }

    fn wake_this_thread(&mut self) {
        self.threads.iter_mut().for_each(|client| client.apart.wake_this_thread());
    }

    fn has_events(&self) -> bool {
        self.threads.iter().any(|client| !client.next.is_empty() || client.apart.has_events())
    }

    /// One that cannot reach the server says so for all of them; the next level gets fresh ones.
    fn is_alive(&self) -> bool {
        self.threads.iter().all(|client| client.apart.is_alive())
    }

    fn events_lost(&self) -> u64 {
        self.threads.iter().map(|client| client.apart.events_lost()).sum()
    }

    fn counters(&self) -> TargetCounters {
        self.threads.iter().map(|client| client.apart.counters()).fold(TargetCounters::default(), TargetCounters::and)
    }

    fn client_threads(&self) -> Vec<ThreadUse> {
        self.threads.iter().flat_map(|client| client.apart.client_threads()).collect()
    }
}
