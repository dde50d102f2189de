//! What a compute device does for the engine: the seam [`Ops`], its operands, and the devices behind it.
//!
//! The operations are named as the kernels are. The engine's one layer loop is generic over `Ops`; the CPU device
//! implements it plainly but fast and is the specification, other devices implement the same trait. A device knows
//! nothing of models, requests or schedules: it sees packed matrices, activations and the flat arrays of one step.
//!
//! One step is `begin_step` (everything that varies goes to the device here, and only here, so that the calls that
//! follow can be recorded once and replayed), `recorded`, the layer loop, `sample`, `launch_step`, `end_step`. On a device
//! that runs ahead the next step may be begun and launched before this one is ended.

pub mod ceilings;
pub mod control_group;
pub mod cpu;
pub mod cuda;
pub mod error;
pub mod source;
pub mod step;

use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, VectorSource};
use crate::device::step::{StepBatch, StepLimits};

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// The host's processor. Its figures are never labelled as a GPU's.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// What a run records about the device that computed it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceIdentity {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Its number among those of its kind that this process may use, from 0.
    pub ordinal: u32,
    /// Name the vendor gave it, for a CPU the processor model.
    pub name: String,
    /// Threads that compute, 1 or more; 0 where the word has no meaning.
    pub threads: usize,
    /// Label of the arithmetic of matrix products: `f32`, `bf16_dot`.
    pub arithmetic: String,
    /// Element types that weights may have.
    pub elements: Vec<Element>,
    /// Instruction set or compute capability that the kernels use.
    pub instructions: String,
}

/// Memory of the device at this moment, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFacts {
    /// All of it that this process may use.
    pub total: u64,
    /// What is free for new allocations.
    pub free: u64,
}

/// How one packed row of query, key and value is divided: `[q_heads | kv_heads | kv_heads]`, each `head_dim` wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads; a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Key-value heads, 1 or more.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
}

impl DeviceIdentity {
    /// As a command line names it: `cpu`, `cuda:1`.
    #[must_use]
    pub fn label(&self) -> String {
        match self.kind {
            DeviceKind::Cpu => "cpu".to_owned(),
            DeviceKind::Cuda => format!("cuda:{}", self.ordinal),
        }
    }
}

impl HeadShape {
    /// Width of the query part, which is also that of attention's output.
    #[must_use]
    pub const fn q_width(&self) -> usize {
        self.q_heads * self.head_dim
    }

    /// Width of the key part, which is also that of the value part.
    #[must_use]
    pub const fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of a packed row.
    #[must_use]
    pub const fn packed_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }
}

/// Size of a paged key-value cache. It is allocated once and never grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCacheSpec {
    /// Layers.
    pub layers: usize,
    /// Blocks per layer.
    pub blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Key-value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
}

/// What a device's own buffers depend on: those beside weights, cache and tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceSpec {
    /// Most tokens of a step.
    pub max_tokens: usize,
    /// Positions of the longest sequence.
    pub positions: usize,
    /// Tokens of a KV block.
    pub block_size: usize,
    /// Width of the widest input of a matrix product.
    pub widest: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Logits of a row.
    pub vocab_size: usize,
}

/// What attention needs to know beside its operands.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSpec {
    /// Layer of the cache to read.
    pub layer: usize,
    /// Division of the packed rows.
    pub heads: HeadShape,
    /// Factor on the scores, usually 1/sqrt(head_dim).
    pub scale: f32,
    /// Sliding window: a token sees itself and the `window - 1` tokens before it. `None`: all before it.
    pub window: Option<usize>,
}

/// The operations of a device. Shapes are `[rows, width]`, row-major.
///
/// Rows: [`Ops::embed`] and [`Ops::gather_rows`] set how many rows their output holds, every other operation gives
/// its output the rows of its input. An operation panics where widths do not fit or rows exceed what the tensor was
/// made for: that is a mistake of the caller and not of a user. `Err` is the device's own failure.
pub trait Ops: Send {
    /// Activations, preallocated for a maximum of rows.
    type Tensor: Send;
    /// Weights `[out, in]`.
    type Matrix: Send + Sync;
    /// Norm weights and biases.
    type Vector: Send + Sync;
    /// Cosine and sine of every position.
    type Rope: Send + Sync;
    /// Paged keys and values of all layers.
    type KvCache: Send;

    /// Who computes, for the record of a run.
    fn identity(&self) -> &DeviceIdentity;

    /// Memory now.
    ///
    /// # Errors
    /// When the system does not say.
    fn memory(&self) -> Result<MemoryFacts, DeviceError>;

