//! Dot products in tiles whose sums stay in registers: each weight that is read is used for two rows, each activation for six outputs.

use pulp::{Simd, WithSimd};

use crate::device::cpu::matmul::Columns;

/// Weight rows of a tile: with two rows of activations that are 12 sums, which leaves registers for what is read. One with three or four rows
/// runs out of them and takes twice as long.
const OUTS: usize = 6;

/// All rows of a panel's products.
pub(super) struct Tiles<'a> {
    /// Activations, row after row.
    pub(super) x: &'a [f32],
    /// Length of a row, of activations and of weights alike.
    pub(super) width: usize,
    /// Weights, row after row: outputs `first` and on.
    pub(super) weights: &'a [f32],
    pub(super) first: usize,
    /// Columns that nobody else writes meanwhile.
    pub(super) out: Columns<'a>,
}

impl WithSimd for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut tiles = self.weights.chunks_exact(OUTS * self.width);
        let mut column = self.first;
        for weights in &mut tiles {
            self.outputs::<S, OUTS>(simd, weights, column);
            column += OUTS;
        }
        for weights in tiles.remainder().chunks_exact(self.width) {
            self.outputs::<S, 1>(simd, weights, column);
            column += 1;
        }
    }
}

impl Tiles<'_> {
    /// All rows of activations with `OUTS` rows of weights, which stay in the nearest cache; the first output is `column`.
    #[inline(always)]
    fn outputs<S: Simd, const OUTS: usize>(&self, simd: S, weights: &[f32], column: usize) {
        let mut pairs = self.x.chunks_exact(2 * self.width);
        let mut row = 0;
        for pair in &mut pairs {
            self.store(tile::<S, 2, OUTS>(simd, pair, weights, self.width), row, column);
            row += 2;
        }
        if !pairs.remainder().is_empty() {
            self.store(tile::<S, 1, OUTS>(simd, pairs.remainder(), weights, self.width), row, column);
        }
    }

    #[inline(always)]
    fn store<const ROWS: usize, const OUTS: usize>(&self, sums: [[f32; ROWS]; OUTS], row: usize, column: usize) {
        for (output, sums) in sums.iter().enumerate() {
            for (offset, sum) in sums.iter().enumerate() {
                // SAFETY: whoever made this has these columns for itself.
                unsafe { self.out.store(row + offset, column + output, *sum) };
            }
        }
    }
}

/// Sums of products of each of `ROWS` rows with each of `OUTS` rows of weights.
#[inline(always)]
fn tile<S: Simd, const ROWS: usize, const OUTS: usize>(simd: S, x: &[f32], weights: &[f32], width: usize) -> [[f32; ROWS]; OUTS] {
    let rows: [(&[S::f32s], &[f32]); ROWS] = std::array::from_fn(|row| S::as_simd_f32s(&x[row * width..(row + 1) * width]));
    let outs: [(&[S::f32s], &[f32]); OUTS] = std::array::from_fn(|out| S::as_simd_f32s(&weights[out * width..(out + 1) * width]));
    let whole = width / S::F32_LANES;
    // Slices of one length: no check is left in the loop.
    let (x, w) = (rows.map(|(whole_row, _)| &whole_row[..whole]), outs.map(|(whole_row, _)| &whole_row[..whole]));
    let mut sums = [[simd.splat_f32s(0.0); ROWS]; OUTS];
    for at in 0..whole {
        let x: [S::f32s; ROWS] = std::array::from_fn(|row| x[row][at]);
        for out in 0..OUTS {
            let w = w[out][at];
            for row in 0..ROWS {
                sums[out][row] = simd.mul_add_f32s(x[row], w, sums[out][row]);
            }
        }
    }
    std::array::from_fn(|out| {
        std::array::from_fn(|row| {
            let rest: f32 = rows[row].1.iter().zip(outs[out].1).map(|(x, w)| x * w).sum();
            simd.reduce_sum_f32s(sums[out][row]) + rest
        })
    })
}
