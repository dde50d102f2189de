//! The service law of one replica, fitted from the measured levels of a run: what a step costs, and how far the fit is off.
//!
//! While sequences decode, the gap between two tokens is a step: a fixed cost, one for each decoding sequence, one for each
//! prompt token that is processed meanwhile, and one for each token of either kind by how many there are. What the steps of a
//! closed-loop level were made of follows from the lengths of its calls, so each valid one gives an equation in means; requests that
//! were alone give what prompts cost. Levels in open loop are left for the proof of the fit.

pub mod alone;
mod equations;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Nanos;
use crate::curve::service_law::alone::Alone;
use crate::curve::service_law::equations::{Equations, Told};
use crate::queueing::bands::TokenPrices;
use crate::queueing::closed_loop::{Limits, LoopCall, StepMix, felt, others_like_them};
use crate::queueing::fleet::calls::Arrival;
use crate::queueing::law::BatchingLaw;
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;

/// Tokens of a step at most, where the target does not say: what engines usually take.
const USUAL_STEP_TOKENS: u32 = 2048;
/// Levels below which nothing is fitted: a law has two costs at least that only different loads tell apart.
const LEVELS_MIN: usize = 3;
/// Contexts of the levels differ by this factor or more, or the cost of a cached token cannot be told from that of a sequence (`bench --for-planner` measures several).
const CONTEXTS_DIFFER: f64 = 1.5;

/// The calls of levels in order of time, by order of measurement of their level.
pub type LevelCalls = BTreeMap<u32, Vec<Arrival>>;

/// A level beside what the law makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FittedLevel {
    /// Order of measurement.
    pub index: u32,
    /// Sequences that decode in a step, as a call sees it, mean, a replica.
    pub decoding: f64,
    /// Mean time per output token, milliseconds, as it was measured.
    pub tpot_ms: f64,
    /// By the law.
    pub by_law_ms: f64,
}

impl FittedLevel {
    /// How far the law is off, as a share of the measured value.
    #[must_use]
    pub fn off(&self) -> f64 {
        self.by_law_ms / self.tpot_ms - 1.0
    }
}

/// A service law and how well it fits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FittedLaw {
    /// Of one replica.
    pub law: BatchingLaw,
    /// What is added to a first token beside steps: the way to the target and back.
    #[serde(rename = "overhead_ns")]
    pub overhead: Nanos,
    /// The levels it was fitted to.
    pub levels: Vec<FittedLevel>,
    /// Limits of a batch that the target did not say and that are assumed, in words.
    pub assumed: Vec<String>,
}

impl FittedLaw {
    /// The largest share by which the law is off at a level it was fitted to.
    #[must_use]
    pub fn error(&self) -> f64 {
        self.levels.iter().map(|level| level.off().abs()).fold(0.0, f64::max)
    }
}

/// There is no law.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLaw {
    /// Too little was measured.
    #[error(
        "run `{run}` has {levels} valid levels of its sweep with a time per token, and a service law needs {LEVELS_MIN}. Run `plimsoll bench` to its end, with a workload whose answers have several tokens"
    )]
    FewLevels {
        /// Run id.
        run: String,
        /// Usable ones.
        levels: usize,
    },
    /// Nothing determines it.
    #[error(
        "the levels of run `{run}` do not determine a service law: time per token does not depend on load as steps over a batch would. Run `plimsoll bench` again on a quiet machine"
    )]
    Undetermined {
        /// Run id.
        run: String,
    },
}

/// Of one replica, where the target of `run` was `replicas` of them, 1 or more; `alone` are requests of it that had the target to
/// themselves, as many as are at hand, `calls` those of its levels, and `lengths` prompt and answer of the k-th call for a seed, for levels whose calls are not known.
///
/// # Errors
/// When its levels determine no law.
pub fn fit(
    run: &RunRecord,
    replicas: u32,
    alone: &[Alone],
    calls: &LevelCalls,
    lengths: &dyn Fn(u64, u64) -> (u32, u32),
) -> Result<FittedLaw, NoLaw> {
    let (limits, assumed) = limits(run);
    let seen: Vec<Seen> =
        run.levels.iter().filter_map(|level| Seen::of(level, replicas, &limits, calls.get(&level.index), lengths)).collect();
    if seen.len() < LEVELS_MIN {
        return Err(NoLaw::FewLevels { run: run.id.clone(), levels: seen.len() });
    }
    let mut alone = alone::groups(alone);
    if alone.is_empty() {
        alone = run.levels.iter().filter_map(|level| alone_in_means(level, run)).collect();
    }
    let contexts = seen.iter().map(Seen::context).fold((f64::INFINITY, 0.0_f64), |(low, high), one| (low.min(one), high.max(one)));
    let longest = alone.iter().map(|one| f64::from(one.prompt_tokens.min(limits.chunk_tokens)));
    let longest = longest.chain(seen.iter().map(|level| level.step.decoding)).fold(0.0, f64::max);
    let mut equations = Equations::new(Told {
        cached: contexts.1 >= CONTEXTS_DIFFER * contexts.0,
        way: alone::tell_the_way(&alone),
        last_band: Told::last_band(longest),
    });
    for level in &seen {
        equations.add(1.0, &level.step, false, level.tpot_s);
    }
    for one in &alone {
        let (steps, all) = alone::steps(one.prompt_tokens, limits.chunk_tokens);
        equations.add(steps, &all, true, one.ttft_s);
    }
    let (law, overhead) = equations.solve(&limits).ok_or_else(|| NoLaw::Undetermined { run: run.id.clone() })?;
    Ok(FittedLaw { law, overhead, levels: seen.iter().map(|level| level.beside(&law)).collect(), assumed })
}