    /// Whether a matrix of this element type and width can be multiplied with in the device's arithmetic: asked for
    /// every matrix of a model before anything is loaded.
    ///
    /// # Errors
    /// When it cannot, with what to do. Nothing is computed in another arithmetic than the one that results are labelled with.
    fn takes(&self, name: &str, element: Element, width: usize) -> Result<(), DeviceError>;

    /// Bytes of one activation; logits always take four.
    fn activation_bytes(&self) -> u64 {
        4
    }

    /// Bytes that one weight of this element type takes on the device.
    fn weight_bytes(&self, element: Element) -> u64 {
        element.bytes() as u64
    }

    /// Bytes that [`Ops::kv_cache`] would take for `spec`: what to fit into [`MemoryFacts::free`].
    fn kv_cache_bytes(&self, spec: &KvCacheSpec) -> u64;

    /// Bytes of the rotation table and of what operations keep from call to call.
    fn workspace_bytes(&self, spec: &WorkspaceSpec) -> u64;

    // Allocation and upload: before the first step, never in one.

    /// Reserves the buffers that hold a step's flat arrays. Call it once, before the first step.
    ///
    /// # Errors
    /// Out of memory.
    fn prepare(&mut self, limits: StepLimits) -> Result<(), DeviceError>;

    /// A tensor that can hold up to `max_rows` rows of `width`; it holds none yet.
    ///
    /// # Errors
    /// Out of memory, stated before allocating.
    fn tensor(&mut self, max_rows: usize, width: usize) -> Result<Self::Tensor, DeviceError>;

    /// A tensor for logits, which are f32 on every device: the choice of a token must not depend on their rounding.
    ///
    /// # Errors
    /// Out of memory, stated before allocating.
    fn logits(&mut self, max_rows: usize, vocab_size: usize) -> Result<Self::Tensor, DeviceError> {
        self.tensor(max_rows, vocab_size)
    }

    /// One matrix from one or more parts stacked along `out`: query, key and value become one packed matrix.
    /// Mapped parts may stay where they are (CPU) or are copied (a device of its own memory).
    ///
    /// # Errors
    /// Out of memory; parts of unequal width; a byte length that does not fit the shape.
    fn matrix(&mut self, parts: &[MatrixSource]) -> Result<Self::Matrix, DeviceError>;

    /// One vector from one or more parts laid end to end (biases of a packed matrix).
    ///
    /// # Errors
    /// Out of memory; a byte length that does not fit.
    fn vector(&mut self, parts: &[VectorSource]) -> Result<Self::Vector, DeviceError>;

    /// Rotation table for positions `0..max_positions` from inverse frequencies, one per pair (`head_dim / 2`);
    /// scaling such as llama3's is already in `inv_freq`.
    ///
    /// # Errors
    /// Out of memory.
    fn rope(&mut self, inv_freq: &[f32], max_positions: usize) -> Result<Self::Rope, DeviceError>;

    /// The paged cache, all of it at once.
    ///
    /// # Errors
    /// Out of memory, stated before allocating.
    fn kv_cache(&mut self, spec: KvCacheSpec) -> Result<Self::KvCache, DeviceError>;

    // One step.

    /// Whether a step may be begun before the one before it is ended, and token ids may be fed back
    /// ([`FED_BACK`](step::FED_BACK)).
    fn runs_ahead(&self) -> bool {
        false
    }

    /// Takes over the arrays of one step; every operation until it is launched refers to them.
    ///
    /// # Errors
    /// Arrays that contradict each other or exceed [`StepLimits`]; too many steps that were not ended.
    fn begin_step(&mut self, batch: &StepBatch) -> Result<(), DeviceError>;

    /// Asked once after [`Ops::begin_step`] by a caller whose operations depend on the shape of the step alone: `true` when
    /// the device recorded them in an earlier step of this shape and plays them again, so that none is to be called
    /// until [`Ops::end_step`]. A device that answers `false` may record what follows.
    ///
    /// # Errors
    /// The device's own failure.
    fn recorded(&mut self) -> Result<bool, DeviceError> {
        Ok(false)
    }

