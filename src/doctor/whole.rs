//! A tiny model of random weights through the engine on two devices: the same tokens, step by step.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use crate::device::Ops;
use crate::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use crate::device::error::DeviceError;
use crate::engine::EngineEvent;
use crate::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use crate::engine::sequence::{EndOfSequence, EngineRequest};
use crate::engine::weights::{LoadError, WeightSource};
use crate::model::config::ModelConfig;
use crate::rng;
use crate::workload::request::Sampling;

/// Grouped heads, a norm on each of them, a tied output matrix: every operation there is.
const SHAPE: &str = r#"{
    "model_type": "qwen3", "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "intermediate_size": 256, "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-06, "rope_theta": 10000.0,
    "tie_word_embeddings": true, "dtype": "float32"
}"#;
const SEED: u64 = 1;
/// Tokens of the prompts: within a block, across blocks, across chunks.
const PROMPTS: [usize; 3] = [5, 17, 70];
/// Tokens of each answer.
const TOKENS: usize = 10;

/// How two devices compare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Likeness {
    pub(super) equal: bool,
    pub(super) tokens: usize,
    pub(super) sequences: usize,
    /// Largest difference of logits while tokens are equal, as a share of the largest logit.
    pub(super) most: f64,
}

/// Tokens of each sequence, and the logits each was chosen from.
type Answers = HashMap<u64, Vec<(u32, Vec<f32>)>>;

/// The model on the device that `open` makes, beside the CPU device.
pub(super) fn compare<D: Ops + 'static>(open: impl Fn() -> Result<D, DeviceError> + Send + Sync + 'static) -> Result<Likeness, LoadError> {
    let wanted = answers(|| CpuDevice::open(CpuSpec::new(NonZeroUsize::MIN, Arithmetic::F32)))?;
    let ours = answers(open)?;
    let mut likeness = Likeness { equal: true, tokens: 0, sequences: PROMPTS.len(), most: 0.0 };
    for (key, wanted) in &wanted {
        let ours = ours.get(key).map_or(&[][..], Vec::as_slice);
        for (ours, wanted) in ours.iter().zip(wanted) {
            let scale = wanted.1.iter().fold(1e-3_f32, |most, logit| most.max(logit.abs()));
            let difference = ours.1.iter().zip(&wanted.1).map(|(ours, wanted)| f64::from((ours - wanted).abs() / scale));
            likeness.most = difference.fold(likeness.most, |most, here| if here.is_nan() { f64::INFINITY } else { most.max(here) });
            if ours.0 != wanted.0 {
                break;
            }
            likeness.tokens += 1;
        }
    }
    likeness.equal = likeness.tokens == PROMPTS.len() * TOKENS && ours.len() == wanted.len();
    Ok(likeness)
}

fn answers<D: Ops + 'static>(open: impl Fn() -> Result<D, DeviceError> + Send + Sync + 'static) -> Result<Answers, LoadError> {
    let config = ModelConfig::parse(SHAPE, "the doctor's model").expect("a test reads it");
    let source = ModelSource { name: "the doctor's model".to_owned(), config, weights: WeightSource::Random { seed: SEED } };
    let vocabulary = source.config.vocab_size as u64;
    let wish = ShapeWish { num_kv_blocks: Some(64), max_num_seqs: PROMPTS.len(), max_num_batched_tokens: 48, ..ShapeWish::default() };
    let mut engine = LoadedModel::load(source, open, &wish, &mut |_| {})?.engine()?;
    for (key, length) in PROMPTS.into_iter().enumerate() {
        let key = key as u64;
        let prompt = (0..length as u64).map(|index| (rng::at(SEED + key, index) % vocabulary) as u32).collect();
        let request = EngineRequest {
            key,
            prompt,
            max_new_tokens: TOKENS as u32,
            sampling: Sampling::default(),
            end_of_sequence: EndOfSequence::Ignore,
        };
        engine.add(request).expect("the request suits the model");
    }
    let mut answers = Answers::new();
    while !engine.is_idle() {
        let mut chosen = Vec::new();
        engine.step(&mut |event| {
            if let EngineEvent::Token { key, token } = event {
                chosen.push((key, token));
            }
        })?;
        for (key, token) in chosen {
            let logits = engine.last_logits(key)?.unwrap_or_default();
            answers.entry(key).or_default().push((token, logits));
        }
    }
    Ok(answers)
}
