//! The tiny checkpoints give the tokens and logits that another implementation computed, on every device and in
//! every shape of engine.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use plimsoll::device::Ops;
use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec, KernelChoice};
use plimsoll::device::error::DeviceError;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest};
use plimsoll::engine::{Engine, EngineEvent};
use plimsoll::workload::request::Sampling;
use serde::Deserialize;

use crate::plain_device::Plain;
use crate::weights::{copy_of, harm, replace};

pub(crate) const CHECKPOINTS: [&str; 3] = ["llama-untied", "qwen2", "qwen3"];

#[derive(Deserialize)]
pub(crate) struct Expected {
    pub(crate) prompts: Vec<ExpectedPrompt>,
    pub(crate) batch: Vec<String>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct ExpectedPrompt {
    pub(crate) name: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) greedy_ids: Vec<u32>,
}

pub(crate) fn folder(name: &str) -> PathBuf {
    // Another machine than the one these tests were built on says where the fixtures are.
    let root = std::env::var_os("PLIMSOLL_TEST_ROOT").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("tests/fixtures/models").join(name)
}

pub(crate) fn expected(name: &str) -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("expected.json")).unwrap()).unwrap()
}

/// A tensor of `expected.safetensors`, flat.
pub(crate) fn expected_tensor(name: &str, tensor: &str) -> Vec<f32> {
    let bytes = std::fs::read(folder(name).join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(tensor).unwrap_or_else(|error| panic!("{tensor}: {error}")).data().to_vec();
    data.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}

pub(crate) fn load<D: Ops + 'static>(
    name: &str,
    open: impl Fn() -> Result<D, DeviceError> + Send + Sync + 'static,
    wish: &ShapeWish,
) -> LoadedModel {
    let source = ModelSource::open(folder(name).to_str().unwrap(), 0).unwrap();
    LoadedModel::load(source, open, wish, &mut |_| {}).unwrap()
}

pub(crate) fn request(key: usize, prompt: &[u32], max_new_tokens: usize) -> EngineRequest {
    EngineRequest {
        key: key as u64,
        prompt: prompt.to_vec(),
        max_new_tokens: max_new_tokens as u32,
        sampling: Sampling::default(),
        end_of_sequence: EndOfSequence::Ignore,
    }
}

/// Tokens of each prompt, and the logits each of them was chosen from.
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) logits: Vec<Vec<f32>>,
}

pub(crate) fn answer(engine: &mut Engine, prompts: &[ExpectedPrompt], tokens: usize) -> Vec<Answer> {
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

pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, difference| if difference > most || difference.is_nan() { difference } else { most })
}

/// Checks tokens, and the logits the expectations have; the largest difference of these.
pub(crate) fn check(name: &str, prompts: &[ExpectedPrompt], answers: &[Answer]) -> f32 {
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

pub(crate) fn opens(
    threads: usize,
    arithmetic: Arithmetic,
    kernels: KernelChoice,
) -> impl Fn() -> Result<CpuDevice, DeviceError> + Send + Sync + 'static {
    let spec = CpuSpec { threads: NonZeroUsize::new(threads).unwrap(), arithmetic, kernels };
    move || CpuDevice::open(spec)
}

/// The CPU device on `threads` threads.
pub(crate) fn cpu(threads: usize) -> impl Fn() -> Result<CpuDevice, DeviceError> + Send + Sync + 'static {
    opens(threads, Arithmetic::F32, KernelChoice::Best)
}

#[test]
fn the_cpu_device_computes_what_another_implementation_does() {
    for threads in [1, 2] {
        each_checkpoint_alone_and_batched(|| cpu(threads), 1e-4);
    }
}

#[test]
fn the_kernels_of_every_processor_compute_what_another_implementation_does() {
    each_checkpoint_alone_and_batched(|| opens(1, Arithmetic::F32, KernelChoice::Portable), 1e-4);
}

