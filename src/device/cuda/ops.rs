//! The seam: each operation of `Ops` as a launch.

use crate::device::cuda::attention::{self, Splits};
use crate::device::cuda::graphs::{Graphs, Mode};
use crate::device::cuda::kernels::HEAD_DIMS;
use crate::device::cuda::launch::Launch;
use crate::device::cuda::lt::{self, Operands, Shape};
use crate::device::cuda::sampled::{STEPS, Sampled};
use crate::device::cuda::step::{self, StepArrays};
use crate::device::cuda::tensor::{self, CudaKvCache, CudaRope, CudaTensor};
use crate::device::cuda::weights::{CudaMatrix, CudaVector};
use crate::device::cuda::{CudaDevice, VECTOR, only_decodes, step_error};
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, VectorSource};
use crate::device::step::{FED_BACK, StepBatch, StepLimits};
use crate::device::{AttentionSpec, DeviceIdentity, HeadShape, KvCacheSpec, MemoryFacts, Ops, WorkspaceSpec};

/// Threads of a block that works on one row, and of one that only copies it.
const ROW_BLOCK: u32 = 256;
const COPY_BLOCK: u32 = 128;
/// Threads of a block that samples.
const SAMPLE_BLOCK: u32 = 1024;
/// Heads that a block of `head_norm` takes, a warp each.
const HEADS_PER_BLOCK: usize = 8;
/// Elements that a block of `silu_mul` takes.
const SILU_ELEMENTS: usize = 2048;

impl Ops for CudaDevice {
    type Tensor = CudaTensor;
    type Matrix = CudaMatrix;
    type Vector = CudaVector;
    type Rope = CudaRope;
    type KvCache = CudaKvCache;

    fn identity(&self) -> &DeviceIdentity {
        &self.gpu.identity
    }

    fn memory(&self) -> Result<MemoryFacts, DeviceError> {
        let (free, total) = self.gpu.context.memory()?;
        Ok(MemoryFacts { total, free })
    }

    fn takes(&self, name: &str, _element: Element, width: usize) -> Result<(), DeviceError> {
        if width.is_multiple_of(VECTOR) {
            return Ok(());
        }
        Err(DeviceError::Unsupported {
            what: format!("`{name}` on a GPU"),
            reason: format!("it is `{width}` wide, and the kernels load {VECTOR} elements at once"),
            remedy: "Use the CPU device (`--device cpu`)".to_owned(),
        })
    }

    fn activation_bytes(&self) -> u64 {
        self.element().bytes() as u64
    }

    fn weight_bytes(&self, _element: Element) -> u64 {
        self.element().bytes() as u64
    }

    fn kv_cache_bytes(&self, spec: &KvCacheSpec) -> u64 {
        tensor::cache_bytes(spec, self.element())
    }

    fn workspace_bytes(&self, spec: &WorkspaceSpec) -> u64 {
        let WorkspaceSpec { max_tokens, positions, block_size, widest, head_dim, .. } = *spec;
        let entries = max_tokens.saturating_mul(positions.div_ceil(block_size));
        let limits = StepLimits { max_tokens, max_sequences: max_tokens, max_block_table_entries: entries };
        let partials = attention::partial_bytes(Splits { kv_heads: 1, ..self.splits }, max_tokens, widest, head_dim);
        let library = if self.gpu.library { lt::WORKSPACE_BYTES } else { 0 };
        tensor::rope_bytes(head_dim, positions) + step::bytes(&limits) as u64 + partials + library
    }

    fn prepare(&mut self, limits: StepLimits) -> Result<(), DeviceError> {
        let context = &self.gpu.context;
        self.uploader = None;
        self.step = Some(StepArrays::new(context, limits)?);
        self.sampled = Some(Sampled::new(context, limits.max_sequences)?);
        self.graphs = Graphs::new(self.gpu.spec.graphs, limits.max_sequences.min(limits.max_tokens));
        Ok(())
    }

    fn tensor(&mut self, max_rows: usize, width: usize) -> Result<CudaTensor, DeviceError> {
        CudaTensor::new(&self.gpu.context, max_rows, width, self.element())
    }

    fn logits(&mut self, max_rows: usize, vocab_size: usize) -> Result<CudaTensor, DeviceError> {
        CudaTensor::new(&self.gpu.context, max_rows, vocab_size, Element::F32)
    }

