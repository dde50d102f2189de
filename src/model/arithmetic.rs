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

/// What a device holds of a model, in bytes: its element types are its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldBytes {
    /// A parameter, on average.
    pub per_parameter: f64,
    /// A cached token over all layers, each counted as full attention.
    pub per_cached_token: f64,
}

/// The tokens of one sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// Tokens computed, 1 or more.
    pub tokens: u64,
    /// Tokens cached afterwards, those included.
    pub context: u64,
}

/// What a step must move and compute at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepNeed {
    /// Weights of all products read once, cached keys and values of each sequence once. Activations are not counted: they stay in caches.
    pub bytes: f64,
    /// Floating-point operations.
    pub flops: f64,
}

/// What a step of these sequences must move and compute; each wants the logits of its last token.
#[must_use]
pub fn step_need(config: &ModelConfig, held: HeldBytes, sequences: &[StepSequence]) -> StepNeed {
    let output = config.vocab_size as u64 * config.hidden_size as u64;
    let layers = config.num_hidden_layers as f64;
    let mut need = StepNeed { bytes: held.per_parameter * product_parameters(config) as f64, flops: 0.0 };
    for StepSequence { tokens, context } in sequences {
        need.flops += 2.0 * (tokens * (product_parameters(config) - output) + output) as f64;
        for window in &config.windows {
            let window = window.map_or(u64::MAX, |window| window as u64);
            let attended: u64 = (context + 1 - tokens..=*context).map(|position| position.min(window)).sum();
            need.flops += 4.0 * (config.q_width() as u64 * attended) as f64;
            need.bytes += held.per_cached_token / layers * (*context).min(window.saturating_add(tokens - 1)) as f64;
        }
    }
    need
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::presets;

    /// Llama-3.1-8B in bf16, by hand: 32 layers of 218.1 M and an output matrix of 525.3 M parameters, 128 KiB a cached token.
    #[test]
    fn a_step_of_a_known_model_needs_what_a_person_counts() {
        let config = presets::find("llama-3.1-8b").unwrap().config().unwrap();
        let held = HeldBytes { per_parameter: 2.0, per_cached_token: 131_072.0 };
        let near = |ours: f64, wanted: f64| assert!((ours / wanted - 1.0).abs() < 2e-3, "{ours:e} for {wanted:e}");
        let decode = |batch: usize| step_need(&config, held, &vec![StepSequence { tokens: 1, context: 2048 }; batch]);
        near(decode(1).bytes, 15.01e9 + 0.2684e9);
        near(decode(64).bytes, 15.01e9 + 17.18e9);
        near(decode(256).flops, 4.12e12);
        let prefill = step_need(&config, held, &[StepSequence { tokens: 8192, context: 8192 }]);
        near(prefill.flops, 8192.0 * 2.0 * 6.979e9 + 32.0 * 4.0 * 4096.0 * 8192.0 * 8193.0 / 2.0 + 2.0 * 0.5253e9);
        assert_eq!(decode(1).flops, flops_per_token(&config, 2048) as f64);
    }
}
