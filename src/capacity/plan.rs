//! A plan: what the capacity formula makes of one measured rate, for each peak one wants to be ready for.
//!
//! Every input says where it comes from, every answer is shown as a range, and with and without each margin, so that
//! margins do not pile up unseen. Rounds nothing behind the reader's back: the exact need stands beside whole GPUs.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::capacity::antipattern;
use crate::capacity::formula::required_capacity;
use crate::capacity::scenario::{Lasts, Scenario};
use crate::capacity::throughput::{Provenance, Throughput};
use crate::clock::Nanos;
use crate::record::finding::Finding;
use crate::units::gpus::{Gpus, Groups};
use crate::units::rate::{CallRate, CallRatePerGpu, LoadMultiplier, RecomputeMultiplier, VisibleRate};
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
    /// The average itself, on purpose.
    AverageOnPurpose,
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
}

impl PlanInputs {
    /// What is taken where nobody says otherwise: GPUs per visible request/s, the four scenarios, no recompute, typical headroom.
    ///
    /// # Panics
    /// Never: 1 request/s is a rate.
    #[must_use]
    pub fn assumed(throughput: Throughput) -> Self {
        let one = VisibleRate::new(1.0).expect("1 request/s is a rate");
        Self {
            throughput,
            average: Input { value: one, provenance: Provenance::Default },
            peak: None,
            recompute: Input { value: RecomputeMultiplier::ONE, provenance: Provenance::Assumed },
            headroom: Input { value: Headroom::TYPICAL, provenance: Provenance::Assumed },
            gpus_per_replica: NonZeroU32::MIN,
            scenarios: Scenario::of_the_capacity_model(),
        }
    }
}

/// One margin, and the answer without it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Margin {
    /// What it is.
    pub name: &'static str,
    /// What it multiplies the answer by.
    pub factor: f64,
    /// The need without this margin, all others kept.
    pub without: Gpus,
}

/// What one input does to the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Which input grows by a tenth.
    pub input: &'static str,
    /// GPUs more (or fewer, below 0).
    pub gpus: f64,
}

/// The answer for one peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Requirement {
    /// Scenario, or the planned peak.
    pub name: String,
    /// On the average visible rate; `None` for a peak given as a rate.
    pub times_average: Option<LoadMultiplier>,
    /// How long it lasts.
    pub lasts: Lasts,
    /// Visible requests per second at the peak.
    pub peak: VisibleRate,
    /// Inference calls per second at the peak.
    pub calls: CallRate,
    /// The need, exactly.
    pub exact: Gpus,
    /// Rounded up.
    pub whole_gpus: u64,
    /// Rounded up to whole replicas.
    pub groups: Groups,
    /// The need at the upper and at the lower end of the throughput interval; `None` where there is no interval.
    pub range: Option<(Gpus, Gpus)>,
    /// The need with no margin at all: published throughput, no headroom.
    pub bare: Gpus,
    /// Each margin by itself.
    pub margins: Vec<Margin>,
    /// What a tenth more of each input does.
    pub sensitivity: Vec<Sensitivity>,
}

/// Inputs, answers and doubts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What it depends on.
    pub inputs: PlanInputs,
    /// The planned peak first, where there is one.
    pub requirements: Vec<Requirement>,
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
}

impl Plan {
    /// Applies the formula to every peak.
    ///
    /// # Errors
    /// When the planned peak is not above the average.
    pub fn of(inputs: PlanInputs) -> Result<Self, PlanError> {
        let mut requirements = Vec::new();
        let average = inputs.average.value;
        match inputs.peak {
            None => {}
            // An average that nobody gave contradicts no peak.
            Some(Peak::Planned { rate, .. }) if inputs.average.provenance == Provenance::Given && rate <= average => {
                return Err(PlanError::AverageAsPeak { peak: rate.get(), average: average.get() });
            }
            Some(Peak::Planned { rate, .. }) => requirements.push(Requirement::of("Planned peak", rate, &inputs)),
            Some(Peak::AverageOnPurpose) => requirements.push(Requirement::of("Average as peak", average, &inputs)),
        }
        requirements.extend(inputs.scenarios.iter().map(|scenario| Requirement {
            times_average: Some(scenario.times_average),
            lasts: scenario.lasts,
            ..Requirement::of(&scenario.name, scenario.peak(average), &inputs)
        }));
        let findings = antipattern::findings(&inputs);
        Ok(Self { inputs, requirements, findings })
    }
}

impl Requirement {
    fn of(name: &str, peak: VisibleRate, inputs: &PlanInputs) -> Self {
        let (throughput, recompute, headroom) = (&inputs.throughput, inputs.recompute.value, inputs.headroom.value);
        let at = |one_gpu: CallRatePerGpu| required_capacity(peak, recompute, one_gpu, headroom);
        let exact = at(throughput.planned);
        let without_headroom = required_capacity(peak, recompute, throughput.planned, Headroom::NONE);
        let mut margins = vec![Margin { name: "headroom", factor: 1.0 + headroom.get(), without: without_headroom }];
        if throughput.planned < throughput.point {
            let factor = throughput.point.get() / throughput.planned.get();
            margins.push(Margin { name: "lower end of throughput", factor, without: at(throughput.point) });
        }
        let change = |input, changed: Gpus| Sensitivity { input, gpus: changed.get() - exact.get() };
        Self {
            name: name.to_owned(),
            times_average: None,
            lasts: Lasts::NotStated,
            peak,
            calls: peak * recompute,
            exact,
            whole_gpus: exact.whole_gpus(),
            groups: exact.in_groups_of(inputs.gpus_per_replica),
            range: throughput.ends.map(|(low, high)| (at(high), at(low))),
            bare: required_capacity(peak, recompute, throughput.point, Headroom::NONE),
            margins,
            sensitivity: vec![
                change("peak", required_capacity(peak * LoadMultiplier::AND_A_TENTH, recompute, throughput.planned, headroom)),
                change("recompute", required_capacity(peak, recompute.and_a_tenth(), throughput.planned, headroom)),
                change("throughput_per_gpu", at(throughput.planned.and_a_tenth())),
                change("headroom", required_capacity(peak, recompute, throughput.planned, headroom.and_a_tenth())),
            ],
        }
    }
}
