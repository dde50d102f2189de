//! What `--for-planner` measured, as points: a prefill alone, and a decoded token at a context with so many sequences at one replica.
//!
//! Medians stand for both. The median gap between tokens is that of a step that only decodes, as long as fewer than half of the steps
//! carry a piece of another request's prompt; a level where more do is left out.

use serde::Serialize;

use crate::interchange::error::ExportError;
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;

/// Share of the prompt tokens that may have come from the prefix cache.
const CACHED: f64 = 0.01;
/// A server that runs less than this share of the requests in flight lets the others wait: its steps have fewer sequences.
const RAN: f64 = 0.8;
/// What to do about anything that a run lacks here.
pub(super) const MEASURE: &str = "Measure with `plimsoll bench --for-planner`";

/// A prefill by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrefillPoint {
    /// Index of its level.
    pub level: u32,
    /// Prompt tokens.
    pub tokens: u32,
    /// Median time from the send to the first token, milliseconds.
    pub ttft_ms: f64,
    /// 90th percentile of it.
    pub ttft_p90_ms: f64,
}

/// A decoded token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DecodePoint {
    /// Index of its level.
    pub level: u32,
    /// Tokens of prompt and half of the answer: the mean context of a sequence that decodes.
    pub context: f64,
    /// Sequences at one replica.
    pub concurrency: f64,
    /// Median gap between tokens, milliseconds.
    pub itl_ms: f64,
    /// 90th percentile of it.
    pub itl_p90_ms: f64,
    /// Share of the KV cache that they fill; `None` where its size is not known.
    pub kv_usage: Option<f64>,
    /// Output tokens/s per GPU over the level's window, prefills between the steps included.
    pub measured_tokens_per_s_per_gpu: f64,
}

/// A level that gave no point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Its index.
    pub level: u32,
    /// What it was measured for.
    pub purpose: String,
    /// Why it is left out.
    pub why: String,
}

/// The points of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Points {
    /// By rising length, each length once.
    pub prefill: Vec<PrefillPoint>,
    /// In order of measurement.
    pub decode: Vec<DecodePoint>,
    /// What gave none.
    pub dropped: Vec<Dropped>,
    /// Tokens that the KV cache of one replica holds.
    pub kv_tokens: Option<u64>,
    /// GPUs of one replica.
    pub gpus_per_replica: u32,
}

impl Points {
    /// Of these levels of a run; `kv_tokens` is what somebody states, and wins over what the run knows.
    #[must_use]
    pub fn of(run: &RunRecord, levels: &[&LevelRecord], kv_tokens: Option<u64>) -> Self {
        let (replicas, gpus_per_replica) = replicas(run);
        let kv_tokens = kv_tokens.or(run.target.batch.kv_tokens).filter(|tokens| *tokens > 0);
        let mut points = Self { prefill: Vec::new(), decode: Vec::new(), dropped: Vec::new(), kv_tokens, gpus_per_replica };
        for level in levels {
            if let Err(why) = points.take(run, level, replicas) {
                points.dropped.push(Dropped { level: level.index, purpose: level.purpose.to_string(), why });
            }
        }
        points.prefill.sort_by_key(|point| (point.tokens, point.level));
        points.prefill.dedup_by_key(|point| point.tokens);
        points
    }

