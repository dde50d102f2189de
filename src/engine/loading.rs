//! From a model's name to engines that run it: opens the source, compares what it needs with the memory there is,
//! puts the weights on a device once, and makes fresh engines over them.
//!
//! What a device is called on a command line is decided above.

use std::path::Path;
use std::sync::Arc;

use crate::device::error::DeviceError;
use crate::device::{DeviceIdentity, DeviceKind, Ops, WorkspaceSpec};
use crate::engine::Engine;
use crate::engine::forward::{Forward, ForwardPass, activation_bytes, cache_spec};
use crate::engine::kv_blocks::{KvBlocks, PrefixReuse};
use crate::engine::limits::RequestLimits;
use crate::engine::scheduler::EngineShape;
use crate::engine::weights::{self, LoadError, LoadProgress, WeightSource, Weights};
use crate::model::arithmetic::{self, HeldBytes, MemoryNeed};
use crate::model::config::ModelConfig;
use crate::model::keys::ConfigError;
use crate::model::presets;
use crate::model::safetensors::{Checkpoint, WeightsError};
use crate::model::tensors::{self, TensorSpec};

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenModelError {
    /// Neither a folder nor a preset.
    #[error(
        "there is no folder and no preset `{model}`. Give a folder with config.json and safetensors files, or one of the presets {known}"
    )]
    Unknown {
        /// What was asked for.
        model: String,
        /// The presets there are.
        known: String,
    },
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// A model that was found and checked, and not loaded yet.
#[derive(Debug)]
pub struct ModelSource {
    /// The preset's name, or the folder's.
    pub name: String,
    /// Its shape.
    pub config: ModelConfig,
    /// Its weights.
    pub weights: WeightSource,
}

impl ModelSource {
    /// `model` is a folder in Hugging Face's layout, or else a preset, whose weights are random from `seed`.
    ///
    /// # Errors
    /// When it is neither, or its files are not in order.
    pub fn open(model: &str, seed: u64) -> Result<Self, OpenModelError> {
        let folder = Path::new(model);
        if folder.is_dir() {
            let config = ModelConfig::open(folder)?;
            let weights = WeightSource::Checkpoint(Checkpoint::open(folder, &config)?);
            let name = folder.file_name().map_or_else(|| model.to_owned(), |name| name.to_string_lossy().into_owned());
            return Ok(Self { name, config, weights });
        }
        if let Some(preset) = presets::find(model) {
            return Ok(Self { name: preset.name.to_owned(), config: preset.config()?, weights: WeightSource::Random { seed } });
        }
        let known: Vec<_> = presets::PRESETS.iter().map(|preset| preset.name).collect();
        Err(OpenModelError::Unknown { model: model.to_owned(), known: known.join(", ") })
    }

    /// Bytes of all weights as they are stored.
    ///
    /// # Errors
    /// When a tensor is not there.
    pub fn weight_bytes(&self) -> Result<u64, WeightsError> {
        tensors::tensors(&self.config).iter().map(|spec| self.weights.bytes(&self.config, spec)).sum()
    }

    /// Bytes of all weights as `device` holds them.
    fn bytes_on<D: Ops>(&self, device: &D) -> Result<u64, WeightsError> {
        let of = |spec: &TensorSpec| {
            let element = weights::element(self.weights.dtype(&self.config, spec)?);
            Ok(self.weights.bytes(&self.config, spec)? / element.bytes() as u64 * device.weight_bytes(element))
        };
        tensors::tensors(&self.config).iter().map(of).sum()
    }
}

/// Most bytes of cache that are taken of a host's memory unasked: it is shared with everything else that runs there.
pub const HOST_CACHE: u64 = 1 << 30;

/// The shape of engine that is wished for; what is left open is fitted to model and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeWish {
    /// Tokens a KV block holds.
    pub block_size: usize,
    /// KV blocks; `None` takes a quarter of a host's free memory up to `host_cache`, nine tenths of a device's own, and never
    /// more than all sequences at full length need.
    pub num_kv_blocks: Option<u32>,
    /// Most bytes of a host's memory that blocks are fitted into.
    pub host_cache: u64,
    /// Sequences that run at once.
    pub max_num_seqs: usize,
    /// Tokens a step computes at most.
    pub max_num_batched_tokens: usize,
    /// Whether equal prefixes are computed once.
    pub prefix_reuse: PrefixReuse,
}

