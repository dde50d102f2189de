//! A small run made by hand from known laws: what reports and plans are tested on.
//!
//! Closed loop: `X(c) = 16 (1 - exp(-c / 8))` calls/s, so that `R = c / X` and Little's law holds exactly.
//! Open loop: TTFT and TPOT grow as `1 / (1 - load / 12)`; the SLO breaks a little above 10 calls/s.

use std::collections::BTreeMap;

use plimsoll::clock::Nanos;
use plimsoll::record::SCHEMA_VERSION;
use plimsoll::record::finding::{Finding, Severity};
use plimsoll::record::level::{
    Counts, Distribution, GeneratorAudit, InFlight, Latencies, Latency, LevelRecord, ObjectiveJudgement, Offered, PerDevice, Purpose,
    SloJudgement, Throughput,
};
use plimsoll::record::node::{GpuTelemetry, NodeRecord};
use plimsoll::record::run::{ColdStart, DemandRecord, Drift, Headline, HeadlineStatus, RunRecord, RunStatus, WorkloadRecord};
use plimsoll::record::search::{Found, Stop};
use plimsoll::record::slo::{Objective, Slo, SloMetric, SloSource};
use plimsoll::record::target::{BatchLimits, TargetCounters, TargetIdentity};
use plimsoll::record::telemetry::Telemetry;
use plimsoll::record::verdict::{Invalid, Outcome, Verdict};
use plimsoll::stats::interval::Interval;
use plimsoll::workload::request::Tally;

const OUTPUT_TOKENS: f64 = 64.0;
const SATURATION: f64 = 12.0;

/// A confirmed run of a small model on a CPU.
pub(crate) fn confirmed() -> RunRecord {
    let mut levels = Vec::new();
    let mut add = |purpose: Purpose, offered: Offered| {
        let level = level(levels.len() as u32, purpose, offered);
        levels.push(level);
    };
    let open = |calls_per_s: f64| Offered::Open { calls_per_s, process: "poisson".to_owned() };
    add(Purpose::Reference { position: "first".to_owned() }, Offered::Closed { concurrency: 1 });
    for concurrency in [1, 2, 4, 8, 16, 24, 32, 64, 128] {
        add(Purpose::Sweep, Offered::Closed { concurrency });
    }
    for rate in [4.0, 8.0, 16.0, 12.0, 10.0, 11.0, 10.5] {
        add(Purpose::Search, open(rate));
    }
    for run in 1..=3 {
        for share in [0.95, 1.0, 1.05] {
            add(Purpose::Confirmation { run }, open(10.0 * share));
        }
    }
    for share in [0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1] {
        add(Purpose::Curve, open(10.0 * share));
    }
    add(Purpose::Reference { position: "last".to_owned() }, Offered::Closed { concurrency: 1 });
    // One level the generator spoiled.
    let spoiled = levels.iter_mut().find(|level| level.offered == Offered::Closed { concurrency: 24 }).expect("it is measured at 24");
    spoiled.verdict.invalid = vec![Invalid::SendLag { p99_ms: 3.4, limit_ms: 1.0 }];
    run_of(levels)
}

