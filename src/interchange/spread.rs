//! How values are distributed, as exports need it: from every value, or from the few quantiles that a level kept.

use serde_json::{Map, Value, json};

use crate::record::level::Distribution;
use crate::stats::quantile::of_sorted;

/// A distribution of finite values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    /// Values in it.
    pub(super) count: u64,
    pub(super) mean: Option<f64>,
    /// Population standard deviation (the divisor is the count), as numpy's `std` in the other tools.
    pub(super) std: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    quantiles: Known,
}

#[derive(Clone, Debug, PartialEq)]
enum Known {
    /// In rising order.
    All(Vec<f64>),
    /// Percentile and value.
    Some(Vec<(f64, f64)>),
}

impl Default for Known {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Spread {
    /// Of every value; what is not finite is left out.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted = values.into_iter().filter(|value| value.is_finite()).collect::<Vec<_>>();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len() as f64;
        let mean = (!sorted.is_empty()).then(|| sorted.iter().sum::<f64>() / count);
        let std = mean.map(|mean| (sorted.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt());
        Self {
            count: sorted.len() as u64,
            mean,
            std,
            min: sorted.first().copied(),
            max: sorted.last().copied(),
            quantiles: Known::All(sorted),
        }
    }

    /// Of what a level kept.
    pub(super) fn kept(of: &Distribution) -> Self {
        let quantiles = [(50.0, of.p50), (90.0, of.p90), (95.0, of.p95), (99.0, of.p99)];
        Self {
            count: of.count,
            mean: of.mean,
            std: None,
            min: None,
            max: of.max,
            quantiles: Known::Some(quantiles.into_iter().filter_map(|(percentile, value)| Some((percentile, value?))).collect()),
        }
    }

    /// The value at a percentile in (0, 100), nearest rank: the other tools interpolate between two ranks, which differs by
    /// less than the gap between neighbouring values.
    pub(super) fn at(&self, percentile: f64) -> Option<f64> {
        match &self.quantiles {
            Known::All(sorted) => of_sorted(sorted, percentile / 100.0),
            Known::Some(known) => known.iter().find(|(at, _)| (at - percentile).abs() < 1e-9).map(|(_, value)| *value),
        }
    }

    /// Sum of all values.
    pub(super) fn sum(&self) -> Option<f64> {
        self.mean.map(|mean| mean * self.count as f64)
    }

    /// The same in another unit.
    pub(super) fn times(&self, factor: f64) -> Self {
        let times = |value: Option<f64>| value.map(|value| value * factor);
        Self {
            count: self.count,
            mean: times(self.mean),
            std: times(self.std),
            min: times(self.min),
            max: times(self.max),
            quantiles: match &self.quantiles {
                Known::All(sorted) => Known::All(sorted.iter().map(|value| value * factor).collect()),
                Known::Some(known) => Known::Some(known.iter().map(|(at, value)| (*at, value * factor)).collect()),
            },
        }
    }
}

/// Puts a value under a name, where there is one.
pub(super) fn put(into: &mut Map<String, Value>, name: impl Into<String>, value: Option<f64>) {
    if let Some(value) = value.filter(|value| value.is_finite()) {
        into.insert(name.into(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_of_values_has_every_percentile_and_one_of_a_level_those_it_kept() {
        let all = Spread::of((1..=100).map(f64::from).chain([f64::NAN]));
        assert_eq!((all.count, all.mean, all.at(99.9), all.at(50.0)), (100, Some(50.5), Some(100.0), Some(50.0)));
        assert!((all.std.expect("there are values") - 28.866_070_047_722_12).abs() < 1e-12);
        let kept = Spread::kept(&Distribution { count: 7, mean: Some(2.0), p99: Some(9.0), ..Distribution::default() });
        assert_eq!((kept.at(99.0), kept.at(50.0), kept.sum()), (Some(9.0), None, Some(14.0)));
        assert_eq!(Spread::of([]).at(50.0), None);
    }
}
