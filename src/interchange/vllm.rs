//! The JSON of `vllm bench serve` (Python and Rust write the same): one flat object a level, milliseconds in summaries and
//! seconds in arrays. Sources are `vllm/benchmarks/serve.py` and `lib/endpoint_request_func.py` of vLLM 0.33.
//!
//! | There | Means (source) | Ours |
//! | --- | --- | --- |
//! | `ttft` | first chunk minus send (`calculate_metrics`) | TTFT, but from the send |
//! | `tpot` | (latency - ttft) / (tokens - 1), one value a request | TPOT; same but for answers whose first chunk has several tokens |
//! | `itl` | gap between chunks, whatever number of tokens they hold | ITL |
//! | `e2el` | last chunk minus send | E2E, but from the send |
//! | `e2el_including_client_queue` | the same with the wait at `--max-concurrency` | E2E |
//! | `*_throughput` | over the wall time of the whole run, ramp and drain inside | rates |
//!
//! Texts are not exported: no run keeps them.

use serde_json::{Map, Value, json};

use crate::clock::Nanos;
use crate::interchange::cohort::{Cohort, date, gaps_ns, latency, why};
use crate::interchange::error::ImportError;
use crate::interchange::export::origin;
use crate::interchange::foreign::Node;
use crate::interchange::spread::{Spread, put};
use crate::record::imported::{Imported, Lack, Load, Point, Quantiles};
use crate::record::level::Offered;
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;

/// As reports name it.
pub(super) const NAME: &str = "vLLM bench serve";

/// One level.
pub(super) fn document(run: &RunRecord, cohort: &Cohort<'_>) -> Value {
    let level = cohort.level;
    let throughput = &level.throughput;
    let (prompt_tokens, output_tokens) = cohort.tokens();
    let (rate, burstiness, concurrency) = match &level.offered {
        Offered::Closed { concurrency } => (json!("inf"), json!(1.0), json!(concurrency)),
        Offered::Open { calls_per_s, process } => (json!(calls_per_s), burstiness(process), Value::Null),
    };
    let document = json!({
        "date": date(level),
        "endpoint_type": "plimsoll",
        "backend": "plimsoll",
        "label": format!("plimsoll-level{:03}", level.index),
        "model_id": run.target.model,
        "tokenizer_id": run.target.model,
        "num_prompts": level.counts.cohort,
        "request_rate": rate,
        "burstiness": burstiness,
        "max_concurrency": concurrency,
        "duration": level.window_s,
        "completed": level.counts.completed,
        "failed": cohort.failed(),
        // A float-to-integer `as` saturates.
        "total_input_tokens": prompt_tokens.round() as u64,
        "total_output_tokens": output_tokens.round() as u64,
        "request_throughput": throughput.completions_per_s,
        // Null where nothing was limited, as vLLM has it without `--goodput`.
        "request_goodput": (!level.slo.objectives.is_empty()).then_some(level.slo.goodput_calls_per_s),
        "output_throughput": throughput.output_tokens_per_s,
        "total_token_throughput": throughput.output_tokens_per_s + throughput.prompt_tokens_per_s,
        "max_output_tokens_per_s": busiest_second(cohort),
        "max_concurrent_requests": level.in_flight.max,
        "rtfx": 0.0,
        "plimsoll": origin(run, level),
    });
    let Value::Object(mut document) = document else { return Value::Null };
    let spreads = [("ttft", cohort.ttft_ms()), ("tpot", cohort.tpot_ms()), ("itl", cohort.gaps_ms()), ("e2el", cohort.latency_ms())];
    for (name, spread) in spreads {
        summary(&mut document, name, "_ms", &spread);
    }
    if cohort.requests.is_some() {
        details(&mut document, cohort);
    }
    Value::Object(document)
}

