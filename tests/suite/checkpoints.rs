//! The tiny checkpoints give the tokens and logits that another implementation computed, on every device and in
//! every shape of engine.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use plimsoll::device::Ops;
use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use plimsoll::device::error::DeviceError;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest};
use plimsoll::engine::{Engine, EngineEvent};
use plimsoll::workload::request::Sampling;
use proptest::prelude::*;
use serde::Deserialize;

use crate::plain_device::Plain;

const CHECKPOINTS: [&str; 3] = ["llama-untied", "qwen2", "qwen3"];

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<ExpectedPrompt>,
    batch: Vec<String>,
}

#[derive(Clone, Deserialize)]
struct ExpectedPrompt {
    name: String,
    ids: Vec<u32>,
    greedy_ids: Vec<u32>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("expected.json")).unwrap()).unwrap()
}

/// A tensor of `expected.safetensors`, flat.
fn expected_tensor(name: &str, tensor: &str) -> Vec<f32> {
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(tensor).unwrap_or_else(|error| panic!("{tensor}: {error}")).data().to_vec();
    data.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn load<D: Ops + 'static>(name: &str, open: impl Fn() -> Result<D, DeviceError> + Send + Sync + 'static, wish: &ShapeWish) -> LoadedModel {
    let source = ModelSource::open(folder(name).to_str().unwrap(), 0).unwrap();
    LoadedModel::load(source, open, wish, &mut |_| {}).unwrap()
}

fn request(key: usize, prompt: &[u32], max_new_tokens: usize) -> EngineRequest {
    EngineRequest {
        key: key as u64,
        prompt: prompt.to_vec(),
        max_new_tokens: max_new_tokens as u32,
        sampling: Sampling::default(),
        end_of_sequence: EndOfSequence::Ignore,
    }
}

/// Tokens of each prompt, and the logits each of them was chosen from.
struct Answer {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

fn answer(engine: &mut Engine, prompts: &[ExpectedPrompt], tokens: usize) -> Vec<Answer> {
    let mut answers: Vec<_> = prompts.iter().map(|_| Answer { tokens: Vec::new(), logits: Vec::new() }).collect();
    for (key, prompt) in prompts.iter().enumerate() {
        engine.add(request(key, &prompt.ids, tokens)).unwrap();
    }
    loop {
        let mut chosen = Vec::new();
        let worked = engine
            .step(&mut |event| {
                if let EngineEvent::Token { key, token } = event {
                    chosen.push((key, token))
                }
            })
            .unwrap();
        if !worked {
            return answers;
        }
        for (key, token) in chosen {
            let answer = &mut answers[key as usize];
            answer.tokens.push(token);
            answer.logits.push(engine.last_logits(key).unwrap().unwrap());
        }
    }
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, difference| if difference > most || difference.is_nan() { difference } else { most })
}

/// Checks tokens, and the logits the expectations have; the largest difference of these.
fn check(name: &str, prompts: &[ExpectedPrompt], answers: &[Answer]) -> f32 {
    let mut most = 0.0_f32;
    for (prompt, answer) in prompts.iter().zip(answers) {
        assert_eq!(answer.tokens, prompt.greedy_ids[..answer.tokens.len()], "{name}, {}", prompt.name);
        most = most.max(distance(&answer.logits[0], &expected_tensor(name, &format!("{}.last_logits", prompt.name))));
        if let Some(last) = answer.logits.get(47) {
            most = most.max(distance(last, &expected_tensor(name, &format!("{}.greedy_logits_last", prompt.name))));
        }
    }
    most
}

fn each_checkpoint_alone_and_batched<D, O>(open: impl Fn() -> O, tolerance: f32)
where
    D: Ops + 'static,
    O: Fn() -> Result<D, DeviceError> + Send + Sync + 'static,
{
    for name in CHECKPOINTS {
        let expected = expected(name);
        let wish = ShapeWish { num_kv_blocks: Some(64), ..ShapeWish::default() };
        let model = load(name, open(), &wish);
        let mut most = 0.0_f32;
        for prompt in &expected.prompts {
            let alone = std::slice::from_ref(prompt);
            most = most.max(check(name, alone, &answer(&mut model.engine().unwrap(), alone, 48)));
        }
        let batch: Vec<_> = expected.prompts.into_iter().filter(|prompt| expected.batch.contains(&prompt.name)).collect();
        assert_eq!(batch.len(), 4);
        most = most.max(check(name, &batch, &answer(&mut model.engine().unwrap(), &batch, 48)));
        println!("{name}: logits within {most:.1e}");
        assert!(most < tolerance, "{name}: logits differ by {most}");
    }
}

