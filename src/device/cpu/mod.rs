//! The CPU device: the specification of every operation, and the device that any machine has.
//!
//! Activations are f32. Each operation has its file; this one holds the operands and the seam. Results are equal bit
//! by bit at a fixed number of threads and a fixed cutting of the work into steps.

mod attention;
pub mod cache;
pub mod ceilings;
mod exp;
mod matmul;
#[cfg(target_arch = "x86_64")]
mod matmul_avx512;
mod matmul_pack;
mod matmul_portable;
mod matmul_tiles;
mod memory;
mod norm;
pub mod rope;
mod sample;
mod threads;
mod vectorised;
pub mod weights;

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use pulp::Arch;

use crate::device::cpu::attention::Attention;
use crate::device::cpu::cache::CpuKvCache;
use crate::device::cpu::matmul::{Kernels, Packed};
use crate::device::cpu::rope::CpuRope;
use crate::device::cpu::threads::Threads;
use crate::device::cpu::vectorised::vectorised;
use crate::device::cpu::weights::CpuMatrix;
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, VectorSource};
use crate::device::step::{StepBatch, StepLimits};
use crate::device::{AttentionSpec, DeviceIdentity, DeviceKind, HeadShape, KvCacheSpec, MemoryFacts, Ops, WorkspaceSpec};

/// How matrix products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// f32 products and sums, whatever the weights are stored as.
    #[default]
    F32,
    /// Activations rounded to bf16, bf16 dot products summed in f32; needs bf16 weights and AVX512-BF16.
    Bf16Dot,
}

impl Arithmetic {
    /// Label in records.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16Dot => "bf16_dot",
        }
    }
}

/// Which kernels compute matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest of this processor.
    #[default]
    Best,
    /// Those that every processor runs, so that they are tested on any.
    Portable,
}

/// What to open the CPU device with.
#[derive(Clone, Copy, Debug)]
pub struct CpuSpec {
    /// Threads that compute, the caller's included.
    pub threads: NonZeroUsize,
    /// How matrix products are computed.
    pub arithmetic: Arithmetic,
    /// By which kernels.
    pub kernels: KernelChoice,
}

impl CpuSpec {
    /// The fastest kernels on `threads` threads.
    #[must_use]
    pub const fn new(threads: NonZeroUsize, arithmetic: Arithmetic) -> Self {
        Self { threads, arithmetic, kernels: KernelChoice::Best }
    }
}

/// Activations of up to `max_rows` rows.
#[derive(Clone, Debug)]
pub struct CpuTensor {
    values: Vec<f32>,
    rows: usize,
    width: usize,
}

impl CpuTensor {
    fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.width]
    }

    fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.rows * self.width]
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.width..(row + 1) * self.width]
    }

    fn set_rows(&mut self, rows: usize) {
        assert!(rows * self.width <= self.values.len(), "`{rows}` rows of `{}` exceed what the tensor was made for", self.width);
        self.rows = rows;
    }
}

/// The CPU device.
#[derive(Debug)]
pub struct CpuDevice {
    identity: DeviceIdentity,
    threads: Threads,
    arch: Arch,
    kernels: Kernels,
    packed: Packed,
    step: StepBatch,
    sampled: Vec<u32>,
    limits: StepLimits,
    scores: Vec<Mutex<Vec<f32>>>,
    candidates: Vec<Mutex<Vec<(f32, u32)>>>,
}

impl CpuDevice {
    /// Opens the device: detects the processor and starts the threads.
    ///
    /// # Errors
    /// An arithmetic that the processor does not have; a thread that the system refuses.
    pub fn open(spec: CpuSpec) -> Result<Self, DeviceError> {
        let kernels = Kernels::detect(spec.arithmetic, spec.kernels).ok_or_else(|| DeviceError::Unsupported {
            what: format!("the arithmetic `{}`", spec.arithmetic.label()),
            reason: "it takes kernels and a processor with AVX512-BF16".to_owned(),
            remedy: "Choose the arithmetic `f32`".to_owned(),
        })?;
        let threads = Threads::start(spec.threads).map_err(|source| DeviceError::Threads { count: spec.threads.get(), source })?;
        let count = threads.count();
        let identity = DeviceIdentity {
            kind: DeviceKind::Cpu,
            ordinal: 0,
            name: processor_name(),
            threads: count,
            arithmetic: spec.arithmetic.label().to_owned(),
            elements: vec![Element::F32, Element::F16, Element::Bf16],
            instructions: kernels.instructions(),
        };
        let limits = StepLimits { max_tokens: usize::MAX, max_sequences: usize::MAX, max_block_table_entries: usize::MAX };
        Ok(Self {
            identity,
            threads,
            arch: Arch::new(),
            kernels,
            packed: Packed::default(),
            step: StepBatch::new(),
            sampled: Vec::new(),
            limits,
            scores: (0..count).map(|_| Mutex::default()).collect(),
            candidates: (0..count).map(|_| Mutex::default()).collect(),
        })
    }

