//! Activations, the rotation table and the paged cache on the device.

use std::sync::Arc;

use half::bf16;

use crate::device::KvCacheSpec;
use crate::device::cuda::driver::{Context, Stream};
use crate::device::cuda::memory::Buffer;
use crate::device::error::DeviceError;
use crate::device::source::Element;

/// Activations of up to `max_rows` rows, or logits.
#[derive(Debug)]
pub struct CudaTensor {
    values: Buffer,
    pub(super) rows: usize,
    pub(super) width: usize,
    max_rows: usize,
    /// f32 for logits, else the device's element type.
    element: Element,
}

impl CudaTensor {
    pub(super) fn new(context: &Arc<Context>, max_rows: usize, width: usize, element: Element) -> Result<Self, DeviceError> {
        let bytes = (max_rows as u64).saturating_mul(width as u64).saturating_mul(element.bytes() as u64);
        let values = Buffer::new(context, &format!("an activation buffer of {max_rows} rows of {width}"), bytes)?;
        Ok(Self { values, rows: 0, width, max_rows, element })
    }

    pub(super) fn address(&self) -> u64 {
        self.values.at(0)
    }

    /// Whether it holds f32 where activations may not.
    pub(super) const fn holds_f32(&self) -> bool {
        matches!(self.element, Element::F32)
    }

    pub(super) fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.max_rows, "`{rows}` rows of `{}` exceed what the tensor was made for", self.width);
        self.rows = rows;
    }

    /// All rows, widened.
    pub(super) fn download(&self, stream: &Stream, values: &mut Vec<f32>) -> Result<(), DeviceError> {
        let count = self.rows * self.width;
        let mut bytes = vec![0_u8; count * self.element.bytes()];
        self.values.read(stream, 0, &mut bytes)?;
        stream.synchronize()?;
        values.clear();
        match self.element {
            Element::F32 => values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
            Element::F16 | Element::Bf16 => values.extend(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        }
        Ok(())
    }

    /// Whole rows, narrowed to the element type.
    pub(super) fn upload(&mut self, stream: &Stream, values: &[f32]) -> Result<(), DeviceError> {
        assert_eq!(values.len() % self.width, 0, "whole rows are uploaded");
        self.set_rows(values.len() / self.width);
        let bytes: Vec<u8> = match self.element {
            Element::F32 => bytemuck::cast_slice(values).to_vec(),
            Element::F16 | Element::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
        };
        self.values.write(stream, 0, &bytes)?;
        stream.synchronize()
    }
}

/// Cosine and sine of every position and pair, in f32.
#[derive(Debug)]
pub struct CudaRope {
    values: Buffer,
    pub(super) head_dim: usize,
}

/// Bytes of the table for `positions` positions.
pub(super) const fn rope_bytes(head_dim: usize, positions: usize) -> u64 {
    (positions as u64).saturating_mul(head_dim as u64 * 4)
}

impl CudaRope {
    /// Angles are products in f32, as in the reference implementations; their functions are taken in f64, on the host.
    pub(super) fn new(context: &Arc<Context>, stream: &Stream, inv_freq: &[f32], max_positions: usize) -> Result<Self, DeviceError> {
        let head_dim = 2 * inv_freq.len();
        let angles = (0..max_positions).flat_map(|position| inv_freq.iter().map(move |frequency| f64::from(position as f32 * frequency)));
        let pairs: Vec<[f32; 2]> = angles.map(|angle| [angle.cos() as f32, angle.sin() as f32]).collect();
        let values = Buffer::new(context, "the rotation table", rope_bytes(head_dim, max_positions))?;
        values.write(stream, 0, bytemuck::cast_slice(&pairs))?;
        stream.synchronize()?;
        Ok(Self { values, head_dim })
    }

    pub(super) fn address(&self) -> u64 {
        self.values.at(0)
    }
}

/// Keys and values of all layers: `[layer][block][kv_head][block_size][head_dim]`, each in an allocation of its own.
#[derive(Debug)]
pub struct CudaKvCache {
    keys: Buffer,
    values: Buffer,
    pub(super) spec: KvCacheSpec,
    layer_bytes: u64,
}

/// Bytes of keys, which are also those of values, of one layer.
fn layer_bytes(spec: &KvCacheSpec, element: Element) -> u64 {
    let sizes = [spec.blocks, spec.kv_heads, spec.block_size, spec.head_dim, element.bytes()];
    sizes.into_iter().fold(1, |product: u64, size| product.saturating_mul(size as u64))
}

/// Bytes of the whole cache.
pub(super) fn cache_bytes(spec: &KvCacheSpec, element: Element) -> u64 {
    layer_bytes(spec, element).saturating_mul(2 * spec.layers as u64)
}

impl CudaKvCache {
    pub(super) fn new(context: &Arc<Context>, spec: KvCacheSpec, element: Element) -> Result<Self, DeviceError> {
        let layer_bytes = layer_bytes(&spec, element);
        let half = layer_bytes.saturating_mul(spec.layers as u64);
        let keys = Buffer::new(context, "the keys of the KV cache", half)?;
        let values = Buffer::new(context, "the values of the KV cache", half)?;
        Ok(Self { keys, values, spec, layer_bytes })
    }

    /// Addresses of a layer's keys and values.
    pub(super) fn layer(&self, layer: usize) -> (u64, u64) {
        let offset = layer as u64 * self.layer_bytes;
        (self.keys.at(offset), self.values.at(offset))
    }
}
