//! Latencies for display and export: an HDR histogram in nanoseconds with three significant figures.
//!
//! SLO verdicts are not made on it: they count misses on the raw nanoseconds.

use hdrhistogram::Histogram as Hdr;

use crate::stats::counted;
use crate::stats::quantile::nearest_rank;

/// Significant decimal figures kept of each value.
pub const SIGNIFICANT_FIGURES: u8 = 3;

/// A distribution of lengths of time, some of which may be infinite (requests that failed or timed out).
#[derive(Clone, Debug)]
pub struct Histogram {
    finite: Hdr<u64>,
    infinite: u64,
    /// Exact sum of the finite values: the mean needs no rounding.
    sum: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram; it grows with what is recorded.
    #[must_use]
    pub fn new() -> Self {
        let finite = Hdr::new(SIGNIFICANT_FIGURES).expect("three significant figures are within what the format allows");
        Self { finite, infinite: 0, sum: 0.0 }
    }

    /// Adds one length of time, nanoseconds.
    pub fn record(&mut self, nanos: u64) {
        self.finite.record(nanos).expect("it grows with its values");
        self.sum += nanos as f64;
    }

    /// Adds one that never ended.
    pub fn record_infinite(&mut self) {
        self.infinite += 1;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.finite.add(&other.finite).expect("both grow as needed and have the same figures");
        self.infinite += other.infinite;
        self.sum += other.sum;
    }

    /// Values recorded, infinite ones included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.finite.len() + self.infinite
    }

    /// Infinite values among them.
    #[must_use]
    pub fn infinite(&self) -> u64 {
        self.infinite
    }

    /// Nearest-rank quantile `q` in 0..=1, nanoseconds, within three figures; `None` of none, or where the rank falls
    /// on an infinite value.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = nearest_rank(self.count(), q);
        if rank == 0 || rank > self.finite.len() {
            return None;
        }
        // Asked for the middle of the rank, the inner rule (smallest value with at least that share) cannot slip by one.
        let inside = (rank as f64 - 0.5) / self.finite.len() as f64;
        Some(self.finite.value_at_quantile(inside).min(self.finite.max()))
    }

    /// Quantile `q` in 0..=1 of the finite values, between the two beside it where it falls between two; `None` of none.
    #[must_use]
    pub fn continuous(&self, q: f64) -> Option<f64> {
        counted::continuous(self.finite.len(), q, self.buckets())
    }

    /// Mean of the finite values, nanoseconds.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (!self.finite.is_empty()).then(|| self.sum / self.finite.len() as f64)
    }

    /// Largest finite value, nanoseconds, within three figures.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (!self.finite.is_empty()).then(|| self.finite.max())
    }

    /// The filled buckets in rising order: highest value of the bucket in nanoseconds, and its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.finite.iter_recorded().map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
    }
}
