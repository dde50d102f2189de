//! Continuous batching in leaps: the law of [`crate::queueing::batching`] for fleets, where only the ends of prompts and
//! of answers matter and the steps between them are taken at once.
//!
//! While nothing joins or leaves a batch, its k-th step from now ends at a time that a formula gives. So a call costs a
//! few events, however long its answer is. Stalls are not known here, and what each step brought is not told.

use std::collections::VecDeque;

use crate::clock::Nanos;
use crate::queueing::fleet::calls::CallId;
use crate::queueing::law::BatchingLaw;

/// A call as a replica sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub call: CallId,
    /// Prompt length, 1 or more.
    pub prompt: u32,
    /// Tokens to generate, 1 or more.
    pub tokens: u32,
}

/// What becomes of a call in a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It joined the batch.
    Admitted,
    /// Its first token came out.
    FirstToken,
    /// It lost its place and waits again.
    Preempted,
    /// Its last token came out.
    Completed,
}

/// A call that waits for a place.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    work: Work,
    /// Tokens that came out before it lost its place.
    out: u32,
}

/// A call whose prompt is being processed.
#[derive(Clone, Copy, Debug)]
struct Prefilling {
    work: Work,
    out: u32,
    /// Tokens to process, those that came out included, and those that are not yet.
    all: u32,
    left: u32,
    /// Of those, in the step under way.
    chunk: u32,
}

/// A call that gets a token a step.
#[derive(Clone, Copy, Debug)]
struct Decoding {
    work: Work,
    /// Its tokens in the cache less the steps of the replica, so that the sum at any step is its tokens then.
    cached_less_steps: i64,
}

/// Steps that are taken at once.
#[derive(Clone, Copy, Debug)]
struct Leap {
    began: Nanos,
    steps: u64,
    /// Nanoseconds of its first step, and what each later one takes more.
    first_ns: f64,
    growth_ns: f64,
}

impl Leap {
    /// When step `k` of it ends, from 1.
    fn end_of(&self, k: u64) -> Nanos {
        let k = k as f64;
        let nanos = k * self.first_ns + self.growth_ns * k * (k - 1.0) / 2.0;
        // A step takes a nanosecond at least, so that time goes on.
        self.began + Nanos(nanos.max(k).round() as u64)
    }

    /// The step that is under way at `now`: it has not ended before.
    fn under_way(&self, now: Nanos) -> u64 {
        let passed = now.since(self.began).0 as f64;
        let (half, linear) = (self.growth_ns / 2.0, self.first_ns - self.growth_ns / 2.0);
        // half k^2 + linear k = passed, in the form without cancellation.
        let root = 2.0 * passed / (linear + (linear * linear + 4.0 * half * passed).sqrt()).max(f64::MIN_POSITIVE);
        let mut k = (root.ceil() as u64).clamp(1, self.steps);
        while k > 1 && self.end_of(k - 1) >= now {
            k -= 1;
        }
        while k < self.steps && self.end_of(k) < now {
            k += 1;
        }
        k
    }
}

/// A replica under a batching law.
#[derive(Debug)]
pub struct Leaping {
    law: BatchingLaw,
    waiting: VecDeque<Waiting>,
    /// In order of admission: those that decode were all admitted before those whose prompt is processed.
    decoding: Vec<Decoding>,
    /// The step at whose end the last token of each of them comes.
    last_step: Vec<u64>,
    prefilling: Vec<Prefilling>,
    /// Tokens with a place in the cache, and those of them that `prefilling` has.
    kv: u64,
    kv_prefilling: u64,
    /// Steps that are done.
    steps: u64,
    leap: Option<Leap>,
    /// Given up while the leap was under way; they leave when its step ends.
    given_up: Vec<CallId>,
}

impl Leaping {
    /// An empty replica.
    #[must_use]
    pub fn new(law: BatchingLaw) -> Self {
        Self {
            law,
            waiting: VecDeque::new(),
            decoding: Vec::new(),
            last_step: Vec::new(),
            prefilling: Vec::new(),
            kv: 0,
            kv_prefilling: 0,
            steps: 0,
            leap: None,
            given_up: Vec::new(),
        }
    }

