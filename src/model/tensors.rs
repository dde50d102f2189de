//! The tensors a checkpoint of a given shape consists of, by the names Hugging Face files use.
//!
//! One list serves reading (what must be there, in which shape), random weights (how each is drawn) and
//! arithmetic (how many parameters there are). No tensor's data is here.

use crate::model::config::ModelConfig;

/// Element type of stored weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `F32`.
    Bf16,
}

impl Dtype {
    /// Bytes an element takes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// As a person writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// What a tensor does, which decides how random weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorRole {
    /// Rows looked up by token id.
    Embedding,
    /// A matrix product, output features x input features.
    Projection,
    /// A matrix product whose result is added to the residual stream.
    ResidualProjection,
    /// The last matrix product, to logits.
    Output,
    /// The scale of an RMS norm.
    Norm,
    /// Added to a projection's result.
    Bias,
}

/// One tensor a checkpoint must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// As in the file.
    pub name: String,
    /// What it does.
    pub role: TensorRole,
    /// Rows and columns, or one length.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    fn matrix(name: impl Into<String>, role: TensorRole, rows: usize, columns: usize) -> Self {
        Self { name: name.into(), role, shape: vec![rows, columns] }
    }

    fn vector(name: impl Into<String>, role: TensorRole, length: usize) -> Self {
        Self { name: name.into(), role, shape: vec![length] }
    }

    /// How many numbers it holds.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|length| *length as u64).product()
    }
}

/// Every tensor of a checkpoint of this shape, embedding first, then layer by layer, then the head.
#[must_use]
pub fn tensors(config: &ModelConfig) -> Vec<TensorSpec> {
    let mut all = vec![embedding(config)];
    all.extend((0..config.num_hidden_layers).flat_map(|layer| LayerTensors::new(config, layer).all()));
    all.push(final_norm(config));
    all.extend(output(config));
    all
}

/// The embedding.
#[must_use]
pub fn embedding(config: &ModelConfig) -> TensorSpec {
    TensorSpec::matrix("model.embed_tokens.weight", TensorRole::Embedding, config.vocab_size, config.hidden_size)
}

/// The norm after the last layer.
#[must_use]
pub fn final_norm(config: &ModelConfig) -> TensorSpec {
    TensorSpec::vector("model.norm.weight", TensorRole::Norm, config.hidden_size)
}

/// The output matrix, unless it is the embedding.
#[must_use]
pub fn output(config: &ModelConfig) -> Option<TensorSpec> {
    (!config.tie_word_embeddings).then(|| TensorSpec::matrix("lm_head.weight", TensorRole::Output, config.vocab_size, config.hidden_size))
}

/// The tensors of one layer, those that are packed into one matrix together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerTensors {
    /// Before attention.
    pub input_norm: TensorSpec,
    /// Query, key, value.
    pub qkv: [TensorSpec; 3],
    /// Their biases.
    pub qkv_bias: Option<[TensorSpec; 3]>,
    /// Norms of each query and each key head.
    pub head_norms: Option<[TensorSpec; 2]>,
    /// From all heads back to the residual stream.
    pub attention_output: TensorSpec,
    /// Before the feed-forward block.
    pub post_attention_norm: TensorSpec,
    /// Gate, up.
    pub gate_up: [TensorSpec; 2],
    /// From the feed-forward block back to the residual stream.
    pub down: TensorSpec,
}

impl LayerTensors {
    /// Those of layer `layer`.
    #[must_use]
    pub fn new(config: &ModelConfig, layer: usize) -> Self {
        use TensorRole::{Bias, Norm, Projection, ResidualProjection};
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let heads = [("q", config.q_width()), ("k", config.kv_width()), ("v", config.kv_width())];
        let head_norm = |part: &str| TensorSpec::vector(name(&format!("self_attn.{part}_norm.weight")), Norm, config.head_dim);
        let bias = |(part, width): (&str, usize)| TensorSpec::vector(name(&format!("self_attn.{part}_proj.bias")), Bias, width);
        Self {
            input_norm: TensorSpec::vector(name("input_layernorm.weight"), Norm, hidden),
            qkv: heads.map(|(part, width)| TensorSpec::matrix(name(&format!("self_attn.{part}_proj.weight")), Projection, width, hidden)),
            qkv_bias: config.qkv_bias.then(|| heads.map(bias)),
            head_norms: config.qk_norm.then(|| ["q", "k"].map(head_norm)),
            attention_output: TensorSpec::matrix(name("self_attn.o_proj.weight"), ResidualProjection, hidden, config.q_width()),
            post_attention_norm: TensorSpec::vector(name("post_attention_layernorm.weight"), Norm, hidden),
            gate_up: ["gate", "up"].map(|part| TensorSpec::matrix(name(&format!("mlp.{part}_proj.weight")), Projection, inner, hidden)),
            down: TensorSpec::matrix(name("mlp.down_proj.weight"), ResidualProjection, hidden, inner),
        }
    }

    /// All of them, one after the other.
    fn all(self) -> impl Iterator<Item = TensorSpec> {
        let attention = std::iter::once(self.input_norm).chain(self.qkv).chain(self.qkv_bias.into_iter().flatten());
        let attention = attention.chain(self.head_norms.into_iter().flatten()).chain([self.attention_output]);
        attention.chain([self.post_attention_norm]).chain(self.gate_up).chain([self.down])
    }
}
