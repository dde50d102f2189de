//! Peak scenarios: how many times the average a peak is, and for how long.
//!
//! A scenario's load *replaces* the planned peak; it multiplies the average visible rate and nothing else.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::units::NotAQuantity;
use crate::units::rate::{LoadMultiplier, RecomputeMultiplier, VisibleRate};

/// How long a scenario lasts, in the capacity model's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasts {
    /// Hours.
    Hours,
    /// Days.
    Days,
    /// Nobody said.
    NotStated,
}

/// One peak to be ready for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scenario {
    /// As a person names it.
    pub name: String,
    /// On the average visible rate.
    pub times_average: LoadMultiplier,
    /// How long.
    pub lasts: Lasts,
    /// Calls per successful output meanwhile, where they are more than usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recompute: Option<RecomputeMultiplier>,
}

impl Scenario {
    /// The four of the capacity model, in its order.
    #[must_use]
    pub fn of_the_capacity_model() -> Vec<Self> {
        [
            ("Normal peak", 2, Lasts::Hours),
            ("Product launch", 5, Lasts::Days),
            ("Viral moment", 10, Lasts::Hours),
            ("Incident recovery", 3, Lasts::Hours),
        ]
        .into_iter()
        .map(|(name, times, lasts)| Self { name: name.to_owned(), times_average: LoadMultiplier::times(times), lasts, recompute: None })
        .collect()
    }

    /// The visible rate it brings.
    #[must_use]
    pub fn peak(&self, average: VisibleRate) -> VisibleRate {
        average * self.times_average
    }
}

/// The text is not a scenario.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScenarioError {
    /// Not `NAME=MULTIPLE`.
    #[error("cannot read `{text}` as a scenario: {wrong}. Write a name and a multiple of the average, such as `Black Friday=7`")]
    Form {
        /// What was given.
        text: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// The multiple is none.
    #[error(transparent)]
    Multiple(#[from] NotAQuantity),
}

impl fmt::Display for Scenario {
    /// As it is read.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}={}", self.name, self.times_average.get())
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    /// Reads `Black Friday=7`; `7x` is understood too.
    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        let refuse = |wrong| ScenarioError::Form { text: text.to_owned(), wrong };
        let (name, multiple) = text.split_once('=').ok_or_else(|| refuse("it has no `=`"))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(refuse("it has no name"));
        }
        let multiple = multiple.trim().trim_end_matches(['x', 'X']);
        let multiple = multiple.parse::<f64>().map_err(|_| refuse("what follows `=` is no number"))?;
        Ok(Self { name: name.to_owned(), times_average: LoadMultiplier::new(multiple)?, lasts: Lasts::NotStated, recompute: None })
    }
}
