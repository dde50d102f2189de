//! Distributions of whole numbers: prompt and answer lengths, turns of a session, think times.
//!
//! Everything is drawn through the inverse of the distribution function from one uniform number, so the k-th
//! draw depends on a seed and k alone. Values are clamped to the stated limits, never redrawn.

use serde::{Deserialize, Serialize};

use crate::rng;

/// Points at which a mean is integrated: means are exact to about 1 in 10,000.
const MEAN_POINTS: u32 = 1 << 14;

/// A distribution of whole numbers, in the unit that its place states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Distribution {
    /// Always this.
    Fixed(u32),
    /// Each from `min` to `max`, both included, equally likely.
    Uniform {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Gaussian, rounded, clamped: mass beyond a limit lies on the limit.
    Normal {
        /// Mean before clamping.
        mean: f64,
        /// Standard deviation before clamping, above 0.
        std_dev: f64,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// The logarithm is Gaussian; rounded, clamped.
    Lognormal {
        /// Median before clamping, above 0.
        median: f64,
        /// Standard deviation of the natural logarithm, above 0.
        sigma: f64,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// Measured: `[share, value]` pairs from share 0 to share 1, straight lines between them.
    Quantiles(Vec<(f64, u32)>),
}

impl Distribution {
    /// The k-th draw of the stream `seed`.
    #[must_use]
    pub fn draw(&self, seed: u64, k: u64) -> u32 {
        match self {
            Self::Fixed(value) => *value,
            drawn => drawn.quantile(rng::uniform_at(seed, k)),
        }
    }

    /// The value below which a share `u` in [0, 1] of the draws lies.
    #[must_use]
    pub fn quantile(&self, u: f64) -> u32 {
        let clamped = |value: f64, min: u32, max: u32| (value.round().clamp(0.0, f64::from(u32::MAX)) as u32).max(min).min(max);
        match self {
            Self::Fixed(value) => *value,
            Self::Uniform { min, max } => {
                let values = f64::from(max.saturating_sub(*min)) + 1.0;
                min.saturating_add((u * values) as u32).min(*max)
            }
            Self::Normal { mean, std_dev, min, max } => clamped(mean + std_dev * normal_quantile(u), *min, *max),
            Self::Lognormal { median, sigma, min, max } => clamped(median * (sigma * normal_quantile(u)).exp(), *min, *max),
            Self::Quantiles(points) => {
                let above = points.partition_point(|(share, _)| *share <= u).clamp(1, points.len().saturating_sub(1).max(1));
                match (points.get(above - 1), points.get(above)) {
                    (Some(low), Some(high)) => {
                        let way = ((u - low.0) / (high.0 - low.0)).clamp(0.0, 1.0);
                        (f64::from(low.1) + way * (f64::from(high.1) - f64::from(low.1))).round() as u32
                    }
                    (Some(only), None) => only.1,
                    (None, _) => 0,
                }
            }
        }
    }

    /// Mean of the draws, rounding and clamping included.
    #[must_use]
    pub fn mean(&self) -> f64 {
        match self {
            Self::Fixed(value) => f64::from(*value),
            Self::Uniform { min, max } => f64::midpoint(f64::from(*min), f64::from(*max)),
            drawn => {
                let sum: f64 = (0..MEAN_POINTS).map(|k| f64::from(drawn.quantile((f64::from(k) + 0.5) / f64::from(MEAN_POINTS)))).sum();
                sum / f64::from(MEAN_POINTS)
            }
        }
    }

    /// Smallest possible value.
    #[must_use]
    pub fn min(&self) -> u32 {
        self.quantile(0.0)
    }

    /// Largest possible value.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.quantile(1.0)
    }

    /// The same shape with every value multiplied by `factor`, values of 1 and more staying 1 or more.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let times = |value: u32| if value == 0 { 0 } else { scaled(value, factor) };
        match self {
            Self::Fixed(value) => Self::Fixed(times(*value)),
            Self::Uniform { min, max } => Self::Uniform { min: times(*min), max: times(*max) },
            Self::Normal { mean, std_dev, min, max } => {
                Self::Normal { mean: mean * factor, std_dev: std_dev * factor, min: times(*min), max: times(*max) }
            }
            Self::Lognormal { median, sigma, min, max } => {
                Self::Lognormal { median: median * factor, sigma: *sigma, min: times(*min), max: times(*max) }
            }
            Self::Quantiles(points) => Self::Quantiles(points.iter().map(|(share, value)| (*share, times(*value))).collect()),
        }
    }

    /// What is wrong with the parameters when every value must be `least` or more, in words.
    pub(super) fn check(&self, least: u32) -> Result<(), String> {
        let limits = |min: u32, max: u32| match () {
            () if min > max => Err(format!("`min` {min} is above `max` {max}")),
            () if min < least => Err(format!("the smallest value is {min}, and {least} is the least that makes sense")),
            () => Ok(()),
        };
        let positive = |name: &str, value: f64| {
            if value > 0.0 && value.is_finite() { Ok(()) } else { Err(format!("`{name}` is {value} and must be above 0")) }
        };
        match self {
            Self::Fixed(value) => limits(*value, *value),
            Self::Uniform { min, max } => limits(*min, *max),
            Self::Normal { mean, std_dev, min, max } => positive("mean", *mean).and(positive("std_dev", *std_dev)).and(limits(*min, *max)),
            Self::Lognormal { median, sigma, min, max } => {
                positive("median", *median).and(positive("sigma", *sigma)).and(limits(*min, *max))
            }
            Self::Quantiles(points) => {
                let ends = (points.first().map(|point| point.0), points.last().map(|point| point.0));
                if points.len() < 2 || ends != (Some(0.0), Some(1.0)) {
                    return Err("`quantiles` must be two or more [share, value] pairs from share 0 to share 1".to_owned());
                }
                match points.windows(2).find(|pair| !(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1)) {
                    Some(pair) => Err(format!("`quantiles` must rise, and {:?} is followed by {:?}", pair[0], pair[1])),
                    None => limits(points[0].1, points[points.len() - 1].1),
                }
            }
        }
    }
}

