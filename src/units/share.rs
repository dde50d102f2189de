//! Shares of something, as plain fractions: 0.25, never 25.

use serde::Serialize;

use crate::units::{NotAQuantity, within};

/// The headroom buffer: the share that is added to the need.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Headroom(f64);

impl Headroom {
    /// Nothing on top.
    pub const NONE: Self = Self(0.0);
    /// What the capacity model calls typical is 0.20 to 0.30; this is its middle.
    pub const TYPICAL: Self = Self(0.25);

    /// From a fraction, 0 to 10. A headroom of 25 is refused: 0.25 was meant.
    ///
    /// # Errors
    /// When it is no such fraction.
    pub fn new(fraction: f64) -> Result<Self, NotAQuantity> {
        within("a headroom, as a fraction of the need,", fraction, 0.0, 10.0).map(Self)
    }

    /// As a fraction.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// A tenth more.
    #[must_use]
    pub fn and_a_tenth(self) -> Self {
        Self(self.0 * 1.1)
    }
}