/// `mean_`, `median_`, `std_` and `pNN_` of a latency; 0 of none, as numpy has it of an empty list there.
pub(super) fn summary(into: &mut Map<String, Value>, name: &str, suffix: &str, spread: &Spread) {
    let of_none = (spread.count == 0).then_some(0.0);
    put(into, format!("mean_{name}{suffix}"), spread.mean.or(of_none));
    put(into, format!("median_{name}{suffix}"), spread.at(50.0).or(of_none));
    put(into, format!("std_{name}{suffix}"), spread.std.or(of_none));
    for percentile in [90.0, 95.0, 99.0, 99.9] {
        put(into, format!("p{percentile}_{name}{suffix}"), spread.at(percentile).or(of_none));
    }
}

/// The arrays of `--save-detailed`, an element a request; of one that failed zeros and an error, as there.
fn details(into: &mut Map<String, Value>, cohort: &Cohort<'_>) {
    let seconds = |length: Option<Nanos>| length.map_or(0.0, Nanos::as_secs_f64);
    let of_each = |value: &dyn Fn(&RequestRecord) -> Value| cohort.all().map(value).collect::<Value>();
    let done = |request: &RequestRecord, value: Value, otherwise: Value| if request.completed() { value } else { otherwise };
    let arrays: [(&str, Value); 8] = [
        ("input_lens", of_each(&|request| json!(request.prompt_tokens))),
        ("output_lens", of_each(&|request| done(request, json!(request.output_tokens), json!(0)))),
        ("ttfts", of_each(&|request| json!(seconds(request.ttft_service())))),
        ("itls", of_each(&|request| gaps_ns(request).map(|gap| gap as f64 / 1e9).collect())),
        ("latencies", of_each(&|request| done(request, json!(seconds(latency(request))), json!(0.0)))),
        ("start_times", of_each(&|request| json!(seconds(request.sent)))),
        ("queue_times", of_each(&|request| json!(seconds(request.send_lag())))),
        ("errors", of_each(&|request| json!(why(request)))),
    ];
    into.extend(arrays.map(|(name, array)| (name.to_owned(), array)));
}

/// Most output tokens in one second of the window; 0 without a log, as vLLM has it of an empty run.
fn busiest_second(cohort: &Cohort<'_>) -> f64 {
    let from = cohort.level.window.0;
    let mut seconds = std::collections::BTreeMap::<u64, f64>::new();
    for chunk in cohort.all().flat_map(|request| &request.chunks) {
        *seconds.entry(chunk.at.since(from).0 / 1_000_000_000).or_default() += f64::from(chunk.tokens);
    }
    seconds.into_values().fold(0.0, f64::max)
}

/// vLLM's shape of the gamma distribution of gaps: 1 is Poisson; null where the process is another.
fn burstiness(process: &str) -> Value {
    match process.split_once(':') {
        Some(("gamma", shape)) => shape.parse::<f64>().map_or(Value::Null, |shape| json!(shape)),
        None if process == "poisson" => json!(1.0),
        _ => Value::Null,
    }
}

