//! Model shapes embedded in the program, to run with random weights where no checkpoint is at hand.
//!
//! Each is a `config.json` with a name and a source; what a preset measures is labelled synthetic everywhere.

use serde::Deserialize;

use crate::model::config::ModelConfig;
use crate::model::keys::ConfigError;

/// A model shape of the binary.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// As it is asked for on the command line.
    pub name: &'static str,
    text: &'static str,
}

/// What a preset's file says beside the shape: counts another implementation made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct DerivedFacts {
    /// Parameters, each shared one once.
    pub parameters: u64,
    /// Parameters of the embedding.
    pub embedding_parameters: u64,
    /// Key-value bytes a token at two bytes a number.
    pub kv_bytes_per_token_16bit: u64,
    /// Bytes of all weights in bf16.
    pub weight_bytes_bf16: u64,
}

#[derive(Deserialize)]
struct Notes {
    source: String,
    derived: Option<DerivedFacts>,
}

macro_rules! presets {
    ($($name:literal),+ $(,)?) => {
        /// Every preset, the small ones first.
        pub const PRESETS: &[Preset] =
            &[$(Preset { name: $name, text: include_str!(concat!("../../benchmarks/models/", $name, ".json")) }),+];
    };
}

presets![
    "llama-5m",
    "llama-124m",
    "qwen3-0.6b",
    "llama-3.2-1b",
    "mistral-7b-v0.3",
    "qwen2.5-7b",
    "llama-3.1-8b",
    "qwen3-8b",
    "llama-3.1-70b"
];

/// The preset called `name`, in any mixture of capitals.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name))
}

impl Preset {
    /// Its shape.
    ///
    /// # Errors
    /// Never for a file that is in the binary: a test reads each of them.
    pub fn config(&self) -> Result<ModelConfig, ConfigError> {
        ModelConfig::parse(self.text, &format!("preset {}", self.name))
    }

    /// Where the shape comes from.
    #[must_use]
    pub fn source(&self) -> String {
        self.notes().map_or_else(String::new, |notes| notes.source)
    }

    /// Counts by another implementation, where there are any.
    #[must_use]
    pub fn derived(&self) -> Option<DerivedFacts> {
        self.notes().and_then(|notes| notes.derived)
    }

    fn notes(&self) -> Option<Notes> {
        serde_json::from_str(self.text).ok()
    }
}
