//! The token mix: a rate that was measured with prompts and answers of some lengths, for demand that has others.
//!
//! A call costs `input / P + output / D` of a GPU's time, whatever its rates of prefill `P` and decode `D` are. So if no length grows
//! by more than a factor, the cost does not either: dividing by the larger of the two factors is safe without knowing `P` and `D`,
//! dividing by the smaller is the most that can be hoped for. Where a run's levels tell `P` and `D` ([`StepCost`]), the plan takes the ratio
//! of both costs, and the safe factor stands as the low end of its range.

use serde::Serialize;

use crate::capacity::step_cost::StepCost;

/// Beyond this difference of a mean length a plan refuses unless it is told to go on.
const ACCEPTED: f64 = 0.20;

/// Mean lengths of a call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TokenMix {
    /// Of prompts, tokens.
    pub input: f64,
    /// Of answers, tokens.
    pub output: f64,
}

/// How the demand's mix differs from the measured one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MixDifference {
    /// Measured with.
    pub measured: TokenMix,
    /// Asked for.
    pub asked: TokenMix,
    /// Cost of a measured call over that of an asked one, by the measured cost of a token; `None` where that is not known.
    pub by_cost: Option<f64>,
}

impl MixDifference {
    /// Between both; `None` where they are the same to a thousandth, or one has no length.
    #[must_use]
    pub fn between(measured: TokenMix, asked: TokenMix) -> Option<Self> {
        let positive = |mix: TokenMix| mix.input > 0.0 && mix.output > 0.0;
        let difference = Self { measured, asked, by_cost: None };
        (positive(measured) && positive(asked) && difference.largest() > 0.001).then_some(difference)
    }

    /// With the cost of tokens, where it is known.
    #[must_use]
    pub fn with_cost(self, cost: Option<&StepCost>) -> Self {
        Self { by_cost: cost.map(|cost| cost.call_ms(self.measured) / cost.call_ms(self.asked)), ..self }
    }

    /// What the plan multiplies the measured rate by: the ratio of costs where that is known, else the safe factor. Never above 1.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.by_cost.map_or_else(|| self.at_worst(), |by_cost| by_cost.min(1.0))
    }

    /// The low end of what it may be: the safe factor. It takes the cost of an answer token as fixed; where reading a longer context costs
    /// more than that, the ratio of costs.
    #[must_use]
    pub fn low_end(&self) -> f64 {
        self.at_worst().min(self.factor())
    }

    /// The high end.
    #[must_use]
    pub fn high_end(&self) -> f64 {
        self.at_best().max(self.factor())
    }

    fn factors(&self) -> (f64, f64) {
        (self.asked.input / self.measured.input, self.asked.output / self.measured.output)
    }

    /// The larger of the two relative differences, 0 or more.
    #[must_use]
    pub fn largest(&self) -> f64 {
        let (input, output) = self.factors();
        (input - 1.0).abs().max((output - 1.0).abs())
    }

    /// Whether it is beyond what a plan takes without being told to.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.largest() > ACCEPTED
    }

    /// What the measured rate is multiplied by at worst: never above 1, so that shorter calls earn nothing that was not measured.
    #[must_use]
    pub fn at_worst(&self) -> f64 {
        let (input, output) = self.factors();
        (1.0 / input.max(output)).min(1.0)
    }

    /// What it may be multiplied by at best, never above 1 either.
    #[must_use]
    pub fn at_best(&self) -> f64 {
        let (input, output) = self.factors();
        (1.0 / input.min(output)).min(1.0)
    }
}