    fn attention<'a>(&'a self, cache: &'a CpuKvCache, spec: &'a AttentionSpec) -> Attention<'a> {
        Attention { threads: &self.threads, arch: self.arch, step: &self.step, cache, spec, scores: &self.scores }
    }
}

/// The processor's model as the system names it.
fn processor_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

impl Ops for CpuDevice {
    type Tensor = CpuTensor;
    type Matrix = CpuMatrix;
    type Vector = Vec<f32>;
    type Rope = CpuRope;
    type KvCache = CpuKvCache;

    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn memory(&self) -> Result<MemoryFacts, DeviceError> {
        memory::facts()
    }

    fn takes(&self, name: &str, element: Element, width: usize) -> Result<(), DeviceError> {
        let reason = match (self.kernels.arithmetic(), element) {
            (Arithmetic::Bf16Dot, Element::Bf16) if !width.is_multiple_of(2) => {
                format!("`{name}` is `{width}` wide, and its inputs are taken in pairs")
            }
            (Arithmetic::F32, _) | (Arithmetic::Bf16Dot, Element::Bf16) => return Ok(()),
            (Arithmetic::Bf16Dot, other) => format!("`{name}` is stored as `{}`, and bf16 dot products need weights in bf16", other.name()),
        };
        Err(DeviceError::Unsupported {
            what: format!("the arithmetic `{}`", Arithmetic::Bf16Dot.label()),
            reason,
            remedy: "Choose the arithmetic `f32`, or weights in bf16 (a preset's: `--weights-dtype bf16`)".to_owned(),
        })
    }

    fn kv_cache_bytes(&self, spec: &KvCacheSpec) -> u64 {
        cache::bytes(spec)
    }

    fn workspace_bytes(&self, spec: &WorkspaceSpec) -> u64 {
        let packed = matmul_pack::bytes(spec.max_tokens, spec.widest);
        let scores = attention::score_bytes(spec.positions, spec.block_size).saturating_add(8 * spec.vocab_size as u64);
        let each = scores.saturating_mul(self.threads.count() as u64);
        rope::bytes(spec.head_dim, spec.positions).saturating_add(packed).saturating_add(each)
    }

    fn prepare(&mut self, limits: StepLimits) -> Result<(), DeviceError> {
        self.limits = limits;
        Ok(())
    }

    fn tensor(&mut self, max_rows: usize, width: usize) -> Result<CpuTensor, DeviceError> {
        let values = memory::floats(&format!("an activation buffer of {max_rows} rows of {width}"), max_rows.saturating_mul(width))?;
        Ok(CpuTensor { values, rows: 0, width })
    }

    fn matrix(&mut self, parts: &[MatrixSource]) -> Result<CpuMatrix, DeviceError> {
        parts.iter().try_for_each(|part| self.takes(&part.name, part.element, part.width))?;
        weights::matrix(&self.threads, parts)
    }

    fn vector(&mut self, parts: &[VectorSource]) -> Result<Vec<f32>, DeviceError> {
        weights::vector(&self.threads, parts)
    }

    fn rope(&mut self, inv_freq: &[f32], max_positions: usize) -> Result<CpuRope, DeviceError> {
        CpuRope::new(inv_freq, max_positions)
    }

    fn kv_cache(&mut self, spec: KvCacheSpec) -> Result<CpuKvCache, DeviceError> {
        CpuKvCache::new(spec)
    }

    fn begin_step(&mut self, batch: &StepBatch) -> Result<(), DeviceError> {
        batch.check().map_err(|reason| DeviceError::Step { reason })?;
        let StepLimits { max_tokens, max_sequences, max_block_table_entries } = self.limits;
        let (tokens, seqs, entries) = (batch.num_tokens(), batch.num_seqs(), batch.block_tables.len());
        if tokens > max_tokens || seqs > max_sequences || entries > max_block_table_entries {
            let reason = format!(
                "`{tokens}` tokens, `{seqs}` sequences and `{entries}` blocks exceed the `{max_tokens}`, `{max_sequences}` and `{max_block_table_entries}` prepared for"
            );
            return Err(DeviceError::Step { reason });
        }
        self.step.clone_from(batch);
        self.sampled.clear();
        Ok(())
    }

    fn end_step(&mut self, token_ids: &mut Vec<u32>) -> Result<(), DeviceError> {
        token_ids.clone_from(&self.sampled);
        token_ids.iter().position(|id| *id == sample::NONE).map_or(Ok(()), |row| Err(DeviceError::NoNumber { row }))
    }

    fn embed(&mut self, table: &CpuMatrix, out: &mut CpuTensor) -> Result<(), DeviceError> {
        assert_eq!(table.width(), out.width, "rows are as wide as the table");
        if let Some(id) = self.step.token_ids.iter().find(|id| **id as usize >= table.out()) {
            return Err(DeviceError::Step { reason: format!("token `{id}` lies outside the table of `{}`", table.out()) });
        }
        out.set_rows(self.step.num_tokens());
        let width = out.width;
        for (row, id) in out.values_mut().chunks_exact_mut(width).zip(&self.step.token_ids) {
            table.widen_row(*id as usize, row);
        }
        Ok(())
    }

