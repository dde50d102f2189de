//! The paged key-value cache of the CPU device, laid out for its attention.
//!
//! Within a block and head, keys lie transposed, `[head_dim][tokens]`, so that the scores of 16 tokens are one vector
//! of lanes and need no sum across lanes; values lie `[tokens][head_dim]`. Blocks are padded to whole lanes.

use std::fmt;

use memmap2::MmapMut;

use crate::device::KvCacheSpec;
use crate::device::cpu::memory;
use crate::device::error::DeviceError;

/// Tokens whose scores are computed together.
pub(super) const LANES: usize = 16;

/// Keys and values of all layers.
pub struct CpuKvCache {
    map: MmapMut,
    spec: KvCacheSpec,
}

impl fmt::Debug for CpuKvCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CpuKvCache").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Tokens of a block, padded to whole lanes.
pub(super) const fn padded(block_size: usize) -> usize {
    block_size.div_ceil(LANES) * LANES
}

/// Floats of one head in one block, keys or values.
const fn head_floats(spec: &KvCacheSpec) -> usize {
    padded(spec.block_size) * spec.head_dim
}

/// Bytes that a cache of `spec` takes.
pub(super) fn bytes(spec: &KvCacheSpec) -> u64 {
    let floats = 2 * spec.layers as u64 * spec.blocks as u64 * spec.kv_heads as u64 * head_floats(spec) as u64;
    floats * size_of::<f32>() as u64
}

impl CpuKvCache {
    pub(super) fn new(spec: KvCacheSpec) -> Result<Self, DeviceError> {
        let what = format!("the key-value cache of {} blocks of {} tokens", spec.blocks, spec.block_size);
        let total = usize::try_from(bytes(&spec)).unwrap_or(usize::MAX);
        let mut map = memory::large_pages(&what, total)?;
        // Touched now, so that memory which was promised is there, and later steps take no page faults.
        map.chunks_mut(4096).for_each(|page| page[0] = 0);
        Ok(Self { map, spec })
    }

    /// Size.
    pub(super) fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    fn floats(&self) -> &[f32] {
        let bytes: &[u8] = &self.map;
        bytemuck::cast_slice(&bytes[..bytes.len() / 4 * 4])
    }

    /// First float of the keys of `head` in `block`; the values follow those of the whole block.
    fn start(&self, layer: usize, block: usize, head: usize) -> usize {
        let per_block = 2 * self.spec.kv_heads * head_floats(&self.spec);
        (layer * self.spec.blocks + block) * per_block + head * head_floats(&self.spec)
    }

    /// Keys `[head_dim][padded block_size]` of one head in one block.
    #[inline(always)]
    pub(super) fn keys(&self, layer: usize, block: usize, head: usize) -> &[f32] {
        let start = self.start(layer, block, head);
        &self.floats()[start..start + head_floats(&self.spec)]
    }

    /// Values `[padded block_size][head_dim]` of one head in one block.
    #[inline(always)]
    pub(super) fn values(&self, layer: usize, block: usize, head: usize) -> &[f32] {
        let start = self.start(layer, block, head + self.spec.kv_heads);
        &self.floats()[start..start + head_floats(&self.spec)]
    }

    /// Writes one token's keys and values, all heads, into `slot`.
    pub(super) fn write(&mut self, layer: usize, slot: usize, keys: &[f32], values: &[f32]) {
        let KvCacheSpec { blocks, block_size, kv_heads, head_dim, .. } = self.spec;
        assert!(slot < blocks * block_size, "slot `{slot}` lies outside the cache");
        assert_eq!((keys.len(), values.len()), (kv_heads * head_dim, kv_heads * head_dim), "keys and values fit the cache");
        let (block, offset, tokens) = (slot / block_size, slot % block_size, padded(block_size));
        for head in 0..kv_heads {
            let (k_start, v_start) = (self.start(layer, block, head), self.start(layer, block, head + kv_heads));
            let len = self.map.len() / 4 * 4;
            let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut self.map[..len]);
            let head_keys = &keys[head * head_dim..(head + 1) * head_dim];
            for (dim, key) in head_keys.iter().enumerate() {
                floats[k_start + dim * tokens + offset] = *key;
            }
            let to = v_start + offset * head_dim;
            floats[to..to + head_dim].copy_from_slice(&values[head * head_dim..(head + 1) * head_dim]);
        }
    }
}
