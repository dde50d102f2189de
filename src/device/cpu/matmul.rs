//! The matrix product `out = x weight^T`, in the form that fits rows, element type and processor.
//!
//! Weights of f16 and bf16 are widened on the way, which is exact; arithmetic is f32, or bf16 dot products summed in
//! f32 where that was chosen, for which all weights are bf16. Threads share out the outputs, so every result is computed whole by
//! one thread and does not depend on their number.

use std::marker::PhantomData;

use half::bf16;
use pulp::Arch;

use crate::device::cpu::matmul_pack::{self, Line};
use crate::device::cpu::matmul_portable::By;
use crate::device::cpu::threads::Threads;
use crate::device::cpu::vectorised::vectorised;
use crate::device::cpu::weights::{CpuMatrix, Rows};
use crate::device::cpu::{Arithmetic, CpuTensor, KernelChoice, matmul_portable, memory};
use crate::device::error::DeviceError;

#[cfg(target_arch = "x86_64")]
use crate::device::cpu::matmul_avx512::{self as avx512, Few, Paired, Pairs, Single};

/// From so many rows on the `gemm` crate, which rearranges the weights, is faster than AVX-512 kernels that leave them where they are:
/// by a tenth at 512 rows, where at 32 it takes half as long again.
const MANY: usize = 256;
/// Outputs are shared out in whole multiples of this, which every kernel's tile divides.
const UNIT: usize = 48;
/// Packed rows are taken in pieces of this many bytes, which stay in a second-level cache of 2 MiB together with the
/// weights that pass: each piece reads, and widens, all weights once.
const PIECE: usize = 1 << 20;

/// Kernels that this processor runs, and the arithmetic chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    arch: Arch,
    avx512: bool,
    arithmetic: Arithmetic,
}

impl Kernels {
    /// Kernels of this processor for `arithmetic`; `None` where it cannot be computed.
    pub(super) fn detect(arithmetic: Arithmetic, choice: KernelChoice) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let (avx512, bf16) = (
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("fma"),
            is_x86_feature_detected!("avx512bf16"),
        );
        #[cfg(not(target_arch = "x86_64"))]
        let (avx512, bf16) = (false, false);
        let avx512 = avx512 && choice == KernelChoice::Best;
        (arithmetic == Arithmetic::F32 || avx512 && bf16).then(|| Self { arch: Arch::new(), avx512, arithmetic })
    }

    /// The fastest kernels in another arithmetic.
    pub(super) fn with(self, arithmetic: Arithmetic) -> Option<Self> {
        Self::detect(arithmetic, KernelChoice::Best)
    }

    /// The arithmetic that was chosen.
    pub(super) const fn arithmetic(self) -> Arithmetic {
        self.arithmetic
    }

    /// Instruction set, for records.
    pub(super) fn instructions(self) -> String {
        match (self.avx512, self.arithmetic) {
            (true, Arithmetic::F32) => "avx512".to_owned(),
            (true, Arithmetic::Bf16Dot) => "avx512_bf16".to_owned(),
            // The level's name, without the list of its features.
            (false, _) => format!("{:?}", self.arch).split('(').next().unwrap_or_default().to_lowercase(),
        }
    }
}

/// Memory for activations in the form that the kernels want, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Packed {
    lines: Vec<Line>,
    halves: Vec<bf16>,
}

/// Where results go: columns of a row-major matrix that several threads fill, each its own columns. The matrix is
/// borrowed as long as there is one of these.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    start: *mut f32,
    rows: usize,
    width: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: who writes through it has promised that no other thread touches those columns, see `store`.
