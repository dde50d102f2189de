//! A client on a thread of its own: requests go in by a channel and a bell, events come out by a ring.
//!
//! What lives on the thread is its own business; this file hands over, keeps the account of the thread, and sees to it that
//! no request is left waiting when the thread dies.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};

use crate::clock::{Clock, Monotonic, Nanos, ThreadUse};
use crate::node::cores;
use crate::record::request::FailureKind;
use crate::record::target::{TargetCounters, TargetIdentity};
use crate::target::sink::{self, Events, Sink};
use crate::target::{Event, EventKind, Slot, Target};
use crate::workload::request::Request;

/// Events the ring holds: a generator may look away for a good while.
const RING_EVENTS: usize = 1 << 17;

/// What a thread is asked.
#[derive(Debug)]
pub(super) enum Message {
    Submit(Request, Slot),
    Cancel(Slot),
}

/// Wakes a thread that waits for sockets.
#[derive(Debug)]
struct Bell {
    fd: OwnedFd,
    /// It rings already: once is enough.
    rings: AtomicBool,
}

/// The thread's end of what it is asked. As a descriptor it can be read from while something waits.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: Receiver<Message>,
    bell: Arc<Bell>,
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.fd.as_fd()
    }
}

impl Inbox {
    /// The next message, if there is one.
    ///
    /// # Errors
    /// [`Closed`] when there will be none any more.
    pub(super) fn take(&self) -> Result<Option<Message>, Closed> {
        match self.messages.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }

    /// Stops the bell; what was sent before it is there to be taken.
    pub(super) fn silence(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell.fd, &mut count);
        self.bell.rings.store(false, Ordering::SeqCst);
    }
}

/// Nobody asks any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// What a thread says of itself, read at any time. Each figure is right by itself; they are not of one instant.
#[derive(Debug, Default)]
pub(super) struct Account {
    prefill_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    decode_tokens: AtomicU64,
    /// Nothing was heard of the server since a connection could not be made.
    gone: AtomicBool,
    /// The thread ended before its time.
    dead: AtomicBool,
    /// The first failure of each class, in words.
    said: Mutex<BTreeMap<FailureKind, String>>,
}

impl Account {
    /// A panic while it was held leaves words that are whole.
    fn said(&self) -> MutexGuard<'_, BTreeMap<FailureKind, String>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's way to report. Clones report into the same ring.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    sink: Rc<RefCell<Sink>>,
    open: Rc<RefCell<HashSet<u32>>>,
    account: Arc<Account>,
    used: ThreadUse,
    clock: Monotonic,
    told: Rc<RefCell<Nanos>>,
}

/// How often a thread tells how much of its core it has used.
const TELL: Nanos = Nanos::from_millis(20);

impl Reporter {
    /// A request was taken up: it will end.
    pub(super) fn opens(&self, slot: Slot) {
        self.open.borrow_mut().insert(slot.0);
    }

    /// Reports an event.
    pub(super) fn report(&self, event: Event) {
        if matches!(event.kind, EventKind::Completed | EventKind::Failed(_)) {
            self.open.borrow_mut().remove(&event.slot.0);
        }
        self.sink.borrow_mut().report(event);
    }

    /// Notes what a failure said, before it is reported; the first of its class is kept.
    pub(super) fn note(&self, kind: FailureKind, said: &str) {
        self.account.said().entry(kind).or_insert_with(|| said.to_owned());
    }

    /// Keeps the account.
    pub(super) fn keep(&self, counters: TargetCounters, gone: bool) {
        self.account.prefill_tokens.store(counters.prefill_tokens, Ordering::Relaxed);
        self.account.cached_tokens.store(counters.cached_tokens, Ordering::Relaxed);
        self.account.decode_tokens.store(counters.decode_tokens, Ordering::Relaxed);
        self.account.gone.store(gone, Ordering::Relaxed);
        let now = self.clock.now();
        if now.since(*self.told.borrow()) >= TELL {
            *self.told.borrow_mut() = now;
            self.used.tell();
        }
    }

