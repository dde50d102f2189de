//! Whole steps of a model, timed one by one beside the least that the machine could take for them.
//!
//! No load is generated and nothing is scheduled: a step is made by hand, handed to the forward pass, and waited for. The cache
//! is filled by prefill first, since attention over zeros would be no measurement.

use anyhow::Context;

use crate::clock::{Clock, Monotonic};
use crate::device::step::{LogitRow, Sampling, StepBatch};
use crate::engine::forward::ForwardPass;
use crate::engine::loading::LoadedModel;
use crate::model::arithmetic::{self, StepSequence};
use crate::record::ceilings::{CeilingKind, CeilingsRecord};
use crate::record::steps::{StepCase, StepSkipped, StepTime, StepsRecord};
use crate::report::steps::name;
use crate::rng;

/// Steps before those that count: products are chosen in the first, decoding is recorded in the second.
const WARM_UP: u32 = 3;
/// Fewest and most timed steps.
const FEWEST: usize = 5;
const MOST: usize = 200;

/// Most tokens that the cache is filled with at once.
const FILL: usize = 2048;

/// How steps are timed.
#[derive(Clone, Debug, PartialEq)]
pub struct StepsPlan {
    /// What to compute.
    pub cases: Vec<StepCase>,
    /// Seconds that the timed steps of each may take, about.
    pub seconds_each: f64,
    /// Of the tokens.
    pub seed: u64,
}

impl StepsPlan {
    /// KV blocks that a case needs.
    #[must_use]
    pub fn blocks_of(case: StepCase, block_size: usize) -> usize {
        match case {
            StepCase::Decode { batch, context } => batch as usize * (context as usize).div_ceil(block_size),
            StepCase::Prefill { tokens } => (tokens as usize).div_ceil(block_size),
        }
    }

    /// KV blocks that the largest case needs, tokens of the largest step, sequences of the largest step.
    #[must_use]
    pub fn most(&self, block_size: usize) -> (usize, usize, usize) {
        let most = |of: &dyn Fn(&StepCase) -> usize| self.cases.iter().map(of).max().unwrap_or(1).max(1);
        let sequences = |case: &StepCase| if let StepCase::Decode { batch, .. } = case { *batch as usize } else { 1 };
        (most(&|case| Self::blocks_of(*case, block_size)), most(&|case| case.tokens() as usize), most(&sequences))
    }
}

/// Times every case that the model's shape has room for; `told` hears what goes on.
///
/// # Errors
/// When the device fails.
pub fn measure(model: &LoadedModel, ceilings: CeilingsRecord, plan: &StepsPlan, told: &mut dyn FnMut(&str)) -> anyhow::Result<StepsRecord> {
    let forward = model.forward().context("cannot make a forward pass")?;
    let shape = model.shape;
    let mut bench = Bench { model, forward, batch: StepBatch::new(), sampled: Vec::new(), plan, filled: 0 };
    let (mut steps, mut skipped) = (Vec::new(), Vec::new());
    for case in &plan.cases {
        match bench.refused(*case) {
            Some(why) => skipped.push(StepSkipped { case: *case, why }),
            None => {
                told(&format!("timing {}", name(*case)));
                let seconds = bench.time(*case).with_context(|| format!("cannot compute {}", name(*case)))?;
                steps.push(judged(model, &ceilings, *case, seconds));
            }
        }
    }
    Ok(StepsRecord {
        model: model.name.clone(),
        precision: model.precision(),
        device: model.device.name.clone(),
        labels: model.labels(),
        kv_blocks: (shape.num_kv_blocks, shape.block_size as u32),
        steps,
        skipped,
        ceilings,
    })
}

/// Times beside their floor. `seconds` are rising, one or more.
fn judged(model: &LoadedModel, ceilings: &CeilingsRecord, case: StepCase, seconds: Vec<f64>) -> StepTime {
    let sequences = match case {
        StepCase::Decode { batch, context } => vec![StepSequence { tokens: 1, context: u64::from(context) }; batch as usize],
        StepCase::Prefill { tokens } => vec![StepSequence { tokens: u64::from(tokens), context: u64::from(tokens) }],
    };
    let need = arithmetic::step_need(&model.config, model.held_bytes(), &sequences);
    let bandwidth = ceilings.best(CeilingKind::MemoryRead, None).unwrap_or(f64::NAN);
    let rate = ceilings.best(CeilingKind::MatrixProduct, Some(model.element())).unwrap_or(f64::NAN);
    let (moving, computing) = (need.bytes / bandwidth, need.flops / rate);
    let median_s = seconds[(seconds.len() - 1) / 2];
    StepTime {
        case,
        median_s,
        range_s: (seconds[0], seconds[seconds.len() - 1]),
        repeats: seconds.len() as u32,
        bytes: need.bytes,
        flops: need.flops,
        floor_s: moving.max(computing),
        mbu: moving / median_s,
        mfu: computing / median_s,
    }
}