unsafe impl Send for Columns<'_> {}
// SAFETY: as above.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// The columns of `out`, which holds `rows` rows.
    pub(super) fn new(out: &'a mut [f32], rows: usize) -> Self {
        Self { start: out.as_mut_ptr(), rows, width: out.len() / rows, matrix: PhantomData }
    }

    /// Rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Columns there are, which is also the distance between rows.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// First element of row `row` at `column`.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, column: usize) -> *mut f32 {
        assert!(row < self.rows && column < self.width, "a result lies inside its matrix");
        // SAFETY: `start` points to `rows * width` floats and the index is below that.
        unsafe { self.start.add(row * self.width + column) }
    }

    /// Writes one result.
    ///
    /// # Safety
    /// No other thread touches this column meanwhile.
    #[inline(always)]
    pub(super) unsafe fn store(&self, row: usize, column: usize, value: f32) {
        // SAFETY: `at` checked the bounds, and the caller has the column for itself.
        unsafe { *self.at(row, column) = value }
    }
}

/// `out = x weight^T (+ bias)`.
///
/// # Errors
/// Out of memory for packed rows.
pub(super) fn matmul(
    threads: &Threads,
    kernels: Kernels,
    packed: &mut Packed,
    x: &CpuTensor,
    weight: &CpuMatrix,
    bias: Option<&[f32]>,
    out: &mut CpuTensor,
) -> Result<(), DeviceError> {
    assert_eq!(x.width, weight.width(), "rows are as wide as the matrix");
    assert_eq!(out.width, weight.out(), "results are as wide as the matrix has outputs");
    assert!(bias.is_none_or(|bias| bias.len() == weight.out()), "a bias has one value per output");
    out.set_rows(x.rows);
    if x.rows == 0 {
        return Ok(());
    }
    let (rows, width) = (x.rows, out.width);
    let columns = Columns::new(out.values_mut(), rows);
    let all = |product: &(dyn Fn(Rows<'_>, usize) + Sync)| {
        threads.run(&|thread| weight.visit(threads.part(thread, width, UNIT), |first, stored| product(stored, first)));
    };
    #[cfg(target_arch = "x86_64")]
    if kernels.avx512 && (rows < MANY || kernels.arithmetic == Arithmetic::Bf16Dot) {
        let paired = kernels.arithmetic == Arithmetic::Bf16Dot;
        // Nothing else was taken over, and pairs must not straddle rows.
        assert!(!paired || weight.is_bf16() && x.width.is_multiple_of(2), "bf16 dot products are of bf16 weights in pairs");
        if rows <= avx512::FEW {
            if paired {
                packed.halves.clear();
                packed.halves.extend(x.values().iter().map(|value| bf16::from_bits(matmul_pack::round(*value))));
            }
            let halves = packed.halves.as_slice();
            // SAFETY: kernels with AVX-512 were detected, those of pairs with AVX512-BF16; each thread is given outputs of its own.
            all(&|stored, first| unsafe { few(paired.then_some(halves), x, stored, first, columns) });
        } else {
            let words = if paired { x.width / 2 } else { x.width };
            pack(threads, kernels, paired, x, words, &mut packed.lines)?;
            let packed = PackedRows { lines: &packed.lines[..matmul_pack::lines(rows, words)], rows, words, paired };
            // SAFETY: as above.
            all(&|stored, first| unsafe { wide(packed, x.width, stored, first, columns) });
        }
        add_bias(bias, out);
        return Ok(());
    }
    let _ = packed;
    let by = if kernels.avx512 { By::Crate } else { By::Tiles };
    // SAFETY: each thread is given outputs of its own.
    all(&|stored, first| unsafe { matmul_portable::product(kernels.arch, by, x, stored, first, columns) });
    add_bias(bias, out);
    Ok(())
}

/// Adds `bias` to every row.
fn add_bias(bias: Option<&[f32]>, out: &mut CpuTensor) {
    let Some(bias) = bias else { return };
    for row in out.values_mut().chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
}

/// All rows of a product, packed.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct PackedRows<'a> {
    lines: &'a [Line],
    rows: usize,
    /// Words of a row: one f32 each, or a pair of bf16 where `paired`.
    words: usize,
    paired: bool,
}

