//! The calls of a fleet: what comes, what is under way, and what became of it.

use crate::clock::Nanos;

/// A call that comes to the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When; not before the one before it.
    pub at: Nanos,
    /// Prompt length, 1 or more.
    pub prompt: u32,
    /// Tokens to generate, 1 or more.
    pub tokens: u32,
}

/// How a call ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All tokens came.
    Completed,
    /// Every try was refused, or the last one of a client whose retry budget was spent.
    Refused,
    /// The last try took longer than its client waits.
    TimedOut,
    /// The replica that had its last try was lost.
    Lost,
    /// The simulation ended before it did.
    Unfinished,
}

/// What became of a call. Times are those its client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When it first came.
    pub arrived: Nanos,
    /// When the try that ended joined a batch; `None` where it never did.
    pub admitted: Option<Nanos>,
    /// When its first token came; `None` where none did.
    pub first_token: Option<Nanos>,
    /// When its client was done with it.
    pub ended: Nanos,
    /// Prompt length.
    pub prompt: u32,
    /// Tokens asked for.
    pub tokens: u32,
    /// Tries, 1 or more.
    pub attempts: u32,
    /// How.
    pub ending: Ending,
}

impl Ended {
    /// Time to the first token from the first try, where there is one.
    #[must_use]
    pub fn ttft(&self) -> Option<Nanos> {
        Some(self.first_token?.since(self.arrived))
    }

    /// Nanoseconds per token after the first; `None` for an answer of one token, and where it did not complete.
    #[must_use]
    pub fn tpot_ns(&self) -> Option<f64> {
        let gaps = self.tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        let first = self.first_token.filter(|_| self.ending == Ending::Completed)?;
        Some(self.ended.since(first).0 as f64 / f64::from(gaps))
    }

    /// From the first try to the last token; `None` where it did not complete.
    #[must_use]
    pub fn e2e(&self) -> Option<Nanos> {
        (self.ending == Ending::Completed).then_some(self.ended.since(self.arrived))
    }
}

/// One try of a call: every try has an id of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    slot: u32,
    try_number: u32,
}

impl CallId {
    /// For replicas without a fleet.
    #[must_use]
    pub const fn alone(number: u32) -> Self {
        Self { slot: number, try_number: 0 }
    }
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) arrived: Nanos,
    pub(super) admitted: Nanos,
    pub(super) first_token: Nanos,
    pub(super) prompt: u32,
    pub(super) tokens: u32,
    pub(super) attempts: u32,
    /// The replica that has it; [`NOWHERE`] while it waits for one.
    pub(super) replica: u32,
    /// Tries of this slot, by all calls that had it.
    try_number: u32,
    is_open: bool,
}

/// No replica has it.
pub(super) const NOWHERE: u32 = u32::MAX;

/// All calls under way, in slots that are used again.
#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Open>,
    free: Vec<u32>,
}

impl Calls {
    /// Opens a call with its first try.
    pub(super) fn open(&mut self, arrival: Arrival) -> CallId {
        let fresh = Open {
            arrived: arrival.at,
            admitted: Nanos::MAX,
            first_token: Nanos::MAX,
            prompt: arrival.prompt.max(1),
            tokens: arrival.tokens.max(1),
            attempts: 1,
            replica: NOWHERE,
            try_number: 0,
            is_open: true,
        };
        match self.free.pop() {
            Some(slot) => {
                let place = &mut self.slots[slot as usize];
                *place = Open { try_number: place.try_number.wrapping_add(1), ..fresh };
                CallId { slot, try_number: place.try_number }
            }
            None => {
                self.slots.push(fresh);
                CallId { slot: self.slots.len() as u32 - 1, try_number: 0 }
            }
        }
    }

    /// The next try of a call.
    pub(super) fn again(&mut self, call: CallId) -> CallId {
        let place = &mut self.slots[call.slot as usize];
        place.try_number = place.try_number.wrapping_add(1);
        place.attempts += 1;
        place.replica = NOWHERE;
        place.admitted = Nanos::MAX;
        place.first_token = Nanos::MAX;
        CallId { slot: call.slot, try_number: place.try_number }
    }

    pub(super) fn get(&mut self, call: CallId) -> &mut Open {
        &mut self.slots[call.slot as usize]
    }

    /// Whether this try is the one under way.
    pub(super) fn is_current(&self, call: CallId) -> bool {
        let place = &self.slots[call.slot as usize];
        place.is_open && place.try_number == call.try_number
    }

    /// Closes a call.
    pub(super) fn close(&mut self, call: CallId, ended: Nanos, ending: Ending) -> Ended {
        let place = &mut self.slots[call.slot as usize];
        place.is_open = false;
        self.free.push(call.slot);
        ended_of(place, ended, ending)
    }

    /// Those that are still under way.
    pub(super) fn unfinished(&self, ended: Nanos) -> impl Iterator<Item = Ended> + '_ {
        self.slots.iter().filter(|open| open.is_open).map(move |open| ended_of(open, ended, Ending::Unfinished))
    }

    /// The tries that a replica has.
    pub(super) fn on(&self, replica: u32) -> Vec<CallId> {
        let there = self.slots.iter().enumerate().filter(|(_, open)| open.is_open && open.replica == replica);
        there.map(|(slot, open)| CallId { slot: slot as u32, try_number: open.try_number }).collect()
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn ended_of(open: &Open, ended: Nanos, ending: Ending) -> Ended {
    let stamp = |at: Nanos| (at < Nanos::MAX).then_some(at);
    Ended {
        arrived: open.arrived,
        admitted: stamp(open.admitted),
        first_token: stamp(open.first_token),
        ended,
        prompt: open.prompt,
        tokens: open.tokens,
        attempts: open.attempts,
        ending,
    }
}