    fn matrix(&mut self, parts: &[MatrixSource]) -> Result<CudaMatrix, DeviceError> {
        parts.iter().try_for_each(|part| self.takes(&part.name, part.element, part.width))?;
        let (uploader, stream, gpu) = self.uploading()?;
        uploader.matrix(stream, &gpu.kernels, parts)
    }

    fn vector(&mut self, parts: &[VectorSource]) -> Result<CudaVector, DeviceError> {
        let (uploader, stream, _) = self.uploading()?;
        uploader.vector(stream, parts)
    }

    fn rope(&mut self, inv_freq: &[f32], max_positions: usize) -> Result<CudaRope, DeviceError> {
        CudaRope::new(&self.gpu.context, &self.stream, inv_freq, max_positions)
    }

    fn kv_cache(&mut self, spec: KvCacheSpec) -> Result<CudaKvCache, DeviceError> {
        if !HEAD_DIMS.contains(&spec.head_dim) {
            return Err(DeviceError::Unsupported {
                what: format!("attention with heads of `{}`", spec.head_dim),
                reason: format!("the kernels are made for heads of {HEAD_DIMS:?}"),
                remedy: "Use the CPU device (`--device cpu`)".to_owned(),
            });
        }
        self.splits.kv_heads = spec.kv_heads;
        CudaKvCache::new(&self.gpu.context, spec, self.element())
    }

    fn runs_ahead(&self) -> bool {
        true
    }

    fn begin_step(&mut self, batch: &StepBatch) -> Result<(), DeviceError> {
        batch.check().map_err(step_error)?;
        self.gpu.context.enter()?;
        let (Some(step), Some(sampled)) = (&mut self.step, &self.sampled) else {
            return Err(step_error("`prepare` was not called".to_owned()));
        };
        let Some(turn) = sampled.turn() else { return Err(step_error(format!("`{STEPS}` steps are under way already"))) };
        let StepLimits { max_tokens, max_sequences, max_block_table_entries } = step.limits;
        let (tokens, sequences, entries) = (batch.num_tokens(), batch.num_seqs(), batch.block_tables.len());
        if tokens > max_tokens || sequences > max_sequences || entries > max_block_table_entries {
            let reason = format!(
                "`{tokens}` tokens, `{sequences}` sequences and `{entries}` blocks exceed the `{max_tokens}`, `{max_sequences}` and `{max_block_table_entries}` prepared for"
            );
            return Err(step_error(reason));
        }
        let highest = |fed_back: bool| batch.token_ids.iter().filter(|id| (**id & FED_BACK != 0) == fed_back).max().copied();
        let fed_back_rows = highest(true).map_or(0, |id| (id & !FED_BACK) as usize + 1);
        if fed_back_rows > sampled.newest_rows() {
            let reason = format!("the token of row `{}` is fed back from a step that chose `{}`", fed_back_rows - 1, sampled.newest_rows());
            return Err(step_error(reason));
        }
        self.bucket = only_decodes(batch).then(|| self.graphs.bucket(sequences)).flatten();
        self.mode = Mode::Plain;
        self.sampled_rows = 0;
        self.highest_token = highest(false).unwrap_or(0);
        let decoding = self.bucket.unwrap_or(sequences - batch.num_prefill_seqs);
        let longest = batch.context_lens[batch.num_prefill_seqs..].iter().copied().max().unwrap_or(0);
        step.fill(&self.stream, turn, batch, self.bucket, self.splits.tokens(decoding, longest as usize))?;
        self.begun = true;
        Ok(())
    }

    fn recorded(&mut self) -> Result<bool, DeviceError> {
        let Some(bucket) = self.bucket else { return Ok(false) };
        self.mode = self.graphs.begin(&self.stream, bucket)?;
        if self.mode == Mode::Played {
            self.sampled_rows = self.step().wanted_rows;
        }
        Ok(self.mode == Mode::Played)
    }

    fn launch_step(&mut self) -> Result<(), DeviceError> {
        let Some(sampled) = self.sampled.as_mut().filter(|_| std::mem::take(&mut self.begun)) else { return Ok(()) };
        if let Mode::Recording(bucket) = self.mode {
            self.graphs.finish(&self.stream, bucket)?;
            self.mode = Mode::Plain;
        }
        sampled.send(&self.stream, self.sampled_rows)
    }

    fn end_step(&mut self, token_ids: &mut Vec<u32>) -> Result<(), DeviceError> {
        token_ids.clear();
        self.launch_step()?;
        self.sampled.as_mut().map_or(Ok(()), |sampled| sampled.receive(token_ids))
    }

