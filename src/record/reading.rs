//! A reading is a value or a reason.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why there is no value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// The record was written by a version that did not read it.
    #[default]
    NotRecorded,
    /// The device has no such reading.
    NotSupported,
    /// This user may not read it.
    NoPermission,
    /// The GPU no longer answers.
    GpuLost,
    /// The installed library has no such call.
    NoCall,
    /// Somebody else holds what would have to be read.
    InUse,
    /// The call failed for another reason.
    Failed,
    /// No sample fell into the window.
    NoSample,
    /// The window is too short for it: energy needs 10 s.
    WindowTooShort,
    /// It is known of the whole GPU only, and what is measured is an instance of it.
    WholeGpuOnly,
    /// What it is relative to was not measured.
    NotMeasured,
}

impl fmt::Display for Missing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NotRecorded => "not recorded",
            Self::NotSupported => "not supported",
            Self::NoPermission => "no permission",
            Self::GpuLost => "GPU lost",
            Self::NoCall => "not in this driver",
            Self::InUse => "in use by another",
            Self::Failed => "failed",
            Self::NoSample => "no sample",
            Self::WindowTooShort => "window too short",
            Self::WholeGpuOnly => "known of the whole GPU only",
            Self::NotMeasured => "not measured",
        })
    }
}

/// A value or a reason: never a zero or a sentinel that stands for "unknown".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reading<T> {
    /// There is none.
    Missing {
        /// Why.
        missing: Missing,
    },
    /// What was read.
    Value(T),
}

impl<T> Reading<T> {
    /// No value, for that reason.
    #[must_use]
    pub const fn none(missing: Missing) -> Self {
        Self::Missing { missing }
    }

    /// The value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Missing { .. } => None,
        }
    }

    /// The value, or why there is none.
    ///
    /// # Errors
    /// The reason.
    pub fn ok(self) -> Result<T, Missing> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Missing { missing } => Err(missing),
        }
    }

    /// The same of what `of` makes of the value.
    #[must_use]
    pub fn map<U>(self, of: impl FnOnce(T) -> U) -> Reading<U> {
        self.ok().map(of).into()
    }
}

impl<T: Copy> Reading<T> {
    /// The value, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<T> {
        self.value().copied()
    }
}

impl<T> Default for Reading<T> {
    fn default() -> Self {
        Self::none(Missing::NotRecorded)
    }
}

impl<T> From<Result<T, Missing>> for Reading<T> {
    fn from(result: Result<T, Missing>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(missing) => Self::none(missing),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Reading<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => value.fmt(out),
            Self::Missing { missing } => missing.fmt(out),
        }
    }
}