fn run_of(levels: Vec<LevelRecord>) -> RunRecord {
    RunRecord {
        schema_version: SCHEMA_VERSION,
        id: "01JDGSMA11RVN0000000000XYZ".to_owned(),
        version: "0.1.0".to_owned(),
        created: "2026-11-24T03:40:00Z".to_owned(),
        status: RunStatus::Complete,
        command: ["plimsoll", "bench"].map(str::to_owned).into(),
        labels: vec!["synthetic weights".to_owned(), "CPU device: no GPU measurement".to_owned()],
        node: NodeRecord {
            hostname: "node-7".to_owned(),
            os: "Debian GNU/Linux 13".to_owned(),
            kernel: "6.12.0".to_owned(),
            cpu_model: "Example CPU 8000".to_owned(),
            cores: 16,
            cpu_quota_cores: None,
            memory_bytes: 64 << 30,
            cpu_features: vec!["avx512f".to_owned()],
            numa_nodes: vec![],
            profilers: vec![],
            telemetry: GpuTelemetry::Unavailable { why: "libnvidia-ml.so.1 was not found".to_owned() },
        },
        target: TargetIdentity {
            kind: "engine".to_owned(),
            model: "llama-125m".to_owned(),
            device: "cpu".to_owned(),
            precision: "f32".to_owned(),
            devices: 1,
            labels: vec!["synthetic weights".to_owned()],
            max_context: 2048,
            vocab_size: 32_000,
            batch: BatchLimits { max_sequences: Some(64), max_step_tokens: Some(2048), kv_tokens: Some(65_536) },
        },
        workload: WorkloadRecord {
            name: "chat".to_owned(),
            mean_input_tokens: 256.0,
            mean_output_tokens: OUTPUT_TOKENS,
            arrivals: "poisson".to_owned(),
            source: "by hand".to_owned(),
            mix: None,
            trace: None,
            labels: Vec::new(),
            hash: "0".repeat(64),
        },
        slo: Some(slo()),
        seed: 7,
        demand: DemandRecord::default(),
        quick: false,
        plan_hash: "0".repeat(64),
        cold_start: ColdStart { load_s: 1.25, first_request_ms: Some(210.0) },
        generator_ceiling: None,
        server: None,
        ceilings: None,
        decode_need: None,
        idle: Vec::new(),
        drift: Some(Drift { first: 120.5, last: 120.1, limit: 0.02, noise: Some(0.004) }),
        search: Some(Found { stop: Stop::Converged, rate: Some(10.1), pass: Some(10.0), fail: Some(10.5), gap: None, probes: 7, valid: 7 }),
        headline: Some(Headline {
            status: HeadlineStatus::Confirmed,
            throughput_per_gpu: Some(10.0),
            interval: Some(Interval { low: 9.7, high: 10.3, confidence: 0.95 }),
            bracket: Some((10.0, 10.5)),
            runs: 3,
            goodput_per_gpu: Some(9.93),
            output_tokens_per_s_per_gpu: Some(640.0),
            calls_in_flight_per_gpu: Some(39.84),
            labels: Vec::new(),
            explanation: "converged: bracket within 5 %, confirmed by 3 fresh runs".to_owned(),
        }),
        findings: vec![Finding::new(
            "synthetic_weights",
            Severity::Note,
            "weights are random with a realistic scale",
            "Give a checkpoint with `--model DIR` to measure your own model",
        )],
        levels,
    }
}

fn slo() -> Slo {
    let objective = |metric, millis| Objective { metric, percentile: 99.0, limit: Nanos::from_millis(millis) };
    Slo { objectives: vec![objective(SloMetric::Ttft, 2000), objective(SloMetric::Tpot, 100)], source: SloSource::Default }
}

