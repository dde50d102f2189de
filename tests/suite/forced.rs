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
    /// Tokens so far of the sequence that begins with this block.
    tokens: HashMap<u32, Vec<u32>>,
}

impl Forced {
    pub(crate) fn new(inner: Box<dyn ForwardPass>, prompts: &[ExpectedPrompt]) -> Self {
        Self { inner, prompts: prompts.to_vec(), tokens: HashMap::new() }
    }

    /// Takes over the step's tokens. A sequence that finds its beginning in the cache goes on where another one left it.
    fn learn(&mut self, batch: &StepBatch) {
        for sequence in 0..batch.num_seqs() {
            let rows = batch.rows(sequence);
            let tokens = self.tokens.entry(batch.block_table(sequence)[0]).or_default();
            tokens.truncate(batch.positions[rows.start] as usize);
            tokens.extend_from_slice(&batch.token_ids[rows]);
        }
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
        self.learn(batch);
        self.inner.step(batch, sampled)?;
        for (id, wanted) in sampled.iter_mut().zip(&batch.logit_rows) {
            let sequence = (0..batch.num_seqs()).find(|sequence| batch.rows(*sequence).contains(&(wanted.row as usize))).unwrap();
            *id = self.next(&self.tokens[&batch.block_table(sequence)[0]]);
        }
        Ok(())
    }

    fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError> {
        self.inner.logits(row)
    }
}
