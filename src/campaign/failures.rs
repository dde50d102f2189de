//! Whether everything fails: a target that fails at once would otherwise be asked a million times a second.

use crate::campaign::tally::Brief;
use crate::clock::Nanos;
use crate::record::request::{Ending, FailureKind, RequestRecord};

/// So many requests fail in a row, and nothing completes: the level is over, and what the system did is known.
const ALL_FAIL: usize = 100;
/// Fewer are enough where nothing ever completed, and they failed over this long.
const FEW_FAIL: usize = 10;
const LONG: Nanos = Nanos::from_secs(20);

/// The failures of a level.
#[derive(Debug, Default)]
pub struct Failures {
    /// Those since the last request that completed, as far as they matter.
    in_a_row: Vec<Brief>,
    /// Whether a request of the level ever completed.
    any_completed: bool,
    /// Whether the target ran out of memory for one.
    pub out_of_memory: bool,
}

impl Failures {
    /// A request ended.
    pub fn observe(&mut self, record: &RequestRecord) {
        self.out_of_memory |= record.ending == Ending::Failed(FailureKind::OutOfMemory);
        match record.ending {
            Ending::Completed => {
                self.any_completed = true;
                self.in_a_row.clear();
            }
            // What does not come in time has failed whoever waits for it.
            Ending::Failed(_) | Ending::TimedOut if self.in_a_row.len() < ALL_FAIL => self.in_a_row.push(Brief::of(record)),
            _ => {}
        }
    }

    /// Whether nothing else happens any more.
    #[must_use]
    pub fn everything_fails(&self) -> bool {
        let lasts = self.span() >= LONG && self.in_a_row.len() >= FEW_FAIL;
        self.in_a_row.len() >= ALL_FAIL || (lasts && !self.any_completed)
    }

    /// Whether requests failed, and none ever completed.
    #[must_use]
    pub fn nothing_completed(&self) -> bool {
        !self.any_completed && !self.in_a_row.is_empty()
    }

    /// From the first of the failures in a row to the last.
    fn span(&self) -> Nanos {
        let ends = self.in_a_row.first().zip(self.in_a_row.last());
        ends.map_or(Nanos::ZERO, |(first, last)| last.end.since(first.end))
    }

    /// The evidence.
    pub fn take(&mut self) -> Vec<Brief> {
        std::mem::take(&mut self.in_a_row)
    }
}