    fn take(&mut self, run: &RunRecord, level: &LevelRecord, replicas: u32) -> Result<(), String> {
        let Some((prompt, output)) = level.purpose.lengths() else { return Ok(()) };
        if !level.verdict.is_valid() {
            return Err(level.verdict.to_string());
        }
        let cached = level.target.cached_tokens as f64 / (level.traffic.prompt_tokens as f64).max(1.0);
        if cached > CACHED {
            return Err(format!("{:.0} % of the prompt tokens came from the prefix cache", cached * 100.0));
        }
        if level.counts.completed == 0 {
            return Err("no request completed".to_owned());
        }
        let figure = |value: Option<f64>, name: &str| value.filter(|value| *value > 0.0).ok_or_else(|| format!("it has no {name}"));
        if let Purpose::PlannerPrefill { .. } = level.purpose {
            let ttft = &level.latency.ttft_service.raw;
            let ttft_ms = figure(ttft.p50, "TTFT")?;
            let point = PrefillPoint { level: level.index, tokens: prompt, ttft_ms, ttft_p90_ms: ttft.p90.unwrap_or(ttft_ms) };
            self.prefill.push(point);
            return Ok(());
        }
        let Offered::Closed { concurrency } = level.offered else { return Err("it is an open loop".to_owned()) };
        if let Some(ran) = level.server.as_ref().and_then(|server| server.running.value()).map(|running| running.mean)
            && ran < RAN * f64::from(concurrency)
        {
            return Err(format!("by its own counter the server ran {ran:.1} of {concurrency} requests at once"));
        }
        let concurrency = f64::from(concurrency) / f64::from(replicas);
        let steps = run.target.batch.max_step_tokens.map_or(1, |tokens| prompt.div_ceil(tokens.max(1)));
        if concurrency * f64::from(steps) > 0.5 * f64::from(output) {
            return Err("more than half of its steps carry a piece of another prompt".to_owned());
        }
        if level.target.preemptions > 0 {
            return Err(format!("{} sequences lost their place in the KV cache", level.target.preemptions));
        }
        let context = f64::from(prompt) + 0.5 * f64::from(output);
        let kv_usage = self.kv_tokens.map(|tokens| concurrency * context / tokens as f64);
        if let Some(usage) = kv_usage.filter(|usage| *usage > 1.0) {
            return Err(format!("KV usage above 1: {usage:.2}"));
        }
        let itl = &level.latency.itl_per_token;
        let itl_ms = figure(itl.p50, "gap between tokens")?;
        self.decode.push(DecodePoint {
            level: level.index,
            context,
            concurrency,
            itl_ms,
            itl_p90_ms: itl.p90.unwrap_or(itl_ms),
            kv_usage,
            measured_tokens_per_s_per_gpu: level.per_device.output_tokens_per_s,
        });
        Ok(())
    }

    /// Distinct contexts of decode points, rising.
    #[must_use]
    pub fn contexts(&self) -> Vec<f64> {
        let mut contexts: Vec<f64> = self.decode.iter().map(|point| point.context).collect();
        contexts.sort_by(f64::total_cmp);
        contexts.dedup();
        contexts
    }

    /// Refuses fewer than `prefill` lengths, `decode` points or `contexts`.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn require(&self, run: &RunRecord, format: &'static str, least: Least) -> Result<(), ExportError> {
        let lack = |lacks: String| Err(ExportError::Lacks { run: run.id.clone(), format, lacks, remedy: self.remedy() });
        let (prefill, decode, contexts) = (self.prefill.len(), self.decode.len(), self.contexts().len());
        let n = |count: usize, what: &str| if count == 1 { format!("one {what}") } else { format!("{count} {what}s") };
        if prefill < least.prefill {
            return lack(format!("it has {} measured alone, and {} are needed at least", n(prefill, "prompt length"), least.prefill));
        }
        if contexts < least.contexts {
            let fewer = n(contexts, "context");
            return lack(format!("its decode levels have {fewer}, and {} are needed to tell context from concurrency", least.contexts));
        }
        if decode < least.decode {
            return lack(format!("it has {}, and {} are needed at least", n(decode, "valid decode level"), least.decode));
        }
        Ok(())
    }

    fn remedy(&self) -> String {
        match self.dropped.first() {
            Some(first) => {
                format!("{MEASURE} again: {} levels are left out, level {} because {}", self.dropped.len(), first.level, first.why)
            }
            None => MEASURE.to_owned(),
        }
    }
}

/// How much a form needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Least {
    /// Prompt lengths measured alone.
    pub prefill: usize,
    /// Decode points.
    pub decode: usize,
    /// Contexts among them.
    pub contexts: usize,
}

/// Replicas that the run measured side by side, and GPUs of each: as the run's plan says, else a device of the built-in engine is one,
/// and a server is one whatever it computes on.
#[must_use]
pub fn replicas(run: &RunRecord) -> (u32, u32) {
    let devices = run.target.devices.max(1);
    let otherwise = if run.target.kind == "server" { devices } else { 1 };
    let gpus = run.demand.gpus_per_replica.filter(|gpus| *gpus > 0 && devices.is_multiple_of(*gpus)).unwrap_or(otherwise);
    (devices / gpus, gpus)
}
