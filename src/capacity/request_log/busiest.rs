//! A log's busiest minute and what was around it, in slices of time: the spike that really happened.
//!
//! Slices are aligned to the clock, from the first to the last that has a call, empty ones included. The minute slides by a slice; of
//! several that are as busy the first counts. Two rings' worth of counts are kept, however long the log is.

use std::collections::VecDeque;

use crate::record::demand::BusiestStretch;

const SLICE_S: i64 = 10;
/// Slices of a minute.
const MINUTE: usize = BusiestStretch::MINUTE_S as usize / SLICE_S as usize;
/// Slices that are kept before that minute, and after it: a quarter of an hour.
const AROUND: usize = 90;

/// Counts of slices, of stamps in rising order.
#[derive(Debug, Default)]
pub struct BusiestTally {
    /// The slice that calls fall into, and how many did.
    open: Option<(i64, u64)>,
    /// The last ones that are over.
    recent: VecDeque<u64>,
    best: Option<Best>,
}

#[derive(Debug)]
struct Best {
    /// Calls of its minute.
    minute: u64,
    /// The first slice that is kept.
    first: i64,
    calls: Vec<u64>,
    /// Slices that are still to come.
    missing: usize,
}

impl BusiestTally {
    /// Adds a call.
    pub fn add(&mut self, at: i64) {
        let number = at.div_euclid(SLICE_S * 1_000_000_000);
        match &mut self.open {
            Some((open, calls)) if *open == number => {
                *calls += 1;
                return;
            }
            Some((open, calls)) => {
                let (open, calls) = (*open, *calls);
                self.close(open, calls);
                // A longer silence changes nothing any more: all that is remembered is empty, and what was to come has come.
                let silent = (number - open - 1).min((MINUTE + AROUND) as i64);
                (1..=silent).for_each(|after| self.close(open + after, 0));
            }
            None => {}
        }
        self.open = Some((number, 1));
    }

    /// A slice is over.
    fn close(&mut self, number: i64, calls: u64) {
        if let Some(best) = self.best.as_mut().filter(|best| best.missing > 0) {
            best.calls.push(calls);
            best.missing -= 1;
        }
        if self.recent.len() == AROUND + MINUTE {
            self.recent.pop_front();
        }
        self.recent.push_back(calls);
        let Some(before) = self.recent.len().checked_sub(MINUTE) else { return };
        let minute = self.recent.range(before..).sum();
        if self.best.as_ref().is_none_or(|best| minute > best.minute) {
            let first = number + 1 - self.recent.len() as i64;
            self.best = Some(Best { minute, first, calls: self.recent.iter().copied().collect(), missing: AROUND });
        }
    }

    /// What it came to; `None` of a log that is shorter than a minute.
    #[must_use]
    pub fn found(mut self) -> Option<BusiestStretch> {
        let (number, calls) = self.open.take()?;
        self.close(number, calls);
        self.best.map(|best| BusiestStretch { start_s: best.first * SLICE_S, slice_s: SLICE_S as u32, calls: best.calls })
    }
}
