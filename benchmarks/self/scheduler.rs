//! What the engine itself costs a step beside the model: scheduling, building the batch, taking the tokens.
//!
//! Run with `cargo bench --bench scheduler`. The forward pass here does nothing, so all that is measured is
//! overhead; the promise is under 50 microseconds a step at 256 sequences, also while a long prompt, whose beginning is
//! in the cache, waits for blocks.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use plimsoll::clock::{Clock, Monotonic};
use plimsoll::device::error::DeviceError;
use plimsoll::device::step::StepBatch;
use plimsoll::engine::Engine;
use plimsoll::engine::forward::ForwardPass;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::scheduler::EngineShape;
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest};
use plimsoll::model::config::ModelConfig;
use plimsoll::model::presets;
use plimsoll::rng;
use plimsoll::workload::request::Sampling;

/// Answers without computing.
struct Instant {
    config: ModelConfig,
    steps: u64,
}

impl ForwardPass for Instant {
    fn model(&self) -> &ModelConfig {
        &self.config
    }

    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        self.steps += 1;
        let token = |draw: usize| (rng::at(self.steps, draw as u64) % self.config.vocab_size as u64) as u32;
        sampled.clear();
        sampled.extend((0..batch.logit_rows.len()).map(token));
        Ok(())
    }

    fn logits(&mut self, _row: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(Vec::new())
    }
}

const SEQUENCES: u64 = 256;
const PROMPT: u64 = 512;
const OUTPUT: u32 = 1000;
/// A prompt that finds most of itself in the cache, and no room for the rest while the others run.
const LONG: u64 = 100_000;

fn request(key: u64, prompt: u64, max_new_tokens: u32) -> EngineRequest {
    EngineRequest {
        key,
        prompt: (0..prompt).map(|place| (rng::at(key, place) % 4096) as u32).collect(),
        max_new_tokens,
        sampling: Sampling::default(),
        end_of_sequence: EndOfSequence::Ignore,
    }
}

/// Nanoseconds of one step.
fn step(engine: &mut Engine, clock: &Monotonic) -> u64 {
    let before = clock.now();
    let mut tokens = 0_u64;
    if let Err(error) = engine.step(&mut |_| tokens += 1) {
        println!("{error}");
    }
    clock.now().since(before).0
}

fn add(engine: &mut Engine, request: EngineRequest) {
    if let Err(error) = engine.add(request) {
        println!("{error}");
    }
}

/// Steps that decode all sequences; nobody finishes in so many.
fn decode(what: &str, engine: &mut Engine, clock: &Monotonic, steps: usize) {
    let mut nanos: Vec<u64> = (0..steps).map(|_| step(engine, clock)).collect();
    nanos.sort_unstable();
    let micros = |share: f64| nanos[(share * (nanos.len() - 1) as f64) as usize] as f64 / 1e3;
    println!(
        "scheduler overhead, {what}, {SEQUENCES} sequences: median {:.1} us, p99 {:.1} us, most {:.1} us a step",
        micros(0.5),
        micros(0.99),
        micros(1.0)
    );
}

fn main() {
    let clock = Monotonic::start();
    let engine = |num_kv_blocks: u32, max_num_seqs: usize, prefix_reuse: PrefixReuse| {
        let mut config = presets::find("llama-5m")?.config().ok()?;
        config.max_position_embeddings = 1 << 20;
        let shape = EngineShape { block_size: 16, num_kv_blocks, max_num_seqs, max_num_batched_tokens: 2048, prefix_reuse };
        Some(Engine::new(Box::new(Instant { config, steps: 0 }), shape))
    };
    for prefix_reuse in [PrefixReuse::On, PrefixReuse::Off] {
        let Some(mut engine) = engine(32_768, 256, prefix_reuse) else { return };
        for key in 0..SEQUENCES {
            add(&mut engine, request(key, PROMPT, OUTPUT));
        }
        while engine.counters().prefill_tokens < SEQUENCES * PROMPT {
            step(&mut engine, &clock);
        }
        // Contexts of 512 to about 1400 tokens.
        decode(&format!("prefix reuse {prefix_reuse:?}"), &mut engine, &clock, 850);
    }
    let Some(mut engine) = engine(14_000, 512, PrefixReuse::On) else { return };
    add(&mut engine, request(SEQUENCES, LONG, 1));
    while !engine.is_idle() {
        step(&mut engine, &clock);
    }
    let before = engine.counters().prefill_tokens;
    for key in 0..SEQUENCES {
        add(&mut engine, request(key, PROMPT, OUTPUT));
    }
    while engine.counters().prefill_tokens < before + SEQUENCES * PROMPT {
        step(&mut engine, &clock);
    }
    add(&mut engine, request(SEQUENCES, LONG, 1));
    decode("a long prompt waiting for blocks", &mut engine, &clock, 300);
    let waiting = engine.scheduler().sequences().filter(|sequence| sequence.block_table().is_empty()).count();
    println!("{waiting} waiting, {} preemptions", engine.counters().preemptions);
}
