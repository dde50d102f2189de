//! The built-in inference engine, in the vocabulary of nano-vllm: sequences, KV blocks, a scheduler, step batches
//! and one layer loop.
//!
//! It serves requests with continuous batching on whatever device it was given, one step at a time, and tells what
//! happens in each. On a device that computes by itself it may run ahead: it launches a step before it has read the tokens
//! of the one before, which the device feeds back to itself. It knows no threads, no clock and no requests but those it was
//! handed.

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

/// What happened to a request, told in the step in which it happens; of tokens, in the step in which they are known.
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
    /// Whether steps are launched ahead where the device allows it.
    run_ahead: bool,
    batch: StepBatch,
    /// The id chosen from each row of logits of the step finished last.
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
        Self { scheduler, forward, limits, run_ahead: false, batch: StepBatch::new(), sampled: Vec::new() }
    }

    /// Lets it run ahead of a device that allows it: from now on a step is launched before the tokens of the one before are
    /// read, and they are told when they are. [`Engine::last_logits`] then fails on a device that keeps the logits of one
    /// step only.
    pub fn run_ahead(&mut self) {
        self.run_ahead = true;
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

    /// Drops the request called `key`, whatever a step under way still computes for it; whether there was one. No event
    /// follows, and the key is free.
    pub fn cancel(&mut self, key: u64) -> bool {
        self.scheduler.cancel(key)
    }

    /// Computes every prefix anew that is asked for from now on.
    pub fn forget_prefixes(&mut self) {
        self.scheduler.forget_prefixes();
    }

    /// Computes the next tokens of as many sequences as fit; whether there was anything to do. When it runs ahead the tokens
    /// it tells are those of the step before, and the last step's are told as soon as there is no other to launch.
    ///
    /// # Errors
    /// When the device fails; the engine is of no use afterwards.
    pub fn step(&mut self, observe: &mut dyn FnMut(EngineEvent)) -> Result<bool, DeviceError> {
        let scheduled = self.scheduler.schedule(observe);
        if scheduled {
            batch::prepare(&mut self.batch, &self.scheduler, self.limits.shape.block_size);
        }
        let ahead = if self.run_ahead { self.forward.ahead() } else { None };
        match ahead {
            Some(ahead) => {
                if scheduled {
                    ahead.launch(&self.batch)?;
                    self.scheduler.advance();
                }
                // The step just launched stays under way; after the last one there is nothing else to wait for.
                if self.scheduler.num_steps_under_way() == usize::from(scheduled) {
                    return Ok(scheduled);
                }
                ahead.finish(&mut self.sampled)?;
            }
            None if scheduled => {
                self.forward.step(&self.batch, &mut self.sampled)?;
                self.scheduler.advance();
            }
            None => return Ok(false),
        }
        let rows = self.scheduler.num_sampled_rows();
        if self.sampled.len() != rows {
            let reason = format!("`{}` ids came back for `{rows}` rows of logits", self.sampled.len());
            return Err(DeviceError::Step { reason });
        }
        self.scheduler.postprocess(&self.sampled, observe);
        Ok(true)
    }

    /// The logits from which the last token told of `key` was chosen, if that was in the last step; none otherwise. \[vocabulary\]
    ///
    /// # Errors
    /// When the device fails to hand them over, or has launched the next step already ([`Engine::run_ahead`]).
    pub fn last_logits(&mut self, key: u64) -> Result<Option<Vec<f32>>, DeviceError> {
        let row = self.scheduler.reported_row(key);
        row.map(|row| self.forward.logits(row)).transpose()
    }

    /// Whether no request is in flight, nor a step under way.
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
