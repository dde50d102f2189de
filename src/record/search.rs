//! What the open-loop search for the highest rate came to, as the run keeps it.

use serde::{Deserialize, Serialize};

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The bracket is as narrow as asked for, but for a gap of undecided levels in it (see `gap`).
    Converged,
    /// The lowest rate worth anything breaks the SLO, or one request alone does.
    SloUnmetAtMinimum,
    /// No bracket of decided levels, or one too wide.
    Undecided,
    /// As many probes as a search may have were not enough.
    Probes,
    /// Out of time.
    Budget,
    /// The highest rate the generator is good for still passes.
    GeneratorCeiling,
}

/// What a search found. All rates are of the whole target, requests/s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Why it ended.
    pub stop: Stop,
    /// Where the SLO likely stops being met: what confirmation starts from. `None` without a pass.
    pub rate: Option<f64>,
    /// Highest decided pass under the lowest decided fail.
    pub pass: Option<f64>,
    /// Lowest decided fail.
    pub fail: Option<f64>,
    /// Lowest and highest rate between pass and fail that could not be decided.
    pub gap: Option<(f64, f64)>,
    /// Levels measured.
    pub probes: usize,
    /// Of these, valid.
    pub valid: usize,
}
