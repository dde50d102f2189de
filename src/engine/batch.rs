//! Fills the flat arrays of one step from the sequences that were scheduled.
//!
//! The arrays are the device's; they keep their memory from step to step.

use crate::device::step::{LogitRow, Sampling, StepBatch};
use crate::engine::scheduler::Scheduler;
use crate::engine::sequence::Sequence;

/// Fills `batch` with what was scheduled.
pub fn prepare(batch: &mut StepBatch, scheduler: &Scheduler, block_size: usize) {
    batch.clear();
    batch.num_prefill_seqs = scheduler.num_scheduled_prefills();
    for sequence in scheduler.scheduled() {
        push(batch, sequence, block_size);
        if sequence.is_sampled() {
            batch.logit_rows.push(LogitRow { row: batch.token_ids.len() as u32 - 1, sampling: sampling(sequence) });
        }
    }
}

fn push(batch: &mut StepBatch, sequence: &Sequence, block_size: usize) {
    let (from, to) = (sequence.num_computed_tokens, sequence.num_computed_tokens + sequence.num_scheduled_tokens);
    let slot = |position: usize| sequence.block_table[position / block_size] * block_size as u32 + (position % block_size) as u32;
    batch.token_ids.extend_from_slice(&sequence.token_ids[from..to]);
    batch.positions.extend(from as u32..to as u32);
    batch.slot_mapping.extend((from..to).map(slot));
    batch.cu_seqlens_q.push(batch.token_ids.len() as u32);
    batch.context_lens.push(to as u32);
    batch.block_tables.extend_from_slice(&sequence.block_table[..to.div_ceil(block_size)]);
    batch.cu_blocks.push(batch.block_tables.len() as u32);
}

/// The request's sampling at the token it will choose next.
fn sampling(sequence: &Sequence) -> Sampling {
    let asked = sequence.sampling;
    let position = sequence.num_completion_tokens() as u64;
    Sampling { temperature: asked.temperature, top_k: asked.top_k, top_p: asked.top_p, seed: asked.seed, position }
}
