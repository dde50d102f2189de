//! Attention as an engine uses it: two sequences that grow by chunks over scattered blocks, one prefilling where the other decodes.

use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::device::step::StepBatch;
use crate::device::{AttentionSpec, HeadShape, KvCacheSpec, Ops};
use crate::doctor::cases::{downloaded, noise, tensor, vector};

/// How they grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    heads: HeadShape,
    block_size: usize,
    window: Option<usize>,
    total: usize,
    chunk: usize,
}

const fn growth(heads: (usize, usize, usize), block_size: usize, window: Option<usize>, total: usize, chunk: usize) -> Growth {
    let (q_heads, kv_heads, head_dim) = heads;
    Growth { heads: HeadShape { q_heads, kv_heads, head_dim }, block_size, window, total, chunk }
}

impl Growth {
    /// Every head width, groups that do and do not suit a tensor core, windows, blocks of one token, chunks that end within a block.
    pub(super) const CASES: [Self; 7] = [
        growth((4, 2, 32), 16, None, 70, 33),
        growth((3, 1, 64), 1, Some(5), 20, 7),
        growth((8, 1, 64), 4, None, 40, 1),
        growth((2, 2, 96), 32, Some(40), 130, 65),
        growth((4, 1, 128), 16, None, 200, 150),
        growth((7, 1, 32), 5, None, 30, 12),
        growth((2, 1, 256), 16, Some(64), 90, 80),
    ];
    /// Contexts that are divided among many blocks of threads.
    pub(super) const LARGE: [Self; 2] = [growth((8, 2, 128), 16, None, 1500, 700), growth((14, 2, 64), 16, Some(512), 1200, 600)];

    /// What attention gathered in every step, end to end.
    pub(super) fn compute<D: Ops>(self, ops: &mut D, element: Element) -> Result<Vec<f32>, DeviceError> {
        let Self { heads, block_size, window, total, .. } = self;
        let (width, blocks) = (heads.packed_width(), 2 * total.div_ceil(block_size) + 3);
        let mut cache = ops.kv_cache(KvCacheSpec { layers: 2, blocks, block_size, kv_heads: heads.kv_heads, head_dim: heads.head_dim })?;
        let inv_freq: Vec<f32> = (0..heads.head_dim / 2).map(|pair| 0.3_f32.powi(pair as i32 % 7)).collect();
        let rope = ops.rope(&inv_freq, total)?;
        let norms = [vector(ops, &noise(20, heads.head_dim, element))?, vector(ops, &noise(21, heads.head_dim, element))?];
        let packed = [noise(22, total * width, element), noise(23, total * width, element)];
        let spec = AttentionSpec { layer: 1, heads, scale: (heads.head_dim as f32).sqrt().recip(), window };
        let (mut results, mut cached) = (Vec::new(), [0, 0]);
        while cached[0] < total {
            let (batch, values) = self.step(&mut cached, &packed);
            let mut qkv = tensor(ops, &values, width)?;
            let mut out = ops.tensor(batch.num_tokens(), heads.q_width())?;
            ops.begin_step(&batch)?;
            ops.head_norm(&mut qkv, &norms[0], &norms[1], 1e-6, heads)?;
            ops.rope_kv_write(&mut qkv, &rope, &mut cache, 1, heads)?;
            ops.attention_prefill(&qkv, &cache, &spec, &mut out)?;
            ops.attention_decode(&qkv, &cache, &spec, &mut out)?;
            ops.end_step(&mut Vec::new())?;
            results.extend(downloaded(ops, &[&out])?);
        }
        Ok(results)
    }

    /// The first sequence takes a chunk; the second follows with one token a step once it has any.
    fn step(&self, cached: &mut [usize; 2], packed: &[Vec<f32>; 2]) -> (StepBatch, Vec<f32>) {
        let Self { heads, block_size, total, chunk, .. } = *self;
        let takes = [chunk.min(total - cached[0]), if cached[1] == 0 { total / 2 } else { 1.min(total - cached[1]) }];
        let mut order = vec![0, 1];
        order.retain(|sequence: &usize| takes[*sequence] > 0);
        order.sort_by_key(|sequence| takes[*sequence] == 1);
        let (mut batch, mut values) = (StepBatch::new(), Vec::new());
        for sequence in order {
            let (from, to) = (cached[sequence], cached[sequence] + takes[sequence]);
            // Blocks lie scattered, the sequences' interleaved.
            let table: Vec<u32> = (0..total.div_ceil(block_size)).rev().map(|block| (2 * block + sequence) as u32).collect();
            for token in from..to {
                batch.token_ids.push(0);
                batch.positions.push(token as u32);
                batch.slot_mapping.push(table[token / block_size] * block_size as u32 + (token % block_size) as u32);
            }
            let width = heads.packed_width();
            values.extend_from_slice(&packed[sequence][from * width..to * width]);
            batch.cu_seqlens_q.push(batch.token_ids.len() as u32);
            batch.context_lens.push(to as u32);
            batch.block_tables.extend(&table[..to.div_ceil(block_size)]);
            batch.cu_blocks.push(batch.block_tables.len() as u32);
            batch.num_prefill_seqs += usize::from(takes[sequence] > 1);
            cached[sequence] = to;
        }
        (batch, values)
    }
}
