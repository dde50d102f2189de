//! What a level looked like over time, in equal bins: requests in flight, tokens, completions.

use crate::clock::Nanos;

/// One bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Time-weighted mean of requests in flight and waiting.
    pub in_flight: f64,
    /// Tokens that arrived in it.
    pub tokens: u64,
    /// Prompt tokens of requests whose first token came in it.
    pub prompt_tokens: u64,
    /// Requests that completed in it.
    pub completions: u64,
}

/// Bins of one width from a common origin; the last one is still being filled.
#[derive(Clone, Debug)]
pub struct Series {
    origin: Nanos,
    width: Nanos,
    bins: Vec<Bin>,
    /// Until when the number in flight was accounted for, and what it was.
    seen: Nanos,
    in_flight: f64,
    max_in_flight: u64,
}

impl Series {
    /// An empty series that begins at `origin`, in bins of `width` (1 ns or more).
    #[must_use]
    pub fn new(origin: Nanos, width: Nanos, in_flight: u64) -> Self {
        let width = Nanos(width.0.max(1));
        Self { origin, width, bins: Vec::new(), seen: origin, in_flight: in_flight as f64, max_in_flight: in_flight }
    }

    /// Width of a bin.
    #[must_use]
    pub fn width(&self) -> Nanos {
        self.width
    }

    /// From `now` on this many are in flight or waiting.
    pub fn in_flight(&mut self, now: Nanos, count: u64) {
        while self.seen < now {
            let index = self.index(self.seen);
            let edge = self.origin + Nanos(self.width.0 * (index as u64 + 1));
            let until = edge.min(now);
            let share = until.since(self.seen).0 as f64 / self.width.0 as f64;
            let in_flight = self.in_flight;
            self.bin(index).in_flight += in_flight * share;
            self.seen = until;
        }
        self.in_flight = count as f64;
        self.max_in_flight = self.max_in_flight.max(count);
    }

    /// Tokens arrived.
    pub fn tokens(&mut self, at: Nanos, count: u32) {
        if at >= self.origin {
            let index = self.index(at);
            self.bin(index).tokens += u64::from(count);
        }
    }

    /// An answer that ended had so many tokens more, or fewer, than were counted: they are put right where it ended.
    pub fn recounted(&mut self, at: Nanos, more: i64) {
        if at >= self.origin {
            let index = self.index(at);
            let bin = self.bin(index);
            bin.tokens = bin.tokens.saturating_add_signed(more);
        }
    }

    /// The first token of a request with so long a prompt came.
    pub fn prompted(&mut self, at: Nanos, prompt_tokens: u32) {
        if at >= self.origin {
            let index = self.index(at);
            self.bin(index).prompt_tokens += u64::from(prompt_tokens);
        }
    }

    /// A request completed.
    pub fn completed(&mut self, at: Nanos) {
        if at >= self.origin {
            let index = self.index(at);
            self.bin(index).completions += 1;
        }
    }

    /// Bins that lie wholly before `until`.
    #[must_use]
    pub fn whole(&self, until: Nanos) -> &[Bin] {
        let count = (until.since(self.origin).0 / self.width.0) as usize;
        &self.bins[..count.min(self.bins.len())]
    }

    /// Tokens that arrived between two times, as if each bin's had come evenly.
    #[must_use]
    pub fn tokens_between(&self, from: Nanos, to: Nanos) -> f64 {
        let tokens = self.bins.iter().enumerate().map(|(index, bin)| {
            let begin = self.origin + Nanos(self.width.0 * index as u64);
            let inside = to.min(begin + self.width).since(from.max(begin));
            bin.tokens as f64 * inside.0 as f64 / self.width.0 as f64
        });
        tokens.sum()
    }

    /// Most in flight or waiting at once.
    #[must_use]
    pub fn max_in_flight(&self) -> u64 {
        self.max_in_flight
    }

    fn index(&self, at: Nanos) -> usize {
        (at.since(self.origin).0 / self.width.0) as usize
    }

    fn bin(&mut self, index: usize) -> &mut Bin {
        if self.bins.len() <= index {
            self.bins.resize(index + 1, Bin::default());
        }
        &mut self.bins[index]
    }
}
