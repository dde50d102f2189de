//! Attention over the paged cache: scores, softmax and weighted values of a few query rows at a time.
//!
//! The rows of a tile share one key-value head, so keys and values are read once for all of them; in a group of
//! query heads that is where grouped-query attention saves. Scores of the whole context are kept, not a running
//! softmax: the result does not depend on how the context is cut into blocks or chunks.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use pulp::Arch;

use crate::device::cpu::CpuTensor;
use crate::device::cpu::cache::{CpuKvCache, LANES, padded};
use crate::device::cpu::exp::exp;
use crate::device::cpu::threads::Threads;
use crate::device::cpu::vectorised::vectorised;
use crate::device::step::StepBatch;
use crate::device::{AttentionSpec, HeadShape};

/// Most query rows of one tile: as many as accumulators fit the registers.
const TILE: usize = 8;
/// Tokens of a prefill chunk that one item computes, all heads.
const TOKENS: usize = 8;

/// Bytes of the scores that one thread keeps, for a context of `positions`.
pub(super) const fn score_bytes(positions: usize, block_size: usize) -> u64 {
    (4 * TILE as u64 * positions.div_ceil(block_size) as u64).saturating_mul(padded(block_size) as u64)
}

/// What all tiles of one call share.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    pub(super) threads: &'a Threads,
    pub(super) arch: Arch,
    pub(super) step: &'a StepBatch,
    pub(super) cache: &'a CpuKvCache,
    pub(super) spec: &'a AttentionSpec,
    /// One buffer of scores per thread.
    pub(super) scores: &'a [Mutex<Vec<f32>>],
}

/// One query row: its query, the positions it sees, and where its result goes.
struct Row<'a> {
    query: &'a [f32],
    sees: Range<usize>,
    out: &'a mut [f32],
}

