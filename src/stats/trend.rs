//! Does a queue grow? The slope of a series, with an interval that autocorrelation cannot make too short.
//!
//! A least-squares slope takes neighbours for independent and finds a trend in every random walk; and the number in
//! flight near capacity *is* a random walk. Its increments over long blocks are independent there, so Student's
//! interval of the mean increment is exact at the edge of stability, and too long (never too short) below it, where
//! increments undo each other.

use serde::{Deserialize, Serialize};

use crate::stats::interval::{Interval, mean, student};

/// Blocks the series is cut into, where it is long enough.
pub const BLOCKS: usize = 20;
/// Blocks under which there is no interval.
pub const BLOCKS_MIN: usize = 5;

/// A slope per unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Mean increment per unit of time.
    pub slope: f64,
    /// Its interval.
    pub interval: Interval,
}

/// The trend of values taken at equal distances of `spacing` units of time; `None` of too few values.
#[must_use]
pub fn trend(values: &[f64], spacing: f64, confidence: f64) -> Option<Trend> {
    let steps = values.len().checked_sub(1)?;
    let blocks = BLOCKS.min(steps);
    if blocks < BLOCKS_MIN || spacing <= 0.0 {
        return None;
    }
    let block = steps / blocks;
    // What does not fill a block is left out at the front.
    let values = &values[steps % block..];
    let slopes: Vec<f64> =
        values.chunks(block).zip(values[block..].chunks(block)).map(|(from, to)| (to[0] - from[0]) / (block as f64 * spacing)).collect();
    Some(Trend { slope: mean(&slopes)?, interval: student(&slopes, confidence)? })
}
