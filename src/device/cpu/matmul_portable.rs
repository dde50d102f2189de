//! Matrix products over panels of weights that are widened to f32: in tiles for processors without kernels of their own, through the
//! `gemm` crate for so many rows that it is faster than those kernels.

use pulp::Arch;

use crate::device::cpu::CpuTensor;
use crate::device::cpu::matmul::Columns;
use crate::device::cpu::matmul_tiles::Tiles;
use crate::device::cpu::threads::Threads;
use crate::device::cpu::vectorised::vectorised;
use crate::device::cpu::weights::Rows;

/// Weight rows that are widened together.
const PANEL: usize = 96;

/// Who multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// Faster than the crate with AVX2, by a third (512 rows of 256) to ten times (8 of 4096).
    Tiles,
    /// The `gemm` crate, which rearranges what it multiplies.
    Crate,
}

/// Products of all rows of `x` with the stored weight rows, which are outputs `first` and on.
///
/// # Safety
/// No other thread touches the columns of these outputs.
pub(super) unsafe fn product(arch: Arch, by: By, x: &CpuTensor, stored: Rows<'_>, first: usize, out: Columns<'_>) {
    let width = x.width;
    let mut panel = vec![0.0; PANEL * width];
    let outs = stored.len() / width;
    for start in (0..outs).step_by(PANEL) {
        let count = PANEL.min(outs - start);
        let piece = stored.slice(start * width..(start + count) * width);
        let widened: &[f32] = match piece {
            Rows::F32(values) => values,
            _ => {
                vectorised(
                    arch,
                    #[inline(always)]
                    || piece.widen(&mut panel[..count * width]),
                );
                &panel[..count * width]
            }
        };
        match by {
            // The columns are this thread's own, as the caller promised.
            By::Tiles => arch.dispatch(Tiles { x: x.values(), width, weights: widened, first: first + start, out }),
            // SAFETY: passed on to the caller.
            By::Crate => unsafe { wide(x.values(), x.rows, widened, width, first + start, out) },
        }
    }
}

/// `rows` rows of `x` times a panel of weights, which are outputs `first` and on; one thread, through the `gemm` crate.
///
/// # Safety
/// No other thread touches the columns of these outputs.
unsafe fn wide(x: &[f32], rows: usize, weights: &[f32], width: usize, first: usize, out: Columns<'_>) {
    let outs = weights.len() / width;
    assert_eq!((x.len(), weights.len()), (rows * width, outs * width), "operands fill their shapes");
    assert!(rows <= out.rows() && first + outs <= out.width(), "results lie inside their matrix");
    // SAFETY: `x` is `rows` by `width`, `weights` is `outs` by `width`, both row-major and checked above; `out` has the
    // rows and columns, as checked, and the caller has these columns for itself.
    unsafe {
        gemm::gemm(
            rows,
            outs,
            width,
            out.at(0, first),
            1,
            out.width() as isize,
            false,
            x.as_ptr(),
            1,
            width as isize,
            weights.as_ptr(),
            width as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The same, its outputs shared out among the threads.
pub(super) fn shared_wide(threads: &Threads, x: &[f32], rows: usize, weights: &[f32], width: usize, out: &mut [f32]) {
    let columns = Columns::new(out, rows);
    threads.run(&|thread| {
        let own = threads.part(thread, weights.len() / width, PANEL);
        if !own.is_empty() {
            // SAFETY: each thread has a part of the columns of its own.
            unsafe { wide(x, rows, &weights[own.start * width..own.end * width], width, own.start, columns) };
        }
    });
}
