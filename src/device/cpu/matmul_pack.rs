//! Packing of activations for products with many rows: 16 rows side by side as the lanes of one register.

use half::bf16;

/// Rows of one register.
pub(super) const LANES: usize = 16;
/// Registers of one panel.
const VECTORS: usize = 2;

/// One register's worth of words, aligned so that no load crosses a cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; LANES]);

/// Up to 32 packed rows: `[word][vectors]` lines, a word being one f32 or a pair of bf16.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    pub(super) lines: &'a [Line],
    /// Registers side by side, 1 or 2.
    pub(super) vectors: usize,
    pub(super) first_row: usize,
    /// Rows that exist; the lanes beyond are zero.
    pub(super) rows: usize,
}

/// Lines that `rows` packed rows of `words` take.
pub(super) const fn lines(rows: usize, words: usize) -> usize {
    rows.div_ceil(LANES) * words
}

/// Bytes of up to `rows` packed rows of `width`.
pub(super) const fn bytes(rows: usize, width: usize) -> u64 {
    (lines(rows, width) as u64).saturating_mul(size_of::<Line>() as u64)
}

/// The panels of `rows` rows of `words` in packed `lines`.
pub(super) fn panels(lines: &[Line], rows: usize, words: usize) -> impl Iterator<Item = Panel<'_>> {
    lines.chunks(VECTORS * words).enumerate().map(move |(number, lines)| {
        let first_row = number * VECTORS * LANES;
        Panel { lines, vectors: lines.len() / words, first_row, rows: (rows - first_row).min(VECTORS * LANES) }
    })
}

/// Packs one panel from `x`, whole rows of `width`; `word` makes the packed word number `k` of a row.
#[inline(always)]
pub(super) fn pack(x: &[f32], width: usize, words: usize, lines: &mut [Line], word: impl Fn(&[f32], usize) -> u32) {
    let vectors = lines.len() / words;
    for v in 0..vectors {
        for lane in 0..LANES {
            let row = x.get((v * LANES + lane) * width..).and_then(|rest| rest.get(..width));
            // Runs of one row keep the reads in order; the writes go to lines that stay in the cache.
            for k in 0..words {
                lines[k * vectors + v].0[lane] = row.map_or(0, |row| word(row, k));
            }
        }
    }
}

/// Word `k` of a row in f32.
#[inline(always)]
pub(super) fn single(row: &[f32], k: usize) -> u32 {
    row[k].to_bits()
}

/// Word `k` of a row in bf16: elements `2k` (low half) and `2k + 1`.
#[inline(always)]
pub(super) fn pair(row: &[f32], k: usize) -> u32 {
    u32::from(round(row[2 * k])) | u32::from(round(row[2 * k + 1])) << 16
}

/// The bits of `value` rounded to bf16, ties to even; NaN stays NaN.
#[inline(always)]
pub(super) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    if value.is_nan() { bf16::NAN.to_bits() } else { rounded as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_that_of_the_half_crate() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(round(value), bf16::from_f32(value).to_bits(), "{value:e}");
            }
        }
    }
}
