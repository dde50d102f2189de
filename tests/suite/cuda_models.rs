//! Whole models on the CUDA device, through kernels that run on the host: the tokens and logits of another
//! implementation, in every shape of step, recorded and not.
//!
//! Each run of the suite takes a few combinations that together hold every pair of settings; all of them are run by
//! `cargo test --test suite -- --ignored every_combination`.

use std::sync::Arc;

use plimsoll::device::Ops;
use plimsoll::device::cuda::CudaDevice;
use plimsoll::device::cuda::gpu::Gpu;
use plimsoll::device::cuda::matmul::MatmulChoice;
use plimsoll::device::error::DeviceError;
use plimsoll::device::source::Element;
use plimsoll::engine::forward::Forward;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::{ModelSource, ShapeWish};
use plimsoll::engine::scheduler::EngineShape;
use plimsoll::engine::weights::Weights;
use plimsoll::engine::{Engine, EngineEvent};

use crate::checkpoints::{Answer, CHECKPOINTS, ExpectedPrompt, answer, check, cpu, expected, folder, load, request};
use crate::cuda_ops::gpu;
use crate::forced::Forced;
use crate::support::host_gpu::{HostGpu, host_gpu};

/// A device whose work waits as long as it may: what is read or written too early shows.
fn opens(host: &'static HostGpu, gpu: Arc<Gpu>) -> impl Fn() -> Result<CudaDevice, DeviceError> + Send + Sync + 'static {
    move || host.late(|| CudaDevice::open(&gpu))
}

/// How a model is computed.
#[derive(Clone, Copy, Debug)]
struct Case {
    matmul: MatmulChoice,
    graphs: bool,
    block_size: usize,
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    /// Blocks beyond what the longest prompt needs: few of them make sequences preempt each other.
    spare: usize,
    seed: u64,
}

impl Case {
    fn shape(&self, prompts: &[ExpectedPrompt], tokens: usize) -> EngineShape {
        let longest = prompts.iter().map(|prompt| prompt.ids.len() + tokens - 1).max().unwrap_or(0);
        EngineShape {
            block_size: self.block_size,
            num_kv_blocks: (longest.div_ceil(self.block_size) + self.spare) as u32,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            prefix_reuse: PrefixReuse::On,
        }
    }
}

/// Tokens of an answer.
const TOKENS: usize = 48;

/// The tokens of all prompts at once from an engine that runs ahead.
fn ahead(engine: &mut Engine, prompts: &[ExpectedPrompt]) -> Vec<Vec<u32>> {
    engine.run_ahead();
    for (key, prompt) in prompts.iter().enumerate() {
        engine.add(request(key, &prompt.ids, TOKENS)).unwrap();
    }
    let mut tokens = vec![Vec::new(); prompts.len()];
    let mut observe = |event| {
        if let EngineEvent::Token { key, token } = event {
            tokens[key as usize].push(token)
        }
    };
    while engine.step(&mut observe).unwrap() {}
    tokens
}

/// All prompts of a checkpoint at once, in f32, by an engine that waits for each step and by one that runs ahead; how many
/// sequences were preempted.
fn exact(host: &'static HostGpu, name: &str, case: &Case) -> u64 {
    host.set_seed(case.seed);
    let prompts = expected(name).prompts;
    let wish = ShapeWish { num_kv_blocks: Some(64), max_num_seqs: 16, ..ShapeWish::default() };
    let model = load(name, opens(host, gpu(host, Element::F32, case.matmul, case.graphs)), &wish);
    let mut engine = model.engine_of(case.shape(&prompts, TOKENS)).unwrap();
    let answers = answer(&mut engine, &prompts, TOKENS);
    let most = check(name, &prompts, &answers);
    let preemptions = engine.counters().preemptions;
    println!("{name}, {case:?}: logits within {most:.1e}, {preemptions} preemptions");
    assert!(most < 2e-3, "{name}: logits differ by {most}");
    let mut engine = model.engine_of(case.shape(&prompts, TOKENS)).unwrap();
    for (prompt, tokens) in prompts.iter().zip(ahead(&mut engine, &prompts)) {
        assert_eq!(tokens, prompt.greedy_ids[..TOKENS], "{name}, {case:?}, {}, ahead", prompt.name);
    }
    preemptions
}

const fn case(matmul: MatmulChoice, graphs: bool, block_size: usize, max_num_seqs: usize, chunk: usize, spare: usize) -> Case {
    Case { matmul, graphs, block_size, max_num_seqs, max_num_batched_tokens: chunk, spare, seed: (block_size * 31 + chunk) as u64 }
}

/// Every pair of settings of products, graphs, block size, batch, chunk and memory is in one of these.
const PAIRS: [Case; 6] = [
    case(MatmulChoice::Own, true, 16, 16, 512, 40),
    case(MatmulChoice::Library, false, 16, 3, 33, 2),
    case(MatmulChoice::Best, true, 5, 3, 512, 2),
    case(MatmulChoice::Own, false, 5, 16, 33, 12),
    case(MatmulChoice::Library, true, 5, 16, 512, 40),
    case(MatmulChoice::Best, false, 16, 16, 33, 40),
];

#[test]
fn in_f32_every_checkpoint_gives_the_tokens_of_another_implementation() {
    let Some(host) = host_gpu() else { return };
    let mut preemptions = 0;
    for (number, case) in PAIRS.iter().enumerate() {
        preemptions += exact(host, CHECKPOINTS[number % CHECKPOINTS.len()], case);
    }
    assert!(preemptions > 0, "no sequence was preempted: that shows nothing of it");
    assert!(host.counters().is_none_or(|counters| counters.graph_launches > 0), "no step was played");
}

/// The prompts answered on the reference's own prefix.
fn forced<D: Ops + 'static>(name: &str, device: impl Fn() -> D, shape: EngineShape, prompts: &[ExpectedPrompt]) -> Vec<Answer> {
    let source = ModelSource::open(folder(name).to_str().unwrap(), 0).unwrap();
    let weights = Arc::new(Weights::load(&mut device(), &source.config, &source.weights, 512, &mut |_| {}).unwrap());
    let forward = Forward::new(device(), Arc::new(source.config), weights, &shape).unwrap();
    answer(&mut Engine::new(Box::new(Forced::new(Box::new(forward), prompts, shape.block_size)), shape), prompts, TOKENS)
}

