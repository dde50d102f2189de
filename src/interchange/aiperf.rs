//! AIPerf's summary (`profile_export_aiperf.json`) and records (`profile_export.jsonl`), schema 1.4. Sources are
//! `aiperf/common/models/export_models.py`, `record_models.py` and `metrics/types/` of AIPerf 0.13.
//!
//! | There | Means (source) | Ours |
//! | --- | --- | --- |
//! | `time_to_first_token` | first content minus send (`ttft_metric.py`) | TTFT, but from the send |
//! | `inter_token_latency` | (end - first token) / (tokens - tokens of the first chunk), one value a request (`inter_token_latency_metric.py`) | **TPOT** |
//! | `inter_chunk_latency` | gap between chunks (`inter_chunk_latency_metric.py`) | **ITL** |
//! | `request_latency` | end minus send (`request_latency_metric.py`) | E2E, but from the send |
//! | `effective_latency` | end minus the credit, the intended start | E2E |
//! | `*_throughput` | first request to last answer | rates |
//! | GPUs of `telemetry_data` | those that were seen, whoever owns them | none: a deployment's GPUs are not stated |

use serde_json::{Map, Value, json};

use crate::clock::Nanos;
use crate::interchange::cohort::{Cohort, gaps_ns, latency, wall_ns, why};
use crate::interchange::error::ImportError;
use crate::interchange::export::origin;
use crate::interchange::foreign::Node;
use crate::interchange::spread::{Spread, put};
use crate::record::imported::{Imported, Lack, Load, Point, Quantiles};
use crate::record::level::Offered;
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;

/// As reports name it.
pub(super) const NAME: &str = "AIPerf";
/// The schema that is written. Minor versions add fields (`JsonExportData.SCHEMA_VERSION`).
const SCHEMA: &str = "1.4";
/// Percentiles of a summary.
const PERCENTILES: [f64; 9] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0];

/// The summary of one level.
pub(super) fn summary(run: &RunRecord, cohort: &Cohort<'_>) -> Value {
    let level = cohort.level;
    let throughput = &level.throughput;
    let mut document = Map::new();
    let mut add = |tag: &str, unit: &str, spread: &Spread| {
        if spread.count > 0 {
            document.insert(tag.to_owned(), distribution(unit, spread));
        }
    };
    // One value a request, by AIPerf's own definitions.
    let tpot = if cohort.requests.is_some() { cohort.spread(inter_token_ms) } else { Spread::kept(&level.latency.tpot.raw) };
    add("time_to_first_token", "ms", &cohort.ttft_ms());
    add("time_to_second_token", "ms", &cohort.spread(|request| Some(gaps_ns(request).next()? as f64 / 1e6)));
    add("request_latency", "ms", &cohort.latency_ms());
    add("effective_latency", "ms", &cohort.spread(|request| request.e2e().map(Nanos::as_millis_f64)));
    add("inter_token_latency", "ms", &tpot);
    add("inter_chunk_latency", "ms", &cohort.gaps_ms());
    add("output_token_throughput_per_user", "tokens/sec/user", &cohort.spread(|request| per_user(inter_token_ms(request)?)));
    add("input_sequence_length", "tokens", &cohort.spread(|request| Some(f64::from(request.prompt_tokens))));
    add("output_sequence_length", "tokens", &cohort.spread(|request| Some(f64::from(request.output_tokens))));
    add("output_token_count", "tokens", &cohort.spread(|request| Some(f64::from(request.output_tokens))));
    let (prompt, output) = cohort.tokens();
    let mut single = |tag: &str, unit: &str, value: f64| {
        document.insert(tag.to_owned(), json!({"unit": unit, "avg": value}));
    };
    single("request_throughput", "requests/sec", throughput.completions_per_s);
    single("output_token_throughput", "tokens/sec", throughput.output_tokens_per_s);
    single("request_count", "requests", level.counts.completed as f64);
    single("error_request_count", "requests", cohort.failed() as f64);
    single("total_isl", "tokens", prompt);
    single("total_osl", "tokens", output);
    single("total_output_tokens", "tokens", output);
    single("benchmark_duration", "sec", level.window_s);
    if !level.slo.objectives.is_empty() {
        single("goodput", "requests/sec", level.slo.goodput_calls_per_s);
        single("good_request_count", "requests", (level.slo.goodput_calls_per_s * level.window_s).round());
    }
    let variation = match level.offered {
        Offered::Closed { concurrency } => json!({"phases.profiling.concurrency": concurrency}),
        Offered::Open { calls_per_s, .. } => json!({"phases.profiling.rate": calls_per_s}),
    };
    let id = format!("{}-level{:03}", run.id, level.index);
    let rest = json!({
        "schema_version": SCHEMA,
        "aiperf_version": format!("written by plimsoll {}", run.version),
        "benchmark_id": id,
        "run_info": {
            "benchmark_id": id,
            "sweep_id": run.id,
            "run_label": format!("level{:03}", level.index),
            "variation_label": level.purpose.to_string(),
            "variation_index": level.index,
            "variation_values": variation,
            "cli_command": run.command.join(" "),
        },
        "was_cancelled": false,
        "is_complete": true,
        "error_summary": errors(cohort),
        "start_time": level.started,
        "model": run.target.model,
        "plimsoll": origin(run, level),
    });
    let Value::Object(rest) = rest else { return Value::Null };
    document.extend(rest);
    Value::Object(document)
}

