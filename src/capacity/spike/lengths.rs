//! How long the prompts and answers of simulated calls are.

use crate::record::run::RunRecord;
use crate::rng;
use crate::workload::lengths::Distribution;
use crate::workload::mix::Lengths as MixLengths;

/// Where lengths come from.
#[derive(Clone, Debug, PartialEq)]
pub enum CallLengths {
    /// Prompt and answer of calls that were really made, drawn with replacement: what hangs together stays together.
    Seen(Vec<(u32, u32)>),
    /// Each from a distribution of its own.
    Drawn {
        /// Prompt tokens.
        prompt: Distribution,
        /// Answer tokens.
        answer: Distribution,
    },
}

impl CallLengths {
    /// Of the calls that a run made: as they are at hand, else by the quantiles that it kept.
    #[must_use]
    pub fn of_run(run: &RunRecord, seen: Vec<(u32, u32)>) -> Self {
        if !seen.is_empty() {
            return Self::Seen(seen);
        }
        let workload = &run.workload;
        match &workload.mix {
            Some(mix) => Self::Drawn { prompt: through(&mix.input_tokens), answer: through(&mix.output_tokens) },
            None => Self::Drawn { prompt: fixed(workload.mean_input_tokens), answer: fixed(workload.mean_output_tokens) },
        }
    }

    /// Prompt and answer of call `k`, each 1 or more.
    #[must_use]
    pub fn of_call(&self, seed: u64, k: u64) -> (u32, u32) {
        let (prompt, answer) = match self {
            Self::Seen(calls) => calls[(rng::uniform_at(seed, k) * calls.len() as f64) as usize % calls.len()],
            Self::Drawn { prompt, answer } => (prompt.draw(rng::derive(seed, "prompt"), k), answer.draw(rng::derive(seed, "answer"), k)),
        };
        (prompt.max(1), answer.max(1))
    }

    /// In words, for the report.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Seen(calls) => format!("prompt and answer of {} calls of the run, drawn with replacement", calls.len()),
            Self::Drawn { prompt, answer } => {
                format!("mean {:.0} prompt and {:.0} answer tokens, by the quantiles that were kept", prompt.mean(), answer.mean())
            }
        }
    }
}

fn fixed(mean: f64) -> Distribution {
    Distribution::Fixed((mean.round() as u32).max(1))
}

/// Straight lines through the quantiles that are known, from below the median to the longest, with the mean that is known.
fn through(lengths: &MixLengths) -> Distribution {
    let MixLengths { mean, p50, p95, p99, max } = *lengths;
    if p50 >= max {
        return fixed(mean);
    }
    // The shortest is the one unknown left: as the mean wants it.
    let upper = 0.45 * f64::midpoint(f64::from(p50), f64::from(p95))
        + 0.04 * f64::midpoint(f64::from(p95), f64::from(p99))
        + 0.01 * f64::midpoint(f64::from(p99), f64::from(max));
    let shortest = (2.0 * (mean - upper) / 0.5 - f64::from(p50)).round().clamp(1.0, f64::from(p50)) as u32;
    Distribution::Quantiles(vec![(0.0, shortest), (0.5, p50), (0.95, p95.max(p50)), (0.99, p99.max(p95)), (1.0, max)])
}
