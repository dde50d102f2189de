//! One server asked by several threads: together they are one client, and the server stays one server.
//!
//! Each request goes to the thread with the fewest in flight. Which thread carries it changes nothing that is measured: what
//! the threads share out is the work of reading, never the load.

use std::io;
use std::sync::Arc;

use crate::clock::{Monotonic, Nanos, ThreadUse};
use crate::record::request::FailureKind;
use crate::record::target::{TargetCounters, TargetIdentity};
use crate::target::openai::Server;
use crate::target::openai::apart::{Apart, Closed, Inbox, Message, Reporter};
use crate::target::openai::reactor::OpenAi;
use crate::target::several::Several;
use crate::target::{Event, EventKind, Slot, Spread, Target};
use crate::workload::request::Request;

/// How long a client's thread waits at most before it looks at its time limits.
const LOOK: Nanos = Nanos::from_millis(20);

/// Threads that ask one server.
#[derive(Debug)]
pub struct Clients {
    identity: TargetIdentity,
    threads: Several,
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
        let identity = threads.first().map_or_else(TargetIdentity::unknown, Target::identity);
        let mut threads = Several::new(threads.into_iter().map(|thread| Box::new(thread) as Box<dyn Target>).collect(), 0);
        threads.spread(Spread::Even);
        Self { identity, threads }
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
        hand_over(&mut client, reporter);
        client.doze(std::time::Duration::from_nanos(LOOK.0));
        hand_over(&mut client, reporter);
        reporter.keep(client.counters(), !client.is_alive());
    }
}

/// Reports what happened, and what failures said.
fn hand_over(client: &mut OpenAi, reporter: &Reporter) {
    while let Some(event) = client.next_event() {
        if let EventKind::Failed(kind) = event.kind
            && let Some(said) = client.said(kind)
        {
            reporter.note(kind, &said);
        }
        reporter.report(event);
    }
}

/// As [`Several`], but one server, however the campaign would have its load divided.
impl Target for Clients {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        self.threads.submit(request, slot);
    }

    fn cancel(&mut self, slot: Slot) {
        self.threads.cancel(slot);
    }

    fn next_event(&mut self) -> Option<Event> {
        self.threads.next_event()
    }

    fn wake_this_thread(&mut self) {
        self.threads.wake_this_thread();
    }

    fn has_events(&self) -> bool {
        self.threads.has_events()
    }

    fn is_alive(&self) -> bool {
        self.threads.is_alive()
    }

    fn said(&self, kind: FailureKind) -> Option<String> {
        self.threads.said(kind)
    }

    fn events_lost(&self) -> u64 {
        self.threads.events_lost()
    }

    fn counters(&self) -> TargetCounters {
        self.threads.counters()
    }

    fn client_threads(&self) -> Vec<ThreadUse> {
        self.threads.client_threads()
    }
}