#[test]
fn the_layer_loop_computes_what_another_implementation_does() {
    each_checkpoint_alone_and_batched(|| Plain::open, 1e-4);
}

#[test]
fn every_position_of_a_prompt_has_the_expected_logits() {
    for name in CHECKPOINTS {
        let prompt = expected(name).prompts.into_iter().find(|prompt| prompt.name == "len7").unwrap();
        let model = load(name, Plain::open, &ShapeWish { num_kv_blocks: Some(8), prefix_reuse: PrefixReuse::Off, ..ShapeWish::default() });
        let all = expected_tensor(name, "len7.all_logits");
        for (position, wanted) in all.chunks_exact(model.config.vocab_size).enumerate() {
            let start = ExpectedPrompt { ids: prompt.ids[..=position].to_vec(), ..prompt.clone() };
            let answers = answer(&mut model.engine().unwrap(), &[start], 1);
            assert!(distance(&answers[0].logits[0], wanted) < 1e-4, "{name}, position {position}");
        }
    }
}

/// The CPU device on `threads` threads.
fn cpu(threads: usize) -> impl Fn() -> Result<CpuDevice, DeviceError> + Send + Sync + 'static {
    let spec = CpuSpec { threads: NonZeroUsize::new(threads).unwrap(), arithmetic: Arithmetic::F32 };
    move || CpuDevice::open(spec)
}

