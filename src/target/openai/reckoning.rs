//! How many tokens an event stands for: by the server's own running count, else by what its answers had on average.

use crate::record::request::TokenCount;
use crate::record::target::TargetCounters;

/// Tokens of an answer as they come, counted in whole tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reckoning {
    /// Events that carried tokens.
    pub events: u32,
    /// Tokens counted for them.
    pub counted: u32,
    /// Whether the server's own count came along before the end.
    pub running: bool,
    /// What rounding left over, in tokens.
    carry: f64,
}

/// Answers of one server so far.
#[derive(Clone, Copy, Debug)]
pub struct TokensPerEvent {
    tokens: f64,
    events: f64,
}

impl Default for TokensPerEvent {
    /// One, as nearly every server sends, until answers say otherwise.
    fn default() -> Self {
        Self { tokens: 1.0, events: 1.0 }
    }
}

/// Answers fade from the average by this factor each: it follows a server whose speculation does better or worse.
const FADE: f64 = 0.98;

impl TokensPerEvent {
    /// 1 or more.
    #[must_use]
    pub fn mean(&self) -> f64 {
        (self.tokens / self.events).max(1.0)
    }

    /// An answer ended, and the server said how many tokens it had.
    pub fn learn(&mut self, events: u32, tokens: u32) {
        if events > 0 && tokens > 0 {
            self.tokens = self.tokens * FADE + f64::from(tokens);
            self.events = self.events * FADE + f64::from(events);
        }
    }
}

/// What all answers of one client had together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Their tokens.
    pub counters: TargetCounters,
    /// How many an event stands for.
    pub per_event: TokensPerEvent,
}

impl Tally {
    /// None yet; an event is expected to stand for so many tokens.
    #[must_use]
    pub fn expecting(tokens_per_event: f64) -> Self {
        let mut per_event = TokensPerEvent::default();
        per_event.learn(20, (tokens_per_event * 20.0).round() as u32);
        Self { counters: TargetCounters::default(), per_event }
    }

    /// An answer ended: what was counted as it came gives way to what is known now.
    pub fn ended(&mut self, count: &TokenCount, counted: u32) {
        if let Some(tokens) = count.output() {
            self.per_event.learn(count.events, tokens);
        }
        // The server's own word alone: what a local tokenizer makes of a text is no second witness of what arrived.
        if let Some(tokens) = count.output_by_usage {
            let before = self.counters.decode_tokens.saturating_sub(u64::from(counted));
            self.counters.decode_tokens = before + u64::from(tokens);
        }
        self.counters.prefill_tokens += u64::from(count.prompt_by_usage.unwrap_or(0).saturating_sub(count.cached));
        self.counters.cached_tokens += u64::from(count.cached);
    }
}

impl Reckoning {
    /// `events` came; the server's count of tokens so far, where it gave one. Returns how many tokens they brought.
    pub fn take(&mut self, events: u32, counted_by_server: Option<u32>, per_event: &TokensPerEvent) -> u32 {
        self.events = self.events.saturating_add(events);
        let brought = match counted_by_server {
            Some(total) => {
                self.carry = 0.0;
                // One that comes with the first tokens already runs along; one with the last is the usual usage.
                self.running |= self.events == events;
                total.saturating_sub(self.counted)
            }
            None => {
                let exact = f64::from(events) * per_event.mean() + self.carry;
                // At least one: an event that carries tokens carries a token.
                let whole = (exact.round() as u32).max(u32::from(events > 0));
                self.carry = exact - f64::from(whole);
                whole
            }
        };
        // A server may claim any number; what is counted for it goes no further than it can.
        let counted = self.counted.saturating_add(brought);
        let brought = counted - self.counted;
        self.counted = counted;
        brought
    }
}
