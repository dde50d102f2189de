//! A plan: what the capacity formula makes of one measured rate, for each peak one wants to be ready for.
//!
//! Every input says where it comes from, every answer is shown as a range, and with and without each margin, so that
//! margins do not pile up unseen. Rounds nothing behind the reader's back: the exact need stands beside whole GPUs.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::capacity::antipattern;
use crate::capacity::demand::PeakOf;
use crate::capacity::fleet::FleetInputs;
use crate::capacity::mix::{MixDifference, TokenMix};
use crate::capacity::outcome::{OutcomeInputs, OutcomeJudgement};
use crate::capacity::requirement::{AskedPeak, Requirement};
use crate::capacity::retries::{Overload, USUAL_ATTEMPTS};
use crate::capacity::scenario::Scenario;
use crate::capacity::throughput::{Provenance, Throughput};
use crate::clock::Nanos;
use crate::record::demand::LogKind;
use crate::record::finding::Finding;
use crate::units::rate::{RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// A quantity and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Input<T> {
    /// How much.
    pub value: T,
    /// Says who.
    pub provenance: Provenance,
}

impl<T> Input<T> {
    /// Given by the person who plans.
    pub fn given(value: T) -> Self {
        Self { value, provenance: Provenance::Given }
    }
}

/// A peak that is planned for beside the scenarios.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Peak {
    /// The 99th percentile of a log, or what somebody plans for.
    Planned {
        /// Visible requests per second.
        rate: VisibleRate,
        /// Over which it is the rate: the same traffic has a far higher peak over 1 s than over 1 min.
        #[serde(rename = "window_ns")]
        window: Nanos,
    },
    /// A quantile of what a log's windows show.
    Logged {
        /// Visible requests per second.
        rate: VisibleRate,
        /// Which quantile of which windows.
        of: PeakOf,
        /// Their length.
        #[serde(rename = "window_ns")]
        window: Nanos,
    },
    /// The average itself, on purpose.
    AverageOnPurpose,
}

/// What was going on at once at a log's peak: the worst simultaneous load that it saw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sessions {
    /// Most at once in the busiest minute; where that is not known, in the whole log.
    pub most: f64,
    /// Whether they are calls in flight, and not sessions, which may wait for their users.
    pub are_calls: bool,
}

/// What inputs may be instead of what they are, by the log that they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Intervals {
    /// Of the planned peak, visible requests/s: the 95th percentile and the largest of the same windows.
    pub peak: Option<(f64, f64)>,
    /// Of the recompute multiplier: the lowest and the highest of the log's hours.
    pub recompute: Option<(f64, f64)>,
}

/// Everything a plan depends on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanInputs {
    /// What one GPU sustains at the SLO.
    pub throughput: Throughput,
    /// Average visible rate, which scenarios multiply.
    pub average: Input<VisibleRate>,
    /// A peak of its own.
    pub peak: Option<Peak>,
    /// Inference calls per successful output.
    pub recompute: Input<RecomputeMultiplier>,
    /// Added to the need.
    pub headroom: Input<Headroom>,
    /// GPUs that one replica of the model spans.
    pub gpus_per_replica: NonZeroU32,
    /// Each is one row of the answer.
    pub scenarios: Vec<Scenario>,
    /// What a line of the log is that average and peak come from; `None` without a log.
    pub log: Option<LogKind>,
    /// Calls in flight at the planned peak, where they are known otherwise than through the rate.
    pub calls_in_flight: Option<Input<f64>>,
    /// Most sessions or calls that the log saw at once in its busiest minute.
    pub sessions: Option<Sessions>,
    /// Tokens that the KV cache of one GPU holds, where that is known.
    pub kv_tokens_per_gpu: Option<Input<f64>>,
    /// What peak and recompute multiplier may be instead, by the log.
    pub intervals: Intervals,
    /// Coefficient of variation of the gaps between calls, by the log; 1 for Poisson.
    pub gap_cv: Option<f64>,
    /// The 99th percentile of prompt lengths, tokens, by the log.
    pub prompt_p99: Option<f64>,
    /// Outcomes, and their objective.
    pub outcome: OutcomeInputs,
    /// Mean tokens of a call, where they are known.
    pub mix: Option<Input<TokenMix>>,
    /// Whether a mix far from the measured one is planned with all the same.
    pub accept_mix: bool,
    /// Where replicas stand and what they cost.
    pub fleet: FleetInputs,
    /// Tries of a call, the first included.
    pub attempts: NonZeroU32,
    /// What is known against the demand; among the findings.
    #[serde(skip)]
    pub doubts: Vec<Finding>,
}

