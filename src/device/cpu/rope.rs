//! Rotary position embedding (Su et al., 2021) in the half-split layout of Hugging Face, and the write into the cache.

use pulp::Arch;

use crate::device::HeadShape;
use crate::device::cpu::CpuTensor;
use crate::device::cpu::cache::CpuKvCache;
use crate::device::cpu::memory;
use crate::device::cpu::threads::Threads;
use crate::device::cpu::vectorised::vectorised;
use crate::device::error::DeviceError;

/// Cosine and sine of every position and pair.
#[derive(Clone, Debug)]
pub struct CpuRope {
    /// By position: `half` cosines, then `half` sines.
    values: Vec<f32>,
    half: usize,
}

impl CpuRope {
    /// Angles are products in f32, as in the reference implementations; their functions are taken in f64.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn new(inv_freq: &[f32], max_positions: usize) -> Result<Self, DeviceError> {
        let half = inv_freq.len();
        let mut values = memory::floats("the rotation table", max_positions.saturating_mul(half * 2))?;
        for (position, row) in values.chunks_exact_mut((half * 2).max(1)).enumerate() {
            let (cosines, sines) = row.split_at_mut(half);
            for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(inv_freq) {
                let angle = f64::from(position as f32 * frequency);
                (*cosine, *sine) = (angle.cos() as f32, angle.sin() as f32);
            }
        }
        Ok(Self { values, half })
    }

    /// Cosines and sines of `position`.
    fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half * 2;
        self.values[start..start + self.half * 2].split_at(self.half)
    }
}

/// Bytes of the table for `positions` positions.
pub(super) const fn bytes(head_dim: usize, positions: usize) -> u64 {
    (positions as u64).saturating_mul(head_dim as u64 * 4)
}

/// Rotates one head.
#[inline(always)]
fn rotate(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (low, high) = head.split_at_mut(cosines.len());
    for (((low, high), cosine), sine) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
        let (a, b) = (*low, *high);
        *low = a * cosine - b * sine;
        *high = b * cosine + a * sine;
    }
}

/// Rotates queries and keys of all rows in place.
pub(super) fn rope(threads: &Threads, arch: Arch, positions: &[u32], qkv: &mut CpuTensor, rope: &CpuRope, heads: HeadShape) {
    let (width, dim) = (qkv.width, heads.head_dim);
    assert_eq!(width, heads.packed_width(), "rows are packed as the heads say");
    assert_eq!(rope.half * 2, dim, "the rotation table is as wide as a head");
    assert_eq!(qkv.rows, positions.len(), "every token of the step has its row");
    let rows = if qkv.rows < 16 { qkv.rows.max(1) } else { qkv.rows.div_ceil(threads.count()) };
    let items = qkv.values_mut().chunks_mut(rows * width).zip(positions.chunks(rows));
    threads.each(items, |_, (packed, positions)| {
        vectorised(
            arch,
            #[inline(always)]
            || {
                for (row, position) in packed.chunks_exact_mut(width).zip(positions) {
                    let (cosines, sines) = rope.at(*position);
                    for head in row[..heads.q_width() + heads.kv_width()].chunks_exact_mut(dim) {
                        rotate(head, cosines, sines);
                    }
                }
            },
        );
    });
}

/// Writes keys and values of all rows into their slots of `layer`.
pub(super) fn kv_write(slot_mapping: &[u32], qkv: &CpuTensor, cache: &mut CpuKvCache, layer: usize, heads: HeadShape) {
    for (row, slot) in qkv.values().chunks_exact(qkv.width).zip(slot_mapping) {
        let (keys, values) = row[heads.q_width()..].split_at(heads.kv_width());
        cache.write(layer, *slot as usize, keys, values);
    }
}
