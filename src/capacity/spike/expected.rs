//! What a plan says of a load before anybody tries it.

use serde::{Deserialize, Serialize};

use crate::capacity::throughput::Throughput;

/// A plan's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// The load is within what the fleet sustains by the lower end of the measured rate.
    Holds,
    /// It lies between both ends of the interval.
    Open,
    /// It is more than the fleet sustains by the upper end.
    Breaks,
}

impl Expected {
    /// For `calls_per_s` on so many GPUs; margins are no part of it.
    #[must_use]
    pub fn of(throughput: &Throughput, gpus: f64, calls_per_s: f64) -> Self {
        let highest = throughput.ends.map_or(throughput.point, |(_, high)| high);
        if calls_per_s <= throughput.planned.get() * gpus {
            Self::Holds
        } else if calls_per_s > highest.get() * gpus {
            Self::Breaks
        } else {
            Self::Open
        }
    }

    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Holds => "holds",
            Self::Open => "open",
            Self::Breaks => "breaks",
        }
    }
}
