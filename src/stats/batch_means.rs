//! The mean of an autocorrelated series with an honest interval: means of batches long enough to be independent.
//!
//! Source: Law, "Simulation Modeling and Analysis", 5th edition, section 9.5.3; the doubling rule is the method's.

use serde::{Deserialize, Serialize};

use crate::stats::interval::{Interval, mean, student};

/// Lag-1 autocorrelation of the batch means at or above which batches are doubled.
pub const CORRELATED: f64 = 0.2;
/// Batches under which there is no interval.
pub const BATCHES_MIN: usize = 5;

/// A mean with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchMeans {
    /// Mean of the values in whole batches.
    pub mean: f64,
    /// Student's interval over the batch means.
    pub interval: Interval,
    /// Values in a batch.
    pub batch: usize,
    /// Batches.
    pub batches: usize,
    /// Lag-1 autocorrelation of the batch means.
    pub lag1: f64,
}

impl BatchMeans {
    /// Half the interval's length over the mean; infinite where the mean is 0.
    #[must_use]
    pub fn relative_half_width(&self) -> f64 {
        if self.mean == 0.0 { f64::INFINITY } else { 0.5 * (self.interval.high - self.interval.low) / self.mean.abs() }
    }
}

/// Lag-1 autocorrelation; 0 of a constant series or of fewer than three values.
#[must_use]
pub fn lag1(values: &[f64]) -> f64 {
    let Some(mean) = mean(values).filter(|_| values.len() > 2) else { return 0.0 };
    let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if spread <= 0.0 {
        return 0.0;
    }
    values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum::<f64>() / spread
}

/// Means of whole batches of `batch` values; a rest at the front is left out, because warm-up is there.
#[must_use]
pub fn means(values: &[f64], batch: usize) -> Vec<f64> {
    let batch = batch.max(1);
    values[values.len() % batch..].chunks_exact(batch).map(|part| part.iter().sum::<f64>() / batch as f64).collect()
}

/// The mean of `values` by batches of at least `batch_min` values, doubled while they are correlated; `None` when the
/// series is too short for [`BATCHES_MIN`] uncorrelated batches.
#[must_use]
pub fn batch_means(values: &[f64], batch_min: usize, confidence: f64) -> Option<BatchMeans> {
    let mut batch = batch_min.max(1);
    loop {
        let means = means(values, batch);
        if means.len() < BATCHES_MIN {
            return None;
        }
        let lag1 = lag1(&means);
        if lag1 < CORRELATED {
            let interval = student(&means, confidence)?;
            return Some(BatchMeans { mean: mean(&means)?, interval, batch, batches: means.len(), lag1 });
        }
        batch *= 2;
    }
}
