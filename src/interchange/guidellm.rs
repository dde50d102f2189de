//! GuideLLM's report, `metadata.version` 2, all levels in one document. Sources are `guidellm/benchmark/schemas/`,
//! `schemas/base/{request_stats,statistics,info}.py` and `scheduler/strategies.py` of GuideLLM 0.8.
//!
//! | There | Means (source) | Ours |
//! | --- | --- | --- |
//! | `time_to_first_token_ms` | first token minus request start (`request_stats.py`) | TTFT, but from the send |
//! | `inter_token_latency_ms` | (last - first token) / (tokens - 1), one value a request | **TPOT** |
//! | `time_per_output_token_ms` | (last token - request start) / tokens: prefill included | none |
//! | `request_latency` (s) | end minus request start | E2E, but from the send |
//! | `request_scheduled_latency` (s) | end minus targeted start, where there is a schedule | E2E |
//! | `requests_per_second`, `output_tokens_per_second` | mean over the measured window, without warm-up and cool-down | rates |

use serde_json::{Map, Value, json};

use crate::clock::Nanos;
use crate::interchange::cohort::{Cohort, latency, tpot_ns, wall_ns, why};
use crate::interchange::error::ImportError;
use crate::interchange::export::origin;
use crate::interchange::foreign::Node;
use crate::interchange::spread::Spread;
use crate::record::imported::{Imported, Lack, Load, Point, Quantiles};
use crate::record::level::Offered;
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;

/// As reports name it.
pub(super) const NAME: &str = "GuideLLM";
/// Version of the report's schema.
const VERSION: u64 = 2;
/// Percentiles of a summary by the names of their fields (`statistics.py`, `PERCENTILE_PROBABILITIES`).
const PERCENTILES: [(&str, f64); 11] = [
    ("p001", 0.1),
    ("p01", 1.0),
    ("p05", 5.0),
    ("p10", 10.0),
    ("p25", 25.0),
    ("p50", 50.0),
    ("p75", 75.0),
    ("p90", 90.0),
    ("p95", 95.0),
    ("p99", 99.0),
    ("p999", 99.9),
];

/// Summaries by kind of content, which are there without one (`metrics.py`): tokens alone are counted here.
const KINDS: [(&str, &[&str]); 5] = [
    ("text", &["tokens", "words", "characters"]),
    ("image", &["tokens", "images", "pixels", "bytes"]),
    ("video", &["tokens", "frames", "seconds", "bytes"]),
    ("audio", &["tokens", "samples", "seconds", "bytes"]),
    ("tool_call", &["tokens", "mixed_tokens", "count"]),
];

/// The report of a run, of the benchmarks that [`benchmark`] made.
pub(super) fn document(run: &RunRecord, benchmarks: Vec<Value>) -> Value {
    json!({
        "metadata": {
            "version": VERSION,
            "guidellm_version": format!("written by plimsoll {}", run.version),
            "python_version": "none",
            "platform": format!("{} {}", run.node.os, run.node.kernel),
        },
        "config": {
            "metadata": {"labels": {"run": run.id}},
            "spec": {
                "backend": {"kind": "openai_http", "target": "http://plimsoll.invalid", "model": run.target.model},
                // What made the load is in each benchmark's strategy; the scenario must name some profile.
                "profile": {"kind": "synchronous"},
                "data": [{"kind": "synthetic_text", "prompt_tokens": whole(run.workload.mean_input_tokens), "output_tokens": whole(run.workload.mean_output_tokens)}],
            },
            "benchmarks": [null],
        },
        "benchmarks": benchmarks,
        "conclusions": [],
    })
}

/// At least 1. A float-to-integer `as` saturates.
fn whole(tokens: f64) -> u64 {
    (tokens.round() as u64).max(1)
}

