//! Measured denominators: what a device can do at most, in the same run and with the same threads.
//!
//! A speed is quoted as a share of these. Each device measures its own; here is what a series of passes becomes.

use crate::device::source::Element;
use crate::record::ceilings::{Ceiling, CeilingKind, CeilingUnit};

/// What is told while ceilings are measured, one after the other.
pub type Told<'a> = &'a mut dyn FnMut(&Ceiling);

/// What is to be measured, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct CeilingWish {
    /// Seconds that each ceiling may take, about; above 0.
    pub seconds_each: f64,
    /// Those that are wanted; `None` is all.
    pub kinds: Option<Vec<CeilingKind>>,
    /// Products of this element type alone; `None` is every one that the device has.
    pub element: Option<Element>,
}

impl CeilingWish {
    /// All of them.
    #[must_use]
    pub const fn all(seconds_each: f64) -> Self {
        Self { seconds_each, kinds: None, element: None }
    }

    /// Whether this one is wanted.
    #[must_use]
    pub fn wants(&self, kind: CeilingKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

/// Seconds of each measured pass, one or more, rising.
#[derive(Clone, Debug)]
pub(super) struct Passes(Vec<f64>);

impl Passes {
    /// From seconds in any order; there is one or more.
    pub(super) fn new(mut seconds: Vec<f64>) -> Self {
        assert!(!seconds.is_empty(), "something was measured");
        seconds.sort_by(f64::total_cmp);
        Self(seconds)
    }

    /// Of the fastest.
    pub(super) fn fastest(&self) -> f64 {
        self.0[0]
    }

    /// What these passes took beyond the fastest of others, which do a part of the same.
    pub(super) fn beyond(&self, part: &Self) -> Self {
        Self(self.0.iter().map(|seconds| (seconds - part.fastest()).max(1e-9)).collect())
    }

    fn median(&self) -> f64 {
        self.0[(self.0.len() - 1) / 2]
    }

    /// The ceiling, when each pass did `amount`: bytes, operations, or repetitions of what is timed.
    pub(super) fn ceiling(&self, kind: CeilingKind, amount: f64, by: &str, size: String) -> Ceiling {
        let unit = kind.unit();
        let value = |seconds: f64| if unit == CeilingUnit::Seconds { seconds / amount } else { amount / seconds };
        Ceiling {
            kind,
            element: None,
            by: by.to_owned(),
            size,
            unit,
            best: value(self.fastest()),
            median: value(self.median()),
            repeats: self.0.len() as u32,
            spread: self.0[(9 * self.0.len()).div_ceil(10) - 1] / self.fastest() - 1.0,
        }
    }
}

/// `4 GiB`, `512 MiB`, `12.5 MiB`.
pub(super) fn bytes_text(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    let (value, unit) = match kib {
        ..1024.0 => (kib, "KiB"),
        ..1_048_576.0 => (kib / 1024.0, "MiB"),
        _ => (kib / 1_048_576.0, "GiB"),
    };
    let digits = if value.fract() == 0.0 { 0 } else { 1 };
    format!("{value:.digits$} {unit}")
}
