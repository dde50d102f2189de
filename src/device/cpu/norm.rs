//! Root-mean-square norms of rows, and of the heads of packed rows.

use pulp::Arch;

use crate::device::HeadShape;
use crate::device::cpu::CpuTensor;
use crate::device::cpu::threads::Threads;
use crate::device::cpu::vectorised::vectorised;

/// Lanes of a sum: fixed, so that results do not depend on the instruction set's width.
const LANES: usize = 16;

/// Rows of `width` floats per thread item, so that small tensors stay on the caller's thread.
fn rows_per_item(threads: &Threads, rows: usize, width: usize) -> usize {
    if rows * width < 1 << 14 { rows.max(1) } else { rows.div_ceil(threads.count()) }
}

/// Sum of squares in fixed lanes, folded at the end.
#[inline(always)]
fn sum_of_squares(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = value.mul_add(*value, *lane);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = value.mul_add(*value, *lane);
    }
    lanes.iter().sum()
}

/// `out = x / sqrt(mean(x^2) + eps) * weight` for one row.
#[inline(always)]
fn norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (sum_of_squares(x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// Norm of every row.
pub(super) fn rms_norm(threads: &Threads, arch: Arch, x: &CpuTensor, weight: &[f32], eps: f32, out: &mut CpuTensor) {
    let width = x.width;
    assert_eq!((width, width), (weight.len(), out.width), "a norm keeps the width");
    out.set_rows(x.rows);
    let rows = rows_per_item(threads, x.rows, width);
    let items = x.values().chunks(rows * width).zip(out.values_mut().chunks_mut(rows * width));
    threads.each(items, |_, (x, out)| {
        vectorised(
            arch,
            #[inline(always)]
            || {
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    norm_row(x, weight, eps, out);
                }
            },
        );
    });
}

/// `residual += x`, then its norm.
pub(super) fn add_rms_norm(
    threads: &Threads,
    arch: Arch,
    x: &CpuTensor,
    residual: &mut CpuTensor,
    weight: &[f32],
    eps: f32,
    out: &mut CpuTensor,
) {
    let width = x.width;
    assert_eq!((width, width, width), (weight.len(), out.width, residual.width), "a norm keeps the width");
    assert_eq!(x.rows, residual.rows, "residual and addend have the same rows");
    out.set_rows(x.rows);
    let rows = rows_per_item(threads, x.rows, width);
    let items = x.values().chunks(rows * width).zip(residual.values_mut().chunks_mut(rows * width));
    let items = items.zip(out.values_mut().chunks_mut(rows * width));
    threads.each(items, |_, ((x, residual), out)| {
        vectorised(
            arch,
            #[inline(always)]
            || {
                let rows = x.chunks_exact(width).zip(residual.chunks_exact_mut(width)).zip(out.chunks_exact_mut(width));
                for ((x, residual), out) in rows {
                    for (residual, x) in residual.iter_mut().zip(x) {
                        *residual += x;
                    }
                    norm_row(residual, weight, eps, out);
                }
            },
        );
    });
}

/// Norm of every query and key head of packed rows, in place.
pub(super) fn head_norm(
    threads: &Threads,
    arch: Arch,
    qkv: &mut CpuTensor,
    q_weight: &[f32],
    k_weight: &[f32],
    eps: f32,
    heads: HeadShape,
) {
    let (width, dim) = (qkv.width, heads.head_dim);
    assert_eq!(width, heads.packed_width(), "rows are packed as the heads say");
    assert_eq!((q_weight.len(), k_weight.len()), (dim, dim), "head norms are as long as a head");
    let rows = rows_per_item(threads, qkv.rows, width);
    threads.each(qkv.values_mut().chunks_mut(rows * width), |_, packed| {
        vectorised(
            arch,
            #[inline(always)]
            || {
                for row in packed.chunks_exact_mut(width) {
                    let normed = row[..heads.q_width() + heads.kv_width()].chunks_exact_mut(dim);
                    for (number, head) in normed.enumerate() {
                        let weight = if number < heads.q_heads { q_weight } else { k_weight };
                        let scale = 1.0 / (sum_of_squares(head) / dim as f32 + eps).sqrt();
                        for (value, weight) in head.iter_mut().zip(weight) {
                            *value = *value * scale * weight;
                        }
                    }
                }
            },
        );
    });
}
