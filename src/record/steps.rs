//! Whole steps of the engine beside the least that the machine could take: what `plimsoll steps` measures.

use serde::{Deserialize, Serialize};

use crate::record::ceilings::CeilingsRecord;

/// What a step computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum StepCase {
    /// The next token of each sequence.
    Decode {
        /// Sequences.
        batch: u32,
        /// Cached tokens of each, the one that is computed included.
        context: u32,
    },
    /// The first tokens of one sequence.
    Prefill {
        /// How many.
        tokens: u32,
    },
}

impl StepCase {
    /// Tokens that it computes.
    #[must_use]
    pub const fn tokens(self) -> u32 {
        match self {
            Self::Decode { batch, .. } => batch,
            Self::Prefill { tokens } => tokens,
        }
    }
}

/// One step that was timed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// What was computed.
    #[serde(flatten)]
    pub case: StepCase,
    /// Seconds of the median step, from handing it over to having its tokens.
    pub median_s: f64,
    /// Of the fastest and of the slowest.
    pub range_s: (f64, f64),
    /// Steps that were timed.
    pub repeats: u32,
    /// Bytes that it must move at least: weights, and cached keys and values.
    pub bytes: f64,
    /// Floating-point operations that it must do.
    pub flops: f64,
    /// The least it could take: bytes at the read bandwidth or operations at the product rate, whichever is longer, in seconds.
    pub floor_s: f64,
    /// Model bandwidth utilisation: share of the read bandwidth that `bytes` in the median time are.
    pub mbu: f64,
    /// Model FLOP utilisation: share of the product rate that `flops` in the median time are.
    pub mfu: f64,
}

impl StepTime {
    /// Tokens a second.
    #[must_use]
    pub fn tokens_per_s(&self) -> f64 {
        f64::from(self.case.tokens()) / self.median_s
    }

    /// Floor over measured: 1 is all that the machine has.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.floor_s / self.median_s
    }

    /// How far the slowest and the fastest step lie apart, as a share of the median.
    #[must_use]
    pub fn spread(&self) -> f64 {
        (self.range_s.1 - self.range_s.0) / self.median_s
    }
}

/// A step that was not timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSkipped {
    /// What it would have computed.
    #[serde(flatten)]
    pub case: StepCase,
    /// Why not, and what to do.
    pub why: String,
}

/// The steps of one model on one device, and the ceilings of the same run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepsRecord {
    /// The model.
    pub model: String,
    /// Element types of weights and arithmetic.
    pub precision: String,
    /// The device's name.
    pub device: String,
    /// What every output says of them.
    pub labels: Vec<String>,
    /// KV blocks of the engine, and tokens of each.
    pub kv_blocks: (u32, u32),
    /// Steps in the order in which they were timed.
    pub steps: Vec<StepTime>,
    /// Steps that were not.
    pub skipped: Vec<StepSkipped>,
    /// The denominators.
    pub ceilings: CeilingsRecord,
}
