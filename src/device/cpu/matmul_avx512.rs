//! Matrix products in AVX-512, with bf16 dot products where the processor has them.
//!
//! Few rows: dot products along the stored rows, a few weight rows and all rows of `x` at a time, so that every weight
//! is read once, in order, from memory. Many rows: `x` is packed so that 16 rows are the lanes of one register
//! (`matmul_pack`), and weights are broadcast straight from where they are stored, never rearranged.
//!
//! In the second form each result is one chain of multiply-adds in the order of the inputs, whatever the tile.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::device::cpu::matmul::Columns;
use crate::device::cpu::matmul_pack::{LANES, Panel};

/// Weight rows of a tile of the wide form, by 32 rows of `x`: 24 sums, 2 loads of `x`, and the broadcasts.
pub(super) const TILE: usize = 12;
/// Bytes of what is broadcast: one f32 or a pair of bf16.
const WORD: usize = 4;

/// How 16 or 32 stored weights become f32 lanes, and which input goes with them.
pub(super) trait Stored: Copy {
    /// Sums `x . w` in 16 f32 lanes.
    ///
    /// # Safety
    /// AVX-512 is there, and `Self::STEP` elements can be read at both pointers.
    unsafe fn fma(sum: __m512, x: *const Self::Input, w: __m512i) -> __m512;
    /// Reads `Self::STEP` weights as they are stored, widened where that is not part of the product.
    ///
    /// # Safety
    /// As `fma`.
    unsafe fn load(w: *const Self) -> __m512i;
    /// One product, for what is left at a row's end.
    fn scalar(x: Self::Input, w: Self) -> f32;
    /// Element of `x`.
    type Input: Copy;
    /// Elements per register.
    const STEP: usize;
}

impl Stored for f32 {
    type Input = f32;
    const STEP: usize = 16;
    #[inline(always)]
    unsafe fn fma(sum: __m512, x: *const f32, w: __m512i) -> __m512 {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_fmadd_ps(_mm512_loadu_ps(x), _mm512_castsi512_ps(w), sum) }
    }
    #[inline(always)]
    unsafe fn load(w: *const f32) -> __m512i {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_castps_si512(_mm512_loadu_ps(w)) }
    }
    fn scalar(x: f32, w: f32) -> f32 {
        x * w
    }
}

impl Stored for bf16 {
    type Input = f32;
    const STEP: usize = 16;
    #[inline(always)]
    unsafe fn fma(sum: __m512, x: *const f32, w: __m512i) -> __m512 {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_fmadd_ps(_mm512_loadu_ps(x), _mm512_castsi512_ps(w), sum) }
    }
    #[inline(always)]
    unsafe fn load(w: *const bf16) -> __m512i {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(w.cast()))) }
    }
    fn scalar(x: f32, w: bf16) -> f32 {
        x * w.to_f32()
    }
}

impl Stored for f16 {
    type Input = f32;
    const STEP: usize = 16;
    #[inline(always)]
    unsafe fn fma(sum: __m512, x: *const f32, w: __m512i) -> __m512 {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_fmadd_ps(_mm512_loadu_ps(x), _mm512_castsi512_ps(w), sum) }
    }
    #[inline(always)]
    unsafe fn load(w: *const f16) -> __m512i {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_castps_si512(_mm512_cvtph_ps(_mm256_loadu_si256(w.cast()))) }
    }
    fn scalar(x: f32, w: f16) -> f32 {
        x * w.to_f32()
    }
}

/// 512 bits as 32 bf16.
#[inline(always)]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without invalid values.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

/// A bf16 weight that meets a bf16 input in a dot product of pairs.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Paired(bf16);

impl Stored for Paired {
    type Input = bf16;
    const STEP: usize = 32;
    #[inline(always)]
    unsafe fn fma(sum: __m512, x: *const bf16, w: __m512i) -> __m512 {
        // SAFETY: passed on from the trait; `STEP` elements are 512 bits.
        unsafe { _mm512_dpbf16_ps(sum, pairs(_mm512_loadu_si512(x.cast())), pairs(w)) }
    }
    #[inline(always)]
    unsafe fn load(w: *const Self) -> __m512i {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_loadu_si512(w.cast()) }
    }
    fn scalar(x: bf16, w: Self) -> f32 {
        x.to_f32() * w.0.to_f32()
    }
}

/// Rows of a few-row product, `x` being `[rows, width]`.
#[derive(Clone, Copy)]
pub(super) struct Few<'a, I> {
    pub(super) x: &'a [I],
    pub(super) rows: usize,
    pub(super) width: usize,
}

/// Most rows of the few-row form.
pub(super) const FEW: usize = 8;

