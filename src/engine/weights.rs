//! A model's weights on a device: read from a checkpoint or drawn at a realistic scale, packed as the layer loop
//! uses them.
//!
//! Query, key and value are one matrix, gate and up another. Made once and shared by every engine that runs the
//! model.

use crate::device::Ops;
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, SharedBytes, Values, VectorSource};
use crate::model::arithmetic::MemoryNeed;
use crate::model::config::ModelConfig;
use crate::model::safetensors::{Checkpoint, WeightsError};
use crate::model::tensors::{self, Dtype, TensorRole, TensorSpec};
use crate::rng;

/// Where weights come from.
#[derive(Debug)]
pub enum WeightSource {
    /// Mapped files, checked against the configuration.
    Checkpoint(Checkpoint),
    /// Numbers that depend on the seed, the tensor's name and the element's place alone.
    Random {
        /// Of the whole model.
        seed: u64,
    },
}

/// Why weights could not be put on a device.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It would not fit; nothing was loaded.
    #[error(
        "running `{model}` needs {} bytes of memory (weights {}, KV cache {}, activations {}, tables {}), and {free} bytes are free. Choose a smaller model, fewer KV blocks or a shorter batch",
        need.total(), need.weights, need.kv_cache, need.activations, need.tables
    )]
    NotEnoughMemory {
        /// Which model.
        model: String,
        /// What it takes.
        need: MemoryNeed,
        /// What there is, bytes.
        free: u64,
    },
}

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of weights taken over.
    pub done: u64,
    /// Bytes there are.
    pub total: u64,
}

/// The weights of one layer.
pub(super) struct LayerWeights<D: Ops> {
    pub(super) input_norm: D::Vector,
    pub(super) qkv: D::Matrix,
    pub(super) qkv_bias: Option<D::Vector>,
    /// Of each query head and of each key head.
    pub(super) head_norms: Option<(D::Vector, D::Vector)>,
    pub(super) attention_output: D::Matrix,
    pub(super) post_attention_norm: D::Vector,
    pub(super) gate_up: D::Matrix,
    pub(super) down: D::Matrix,
}

/// All weights of a model.
pub struct Weights<D: Ops> {
    pub(super) embedding: D::Matrix,
    pub(super) layers: Vec<LayerWeights<D>>,
    pub(super) norm: D::Vector,
    /// `None` where the embedding serves.
    pub(super) output: Option<D::Matrix>,
    pub(super) rope: D::Rope,
}

impl<D: Ops> std::fmt::Debug for Weights<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Weights").field("layers", &self.layers.len()).finish_non_exhaustive()
    }
}

impl<D: Ops> Weights<D> {
    /// Puts the weights of `config` from `source` on `device`, telling `progress` after each tensor; the rotation table is
    /// for sequences of up to `positions` tokens.
    ///
    /// # Errors
    /// When the source does not have them, or the device cannot take them.
    pub fn load(
        device: &mut D,
        config: &ModelConfig,
        source: &WeightSource,
        positions: usize,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let total = tensors::tensors(config).iter().map(|spec| source.bytes(config, spec)).sum::<Result<u64, WeightsError>>()?;
        let mut loader = Loader { device, config, source, progress, at: LoadProgress { done: 0, total } };
        let embedding = loader.matrix(&[tensors::embedding(config)])?;
        let layers = (0..config.num_hidden_layers).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
        let norm = loader.vector(&[tensors::final_norm(config)])?;
        let output = tensors::output(config).map(|spec| loader.matrix(&[spec])).transpose()?;
        let rope = loader.device.rope(&config.rope.inverse_frequencies(config.head_dim), positions)?;
        Ok(Self { embedding, layers, norm, output, rope })
    }
}

impl WeightSource {
    /// Element type of a tensor here.
    ///
    /// # Errors
    /// When it is not there.
    pub fn dtype(&self, config: &ModelConfig, spec: &TensorSpec) -> Result<Dtype, WeightsError> {
        match self {
            Self::Checkpoint(checkpoint) => Ok(checkpoint.tensor(spec)?.dtype),
            Self::Random { .. } => Ok(config.dtype),
        }
    }

    /// Bytes a tensor takes here.
    ///
    /// # Errors
    /// When it is not there.
    pub fn bytes(&self, config: &ModelConfig, spec: &TensorSpec) -> Result<u64, WeightsError> {
        Ok(spec.elements() * self.dtype(config, spec)?.bytes() as u64)
    }

