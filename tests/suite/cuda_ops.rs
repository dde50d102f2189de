//! Every operation of the CUDA device against the CPU device, its specification, through kernels that run on the host.
//!
//! Four orders of the threads each: a missing barrier shows in one of them. In f32 the two agree to rounding; in bf16
//! both are given the same rounded numbers, so that what is left is the rounding of results.

use std::num::NonZeroUsize;
use std::sync::Arc;

use half::bf16;
use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use plimsoll::device::cuda::CudaDevice;
use plimsoll::device::cuda::gpu::{CudaSpec, Gpu};
use plimsoll::device::cuda::matmul::MatmulChoice;
use plimsoll::device::source::{Element, MatrixSource, SharedBytes, Values, VectorSource, random_element};
use plimsoll::device::step::{LogitRow, Sampling, StepBatch, StepLimits};
use plimsoll::device::{AttentionSpec, HeadShape, KvCacheSpec, Ops};

use crate::support::host_gpu::{HostGpu, host_gpu};

const ELEMENTS: [Element; 2] = [Element::F32, Element::Bf16];

/// A GPU that is not there, with kernels of this element type.
pub(crate) fn gpu(host: &HostGpu, element: Element, matmul: MatmulChoice, graphs: bool) -> Arc<Gpu> {
    let spec = CudaSpec { element, matmul, graphs, cache: Some(host.cache()), ..CudaSpec::new(0) };
    Gpu::open(host.libraries(), &spec).unwrap()
}

pub(crate) fn cpu() -> CpuDevice {
    CpuDevice::open(CpuSpec::new(NonZeroUsize::MIN, Arithmetic::F32)).unwrap()
}

fn cuda(host: &HostGpu, element: Element, matmul: MatmulChoice) -> CudaDevice {
    let mut device = CudaDevice::open(&gpu(host, element, matmul, false)).unwrap();
    device.prepare(StepLimits { max_tokens: 512, max_sequences: 64, max_block_table_entries: 4096 }).unwrap();
    device
}

/// Numbers that `element` holds exactly.
pub(crate) fn noise(seed: u64, count: usize, element: Element) -> Vec<f32> {
    (0..count).map(|index| rounded(random_element(seed, index as u64, 0.0, 1.0), element)).collect()
}

fn rounded(value: f32, element: Element) -> f32 {
    if element == Element::F32 { value } else { bf16::from_f32(value).to_f32() }
}

pub(crate) fn tensor<D: Ops>(ops: &mut D, values: &[f32], width: usize) -> D::Tensor {
    let mut tensor = ops.tensor(values.len() / width, width).unwrap();
    ops.upload(values, &mut tensor).unwrap();
    tensor
}

pub(crate) fn download<D: Ops>(ops: &mut D, tensor: &D::Tensor) -> Vec<f32> {
    let mut values = Vec::new();
    ops.download(tensor, &mut values).unwrap();
    values
}