/// How a weight is broadcast in the wide form.
pub(super) trait Broadcast: Copy {
    /// Adds the product of 16 lanes of packed `x` with one broadcast weight (or pair of weights).
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn fma(sum: __m512, x: __m512i, w: __m512i) -> __m512;
}

/// f32 lanes and weights.
#[derive(Clone, Copy)]
pub(super) struct Single;
/// bf16 pairs.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

impl Broadcast for Single {
    #[inline(always)]
    unsafe fn fma(sum: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), sum) }
    }
}

impl Broadcast for Pairs {
    #[inline(always)]
    unsafe fn fma(sum: __m512, x: __m512i, w: __m512i) -> __m512 {
        // SAFETY: passed on from the trait.
        unsafe { _mm512_dpbf16_ps(sum, pairs(x), pairs(w)) }
    }
}

/// The kernels, compiled for a set of processor features: whatever a generic kernel is made of is compiled for that set,
/// so each set needs kernels of its own.
macro_rules! kernels {
    ($(#[$doc:meta])* $name:ident, $features:literal) => {
        $(#[$doc])*
        pub(super) mod $name {
            use super::*;

            /// Products of up to [`FEW`] rows with stored weight rows, which are outputs `first` and on.
            ///
            /// # Safety
            /// The processor has the features of this module, and no other thread touches the columns of these outputs.
            pub(in crate::device::cpu) unsafe fn few<W: Stored>(x: Few<'_, W::Input>, stored: &[W], first: usize, out: Columns<'_>) {
                assert!(x.x.len() == x.rows * x.width && stored.len().is_multiple_of(x.width), "operands fill their shapes");
                // SAFETY: passed on to the caller.
                unsafe {
                    match x.rows {
                        1 => few_rows::<W, 1, 4>(x, stored, first, out),
                        2 => few_rows::<W, 2, 4>(x, stored, first, out),
                        3 => few_rows::<W, 3, 4>(x, stored, first, out),
                        4 => few_rows::<W, 4, 4>(x, stored, first, out),
                        5 => few_rows::<W, 5, 3>(x, stored, first, out),
                        6 => few_rows::<W, 6, 3>(x, stored, first, out),
                        7 => few_rows::<W, 7, 2>(x, stored, first, out),
                        8 => few_rows::<W, 8, 2>(x, stored, first, out),
                        rows => unreachable!("the few-row form takes up to {FEW} rows, not {rows}"),
                    }
                }
            }

            /// `M` rows of `x`, `R` weight rows at a time.
            #[target_feature(enable = $features)]
            unsafe fn few_rows<W: Stored, const M: usize, const R: usize>(x: Few<'_, W::Input>, stored: &[W], first: usize, out: Columns<'_>) {
                let outs = stored.len() / x.width;
                let mut done = 0;
                while done + R <= outs {
                    // SAFETY: `R` rows are left.
                    unsafe { few_tile::<W, M, R>(x, &stored[done * x.width..], first + done, out) };
                    done += R;
                }
                while done < outs {
                    // SAFETY: one row is left.
                    unsafe { few_tile::<W, M, 1>(x, &stored[done * x.width..], first + done, out) };
                    done += 1;
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn few_tile<W: Stored, const M: usize, const R: usize>(x: Few<'_, W::Input>, stored: &[W], first: usize, out: Columns<'_>) {
                let width = x.width;
                let (inputs, weights) = (x.x.as_ptr(), stored.as_ptr());
                let mut sums = [[_mm512_setzero_ps(); M]; R];
                let whole = width / W::STEP * W::STEP;
                let mut at = 0;
                while at < whole {
                    for (r, sums) in sums.iter_mut().enumerate() {
                        // The same place of the next tile is asked from memory now: with rows of a few pages the processor's own
                        // prefetch starts anew at each of them.
                        // SAFETY: `at + STEP` is within row `r`; a prefetch may point anywhere.
                        let w = unsafe {
                            let from = weights.add(r * width + at);
                            _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(R * width).cast());
                            W::load(from)
                        };
                        for (m, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: `at + STEP` is within row `m` of `x`.
                            *sum = unsafe { W::fma(*sum, inputs.add(m * width + at), w) };
                        }
                    }
                    at += W::STEP;
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (m, sum) in sums.iter().enumerate() {
                        let rest: f32 = (whole..width).map(|at| W::scalar(x.x[m * width + at], stored[r * width + at])).sum();
                        // SAFETY: passed on to the caller.
                        unsafe { out.store(m, first + r, _mm512_reduce_add_ps(*sum) + rest) };
                    }
                }
            }

            /// Products of one panel of packed `x` with up to [`TILE`] weight rows, `words` 32-bit words each (one f32 or one
            /// pair of bf16), which are outputs `first` and on. The panel's results go to rows `panel.first_row` and on.
            ///
            /// # Safety
            /// The processor has the features of this module, and no other thread touches the columns of these outputs.
            pub(in crate::device::cpu) unsafe fn wide<B: Broadcast>(panel: Panel<'_>, weights: &[u8], words: usize, first: usize, out: Columns<'_>) {
                let outs = weights.len() / WORD / words;
                assert!(
                    outs <= TILE && weights.len() == outs * words * WORD && panel.lines.len() == words * panel.vectors,
                    "operands fill their shapes"
                );
                let mut done = 0;
                // SAFETY: passed on to the caller.
                unsafe {
                    if outs == TILE {
                        match panel.vectors {
                            1 => wide_tile::<B, 1, TILE>(panel, weights, words, first, TILE, out),
                            _ => wide_tile::<B, 2, TILE>(panel, weights, words, first, TILE, out),
                        }
                        return;
                    }
                    while done < outs {
                        let count = (outs - done).min(4);
                        match panel.vectors {
                            1 => wide_tile::<B, 1, 4>(panel, &weights[done * words * WORD..], words, first + done, count, out),
                            _ => wide_tile::<B, 2, 4>(panel, &weights[done * words * WORD..], words, first + done, count, out),
                        }
                        done += count;
                    }
                }
            }

            /// `V * 16` rows of `x` by `N` weight rows, of which `valid` exist.
            #[target_feature(enable = $features)]
            unsafe fn wide_tile<B: Broadcast, const V: usize, const N: usize>(
                panel: Panel<'_>,
                weights: &[u8],
                words: usize,
                first: usize,
                valid: usize,
                out: Columns<'_>,
            ) {
                let mut sums = [[_mm512_setzero_ps(); V]; N];
                // Rows that do not exist repeat the last one; their results are not stored.
                let rows: [*const i32; N] = std::array::from_fn(|n| weights[n.min(valid - 1) * words * WORD..].as_ptr().cast());
                let lines = panel.lines.as_ptr().cast::<i32>();
                for word in 0..words {
                    // SAFETY: `panel` holds `words * V` lines of 16 words, and each weight row `words` words.
                    unsafe {
                        let x: [__m512i; V] = std::array::from_fn(|v| _mm512_load_si512(lines.add((word * V + v) * LANES).cast()));
                        for n in 0..N {
                            let w = _mm512_set1_epi32(rows[n].add(word).read_unaligned());
                            for v in 0..V {
                                sums[n][v] = B::fma(sums[n][v], x[v], w);
                            }
                        }
                    }
                }
                for (v, first_row) in (panel.first_row..).step_by(LANES).take(V).enumerate() {
                    let present = panel.rows.saturating_sub(v * LANES).min(LANES);
                    for n in (0..N).step_by(4) {
                        let columns = valid.saturating_sub(n).min(4);
                        let block = transpose([sums[n][v], sums[n + 1][v], sums[n + 2][v], sums[n + 3][v]]);
                        for (row, values) in block.iter().enumerate().take(present) {
                            if columns == 4 {
                                let to = out.at(first_row + row, first + n);
                                out.at(first_row + row, first + n + 3);
                                // SAFETY: four columns from here lie inside, both ends were checked.
                                unsafe { to.cast::<[f32; 4]>().write_unaligned(*values) }
                            } else {
                                for (c, value) in values.iter().enumerate().take(columns) {
                                    // SAFETY: passed on to the caller.
                                    unsafe { out.store(first_row + row, first + n + c, *value) };
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}

kernels!(
    /// f32 arithmetic.
    single,
    "avx512f,avx512bw,avx512vl,f16c,fma"
);
kernels!(
    /// bf16 dot products: for [`Paired`] and [`Pairs`] alone.
    paired,
    "avx512f,avx512bw,avx512vl,avx512bf16,f16c,fma"
);

/// Four registers of 16 lanes as 16 rows of 4.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(columns: [__m512; 4]) -> [[f32; 4]; 16] {
    let [a, b, c, d] = columns;
    let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let pair = |low: __m512, high: __m512| {
        let (low, high) = (_mm512_castps_pd(low), _mm512_castps_pd(high));
        (_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)))
    };
    let (zero, one) = pair(ab_low, cd_low);
    let (two, three) = pair(ab_high, cd_high);
    // Quarter `q` of register `i` is row `4 q + i`.
    let mut rows = [[0.0; 4]; 16];
    for (i, register) in [zero, one, two, three].into_iter().enumerate() {
        // SAFETY: 512 bits are 16 floats.
        let quarters: [[f32; 4]; 4] = unsafe { std::mem::transmute(register) };
        for (q, quarter) in quarters.into_iter().enumerate() {
            rows[4 * q + i] = quarter;
        }
    }
    rows
}
