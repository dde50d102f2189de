//! The built-in inference engine, in the vocabulary of nano-vllm: sequences, KV blocks, a scheduler, step batches
//! and one layer loop.
//!
//! It serves requests with continuous batching on whatever device it was given, one step at a time, and tells what
//! happens in each. It knows no threads, no clock and no requests but those it was handed.

pub mod batch;
pub mod forward;
pub mod kv_blocks;
pub mod limits;
pub mod loading;
pub mod scheduler;
pub mod sequence;
pub mod weights;

use crate::device::error::DeviceError;
use crate::device::step::StepBatch;
use crate::engine::forward::ForwardPass;
use crate::engine::limits::{RequestError, RequestLimits};
use crate::engine::scheduler::{Counters, EngineShape, Scheduler};
use crate::engine::sequence::EngineRequest;

/// What happened to a request, told in the step in which it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// It was scheduled for the first time.
    Started {
        /// Whose.
        key: u64,
        /// Prompt tokens found in the prefix cache.
        cached_tokens: usize,
    },
    /// It lost its blocks and will be computed again.
    Preempted {
        /// Whose.
        key: u64,
    },
    /// Its next token was chosen.
    Token {
        /// Whose.
        key: u64,
        /// The id.
        token: u32,
    },
    /// It has all its tokens; its key is free.
    Finished {
        /// Whose.
        key: u64,
    },
}

/// A model on a device with its cache, serving requests.
pub struct Engine {
    scheduler: Scheduler,
    forward: Box<dyn ForwardPass>,
    limits: RequestLimits,
    batch: StepBatch,
    /// Whose each row of logits in the batch is.
    keys: Vec<u64>,
    /// The id chosen from each row of logits.
    sampled: Vec<u32>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("scheduler", &self.scheduler).finish_non_exhaustive()
    }
}

impl Engine {
    /// An idle engine of this shape; `forward` was made with the same one.
    #[must_use]
    pub fn new(forward: Box<dyn ForwardPass>, shape: EngineShape) -> Self {
        let model = forward.model();
        let limits = RequestLimits { vocab_size: model.vocab_size, context: model.max_position_embeddings, shape };
        let scheduler = Scheduler::new(shape, model.eos_token_ids.clone());
        Self { scheduler, forward, limits, batch: StepBatch::new(), keys: Vec::new(), sampled: Vec::new() }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// When it could never be served.
    pub fn add(&mut self, request: EngineRequest) -> Result<(), RequestError> {
        self.limits.check(&request)?;
        self.scheduler.add(request);
        Ok(())
    }

    /// Drops the request called `key`; whether there was one. No event follows.
    pub fn cancel(&mut self, key: u64) -> bool {
        self.scheduler.cancel(key)
    }

    /// Computes the next tokens of as many sequences as fit; whether there was anything to do.
    ///
    /// # Errors
    /// When the device fails; the engine is of no use afterwards.
    pub fn step(&mut self, observe: &mut dyn FnMut(EngineEvent)) -> Result<bool, DeviceError> {
        if !self.scheduler.schedule(observe) {
            return Ok(false);
        }
        batch::prepare(&mut self.batch, &mut self.keys, &self.scheduler, self.limits.shape.block_size);
        self.forward.step(&self.batch, &mut self.sampled)?;
        if self.sampled.len() != self.keys.len() {
            let reason = format!("`{}` ids came back for `{}` rows of logits", self.sampled.len(), self.keys.len());
            return Err(DeviceError::Step { reason });
        }
        self.scheduler.postprocess(&self.sampled, observe);
        Ok(true)
    }

    /// The logits from which the last step chose a token for `key`; none where it did not. \[vocabulary\]
    ///
    /// # Errors
    /// When the device fails to hand them over.
    pub fn last_logits(&mut self, key: u64) -> Result<Option<Vec<f32>>, DeviceError> {
        let row = self.keys.iter().position(|sampled| *sampled == key);
        row.map(|row| self.forward.logits(row)).transpose()
    }

    /// Whether no request is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Totals so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.scheduler.counters()
    }

    /// What bounds a request.
    #[must_use]
    pub fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// The scheduler, to look at.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }
}
