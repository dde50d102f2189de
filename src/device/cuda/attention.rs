//! Launching attention: how contexts are divided among blocks, and where partial results go.

use std::sync::Arc;

use crate::device::cuda::driver::{Context, Stream};
use crate::device::cuda::kernels::Kernels;
use crate::device::cuda::launch::{Arg, Launch};
use crate::device::cuda::memory::Buffer;
use crate::device::cuda::step::StepArrays;
use crate::device::cuda::tensor::{CudaKvCache, CudaTensor};
use crate::device::error::DeviceError;
use crate::device::{AttentionSpec, HeadShape};

/// Threads of a block of every attention kernel.
const BLOCK: u32 = 128;
/// Query rows of a block of prefill.
const PREFILL_ROWS: usize = 64;
/// Most parts that one context is divided into.
const MOST_SPLITS: usize = 64;
/// Fewest tokens of a part: below, starting the block costs more than it does.
const FEWEST_TOKENS: usize = 64;
/// Blocks that a multiprocessor should have to choose from.
const BLOCKS_PER_MULTIPROCESSOR: usize = 2;

/// Divides decode attention so that few sequences still occupy the whole GPU (as Flash-Decoding does).
#[derive(Clone, Copy, Debug)]
pub(super) struct Splits {
    pub(super) multiprocessors: usize,
    pub(super) kv_heads: usize,
}

impl Splits {
    /// Most parts of a context in a step of so many sequences: it depends on the step's shape alone.
    pub(super) fn most(self, sequences: usize) -> usize {
        (BLOCKS_PER_MULTIPROCESSOR * self.multiprocessors).div_ceil((sequences * self.kv_heads).max(1)).clamp(1, MOST_SPLITS)
    }

    /// Tokens of a part when the longest context has `longest`.
    pub(super) fn tokens(self, sequences: usize, longest: usize) -> u32 {
        longest.div_ceil(self.most(sequences)).max(FEWEST_TOKENS).next_multiple_of(FEWEST_TOKENS) as u32
    }

    /// Most parts of all sequences together, for any number of them up to `max_sequences`.
    const fn most_together(self, max_sequences: usize) -> usize {
        max_sequences + BLOCKS_PER_MULTIPROCESSOR * self.multiprocessors
    }
}

/// Where parts of decode attention wait to be merged.
#[derive(Debug)]
pub(super) struct Partials {
    out: Buffer,
    state: Buffer,
}

/// Bytes that [`Partials`] takes, when a query row is `q_width` wide and a head at least `head_dim`.
pub(super) fn partial_bytes(splits: Splits, max_sequences: usize, q_width: usize, head_dim: usize) -> u64 {
    let parts = splits.most_together(max_sequences) as u64;
    parts * (4 * q_width as u64 + 8 * (q_width / head_dim.max(1)) as u64)
}

impl Partials {
    fn new(context: &Arc<Context>, splits: Splits, max_sequences: usize, heads: HeadShape) -> Result<Self, DeviceError> {
        let parts = splits.most_together(max_sequences) as u64;
        let out = Buffer::new(context, "partial results of attention", parts * 4 * heads.q_width() as u64)?;
        let state = Buffer::new(context, "partial sums of attention", parts * 8 * heads.q_heads as u64)?;
        Ok(Self { out, state })
    }
}

/// Attention of one step.
#[derive(Debug)]
pub(super) struct Attention<'a> {
    pub(super) stream: &'a Stream,
    pub(super) kernels: &'a Kernels,
    pub(super) step: &'a StepArrays,
    pub(super) cache: &'a CudaKvCache,
    pub(super) spec: &'a AttentionSpec,
}

impl Attention<'_> {
    pub(super) fn prefill(&self, qkv: &CudaTensor, out: &CudaTensor) -> Result<(), DeviceError> {
        let (heads, layout, step) = (self.spec.heads, &self.step.layout, self.step);
        let (keys, values) = self.cache.layer(self.spec.layer);
        let args: [Arg; 13] = [
            out.address().into(),
            qkv.address().into(),
            keys.into(),
            values.into(),
            step.at(layout.block_tables).into(),
            step.at(layout.cu_blocks).into(),
            step.at(layout.context_lens).into(),
            step.at(layout.cu_seqlens_q).into(),
            heads.q_heads.into(),
            heads.kv_heads.into(),
            self.cache.spec.block_size.into(),
            self.spec.scale.into(),
            self.window(),
        ];
        let function = self.kernels.attention(heads.head_dim).expect("the head width was checked").prefill;
        let grid = (step.longest_prefill.div_ceil(PREFILL_ROWS), heads.q_heads, step.num_prefill_seqs);
        Launch { stream: self.stream, function, grid, block: BLOCK }.with(&args)
    }

    /// `partials` are made at the first call, for any step there may be.
    pub(super) fn decode(
        &self,
        context: &Arc<Context>,
        splits: Splits,
        partials: &mut Option<Partials>,
        qkv: &CudaTensor,
        out: &CudaTensor,
    ) -> Result<(), DeviceError> {
        let (heads, layout, step) = (self.spec.heads, &self.step.layout, self.step);
        let first = step.num_prefill_seqs;
        let sequences = layout.sequences - first;
        if sequences == 0 {
            return Ok(());
        }
        if partials.is_none() {
            *partials = Some(Partials::new(context, splits, step.limits.max_sequences, heads)?);
        }
        let Some(Partials { out: partial_out, state }) = partials else { return Ok(()) };
        let most = splits.most(sequences);
        let (keys, values) = self.cache.layer(self.spec.layer);
        let args: [Arg; 17] = [
            out.address().into(),
            partial_out.at(0).into(),
            state.at(0).into(),
            qkv.address().into(),
            keys.into(),
            values.into(),
            step.at(layout.block_tables).into(),
            step.at(layout.cu_blocks).into(),
            step.at(layout.context_lens).into(),
            step.at(layout.cu_seqlens_q).into(),
            first.into(),
            heads.q_heads.into(),
            heads.kv_heads.into(),
            self.cache.spec.block_size.into(),
            self.spec.scale.into(),
            self.window(),
            step.at(layout.split_tokens).into(),
        ];
        let function = self.kernels.attention(heads.head_dim).expect("the head width was checked").decode;
        let grid = (sequences, heads.kv_heads, most);
        Launch { stream: self.stream, function, grid, block: BLOCK }.with(&args)?;
        if most == 1 {
            return Ok(());
        }
        let args: [Arg; 11] = [
            out.address().into(),
            partial_out.at(0).into(),
            state.at(0).into(),
            step.at(layout.context_lens).into(),
            step.at(layout.cu_seqlens_q).into(),
            first.into(),
            heads.q_heads.into(),
            heads.head_dim.into(),
            self.window(),
            step.at(layout.split_tokens).into(),
            most.into(),
        ];
        let grid = (sequences, heads.q_heads, 1);
        Launch { stream: self.stream, function: self.kernels.attention_merge, grid, block: BLOCK }.with(&args)
    }

    /// Kernels take 0 for "no window".
    fn window(&self) -> Arg {
        self.spec.window.unwrap_or(0).into()
    }
}