/// A forward pass and the steps handed to it. Sequence `s` of a context of `n` blocks has blocks `s n..(s + 1) n`.
struct Bench<'a> {
    model: &'a LoadedModel,
    forward: Box<dyn ForwardPass>,
    batch: StepBatch,
    sampled: Vec<u32>,
    plan: &'a StepsPlan,
    /// Tokens of the cache that were computed, counted in slots from the first block on.
    filled: usize,
}

impl Bench<'_> {
    /// Why a case cannot be timed.
    fn refused(&self, case: StepCase) -> Option<String> {
        let shape = self.model.shape;
        let (needed, blocks) = (StepsPlan::blocks_of(case, shape.block_size), shape.num_kv_blocks as usize);
        let (StepCase::Decode { context, .. } | StepCase::Prefill { tokens: context }) = case;
        let most = self.model.config.max_position_embeddings;
        if context as usize > most {
            return Some(format!("the model's context ends at {most} tokens. Ask for less"));
        }
        (needed > blocks)
            .then(|| format!("it needs {needed} KV blocks, and memory has room for {blocks}. Take a smaller batch or a shorter context"))
    }

    /// Seconds of each timed step, rising.
    fn time(&mut self, case: StepCase) -> anyhow::Result<Vec<f64>> {
        if let StepCase::Decode { batch, context } = case {
            self.fill(batch as usize * (context as usize).next_multiple_of(self.model.shape.block_size))?;
        }
        self.make(case);
        for _ in 0..WARM_UP {
            self.forward.step(&self.batch, &mut self.sampled)?;
        }
        let clock = Monotonic::start();
        let (mut seconds, mut spent) = (Vec::new(), 0.0);
        while seconds.len() < FEWEST || (spent < self.plan.seconds_each && seconds.len() < MOST) {
            let begun = clock.now();
            self.forward.step(&self.batch, &mut self.sampled)?;
            let took = clock.now().since(begun).as_secs_f64();
            spent += took;
            seconds.push(took);
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds)
    }

    fn make(&mut self, case: StepCase) {
        self.batch.clear();
        match case {
            StepCase::Decode { batch, context } => {
                let blocks = (context as usize).div_ceil(self.model.shape.block_size);
                for sequence in 0..batch as usize {
                    self.push(sequence * blocks, context as usize - 1, context as usize);
                }
            }
            StepCase::Prefill { tokens } => {
                self.push(0, 0, tokens as usize);
                self.batch.num_prefill_seqs = 1;
            }
        }
    }

    /// Computes keys and values for the first `slots` of the cache, in sequences as long as a step allows.
    fn fill(&mut self, slots: usize) -> anyhow::Result<()> {
        let shape = self.model.shape;
        let longest = shape.max_num_batched_tokens.min(self.model.config.max_position_embeddings).min(FILL);
        let chunk = (longest / shape.block_size * shape.block_size).max(1);
        while self.filled < slots {
            let block = self.filled / shape.block_size;
            let tokens = chunk.min(slots - self.filled);
            self.batch.clear();
            self.push(block, 0, tokens);
            self.batch.num_prefill_seqs = 1;
            self.forward.step(&self.batch, &mut self.sampled)?;
            self.filled += tokens.next_multiple_of(shape.block_size);
        }
        Ok(())
    }

    /// Adds tokens `from..to` of a sequence whose first block is `block`.
    fn push(&mut self, block: usize, from: usize, to: usize) {
        let (batch, size) = (&mut self.batch, self.model.shape.block_size);
        let vocabulary = self.model.config.vocab_size as u64;
        for position in from..to {
            let slot = block * size + position;
            batch.token_ids.push((rng::at(self.plan.seed, slot as u64) % vocabulary) as u32);
            batch.positions.push(position as u32);
            batch.slot_mapping.push(slot as u32);
        }
        batch.cu_seqlens_q.push(batch.token_ids.len() as u32);
        batch.context_lens.push(to as u32);
        batch.block_tables.extend((0..to.div_ceil(size)).map(|number| (block + number) as u32));
        batch.cu_blocks.push(batch.block_tables.len() as u32);
        batch.logit_rows.push(LogitRow { row: batch.token_ids.len() as u32 - 1, sampling: Sampling::GREEDY });
    }
}