fn distribution(unit: &str, spread: &Spread) -> Value {
    let mut fields = Map::from_iter([("unit".to_owned(), json!(unit)), ("count".to_owned(), json!(spread.count))]);
    let values = [("avg", spread.mean), ("min", spread.min), ("max", spread.max), ("std", spread.std), ("sum", spread.sum())];
    for (name, value) in values {
        put(&mut fields, name, value);
    }
    for percentile in PERCENTILES {
        put(&mut fields, format!("p{percentile}"), spread.at(percentile));
    }
    Value::Object(fields)
}

fn inter_token_ms(request: &RequestRecord) -> Option<f64> {
    request.tpot_ns().map(|nanos| nanos / 1e6)
}

fn per_user(millis: f64) -> Option<f64> {
    (millis > 0.0).then(|| 1000.0 / millis)
}

fn errors(cohort: &Cohort<'_>) -> Value {
    let mut counts = std::collections::BTreeMap::<String, u64>::new();
    for request in cohort.all().filter(|request| !request.completed()) {
        *counts.entry(why(request)).or_default() += 1;
    }
    counts.into_iter().map(|(why, count)| json!({"error_details": {"type": why, "message": why}, "count": count})).collect()
}

/// The records of one level, warm-up and tail left out: a line of JSON each.
pub(super) fn records(cohort: &Cohort<'_>) -> Vec<u8> {
    let lines = cohort.all().enumerate().map(|(index, request)| format!("{}\n", record(cohort, index, request)));
    lines.collect::<String>().into_bytes()
}

fn record(cohort: &Cohort<'_>, index: usize, request: &RequestRecord) -> Value {
    let wall = |stamp: Nanos| wall_ns(cohort.level, stamp);
    let mut metrics = Map::new();
    let mut add = |tag: &str, unit: &str, value: Option<Value>| {
        metrics.extend(value.map(|value| (tag.to_owned(), json!({"value": value, "unit": unit}))));
    };
    if request.completed() {
        let millis = |length: Option<Nanos>| length.map(|length| json!(length.as_millis_f64()));
        add("time_to_first_token", "ms", millis(request.ttft_service()));
        add("request_latency", "ms", millis(latency(request)));
        add("effective_latency", "ms", millis(request.e2e()));
        add("inter_token_latency", "ms", inter_token_ms(request).map(Value::from));
        let gaps = gaps_ns(request).map(|gap| gap as f64 / 1e6).collect::<Vec<_>>();
        add("inter_chunk_latency", "ms", (!gaps.is_empty()).then(|| json!(gaps)));
        add("output_sequence_length", "tokens", Some(json!(request.output_tokens)));
        add("output_token_count", "tokens", Some(json!(request.output_tokens)));
    }
    add("input_sequence_length", "tokens", Some(json!(request.prompt_tokens)));
    let error = (!request.completed()).then(|| json!({"type": why(request), "message": why(request)}));
    json!({
        "metadata": {
            "session_num": index,
            "x_request_id": request.id.to_string(),
            "turn_index": 0,
            "credit_issued_ns": wall(request.intended),
            "request_start_ns": wall(request.sent.unwrap_or(request.intended)),
            "request_ack_ns": request.first_byte.map(wall),
            "request_end_ns": wall(request.last_token.filter(|_| request.completed()).unwrap_or(request.end)),
            "worker_id": "plimsoll",
            "record_processor_id": "plimsoll",
            "benchmark_phase": "profiling",
            "was_cancelled": false,
        },
        "metrics": metrics,
        "error": error,
    })
}

