//! Reads a Hugging Face `config.json`, in its older and newer layouts, into the flags that drive the layer loop.
//!
//! Whatever the file says that the layer loop does not do (another activation, quantised weights, biases in
//! unusual places) is refused by name rather than ignored: a wrong model measures nothing.

use std::path::Path;

use serde_json::{Map, Value};

use crate::model::keys::{ConfigError, Keys};
use crate::model::rope::{Rope, RopeScaling};
use crate::model::tensors::Dtype;

/// A model family this engine knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3.
    Llama,
    /// Mistral 7B and its dense kin.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3, dense.
    Qwen3,
}

impl Family {
    /// Every family, by its `model_type`.
    pub const KNOWN: [(&'static str, Self); 4] =
        [("llama", Self::Llama), ("mistral", Self::Mistral), ("qwen2", Self::Qwen2), ("qwen3", Self::Qwen3)];

    /// Its `model_type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::KNOWN.iter().find(|(_, family)| *family == self).map_or("", |(name, _)| name)
    }
}

/// A decoder-only transformer, as far as the layer loop needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Where the flags below come from.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Width inside the feed-forward block.
    pub intermediate_size: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Longest sequence the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// Added under the root of every RMS norm.
    pub rms_norm_eps: f32,
    /// Rotary positions.
    pub rope: Rope,
    /// Whether q, k and v have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether each q and k head is normed before rotation (Qwen3).
    pub qk_norm: bool,
    /// Whether the output matrix is the embedding.
    pub tie_word_embeddings: bool,
    /// Tokens each layer may look back on, itself included; `None` is all of them. One entry a layer.
    pub windows: Vec<Option<usize>>,
    /// Ids that end a sequence; may be empty.
    pub eos_token_ids: Vec<u32>,
    /// Element type the weights are published in; what random weights take.
    pub dtype: Dtype,
}

