//! What each input does to an answer, the others as they are: a tenth more and less of it, and both ends of its own interval.

use serde::Serialize;

use crate::capacity::need::{Held, Resident, Terms};
use crate::capacity::plan::PlanInputs;
use crate::units::rate::{CallRatePerGpu, LoadMultiplier, RecomputeMultiplier, VisibleRate};
use crate::units::share::Headroom;

/// The capacity model's typical headroom, the interval of one that nobody gave.
const TYPICAL_HEADROOM: (f64, f64) = (0.20, 0.30);

/// What one input does to the answer of one peak.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sensitivity {
    /// Which.
    pub input: &'static str,
    /// GPUs more (or fewer, below 0) where it grows by a tenth.
    pub gpus: f64,
    /// The same where it shrinks by a tenth.
    pub gpus_less: f64,
    /// Money per hour more where it grows and where it shrinks by a tenth, before rounding to machines; `None` without a price.
    pub cost: Option<(f64, f64)>,
    /// Over its own interval; `None` where it has none.
    pub interval: Option<OverInterval>,
}

/// An input at both ends of what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OverInterval {
    /// Lower end and upper end.
    pub ends: (f64, f64),
    /// GPUs more (or fewer) at the lower and at the upper end.
    pub gpus: (f64, f64),
    /// Money per hour, likewise; `None` without a price.
    pub cost: Option<(f64, f64)>,
}

impl Sensitivity {
    /// The larger of what a tenth does, without its sign: GPUs, or money where only money changes.
    #[must_use]
    pub fn swing(&self) -> f64 {
        self.gpus.abs().max(self.gpus_less.abs())
    }
}

/// How much of an input: 1 for what it is.
type Change = fn(&Terms, f64) -> Terms;

/// Of every input that the need depends on.
pub(super) fn of(terms: &Terms, inputs: &PlanInputs, is_peak_of_log: bool) -> Vec<Sensitivity> {
    let base = terms.exact().get();
    let price = inputs.price();
    let one = |input: &'static str, change: Change, value: f64, ends: Option<(f64, f64)>| {
        let by = |times: f64| change(terms, times).exact().get() - base;
        let interval = ends.filter(|_| value > 0.0).map(|(low, high)| {
            let gpus = (by(low / value), by(high / value));
            OverInterval { ends: (low, high), gpus, cost: price.map(|price| (price * gpus.0, price * gpus.1)) }
        });
        let (more, less) = (by(1.1), by(0.9));
        Sensitivity { input, gpus: more, gpus_less: less, cost: price.map(|price| (price * more, price * less)), interval }
    };
    let throughput = inputs.throughput.ends.map(|(low, high)| {
        let of_mix = terms.one_gpu.get() / inputs.throughput.planned.get();
        (low.get() * of_mix, high.get() * of_mix)
    });
    let headroom = terms.headroom.get();
    let typical = Some(TYPICAL_HEADROOM).filter(|(low, high)| (*low..=*high).contains(&headroom));
    let mut found = vec![
        one(
            "peak",
            |terms, times| Terms { peak: scaled(times, terms.peak), ..*terms },
            terms.peak.get(),
            inputs.intervals.peak.filter(|_| is_peak_of_log),
        ),
        one("recompute", recompute, terms.recompute.get(), inputs.intervals.recompute),
        one(
            "throughput_per_gpu",
            |terms, times| Terms { one_gpu: per_gpu(terms.one_gpu, times), ..*terms },
            terms.one_gpu.get(),
            throughput,
        ),
        one("headroom", |terms, times| Terms { headroom: headroom_of(terms.headroom, times), ..*terms }, headroom, typical),
    ];
    if let Some(held) = terms.held {
        let in_flight = held.seconds * terms.calls().get();
        found.push(one("calls in flight", longer, in_flight, None));
    } else if let Some(resident) = terms.resident.filter(|resident| resident.kv_tokens.is_some()) {
        found.push(one("latency of a call", longer, resident.seconds, None));
    }
    if let Some(kv_tokens) = terms.resident.and_then(|resident| resident.kv_tokens) {
        found.push(one("KV tokens per GPU", larger_cache, kv_tokens, None));
    }
    if let Some(price) = price {
        let cost = base * price * 0.1;
        found.push(Sensitivity { input: "price", gpus: 0.0, gpus_less: 0.0, cost: Some((cost, -cost)), interval: None });
    }
    found
}

fn scaled(times: f64, peak: VisibleRate) -> VisibleRate {
    LoadMultiplier::new(times).map_or(peak, |times| peak * times)
}

fn recompute(terms: &Terms, times: f64) -> Terms {
    // Beyond a thousand calls an output it stays what it is.
    let recompute = RecomputeMultiplier::new(terms.recompute.get() * times).unwrap_or(terms.recompute);
    Terms { recompute, ..*terms }
}

fn per_gpu(rate: CallRatePerGpu, times: f64) -> CallRatePerGpu {
    rate.times(times)
}

fn headroom_of(headroom: Headroom, times: f64) -> Headroom {
    Headroom::new(headroom.get() * times).unwrap_or(headroom)
}

fn larger_cache(terms: &Terms, times: f64) -> Terms {
    let larger = |resident: Resident| Resident { kv_tokens: resident.kv_tokens.map(|tokens| tokens * times), ..resident };
    Terms { resident: terms.resident.map(larger), ..*terms }
}

/// Each call is held for longer.
fn longer(terms: &Terms, times: f64) -> Terms {
    let held = terms.held.map(|held| Held { seconds: held.seconds * times, ..held });
    let resident = terms.resident.map(|resident| Resident { seconds: resident.seconds * times, ..resident });
    Terms { held, resident, ..*terms }
}
