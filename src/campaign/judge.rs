//! The rules of a level, as whoever watches it asks for them: has it settled, is its window enough.

use crate::campaign::series::Series;
use crate::campaign::tally::Brief;
use crate::clock::Nanos;

/// What a judge sees of a window whose cohort has ended.
#[derive(Debug)]
pub struct Window<'a> {
    /// Where it begins.
    pub from: Nanos,
    /// Where it ends.
    pub to: Nanos,
    /// Every request that was due in it, in order of ending.
    pub cohort: &'a [Brief],
    /// Bins from `from` on.
    pub series: &'a Series,
}

/// What a judge makes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// The level is over.
    Yes,
    /// The window goes on until then.
    Until(Nanos),
}

/// What a judge makes of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Settled {
    /// The window begins now and lasts at least this long.
    Yes {
        /// First length of the window.
        window: Nanos,
    },
    /// Not yet.
    NotYet,
    /// It took too long: the window begins all the same, and the level is invalid.
    GaveUp {
        /// First length of the window.
        window: Nanos,
    },
}

/// What a judge sees of a warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Requests in flight or waiting at the cap.
    pub in_flight: u64,
    /// Tokens since the level began.
    pub tokens: u64,
}

/// The rules of a level.
pub trait Judge {
    /// The level begins.
    fn begins(&mut self, now: Nanos);
    /// A request of the warm-up ended.
    fn warms_up(&mut self, ended: &Brief);
    /// Has the level settled? Asked at every turn of the warm-up.
    fn settled(&mut self, now: Nanos, pulse: Pulse) -> Settled;
    /// Is the window enough? Asked when every request of the cohort has ended.
    fn enough(&mut self, window: &Window<'_>) -> Enough;
}
