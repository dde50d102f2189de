//! Weights on the device: copied from mapped files in pieces, converted there, or drawn there.

use std::sync::Arc;

use half::{bf16, f16};

use crate::device::cuda::driver::{Context, Stream};
use crate::device::cuda::kernels::Kernels;
use crate::device::cuda::launch::Launch;
use crate::device::cuda::memory::{Buffer, Pinned};
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, Values, VectorSource, random_element};

/// Bytes that are copied at once.
const PIECE: usize = 16 << 20;
/// Blocks and threads of the kernels that go over many elements.
const BLOCKS: usize = 1024;
const THREADS: u32 = 256;

/// A matrix `[out, width]` in the device's element type.
#[derive(Debug)]
pub struct CudaMatrix {
    pub(super) values: Buffer,
    pub(super) out: usize,
    pub(super) width: usize,
}

/// A vector in f32, as norms read it, and in the device's element type, as a library's product adds it.
#[derive(Debug)]
pub struct CudaVector {
    pub(super) values: Buffer,
    pub(super) narrow: Buffer,
    pub(super) len: usize,
}

/// Puts weights on the device, one piece after the other.
#[derive(Debug)]
pub(super) struct Uploader {
    context: Arc<Context>,
    element: Element,
    host: Pinned,
    /// Where a piece waits to be converted.
    stored: Buffer,
}

impl Uploader {
    pub(super) fn new(context: &Arc<Context>, element: Element) -> Result<Self, DeviceError> {
        let stored = Buffer::new(context, "a piece of weights", PIECE as u64)?;
        Ok(Self { context: Arc::clone(context), element, host: Pinned::new(context, PIECE)?, stored })
    }

    pub(super) fn matrix(&mut self, stream: &Stream, kernels: &Kernels, parts: &[MatrixSource]) -> Result<CudaMatrix, DeviceError> {
        let width = parts.first().map_or(0, |part| part.width);
        if let Some(other) = parts.iter().find(|part| part.width != width) {
            let reason = format!("it is `{}` wide and the parts before it `{width}`", other.width);
            return Err(DeviceError::Source { what: other.name.clone(), reason });
        }
        let out = parts.iter().map(|part| part.out).sum::<usize>();
        let name = parts.first().map_or("a matrix", |part| &part.name);
        let values = Buffer::new(&self.context, name, (out * width * self.element.bytes()) as u64)?;
        let mut first = 0;
        for part in parts {
            let target = Target { values: &values, first, element: self.element };
            self.part(stream, kernels, &part.name, part.out * width, part.element, &part.values, target)?;
            first += part.out * width;
        }
        Ok(CudaMatrix { values, out, width })
    }

    pub(super) fn vector(&mut self, stream: &Stream, parts: &[VectorSource]) -> Result<CudaVector, DeviceError> {
        let mut widened = Vec::new();
        for part in parts {
            widened.extend(widen(&part.name, part.len, part.element, &part.values)?);
        }
        let name = parts.first().map_or("a vector", |part| &part.name);
        let narrow: Vec<u8> = match self.element {
            Element::F32 => bytemuck::cast_slice(&widened).to_vec(),
            Element::F16 | Element::Bf16 => widened.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        };
        let put = |bytes: &[u8]| {
            let buffer = Buffer::new(&self.context, name, bytes.len() as u64)?;
            buffer.write(stream, 0, bytes)?;
            stream.synchronize()?;
            Ok::<_, DeviceError>(buffer)
        };
        Ok(CudaVector { values: put(bytemuck::cast_slice(&widened))?, narrow: put(&narrow)?, len: widened.len() })
    }