    /// Every operation of the step was called: it runs to its end by itself. [`Ops::end_step`] does this where nobody did.
    ///
    /// # Errors
    /// The device's own failure.
    fn launch_step(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Ends the earliest step that was begun: what was still under way of it is finished, its failures are reported, and
    /// `token_ids` gets what [`Ops::sample`] chose, one id per wanted row; nothing where it was not called.
    ///
    /// # Errors
    /// A failure of any operation of the step; a row of which no logit is a number.
    fn end_step(&mut self, token_ids: &mut Vec<u32>) -> Result<(), DeviceError>;

    /// `out[t] = table[token_ids[t]]`, for every token of the step.
    ///
    /// # Errors
    /// The device's own failure.
    fn embed(&mut self, table: &Self::Matrix, out: &mut Self::Tensor) -> Result<(), DeviceError>;

    /// `out = x / sqrt(mean(x^2) + eps) * weight`, by row (Zhang and Sennrich, 2019).
    ///
    /// # Errors
    /// The device's own failure.
    fn rms_norm(&mut self, x: &Self::Tensor, weight: &Self::Vector, eps: f32, out: &mut Self::Tensor) -> Result<(), DeviceError>;

    /// `residual += x`, then `out = rms_norm(residual)`.
    ///
    /// # Errors
    /// The device's own failure.
    fn add_rms_norm(
        &mut self,
        x: &Self::Tensor,
        residual: &mut Self::Tensor,
        weight: &Self::Vector,
        eps: f32,
        out: &mut Self::Tensor,
    ) -> Result<(), DeviceError>;

    /// `out = x weight^T (+ bias)`: `[rows, in] x [out, in] -> [rows, out]`.
    ///
    /// # Errors
    /// The device's own failure.
    fn matmul(
        &mut self,
        x: &Self::Tensor,
        weight: &Self::Matrix,
        bias: Option<&Self::Vector>,
        out: &mut Self::Tensor,
    ) -> Result<(), DeviceError>;

    /// Norm of every query head with `q_weight` and every key head with `k_weight` (each `head_dim` long), in place
    /// in packed rows (Qwen3).
    ///
    /// # Errors
    /// The device's own failure.
    fn head_norm(
        &mut self,
        qkv: &mut Self::Tensor,
        q_weight: &Self::Vector,
        k_weight: &Self::Vector,
        eps: f32,
        heads: HeadShape,
    ) -> Result<(), DeviceError>;

    /// Rotates queries and keys of packed rows in place by their positions (halves, as Hugging Face lays them out)
    /// and writes keys and values into the step's slots of `layer`.
    ///
    /// # Errors
    /// The device's own failure.
    fn rope_kv_write(
        &mut self,
        qkv: &mut Self::Tensor,
        rope: &Self::Rope,
        cache: &mut Self::KvCache,
        layer: usize,
        heads: HeadShape,
    ) -> Result<(), DeviceError>;

    /// Attention of the step's prefill sequences (the first `num_prefill_seqs`): every token of a chunk over all
    /// cached tokens up to itself. Writes those sequences' rows of `out`; does nothing where there are none.
    ///
    /// # Errors
    /// The device's own failure.
    fn attention_prefill(
        &mut self,
        qkv: &Self::Tensor,
        cache: &Self::KvCache,
        spec: &AttentionSpec,
        out: &mut Self::Tensor,
    ) -> Result<(), DeviceError>;

    /// Attention of the step's decode sequences (one token each, after the prefill sequences). Writes their rows of
    /// `out`; does nothing where there are none.
    ///
    /// # Errors
    /// The device's own failure.
    fn attention_decode(
        &mut self,
        qkv: &Self::Tensor,
        cache: &Self::KvCache,
        spec: &AttentionSpec,
        out: &mut Self::Tensor,
    ) -> Result<(), DeviceError>;

    /// `out = silu(gate) * up` of rows `[gate | up]`, so `out` is half as wide.
    ///
    /// # Errors
    /// The device's own failure.
    fn silu_mul(&mut self, gate_up: &Self::Tensor, out: &mut Self::Tensor) -> Result<(), DeviceError>;

    /// `out[i] = x[logit_rows[i].row]`: the rows whose logits are wanted.
    ///
    /// # Errors
    /// The device's own failure.
    fn gather_rows(&mut self, x: &Self::Tensor, out: &mut Self::Tensor) -> Result<(), DeviceError>;

    /// Chooses one token per row of `logits`, which are those of the step's `logit_rows`; [`Ops::end_step`] hands them over.
    /// The choice depends on the row's logits and sampling alone. Equal logits: the lowest id.
    ///
    /// # Errors
    /// The device's own failure.
    fn sample(&mut self, logits: &Self::Tensor) -> Result<(), DeviceError>;

    // Host access, outside the hot path.

    /// Copies all rows to the host, replacing what `values` held.
    ///
    /// # Errors
    /// The device's own failure.
    fn download(&mut self, tensor: &Self::Tensor, values: &mut Vec<f32>) -> Result<(), DeviceError>;

    /// Fills `tensor` with whole rows from the host.
    ///
    /// # Errors
    /// The device's own failure.
    fn upload(&mut self, values: &[f32], tensor: &mut Self::Tensor) -> Result<(), DeviceError>;
}