impl Default for ShapeWish {
    fn default() -> Self {
        Self {
            block_size: 16,
            num_kv_blocks: None,
            host_cache: HOST_CACHE,
            max_num_seqs: 256,
            max_num_batched_tokens: 512,
            prefix_reuse: PrefixReuse::On,
        }
    }
}

impl ShapeWish {
    /// The shape with this many KV blocks.
    #[must_use]
    pub fn with_blocks(&self, num_kv_blocks: u32) -> EngineShape {
        EngineShape {
            block_size: self.block_size,
            // Slots are numbered in 32 bits.
            num_kv_blocks: num_kv_blocks.min(u32::MAX / self.block_size as u32),
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            prefix_reuse: self.prefix_reuse,
        }
    }
}

/// Makes a forward pass over weights that are loaded.
type MakeForward = dyn Fn(&EngineShape) -> Result<Box<dyn ForwardPass>, DeviceError> + Send + Sync;

/// A model whose weights are on a device. Engines made from it share them.
pub struct LoadedModel {
    /// The preset's name, or the folder's.
    pub name: String,
    /// Its shape.
    pub config: Arc<ModelConfig>,
    /// Whether its weights are random: every figure made with it is labelled so.
    pub synthetic: bool,
    /// Who computes.
    pub device: DeviceIdentity,
    /// Name of the weights' element type; `mixed` where tensors differ.
    pub weight_dtype: &'static str,
    /// The shape of every engine made from it.
    pub shape: EngineShape,
    /// What it takes.
    pub memory: MemoryNeed,
    weights: WeightSource,
    make: Box<MakeForward>,
}

impl std::fmt::Debug for LoadedModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LoadedModel").field("name", &self.name).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl LoadedModel {
    /// Loads `source` on a device that `open` makes, once for the weights and once for each engine.
    ///
    /// # Errors
    /// When there is not the memory for weights, cache and activations together (said before anything is loaded), or
    /// a file or the device fails.
    pub fn load<D: Ops + 'static>(
        source: ModelSource,
        open: impl Fn() -> Result<D, DeviceError> + Send + Sync + 'static,
        wish: &ShapeWish,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, LoadError> {
        let mut device = open()?;
        source.weights.check_arithmetic(&source.config, &device)?;
        let (shape, memory) = fit(&source, &device, wish)?;
        let identity = device.identity().clone();
        let weight_dtype = source.weights.dtype_name(&source.config)?;
        let positions = longest(&source.config, shape);
        let weights = Arc::new(Weights::load(&mut device, &source.config, &source.weights, positions, progress)?);
        let config = Arc::new(source.config);
        let of_engines = Arc::clone(&config);
        let make = move |shape: &EngineShape| {
            let forward = Forward::new(open()?, Arc::clone(&of_engines), Arc::clone(&weights), shape)?;
            Ok(Box::new(forward) as Box<dyn ForwardPass>)
        };
        let synthetic = matches!(source.weights, WeightSource::Random { .. });
        let (name, weights) = (source.name, source.weights);
        Ok(Self { name, config, synthetic, device: identity, weight_dtype, shape, memory, weights, make: Box::new(make) })
    }

    /// Element types of weights and arithmetic, as a person would write it.
    #[must_use]
    pub fn precision(&self) -> String {
        format!("{} weights, {} arithmetic", self.weight_dtype, self.device.arithmetic)
    }

    /// Name of the element type that products are computed in.
    #[must_use]
    pub fn element(&self) -> &'static str {
        if self.device.arithmetic.starts_with("bf16") { "bf16" } else { "f32" }
    }

    /// What the device holds of a parameter and of a cached token.
    #[must_use]
    pub fn held_bytes(&self) -> HeldBytes {
        HeldBytes {
            per_parameter: self.memory.weights as f64 / arithmetic::parameters(&self.config) as f64,
            per_cached_token: self.memory.kv_cache as f64 / (f64::from(self.shape.num_kv_blocks) * self.shape.block_size as f64),
        }
    }

    /// What every output made with this model says of it.
    #[must_use]
    pub fn labels(&self) -> Vec<String> {
        let synthetic = self.synthetic.then_some("synthetic weights");
        let cpu = (self.device.kind == DeviceKind::Cpu).then_some("CPU device: no GPU measurement");
        synthetic.into_iter().chain(cpu).map(str::to_owned).collect()
    }

    /// A fresh engine with an empty cache.
    ///
    /// # Errors
    /// When the device has not the memory for another one, or a file of the checkpoint was cut short since.
    pub fn engine(&self) -> Result<Engine, LoadError> {
        self.engine_of(self.shape)
    }

    /// A fresh forward pass with an empty cache and no scheduler before it, of the model's shape.
    ///
    /// # Errors
    /// As [`Self::engine`].
    pub fn forward(&self) -> Result<Box<dyn ForwardPass>, LoadError> {
        Ok((self.make)(&self.shape)?)
    }

    /// An engine in another shape; its requests are no longer than those that the model was loaded for.
    ///
    /// # Errors
    /// As [`Self::engine`].
    pub fn engine_of(&self, shape: EngineShape) -> Result<Engine, LoadError> {
        if let WeightSource::Checkpoint(checkpoint) = &self.weights {
            checkpoint.check_lengths()?;
        }
        Ok(Engine::new((self.make)(&shape)?, shape))
    }
}

