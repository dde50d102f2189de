//! The recompute multiplier: inference calls for each successful output.
//!
//! ```text
//! recompute_multiplier = total_inference_calls / successful_outputs
//! ```
//!
//! Calls of one visible request are told by its id. The output is successful where its last call is. A request belongs to the
//! hour in which its first call began, with all its calls, so that the ratio of an hour is one of the same requests.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use crate::capacity::request_log::call::Call;
use crate::stats::histogram::Histogram;

/// A request without a call for so long is over.
pub const IDLE_S: u32 = 3600;

/// What is known of visible requests under way, and of those that are over.
#[derive(Debug, Default)]
pub struct Requests {
    open: HashMap<u64, Open, BuildHasherDefault<AlreadyHashed>>,
    origin: Option<i64>,
    /// Second of the log at which idle requests were last looked for.
    swept_s: u32,
    /// Requests that are over, since they were last taken.
    over: Vec<Over>,
    outcome_ms: Histogram,
}

/// 16 bytes beside a key of 8: hundreds of thousands may be open at once.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Second of the log in which its last call began.
    last_s: u32,
    /// From its first call's beginning to the latest end seen, milliseconds; `u32::MAX` where a latency is not told.
    lasted_ms: u32,
    /// Second of the log, and milliseconds within, at which its first call began.
    first_s: u32,
    first_ms: u16,
    /// Calls, and in the lowest bit whether the last one succeeded.
    calls: u16,
}

/// A visible request that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Over {
    /// When its first call began, nanoseconds since 1970 UTC, to the second.
    pub first_at: i64,
    /// Its calls.
    pub calls: u64,
    /// Whether its last call succeeded.
    pub succeeded: bool,
}

impl Requests {
    /// Adds a call that has a request's id; says whether it is the first of its request.
    pub fn add(&mut self, call: &Call) -> bool {
        let origin = *self.origin.get_or_insert(call.at.div_euclid(1_000_000_000) * 1_000_000_000);
        let since = (call.at - origin).max(0) as u64;
        let now_s = (since / 1_000_000_000).min(u64::from(u32::MAX)) as u32;
        if now_s - self.swept_s > IDLE_S {
            self.sweep(now_s);
        }
        let entry = self.open.entry(call.request);
        let before = if let Entry::Occupied(known) = &entry { Some(*known.get()) } else { None };
        let (ended, going_on) = match before {
            Some(open) if now_s - open.last_s > IDLE_S => (Some(open), None),
            open => (None, open),
        };
        let mut open =
            going_on.unwrap_or(Open { last_s: now_s, lasted_ms: 0, first_s: now_s, first_ms: (since / 1_000_000 % 1000) as u16, calls: 0 });
        let began_ms = u64::from(now_s - open.first_s) * 1000 + since / 1_000_000 % 1000 - u64::from(open.first_ms);
        open.lasted_ms = match call.latency_ms() {
            Some(latency) => open.lasted_ms.max((began_ms as f64 + latency).min(f64::from(u32::MAX - 1)) as u32),
            None => u32::MAX,
        };
        open.last_s = now_s;
        open.calls = ((open.calls >> 1).saturating_add(1).min(u16::MAX >> 1) << 1) | u16::from(call.succeeded());
        entry.insert_entry(open);
        if let Some(ended) = ended {
            self.close(ended);
        }
        going_on.is_none()
    }

    /// The requests that ended since this was last asked.
    pub fn take_over(&mut self) -> std::vec::Drain<'_, Over> {
        self.over.drain(..)
    }

    /// The log is over, and so is every request.
    pub fn close_all(&mut self) {
        let open: Vec<Open> = self.open.drain().map(|(_, open)| open).collect();
        for request in open {
            self.close(request);
        }
    }

    /// From the first call's beginning to the last one's end, of successful requests whose calls all tell their latency.
    #[must_use]
    pub fn outcome_latency(&self) -> &Histogram {
        &self.outcome_ms
    }

    fn sweep(&mut self, now_s: u32) {
        let idle = self.open.extract_if(|_, open| now_s - open.last_s > IDLE_S).map(|(_, open)| open).collect::<Vec<_>>();
        for request in idle {
            self.close(request);
        }
        self.swept_s = now_s;
    }

    fn close(&mut self, open: Open) {
        let succeeded = open.calls & 1 == 1;
        if succeeded && open.lasted_ms != u32::MAX {
            self.outcome_ms.record(u64::from(open.lasted_ms) * 1_000_000);
        }
        let first_at = self.origin.unwrap_or(0) + i64::from(open.first_s) * 1_000_000_000;
        self.over.push(Over { first_at, calls: u64::from(open.calls >> 1), succeeded });
    }
}

/// Ids come hashed: mixing them again would take longer than looking them up.
#[derive(Debug, Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hashed: u64) {
        self.0 = hashed;
    }
}
