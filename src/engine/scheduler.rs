//! Which tokens of which sequences the next step computes: continuous batching with chunked prefill.
//!
//! Sequences that decode come first, one token each, oldest first; what is left of the token budget goes to
//! prefills already begun, then to new ones. When blocks run out the youngest sequence is preempted: it loses its
//! blocks, keeps its tokens, and is computed again later. The oldest is never preempted, and every request that is
//! accepted fits the pool alone, so each step brings it nearer to its end and nothing can wait for ever.
//!
//! A step counts as computed as soon as it is launched ([`Scheduler::advance`]), for the device does everything in order; the
//! ids that it chose may follow one step later ([`Scheduler::postprocess`]). What is scheduled depends on counts, which are
//! known, and is the same for both: only of an end-of-sequence token the scheduler learns late. What was computed beyond it
//! is dropped.

use std::collections::VecDeque;

use crate::engine::EngineEvent;
use crate::engine::kv_blocks::{KvBlocks, PrefixReuse};
use crate::engine::sequence::{EngineRequest, Sequence};

/// The shape of an engine: how much it batches and how it divides its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineShape {
    /// Tokens a KV block holds, 1 or more.
    pub block_size: usize,
    /// KV blocks there are, 1 or more.
    pub num_kv_blocks: u32,
    /// Sequences that run at once, 1 or more.
    pub max_num_seqs: usize,
    /// Tokens a step computes at most, 1 or more: the budget that decoding and chunks of prefill share.
    pub max_num_batched_tokens: usize,
    /// Whether equal prefixes are computed once.
    pub prefix_reuse: PrefixReuse,
}

/// Totals of what the scheduler did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Steps with at least one token.
    pub steps: u64,
    /// Tokens computed other than by decoding: prompts, and what preempted sequences compute again.
    pub prefill_tokens: u64,
    /// Prompt tokens found in the prefix cache when their sequence started.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub decode_tokens: u64,
    /// Times a sequence lost its blocks.
    pub preemptions: u64,
    /// Most KV blocks held at once.
    pub kv_blocks_peak: u64,
}

/// The queues, and the sequences in them.
#[derive(Debug)]
pub struct Scheduler {
    shape: EngineShape,
    eos_token_ids: Vec<u32>,
    kv_blocks: KvBlocks,
    /// Sequences in flight by index; `None` is a free place.
    sequences: Vec<Option<Sequence>>,
    vacant: Vec<usize>,
    /// Not running: preempted ones before new ones, each in order of arrival.
    waiting: VecDeque<usize>,
    /// Holding blocks, oldest first.
    running: Vec<usize>,
    /// Computed by the step being prepared, in the order of the batch.
    scheduled: Vec<usize>,
    /// How many of those, the first ones, prefill. The others decode one token each.
    num_scheduled_prefills: usize,
    /// Rows of logits of each step under way, the earliest first.
    steps: VecDeque<usize>,
    /// Whose the rows of all of them are, end to end; `None` where the sequence is gone.
    rows: VecDeque<Option<usize>>,
    /// Keys of the rows of the step processed last; `None` where the token was dropped.
    reported: Vec<Option<u64>>,
    counters: Counters,
}

impl Scheduler {
    /// An idle scheduler; `eos_token_ids` end a sequence that asks for it.
    #[must_use]
    pub fn new(shape: EngineShape, eos_token_ids: Vec<u32>) -> Self {
        Self {
            shape,
            eos_token_ids,
            kv_blocks: KvBlocks::new(shape.num_kv_blocks, shape.block_size, shape.prefix_reuse),
            sequences: Vec::new(),
            vacant: Vec::new(),
            waiting: VecDeque::new(),
            running: Vec::with_capacity(shape.max_num_seqs),
            scheduled: Vec::with_capacity(shape.max_num_seqs),
            num_scheduled_prefills: 0,
            steps: VecDeque::new(),
            rows: VecDeque::new(),
            reported: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Totals so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { kv_blocks_peak: self.kv_blocks.peak() as u64, ..self.counters }
    }

    /// The pool, to look at.
    #[must_use]
    pub fn kv_blocks(&self) -> &KvBlocks {
        &self.kv_blocks
    }

    /// Sequences in the running batch: those that hold blocks.
    #[must_use]
    pub fn num_running(&self) -> usize {
        self.running.len()
    }

    /// Computes every prefix anew that is asked for from now on.
    pub fn forget_prefixes(&mut self) {
        self.kv_blocks.forget();
    }

    /// Whether no sequence is in flight, nor a step under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.steps.is_empty()
    }

