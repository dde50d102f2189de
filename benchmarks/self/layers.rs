//! A bare layer loop over `Ops` in the order of a Llama layer, with random weights: what the speed of the device is
//! measured with, without an engine around it.

use plimsoll::device::source::{Element, MatrixSource, Values, VectorSource};
use plimsoll::device::step::{LogitRow, Sampling, StepBatch, StepLimits};
use plimsoll::device::{AttentionSpec, HeadShape, KvCacheSpec, Ops};
use plimsoll::rng;

/// A model shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: HeadShape,
    pub(crate) intermediate: usize,
    pub(crate) vocab: usize,
}

/// The 124.7 M-parameter Llama shape, output matrix untied.
pub(crate) const SMALL: Shape =
    Shape { hidden: 768, layers: 12, heads: HeadShape { q_heads: 12, kv_heads: 4, head_dim: 64 }, intermediate: 2048, vocab: 32_000 };

impl Shape {
    /// Parameters of the layers' matrices, which every token is multiplied with.
    pub(crate) fn layer_parameters(&self) -> usize {
        self.layers * (self.hidden * (self.heads.packed_width() + self.heads.q_width()) + 3 * self.hidden * self.intermediate)
    }

    /// Parameters of the output matrix, which a step reads once for its wanted rows.
    pub(crate) fn output_parameters(&self) -> usize {
        self.vocab * self.hidden
    }
}

const EPS: f32 = 1e-5;
const BLOCK_SIZE: usize = 16;

struct Layer<O: Ops> {
    input_norm: O::Vector,
    qkv: O::Matrix,
    o: O::Matrix,
    post_norm: O::Vector,
    gate_up: O::Matrix,
    down: O::Matrix,
}

/// Weights, cache and activations of one sequence.
pub(crate) struct Model<O: Ops> {
    pub(crate) ops: O,
    shape: Shape,
    table: O::Matrix,
    layers: Vec<Layer<O>>,
    norm: O::Vector,
    output: O::Matrix,
    rope: O::Rope,
    cache: O::KvCache,
    residual: O::Tensor,
    normed: O::Tensor,
    qkv: O::Tensor,
    attended: O::Tensor,
    projected: O::Tensor,
    gate_up: O::Tensor,
    activated: O::Tensor,
    last: O::Tensor,
    logits: O::Tensor,
    batch: StepBatch,
}

fn matrix(name: &str, element: Element, out: usize, width: usize) -> MatrixSource {
    let values = Values::Random { seed: rng::derive(7, name), mean: 0.0, deviation: 0.02 };
    MatrixSource { name: name.into(), out, width, element, values }
}

fn norm(name: &str, len: usize) -> [VectorSource; 1] {
    let values = Values::Random { seed: rng::derive(7, name), mean: 1.0, deviation: 0.1 };
    [VectorSource { name: name.into(), len, element: Element::F32, values }]
}

