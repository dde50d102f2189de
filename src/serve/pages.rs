//! Everything but answers: which model, whether it lives, how busy it is.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::serve::failure::Failure;
use crate::serve::service::Service;
use crate::serve::stepping::Message;

#[derive(Serialize)]
struct Models<'a> {
    object: &'static str,
    data: [Model<'a>; 1],
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
    max_model_len: usize,
    device: &'a str,
    precision: &'a str,
    labels: &'a [String],
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

pub(super) async fn models(State(service): State<Arc<Service>>) -> Response {
    let served = &service.served;
    let model = Model {
        id: &served.name,
        object: "model",
        created: service.created,
        owned_by: "plimsoll",
        max_model_len: service.limits.longest(),
        device: &served.device,
        precision: &served.precision,
        labels: &served.labels,
    };
    Json(Models { object: "list", data: [model] }).into_response()
}

pub(super) async fn health(State(service): State<Arc<Service>>) -> StatusCode {
    if service.is_alive() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) async fn version() -> Response {
    Json(Version { version: env!("CARGO_PKG_VERSION") }).into_response()
}

pub(super) async fn reset_prefix_cache(State(service): State<Arc<Service>>) -> Result<StatusCode, Failure> {
    if service.tell(Message::ForgetPrefixes) { Ok(StatusCode::OK) } else { Err(Failure::engine_ended()) }
}

/// In Prometheus' text form, under the names that vLLM gave these quantities, with our own prefix.
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> Response {
    let gauges = &service.gauges;
    let read = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed) as f64;
    let prompt_tokens = read(&service.prompt_tokens);
    let rows = [
        ("num_requests_running", "gauge", "Requests in the running batch.", read(&gauges.running)),
        ("num_requests_waiting", "gauge", "Requests that wait for the engine.", service.waiting() as f64),
        ("kv_cache_usage_perc", "gauge", "Share of KV blocks held, 0 to 1.", read(&gauges.kv_blocks_used) / read(&gauges.kv_blocks_total)),
        ("num_preemptions_total", "counter", "Times that a request lost its KV blocks.", read(&gauges.preemptions)),
        ("prefix_cache_queries_total", "counter", "Prompt tokens looked for in the prefix cache.", prompt_tokens),
        ("prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", read(&gauges.cached_tokens)),
        ("prompt_tokens_total", "counter", "Prompt tokens of requests started.", prompt_tokens),
        ("generation_tokens_total", "counter", "Tokens generated.", read(&gauges.generated_tokens)),
        ("engine_steps_total", "counter", "Steps of the engine.", read(&gauges.steps)),
    ];
    let mut text = String::new();
    let name = service.served.name.replace('\\', "\\\\").replace('"', "\\\"");
    for (metric, kind, help, value) in rows {
        // A string takes everything.
        let _ = writeln!(
            text,
            "# HELP plimsoll:{metric} {help}\n# TYPE plimsoll:{metric} {kind}\nplimsoll:{metric}{{model_name=\"{name}\"}} {value}"
        );
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
