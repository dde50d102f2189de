//! What `plimsoll doctor` found: each check with what was seen, why, and what to do next.
//!
//! "Could not run" is not "failed": a machine without a GPU fails nothing, and its report counts what waits for one.

use serde::{Deserialize, Serialize};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// In order.
    Ok,
    /// Works, but not as it should, or not everything is there.
    Warning,
    /// Wrong: results of this machine are not to be used before it is mended.
    Failed,
    /// Nothing is known: what the check needs is not there.
    CouldNotRun,
}

impl CheckResult {
    /// In words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "FAILED",
            Self::CouldNotRun => "could not run",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Part of the examination: `libraries`, `gpus`, `permissions`, `telemetry`, `kernels`, `model`.
    pub section: String,
    /// What was checked.
    pub name: String,
    /// How it came out.
    pub result: CheckResult,
    /// What was seen, with numbers and units; of a check that did not come out well, the cause.
    pub evidence: String,
    /// What to do; empty where there is nothing to.
    pub next_step: String,
    /// Whether it could not run because there is no GPU.
    pub waits_for_gpu: bool,
}

impl Check {
    /// A check that came out in order.
    #[must_use]
    pub fn ok(section: &str, name: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self::new(section, name, CheckResult::Ok, evidence, "")
    }

    /// A check of any result.
    #[must_use]
    pub fn new(
        section: &str,
        name: impl Into<String>,
        result: CheckResult,
        evidence: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self {
            section: section.to_owned(),
            name: name.into(),
            result,
            evidence: evidence.into(),
            next_step: next_step.into(),
            waits_for_gpu: false,
        }
    }

    /// A check that there is no GPU for.
    #[must_use]
    pub fn waiting(section: &str, name: impl Into<String>) -> Self {
        let check = Self::new(section, name, CheckResult::CouldNotRun, "it waits for a GPU", "Run it on a machine with one");
        Self { waits_for_gpu: true, ..check }
    }
}

/// The whole examination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The checks, in order.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Checks with this result.
    #[must_use]
    pub fn count(&self, result: CheckResult) -> usize {
        self.checks.iter().filter(|check| check.result == result).count()
    }

    /// Checks that wait for a GPU.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.checks.iter().filter(|check| check.waits_for_gpu).count()
    }
}