/// Packs all rows of `x`, panels shared out among the threads.
#[cfg(target_arch = "x86_64")]
fn pack(threads: &Threads, kernels: Kernels, paired: bool, x: &CpuTensor, words: usize, lines: &mut Vec<Line>) -> Result<(), DeviceError> {
    let count = matmul_pack::lines(x.rows, words);
    memory::grow("packed activations", lines, count)?;
    let panels = lines[..count].chunks_mut(2 * words).zip(x.values().chunks(2 * matmul_pack::LANES * x.width));
    threads.each(panels, |_, (lines, rows)| {
        vectorised(
            kernels.arch,
            #[inline(always)]
            || match paired {
                true => matmul_pack::pack(rows, x.width, words, lines, matmul_pack::pair),
                false => matmul_pack::pack(rows, x.width, words, lines, matmul_pack::single),
            },
        );
    });
    Ok(())
}

/// Few rows, one thread's outputs.
///
/// # Safety
/// The processor has AVX-512, with `halves` AVX512-BF16 too; no other thread touches the columns of these outputs.
#[cfg(target_arch = "x86_64")]
unsafe fn few(halves: Option<&[bf16]>, x: &CpuTensor, stored: Rows<'_>, first: usize, out: Columns<'_>) {
    let (rows, width) = (x.rows, x.width);
    // SAFETY: passed on to the caller; `Paired` is a bf16.
    unsafe {
        match (stored, halves) {
            (Rows::Bf16(w), Some(x)) => {
                let w = std::slice::from_raw_parts(w.as_ptr().cast::<Paired>(), w.len());
                avx512::paired::few(Few { x, rows, width }, w, first, out);
            }
            (Rows::F32(w), _) => avx512::single::few(Few { x: x.values(), rows, width }, w, first, out),
            (Rows::F16(w), _) => avx512::single::few(Few { x: x.values(), rows, width }, w, first, out),
            (Rows::Bf16(w), None) => avx512::single::few(Few { x: x.values(), rows, width }, w, first, out),
        }
    }
}

/// Many rows, one thread's outputs: for each piece of packed rows, for each tile of weight rows, all panels.
///
/// # Safety
/// The processor has AVX-512, where `packed` is paired AVX512-BF16 too; no other thread touches the columns of these outputs.
#[cfg(target_arch = "x86_64")]
unsafe fn wide(packed: PackedRows<'_>, width: usize, stored: Rows<'_>, first: usize, out: Columns<'_>) {
    let PackedRows { lines, rows, words, paired } = packed;
    let panel_bytes = 2 * words * size_of::<Line>();
    let panels: Vec<_> = matmul_pack::panels(lines, rows, words).collect();
    // Pieces of about one size: a short last one would widen every weight once more for little.
    let pieces = panels.len().div_ceil((PIECE / panel_bytes).max(1));
    let together = panels.len().div_ceil(pieces);
    let mut widened = vec![0.0_f32; avx512::TILE * width];
    let outs = stored.len() / width;
    for piece in panels.chunks(together) {
        for start in (0..outs).step_by(avx512::TILE) {
            let count = avx512::TILE.min(outs - start);
            let tile = stored.slice(start * width..(start + count) * width);
            let weights: &[u8] = match tile {
                Rows::Bf16(weights) if paired => bytemuck::cast_slice(weights),
                Rows::F32(weights) => bytemuck::cast_slice(weights),
                _ => {
                    let widened = &mut widened[..count * width];
                    vectorised(
                        Arch::new(),
                        #[inline(always)]
                        || tile.widen(widened),
                    );
                    bytemuck::cast_slice(widened)
                }
            };
            for panel in piece {
                // SAFETY: passed on to the caller.
                unsafe {
                    match paired {
                        true => avx512::paired::wide::<Pairs>(*panel, weights, words, first + start, out),
                        false => avx512::single::wide::<Single>(*panel, weights, words, first + start, out),
                    }
                }
            }
        }
    }
}