/// One point of a summary; or of all records of a file together.
///
/// # Errors
/// When the version is unknown, the run did not go to its end, or a field is no such figure.
pub(super) fn read(file: &str, documents: &[Node<'_>]) -> Result<Imported, ImportError> {
    let [summary] = documents else { return read_records(file, documents) };
    if summary.find("metadata").is_some() {
        return read_records(file, documents);
    }
    if let Some(version) = summary.text_of("schema_version")?.filter(|version| !is_known(version)) {
        return Err(ImportError::Version { file: file.to_owned(), what: "schema_version", found: version, known: "1.0 to 1.4" });
    }
    for (flag, bad) in [("is_complete", false), ("was_cancelled", true)] {
        if summary.find(flag).is_some_and(|found| found.flag() == Some(bad)) {
            let why = summary.text_of("incomplete_reason")?.map_or(String::new(), |why| format!(" ({why})"));
            return Err(ImportError::Empty { file: file.to_owned(), why: format!("`{flag}` is `{bad}`{why}") });
        }
    }
    let mut lacks = vec![Lack::NoInterval, Lack::GpusNotStated];
    let e2e = if summary.find("effective_latency").is_some() { "effective_latency" } else { "request_latency" };
    let avg = |tag: &str| summary.find(tag).map_or(Ok(None), |metric| metric.number_of("avg"));
    let count = |tag: &str| summary.find(tag).map_or(Ok(None), |metric| metric.count_of("avg"));
    let rate = |tag: &str, unit: &str| {
        let metric = summary.find(tag);
        metric
            .map(|metric| {
                if metric.field("unit")?.text()? == unit {
                    metric.field("avg")?.number()
                } else {
                    Err(metric.wrong(format!("is not in {unit}")))
                }
            })
            .transpose()
    };
    let point = Point {
        load: load(summary)?,
        calls_per_s: rate("request_throughput", "requests/sec")?.ok_or_else(|| summary.wrong("has no `request_throughput`"))?,
        output_tokens_per_s: rate("output_token_throughput", "tokens/sec")?,
        ttft_ms: quantiles(summary, "time_to_first_token")?,
        tpot_ms: quantiles(summary, "inter_token_latency")?,
        itl_ms: quantiles(summary, "inter_chunk_latency")?,
        e2e_ms: quantiles(summary, e2e)?,
        completed: count("request_count")?,
        failed: match count("error_request_count")? {
            // It is written where there were errors; the summary of them always is.
            None => summary.find("error_summary").map(|errors| sum_of_errors(&errors)).transpose()?,
            counted => counted,
        },
        gpus: None,
        mean_input_tokens: avg("input_sequence_length")?,
        mean_output_tokens: avg("output_sequence_length")?,
    };
    lacks.push(if e2e == "effective_latency" { Lack::TtftFromTheSend } else { Lack::FromTheSend });
    lacks.extend(summary.find("goodput").is_none().then_some(Lack::NoSloVerdict));
    if summary.find("plimsoll").is_none() {
        lacks.extend([Lack::RampIncluded, Lack::NoValidity]);
    }
    let version = summary.text_of("aiperf_version")?;
    let model = summary.text_of("model").ok().flatten();
    Ok(Imported { tool: NAME, version, file: file.to_owned(), model, lacks: lacks_of(&point, lacks), points: vec![point] })
}

fn lacks_of(point: &Point, mut lacks: Vec<Lack>) -> Vec<Lack> {
    lacks.extend((point.load == Load::NotStated).then_some(Lack::LoadNotStated));
    lacks.extend(point.failed.is_none().then_some(Lack::FailuresNotCounted));
    lacks.extend(point.ttft_ms.at.is_empty().then_some(Lack::NoTtft));
    lacks.extend(point.itl_ms.at.is_empty().then_some(Lack::NoChunkGaps));
    lacks
}

fn is_known(version: &str) -> bool {
    version.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor <= 4)
}

fn sum_of_errors(errors: &Node<'_>) -> Result<u64, ImportError> {
    errors.elements()?.iter().try_fold(0, |sum: u64, error| Ok(sum.saturating_add(error.field("count")?.count()?)))
}

/// By the point of the sweep, else by the phase that was measured.
fn load(summary: &Node<'_>) -> Result<Load, ImportError> {
    let variation = summary.find("run_info").and_then(|info| info.find("variation_values"));
    let of_name = |ending: &str| {
        let values = variation.as_ref()?;
        values.names().find(|name| name.rsplit('.').next() == Some(ending)).and_then(|name| values.find(name))
    };
    let phases = summary.find("input_config").and_then(|config| config.find("phases"));
    let profiling = phases.into_iter().flat_map(|phases| phases.elements().unwrap_or_default());
    let mut profiling = profiling.filter(|phase| phase.text_of("name").ok().flatten().as_deref() == Some("profiling"));
    let profiling = profiling.next();
    let of_phase = |name: &str| profiling.as_ref().and_then(|phase| phase.find(name));
    if let Some(rate) = of_name("rate").or_else(|| of_phase("rate")) {
        return Ok(Load::Open { calls_per_s: rate.number()? });
    }
    let concurrency = of_name("concurrency").or_else(|| of_phase("concurrency"));
    concurrency.map_or(Ok(Load::NotStated), |concurrency| Ok(Load::Closed { concurrency: concurrency.positive()? }))
}

