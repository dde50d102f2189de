//! Whether everything fails: a target that fails at once would otherwise be asked a million times a second.

use crate::campaign::tally::Brief;
use crate::record::request::{Ending, FailureKind, RequestRecord};

/// So many requests fail in a row, and nothing completes: the level is over, and what the system did is known.
const ALL_FAIL: usize = 100;

/// The failures of a level.
#[derive(Debug, Default)]
pub struct Failures {
    /// Those since the last request that completed, as far as they matter.
    in_a_row: Vec<Brief>,
    /// Whether the target ran out of memory for one.
    pub out_of_memory: bool,
}

impl Failures {
    /// A request ended.
    pub fn observe(&mut self, record: &RequestRecord) {
        match record.ending {
            Ending::Completed => self.in_a_row.clear(),
            Ending::Failed(kind) => {
                self.out_of_memory |= kind == FailureKind::OutOfMemory;
                if self.in_a_row.len() < ALL_FAIL {
                    self.in_a_row.push(Brief::of(record));
                }
            }
            Ending::TimedOut | Ending::Refused | Ending::Cancelled => {}
        }
    }

    /// Whether nothing else happens any more.
    #[must_use]
    pub fn everything_fails(&self) -> bool {
        self.in_a_row.len() >= ALL_FAIL
    }

    /// The evidence.
    pub fn take(&mut self) -> Vec<Brief> {
        std::mem::take(&mut self.in_a_row)
    }
}
