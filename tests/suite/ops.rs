//! Every operation of the CPU device against plain loops in f64, on odd shapes.

use std::num::NonZeroUsize;

use half::{bf16, f16};
use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec, CpuTensor, KernelChoice};
use plimsoll::device::error::DeviceError;
use plimsoll::device::source::{Element, MatrixSource, SharedBytes, Values, VectorSource, random_element};
use plimsoll::device::step::{LogitRow, Sampling, StepBatch};
use plimsoll::device::{AttentionSpec, HeadShape, KvCacheSpec, Ops};
use proptest::prelude::*;

fn device_with(threads: usize, arithmetic: Arithmetic) -> Option<CpuDevice> {
    CpuDevice::open(CpuSpec::new(NonZeroUsize::new(threads).expect("above 0"), arithmetic)).ok()
}

fn portable(threads: usize) -> CpuDevice {
    let spec = CpuSpec::new(NonZeroUsize::new(threads).expect("above 0"), Arithmetic::F32);
    CpuDevice::open(CpuSpec { kernels: KernelChoice::Portable, ..spec }).expect("every processor has them")
}

fn device(threads: usize) -> CpuDevice {
    device_with(threads, Arithmetic::F32).expect("every processor computes f32")
}

fn noise(seed: u64, count: usize) -> Vec<f32> {
    (0..count).map(|index| random_element(seed, index as u64, 0.0, 1.0)).collect()
}

fn tensor(ops: &mut CpuDevice, values: &[f32], width: usize) -> CpuTensor {
    let mut tensor = ops.tensor(values.len() / width, width).unwrap();
    ops.upload(values, &mut tensor).unwrap();
    tensor
}

fn values(ops: &mut CpuDevice, tensor: &CpuTensor) -> Vec<f32> {
    let mut values = Vec::new();
    ops.download(tensor, &mut values).unwrap();
    values
}

/// The elements as a checkpoint stores them.
fn stored(values: &[f32], element: Element) -> Vec<u8> {
    let bytes = |value: &f32| match element {
        Element::F32 => value.to_le_bytes().to_vec(),
        Element::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

/// What is left of `value` once it is stored.
fn rounded(value: f32, element: Element) -> f32 {
    match element {
        Element::F32 => value,
        Element::F16 => f16::from_f32(value).to_f32(),
        Element::Bf16 => bf16::from_f32(value).to_f32(),
    }
}

fn mapped(name: &str, values: &[f32], width: usize, element: Element) -> MatrixSource {
    let bytes = SharedBytes::from_vec(stored(values, element));
    MatrixSource { name: name.into(), out: values.len() / width, width, element, values: Values::Mapped(bytes) }
}

fn vector(ops: &mut CpuDevice, values: &[f32]) -> Vec<f32> {
    let bytes = Values::Mapped(SharedBytes::from_vec(stored(values, Element::F32)));
    ops.vector(&[VectorSource { name: "v".into(), len: values.len(), element: Element::F32, values: bytes }]).unwrap()
}

fn close(got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() <= tolerance, "element {index}: {got} and not {expected}");
    }
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![Just(Element::F32), Just(Element::F16), Just(Element::Bf16)]
}

