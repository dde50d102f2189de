//! Two steps of the CUDA device under way at once. Its work waits as long as it may, so that what the host writes or reads too
//! early shows.

use plimsoll::device::Ops;
use plimsoll::device::cuda::CudaDevice;
use plimsoll::device::cuda::matmul::MatmulChoice;
use plimsoll::device::source::Element;
use plimsoll::device::step::{FED_BACK, Sampling, StepBatch, StepLimits};
use plimsoll::engine::EngineEvent;
use plimsoll::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest};

use crate::checkpoints::{expected, folder, request};
use crate::cuda_ops::{cpu, download, gpu, matrix, noise, rows, tensor};
use crate::support::host_gpu::{HostGpu, host_gpu};

const VOCAB: usize = 200;
const WIDTH: usize = 16;
const ROWS: usize = 9;

fn late(host: &HostGpu) -> CudaDevice {
    let mut device = host.late(|| CudaDevice::open(&gpu(host, Element::F32, MatmulChoice::Own, false))).unwrap();
    device.prepare(StepLimits { max_tokens: 64, max_sequences: 16, max_block_table_entries: 64 }).unwrap();
    device
}

/// A step whose every row chooses by a draw of its own.
fn drawing(seed: u64) -> StepBatch {
    rows(ROWS, |row| Sampling { temperature: 2.0, seed: seed + row as u64, ..Sampling::GREEDY })
}

/// What a step of `batch` chooses on the CPU device.
fn wanted(batch: &StepBatch, values: &[f32]) -> Vec<u32> {
    let (mut device, mut ids) = (cpu(), Vec::new());
    let logits = tensor(&mut device, values, VOCAB);
    device.begin_step(batch).unwrap();
    device.sample(&logits).unwrap();
    device.end_step(&mut ids).unwrap();
    ids
}

#[test]
fn each_step_under_way_keeps_its_arrays_and_its_ids_and_feeds_them_to_the_next() {
    let Some(host) = host_gpu() else { return };
    let mut device = late(host);
    let table = noise(1, VOCAB * WIDTH, Element::F32);
    let matrix = matrix(&mut device, &table, WIDTH);
    let values = noise(2, ROWS * VOCAB, Element::F32);
    let logits = tensor(&mut device, &values, VOCAB);
    let mut out = device.tensor(ROWS, WIDTH).unwrap();
    let batches: Vec<_> = (0..4)
        .map(|step| {
            let mut batch = drawing(1000 * step);
            if step > 0 {
                batch.token_ids = (0..ROWS as u32).rev().map(|row| if row == 3 { 7 } else { FED_BACK | row }).collect();
            }
            batch
        })
        .collect();
    let (mut told, mut ids) = (Vec::new(), Vec::new());
    for (step, batch) in batches.iter().enumerate() {
        device.begin_step(batch).unwrap();
        device.embed(&matrix, &mut out).unwrap();
        device.sample(&logits).unwrap();
        device.launch_step().unwrap();
        if step > 0 {
            let error = device.begin_step(batch).unwrap_err().to_string();
            assert!(error.contains("`2` steps are under way already"), "{error}");
            device.end_step(&mut ids).unwrap();
            told.push(ids.clone());
        }
    }
    device.end_step(&mut ids).unwrap();
    told.push(ids.clone());
    let wanted: Vec<_> = batches.iter().map(|batch| wanted(batch, &values)).collect();
    assert_eq!(told, wanted);
    let fed_back = (0..ROWS).rev().map(|row| if row == 3 { 7 } else { wanted[2][row] as usize });
    let rows: Vec<f32> = fed_back.flat_map(|id| table[id * WIDTH..][..WIDTH].to_vec()).collect();
    assert_eq!(download(&mut device, &out), rows);
}

#[test]
fn a_row_that_the_step_before_does_not_have_cannot_be_fed_back() {
    let Some(host) = host_gpu() else { return };
    let mut device = late(host);
    let mut batch = drawing(0);
    batch.token_ids[4] = FED_BACK;
    let refused = |device: &mut CudaDevice, batch: &StepBatch| device.begin_step(batch).unwrap_err().to_string();
    assert!(refused(&mut device, &batch).contains("row `0` is fed back from a step that chose `0`"));
    let logits = tensor(&mut device, &noise(2, ROWS * VOCAB, Element::F32), VOCAB);
    device.begin_step(&drawing(0)).unwrap();
    device.sample(&logits).unwrap();
    device.launch_step().unwrap();
    batch.token_ids[4] = FED_BACK | ROWS as u32;
    assert!(refused(&mut device, &batch).contains("row `9` is fed back from a step that chose `9`"));
    batch.token_ids[4] = FED_BACK | (ROWS as u32 - 1);
    device.begin_step(&batch).unwrap();
    (0..2).for_each(|_| device.end_step(&mut Vec::new()).unwrap());
}

