//! Service laws of `--target simulated`: two by name, any other from a file.

use anyhow::Context;

use crate::cli::exit::{Exit, ExitWith};
use crate::queueing::bands::TokenPrices;
use crate::queueing::law::{BatchingLaw, ServiceLaw, ServiceTime};

/// What a law looks like.
const EXAMPLE: &str = r#"{"law": "servers", "count": 1, "service": {"distribution": "exponential", "mean_s": 0.05}} (or "batching" with step_s, per_sequence_s, per_prefill_token_s, per_kv_token_s, max_batch, chunk_tokens and kv_tokens)"#;

/// The law called `name`, or the one in the JSON file of that name.
///
/// # Errors
/// When it is neither.
pub(super) fn named(name: &str) -> anyhow::Result<ServiceLaw> {
    match name {
        "mm1" => Ok(ServiceLaw::Servers { count: 1, service: ServiceTime::Exponential { mean_s: 0.05 } }),
        // About what an 8 B model in bf16 does on one large GPU.
        "batching" => Ok(ServiceLaw::Batching(BatchingLaw {
            step_s: 0.008,
            per_sequence_s: 0.000_04,
            per_prefill_token_s: 0.000_035,
            per_kv_token_s: 0.0,
            per_token_s: TokenPrices::default(),
            max_batch: 256,
            chunk_tokens: 2048,
            kv_tokens: 800_000,
        })),
        file => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the service law `{file}`. Give `mm1`, `batching` or a JSON file"))
                .exit_with(Exit::BadInput)?;
            read(&text).with_context(|| format!("`{file}` is no service law")).exit_with(Exit::BadInput)
        }
    }
}

/// A law as JSON.
fn read(text: &str) -> anyhow::Result<ServiceLaw> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let law: ServiceLaw = serde_json::from_str(text).map_err(|error| anyhow::anyhow!("{error}. Write it like {EXAMPLE}"))?;
    law.check().map_err(|wrong| anyhow::anyhow!("{wrong}. Write it like {EXAMPLE}"))?;
    Ok(law)
}
