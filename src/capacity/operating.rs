//! What a run says of one GPU at the rate that is planned with, beside the rate itself; and how far it was measured.

use serde::Serialize;

use crate::capacity::call_latency::CallLatency;
use crate::capacity::step_cost::StepCost;
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::node::GpuTelemetry;
use crate::record::run::RunRecord;
use crate::record::verdict::Outcome;

/// What is known of one GPU at its planned rate; all of it unknown where the rate was typed or imported.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Operating {
    /// GPU by its maker's name, or the processor of a CPU device.
    pub kind: Option<String>,
    /// Tokens that the KV cache holds, for each GPU.
    pub kv_tokens_per_gpu: Option<f64>,
    /// GPUs that the measured replica spans.
    pub gpus_of_replica: Option<u32>,
    /// Most sequences that one replica runs at once.
    pub max_sequences: Option<u32>,
    /// How long a call takes.
    pub call: Option<CallLatency>,
    /// What a token costs of the engine's time.
    pub step: Option<StepCost>,
    /// How far it was measured.
    pub measured: Measured,
}

/// The largest of what valid levels had that the target held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Open loop, within the SLO or not, calls/s per GPU.
    pub calls_per_s_per_gpu: Option<f64>,
    /// Mean calls in flight per GPU.
    pub in_flight_per_gpu: Option<f64>,
    /// Longest prompt, tokens.
    pub prompt_tokens: Option<f64>,
    /// Requests of the largest confirmation or curve level: what a percentile rests on.
    pub requests: Option<u64>,
}

impl Operating {
    /// At `planned` calls/s per device; calls in flight are those of the published rate.
    #[must_use]
    pub fn of(run: &RunRecord, planned: f64, in_flight_per_gpu: Option<f64>) -> Self {
        let target = &run.target;
        // A server is one replica whatever it spans; an engine is one a device.
        let gpus_of_replica = if target.kind == "server" { target.devices.max(1) } else { 1 };
        let batch = in_flight_per_gpu.map(|in_flight| in_flight * f64::from(gpus_of_replica));
        Self {
            kind: kind(run),
            kv_tokens_per_gpu: target.batch.kv_tokens.map(|tokens| tokens as f64 / f64::from(gpus_of_replica)),
            gpus_of_replica: Some(gpus_of_replica),
            max_sequences: target.batch.max_sequences,
            call: CallLatency::at_load(&run.levels, planned),
            step: batch.and_then(|batch| StepCost::fit(run, gpus_of_replica, batch)),
            measured: Measured::of(run),
        }
    }
}

impl Measured {
    fn of(run: &RunRecord) -> Self {
        // What a target did not hold was offered, and not measured.
        let held = |level: &&LevelRecord| !matches!(level.verdict.outcome, Outcome::Unstable | Outcome::Oom | Outcome::Shedding);
        let valid = || run.levels.iter().filter(|level| level.verdict.is_valid()).filter(held);
        let most = |values: &mut dyn Iterator<Item = f64>| values.filter(|value| *value > 0.0).reduce(f64::max);
        let devices = |level: &LevelRecord| f64::from(level.per_device.devices.max(1));
        let open = |level: &&LevelRecord| matches!(level.offered, Offered::Open { .. });
        let counted = |level: &&LevelRecord| matches!(level.purpose, Purpose::Confirmation { .. } | Purpose::Curve);
        Self {
            calls_per_s_per_gpu: most(&mut valid().filter(open).map(|level| level.per_device.calls_per_s)),
            in_flight_per_gpu: most(&mut valid().map(|level| level.in_flight.mean / devices(level))),
            prompt_tokens: run.workload.mix.as_ref().map(|mix| f64::from(mix.input_tokens.max)).filter(|longest| *longest > 0.0),
            requests: valid().filter(counted).map(|level| level.counts.cohort).max(),
        }
    }
}

/// What was measured, by name: the GPUs if they are of one kind.
fn kind(run: &RunRecord) -> Option<String> {
    match &run.node.telemetry {
        GpuTelemetry::Available(inventory) if run.target.device_noun() == "GPU" => {
            let names: Vec<String> = inventory.gpus.iter().map(|gpu| gpu.name.to_string()).collect();
            let first = names.first()?;
            names.iter().all(|name| name == first).then(|| first.clone())
        }
        _ if run.target.device_noun() == "device" => Some(run.node.cpu_model.clone()),
        _ => None,
    }
}