/// `x weight^T + bias` in f64.
fn product(x: &[f32], weight: &[f32], bias: &[f32], width: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>();
    x.chunks(width).flat_map(|x| weight.chunks(width).zip(bias).map(move |(w, bias)| dot(x, w) + f64::from(*bias))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn a_product_is_that_of_a_plain_loop(
        rows in prop_oneof![9 => 1_usize..70, 1 => 250_usize..270], width in 1_usize..90, first in 1_usize..60, second in 1_usize..30,
        element in element(), threads in 1_usize..4, best in any::<bool>(), seed: u64,
    ) {
        let mut ops = if best { device(threads) } else { portable(threads) };
        let x = noise(seed, rows * width);
        let parts = [noise(seed ^ 1, first * width), noise(seed ^ 2, second * width)];
        let weight: Vec<f32> = parts.concat().iter().map(|value| rounded(*value, element)).collect();
        let bias = noise(seed ^ 3, first + second);
        let matrix = ops.matrix(&[mapped("a", &parts[0], width, element), mapped("b", &parts[1], width, element)]).unwrap();
        let (x_tensor, bias_vector) = (tensor(&mut ops, &x, width), vector(&mut ops, &bias));
        let mut out = ops.tensor(rows, first + second).unwrap();
        ops.matmul(&x_tensor, &matrix, Some(&bias_vector), &mut out).unwrap();
        let once = values(&mut ops, &out);
        close(&once, &product(&x, &weight, &bias, width), 1e-5 * (width as f64 + 4.0));
        ops.matmul(&x_tensor, &matrix, Some(&bias_vector), &mut out).unwrap();
        prop_assert_eq!(values(&mut ops, &out), once);
    }

    #[test]
    fn bf16_dot_products_round_the_activations_and_nothing_else(rows in 1_usize..40, pairs in 1_usize..50, outs in 1_usize..40, seed: u64) {
        let width = 2 * pairs;
        let Some(mut ops) = device_with(2, Arithmetic::Bf16Dot) else { return Ok(()) };
        let rounding = |values: Vec<f32>| values.into_iter().map(|value| rounded(value, Element::Bf16)).collect::<Vec<f32>>();
        let (x, weight) = (noise(seed, rows * width), rounding(noise(seed ^ 1, outs * width)));
        let matrix = ops.matrix(&[mapped("a", &weight, width, Element::Bf16)]).unwrap();
        let x_tensor = tensor(&mut ops, &x, width);
        let mut out = ops.tensor(rows, outs).unwrap();
        ops.matmul(&x_tensor, &matrix, None, &mut out).unwrap();
        let expected = product(&rounding(x), &weight, &vec![0.0; outs], width);
        close(&values(&mut ops, &out), &expected, 1e-5 * (width as f64 + 4.0));
    }

    #[test]
    fn norms_are_those_of_a_plain_loop(rows in 1_usize..40, width in 1_usize..100, threads in 1_usize..4, seed: u64) {
        let mut ops = device(threads);
        let (x, residual, weight) = (noise(seed, rows * width), noise(seed ^ 1, rows * width), noise(seed ^ 2, width));
        let norm = |row: &[f32]| {
            let mean = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / width as f64;
            row.iter().zip(&weight).map(|(value, weight)| f64::from(*value) / (mean + 1e-5).sqrt() * f64::from(*weight)).collect::<Vec<_>>()
        };
        let (x_tensor, mut residual_tensor) = (tensor(&mut ops, &x, width), tensor(&mut ops, &residual, width));
        let weight_vector = vector(&mut ops, &weight);
        let mut out = ops.tensor(rows, width).unwrap();
        ops.rms_norm(&x_tensor, &weight_vector, 1e-5, &mut out).unwrap();
        close(&values(&mut ops, &out), &x.chunks(width).flat_map(norm).collect::<Vec<_>>(), 1e-4);
        ops.add_rms_norm(&x_tensor, &mut residual_tensor, &weight_vector, 1e-5, &mut out).unwrap();
        let sums: Vec<f32> = x.iter().zip(&residual).map(|(x, residual)| x + residual).collect();
        close(&values(&mut ops, &out), &sums.chunks(width).flat_map(norm).collect::<Vec<_>>(), 1e-4);
        prop_assert_eq!(values(&mut ops, &residual_tensor), sums);
    }

    #[test]
    fn silu_of_the_gate_meets_the_other_half(rows in 1_usize..9, width in 1_usize..70, seed: u64) {
        let mut ops = device(2);
        let x: Vec<f32> = noise(seed, rows * 2 * width).iter().map(|value| value * 8.0).collect();
        let gate_up = tensor(&mut ops, &x, 2 * width);
        let mut out = ops.tensor(rows, width).unwrap();
        ops.silu_mul(&gate_up, &mut out).unwrap();
        let expected: Vec<f64> = x
            .chunks(2 * width)
            .flat_map(|row| (0..width).map(|i| f64::from(row[i]) / (1.0 + (-f64::from(row[i])).exp()) * f64::from(row[width + i])).collect::<Vec<_>>())
            .collect();
        close(&values(&mut ops, &out), &expected, 2e-4);
    }

    #[test]
    fn attention_over_shuffled_pages_is_that_of_a_plain_loop(
        kv_heads in 1_usize..4, group in 1_usize..10, half in 1_usize..25, block_size in 1_usize..37,
        prompt in 1_usize..60, decoded in 0_usize..5, chunk in 1_usize..60, window in prop::option::of(1_usize..40),
        normed: bool, threads in 1_usize..4, seed: u64,
    ) {
        let heads = HeadShape { q_heads: kv_heads * group, kv_heads, head_dim: 2 * half };
        let case = Case { heads, block_size, prompt, total: prompt + decoded, chunk, window, normed, seed };
        close(&case.paged(threads), &case.plain(), 2e-4);
        prop_assert_eq!(case.paged(threads), case.paged(threads));
    }
}

/// One sequence through head norm, rotation, cache and attention.
struct Case {
    heads: HeadShape,
    block_size: usize,
    prompt: usize,
    total: usize,
    chunk: usize,
    window: Option<usize>,
    normed: bool,
    seed: u64,
}

impl Case {
    fn packed(&self) -> Vec<f32> {
        noise(self.seed, self.total * self.heads.packed_width())
    }

    fn inv_freq(&self) -> Vec<f32> {
        (0..self.heads.head_dim / 2).map(|pair| 0.7_f32.powi(pair as i32)).collect()
    }

    fn head_weights(&self) -> [Vec<f32>; 2] {
        [noise(self.seed ^ 5, self.heads.head_dim), noise(self.seed ^ 6, self.heads.head_dim)]
    }

    fn scale(&self) -> f32 {
        (self.heads.head_dim as f32).powf(-0.5)
    }

    /// In chunks and then token by token, each beside a second sequence that must not matter.
    fn paged(&self, threads: usize) -> Vec<f32> {
        let mut ops = device(threads);
        let blocks = self.total.div_ceil(self.block_size);
        let spec = KvCacheSpec {
            layers: 2,
            blocks: 2 * blocks + 3,
            block_size: self.block_size,
            kv_heads: self.heads.kv_heads,
            head_dim: self.heads.head_dim,
        };
        let mut cache = ops.kv_cache(spec).unwrap();
        let rope = ops.rope(&self.inv_freq(), self.total).unwrap();
        let weights = self.head_weights().map(|weights| vector(&mut ops, &weights));
        // Odd blocks, backwards; the neighbour has the even ones.
        let table: Vec<u32> = (0..blocks as u32).map(|block| 2 * (blocks as u32 - 1 - block) + 1).collect();
        let neighbour: Vec<u32> = (0..blocks as u32).map(|block| 2 * block).collect();
        let packed = self.packed();
        let width = self.heads.packed_width();
        let mut results = Vec::new();
        let mut cached = 0;
        while cached < self.total {
            let count = if cached < self.prompt { self.chunk.min(self.prompt - cached) } else { 1 };
            let prefill = cached < self.prompt;
            let mut batch = StepBatch::new();
            let mut rows = Vec::new();
            let parts = if prefill { [(&table, 1.0), (&neighbour, -2.0)] } else { [(&neighbour, -2.0), (&table, 1.0)] };
            for (table, factor) in parts {
                for token in cached..cached + count {
                    batch.token_ids.push(0);
                    batch.positions.push(token as u32);
                    batch.slot_mapping.push(table[token / self.block_size] * self.block_size as u32 + (token % self.block_size) as u32);
                    rows.extend(packed[token * width..(token + 1) * width].iter().map(|value| value * factor));
                }
                batch.cu_seqlens_q.push(batch.token_ids.len() as u32);
                batch.context_lens.push((cached + count) as u32);
                batch.block_tables.extend(&table[..(cached + count).div_ceil(self.block_size)]);
                batch.cu_blocks.push(batch.block_tables.len() as u32);
                batch.num_prefill_seqs += usize::from(prefill);
            }
            let mut qkv = tensor(&mut ops, &rows, width);
            let mut out = ops.tensor(2 * count, self.heads.q_width()).unwrap();
            ops.begin_step(&batch).unwrap();
            if self.normed {
                ops.head_norm(&mut qkv, &weights[0], &weights[1], 1e-6, self.heads).unwrap();
            }
            ops.rope_kv_write(&mut qkv, &rope, &mut cache, 1, self.heads).unwrap();
            let spec = AttentionSpec { layer: 1, heads: self.heads, scale: self.scale(), window: self.window };
            ops.attention_prefill(&qkv, &cache, &spec, &mut out).unwrap();
            ops.attention_decode(&qkv, &cache, &spec, &mut out).unwrap();
            ops.end_step(&mut Vec::new()).unwrap();
            let out = values(&mut ops, &out);
            let own = out.len() / 2;
            results.extend_from_slice(if prefill { &out[..own] } else { &out[own..] });
            cached += count;
        }
        results
    }

    /// The definition, in f64.
    fn plain(&self) -> Vec<f64> {
        let HeadShape { q_heads, kv_heads, head_dim } = self.heads;
        let packed: Vec<f64> = self.packed().into_iter().map(f64::from).collect();
        let head = |token: usize, number: usize| {
            let start = token * self.heads.packed_width() + number * head_dim;
            packed[start..start + head_dim].to_vec()
        };
        let weights = self.head_weights();
        let turned = |token: usize, number: usize| {
            let mut values = head(token, number);
            if self.normed {
                let mean = values.iter().map(|value| value * value).sum::<f64>() / head_dim as f64;
                let weight = &weights[usize::from(number >= q_heads)];
                values.iter_mut().zip(weight).for_each(|(value, weight)| *value *= f64::from(*weight) / (mean + 1e-6).sqrt());
            }
            let half = head_dim / 2;
            for (pair, frequency) in self.inv_freq().into_iter().enumerate() {
                let (sine, cosine) = f64::from(token as f32 * frequency).sin_cos();
                let (low, high) = (values[pair], values[pair + half]);
                values[pair] = low * cosine - high * sine;
                values[pair + half] = high * cosine + low * sine;
            }
            values
        };
        let mut out = Vec::new();
        for token in 0..self.total {
            for number in 0..q_heads {
                let kv_head = number / (q_heads / kv_heads);
                let query = turned(token, number);
                let first = self.window.map_or(0, |window| (token + 1).saturating_sub(window));
                let dot = |key: Vec<f64>| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * f64::from(self.scale());
                let scores: Vec<f64> = (first..=token).map(|key| dot(turned(key, q_heads + kv_head))).collect();
                let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
                let mut sums = vec![0.0; head_dim];
                for (key, score) in (first..=token).zip(&scores) {
                    let value = head(key, q_heads + kv_heads + kv_head);
                    sums.iter_mut().zip(value).for_each(|(sum, value)| *sum += (score - highest).exp() / total * value);
                }
                out.extend(sums);
            }
        }
        out
    }
}

/// One step that wants the logits of every row, sampled so.
fn try_choices(ops: &mut CpuDevice, logits: &[f32], samplings: &[Sampling]) -> Result<Vec<u32>, DeviceError> {
    let mut batch = StepBatch::new();
    for (row, sampling) in samplings.iter().enumerate() {
        batch.token_ids.push(0);
        batch.positions.push(row as u32);
        batch.slot_mapping.push(row as u32);
        batch.logit_rows.push(LogitRow { row: row as u32, sampling: *sampling });
    }
    batch.cu_seqlens_q.push(samplings.len() as u32);
    batch.context_lens.push(samplings.len() as u32);
    batch.cu_blocks.push(0);
    batch.num_prefill_seqs = 1;
    ops.begin_step(&batch).unwrap();
    let logits = tensor(ops, &logits.repeat(samplings.len()), logits.len());
    let mut ids = Vec::new();
    ops.sample(&logits)?;
    ops.end_step(&mut ids)?;
    Ok(ids)
}

fn choices(ops: &mut CpuDevice, logits: &[f32], samplings: &[Sampling]) -> Vec<u32> {
    try_choices(ops, logits, samplings).unwrap()
}

#[test]
fn greedy_takes_the_lowest_of_equal_logits_and_never_nan() {
    let mut ops = device(1);
    let mut logits = vec![0.5; 77];
    (logits[40], logits[76], logits[3]) = (2.0, 2.0, f32::NAN);
    assert_eq!(choices(&mut ops, &logits, &[Sampling::GREEDY]), [40]);
    let refusal = try_choices(&mut ops, &[f32::NAN; 20], &[Sampling::GREEDY; 2]).unwrap_err().to_string();
    assert!(refusal.contains("row `0` hold no number"), "{refusal}");
}

#[test]
fn edges_of_top_k_and_top_p_keep_exactly_what_they_say() {
    let mut ops = device(2);
    // Probabilities 0.1, 0.4, 0.3, 0.1, 0.1.
    let logits: Vec<f32> = [0.1_f32, 0.4, 0.3, 0.1, 0.1].map(f32::ln).to_vec();
    let seen = |ops: &mut CpuDevice, top_k, top_p| {
        let draws: Vec<_> = (0..400).map(|position| Sampling { temperature: 1.0, top_k, top_p, seed: 9, position }).collect();
        let mut ids = choices(ops, &logits, &draws);
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    assert_eq!(seen(&mut ops, 1, 1.0), [1]);
    assert_eq!(seen(&mut ops, 2, 1.0), [1, 2]);
    assert_eq!(seen(&mut ops, 3, 1.0), [0, 1, 2], "ties at the edge go to the lower id");
    assert_eq!(seen(&mut ops, 99, 1.0), [0, 1, 2, 3, 4]);
    assert_eq!(seen(&mut ops, 0, 0.0), [1], "one token always stays");
    assert_eq!(seen(&mut ops, 0, 0.39), [1]);
    assert_eq!(seen(&mut ops, 0, 0.65), [1, 2]);
    assert_eq!(seen(&mut ops, 0, 0.75), [0, 1, 2]);
    assert_eq!(seen(&mut ops, 4, 0.5), [1, 2], "top_p is a share of what top_k left");
}

#[test]
fn sampled_frequencies_follow_the_softmax() {
    let mut ops = device(2);
    let logits: Vec<f32> = noise(4, 40);
    let temperature = 0.8_f32;
    let count = 20_000;
    let draws: Vec<_> = (0..count).map(|position| Sampling { temperature, top_k: 0, top_p: 1.0, seed: 1, position }).collect();
    let ids = choices(&mut ops, &logits, &draws);
    assert_eq!(ids, choices(&mut ops, &logits, &draws), "the counter alone decides");
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let chi_square: f64 = weights
        .iter()
        .enumerate()
        .map(|(id, weight)| {
            let expected = count as f64 * weight / total;
            (ids.iter().filter(|chosen| **chosen == id as u32).count() as f64 - expected).powi(2) / expected
        })
        .sum();
    // 39 degrees of freedom: the 99.99th percentile is 80.
    assert!(chi_square < 80.0, "{chi_square}");
}

#[test]
fn random_weights_are_equal_whatever_the_threads_and_look_normal() {
    let random = |threads: usize, element: Element| {
        let mut ops = device(threads);
        let values = Values::Random { seed: 11, mean: 0.0, deviation: 0.02 };
        let source = MatrixSource { name: "w".into(), out: 300, width: 401, element, values };
        let table = ops.matrix(&[source]).unwrap();
        let mut batch = StepBatch::new();
        batch.token_ids.extend(0..300);
        batch.positions.extend(0..300);
        batch.slot_mapping.extend(0..300);
        batch.cu_seqlens_q.push(300);
        batch.context_lens.push(300);
        batch.cu_blocks.push(0);
        batch.num_prefill_seqs = 1;
        ops.begin_step(&batch).unwrap();
        let mut out = ops.tensor(300, 401).unwrap();
        ops.embed(&table, &mut out).unwrap();
        values_of(&mut ops, &out)
    };
    fn values_of(ops: &mut CpuDevice, out: &CpuTensor) -> Vec<f32> {
        values(ops, out)
    }
    for element in [Element::F32, Element::F16, Element::Bf16] {
        let one = random(1, element);
        assert_eq!(one, random(3, element));
        let exact: Vec<f32> = (0..one.len()).map(|index| rounded(random_element(11, index as u64, 0.0, 0.02), element)).collect();
        assert_eq!(one, exact, "widening is exact");
        let mean = one.iter().sum::<f32>() / one.len() as f32;
        let deviation = (one.iter().map(|value| value * value).sum::<f32>() / one.len() as f32).sqrt();
        assert!(mean.abs() < 3e-4 && (deviation - 0.02).abs() < 3e-4, "{mean} {deviation}");
    }
}

#[test]
fn bf16_dot_products_are_never_silently_computed_in_f32() {
    let Some(mut ops) = device_with(1, Arithmetic::Bf16Dot) else { return println!("skipped: this processor has no AVX512-BF16") };
    let mut refusal = |width: usize, element| {
        assert!(ops.takes("w", element, width).is_err());
        ops.matrix(&[mapped("w", &noise(1, 3 * width), width, element)]).unwrap_err().to_string()
    };
    let said = refusal(8, Element::F32);
    assert!(said.contains("`bf16_dot`") && said.contains("`w` is stored as `f32`") && said.contains("--weights-dtype bf16"), "{said}");
    assert!(refusal(8, Element::F16).contains("`f16`"));
    assert!(refusal(7, Element::Bf16).contains("`w` is `7` wide"));
    assert!(ops.takes("w", Element::Bf16, 8).is_ok());
}

#[test]
fn weights_that_lie_about_their_size_are_refused_in_words() {
    let mut ops = device(1);
    let bytes = SharedBytes::from_vec(vec![0; 23]);
    let source = MatrixSource { name: "lm_head.weight".into(), out: 3, width: 4, element: Element::Bf16, values: Values::Mapped(bytes) };
    let error = ops.matrix(&[source]).expect_err("23 bytes are no matrix").to_string();
    assert!(error.contains("lm_head.weight") && error.contains("`24` bytes and `23` are there"), "{error}");
    let error = ops.tensor(1 << 40, 1 << 20).expect_err("no machine has that").to_string();
    assert!(error.contains("4611686018427387904 bytes"), "{error}");
}

#[test]
fn a_step_that_contradicts_itself_is_refused() {
    let mut ops = device(1);
    let mut batch = StepBatch::new();
    batch.token_ids.push(1);
    let error = ops.begin_step(&batch).expect_err("a token without a position").to_string();
    assert!(error.contains("`1` tokens, `0` positions"), "{error}");
}