/// All prompts of a checkpoint at once in bf16, step by step beside f32 on the same prefix and the same rounded weights.
fn rounded(host: &HostGpu, name: &str, case: &Case) {
    host.set_seed(case.seed);
    let prompts = expected(name).prompts;
    let shape = case.shape(&prompts, TOKENS);
    let gpu = gpu(host, Element::Bf16, case.matmul, case.graphs);
    let ours = forced(name, || CudaDevice::open(&gpu).unwrap(), shape, &prompts);
    let wanted = forced(name, || cpu(1)().unwrap(), shape, &prompts);
    let (mut errors, mut flips, mut margin) = (Vec::new(), 0, 0.0_f32);
    for (ours, wanted) in ours.iter().zip(&wanted) {
        for (ours, wanted) in ours.logits.iter().zip(&wanted.logits) {
            let square = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
            let difference = square(&mut ours.iter().zip(wanted).map(|(a, b)| a - b));
            errors.push((difference / square(&mut wanted.iter().copied())).sqrt());
            let best = |logits: &[f32]| (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            let (ours, exact) = (best(ours), best(wanted));
            if ours != exact {
                flips += 1;
                margin = margin.max(wanted[exact] - wanted[ours]);
            }
        }
    }
    errors.sort_by(f64::total_cmp);
    let (mean, p99) = (errors.iter().sum::<f64>() / errors.len() as f64, errors[errors.len() * 99 / 100]);
    let count = errors.len();
    println!("{name}, {case:?}: relative error {mean:.3} on average, {p99:.3} at p99; {flips} of {count} flipped, margin {margin:.2}");
    assert!((0.001..0.04).contains(&mean) && p99 < 0.14, "{name}, {case:?}: relative error {mean}, p99 {p99}");
    assert!(flips * 100 <= 7 * count && margin < 0.9, "{name}, {case:?}: {flips} of {count} flips, margin {margin}");
}

#[test]
fn in_bf16_every_step_is_as_near_to_f32_as_bf16_can_be() {
    let Some(host) = host_gpu() else { return };
    for (number, case) in PAIRS.iter().enumerate() {
        rounded(host, CHECKPOINTS[(number + 1) % CHECKPOINTS.len()], case);
    }
}

#[test]
#[ignore = "minutes: all combinations of the two tests above"]
fn every_combination() {
    let Some(host) = host_gpu() else { return };
    for name in CHECKPOINTS {
        for matmul in [MatmulChoice::Own, MatmulChoice::Library, MatmulChoice::Best] {
            for (graphs, block_size, max_num_seqs, chunk) in [true, false]
                .into_iter()
                .flat_map(|graphs| [(16, 16, 512), (5, 3, 48), (1, 7, 33), (32, 8, 65)].map(|(b, s, c)| (graphs, b, s, c)))
            {
                for spare in [2, 40] {
                    let case = case(matmul, graphs, block_size, max_num_seqs, chunk, spare);
                    exact(host, name, &case);
                    rounded(host, name, &case);
                }
            }
        }
    }
}
