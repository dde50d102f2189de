//! The one layer loop: every family of models is flags of a configuration in it.
//!
//! Generic over the device once, here; above, a forward pass is a boxed [`ForwardPass`].

use std::sync::Arc;

use crate::device::error::DeviceError;
use crate::device::step::{StepBatch, StepLimits};
use crate::device::{AttentionSpec, HeadShape, KvCacheSpec, Ops};
use crate::engine::scheduler::EngineShape;
use crate::engine::weights::Weights;
use crate::model::config::ModelConfig;

/// A model on a device with its cache: computes steps. Object-safe, so that nothing above names a device.
pub trait ForwardPass: Send {
    /// The model it computes.
    fn model(&self) -> &ModelConfig;

    /// Computes the tokens of `batch`, puts their keys and values into the cache and writes the next id of each row
    /// of logits into `sampled`.
    ///
    /// # Errors
    /// When the device fails.
    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError>;

    /// Row `row` of the logits of the step finished last. \[vocabulary\]
    ///
    /// # Errors
    /// When the device fails to hand them over, or has none of them any more since another step was launched.
    fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError>;

    /// The same pass for a host that runs ahead of it; none where steps are only ever computed at once.
    fn ahead(&mut self) -> Option<&mut dyn LaunchAhead> {
        None
    }
}

/// A forward pass of which the host launches a step before it has read the ids of the one before, so that the device never
/// waits for it. Steps are computed in the order in which they were launched; two at most are under way.
pub trait LaunchAhead {
    /// Starts to compute `batch`, whose ids may be fed back from the step launched before ([`FED_BACK`](crate::device::step::FED_BACK)).
    ///
    /// # Errors
    /// When the device fails.
    fn launch(&mut self, batch: &StepBatch) -> Result<(), DeviceError>;

    /// Waits for the earliest step under way, and writes the next id of each of its rows of logits into `sampled`.
    ///
    /// # Errors
    /// When the device fails.
    fn finish(&mut self, sampled: &mut Vec<u32>) -> Result<(), DeviceError>;
}

/// The layer loop on a device.
pub struct Forward<D: Ops> {
    config: Arc<ModelConfig>,
    device: D,
    weights: Arc<Weights<D>>,
    cache: D::KvCache,
    buffers: Buffers<D>,
    /// Steps launched and not finished.
    under_way: usize,
}

impl<D: Ops> std::fmt::Debug for Forward<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Forward").field("device", self.device.identity()).finish_non_exhaustive()
    }
}

/// Intermediate results, allocated once for the largest batch.
struct Buffers<D: Ops> {
    /// The residual stream. \[tokens, hidden\]
    residual: D::Tensor,
    /// Its norm, which each block reads. \[tokens, hidden\]
    normed: D::Tensor,
    /// Packed query, key and value. \[tokens, packed\]
    qkv: D::Tensor,
    /// What attention gathered. \[tokens, query width\]
    attended: D::Tensor,
    /// What a block adds to the residual stream. \[tokens, hidden\]
    added: D::Tensor,
    /// \[tokens, 2 x intermediate\]
    gate_up: D::Tensor,
    /// \[tokens, intermediate\]
    inner: D::Tensor,
    /// The rows whose logits are wanted. \[sequences, hidden\]
    last: D::Tensor,
    /// \[sequences, vocabulary\]
    logits: D::Tensor,
}

/// How a packed row of this model is divided.
#[must_use]
pub fn heads(config: &ModelConfig) -> HeadShape {
    HeadShape { q_heads: config.num_attention_heads, kv_heads: config.num_key_value_heads, head_dim: config.head_dim }
}