/// A level of the laws above.
fn level(index: u32, purpose: Purpose, offered: Offered) -> LevelRecord {
    let (calls_per_s, ttft_ms, tpot_ms, in_flight, outcome) = match offered {
        Offered::Closed { concurrency } => {
            let concurrency = f64::from(concurrency);
            let rate = 16.0 * (1.0 - (-concurrency / 8.0).exp());
            let end_to_end = concurrency / rate * 1e3;
            (rate, end_to_end * 0.1, end_to_end * 0.9 / (OUTPUT_TOKENS - 1.0), concurrency, Outcome::Measured)
        }
        Offered::Open { calls_per_s, .. } => {
            let load = calls_per_s / SATURATION;
            let stretch = 1.0 / (1.0 - load).max(1e-2);
            let outcome = match load {
                load if load >= 1.0 => Outcome::Unstable,
                _ if 160.0 * stretch >= 1000.0 => Outcome::Broken,
                _ => Outcome::Met,
            };
            (calls_per_s, 160.0 * stretch, 8.0 * stretch, load * 10.0 * stretch, outcome)
        }
    };
    let completed_per_s = if outcome == Outcome::Unstable { SATURATION } else { calls_per_s };
    let end_to_end = ttft_ms + tpot_ms * (OUTPUT_TOKENS - 1.0);
    // The reference has few requests: its p99 is marked.
    let cohort = ((calls_per_s * 60.0) as u64).max(120);
    LevelRecord {
        schema_version: SCHEMA_VERSION,
        index,
        purpose,
        seed: u64::from(index),
        started: "2026-11-24T03:41:00Z".to_owned(),
        warm_up_s: 5.0,
        window_s: 60.0,
        window: (Nanos::from_secs(5), Nanos::from_secs(65)),
        tail_s: 2.0,
        counts: Counts { cohort, completed: cohort, failed: BTreeMap::new(), timed_out: 0, refused: 0, whole_level: cohort + 50 },
        traffic: Tally { made: cohort + 50, prompt_tokens: (cohort + 50) * 256, output_tokens: (cohort + 50) * 64, ..Tally::default() },
        throughput: Throughput {
            calls_per_s,
            completions_per_s: completed_per_s,
            output_tokens_per_s: completed_per_s * OUTPUT_TOKENS,
            prompt_tokens_per_s: completed_per_s * 256.0,
            interval: None,
            tokens_interval: None,
            whole_level_output_tokens_per_s: completed_per_s * OUTPUT_TOKENS * 0.97,
        },
        by_device: Vec::new(),
        per_device: PerDevice { devices: 1, calls_per_s, output_tokens_per_s: completed_per_s * OUTPUT_TOKENS },
        in_flight: InFlight { mean: in_flight, max: (in_flight * 1.5) as u64, slope: None },
        latency: Latencies {
            ttft: latency(ttft_ms, cohort),
            ttft_service: latency(ttft_ms * 0.999, cohort),
            tpot: latency(tpot_ms, cohort),
            e2e: latency(end_to_end, cohort),
            e2e_per_token: latency(end_to_end / OUTPUT_TOKENS, cohort),
            itl: distribution(tpot_ms, cohort * 63),
            itl_per_token: distribution(tpot_ms, cohort * 63),
            queue_delay: distribution(ttft_ms * 0.2, cohort),
            send_lag: distribution(0.02, cohort),
        },
        slo: judgement(&offered, outcome, cohort, calls_per_s),
        generator: GeneratorAudit {
            cpu_share: 0.03,
            achieved_over_offered: 1.0,
            longest_gap_ms: 0.4,
            ceiling_share: Some(0.002),
            ..Default::default()
        },
        target: TargetCounters { steps: 10_000, kv_blocks_peak: 300, kv_blocks_total: 4096, ..TargetCounters::default() },
        telemetry: Telemetry::Unavailable { why: "libnvidia-ml.so.1 was not found".to_owned() },
        server: None,
        token_counts: None,
        findings: vec![],
        mbu: None,
        verdict: Verdict { invalid: Vec::new(), outcome },
        request_log_bytes: 0,
        unlogged_requests: 0,
        offered,
    }
}

fn judgement(offered: &Offered, outcome: Outcome, cohort: u64, calls_per_s: f64) -> SloJudgement {
    if matches!(offered, Offered::Closed { .. }) {
        return SloJudgement::default();
    }
    let attainment = match outcome {
        Outcome::Met => 0.996,
        Outcome::Broken => 0.974,
        _ => 0.31,
    };
    let misses = ((1.0 - attainment) * cohort as f64) as u64;
    let judge = |objective| ObjectiveJudgement {
        objective,
        requests: cohort,
        misses,
        miss_share: 1.0 - attainment,
        bounds: None,
        clustering: 1.0,
        worth: 1.0,
        blocks: 12,
        outcome,
    };
    SloJudgement {
        objectives: slo().objectives.into_iter().map(judge).collect(),
        joint_attainment: attainment,
        goodput_calls_per_s: calls_per_s * attainment,
        undecided: String::new(),
        needed_s: None,
    }
}

fn latency(mean_ms: f64, count: u64) -> Latency {
    Latency { adjusted: distribution(mean_ms, count), raw: distribution(mean_ms, count) }
}

/// A spread around a mean.
fn distribution(mean_ms: f64, count: u64) -> Distribution {
    Distribution {
        count,
        undefined: 0,
        mean: Some(mean_ms),
        p50: Some(mean_ms * 0.95),
        p90: Some(mean_ms * 1.3),
        p95: Some(mean_ms * 1.5),
        p99: Some(mean_ms * 2.0),
        max: Some(mean_ms * 3.0),
    }
}