#[test]
fn the_same_shape_gives_the_same_bits() {
    let prompts = expected("qwen3").prompts;
    let model = load("qwen3", cpu(2), &ShapeWish { num_kv_blocks: Some(40), max_num_batched_tokens: 33, ..ShapeWish::default() });
    let logits = || answer(&mut model.engine().unwrap(), &prompts, 12).into_iter().map(|answer| answer.logits).collect::<Vec<_>>();
    assert_eq!(logits(), logits());
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
fn every_buffer_is_counted_before_loading() {
    let load = |alter: fn(&mut ModelSource), blocks| {
        let mut source = ModelSource::open(folder("llama-untied").to_str().unwrap(), 0).unwrap();
        alter(&mut source);
        LoadedModel::load(source, cpu(1), &ShapeWish { num_kv_blocks: blocks, ..ShapeWish::default() }, &mut |_| {})
    };
    let honest = load(|_| {}, Some(64)).unwrap();
    let (table, scores, packed) = (512 * 32 * 4, 8 * 512 * 4 + 8 * 1024, 512 * 256 * 4);
    let bookkeeping = honest.memory.tables - table - scores - packed;
    assert!((64 * 40..64 * 200).contains(&bookkeeping), "{bookkeeping}");
    // The table is for what the cache holds, whatever the configuration says that the model could.
    let lying = load(|source| source.config.max_position_embeddings = 1 << 31, Some(64)).unwrap();
    assert_eq!(lying.memory.tables - honest.memory.tables, (512 + 1) * 32 * 4 + 8 * 512 * 4 + 8 * 16 * 4);
    let refusal = load(|source| source.config.max_position_embeddings = 1 << 31, Some(1 << 27)).unwrap_err().to_string();
    assert!(refusal.contains("tables 3") && refusal.contains("bytes are free"), "{refusal}");
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

/// Teacher forcing: every step on the reference's own prefix, against f32 on the same weights.
#[test]
fn bf16_arithmetic_is_as_near_to_f32_as_bf16_can_be() {
    let open = opens(2, Arithmetic::Bf16Dot, KernelChoice::Best);
    if open().is_err() {
        return println!("skipped: this processor has no AVX512-BF16");
    }
    for name in ["llama-untied", "qwen3"] {
        let mut prefixes = Vec::new();
        for prompt in expected(name).prompts {
            for step in 0..48 {
                let ids = [&prompt.ids[..], &prompt.greedy_ids[..step]].concat();
                prefixes.push(ExpectedPrompt { ids, greedy_ids: vec![prompt.greedy_ids[step]], ..prompt.clone() });
            }
        }
        let wish = ShapeWish { num_kv_blocks: Some(1024), ..ShapeWish::default() };
        let paired = load(name, opens(2, Arithmetic::Bf16Dot, KernelChoice::Best), &wish);
        assert_eq!(paired.precision(), "bf16 weights, bf16_dot arithmetic");
        let exact = answer(&mut load(name, cpu(2), &wish).engine().unwrap(), &prefixes, 1);
        let rounded = answer(&mut paired.engine().unwrap(), &prefixes, 1);
        let (mut errors, mut flips, mut margin) = (Vec::new(), 0, 0.0_f32);
        for ((exact, rounded), prefix) in exact.iter().zip(&rounded).zip(&prefixes) {
            assert_eq!(exact.tokens, prefix.greedy_ids);
            let (exact_logits, rounded_logits) = (&exact.logits[0], &rounded.logits[0]);
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
            let difference = square(&mut exact_logits.iter().zip(rounded_logits).map(|(a, b)| a - b));
            errors.push((difference / square(&mut exact_logits.iter().copied())).sqrt());
            if exact.tokens != rounded.tokens {
                flips += 1;
                margin = margin.max(exact_logits[exact.tokens[0] as usize] - exact_logits[rounded.tokens[0] as usize]);
            }
        }
        errors.sort_by(f64::total_cmp);
        let (mean, p99) = (errors.iter().sum::<f64>() / errors.len() as f64, errors[errors.len() * 99 / 100]);
        println!("{name}: relative error {mean:.3} on average, {p99:.3} at p99; {flips} of {} flipped, margin {margin:.2}", errors.len());
        assert!((0.001..0.04).contains(&mean) && p99 < 0.14, "{name}: relative error {mean}, p99 {p99}");
        assert!(flips * 100 <= 7 * errors.len() && margin < 0.9, "{name}: {flips} flips, margin {margin}");
    }
}

#[test]
fn weights_that_an_arithmetic_does_not_take_are_refused_before_loading() {
    let open = opens(1, Arithmetic::Bf16Dot, KernelChoice::Best);
    if open().is_err() {
        return println!("skipped: this processor has no AVX512-BF16");
    }
    for model in [folder("qwen2").to_str().unwrap(), "llama-5m"] {
        let mut told = 0;
        let source = ModelSource::open(model, 0).unwrap();
        let refusal =
            LoadedModel::load(source, opens(1, Arithmetic::Bf16Dot, KernelChoice::Best), &ShapeWish::default(), &mut |_| told += 1);
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains("`model.embed_tokens.weight` is stored as `f32`") && refusal.contains("bf16"), "{refusal}");
        assert_eq!(told, 0);
    }
}

#[test]
fn weights_of_several_types_are_called_mixed() {
    let precision = |name: &str, harmed: bool| {
        let copy = copy_of(name);
        if harmed {
            // The same two bytes a number, read as another type.
            harm(&copy.path().join("model.safetensors"), |bytes| {
                replace(bytes, r#""dtype":"BF16","shape":[128]"#, r#""dtype":"F16","shape":[128] "#)
            });
        }
        let source = ModelSource::open(copy.path().to_str().unwrap(), 0).unwrap();
        LoadedModel::load(source, cpu(1), &ShapeWish { num_kv_blocks: Some(4), ..ShapeWish::default() }, &mut |_| {}).unwrap().precision()
    };
    assert_eq!(precision("llama-untied", false), "bf16 weights, f32 arithmetic");
    assert_eq!(precision("llama-untied", true), "mixed weights, f32 arithmetic");
}

#[test]
fn a_file_that_was_cut_short_after_loading_is_named_before_it_ends_the_process() {
    let copy = copy_of("llama-untied");
    let source = ModelSource::open(copy.path().to_str().unwrap(), 0).unwrap();
    let model = LoadedModel::load(source, cpu(1), &ShapeWish { num_kv_blocks: Some(8), ..ShapeWish::default() }, &mut |_| {}).unwrap();
    model.engine().unwrap();
    // In place, as a second download would: a copy under the same name would be another file.
    let file = std::fs::OpenOptions::new().write(true).open(copy.path().join("model.safetensors")).unwrap();
    file.set_len(1_000_000).unwrap();
    let refusal = model.engine().unwrap_err().to_string();
    assert!(refusal.contains("model.safetensors` is damaged: it has 1000000 bytes now, and had 1"), "{refusal}");
}
