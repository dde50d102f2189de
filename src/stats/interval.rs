//! An interval with its confidence, and Student's interval of a mean.

use serde::{Deserialize, Serialize};

use crate::stats::special::student_quantile;

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Nominal confidence in (0, 1), such as 0.95.
    pub confidence: f64,
}

impl Interval {
    /// Whether `value` lies inside, ends included.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// The smallest interval that also holds `value`.
    #[must_use]
    pub fn widened_to(self, value: f64) -> Self {
        Self { low: self.low.min(value), high: self.high.max(value), ..self }
    }
}

/// Arithmetic mean; `None` of none.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Unbiased sample variance; `None` of fewer than two.
#[must_use]
pub fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    Some(values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
}

/// Student's interval of the mean of independent values; `None` of fewer than two.
#[must_use]
pub fn student(values: &[f64], confidence: f64) -> Option<Interval> {
    let (mean, variance) = (mean(values)?, variance(values)?);
    let count = values.len() as f64;
    let half = student_quantile(0.5 + confidence / 2.0, count - 1.0) * (variance / count).sqrt();
    Some(Interval { low: mean - half, high: mean + half, confidence })
}
