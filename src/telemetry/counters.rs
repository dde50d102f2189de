//! What a server says of itself at `/metrics`: requests running and waiting, its KV cache, tokens. One look, whichever server it is.
//!
//! Known by their names without the server's own prefix: vLLM (V0 and V1), SGLang, TensorRT-LLM (`trtllm-serve` and Triton), llama.cpp,
//! plimsoll. The first name that is there counts, so that one kept for compatibility is not read twice.

use crate::record::reading::{Missing, Reading};
use crate::telemetry::prometheus::{Series, series};

/// One look at a server's counters; totals are since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServerCounters {
    /// Requests in the running batch.
    pub running: Reading<f64>,
    /// Requests that wait for it.
    pub waiting: Reading<f64>,
    /// Share of the KV cache in use, 0..=1; of several engines their mean.
    pub kv_usage: Reading<f64>,
    /// Sequences that lost their blocks, in total.
    pub preemptions: Reading<f64>,
    /// What was looked up in the prefix cache, in total: tokens or blocks, as the server counts.
    pub prefix_queries: Reading<f64>,
    /// What of it was found, in the same unit.
    pub prefix_hits: Reading<f64>,
    /// Prompt tokens, in total.
    pub prompt_tokens: Reading<f64>,
    /// Generated tokens, in total.
    pub generation_tokens: Reading<f64>,
}

/// What a name, less its prefix and `_total`, is called; with a label that it must have.
type Name = (&'static str, Option<(&'static str, &'static str)>);

const fn plain(name: &'static str) -> Name {
    (name, None)
}

/// Prefixes that are set off by `_`; those set off by `:` need no list.
const PREFIXES: [&str; 5] = ["vllm_", "sglang_", "trtllm_", "llamacpp_", "plimsoll_"];
const TRITON: &str = "nv_trt_llm_request_metrics";
const RUNNING: &[Name] = &[
    plain("num_requests_running"),
    plain("num_running_reqs"),
    plain("requests_processing"),
    (TRITON, Some(("request_type", "scheduled"))),
];
const WAITING: &[Name] =
    &[plain("num_requests_waiting"), plain("num_queue_reqs"), plain("requests_deferred"), (TRITON, Some(("request_type", "waiting")))];
const KV_USAGE: &[Name] = &[
    plain("kv_cache_usage_perc"),
    plain("gpu_cache_usage_perc"),
    plain("token_usage"),
    plain("kv_cache_utilization"),
    plain("kv_cache_usage_ratio"),
    ("nv_trt_llm_kv_cache_block_metrics", Some(("kv_cache_block_type", "fraction"))),
];
const PREEMPTIONS: &[Name] = &[plain("num_preemptions"), plain("num_retracted_requests")];
const PROMPT_TOKENS: &[Name] = &[plain("prompt_tokens")];
/// SGLang counts no look-ups: it looks up every prompt token.
const PREFIX_QUERIES: &[Name] = &[plain("prefix_cache_queries"), plain("gpu_prefix_cache_queries")];
const PREFIX_HITS: &[Name] = &[plain("prefix_cache_hits"), plain("gpu_prefix_cache_hits")];
const CACHED_TOKENS: &[Name] = &[plain("cached_tokens")];
const GENERATION_TOKENS: &[Name] = &[plain("generation_tokens"), plain("tokens_predicted")];
/// Labels by which the parts of one engine tell the same thing several times.
const RANKS: [&str; 3] = ["tp_rank", "pp_rank", "moe_ep_rank"];

impl ServerCounters {
    /// Nothing, for one reason.
    #[must_use]
    pub fn none(missing: Missing) -> Self {
        let none = Reading::none(missing);
        Self {
            running: none,
            waiting: none,
            kv_usage: none,
            preemptions: none,
            prefix_queries: none,
            prefix_hits: none,
            prompt_tokens: none,
            generation_tokens: none,
        }
    }

    /// What a page of metrics says; what it does not have is not supported.
    #[must_use]
    pub fn read(page: &str) -> Self {
        let series = series(page).collect::<Vec<_>>();
        let sum = |names| {
            let parts = parts(&series, names)?;
            Some(parts.iter().sum())
        };
        let mean = |names| {
            let parts = parts(&series, names)?;
            Some(parts.iter().sum::<f64>() / parts.len() as f64)
        };
        let (mut queries, mut hits) = (sum(PREFIX_QUERIES), sum(PREFIX_HITS));
        if hits.is_none() {
            (queries, hits) = (sum(PROMPT_TOKENS), sum(CACHED_TOKENS));
        }
        let reading = |value: Option<f64>| match value {
            Some(value) if value.is_finite() && value >= 0.0 => Reading::Value(value),
            Some(_) => Reading::none(Missing::Failed),
            None => Reading::none(Missing::NotSupported),
        };
        Self {
            running: reading(sum(RUNNING)),
            waiting: reading(sum(WAITING)),
            kv_usage: reading(mean(KV_USAGE)),
            preemptions: reading(sum(PREEMPTIONS)),
            prefix_queries: reading(queries.filter(|_| hits.is_some())),
            prefix_hits: reading(hits.filter(|_| queries.is_some())),
            prompt_tokens: reading(sum(PROMPT_TOKENS)),
            generation_tokens: reading(sum(GENERATION_TOKENS)),
        }
    }

    /// Whether it says anything that is understood.
    #[must_use]
    pub fn says_something(&self) -> bool {
        let known = [self.running, self.waiting, self.kv_usage, self.prompt_tokens, self.generation_tokens];
        known.iter().any(|reading| reading.get().is_some())
    }
}

/// The values of the first of these names that is there, one for each engine; `None` where none is.
fn parts(series: &[Series<'_>], names: &[Name]) -> Option<Vec<f64>> {
    let all_of = |(name, label): &Name| {
        let fits = |one: &&Series<'_>| bare(one.name) == *name && label.is_none_or(|(label, value)| one.label(label) == Some(value));
        series.iter().filter(fits).collect::<Vec<_>>()
    };
    let mut found = names.iter().map(all_of).find(|found| !found.is_empty())?;
    // SGLang divides its queue by priority, and gives the whole of it under none.
    if found.iter().any(|one| one.label("priority") == Some("")) {
        found.retain(|one| one.label("priority").is_none_or(str::is_empty));
    }
    let mut engines = Vec::new();
    for one in found {
        let of = one.labels.iter().filter(|(name, _)| !RANKS.contains(name)).collect::<Vec<_>>();
        match engines.iter_mut().find(|(known, _)| *known == of) {
            Some((_, value)) => *value = f64::max(*value, one.value),
            None => engines.push((of, one.value)),
        }
    }
    Some(engines.into_iter().map(|(_, value)| value).collect())
}

/// A name without the server's prefix and without `_total`, which some writers leave out.
fn bare(name: &str) -> &str {
    let name = name.rsplit_once(':').map_or(name, |(_, name)| name);
    let name = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    name.strip_suffix("_total").unwrap_or(name)
}