impl Attention<'_> {
    /// All sequences of the prefill part.
    pub(super) fn prefill(&self, qkv: &CpuTensor, out: &mut CpuTensor) {
        let q_width = self.spec.heads.q_width();
        let tokens = self.step.cu_seqlens_q[self.step.num_prefill_seqs] as usize;
        let mut left = &mut out.values_mut()[..tokens * q_width];
        let mut items = Vec::with_capacity(tokens / TOKENS + self.step.num_prefill_seqs);
        for sequence in 0..self.step.num_prefill_seqs {
            let rows = self.step.rows(sequence);
            let (own, rest) = left.split_at_mut(rows.len() * q_width);
            left = rest;
            items.extend(own.chunks_mut(TOKENS * q_width).enumerate().map(|(chunk, out)| (sequence, rows.start + chunk * TOKENS, out)));
        }
        self.threads.each(items.into_iter(), |thread, (sequence, first, out)| {
            for kv_head in 0..self.spec.heads.kv_heads {
                self.heads_of(thread, qkv, sequence, first, kv_head, out);
            }
        });
    }

    /// All sequences of the decode part.
    pub(super) fn decode(&self, qkv: &CpuTensor, out: &mut CpuTensor) {
        let HeadShape { kv_heads, .. } = self.spec.heads;
        let first = self.step.cu_seqlens_q[self.step.num_prefill_seqs] as usize;
        let group_width = self.spec.heads.q_width() / kv_heads;
        let groups = out.values_mut()[first * self.spec.heads.q_width()..].chunks_mut(group_width).enumerate();
        self.threads.each(groups, |thread, (number, out)| {
            let (token, kv_head) = (number / kv_heads, number % kv_heads);
            let rows = self.rows(qkv, self.step.num_prefill_seqs + token, first + token, kv_head, out.chunks_mut(self.spec.heads.head_dim));
            self.tiles(thread, self.step.num_prefill_seqs + token, kv_head, rows);
        });
    }

    /// One key-value head of the tokens whose whole output rows `out` holds.
    fn heads_of(&self, thread: usize, qkv: &CpuTensor, sequence: usize, first: usize, kv_head: usize, out: &mut [f32]) {
        let heads = self.spec.heads;
        let group_width = heads.q_width() / heads.kv_heads;
        let mut rows = Vec::with_capacity(TOKENS * heads.q_heads / heads.kv_heads);
        for (token, out) in out.chunks_mut(heads.q_width()).enumerate() {
            let group = &mut out[kv_head * group_width..(kv_head + 1) * group_width];
            rows.extend(self.rows(qkv, sequence, first + token, kv_head, group.chunks_mut(heads.head_dim)));
        }
        self.tiles(thread, sequence, kv_head, rows);
    }

    /// The rows of one token and one key-value head.
    fn rows<'a>(
        &self,
        qkv: &'a CpuTensor,
        sequence: usize,
        token: usize,
        kv_head: usize,
        outs: impl Iterator<Item = &'a mut [f32]>,
    ) -> Vec<Row<'a>> {
        let heads = self.spec.heads;
        let group = heads.q_heads / heads.kv_heads;
        let end = self.step.context_lens[sequence] as usize - (self.step.rows(sequence).end - 1 - token);
        let start = self.spec.window.map_or(0, |window| end.saturating_sub(window));
        let packed = qkv.row(token);
        outs.enumerate()
            .map(|(member, out)| {
                let head = kv_head * group + member;
                Row { query: &packed[head * heads.head_dim..(head + 1) * heads.head_dim], sees: start..end, out }
            })
            .collect()
    }

    /// Cuts rows into tiles and computes them.
    fn tiles(&self, thread: usize, sequence: usize, kv_head: usize, mut rows: Vec<Row<'_>>) {
        let mut scores = self.scores[thread].lock().unwrap_or_else(PoisonError::into_inner);
        for tile in rows.chunks_mut(TILE) {
            vectorised(
                self.arch,
                #[inline(always)]
                || match tile.len() {
                    1 => self.tile::<1>(sequence, kv_head, tile, &mut scores),
                    2 => self.tile::<2>(sequence, kv_head, tile, &mut scores),
                    3 => self.tile::<3>(sequence, kv_head, tile, &mut scores),
                    4 => self.tile::<4>(sequence, kv_head, tile, &mut scores),
                    5 => self.tile::<5>(sequence, kv_head, tile, &mut scores),
                    6 => self.tile::<6>(sequence, kv_head, tile, &mut scores),
                    7 => self.tile::<7>(sequence, kv_head, tile, &mut scores),
                    _ => self.tile::<8>(sequence, kv_head, tile, &mut scores),
                },
            );
        }
    }

    /// One tile: `R` rows over the blocks that any of them sees.
    #[inline(always)]
    fn tile<const R: usize>(&self, sequence: usize, kv_head: usize, rows: &mut [Row<'_>], scores: &mut Vec<f32>) {
        let block_size = self.cache.spec().block_size;
        let (tokens, head_dim) = (padded(block_size), self.spec.heads.head_dim);
        let start = rows.iter().map(|row| row.sees.start).min().unwrap_or(0);
        let end = rows.iter().map(|row| row.sees.end).max().unwrap_or(0);
        let first_block = start / block_size;
        let table = &self.step.block_table(sequence)[first_block..end.div_ceil(block_size)];
        let stride = table.len() * tokens;
        if scores.len() < R * stride {
            scores.resize(R * stride, 0.0);
        }
        // Column of a position in the padded scores.
        let column = |position: usize| (position / block_size - first_block) * tokens + position % block_size;

        let queries: [&[f32]; R] = std::array::from_fn(|row| rows[row].query);
        for (number, block) in table.iter().enumerate() {
            let keys = self.cache.keys(self.spec.layer, *block as usize, kv_head);
            for lane in (0..tokens).step_by(LANES) {
                let sums = score_lanes::<R>(&queries, &keys[lane..], tokens, head_dim);
                for (row, sums) in sums.iter().enumerate() {
                    let at = row * stride + number * tokens + lane;
                    for (score, sum) in scores[at..at + LANES].iter_mut().zip(sums) {
                        *score = sum * self.spec.scale;
                    }
                }
            }
        }
        let mut factors = [0.0_f32; R];
        for (row, scores) in scores.chunks_exact_mut(stride).take(R).enumerate() {
            let sees = &rows[row].sees;
            let (from, to) = (column(sees.start), column(sees.end - 1) + 1);
            scores[..from].fill(f32::NEG_INFINITY);
            scores[to..].fill(f32::NEG_INFINITY);
            if tokens != block_size {
                scores.chunks_exact_mut(tokens).for_each(|block| block[block_size..].fill(f32::NEG_INFINITY));
            }
            factors[row] = 1.0 / softmax(scores);
        }
        let weights: [&[f32]; R] = std::array::from_fn(|row| &scores[row * stride..(row + 1) * stride]);
        let mut dim = 0;
        while dim < head_dim {
            let width = (head_dim - dim).min(LANES);
            let mut sums = [[0.0_f32; LANES]; R];
            for (number, block) in table.iter().enumerate() {
                let first = (first_block + number) * block_size;
                let seen = start.max(first) - first..end.min(first + block_size) - first;
                let values = &self.cache.values(self.spec.layer, *block as usize, kv_head)[seen.start * head_dim + dim..];
                let columns = number * tokens + seen.start..number * tokens + seen.end;
                let weights: [&[f32]; R] = std::array::from_fn(|row| &weights[row][columns.clone()]);
                if width == LANES {
                    sums = weigh_lanes(sums, &weights, values, head_dim, seen.len());
                } else {
                    for token in 0..seen.len() {
                        let value = &values[token * head_dim..token * head_dim + width];
                        for row in 0..R {
                            let weight = weights[row][token];
                            for (sum, value) in sums[row].iter_mut().zip(value) {
                                *sum = weight.mul_add(*value, *sum);
                            }
                        }
                    }
                }
            }
            for row in 0..R {
                for (out, sum) in rows[row].out[dim..dim + width].iter_mut().zip(&sums[row]) {
                    *out = sum * factors[row];
                }
            }
            dim += width;
        }
    }
}

