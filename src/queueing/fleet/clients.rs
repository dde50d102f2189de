//! How clients behave: how long they wait, whether they try again, and when.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::queueing::fleet::calls::CallId;
use crate::rng;

/// The behaviour of all clients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clients {
    /// Each try is given up after this; `None`: clients wait for ever.
    #[serde(rename = "timeout_ns")]
    pub timeout: Option<Nanos>,
    /// Tries of a call, the first included, 1 or more.
    pub attempts: u32,
    /// Wait before the second try; it doubles with each, and half of it is random.
    #[serde(rename = "backoff_ns")]
    pub backoff: Nanos,
    /// Retries at most for each first try, over all clients; `None`: no budget.
    pub retry_budget: Option<f64>,
    /// Whether a replica stops working on a call that its client gave up.
    pub abort_is_seen: bool,
}

impl Default for Clients {
    /// Patient ones that never try again.
    fn default() -> Self {
        Self { timeout: None, attempts: 1, backoff: Nanos::from_millis(500), retry_budget: None, abort_is_seen: true }
    }
}

/// Retries that a budget holds ready at once, so that a few failures of a quiet fleet are retried.
const BUDGET_MOST: f64 = 100.0;

/// Tries that wait for their time, and tries that are waited for.
#[derive(Debug)]
pub(super) struct Waits {
    clients: Clients,
    seed: u64,
    budget: f64,
    retried: u64,
    /// Every try waits equally long, so the oldest is the first that is given up.
    deadlines: VecDeque<(Nanos, CallId)>,
    retries: BinaryHeap<Reverse<(Nanos, u64, CallId)>>,
}

impl Waits {
    pub(super) fn new(clients: Clients, seed: u64) -> Self {
        Self {
            clients,
            seed: rng::derive(seed, "backoff"),
            budget: BUDGET_MOST,
            retried: 0,
            deadlines: VecDeque::new(),
            retries: BinaryHeap::new(),
        }
    }

    /// A client sent a try.
    pub(super) fn sent(&mut self, now: Nanos, call: CallId) {
        if let Some(timeout) = self.clients.timeout {
            self.deadlines.push_back((now + timeout, call));
        }
    }

    /// A first try was sent: the budget grows.
    pub(super) fn first_try(&mut self) {
        if let Some(share) = self.clients.retry_budget {
            self.budget = (self.budget + share).min(BUDGET_MOST);
        }
    }

    /// Whether a call is tried again after so many tries; then it is taken from the budget.
    pub(super) fn tries_again(&mut self, attempts: u32) -> bool {
        if attempts >= self.clients.attempts {
            return false;
        }
        if self.clients.retry_budget.is_some() {
            if self.budget < 1.0 {
                return false;
            }
            self.budget -= 1.0;
        }
        true
    }

    /// Files the next try of a call that was tried so often.
    pub(super) fn later(&mut self, now: Nanos, call: CallId, attempts: u32) {
        let doubled = self.clients.backoff.0.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let random = rng::uniform_at(self.seed, self.retried);
        let wait = Nanos((doubled as f64 * (0.5 + 0.5 * random)) as u64);
        self.retries.push(Reverse((now + wait, self.retried, call)));
        self.retried += 1;
    }

    /// When the next try is due.
    pub(super) fn next_retry(&self) -> Nanos {
        self.retries.peek().map_or(Nanos::MAX, |Reverse((at, ..))| *at)
    }

    pub(super) fn take_retry(&mut self) -> Option<CallId> {
        self.retries.pop().map(|Reverse((.., call))| call)
    }

    /// When the oldest try would be given up; tries that ended are passed over with `is_current`.
    pub(super) fn next_deadline(&mut self, is_current: impl Fn(CallId) -> bool) -> Nanos {
        while let Some((at, call)) = self.deadlines.front().copied() {
            if is_current(call) {
                return at;
            }
            self.deadlines.pop_front();
        }
        Nanos::MAX
    }

    pub(super) fn take_late(&mut self) -> Option<CallId> {
        self.deadlines.pop_front().map(|(_, call)| call)
    }
}
