//! The numbers that the need of one peak is made of, and the need that they come to by each thing that GPUs run out of.
//!
//! Calls in flight are kept as the seconds that a call is held (Little's law), so that more calls are more in flight.

use crate::capacity::formula::required_capacity;
use crate::capacity::mix::{MixDifference, TokenMix};
use crate::capacity::plan::PlanInputs;
use crate::capacity::requirement::{AskedPeak, Need, Resource};
use crate::units::gpus::Gpus;
use crate::units::rate::{CallRate, CallRatePerGpu, RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// Everything that a need depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) peak: VisibleRate,
    pub(super) recompute: RecomputeMultiplier,
    pub(super) one_gpu: CallRatePerGpu,
    pub(super) headroom: Headroom,
    pub(super) held: Option<Held>,
    pub(super) resident: Option<Resident>,
}

/// Calls in flight that were stated, and how many one GPU holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// Seconds that a call is held.
    pub(super) seconds: f64,
    /// Calls in flight on one GPU at the SLO, where that was measured.
    pub(super) per_gpu: Option<f64>,
}

/// Tokens in the KV cache, and how many one GPU holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resident {
    /// Seconds that a call is held.
    pub(super) seconds: f64,
    /// Tokens that it holds on average.
    pub(super) tokens_a_call: f64,
    /// Tokens that the KV cache of one GPU holds, where that is known.
    pub(super) kv_tokens: Option<f64>,
}

impl Terms {
    /// Of a peak; with the token mix as the plan takes it.
    pub(super) fn of(asked: &AskedPeak<'_>, inputs: &PlanInputs, mix: Option<&MixDifference>) -> Self {
        let throughput = &inputs.throughput;
        let calls = asked.rate * asked.recompute;
        // What is stated is stated for the planned peak, or for any where there is none.
        let stated_at = asked.planned_calls.unwrap_or(calls).get();
        let stated = inputs.calls_in_flight.as_ref().map(|stated| stated.value / stated_at);
        let held = stated.map(|seconds| Held { seconds, per_gpu: throughput.calls_in_flight });
        Self {
            peak: asked.rate,
            recompute: asked.recompute,
            one_gpu: throughput.planned.times(mix.map_or(1.0, MixDifference::factor)),
            headroom: inputs.headroom.value,
            held,
            resident: resident(inputs, stated),
        }
    }

    pub(super) fn calls(&self) -> CallRate {
        self.peak * self.recompute
    }

    /// Calls in flight at the peak, as stated or by Little's law.
    pub(super) fn in_flight(&self) -> Option<f64> {
        let seconds = self.held.map(|held| held.seconds).or(self.resident.map(|resident| resident.seconds))?;
        Some(self.calls().get() * seconds)
    }

    /// Tokens in the KV caches at the peak.
    pub(super) fn resident_tokens(&self) -> Option<f64> {
        let resident = self.resident?;
        Some(self.calls().get() * resident.seconds * resident.tokens_a_call)
    }

    /// The need by each thing, calls per second first.
    pub(super) fn needs(&self) -> Vec<Need> {
        let by_rate = required_capacity(self.peak, self.recompute, self.one_gpu, self.headroom);
        let mut needs = vec![Need { of: Resource::Rate, gpus: by_rate }];
        let mut add = |of: Resource, much: f64, per_gpu: f64| {
            let gpus = Gpus::holding(much, per_gpu).map(|gpus| gpus.with_headroom(self.headroom));
            needs.extend(gpus.map(|gpus| Need { of, gpus }));
        };
        if let Some(Held { seconds, per_gpu: Some(per_gpu) }) = self.held {
            add(Resource::CallsInFlight, self.calls().get() * seconds, per_gpu);
        }
        if let (Some(tokens), Some(kv_tokens)) = (self.resident_tokens(), self.resident.and_then(|resident| resident.kv_tokens)) {
            add(Resource::KvTokens, tokens, kv_tokens);
        }
        needs
    }

    /// The largest need: it binds.
    pub(super) fn binding(&self) -> Need {
        let by_rate = Need { of: Resource::Rate, gpus: required_capacity(self.peak, self.recompute, self.one_gpu, self.headroom) };
        self.needs().into_iter().fold(by_rate, |most, next| if next.gpus > most.gpus { next } else { most })
    }

    /// Its GPUs.
    pub(super) fn exact(&self) -> Gpus {
        self.binding().gpus
    }
}

fn resident(inputs: &PlanInputs, stated_seconds: Option<f64>) -> Option<Resident> {
    let throughput = &inputs.throughput;
    let TokenMix { input, output } = inputs.mix.as_ref().map(|mix| mix.value).or(throughput.mix)?;
    let by_little = || Some(throughput.operating.call.as_ref()?.mean_ms / 1000.0);
    Some(Resident {
        seconds: stated_seconds.or_else(by_little)?,
        // Of a call in the middle of its answer.
        tokens_a_call: input + output / 2.0,
        kv_tokens: inputs.kv_tokens_per_gpu.as_ref().map(|kv| kv.value),
    })
}
