//! Ceilings of the processor, measured with the device's own threads.

use crate::clock::{Clock, Monotonic};
use crate::device::ceilings::{Passes, Told, bytes_text};
use crate::device::cpu::matmul::Kernels;
use crate::device::cpu::vectorised::vectorised;
use crate::device::cpu::{Arithmetic, CpuDevice, CpuTensor, matmul_portable, memory};
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, Values, random_element};
use crate::record::ceilings::{Ceiling, CeilingKind, CeilingsRecord};

/// Buffer for the memory ceilings: beyond any last-level cache share of a few cores.
const BUFFER: usize = 512 << 20;
/// Pages that are read side by side.
const STREAMS: usize = 8;
/// Words of a page.
const PAGE: usize = 512;
/// Words of a cache line.
const LINE: usize = 8;
/// Width and outputs of the large product, and its rows by the crate.
const SIDE: usize = 2048;
/// Its rows by kernels of our own.
const ROWS: usize = 512;
/// Whose code.
const BY: &str = "plimsoll";
/// Each ceiling is the best of so many passes.
const PASSES: usize = 5;
/// Seconds that all of them take, about.
pub const SECONDS: f64 = 4.0;

/// Some passes, timed.
fn timed(mut pass: impl FnMut()) -> Passes {
    let clock = Monotonic::start();
    let times = (0..PASSES).map(|_| {
        let start = clock.now();
        pass();
        clock.now().since(start).as_secs_f64()
    });
    Passes::new(times.collect())
}

impl CpuDevice {
    /// Measures all ceilings; takes about four seconds and 1.5 GiB of memory.
    ///
    /// # Errors
    /// Out of memory.
    pub fn ceilings(&mut self, told: Told<'_>) -> Result<CeilingsRecord, DeviceError> {
        let clock = Monotonic::start();
        let mut ceilings = Vec::new();
        let mut keep = |ceiling: Ceiling| {
            told(&ceiling);
            ceilings.push(ceiling);
        };
        self.memory_ceilings(&mut keep)?;
        keep(self.crate_product());
        for (arithmetic, element) in [(Arithmetic::F32, Element::F32), (Arithmetic::Bf16Dot, Element::Bf16)] {
            if let Some(kernels) = self.kernels.with(arithmetic) {
                keep(self.own_product(kernels, element)?);
            }
        }
        Ok(CeilingsRecord {
            device: self.identity.name.clone(),
            instructions: self.identity.instructions.clone(),
            labels: vec!["CPU device: no GPU measurement".to_owned(), format!("{} threads", self.threads.count())],
            ceilings,
            notes: Vec::new(),
            seconds: clock.now().as_secs_f64(),
        })
    }

    fn memory_ceilings(&self, keep: &mut impl FnMut(Ceiling)) -> Result<(), DeviceError> {
        const WHAT: &str = "the buffer that memory is measured with";
        let [mut source, mut sink, mut third] =
            [memory::large_pages(WHAT, BUFFER)?, memory::large_pages(WHAT, BUFFER)?, memory::large_pages(WHAT, BUFFER)?];
        for buffer in [&mut source, &mut sink, &mut third] {
            buffer.chunks_mut(4096).for_each(|page| page[..4].copy_from_slice(&1.0_f32.to_le_bytes()));
        }
        let size = || bytes_text(BUFFER as u64);
        let read = timed(|| {
            let words: &[u64] = bytemuck::cast_slice(&source);
            self.threads.run(&|thread| {
                let own = &words[self.threads.part(thread, words.len(), 4096)];
                std::hint::black_box(vectorised(
                    self.arch,
                    #[inline(always)]
                    || sum(own),
                ));
            });
        });
        keep(read.ceiling(CeilingKind::MemoryRead, BUFFER as f64, BY, size()));
        let piece = BUFFER / self.threads.count() / 4096 * 4096;
        let used = (piece * self.threads.count()) as f64;
        let copy = timed(|| {
            let pairs = source.chunks(piece).zip(sink.chunks_mut(piece)).take(self.threads.count());
            self.threads.each(pairs, |_, (from, to)| to.copy_from_slice(from));
        });
        keep(copy.ceiling(CeilingKind::MemoryCopy, 2.0 * used, BY, size()));
        let triad = timed(|| {
            let pieces = sink.chunks_mut(piece).zip(source.chunks(piece).zip(third.chunks(piece))).take(self.threads.count());
            self.threads.each(pieces, |_, (a, (b, c))| {
                let (a, b, c): (&mut [f32], &[f32], &[f32]) =
                    (bytemuck::cast_slice_mut(a), bytemuck::cast_slice(b), bytemuck::cast_slice(c));
                vectorised(
                    self.arch,
                    #[inline(always)]
                    || a.iter_mut().zip(b.iter().zip(c)).for_each(|(a, (b, c))| *a = b + 0.5 * c),
                );
            });
        });
        keep(triad.ceiling(CeilingKind::MemoryTriad, 3.0 * used, BY, size()));
        Ok(())
    }

