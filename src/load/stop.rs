//! What watches a level while it is driven, and says when it is over.
//!
//! The rules of the method (settling, precision, deciding an SLO) are watchers of `campaign`; here are the seam and
//! the plainest of them.

use crate::clock::Nanos;
use crate::record::request::RequestRecord;

/// How long a cancelled target may take to let go of its requests.
pub const LET_GO: Nanos = Nanos::from_secs(30);

/// The state of the generator at one turn of its loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Requests sent and not ended.
    pub in_flight: u32,
    /// Arrivals that are due and wait in the generator.
    pub waiting: u64,
    /// Arrivals that ever waited at the in-flight cap.
    pub waited_at_cap: u64,
    /// Time spent spinning since the clock began.
    pub spun: Nanos,
    /// Nothing more will arrive: a trace or schedule came to its end.
    pub exhausted: bool,
}

/// Whether the level goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It does.
    GoOn,
    /// It is over; what is in flight is cancelled.
    Over,
}

/// Watches a level. All times are on the level's clock.
pub trait Stop {
    /// The level begins.
    fn begins(&mut self, _now: Nanos) {}

    /// One turn of the loop, after the events up to `now` and before the arrivals due at `now`.
    fn turn(&mut self, now: Nanos, live: &Live) -> Turn;

    /// The same turn, after the arrivals due at `now` were sent: what is in flight from now on.
    fn carries(&mut self, _now: Nanos, _live: &Live) {}

    /// When a turn is wanted at the latest, though nothing may happen.
    fn next_due(&self) -> Nanos {
        Nanos::MAX
    }

    /// How long the target may take to let go of what is in flight when the level is over.
    fn let_go(&self) -> Nanos {
        LET_GO
    }

    /// A request started: sent, or refused at the cap.
    fn arrived(&mut self, _intended: Nanos) {}

    /// Tokens arrived.
    fn tokens(&mut self, _at: Nanos, _count: u32) {}

    /// An answer ended with so many tokens more (or fewer) than were counted on arrival: the server's count holds.
    fn recounted(&mut self, _at: Nanos, _more: i64) {}

    /// A request ended, however it did.
    fn ended(&mut self, record: RequestRecord);
}

/// Ends after a number of requests ended; keeps every record. For tests, benchmarks and short checks.
#[derive(Debug, Default)]
pub struct AfterRequests {
    /// How many.
    pub count: usize,
    /// What was recorded, in order of ending.
    pub records: Vec<RequestRecord>,
}

impl Stop for AfterRequests {
    fn turn(&mut self, _now: Nanos, live: &Live) -> Turn {
        let dry = live.exhausted && live.in_flight == 0 && live.waiting == 0;
        if self.records.len() >= self.count || dry { Turn::Over } else { Turn::GoOn }
    }

    fn ended(&mut self, record: RequestRecord) {
        self.records.push(record);
    }
}

/// Ends at a time; keeps every record.
#[derive(Debug, Default)]
pub struct AtTime {
    /// When, on the level's clock.
    pub at: Nanos,
    /// What was recorded, in order of ending.
    pub records: Vec<RequestRecord>,
}

impl Stop for AtTime {
    fn turn(&mut self, now: Nanos, _live: &Live) -> Turn {
        if now >= self.at { Turn::Over } else { Turn::GoOn }
    }

    fn next_due(&self) -> Nanos {
        self.at
    }

    fn ended(&mut self, record: RequestRecord) {
        self.records.push(record);
    }
}
