//! The table of requests in flight: one preallocated slot each, from submission to the target's last word.

use std::collections::VecDeque;

use crate::clock::Nanos;
use crate::record::request::{Chunk, Ending, RequestRecord};
use crate::target::{Event, EventKind, Slot};

/// Slots, free ones threaded through a stack.
#[derive(Debug)]
pub(super) struct InFlight {
    slots: Vec<Entry>,
    free: Vec<u32>,
    /// Open requests by intended start, for timeouts; entries of ended requests are skipped lazily.
    by_age: VecDeque<(u64, Slot)>,
    open: u32,
    keep_chunks: bool,
}

#[derive(Debug)]
struct Entry {
    record: RequestRecord,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Sent, and its record still open.
    Open,
    /// Recorded as given up; the target has not let go of the slot yet.
    GivenUp,
}

impl InFlight {
    pub(super) fn new(capacity: u32, keep_chunks: bool) -> Self {
        let blank = || Entry { record: blank_record(), state: State::Free };
        Self {
            slots: (0..capacity).map(|_| blank()).collect(),
            free: (0..capacity).rev().collect(),
            by_age: VecDeque::with_capacity(capacity as usize),
            open: 0,
            keep_chunks,
        }
    }

    /// Requests whose record is open.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    /// Slots that the target has not let go of.
    pub(super) fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Opens a record; `None` when every slot is held.
    pub(super) fn open_record(&mut self, fill: impl FnOnce(&mut RequestRecord)) -> Option<Slot> {
        let slot = Slot(self.free.pop()?);
        let entry = &mut self.slots[slot.0 as usize];
        entry.state = State::Open;
        fill(&mut entry.record);
        self.by_age.push_back((entry.record.id, slot));
        self.open += 1;
        Some(slot)
    }

    /// Tokens counted so far of an open request.
    pub(super) fn tokens_of(&self, slot: Slot) -> Option<u32> {
        let entry = self.slots.get(slot.0 as usize)?;
        (entry.state == State::Open).then_some(entry.record.output_tokens)
    }

    /// Applies one event; a record that ended comes back.
    pub(super) fn apply(&mut self, event: &Event) -> Option<RequestRecord> {
        let entry = self.slots.get_mut(event.slot.0 as usize)?;
        if entry.state == State::GivenUp {
            if matches!(event.kind, EventKind::Completed | EventKind::Failed(_)) {
                entry.state = State::Free;
                self.free.push(event.slot.0);
            }
            return None;
        }
        if entry.state == State::Free {
            return None;
        }
        let record = &mut entry.record;
        let ending = match event.kind {
            EventKind::Started { cached_tokens } => {
                record.admitted.get_or_insert(event.at);
                record.cached_tokens = cached_tokens;
                return None;
            }
            EventKind::FirstByte => {
                record.first_byte.get_or_insert(event.at);
                return None;
            }
            EventKind::Reckoned(count) => {
                record.reckon(count);
                return None;
            }
            EventKind::Tokens(tokens) => {
                record.first_token.get_or_insert(event.at);
                record.last_token = Some(event.at);
                record.output_tokens += tokens;
                if self.keep_chunks {
                    record.chunks.push(Chunk { at: event.at, tokens });
                }
                return None;
            }
            EventKind::Preempted => {
                record.preemptions += 1;
                return None;
            }
            EventKind::RetryAfter(length) => {
                record.retry_after = Some(length);
                return None;
            }
            EventKind::Completed => Ending::Completed,
            EventKind::Failed(kind) => Ending::Failed(kind),
        };
        entry.state = State::Free;
        self.free.push(event.slot.0);
        Some(self.close(event.slot, event.at, ending))
    }

    /// The oldest open request, if it is older than `limit` at `now`: its record ends here as timed out.
    pub(super) fn give_up_oldest(&mut self, now: Nanos, limit: Nanos) -> Option<(Slot, RequestRecord)> {
        let (slot, intended) = self.oldest()?;
        if now.since(intended) < limit {
            return None;
        }
        self.slots[slot.0 as usize].state = State::GivenUp;
        Some((slot, self.close(slot, now, Ending::TimedOut)))
    }

    /// When the oldest open request was intended to start.
    pub(super) fn oldest_intended(&mut self) -> Option<Nanos> {
        self.oldest().map(|(_, intended)| intended)
    }

    /// Ends every open record as cancelled; the slots stay held until the target lets go.
    pub(super) fn cancel_all(&mut self, now: Nanos, mut each: impl FnMut(Slot, RequestRecord)) {
        for index in 0..self.slots.len() {
            if self.slots[index].state == State::Open {
                self.slots[index].state = State::GivenUp;
                let slot = Slot(index as u32);
                let record = self.close(slot, now, Ending::Cancelled);
                each(slot, record);
            }
        }
    }

    fn oldest(&mut self) -> Option<(Slot, Nanos)> {
        while let Some((id, slot)) = self.by_age.front().copied() {
            let entry = &self.slots[slot.0 as usize];
            if entry.state == State::Open && entry.record.id == id {
                return Some((slot, entry.record.intended));
            }
            self.by_age.pop_front();
        }
        None
    }

    fn close(&mut self, slot: Slot, end: Nanos, ending: Ending) -> RequestRecord {
        self.open -= 1;
        if self.by_age.len() > 4 * self.slots.len() {
            let slots = &self.slots;
            self.by_age.retain(|(id, slot)| slots[slot.0 as usize].state == State::Open && slots[slot.0 as usize].record.id == *id);
        }
        let entry = &mut self.slots[slot.0 as usize];
        let mut record = std::mem::replace(&mut entry.record, blank_record());
        record.end = end;
        record.ending = ending;
        record
    }
}

/// An entry before its request: `id` and stamps are overwritten when it is opened.
pub(super) fn blank_record() -> RequestRecord {
    RequestRecord {
        id: u64::MAX,
        intended: Nanos::ZERO,
        sent: None,
        admitted: None,
        first_byte: None,
        first_token: None,
        last_token: None,
        end: Nanos::ZERO,
        prompt_tokens: 0,
        made_tokens: None,
        cached_tokens: 0,
        requested_tokens: 0,
        output_tokens: 0,
        preemptions: 0,
        chunks: Vec::new(),
        token_count: None,
        retry_after: None,
        ending: Ending::Cancelled,
    }
}