impl<O: Ops> Model<O> {
    /// Random weights of `element`, buffers for `max_tokens` per step and a context of `max_context`.
    pub(crate) fn random(mut ops: O, shape: Shape, element: Element, max_tokens: usize, max_context: usize) -> anyhow::Result<Self> {
        let Shape { hidden, layers, heads, intermediate, vocab } = shape;
        let blocks = max_context.div_ceil(BLOCK_SIZE);
        ops.prepare(StepLimits { max_tokens, max_sequences: 1, max_block_table_entries: blocks })?;
        let layers_built = (0..layers)
            .map(|layer| {
                let part = |name: &str, out, width| matrix(&format!("layers.{layer}.{name}"), element, out, width);
                Ok(Layer {
                    input_norm: ops.vector(&norm(&format!("{layer}.in"), hidden))?,
                    qkv: ops.matrix(&[
                        part("q", heads.q_width(), hidden),
                        part("k", heads.kv_width(), hidden),
                        part("v", heads.kv_width(), hidden),
                    ])?,
                    o: ops.matrix(&[part("o", hidden, heads.q_width())])?,
                    post_norm: ops.vector(&norm(&format!("{layer}.post"), hidden))?,
                    gate_up: ops.matrix(&[part("gate", intermediate, hidden), part("up", intermediate, hidden)])?,
                    down: ops.matrix(&[part("down", hidden, intermediate)])?,
                })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let half = heads.head_dim / 2;
        let inv_freq: Vec<f32> = (0..half).map(|pair| 10_000_f32.powf(-(pair as f32) / half as f32)).collect();
        Ok(Self {
            table: ops.matrix(&[matrix("embed", element, vocab, hidden)])?,
            norm: ops.vector(&norm("final", hidden))?,
            output: ops.matrix(&[matrix("output", element, vocab, hidden)])?,
            rope: ops.rope(&inv_freq, max_context)?,
            cache: ops.kv_cache(KvCacheSpec {
                layers,
                blocks,
                block_size: BLOCK_SIZE,
                kv_heads: heads.kv_heads,
                head_dim: heads.head_dim,
            })?,
            residual: ops.tensor(max_tokens, hidden)?,
            normed: ops.tensor(max_tokens, hidden)?,
            qkv: ops.tensor(max_tokens, heads.packed_width())?,
            attended: ops.tensor(max_tokens, heads.q_width())?,
            projected: ops.tensor(max_tokens, hidden)?,
            gate_up: ops.tensor(max_tokens, 2 * intermediate)?,
            activated: ops.tensor(max_tokens, intermediate)?,
            last: ops.tensor(1, hidden)?,
            logits: ops.tensor(1, vocab)?,
            batch: StepBatch::new(),
            layers: layers_built,
            shape,
            ops,
        })
    }

    /// Runs `tokens` after `cached` tokens of the one sequence and returns the greedy next token.
    pub(crate) fn step(&mut self, tokens: &[u32], cached: usize) -> anyhow::Result<u32> {
        let batch = &mut self.batch;
        batch.clear();
        batch.token_ids.extend_from_slice(tokens);
        let end = cached + tokens.len();
        batch.positions.extend(cached as u32..end as u32);
        batch.slot_mapping.extend(cached as u32..end as u32);
        batch.cu_seqlens_q.push(tokens.len() as u32);
        batch.context_lens.push(end as u32);
        batch.block_tables.extend(0..end.div_ceil(BLOCK_SIZE) as u32);
        batch.cu_blocks.push(batch.block_tables.len() as u32);
        batch.num_prefill_seqs = usize::from(tokens.len() > 1);
        batch.logit_rows.push(LogitRow { row: tokens.len() as u32 - 1, sampling: Sampling::GREEDY });

        let ops = &mut self.ops;
        let heads = self.shape.heads;
        ops.begin_step(batch)?;
        ops.embed(&self.table, &mut self.residual)?;
        for (number, layer) in self.layers.iter().enumerate() {
            if number == 0 {
                ops.rms_norm(&self.residual, &layer.input_norm, EPS, &mut self.normed)?;
            } else {
                ops.add_rms_norm(&self.projected, &mut self.residual, &layer.input_norm, EPS, &mut self.normed)?;
            }
            ops.matmul(&self.normed, &layer.qkv, None, &mut self.qkv)?;
            ops.rope_kv_write(&mut self.qkv, &self.rope, &mut self.cache, number, heads)?;
            let spec = AttentionSpec { layer: number, heads, scale: (heads.head_dim as f32).powf(-0.5), window: None };
            ops.attention_prefill(&self.qkv, &self.cache, &spec, &mut self.attended)?;
            ops.attention_decode(&self.qkv, &self.cache, &spec, &mut self.attended)?;
            ops.matmul(&self.attended, &layer.o, None, &mut self.projected)?;
            ops.add_rms_norm(&self.projected, &mut self.residual, &layer.post_norm, EPS, &mut self.normed)?;
            ops.matmul(&self.normed, &layer.gate_up, None, &mut self.gate_up)?;
            ops.silu_mul(&self.gate_up, &mut self.activated)?;
            ops.matmul(&self.activated, &layer.down, None, &mut self.projected)?;
        }
        ops.add_rms_norm(&self.projected, &mut self.residual, &self.norm, EPS, &mut self.normed)?;
        ops.gather_rows(&self.normed, &mut self.last)?;
        ops.matmul(&self.last, &self.output, None, &mut self.logits)?;
        let mut ids = Vec::new();
        ops.sample(&self.logits)?;
        ops.end_step(&mut ids)?;
        Ok(ids[0])
    }
}

/// A setting of the device, from the arguments after `--`: `threads=N`, `element=f32|f16|bf16`, `arithmetic=f32|bf16_dot`.
pub(crate) fn argument(name: &str) -> Option<String> {
    std::env::args().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
}