impl PlanInputs {
    /// What is taken where nobody says otherwise: GPUs per visible request/s, the four scenarios, no recompute, typical headroom.
    ///
    /// # Panics
    /// Never: 1 request/s is a rate.
    #[must_use]
    pub fn assumed(throughput: Throughput) -> Self {
        let one = VisibleRate::new(1.0).expect("1 request/s is a rate");
        let measured = throughput.provenance.clone();
        let kv_tokens_per_gpu = throughput.operating.kv_tokens_per_gpu.map(|value| Input { value, provenance: measured });
        Self {
            throughput,
            average: Input { value: one, provenance: Provenance::Default },
            peak: None,
            recompute: Input { value: RecomputeMultiplier::ONE, provenance: Provenance::Assumed },
            headroom: Input { value: Headroom::TYPICAL, provenance: Provenance::Assumed },
            gpus_per_replica: NonZeroU32::MIN,
            scenarios: Scenario::of_the_capacity_model(),
            log: None,
            calls_in_flight: None,
            sessions: None,
            kv_tokens_per_gpu,
            intervals: Intervals::default(),
            gap_cv: None,
            prompt_p99: None,
            outcome: OutcomeInputs::default(),
            mix: None,
            accept_mix: false,
            fleet: FleetInputs::default(),
            attempts: USUAL_ATTEMPTS,
            doubts: Vec::new(),
        }
    }
}

impl PlanInputs {
    /// Of one GPU for an hour, where it is known.
    #[must_use]
    pub fn price(&self) -> Option<f64> {
        self.fleet.price_per_gpu_hour
    }
}

/// Inputs, answers and doubts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What it depends on.
    pub inputs: PlanInputs,
    /// How the demand's calls differ from those that were measured; `None` where they do not, or nobody knows.
    pub mix: Option<MixDifference>,
    /// The planned peak first, where there is one.
    pub requirements: Vec<Requirement>,
    /// Outcomes against their objective; `None` without one.
    pub outcome: Option<OutcomeJudgement>,
    /// What a reader should know.
    pub findings: Vec<Finding>,
}

/// The inputs contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// The average was passed off as a peak.
    #[error(
        "a planned peak of {peak} visible requests/s is no peak beside an average of {average}. Give the 99th percentile of one-minute rates; to plan for the average on purpose, say `--average-as-peak`"
    )]
    AverageAsPeak {
        /// Given as peak.
        peak: f64,
        /// Given as average.
        average: f64,
    },
    /// The calls of the demand are others than those that were measured.
    #[error(
        "the demand's calls have {:.0} prompt and {:.0} answer tokens on average, those that were measured {:.0} and {:.0}: more than 20 % apart. Measure with the log's lengths (`plimsoll demand LOG --workload-out FILE`, `plimsoll bench --workload FILE`), or accept a correction with `--accept-mix`",
        difference.asked.input, difference.asked.output, difference.measured.input, difference.measured.output
    )]
    Mix {
        /// Both, and how far apart.
        difference: MixDifference,
    },
}

impl Plan {
    /// Applies the formula to every peak.
    ///
    /// # Errors
    /// When the planned peak is not above the average, or the demand's calls are far from those that were measured.
    pub fn of(inputs: PlanInputs) -> Result<Self, PlanError> {
        let average = inputs.average.value;
        let mix = match (inputs.throughput.mix, &inputs.mix) {
            (Some(measured), Some(asked)) => MixDifference::between(measured, asked.value),
            _ => None,
        };
        let mix = mix.map(|mix| mix.with_cost(inputs.throughput.operating.step.as_ref()));
        if let Some(refused) = mix.filter(|mix| mix.is_refused() && !inputs.accept_mix) {
            return Err(PlanError::Mix { difference: refused });
        }
        let planned = match inputs.peak {
            None => None,
            // An average that nobody gave contradicts no peak.
            Some(Peak::Planned { rate, .. }) if inputs.average.provenance == Provenance::Given && rate <= average => {
                return Err(PlanError::AverageAsPeak { peak: rate.get(), average: average.get() });
            }
            Some(Peak::Planned { rate, .. }) => Some(("Planned peak".to_owned(), rate)),
            Some(Peak::Logged { rate, of, .. }) => Some((format!("Peak of the log, {of}"), rate)),
            Some(Peak::AverageOnPurpose) => Some(("Average as peak".to_owned(), average)),
        };
        let recompute = inputs.recompute.value;
        let planned_calls = planned.as_ref().map(|(_, rate)| *rate * recompute);
        let mut requirements = Vec::new();
        if let Some((name, rate)) = &planned {
            let asked = AskedPeak { name, rate: *rate, recompute, planned_calls, scenario: None };
            requirements.push(Requirement::of(&asked, &inputs, mix.as_ref()));
        }
        for scenario in &inputs.scenarios {
            let rate = scenario.peak(average);
            let recompute = scenario.recompute.unwrap_or(recompute);
            let asked = AskedPeak { name: &scenario.name, rate, recompute, planned_calls, scenario: Some(scenario) };
            requirements.push(Requirement::of(&asked, &inputs, mix.as_ref()));
        }
        if let Some(first) = requirements.first().map(|first| first.fleet.gpus) {
            let one_gpu = inputs.throughput.point.times(mix.as_ref().map_or(1.0, MixDifference::factor));
            for requirement in &mut requirements {
                let overload = Overload::of(requirement.calls, first, one_gpu, inputs.attempts);
                requirement.on_first_fleet = Some(overload).filter(|overload| overload.failing > 0.0);
            }
        }
        let outcome = OutcomeJudgement::of(&inputs.outcome, recompute.get(), inputs.throughput.operating.call.as_ref());
        let findings = antipattern::findings(&inputs, mix.as_ref(), &requirements, outcome.as_ref());
        Ok(Self { inputs, mix, requirements, outcome, findings })
    }
}