/// Dot products of `R` queries with the keys of 16 tokens; `keys` is `[head_dim][tokens]`, at the first lane.
#[inline(always)]
fn score_lanes<const R: usize>(queries: &[&[f32]; R], keys: &[f32], tokens: usize, head_dim: usize) -> [[f32; LANES]; R] {
    let queries: [&[f32]; R] = std::array::from_fn(|row| &queries[row][..head_dim]);
    let mut sums = [[0.0_f32; LANES]; R];
    for dim in 0..head_dim {
        let key: &[f32; LANES] = keys[dim * tokens..].first_chunk().expect("keys are padded to whole lanes");
        for row in 0..R {
            let query = queries[row][dim];
            for lane in 0..LANES {
                sums[row][lane] = query.mul_add(key[lane], sums[row][lane]);
            }
        }
    }
    sums
}

/// Adds the values of `count` tokens, weighted for each of `R` rows; `values` is `[tokens][head_dim]`, at the first lane.
#[inline(always)]
fn weigh_lanes<const R: usize>(
    mut sums: [[f32; LANES]; R],
    weights: &[&[f32]; R],
    values: &[f32],
    head_dim: usize,
    count: usize,
) -> [[f32; LANES]; R] {
    let weights: [&[f32]; R] = std::array::from_fn(|row| &weights[row][..count]);
    for token in 0..count {
        let value: &[f32; LANES] = values[token * head_dim..].first_chunk().expect("a head's values are as wide as the head");
        for row in 0..R {
            let weight = weights[row][token];
            for lane in 0..LANES {
                sums[row][lane] = weight.mul_add(value[lane], sums[row][lane]);
            }
        }
    }
    sums
}

/// Replaces scores by `e^(score - max)` and returns their sum.
#[inline(always)]
fn softmax(scores: &mut [f32]) -> f32 {
    let mut highest = [f32::NEG_INFINITY; LANES];
    for chunk in scores.chunks_exact(LANES) {
        for (highest, score) in highest.iter_mut().zip(chunk) {
            *highest = if *score > *highest { *score } else { *highest };
        }
    }
    let highest = highest.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let mut sums = [0.0_f32; LANES];
    for chunk in scores.chunks_exact_mut(LANES) {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp(*score - highest);
            *sum += *score;
        }
    }
    sums.iter().sum()
}