    fn rms_norm(&mut self, x: &CpuTensor, weight: &Vec<f32>, eps: f32, out: &mut CpuTensor) -> Result<(), DeviceError> {
        norm::rms_norm(&self.threads, self.arch, x, weight, eps, out);
        Ok(())
    }

    fn add_rms_norm(
        &mut self,
        x: &CpuTensor,
        residual: &mut CpuTensor,
        weight: &Vec<f32>,
        eps: f32,
        out: &mut CpuTensor,
    ) -> Result<(), DeviceError> {
        norm::add_rms_norm(&self.threads, self.arch, x, residual, weight, eps, out);
        Ok(())
    }

    fn matmul(&mut self, x: &CpuTensor, weight: &CpuMatrix, bias: Option<&Vec<f32>>, out: &mut CpuTensor) -> Result<(), DeviceError> {
        matmul::matmul(&self.threads, self.kernels, &mut self.packed, x, weight, bias.map(Vec::as_slice), out)
    }

    fn head_norm(
        &mut self,
        qkv: &mut CpuTensor,
        q_weight: &Vec<f32>,
        k_weight: &Vec<f32>,
        eps: f32,
        heads: HeadShape,
    ) -> Result<(), DeviceError> {
        norm::head_norm(&self.threads, self.arch, qkv, q_weight, k_weight, eps, heads);
        Ok(())
    }

    fn rope_kv_write(
        &mut self,
        qkv: &mut CpuTensor,
        rope: &CpuRope,
        cache: &mut CpuKvCache,
        layer: usize,
        heads: HeadShape,
    ) -> Result<(), DeviceError> {
        rope::rope(&self.threads, self.arch, &self.step.positions, qkv, rope, heads);
        rope::kv_write(&self.step.slot_mapping, qkv, cache, layer, heads);
        Ok(())
    }

    fn attention_prefill(
        &mut self,
        qkv: &CpuTensor,
        cache: &CpuKvCache,
        spec: &AttentionSpec,
        out: &mut CpuTensor,
    ) -> Result<(), DeviceError> {
        out.set_rows(qkv.rows);
        self.attention(cache, spec).prefill(qkv, out);
        Ok(())
    }

    fn attention_decode(
        &mut self,
        qkv: &CpuTensor,
        cache: &CpuKvCache,
        spec: &AttentionSpec,
        out: &mut CpuTensor,
    ) -> Result<(), DeviceError> {
        out.set_rows(qkv.rows);
        self.attention(cache, spec).decode(qkv, out);
        Ok(())
    }

    fn silu_mul(&mut self, gate_up: &CpuTensor, out: &mut CpuTensor) -> Result<(), DeviceError> {
        let width = out.width;
        assert_eq!(gate_up.width, 2 * width, "gate and up are each as wide as the result");
        out.set_rows(gate_up.rows);
        let pairs = gate_up.values().chunks(2 * width).zip(out.values_mut().chunks_mut(width));
        self.threads.each(pairs, |_, (gate_up, out)| {
            let (gate, up) = gate_up.split_at(width);
            vectorised(
                self.arch,
                #[inline(always)]
                || {
                    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = exp::silu(*gate) * up;
                    }
                },
            );
        });
        Ok(())
    }

    fn gather_rows(&mut self, x: &CpuTensor, out: &mut CpuTensor) -> Result<(), DeviceError> {
        assert_eq!(x.width, out.width, "gathered rows keep their width");
        out.set_rows(self.step.logit_rows.len());
        let width = x.width;
        for (out, wanted) in out.values_mut().chunks_exact_mut(width).zip(&self.step.logit_rows) {
            out.copy_from_slice(x.row(wanted.row as usize));
        }
        Ok(())
    }

    fn sample(&mut self, logits: &CpuTensor) -> Result<(), DeviceError> {
        assert_eq!(logits.rows, self.step.logit_rows.len(), "every wanted row has its logits");
        self.sampled.resize(logits.rows, 0);
        let rows = self.sampled.iter_mut().zip(logits.values().chunks(logits.width)).zip(&self.step.logit_rows);
        self.threads.each(rows, |thread, ((id, logits), wanted)| {
            let mut candidates = self.candidates[thread].lock().unwrap_or_else(PoisonError::into_inner);
            *id = vectorised(
                self.arch,
                #[inline(always)]
                || sample::choose(logits, &wanted.sampling, &mut candidates),
            );
        });
        Ok(())
    }

    fn download(&mut self, tensor: &CpuTensor, values: &mut Vec<f32>) -> Result<(), DeviceError> {
        values.clear();
        values.extend_from_slice(tensor.values());
        Ok(())
    }

    fn upload(&mut self, values: &[f32], tensor: &mut CpuTensor) -> Result<(), DeviceError> {
        assert_eq!(values.len() % tensor.width, 0, "whole rows are uploaded");
        tensor.set_rows(values.len() / tensor.width);
        tensor.values_mut().copy_from_slice(values);
        Ok(())
    }
}
