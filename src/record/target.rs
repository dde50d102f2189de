//! What the system under test said of itself.

use serde::{Deserialize, Serialize};

/// What a target is, for the record and for the labels of every output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetIdentity {
    /// `engine`, `server`, `null` or `simulated`.
    pub kind: String,
    /// Model or service law, as a person would name it.
    pub model: String,
    /// `cpu`, `cuda:0`, `virtual`; of a server `2 GPUs at http://...`, or its address where nobody said.
    pub device: String,
    /// Element type of weights and arithmetic, such as `f32` or `bf16 weights, f32 arithmetic`.
    pub precision: String,
    /// Devices (GPUs) that the target owns: the divisor of everything per GPU. 1 or more.
    pub devices: u32,
    /// Labels that every output of such a run carries, such as `synthetic weights` or `CPU device: no GPU measurement`.
    pub labels: Vec<String>,
    /// Longest prompt plus answer, tokens; 0 where there is no limit.
    pub max_context: u32,
    /// Ids are in `0..vocab_size`; 0 where the target takes none.
    pub vocab_size: u32,
    /// What bounds a batch of one replica.
    #[serde(default, skip_serializing_if = "BatchLimits::is_unknown")]
    pub batch: BatchLimits,
}

/// What bounds the batch of one replica: an engine, or a server. What is not known is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchLimits {
    /// Most sequences that run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sequences: Option<u32>,
    /// Most tokens of one step, prompts and decoded ones together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_step_tokens: Option<u32>,
    /// Tokens that the KV cache holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_tokens: Option<u64>,
}

impl BatchLimits {
    /// Nothing of it is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

impl TargetIdentity {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn unknown() -> Self {
        let unknown = || "unknown".to_owned();
        let labels = Vec::new();
        Self {
            kind: unknown(),
            model: unknown(),
            device: unknown(),
            precision: unknown(),
            devices: 1,
            labels,
            max_context: 0,
            vocab_size: 0,
            batch: BatchLimits::default(),
        }
    }

    /// What one of its devices is called wherever something is per device: `GPU` only where one was measured.
    #[must_use]
    pub fn device_noun(&self) -> &'static str {
        match self.device.as_str() {
            device if device.starts_with("cuda") || device.contains("GPU") => "GPU",
            _ if self.kind == "server" => "server",
            _ => "device",
        }
    }
}

/// Counters of the target itself: totals since it was made, or what a level added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetCounters {
    /// Engine steps.
    pub steps: u64,
    /// Prompt tokens computed.
    pub prefill_tokens: u64,
    /// Prompt tokens taken from the prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated.
    pub decode_tokens: u64,
    /// Sequences that lost their blocks.
    pub preemptions: u64,
    /// Most KV blocks in use at once since the target was made.
    pub kv_blocks_peak: u64,
    /// KV blocks there are; 0 where the target has none.
    pub kv_blocks_total: u64,
}

impl TargetCounters {
    /// Both together: sums of everything, peaks too, because each counts memory of its own.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            steps: self.steps + other.steps,
            prefill_tokens: self.prefill_tokens + other.prefill_tokens,
            cached_tokens: self.cached_tokens + other.cached_tokens,
            decode_tokens: self.decode_tokens + other.decode_tokens,
            preemptions: self.preemptions + other.preemptions,
            kv_blocks_peak: self.kv_blocks_peak + other.kv_blocks_peak,
            kv_blocks_total: self.kv_blocks_total + other.kv_blocks_total,
        }
    }

    /// What was added since `earlier`; peaks and totals as they are now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            steps: self.steps.saturating_sub(earlier.steps),
            prefill_tokens: self.prefill_tokens.saturating_sub(earlier.prefill_tokens),
            cached_tokens: self.cached_tokens.saturating_sub(earlier.cached_tokens),
            decode_tokens: self.decode_tokens.saturating_sub(earlier.decode_tokens),
            preemptions: self.preemptions.saturating_sub(earlier.preemptions),
            ..*self
        }
    }
}
