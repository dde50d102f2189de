//! The arrays of one step on the device: one dense region, copied at once, whose places depend on the step's shape alone.
//!
//! Steps of equal shape have their arrays at equal addresses, so that a recorded step finds the next one's values where
//! it left the last one's. On the host each step under way has a region of its own: the device may still be copying one while
//! the next is filled.

use std::sync::Arc;

use crate::device::cuda::driver::{Context, Stream};
use crate::device::cuda::memory::{Buffer, Pinned};
use crate::device::cuda::sampled::STEPS;
use crate::device::error::DeviceError;
use crate::device::step::{Sampling, StepBatch, StepLimits};

/// Slot of a row that is padding: nothing is written into the cache for it.
const NO_SLOT: u32 = u32::MAX;
/// Where an array begins, bytes.
const ALIGNMENT: usize = 16;

/// Places of the arrays of a step with so many tokens, sequences and rows of logits, bytes from the region's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepLayout {
    pub(super) tokens: usize,
    pub(super) sequences: usize,
    pub(super) rows: usize,
    pub(super) seeds: u64,
    pub(super) draws: u64,
    pub(super) token_ids: u64,
    pub(super) positions: u64,
    pub(super) slots: u64,
    pub(super) cu_seqlens_q: u64,
    pub(super) context_lens: u64,
    pub(super) cu_blocks: u64,
    pub(super) logit_rows: u64,
    pub(super) temperatures: u64,
    pub(super) top_k: u64,
    pub(super) top_p: u64,
    pub(super) split_tokens: u64,
    /// The last array, and the only one whose length may vary between steps of equal shape.
    pub(super) block_tables: u64,
}

impl StepLayout {
    pub(super) fn new(tokens: usize, sequences: usize, rows: usize) -> Self {
        let mut at = 0;
        let mut place = |elements: usize, bytes: usize| {
            let begin = at;
            at = (begin + elements * bytes).next_multiple_of(ALIGNMENT);
            begin as u64
        };
        Self {
            tokens,
            sequences,
            rows,
            seeds: place(rows, 8),
            draws: place(rows, 8),
            token_ids: place(tokens, 4),
            positions: place(tokens, 4),
            slots: place(tokens, 4),
            cu_seqlens_q: place(sequences + 1, 4),
            context_lens: place(sequences, 4),
            cu_blocks: place(sequences + 1, 4),
            logit_rows: place(rows, 4),
            temperatures: place(rows, 4),
            top_k: place(rows, 4),
            top_p: place(rows, 4),
            split_tokens: place(1, 4),
            block_tables: place(0, 4),
        }
    }

    /// Bytes of a step of this shape with so many entries of block tables.
    pub(super) const fn bytes(&self, entries: usize) -> usize {
        self.block_tables as usize + 4 * entries
    }
}

/// The region, on the device and as it is filled on the host.
#[derive(Debug)]
pub(super) struct StepArrays {
    pub(super) limits: StepLimits,
    pub(super) layout: StepLayout,
    /// Sequences that prefill, the first ones.
    pub(super) num_prefill_seqs: usize,
    /// Most rows of a prefill sequence.
    pub(super) longest_prefill: usize,
    /// Rows of logits that were asked for; padding has others after them.
    pub(super) wanted_rows: usize,
    device: Buffer,
    hosts: [Pinned; STEPS],
}

/// Bytes that [`StepArrays`] takes on the device.
pub(super) fn bytes(limits: &StepLimits) -> usize {
    StepLayout::new(limits.max_tokens, limits.max_sequences, limits.max_sequences).bytes(limits.max_block_table_entries)
}

impl StepArrays {
    pub(super) fn new(context: &Arc<Context>, limits: StepLimits) -> Result<Self, DeviceError> {
        let bytes = bytes(&limits);
        let device = Buffer::new(context, "the arrays of a step", bytes as u64)?;
        let hosts = [Pinned::new(context, bytes)?, Pinned::new(context, bytes)?];
        let layout = StepLayout::new(0, 0, 0);
        Ok(Self { limits, layout, num_prefill_seqs: 0, longest_prefill: 0, wanted_rows: 0, device, hosts })
    }

