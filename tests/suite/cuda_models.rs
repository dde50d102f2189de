//! Whole models on the CUDA device, through kernels that run on the host: the tokens and logits of another
//! implementation, in every shape of step, recorded and not.

use std::sync::Arc;

use plimsoll::device::cuda::CudaDevice;
use plimsoll::device::cuda::gpu::Gpu;
use plimsoll::device::cuda::matmul::MatmulChoice;
use plimsoll::device::error::DeviceError;
use plimsoll::device::source::Element;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::ShapeWish;
use plimsoll::engine::scheduler::EngineShape;

use crate::checkpoints::{CHECKPOINTS, answer, check, expected, load};
use crate::cuda_ops::gpu;
use crate::support::host_gpu::{HostGpu, host_gpu};

fn opens(gpu: Arc<Gpu>) -> impl Fn() -> Result<CudaDevice, DeviceError> + Send + Sync + 'static {
    move || CudaDevice::open(&gpu)
}

/// How a model is computed.
struct Case {
    matmul: MatmulChoice,
    graphs: bool,
    block_size: usize,
    max_num_batched_tokens: usize,
    /// Blocks beyond what the longest prompt needs: few of them make sequences preempt each other.
    spare: usize,
    seed: u64,
}

/// Tokens of an answer.
const TOKENS: usize = 48;

/// All prompts of a checkpoint at once, in f32; how many steps were played, and how many sequences preempted.
fn exact(host: &HostGpu, name: &str, case: &Case) -> u64 {
    host.set_seed(case.seed);
    let prompts = expected(name).prompts;
    let wish = ShapeWish { num_kv_blocks: Some(64), max_num_seqs: 16, ..ShapeWish::default() };
    let model = load(name, opens(gpu(host, Element::F32, case.matmul, case.graphs)), &wish);
    let longest = prompts.iter().map(|prompt| prompt.ids.len() + TOKENS - 1).max().unwrap_or(0);
    let shape = EngineShape {
        block_size: case.block_size,
        num_kv_blocks: (longest.div_ceil(case.block_size) + case.spare) as u32,
        max_num_batched_tokens: case.max_num_batched_tokens,
        prefix_reuse: PrefixReuse::On,
        ..model.shape
    };
    let mut engine = model.engine_of(shape).unwrap();
    let answers = answer(&mut engine, &prompts, TOKENS);
    let most = check(name, &prompts, &answers);
    println!("{name}: logits within {most:.1e}, {} preemptions", engine.counters().preemptions);
    assert!(most < 2e-3, "{name}: logits differ by {most}");
    engine.counters().preemptions
}

#[test]
fn in_f32_every_checkpoint_gives_the_tokens_of_another_implementation() {
    let Some(host) = host_gpu() else { return };
    let cases = [
        Case { matmul: MatmulChoice::Own, graphs: true, block_size: 16, max_num_batched_tokens: 512, spare: 40, seed: 11 },
        Case { matmul: MatmulChoice::Library, graphs: false, block_size: 5, max_num_batched_tokens: 48, spare: 3, seed: 12 },
        Case { matmul: MatmulChoice::Best, graphs: true, block_size: 16, max_num_batched_tokens: 33, spare: 2, seed: 13 },
    ];
    let preemptions: u64 = CHECKPOINTS.iter().zip(&cases).map(|(name, case)| exact(host, name, case)).sum();
    assert!(preemptions > 0, "no sequence was preempted: that shows nothing of it");
    let counted = host.counters();
    assert!(counted.graph_launches > 0, "no step was played");
}
