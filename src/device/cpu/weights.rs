//! Matrices and vectors of the CPU device: parts that stay where they are mapped, or random numbers.

use std::fmt;
use std::sync::Arc;

use half::{bf16, f16};

use crate::device::cpu::memory;
use crate::device::cpu::threads::Threads;
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, SharedBytes, Values, VectorSource, random_element};

/// Elements made by one thread at a time.
const PIECE: usize = 1 << 16;

/// One part of a matrix, its bytes aligned for its element type.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    bytes: SharedBytes,
    element: Element,
    out: usize,
}

/// Stored rows of one part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows<'a> {
    /// Binary32.
    F32(&'a [f32]),
    /// Binary16.
    F16(&'a [f16]),
    /// Upper half of binary32.
    Bf16(&'a [bf16]),
}

/// Weights `[out, in]`, in one or more parts stacked along `out`.
#[derive(Clone)]
pub struct CpuMatrix {
    parts: Vec<Part>,
    out: usize,
    width: usize,
}

impl fmt::Debug for CpuMatrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CpuMatrix").field("out", &self.out).field("width", &self.width).finish_non_exhaustive()
    }
}

impl CpuMatrix {
    /// Outputs.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out
    }

    /// Inputs.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes that one product with it reads.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.out * self.width * part.element.bytes()).sum()
    }

    /// Whether all of it is stored in bf16.
    pub(crate) fn is_bf16(&self) -> bool {
        self.parts.iter().all(|part| part.element == Element::Bf16)
    }

    /// Calls `visit` with the stored rows of every part that lies in `range`, and the number of the first of them.
    pub(crate) fn visit<'a>(&'a self, range: std::ops::Range<usize>, mut visit: impl FnMut(usize, Rows<'a>)) {
        let mut start = 0;
        for part in &self.parts {
            let (from, to) = (range.start.max(start), range.end.min(start + part.out));
            if from < to {
                visit(from, part.rows(from - start..to - start, self.width));
            }
            start += part.out;
        }
    }

    /// Widens row `row` into `values`.
    pub(crate) fn widen_row(&self, row: usize, values: &mut [f32]) {
        self.visit(row..row + 1, |_, stored| stored.widen(values));
    }
}

impl Part {
    fn rows(&self, rows: std::ops::Range<usize>, width: usize) -> Rows<'_> {
        let size = self.element.bytes();
        let bytes = &self.bytes.as_slice()[rows.start * width * size..rows.end * width * size];
        match self.element {
            Element::F32 => Rows::F32(bytemuck::cast_slice(bytes)),
            Element::F16 => Rows::F16(bytemuck::cast_slice(bytes)),
            Element::Bf16 => Rows::Bf16(bytemuck::cast_slice(bytes)),
        }
    }
}

impl<'a> Rows<'a> {
    /// Elements.
    pub(crate) fn len(self) -> usize {
        match self {
            Rows::F32(stored) => stored.len(),
            Rows::F16(stored) => stored.len(),
            Rows::Bf16(stored) => stored.len(),
        }
    }

    /// Some of the elements.
    pub(crate) fn slice(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Rows::F32(stored) => Rows::F32(&stored[range]),
            Rows::F16(stored) => Rows::F16(&stored[range]),
            Rows::Bf16(stored) => Rows::Bf16(&stored[range]),
        }
    }

    /// Widens all of it, exactly.
    #[inline(always)]
    pub(crate) fn widen(self, values: &mut [f32]) {
        match self {
            Rows::F32(stored) => values.copy_from_slice(stored),
            Rows::F16(stored) => half::slice::HalfFloatSliceExt::convert_to_f32_slice(stored, values),
            Rows::Bf16(stored) => {
                for (value, stored) in values.iter_mut().zip(stored) {
                    *value = f32::from_bits(u32::from(stored.to_bits()) << 16);
                }
            }
        }
    }
}