    fn embed(&mut self, table: &CudaMatrix, out: &mut CudaTensor) -> Result<(), DeviceError> {
        assert_eq!(table.width, out.width, "rows are as wide as the table");
        if self.highest_token as usize >= table.out {
            return Err(step_error(format!("token `{}` lies outside the table of `{}`", self.highest_token, table.out)));
        }
        let step = self.step();
        out.set_rows(step.layout.tokens);
        let fed_back = self.sampled.as_ref().map_or(0, Sampled::address);
        let ids = step.at(step.layout.token_ids);
        let launch = Launch::over(&self.stream, self.gpu.kernels.embed, out.rows, COPY_BLOCK);
        launch.with(&[out.address().into(), table.values.at(0).into(), ids.into(), fed_back.into(), out.width.into()])
    }

    fn rms_norm(&mut self, x: &CudaTensor, weight: &CudaVector, eps: f32, out: &mut CudaTensor) -> Result<(), DeviceError> {
        assert_eq!((x.width, x.width), (weight.len, out.width), "a norm keeps the width");
        out.set_rows(x.rows);
        let launch = Launch::over(&self.stream, self.gpu.kernels.rms_norm, x.rows, ROW_BLOCK);
        launch.with(&[out.address().into(), x.address().into(), weight.values.at(0).into(), x.width.into(), eps.into()])
    }

    fn add_rms_norm(
        &mut self,
        x: &CudaTensor,
        residual: &mut CudaTensor,
        weight: &CudaVector,
        eps: f32,
        out: &mut CudaTensor,
    ) -> Result<(), DeviceError> {
        assert_eq!((x.width, x.width, x.width), (residual.width, weight.len, out.width), "a norm keeps the width");
        assert_eq!(x.rows, residual.rows, "every row has its residual");
        out.set_rows(x.rows);
        let launch = Launch::over(&self.stream, self.gpu.kernels.add_rms_norm, x.rows, ROW_BLOCK);
        let (out, residual, x_at) = (out.address(), residual.address(), x.address());
        launch.with(&[out.into(), residual.into(), x_at.into(), weight.values.at(0).into(), x.width.into(), eps.into()])
    }

    fn matmul(&mut self, x: &CudaTensor, weight: &CudaMatrix, bias: Option<&CudaVector>, out: &mut CudaTensor) -> Result<(), DeviceError> {
        assert_eq!((x.width, weight.out), (weight.width, out.width), "the matrix takes `x` to `out`");
        assert!(bias.is_none_or(|bias| bias.len == weight.out), "a bias has an element for each output");
        out.set_rows(x.rows);
        if x.rows == 0 {
            return Ok(());
        }
        let logits = out.holds_f32() && self.element() != Element::F32;
        let shape = Shape { rows: x.rows, n: weight.out, k: weight.width, logits, bias: bias.is_some() };
        let (bias_f32, bias) = bias.map_or((0, 0), |bias| (bias.values.at(0), bias.narrow.at(0)));
        let operands = Operands { out: out.address(), x: x.address(), weight: weight.values.at(0), bias };
        // Sizes that come back again and again are worth the time; nothing can be timed while it is recorded.
        let recurs = self.bucket.is_some() || x.rows.is_power_of_two();
        let may_time = recurs && !matches!(self.mode, Mode::Recording(_));
        self.products.multiply(&self.stream, shape, &operands, bias_f32, may_time)
    }

    fn head_norm(
        &mut self,
        qkv: &mut CudaTensor,
        q_weight: &CudaVector,
        k_weight: &CudaVector,
        eps: f32,
        heads: HeadShape,
    ) -> Result<(), DeviceError> {
        assert_eq!(qkv.width, heads.packed_width(), "rows are packed");
        assert_eq!((q_weight.len, k_weight.len), (heads.head_dim, heads.head_dim), "a weight for each element of a head");
        let grid = (qkv.rows, (heads.q_heads + heads.kv_heads).div_ceil(HEADS_PER_BLOCK), 1);
        let launch = Launch { stream: &self.stream, function: self.gpu.kernels.head_norm, grid, block: ROW_BLOCK };
        let (q_weight, k_weight) = (q_weight.values.at(0), k_weight.values.at(0));
        let HeadShape { q_heads, kv_heads, head_dim } = heads;
        launch.with(&[qkv.address().into(), q_weight.into(), k_weight.into(), q_heads.into(), kv_heads.into(), head_dim.into(), eps.into()])
    }

