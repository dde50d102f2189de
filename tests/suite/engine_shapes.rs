//! On real checkpoints, tokens and logits do not depend on how the engine batches, chunks, pages, preempts or reuses.

use std::cell::Cell;
use std::collections::BTreeMap;

use plimsoll::engine::EngineEvent;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use plimsoll::engine::scheduler::EngineShape;
use plimsoll::engine::sequence::EngineRequest;
use plimsoll::workload::request::Sampling;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::checkpoints::{Answer, CHECKPOINTS, ExpectedPrompt, answer, check, cpu, distance, expected, folder, load, request};
use crate::plain_device::Plain;
use crate::weights::{copy_of, harm};

/// Tokens of each answer: as many as the reference has.
const TOKENS: usize = 48;

/// Blocks for any one request, and no reuse: what a baseline is computed with, one prompt at a time.
fn ample() -> ShapeWish {
    ShapeWish { num_kv_blocks: Some(64), prefix_reuse: PrefixReuse::Off, ..ShapeWish::default() }
}

/// Each prompt alone.
fn alone(model: &LoadedModel, prompts: &[ExpectedPrompt], tokens: usize) -> Vec<Answer> {
    let one = |prompt| answer(&mut model.engine().unwrap(), std::slice::from_ref(prompt), tokens).remove(0);
    prompts.iter().map(one).collect()
}

/// The largest difference of any logit of any step; tokens are equal.
pub(crate) fn apart<'a>(answers: &[Answer], baseline: impl IntoIterator<Item = &'a Answer>) -> f32 {
    let mut most = 0.0_f32;
    for (answer, wanted) in answers.iter().zip(baseline) {
        assert_eq!(answer.tokens, wanted.tokens);
        for (logits, wanted) in answer.logits.iter().zip(&wanted.logits) {
            most = most.max(distance(logits, wanted));
        }
    }
    most
}

/// Blocks that just hold the longest request, and some.
pub(crate) fn scarce(prompts: &[ExpectedPrompt], tokens: usize, block_size: usize, spare: usize) -> u32 {
    let longest = prompts.iter().map(|prompt| prompt.ids.len() + tokens - 1).max().unwrap();
    (longest.div_ceil(block_size) + spare) as u32
}

/// Some of the eight prompts, in order.
pub(crate) fn some() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..8).collect::<Vec<_>>(), 3..=6)
}

/// How an engine may be shaped, apart from its number of blocks.
pub(crate) fn shapes() -> impl Strategy<Value = (EngineShape, usize)> {
    let block_size = prop_oneof![Just(1_usize), Just(5), Just(16), Just(64)];
    let max_num_batched_tokens = prop_oneof![1 => 1_usize..8, 3 => 8_usize..300];
    let prefix_reuse = prop_oneof![Just(PrefixReuse::On), Just(PrefixReuse::Off)];
    (block_size, 1_usize..9, max_num_batched_tokens, prefix_reuse, 0_usize..10).prop_map(
        |(block_size, max_num_seqs, max_num_batched_tokens, prefix_reuse, spare)| {
            (EngineShape { block_size, num_kv_blocks: 0, max_num_seqs, max_num_batched_tokens, prefix_reuse }, spare)
        },
    )
}

