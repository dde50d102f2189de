//! When requests start: an absolute schedule that a slow target never slows, or a number held in flight.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::iter::Peekable;

use crate::clock::Nanos;
use crate::record::request::{Ending, RequestRecord};
use crate::rng;
use crate::workload::request::{Request, RequestSource};

/// The least that a user waits after its request failed.
const AFTER_FAILURE: Nanos = Nanos::from_millis(100);
/// The most that it waits because it was told to (`Retry-After`).
const LONGEST_RETRY: Nanos = Nanos::from_secs(5);

/// What an arrival does when the generator's in-flight cap is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCap {
    /// It waits in the generator with its clock running from its intended start.
    Wait,
    /// It is recorded as refused, which makes the level invalid.
    Refuse,
}

/// When requests start. Offsets count from the beginning of the level.
pub enum When {
    /// `concurrency` users, each sending its next request when the last one ended; a while later where that one failed.
    Closed {
        /// Requests in flight, 1 or more.
        concurrency: u32,
        /// The users start spread over this time, so that they do not stay in lock-step.
        stagger: Nanos,
        /// Seed of the random residual lengths of the first wave.
        seed: u64,
    },
    /// Requests start when the schedule says so.
    Open {
        /// Ascending offsets.
        schedule: Box<dyn Iterator<Item = Nanos> + Send>,
        /// Most requests in flight at once.
        cap: u32,
        /// And beyond it.
        on_cap: OnCap,
    },
}

impl fmt::Debug for When {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { concurrency, .. } => write!(out, "Closed({concurrency})"),
            Self::Open { cap, .. } => write!(out, "Open(cap {cap})"),
        }
    }
}

/// When requests start, and what they ask.
pub struct Arrivals<'a> {
    /// When.
    pub when: When,
    /// What.
    pub what: &'a mut dyn RequestSource,
}

impl fmt::Debug for Arrivals<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Arrivals({:?})", self.when)
    }
}

/// The arrivals of a level while it is driven.
pub(super) struct Calendar<'a> {
    what: &'a mut dyn RequestSource,
    due: Due,
    pub(super) cap: u32,
    pub(super) on_cap: OnCap,
    origin: Nanos,
    exhausted: bool,
}

enum Due {
    /// Users that are free, by the time at which each may send. The first wave is shortened at random.
    Closed { free: BinaryHeap<Reverse<Nanos>>, first_wave: FirstWave },
    /// `overdue` are arrivals that wait at the cap: their clock runs.
    Open { schedule: Peekable<Box<dyn Iterator<Item = Nanos> + Send>>, overdue: VecDeque<Nanos> },
}

/// Random residual lengths: requests caught in the middle, as a running system has them.
struct FirstWave {
    left: u32,
    of: u32,
    seed: u64,
}

impl<'a> Calendar<'a> {
    pub(super) fn new(arrivals: Arrivals<'a>, origin: Nanos) -> Self {
        let Arrivals { when, what } = arrivals;
        let (due, cap, on_cap) = match when {
            When::Closed { concurrency, stagger, seed } => {
                let share = |user: u32| Nanos((u128::from(stagger.0) * u128::from(user) / u128::from(concurrency.max(1))) as u64);
                let free = (0..concurrency).map(|user| Reverse(origin + share(user))).collect();
                (Due::Closed { free, first_wave: FirstWave { left: concurrency, of: concurrency, seed } }, concurrency, OnCap::Wait)
            }
            When::Open { schedule, cap, on_cap } => (Due::Open { schedule: schedule.peekable(), overdue: VecDeque::new() }, cap, on_cap),
        };
        Self { what, due, cap, on_cap, origin, exhausted: false }
    }

    /// When the next request starts; `None` when nothing is due before something ends, or ever.
    pub(super) fn next_due(&mut self) -> Option<Nanos> {
        if self.exhausted {
            return None;
        }
        match &mut self.due {
            Due::Closed { free, .. } => free.peek().map(|Reverse(since)| *since),
            Due::Open { schedule, overdue } => overdue.front().copied().or_else(|| schedule.peek().map(|offset| self.origin + *offset)),
        }
    }

    /// Takes the arrival that [`Self::next_due`] announced. `None`: the traffic is exhausted.
    pub(super) fn take(&mut self, now: Nanos) -> Option<Request> {
        self.what.advance(now);
        let Some(mut request) = self.what.next_request() else {
            self.exhausted = true;
            return None;
        };
        match &mut self.due {
            Due::Closed { free, first_wave } => {
                free.pop();
                first_wave.shorten(&mut request);
            }
            Due::Open { schedule, overdue } => {
                if overdue.pop_front().is_none() {
                    schedule.next();
                }
            }
        }
        Some(request)
    }

    /// Moves the arrivals that are due at `now` to those that wait, and says how many.
    pub(super) fn hold_back(&mut self, now: Nanos) -> u64 {
        let Due::Open { schedule, overdue } = &mut self.due else { return 0 };
        let before = overdue.len();
        while let Some(offset) = schedule.next_if(|offset| self.origin + *offset <= now) {
            overdue.push_back(self.origin + offset);
        }
        (overdue.len() - before) as u64
    }

    /// Arrivals that wait at the cap.
    pub(super) fn overdue(&self) -> u64 {
        match &self.due {
            Due::Closed { .. } => 0,
            Due::Open { overdue, .. } => overdue.len() as u64,
        }
    }

    /// A request ended at `now`: its session may go on, and its user is free, once it has waited where the request failed.
    pub(super) fn ended(&mut self, record: &RequestRecord, now: Nanos) {
        self.what.advance(now);
        self.what.ended(record.id);
        if let Due::Closed { free, .. } = &mut self.due {
            free.push(Reverse(now + after_failure(record)));
        }
    }

    /// Whether the schedule or the source came to its end.
    pub(super) fn exhausted(&mut self) -> bool {
        let dry = match &mut self.due {
            Due::Closed { .. } => false,
            Due::Open { schedule, overdue } => overdue.is_empty() && schedule.peek().is_none(),
        };
        self.exhausted || dry
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.due, Due::Closed { .. })
    }
}

/// How long a user waits after its request ended so: a target that fails at once would otherwise be asked as fast as it can fail.
fn after_failure(record: &RequestRecord) -> Nanos {
    match record.ending {
        Ending::Failed(_) => record.retry_after.unwrap_or_default().clamp(AFTER_FAILURE, LONGEST_RETRY),
        // A request that was given up has waited already.
        Ending::Completed | Ending::TimedOut | Ending::Refused | Ending::Cancelled => Nanos::ZERO,
    }
}

impl FirstWave {
    fn shorten(&mut self, request: &mut Request) {
        if self.left == 0 || self.of == 1 {
            return;
        }
        let share = rng::uniform_at(self.seed, u64::from(self.left));
        self.left -= 1;
        request.output_tokens = ((f64::from(request.output_tokens) * share).ceil() as u32).max(1);
    }
}
