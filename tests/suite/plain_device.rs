//! A device as plain as the definitions it follows: loops in f64 over f32 values, nothing fast, nothing clever.
//!
//! It shows that the engine's layer loop is right apart from any kernel, and is an oracle for devices.

use plimsoll::device::error::DeviceError;
use plimsoll::device::source::{Element, MatrixSource, Values, VectorSource};
use plimsoll::device::step::{StepBatch, StepLimits};
use plimsoll::device::{AttentionSpec, DeviceIdentity, DeviceKind, HeadShape, KvCacheSpec, MemoryFacts, Ops, WorkspaceSpec};
use plimsoll::rng;

pub(crate) struct Plain {
    identity: DeviceIdentity,
    batch: StepBatch,
    sampled: Vec<u32>,
    block_size: usize,
    free: u64,
}

#[derive(Default)]
pub(crate) struct Rows {
    width: usize,
    max_rows: usize,
    values: Vec<f32>,
}

impl Rows {
    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    fn set(&mut self, values: Vec<f32>) {
        assert!(values.len().is_multiple_of(self.width) && values.len() / self.width <= self.max_rows);
        self.values = values;
    }
}

pub(crate) struct Cache {
    spec: KvCacheSpec,
    /// Key then value of each slot of each layer; NaN where nothing was written.
    values: Vec<f32>,
}

impl Cache {
    fn entry(&self, layer: usize, slot: usize) -> std::ops::Range<usize> {
        let width = 2 * self.spec.kv_heads * self.spec.head_dim;
        let start = (layer * self.spec.blocks * self.spec.block_size + slot) * width;
        start..start + width
    }
}

