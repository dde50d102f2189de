//! Warm-up ends by rule, not by a guess: this watches a level begin and says when it has settled.
//!
//! Fed by whoever drives the level; it knows no clock. Its time steps grow with the time that passed (between 1/128 and
//! 1/256 of it), so that a target that answers in 20 ms and one that takes 20 s are judged alike.

use crate::clock::Nanos;
use crate::stats::histogram::Histogram;
use crate::stats::mser;
use crate::stats::trend::trend;

/// Steps kept; when there are so many, they are joined two by two.
const STEPS_MAX: usize = 256;
/// Steps before anything is said.
const STEPS_MIN: usize = 64;
/// The first step, as a part of the longest warm-up.
const FIRST_STEP: u64 = 1 << 14;
/// Ended requests before their median is believed.
const ENDS_MIN: u64 = 5;
/// Median E2E times an open-loop level takes at least.
const MEDIANS: u64 = 3;
/// Growth per arrival at which an open-loop level is beyond settling: an overload, which the window will show.
const OVERLOAD: f64 = 0.1;

/// How far a level is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Go on.
    Warming,
    /// The window may begin.
    Settled,
    /// Open loop: the number in flight grows without an end in sight. The window may begin: growth is an outcome of the
    /// system, which the decision will call unstable, and no fault of the measurement.
    Growing,
    /// The longest warm-up has passed; the level is invalid.
    NotSettled,
}

/// What is being settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many requests were started together.
    Closed {
        /// 1 or more.
        concurrency: u64,
    },
    /// So many requests arrive a second.
    Open {
        /// Above 0.
        rate: f64,
    },
}

/// A level that warms up.
#[derive(Clone, Debug)]
pub struct Settle {
    load: Load,
    started: Nanos,
    longest: Nanos,
    step: Nanos,
    /// Of each step: requests in flight at its end, tokens that came out in it.
    in_flight: Vec<f64>,
    tokens: Vec<f64>,
    tokens_before: u64,
    e2e: Histogram,
    failed: u64,
    initial_ended: u64,
}

impl Settle {
    /// A level that starts now and may warm up for `longest`.
    #[must_use]
    pub fn new(load: Load, started: Nanos, longest: Nanos) -> Self {
        let step = Nanos((longest.0 / FIRST_STEP).max(1));
        let (in_flight, tokens) = (Vec::with_capacity(STEPS_MAX), Vec::with_capacity(STEPS_MAX));
        Self { load, started, longest, step, in_flight, tokens, tokens_before: 0, e2e: Histogram::new(), failed: 0, initial_ended: 0 }
    }

    /// When the next step ends and [`Settle::observe_step`] is due.
    #[must_use]
    pub fn step_due(&self) -> Nanos {
        self.started + Nanos(self.step.0.saturating_mul(self.in_flight.len() as u64 + 1))
    }

    /// A step ended, with so many requests in flight (waiting at a cap included) and so many tokens since the start. A
    /// driver that woke late calls it until [`Settle::step_due`] lies ahead.
    pub fn observe_step(&mut self, in_flight: u64, tokens: u64) {
        self.in_flight.push(in_flight as f64);
        self.tokens.push(tokens.saturating_sub(self.tokens_before) as f64);
        self.tokens_before = tokens;
        if self.in_flight.len() == STEPS_MAX {
            self.in_flight = self.in_flight.chunks_exact(2).map(|pair| pair[1]).collect();
            self.tokens = self.tokens.chunks_exact(2).map(|pair| pair[0] + pair[1]).collect();
            self.step = Nanos(self.step.0 * 2);
        }
    }

    /// Observes the steps that ended by `now`, and says how far the level is if any did: between two steps there is nothing
    /// new to say, and judging costs the whole series.
    pub fn catch_up(&mut self, now: Nanos, in_flight: u64, tokens: u64) -> Option<Progress> {
        if now < self.step_due() {
            return None;
        }
        while self.step_due() <= now {
            self.observe_step(in_flight, tokens);
        }
        Some(self.progress(now))
    }

    /// A request ended, `e2e` after its intended start; `None`: it failed, which is an end all the same. In closed loop the first `concurrency` ends need not be those of
    /// the initial requests, so say whether it was one of them.
    pub fn observe_end(&mut self, e2e: Option<Nanos>, wave: Wave) {
        match e2e {
            Some(e2e) => self.e2e.record(e2e.0),
            None => self.failed += 1,
        }
        self.initial_ended += u64::from(wave == Wave::Initial);
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self, now: Nanos) -> Progress {
        let elapsed = now.since(self.started);
        let late = elapsed >= self.longest;
        let verdict = if self.in_flight.len() < STEPS_MIN || self.e2e.count() + self.failed < ENDS_MIN {
            Progress::Warming
        } else {
            match self.load {
                Load::Closed { concurrency } => self.closed(concurrency),
                Load::Open { rate } => self.open(rate, elapsed, late),
            }
        };
        if late && verdict == Progress::Warming { Progress::NotSettled } else { verdict }
    }

    /// Every initial request ended, and throughput has no warm-up left in its later half.
    fn closed(&self, concurrency: u64) -> Progress {
        let settled = self.initial_ended >= concurrency && mser::truncation(&self.tokens).is_some();
        if settled { Progress::Settled } else { Progress::Warming }
    }

    /// Three median E2E passed, and the number in flight has been flat for the later half of the time.
    fn open(&self, rate: f64, elapsed: Nanos, late: bool) -> Progress {
        // Where everything fails there is no latency to wait for.
        let median = self.e2e.quantile(0.5).unwrap_or(0);
        if !late && elapsed.0 < median.saturating_mul(MEDIANS) {
            return Progress::Warming;
        }
        let later = &self.in_flight[self.in_flight.len() / 2..];
        let Some(trend) = trend(later, self.step.as_secs_f64(), 0.95) else { return Progress::Warming };
        if trend.interval.low <= 0.0 {
            Progress::Settled
        } else if late || trend.slope > OVERLOAD * rate {
            Progress::Growing
        } else {
            Progress::Warming
        }
    }
}

/// Whether a request was there from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wave {
    /// Started with the level.
    Initial,
    /// Started later.
    Later,
}