#[test]
fn the_cpu_device_computes_what_another_implementation_does() {
    for threads in [1, 2] {
        each_checkpoint_alone_and_batched(|| cpu(threads), 1e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn tokens_and_logits_do_not_depend_on_the_shape_of_the_engine(
        checkpoint in 0_usize..3,
        threads in prop_oneof![7 => Just(1_usize), 1 => Just(2)],
        block_size in prop_oneof![Just(1_usize), Just(5), Just(16), Just(64)],
        spare_blocks in 0_usize..20,
        max_num_seqs in 1_usize..9,
        max_num_batched_tokens in prop_oneof![1_usize..8, 8_usize..300],
        prefix_reuse in prop_oneof![Just(PrefixReuse::On), Just(PrefixReuse::Off)],
        twice in any::<bool>(),
    ) {
        let name = CHECKPOINTS[checkpoint];
        let mut prompts = expected(name).prompts;
        // Some again: the second ones find the first ones' blocks.
        if twice {
            prompts.extend_from_within(1..4);
        }
        let tokens = 12;
        let longest = prompts.iter().map(|prompt| prompt.ids.len() + tokens - 1).max().unwrap();
        let num_kv_blocks = Some((longest.div_ceil(block_size) + spare_blocks) as u32);
        let wish = ShapeWish { block_size, num_kv_blocks, max_num_seqs, max_num_batched_tokens, prefix_reuse };
        let mut engine = load(name, cpu(threads), &wish).engine().unwrap();
        let most = check(name, &prompts, &answer(&mut engine, &prompts, tokens));
        prop_assert!(most < 1e-4, "{}: logits differ by {}", name, most);
    }
}

#[test]
fn sampling_depends_on_the_request_alone() {
    let name = "llama-untied";
    let prompts = expected(name).prompts;
    let wish = ShapeWish { num_kv_blocks: Some(96), max_num_batched_tokens: 40, ..ShapeWish::default() };
    let model = load(name, cpu(2), &wish);
    let sampled = |keys: &[usize]| -> BTreeMap<u64, Vec<u32>> {
        let mut engine = model.engine().unwrap();
        for key in keys {
            let sampling = Sampling { temperature: 0.9, top_k: 50, top_p: 0.95, seed: *key as u64 };
            engine.add(EngineRequest { sampling, ..request(*key, &prompts[*key].ids, 20) }).unwrap();
        }
        let mut tokens = BTreeMap::<u64, Vec<u32>>::new();
        while engine
            .step(&mut |event| {
                if let EngineEvent::Token { key, token } = event {
                    tokens.entry(key).or_default().push(token)
                }
            })
            .unwrap()
        {}
        tokens
    };
    let together = sampled(&[0, 1, 2, 3, 4, 5, 6, 7]);
    for key in 0..8 {
        assert_eq!(sampled(&[key])[&(key as u64)], together[&(key as u64)], "request {key}");
    }
    let greedy = answer(&mut model.engine().unwrap(), &prompts[..1], 20);
    assert_ne!(greedy[0].tokens, together[&0], "it does sample");
}

#[test]
fn the_same_shape_gives_the_same_bits() {
    let prompts = expected("qwen3").prompts;
    let model = load("qwen3", cpu(2), &ShapeWish { num_kv_blocks: Some(40), max_num_batched_tokens: 33, ..ShapeWish::default() });
    let logits = || answer(&mut model.engine().unwrap(), &prompts, 12).into_iter().map(|answer| answer.logits).collect::<Vec<_>>();
    assert_eq!(logits(), logits());
}

#[test]
fn a_sliding_window_is_that_of_the_definition() {
    // The fixture's own window, turned on: the CPU device against the plain one.
    let mut source = ModelSource::open(folder("qwen2").to_str().unwrap(), 0).unwrap();
    source.config.windows = vec![None, Some(5), Some(16)];
    let mut plain = ModelSource::open(folder("qwen2").to_str().unwrap(), 0).unwrap();
    plain.config.windows.clone_from(&source.config.windows);
    let wish = ShapeWish { num_kv_blocks: Some(64), max_num_batched_tokens: 48, ..ShapeWish::default() };
    let fast = LoadedModel::load(source, cpu(2), &wish, &mut |_| {}).unwrap();
    let plain = LoadedModel::load(plain, Plain::open, &wish, &mut |_| {}).unwrap();
    let prompts = expected("qwen2").prompts;
    let (fast, plain) = (answer(&mut fast.engine().unwrap(), &prompts, 8), answer(&mut plain.engine().unwrap(), &prompts, 8));
    for ((fast, plain), prompt) in fast.iter().zip(&plain).zip(&prompts) {
        assert_eq!(fast.tokens, plain.tokens);
        assert!(fast.logits.iter().zip(&plain.logits).all(|(fast, plain)| distance(fast, plain) < 1e-4));
        let longer_than_the_window = prompt.ids.len() > 16;
        assert_eq!(longer_than_the_window, fast.tokens != prompt.greedy_ids[..8] && longer_than_the_window, "a window shows");
    }
}

#[test]
fn random_weights_are_of_a_realistic_scale_and_made_from_the_seed() {
    let model = |seed| {
        let source = ModelSource::open("llama-5m", seed).unwrap();
        let wish = ShapeWish { num_kv_blocks: Some(16), ..ShapeWish::default() };
        LoadedModel::load(source, cpu(2), &wish, &mut |_| {}).unwrap()
    };
    let prompt = ExpectedPrompt { name: String::new(), ids: (0..50).map(|place| place * 37 % 4096).collect(), greedy_ids: Vec::new() };
    let logits = |model: &LoadedModel| answer(&mut model.engine().unwrap(), std::slice::from_ref(&prompt), 1)[0].logits[0].clone();
    let one = model(1);
    assert!(one.synthetic && one.labels().contains(&"synthetic weights".to_owned()));
    let values = logits(&one);
    let deviation = (values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32).sqrt();
    assert!((1.5..6.0).contains(&deviation), "logits deviate by {deviation}");
    assert_eq!(values, logits(&model(1)));
    assert_ne!(values, logits(&model(2)));
}

#[test]
fn too_little_memory_is_said_before_loading_with_the_numbers() {
    let source = ModelSource::open("llama-3.1-70b", 0).unwrap();
    let little = || Plain::with_free(1 << 34);
    let mut told = 0;
    let refusal = LoadedModel::load(source, little, &ShapeWish::default(), &mut |_| told += 1).unwrap_err().to_string();
    assert!(refusal.contains("(weights 141107412992, KV cache "), "{refusal}");
    assert!(refusal.contains("17179869184 bytes are free") && refusal.contains("smaller model"), "{refusal}");
    assert_eq!(told, 0);
}

#[test]
fn loading_tells_how_far_it_is() {
    let source = ModelSource::open(folder("qwen3").to_str().unwrap(), 0).unwrap();
    let mut told = Vec::new();
    let wish = ShapeWish { num_kv_blocks: Some(4), ..ShapeWish::default() };
    LoadedModel::load(source, cpu(1), &wish, &mut |at| told.push(at)).unwrap();
    assert!(told.len() > 10 && told.is_sorted_by_key(|at| at.done));
    let last = told.last().unwrap();
    assert_eq!((last.done, last.total), (1_444_352, 1_444_352));
}