fn numbers(elements: usize, element: Element, values: &Values) -> Vec<f32> {
    match values {
        Values::Mapped(bytes) => {
            let bytes = bytes.as_slice();
            assert_eq!(bytes.len(), elements * element.bytes());
            match element {
                Element::F32 => bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect(),
                Element::F16 => bytes.chunks_exact(2).map(|chunk| half::f16::from_le_bytes(chunk.try_into().unwrap()).to_f32()).collect(),
                Element::Bf16 => bytes.chunks_exact(2).map(|chunk| half::bf16::from_le_bytes(chunk.try_into().unwrap()).to_f32()).collect(),
            }
        }
        Values::Random { seed, mean, deviation } => {
            let normal = |index: usize| {
                let (u, v) = (rng::uniform_at(*seed, 2 * index as u64), rng::uniform_at(*seed, 2 * index as u64 + 1));
                (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
            };
            (0..elements).map(|index| mean + deviation * normal(index) as f32).collect()
        }
    }
}

fn norm(row: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean_square = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / row.len() as f64;
    let factor = (mean_square + f64::from(eps)).sqrt().recip();
    row.iter().zip(weight).map(|(x, w)| (f64::from(*x) * factor * f64::from(*w)) as f32).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

impl Plain {
    pub(crate) fn open() -> Result<Self, DeviceError> {
        let identity = DeviceIdentity {
            kind: DeviceKind::Cpu,
            ordinal: 0,
            name: "plain".to_owned(),
            threads: 1,
            arithmetic: "f64".to_owned(),
            elements: vec![Element::F32, Element::F16, Element::Bf16],
            instructions: "none".to_owned(),
        };
        Ok(Self { identity, batch: StepBatch::new(), sampled: Vec::new(), block_size: 0, free: 1 << 40 })
    }

    /// As [`Plain::open`], on a machine with so many bytes free.
    pub(crate) fn with_free(free: u64) -> Result<Self, DeviceError> {
        Ok(Self { free, ..Self::open()? })
    }

    fn attend(&self, qkv: &Rows, cache: &Cache, spec: &AttentionSpec, sequences: std::ops::Range<usize>, out: &mut Rows) {
        let (heads, dim) = (spec.heads, spec.heads.head_dim);
        out.values.resize(qkv.rows() * out.width, f32::NAN);
        for sequence in sequences {
            let table = self.batch.block_table(sequence);
            for row in self.batch.rows(sequence) {
                let position = self.batch.positions[row] as usize;
                let first = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
                let entries: Vec<_> = (first..=position)
                    .map(|seen| cache.entry(spec.layer, table[seen / self.block_size] as usize * self.block_size + seen % self.block_size))
                    .collect();
                for head in 0..heads.q_heads {
                    let query = &qkv.row(row)[head * dim..][..dim];
                    let kv_head = head / (heads.q_heads / heads.kv_heads);
                    let key = |entry: &std::ops::Range<usize>| &cache.values[entry.start + kv_head * dim..][..dim];
                    let value = |entry: &std::ops::Range<usize>| &cache.values[entry.start + heads.kv_width() + kv_head * dim..][..dim];
                    let scores: Vec<_> = entries.iter().map(|entry| dot(query, key(entry)) * f64::from(spec.scale)).collect();
                    let highest = scores.iter().copied().fold(f64::MIN, f64::max);
                    let weights: Vec<_> = scores.iter().map(|score| (score - highest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for place in 0..dim {
                        let sum: f64 = weights.iter().zip(&entries).map(|(weight, entry)| weight * f64::from(value(entry)[place])).sum();
                        out.values[row * out.width + head * dim + place] = (sum / total) as f32;
                    }
                }
            }
        }
    }
}

impl Ops for Plain {
    type Tensor = Rows;
    type Matrix = (usize, Vec<f32>);
    type Vector = Vec<f32>;
    type Rope = Vec<f32>;
    type KvCache = Cache;

    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn memory(&self) -> Result<MemoryFacts, DeviceError> {
        Ok(MemoryFacts { total: self.free, free: self.free })
    }

    fn takes(&self, _name: &str, _element: Element, _width: usize) -> Result<(), DeviceError> {
        Ok(())
    }

    fn kv_cache_bytes(&self, spec: &KvCacheSpec) -> u64 {
        (8 * spec.layers * spec.blocks * spec.block_size * spec.kv_heads * spec.head_dim) as u64
    }

    fn workspace_bytes(&self, _spec: &WorkspaceSpec) -> u64 {
        0
    }

    fn prepare(&mut self, _limits: StepLimits) -> Result<(), DeviceError> {
        Ok(())
    }

    fn tensor(&mut self, max_rows: usize, width: usize) -> Result<Rows, DeviceError> {
        Ok(Rows { width, max_rows, values: Vec::new() })
    }

    fn matrix(&mut self, parts: &[MatrixSource]) -> Result<(usize, Vec<f32>), DeviceError> {
        let values = parts.iter().flat_map(|part| numbers(part.out * part.width, part.element, &part.values)).collect();
        Ok((parts[0].width, values))
    }

    fn vector(&mut self, parts: &[VectorSource]) -> Result<Vec<f32>, DeviceError> {
        Ok(parts.iter().flat_map(|part| numbers(part.len, part.element, &part.values)).collect())
    }

    fn rope(&mut self, inv_freq: &[f32], _max_positions: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(inv_freq.to_vec())
    }

    fn kv_cache(&mut self, spec: KvCacheSpec) -> Result<Cache, DeviceError> {
        self.block_size = spec.block_size;
        Ok(Cache { spec, values: vec![f32::NAN; self.kv_cache_bytes(&spec) as usize / 4] })
    }

    fn begin_step(&mut self, batch: &StepBatch) -> Result<(), DeviceError> {
        batch.check().map_err(|reason| DeviceError::Step { reason })?;
        self.batch = batch.clone();
        Ok(())
    }

    fn end_step(&mut self, token_ids: &mut Vec<u32>) -> Result<(), DeviceError> {
        *token_ids = std::mem::take(&mut self.sampled);
        Ok(())
    }

    fn embed(&mut self, (width, table): &(usize, Vec<f32>), out: &mut Rows) -> Result<(), DeviceError> {
        out.set(self.batch.token_ids.iter().flat_map(|id| table[*id as usize * width..][..*width].to_vec()).collect());
        Ok(())
    }

    fn rms_norm(&mut self, x: &Rows, weight: &Vec<f32>, eps: f32, out: &mut Rows) -> Result<(), DeviceError> {
        out.set((0..x.rows()).flat_map(|row| norm(x.row(row), weight, eps)).collect());
        Ok(())
    }

    fn add_rms_norm(&mut self, x: &Rows, residual: &mut Rows, weight: &Vec<f32>, eps: f32, out: &mut Rows) -> Result<(), DeviceError> {
        residual.values.iter_mut().zip(&x.values).for_each(|(residual, x)| *residual += x);
        self.rms_norm(residual, weight, eps, out)
    }

    fn matmul(
        &mut self,
        x: &Rows,
        (width, weight): &(usize, Vec<f32>),
        bias: Option<&Vec<f32>>,
        out: &mut Rows,
    ) -> Result<(), DeviceError> {
        assert_eq!((x.width, out.width), (*width, weight.len() / width));
        let product = |row: usize, column: usize| {
            (dot(x.row(row), &weight[column * width..][..*width]) + bias.map_or(0.0, |bias| f64::from(bias[column]))) as f32
        };
        let columns = out.width;
        out.set(
            (0..x.rows()).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(row, column)| product(row, column)).collect(),
        );
        Ok(())
    }

    fn head_norm(
        &mut self,
        qkv: &mut Rows,
        q_weight: &Vec<f32>,
        k_weight: &Vec<f32>,
        eps: f32,
        heads: HeadShape,
    ) -> Result<(), DeviceError> {
        for row in qkv.values.chunks_exact_mut(qkv.width) {
            for (head, values) in row.chunks_exact_mut(heads.head_dim).take(heads.q_heads + heads.kv_heads).enumerate() {
                let normed = norm(values, if head < heads.q_heads { q_weight } else { k_weight }, eps);
                values.copy_from_slice(&normed);
            }
        }
        Ok(())
    }

    fn rope_kv_write(
        &mut self,
        qkv: &mut Rows,
        rope: &Vec<f32>,
        cache: &mut Cache,
        layer: usize,
        heads: HeadShape,
    ) -> Result<(), DeviceError> {
        let half = heads.head_dim / 2;
        for (row, values) in qkv.values.chunks_exact_mut(qkv.width).enumerate() {
            let position = f64::from(self.batch.positions[row]);
            for head in values.chunks_exact_mut(heads.head_dim).take(heads.q_heads + heads.kv_heads) {
                for pair in 0..half {
                    let (sin, cos) = (position * f64::from(rope[pair])).sin_cos();
                    let (a, b) = (f64::from(head[pair]), f64::from(head[pair + half]));
                    head[pair] = (a * cos - b * sin) as f32;
                    head[pair + half] = (b * cos + a * sin) as f32;
                }
            }
            let entry = cache.entry(layer, self.batch.slot_mapping[row] as usize);
            cache.values[entry].copy_from_slice(&values[heads.q_width()..]);
        }
        Ok(())
    }

    fn attention_prefill(&mut self, qkv: &Rows, cache: &Cache, spec: &AttentionSpec, out: &mut Rows) -> Result<(), DeviceError> {
        self.attend(qkv, cache, spec, 0..self.batch.num_prefill_seqs, out);
        Ok(())
    }

    fn attention_decode(&mut self, qkv: &Rows, cache: &Cache, spec: &AttentionSpec, out: &mut Rows) -> Result<(), DeviceError> {
        self.attend(qkv, cache, spec, self.batch.num_prefill_seqs..self.batch.num_seqs(), out);
        Ok(())
    }

    fn silu_mul(&mut self, gate_up: &Rows, out: &mut Rows) -> Result<(), DeviceError> {
        let silu = |x: f32| f64::from(x) / (1.0 + (-f64::from(x)).exp());
        let inner = gate_up.width / 2;
        let product = |row: &[f32], place: usize| (silu(row[place]) * f64::from(row[inner + place])) as f32;
        out.set((0..gate_up.rows()).flat_map(|row| (0..inner).map(|place| product(gate_up.row(row), place)).collect::<Vec<_>>()).collect());
        Ok(())
    }

    fn gather_rows(&mut self, x: &Rows, out: &mut Rows) -> Result<(), DeviceError> {
        out.set(self.batch.logit_rows.iter().flat_map(|wanted| x.row(wanted.row as usize).to_vec()).collect());
        Ok(())
    }

    /// Greedy only.
    fn sample(&mut self, logits: &Rows) -> Result<(), DeviceError> {
        for row in 0..logits.rows() {
            let row = logits.row(row);
            let highest = row.iter().copied().fold(f32::MIN, f32::max);
            self.sampled.push(row.iter().position(|logit| *logit == highest).expect("no NaN among the logits") as u32);
        }
        Ok(())
    }

    fn download(&mut self, tensor: &Rows, values: &mut Vec<f32>) -> Result<(), DeviceError> {
        values.clone_from(&tensor.values);
        Ok(())
    }

    fn upload(&mut self, values: &[f32], tensor: &mut Rows) -> Result<(), DeviceError> {
        tensor.set(values.to_vec());
        Ok(())
    }
}
