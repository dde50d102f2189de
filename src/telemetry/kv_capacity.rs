//! How many tokens a server's KV cache holds, where its page of metrics says so: vLLM and SGLang. All engines together.

use crate::telemetry::prometheus::{Series, series};

/// vLLM: a series of labels, with blocks and their size among them.
const VLLM: &str = "vllm:cache_config_info";
/// SGLang: a gauge, which every rank of tensor parallelism tells again.
const SGLANG: &str = "sglang:max_total_num_tokens";
/// The rank of SGLang that is counted, where ranks are told apart.
const RANKS: [&str; 2] = ["tp_rank", "pp_rank"];

/// Tokens; `None` where the page does not say.
#[must_use]
pub fn tokens(page: &str) -> Option<u64> {
    let (mut tokens, mut found) = (0_u64, false);
    for one in series(page) {
        let held = match one.name {
            VLLM => blocks(&one),
            SGLANG if RANKS.iter().all(|rank| one.label(rank).is_none_or(|rank| rank == "0")) => whole(one.value),
            _ => None,
        };
        if let Some(held) = held {
            tokens = tokens.saturating_add(held);
            found = true;
        }
    }
    Some(tokens).filter(|tokens| found && *tokens > 0)
}

fn blocks(one: &Series<'_>) -> Option<u64> {
    let count = |label: &str| one.label(label)?.parse::<u64>().ok();
    count("block_size")?.checked_mul(count("num_gpu_blocks")?)
}

fn whole(value: f64) -> Option<u64> {
    (value > 0.0 && value < u64::MAX as f64).then_some(value as u64)
}