/// One level. Requests outside the cohort are left out, so that window and requests agree.
pub(super) fn benchmark(run: &RunRecord, cohort: &Cohort<'_>) -> Value {
    let level = cohort.level;
    let seconds = |stamp: Nanos| wall_ns(level, stamp) as f64 / 1e9;
    let (from, to) = (seconds(level.window.0), seconds(level.window.1));
    let strategy = match &level.offered {
        Offered::Closed { concurrency } => json!({"type_": "concurrent", "streams": concurrency}),
        Offered::Open { calls_per_s, process } => {
            json!({"type_": if process == "constant" { "constant" } else { "poisson" }, "rate": calls_per_s})
        }
    };
    let (successful, errored) = (level.counts.completed, cohort.failed());
    let totals = json!({"successful": successful, "errored": errored, "incomplete": 0, "total": successful + errored});
    let end = cohort.all().map(|request| request.end).max().unwrap_or(level.window.1);
    let of = |done: bool| {
        cohort.all().filter(move |request| request.completed() == done).map(|request| stats(cohort, request)).collect::<Value>()
    };
    let start = cohort.spread(|request| request.send_lag().map(Nanos::as_secs_f64)).mean.unwrap_or(0.0);
    let took = cohort.spread(|request| latency(request).map(Nanos::as_secs_f64)).mean.unwrap_or(0.0);
    json!({
        "type_": "generative_benchmark",
        "config": {
            "id_": format!("{}-level{:03}", run.id, level.index),
            "run_id": run.id,
            "run_index": level.index,
            "strategy": strategy,
            "constraints": {},
            "profile": {"type_": strategy["type_"]},
            "requests": {"data": run.workload.name},
            "backend": {"type_": "plimsoll", "model": run.target.model},
            "environment": origin(run, level),
        },
        "scheduler_state": {
            "node_id": 0,
            "num_processes": 1,
            "start_time": from,
            "end_time": seconds(end),
            "created_requests": level.counts.cohort,
            "processed_requests": level.counts.cohort,
            "successful_requests": successful,
            "errored_requests": errored,
        },
        "scheduler_metrics": {
            "start_time": from,
            "request_start_time": from,
            "measure_start_time": from,
            "measure_end_time": to,
            "request_end_time": seconds(end).max(to),
            "end_time": seconds(end).max(to),
            "requests_made": totals,
            "generation_delay": summary(&Spread::default()),
            "queued_time_avg": start,
            "resolve_start_delay_avg": 0.0,
            "resolve_targeted_start_delay_avg": start,
            "request_start_delay_avg": 0.0,
            "request_targeted_start_delay_avg": start,
            "request_time_avg": took,
            "resolve_end_delay_avg": 0.0,
            "resolve_time_avg": took,
            "finalized_delay_avg": 0.0,
            "processed_delay_avg": 0.0,
            "dataset_incomplete": false,
            "strategy_type": strategy["type_"],
        },
        "metrics": metrics(cohort, &totals),
        "requests": {"successful": of(true), "incomplete": [], "errored": of(false), "total": null},
        "warnings": [],
        "start_time": from,
        "end_time": to,
        "duration": to - from,
        "warmup_duration": 0.0,
        "cooldown_duration": (seconds(end) - to).max(0.0),
    })
}

fn metrics(cohort: &Cohort<'_>, totals: &Value) -> Value {
    let level = cohort.level;
    let throughput = &level.throughput;
    let nothing = summary(&Spread::default());
    let of = |value: &dyn Fn(&RequestRecord) -> Option<f64>| by_status(&summary(&cohort.spread(value)), &nothing);
    // Of a rate the window has one value: as a distribution of that value, whose mean is all that readers take.
    let rate = |value: f64| by_status(&summary(&Spread::of([value])), &nothing);
    let tokens = |tokens: u32| Some(f64::from(tokens));
    let mut metrics = Map::new();
    let mut add = |name: &str, value: Value| metrics.insert(name.to_owned(), value);
    add("request_totals", totals.clone());
    add("requests_per_second", rate(throughput.completions_per_s));
    add("request_concurrency", rate(level.in_flight.mean));
    add("request_latency", of(&|request| latency(request).map(Nanos::as_secs_f64)));
    if matches!(level.offered, Offered::Open { .. }) {
        add("request_dispatch_delay", of(&|request| request.send_lag().map(Nanos::as_secs_f64)));
        add("request_scheduled_latency", of(&|request| request.e2e().map(Nanos::as_secs_f64)));
    }
    add("request_streaming_iterations_count", of(&|request| Some(request.chunks.len() as f64)));
    add("prompt_token_count", of(&|request| tokens(request.prompt_tokens)));
    add("output_token_count", of(&|request| tokens(request.output_tokens)));
    add("total_token_count", of(&|request| tokens(request.prompt_tokens + request.output_tokens)));
    for name in ["time_to_first_token_ms", "time_to_first_output_token_ms"] {
        add(name, of(&|request| request.ttft_service().map(Nanos::as_millis_f64)));
    }
    add("time_per_output_token_ms", of(&|request| prefill_included_ms(request)));
    add("inter_token_latency_ms", of(&|request| tpot_ns(request).map(|nanos| nanos / 1e6)));
    for name in ["time_to_last_round_trip_ms", "avg_round_trip_time_ms"] {
        add(name, by_status(&nothing, &nothing));
    }
    add("prompt_tokens_per_second", rate(throughput.prompt_tokens_per_s));
    add("output_tokens_per_second", rate(throughput.output_tokens_per_s));
    add("tokens_per_second", rate(throughput.prompt_tokens_per_s + throughput.output_tokens_per_s));
    let per_chunk =
        |request: &RequestRecord| (!request.chunks.is_empty()).then(|| f64::from(request.output_tokens) / request.chunks.len() as f64);
    for name in ["output_tokens_per_iteration", "iter_tokens_per_iteration"] {
        add(name, of(&per_chunk));
    }
    for (kind, fields) in KINDS {
        add(kind, fields.iter().map(|field| ((*field).to_owned(), Value::Null)).collect());
    }
    if !level.slo.objectives.is_empty() {
        add("slo_attainment", json!(level.slo.joint_attainment));
        add("slo_determined_requests", json!(level.counts.cohort));
        add("request_goodput", rate(level.slo.goodput_calls_per_s));
    }
    Value::Object(metrics)
}

