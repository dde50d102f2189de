//! Something a reader of a result should know, with its evidence and what to do about it.

use serde::{Deserialize, Serialize};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// May change the decision.
    Warning,
    /// The number must not be used as it stands.
    Serious,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name in snake_case, for scripts.
    pub code: String,
    /// How much it weighs.
    pub severity: Severity,
    /// What was seen, with numbers and units.
    pub evidence: String,
    /// What to do.
    pub next_step: String,
}

impl Finding {
    /// A finding of that severity.
    #[must_use]
    pub fn new(code: &str, severity: Severity, evidence: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { code: code.to_owned(), severity, evidence: evidence.into(), next_step: next_step.into() }
    }
}