/// Tokens of the longest sequence that an engine of this shape takes.
fn longest(config: &ModelConfig, shape: EngineShape) -> usize {
    RequestLimits { vocab_size: config.vocab_size, context: config.max_position_embeddings, shape }.longest()
}

/// What the device keeps beside weights, cache and tensors, and the engine beside the device.
fn table_bytes<D: Ops>(config: &ModelConfig, device: &D, shape: EngineShape) -> u64 {
    let workspace = device.workspace_bytes(&WorkspaceSpec {
        max_tokens: shape.max_num_batched_tokens,
        positions: longest(config, shape),
        block_size: shape.block_size,
        widest: config.hidden_size.max(config.intermediate_size).max(config.q_width()),
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
    });
    workspace.saturating_add(KvBlocks::bytes(shape.num_kv_blocks, shape.prefix_reuse))
}

/// Fits `wish` to the model and the memory there is.
fn fit<D: Ops>(source: &ModelSource, device: &D, wish: &ShapeWish) -> Result<(EngineShape, MemoryNeed), LoadError> {
    let config = &source.config;
    let weights = source.bytes_on(device)?;
    let activations = activation_bytes(config, &wish.with_blocks(1), device.activation_bytes());
    let free = device.memory()?.free;
    let block_bytes = device.kv_cache_bytes(&cache_spec(config, &wish.with_blocks(1))).max(1);
    let num_kv_blocks = wish.num_kv_blocks.unwrap_or_else(|| {
        let left = free.saturating_sub(weights).saturating_sub(activations);
        let budget = if device.identity().kind == DeviceKind::Cpu { (left / 4).min(wish.host_cache) } else { left / 10 * 9 };
        let longest = config.max_position_embeddings.div_ceil(wish.block_size) as u64;
        let most = longest.saturating_mul(wish.max_num_seqs as u64).min(u64::from(u32::MAX));
        (budget / block_bytes).clamp(1, most) as u32
    });
    let shape = wish.with_blocks(num_kv_blocks);
    let kv_cache = device.kv_cache_bytes(&cache_spec(config, &shape));
    let need = MemoryNeed { weights, kv_cache, activations, tables: table_bytes(config, device, shape) };
    if need.total() > free {
        return Err(LoadError::NotEnoughMemory { model: source.name.clone(), need, free });
    }
    Ok((shape, need))
}