#[test]
fn tokens_and_logits_do_not_depend_on_the_shape_of_the_engine() {
    let models = CHECKPOINTS.map(|name| [1, 2].map(|threads| load(name, cpu(threads), &ample())));
    let prompts = CHECKPOINTS.map(|name| expected(name).prompts);
    let baselines: Vec<_> = models.iter().zip(&prompts).map(|([one, _], prompts)| alone(one, prompts, TOKENS)).collect();
    let (preemptions, cached, most) = (Cell::new(0), Cell::new(0), Cell::new(0.0_f32));
    let case = (0_usize..3, prop_oneof![7 => Just(0_usize), 1 => Just(1)], shapes(), some(), any::<bool>());
    let config = Config { failure_persistence: None, ..Config::with_cases(64) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = runner.run(&case, |(checkpoint, threads, (shape, spare), mut chosen, twice)| {
        let name = CHECKPOINTS[checkpoint];
        // Some again: the second ones find the first ones' blocks.
        if twice {
            chosen.extend_from_within(..2);
        }
        let asked: Vec<_> = chosen.iter().map(|prompt| prompts[checkpoint][*prompt].clone()).collect();
        let shape = EngineShape { num_kv_blocks: scarce(&asked, TOKENS, shape.block_size, spare), ..shape };
        let mut engine = models[checkpoint][threads].engine_of(shape).unwrap();
        let answers = answer(&mut engine, &asked, TOKENS);
        let from_the_baseline = apart(&answers, chosen.iter().map(|prompt| &baselines[checkpoint][*prompt]));
        prop_assert!(from_the_baseline < 1e-4, "{name}: logits differ by {from_the_baseline} from those of each prompt alone");
        let from_the_reference = check(name, &asked, &answers);
        prop_assert!(from_the_reference < 1e-4, "{name}: logits differ by {from_the_reference} from the reference");
        preemptions.set(preemptions.get() + engine.counters().preemptions);
        cached.set(cached.get() + engine.counters().cached_tokens);
        most.set(most.get().max(from_the_baseline));
        Ok(())
    });
    run.unwrap();
    let (preemptions, cached) = (preemptions.get(), cached.get());
    println!("{preemptions} preemptions, {cached} cached tokens, logits within {:.1e}", most.get());
    assert!(preemptions > 50 && cached > 100, "{preemptions} preemptions and {cached} cached tokens show nothing");
}

#[test]
fn sampling_depends_on_the_request_alone_also_when_it_is_preempted() {
    let name = "llama-untied";
    // Short ones, which outgrow together the blocks that the longest one needs.
    let prompts: Vec<_> = expected(name).prompts.into_iter().filter(|prompt| prompt.ids.len() <= 64).collect();
    let model = load(name, cpu(1), &ample());
    let sampled = |shape: EngineShape, keys: &[usize]| -> (BTreeMap<u64, Vec<u32>>, u64) {
        let mut engine = model.engine_of(shape).unwrap();
        for key in keys {
            let sampling = Sampling { temperature: 0.9, top_k: 50, top_p: 0.95, seed: *key as u64 };
            engine.add(EngineRequest { sampling, ..request(*key, &prompts[*key].ids, 40) }).unwrap();
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
        (tokens, engine.counters().preemptions)
    };
    let crowded = EngineShape { block_size: 4, num_kv_blocks: scarce(&prompts, 40, 4, 0), max_num_batched_tokens: 40, ..model.shape };
    let (together, preemptions) = sampled(crowded, &[0, 1, 2, 3, 4, 5]);
    assert!(preemptions > 1, "{preemptions} preemptions");
    for key in 0..6 {
        assert_eq!(sampled(model.shape, &[key]).0[&(key as u64)], together[&(key as u64)], "request {key}");
    }
    let greedy = answer(&mut model.engine().unwrap(), &prompts[..1], 40);
    assert_ne!(greedy[0].tokens, together[&0], "it does sample");
}

/// A window of `window` on the layers that have one, on the CPU device in a crowded engine against the plain device alone.
fn windowed(name: &str, alter: impl Fn(&mut ModelSource)) {
    const FEW: usize = 12;
    let open = |path: &str| {
        let mut source = ModelSource::open(path, 0).unwrap();
        alter(&mut source);
        source
    };
    let path = folder(name);
    let fast = LoadedModel::load(open(path.to_str().unwrap()), cpu(2), &ample(), &mut |_| {}).unwrap();
    let plain = LoadedModel::load(open(path.to_str().unwrap()), Plain::open, &ample(), &mut |_| {}).unwrap();
    let prompts = expected(name).prompts;
    let wanted = alone(&plain, &prompts, FEW);
    let mut counted = (0, 0);
    for (block_size, max_num_batched_tokens, spare) in [(16, 48, 20), (5, 7, 3), (1, 300, 3)] {
        let num_kv_blocks = scarce(&prompts, FEW, block_size, spare);
        let shape = EngineShape { block_size, num_kv_blocks, max_num_batched_tokens, prefix_reuse: PrefixReuse::On, ..fast.shape };
        let mut engine = fast.engine_of(shape).unwrap();
        let mut asked = prompts.clone();
        asked.extend_from_within(1..4);
        let answers = answer(&mut engine, &asked, FEW);
        let most = apart(&answers, wanted.iter().chain(&wanted[1..4]));
        assert!(most < 1e-4, "{name}: logits differ by {most}");
        counted = (counted.0 + engine.counters().preemptions, counted.1 + engine.counters().cached_tokens);
    }
    assert!(counted.0 > 0 && counted.1 > 0, "{counted:?} preemptions and cached tokens show nothing");
    for (prompt, answer) in prompts.iter().zip(&wanted) {
        assert!(prompt.ids.len() <= 16 || answer.tokens != prompt.greedy_ids[..FEW], "{name}, {}: a window shows", prompt.name);
    }
}

#[test]
fn a_sliding_window_is_that_of_the_definition_also_when_crowded() {
    windowed("qwen2", |source| source.config.windows = vec![None, Some(5), Some(16)]);
}

#[test]
fn a_mistral_is_a_llama_with_a_window_on_every_layer() {
    let copy = copy_of("llama-untied");
    harm(&copy.path().join("config.json"), |bytes| {
        let mut config: Value = serde_json::from_slice(bytes).unwrap();
        config["model_type"] = "mistral".into();
        config["sliding_window"] = 9.into();
        *bytes = config.to_string().into_bytes();
    });
    let mistral = ModelSource::open(copy.path().to_str().unwrap(), 0).unwrap();
    assert_eq!(mistral.config.windows, [Some(9); 3]);
    windowed("llama-untied", |source| source.config = mistral.config.clone());
}
