//! Rising concurrency: 1, 2, 4, 8 ... until throughput stops growing, then a few levels around the knee.
//!
//! A state machine over plain numbers: it asks for concurrencies and is told what came out. Its plateau is where the
//! machine is busy, never `throughput_per_gpu`, which needs an SLO and an open loop.

use crate::curve::saturation::GAIN;

/// More failed requests than this end it too.
const ERRORS: f64 = 0.01;

/// What one closed-loop level showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// Requests held in flight.
    pub concurrency: u32,
    /// Output tokens per second.
    pub tokens_per_s: f64,
    /// Share of the cohort that failed or timed out.
    pub error_share: f64,
    /// The target preempted sequences: its KV cache is full.
    pub preempts: bool,
    /// An invalid level ends nothing and bounds nothing.
    pub valid: bool,
}

/// Why the rise ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RiseEnded {
    /// Two doublings brought less than 3 %.
    Saturated,
    /// The KV cache is full and sequences are preempted.
    KvFull,
    /// Errors passed 1 %.
    Errors,
    /// The largest allowed concurrency was reached.
    Limit,
}

/// The sweep as a state machine.
#[derive(Debug)]
pub struct Sweep {
    limit: u32,
    /// Levels that will still be filled in around the knee.
    fill: Vec<u32>,
    seen: Vec<Shown>,
    ended: Option<RiseEnded>,
    fill_levels: usize,
}

impl Sweep {
    /// A sweep up to `limit` requests in flight, with up to `fill_levels` levels filled in around the knee.
    #[must_use]
    pub fn new(limit: u32, fill_levels: usize) -> Self {
        Self { limit: limit.max(1), fill: Vec::new(), seen: Vec::new(), ended: None, fill_levels }
    }

    /// The next concurrency to measure; `None` when the sweep is complete.
    pub fn next_level(&mut self) -> Option<u32> {
        if self.ended.is_none() {
            let rising = self.seen.last().map_or(1, |last| (last.concurrency.saturating_mul(2)).min(self.limit));
            if self.seen.last().is_none_or(|last| last.concurrency < rising) {
                return Some(rising);
            }
            self.end(RiseEnded::Limit);
        }
        self.fill.pop()
    }

    /// Tells what the level that was asked for showed.
    pub fn report(&mut self, shown: Shown) {
        self.seen.push(shown);
        if self.ended.is_some() {
            return;
        }
        if shown.valid && shown.preempts {
            self.end(RiseEnded::KvFull);
        } else if shown.valid && shown.error_share > ERRORS {
            self.end(RiseEnded::Errors);
        } else if let [.., two_before, _, last] = self.seen.as_slice()
            && two_before.valid
            && last.valid
            && last.tokens_per_s < two_before.tokens_per_s * (1.0 + GAIN)
        {
            self.end(RiseEnded::Saturated);
        }
    }

    /// Why the rise ended, once it did.
    #[must_use]
    pub fn ended(&self) -> Option<RiseEnded> {
        self.ended
    }

    /// The smallest measured concurrency whose throughput is within 3 % of the largest: the knee.
    #[must_use]
    pub fn knee(&self) -> Option<u32> {
        let valid = || self.seen.iter().filter(|shown| shown.valid);
        let most = valid().map(|shown| shown.tokens_per_s).fold(0.0, f64::max);
        valid().filter(|shown| shown.tokens_per_s >= most / (1.0 + GAIN)).map(|shown| shown.concurrency).min()
    }

    fn end(&mut self, why: RiseEnded) {
        self.ended = Some(why);
        let Some(knee) = self.knee() else { return };
        let measured = |level: &u32| self.seen.iter().any(|shown| shown.concurrency == *level);
        let mut around = vec![knee - knee / 4, knee + knee / 2, knee / 2 + knee / 8];
        around.retain(|level| *level >= 1 && *level <= self.limit && !measured(level));
        around.dedup();
        around.truncate(self.fill_levels);
        around.reverse();
        self.fill = around;
    }
}