    /// Steps that were launched and not processed.
    #[must_use]
    pub fn num_steps_under_way(&self) -> usize {
        self.steps.len()
    }

    /// Rows of logits of the earliest step under way; 0 where there is none.
    #[must_use]
    pub fn num_sampled_rows(&self) -> usize {
        self.steps.front().copied().unwrap_or(0)
    }

    /// The row from which the step processed last chose a token for `key`.
    #[must_use]
    pub fn reported_row(&self, key: u64) -> Option<usize> {
        self.reported.iter().position(|reported| *reported == Some(key))
    }

    /// Queues a request that was checked.
    pub fn add(&mut self, request: EngineRequest) {
        let sequence = Some(Sequence::new(request));
        let index = if let Some(index) = self.vacant.pop() {
            self.sequences[index] = sequence;
            index
        } else {
            self.sequences.push(sequence);
            self.sequences.len() - 1
        };
        self.waiting.push_back(index);
    }

    /// Drops the sequence called `key`; whether there was one.
    pub fn cancel(&mut self, key: u64) -> bool {
        let found = self.sequences.iter().position(|sequence| sequence.as_ref().is_some_and(|sequence| sequence.key == key));
        let Some(index) = found else { return false };
        self.waiting.retain(|waiting| *waiting != index);
        self.running.retain(|running| *running != index);
        self.release(index);
        true
    }

    /// Chooses the tokens of the next step; whether there are any. Tells of sequences that start or are preempted.
    pub fn schedule(&mut self, observe: &mut dyn FnMut(EngineEvent)) -> bool {
        self.scheduled.clear();
        let mut budget = self.shape.max_num_batched_tokens;
        let preemptions = self.counters.preemptions;
        self.schedule_decodes(&mut budget, observe);
        let num_decodes = self.scheduled.len();
        self.schedule_prefills(&mut budget);
        // What was just taken from the youngest is not at once given to another.
        if self.counters.preemptions == preemptions {
            self.admit(&mut budget, observe);
        }
        // Chosen last, computed first: a batch begins with its prefills.
        self.scheduled.rotate_left(num_decodes);
        self.num_scheduled_prefills = self.scheduled.len() - num_decodes;
        let has_work = !(self.waiting.is_empty() && self.running.is_empty());
        debug_assert_eq!(has_work, !self.scheduled.is_empty(), "an engine with work computes something");
        self.counters.steps += u64::from(!self.scheduled.is_empty());
        !self.scheduled.is_empty()
    }