/// One point a document.
///
/// # Errors
/// When a field is missing or no such figure.
pub(super) fn read(file: &str, documents: &[Node<'_>]) -> Result<Imported, ImportError> {
    let mut lacks = vec![Lack::NoInterval];
    let points = documents.iter().map(|document| point(document, &mut lacks)).collect::<Result<Vec<_>, _>>()?;
    let model = documents.first().map(|document| document.text_of("model_id")).transpose()?.flatten();
    Ok(Imported { tool: NAME, version: None, file: file.to_owned(), model, lacks, points })
}

fn point(document: &Node<'_>, lacks: &mut Vec<Lack>) -> Result<Point, ImportError> {
    let completed = document.field("completed")?.count()?;
    let failed = document.count_of("failed")?;
    let e2e = if names_of(document, "e2el_including_client_queue", "_ms").is_empty() { "e2el" } else { "e2el_including_client_queue" };
    lacks.push(if e2e == "e2el" { Lack::FromTheSend } else { Lack::TtftFromTheSend });
    let latency = |name: &str| quantiles(document, name, "_ms", 1.0);
    let per_call = |total: Option<u64>| total.filter(|_| completed > 0).map(|total| total as f64 / completed as f64);
    let ours = document.find("plimsoll");
    let gpus = ours.as_ref().and_then(|ours| ours.find("devices")).map(|devices| devices.positive()).transpose()?;
    let point = Point {
        load: load(document, lacks)?,
        calls_per_s: document.field("request_throughput")?.number()?,
        output_tokens_per_s: document.number_of("output_throughput")?,
        ttft_ms: latency("ttft")?,
        tpot_ms: latency("tpot")?,
        itl_ms: latency("itl")?,
        e2e_ms: latency(e2e)?,
        completed: Some(completed),
        failed,
        gpus,
        mean_input_tokens: per_call(document.count_of("total_input_tokens")?),
        mean_output_tokens: per_call(document.count_of("total_output_tokens")?),
    };
    lacks.extend(failed.is_none().then_some(Lack::FailuresNotCounted));
    lacks.extend(point.ttft_ms.at.is_empty().then_some(Lack::NoTtft));
    lacks.extend(point.itl_ms.at.is_empty().then_some(Lack::NoChunkGaps));
    lacks.extend(gpus.is_none().then_some(Lack::GpusNotStated));
    lacks.extend(document.find("request_goodput").is_none().then_some(Lack::NoSloVerdict));
    if ours.is_none() {
        lacks.extend([Lack::RampIncluded, Lack::NoValidity]);
    }
    Ok(point)
}

/// `request_rate` is `inf` where everything is sent at once, held back by `max_concurrency` alone.
fn load(document: &Node<'_>, lacks: &mut Vec<Lack>) -> Result<Load, ImportError> {
    let cap = document.find("max_concurrency").map(|cap| cap.positive()).transpose()?;
    let rate = match document.find("request_rate") {
        Some(rate) if rate.text().is_ok_and(|word| ["inf", "Infinity"].contains(&word)) => None,
        Some(rate) => Some(rate.number()?),
        None => None,
    };
    Ok(match (rate, cap) {
        (Some(calls_per_s), cap) => {
            lacks.extend(cap.map(|_| Lack::ArrivalsCapped));
            Load::Open { calls_per_s }
        }
        (None, Some(concurrency)) => Load::Closed { concurrency },
        (None, None) => {
            lacks.push(Lack::LoadNotStated);
            Load::NotStated
        }
    })
}

/// Percentiles of a latency that the document has, with the names of their fields.
fn names_of<'a>(document: &Node<'a>, name: &str, suffix: &str) -> Vec<(f64, &'a str)> {
    let ending = format!("_{name}{suffix}");
    let percentile = |key: &str| match key.strip_suffix(&ending)? {
        "median" => Some(50.0),
        other => other.strip_prefix('p')?.parse::<f64>().ok().filter(|percentile| *percentile > 0.0 && *percentile < 100.0),
    };
    let mut names = document.names().filter_map(|key| Some((percentile(key)?, key))).collect::<Vec<_>>();
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    names
}

/// Fields such as `mean_ttft_ms`, `median_ttft_ms` and `p99_ttft_ms`, times `factor`. One that is 0 throughout is numpy's mean of
/// nothing: no request had it.
///
/// # Errors
/// When one is no such figure.
pub(super) fn quantiles(document: &Node<'_>, name: &str, suffix: &str, factor: f64) -> Result<Quantiles, ImportError> {
    let mean = document.number_of(&format!("mean_{name}{suffix}"))?.map(|mean| mean * factor);
    let mut at = Vec::<(f64, f64)>::new();
    for (percentile, key) in names_of(document, name, suffix) {
        // `p50` and `median` are the same.
        if at.last().is_none_or(|(before, _)| *before < percentile) {
            at.push((percentile, document.field(key)?.number()? * factor));
        }
    }
    let nothing = mean.unwrap_or(0.0) == 0.0 && at.iter().all(|(_, value)| *value == 0.0);
    Ok(if nothing { Quantiles::default() } else { Quantiles { mean, at } })
}
