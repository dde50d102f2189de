//! The metric catalogue: one table from which console, JSON, CSV, HTML, Prometheus and `docs/metrics.md` are made.

use crate::record::level::LevelRecord;
use crate::record::telemetry::{Energy, GpuWindow};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Neither; it describes.
    Neither,
}

/// One metric of a level.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Stable name, snake_case, unit at the end.
    pub id: &'static str,
    /// For column heads.
    pub label: &'static str,
    /// Unit as printed.
    pub unit: &'static str,
    /// Which way is better.
    pub direction: Direction,
    /// What it is, in one sentence.
    pub definition: &'static str,
    /// Reads it; `None` where the level has no such value.
    pub read: fn(&LevelRecord) -> Option<f64>,
}

/// Every metric of a level, in the order in which reports show them.
pub const CATALOGUE: &[Metric] = &[
    Metric {
        id: "calls_per_s_per_gpu",
        label: "calls/s/GPU",
        unit: "calls/s",
        direction: Direction::Higher,
        definition: "Closed loop: completions inside the window per second per device; open loop: realised arrivals per second per device.",
        read: |level| Some(level.per_device.calls_per_s),
    },
    Metric {
        id: "output_tokens_per_s_per_gpu",
        label: "tokens/s/GPU",
        unit: "tokens/s",
        direction: Direction::Higher,
        definition: "Output tokens emitted inside the window, divided by its length and by the devices the target owns.",
        read: |level| Some(level.per_device.output_tokens_per_s),
    },
    Metric {
        id: "prompt_tokens_per_s",
        label: "prompt tokens/s",
        unit: "tokens/s",
        direction: Direction::Higher,
        definition: "Prompt tokens of requests whose first token fell inside the window, divided by its length.",
        read: |level| Some(level.throughput.prompt_tokens_per_s),
    },
    Metric {
        id: "in_flight_mean",
        label: "in flight",
        unit: "requests",
        direction: Direction::Neither,
        definition: "Time-weighted mean of requests sent and not ended over the window.",
        read: |level| Some(level.in_flight.mean),
    },
    Metric {
        id: "ttft_p50_ms",
        label: "TTFT p50",
        unit: "ms",
        direction: Direction::Lower,
        definition: "Median over the cohort of first token minus intended start; failures and timeouts are infinite.",
        read: |level| level.latency.ttft.adjusted.p50,
    },
    Metric {
        id: "ttft_p99_ms",
        label: "TTFT p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile (nearest rank) over the cohort of first token minus intended start; failures and timeouts are infinite.",
        read: |level| level.latency.ttft.adjusted.p99,
    },
    Metric {
        id: "ttft_service_p50_ms",
        label: "TTFT service p50",
        unit: "ms",
        direction: Direction::Lower,
        definition: "Median of first token minus actual send. Of a prefill level it is what exports give planners as TTFT.",
        read: |level| level.latency.ttft_service.raw.p50,
    },
    Metric {
        id: "ttft_service_p99_ms",
        label: "TTFT service p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile of first token minus actual send: without the wait in the generator.",
        read: |level| level.latency.ttft_service.adjusted.p99,
    },
    Metric {
        id: "tpot_p50_ms",
        label: "TPOT p50",
        unit: "ms",
        direction: Direction::Lower,
        definition: "Median of (last token - first token) / (tokens after the first chunk), one value a request, undefined for one-chunk answers.",
        read: |level| level.latency.tpot.adjusted.p50,
    },
    Metric {
        id: "tpot_p99_ms",
        label: "TPOT p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile of (last token - first token) / (tokens after the first chunk), one value a request.",
        read: |level| level.latency.tpot.adjusted.p99,
    },
    Metric {
        id: "itl_per_token_p50_ms",
        label: "ITL a token p50",
        unit: "ms",
        direction: Direction::Lower,
        definition: "Median gap between consecutive chunks over the tokens it brought, counted once a token. Of a decode level it is what exports give planners as ITL.",
        read: |level| level.latency.itl_per_token.p50,
    },
    Metric {
        id: "itl_p99_ms",
        label: "ITL p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile of the gaps between consecutive chunks of a request.",
        read: |level| level.latency.itl.p99,
    },
    Metric {
        id: "e2e_p50_ms",
        label: "E2E p50",
        unit: "ms",
        direction: Direction::Lower,
        definition: "Median of last token minus intended start.",
        read: |level| level.latency.e2e.adjusted.p50,
    },
    Metric {
        id: "e2e_p99_ms",
        label: "E2E p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile of last token minus intended start.",
        read: |level| level.latency.e2e.adjusted.p99,
    },
    Metric {
        id: "queue_delay_p99_ms",
        label: "queue p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile of admission into the engine's batch minus intended start.",
        read: |level| level.latency.queue_delay.p99,
    },
    Metric {
        id: "send_lag_p99_ms",
        label: "send lag p99",
        unit: "ms",
        direction: Direction::Lower,
        definition: "99th percentile of actual send minus intended start: the generator's own fault.",
        read: |level| level.latency.send_lag.p99,
    },
    Metric {
        id: "decode_tps_per_user",
        label: "tok/s/user",
        unit: "tokens/s",
        direction: Direction::Higher,
        definition: "1 / median TPOT: the speed at which one user sees tokens appear.",
        read: |level| level.latency.tpot.raw.p50.filter(|millis| *millis > 0.0).map(|millis| 1000.0 / millis),
    },
    Metric {
        id: "e2e_tps_per_user",
        label: "tok/s/user E2E",
        unit: "tokens/s",
        direction: Direction::Higher,
        definition: "Median over completed requests of output tokens / (last token - intended start): the wait for the first token included.",
        read: |level| level.latency.e2e_per_token.raw.p50.filter(|millis| *millis > 0.0).map(|millis| 1000.0 / millis),
    },
    Metric {
        id: "joint_attainment",
        label: "attainment",
        unit: "share",
        direction: Direction::Higher,
        definition: "Share of the cohort that met every objective; failures, refusals and timeouts are bad.",
        read: |level| (!level.slo.objectives.is_empty()).then_some(level.slo.joint_attainment),
    },
    Metric {
        id: "goodput_calls_per_s",
        label: "goodput",
        unit: "calls/s",
        direction: Direction::Higher,
        definition: "Requests of the cohort that met every objective, per second of the window.",
        read: |level| (!level.slo.objectives.is_empty()).then_some(level.slo.goodput_calls_per_s),
    },
    Metric {
        id: "sm_clock_median_mhz",
        label: "SM clock",
        unit: "MHz",
        direction: Direction::Neither,
        definition: "Lowest of the watched GPUs' median SM clocks over the window.",
        read: |level| over_gpus(level, |gpu| Some(gpu.sm_clock_mhz.get()?.median)).reduce(f64::min),
    },
    Metric {
        id: "power_w_per_gpu",
        label: "power",
        unit: "W",
        direction: Direction::Lower,
        definition: "Mean power of a watched GPU over the window: by its energy counter where the window is 10 s or longer, else by the driver's readings.",
        read: |level| mean(over_gpus(level, |gpu| gpu.energy.value().map(Energy::watts).or(gpu.power_mean_w.get()))),
    },
    Metric {
        id: "energy_per_output_token_j",
        label: "energy",
        unit: "J/token",
        direction: Direction::Lower,
        definition: "Joules of the watched GPUs by their energy counters over the output tokens that came meanwhile, in windows of 10 s or longer: GPUs only, no host, no cooling.",
        read: |level| level.telemetry.measured()?.energy_per_token.gross_j.get(),
    },
    Metric {
        id: "energy_per_output_token_net_j",
        label: "net energy",
        unit: "J/token",
        direction: Direction::Lower,
        definition: "The same less what the GPUs used while idle with the model loaded, where that was measured.",
        read: |level| level.telemetry.measured()?.energy_per_token.net_j.get(),
    },
    Metric {
        id: "gpu_temperature_max_c",
        label: "temperature",
        unit: "°C",
        direction: Direction::Lower,
        definition: "Highest temperature of a watched GPU in the window.",
        read: |level| over_gpus(level, |gpu| gpu.temperature_max_c.get().map(f64::from)).reduce(f64::max),
    },
    Metric {
        id: "mbu",
        label: "MBU",
        unit: "share",
        direction: Direction::Higher,
        definition: "One request alone: bytes that a token needs at least over the median TPOT, as a share of the read bandwidth measured in the same run.",
        read: |level| level.mbu,
    },
    Metric {
        id: "dram_activity",
        label: "DRAM activity",
        unit: "share",
        direction: Direction::Neither,
        definition: "Share of the peak memory bandwidth that the hardware counted, mean of the watched GPUs that count it (Hopper and newer): all traffic of the window, where MBU has what decoding needs.",
        read: |level| mean(over_gpus(level, |gpu| gpu.activity.dram.get())),
    },
    Metric {
        id: "server_running_mean",
        label: "running",
        unit: "requests",
        direction: Direction::Neither,
        definition: "Requests in the server's running batch by its own counter, mean of the looks in the window.",
        read: |level| Some(level.server?.running.get()?.mean),
    },
    Metric {
        id: "server_waiting_mean",
        label: "waiting",
        unit: "requests",
        direction: Direction::Lower,
        definition: "Requests that waited for the server's batch by its own counter, mean of the looks in the window.",
        read: |level| Some(level.server?.waiting.get()?.mean),
    },
    Metric {
        id: "server_kv_usage_max",
        label: "KV in use",
        unit: "share",
        direction: Direction::Neither,
        definition: "Highest share of the server's KV cache in use by its own counter, of the looks in the window.",
        read: |level| Some(level.server?.kv_usage.get()?.max),
    },
    Metric {
        id: "server_preemptions",
        label: "preempted",
        unit: "sequences",
        direction: Direction::Lower,
        definition: "Sequences that the server preempted by its own counter, between the first and the last look in the window.",
        read: |level| level.server?.added.get()?.preemptions.get(),
    },
    Metric {
        id: "server_prefix_hit_share",
        label: "prefix hits",
        unit: "share",
        direction: Direction::Neither,
        definition: "Share of what the server looked up in its prefix cache that was there, between the first and the last look in the window.",
        read: |level| level.server?.added.get()?.prefix_hit_share.get(),
    },
];

/// A value of each watched GPU that has it.
fn over_gpus(level: &LevelRecord, read: impl Fn(&GpuWindow) -> Option<f64>) -> impl Iterator<Item = f64> {
    level.telemetry.measured().into_iter().flat_map(|summary| &summary.gpus).filter_map(read)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// The metric of that id.
#[must_use]
pub fn metric(id: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| metric.id == id)
}