    fn fail(&self, slot: u32) {
        self.report(Event { slot: Slot(slot), at: self.clock.now(), kind: EventKind::Failed(FailureKind::TargetGone) });
    }
}

/// A client on a thread of its own. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Apart {
    identity: TargetIdentity,
    /// `None` only while it is dropped.
    inbox: Option<Sender<Message>>,
    bell: Arc<Bell>,
    events: Events,
    account: Arc<Account>,
    used: ThreadUse,
    thread: Option<JoinHandle<()>>,
}

impl Apart {
    /// The `place`th of several: `serve` lives on its thread, on a core of its own where there are enough, until its inbox closes.
    ///
    /// # Errors
    /// When the system gives no thread or descriptor.
    pub(super) fn start(
        identity: TargetIdentity,
        place: usize,
        clock: Monotonic,
        serve: impl FnOnce(&Inbox, &Reporter) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let bell = Arc::new(Bell { fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?, rings: AtomicBool::new(false) });
        let (sender, messages) = mpsc::channel();
        let (sink, events) = sink::ring(RING_EVENTS);
        let (account, used) = (Arc::new(Account::default()), ThreadUse::default());
        let inbox = Inbox { messages, bell: Arc::clone(&bell) };
        let (kept, telling) = (Arc::clone(&account), used.clone());
        let run = move || {
            cores::take_client_core(place);
            let sink = Rc::new(RefCell::new(sink));
            let reporter = Reporter { sink, open: Rc::default(), account: kept, used: telling, clock, told: Rc::default() };
            match catch_unwind(AssertUnwindSafe(|| serve(&inbox, &reporter))) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => tracing::error!("a client's thread ended: {error}"),
                Err(_) => tracing::error!("a client's thread panicked"),
            }
            reporter.account.dead.store(true, Ordering::Relaxed);
            let left = reporter.open.take();
            left.into_iter().for_each(|slot| reporter.fail(slot));
            while let Ok(message) = inbox.messages.recv() {
                if let Message::Submit(_, slot) = message {
                    reporter.fail(slot.0);
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("client {place}")).spawn(run)?;
        Ok(Self { identity, inbox: Some(sender), bell, events, account, used, thread: Some(thread) })
    }

    fn send(&self, message: Message) {
        let inbox = self.inbox.as_ref().expect("the inbox is there until the client is dropped");
        inbox.send(message).expect("the thread takes messages until the inbox is dropped");
        self.ring();
    }

    fn ring(&self) {
        if !self.bell.rings.swap(true, Ordering::SeqCst) {
            // A bell that cannot count on has rung often enough.
            let _ = rustix::io::write(&self.bell.fd, &1_u64.to_ne_bytes());
        }
    }
}

impl Target for Apart {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        self.send(Message::Submit(request, slot));
    }

    fn cancel(&mut self, slot: Slot) {
        self.send(Message::Cancel(slot));
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.take()
    }

    fn wake_this_thread(&mut self) {
        self.events.wake_this_thread();
    }

    fn has_events(&self) -> bool {
        self.events.waiting()
    }

    fn is_alive(&self) -> bool {
        !self.account.dead.load(Ordering::Relaxed) && !self.account.gone.load(Ordering::Relaxed)
    }

    fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    fn counters(&self) -> TargetCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TargetCounters {
            prefill_tokens: read(&self.account.prefill_tokens),
            cached_tokens: read(&self.account.cached_tokens),
            decode_tokens: read(&self.account.decode_tokens),
            ..TargetCounters::default()
        }
    }

    fn said(&self, kind: FailureKind) -> Option<String> {
        self.account.said().get(&kind).cloned()
    }

    fn client_threads(&self) -> Vec<ThreadUse> {
        vec![self.used.clone()]
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.inbox = None;
        // Rung whatever it was before: the thread may have gone to wait meanwhile.
        let _ = rustix::io::write(&self.bell.fd, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic was caught and reported as failures; there is nothing more to say here.
            let _ = thread.join();
        }
    }
}