impl ModelConfig {
    /// Width of all query heads together.
    #[must_use]
    pub fn q_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads together.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

impl ModelConfig {
    /// Reads `folder/config.json`, and the end ids of `folder/generation_config.json` where there is one.
    ///
    /// # Errors
    /// When the file cannot be read or describes no model this engine computes.
    pub fn open(folder: &Path) -> Result<Self, ConfigError> {
        let path = folder.join("config.json");
        let file = path.display().to_string();
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { file: file.clone(), source })?;
        let mut config = Self::parse(&text, &file)?;
        // Chat models state there which further ids end an answer.
        let path = folder.join("generation_config.json");
        if path.exists() {
            let file = path.display().to_string();
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { file: file.clone(), source })?;
            let object = object(&text, &file)?;
            let further = token_ids(&Keys { file: &file, prefix: "", object: &object }, "eos_token_id")?;
            for id in further {
                if !config.eos_token_ids.contains(&id) {
                    config.eos_token_ids.push(id);
                }
            }
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`; `file` is named in errors.
    ///
    /// # Errors
    /// When it describes no model this engine computes.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let object = object(text, file)?;
        let keys = Keys { file, prefix: "", object: &object };
        let family = family(&keys)?;
        refuse_the_unusual(&keys)?;

        let num_hidden_layers = keys.count("num_hidden_layers", 10_000)?;
        let num_attention_heads = keys.count("num_attention_heads", 100_000)?;
        let num_key_value_heads = match keys.optional_count("num_key_value_heads", 100_000)? {
            Some(heads) => heads,
            None if family == Family::Llama => num_attention_heads,
            None => return Err(keys.missing("num_key_value_heads")),
        };
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            return Err(keys.invalid("num_key_value_heads", &format!("must divide `num_attention_heads`, {num_attention_heads}")));
        }
        let hidden_size = keys.count("hidden_size", 1 << 24)?;
        Ok(Self {
            family,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim: head_dim(&keys, family, hidden_size, num_attention_heads)?,
            intermediate_size: keys.count("intermediate_size", 1 << 24)?,
            vocab_size: keys.count("vocab_size", 1 << 28)?,
            max_position_embeddings: keys.count("max_position_embeddings", 1 << 31)?,
            rms_norm_eps: keys.positive("rms_norm_eps")? as f32,
            rope: rope(&keys)?,
            qkv_bias: family == Family::Qwen2,
            qk_norm: family == Family::Qwen3,
            tie_word_embeddings: keys.flag("tie_word_embeddings")?,
            windows: windows(&keys, family, num_hidden_layers)?,
            eos_token_ids: token_ids(&keys, "eos_token_id")?,
            dtype: dtype(&keys)?,
        })
    }
}

/// The one object that `text` is.
fn object(text: &str, file: &str) -> Result<Map<String, Value>, ConfigError> {
    let not_json = |problem: String| ConfigError::NotJson { file: file.to_owned(), problem };
    match serde_json::from_str(text).map_err(|error| not_json(error.to_string()))? {
        Value::Object(object) => Ok(object),
        _ => Err(not_json("it is another kind of value".to_owned())),
    }
}

fn family(keys: &Keys<'_>) -> Result<Family, ConfigError> {
    let Some(name) = keys.optional_text("model_type")? else { return Err(keys.missing("model_type")) };
    let found = Family::KNOWN.iter().find(|(known, _)| *known == name).map(|(_, family)| *family);
    let names: Vec<_> = Family::KNOWN.iter().map(|(known, _)| *known).collect();
    found.ok_or_else(|| keys.unsupported("model_type", &format!("the families {}", names.join(", "))))
}

/// Refuses what a config may ask of a known family and the layer loop would silently leave out.
fn refuse_the_unusual(keys: &Keys<'_>) -> Result<(), ConfigError> {
    if !matches!(keys.optional_text("hidden_act")?, None | Some("silu" | "swish")) {
        return Err(keys.unsupported("hidden_act", "`silu`"));
    }
    for bias in ["attention_bias", "mlp_bias"] {
        if keys.flag(bias)? {
            return Err(keys.unsupported(bias, "no bias but that of Qwen2 on q, k and v"));
        }
    }
    if keys.present("quantization_config").is_some() {
        return Err(keys.unsupported("quantization_config", "weights in f32, f16 and bf16"));
    }
    if keys.optional_number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
        return Err(keys.unsupported("partial_rotary_factor", "rotation of the whole head, 1.0"));
    }
    Ok(())
}

fn head_dim(keys: &Keys<'_>, family: Family, hidden_size: usize, heads: usize) -> Result<usize, ConfigError> {
    let head_dim = match keys.optional_count("head_dim", 1 << 16)? {
        Some(head_dim) => head_dim,
        // The default of the family's reference implementation.
        None if family == Family::Qwen3 => 128,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            return Err(
                keys.invalid("hidden_size", &format!("must be a multiple of `num_attention_heads`, {heads}, where no `head_dim` is given"))
            );
        }
    };
    if head_dim % 2 == 1 {
        return Err(keys.invalid("head_dim", "must be even, as positions rotate pairs"));
    }
    Ok(head_dim)
}

/// The newer layout has one `rope_parameters`; the older `rope_theta` beside `rope_scaling`.
fn rope(keys: &Keys<'_>) -> Result<Rope, ConfigError> {
    let nested = match keys.nested("rope_parameters", "rope_parameters.")? {
        Some(parameters) => Some(parameters),
        None => keys.nested("rope_scaling", "rope_scaling.")?,
    };
    let inner_theta = nested.as_ref().map(|inner| inner.optional_positive("rope_theta")).transpose()?.flatten();
    // Llama 2 was published before the key was.
    let theta = inner_theta.map_or_else(|| keys.optional_positive("rope_theta"), |theta| Ok(Some(theta)))?.unwrap_or(10_000.0);
    let Some(inner) = nested else { return Ok(Rope { theta, scaling: RopeScaling::None }) };
    let key = if inner.present("rope_type").is_some() { "rope_type" } else { "type" };
    let scaling = match inner.optional_text(key)? {
        None | Some("default") => RopeScaling::None,
        Some("linear") => RopeScaling::Linear { factor: inner.positive("factor")? },
        Some("llama3") => {
            let low_freq_factor = inner.positive("low_freq_factor")?;
            let high_freq_factor = inner.positive("high_freq_factor")?;
            if high_freq_factor <= low_freq_factor {
                return Err(inner.invalid("high_freq_factor", &format!("must be above `low_freq_factor`, {low_freq_factor}")));
            }
            let original_max_position_embeddings = inner.positive("original_max_position_embeddings")?;
            RopeScaling::Llama3 { factor: inner.positive("factor")?, low_freq_factor, high_freq_factor, original_max_position_embeddings }
        }
        Some(_) => return Err(inner.unsupported(key, "the rope types default, linear, llama3")),
    };
    Ok(Rope { theta, scaling })
}

/// How far each layer looks back.
fn windows(keys: &Keys<'_>, family: Family, layers: usize) -> Result<Vec<Option<usize>>, ConfigError> {
    let stated = keys.optional_count("sliding_window", usize::MAX)?;
    let window = match family {
        Family::Llama => None,
        // Mistral's reference implementation takes 4096 where the key is absent, none where it is null.
        Family::Mistral => {
            if keys.object.contains_key("sliding_window") {
                stated
            } else {
                Some(4096)
            }
        }
        Family::Qwen2 | Family::Qwen3 => stated.filter(|_| keys.object.get("use_sliding_window") == Some(&Value::Bool(true))),
    };
    if let Some(Value::Array(types)) = keys.present("layer_types") {
        if types.len() != layers {
            return Err(keys.invalid("layer_types", &format!("must have one entry for each of the {layers} layers")));
        }
        return types
            .iter()
            .map(|kind| match (kind.as_str(), window) {
                (Some("full_attention"), _) => Ok(None),
                (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
                (Some("sliding_attention"), None) => Err(keys.invalid("layer_types", "sliding layers need a `sliding_window` in use")),
                _ => Err(keys.unsupported("layer_types", "full_attention and sliding_attention")),
            })
            .collect();
    }
    // Qwen uses full attention below `max_window_layers`; Mistral has no such key.
    let full_below = match family {
        Family::Qwen2 | Family::Qwen3 if window.is_some() => keys.optional_integer("max_window_layers")?.unwrap_or(28),
        _ => 0,
    };
    Ok((0..layers).map(|layer| window.filter(|_| layer as u64 >= full_below)).collect())
}

/// One id or a list of them.
fn token_ids(keys: &Keys<'_>, key: &str) -> Result<Vec<u32>, ConfigError> {
    let values = match keys.present(key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    values.iter().map(|value| id(value).ok_or_else(|| keys.invalid(key, "must be a token id or a list of them"))).collect()
}

fn dtype(keys: &Keys<'_>) -> Result<Dtype, ConfigError> {
    let key = if keys.present("dtype").is_some() { "dtype" } else { "torch_dtype" };
    match keys.optional_text(key)? {
        None | Some("float32") => Ok(Dtype::F32),
        Some("bfloat16") => Ok(Dtype::Bf16),
        Some("float16") => Ok(Dtype::F16),
        Some(_) => Err(keys.unsupported(key, "float32, float16, bfloat16")),
    }
}
