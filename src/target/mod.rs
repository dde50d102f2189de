//! The system under test, behind one small trait: in-process engine, a server that speaks OpenAI's API, null, simulated.
//!
//! A target is handed requests and reports what happens to them, each event stamped by the target itself, into a
//! preallocated ring that never blocks. It knows nothing of schedules, levels or verdicts.

pub mod in_process;
pub mod null;
pub mod openai;
pub mod several;
pub mod simulated;
pub mod sink;

use std::time::Duration;

use crate::clock::{self, Nanos, ThreadUse};
use crate::record::request::{FailureKind, TokenCount};
use crate::record::target::{TargetCounters, TargetIdentity};
use crate::workload::request::Request;

/// Names a request in flight: an index into the generator's table, reused after the request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub u32);

/// How requests are divided among the devices of a target that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// At random, each request by itself: open loop.
    Independent,
    /// An equal number in flight on each: closed loop.
    Even,
    /// All to one device, counted from 0; the others idle.
    Only(usize),
}

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventKind {
    /// The engine scheduled it for the first time; prompt tokens found in the prefix cache.
    Started {
        /// Prompt tokens not computed again.
        cached_tokens: u32,
    },
    /// The answer began to arrive.
    FirstByte,
    /// Generated tokens arrived together.
    Tokens(u32),
    /// What the server says of the tokens, once at the end of an answer; it counts more than what was counted on arrival.
    Reckoned(TokenCount),
    /// It lost its blocks and will be recomputed.
    Preempted,
    /// The target wants to be left alone so long by whom it refuses; the failure follows.
    RetryAfter(Nanos),
    /// All tokens were delivered.
    Completed,
    /// It failed.
    Failed(FailureKind),
}

/// One event, stamped where it happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub slot: Slot,
    /// When, on the process's monotonic clock (or the virtual one).
    pub at: Nanos,
    /// What.
    pub kind: EventKind,
}

/// A system under test.
pub trait Target {
    /// What it is.
    fn identity(&self) -> TargetIdentity;

    /// Hands it a request. Never blocks; `slot` is free until its `Completed` or `Failed` event.
    fn submit(&mut self, request: Request, slot: Slot);

    /// Gives a request up; an event already on its way may still arrive, and one `Failed` or `Completed` will.
    fn cancel(&mut self, slot: Slot);

    /// Takes the next event, in order of stamps.
    fn next_event(&mut self) -> Option<Event>;

    /// Targets without a thread of their own: lives up to `now`, and says when something will next happen by itself.
    /// Asked before and after requests are submitted, so the last `now` is the time of
    /// a submission. Targets with a thread live by themselves and answer `None`.
    fn advance(&mut self, _now: Nanos) -> Option<Nanos> {
        None
    }

    /// Sleeps until something happened, no longer than `at_most`. A target that lives on the calling thread waits for its
    /// sockets here; any other lets the thread nap.
    fn doze(&mut self, at_most: Duration) {
        clock::nap(at_most);
    }

    /// From now on the end of a request wakes the calling thread, where the target lives on another one.
    fn wake_this_thread(&mut self) {}

    /// Whether an event waits; asked often while the generator has nothing to do.
    fn has_events(&self) -> bool;

    /// Whether it can still serve: one that ran out of memory or whose thread died fails everything from then on, and the
    /// next level needs a fresh one.
    fn is_alive(&self) -> bool {
        true
    }

    /// What the first failure of this class said, where it came with words.
    fn said(&self, _kind: FailureKind) -> Option<String> {
        None
    }

    /// Events lost because the ring was full; any makes the level invalid.
    fn events_lost(&self) -> u64 {
        0
    }

    /// Its own counters.
    fn counters(&self) -> TargetCounters {
        TargetCounters::default()
    }

    /// The same for each of its devices, in the order of its identity; one entry where it has one.
    fn counters_by_device(&self) -> Vec<TargetCounters> {
        vec![self.counters()]
    }

    /// Threads of its own that do a part of the generator's work, such as reading sockets: their cores are the generator's.
    fn client_threads(&self) -> Vec<ThreadUse> {
        Vec::new()
    }

    /// From now on requests are divided so. A target with one device has nothing to divide.
    fn spread(&mut self, _spread: Spread) {}
}
