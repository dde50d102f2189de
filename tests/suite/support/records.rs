//! Records with plausible figures, for promises about keeping and showing them.

use std::path::Path;

use plimsoll::clock::Nanos;
use plimsoll::record::SCHEMA_VERSION;
use plimsoll::record::level::{
    Counts, GeneratorAudit, InFlight, Latencies, LevelRecord, Offered, PerDevice, Purpose, SloJudgement, Throughput,
};
use plimsoll::record::node::{GpuTelemetry, NodeRecord};
use plimsoll::record::request::{Chunk, Ending, RequestRecord};
use plimsoll::record::run::{ColdStart, DemandRecord, RunRecord, RunStatus, WorkloadRecord};
use plimsoll::record::target::{BatchLimits, TargetCounters, TargetIdentity};
use plimsoll::record::telemetry::Telemetry;
use plimsoll::record::verdict::{Outcome, Verdict};
use plimsoll::store::runs::RunStore;
use plimsoll::workload::request::Tally;

fn no_telemetry() -> Telemetry {
    Telemetry::Unavailable { why: "a test".to_owned() }
}

/// A run that has just begun.
pub(crate) fn run(id: &str) -> RunRecord {
    RunRecord {
        schema_version: SCHEMA_VERSION,
        id: id.to_owned(),
        version: "0.1.0".to_owned(),
        created: "2026-01-02T03:04:05Z".to_owned(),
        status: RunStatus::Running,
        command: vec!["plimsoll".to_owned(), "bench".to_owned()],
        labels: vec!["simulated".to_owned()],
        node: NodeRecord {
            hostname: "node-1".to_owned(),
            os: "Linux".to_owned(),
            kernel: "6.1".to_owned(),
            cpu_model: "a processor".to_owned(),
            cores: 2,
            cpu_quota_cores: None,
            memory_bytes: 1 << 34,
            cpu_features: vec!["avx2".to_owned()],
            numa_nodes: vec![],
            profilers: vec![],
            telemetry: GpuTelemetry::Unavailable { why: "a test".to_owned() },
        },
        target: TargetIdentity {
            kind: "simulated".to_owned(),
            model: "a law".to_owned(),
            device: "virtual".to_owned(),
            precision: "none".to_owned(),
            devices: 1,
            labels: vec![],
            max_context: 0,
            vocab_size: 0,
            batch: BatchLimits::default(),
        },
        workload: WorkloadRecord {
            name: "chat".to_owned(),
            mean_input_tokens: 100.0,
            mean_output_tokens: 20.0,
            arrivals: "poisson".to_owned(),
            source: "a test".to_owned(),
            mix: None,
            trace: None,
            labels: vec![],
            hash: "00".to_owned(),
        },
        slo: None,
        seed: 7,
        demand: DemandRecord::default(),
        quick: false,
        plan_hash: "00".to_owned(),
        cold_start: ColdStart::default(),
        generator_ceiling: None,
        server: None,
        ceilings: None,
        decode_need: None,
        idle: Vec::new(),
        drift: None,
        search: None,
        headline: None,
        findings: vec![],
        levels: vec![],
    }
}

/// A level of a sweep.
pub(crate) fn level(index: u32) -> LevelRecord {
    LevelRecord {
        schema_version: SCHEMA_VERSION,
        index,
        purpose: Purpose::Sweep,
        offered: Offered::Closed { concurrency: 1 << index.min(20) },
        seed: u64::from(index),
        started: "2026-01-02T03:04:05Z".to_owned(),
        warm_up_s: 1.0,
        window_s: 10.0,
        window: (Nanos::from_secs(1), Nanos::from_secs(11)),
        tail_s: 0.5,
        counts: Counts { cohort: 100, completed: 100, whole_level: 120, ..Counts::default() },
        traffic: Tally::default(),
        throughput: Throughput { calls_per_s: 10.0, ..Throughput::default() },
        by_device: Vec::new(),
        per_device: PerDevice { devices: 1, calls_per_s: 10.0, output_tokens_per_s: 200.0 },
        in_flight: InFlight::default(),
        latency: Latencies::default(),
        slo: SloJudgement::default(),
        generator: GeneratorAudit::default(),
        target: TargetCounters::default(),
        telemetry: no_telemetry(),
        server: None,
        token_counts: None,
        findings: vec![],
        mbu: None,
        verdict: Verdict { invalid: vec![], outcome: Outcome::Measured },
        request_log_bytes: 0,
        unlogged_requests: 0,
    }
}

/// A request that completed.
pub(crate) fn request(id: u64) -> RequestRecord {
    let start = Nanos::from_millis(id);
    let chunks = (1..=5).map(|index| Chunk { at: start + Nanos(index * 1_234_567 + id), tokens: 1 }).collect::<Vec<_>>();
    RequestRecord {
        id,
        intended: start,
        sent: Some(start + Nanos(900)),
        admitted: None,
        first_byte: None,
        made_tokens: None,
        token_count: None,
        retry_after: None,
        first_token: chunks.first().map(|chunk| chunk.at),
        last_token: chunks.last().map(|chunk| chunk.at),
        end: start + Nanos::from_millis(8),
        prompt_tokens: 100,
        cached_tokens: 0,
        requested_tokens: 5,
        output_tokens: 5,
        preemptions: 0,
        chunks,
        ending: Ending::Completed,
    }
}

/// Saves a run as `bench` does.
pub(crate) fn save(data: &Path, record: &RunRecord) {
    let store = RunStore::open(data).expect("a temporary folder can be written");
    let folder = store.create(record).expect("a temporary folder can be written");
    for level in &record.levels {
        folder.save_level(level).expect("a temporary folder can be written");
    }
    folder.save_run(record).expect("a temporary folder can be written");
    folder.finish().expect("a temporary folder can be written");
}
