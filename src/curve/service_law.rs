//! The service law of one replica, fitted from the measured levels of a run: what a step costs, and how far the fit is off.
//!
//! While sequences decode, the gap between two tokens is a step: a fixed cost, one for each decoding sequence, one for each
//! prompt token that is processed meanwhile. Each valid closed-loop level gives one equation in means; requests that were alone
//! give the cost of a prompt. Levels measured with other means than these (open loop) are left for the proof of the fit.

use serde::Serialize;

use crate::clock::Nanos;
use crate::queueing::law::BatchingLaw;
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;
use crate::stats::least_squares::costs;

/// Tokens of a step at most, where the target does not say: what engines usually take.
const USUAL_STEP_TOKENS: u32 = 2048;
/// Levels below which nothing is fitted: a law has two costs at least that only different loads tell apart.
const LEVELS_MIN: usize = 3;
/// Contexts of the levels differ by this factor or more, or the cost of a cached token cannot be told from that of a sequence (`bench --for-planner` measures several).
const CONTEXTS_DIFFER: f64 = 1.5;
/// Pairs of requests that a line is drawn through at most.
const PAIRS_MAX: usize = 400;

/// One request that was alone in the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alone {
    /// Its prompt, tokens.
    pub prompt_tokens: u32,
    /// Time to its first token from its sending, seconds.
    pub ttft_s: f64,
}

/// A level beside what the law makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FittedLevel {
    /// Order of measurement.
    pub index: u32,
    /// Sequences that decode at a time, mean, a replica.
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
/// themselves, as many as are at hand.
///
/// # Errors
/// When its levels determine no law.
pub fn fit(run: &RunRecord, replicas: f64, alone: &[Alone]) -> Result<FittedLaw, NoLaw> {
    let context = run.workload.mean_input_tokens + run.workload.mean_output_tokens / 2.0;
    let seen: Vec<Seen> = run.levels.iter().filter_map(|level| Seen::of(level, replicas, context)).collect();
    if seen.len() < LEVELS_MIN {
        return Err(NoLaw::FewLevels { run: run.id.clone(), levels: seen.len() });
    }
    let mut rows: Vec<([f64; 5], f64)> = Vec::new();
    // Unknowns: a step, a sequence, a prompt token, a cached token, the way. Every equation is divided by what was measured, so
    // that each is off by a share.
    let contexts = seen.iter().map(|level| level.context).fold((f64::INFINITY, 0.0_f64), |(low, high), one| (low.min(one), high.max(one)));
    let with_cache = f64::from(u8::from(contexts.1 >= CONTEXTS_DIFFER * contexts.0));
    for level in &seen {
        let terms = [1.0, level.decoding, level.prompt_tokens_per_step, with_cache * level.decoding * level.context, 0.0];
        rows.push((terms.map(|term| term / level.tpot_s), 1.0));
    }
    match line(alone) {
        Some(line) => {
            rows.push(([0.0, 0.0, 1.0 / line.per_token_s, 0.0, 0.0], 1.0));
            rows.push(([1.0 / line.at_zero_s, 0.0, 0.0, 0.0, 1.0 / line.at_zero_s], 1.0));
        }
        None => {
            // Prompts of one length do not tell the way from the work: all of it counts as work.
            for (prompt, ttft_s) in run.levels.iter().filter_map(|level| alone_in_means(level, run)) {
                rows.push(([1.0 / ttft_s, 0.0, prompt / ttft_s, 0.0, 0.0], 1.0));
            }
        }
    }
    let undetermined = || NoLaw::Undetermined { run: run.id.clone() };
    let [step_s, per_sequence_s, per_prefill_token_s, per_kv_token_s, overhead_s] =
        costs(&rows).filter(|costs| costs[0] > 0.0).ok_or_else(undetermined)?;
    let (limits, assumed) = limits(run);
    let law = BatchingLaw { step_s, per_sequence_s, per_prefill_token_s, per_kv_token_s, ..limits };
    let levels = seen.iter().map(|level| level.beside(&law)).collect();
    Ok(FittedLaw { law, overhead: Nanos::from_secs_f64(overhead_s), levels, assumed })
}

