//! What a prompt token and an answer token cost of an engine's time, found from the levels of a run.
//!
//! A step with `n` sequences takes `T(n) = alpha + n (beta tc + gamma tm)`, as in [`crate::capacity::state_queue`], `tc = (in + out) / (out + 1)`, `tm = in + out / 2`. Of a
//! closed-loop level with `n` in flight the mean TPOT is `T(n) + beta + gamma tm`; of the reference level, which has the engine to itself, the mean
//! TTFT is one step with the whole prompt, `alpha + (beta + gamma) in`. The three are found by least squares of relative errors,
//! none of them below 0.

use serde::Serialize;

use crate::capacity::mix::TokenMix;
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;
use crate::stats::least_squares;

/// A fit that misses a level by more than this share says nothing of costs.
const WORST: f64 = 0.35;
/// Levels of the sweep that it needs at least.
const FEWEST: usize = 3;

/// Costs per step and per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepCost {
    /// Milliseconds of a step that does nothing.
    pub alpha_ms: f64,
    /// Milliseconds per token computed.
    pub beta_ms: f64,
    /// Milliseconds per token of context read.
    pub gamma_ms: f64,
    /// Sequences in the batch at the published rate: a step is shared among so many.
    pub batch: f64,
    /// Lengths that it was measured with.
    pub measured: TokenMix,
    /// Levels it was found from, the reference included.
    pub levels: u32,
    /// Largest relative error on one of them.
    pub worst: f64,
}

/// One level as an equation: its parts of `(alpha, beta, gamma)` and what they come to, both over the measured milliseconds.
type Equation = ([f64; 3], f64);

fn equation(parts: [f64; 3], ms: f64) -> Equation {
    (parts.map(|part| part / ms), 1.0)
}

impl StepCost {
    /// From the valid reference and sweep levels of a run, for a batch of `batch` sequences per replica; `None` where there are too few,
    /// or they do not fit the law.
    #[must_use]
    pub fn fit(run: &RunRecord, gpus_of_replica: u32, batch: f64) -> Option<Self> {
        let mix = TokenMix { input: run.workload.mean_input_tokens, output: run.workload.mean_output_tokens };
        if !(mix.input > 0.0 && mix.output > 1.0 && batch > 0.0) {
            return None;
        }
        let most = run.target.batch.max_sequences.map_or(f64::INFINITY, f64::from);
        let valid = || run.levels.iter().filter(|level| level.verdict.is_valid());
        let references: Vec<Equation> = valid().filter_map(|level| prefill(level, mix)).collect();
        let mut decoding: Vec<(f64, Equation)> = valid().filter_map(|level| decode(level, mix, gpus_of_replica, most)).collect();
        decoding.sort_by(|one, other| one.0.total_cmp(&other.0));
        // Where nobody says how many sequences a batch holds, the law ends where they wait instead of slowing each other down.
        while !references.is_empty() && decoding.len() >= FEWEST {
            let equations: Vec<Equation> = references.iter().copied().chain(decoding.iter().map(|(_, equation)| *equation)).collect();
            let fitted = fitted(&equations, mix, batch);
            if fitted.is_some() {
                return fitted;
            }
            decoding.pop();
        }
        None
    }

    /// Prompt tokens/s of a replica that does nothing else.
    #[must_use]
    pub fn prompt_tokens_per_s(&self) -> f64 {
        1000.0 / (self.beta_ms + self.gamma_ms)
    }

    /// Answer tokens/s of a replica that does nothing else, in the batch and at the context of the measurement.
    #[must_use]
    pub fn answer_tokens_per_s(&self) -> f64 {
        1000.0 / self.answer_token_ms(self.measured)
    }

    fn answer_token_ms(&self, mix: TokenMix) -> f64 {
        self.alpha_ms / self.batch + self.beta_ms + self.gamma_ms * (mix.input + mix.output / 2.0)
    }

    /// Engine time of one call, milliseconds: `in / P + out / D`.
    #[must_use]
    pub fn call_ms(&self, mix: TokenMix) -> f64 {
        mix.input * (self.beta_ms + self.gamma_ms) + mix.output * self.answer_token_ms(mix)
    }
}

fn fitted(equations: &[Equation], mix: TokenMix, batch: f64) -> Option<StepCost> {
    let found = least_squares::costs(equations)?;
    let worst = least_squares::worst(equations, &found);
    let [alpha_ms, beta_ms, gamma_ms] = found;
    let cost = StepCost { alpha_ms, beta_ms, gamma_ms, batch, measured: mix, levels: equations.len() as u32, worst };
    (worst <= WORST && beta_ms + gamma_ms > 0.0 && cost.call_ms(mix) > 0.0).then_some(cost)
}

/// The reference level: a prompt that has the engine to itself.
fn prefill(level: &LevelRecord, mix: TokenMix) -> Option<Equation> {
    let is_reference = matches!(level.purpose, Purpose::Reference { .. });
    let ms = level.latency.ttft.raw.mean.filter(|ms| is_reference && *ms > 0.0)?;
    Some(equation([1.0, mix.input, mix.input], ms))
}

/// A level of the sweep whose batch held all that was in flight, by how many those were.
fn decode(level: &LevelRecord, mix: TokenMix, gpus_of_replica: u32, most: f64) -> Option<(f64, Equation)> {
    let Offered::Closed { concurrency } = level.offered else { return None };
    let replicas = f64::from(level.per_device.devices.max(1)) / f64::from(gpus_of_replica);
    let batch = (f64::from(concurrency) / replicas).max(1.0);
    let ms = level.latency.tpot.raw.mean.filter(|ms| level.purpose == Purpose::Sweep && batch <= most && *ms > 0.0)?;
    let computed = (mix.input + mix.output) / (mix.output + 1.0);
    let context = mix.input + mix.output / 2.0;
    Some((batch, equation([1.0, batch * computed + 1.0, (batch + 1.0) * context], ms)))
}
