//! The answer for one peak: the need by each thing that GPUs run out of, and the fleet that the largest comes to.

use serde::Serialize;

use crate::capacity::fleet::{Carries, Fleet};
use crate::capacity::formula::required_capacity;
use crate::capacity::mix::MixDifference;
use crate::capacity::plan::PlanInputs;
use crate::capacity::retries::Overload;
use crate::capacity::scenario::{Lasts, Scenario};
use crate::units::gpus::{Gpus, Groups};
use crate::units::rate::{CallRate, CallRatePerGpu, LoadMultiplier, RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// What GPUs run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Calls per second within the SLO: the formula.
    Rate,
    /// Calls at once.
    CallsInFlight,
}

/// The need by one of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Need {
    /// Of what.
    pub of: Resource,
    /// Exactly, headroom included.
    pub gpus: Gpus,
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
    /// The need by each thing that GPUs run out of; the largest binds.
    pub needs: Vec<Need>,
    /// What binds.
    pub binding: Resource,
    /// The need, exactly: the largest of them.
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
    /// As machines.
    pub fleet: Fleet,
    /// What this peak does to the fleet of the first requirement, where clients try again; `None` where that fleet carries it.
    pub on_first_fleet: Option<Overload>,
}

/// A peak to be ready for.
pub(super) struct AskedPeak<'a> {
    pub(super) name: &'a str,
    pub(super) rate: VisibleRate,
    pub(super) recompute: RecomputeMultiplier,
    /// Of the planned peak, which calls in flight are known at; 1 for itself.
    pub(super) of_planned: f64,
    pub(super) scenario: Option<&'a Scenario>,
}

impl Requirement {
    pub(super) fn of(asked: &AskedPeak<'_>, inputs: &PlanInputs, mix: Option<&MixDifference>) -> Self {
        let (throughput, headroom) = (&inputs.throughput, inputs.headroom.value);
        let (peak, recompute) = (asked.rate, asked.recompute);
        let of_mix = mix.map_or(1.0, MixDifference::at_worst);
        let (planned, point) = (throughput.planned.times(of_mix), throughput.point.times(of_mix));
        let at = |one_gpu: CallRatePerGpu| required_capacity(peak, recompute, one_gpu, headroom);
        let by_rate = at(planned);
        let without_headroom = required_capacity(peak, recompute, planned, Headroom::NONE);
        let mut margins = vec![Margin { name: "headroom", factor: 1.0 + headroom.get(), without: without_headroom }];
        if planned < point {
            margins.push(Margin { name: "lower end of throughput", factor: point.get() / planned.get(), without: at(point) });
        }
        if of_mix < 1.0 {
            margins.push(Margin { name: "token mix", factor: 1.0 / of_mix, without: at(throughput.planned) });
        }
        let mut needs = vec![Need { of: Resource::Rate, gpus: by_rate }];
        if let (Some(in_flight), Some(per_gpu)) = (&inputs.calls_in_flight, throughput.calls_in_flight) {
            let held = Gpus::holding(in_flight.value * asked.of_planned, per_gpu);
            needs.extend(held.map(|gpus| Need { of: Resource::CallsInFlight, gpus: gpus.with_headroom(headroom) }));
        }
        let binding = needs.iter().copied().reduce(|most, next| if next.gpus > most.gpus { next } else { most });
        let Need { of: binding, gpus: exact } = binding.unwrap_or(needs[0]);
        let bare = required_capacity(peak, recompute, point, Headroom::NONE);
        let change = |input, changed: Gpus| Sensitivity { input, gpus: changed.get() - by_rate.get() };
        let average = inputs.average.value;
        let carries = Carries {
            exact,
            bare,
            average: (average, average * inputs.recompute.value),
            peak: (peak, peak * recompute),
            throughput: planned,
            output_tokens: inputs.mix.as_ref().map(|mix| mix.value).or(throughput.mix).map(|mix| mix.output),
        };
        Self {
            name: asked.name.to_owned(),
            times_average: asked.scenario.map(|scenario| scenario.times_average),
            lasts: asked.scenario.map_or(Lasts::NotStated, |scenario| scenario.lasts),
            peak,
            calls: peak * recompute,
            binding,
            exact,
            whole_gpus: exact.whole_gpus(),
            groups: exact.in_groups_of(inputs.gpus_per_replica),
            range: throughput.ends.map(|(low, high)| (at(high.times(mix.map_or(1.0, MixDifference::at_best))), at(low.times(of_mix)))),
            bare,
            margins,
            sensitivity: vec![
                change("peak", required_capacity(peak * LoadMultiplier::AND_A_TENTH, recompute, planned, headroom)),
                change("recompute", required_capacity(peak, recompute.and_a_tenth(), planned, headroom)),
                change("throughput_per_gpu", at(planned.and_a_tenth())),
                change("headroom", required_capacity(peak, recompute, planned, headroom.and_a_tenth())),
            ],
            fleet: Fleet::of(&carries, inputs.gpus_per_replica, &inputs.fleet),
            on_first_fleet: None,
            needs,
        }
    }
}