/// `tokens` times `factor`, rounded, 1 at least.
pub(super) fn scaled(tokens: u32, factor: f64) -> u32 {
    ((f64::from(tokens) * factor).round() as u32).max(1)
}

/// The standard normal quantile to 7 figures: algorithm AS 241, routine PPND7 (Wichura, Applied Statistics 37, 1988).
fn normal_quantile(u: f64) -> f64 {
    let q = u - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let over = ((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
        let under = ((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0;
        return q * over / under;
    }
    // A draw of exactly 0 stands for everything below the resolution of the uniform numbers.
    let tail = u.min(1.0 - u).max(1.0 / (1_u64 << 54) as f64);
    let r = (-tail.ln()).sqrt();
    let z = if r <= 5.0 {
        let r = r - 1.6;
        let over = ((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r + 1.423_437_277_7;
        over / ((0.120_211_329_75 * r + 0.737_001_642_50) * r + 1.0)
    } else {
        let r = r - 5.0;
        let over = ((0.017_337_203_997 * r + 0.428_682_943_37) * r + 3.081_226_386_0) * r + 6.657_905_115_0;
        over / ((0.012_258_202_635 * r + 0.241_978_942_25) * r + 1.0)
    };
    if q < 0.0 { -z } else { z }
}

#[cfg(test)]
mod tests {
    use super::normal_quantile;

    #[test]
    fn the_normal_quantile_has_the_tabled_values() {
        for (u, z) in
            [(0.5, 0.0), (0.9, 1.281_551_6), (0.975, 1.959_964_0), (0.999, 3.090_232_3), (1e-6, -4.753_424_3), (1e-12, -7.034_484)]
        {
            assert!((normal_quantile(u) - z).abs() < 2e-6, "{u}: {} instead of {z}", normal_quantile(u));
        }
    }
}
