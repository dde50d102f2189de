//! What a server's own counters said over the window of a level: plain data, each reading a value or a reason.

use serde::{Deserialize, Serialize};

use crate::record::reading::Reading;

/// A reading over the samples of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanMax {
    /// Arithmetic mean.
    pub mean: f64,
    /// Highest.
    pub max: f64,
}

/// What a server added to its totals between two samples inside the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Added {
    /// When the first sample was taken, seconds after the window began.
    pub begin_s: f64,
    /// Seconds between the two.
    pub seconds: f64,
    /// Sequences that lost their blocks.
    pub preemptions: Reading<f64>,
    /// Share of what was looked up in the prefix cache that was found, 0..=1.
    pub prefix_hit_share: Reading<f64>,
    /// Prompt tokens.
    pub prompt_tokens: Reading<f64>,
    /// Generated tokens.
    pub generation_tokens: Reading<f64>,
    /// Output tokens that the generator received meanwhile.
    pub received_tokens: Reading<f64>,
}

/// A server over a window, by its own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerWindow {
    /// Looks in the window that the server answered.
    pub samples: u64,
    /// Share of the window that lies near such a look, 0..=1.
    pub coverage: f64,
    /// Requests in its running batch.
    pub running: Reading<MeanMax>,
    /// Requests that waited for it.
    pub waiting: Reading<MeanMax>,
    /// Share of its KV cache in use, 0..=1.
    pub kv_usage: Reading<MeanMax>,
    /// What its totals grew by.
    pub added: Reading<Added>,
}
