//! The answer for one peak: the need by each thing that GPUs run out of, and the fleet that the largest comes to.

use serde::Serialize;

use crate::capacity::fleet::{Carries, Fleet};
use crate::capacity::mix::MixDifference;
use crate::capacity::need::Terms;
use crate::capacity::plan::{Peak, PlanInputs};
use crate::capacity::retries::Overload;
use crate::capacity::scenario::{Lasts, Scenario};
use crate::capacity::sensitivity::{self, Sensitivity};
use crate::capacity::waiting::Waiting;
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
    /// Tokens in the KV cache.
    KvTokens,
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
    /// Calls in flight at the peak, stated or by Little's law; `None` where neither is known.
    pub calls_in_flight: Option<f64>,
    /// Tokens in the KV caches at the peak; `None` where the calls in flight or their lengths are not known.
    pub resident_kv_tokens: Option<f64>,
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
    /// The need at the upper and at the lower end of the throughput interval and of the token mix; `None` where there is no interval.
    pub range: Option<(Gpus, Gpus)>,
    /// The need with no margin at all: published throughput, no headroom.
    pub bare: Gpus,
    /// Each margin by itself.
    pub margins: Vec<Margin>,
    /// What each input does.
    pub sensitivity: Vec<Sensitivity>,
    /// As machines.
    pub fleet: Fleet,
    /// How calls wait on the replicas that carry it; `None` where latency was not measured at the planned rate.
    pub waiting: Option<Waiting>,
    /// What this peak does to the fleet of the first requirement, where clients try again; `None` where that fleet carries it.
    pub on_first_fleet: Option<Overload>,
}

/// A peak to be ready for.
pub(super) struct AskedPeak<'a> {
    pub(super) name: &'a str,
    pub(super) rate: VisibleRate,
    pub(super) recompute: RecomputeMultiplier,
    /// Calls of the planned peak, which calls in flight are known at; `None` where none is planned.
    pub(super) planned_calls: Option<CallRate>,
    pub(super) scenario: Option<&'a Scenario>,
}

impl Requirement {
    pub(super) fn of(asked: &AskedPeak<'_>, inputs: &PlanInputs, mix: Option<&MixDifference>) -> Self {
        let throughput = &inputs.throughput;
        let (peak, recompute) = (asked.rate, asked.recompute);
        let terms = Terms::of(asked, inputs, mix);
        let of_mix = mix.map_or(1.0, MixDifference::factor);
        let point = throughput.point.times(of_mix);
        let Need { of: binding, gpus: exact } = terms.binding();
        let at = |one_gpu: CallRatePerGpu| Terms { one_gpu, ..terms }.exact();
        let margin = |name, without: Gpus| Margin { name, factor: exact.get() / without.get(), without };
        let mut margins = vec![margin("headroom", Terms { headroom: Headroom::NONE, ..terms }.exact())];
        if terms.one_gpu < point {
            margins.push(margin("lower end of throughput", at(point)));
        }
        if of_mix < 1.0 {
            margins.push(margin("token mix", at(throughput.planned)));
        }
        let bare = Terms { one_gpu: point, headroom: Headroom::NONE, ..terms }.exact();
        let (low_mix, high_mix) = mix.map_or((1.0, 1.0), |mix| (mix.low_end(), mix.high_end()));
        let is_peak_of_log = asked.scenario.is_none() && matches!(inputs.peak, Some(Peak::Logged { .. }));
        let average = inputs.average.value;
        let carries = Carries {
            exact,
            bare,
            average: (average, average * inputs.recompute.value),
            peak: (peak, peak * recompute),
            throughput: terms.one_gpu,
            output_tokens: inputs.mix.as_ref().map(|mix| mix.value).or(throughput.mix).map(|mix| mix.output),
        };
        let fleet = Fleet::of(&carries, inputs);
        Self {
            name: asked.name.to_owned(),
            times_average: asked.scenario.map(|scenario| scenario.times_average),
            lasts: asked.scenario.map_or(Lasts::NotStated, |scenario| scenario.lasts),
            peak,
            calls: terms.calls(),
            binding,
            exact,
            whole_gpus: exact.whole_gpus(),
            groups: exact.in_groups_of(inputs.gpus_per_replica),
            range: throughput.ends.map(|(low, high)| (at(high.times(high_mix)), at(low.times(low_mix)))),
            bare,
            margins,
            sensitivity: sensitivity::of(&terms, inputs, is_peak_of_log),
            waiting: Waiting::of(terms.calls().get(), fleet.replicas * u64::from(inputs.gpus_per_replica.get()), inputs),
            fleet,
            on_first_fleet: None,
            calls_in_flight: terms.in_flight(),
            resident_kv_tokens: terms.resident_tokens(),
            needs: terms.needs(),
        }
    }
}