/// What a level says of steps, in means, a replica.
#[derive(Clone, Copy, Debug)]
struct Seen {
    index: u32,
    tpot_s: f64,
    decoding: f64,
    context: f64,
    prompt_tokens_per_step: f64,
}

impl Seen {
    fn of(level: &LevelRecord, replicas: f64, context: f64) -> Option<Self> {
        let closed = matches!(level.offered, Offered::Closed { .. });
        let context = match level.purpose {
            Purpose::Reference { .. } | Purpose::Sweep => context,
            Purpose::PlannerDecode { prompt_tokens, output_tokens } => f64::from(prompt_tokens) + f64::from(output_tokens) / 2.0,
            _ => return None,
        };
        if !(closed && level.verdict.is_valid() && level.target.preemptions == 0 && level.counts.failed.is_empty()) {
            return None;
        }
        let tpot_s = level.latency.tpot.raw.mean? / 1e3;
        if tpot_s <= 0.0 {
            return None;
        }
        let throughput = level.throughput;
        // Little's law of those that decode: each of them gets a token a step, and the first token is not theirs.
        let tokens_per_s = (throughput.output_tokens_per_s - throughput.completions_per_s).max(0.0) / replicas;
        Some(Self {
            index: level.index,
            tpot_s,
            decoding: tokens_per_s * tpot_s,
            context,
            prompt_tokens_per_step: throughput.prompt_tokens_per_s / replicas * tpot_s,
        })
    }

    fn beside(&self, law: &BatchingLaw) -> FittedLevel {
        let by_law = law.step_s
            + self.decoding * (law.per_sequence_s + law.per_kv_token_s * self.context)
            + self.prompt_tokens_per_step * law.per_prefill_token_s;
        FittedLevel { index: self.index, decoding: self.decoding, tpot_ms: self.tpot_s * 1e3, by_law_ms: by_law * 1e3 }
    }
}

/// Mean prompt and mean time to the first token, seconds, of a level with one request at a time.
fn alone_in_means(level: &LevelRecord, run: &RunRecord) -> Option<(f64, f64)> {
    let alone =
        matches!(level.offered, Offered::Closed { concurrency: 1 }) && matches!(level.purpose, Purpose::Reference { .. } | Purpose::Sweep);
    let ttft_s = level.latency.ttft_service.raw.mean.filter(|_| alone && level.verdict.is_valid())? / 1e3;
    (ttft_s > 0.0).then_some((run.workload.mean_input_tokens, ttft_s))
}

/// Time to the first token over the length of the prompt.
#[derive(Clone, Copy, Debug)]
struct Line {
    at_zero_s: f64,
    per_token_s: f64,
}

/// Through requests that were alone, by the median slope of their pairs (Theil and Sen), which a few slow ones do not move; `None`
/// where lengths do not differ, or tell nothing.
fn line(alone: &[Alone]) -> Option<Line> {
    let every = alone.len().div_ceil(PAIRS_MAX).max(1);
    let some: Vec<&Alone> = alone.iter().step_by(every).collect();
    let mut slopes = Vec::new();
    for (index, one) in some.iter().enumerate() {
        for other in &some[index + 1..] {
            let apart = f64::from(other.prompt_tokens) - f64::from(one.prompt_tokens);
            if apart != 0.0 {
                slopes.push((other.ttft_s - one.ttft_s) / apart);
            }
        }
    }
    let per_token_s = median(&mut slopes)?;
    let mut rests: Vec<f64> = some.iter().map(|one| one.ttft_s - per_token_s * f64::from(one.prompt_tokens)).collect();
    let at_zero_s = median(&mut rests)?;
    (per_token_s > 0.0 && at_zero_s > 0.0).then_some(Line { at_zero_s, per_token_s })
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
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
        max_batch: max_batch.max(1),
        chunk_tokens: chunk_tokens.max(1),
        kv_tokens: kv_tokens.max(1),
    };
    (costs, assumed)
}