    /// Calls that wait for a place.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Calls with a place.
    #[must_use]
    pub fn running(&self) -> usize {
        self.decoding.len() + self.prefilling.len()
    }

    /// When it has something to tell, if nothing arrives before; [`Nanos::MAX`] where it is idle.
    #[must_use]
    pub fn due(&self) -> Nanos {
        self.leap.map_or(Nanos::MAX, |leap| leap.end_of(leap.steps))
    }

    /// Takes work in. `now` is not before anything it was told, and not after [`Self::due`].
    pub fn arrive(&mut self, now: Nanos, work: Work, tell: &mut impl FnMut(Nanos, CallId, Stage)) {
        let nobody_waited = self.waiting.is_empty();
        self.waiting.push_back(Waiting { work, out: 0 });
        if self.leap.is_none() {
            self.start(now, tell);
        } else if nobody_waited && self.running() < self.law.max_batch.max(1) as usize {
            // It may join when the step under way ends. Behind others, what they wait for comes first.
            self.cut(now);
        }
    }

    /// Gives up a call: one that waits is gone, one that is served leaves when the step under way ends.
    pub fn give_up(&mut self, now: Nanos, call: CallId) {
        // Those that wait longest are given up first.
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.work.call == call) {
            self.waiting.remove(index);
        } else {
            self.given_up.push(call);
            self.cut(now);
        }
    }

    /// Lives up to `now`, which is [`Self::due`].
    pub fn advance(&mut self, now: Nanos, tell: &mut impl FnMut(Nanos, CallId, Stage)) {
        let Some(leap) = self.leap.take() else { return };
        self.steps += leap.steps;
        self.kv += leap.steps * self.decoding.len() as u64;
        self.leave();
        self.hand_out(now, tell);
        self.start(now, tell);
    }

    /// The leap ends with the step that is under way at `now`.
    fn cut(&mut self, now: Nanos) {
        if let Some(leap) = &mut self.leap {
            leap.steps = leap.under_way(now);
        }
    }

    /// Those that were given up lose their places.
    fn leave(&mut self) {
        while let Some(call) = self.given_up.pop() {
            if let Some(index) = self.decoding.iter().position(|decoding| decoding.work.call == call) {
                self.kv -= self.cached(&self.decoding[index]);
                self.decoding.remove(index);
                self.last_step.remove(index);
            } else if let Some(index) = self.prefilling.iter().position(|prefilling| prefilling.work.call == call) {
                let gone = self.prefilling.remove(index);
                self.kv -= u64::from(gone.all);
                self.kv_prefilling -= u64::from(gone.all);
            } else {
                self.waiting.retain(|waiting| waiting.work.call != call);
            }
        }
    }

    fn cached(&self, decoding: &Decoding) -> u64 {
        (decoding.cached_less_steps + self.steps as i64) as u64
    }

    /// The tokens that the step just done brought.
    fn hand_out(&mut self, now: Nanos, tell: &mut impl FnMut(Nanos, CallId, Stage)) {
        let steps = self.steps;
        if self.last_step.contains(&steps) {
            let mut kept = 0;
            for index in 0..self.decoding.len() {
                let decoding = self.decoding[index];
                if self.last_step[index] == steps {
                    self.kv -= self.cached(&decoding);
                    tell(now, decoding.work.call, Stage::Completed);
                } else {
                    self.decoding[kept] = decoding;
                    self.last_step[kept] = self.last_step[index];
                    kept += 1;
                }
            }
            self.decoding.truncate(kept);
            self.last_step.truncate(kept);
        }
        let mut done = 0;
        for prefilling in &mut self.prefilling {
            prefilling.left -= prefilling.chunk;
            prefilling.chunk = 0;
            if prefilling.left > 0 {
                break;
            }
            done += 1;
            self.kv_prefilling -= u64::from(prefilling.all);
            let Prefilling { work, out, all, .. } = *prefilling;
            // The end of a prompt gives the first token, or the next one after a preemption.
            if out == 0 {
                tell(now, work.call, Stage::FirstToken);
            }
            if out + 1 >= work.tokens {
                self.kv -= u64::from(all);
                tell(now, work.call, Stage::Completed);
            } else {
                self.decoding.push(Decoding { work, cached_less_steps: i64::from(all) - steps as i64 });
                self.last_step.push(steps + u64::from(work.tokens - out - 1));
            }
        }
        self.prefilling.drain(..done);
    }

    /// Admits, preempts, and begins the next leap.
    fn start(&mut self, now: Nanos, tell: &mut impl FnMut(Nanos, CallId, Stage)) {
        self.preempt(now, tell);
        let decoding = self.decoding.len() as u64;
        let prefill = self.admit(now, tell);
        if self.running() == 0 {
            return;
        }
        let steps = if self.prefilling.is_empty() { self.steps_of_decoding() } else { 1 };
        let attended = self.kv - self.kv_prefilling + decoding;
        let first_ns = self.law.step_of(decoding, attended, prefill) * 1e9;
        let growth_ns = self.law.per_kv_token_s * decoding as f64 * 1e9;
        self.leap = Some(Leap { began: now, steps, first_ns, growth_ns });
    }

    /// Steps until somebody is done, or until the cache may be full.
    fn steps_of_decoding(&self) -> u64 {
        let next_end = self.last_step.iter().min().map_or(1, |last| last - self.steps);
        let sequences = self.decoding.len() as u64;
        // One alone is never preempted.
        let until_full = if sequences > 1 { self.law.kv_tokens.saturating_sub(self.kv) / sequences } else { next_end };
        next_end.min(until_full).max(1)
    }

    /// Each decoding sequence adds a token to the cache: the ones admitted last make room.
    fn preempt(&mut self, now: Nanos, tell: &mut impl FnMut(Nanos, CallId, Stage)) {
        while self.kv + self.decoding.len() as u64 > self.law.kv_tokens && self.running() > 1 {
            let (work, out) = if let Some(last) = self.prefilling.pop() {
                self.kv -= u64::from(last.all);
                self.kv_prefilling -= u64::from(last.all);
                (last.work, last.out)
            } else if let (Some(last), Some(ends)) = (self.decoding.pop(), self.last_step.pop()) {
                self.kv -= self.cached(&last);
                (last.work, last.work.tokens - (ends - self.steps) as u32)
            } else {
                return;
            };
            tell(now, work.call, Stage::Preempted);
            self.waiting.push_front(Waiting { work, out });
        }
    }

    /// Spends what the decoding sequences leave of a step's tokens on prompts; how many that are.
    fn admit(&mut self, now: Nanos, tell: &mut impl FnMut(Nanos, CallId, Stage)) -> u64 {
        let decoding = self.decoding.len() as u64;
        let mut budget = u64::from(self.law.chunk_tokens).max(1).saturating_sub(decoding);
        let mut prefill = 0;
        for prefilling in &mut self.prefilling {
            prefilling.chunk = u64::from(prefilling.left).min(budget) as u32;
            budget -= u64::from(prefilling.chunk);
            prefill += u64::from(prefilling.chunk);
        }
        while budget > 0 && self.running() < self.law.max_batch.max(1) as usize {
            let Some(&Waiting { work, out }) = self.waiting.front() else { break };
            let all = work.prompt + out;
            let fits = self.kv + u64::from(all) + decoding < self.law.kv_tokens;
            if !(fits || self.running() == 0) {
                break;
            }
            self.waiting.pop_front();
            tell(now, work.call, Stage::Admitted);
            // The whole prompt's room is taken at admission, as block tables are.
            self.kv += u64::from(all);
            self.kv_prefilling += u64::from(all);
            let chunk = u64::from(all).min(budget) as u32;
            budget -= u64::from(chunk);
            prefill += u64::from(chunk);
            self.prefilling.push(Prefilling { work, out, all, left: all, chunk });
        }
        prefill
    }
}