    /// Name of the element type of all tensors; `mixed` where they differ.
    ///
    /// # Errors
    /// When a tensor is not there.
    pub fn dtype_name(&self, config: &ModelConfig) -> Result<&'static str, WeightsError> {
        let first = self.dtype(config, &tensors::embedding(config))?;
        for spec in tensors::tensors(config) {
            if self.dtype(config, &spec)? != first {
                return Ok("mixed");
            }
        }
        Ok(first.name())
    }

    /// Whether `device` can multiply with every matrix, as stored.
    ///
    /// # Errors
    /// When it cannot, or a tensor is not there.
    pub fn check_arithmetic<D: Ops>(&self, config: &ModelConfig, device: &D) -> Result<(), LoadError> {
        for spec in tensors::tensors(config) {
            if let [_, width] = spec.shape[..] {
                device.takes(&spec.name, element(self.dtype(config, &spec)?), width)?;
            }
        }
        Ok(())
    }

    fn values(&self, config: &ModelConfig, spec: &TensorSpec) -> Result<Values, WeightsError> {
        Ok(match self {
            Self::Checkpoint(checkpoint) => {
                let stored = checkpoint.tensor(spec)?;
                Values::Mapped(SharedBytes::new(stored.map, stored.range).expect("a checkpoint's ranges lie in its files"))
            }
            Self::Random { seed } => {
                let (mean, deviation) = realistic(config, spec);
                Values::Random { seed: rng::derive(*seed, &spec.name), mean, deviation }
            }
        })
    }
}

/// Mean and deviation of random weights under which activations neither vanish nor explode with depth and logits
/// deviate by about 3: projections keep the scale of what they are given, what 2 x layers of them add to the
/// residual stream stays of its scale together (as GPT-2 was initialised), and norms are near 1.
fn realistic(config: &ModelConfig, spec: &TensorSpec) -> (f32, f32) {
    let fan_in = spec.shape.last().copied().unwrap_or(1) as f32;
    let logit_deviation = 3.0;
    match spec.role {
        TensorRole::Projection => (0.0, fan_in.sqrt().recip()),
        TensorRole::ResidualProjection => (0.0, (fan_in * 2.0 * config.num_hidden_layers as f32).sqrt().recip()),
        TensorRole::Embedding if !config.tie_word_embeddings => (0.0, 1.0),
        TensorRole::Embedding | TensorRole::Output => (0.0, logit_deviation / fan_in.sqrt()),
        TensorRole::Norm => (1.0, 0.1),
        TensorRole::Bias => (0.0, 0.1),
    }
}

/// Takes over tensor after tensor.
struct Loader<'a, D: Ops> {
    device: &'a mut D,
    config: &'a ModelConfig,
    source: &'a WeightSource,
    progress: &'a mut dyn FnMut(LoadProgress),
    at: LoadProgress,
}

impl<D: Ops> Loader<'_, D> {
    fn layer(&mut self, layer: usize) -> Result<LayerWeights<D>, LoadError> {
        let names = tensors::LayerTensors::new(self.config, layer);
        let qkv_bias = names.qkv_bias.map(|parts| self.vector(&parts)).transpose()?;
        let head_norms = match &names.head_norms {
            Some([q, k]) => Some((self.vector(std::slice::from_ref(q))?, self.vector(std::slice::from_ref(k))?)),
            None => None,
        };
        Ok(LayerWeights {
            input_norm: self.vector(&[names.input_norm])?,
            qkv: self.matrix(&names.qkv)?,
            qkv_bias,
            head_norms,
            attention_output: self.matrix(&[names.attention_output])?,
            post_attention_norm: self.vector(&[names.post_attention_norm])?,
            gate_up: self.matrix(&names.gate_up)?,
            down: self.matrix(&[names.down])?,
        })
    }

    fn matrix(&mut self, parts: &[TensorSpec]) -> Result<D::Matrix, LoadError> {
        let source = |spec: &TensorSpec| {
            let (name, element) = (spec.name.clone(), element(self.source.dtype(self.config, spec)?));
            Ok(MatrixSource { name, out: spec.shape[0], width: spec.shape[1], element, values: self.source.values(self.config, spec)? })
        };
        let sources = parts.iter().map(source).collect::<Result<Vec<_>, WeightsError>>()?;
        let matrix = self.device.matrix(&sources)?;
        self.tell(parts)?;
        Ok(matrix)
    }

    fn vector(&mut self, parts: &[TensorSpec]) -> Result<D::Vector, LoadError> {
        let source = |spec: &TensorSpec| {
            let (name, element) = (spec.name.clone(), element(self.source.dtype(self.config, spec)?));
            Ok(VectorSource { name, len: spec.shape[0], element, values: self.source.values(self.config, spec)? })
        };
        let sources = parts.iter().map(source).collect::<Result<Vec<_>, WeightsError>>()?;
        let vector = self.device.vector(&sources)?;
        self.tell(parts)?;
        Ok(vector)
    }

    fn tell(&mut self, parts: &[TensorSpec]) -> Result<(), WeightsError> {
        for spec in parts {
            self.at.done += self.source.bytes(self.config, spec)?;
        }
        (self.progress)(self.at);
        Ok(())
    }
}

pub(super) fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::F32 => Element::F32,
        Dtype::F16 => Element::F16,
        Dtype::Bf16 => Element::Bf16,
    }
}