/// Milliseconds of one of a unit of time.
fn millis_of(unit: &Node<'_>) -> Result<f64, ImportError> {
    match unit.text()? {
        "ns" => Ok(1e-6),
        "us" => Ok(1e-3),
        "ms" => Ok(1.0),
        "s" | "sec" => Ok(1e3),
        other => Err(unit.wrong(format!("is `{other}` and no unit of time"))),
    }
}

fn quantiles(summary: &Node<'_>, tag: &str) -> Result<Quantiles, ImportError> {
    let Some(metric) = summary.find(tag) else { return Ok(Quantiles::default()) };
    let factor = millis_of(&metric.field("unit")?)?;
    let mut at = Vec::new();
    for percentile in PERCENTILES {
        at.extend(metric.number_of(&format!("p{percentile}"))?.map(|value| (percentile, value * factor)));
    }
    Ok(Quantiles { mean: metric.number_of("avg")?.map(|mean| mean * factor), at })
}

/// Records, of the measured phase: their own spread, and rates from the first send to the last end.
fn read_records(file: &str, documents: &[Node<'_>]) -> Result<Imported, ImportError> {
    let (mut from, mut to, mut failed) = (u64::MAX, 0, 0);
    let mut values = [const { Vec::<f64>::new() }; 6];
    for record in documents {
        let metadata = record.field("metadata")?;
        if metadata.field("benchmark_phase")?.text()? != "profiling"
            || metadata.find("was_cancelled").is_some_and(|cut| cut.flag() == Some(true))
        {
            continue;
        }
        if record.find("error").is_some() {
            failed += 1;
            continue;
        }
        from = from.min(metadata.field("request_start_ns")?.count()?);
        to = to.max(metadata.field("request_end_ns")?.count()?);
        let metrics = record.field("metrics")?;
        let tags = ["time_to_first_token", "inter_token_latency", "inter_chunk_latency", "request_latency"];
        for (values, tag) in values.iter_mut().zip(tags) {
            if let Some(metric) = metrics.find(tag) {
                let (factor, value) = (millis_of(&metric.field("unit")?)?, metric.field("value")?);
                let all = value.elements().unwrap_or_else(|_| vec![value]);
                values.extend(all.iter().map(|value| Ok(value.number()? * factor)).collect::<Result<Vec<_>, ImportError>>()?);
            }
        }
        for (values, tag) in values[4..].iter_mut().zip(["input_sequence_length", "output_sequence_length"]) {
            values.extend(metrics.find(tag).map(|metric| metric.field("value")?.number()).transpose()?);
        }
    }
    let [ttft, tpot, gaps, e2e, input, output] = values.map(Spread::of);
    let seconds = to.saturating_sub(from) as f64 / 1e9;
    if e2e.count == 0 || seconds <= 0.0 {
        return Err(ImportError::Empty { file: file.to_owned(), why: "no request of the phase `profiling` completed".to_owned() });
    }
    let known = |spread: &Spread| Quantiles {
        mean: spread.mean,
        at: PERCENTILES.into_iter().filter_map(|at| Some((at, spread.at(at)?))).collect(),
    };
    let point = Point {
        load: Load::NotStated,
        calls_per_s: e2e.count as f64 / seconds,
        output_tokens_per_s: output.sum().map(|tokens| tokens / seconds),
        ttft_ms: known(&ttft),
        tpot_ms: known(&tpot),
        itl_ms: known(&gaps),
        e2e_ms: known(&e2e),
        completed: Some(e2e.count),
        failed: Some(failed),
        gpus: None,
        mean_input_tokens: input.mean,
        mean_output_tokens: output.mean,
    };
    let lacks = vec![Lack::FromTheSend, Lack::GpusNotStated, Lack::NoSloVerdict, Lack::NoInterval, Lack::NoValidity, Lack::RampIncluded];
    Ok(Imported { tool: NAME, version: None, file: file.to_owned(), model: None, lacks: lacks_of(&point, lacks), points: vec![point] })
}
