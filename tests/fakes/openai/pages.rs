//! Everything but tokens: models, health, version, metrics, the truth.

use std::fmt::Write;

/// Totals that `/metrics` tells, as vLLM names them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) running: usize,
    pub(crate) prompt_tokens: u64,
    pub(crate) generation_tokens: u64,
    pub(crate) prefix_queries: u64,
    pub(crate) prefix_hits: u64,
}

/// A page: status, content type, body.
pub(crate) type Page = (u16, &'static str, Vec<u8>);

const JSON: &str = "application/json";

/// The list of models.
pub(crate) fn models(model: &str, max_model_len: u32) -> Page {
    let text = format!(
        r#"{{"object":"list","data":[{{"id":"{model}","object":"model","created":1795463741,"owned_by":"fake","root":"{model}","parent":null,"max_model_len":{max_model_len}}}]}}"#
    );
    (200, JSON, text.into_bytes())
}

/// The version.
pub(crate) fn version() -> Page {
    (200, JSON, br#"{"version":"0.0.0-fake"}"#.to_vec())
}

/// Nothing but 200.
pub(crate) fn fine() -> Page {
    (200, "text/plain", Vec::new())
}

/// The truth as JSON lines.
pub(crate) fn truth(lines: Vec<u8>) -> Page {
    (200, "application/x-ndjson", lines)
}

/// What is not there.
pub(crate) fn missing() -> Page {
    (404, JSON, br#"{"detail":"Not Found"}"#.to_vec())
}

/// Prometheus text as vLLM writes it.
pub(crate) fn metrics(totals: &Totals, model: &str, capacity: usize) -> Page {
    let mut text = String::new();
    let usage = totals.running as f64 / capacity.max(1) as f64;
    let rows: [(&str, &str, f64); 8] = [
        ("num_requests_running", "gauge", totals.running as f64),
        ("num_requests_waiting", "gauge", 0.0),
        ("kv_cache_usage_perc", "gauge", usage.min(1.0)),
        ("num_preemptions_total", "counter", 0.0),
        ("prefix_cache_queries_total", "counter", totals.prefix_queries as f64),
        ("prefix_cache_hits_total", "counter", totals.prefix_hits as f64),
        ("prompt_tokens_total", "counter", totals.prompt_tokens as f64),
        ("generation_tokens_total", "counter", totals.generation_tokens as f64),
    ];
    for (name, kind, value) in rows {
        writeln!(text, "# HELP vllm:{name} Of the fake server.\n# TYPE vllm:{name} {kind}").expect("a string takes it");
        writeln!(text, "vllm:{name}{{engine=\"0\",model_name=\"{model}\"}} {value:?}").expect("a string takes it");
    }
    let config = r#"block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="4096""#;
    writeln!(text, "# HELP vllm:cache_config_info Of the fake server.\n# TYPE vllm:cache_config_info gauge").expect("a string takes it");
    writeln!(text, "vllm:cache_config_info{{{config}}} 1.0").expect("a string takes it");
    (200, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes())
}