pub(crate) fn matrix<D: Ops>(ops: &mut D, values: &[f32], width: usize) -> D::Matrix {
    let bytes = SharedBytes::from_vec(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    let out = values.len() / width;
    ops.matrix(&[MatrixSource { name: "w".into(), out, width, element: Element::F32, values: Values::Mapped(bytes) }]).unwrap()
}

fn vector<D: Ops>(ops: &mut D, values: &[f32]) -> D::Vector {
    let bytes = SharedBytes::from_vec(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    ops.vector(&[VectorSource { name: "v".into(), len: values.len(), element: Element::F32, values: Values::Mapped(bytes) }]).unwrap()
}

/// Rows that each want their logits, a step of one prefilling sequence.
pub(crate) fn rows(count: usize, sampling: impl Fn(usize) -> Sampling) -> StepBatch {
    let mut batch = StepBatch::new();
    for row in 0..count as u32 {
        batch.token_ids.push(row * 7 % 50);
        batch.positions.push(row);
        batch.slot_mapping.push(row);
        batch.logit_rows.push(LogitRow { row: count as u32 - 1 - row, sampling: sampling(row as usize) });
    }
    batch.cu_seqlens_q.push(count as u32);
    batch.context_lens.push(count as u32);
    batch.block_tables.extend(0..count as u32);
    batch.cu_blocks.push(count as u32);
    batch.num_prefill_seqs = 1;
    batch
}

/// Both devices' answers agree, to what the element type can.
#[track_caller]
fn agree(what: &str, element: Element, ours: &[f32], wanted: &[f32]) {
    assert_eq!(ours.len(), wanted.len(), "{what}");
    let scale = wanted.iter().fold(1e-3_f32, |most, value| most.max(value.abs()));
    let tolerance = if element == Element::F32 { 2e-5 } else { 1.2e-2 } * scale;
    for (index, (ours, wanted)) in ours.iter().zip(wanted).enumerate() {
        let near = (ours - wanted).abs() <= tolerance;
        assert!(near, "{what}, {element:?}: element {index} is {ours}, the CPU device has {wanted}");
    }
}

/// Runs `case` for each element type and order of threads; a machine without a compiler says `skipped`.
fn each(case: impl Fn(&HostGpu, Element)) {
    let Some(host) = host_gpu() else { return };
    for element in ELEMENTS {
        for seed in host.seeds() {
            host.set_seed(*seed);
            case(host, element);
        }
    }
}

#[test]
fn norms_are_those_of_the_cpu_device() {
    each(|host, element| {
        for (count, width) in [(1, 8), (3, 64), (2, 200), (5, 1032), (1, 4096)] {
            fn both<D: Ops>(mut ops: D, element: Element, count: usize, width: usize) -> [Vec<f32>; 3] {
                let weight = vector(&mut ops, &noise(1, width, Element::F32));
                let (x, mut residual) = (
                    tensor(&mut ops, &noise(2, count * width, element), width),
                    tensor(&mut ops, &noise(3, count * width, element), width),
                );
                let (mut normed, mut added) = (ops.tensor(count, width).unwrap(), ops.tensor(count, width).unwrap());
                ops.rms_norm(&x, &weight, 1e-5, &mut normed).unwrap();
                ops.add_rms_norm(&x, &mut residual, &weight, 1e-6, &mut added).unwrap();
                [download(&mut ops, &normed), download(&mut ops, &residual), download(&mut ops, &added)]
            }
            let ours = both(cuda(host, element, MatmulChoice::Own), element, count, width);
            let wanted = both(cpu(), element, count, width);
            for (ours, wanted) in ours.iter().zip(&wanted) {
                agree(&format!("norm of {count} x {width}"), element, ours, wanted);
            }
        }
    });
}

#[test]
fn the_activation_and_the_rows_are_those_of_the_cpu_device() {
    each(|host, element| {
        for (count, width) in [(1, 8), (3, 40), (2, 2056), (17, 128)] {
            fn both<D: Ops>(mut ops: D, element: Element, count: usize, width: usize) -> [Vec<f32>; 3] {
                let gate_up = tensor(&mut ops, &noise(4, count * 2 * width, element), 2 * width);
                let mut out = ops.tensor(count, width).unwrap();
                ops.silu_mul(&gate_up, &mut out).unwrap();
                let table = matrix(&mut ops, &noise(5, 50 * width, element), width);
                let (mut embedded, mut gathered) = (ops.tensor(count, width).unwrap(), ops.tensor(count, width).unwrap());
                ops.begin_step(&rows(count, |_| Sampling::GREEDY)).unwrap();
                ops.embed(&table, &mut embedded).unwrap();
                ops.gather_rows(&embedded, &mut gathered).unwrap();
                ops.end_step(&mut Vec::new()).unwrap();
                [download(&mut ops, &out), download(&mut ops, &embedded), download(&mut ops, &gathered)]
            }
            let ours = both(cuda(host, element, MatmulChoice::Own), element, count, width);
            let wanted = both(cpu(), element, count, width);
            agree("activation", element, &ours[0], &wanted[0]);
            assert_eq!((&ours[1], &ours[2]), (&wanted[1], &wanted[2]), "rows are copied exactly");
        }
    });
}

#[test]
fn matrix_products_are_those_of_the_cpu_device_whoever_computes_them() {
    let shapes = [(1, 5, 8), (2, 64, 64), (3, 33, 72), (4, 20, 200), (7, 130, 128), (9, 100, 64), (65, 200, 40), (130, 136, 96)];
    each(|host, element| {
        for choice in [MatmulChoice::Own, MatmulChoice::Library, MatmulChoice::Best] {
            for (count, n, k) in shapes {
                fn both<D: Ops>(mut ops: D, element: Element, (count, n, k): (usize, usize, usize)) -> [Vec<f32>; 3] {
                    let x = tensor(&mut ops, &noise(6, count * k, element), k);
                    let weight = matrix(&mut ops, &noise(7, n * k, element), k);
                    let bias = vector(&mut ops, &noise(8, n, element));
                    let (mut plain, mut biased) = (ops.tensor(count, n).unwrap(), ops.tensor(count, n).unwrap());
                    let mut logits = ops.logits(count, n).unwrap();
                    ops.matmul(&x, &weight, None, &mut plain).unwrap();
                    ops.matmul(&x, &weight, Some(&bias), &mut biased).unwrap();
                    ops.matmul(&x, &weight, None, &mut logits).unwrap();
                    [download(&mut ops, &plain), download(&mut ops, &biased), download(&mut ops, &logits)]
                }
                let ours = both(cuda(host, element, choice), element, (count, n, k));
                let wanted = both(cpu(), element, (count, n, k));
                let what = |name: &str| format!("{name} of {count} x {n} x {k} by {choice:?}");
                agree(&what("product"), element, &ours[0], &wanted[0]);
                agree(&what("biased product"), element, &ours[1], &wanted[1]);
                agree(&what("logits"), Element::F32, &ours[2], &wanted[2]);
            }
        }
    });
}

/// Two sequences that grow by chunks, one of them prefilling where the other decodes.
#[derive(Clone, Copy, Debug)]
struct Growth {
    heads: HeadShape,
    block_size: usize,
    window: Option<usize>,
    total: usize,
    chunk: usize,
}

impl Growth {
    fn run<D: Ops>(self, mut ops: D, element: Element) -> Vec<f32> {
        let Self { heads, block_size, window, total, chunk } = self;
        let width = heads.packed_width();
        let blocks = 2 * total.div_ceil(block_size) + 3;
        let spec = KvCacheSpec { layers: 2, blocks, block_size, kv_heads: heads.kv_heads, head_dim: heads.head_dim };
        let mut cache = ops.kv_cache(spec).unwrap();
        let inv_freq: Vec<f32> = (0..heads.head_dim / 2).map(|pair| 0.3_f32.powi(pair as i32 % 7)).collect();
        let rope = ops.rope(&inv_freq, total).unwrap();
        let norms = [vector(&mut ops, &noise(20, heads.head_dim, element)), vector(&mut ops, &noise(21, heads.head_dim, element))];
        // Blocks lie scattered, the sequences' interleaved.
        let tables =
            [0, 1].map(|sequence| (0..total.div_ceil(block_size)).rev().map(|block| (2 * block + sequence) as u32).collect::<Vec<_>>());
        let packed = [noise(22, total * width, element), noise(23, total * width, element)];
        let mut results = Vec::new();
        let mut cached = [0, 0];
        while cached[0] < total {
            // The first takes a chunk, the second follows with one token a step once it has any.
            let takes = [chunk.min(total - cached[0]), if cached[1] == 0 { total / 2 } else { 1.min(total - cached[1]) }];
            let mut order = vec![0, 1];
            order.retain(|sequence: &usize| takes[*sequence] > 0);
            order.sort_by_key(|sequence| takes[*sequence] == 1);
            let mut batch = StepBatch::new();
            let mut values = Vec::new();
            for sequence in order {
                let (from, to) = (cached[sequence], cached[sequence] + takes[sequence]);
                let table = &tables[sequence];
                for token in from..to {
                    batch.token_ids.push(0);
                    batch.positions.push(token as u32);
                    batch.slot_mapping.push(table[token / block_size] * block_size as u32 + (token % block_size) as u32);
                }
                values.extend_from_slice(&packed[sequence][from * width..to * width]);
                batch.cu_seqlens_q.push(batch.token_ids.len() as u32);
                batch.context_lens.push(to as u32);
                batch.block_tables.extend(&table[..to.div_ceil(block_size)]);
                batch.cu_blocks.push(batch.block_tables.len() as u32);
                batch.num_prefill_seqs += usize::from(takes[sequence] > 1);
                cached[sequence] = to;
            }
            let mut qkv = tensor(&mut ops, &values, width);
            let mut out = ops.tensor(batch.num_tokens(), heads.q_width()).unwrap();
            ops.begin_step(&batch).unwrap();
            ops.head_norm(&mut qkv, &norms[0], &norms[1], 1e-6, heads).unwrap();
            ops.rope_kv_write(&mut qkv, &rope, &mut cache, 1, heads).unwrap();
            let spec = AttentionSpec { layer: 1, heads, scale: (heads.head_dim as f32).sqrt().recip(), window };
            ops.attention_prefill(&qkv, &cache, &spec, &mut out).unwrap();
            ops.attention_decode(&qkv, &cache, &spec, &mut out).unwrap();
            ops.end_step(&mut Vec::new()).unwrap();
            results.extend(download(&mut ops, &out));
        }
        results
    }
}

#[test]
fn attention_over_scattered_blocks_is_that_of_the_cpu_device() {
    let heads = |q_heads, kv_heads, head_dim| HeadShape { q_heads, kv_heads, head_dim };
    let cases = [
        Growth { heads: heads(4, 2, 32), block_size: 16, window: None, total: 70, chunk: 33 },
        Growth { heads: heads(3, 1, 64), block_size: 1, window: Some(5), total: 20, chunk: 7 },
        Growth { heads: heads(8, 1, 64), block_size: 4, window: None, total: 40, chunk: 1 },
        Growth { heads: heads(2, 2, 96), block_size: 32, window: Some(40), total: 130, chunk: 65 },
        Growth { heads: heads(4, 1, 128), block_size: 16, window: None, total: 200, chunk: 150 },
        Growth { heads: heads(7, 1, 32), block_size: 5, window: None, total: 30, chunk: 12 },
        Growth { heads: heads(2, 1, 256), block_size: 16, window: Some(64), total: 90, chunk: 80 },
    ];
    each(|host, element| {
        for case in cases {
            let wanted = case.run(cpu(), element);
            agree(&format!("{case:?}"), element, &case.run(cuda(host, element, MatmulChoice::Own), element), &wanted);
        }
    });
}

#[test]
fn the_same_token_is_chosen_as_on_the_cpu_device() {
    let sampling = |row: usize| Sampling {
        temperature: [0.0, 0.7, 1.3, 0.9][row % 4],
        top_k: [0, 5, 40, 0, 1][row % 5],
        top_p: [1.0, 0.9, 0.5][row % 3],
        seed: row as u64 / 3,
        position: row as u64,
    };
    each(|host, element| {
        for vocab in [7, 1000, 1088] {
            let count = 30;
            let mut logits = noise(30, count * vocab, Element::F32);
            logits.iter_mut().for_each(|logit| *logit *= 3.0);
            // Ties, what is no number, and a row that has nothing else but one.
            logits[..4].copy_from_slice(&[9.0, f32::NAN, 9.0, f32::NEG_INFINITY]);
            logits[vocab..2 * vocab].fill(f32::NAN);
            logits[vocab + 3] = -2.0;
            let batch = rows(count, sampling);
            let choose = |ops: &mut dyn FnMut(&StepBatch, &[f32]) -> Vec<u32>| ops(&batch, &logits);
            fn chosen<D: Ops>(mut ops: D, batch: &StepBatch, values: &[f32], vocab: usize) -> Vec<u32> {
                let mut logits = ops.logits(batch.logit_rows.len(), vocab).unwrap();
                ops.upload(values, &mut logits).unwrap();
                ops.begin_step(batch).unwrap();
                ops.sample(&logits).unwrap();
                let mut ids = Vec::new();
                ops.end_step(&mut ids).unwrap();
                ids
            }
            let ours = choose(&mut |batch, logits| chosen(cuda(host, element, MatmulChoice::Own), batch, logits, vocab));
            let wanted = choose(&mut |batch, logits| chosen(cpu(), batch, logits, vocab));
            assert_eq!(ours, wanted);
        }
    });
}

#[test]
fn a_row_without_a_number_is_refused() {
    let Some(host) = host_gpu() else { return };
    let mut ops = cuda(host, Element::Bf16, MatmulChoice::Own);
    let mut logits = ops.logits(2, 40).unwrap();
    ops.upload(&[vec![1.0; 40], vec![f32::NAN; 40]].concat(), &mut logits).unwrap();
    ops.begin_step(&rows(2, |_| Sampling::GREEDY)).unwrap();
    ops.sample(&logits).unwrap();
    let error = ops.end_step(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("row `1` hold no number"), "{error}");
}

#[test]
fn random_weights_are_bit_by_bit_those_of_the_cpu_device() {
    let Some(host) = host_gpu() else { return };
    for stored in [Element::F32, Element::F16, Element::Bf16] {
        let source = |name: &str, seed| MatrixSource {
            name: name.into(),
            out: 25,
            width: 24,
            element: stored,
            values: Values::Random { seed, mean: 0.25, deviation: 0.5 },
        };
        fn table<D: Ops>(mut ops: D, parts: &[MatrixSource]) -> Vec<f32> {
            let table = ops.matrix(parts).unwrap();
            let mut out = ops.tensor(50, 24).unwrap();
            let mut batch = rows(50, |_| Sampling::GREEDY);
            batch.token_ids = (0..50).collect();
            ops.begin_step(&batch).unwrap();
            ops.embed(&table, &mut out).unwrap();
            ops.end_step(&mut Vec::new()).unwrap();
            download(&mut ops, &out)
        }
        let parts = [source("a", 5), source("b", 6)];
        let wanted = table(cpu(), &parts);
        assert_eq!(table(cuda(host, Element::F32, MatmulChoice::Own), &parts), wanted, "{stored:?}");
        let narrowed: Vec<_> = wanted.iter().map(|value| rounded(*value, Element::Bf16)).collect();
        assert_eq!(table(cuda(host, Element::Bf16, MatmulChoice::Own), &parts), narrowed, "{stored:?}");
    }
}