/// What a level says of steps.
#[derive(Clone, Copy, Debug)]
struct Seen {
    index: u32,
    tpot_s: f64,
    /// Between two tokens of a call, in the mean.
    step: StepMix,
}

impl Seen {
    fn of(
        level: &LevelRecord,
        replicas: u32,
        limits: &BatchingLaw,
        calls: Option<&Vec<Arrival>>,
        lengths: &dyn Fn(u64, u64) -> (u32, u32),
    ) -> Option<Self> {
        let Offered::Closed { concurrency } = level.offered else { return None };
        if !(level.verdict.is_valid() && level.target.preemptions == 0 && level.counts.failed.is_empty()) {
            return None;
        }
        let tpot_s = level.latency.tpot.raw.mean.filter(|tpot_ms| *tpot_ms > 0.0)? / 1e3;
        let clients = (f64::from(concurrency) / f64::from(replicas)).round() as u32;
        let batch = Limits { max_batch: limits.max_batch, chunk_tokens: limits.chunk_tokens };
        // Several replicas share the calls in a way that nobody knows.
        let step = match (&level.purpose, calls) {
            (Purpose::Reference { .. } | Purpose::Sweep | Purpose::PlannerDecode { .. }, Some(calls)) if replicas == 1 => {
                let (from, to) = level.window;
                let of_loop =
                    |call: &Arrival| LoopCall { prompt: call.prompt, tokens: call.tokens, counts: from <= call.at && call.at < to };
                felt(clients, batch, calls.iter().map(of_loop))
            }
            (Purpose::Reference { .. } | Purpose::Sweep, _) => felt(clients, batch, others_like_them(clients, |k| lengths(level.seed, k))),
            (Purpose::PlannerDecode { prompt_tokens, output_tokens }, _) => {
                felt(clients, batch, others_like_them(clients, |_| (*prompt_tokens, *output_tokens)))
            }
            _ => None,
        }?;
        Some(Self { index: level.index, tpot_s, step })
    }

    /// Tokens in the cache of each sequence.
    fn context(&self) -> f64 {
        self.step.attended / self.step.decoding.max(1.0)
    }

    fn beside(&self, law: &BatchingLaw) -> FittedLevel {
        let StepMix { decoding, attended, prefill, by_band } = self.step;
        let by_law = law.step_s
            + law.per_sequence_s * decoding
            + law.per_kv_token_s * attended
            + law.per_prefill_token_s * prefill
            + by_band.iter().zip(law.per_token_s.0).map(|(tokens, price)| tokens * price).sum::<f64>();
        FittedLevel { index: self.index, decoding, tpot_ms: self.tpot_s * 1e3, by_law_ms: by_law * 1e3 }
    }
}

/// The mean request of a level with one at a time.
fn alone_in_means(level: &LevelRecord, run: &RunRecord) -> Option<Alone> {
    let alone =
        matches!(level.offered, Offered::Closed { concurrency: 1 }) && matches!(level.purpose, Purpose::Reference { .. } | Purpose::Sweep);
    let ttft_s = level.latency.ttft_service.raw.mean.filter(|ttft_ms| alone && level.verdict.is_valid() && *ttft_ms > 0.0)? / 1e3;
    Some(Alone { prompt_tokens: (run.workload.mean_input_tokens.round() as u32).max(1), ttft_s })
}

/// What bounds a batch: as the target says, or assumed.
fn limits(run: &RunRecord) -> (BatchingLaw, Vec<String>) {
    let told = run.target.batch;
    let mut assumed = Vec::new();
    let most_in_flight = run.levels.iter().filter(|level| level.verdict.is_valid()).map(|level| level.in_flight.max).max().unwrap_or(1);
    let max_batch = told.max_sequences.unwrap_or_else(|| {
        let most = u32::try_from(most_in_flight).unwrap_or(u32::MAX).max(1);
        assumed.push(format!("{most} sequences in a batch: the most that were in flight"));
        most
    });
    let chunk_tokens = told.max_step_tokens.unwrap_or_else(|| {
        assumed.push(format!("{USUAL_STEP_TOKENS} tokens in a step"));
        USUAL_STEP_TOKENS
    });
    let kv_tokens = told.kv_tokens.unwrap_or_else(|| {
        assumed.push("a KV cache that is never full".to_owned());
        u64::from(u32::MAX)
    });

    let costs = BatchingLaw {
        step_s: 0.0,
        per_sequence_s: 0.0,
        per_prefill_token_s: 0.0,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: max_batch.max(1),
        chunk_tokens: chunk_tokens.max(1),
        kv_tokens: kv_tokens.max(1),
    };
    (costs, assumed)
}