    fn rope_kv_write(
        &mut self,
        qkv: &mut CudaTensor,
        rope: &CudaRope,
        cache: &mut CudaKvCache,
        layer: usize,
        heads: HeadShape,
    ) -> Result<(), DeviceError> {
        assert_eq!((qkv.width, rope.head_dim), (heads.packed_width(), heads.head_dim), "rows are packed, and the table is theirs");
        let (step, (keys, values)) = (self.step(), cache.layer(layer));
        let (positions, slots) = (step.at(step.layout.positions), step.at(step.layout.slots));
        let HeadShape { q_heads, kv_heads, head_dim } = heads;
        let launch = Launch::over(&self.stream, self.gpu.kernels.rope_kv_write, qkv.rows, ROW_BLOCK);
        launch.with(&[
            qkv.address().into(),
            rope.address().into(),
            positions.into(),
            slots.into(),
            keys.into(),
            values.into(),
            q_heads.into(),
            kv_heads.into(),
            head_dim.into(),
            cache.spec.block_size.into(),
        ])
    }

    fn attention_prefill(
        &mut self,
        qkv: &CudaTensor,
        cache: &CudaKvCache,
        spec: &AttentionSpec,
        out: &mut CudaTensor,
    ) -> Result<(), DeviceError> {
        out.set_rows(qkv.rows);
        self.attention(cache, spec).prefill(qkv, out)
    }

    fn attention_decode(
        &mut self,
        qkv: &CudaTensor,
        cache: &CudaKvCache,
        spec: &AttentionSpec,
        out: &mut CudaTensor,
    ) -> Result<(), DeviceError> {
        out.set_rows(qkv.rows);
        let mut partials = self.partials.take();
        let done = self.attention(cache, spec).decode(&self.gpu.context, self.splits, &mut partials, qkv, out);
        self.partials = partials;
        done
    }

    fn silu_mul(&mut self, gate_up: &CudaTensor, out: &mut CudaTensor) -> Result<(), DeviceError> {
        assert_eq!(gate_up.width, 2 * out.width, "gate and up are each as wide as the result");
        out.set_rows(gate_up.rows);
        let grid = (out.rows, out.width.div_ceil(SILU_ELEMENTS), 1);
        let launch = Launch { stream: &self.stream, function: self.gpu.kernels.silu_mul, grid, block: ROW_BLOCK };
        launch.with(&[out.address().into(), gate_up.address().into(), out.width.into()])
    }

    fn gather_rows(&mut self, x: &CudaTensor, out: &mut CudaTensor) -> Result<(), DeviceError> {
        assert_eq!(x.width, out.width, "gathered rows keep their width");
        let step = self.step();
        out.set_rows(step.layout.rows);
        let rows = step.at(step.layout.logit_rows);
        let launch = Launch::over(&self.stream, self.gpu.kernels.gather_rows, out.rows, COPY_BLOCK);
        launch.with(&[out.address().into(), x.address().into(), rows.into(), x.width.into()])
    }

    fn sample(&mut self, logits: &CudaTensor) -> Result<(), DeviceError> {
        let (step, layout) = (self.step(), self.step().layout);
        assert_eq!(logits.rows, layout.rows, "every wanted row has its logits");
        assert!(logits.holds_f32(), "logits are f32");
        let sampled = self.sampled.as_ref().map_or(0, Sampled::address);
        let launch = Launch::over(&self.stream, self.gpu.kernels.sample, logits.rows, SAMPLE_BLOCK);
        launch.with(&[
            sampled.into(),
            logits.address().into(),
            logits.width.into(),
            step.at(layout.temperatures).into(),
            step.at(layout.top_k).into(),
            step.at(layout.top_p).into(),
            step.at(layout.seeds).into(),
            step.at(layout.draws).into(),
        ])?;
        self.sampled_rows = step.wanted_rows;
        Ok(())
    }

    fn download(&mut self, tensor: &CudaTensor, values: &mut Vec<f32>) -> Result<(), DeviceError> {
        self.gpu.context.enter()?;
        tensor.download(&self.stream, values)
    }

    fn upload(&mut self, values: &[f32], tensor: &mut CudaTensor) -> Result<(), DeviceError> {
        self.gpu.context.enter()?;
        tensor.upload(&self.stream, values)
    }
}
