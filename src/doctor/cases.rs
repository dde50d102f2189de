//! The operations of a device in several shapes each, generic over the device: what is compared.

use half::bf16;

use crate::device::Ops;
use crate::device::error::DeviceError;
use crate::device::source::{Element, MatrixSource, SharedBytes, Values, VectorSource, random_element};
use crate::device::step::{LogitRow, Sampling, StepBatch};
use crate::doctor::growth::Growth;

/// One operation in one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    /// Norm, and norm with a residual.
    Norm {
        /// Rows.
        rows: usize,
        /// Width.
        width: usize,
    },
    /// Activation of gate and up.
    Activation {
        /// Rows.
        rows: usize,
        /// Width of the result.
        width: usize,
    },
    /// Look-up of tokens, and gathering of rows: exact.
    Rows {
        /// Rows.
        rows: usize,
        /// Width.
        width: usize,
    },
    /// Product with and without bias, and to logits.
    Product {
        /// Rows of the input.
        rows: usize,
        /// Outputs.
        out: usize,
        /// Inputs.
        width: usize,
    },
    /// Rotation, cache and attention.
    Attention(Growth),
    /// Choice of tokens: exact.
    Sampling {
        /// Logits of a row.
        vocab: usize,
    },
    /// Random weights of a stored type: exact.
    Random {
        /// What they are rounded to.
        stored: Element,
    },
}

/// The cases; without the large ones where only small are wanted.
#[must_use]
pub fn cases(small: bool) -> Vec<Case> {
    let shapes = |shapes: &[(usize, usize)], make: fn(usize, usize) -> Case| {
        shapes.iter().map(|(rows, width)| make(*rows, *width)).collect::<Vec<_>>()
    };
    let mut cases = shapes(&[(1, 8), (3, 64), (2, 200), (5, 1032)], |rows, width| Case::Norm { rows, width });
    cases.extend(shapes(&[(1, 8), (3, 40), (17, 128)], |rows, width| Case::Activation { rows, width }));
    cases.extend(shapes(&[(1, 8), (3, 40), (17, 128)], |rows, width| Case::Rows { rows, width }));
    let products = [(1, 5, 8), (2, 64, 64), (3, 33, 72), (7, 130, 128), (9, 100, 64), (65, 200, 40), (130, 136, 96)];
    cases.extend(products.map(|(rows, out, width)| Case::Product { rows, out, width }));
    cases.extend(Growth::CASES.map(Case::Attention));
    cases.extend([7, 1000].map(|vocab| Case::Sampling { vocab }));
    cases.extend([Element::F32, Element::F16, Element::Bf16].map(|stored| Case::Random { stored }));
    if !small {
        cases.extend(shapes(&[(1, 4096), (256, 8192)], |rows, width| Case::Norm { rows, width }));
        cases.push(Case::Activation { rows: 128, width: 14_336 });
        cases.push(Case::Rows { rows: 512, width: 4096 });
        let products = [(1, 4096, 4096), (8, 1536, 4096), (64, 2048, 2048), (300, 1024, 2048)];
        cases.extend(products.map(|(rows, out, width)| Case::Product { rows, out, width }));
        cases.extend(Growth::LARGE.map(Case::Attention));
        cases.push(Case::Sampling { vocab: 128_256 });
    }
    cases
}

