//! Continuous batching: a step decodes one token of each running sequence and spends what is left of its token budget
//! on prompts in order of admission.
//!
//! When the KV cache is full the sequence admitted last loses its place and its cache, and later recomputes what it
//! had. Prefixes are not shared.

use std::collections::VecDeque;

use crate::clock::Nanos;
use crate::queueing::law::{BatchingLaw, Stalls};
use crate::queueing::replica::{Happening, Job, Report};

#[derive(Clone, Copy, Debug)]
struct Sequence {
    id: u64,
    arrived: Nanos,
    /// As it came.
    prompt: u32,
    /// Tokens to process before it decodes: the prompt, and after a preemption also what it had generated.
    to_prefill: u32,
    /// Of those, done.
    prefilled: u32,
    /// Tokens out.
    out: u32,
    /// Tokens wanted.
    tokens: u32,
    /// Of `to_prefill`, those the step under way processes.
    chunk: u32,
    /// Its tokens in the KV cache, or with a place there.
    cached: u64,
}

impl Sequence {
    fn decodes(&self) -> bool {
        self.prefilled == self.to_prefill
    }
}

#[derive(Debug)]
pub(crate) struct Batching {
    law: BatchingLaw,
    stalls: Stalls,
    waiting: VecDeque<Sequence>,
    /// In order of admission.
    running: Vec<Sequence>,
    /// Tokens in the KV cache, with those that the step under way adds.
    kv: u64,
    /// When the step under way ends.
    ends: Option<Nanos>,
    /// When the last step ended.
    idle_since: Nanos,
}

impl Batching {
    pub(crate) fn new(law: BatchingLaw, stalls: Stalls) -> Self {
        Self { law, stalls, waiting: VecDeque::new(), running: Vec::new(), kv: 0, ends: None, idle_since: Nanos::ZERO }
    }

    pub(crate) fn arrive(&mut self, job: Job) {
        let tokens = job.output_tokens.max(1);
        let prompt = job.prompt_tokens.max(1);
        self.waiting.push_back(Sequence {
            id: job.id,
            arrived: job.arrived,
            prompt,
            to_prefill: prompt,
            prefilled: 0,
            out: 0,
            tokens,
            chunk: 0,
            cached: 0,
        });
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            self.kv -= self.running.remove(index).cached;
        } else if let Some(index) = self.waiting.iter().position(|sequence| sequence.id == id) {
            self.waiting.remove(index);
        }
    }

    pub(crate) fn advance(&mut self, now: Nanos, report: &mut Report<'_>) -> Option<Nanos> {
        loop {
            let ends = match self.ends {
                Some(ends) => ends,
                None => {
                    // Sequences still running go on at once; an idle replica wakes with the first arrival.
                    let start = match (self.running.is_empty(), self.waiting.front()) {
                        (false, _) => self.idle_since,
                        (true, Some(first)) => self.idle_since.max(first.arrived),
                        (true, None) => return None,
                    };
                    if start > now {
                        return Some(start);
                    }
                    self.start_step(start, report)
                }
            };
            if ends > now {
                return Some(ends);
            }
            self.end_step(ends, report);
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// Admits, preempts, gives out the token budget; returns when the step ends.
    fn start_step(&mut self, start: Nanos, report: &mut Report<'_>) -> Nanos {
        let mut decoding = self.running.iter().filter(|sequence| sequence.decodes()).count() as u64;
        // Each decoding sequence adds one token to the cache.
        while self.kv + decoding > self.law.kv_tokens && self.running.len() > 1 {
            let Some(mut last) = self.running.pop() else { break };
            self.kv -= last.cached;
            decoding -= u64::from(last.decodes());
            report(start, last.id, Happening::Preempted);
            last.to_prefill = last.prompt + last.out;
            last.prefilled = 0;
            last.cached = 0;
            self.waiting.push_front(last);
        }
        let mut budget = u64::from(self.law.chunk_tokens).max(1).saturating_sub(decoding);
        let (mut prefill, mut attended) = (0, 0);
        for sequence in &mut self.running {
            if sequence.decodes() {
                sequence.cached += 1;
                attended += sequence.cached;
                continue;
            }
            sequence.chunk = u64::from(sequence.to_prefill - sequence.prefilled).min(budget) as u32;
            budget -= u64::from(sequence.chunk);
            prefill += u64::from(sequence.chunk);
        }
        while budget > 0 && self.running.len() < self.law.max_batch.max(1) as usize {
            let Some(first) = self.waiting.front() else { break };
            let fits = self.kv + u64::from(first.to_prefill) + decoding < self.law.kv_tokens;
            if first.arrived > start || !(fits || self.running.is_empty()) {
                break;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            report(start, sequence.id, Happening::Admitted);
            // The whole prompt's room is taken at admission, as block tables are.
            sequence.cached = u64::from(sequence.to_prefill);
            self.kv += sequence.cached;
            sequence.chunk = u64::from(sequence.to_prefill).min(budget) as u32;
            budget -= u64::from(sequence.chunk);
            prefill += u64::from(sequence.chunk);
            self.running.push(sequence);
        }
        self.kv += decoding;
        // A step takes a nanosecond at least, so that time goes on.
        let length = Nanos::from_secs_f64(self.law.step_of(decoding, attended, prefill)).max(Nanos(1));
        let ends = self.stalls.done(start, length);
        self.ends = Some(ends);
        ends
    }

    /// Hands out the tokens of the step.
    fn end_step(&mut self, at: Nanos, report: &mut Report<'_>) {
        self.ends = None;
        self.idle_since = at;
        let kv = &mut self.kv;
        self.running.retain_mut(|sequence| {
            if sequence.decodes() {
                sequence.out += 1;
            } else {
                sequence.prefilled += sequence.chunk;
                sequence.chunk = 0;
                if !sequence.decodes() {
                    return true;
                }
                // The end of a prompt gives the first token, or the next one after a preemption.
                sequence.out += 1;
            }
            report(at, sequence.id, Happening::Tokens(1));
            if sequence.out < sequence.tokens {
                return true;
            }
            report(at, sequence.id, Happening::Completed);
            *kv -= sequence.cached;
            false
        });
    }
}
