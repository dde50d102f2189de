//! How a simulated system serves, as data.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::queueing::bands::TokenPrices;
use crate::rng;

/// No service is shorter than a tick of the clock, seconds.
const SHORTEST_S: f64 = 1e-9;

/// How long one job is served.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "distribution", deny_unknown_fields)]
pub enum ServiceTime {
    /// Always the same.
    Deterministic {
        /// Seconds, above 0.
        mean_s: f64,
    },
    /// Memoryless.
    Exponential {
        /// Seconds, above 0.
        mean_s: f64,
    },
    /// The sum of `stages` exponential times: more regular than exponential.
    Erlang {
        /// Seconds, above 0, of the whole sum.
        mean_s: f64,
        /// 1 or more.
        stages: u32,
    },
}

impl ServiceTime {
    /// Mean, seconds.
    #[must_use]
    pub fn mean_s(&self) -> f64 {
        match *self {
            Self::Deterministic { mean_s } | Self::Exponential { mean_s } | Self::Erlang { mean_s, .. } => mean_s,
        }
    }

    /// The service time of job `id`, seconds: a function of seed and id alone, whatever the load (common random numbers).
    #[must_use]
    pub fn sample_s(&self, seed: u64, id: u64) -> f64 {
        match *self {
            Self::Deterministic { mean_s } => mean_s,
            Self::Exponential { mean_s } => -mean_s * (-rng::uniform_at(seed, id)).ln_1p(),
            Self::Erlang { mean_s, stages } => {
                let own = rng::at(seed, id);
                let sum: f64 = (0..u64::from(stages.max(1))).map(|stage| -(-rng::uniform_at(own, stage)).ln_1p()).sum();
                sum * mean_s / f64::from(stages.max(1))
            }
        }
    }
}

/// Continuous batching as an engine does it: steps, each over all running sequences.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchingLaw {
    /// Fixed cost of a step, seconds: reading the weights.
    pub step_s: f64,
    /// Cost of each decoding sequence in a step, seconds.
    pub per_sequence_s: f64,
    /// Cost of each prompt token processed in a step, seconds.
    pub per_prefill_token_s: f64,
    /// Cost of each cached token that the decoding sequences of a step attend to, seconds.
    #[serde(default)]
    pub per_kv_token_s: f64,
    /// Cost of each token of a step, decoded or of a prompt, beside those above, by how many the step has.
    #[serde(default)]
    pub per_token_s: TokenPrices,
    /// Most sequences running at once, 1 or more.
    pub max_batch: u32,
    /// Most tokens in a step (decoded ones count 1 each, prompts are cut into chunks), 1 or more.
    pub chunk_tokens: u32,
    /// Tokens the KV cache holds. A sequence alone is never preempted, even where it outgrows this.
    pub kv_tokens: u64,
}

impl BatchingLaw {
    /// Seconds of a step that decodes one token of `decoding` sequences, which have `attended` tokens in the cache by then, and
    /// processes `prefill` prompt tokens.
    #[must_use]
    pub fn step_of(&self, decoding: u64, attended: u64, prefill: u64) -> f64 {
        self.step_s
            + self.per_sequence_s * decoding as f64
            + self.per_kv_token_s * attended as f64
            + self.per_prefill_token_s * prefill as f64
            + self.per_token_s.of(decoding + prefill)
    }

    /// The same law, each cost `factor` times as much.
    #[must_use]
    pub fn slower(&self, factor: f64) -> Self {
        Self {
            step_s: self.step_s * factor,
            per_sequence_s: self.per_sequence_s * factor,
            per_prefill_token_s: self.per_prefill_token_s * factor,
            per_kv_token_s: self.per_kv_token_s * factor,
            per_token_s: self.per_token_s.times(factor),
            ..*self
        }
    }
}

/// How a replica serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "law", deny_unknown_fields)]
pub enum ServiceLaw {
    /// A queue in order of arrival before `count` equal servers; a job's tokens are spread evenly over its service.
    Servers {
        /// 1 or more.
        count: u32,
        /// Of one job on one server.
        service: ServiceTime,
    },
    /// Continuous batching.
    Batching(BatchingLaw),
    /// As `otherwise`, but nothing is served from `at` for `length`: a target that stalls.
    Stall {
        /// When it stops, on the replica's clock.
        at: Nanos,
        /// For how long.
        length: Nanos,
        /// What it does at all other times.
        otherwise: Box<ServiceLaw>,
    },
}

impl ServiceLaw {
    /// Whether every value makes sense.
    ///
    /// # Errors
    /// The value that does not, in words.
    pub fn check(&self) -> Result<(), String> {
        let time = |name: &str, seconds: f64, least: f64| {
            let fine = seconds >= least && seconds < 1e6;
            if fine { Ok(()) } else { Err(format!("`{name}` is `{seconds}` and must be a time in seconds, {least} or more")) }
        };
        let count = |name: &str, count: u64| if count > 0 { Ok(()) } else { Err(format!("`{name}` is `0` and must be 1 or more")) };
        match self {
            Self::Servers { count: servers, service } => {
                count("count", u64::from(*servers))?;
                if let ServiceTime::Erlang { stages, .. } = service {
                    count("stages", u64::from(*stages))?;
                }
                time("mean_s", service.mean_s(), SHORTEST_S)
            }
            Self::Batching(law) => {
                time("step_s", law.step_s, SHORTEST_S)?;
                time("per_sequence_s", law.per_sequence_s, 0.0)?;
                time("per_prefill_token_s", law.per_prefill_token_s, 0.0)?;
                time("per_kv_token_s", law.per_kv_token_s, 0.0)?;
                law.per_token_s.0.iter().try_for_each(|price| time("per_token_s", *price, 0.0))?;
                count("max_batch", u64::from(law.max_batch))?;
                count("chunk_tokens", u64::from(law.chunk_tokens))?;
                count("kv_tokens", law.kv_tokens)
            }
            Self::Stall { otherwise, .. } => otherwise.check(),
        }
    }
}

/// The spans in which nothing is served, in order of time and without overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalls(Vec<(Nanos, Nanos)>);

impl Stalls {
    /// Takes the stalls off `law`: the law beneath, and the spans.
    pub(crate) fn peel(mut law: ServiceLaw) -> (ServiceLaw, Self) {
        let mut spans = Vec::new();
        while let ServiceLaw::Stall { at, length, otherwise } = law {
            spans.push((at, at + length));
            law = *otherwise;
        }
        spans.sort_unstable();
        let mut merged: Vec<(Nanos, Nanos)> = Vec::with_capacity(spans.len());
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        (law, Self(merged))
    }

    /// When work of `length` that starts at `start` is done.
    #[inline]
    pub(crate) fn done(&self, start: Nanos, length: Nanos) -> Nanos {
        let mut done = start + length;
        for &(from, to) in &self.0 {
            if start < to && done > from {
                done += to.since(start.max(from));
            }
        }
        done
    }
}