impl Case {
    /// What is checked, in words: cases of one name are one check.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Norm { .. } => "norms",
            Self::Activation { .. } => "activation",
            Self::Rows { .. } => "look-up and gathering",
            Self::Product { .. } => "matrix products",
            Self::Attention(_) => "rotation and attention",
            Self::Sampling { .. } => "choice of tokens",
            Self::Random { .. } => "random weights",
        }
    }

    /// How far a device may lie from the CPU device, as a share of the largest number: rounding in f32, one bf16 step and its like
    /// accumulated in bf16, nothing where nothing is rounded.
    #[must_use]
    pub const fn allowed(&self, element: Element) -> f64 {
        match (self, element) {
            (Self::Rows { .. } | Self::Sampling { .. } | Self::Random { .. }, _) => 0.0,
            (_, Element::F32) => 2e-5,
            (_, Element::F16 | Element::Bf16) => 1.2e-2,
        }
    }

    /// Computes it. `ops` is prepared for its steps; numbers are such as `element` holds exactly.
    ///
    /// # Errors
    /// The device's own failure.
    pub fn compute<D: Ops>(&self, ops: &mut D, element: Element) -> Result<Vec<f32>, DeviceError> {
        match *self {
            Self::Norm { rows, width } => norm(ops, element, rows, width),
            Self::Activation { rows, width } => activation(ops, element, rows, width),
            Self::Rows { rows, width } => look_up(ops, element, rows, width),
            Self::Product { rows, out, width } => product(ops, element, (rows, out, width)),
            Self::Attention(growth) => growth.compute(ops, element),
            Self::Sampling { vocab } => choice(ops, vocab),
            Self::Random { stored } => random(ops, element, stored),
        }
    }
}

/// Numbers that `element` holds exactly.
pub(super) fn noise(seed: u64, count: usize, element: Element) -> Vec<f32> {
    (0..count).map(|index| rounded(random_element(seed, index as u64, 0.0, 1.0), element)).collect()
}

fn rounded(value: f32, element: Element) -> f32 {
    if element == Element::F32 { value } else { bf16::from_f32(value).to_f32() }
}

pub(super) fn tensor<D: Ops>(ops: &mut D, values: &[f32], width: usize) -> Result<D::Tensor, DeviceError> {
    let mut tensor = ops.tensor(values.len() / width, width)?;
    ops.upload(values, &mut tensor)?;
    Ok(tensor)
}

/// All rows of several tensors, end to end.
pub(super) fn downloaded<D: Ops>(ops: &mut D, tensors: &[&D::Tensor]) -> Result<Vec<f32>, DeviceError> {
    let (mut all, mut values) = (Vec::new(), Vec::new());
    for tensor in tensors {
        ops.download(tensor, &mut values)?;
        all.append(&mut values);
    }
    Ok(all)
}

fn mapped(values: &[f32]) -> Values {
    Values::Mapped(SharedBytes::from_vec(values.iter().flat_map(|value| value.to_le_bytes()).collect()))
}

fn matrix<D: Ops>(ops: &mut D, values: &[f32], width: usize) -> Result<D::Matrix, DeviceError> {
    let out = values.len() / width;
    ops.matrix(&[MatrixSource { name: "a matrix".into(), out, width, element: Element::F32, values: mapped(values) }])
}

pub(super) fn vector<D: Ops>(ops: &mut D, values: &[f32]) -> Result<D::Vector, DeviceError> {
    ops.vector(&[VectorSource { name: "a vector".into(), len: values.len(), element: Element::F32, values: mapped(values) }])
}