    /// Every sequence in flight, waiting ones too, in no order.
    pub fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        self.sequences.iter().flatten()
    }

    /// The sequences of the step being prepared, in the order of the batch: prefills, then decodes.
    pub fn scheduled(&self) -> impl Iterator<Item = &Sequence> {
        self.scheduled.iter().map(|index| sequence(&self.sequences, *index))
    }

    /// How many of the scheduled sequences, the first ones, prefill.
    #[must_use]
    pub fn num_scheduled_prefills(&self) -> usize {
        self.num_scheduled_prefills
    }

    /// Takes the scheduled step as launched: what it computes counts as computed, and each sequence of which
    /// [`Sequence::is_sampled`] has a token more, known or not. One that has all its tokens gives its blocks back now: who
    /// gets them is computed after it. Nothing is scheduled afterwards.
    pub fn advance(&mut self) {
        let mut rows = 0;
        let mut any_complete = false;
        for index in self.scheduled.drain(..) {
            let sequence = sequence_mut(&mut self.sequences, index);
            let is_sampled = sequence.is_sampled();
            sequence.advance(sequence.num_scheduled_tokens);
            self.kv_blocks.publish(sequence);
            if !is_sampled {
                continue;
            }
            sequence.append_fed_back(rows);
            self.rows.push_back(Some(index));
            rows += 1;
            if sequence.is_complete() {
                self.kv_blocks.deallocate(sequence);
                any_complete = true;
            }
        }
        if any_complete {
            self.running.retain(|index| !sequence(&self.sequences, *index).is_complete());
        }
        self.steps.push_back(rows as usize);
        self.num_scheduled_prefills = 0;
    }

    /// Takes the result of the earliest step under way: one id for each of its rows of logits, in order. Those of sequences
    /// that are gone are dropped.
    ///
    /// # Panics
    /// When there are fewer ids.
    pub fn postprocess(&mut self, sampled: &[u32], observe: &mut dyn FnMut(EngineEvent)) {
        let num_rows = self.steps.pop_front().unwrap_or(0);
        let mut any_stopped = false;
        self.reported.clear();
        for token in sampled[..num_rows].iter().copied() {
            let Some(index) = self.rows.pop_front().flatten() else {
                self.reported.push(None);
                continue;
            };
            let sequence = sequence_mut(&mut self.sequences, index);
            sequence.learn(token);
            self.kv_blocks.publish(sequence);
            self.counters.decode_tokens += 1;
            self.reported.push(Some(sequence.key));
            observe(EngineEvent::Token { key: sequence.key, token });
            let stopped = sequence.may_stop() && self.eos_token_ids.contains(&token);
            if stopped || (sequence.is_complete() && sequence.is_known()) {
                observe(EngineEvent::Finished { key: sequence.key });
                self.release(index);
                any_stopped |= stopped;
            }
        }
        if any_stopped {
            self.running.retain(|index| self.sequences[*index].is_some());
            self.waiting.retain(|index| self.sequences[*index].is_some());
        }
    }

    fn schedule_decodes(&mut self, budget: &mut usize, observe: &mut dyn FnMut(EngineEvent)) {
        let mut age = 0;
        'oldest_first: while age < self.running.len() && *budget > 0 {
            let index = self.running[age];
            if sequence(&self.sequences, index).is_decoding() {
                while !self.kv_blocks.can_append(sequence(&self.sequences, index)) {
                    let youngest = self.preempt_youngest(observe);
                    if youngest == Some(index) {
                        break 'oldest_first;
                    }
                }
                let sequence = sequence_mut(&mut self.sequences, index);
                self.kv_blocks.may_append(sequence);
                sequence.num_scheduled_tokens = 1;
                self.scheduled.push(index);
                *budget -= 1;
            }
            age += 1;
        }
    }

    fn schedule_prefills(&mut self, budget: &mut usize) {
        for age in 0..self.running.len() {
            let index = self.running[age];
            if *budget > 0 && !sequence(&self.sequences, index).is_decoding() {
                self.schedule_chunk(index, budget);
            }
        }
    }

    fn admit(&mut self, budget: &mut usize, observe: &mut dyn FnMut(EngineEvent)) {
        while *budget > 0 && self.running.len() < self.shape.max_num_seqs {
            let Some(&index) = self.waiting.front() else { return };
            let sequence = sequence_mut(&mut self.sequences, index);
            debug_assert!(sequence.is_known(), "what waits was last computed two steps ago");
            // A block for each sequence's next token, this one's too: without it the next step would take back what this
            // one gives. Alone, a sequence may have all.
            let spare = if self.running.is_empty() { 0 } else { self.running.len() + 1 };
            let Some(found) = self.kv_blocks.can_allocate(sequence, spare) else { return };
            self.kv_blocks.allocate(sequence, found);
            if !std::mem::replace(&mut sequence.started, true) {
                let cached_tokens = sequence.num_computed_tokens;
                self.counters.cached_tokens += cached_tokens as u64;
                observe(EngineEvent::Started { key: sequence.key, cached_tokens });
            }
            self.waiting.pop_front();
            self.running.push(index);
            self.schedule_chunk(index, budget);
        }
    }

    /// As much of a prefill as the budget allows.
    fn schedule_chunk(&mut self, index: usize, budget: &mut usize) {
        let sequence = sequence_mut(&mut self.sequences, index);
        sequence.num_scheduled_tokens = sequence.num_uncomputed_tokens().min(*budget);
        *budget -= sequence.num_scheduled_tokens;
        self.counters.prefill_tokens += sequence.num_scheduled_tokens as u64;
        self.scheduled.push(index);
    }

    fn preempt_youngest(&mut self, observe: &mut dyn FnMut(EngineEvent)) -> Option<usize> {
        let index = self.running.pop()?;
        let sequence = sequence_mut(&mut self.sequences, index);
        self.kv_blocks.deallocate(sequence);
        self.waiting.push_front(index);
        self.counters.preemptions += 1;
        observe(EngineEvent::Preempted { key: sequence.key });
        Some(index)
    }

    /// Forgets a sequence, also what steps under way choose for it. The caller takes it from the queues.
    fn release(&mut self, index: usize) {
        if let Some(mut sequence) = self.sequences[index].take() {
            self.kv_blocks.deallocate(&mut sequence);
            self.vacant.push(index);
            self.rows.iter_mut().filter(|row| **row == Some(index)).for_each(|row| *row = None);
        }
    }
}

/// The sequence a queue names.
fn sequence(sequences: &[Option<Sequence>], index: usize) -> &Sequence {
    sequences[index].as_ref().expect("queues name sequences in flight only")
}

/// As [`sequence`], to move it on.
fn sequence_mut(sequences: &mut [Option<Sequence>], index: usize) -> &mut Sequence {
    sequences[index].as_mut().expect("queues name sequences in flight only")
}