/// (last token - request start) / tokens, milliseconds: that tool's TPOT.
fn prefill_included_ms(request: &RequestRecord) -> Option<f64> {
    Some(latency(request)?.as_millis_f64() / f64::from(Some(request.output_tokens).filter(|tokens| *tokens > 0)?))
}

fn by_status(successful: &Value, nothing: &Value) -> Value {
    json!({"successful": successful, "errored": nothing, "incomplete": nothing, "total": successful})
}

/// All fields are numbers there: 0 of an empty distribution, whose count says so.
fn summary(spread: &Spread) -> Value {
    let number = |value: Option<f64>| value.unwrap_or(0.0);
    let percentiles = PERCENTILES.map(|(name, percentile)| (name.to_owned(), json!(number(spread.at(percentile)))));
    json!({
        "mean": number(spread.mean),
        "median": number(spread.at(50.0)),
        // Of nanoseconds hardly two values are the same: the median stands for the most frequent.
        "mode": number(spread.at(50.0)),
        "variance": number(spread.std).powi(2),
        "std_dev": number(spread.std),
        "min": number(spread.min),
        "max": number(spread.max),
        "count": spread.count,
        "total_sum": number(spread.sum()),
        "percentiles": Value::Object(percentiles.into_iter().collect()),
    })
}

/// One request, seconds since 1970.
fn stats(cohort: &Cohort<'_>, request: &RequestRecord) -> Value {
    let seconds = |stamp: Nanos| wall_ns(cohort.level, stamp) as f64 / 1e9;
    let end = request.last_token.filter(|_| request.completed()).unwrap_or(request.end);
    let id = format!("level{:03}-{}", cohort.level.index, request.id);
    json!({
        "type_": "generative_request_stats",
        "request_id": id,
        "info": {
            "request_id": id,
            "status": if request.completed() { "completed" } else { "errored" },
            "scheduler_node_id": 0,
            "scheduler_process_id": 0,
            "scheduler_start_time": seconds(cohort.level.window.0),
            "timings": {
                "targeted_start": seconds(request.intended),
                "queued": seconds(request.intended),
                "dequeued": seconds(request.intended),
                "scheduled_at": seconds(request.intended),
                "resolve_start": seconds(request.sent.unwrap_or(request.intended)),
                "request_start": request.sent.map(seconds),
                "first_request_iteration": request.first_token.map(seconds),
                "first_token_iteration": request.first_token.map(seconds),
                "first_output_token_iteration": request.first_token.map(seconds),
                "last_token_iteration": request.last_token.map(seconds),
                "last_request_iteration": request.last_token.map(seconds),
                "request_iterations": request.chunks.len(),
                "token_iterations": request.chunks.len(),
                "request_end": seconds(end),
                "resolve_end": seconds(request.end),
                "finalized": seconds(request.end),
            },
            "error": (!request.completed()).then(|| why(request)),
        },
        "input_metrics": {"text_tokens": request.prompt_tokens, "cached_tokens": request.cached_tokens},
        "output_metrics": {"text_tokens": request.output_tokens},
        "request_latency": latency(request).map(Nanos::as_secs_f64),
        "time_to_first_token_ms": request.ttft_service().map(Nanos::as_millis_f64),
        "inter_token_latency_ms": tpot_ns(request).map(|nanos| nanos / 1e6),
        "time_per_output_token_ms": prefill_included_ms(request),
        "prompt_tokens": request.prompt_tokens,
        "output_tokens": request.output_tokens,
    })
}

