//! How calls wait at a peak: by Erlang's formula, by Allen and Cunneen's for bursts, and by the chain of a replica that slows down as it fills.
//!
//! Beside the measured rate, never in its place: each says what it assumes. The measured latency of a call has the waiting at the measured load in it
//! already.

use serde::Serialize;

use crate::capacity::plan::PlanInputs;
use crate::capacity::staffing::{erlang_c, mean_wait, mean_wait_of_bursts};
use crate::capacity::state_queue::{StateQueue, Steady};

/// Places in the queue of a replica in the chain, for each one in its batch.
const QUEUE_PER_PLACE: u32 = 10;

/// Waiting at one peak on the replicas that carry it, spares not counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Waiting {
    /// Places: calls in flight at the SLO on all those GPUs.
    pub places: u64,
    /// Places that are taken on average: calls/s times the latency of a call.
    pub taken: f64,
    /// Probability that a call finds all of them taken, 0..=1 (Erlang C): Poisson arrivals, exponential latencies.
    pub waits: f64,
    /// Mean wait for a place, milliseconds; `None` where the places do not suffice.
    pub mean_ms: Option<f64>,
    /// The same with the bursts of the log, by Allen and Cunneen; `None` without a log, or where the places do not suffice.
    pub bursty_ms: Option<f64>,
    /// Coefficients of variation of gaps (by the log) and of latencies (measured) that it was found with.
    pub variations: (Option<f64>, f64),
    /// One replica by itself, slowing down as it fills, with its even share of the calls; `None` where its costs are not known.
    pub chain: Option<Steady>,
}

impl Waiting {
    /// At `calls`/s on `gpus` GPUs; `None` where latency or calls in flight were not measured.
    #[must_use]
    pub fn of(calls: f64, gpus: u64, inputs: &PlanInputs) -> Option<Self> {
        let throughput = &inputs.throughput;
        let call = throughput.operating.call.as_ref()?;
        let places = (throughput.calls_in_flight? * gpus as f64).floor().max(1.0) as u64;
        let taken = calls * call.mean_ms / 1000.0;
        let finite = |waits: f64| Some(waits * call.mean_ms).filter(|wait| wait.is_finite());
        let of_latency = call.variation();
        Some(Self {
            places,
            taken,
            waits: erlang_c(places, taken),
            mean_ms: finite(mean_wait(places, taken)),
            bursty_ms: inputs.gap_cv.and_then(|of_gaps| finite(mean_wait_of_bursts(places, taken, of_gaps, of_latency))),
            variations: (inputs.gap_cv, of_latency),
            chain: chain(calls / gpus as f64, inputs),
        })
    }
}

fn chain(calls_per_gpu: f64, inputs: &PlanInputs) -> Option<Steady> {
    let operating = &inputs.throughput.operating;
    let (step, gpus_of_replica) = (operating.step?, operating.gpus_of_replica?);
    let mix = inputs.mix.as_ref().map_or(step.measured, |mix| mix.value);
    let max_batch = operating.max_sequences.unwrap_or(step.batch.ceil() as u32).max(1);
    let replica = StateQueue {
        alpha: step.alpha_ms,
        beta: step.beta_ms,
        gamma: step.gamma_ms,
        max_batch,
        max_queue: max_batch.saturating_mul(QUEUE_PER_PLACE),
        input_tokens: mix.input,
        output_tokens: mix.output,
    };
    replica.at(calls_per_gpu * f64::from(gpus_of_replica))
}
