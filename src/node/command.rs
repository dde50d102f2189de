//! A server's command line: what it says of precision, parallelism and limits, and what of it nobody else may read.

use std::collections::BTreeMap;

/// Stands where a secret was.
const HIDDEN: &str = "***";
/// Flags that say how a server computes, without dashes: vLLM's, SGLang's, TensorRT-LLM's, llama.cpp's long ones, TGI's.
const SETTINGS: &[&str] = &[
    "attention-backend",
    "batch-size",
    "block-size",
    "cache-type-k",
    "cache-type-v",
    "chunked-prefill-size",
    "context-length",
    "cont-batching",
    "ctx-size",
    "cuda-graph-max-bs",
    "data-parallel-size",
    "disable-radix-cache",
    "dp",
    "dp-size",
    "dtype",
    "enable-chunked-prefill",
    "enable-expert-parallel",
    "enable-prefix-caching",
    "enforce-eager",
    "ep",
    "ep-size",
    "expert-parallel-size",
    "flash-attn",
    "free-gpu-memory-fraction",
    "gpu-layers",
    "gpu-memory-utilization",
    "kv-cache-dtype",
    "kv-cache-free-gpu-memory-fraction",
    "kv-cache-memory-bytes",
    "max-batch-size",
    "max-model-len",
    "max-num-batched-tokens",
    "max-num-seqs",
    "max-num-tokens",
    "max-prefill-tokens",
    "max-running-requests",
    "max-seq-len",
    "max-total-tokens",
    "mem-fraction-static",
    "n-gpu-layers",
    "no-enable-chunked-prefill",
    "no-enable-prefix-caching",
    "page-size",
    "parallel",
    "pipeline-parallel-size",
    "pp",
    "pp-size",
    "quantization",
    "quantize",
    "schedule-conservativeness",
    "schedule-policy",
    "scheduling-policy",
    "split-mode",
    "swap-space",
    "tensor-parallel-size",
    "tensor-split",
    "tp",
    "tp-size",
    "ubatch-size",
];
/// llama.cpp's short ones, which mean something else everywhere else.
const LLAMA_SETTINGS: &[&str] = &["b", "c", "ctk", "ctv", "fa", "nkvo", "ngl", "np", "sm", "ts", "ub"];

/// The file name of a program.
pub(super) fn program(word: &str) -> &str {
    // Some servers write a title in place of their command line.
    let path = word.split_whitespace().next().unwrap_or_default();
    path.trim_end_matches(':').rsplit('/').next().unwrap_or_default()
}

/// A flag without its dashes, `_` for `-` undone, and the value that stands with it behind `=`.
fn flag(word: &str) -> Option<(String, Option<&str>)> {
    let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let (name, value) = bare.split_once('=').map_or((bare, None), |(name, value)| (name, Some(value)));
    let named = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    named.then(|| (name.replace('_', "-").to_ascii_lowercase(), value))
}

/// What the command line says of how the server computes, by flag without dashes; `true` where a flag stands alone.
pub(super) fn settings(words: &[String]) -> BTreeMap<String, String> {
    let is_llama = words.first().is_some_and(|word| program(word).contains("llama"));
    let wanted = |name: &str| SETTINGS.contains(&name) || name.contains("speculative") || (is_llama && LLAMA_SETTINGS.contains(&name));
    let mut settings = BTreeMap::new();
    for (at, word) in words.iter().enumerate() {
        let Some((name, value)) = flag(word).filter(|(name, _)| wanted(name)) else { continue };
        let next = || words.get(at + 1).filter(|next| !next.starts_with('-') || next.parse::<f64>().is_ok()).map(String::as_str);
        settings.insert(name, value.or_else(next).unwrap_or("true").to_owned());
    }
    settings
}

/// The command line with every value hidden that may be a secret: those of flags and assignments by such a name, and words that look
/// like one.
pub(super) fn without_secrets(words: &[String]) -> Vec<String> {
    let mut follows = false;
    let mut hidden = Vec::new();
    for word in words {
        let is_flag = flag(word).is_some();
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        let named = names_secret(&name.to_ascii_lowercase());
        hidden.push(match value {
            Some(_) if named => format!("{name}={HIDDEN}"),
            _ if looks_secret(word) || (follows && !is_flag) => HIDDEN.to_owned(),
            _ => word.clone(),
        });
        // Several values may follow one flag: all of them, up to the next.
        follows = if is_flag { named && value.is_none() } else { follows };
    }
    hidden
}

fn names_secret(name: &str) -> bool {
    // How many tokens, and which tokenizer, is no secret.
    let of_tokens = name.ends_with("tokens") || name.contains("tokenizer");
    ["key", "secret", "passw", "credential"].iter().any(|part| name.contains(part)) || (name.contains("token") && !of_tokens)
}

fn looks_secret(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let begins = ["sk-", "hf_", "bearer "].iter().any(|begin| word.starts_with(begin));
    // A user and a password within an address.
    let in_address = word.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
    let within = ["api_key", "api-key", "apikey", "secret", "password", "authorization"].iter().any(|part| word.contains(part));
    begins || in_address || (within && word.contains([':', '=']))
}
