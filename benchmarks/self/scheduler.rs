//! What the engine itself costs a step beside the model: scheduling, building the batch, taking the tokens.
//!
//! Run with `cargo bench --bench scheduler`. The forward pass here does nothing, so all that is measured is
//! overhead; the promise is under 50 microseconds a step at 256 sequences.

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

fn request(key: u64) -> EngineRequest {
    EngineRequest {
        key,
        prompt: (0..PROMPT).map(|place| (rng::at(key, place) % 4096) as u32).collect(),
        max_new_tokens: OUTPUT,
        sampling: Sampling::default(),
        end_of_sequence: EndOfSequence::Ignore,
    }
}

fn main() {
    let clock = Monotonic::start();
    for prefix_reuse in [PrefixReuse::On, PrefixReuse::Off] {
        let Some(Ok(config)) = presets::find("llama-5m").map(|preset| preset.config()) else { return };
        let shape = EngineShape { block_size: 16, num_kv_blocks: 32_768, max_num_seqs: 256, max_num_batched_tokens: 2048, prefix_reuse };
        let mut engine = Engine::new(Box::new(Instant { config, steps: 0 }), shape);
        for key in 0..SEQUENCES {
            if let Err(error) = engine.add(request(key)) {
                println!("{error}");
            }
        }
        let step = |engine: &mut Engine| {
            let before = clock.now();
            let mut tokens = 0_u64;
            let _ = engine.step(&mut |_| tokens += 1);
            clock.now().since(before).0
        };
        while engine.counters().prefill_tokens < SEQUENCES * PROMPT {
            step(&mut engine);
        }
        // Nobody has finished yet: every step decodes all sequences, over contexts of 512 to about 1400 tokens.
        let mut nanos: Vec<u64> = (0..850).map(|_| step(&mut engine)).collect();
        nanos.sort_unstable();
        let micros = |share: f64| nanos[(share * (nanos.len() - 1) as f64) as usize] as f64 / 1e3;
        println!(
            "scheduler overhead, prefix reuse {prefix_reuse:?}, {SEQUENCES} sequences: median {:.1} us, p99 {:.1} us, most {:.1} us a step",
            micros(0.5),
            micros(0.99),
            micros(1.0)
        );
    }
}
