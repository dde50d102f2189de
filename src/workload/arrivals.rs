//! When requests arrive in open loop: absolute intended offsets, seeded, at an exact mean rate.
//!
//! A schedule knows nothing of the target, so a slow target cannot slow it. Closed loop needs no schedule;
//! the stamps of a trace make theirs in `workload::trace`.

use std::fmt;
use std::str::FromStr;

use rand::distr::Distribution as _;
use rand_distr::{Exp1, Gamma};
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::rng;
use crate::workload::rate_series::{RateSeries, Then};

/// Ascending offsets from the beginning of a level.
pub type Schedule = Box<dyn Iterator<Item = Nanos> + Send>;

/// The random process of arrivals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ArrivalProcess {
    /// Equal gaps, the first arrival at 0.
    Constant,
    /// Independent arrivals: exponential gaps.
    #[default]
    Poisson,
    /// Gamma-distributed gaps.
    Gamma {
        /// Shape of the gaps, above 0: 1 is Poisson, lower is burstier. The coefficient of variation is `1 / sqrt(burstiness)`.
        burstiness: f64,
    },
    /// Poisson arrivals at a rate that changes with time.
    Series(RateSeries),
}

/// Why there is no such arrival process.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ArrivalError {
    /// The name is unknown.
    #[error(
        "`{0}` is no arrival process. Take `constant`, `poisson`, `gamma:BURSTINESS` such as `gamma:0.5`, or state a rate series in a workload file"
    )]
    Unknown(String),
    /// The gamma shape makes no sense.
    #[error("the burstiness `{0}` is not a number above 0. Take 1 for Poisson, less for burstier traffic")]
    Burstiness(String),
    /// The rate series makes no sense.
    #[error("the rate series {0}. Mend the list of segments")]
    Series(String),
    /// The rate series has another mean than the asked rate.
    #[error("the rate series {0}. Say `then = \"repeat\"`, which makes its mean the asked rate")]
    OffRate(String),
}

impl ArrivalProcess {
    /// Endless intended offsets at a mean of `rate` calls/s (a series that holds its last value: `rate` where its multiplier is 1), the same
    /// for the same seed.
    ///
    /// A rate that is not above 0, or a process that fails [`Self::check`], has no arrivals.
    #[must_use]
    pub fn schedule(&self, rate: f64, seed: u64) -> Schedule {
        let mut stream = rng::stream(seed, "arrivals");
        if !(rate > 0.0 && rate.is_finite()) || self.check().is_err() {
            return Box::new(std::iter::empty());
        }
        // Sums of gaps stay in seconds as f64: after a day at 100,000 calls/s their error is below a microsecond.
        let mut at = 0.0;
        match self {
            Self::Constant => Box::new((0_u64..).map(move |k| Nanos::from_secs_f64(k as f64 / rate))),
            Self::Poisson => {
                let mean_gap = 1.0 / rate;
                Box::new(std::iter::from_fn(move || {
                    let gap: f64 = Exp1.sample(&mut stream);
                    at += gap * mean_gap;
                    Some(Nanos::from_secs_f64(at))
                }))
            }
            Self::Gamma { burstiness } => match Gamma::new(*burstiness, 1.0 / (burstiness * rate)) {
                Ok(gaps) => Box::new(std::iter::from_fn(move || {
                    at += gaps.sample(&mut stream);
                    Some(Nanos::from_secs_f64(at))
                })),
                Err(_) => Box::new(std::iter::empty()),
            },
            Self::Series(series) => {
                // A Poisson process of rate 1 on the axis of expected arrivals, carried back to time.
                let mut inverse = series.inverse();
                Box::new(std::iter::from_fn(move || {
                    let gap: f64 = Exp1.sample(&mut stream);
                    at += gap / rate;
                    inverse.time_of(at).map(Nanos::from_secs_f64)
                }))
            }
        }
    }

    /// Whether its mean is the asked rate over a long time: what a level that is named after its rate needs.
    pub fn keeps_rate(&self) -> Result<(), ArrivalError> {
        match self {
            Self::Series(series) => series.off_rate().map_or(Ok(()), |why| Err(ArrivalError::OffRate(why))),
            Self::Constant | Self::Poisson | Self::Gamma { .. } => Ok(()),
        }
    }

    /// Whether its parameters make sense.
    pub fn check(&self) -> Result<(), ArrivalError> {
        match self {
            Self::Constant | Self::Poisson => Ok(()),
            Self::Gamma { burstiness } if *burstiness > 0.0 && burstiness.is_finite() => Ok(()),
            Self::Gamma { burstiness } => Err(ArrivalError::Burstiness(burstiness.to_string())),
            Self::Series(series) => series.check().map_err(ArrivalError::Series),
        }
    }
}

impl fmt::Display for ArrivalProcess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => write!(out, "constant"),
            Self::Poisson => write!(out, "poisson"),
            Self::Gamma { burstiness } => write!(out, "gamma:{burstiness}"),
            Self::Series(series) => {
                let then = if series.then == Then::Repeat { "repeated" } else { "then held" };
                write!(out, "series of {} segments, {then}", series.segments.len())
            }
        }
    }
}

impl FromStr for ArrivalProcess {
    type Err = ArrivalError;

    fn from_str(text: &str) -> Result<Self, ArrivalError> {
        let process = match text.split_once(':') {
            None if text == "constant" => Self::Constant,
            None if text == "poisson" => Self::Poisson,
            Some(("gamma", shape)) => Self::Gamma { burstiness: shape.parse().map_err(|_| ArrivalError::Burstiness(shape.to_owned()))? },
            _ => return Err(ArrivalError::Unknown(text.to_owned())),
        };
        process.check().map(|()| process)
    }
}