    #[expect(clippy::too_many_arguments, reason = "a part's four facts, and where it goes by which kernels")]
    fn part(
        &mut self,
        stream: &Stream,
        kernels: &Kernels,
        name: &str,
        count: usize,
        stored: Element,
        values: &Values,
        target: Target<'_>,
    ) -> Result<(), DeviceError> {
        match values {
            Values::Random { seed, mean, deviation } if stored == target.element => {
                let args = [target.at(0).into(), (*seed).into(), 0_u64.into(), (count as u64).into(), (*mean).into(), (*deviation).into()];
                Launch::over(stream, kernels.random_weights, BLOCKS, THREADS).with(&args)?;
                stream.synchronize()
            }
            // Rounded to what the model is stored in first, as every device has them.
            Values::Random { seed, mean, deviation } => {
                let value = |index: usize| random_element(*seed, index as u64, *mean, *deviation);
                self.pieces(stream, kernels, count, stored, target, |range, bytes| {
                    let places = bytes.chunks_exact_mut(stored.bytes());
                    range.zip(places).for_each(|(index, place)| store(value(index), stored, place));
                })
            }
            Values::Mapped(bytes) => {
                let given = bytes.as_slice();
                let size = stored.bytes();
                check_length(name, count, stored, given.len())?;
                self.pieces(stream, kernels, count, stored, target, |range, bytes| {
                    bytes.copy_from_slice(&given[range.start * size..range.end * size]);
                })
            }
        }
    }

    /// Copies elements piece by piece as `fill` gives them, straight or through the conversion.
    fn pieces(
        &mut self,
        stream: &Stream,
        kernels: &Kernels,
        count: usize,
        stored: Element,
        target: Target<'_>,
        fill: impl Fn(std::ops::Range<usize>, &mut [u8]),
    ) -> Result<(), DeviceError> {
        let size = stored.bytes();
        for start in (0..count).step_by(PIECE / size) {
            let end = (start + PIECE / size).min(count);
            let bytes = (end - start) * size;
            fill(start..end, &mut self.host.bytes_mut()[..bytes]);
            if stored == target.element {
                target.values.write(stream, target.offset(start), &self.host.bytes()[..bytes])?;
            } else {
                self.stored.write(stream, 0, &self.host.bytes()[..bytes])?;
                let kernel = match stored {
                    Element::F32 => kernels.convert_f32,
                    Element::F16 => kernels.convert_f16,
                    Element::Bf16 => kernels.convert_bf16,
                };
                let args = [target.at(start).into(), self.stored.at(0).into(), ((end - start) as u64).into()];
                Launch::over(stream, kernel, BLOCKS, THREADS).with(&args)?;
            }
            stream.synchronize()?;
        }
        Ok(())
    }
}

/// Where a part goes: from element `first` of `values`.
#[derive(Clone, Copy)]
struct Target<'a> {
    values: &'a Buffer,
    first: usize,
    element: Element,
}

impl Target<'_> {
    fn offset(&self, index: usize) -> u64 {
        ((self.first + index) * self.element.bytes()) as u64
    }

    fn at(&self, index: usize) -> u64 {
        self.values.at(self.offset(index))
    }
}

fn check_length(name: &str, count: usize, element: Element, given: usize) -> Result<(), DeviceError> {
    if given == count * element.bytes() {
        return Ok(());
    }
    let reason = format!("`{count}` elements of `{}` take `{}` bytes and `{given}` are there", element.name(), count * element.bytes());
    Err(DeviceError::Source { what: name.to_owned(), reason })
}

fn store(value: f32, element: Element, place: &mut [u8]) {
    match element {
        Element::F32 => place.copy_from_slice(&value.to_le_bytes()),
        Element::F16 => place.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
        Element::Bf16 => place.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
    }
}

/// A small part as f32, on the host.
fn widen(name: &str, count: usize, element: Element, values: &Values) -> Result<Vec<f32>, DeviceError> {
    let mut stored = vec![0_u8; count * element.bytes()];
    match values {
        Values::Mapped(bytes) => {
            check_length(name, count, element, bytes.as_slice().len())?;
            stored.copy_from_slice(bytes.as_slice());
        }
        Values::Random { seed, mean, deviation } => {
            let places = stored.chunks_exact_mut(element.bytes()).enumerate();
            places.for_each(|(index, place)| store(random_element(*seed, index as u64, *mean, *deviation), element, place));
        }
    }
    let pair = |bytes: &[u8]| [bytes[0], bytes[1]];
    let widen = |bytes: &[u8]| match element {
        Element::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        Element::F16 => f16::from_le_bytes(pair(bytes)).to_f32(),
        Element::Bf16 => bf16::from_le_bytes(pair(bytes)).to_f32(),
    };
    Ok(stored.chunks_exact(element.bytes()).map(widen).collect())
}