/// The cache of an engine of this shape.
#[must_use]
pub fn cache_spec(config: &ModelConfig, shape: &EngineShape) -> KvCacheSpec {
    KvCacheSpec {
        layers: config.num_hidden_layers,
        blocks: shape.num_kv_blocks as usize,
        block_size: shape.block_size,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

/// Widths of the buffers that have a row for each token, and of those that have one for each sequence.
fn widths(config: &ModelConfig) -> ([usize; 7], [usize; 2]) {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let per_token = [hidden, hidden, heads(config).packed_width(), config.q_width(), hidden, 2 * inner, inner];
    (per_token, [hidden, config.vocab_size])
}

/// Bytes of all intermediate results of an engine of this shape, `element` bytes an activation and four a logit.
#[must_use]
pub fn activation_bytes(config: &ModelConfig, shape: &EngineShape, element: u64) -> u64 {
    let (per_token, [last, logits]) = widths(config);
    let per_token = element * per_token.iter().sum::<usize>() as u64;
    let per_sequence = element * last as u64 + 4 * logits as u64;
    shape.max_num_batched_tokens as u64 * per_token + shape.max_num_seqs as u64 * per_sequence
}

impl<D: Ops> Buffers<D> {
    fn new(device: &mut D, config: &ModelConfig, shape: &EngineShape) -> Result<Self, DeviceError> {
        let (tokens, sequences) = (shape.max_num_batched_tokens, shape.max_num_seqs);
        let ([residual, normed, qkv, attended, added, gate_up, inner], [last, logits]) = widths(config);
        Ok(Self {
            residual: device.tensor(tokens, residual)?,
            normed: device.tensor(tokens, normed)?,
            qkv: device.tensor(tokens, qkv)?,
            attended: device.tensor(tokens, attended)?,
            added: device.tensor(tokens, added)?,
            gate_up: device.tensor(tokens, gate_up)?,
            inner: device.tensor(tokens, inner)?,
            last: device.tensor(sequences, last)?,
            logits: device.logits(sequences, logits)?,
        })
    }
}

impl<D: Ops> Forward<D> {
    /// Allocates cache and buffers for an engine of `shape` on `device`; `weights` are of `config`.
    ///
    /// # Errors
    /// When the device has not the memory.
    pub fn new(mut device: D, config: Arc<ModelConfig>, weights: Arc<Weights<D>>, shape: &EngineShape) -> Result<Self, DeviceError> {
        let longest_table = config.max_position_embeddings.div_ceil(shape.block_size).min(shape.num_kv_blocks as usize);
        device.prepare(StepLimits {
            max_tokens: shape.max_num_batched_tokens,
            max_sequences: shape.max_num_seqs,
            max_block_table_entries: shape.max_num_seqs * longest_table,
        })?;
        let buffers = Buffers::new(&mut device, &config, shape)?;
        let cache = device.kv_cache(cache_spec(&config, shape))?;
        Ok(Self { config, device, weights, cache, buffers, under_way: 0 })
    }

    fn layers(&mut self) -> Result<(), DeviceError> {
        let Self { config, device, weights, cache, buffers: b, .. } = self;
        let (eps, heads) = (config.rms_norm_eps, heads(config));
        let scale = (config.head_dim as f32).sqrt().recip();
        device.embed(&weights.embedding, &mut b.residual)?;
        device.rms_norm(&b.residual, &weights.layers[0].input_norm, eps, &mut b.normed)?;
        for (layer, w) in weights.layers.iter().enumerate() {
            device.matmul(&b.normed, &w.qkv, w.qkv_bias.as_ref(), &mut b.qkv)?;
            if let Some((q_norm, k_norm)) = &w.head_norms {
                device.head_norm(&mut b.qkv, q_norm, k_norm, eps, heads)?;
            }
            device.rope_kv_write(&mut b.qkv, &weights.rope, cache, layer, heads)?;
            let attention = AttentionSpec { layer, heads, scale, window: config.windows[layer] };
            device.attention_prefill(&b.qkv, cache, &attention, &mut b.attended)?;
            device.attention_decode(&b.qkv, cache, &attention, &mut b.attended)?;
            device.matmul(&b.attended, &w.attention_output, None, &mut b.added)?;
            device.add_rms_norm(&b.added, &mut b.residual, &w.post_attention_norm, eps, &mut b.normed)?;

            device.matmul(&b.normed, &w.gate_up, None, &mut b.gate_up)?;
            device.silu_mul(&b.gate_up, &mut b.inner)?;
            device.matmul(&b.inner, &w.down, None, &mut b.added)?;
            let next_norm = weights.layers.get(layer + 1).map_or(&weights.norm, |next| &next.input_norm);
            device.add_rms_norm(&b.added, &mut b.residual, next_norm, eps, &mut b.normed)?;
        }
        Ok(())
    }

    fn head(&mut self) -> Result<(), DeviceError> {
        let Self { device, weights, buffers: b, .. } = self;
        device.gather_rows(&b.normed, &mut b.last)?;
        device.matmul(&b.last, weights.output.as_ref().unwrap_or(&weights.embedding), None, &mut b.logits)?;
        device.sample(&b.logits)
    }
}

impl<D: Ops> ForwardPass for Forward<D> {
    fn model(&self) -> &ModelConfig {
        &self.config
    }

    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        self.launch(batch)?;
        self.finish(sampled)
    }

    fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError> {
        if self.under_way > 0 {
            let reason = "logits were asked for of a step after which another one was launched".to_owned();
            return Err(DeviceError::Step { reason });
        }
        let mut rows = Vec::new();
        self.device.download(&self.buffers.logits, &mut rows)?;
        let width = self.config.vocab_size;
        Ok(rows.get(row * width..(row + 1) * width).unwrap_or_default().to_vec())
    }

    fn ahead(&mut self) -> Option<&mut dyn LaunchAhead> {
        if self.device.runs_ahead() { Some(self) } else { None }
    }
}

impl<D: Ops> LaunchAhead for Forward<D> {
    fn launch(&mut self, batch: &StepBatch) -> Result<(), DeviceError> {
        self.device.begin_step(batch)?;
        if !self.device.recorded()? {
            self.layers()?;
            if !batch.logit_rows.is_empty() {
                self.head()?;
            }
        }
        self.device.launch_step()?;
        self.under_way += 1;
        Ok(())
    }

    fn finish(&mut self, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        self.under_way = self.under_way.saturating_sub(1);
        self.device.end_step(sampled)
    }
}
