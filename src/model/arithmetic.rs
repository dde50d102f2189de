//! What a shape costs: parameters, weight bytes, key-value bytes and floating-point operations. Pure.
//!
//! Nothing here is measured; `benchmarks/models` carries counts from another implementation to compare with.

use crate::model::config::ModelConfig;
use crate::model::tensors::{self, Dtype, TensorSpec};

/// Parameters, each shared one once.
#[must_use]
pub fn parameters(config: &ModelConfig) -> u64 {
    tensors::tensors(config).iter().map(TensorSpec::elements).sum()
}

/// Parameters of the embedding alone.
#[must_use]
pub fn embedding_parameters(config: &ModelConfig) -> u64 {
    tensors::embedding(config).elements()
}

/// Bytes of all weights stored as `dtype`.
#[must_use]
pub fn weight_bytes(config: &ModelConfig, dtype: Dtype) -> u64 {
    parameters(config) * dtype.bytes() as u64
}

/// Bytes one cached token takes over all layers, each counted as full attention, at `element_bytes` a number.
#[must_use]
pub fn kv_bytes_per_token(config: &ModelConfig, element_bytes: usize) -> u64 {
    let key_and_value = 2;
    (key_and_value * config.num_hidden_layers * config.kv_width() * element_bytes) as u64
}

/// Parameters that take part in the matrix products of one token: all but norms, biases and the look-up, and
/// with the output matrix once whether it is shared or not.
#[must_use]
pub fn product_parameters(config: &ModelConfig) -> u64 {
    let (hidden, inner) = (config.hidden_size as u64, config.intermediate_size as u64);
    let attention = 2 * hidden * (config.q_width() as u64 + config.kv_width() as u64);
    config.num_hidden_layers as u64 * (attention + 3 * hidden * inner) + config.vocab_size as u64 * hidden
}

/// Floating-point operations to compute one token that attends to `attended` tokens, itself included: two per
/// parameter of a product (Kaplan et al. 2020, appendix B), and two each for scores and weighted values.
#[must_use]
pub fn flops_per_token(config: &ModelConfig, attended: u64) -> u64 {
    let attended_in_all_layers: u64 =
        config.windows.iter().map(|window| window.map_or(attended, |window| attended.min(window as u64))).sum();
    2 * product_parameters(config) + 4 * config.q_width() as u64 * attended_in_all_layers
}

/// Bytes that running a model takes: what is compared with the memory there is before anything is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryNeed {
    /// Weights as held by the device.
    pub weights: u64,
    /// All KV blocks.
    pub kv_cache: u64,
    /// Intermediate results of the largest batch.
    pub activations: u64,
    /// The rotation table, what the device's operations keep from call to call, and the bookkeeping of KV blocks.
    pub tables: u64,
}

impl MemoryNeed {
    /// Together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.kv_cache).saturating_add(self.activations).saturating_add(self.tables)
    }
}