/// Rows that each want their logits, last first: a step of one prefilling sequence.
fn rows(count: usize, sampling: impl Fn(usize) -> Sampling) -> StepBatch {
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

fn norm<D: Ops>(ops: &mut D, element: Element, count: usize, width: usize) -> Result<Vec<f32>, DeviceError> {
    let weight = vector(ops, &noise(1, width, Element::F32))?;
    let x = tensor(ops, &noise(2, count * width, element), width)?;
    let mut residual = tensor(ops, &noise(3, count * width, element), width)?;
    let (mut normed, mut added) = (ops.tensor(count, width)?, ops.tensor(count, width)?);
    ops.rms_norm(&x, &weight, 1e-5, &mut normed)?;
    ops.add_rms_norm(&x, &mut residual, &weight, 1e-6, &mut added)?;
    downloaded(ops, &[&normed, &residual, &added])
}

fn activation<D: Ops>(ops: &mut D, element: Element, count: usize, width: usize) -> Result<Vec<f32>, DeviceError> {
    let gate_up = tensor(ops, &noise(4, count * 2 * width, element), 2 * width)?;
    let mut out = ops.tensor(count, width)?;
    ops.silu_mul(&gate_up, &mut out)?;
    downloaded(ops, &[&out])
}

fn look_up<D: Ops>(ops: &mut D, element: Element, count: usize, width: usize) -> Result<Vec<f32>, DeviceError> {
    let table = matrix(ops, &noise(5, 50 * width, element), width)?;
    let gathered_rows = count.min(64);
    let (mut embedded, mut gathered) = (ops.tensor(count, width)?, ops.tensor(gathered_rows, width)?);
    let mut batch = rows(count, |_| Sampling::GREEDY);
    batch.logit_rows.truncate(gathered_rows);
    ops.begin_step(&batch)?;
    ops.embed(&table, &mut embedded)?;
    ops.gather_rows(&embedded, &mut gathered)?;
    ops.end_step(&mut Vec::new())?;
    downloaded(ops, &[&embedded, &gathered])
}

fn product<D: Ops>(ops: &mut D, element: Element, (count, n, k): (usize, usize, usize)) -> Result<Vec<f32>, DeviceError> {
    let x = tensor(ops, &noise(6, count * k, element), k)?;
    let weight = matrix(ops, &noise(7, n * k, element), k)?;
    let bias = vector(ops, &noise(8, n, element))?;
    let (mut plain, mut biased, mut logits) = (ops.tensor(count, n)?, ops.tensor(count, n)?, ops.logits(count, n)?);
    ops.matmul(&x, &weight, None, &mut plain)?;
    ops.matmul(&x, &weight, Some(&bias), &mut biased)?;
    ops.matmul(&x, &weight, None, &mut logits)?;
    downloaded(ops, &[&plain, &biased, &logits])
}

fn choice<D: Ops>(ops: &mut D, vocab: usize) -> Result<Vec<f32>, DeviceError> {
    const COUNT: usize = 30;
    let sampling = |row: usize| Sampling {
        temperature: [0.0, 0.7, 1.3, 0.9][row % 4],
        top_k: [0, 5, 40, 0, 1][row % 5],
        top_p: [1.0, 0.9, 0.5][row % 3],
        seed: row as u64 / 3,
        position: row as u64,
    };
    let mut values = noise(30, COUNT * vocab, Element::F32);
    values.iter_mut().for_each(|logit| *logit *= 3.0);
    // Ties, what is no number, and a row that has nothing else but one.
    values[..4].copy_from_slice(&[9.0, f32::NAN, 9.0, f32::NEG_INFINITY]);
    values[vocab..2 * vocab].fill(f32::NAN);
    values[vocab + 3] = -2.0;
    let mut logits = ops.logits(COUNT, vocab)?;
    ops.upload(&values, &mut logits)?;
    ops.begin_step(&rows(COUNT, sampling))?;
    ops.sample(&logits)?;
    let mut ids = Vec::new();
    ops.end_step(&mut ids)?;
    // Ids below 2^24 are exact in f32.
    Ok(ids.into_iter().map(|id| id as f32).collect())
}

fn random<D: Ops>(ops: &mut D, element: Element, stored: Element) -> Result<Vec<f32>, DeviceError> {
    let source = |name: &str, seed| MatrixSource {
        name: name.into(),
        out: 25,
        width: 24,
        element: stored,
        values: Values::Random { seed, mean: 0.25, deviation: 0.5 },
    };
    let table = ops.matrix(&[source("a", 5), source("b", 6)])?;
    let mut out = ops.tensor(50, 24)?;
    let mut batch = rows(50, |_| Sampling::GREEDY);
    batch.token_ids = (0..50).collect();
    ops.begin_step(&batch)?;
    ops.embed(&table, &mut out)?;
    ops.end_step(&mut Vec::new())?;
    let values = downloaded(ops, &[&out])?;
    Ok(values.into_iter().map(|value| rounded(value, element)).collect())
}