    /// One large product by the `gemm` crate, its columns shared out among the threads.
    fn crate_product(&self) -> Ceiling {
        let fill = |seed| (0..SIDE * SIDE).map(|index| random_element(seed, index as u64, 0.0, 1.0)).collect::<Vec<f32>>();
        let (x, weights) = (fill(1), fill(2));
        let mut out = vec![0.0; SIDE * SIDE];
        let passes = timed(|| matmul_portable::shared_wide(&self.threads, &x, SIDE, &weights, SIDE, &mut out));
        std::hint::black_box(&out);
        product(&passes, SIDE, Element::F32, "gemm crate")
    }

    /// The same by this device's own kernels, of about as many rows as chunks of prompts have.
    fn own_product(&mut self, kernels: Kernels, element: Element) -> Result<Ceiling, DeviceError> {
        let source = MatrixSource {
            name: "the matrix that products are measured with".into(),
            out: SIDE,
            width: SIDE,
            element,
            values: Values::Random { seed: 3, mean: 0.0, deviation: 1.0 },
        };
        let weight = super::weights::matrix(&self.threads, &[source])?;
        let values = (0..ROWS * SIDE).map(|index| random_element(4, index as u64, 0.0, 1.0)).collect();
        let x = CpuTensor { values, rows: ROWS, width: SIDE };
        let mut out = CpuTensor { values: vec![0.0; ROWS * SIDE], rows: 0, width: SIDE };
        let mut failure = Ok(());
        let passes = timed(|| {
            let product = super::matmul::matmul(&self.threads, kernels, &mut self.packed, &x, &weight, None, &mut out);
            failure = std::mem::replace(&mut failure, Ok(())).and(product);
        });
        failure?;
        std::hint::black_box(&out);
        Ok(product(&passes, ROWS, element, BY))
    }
}

fn product(passes: &Passes, rows: usize, element: Element, by: &str) -> Ceiling {
    let operations = 2.0 * rows as f64 * (SIDE as f64).powi(2);
    let size = if rows == SIDE { format!("{SIDE}^3") } else { format!("{rows}x{SIDE}^2") };
    let ceiling = passes.ceiling(CeilingKind::MatrixProduct, operations, by, size);
    Ceiling { element: Some(element.name().to_owned()), ..ceiling }
}

/// Sum of all words, in enough lanes that loads and not additions limit it. Several neighbouring pages are walked side by
/// side and the next ones asked for, as a product walks several weight rows: one stream alone keeps too few cache lines
/// under way to fill a bus.
#[inline(always)]
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [[0_u64; LINE]; STREAMS];
    for pages in words.chunks_exact(STREAMS * PAGE) {
        for at in (0..PAGE).step_by(LINE) {
            for (stream, lanes) in lanes.iter_mut().enumerate() {
                let line: &[u64; LINE] = pages[stream * PAGE + at..].first_chunk().expect("a page is whole lines");
                prefetch(line.as_ptr().wrapping_add(STREAMS * PAGE));
                for (lane, word) in lanes.iter_mut().zip(line) {
                    *lane = lane.wrapping_add(*word);
                }
            }
        }
    }
    lanes.iter().flatten().fold(0, |sum, lane| sum.wrapping_add(*lane))
}

/// Asks memory for a cache line ahead of its use, where there is a way to.
#[inline(always)]
fn prefetch(word: *const u64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and may point anywhere; SSE is part of the architecture.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(word.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = word;
}