#[test]
fn a_row_without_a_number_is_told_of_its_own_step() {
    let Some(host) = host_gpu() else { return };
    let mut device = late(host);
    let good = noise(2, ROWS * VOCAB, Element::F32);
    let bad = [vec![f32::NAN; VOCAB], good[VOCAB..].to_vec()].concat();
    let logits = [bad, good].map(|values| tensor(&mut device, &values, VOCAB));
    for logits in &logits {
        device.begin_step(&drawing(0)).unwrap();
        device.sample(logits).unwrap();
        device.launch_step().unwrap();
    }
    let mut ids = Vec::new();
    let error = device.end_step(&mut ids).unwrap_err().to_string();
    assert!(error.contains("row `0` hold no number"), "{error}");
    device.end_step(&mut ids).unwrap();
    assert_eq!(ids.len(), ROWS);
}

/// A checkpoint on a late device that records its steps.
fn model(host: &'static HostGpu, alter: impl Fn(&mut ModelSource)) -> LoadedModel {
    let mut source = ModelSource::open(folder("qwen3").to_str().unwrap(), 0).unwrap();
    alter(&mut source);
    let gpu = gpu(host, Element::F32, MatmulChoice::Own, true);
    let wish = ShapeWish { num_kv_blocks: Some(64), max_num_seqs: 16, ..ShapeWish::default() };
    LoadedModel::load(source, move || host.late(|| CudaDevice::open(&gpu)), &wish, &mut |_| {}).unwrap()
}

#[test]
fn ends_and_cancellations_with_a_step_under_way_leave_the_others_alone() {
    let Some(host) = host_gpu() else { return };
    const TOKENS: usize = 24;
    let prompts: Vec<_> = expected("qwen3").prompts.into_iter().filter(|prompt| prompt.ids.len() < 100).collect();
    // The second prompt's answer ends at its sixth token at the latest.
    let end = prompts[1].greedy_ids[5];
    let model = model(host, |source| source.config.eos_token_ids = vec![end]);
    let mut engine = model.engine().unwrap();
    engine.run_ahead();
    for (key, prompt) in prompts.iter().enumerate() {
        let end_of_sequence = EndOfSequence::Stop;
        engine.add(EngineRequest { end_of_sequence, ..request(key, &prompt.ids, TOKENS) }).unwrap();
    }
    let mut tokens = vec![Vec::new(); prompts.len()];
    for step in 0.. {
        if step == 9 {
            assert!(engine.cancel(0));
        }
        let observe = &mut |event| {
            if let EngineEvent::Token { key, token } = event {
                tokens[key as usize].push(token)
            }
        };
        if !engine.step(observe).unwrap() {
            break;
        }
    }
    for (prompt, tokens) in prompts.iter().zip(&tokens).skip(1) {
        let until = prompt.greedy_ids[..TOKENS].iter().position(|id| *id == end).map_or(TOKENS, |end| end + 1);
        assert_eq!(tokens, &prompt.greedy_ids[..until], "{}", prompt.name);
    }
    assert!(tokens[1].len() < 7 && tokens[0].len() < 10 && prompts[0].greedy_ids.starts_with(&tokens[0]));
}

#[test]
fn logits_that_the_next_step_overwrote_are_refused() {
    let Some(host) = host_gpu() else { return };
    let mut engine = model(host, |_| {}).engine().unwrap();
    engine.run_ahead();
    engine.add(request(0, &[1, 2, 3], 2)).unwrap();
    (0..2).for_each(|_| assert!(engine.step(&mut |_| {}).unwrap()));
    let error = engine.last_logits(0).unwrap_err().to_string();
    assert!(error.contains("another one was launched"), "{error}");
    assert!(engine.step(&mut |_| {}).unwrap());
    assert_eq!(
        engine.last_logits(0).unwrap().map(|logits| logits.len()),
        Some(engine.limits().vocab_size),
        "the last step is not overtaken"
    );
}