    /// Address of the array at `offset`, a field of the layout.
    pub(super) fn at(&self, offset: u64) -> u64 {
        self.device.at(offset)
    }

    /// Takes over `batch`, padded to `bucket` decode sequences where one is given, and queues the copy from the host's region
    /// of this `turn`, which no step under way uses. Decode attention divides contexts into parts of `split_tokens`.
    pub(super) fn fill(
        &mut self,
        stream: &Stream,
        turn: usize,
        batch: &StepBatch,
        bucket: Option<usize>,
        split_tokens: u32,
    ) -> Result<(), DeviceError> {
        let layout = bucket.map_or_else(
            || StepLayout::new(batch.num_tokens(), batch.num_seqs(), batch.logit_rows.len()),
            |bucket| StepLayout::new(bucket, bucket, bucket),
        );
        self.layout = layout;
        self.num_prefill_seqs = batch.num_prefill_seqs;
        self.longest_prefill = (0..batch.num_prefill_seqs).map(|sequence| batch.rows(sequence).len()).max().unwrap_or(0);
        self.wanted_rows = batch.logit_rows.len();
        let used = layout.bytes(batch.block_tables.len());
        let host = &mut self.hosts[turn];
        let mut region = Region(&mut host.bytes_mut()[..used]);
        let sampled = || batch.logit_rows.iter().map(|wanted| wanted.sampling);
        region.fill(layout.seeds, layout.rows, sampled().map(|sampling| sampling.seed.to_le_bytes()), [0; 8]);
        region.fill(layout.draws, layout.rows, sampled().map(|sampling| sampling.position.to_le_bytes()), [0; 8]);
        let mut words = |offset, len, values: &[u32], padding: u32| {
            region.fill(offset, len, values.iter().map(|value| value.to_le_bytes()), padding.to_le_bytes());
        };
        words(layout.token_ids, layout.tokens, &batch.token_ids, 0);
        words(layout.positions, layout.tokens, &batch.positions, 0);
        words(layout.slots, layout.tokens, &batch.slot_mapping, NO_SLOT);
        words(layout.context_lens, layout.sequences, &batch.context_lens, 0);
        words(layout.cu_blocks, layout.sequences + 1, &batch.cu_blocks, batch.block_tables.len() as u32);
        words(layout.block_tables, batch.block_tables.len(), &batch.block_tables, 0);
        words(layout.split_tokens, 1, &[split_tokens], 0);
        // Padding has one row a sequence, and its logits are wanted like the others'.
        let rows = |first: usize, len: usize| (first..len).map(|row| (row as u32).to_le_bytes());
        let given = batch.cu_seqlens_q.iter().map(|sum| sum.to_le_bytes());
        region.fill(layout.cu_seqlens_q, layout.sequences + 1, given.chain(rows(batch.num_seqs() + 1, layout.sequences + 1)), [0; 4]);
        let given = batch.logit_rows.iter().map(|wanted| wanted.row.to_le_bytes());
        region.fill(layout.logit_rows, layout.rows, given.chain(rows(batch.logit_rows.len(), layout.rows)), [0; 4]);
        let greedy = Sampling::GREEDY;
        region.fill(layout.temperatures, layout.rows, sampled().map(|s| s.temperature.to_le_bytes()), greedy.temperature.to_le_bytes());
        region.fill(layout.top_k, layout.rows, sampled().map(|s| s.top_k.to_le_bytes()), greedy.top_k.to_le_bytes());
        region.fill(layout.top_p, layout.rows, sampled().map(|s| s.top_p.to_le_bytes()), greedy.top_p.to_le_bytes());
        self.device.write(stream, 0, &host.bytes()[..used])
    }
}

/// The region while it is filled.
struct Region<'a>(&'a mut [u8]);

impl Region<'_> {
    /// Writes `values` at `offset`, and `padding` after them up to `len` elements.
    fn fill<const BYTES: usize>(&mut self, offset: u64, len: usize, values: impl Iterator<Item = [u8; BYTES]>, padding: [u8; BYTES]) {
        let begin = offset as usize;
        let places = self.0[begin..begin + len * BYTES].chunks_exact_mut(BYTES);
        for (place, value) in places.zip(values.chain(std::iter::repeat(padding))) {
            place.copy_from_slice(&value);
        }
    }
}