/// A point a benchmark.
///
/// # Errors
/// When the version is unknown, or a field is missing or no such figure.
pub(super) fn read(file: &str, documents: &[Node<'_>]) -> Result<Imported, ImportError> {
    let Some(report) = documents.first() else { return Err(ImportError::Unknown { file: file.to_owned() }) };
    let metadata = report.field("metadata")?;
    let version = metadata.field("version")?.count()?;
    if version != VERSION {
        return Err(ImportError::Version {
            file: file.to_owned(),
            what: "metadata.version",
            found: version.to_string(),
            known: "version 2",
        });
    }
    let benchmarks = report.field("benchmarks")?.elements()?;
    let mut lacks = vec![Lack::NoInterval, Lack::NoChunkGaps];
    let points = benchmarks.iter().map(|benchmark| point(benchmark, &mut lacks)).collect::<Result<Vec<_>, _>>()?;
    let backend = benchmarks.first().and_then(|benchmark| benchmark.find("config")?.find("backend"));
    let model = backend.and_then(|backend| backend.text_of("model").ok().flatten());
    Ok(Imported { tool: NAME, version: metadata.text_of("guidellm_version")?, file: file.to_owned(), model, lacks, points })
}

fn point(benchmark: &Node<'_>, lacks: &mut Vec<Lack>) -> Result<Point, ImportError> {
    let (config, metrics) = (benchmark.field("config")?, benchmark.field("metrics")?);
    let strategy = config.field("strategy")?;
    let cap = strategy.find("max_concurrency").map(|cap| cap.positive()).transpose()?;
    let load = match strategy.field("type_")?.text()? {
        "synchronous" => Load::Closed { concurrency: 1 },
        "concurrent" => Load::Closed { concurrency: strategy.field("streams")?.positive()? },
        "constant" | "poisson" => {
            lacks.extend(cap.map(|_| Lack::ArrivalsCapped));
            Load::Open { calls_per_s: strategy.field("rate")?.number()? }
        }
        "throughput" if cap.is_some() => Load::Closed { concurrency: cap.unwrap_or(1) },
        _ => {
            lacks.push(Lack::LoadNotStated);
            Load::NotStated
        }
    };
    let mean = |name: &str| -> Result<Option<f64>, ImportError> {
        let Some(distribution) = metrics.find(name).and_then(|metric| metric.find("successful")) else { return Ok(None) };
        if distribution.count_of("count")? == Some(0) { Ok(None) } else { distribution.number_of("mean") }
    };
    let scheduled = quantiles(&metrics, "request_scheduled_latency", 1e3)?;
    let from_schedule = !scheduled.at.is_empty();
    let totals = match metrics.find("request_totals") {
        Some(totals) => totals,
        None => benchmark.field("scheduler_metrics")?.field("requests_made")?,
    };
    let ours = config.find("environment").and_then(|environment| environment.find("devices"));
    let gpus = ours.as_ref().map(|devices| devices.positive()).transpose()?;
    let point = Point {
        load,
        calls_per_s: metrics.field("requests_per_second")?.field("successful")?.field("mean")?.number()?,
        output_tokens_per_s: mean("output_tokens_per_second")?,
        ttft_ms: quantiles(&metrics, "time_to_first_token_ms", 1.0)?,
        tpot_ms: quantiles(&metrics, "inter_token_latency_ms", 1.0)?,
        itl_ms: Quantiles::default(),
        e2e_ms: if from_schedule { scheduled } else { quantiles(&metrics, "request_latency", 1e3)? },
        completed: totals.count_of("successful")?,
        failed: totals.count_of("errored")?,
        gpus,
        mean_input_tokens: mean("prompt_token_count")?,
        mean_output_tokens: mean("output_token_count")?,
    };
    lacks.push(if from_schedule { Lack::TtftFromTheSend } else { Lack::FromTheSend });
    lacks.extend(gpus.is_none().then_some(Lack::GpusNotStated));
    lacks.extend(point.failed.is_none().then_some(Lack::FailuresNotCounted));
    lacks.extend(point.ttft_ms.at.is_empty().then_some(Lack::NoTtft));
    lacks.extend(metrics.find("slo_attainment").is_none().then_some(Lack::NoSloVerdict));
    lacks.extend(ours.is_none().then_some(Lack::NoValidity));
    Ok(point)
}

/// Of successful requests; empty where none had a value.
fn quantiles(metrics: &Node<'_>, name: &str, factor: f64) -> Result<Quantiles, ImportError> {
    let Some(distribution) = metrics.find(name).and_then(|metric| metric.find("successful")) else { return Ok(Quantiles::default()) };
    if distribution.count_of("count")? == Some(0) {
        return Ok(Quantiles::default());
    }
    let percentiles = distribution.field("percentiles")?;
    let mut at = Vec::new();
    for (name, percentile) in PERCENTILES {
        at.extend(percentiles.number_of(name)?.map(|value| (percentile, value * factor)));
    }
    Ok(Quantiles { mean: distribution.number_of("mean")?.map(|mean| mean * factor), at })
}