/// Takes over the parts of a matrix.
pub(super) fn matrix(threads: &Threads, sources: &[MatrixSource]) -> Result<CpuMatrix, DeviceError> {
    let width = sources.first().map_or(0, |source| source.width);
    if let Some(other) = sources.iter().find(|source| source.width != width) {
        let reason = format!("it is `{}` wide and the parts before it `{width}`", other.width);
        return Err(DeviceError::Source { what: other.name.clone(), reason });
    }
    let parts = sources
        .iter()
        .map(|source| {
            let bytes = elements(threads, &source.name, source.out * source.width, source.element, &source.values)?;
            Ok(Part { bytes, element: source.element, out: source.out })
        })
        .collect::<Result<Vec<_>, DeviceError>>()?;
    Ok(CpuMatrix { out: parts.iter().map(|part| part.out).sum(), parts, width })
}

/// Takes over the parts of a vector, widened.
pub(super) fn vector(threads: &Threads, sources: &[VectorSource]) -> Result<Vec<f32>, DeviceError> {
    let mut values = Vec::new();
    for source in sources {
        let bytes = elements(threads, &source.name, source.len, source.element, &source.values)?;
        let part = Part { bytes, element: source.element, out: 1 };
        let start = values.len();
        memory::grow(&source.name, &mut values, start + source.len)?;
        part.rows(0..1, source.len).widen(&mut values[start..]);
    }
    Ok(values)
}

/// `count` elements, aligned.
fn elements(threads: &Threads, name: &str, count: usize, element: Element, values: &Values) -> Result<SharedBytes, DeviceError> {
    let size = element.bytes();
    match values {
        Values::Mapped(bytes) => {
            let given = bytes.as_slice();
            if given.len() != count * size {
                let reason =
                    format!("`{count}` elements of `{}` take `{}` bytes and `{}` are there", element.name(), count * size, given.len());
                return Err(DeviceError::Source { what: name.into(), reason });
            }
            if given.as_ptr().addr().is_multiple_of(size) {
                fault_in(threads, given);
                return Ok(bytes.clone());
            }
            let mut copy = memory::large_pages(name, given.len())?;
            copy[..given.len()].copy_from_slice(given);
            Ok(whole(copy, given.len()))
        }
        Values::Random { seed, mean, deviation } => {
            let mut map = memory::large_pages(name, count * size)?;
            threads.each(map[..count * size].chunks_mut(PIECE * size).enumerate(), |_, (piece, bytes)| {
                let first = (piece * PIECE) as u64;
                let value = |offset: usize| random_element(*seed, first + offset as u64, *mean, *deviation);
                match element {
                    Element::F32 => {
                        bytemuck::cast_slice_mut::<u8, f32>(bytes).iter_mut().enumerate().for_each(|(offset, slot)| *slot = value(offset));
                    }
                    Element::F16 => {
                        let slots = bytemuck::cast_slice_mut::<u8, f16>(bytes);
                        slots.iter_mut().enumerate().for_each(|(offset, slot)| *slot = f16::from_f32(value(offset)));
                    }
                    Element::Bf16 => {
                        let slots = bytemuck::cast_slice_mut::<u8, bf16>(bytes);
                        slots.iter_mut().enumerate().for_each(|(offset, slot)| *slot = bf16::from_f32(value(offset)));
                    }
                }
            });
            Ok(whole(map, count * size))
        }
    }
}

/// Reads a byte of every page, so that loading and not the first request waits for the disk.
fn fault_in(threads: &Threads, mapped: &[u8]) {
    threads.each(mapped.chunks(PIECE * 16), |_, piece| {
        for page in piece.chunks(4096) {
            std::hint::black_box(page[0]);
        }
    });
}

/// The first `len` bytes of a map (which is never empty, `len` may be 0).
fn whole(map: memmap2::MmapMut, len: usize) -> SharedBytes {
    SharedBytes::new(Arc::new(map), 0..len).expect("a map is at least as long as what was asked for")
}
