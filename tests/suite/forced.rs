//! A forward pass that goes on with the reference's tokens, whatever it would have chosen: every step is then judged on
//! the same prefix, and an early difference does not hide the later ones. It launches nothing ahead: what it goes on with, the
//! host says.

use std::collections::HashMap;

use plimsoll::device::error::DeviceError;
use plimsoll::device::step::StepBatch;
use plimsoll::engine::forward::ForwardPass;
use plimsoll::model::config::ModelConfig;

use crate::checkpoints::ExpectedPrompt;

pub(crate) struct Forced {
    inner: Box<dyn ForwardPass>,
    prompts: Vec<ExpectedPrompt>,
    block_size: usize,
    /// What stands in each place of the KV cache. Sequences may share blocks, so they are told apart by all of theirs.
    cached: HashMap<u32, u32>,
}

impl Forced {
    pub(crate) fn new(inner: Box<dyn ForwardPass>, prompts: &[ExpectedPrompt], block_size: usize) -> Self {
        Self { inner, prompts: prompts.to_vec(), block_size, cached: HashMap::new() }
    }

    /// The tokens of a sequence up to those of this step, read from the cache as attention reads it.
    fn tokens(&self, batch: &StepBatch, sequence: usize) -> Vec<u32> {
        let blocks = batch.block_table(sequence);
        let places = (0..batch.context_lens[sequence] as usize)
            .map(|position| blocks[position / self.block_size] * self.block_size as u32 + (position % self.block_size) as u32);
        places.map(|place| self.cached[&place]).collect()
    }

    /// The reference's next token of a sequence that has these so far.
    fn next(&self, tokens: &[u32]) -> u32 {
        let goes_on = |prompt: &ExpectedPrompt| {
            let all: Vec<u32> = prompt.ids.iter().chain(&prompt.greedy_ids).copied().collect();
            (tokens.len() >= prompt.ids.len() && all.starts_with(tokens)).then(|| all.get(tokens.len()).copied()).flatten()
        };
        let mut next = self.prompts.iter().filter_map(goes_on);
        let token = next.next().expect("a sequence is one of the prompts");
        assert!(next.next().is_none(), "what is there so far tells the prompts apart");
        token
    }
}

impl ForwardPass for Forced {
    fn model(&self) -> &ModelConfig {
        self.inner.model()
    }

    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        self.cached.extend(batch.slot_mapping.iter().copied().zip(batch.token_ids.iter().copied()));
        self.inner.step(batch, sampled)?;
        for (id, wanted) in sampled.iter_mut().zip(&batch.logit_rows) {
            let sequence = (0..batch.num_seqs()).find(|sequence| batch.rows(*sequence).contains(&(wanted.row as usize))).unwrap();
            *id = self.next(&self.tokens(batch, sequence));
        }
        Ok(())
    }

    fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError> {
        self.inner.logits(row)
    }
}
