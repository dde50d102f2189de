//! Whole numbers with how often each was seen: exact quantiles of any number of values in bounded memory.
//!
//! Its quantiles lie on a straight line between neighbours, as SQL's `PERCENTILE_CONT` does, because they describe logs that
//! others query with SQL. What the program measures itself has the nearest rank ([`crate::stats::quantile`]).

use std::collections::BTreeMap;

/// Below this, each value has its own place.
const EXACT: u64 = 1 << 20;
/// Above, values are kept to this: under a part in a thousand of them.
const COARSE: u64 = 1 << 10;

/// A distribution of whole numbers.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    small: Vec<u64>,
    large: BTreeMap<u64, u64>,
    count: u64,
    sum: f64,
    sum_of_squares: f64,
    max: Option<u64>,
}

impl Counted {
    /// Adds one value.
    pub fn add(&mut self, value: u64) {
        self.add_many(value, 1);
    }

    /// Adds a value `times` over. Values above 2^20 are kept to 1,024.
    pub fn add_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        if value < EXACT {
            let at = value as usize;
            if at >= self.small.len() {
                self.small.resize((at + 1).next_power_of_two(), 0);
            }
            self.small[at] += times;
        } else {
            *self.large.entry(value / COARSE * COARSE).or_default() += times;
        }
        self.count += times;
        let (value_f, times_f) = (value as f64, times as f64);
        self.sum += value_f * times_f;
        self.sum_of_squares += value_f * value_f * times_f;
        self.max = self.max.max(Some(value));
    }

    /// Values added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; `None` of none.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The largest; `None` of none.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.max
    }

    /// Variance over mean, of the values as a whole population: 1 for Poisson counts. `None` where there is no mean above 0.
    #[must_use]
    pub fn index_of_dispersion(&self) -> Option<f64> {
        let mean = self.mean().filter(|mean| *mean > 0.0)?;
        Some((self.sum_of_squares / self.count as f64 - mean * mean).max(0.0) / mean)
    }

    /// Quantile `q` in 0..=1, between the two values beside it where it falls between two (`PERCENTILE_CONT`); `None` of none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        continuous(self.count, q, self.values())
    }

    /// Every value with how often it was seen, rising.
    pub fn values(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let small = self.small.iter().enumerate().map(|(value, times)| (value as u64, *times));
        small.filter(|(_, times)| *times > 0).chain(self.large.iter().map(|(value, times)| (*value, *times)))
    }
}

/// Quantile `q` of `count` values given rising, each with how often it was seen, as `PERCENTILE_CONT` has it.
pub(super) fn continuous(count: u64, q: f64, rising: impl Iterator<Item = (u64, u64)>) -> Option<f64> {
    let last = count.checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let (lower, fraction) = (position.floor() as u64, position.fract());
    let (mut passed, mut below) = (0, None);
    for (value, times) in rising {
        passed += times;
        if below.is_none() && passed > lower {
            below = Some(value as f64);
        }
        if let Some(below) = below
            && (fraction == 0.0 || passed > lower + 1 || passed == count)
        {
            return Some(below + (value as f64 - below) * fraction);
        }
    }
    below
}
